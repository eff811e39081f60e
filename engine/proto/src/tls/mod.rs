//! The first words of TLS (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2), read by somebody who takes no part in it: which name a client asks for
//! (RFC 6066 §3), and what it offers to speak (RFC 7301).
//!
//! Read once, before anything else on a connection, at doors that pass TLS through, and where early data is counted. What is read here is not protected yet, so it
//! says where a connection wants to go and proves nothing. With Encrypted Client Hello the name is the outer one, which is the one meant
//! for us. Deliberately absent: everything that matters only to who answers (versions, ciphers, keys): a door that judged those would be one
//! more thing that new TLS does not get through. Extensions that nobody knows (GREASE, RFC 8701) are passed over by their length.
//!
//! What holds here: the message may lie in any number of records, cut anywhere; every length must fit the one around it, exactly; an
//! extension that is looked at stands there once; nothing is read beyond [`HELLO_BYTES_MAX`].

mod extensions;
mod records;

use std::fmt;

pub use extensions::Protocols;

/// Bytes of records in which a ClientHello must be complete: a TLS 1.3 one with a post-quantum key share, session ticket and padding takes
/// 2 KiB, and one record holds 16 KiB.
pub const HELLO_BYTES_MAX: usize = 16 << 10;

/// What a ClientHello says of where it wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// A DNS name without a dot at its end, in the client's own case (RFC 6066 §3).
    pub server_name: Option<&'a str>,
    /// In the client's order of preference; empty without ALPN.
    pub protocols: Protocols<'a>,
    /// Early data follows, if the server takes it.
    pub early_data: bool,
}

/// Why there is none. Nothing can be done with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoHello {
    /// It does not begin as TLS does.
    NotTls,
    /// It is not complete within [`HELLO_BYTES_MAX`], or says that it will not be.
    TooLong,
    /// It breaks the protocol.
    Malformed,
}

/// Reads a ClientHello at the start of what has been received; `None` means that more bytes are needed, which must be appended. Where it
/// lies in several records it is put together in `scratch`.
///
/// # Errors
/// There is none.
///
/// ```
/// let mut scratch = Vec::new();
/// assert_eq!(proto::tls::read_hello(b"\x16\x03\x01", &mut scratch), Ok(None));
/// assert_eq!(proto::tls::read_hello(b"GET / HTTP/1.1", &mut scratch), Err(proto::tls::NoHello::NotTls));
/// ```
pub fn read_hello<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Option<ClientHello<'a>>, NoHello> {
    let bytes = &bytes[..bytes.len().min(HELLO_BYTES_MAX)];
    match records::message(bytes, scratch)? {
        Some(message) => extensions::of_hello(message).map(Some).ok_or(NoHello::Malformed),
        None if bytes.len() == HELLO_BYTES_MAX => Err(NoHello::TooLong),
        None => Ok(None),
    }
}

/// Why a server ends a handshake (RFC 8446 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    DecodeError = 50,
    UnrecognizedName = 112,
}

/// A fatal alert, in a record of its own (RFC 8446 §5.1, §6).
#[must_use]
pub const fn alert(why: Alert) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, why as u8]
}

impl fmt::Display for NoHello {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotTls => "the connection does not begin as TLS does",
            Self::TooLong => "the ClientHello is too long",
            Self::Malformed => "the ClientHello is malformed",
        })
    }
}

impl std::error::Error for NoHello {}
