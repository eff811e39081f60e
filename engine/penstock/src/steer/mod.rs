//! Which worker a connection goes to, decided before a worker has it or, where that is not granted, right after.
//!
//! The kernel spreads connections over a `SO_REUSEPORT` group by a hash, which counts nobody's work: of a few heavy clients most may fall on one
//! worker. A program of ours (`ebpf/steer`) chooses the less loaded of two instead, at the SYN. It reads what each worker has to do from an
//! array that both sides have mapped ([`Seat`]), so telling it costs a store a turn and no system call. Where the kernel does not
//! take programs from us, a worker that has accepted much more than another hands connections over before it has touched them ([`Neighbours`]).
//!
//! What holds here: nobody is without a worker whatever is granted; what was granted, and what was refused and why, is told ([`Steering::lines`]).
//! Nothing is pinned: what was loaded ends with the process and its sockets.

mod further;
mod load;
mod local;
mod lookup;
mod neighbours;
mod program;
mod seat;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

pub use further::Further;
pub use load::{burden, receiver};
pub use local::{Local, Steered};
pub use lookup::{Led, Lookup};
pub use neighbours::{Handed, Inbox, Inboxes, Neighbours};
pub use program::{Datagrams, Kind, Program};
pub use seat::Seat;

use ring::SharedWords;

use crate::limits;
use crate::snapshot::{Bind, Listener, ListenerId, Steering as Wish};

/// How connections find their worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A program chooses at the SYN.
    Program,
    /// The kernel's hash chooses, and workers hand over what is too much.
    HandOver,
    /// The kernel's hash chooses.
    Hash,
    /// There is one worker.
    Alone,
}

impl Mode {
    /// The word for it in `/status` and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::HandOver => "hand-over",
            Self::Hash => "hash",
            Self::Alone => "alone",
        }
    }
}

/// What a worker has that programs choose among.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Listening ones, in the order of the groups; `None` for one that is in no group: a Unix one.
    pub listening: Vec<Option<OwnedFd>>,
    /// Those of UDP.
    pub datagrams: Vec<DatagramSocket>,
}

/// One of UDP.
#[derive(Debug)]
pub struct DatagramSocket {
    pub listener: ListenerId,
    pub local: SocketAddr,
    /// Of QUIC: a program chooses by connection ids. What address it is, for the operator's eye; `None` for flows, of which the kernel keeps a client's with one worker.
    pub quic: Option<String>,
    pub socket: OwnedFd,
}

/// What workers need to know of a group, each for its own socket.
#[derive(Debug, Clone)]
pub struct Place {
    /// Of the address in this process: the same on all workers, and never another one's.
    pub gate: u64,
    /// Where workers tell what they have to do, if that has an effect.
    words: Option<Arc<SharedWords>>,
}

/// One listening address that all workers have a socket of.
pub struct Group {
    pub listener: ListenerId,
    gate: u64,
    /// Listener and address, for the operator's eye; `None` for a socket that the kernel does not choose among: a Unix one.
    pub name: Option<String>,
    program: Option<Program>,
}

impl Group {
    /// What workers need for their sockets of it.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { gate: self.gate, words: self.program.as_ref().map(|program| Arc::clone(program.words())) }
    }

    /// Which program it has.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.program.as_ref().map(Program::kind)
    }

    /// How often its program said what; `None` for a group without one.
    #[must_use]
    pub fn verdicts(&self) -> Option<Vec<(&'static str, u64)>> {
        self.program.as_ref().map(Program::verdicts)
    }
}

/// Steering as the control thread holds it.
pub struct Steering {
    mode: Mode,
    groups: Vec<Group>,
    /// Groups that there have been.
    opened: u64,
    /// Workers have begun: none can be had hand over any more that does not.
    begun: bool,
    refused: Option<String>,
    /// What comes to listeners that have not bound it; or why it does not.
    further: Option<Further>,
}

impl Steering {
    /// Steers by programs, unless there is nothing to choose between or the operator does not want it.
    #[must_use]
    pub const fn new(wish: Wish, workers: usize) -> Self {
        let mode = match wish {
            _ if workers < 2 => Mode::Alone,
            Wish::Off => Mode::Hash,
            Wish::Auto => Mode::Program,
        };
        Self { mode, groups: Vec::new(), opened: 0, begun: false, refused: None, further: None }
    }

