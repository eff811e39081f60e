//! A worker's listening sockets by their numbers, for those who hand connections over to it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use crate::limits;
use crate::listen::{self, Gate};
use crate::steer::Inbox;

/// Gates that are open, by the number that they have on all workers.
#[derive(Default)]
pub(super) struct Gates {
    open: RefCell<BTreeMap<u64, Weak<Gate>>>,
    /// All numbers below this one have been given here.
    next: Cell<u64>,
}

impl Gates {
    /// From now on connections of this number are the gate's.
    pub(super) fn add(&self, number: u64, gate: &Rc<Gate>) {
        let mut open = self.open.borrow_mut();
        open.retain(|_, gate| gate.strong_count() > 0);
        open.insert(number, Rc::downgrade(gate));
        self.next.set(self.next.get().max(number + 1));
    }

    /// Takes over what another worker hands over, for as long as that one is there.
    pub(super) async fn take_over(self: Rc<Self>, mut inbox: Inbox) {
        while let Some(handed) = inbox.recv().await {
            // What is handed over to a gate that is no more is nobody's.
            if let Some(gate) = self.find(handed.gate).await {
                listen::take_over(&gate, handed.socket);
            }
        }
    }

    /// The gate of a number. Who hands over may be ahead by a configuration, which is adopted here within a few turns.
    async fn find(&self, number: u64) -> Option<Rc<Gate>> {
        let deadline = ring::now() + limits::RELOAD_ANSWER;
        while self.next.get() <= number && ring::now() < deadline {
            ring::sleep(limits::RELOAD_LOOK).await;
        }
        self.open.borrow().get(&number)?.upgrade()
    }
}
