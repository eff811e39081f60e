//! What the service manager that has started the process is told (sd_notify(3)): when it serves, reads its configuration anew, and ends, and that it lives.
//!
//! Where no manager listens (`NOTIFY_SOCKET` is not set), nobody is told anything.

use std::time::Duration;

use sd_notify::NotifyState;

/// The configuration is being read anew until this ends: the manager waits for that.
#[must_use]
pub struct Reloading(());

impl Reloading {
    pub fn begin() -> Self {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        Self(())
    }

    /// Something holds again, and this is what.
    pub fn end(self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        tell(&[NotifyState::Ready]);
    }
}

/// It serves, and this is what.
pub fn serves(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It ends what has begun, which may take as long as `patience`, whatever the manager has been told of how long it takes to stop.
pub fn drains(patience: Duration) {
    let more = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(more), NotifyState::Status("draining")]);
}

/// How often the manager wants to hear that it [lives](lives); `None`: it does not ask.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|every| !every.is_zero())
}

/// It lives.
pub fn lives() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that does not listen any more is none.
    let _ = sd_notify::notify(states);
}
