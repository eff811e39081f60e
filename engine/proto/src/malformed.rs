//! What was wrong with a message. On a server's connection the peer is at fault, and [`Malformed::status`] answers it; on a
//! client's connection the upstream is at fault, and the answer downstream is always 502.

use crate::h2::ErrorCode;
use crate::http::Status;
use std::fmt;

/// Why bytes were refused. After one of these a connection is not in a state that both sides agree about: answer and close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// The head exceeds [`HeadLimits::bytes`](crate::h1::HeadLimits).
    HeadTooLong,
    /// The head has more fields than [`HeadLimits::fields`](crate::h1::HeadLimits).
    TooManyFields,
    /// The target exceeds [`HeadLimits::target`](crate::h1::HeadLimits).
    TargetTooLong,
    /// No method that anybody uses is this long.
    MethodTooLong,
    /// The request line is not `method SP target SP version CRLF`.
    RequestLine,
    /// The status line is not `version SP status SP [reason] CRLF`, or its status is below 100.
    StatusLine,
    /// Not HTTP/1.0 or HTTP/1.1, spelt exactly so.
    Version,
    /// The peer speaks HTTP/2 with prior knowledge (RFC 9113 §3.4) to a door that does not.
    Http2Preface,
    /// A field name is empty, not a token, preceded by white space (obs-fold included) or followed by it.
    FieldName,
    /// A field value holds NUL or another control character.
    FieldValue,
    /// A line does not end with exactly CRLF.
    LineEnd,
    /// The target has no valid form for its method, or holds characters that no URI has.
    Target,
    /// An HTTP/1.1 request without Host (RFC 9112 §3.2).
    HostMissing,
    /// More than one Host field.
    HostRepeated,
    /// Host or the target's authority is empty or not `host [":" port]`.
    HostInvalid,
    /// Content-Length is repeated, a list, not plain digits, or beyond 64 bits.
    ContentLength,
    /// Content-Length and Transfer-Encoding in one message.
    LengthAndCoding,
    /// Transfer-Encoding is something other than exactly one `chunked`.
    TransferCoding,
    /// Transfer-Encoding ends with `chunked` but applies other codings first.
    CodingNotImplemented,
    /// Transfer-Encoding on an HTTP/1.0 message (RFC 9112 §6.1).
    CodingOnVersion10,
    /// CONNECT with content, which has no defined meaning (RFC 9110 §9.3.6).
    ConnectWithBody,
    /// The Connection field holds something that is no token, or too many of them.
    ConnectionOption,
    /// An Expect other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
    /// A chunk size is not 1 to 16 hexadecimal digits.
    ChunkSize,
    /// Chunk extensions are ill-formed or too long.
    ChunkExtension,
    /// A chunk's data is not followed by CRLF, or a line in the chunked coding does not end with it.
    ChunkEnd,
    /// A trailer line is not a valid field.
    TrailerField,
    /// The trailer section exceeds its bounds.
    TrailersTooLong,
    /// A trailer that would have changed framing or routing had it been a header: an attack, or a broken peer.
    TrailerForbidden,
    /// 101 that was not asked for, or that does not say what it switches to.
    UnexpectedUpgrade,
    /// More interim responses than any origin sends.
    TooManyInterim,
    /// Input ended within a message.
    Truncated,
    /// A pseudo-header field is missing, repeated, unknown, empty, or not where it belongs (RFC 9113 §8.3).
    PseudoField,
    /// A request for something that is neither `http` nor `https`, which nobody here serves (RFC 9113 §8.3.1 lets it be asked for).
    Scheme,
    /// A field that concerns a connection, where connections have no fields (RFC 9113 §8.2.2).
    ConnectionField,
    /// Host and `:authority` name different things (RFC 9113 §8.3.1).
    HostContradicts,
    /// Content is longer or shorter than Content-Length says (RFC 9113 §8.1.1).
    LengthMismatch,
    /// Content of gRPC-Web that should be base64 and is not.
    WebText,
    /// A head where only trailers could stand, or no more fields at all (RFC 9113 §8.1).
    UnexpectedHead,
    /// The stream broke a rule of HTTP/2 other than those of its message; this is the code that was sent for it.
    Stream(ErrorCode),
    /// Nothing is read of what was sent on the stream: its window did not open for too long.
    Stalled,
    /// The peer gave the stream up, for this reason; one of HTTP/3's is told in the words of HTTP/2 (RFC 9114 §A.4).
    Cancelled(ErrorCode),
    /// The peer gave the stream up and promises that it did not look at the request: it may be sent again (RFC 9113 §8.7).
    Unprocessed,
}