    /// A group for each address of these listeners at which connections are accepted, in their order. Those that the kernel chooses among have a program
    /// where programs are to choose; they do nothing before they are [attached](Self::attach).
    pub fn open<'a>(
        &mut self,
        listeners: impl Iterator<Item = (ListenerId, &'a Listener)>,
        workers: usize,
    ) -> Vec<Group> {
        let mut groups = Vec::new();
        // Of datagrams none is given away: the kernel keeps a client's with one worker.
        for (id, listener) in listeners.filter(|(_, listener)| !listener.protocol.is_udp()) {
            for address in &listener.addresses {
                let name = match address {
                    Bind::Unix(_) => None,
                    Bind::Tcp(_) | Bind::Any { .. } => Some(format!("{address} (`{}`)", listener.name)),
                };
                groups.push(Group { listener: id, gate: self.opened, name, program: None });
                self.opened += 1;
            }
        }
        for at in 0..groups.len() {
            if self.mode != Mode::Program || groups[at].name.is_none() {
                continue;
            }
            match Program::load(Kind::Connections, workers) {
                Ok(program) => groups[at].program = Some(program),
                Err(why) => {
                    let few = !self.begun && workers <= limits::HANDING_OVER_MAX;
                    self.go_without(if few { Mode::HandOver } else { Mode::Hash }, &mut groups, why);
                }
            }
        }
        groups
    }

    /// Lets the programs choose from now on among these sockets, each worker's in the order of the groups; of QUIC's by what is `known`.
    pub fn attach(&mut self, mut groups: Vec<Group>, sockets: &[Sockets], known: &Datagrams) {
        for at in 0..groups.len() {
            let group = &mut groups[at];
            let of_group: Option<Vec<BorrowedFd<'_>>> =
                sockets.iter().map(|worker| worker.listening.get(at)?.as_ref().map(AsFd::as_fd)).collect();
            let (Some(program), Some(of_group)) = (&mut group.program, of_group) else { continue };
            if let Err(why) = program.attach(&of_group) {
                let why = format!("{}: {why}", group.name.as_deref().unwrap_or_default());
                self.go_without(Mode::Hash, &mut groups, why);
            }
        }
        self.begun = true;
        self.groups.append(&mut groups);
        if self.mode == Mode::Program {
            self.attach_datagrams(sockets, known);
        }
    }

    fn attach_datagrams(&mut self, sockets: &[Sockets], known: &Datagrams) {
        let Some(first) = sockets.first() else { return };
        for (at, DatagramSocket { listener, quic, .. }) in first.datagrams.iter().enumerate() {
            let of_group: Option<Vec<BorrowedFd<'_>>> =
                sockets.iter().map(|worker| worker.datagrams.get(at).map(|one| one.socket.as_fd())).collect();
            let (Some(of_group), Some(name)) = (of_group, quic) else { continue };
            match Program::datagrams(&of_group, known) {
                Ok(program) => {
                    let (listener, name) = (*listener, Some(name.clone()));
                    self.groups.push(Group { listener, gate: self.opened, name, program: Some(program) });
                    self.opened += 1;
                }
                Err(why) => self.refused = Some(format!("{name}: {why}")),
            }
        }
    }

    /// A new configuration holds, whose listeners are these of the one before; the groups of all others are let go.
    pub fn renumber(&mut self, listeners: &[Option<ListenerId>]) {
        self.groups.retain_mut(|group| {
            let now = listeners.iter().position(|of| *of == Some(group.listener));
            if let Some(now) = now {
                group.listener = ListenerId(now as u16);
            }
            now.is_some()
        });
    }

    /// Lets what comes to further addresses of these listeners come to these sockets of all workers.
    pub fn lead(&mut self, listeners: &[Listener], sockets: &[Sockets]) {
        self.further = Further::lead(listeners, sockets);
    }

    /// What comes to listeners that have not bound it, where any is to.
    #[must_use]
    pub const fn further(&self) -> Option<&Further> {
        self.further.as_ref()
    }

    /// None of the groups that begin has a program. Those that had begun before keep theirs.
    fn go_without(&mut self, mode: Mode, groups: &mut [Group], why: String) {
        if !self.begun {
            self.mode = mode;
        }
        self.refused = Some(why);
        // One way for all: what is attached already would stay so as long as its group.
        for group in groups {
            if let Some(mut program) = group.program.take() {
                program.detach();
            }
        }
    }

    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Why there are no programs though they were wanted.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// What was attached and what was not, for the operator's eye.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let named = |kind| {
            let groups = self.groups.iter().filter(|group| group.kind() == Some(kind));
            groups.filter_map(|group| group.name.as_deref()).collect::<Vec<_>>().join(", ")
        };
        let mut lines = match self.mode {
            Mode::Alone => Vec::new(),
            Mode::Program => vec![format!(
                "  steering: an eBPF program gives each connection to the less loaded of two workers: {}",
                named(Kind::Connections)
            )],
            Mode::HandOver => vec!["  steering: by the kernel's hash; workers hand over what is too much".to_owned()],
            Mode::Hash => vec!["  steering: by the kernel's hash".to_owned()],
        };
        let datagrams = named(Kind::Datagrams);
        if !datagrams.is_empty() {
            lines.push(format!(
                "  steering: an eBPF program gives each datagram of QUIC to its connection's worker: {datagrams}"
            ));
        }
        lines.extend(self.further.iter().flat_map(Further::lines));
        lines.extend(self.refused.iter().map(|why| format!("  goes without: eBPF steering ({why})")));
        lines
    }
}
