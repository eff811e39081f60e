//! gRPC's own bytes within the content of HTTP (gRPC over HTTP/2, PROTOCOL-HTTP2.md): messages with a prefix, the two messages of a health
//! check, and what gRPC-Web makes of all that for clients that see no trailers.
//!
//! What holds here: a message's content is nobody's business but a health check's; no bytes panic; nothing is kept of what passes but what a
//! cut falls into (four bytes of a prefix, two of a group of base64).

pub mod health;
pub mod web;

/// Whether a media type is gRPC's. gRPC-Web's are not: its statuses are content.
#[must_use]
pub fn is_media_type(value: &[u8]) -> bool {
    match value.split_at_checked(MEDIA_TYPE.len()) {
        Some((begin, rest)) => {
            begin.eq_ignore_ascii_case(MEDIA_TYPE) && matches!(rest.first(), None | Some(b'+' | b';'))
        }
        None => false,
    }
}

pub const MEDIA_TYPE: &[u8] = b"application/grpc";

/// The code that a `grpc-status` says, from 0 to 16; a number that is not known means UNKNOWN.
#[must_use]
pub fn code_of(status: &[u8]) -> Option<u8> {
    let known = std::str::from_utf8(status).ok()?.parse::<u32>().ok()?;
    Some(if known < CODES.len() as u32 { known as u8 } else { UNKNOWN })
}

const UNKNOWN: u8 = 2;

/// What a code is called (google/rpc/code.proto).
#[must_use]
pub fn code_text(code: u8) -> &'static str {
    CODES.get(usize::from(code)).copied().unwrap_or(CODES[usize::from(UNKNOWN)])
}

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Bytes before each message: a flag, and the message's length in network order.
pub const PREFIX_BYTES: usize = 5;

/// What stands before a message of `length` bytes.
#[must_use]
pub const fn prefix(flag: u8, length: u32) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [flag, a, b, c, d]
}

/// The length of the message behind a prefix.
#[must_use]
pub const fn length_of(prefix: [u8; PREFIX_BYTES]) -> u32 {
    let [_, a, b, c, d] = prefix;
    u32::from_be_bytes([a, b, c, d])
}

/// Follows messages as they pass, in whatever pieces.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boundaries {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of it that have come.
    come: u8,
    /// Bytes of the message that have not.
    rest: u32,
}

impl Boundaries {
    /// The next bytes.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = bytes.len().min(self.rest as usize);
                self.rest -= passed as u32;
                bytes = &bytes[passed..];
                continue;
            }
            let come = usize::from(self.come);
            let taken = bytes.len().min(PREFIX_BYTES - come);
            self.prefix[come..come + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.come += taken as u8;
            if usize::from(self.come) == PREFIX_BYTES {
                (self.come, self.rest) = (0, length_of(self.prefix));
            }
        }
    }

    /// What has come ends with a message.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.come == 0 && self.rest == 0
    }
}
