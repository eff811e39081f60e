//! The messages of `grpc.health.v1.Health/Check` (grpc/health/v1/health.proto), as Protocol Buffers write them.
//!
//! Two messages of one field each are less than a library for all of them. Fields that are not known are passed over, as the encoding
//! wants it, so that a newer server is understood.

use super::prefix;

/// Where it is asked.
pub const METHOD: &str = "/grpc.health.v1.Health/Check";

/// What a server says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
    /// A number that this version of the protocol does not have.
    Other(u64),
}

/// What is no `HealthCheckResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// A `HealthCheckRequest` with its prefix. An empty name asks for the server as a whole.
///
/// ```
/// assert_eq!(proto::grpc::health::request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
/// ```
#[must_use]
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 11);
    // A field that has its default is not written.
    if !service.is_empty() {
        message.push(SERVICE);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = prefix(0, message.len() as u32).to_vec();
    framed.append(&mut message);
    framed
}

/// The key of `string service = 1`, which has a length.
const SERVICE: u8 = 1 << 3 | 2;
/// The key of `ServingStatus status = 1`, which is an integer.
const STATUS: u64 = 1 << 3;

/// Reads a `HealthCheckResponse`, its prefix taken off.
///
/// # Errors
/// It is none.
pub fn response(mut message: &[u8]) -> Result<Serving, Unreadable> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key {
            STATUS => status = varint(&mut message)?,
            _ if key >> 3 == 0 => return Err(Unreadable),
            _ => pass_over(key & 7, &mut message)?,
        }
    }
    Ok(match status {
        0 => Serving::Unknown,
        1 => Serving::Serving,
        2 => Serving::NotServing,
        3 => Serving::ServiceUnknown,
        other => Serving::Other(other),
    })
}

/// Moves behind the value of a field of this wire type. Groups, which nobody writes any more, are none.
fn pass_over(wire_type: u64, message: &mut &[u8]) -> Result<(), Unreadable> {
    let length = match wire_type {
        0 => return varint(message).map(drop),
        1 => 8,
        2 => varint(message)?,
        5 => 4,
        _ => return Err(Unreadable),
    };
    let length = usize::try_from(length).map_err(|_| Unreadable)?;
    *message = message.get(length..).ok_or(Unreadable)?;
    Ok(())
}

/// An integer of ten bytes at most, seven bits each, the lowest first.
fn varint(message: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = message.split_first().ok_or(Unreadable)?;
        *message = rest;
        if shift == 63 && byte > 1 {
            return Err(Unreadable);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}
