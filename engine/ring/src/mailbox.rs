//! Mail between threads: a bounded single-producer single-consumer queue, and a doorbell for sleepers.
//!
//! What holds here:
//! * A message is written before the tail that announces it, and read after it; the slot is free again before the head
//!   says so.
//! * A receiver that is about to sleep says so, then looks for mail once more; a sender leaves its mail, then looks
//!   whether the receiver sleeps. Between the two stands a sequentially consistent fence on either side, so at least
//!   one of them sees the other: no message is slept through.
//! * The doorbell is a `MSG_RING` when both sides are rings, and an eventfd otherwise.

use std::cell::UnsafeCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::Poll;

#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};

use crate::driver::{Fd, Request};
use crate::reactor::{self, Reactor};

/// What other threads know of a ring: how to wake it.
pub(crate) struct Remote {
    doorbell: Doorbell,
    eventfd: Option<OwnedFd>,
    ring: Option<Fd>,
}

/// The flags of the protocol between senders and a receiver that sleeps.
pub(crate) struct Doorbell {
    mail: AtomicBool,
    asleep: AtomicBool,
}

impl Doorbell {
    pub(crate) fn new() -> Self {
        Self { mail: AtomicBool::new(false), asleep: AtomicBool::new(false) }
    }

    /// A sender has left mail; true when the receiver must be woken.
    pub(crate) fn leave(&self) -> bool {
        self.mail.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed)
    }

    /// The receiver is about to sleep; false when mail has come meanwhile.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.mail.load(Ordering::Relaxed)
    }

    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether mail may have come since the last call.
    pub(crate) fn check(&self) -> bool {
        self.mail.load(Ordering::Relaxed) && self.mail.swap(false, Ordering::Acquire)
    }
}

impl Remote {
    pub(crate) fn new(ring: Option<Fd>, simulated: bool) -> io::Result<Self> {
        // A simulated kernel has no descriptors of ours, and no other threads.
        let eventfd = if simulated { None } else { Some(new_eventfd()?) };
        Ok(Self { doorbell: Doorbell::new(), eventfd, ring })
    }

    pub(crate) fn bell_fd(&self) -> Option<Fd> {
        self.eventfd.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(crate) fn fall_asleep(&self) -> bool {
        self.doorbell.fall_asleep()
    }

    pub(crate) fn wake_up(&self) {
        self.doorbell.wake_up();
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.doorbell.check()
    }

    pub(crate) fn silence_bell(&self) {
        let Some(bell) = self.bell_fd() else { return };
        let mut count = 0_u64;
        // SAFETY: `bell` is our eventfd and `count` its eight bytes; the descriptor does not block.
        unsafe { libc::read(bell, (&raw mut count).cast(), 8) };
    }

    /// Mail has been left: wakes the ring if it sleeps.
    fn announce(&self) {
        if !self.doorbell.leave() {
            return;
        }
        let mut sent = false;
        if let Some(target) = self.ring {
            reactor::try_with(|own: &Reactor| {
                if own.driver.borrow().ring_fd().is_some() {
                    own.table.borrow_mut().todo.requests.push((0, Request::Doorbell { ring: target }));
                    sent = true;
                }
            });
        }
        if let (false, Some(bell)) = (sent, self.bell_fd()) {
            let one = 1_u64;
            // SAFETY: `bell` is an open eventfd and `one` its eight bytes.
            unsafe { libc::write(bell, (&raw const one).cast(), 8) };
        }
    }
}

fn new_eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The sending end, for one thread at a time.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    remote: std::sync::Arc<Remote>,
}

/// The receiving end, on the thread that made it.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// A mailbox of this thread's ring, holding up to `capacity` messages (rounded up to a power of two).
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared::new(capacity));
    let remote = reactor::with(|reactor| std::sync::Arc::clone(&reactor.remote));
    (Sender { shared: Arc::clone(&shared), remote }, Receiver { shared })
}

impl<T: Send> Sender<T> {
    /// Leaves a message; gives it back when the box is full.
    pub fn send(&mut self, message: T) -> Result<(), T> {
        self.shared.push(message)?;
        self.remote.announce();
        Ok(())
    }
}

