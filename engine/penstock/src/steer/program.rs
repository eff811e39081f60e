//! A steering program in the kernel, loaded through aya for one `SO_REUSEPORT` group.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::{CONFIGS, ConnectionIds, GENERATIONS_HELD, Group, SEAT_WORDS, Verdict};
use aya::maps::{Array, Map, MapData, MapError, ReusePortSockArray, SockMap};
use aya::programs::SkReuseport;
use aya::{Ebpf, EbpfLoader};
use ring::SharedWords;

use crate::bpf::{self, refusal};

/// Built by `cargo xtask ebpf` and committed; CI compares it with its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/steer/steer.o");

/// Device or resource busy.
const EBUSY: i32 = 16;

/// Which of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP: the less loaded of two.
    Connections,
    /// UDP: by QUIC's connection ids.
    Datagrams,
}

impl Kind {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Connections, Self::Datagrams];

    /// The program's name in the object, and in `bpftool prog`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Datagrams => "datagrams",
        }
    }
}

/// What the program for datagrams must know.
#[derive(Debug, Clone)]
pub struct Datagrams {
    /// Of this machine in its fleet.
    pub server: u16,
    /// Of this process.
    pub generation: u8,
    /// How ids are read; by the first, ids that clients chose are spread.
    pub ids: Arc<[ConnectionIds]>,
}

/// A program that is loaded, and its maps. Dropping it lets go of both; a group that it is attached to keeps them until its sockets are closed.
pub struct Program {
    kind: Kind,
    ebpf: Ebpf,
    words: Arc<SharedWords>,
    group: Group,
    /// Of the group's sockets, to detach it by.
    member: Option<OwnedFd>,
}

impl Program {
    /// Loads a program for so many workers; it chooses nobody until [`attach`](Self::attach).
    ///
    /// # Errors
    /// A sentence for the operator: which step was refused, and what that needs.
    pub fn load(kind: Kind, workers: usize) -> Result<Self, String> {
        let workers = u32::try_from(workers).map_err(|_| "too many workers".to_owned())?;
        let mut ebpf = EbpfLoader::new()
            // Nothing in the programs depends on how the kernel lays out its structures.
            .btf(None)
            .map_max_entries("SOCKETS", workers * GENERATIONS_HELD as u32)
            .map_max_entries("LED", workers * GENERATIONS_HELD as u32)
            .map_max_entries("SEATS", workers)
            .load(OBJECT)
            .map_err(|error| refusal("maps", &error))?;
        program(&mut ebpf, kind)?.load().map_err(|error| refusal("program", &error))?;
        let words = match ebpf.map("SEATS") {
            Some(Map::Array(seats)) => SharedWords::map(seats.fd().as_fd(), workers as usize * SEAT_WORDS)
                .map_err(|error| refusal("mapping", &error))?,
            _ => return Err("the object has no SEATS".to_owned()),
        };
        let group = Group { stride: workers, ..Group::default() };
        Ok(Self { kind, ebpf, words: Arc::new(words), group, member: None })
    }

    /// The program for datagrams, steering these sockets: one for each worker in their order, bound, and of one group.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn datagrams<S: AsFd>(sockets: &[S], known: &Datagrams) -> Result<Self, String> {
        let mut program = Self::load(Kind::Datagrams, sockets.len())?;
        program.configure(known)?;
        program.attach(sockets)?;
        Ok(program)
    }

    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The array that workers tell their load in, [`SEAT_WORDS`] words each.
    #[must_use]
    pub fn words(&self) -> &Arc<SharedWords> {
        &self.words
    }

    /// Tells the program for datagrams what it must know, before it is attached or at any time after.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn configure(&mut self, datagrams: &Datagrams) -> Result<(), String> {
        let first = datagrams.ids.first().ok_or_else(|| "no keys of connection ids".to_owned())?;
        let mut ids: Array<&mut MapData, [u64; 7]> = bpf::map(&mut self.ebpf, "IDS")?;
        for config in 0..u32::from(CONFIGS) {
            let known = datagrams.ids.iter().find(|ids| u32::from(ids.config()) == config);
            let of = known.unwrap_or(&ConnectionIds::NONE);
            ids.set(config, of.words(), 0).map_err(|error| refusal("ids", &error))?;
        }
        self.group = Group {
            server: datagrams.server.into(),
            generation: (datagrams.generation % abi::GENERATIONS).into(),
            config: first.config().into(),
            ..self.group
        };
        self.tell()
    }

    /// Lets it choose among these sockets from now on, one for each worker in their order, all of one group: listening ones for
    /// connections, bound ones for datagrams.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn attach<S: AsFd>(&mut self, sockets: &[S]) -> Result<(), String> {
        let generation = self.group.generation;
        for (worker, socket) in (0..).zip(sockets) {
            self.seat(generation, worker, socket.as_fd())?;
        }
        self.group.workers[(generation & 1) as usize] = sockets.len() as u32;
        self.tell()?;
        if let Some(first) = sockets.first() {
            let first = first.as_fd();
            program(&mut self.ebpf, self.kind)?.attach(first).map_err(|error| refusal("attaching", &error))?;
            self.member = first.try_clone_to_owned().ok();
        }
        Ok(())
    }

    /// Leaves the choice to the kernel's hash again.
    pub fn detach(&mut self) {
        if let Some(member) = self.member.take() {
            // Refused only when it is detached already.
            let _ = SkReuseport::detach(member);
        }
    }

    fn seat(&mut self, generation: u32, worker: u32, socket: BorrowedFd<'_>) -> Result<(), String> {
        let index = self.group.socket_of(generation, worker);
        let mut sockets: ReusePortSockArray<&mut MapData> = bpf::map(&mut self.ebpf, "SOCKETS")?;
        match sockets.set(index, &socket, 0) {
            // It is in the map of those that further addresses are led to, and the kernel has it in one kind only.
            Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(EBUSY) => {
                let mut led: SockMap<&mut MapData> = bpf::map(&mut self.ebpf, "LED")?;
                led.set(index, &socket, 0).map_err(|error| refusal("sockets", &error))
            }
            set => set.map_err(|error| refusal("sockets", &error)),
        }
    }

    /// Writes down what there is of the group.
    fn tell(&mut self) -> Result<(), String> {
        let words = self.group.words();
        let mut group: Array<&mut MapData, [u32; 6]> = bpf::map(&mut self.ebpf, "GROUP")?;
        group.set(0, words, 0).map_err(|error| refusal("group", &error))
    }

    /// How often it said what, over all CPUs.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(&'static str, u64)> {
        let count = |verdict: Verdict| {
            let [count] = bpf::sum(&self.ebpf, "VERDICTS", verdict as u32);
            count
        };
        Verdict::ALL.iter().map(|verdict| (verdict.name(), count(*verdict))).collect()
    }
}

fn program(ebpf: &mut Ebpf, kind: Kind) -> Result<&mut SkReuseport, String> {
    bpf::program(ebpf, kind.name())
}
