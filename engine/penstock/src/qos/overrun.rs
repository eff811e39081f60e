//! Clients that go on though they are turned away: told to whoever can keep them out for less than an answer costs.
//!
//! What holds: nothing is counted unless the configuration asks for it, and then only when a request has been turned away already. What is told is
//! a hint: when nobody has taken the last ones yet it is dropped, and told again with the client's next request.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use policy::{Rate, RateSettings};

use super::keyed::{Keyed, step};
use crate::limits;

#[derive(Debug)]
pub(super) struct Overrun {
    /// How often a client may be turned away.
    rate: Rate,
    clients: Keyed,
    tell: SyncSender<IpAddr>,
    /// The control thread's, and nobody else's.
    told: Mutex<Receiver<IpAddr>>,
}

impl Overrun {
    pub(super) fn new(rate: RateSettings, seed: u64) -> Self {
        let (tell, told) = sync_channel(limits::OVERRUN_TOLD_MAX);
        Self { rate: Rate::new(rate), clients: Keyed::new(limits::RATE_KEYS, seed), tell, told: Mutex::new(told) }
    }

    /// A request of `client`, whose key is `key`, has been turned away.
    pub(super) fn refused(&self, key: u64, client: IpAddr) {
        let now = super::now();
        let counted = step(self.clients.word(key), |full| self.rate.step(full, now, 1).map(|full| (full, ())));
        if counted.is_err() {
            // Full: see above.
            let _ = self.tell.try_send(client);
        }
    }

    /// Who was turned away too often, since the last call.
    pub(super) fn told(&self) -> Vec<IpAddr> {
        self.told.lock().map(|told| told.try_iter().take(limits::OVERRUN_TOLD_MAX).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_goes_on_is_told_and_nobody_else() {
        let driver = ring::DriverChoice::Epoll;
        let ring = ring::Ring::new(ring::Options { driver, ..ring::Options::default() }).unwrap();
        ring.block_on(async {
            let rate = RateSettings { quota: 1, period: Duration::from_secs(3_600), burst: 10 };
            let overrun = Overrun::new(rate, 1);
            let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
            for _ in 0..10 {
                overrun.refused(1, one);
                overrun.refused(2, other);
            }
            assert_eq!(overrun.told(), [] as [IpAddr; 0]);
            overrun.refused(1, one);
            overrun.refused(1, one);
            assert_eq!(overrun.told(), [one, one]);
            // Nobody takes them: what does not fit is dropped.
            for _ in 0..10 * limits::OVERRUN_TOLD_MAX {
                overrun.refused(1, one);
            }
            assert_eq!(overrun.told().len(), limits::OVERRUN_TOLD_MAX);
            assert!(overrun.told().is_empty());
        });
    }
}
