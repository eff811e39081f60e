//! HTTP/1.0 and HTTP/1.1 (RFC 9112).

mod body;
mod connection;
mod encode;
mod head;
mod respond;
mod sink;
mod write;

pub use crate::role::{Client, Role, Server};
pub use body::{Decoded, Decoder, Trailers};
pub use connection::{CloseReason, Connection, Eof};
pub use encode::{Encoder, Frame, Prefix};
pub use head::{HeadLimits, RequestHead, ResponseHead, head_complete_hint, parse_request, parse_response};
pub use respond::Respond;
pub use sink::{FixedSink, Refused, Sink};
pub use write::{RequestRewrite, ResponseRewrite, write_interim, write_request, write_response};

pub(crate) use body::{FORBIDDEN as FORBIDDEN_TRAILERS, WITHHELD as WITHHELD_TRAILERS};
pub(crate) use head::{METHOD_BYTES_MAX, expects_continue};
