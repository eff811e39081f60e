//! From records to the one message in them (RFC 8446 §5.1).

use super::{HELLO_BYTES_MAX, NoHello};

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Of a record: type, version, length.
const RECORD_HEAD: usize = 5;
/// Of a handshake message: type, length.
const MESSAGE_HEAD: usize = 4;
/// RFC 8446 §5.1.
const FRAGMENT_MAX: usize = 1 << 14;

/// The body of the ClientHello, as soon as all of it is here.
pub(super) fn message<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Option<&'a [u8]>, NoHello> {
    let Some(first) = fragment(bytes)? else { return Ok(None) };
    let whole = first.len() >= MESSAGE_HEAD && length_of(first)?.is_some_and(|length| first.len() >= length);
    if whole {
        return body(first);
    }
    scratch.clear();
    let mut rest = bytes;
    // What begins as TLS and goes on as something else is broken TLS.
    while let Some(here) = fragment(rest).map_err(|_| NoHello::Malformed)? {
        scratch.extend_from_slice(here);
        let complete = rest.len() - RECORD_HEAD >= announced(rest);
        if length_of(scratch)?.is_some_and(|length| scratch.len() >= length) {
            return body(scratch);
        }
        if !complete {
            break;
        }
        rest = &rest[RECORD_HEAD + here.len()..];
    }
    Ok(None)
}

/// What is here of the next record's content; `None`: not even its head is.
fn fragment(bytes: &[u8]) -> Result<Option<&[u8]>, NoHello> {
    let judged = bytes.len().min(2);
    // The minor version says nothing (RFC 8446 §5.1): some say 3.1 there, some 3.3.
    if bytes[..judged] != [HANDSHAKE, 3][..judged] {
        return Err(NoHello::NotTls);
    }
    if bytes.len() < RECORD_HEAD {
        return Ok(None);
    }
    let length = announced(bytes);
    if length == 0 || length > FRAGMENT_MAX {
        return Err(NoHello::Malformed);
    }
    let content = &bytes[RECORD_HEAD..];
    Ok(Some(&content[..content.len().min(length)]))
}

fn announced(record: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([record[3], record[4]]))
}

/// The whole message's length, once its head is here.
fn length_of(message: &[u8]) -> Result<Option<usize>, NoHello> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(NoHello::Malformed);
    }
    let [_, high, middle, low, ..] = *message else { return Ok(None) };
    let length = MESSAGE_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > HELLO_BYTES_MAX - RECORD_HEAD { Err(NoHello::TooLong) } else { Ok(Some(length)) }
}

fn body(message: &[u8]) -> Result<Option<&[u8]>, NoHello> {
    Ok(length_of(message)?.and_then(|length| message.get(MESSAGE_HEAD..length)))
}
