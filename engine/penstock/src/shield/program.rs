//! The shield's program in the kernel, loaded through aya, and its maps.

use std::net::IpAddr;
use std::time::Duration;

use abi::shield::{
    LISTED_ALLOW, LISTED_DENY, Note, PORT_WORDS, Ports, Reason, SAMPLE_OCTETS, SAMPLE_SIZE, SAMPLES_LOST,
    SETTINGS_WORDS, Settings, counter_of, counter_of_note, port_bit, source_v4, source_v6,
};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, RingBuf};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use super::hints::Hints;
use crate::bpf::{self, Comer, Interfaces, Next, Place, Standing, refusal};
use crate::limits;
use crate::snapshot::{Cidr, XdpMode};

/// Built by `cargo xtask ebpf` and committed; CI compares it with its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/shield/shield.o");

/// The same, and it answers SYNs.
static WITH_COOKIES: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/shield/shield-cookies.o");

/// The program's name in the object, and in `bpftool prog`.
const NAME: &str = "shield";

/// What is to be done with packets of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    Allow,
    Deny,
}

/// How often something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The reason, or what is remarkable.
    pub name: &'static str,
    /// What became of the packets; `None` for a note, which decides nothing.
    pub verdict: Option<&'static str>,
    pub packets: u64,
    pub octets: u64,
}

/// What became of a packet that was only tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub dropped: bool,
    /// What would leave in its place, where it is answered.
    pub answer: Option<Vec<u8>>,
    /// On average; the kernel counts whole nanoseconds.
    pub each: Duration,
}

/// The program, loaded, with its maps. Dropping it lets go of both, as the process's end does however that comes.
pub struct Program {
    ebpf: Ebpf,
    next: Next,
    hints: Hints,
    samples: RingBuf<MapData>,
}

/// A packet that was dropped, or would have been, as the program has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Of the monotonic clock.
    pub at_ns: u64,
    pub reason: Reason,
    /// A dry run let it pass.
    pub is_dry: bool,
    /// The index of the interface that it came in by.
    pub interface: u32,
    /// Of the packet, with its Ethernet header.
    pub octets: u32,
    /// Its first ones.
    pub packet: Vec<u8>,
}

impl Sample {
    /// From the ring, where it lies as [`abi::shield::Sample`] says.
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let at_ns = bytes.get(..8)?.try_into().ok().map(u64::from_ne_bytes)?;
        let reason = *Reason::ALL.get(word(8)? as usize)?;
        let packet = bytes.get(SAMPLE_SIZE - SAMPLE_OCTETS..SAMPLE_SIZE)?.get(..word(24)? as usize)?.to_vec();
        Some(Self { at_ns, reason, is_dry: word(12)? != 0, interface: word(16)?, octets: word(20)?, packet })
    }
}

impl Program {
    /// Loads it; it judges nothing until it is [told](Self::tell) to, and sees no packets until it [stands](Self::stand) on an interface.
    ///
    /// # Errors
    /// A sentence for the operator: which step was refused, and what that needs.
    pub fn load() -> Result<Self, String> {
        Self::of(OBJECT)
    }

