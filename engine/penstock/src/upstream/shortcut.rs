//! Which connections to an endpoint on this host skip TCP, and which requests go over them ([`crate::samehost`]).
//!
//! A request that is short, and here as a whole, goes over a connection of its kind, where the endpoint's answers are mostly small: a large one makes the
//! connection one of TCP, which is then let go of. Everything else goes over plain connections. An idle connection of the wrong kind is taken only
//! where no new one may be made.

use std::cell::{Cell, Ref};
use std::sync::Arc;

use super::Cluster;
use super::cluster::Wanted;
use super::endpoint::Endpoint;
use crate::limits;
use crate::samehost;

/// What is learnt of an endpoint for that.
#[derive(Default)]
pub(super) struct Shortcut {
    /// Whether all its addresses are this host's; `None`: nobody has asked.
    here: Cell<Option<bool>>,
    /// Of 65,536 answers, how many were large lately.
    large: Cell<u16>,
}

/// Answers that are remembered, in effect.
const MEMORY: u16 = 16;

/// Share of large answers from which on connections are plain: a new connection costs about as much as ten short exchanges save.
const LARGE_MAX: u16 = u16::MAX / 10;

impl Shortcut {
    /// Addresses have changed.
    pub(super) fn moved(&self) {
        self.here.set(None);
    }

    fn is_here(&self, addresses: Ref<'_, Box<[ring::Address]>>) -> bool {
        if let Some(here) = self.here.get() {
            return here;
        }
        let own = |address: &ring::Address| address.inet().is_some_and(samehost::is_here);
        let here = !addresses.is_empty() && addresses.iter().all(own);
        self.here.set(Some(here));
        here
    }

    /// An answer had so many bytes of content.
    fn answered(&self, bytes: u64) {
        let large = self.large.get();
        let seen = if bytes >= limits::SAME_HOST_ANSWER_LARGE { u16::MAX } else { 0 };
        self.large.set(large - large / MEMORY + seen / MEMORY);
    }

    const fn pays(&self) -> bool {
        self.large.get() <= LARGE_MAX
    }
}

impl Cluster {
    /// Its requests may take the shortcut while the switch is on.
    #[must_use]
    pub fn with_switch(mut self, switch: Option<Arc<samehost::Switch>>) -> Self {
        self.switch = switch;
        self
    }

    /// The priority of sockets whose connections are to take the shortcut, while it is on.
    pub(super) fn near(&self) -> Option<u32> {
        self.switch.as_ref()?.token()
    }

    /// As [`near`](Self::near), where what is wanted is a connection that takes it.
    pub(super) fn near_for(&self, wanted: &Wanted<'_>) -> Option<u32> {
        let token = self.near().filter(|_| wanted.short)?;
        wanted.endpoint.skips_tcp().then_some(token)
    }
}

impl Endpoint {
    /// Connections to it are to take the shortcut, where it is on.
    pub(super) fn skips_tcp(&self) -> bool {
        self.shortcut.pays() && self.shortcut.is_here(self.addresses_now())
    }

    /// An answer of its had so many bytes of content.
    pub(super) fn answered(&self, bytes: u64) {
        self.shortcut.answered(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_answer_in_twenty_leaves_the_shortcut_and_many_do_not() {
        let shortcut = Shortcut::default();
        for at in 0..200 {
            shortcut.answered(if at % 20 == 0 { 1 << 20 } else { 100 });
            assert!(shortcut.pays(), "{at}");
        }
        shortcut.answered(1 << 20);
        shortcut.answered(1 << 20);
        assert!(!shortcut.pays());
        (0..500).for_each(|_| shortcut.answered(u64::MAX));
        assert!(!shortcut.pays());
        let back = (1..).find(|_| {
            shortcut.answered(100);
            shortcut.pays()
        });
        assert!(back.unwrap() < 60, "{back:?}");
    }
}
