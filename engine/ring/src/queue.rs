//! Buffers in order: what a stream has received and nobody has taken, or what it has still to send.

use std::collections::VecDeque;

use crate::buf::Buf;

/// Buffers in order; nearly always none or one.
#[derive(Default)]
pub(crate) struct Queue {
    first: Option<Buf>,
    #[allow(clippy::box_collection, reason = "eight bytes in every idle stream instead of thirty-two")]
    rest: Option<Box<VecDeque<Buf>>>,
}

impl Queue {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn bytes(&self) -> usize {
        let rest = self.rest.iter().flat_map(|rest| rest.iter()).map(Buf::len).sum::<usize>();
        self.first.as_ref().map_or(0, Buf::len) + rest
    }

    #[inline]
    pub(crate) fn push(&mut self, buf: Buf) {
        if self.first.is_none() {
            self.first = Some(buf);
        } else {
            self.rest.get_or_insert_default().push_back(buf);
        }
    }

    pub(crate) fn push_front(&mut self, buf: Buf) {
        if let Some(second) = self.first.replace(buf) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Buf> {
        let buf = self.first.take()?;
        if let Some(rest) = &mut self.rest {
            self.first = rest.pop_front();
            if rest.is_empty() {
                self.rest = None;
            }
        }
        Some(buf)
    }

    /// Copies `bytes` behind the last buffer's, or into a fresh one.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let last = match &mut self.rest {
            Some(rest) => rest.back_mut(),
            None => self.first.as_mut(),
        };
        match last {
            Some(buf) if buf.room() >= bytes.len() => buf.extend(bytes),
            _ => self.push(Buf::copy_of(bytes)),
        }
    }
}