    /// As [`load`](Self::load), one that can answer SYNs with cookies. Without CAP_PERFMON that is refused, after the verifier has been busy for seconds.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_cookies() -> Result<Self, String> {
        Self::of(WITH_COOKIES)
    }

    fn of(object: &[u8]) -> Result<Self, String> {
        let mut ebpf = EbpfLoader::new()
            // Nothing in the program depends on how the kernel lays out its structures.
            .btf(None)
            .map_max_entries("LIST_V4", limits::SHIELD_NETWORKS_MAX)
            .map_max_entries("LIST_V6", limits::SHIELD_NETWORKS_MAX)
            .map_max_entries("DENIED", limits::SHIELD_DENIED_MAX)
            .map_max_entries("SOURCES", limits::SHIELD_SOURCES)
            .load(object)
            .map_err(|error| refusal("maps", &error))?;
        program(&mut ebpf)?.load().map_err(|error| refusal("program", &error))?;
        let next = Next::of(&mut ebpf)?;
        let samples = ebpf.take_map("SAMPLES").and_then(|map| RingBuf::try_from(map).ok());
        let samples = samples.ok_or("the object has no SAMPLES")?;
        Ok(Self { ebpf, next, hints: Hints::default(), samples })
    }

    /// What it is to do from now on. Its words are written one by one, in no order that packets could notice.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn tell(&mut self, settings: &Settings) -> Result<(), String> {
        let mut map: Array<&mut MapData, [u64; SETTINGS_WORDS]> = self.map("SETTINGS")?;
        map.set(0, settings.words(), 0).map_err(|error| refusal("settings", &error))
    }

    /// Which ports it judges packets to. One of QUIC is one of UDP, too, and must be both.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn protect(&mut self, ports: impl IntoIterator<Item = (Ports, u16)>) -> Result<(), String> {
        let mut words = vec![0_u64; PORT_WORDS as usize];
        for (of, port) in ports {
            let (word, bit) = port_bit(of, port);
            words[word as usize] |= 1 << bit;
        }
        let mut map: Array<&mut MapData, u64> = self.map("PORTS")?;
        for (index, word) in (0..).zip(words) {
            map.set(index, word, 0).map_err(|error| refusal("ports", &error))?;
        }
        Ok(())
    }

    /// Puts a network on a list, or takes it off.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn list(&mut self, network: &Cidr, listed: Option<Listed>) -> Result<(), String> {
        let value = listed.map(|listed| match listed {
            Listed::Allow => LISTED_ALLOW,
            Listed::Deny => LISTED_DENY,
        });
        if value.is_some() {
            let changed = self.hints.add(network);
            self.hint(changed)?;
        }
        let bits = u32::from(network.bits());
        match network.network() {
            IpAddr::V4(address) => {
                self.list_in("LIST_V4", &Key::new(bits, u32::from_ne_bytes(address.octets())), value)
            }
            IpAddr::V6(address) => self.list_in("LIST_V6", &Key::new(bits, bpf::words(address)), value),
        }
    }

    /// Forgets of addresses that they may be on a list, but of those of the networks that are.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn tidy_hints<'a>(&mut self, listed: impl IntoIterator<Item = &'a Cidr>) -> Result<(), String> {
        let changed = self.hints.become_these(Hints::of(listed));
        self.hint(changed)
    }

    fn hint(&mut self, words: Vec<(u32, u64)>) -> Result<(), String> {
        let mut map: Array<&mut MapData, u64> = self.map("HINTS")?;
        words
            .into_iter()
            .try_for_each(|(index, word)| map.set(index, word, 0))
            .map_err(|error| refusal("lists", &error))
    }

    fn list_in<K: aya::Pod>(&mut self, name: &str, key: &Key<K>, value: Option<u32>) -> Result<(), String> {
        let mut list: LpmTrie<&mut MapData, K, u32> = self.map(name)?;
        match value {
            Some(value) => list.insert(key, value, 0),
            None => list.remove(key),
        }
        .map_err(|error| refusal("lists", &error))
    }

    /// Denies a source (an IPv4 address, or the /64 of an IPv6 one) until a time of the monotonic clock, in nanoseconds.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn deny(&mut self, source: IpAddr, until_nanos: u64) -> Result<(), String> {
        let mut denied: HashMap<&mut MapData, u64, u64> = self.map("DENIED")?;
        denied.insert(key_of(source), until_nanos, 0).map_err(|error| refusal("verdicts", &error))
    }

    /// Denies a source no longer.
    pub fn pardon(&mut self, source: IpAddr) {
        if let Ok(mut denied) = self.map::<HashMap<&mut MapData, u64, u64>>("DENIED") {
            // Refused only where it is not there.
            let _ = denied.remove(&key_of(source));
        }
    }

    /// Lets it see an interface's packets, as long as it stands there.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn stand(&mut self, on: &Interfaces, interface: &str, mode: XdpMode) -> Result<Standing, String> {
        let own = program(&mut self.ebpf)?.fd().map_err(|error| refusal("program", &error))?;
        on.raise(interface, mode, Comer { place: Place::Shield, name: NAME, program: own, next: Some(&self.next) })
    }

    /// Who sees what passes.
    #[must_use]
    pub const fn next(&self) -> &Next {
        &self.next
    }

    /// SYNs that were answered, over all CPUs.
    #[must_use]
    pub fn cookies(&self) -> u64 {
        let [packets, _] = bpf::sum(&self.ebpf, "COUNTS", counter_of(Reason::Cookie, false));
        packets
    }

    /// The oldest sample that has not been taken yet.
    pub fn next_sample(&mut self) -> Option<Sample> {
        self.samples.next().and_then(|bytes| Sample::read(&bytes))
    }

    /// Samples that found no room, over all CPUs.
    #[must_use]
    pub fn samples_lost(&self) -> u64 {
        let [samples, _] = bpf::sum(&self.ebpf, "COUNTS", SAMPLES_LOST);
        samples
    }

    /// What has been seen, over all CPUs: every reason, what a dry run let pass as far as there is any, and every note.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        let count = |name, verdict, counter| {
            let [packets, octets] = bpf::sum(&self.ebpf, "COUNTS", counter);
            Count { name, verdict, packets, octets }
        };
        let reasons =
            Reason::ALL.iter().map(|reason| count(reason.name(), Some(reason.verdict()), counter_of(*reason, false)));
        let dry = Reason::ALL.iter().filter(|reason| reason.drops());
        let dry = dry.map(|reason| count(reason.name(), Some("would_drop"), counter_of(*reason, true)));
        let notes = Note::ALL.iter().map(|note| count(note.name(), None, counter_of_note(*note)));
        reasons.chain(dry).chain(notes).collect()
    }

    /// Runs it over a packet `repeat` times, as it would run if the packet came in: counters and buckets change as they would.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn try_on(&mut self, packet: &[u8], repeat: u32) -> Result<Tried, String> {
        // An answer is longer than what it answers by an option at most.
        let mut left = vec![0; packet.len() + 4];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut left), repeat, ..TestRunOptions::new() };
        let ran = program(&mut self.ebpf)?.test_run(options).map_err(|error| refusal("trying", &error))?;
        // XDP_DROP is 1, XDP_PASS 2, XDP_TX 3.
        left.truncate(ran.data_size_out as usize);
        let answer = (ran.return_value == 3).then_some(left);
        Ok(Tried { dropped: ran.return_value == 1, answer, each: ran.duration })
    }

    fn map<'a, M: TryFrom<&'a mut aya::maps::Map>>(&'a mut self, name: &str) -> Result<M, String> {
        bpf::map(&mut self.ebpf, name)
    }
}

fn key_of(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => source_v4(address.into()),
        IpAddr::V6(address) => source_v6(address.into()),
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, String> {
    bpf::program(ebpf, NAME)
}
