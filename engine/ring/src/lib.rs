//! The engine room: io_uring, epoll or a simulated kernel behind one seam, and a single-thread executor on top.
//!
//! This is the only crate of the engine that says `unsafe` and makes system calls. A thread sets up a [`Ring`] and runs
//! tasks on it with [`Ring::block_on`] and [`spawn`]; tasks use [`Stream`]s, [`Listener`]s, [`UdpSocket`]s,
//! [`XskSocket`]s, [`Timer`]s and mailboxes.
//! Nothing here knows what the bytes mean.
//!
//! The way of a byte: kernel → driver (`driver/`) → [`table`] (the stream's inbox) → task → outbox → driver → kernel.

#![warn(missing_docs)]

pub mod alloc;
pub mod buf;
mod chunked;
mod cpu;
mod driver;
mod exec;
mod mailbox;
mod net;
mod op;
mod queue;
mod reactor;
mod shared;
mod signal;
mod slab;
mod spin;
mod table;
mod time;
mod timer;
mod wheel;
mod xdp;
mod xsk;

use std::future::{Future, poll_fn};
use std::task::Poll;

pub use buf::Buf;
pub use cpu::{allowed_cpus, pin_to, small_pages, thread_cpu_nanos};
pub use driver::{DriverChoice, DriverCounts, Granted, sim};
pub use exec::{Pooled, TaskRef, pooled};
pub use mailbox::{Receiver, Sender, mailbox};
pub use net::{Address, ListenOptions, Listener, Stream, linger};
pub use net::{FilterInstruction, attach_reuseport_filter};
pub use net::{Foreign, Received, Sent, Socket, Transmit, UdpCounts, UdpGranted, UdpOptions, UdpSocket};
pub use net::{Moved, Pipes, Splice};
pub use net::{connect_with_priority, set_priority};
pub use reactor::{Counts, Options, Ring};
pub use shared::SharedWords;
pub use signal::Signals;
pub use spin::SpinPolicy;
pub use table::Appetite;
pub use time::{Now, monotonic, wall_clock};
pub use timer::{Timer, sleep, sleep_until, until};
pub use xdp::XdpLink;
pub use xsk::{FRAME_BYTES, FRAMES, Interface, RECEIVED_MAX, Xsk, XskCounts, XskSocket, local_addresses};

/// Starts a task on this thread's ring.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> TaskRef {
    reactor::with(|reactor| reactor.exec.spawn(future))
}

/// The running task.
pub fn current_task() -> TaskRef {
    reactor::with(|reactor| reactor.exec.current())
}

/// Wakes a task of this thread; nothing happens if it has ended.
pub fn wake(task: TaskRef) {
    reactor::with(|reactor| reactor.exec.wake(task));
}

/// Whether a task of this thread has not ended yet.
pub fn is_alive(task: TaskRef) -> bool {
    reactor::with(|reactor| reactor.exec.alive(task))
}

/// The time of the present turn.
#[inline]
pub fn now() -> Now {
    reactor::with(|reactor| reactor.now())
}

/// The time at this very moment: for measuring inside a turn.
pub fn precise_now() -> Now {
    reactor::with(|reactor| Now::from_nanos(reactor.driver.borrow().clock()))
}

/// What this thread's ring has done.
pub fn counts() -> Counts {
    reactor::with(|reactor| reactor.counts())
}

/// What this thread's ring was granted.
pub fn granted() -> Granted {
    reactor::with(|reactor| reactor.granted())
}

/// Calls `work` at the end of each turn of this thread's ring, when tasks have done what there was to do and before the kernel is entered.
/// It must be short, and may not touch the ring.
pub fn each_turn(work: impl Fn() + 'static) {
    reactor::with(|reactor| reactor.turn_work.replace(Some(Box::new(work))));
}

/// Lets other tasks run, and completions arrive, once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
