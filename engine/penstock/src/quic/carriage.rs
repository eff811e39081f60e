//! How datagrams that came to the wrong worker are brought to the right one, those of QUIC's connections and of flows: a mailbox between each two.
//!
//! The kernel chooses a worker by addresses, and a client that moves has another one (RFC 9000 §9). Where a program in the kernel chooses by
//! connection id this is never needed; where there is none, it is what keeps connections alive. Flows need it where their datagrams come by the kernel and past it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};

use ring::Sender;

use super::{Astray, Carrier};
use crate::limits;
use crate::telemetry::WorkerCells;

/// What takes in datagrams that came to other workers.
pub trait End {
    /// What belongs to other workers is brought to them from now on.
    fn carry(&self, carrier: Carrier);

    /// Takes a datagram in that came to another worker.
    fn take_over(&self, astray: Astray);
}

/// A worker's ends of what clients send by datagrams. Those of one number have the same address on all workers; the number of one that is closed is never another one's.
#[derive(Clone, Default)]
pub struct Ends(Rc<RefCell<Numbered>>);

#[derive(Default)]
struct Numbered {
    next: usize,
    open: BTreeMap<usize, Weak<dyn End>>,
}

impl Ends {
    /// The number of the next one: how many there have been.
    #[must_use]
    pub fn next(&self) -> usize {
        self.0.borrow().next
    }

    /// One more.
    pub fn push<E: End + 'static>(&self, end: &Rc<E>) {
        let Numbered { next, open } = &mut *self.0.borrow_mut();
        open.retain(|_, end| end.strong_count() > 0);
        let weak: Weak<E> = Rc::downgrade(end);
        open.insert(*next, weak);
        *next += 1;
    }

    /// Those that are open.
    #[must_use]
    pub fn all(&self) -> Vec<Rc<dyn End>> {
        self.0.borrow().open.values().filter_map(Weak::upgrade).collect()
    }

    fn get(&self, number: usize) -> Option<Rc<dyn End>> {
        self.0.borrow().open.get(&number)?.upgrade()
    }
}

/// The ways to each other worker, by their numbers; on their way to the one that uses them.
#[derive(Clone)]
pub struct Ways(Arc<Mutex<Vec<Option<Sender<Astray>>>>>);

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ways")
    }
}

impl Ways {
    #[must_use]
    pub fn new(senders: Vec<Option<Sender<Astray>>>) -> Self {
        Self(Arc::new(Mutex::new(senders)))
    }

    /// For the worker that they begin at.
    #[must_use]
    pub fn carrier(self, cells: Arc<WorkerCells>) -> Carrier {
        let senders = RefCell::new(std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)));
        Rc::new(move |worker, astray| {
            let mut senders = senders.borrow_mut();
            let way = senders.get_mut(usize::from(worker)).and_then(Option::as_mut);
            // A box that is full is a network that drops.
            match way.map(|way| way.send(astray)) {
                Some(Ok(())) => cells.counters.quic_passed_on_total.add(1),
                Some(Err(_)) | None => cells.counters.quic_passed_on_lost_total.add(1),
            }
        })
    }
}

/// Opens this worker's end of the ways from all others, of which there are `count` with it; to be called on its ring.
#[must_use]
pub fn receive_from_all(index: usize, count: usize, ends: &Ends) -> Vec<Option<Sender<Astray>>> {
    let open = |from: usize| {
        if from == index {
            return None;
        }
        let (sender, mut receiver) = ring::mailbox::<Astray>(limits::QUIC_ASTRAY_MAX);
        let ends = ends.clone();
        ring::spawn(async move {
            while let Some(astray) = receiver.recv().await {
                if let Some(end) = ends.get(astray.end) {
                    end.take_over(astray);
                }
            }
        });
        Some(sender)
    };
    (0..count).map(open).collect()
}

#[cfg(test)]
mod tests {
    use abi::Place;
    use bytes::BytesMut;
    use ring::sim::{Faults, World};
    use ring::{DriverChoice, Options, Ring};

    use super::*;
    use crate::quic::{Endpoint, Keys};
    use crate::snapshot::QuicSettings;

    /// A worker that is stuck costs the others no more than what fits into its box.
    #[test]
    fn a_way_has_its_bound() {
        let world = World::new(1, Faults::none());
        let ring =
            Ring::new(Options { driver: DriverChoice::Sim(world.node()), ..Options::default() }).expect("a ring");
        ring.block_on(async {
            let keys = Keys::new(&QuicSettings::default()).expect("there is randomness").repeatable(1);
            let place = Place { server: 0, generation: 0, worker: 0 };
            let address = "10.0.0.1:443".parse().expect("an address");
            let endpoint = Endpoint::calling(address, &keys, place).expect("a socket");
            let ends = Ends::default();
            ends.push(&endpoint);
            let ways = Ways::new(receive_from_all(1, 2, &ends));
            let cells = Arc::new(WorkerCells::default());
            let carry = ways.carrier(Arc::clone(&cells));
            let astray = || Astray::to(0, "10.9.0.1:9".parse().expect("an address"), BytesMut::from(&[0x40; 30][..]));
            // Nobody takes anything out before this task waits.
            (0..limits::QUIC_ASTRAY_MAX + 7).for_each(|_| carry(0, astray()));
            let counts = || (cells.counters.quic_passed_on_total.get(), cells.counters.quic_passed_on_lost_total.get());
            assert_eq!(counts(), (limits::QUIC_ASTRAY_MAX as u64, 7));
            ring::sleep(std::time::Duration::from_millis(1)).await;
            carry(0, astray());
            assert_eq!(counts(), (limits::QUIC_ASTRAY_MAX as u64 + 1, 7), "there is room again");
        });
    }
}