impl Malformed {
    /// The status that tells a client what it did wrong.
    pub fn status(self) -> Status {
        match self {
            Self::HeadTooLong | Self::TooManyFields | Self::TrailersTooLong => Status::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => Status::URI_TOO_LONG,
            Self::MethodTooLong | Self::CodingNotImplemented => Status::NOT_IMPLEMENTED,
            Self::Version | Self::Http2Preface => Status::VERSION_NOT_SUPPORTED,
            Self::Expectation => Status::EXPECTATION_FAILED,
            _ => Status::BAD_REQUEST,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::HeadTooLong => "the head is too long",
            Self::TooManyFields => "the head has too many fields",
            Self::TargetTooLong => "the request target is too long",
            Self::MethodTooLong => "the method is too long",
            Self::RequestLine => "the request line is ill-formed",
            Self::StatusLine => "the status line is ill-formed",
            Self::Version => "the version is not HTTP/1.0 or HTTP/1.1",
            Self::Http2Preface => "HTTP/2 is not spoken here",
            Self::FieldName => "a field name is ill-formed",
            Self::FieldValue => "a field value holds a control character",
            Self::LineEnd => "a line does not end with CRLF",
            Self::Target => "the request target is ill-formed",
            Self::HostMissing => "Host is missing",
            Self::HostRepeated => "Host is repeated",
            Self::HostInvalid => "Host is ill-formed",
            Self::ContentLength => "Content-Length is ill-formed or repeated",
            Self::LengthAndCoding => "Content-Length and Transfer-Encoding in one message",
            Self::TransferCoding => "Transfer-Encoding is not exactly one chunked",
            Self::CodingNotImplemented => "a transfer coding other than chunked",
            Self::CodingOnVersion10 => "Transfer-Encoding on HTTP/1.0",
            Self::ConnectWithBody => "CONNECT with content",
            Self::ConnectionOption => "the Connection field is ill-formed",
            Self::Expectation => "an expectation other than 100-continue",
            Self::ChunkSize => "a chunk size is ill-formed",
            Self::ChunkExtension => "chunk extensions are ill-formed or too long",
            Self::ChunkEnd => "a line of the chunked coding does not end with CRLF",
            Self::TrailerField => "a trailer field is ill-formed",
            Self::TrailersTooLong => "the trailer section is too long",
            Self::TrailerForbidden => "a trailer that frames or routes",
            Self::UnexpectedUpgrade => "an upgrade that was not asked for",
            Self::TooManyInterim => "too many interim responses",
            Self::Truncated => "input ended within a message",
            Self::PseudoField => "a pseudo-header field is missing, repeated, unknown or misplaced",
            Self::Scheme => "the scheme is neither http nor https",
            Self::ConnectionField => "a field that concerns a connection",
            Self::HostContradicts => "Host and :authority name different things",
            Self::LengthMismatch => "content is not as long as Content-Length says",
            Self::WebText => "content of gRPC-Web is no base64",
            Self::UnexpectedHead => "a head where none can stand",
            Self::Stream(code) => return write!(formatter, "the stream broke a rule: {code}"),
            Self::Stalled => "the stream's window did not open",
            Self::Cancelled(code) => return write!(formatter, "the peer gave the stream up: {code}"),
            Self::Unprocessed => "the peer did not look at the request",
        };
        formatter.write_str(text)
    }
}

impl std::error::Error for Malformed {}
