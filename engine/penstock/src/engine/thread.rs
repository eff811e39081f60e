//! A worker's thread: its ring, its worker, and what they tell the control thread before they begin.

use std::io;
use std::sync::mpsc::{Sender as ReadySender, channel};

use ring::{DriverChoice, Granted, Options, Ring, Sender, SpinPolicy};

use crate::limits;
use crate::quic;
use crate::snapshot::{Driver, Snapshot, Spin};
use crate::steer::{Inboxes, Neighbours, Sockets};
use crate::worker::{Message, Plan, Worker};

/// What a worker says when it has started.
pub(super) struct Started {
    pub(super) granted: Granted,
    pub(super) mail: Sender<Message>,
    /// From each other worker to this one.
    pub(super) ways: Vec<Option<Sender<quic::Astray>>>,
    /// What programs choose among, and the sending ends of its mailboxes from each other worker.
    pub(super) sockets: Sockets,
    pub(super) inboxes: Inboxes,
    pub(super) go: ReadySender<Option<Neighbours>>,
}

/// A worker's thread.
pub(super) fn work(plan: Plan, cpu: usize, ready: &ReadySender<io::Result<Started>>) {
    let settings = &plan.generation.snapshot;
    let options = Options { driver: driver(settings), spin: spin(settings) };
    let (index, count, hands_over) = (plan.index, plan.count, plan.hands_over);
    let opened = ring::pin_to(cpu).and_then(|()| Ring::new(options).map_err(no_ring)).and_then(|ring| {
        let (worker, mail, receiver, ways, mesh) = ring.block_on(async move {
            let (mail, receiver) = ring::mailbox(limits::MAILBOX);
            let mesh = if hands_over { Neighbours::inboxes(index, count) } else { Default::default() };
            let worker = Worker::open(plan)?;
            let ways = if worker.has_had_datagrams() { worker.ways_from_others() } else { Vec::new() };
            io::Result::Ok((worker, mail, receiver, ways, mesh))
        })?;
        Ok((ring, worker, mail, receiver, ways, mesh))
    });
    match opened {
        Err(error) => drop(ready.send(Err(error))),
        Ok((ring, mut worker, mail, receiver, ways, (senders, inboxes))) => {
            let (go, may_go) = channel();
            let (granted, sockets) = (ring.granted(), worker.sockets());
            if ready.send(Ok(Started { granted, mail, ways, sockets, inboxes: senders, go })).is_ok()
                && let Ok(neighbours) = may_go.recv()
            {
                ring.block_on(async move {
                    if let Some(neighbours) = neighbours {
                        worker.meet(neighbours, inboxes);
                    }
                    worker.run(receiver).await;
                });
            }
        }
    }
}

/// Names the culprit: the bare errno of `io_uring_setup` tells nobody anything.
fn no_ring(error: io::Error) -> io::Error {
    let why = "the kernel or a seccomp profile refuses io_uring; use driver \"auto\" or \"epoll\" (`penstock doctor` tells more)";
    io::Error::new(error.kind(), format!("no ring: {error}: {why}"))
}

pub(crate) fn driver(snapshot: &Snapshot) -> DriverChoice {
    match snapshot.engine.driver {
        Driver::Auto => DriverChoice::Auto,
        Driver::Uring => DriverChoice::Uring,
        Driver::Epoll => DriverChoice::Epoll,
    }
}

fn spin(snapshot: &Snapshot) -> SpinPolicy {
    match snapshot.engine.spin {
        Spin::Auto => SpinPolicy::Auto,
        Spin::Off => SpinPolicy::Off,
        Spin::For(span) => SpinPolicy::Fixed(span),
    }
}
