//! How datagrams that came to the wrong worker are brought to the right one: a mailbox between each two.
//!
//! The kernel chooses a worker by addresses, and a client that moves has another one (RFC 9000 §9). Where a program in the kernel chooses by
//! connection id this is never needed; where there is none, it is what keeps connections alive.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use ring::Sender;

use super::{Astray, Carrier, Endpoint};
use crate::limits;
use crate::telemetry::WorkerCells;

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
            // A box that is full is a network that drops: QUIC sends again.
            match way.map(|way| way.send(astray)) {
                Some(Ok(())) => cells.counters.quic_passed_on_total.add(1),
                Some(Err(_)) | None => cells.counters.quic_passed_on_lost_total.add(1),
            }
        })
    }
}

/// Opens this worker's end of the ways from all others, of which there are `count` with it; to be called on its ring.
#[must_use]
pub fn receive_from_all(index: usize, count: usize, endpoints: &[Rc<Endpoint>]) -> Vec<Option<Sender<Astray>>> {
    let open = |from: usize| {
        if from == index || endpoints.is_empty() {
            return None;
        }
        let (sender, mut receiver) = ring::mailbox::<Astray>(limits::QUIC_ASTRAY_MAX);
        let endpoints = endpoints.to_vec();
        ring::spawn(async move {
            while let Some(astray) = receiver.recv().await {
                if let Some(endpoint) = endpoints.get(astray.endpoint) {
                    endpoint.take_over(astray);
                }
            }
        });
        Some(sender)
    };
    (0..count).map(open).collect()
}
