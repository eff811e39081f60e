//! What every version of HTTP shares: the words of RFC 9110, and the laws that decide what a message means.

mod alt_svc;
pub mod authority;
pub mod cookie;
mod fields;
pub mod framing;
pub mod hop;
mod known;
mod method;
mod status;
mod text;
mod version;

pub use alt_svc::{AltSvc, http3};
pub use fields::{Field, Fields, Span};
pub use framing::Framing;
pub use known::{Known, KnownSet};
pub use method::Method;
pub use status::Status;
pub use text::{decimal, is_field_value, is_token, is_token_byte};
pub use version::Version;

pub(crate) use text::{HIGH, between, is_target, is_value_byte, list, trim};