impl<T> Sender<T> {
    /// Messages left that have not been taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.tail.0.load(Ordering::Relaxed).wrapping_sub(self.shared.head.0.load(Ordering::Relaxed))
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the next message, if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        self.shared.pop()
    }

    /// Waits for the next message; `None` when the sender is gone and all has been taken.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|_| {
            if let Some(message) = self.shared.pop() {
                return Poll::Ready(Some(message));
            }
            if self.shared.closed.load(Ordering::Acquire) {
                return Poll::Ready(self.shared.pop());
            }
            reactor::with(|reactor| reactor.mail_tasks.borrow_mut().push(reactor.exec.current()));
            Poll::Pending
        })
        .await
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.remote.announce();
    }
}

struct Shared<T> {
    slots: Box<[Slot<T>]>,
    /// Next to be taken; written by the receiver only.
    head: Padded<AtomicUsize>,
    /// Next to be filled; written by the sender only.
    tail: Padded<AtomicUsize>,
    closed: AtomicBool,
}

struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

/// Alone on its cache lines (two: the prefetcher fetches pairs).
#[repr(align(128))]
struct Padded<T>(T);

// SAFETY: a slot is touched by the sender while it lies outside head..tail and by the receiver while inside; the
// release and acquire on tail and head order the two. Messages move between threads, hence `T: Send`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; `Sender::send` and `Receiver::recv` take `&mut self`, so each side is one thread at a time.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(capacity: usize) -> Self {
        let slots = 0..capacity.max(1).next_power_of_two();
        Self {
            slots: slots.map(|_| Slot(UnsafeCell::new(MaybeUninit::uninit()))).collect(),
            head: Padded(AtomicUsize::new(0)),
            tail: Padded(AtomicUsize::new(0)),
            closed: AtomicBool::new(false),
        }
    }

    fn push(&self, message: T) -> Result<(), T> {
        let tail = self.tail.0.load(Ordering::Relaxed);
        if tail.wrapping_sub(self.head.0.load(Ordering::Acquire)) == self.slots.len() {
            return Err(message);
        }
        // SAFETY: outside head..tail the slot is the sender's alone, and there is one sender.
        unsafe { (*self.slot(tail)).write(message) };
        self.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    fn pop(&self) -> Option<T> {
        let head = self.head.0.load(Ordering::Relaxed);
        if head == self.tail.0.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: inside head..tail the slot holds a message and is the receiver's alone; it is read once.
        let message = unsafe { (*self.slot(head)).assume_init_read() };
        self.head.0.store(head.wrapping_add(1), Ordering::Release);
        Some(message)
    }

    fn slot(&self, at: usize) -> *mut MaybeUninit<T> {
        self.slots[at & (self.slots.len() - 1)].0.get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn messages_cross_threads_in_order_and_a_full_box_says_so() {
        let shared = Arc::new(Shared::new(4));
        let other = Arc::clone(&shared);
        let sender = std::thread::spawn(move || {
            for number in 0..50_000_u32 {
                let mut message = number;
                while let Err(back) = other.push(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < 50_000 {
            match shared.pop() {
                Some(number) => {
                    assert_eq!(number, next);
                    next += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        sender.join().unwrap();
        (0..4).for_each(|number| shared.push(number).unwrap());
        assert_eq!(shared.push(9), Err(9));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    #[test]
    fn every_message_arrives_once_and_in_order() {
        loom::model(|| {
            let shared = Arc::new(Shared::new(2));
            let other = Arc::clone(&shared);
            let sender = thread::spawn(move || {
                let mut sent = 0;
                while sent < 3 {
                    match other.push(sent) {
                        Ok(()) => sent += 1,
                        Err(_) => thread::yield_now(),
                    }
                }
            });
            let mut got = 0;
            while got < 3 {
                match shared.pop() {
                    Some(message) => {
                        assert_eq!(message, got);
                        got += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            sender.join().unwrap();
        });
    }

    #[test]
    fn no_message_is_slept_through() {
        loom::model(|| {
            let state = Arc::new((Shared::new(1), Doorbell::new(), AtomicBool::new(false)));
            let other = Arc::clone(&state);
            let sender = thread::spawn(move || {
                other.0.push(7).unwrap();
                if other.1.leave() {
                    other.2.store(true, Ordering::SeqCst);
                }
            });
            let sleeps = state.1.fall_asleep();
            sender.join().unwrap();
            let rang = state.2.load(Ordering::SeqCst);
            assert!(!sleeps || rang, "asleep, with mail, and nobody rang");
            assert_eq!(state.0.pop(), Some(7));
        });
    }
}
