//! A world: one node under test, and the hosts around it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::faults::Faults;
use super::kernel::{Kernel, Shared};
use super::replay;
use super::script::{self, Host, Listening, Script};
use crate::net::Address;

static NEXT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The worlds of this thread, for nodes to find theirs: a node itself can be sent anywhere, as its `DriverChoice` is.
    static WORLDS: RefCell<HashMap<u64, Weak<RefCell<Kernel>>>> = RefCell::default();
}

/// A seeded world. Everything in it follows from the seed, the faults and the code that runs in it.
///
/// It belongs to one thread, and has one node. Drop the node's reactor before it.
pub struct World {
    shared: Shared,
    id: u64,
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let shared = Rc::new(RefCell::new(Kernel::new(seed, faults)));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        WORLDS.with_borrow_mut(|worlds| worlds.insert(id, Rc::downgrade(&shared)));
        replay::remember(shared.borrow().trace.clone());
        Self { shared, id }
    }

    /// The node under test, for `DriverChoice::Sim`.
    pub fn node(&self) -> Node {
        Node { world: self.id }
    }

    /// Starts a script on a host of its own; it runs while the node turns.
    pub fn spawn<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        name: &str,
        script: impl FnOnce(Host) -> F,
    ) -> Script<T> {
        script::spawn(&self.shared, name, script)
    }

    /// A listening socket outside of the node, to be moved into a script: open before anything runs.
    ///
    /// # Errors
    /// `AddrInUse`.
    pub fn listen(&self, address: &Address) -> io::Result<Listening> {
        Listening::open(&self.shared, address)
    }

    /// From now on the network knows the datagram socket at `inside`, its own IP address and port, as `outside`: a NAT has
    /// forgotten it. Under its former name nobody is there any more.
    pub fn rebind(&self, inside: SocketAddr, outside: SocketAddr) {
        self.shared.borrow_mut().rebind(inside, outside);
    }

    /// Lets time pass for the scripts and the network without a turn of the node.
    pub fn run_for(&self, time: Duration) {
        let end = self.now() + time.as_nanos() as u64;
        loop {
            script::run_due(&self.shared);
            let kernel = &mut *self.shared.borrow_mut();
            match kernel.next_event() {
                Some(at) if at <= end => kernel.now = kernel.now.max(at),
                _ => break kernel.now = end,
            }
        }
    }

    /// Virtual nanoseconds.
    pub fn now(&self) -> u64 {
        self.shared.borrow().now
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.borrow_mut().faults = faults;
    }

    /// Virtual time after which a turn panics because the run does not end. Default: 24 h.
    pub fn limit(&self, time: Duration) {
        self.shared.borrow_mut().limit = time;
    }

    /// What the node did that an owner of operations may never do.
    pub fn violations(&self) -> Vec<String> {
        self.shared.borrow().violations.clone()
    }

    /// Descriptors that the node has not closed.
    pub fn open_sockets(&self) -> usize {
        self.shared.borrow().open_descriptors()
    }

    /// Operations of the node whose last completion has not been handed out.
    pub fn pending_ops(&self) -> usize {
        self.shared.borrow().ops.len()
    }

    /// Scripts that have not ended.
    pub fn running_scripts(&self) -> usize {
        self.shared.borrow().scripts.iter().filter(|slot| !slot.done).count()
    }

    /// Writes into the trace.
    pub fn note(&self, text: impl Into<String>) {
        let kernel = self.shared.borrow();
        kernel.trace.borrow_mut().note(kernel.now, text.into());
    }

    /// The last 200 events as text.
    pub fn trace(&self) -> String {
        self.shared.borrow().trace.borrow().text()
    }

    /// To be asked after the node's reactor is gone: violations, descriptors and operations that it left behind.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub fn verdict(&self) -> Result<(), String> {
        let mut wrong = self.violations();
        let (open, pending) = (self.open_sockets(), self.pending_ops());
        if open > 0 {
            wrong.push(format!("{open} descriptors were never closed"));
        }
        if pending > 0 {
            wrong.push(format!("{pending} operations never completed:\n{}", self.shared.borrow().who_waits()));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        WORLDS.with_borrow_mut(|worlds| worlds.remove(&self.id));
        drop(script::take_all(&self.shared));
    }
}

/// The node under test: what `DriverChoice::Sim` takes. Of use on the thread of its world only.
#[derive(Clone, Debug)]
pub struct Node {
    world: u64,
}

impl Node {
    /// # Panics
    /// If the world is gone, or another thread's.
    pub(super) fn shared(&self) -> Shared {
        let found = WORLDS.with_borrow(|worlds| worlds.get(&self.world).and_then(Weak::upgrade));
        found.expect("a node lives in a world of its own thread")
    }
}
