//! The state of a world: time, what will happen next, sockets, operations and scripts.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::datagrams::Packet;
use super::dice::Dice;
use super::faults::Faults;
use super::net::{Socket, SocketId};
use super::ops::{Finished, Op};
use super::script::{ScriptId, Slot};
use super::trace::Trace;
use crate::driver::{DriverCounts, Fd, Token, epoll};
use crate::slab::Slab;

/// Virtual time after which a world has gone on for too long, unless the test says otherwise.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Turns after which a world has gone on for too long: several seconds of nothing but turns.
const TURNS_MAX: u64 = 10_000_000;

pub(super) type Shared = Rc<RefCell<Kernel>>;

/// What the world does when its time has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Event {
    /// The next segment on its way to this socket arrives.
    Arrive { to: SocketId },
    /// The other end's RST arrives.
    Reset { to: SocketId },
    /// A connection request arrives at the listener, for the `tries`th time.
    Syn { from: SocketId, tries: u32 },
    /// The answer to a connection request arrives; `error` is 0 or an `errno`.
    Answer { to: SocketId, error: i32 },
    /// A datagram arrives.
    Datagram { packet: u32 },
    /// A datagram socket takes more to be sent.
    Room { of: SocketId },
    /// An operation of the node tries to make progress.
    Attempt { token: Token },
    /// A cancel takes effect.
    Cancel { token: Token },
    /// A script looks around.
    Wake { script: ScriptId },
}

/// What a socket call of any side came to.
pub(super) enum Got {
    Bytes(Vec<u8>),
    End,
    Failed(i32),
    Nothing,
}

/// See the module's documentation.
pub(super) struct Kernel {
    pub(super) now: u64,
    pub(super) dice: Dice,
    pub(super) faults: Faults,
    pub(super) trace: Rc<RefCell<Trace>>,
    pub(super) violations: Vec<String>,
    pub(super) limit: Duration,
    /// A turn has panicked, and that is enough.
    pub(super) given_up: bool,
    turns: u64,
    /// By time, then in the order of scheduling.
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    // The network: `net.rs`.
    pub(super) sockets: Vec<Socket>,
    pub(super) listeners: Vec<SocketId>,
    pub(super) ports: u16,
    pub(super) hosts: u16,
    // Its datagrams: `datagrams.rs`.
    pub(super) mailboxes: Vec<SocketId>,
    /// On their way.
    pub(super) packets: Slab<Packet>,
    /// Sockets' own addresses, and what the network knows them as.
    pub(super) rebound: Vec<(SocketAddr, SocketAddr)>,
    // The node: `ops.rs`.
    pub(super) ops: HashMap<Token, Op, BuildHasherDefault<epoll::TokenHasher>>,
    pub(super) completions: BinaryHeap<Reverse<Finished>>,
    pub(super) completed: u64,
    /// Tokens and results of operations that are over, to be told once more.
    pub(super) over: VecDeque<(Token, i32)>,
    /// By descriptor, from `FIRST_FD` on.
    pub(super) descriptors: Vec<Option<SocketId>>,
    pub(super) free: BinaryHeap<Reverse<Fd>>,
    /// Polls of descriptors that are not ours but the real kernel's.
    pub(super) real_polls: Vec<(Token, Fd)>,
    pub(super) emfile_burst: u64,
    /// Bytes of a send between the node's memory and the network.
    pub(super) scratch: Vec<u8>,
    pub(super) counts: DriverCounts,
    // The scripts: `script.rs`.
    pub(super) scripts: Vec<Slot>,
    pub(super) runnable: VecDeque<ScriptId>,
    /// The script that runs now.
    pub(super) current: Option<ScriptId>,
    /// A task of the node waits for a script that has ended: the turn returns.
    pub(super) woken: bool,
}

impl Kernel {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: 1_000_000,
            dice: Dice::new(seed),
            faults,
            trace: Rc::default(),
            violations: Vec::new(),
            limit: LIMIT,
            given_up: false,
            turns: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            sockets: Vec::new(),
            listeners: Vec::new(),
            ports: 20_000,
            hosts: 0,
            mailboxes: Vec::new(),
            packets: Slab::new(),
            rebound: Vec::new(),
            ops: HashMap::default(),
            completions: BinaryHeap::new(),
            completed: 0,
            over: VecDeque::new(),
            descriptors: Vec::new(),
            free: BinaryHeap::new(),
            real_polls: Vec::new(),
            emfile_burst: 0,
            scratch: Vec::new(),
            counts: DriverCounts::default(),
            scripts: Vec::new(),
            runnable: VecDeque::new(),
            current: None,
            woken: false,
        }
    }

    pub(super) fn schedule(&mut self, after: u64, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    pub(super) fn schedule_at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at.max(self.now), self.scheduled, event)));
    }

    /// Lets everything happen whose time has come, up to a script that wants to run.
    pub(super) fn advance(&mut self) -> Option<ScriptId> {
        loop {
            if let Some(script) = self.runnable.pop_front() {
                return Some(script);
            }
            let &Reverse((at, _, event)) = self.events.peek()?;
            if at > self.now {
                return None;
            }
            self.events.pop();
            self.happen(event);
        }
    }

    /// When something will happen next in the world.
    pub(super) fn next_event(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, _, _))| *at)
    }

    /// When the next completion is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.completions.peek().map(|Reverse(finished)| finished.due)
    }

    /// A turn of the node begins: it cost the node some time to come here.
    pub(super) fn begin_turn(&mut self) {
        self.turns += 1;
        self.counts.enters += 1;
        self.now += 200 + self.dice.below(1_000);
        let endless = self.turns > TURNS_MAX || self.now > self.limit.as_nanos() as u64;
        if endless && !self.giving_up() {
            self.given_up = true;
            let stuck = self.who_waits();
            panic!(
                "the simulation does not end: {} turns, {:?} of virtual time\n{stuck}",
                self.turns,
                Duration::from_nanos(self.now)
            );
        }
    }

    /// The run has failed already: what is left is to let the ring come to rest. A second panic would end the process
    /// without a word.
    pub(super) fn giving_up(&self) -> bool {
        self.given_up || std::thread::panicking()
    }

    pub(super) fn event(&self, text: &'static str, who: impl Into<i64>, value: impl Into<i64>) {
        self.trace.borrow_mut().event(self.now, text, who.into(), value.into());
    }

    pub(super) fn violation(&mut self, text: String) {
        self.trace.borrow_mut().note(self.now, format!("VIOLATION: {text}"));
        self.violations.push(text);
    }

    /// Operations in flight and scripts that have not ended, as text.
    pub(super) fn who_waits(&self) -> String {
        let mut lines: Vec<String> =
            self.ops.iter().map(|(token, op)| format!("  operation {token:#x}: {:?}", op.request)).collect();
        lines.sort();
        lines.extend(self.scripts.iter().filter(|slot| !slot.done).map(|slot| format!("  script {:?}", slot.name)));
        lines.join("\n")
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { to } => self.arrive(to),
            Event::Reset { to } => self.reset_arrives(to),
            Event::Syn { from, tries } => self.syn_arrives(from, tries),
            Event::Answer { to, error } => self.answer_arrives(to, error),
            Event::Datagram { packet } => self.datagram_arrives(packet),
            Event::Room { of } => self.notify(of),
            Event::Attempt { token } => self.attempt(token),
            Event::Cancel { token } => self.cancel_now(token),
            Event::Wake { script } => self.runnable.push_back(script),
        }
    }
}
