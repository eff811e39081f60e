//! Which worker has a client's flow, where datagrams may come by two ways: the queue of an interface chooses one, and the kernel, among its sockets, maybe another.
//!
//! What holds: a flow is in here from its beginning to its end, and nothing else is; so there are no more than listeners have flows. The lock is met when a flow begins and ends, and by what
//! comes to a worker that knows no flow for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Path;

/// What all workers know.
#[derive(Debug, Default)]
pub struct Owners(Mutex<HashMap<(SocketAddr, SocketAddr), u16>>);

impl Owners {
    fn lock(&self) -> MutexGuard<'_, HashMap<(SocketAddr, SocketAddr), u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's end of it, for the flows of one port.
pub(super) struct Owned {
    pub(super) owners: Arc<Owners>,
    pub(super) worker: u16,
    pub(super) local: SocketAddr,
}

impl Owned {
    fn key(&self, Path { client, to }: Path) -> (SocketAddr, SocketAddr) {
        (client, SocketAddr::new(to.unwrap_or(self.local.ip()), self.local.port()))
    }

    /// The worker that has the flow, if it is another one.
    pub(super) fn elsewhere(&self, path: Path) -> Option<u16> {
        self.owners.lock().get(&self.key(path)).copied().filter(|worker| *worker != self.worker)
    }

    /// A flow has begun here.
    pub(super) fn learn(&self, path: Path) {
        self.owners.lock().insert(self.key(path), self.worker);
    }

    /// It is over; one that has begun elsewhere meanwhile is not.
    pub(super) fn forget(&self, path: Path) {
        let (mut owners, key) = (self.owners.lock(), self.key(path));
        if owners.get(&key) == Some(&self.worker) {
            owners.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_known_from_its_beginning_to_its_end() {
        let owners = Arc::<Owners>::default();
        let [zero, one] =
            [0, 1].map(|worker| Owned { owners: Arc::clone(&owners), worker, local: ([0; 4], 53).into() });
        let path = |port| Path { client: ([192, 0, 2, 9], port).into(), to: Some([192, 0, 2, 1].into()) };
        for port in 1..=1_000 {
            zero.learn(path(port));
        }
        assert_eq!(
            (one.elsewhere(path(1)), zero.elsewhere(path(1)), one.elsewhere(path(1_001))),
            (Some(0), None, None)
        );
        assert_eq!(one.elsewhere(Path { to: None, ..path(1) }), None, "another address of ours");
        // The first has begun again elsewhere before it was over here.
        one.learn(path(1));
        for port in 1..=1_000 {
            zero.forget(path(port));
        }
        assert_eq!((zero.elsewhere(path(1)), one.elsewhere(path(2))), (Some(1), None));
        one.forget(path(1));
        assert!(owners.lock().is_empty());
    }
}
