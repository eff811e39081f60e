//! Buffers in order: what a stream has received and nobody has taken, or what it has still to send.

use std::collections::VecDeque;

use crate::buf::Buf;

/// Pieces are merged into one buffer up to this size: one to parse, one to send, and none of them on a list.
const MERGED_BYTES_MAX: usize = 64 << 10;

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

    /// Copies `bytes` behind those of the last buffer, which grows for them up to the largest class.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if let Some(last) = self.rest.as_mut().and_then(|rest| rest.back_mut()) {
            if last.room() >= bytes.len() {
                return last.extend(bytes);
            }
            return self.push(Buf::copy_of(bytes));
        }
        match self.first.take() {
            None => self.first = Some(Buf::copy_of(bytes)),
            Some(first) if first.room() >= bytes.len() => self.first = Some(first.with(bytes)),
            Some(first) if first.len() + bytes.len() <= MERGED_BYTES_MAX => {
                self.first = first.with_more_room(bytes.len()).map(|first| first.with(bytes));
            }
            Some(first) => {
                self.first = Some(first);
                self.push(Buf::copy_of(bytes));
            }
        }
    }
}
