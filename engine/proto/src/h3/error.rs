//! What can go wrong, how far it reaches, and the code that says so (RFC 9114 §8, RFC 9204 §6).

use std::fmt;

use crate::h2;
use crate::multiplexed::ledger::Excess;

/// An error code as it stands in RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE. Codes that nobody registered are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u64);

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl ErrorCode {
            $(pub const $name: Self = Self($code);)*

            /// The registered name, or nothing.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "",
                }
            }
        }
    };
}

codes! {
    NO_ERROR = 0x100, "H3_NO_ERROR";
    DATAGRAM_ERROR = 0x33, "H3_DATAGRAM_ERROR";
    GENERAL_PROTOCOL_ERROR = 0x101, "H3_GENERAL_PROTOCOL_ERROR";
    INTERNAL_ERROR = 0x102, "H3_INTERNAL_ERROR";
    STREAM_CREATION_ERROR = 0x103, "H3_STREAM_CREATION_ERROR";
    CLOSED_CRITICAL_STREAM = 0x104, "H3_CLOSED_CRITICAL_STREAM";
    FRAME_UNEXPECTED = 0x105, "H3_FRAME_UNEXPECTED";
    FRAME_ERROR = 0x106, "H3_FRAME_ERROR";
    EXCESSIVE_LOAD = 0x107, "H3_EXCESSIVE_LOAD";
    ID_ERROR = 0x108, "H3_ID_ERROR";
    SETTINGS_ERROR = 0x109, "H3_SETTINGS_ERROR";
    MISSING_SETTINGS = 0x10a, "H3_MISSING_SETTINGS";
    REQUEST_REJECTED = 0x10b, "H3_REQUEST_REJECTED";
    REQUEST_CANCELLED = 0x10c, "H3_REQUEST_CANCELLED";
    REQUEST_INCOMPLETE = 0x10d, "H3_REQUEST_INCOMPLETE";
    MESSAGE_ERROR = 0x10e, "H3_MESSAGE_ERROR";
    CONNECT_ERROR = 0x10f, "H3_CONNECT_ERROR";
    VERSION_FALLBACK = 0x110, "H3_VERSION_FALLBACK";
    QPACK_DECOMPRESSION_FAILED = 0x200, "QPACK_DECOMPRESSION_FAILED";
    QPACK_ENCODER_STREAM_ERROR = 0x201, "QPACK_ENCODER_STREAM_ERROR";
    QPACK_DECODER_STREAM_ERROR = 0x202, "QPACK_DECODER_STREAM_ERROR";
}

impl ErrorCode {
    /// What it says in the words of HTTP/2 (RFC 9114 §A.4), which the neutral language has; so a relay passes it on. A code that nobody
    /// knows is no error in particular (RFC 9114 §9).
    pub const fn in_http2(self) -> h2::ErrorCode {
        match self {
            Self::INTERNAL_ERROR => h2::ErrorCode::INTERNAL_ERROR,
            Self::EXCESSIVE_LOAD => h2::ErrorCode::ENHANCE_YOUR_CALM,
            Self::REQUEST_REJECTED => h2::ErrorCode::REFUSED_STREAM,
            Self::REQUEST_CANCELLED => h2::ErrorCode::CANCEL,
            Self::FRAME_ERROR => h2::ErrorCode::FRAME_SIZE_ERROR,
            Self::CONNECT_ERROR => h2::ErrorCode::CONNECT_ERROR,
            Self::VERSION_FALLBACK => h2::ErrorCode::HTTP_1_1_REQUIRED,
            Self::QPACK_DECOMPRESSION_FAILED | Self::QPACK_ENCODER_STREAM_ERROR | Self::QPACK_DECODER_STREAM_ERROR => {
                h2::ErrorCode::COMPRESSION_ERROR
            }
            Self::DATAGRAM_ERROR | Self(0x101..=0x110) => h2::ErrorCode::PROTOCOL_ERROR,
            _ => h2::ErrorCode::NO_ERROR,
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "" => write!(formatter, "{:#x}", self.0),
            name => formatter.write_str(name),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// A breach of the protocol, with the rule in words; both go out with CONNECTION_CLOSE, for whoever debugs the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub code: ErrorCode,
    pub why: &'static str,
}

impl Fault {
    pub(crate) const fn new(code: ErrorCode, why: &'static str) -> Self {
        Self { code, why }
    }

    pub(crate) const fn unexpected(why: &'static str) -> Self {
        Self::new(ErrorCode::FRAME_UNEXPECTED, why)
    }

    pub(crate) const fn frame(why: &'static str) -> Self {
        Self::new(ErrorCode::FRAME_ERROR, why)
    }

    pub(crate) const fn id(why: &'static str) -> Self {
        Self::new(ErrorCode::ID_ERROR, why)
    }

    pub(crate) const fn calm(why: &'static str) -> Self {
        Self::new(ErrorCode::EXCESSIVE_LOAD, why)
    }
}

impl Excess for Fault {
    fn of(why: &'static str) -> Self {
        Self::calm(why)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.why)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9114_a_4_codes_in_the_words_of_http2() {
        for (code, expected) in [
            (ErrorCode::NO_ERROR, h2::ErrorCode::NO_ERROR),
            (ErrorCode::REQUEST_REJECTED, h2::ErrorCode::REFUSED_STREAM),
            (ErrorCode::REQUEST_CANCELLED, h2::ErrorCode::CANCEL),
            (ErrorCode::MESSAGE_ERROR, h2::ErrorCode::PROTOCOL_ERROR),
            (ErrorCode::EXCESSIVE_LOAD, h2::ErrorCode::ENHANCE_YOUR_CALM),
            (ErrorCode(0x21 + 0x1f * 7), h2::ErrorCode::NO_ERROR),
            (ErrorCode(u64::MAX >> 2), h2::ErrorCode::NO_ERROR),
        ] {
            assert_eq!(code.in_http2(), expected, "{code}");
        }
    }
}
