//! The program in the kernel, loaded through aya, and its maps.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use abi::afxdp::{DoorKey, Outcome, SETTINGS_WORDS, Settings, door_key};
use abi::balance::mapped;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, XskMap};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use ring::Xsk;

use crate::bpf::{self, Comer, Interfaces, Next, Place, Standing, refusal};
use crate::limits;
use crate::snapshot::XdpMode;

/// Built by `cargo xtask ebpf` and committed; CI compares it with its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/afxdp/afxdp.o");

/// The program's name in the object, and in `bpftool prog`.
const NAME: &str = "afxdp";

/// The program, loaded, with its maps. Dropping it lets go of both, as the process's end does however that comes.
pub struct Program {
    ebpf: Ebpf,
}

impl Program {
    /// Loads it for an interface with so many queues; it takes nothing yet, and sees no packets until it [stands](Self::stand) there.
    ///
    /// # Errors
    /// A sentence for the operator: which step was refused, and what that needs.
    pub fn load(queues: u32) -> Result<Self, String> {
        let mut ebpf = EbpfLoader::new()
            // Nothing in the program depends on how the kernel lays out its structures.
            .btf(None)
            .map_max_entries("DOORS", limits::AFXDP_DOORS_MAX as u32)
            .map_max_entries("SOCKETS", queues)
            .load(OBJECT)
            .map_err(|error| refusal("maps", &error))?;
        program(&mut ebpf)?.load().map_err(|error| refusal("program", &error))?;
        Ok(Self { ebpf })
    }

    /// What it must know of its interface.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn tell(&mut self, settings: Settings) -> Result<(), String> {
        let mut map: Array<&mut MapData, [u32; SETTINGS_WORDS]> = self.map("SETTINGS")?;
        map.set(0, settings.words(), 0).map_err(|error| refusal("settings", &error))
    }

    /// A queue's packets go to this socket.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn seat(&mut self, queue: u32, socket: &Xsk) -> Result<(), String> {
        let mut map: XskMap<&mut MapData> = self.map("SOCKETS")?;
        map.set(queue, socket.as_fd().as_raw_fd(), 0).map_err(|error| refusal("sockets", &error))
    }

    /// Datagrams to this address and port are taken from now on.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn open(&mut self, door: SocketAddr) -> Result<(), String> {
        let mut map: HashMap<&mut MapData, DoorKey, u32> = self.map("DOORS")?;
        map.insert(key(door), 1, 0).map_err(|error| refusal("doors", &error))
    }

    /// They are the kernel's again.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn close(&mut self, door: SocketAddr) -> Result<(), String> {
        let mut map: HashMap<&mut MapData, DoorKey, u32> = self.map("DOORS")?;
        map.remove(&key(door)).map_err(|error| refusal("doors", &error))
    }

    /// Lets it see an interface's packets, as long as it stands there.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn stand(&mut self, on: &Interfaces, interface: &str, mode: XdpMode) -> Result<Standing, String> {
        let own = program(&mut self.ebpf)?.fd().map_err(|error| refusal("program", &error))?;
        on.raise(interface, mode, Comer { place: Place::Datagrams, name: NAME, program: own, next: None })
    }

    /// Has another program hand on to it what comes by the interface of this index, wherever that stands: for tests and measurements.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn stand_behind(&mut self, before: &Next, interface: u32) -> Result<(), String> {
        before.lead(interface, Some(program(&mut self.ebpf)?.fd().map_err(|error| refusal("program", &error))?))
    }

    /// How often each thing was, over all CPUs.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |outcome: Outcome| {
            let [count] = bpf::sum(&self.ebpf, "COUNTS", outcome as u32);
            count
        };
        Outcome::ALL.iter().map(|outcome| (outcome.name(), count(*outcome))).collect()
    }

    /// Counts from nothing again.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn count_anew(&mut self) -> Result<(), String> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error.to_string())?;
        let mut map: PerCpuArray<&mut MapData, u64> = self.map("COUNTS")?;
        for outcome in Outcome::ALL {
            let zeros = PerCpuValues::try_from(vec![0; cpus]).map_err(|error| error.to_string())?;
            map.set(outcome as u32, zeros, 0).map_err(|error| refusal("counters", &error))?;
        }
        Ok(())
    }

    /// Runs it over a packet, as if it came by the first queue: whether it is taken. It goes nowhere; counters change as they would.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn try_on(&mut self, packet: &[u8]) -> Result<bool, String> {
        let mut left = vec![0; packet.len()];
        let options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut left), ..TestRunOptions::new() };
        let ran = program(&mut self.ebpf)?.test_run(options).map_err(|error| refusal("trying", &error))?;
        // XDP_REDIRECT is 4.
        Ok(ran.return_value == 4)
    }

    fn map<'a, M: TryFrom<&'a mut aya::maps::Map>>(&'a mut self, name: &str) -> Result<M, String> {
        bpf::map(&mut self.ebpf, name)
    }
}

fn key(door: SocketAddr) -> DoorKey {
    let address = match door.ip() {
        IpAddr::V4(address) => mapped(address.into()),
        IpAddr::V6(address) => bpf::words(address),
    };
    door_key(address, door.port())
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, String> {
    bpf::program(ebpf, NAME)
}
