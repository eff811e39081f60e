//! The opening handshake over HTTP/1.1 (RFC 6455 §4): the values of its fields. Over HTTP/2 and HTTP/3 there is no key, for extended
//! CONNECT does its part (RFC 8441 §5, RFC 9220); version and extensions are the same.

use super::sha1::sha1;
use crate::http::{is_token, list, trim};

/// The one value of `Sec-WebSocket-Version` that is spoken; it also tells a client so, beside 426 (RFC 6455 §4.4).
pub const VERSION: &[u8] = b"13";

/// `Sec-WebSocket-Key`: sixteen bytes in base64.
pub type Key = [u8; 24];

/// A client's key, if it is one (RFC 6455 §4.2.1). Bits beyond the sixteenth byte may be set, as all servers have it: the text is what is
/// hashed, so nobody can understand it differently.
pub fn parse_key(value: &[u8]) -> Option<&Key> {
    let key: &Key = value.try_into().ok()?;
    let digits = key.strip_suffix(b"==")?;
    digits.iter().all(|digit| BASE64.contains(digit)).then_some(key)
}

/// The key that stands for `nonce`, which must be random (RFC 6455 §4.1), for a handshake of our own.
pub fn key_of(nonce: [u8; 16]) -> Key {
    base64(&nonce)
}

/// `Sec-WebSocket-Accept`: what a server answers to `key` (RFC 6455 §4.2.2).
///
/// ```
/// let key = proto::ws::parse_key(b"dGhlIHNhbXBsZSBub25jZQ==").expect("it is the key of RFC 6455 §1.3");
/// assert_eq!(&proto::ws::accept_of(key), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_of(key: &Key) -> [u8; 28] {
    let mut text = [0; 60];
    text[..24].copy_from_slice(key);
    text[24..].copy_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(&sha1(&text))
}

/// What a server's answer agrees to, as far as frames are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extensions {
    None,
    /// permessage-deflate (RFC 7692) and nothing else.
    Deflate,
    /// Another one, or what is not well-formed: nobody can say what reserved bits and opcodes mean there.
    Unknown,
}

impl Extensions {
    /// Reads the values of a response's `Sec-WebSocket-Extensions` (RFC 6455 §9.1), of which there are none if it has no such field.
    pub fn agreed<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut agreed = Self::None;
        for extension in values.into_iter().flat_map(list) {
            agreed = if agreed == Self::None && is_deflate(extension) { Self::Deflate } else { return Self::Unknown };
        }
        agreed
    }
}

fn is_deflate(extension: &[u8]) -> bool {
    let mut parts = extension.split(|&byte| byte == b';').map(trim);
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"permessage-deflate")) && parts.all(is_parameter)
}

/// A name, or a name and a value, quoted or not: between quotes stands a token as well (RFC 6455 §9.1), so no quote hides a comma or a
/// semicolon.
fn is_parameter(text: &[u8]) -> bool {
    let mut sides = text.splitn(2, |&byte| byte == b'=').map(trim);
    sides.next().is_some_and(is_token) && sides.all(|value| is_token(unquoted(value)))
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inside @ .., b'"'] => inside,
        plain => plain,
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648 §4. `N` is the length of the text: four characters for each three bytes that are begun.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut text = [b'='; N];
    for (digits, bytes) in text.chunks_mut(4).zip(bytes.chunks(3)) {
        let group = bytes.iter().enumerate().fold(0, |group, (at, &byte)| group | u32::from(byte) << (16 - 8 * at));
        for (at, digit) in digits.iter_mut().take(bytes.len() + 1).enumerate() {
            *digit = BASE64[(group >> (18 - 6 * at) & 63) as usize];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4648_section_10() {
        assert_eq!(&base64::<0>(b""), b"");
        assert_eq!(&base64::<4>(b"f"), b"Zg==");
        assert_eq!(&base64::<4>(b"fo"), b"Zm8=");
        assert_eq!(&base64::<4>(b"foo"), b"Zm9v");
        assert_eq!(&base64::<8>(b"foobar"), b"Zm9vYmFy");
        assert_eq!(&base64::<4>(&[0xfb, 0xff, 0xbf]), b"+/+/");
    }

    #[test]
    fn keys() {
        for key in [
            "dGhlIHNhbXBsZSBub25jZQ==",
            "AQIDBAUGBwgJCgsMDQ4PEC==",
            "AQIDBAUGBwgJCgsMDQ4PEF==",
            "++++++++++//////////AA==",
        ] {
            assert_eq!(parse_key(key.as_bytes()).map(|key| &key[..]), Some(key.as_bytes()));
        }
        for none in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZQ= ",
            "dGhlIHNhbXBsZSBub25jZQA=",
            "dGhlIHNhbXBsZSBub25jZQAA",
            "dGhlIHNhbXBsZSB-b25jZQ==",
            "dGhlIHNhbXBs=SBub25jZQ==",
            "SGVsbG8sIHdvcmxkIQ==",
        ] {
            assert_eq!(parse_key(none.as_bytes()), None, "{none}");
        }
        assert_eq!(&key_of(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==", "RFC 6455 1.3");
    }

    #[test]
    fn extensions() {
        use Extensions::{Deflate, None, Unknown};
        let table: &[(&[&str], Extensions)] = &[
            (&[], None),
            (&[""], None),
            (&[" , "], None),
            (&["permessage-deflate"], Deflate),
            (&["Permessage-Deflate ; server_no_context_takeover;client_max_window_bits = 15"], Deflate),
            (&["permessage-deflate; client_max_window_bits=\"10\""], Deflate),
            (&["permessage-deflate, permessage-deflate"], Unknown),
            (&["permessage-deflate", "permessage-deflate"], Unknown),
            (&["permessage-deflate, x-other"], Unknown),
            (&["x-other, permessage-deflate"], Unknown),
            (&["x-webkit-deflate-frame"], Unknown),
            (&["permessage-deflate-x"], Unknown),
            (&["permessage-deflate;"], Unknown),
            (&["permessage-deflate; =1"], Unknown),
            (&["permessage-deflate; a=1=2"], Unknown),
            (&["permessage-deflate; a=\"\""], Unknown),
            (&["permessage-deflate; a=\""], Unknown),
            (&["permessage-deflate; a=\"b, c\""], Unknown),
            (&["permessage-deflate; a=\"b; c\""], Unknown),
            (&["x; a=\"b, permessage-deflate\""], Unknown),
        ];
        for (values, expected) in table {
            assert_eq!(Extensions::agreed(values.iter().map(|value| value.as_bytes())), *expected, "{values:?}");
        }
    }
}
