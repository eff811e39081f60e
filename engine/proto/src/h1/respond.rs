//! Responses of our own: small, whole, and composed into storage that the caller keeps.

use super::sink::{Refused, Sink, put, put_decimal, put_field};
use super::write::{connection_line, put_framing, put_status_line};
use crate::http::{Framing, Status, Version};

/// A response with a body that fits in memory.
#[derive(Debug, Clone, Copy)]
pub struct Respond<'a> {
    pub status: Status,
    /// Of the body; left out when empty.
    pub content_type: &'a [u8],
    pub body: &'a [u8],
    /// Seconds (RFC 9110 §10.2.3), for 429 and 503.
    pub retry_after: Option<u32>,
    /// Whether the connection lives on.
    pub persistent: bool,
    /// The client's version.
    pub peer: Version,
    /// The request was HEAD: the length is told and the body kept back.
    pub head_only: bool,
    pub add: &'a [(&'a [u8], &'a [u8])],
}

impl Respond<'_> {
    /// An empty response that closes the connection.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            content_type: b"",
            body: b"",
            retry_after: None,
            persistent: false,
            peer: Version::Http11,
            head_only: false,
            add: &[],
        }
    }

    /// How the response's content is framed, for [`Connection::head_written`](super::Connection::head_written).
    pub fn framing(&self) -> Framing {
        if self.head_only || self.status.is_bodiless() {
            Framing::None
        } else {
            Framing::Length(self.body.len() as u64)
        }
    }

    /// Writes head and body.
    ///
    /// # Errors
    /// The sink then holds part of a response.
    pub fn write(&self, sink: &mut impl Sink) -> Result<(), Refused> {
        match self.status.line() {
            Some(line) => put(sink, line)?,
            None => put_status_line(sink, self.status, b"")?,
        }
        if !self.content_type.is_empty() {
            put_field(sink, b"content-type", self.content_type)?;
        }
        if !self.status.is_bodiless() {
            put_framing(sink, Framing::Length(self.body.len() as u64))?;
        }
        if let Some(seconds) = self.retry_after {
            put(sink, b"retry-after: ")?;
            put_decimal(sink, u64::from(seconds))?;
            put(sink, b"\r\n")?;
        }
        put(sink, connection_line(self.persistent, self.peer))?;
        for (name, value) in self.add {
            put_field(sink, name, value)?;
        }
        put(sink, b"\r\n")?;
        if self.framing().has_body() { put(sink, self.body) } else { Ok(()) }
    }
}
