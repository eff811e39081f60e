//! Where outgoing bytes are put, and the few things that are put there by everyone.

use crate::http::{decimal, is_field_value, is_token};

/// Where bytes go. `false` means that they did not fit, and that whatever was put so far is to be thrown away.
pub trait Sink {
    fn put(&mut self, bytes: &[u8]) -> bool;
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> bool {
        self.extend_from_slice(bytes);
        true
    }
}

/// Storage of a fixed size.
#[derive(Debug)]
pub struct FixedSink<'a> {
    storage: &'a mut [u8],
    len: usize,
}

impl<'a> FixedSink<'a> {
    pub fn new(storage: &'a mut [u8]) -> Self {
        Self { storage, len: 0 }
    }

    /// Bytes put so far.
    pub fn written(&self) -> &[u8] {
        &self.storage[..self.len]
    }
}

impl Sink for FixedSink<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> bool {
        let Some(place) = self.storage.get_mut(self.len..self.len + bytes.len()) else {
            return false;
        };
        place.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The sink is full.
    Full,
    /// An added name or value would have broken the message apart. Our fault: it was not checked where it came from.
    Field,
    /// More or fewer bytes of content than the head promised. Our fault, or the sender's that we relay.
    Length,
    /// The stream or the connection takes no such thing, or no more of it (HTTP/2).
    Gone,
}

#[inline]
pub(super) fn put(sink: &mut impl Sink, bytes: &[u8]) -> Result<(), Refused> {
    if sink.put(bytes) { Ok(()) } else { Err(Refused::Full) }
}

/// `name: value`, refused if it is not one field line.
#[inline]
pub(super) fn put_field(sink: &mut impl Sink, name: &[u8], value: &[u8]) -> Result<(), Refused> {
    if !is_token(name) || !is_field_value(value) {
        return Err(Refused::Field);
    }
    put(sink, name)?;
    put(sink, b": ")?;
    put(sink, value)?;
    put(sink, b"\r\n")
}

#[inline]
pub(super) fn put_decimal(sink: &mut impl Sink, value: u64) -> Result<(), Refused> {
    put(sink, decimal(value, &mut [0; 20]))
}
