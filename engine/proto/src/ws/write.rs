//! Control frames of our own (RFC 6455 §5.5). Data frames are never ours: a proxy passes on those of others.
//!
//! A frame is put whole, between two frames of whoever else sends in that direction. Towards a server it is masked with a key that nobody
//! can foretell (RFC 6455 §5.3, §10.3), which the caller draws; towards a client it is not.

use super::CloseCode;
use super::frame::{CONTROL_BYTES_MAX, FIN, MASKED, MaskingKey, Opcode, mask};
use crate::h1::{Refused, Sink};

/// The longest frame that is put here: two bytes, a key, and 125 of payload.
pub const CONTROL_FRAME_BYTES_MAX: usize = 6 + CONTROL_BYTES_MAX;

/// The longest reason: what the code leaves.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Puts a Close. [`CloseCode::NO_STATUS`] is told by saying nothing.
///
/// # Errors
/// [`Refused::Field`] for a code that may not be sent, or a reason without a code; [`Refused::Length`] for a reason beyond
/// [`REASON_BYTES_MAX`]; [`Refused::Full`].
pub fn put_close(code: CloseCode, reason: &str, key: Option<MaskingKey>, sink: &mut impl Sink) -> Result<(), Refused> {
    if code == CloseCode::NO_STATUS && reason.is_empty() {
        return put_control(Opcode::Close, [b"", b""], key, sink);
    }
    if !code.is_sendable() {
        return Err(Refused::Field);
    }
    put_control(Opcode::Close, [&code.0.to_be_bytes(), reason.as_bytes()], key, sink)
}

/// Puts a Ping, whose payload comes back in a Pong.
///
/// # Errors
/// [`Refused::Length`] for more than 125 bytes; [`Refused::Full`].
pub fn put_ping(payload: &[u8], key: Option<MaskingKey>, sink: &mut impl Sink) -> Result<(), Refused> {
    put_control(Opcode::Ping, [payload, b""], key, sink)
}

/// Puts a Pong, with the payload of the Ping that it answers, or of our own choice if none was asked (RFC 6455 §5.5.3).
///
/// # Errors
/// As [`put_ping`].
pub fn put_pong(payload: &[u8], key: Option<MaskingKey>, sink: &mut impl Sink) -> Result<(), Refused> {
    put_control(Opcode::Pong, [payload, b""], key, sink)
}

fn put_control(
    opcode: Opcode,
    payload: [&[u8]; 2],
    key: Option<MaskingKey>,
    sink: &mut impl Sink,
) -> Result<(), Refused> {
    let length = payload[0].len() + payload[1].len();
    if length > CONTROL_BYTES_MAX {
        return Err(Refused::Length);
    }
    let mut frame = [0; CONTROL_FRAME_BYTES_MAX];
    frame[0] = FIN | opcode.bits();
    frame[1] = length as u8;
    let mut at = 2;
    if let Some(key) = key {
        frame[1] |= MASKED;
        frame[at..at + 4].copy_from_slice(&key);
        at += 4;
    }
    let start = at;
    for part in payload {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    if let Some(key) = key {
        mask(key, &mut frame[start..at]);
    }
    if sink.put(&frame[..at]) { Ok(()) } else { Err(Refused::Full) }
}
