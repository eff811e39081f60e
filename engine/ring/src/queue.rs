//! Buffers in order: what a stream has received and nobody has taken, or what it has still to send.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::buf::Buf;

/// Pieces are merged into one buffer up to this size: one to parse, one to send, and none of them on a list.
const MERGED_BYTES_MAX: usize = 64 << 10;

/// What is behind the first. Boxed: eight bytes in every idle stream instead of thirty-two.
#[allow(clippy::box_collection, reason = "the box is what makes an idle stream small")]
type Rest = Box<VecDeque<Buf>>;

/// Empty lists a thread keeps for the next queue that gets a second buffer.
const SPARE_MAX: usize = 256;

/// Longer lists than this are not kept.
const SPARE_BUFS_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Rest>> = const { RefCell::new(Vec::new()) };
}

/// Buffers in order; nearly always none or one.
#[derive(Default)]
pub(crate) struct Queue {
    first: Option<Buf>,
    rest: Option<Rest>,
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
            self.rest.get_or_insert_with(spare).push_back(buf);
        }
    }

    pub(crate) fn push_front(&mut self, buf: Buf) {
        if let Some(second) = self.first.replace(buf) {
            self.rest.get_or_insert_with(spare).push_front(second);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Buf> {
        let buf = self.first.take()?;
        if let Some(rest) = &mut self.rest {
            self.first = rest.pop_front();
            if rest.is_empty() {
                keep(self.rest.take());
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

/// An empty list: one that another queue is done with, if there is one.
fn spare() -> Rest {
    SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Keeps an emptied list for [`spare`].
fn keep(rest: Option<Rest>) {
    let Some(rest) = rest.filter(|rest| rest.capacity() <= SPARE_BUFS_MAX) else { return };
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(rest);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_leave_in_order_and_the_list_behind_the_first_is_used_again() {
        let mut queue = Queue::default();
        for round in 0..3 {
            for piece in [b"one", b"two", b"six"] {
                queue.push(Buf::copy_of(piece));
            }
            let left: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            assert_eq!(left.iter().map(Buf::bytes).collect::<Vec<_>>(), [b"one", b"two", b"six"]);
            assert!(queue.is_empty() && queue.rest.is_none());
            let kept = SPARE.with(|spare| spare.borrow().len());
            assert_eq!(kept, 1, "round {round}");
        }
    }
}
