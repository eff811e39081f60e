//! Deadlines for tasks.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::reactor;
use crate::time::Now;
use crate::wheel::TimerId;

/// A deadline that moves. Moving it later costs a store: the wheel's entry stays where it is, and when it fires too
/// early it is laid again. So one that is moved with every request touches the wheel once a period.
#[derive(Debug)]
pub struct Timer {
    /// `Now::NEVER`: no deadline.
    at: Now,
    /// The wheel's entry, `TimerId::NONE` without one, and when it fires.
    laid: TimerId,
    fires: Now,
}

impl Timer {
    /// No deadline.
    pub const fn new() -> Self {
        Self { at: Now::NEVER, laid: TimerId::NONE, fires: Now::NEVER }
    }

    /// Expires at `at`.
    #[inline]
    pub fn set(&mut self, at: Now) {
        self.at = at;
    }

    /// Does not expire.
    #[inline]
    pub fn clear(&mut self) {
        self.at = Now::NEVER;
    }

    /// When it expires.
    pub fn at(&self) -> Option<Now> {
        (self.at != Now::NEVER).then_some(self.at)
    }

    /// Whether the deadline has passed; if not, the running task is woken when it does. Must always be polled by the
    /// same task.
    #[inline]
    pub fn poll_expired(&mut self) -> bool {
        if self.at == Now::NEVER {
            return false;
        }
        reactor::with(|reactor| {
            if self.at <= reactor.now() {
                return true;
            }
            let mut wheel = reactor.wheel.borrow_mut();
            if self.fires > self.at || !wheel.pending(self.laid) {
                wheel.cancel(self.laid);
                self.laid = wheel.insert(self.at, reactor.exec.current());
                self.fires = self.at;
            }
            false
        })
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.laid != TimerId::NONE {
            reactor::try_with(|reactor| reactor.wheel.borrow_mut().cancel(self.laid));
        }
    }
}

/// Waits until `at`.
pub async fn sleep_until(at: Now) {
    let mut timer = Timer::new();
    timer.set(at);
    poll_fn(|_| if timer.poll_expired() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Waits for `span`.
pub async fn sleep(span: Duration) {
    sleep_until(reactor::with(|reactor| reactor.now()) + span).await;
}

/// `future`'s answer, or `None` when `at` comes first (the future is dropped then).
pub async fn until<F: Future>(at: Now, future: F) -> Option<F::Output> {
    let mut timer = Timer::new();
    timer.set(at);
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(answer) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if timer.poll_expired() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}
