//! The balancer's programs in the kernel, loaded through aya, and their maps.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use abi::balance::{
    Address, BLOCKS, BUCKET_WORDS, Decap, Door, ENDPOINT_WORDS, Endpoint, FRONT_WORDS, Forward, Hop, LINE_WORDS, Line,
    NAT_SETS, NOBODY, Outcome, Outer, SETTINGS_WORDS, SLOTS_PER_BLOCK, Settings, VIP_COUNTS, Vip, WAYS, first_block,
    mapped, protocol_port, server_of,
};
use abi::{CONFIGS, ConnectionIds};
use aws_lc_rs::rand;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use super::doors::Doors;
use crate::bpf::{self, Comer, Interfaces, Next, Place, Standing, refusal};
use crate::limits;
use crate::snapshot::{OuterSource, Transport, XdpMode};

/// Built by `cargo xtask ebpf` and committed; CI compares it with its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/balance/balance.o");

/// The same with addresses rewritten, for those who ask for that.
static WITH_NAT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/balance/balance-nat.o");

/// One of the object's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends packets on to endpoints.
    Balance,
    /// Takes outer headers off.
    Decap,
    /// Passes everything, unseen: what others are measured against.
    Floor,
}

impl Kind {
    /// Those that do something.
    pub const ALL: [Self; 2] = [Self::Balance, Self::Decap];

    /// Its name in the object, and in `bpftool prog`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Decap => "decap",
            Self::Floor => "floor",
        }
    }
}

/// How much is to have room in the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// VIPs, each with its tables.
    pub vips: u32,
    /// Addresses that packets are unwrapped for.
    pub addresses: u32,
    /// Places of endpoints.
    pub endpoints: u32,
    /// Flows of each family: a power of two, and 8 at least.
    pub flows: u32,
}

/// How often something came to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub name: &'static str,
    pub verdict: &'static str,
    pub packets: u64,
    pub octets: u64,
}

/// What a VIP has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VipCounts {
    pub packets: u64,
    pub octets: u64,
    /// Remembered anew.
    pub flows: u64,
    /// Those of them whose endpoint had gone.
    pub moved: u64,
    /// Packets that went where the id of their connection says.
    pub by_id: u64,
    /// Packets whose id is of a server that is no endpoint, or none that serves.
    pub elsewhere: u64,
}

/// What became of a packet that was only tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What XDP calls it: 1 is dropped, 2 passed, 3 sent back, 4 sent elsewhere.
    pub action: u32,
    /// The packet, as it is afterwards.
    pub packet: Vec<u8>,
    /// On average; the kernel counts whole nanoseconds.
    pub each: Duration,
}

/// A program, loaded, with its maps. Dropping it lets go of both, as the process's end does however that comes.
pub struct Program {
    ebpf: Ebpf,
    kind: Kind,
    settings: Settings,
    next: Next,
}

impl Program {
    /// Loads it, with VIPs that nobody serves yet.
    ///
    /// # Errors
    /// A sentence for the operator: which step was refused, and what that needs.
    pub fn load(kind: Kind, room: Room, source: OuterSource, doors: &[Door], ours: &[IpAddr]) -> Result<Self, String> {
        let fronts: Vec<_> = doors.iter().map(|door| door.front()).collect();
        let ours = Ours::of(ours);
        let doors = Doors::build(&[doors, &ours.doors()].concat()).ok_or("there are too many VIPs")?;
        let sets = (room.flows / WAYS as u32).next_power_of_two().max(2);
        let mut ebpf = EbpfLoader::new()
            // Nothing in the program depends on how the kernel lays out its structures.
            .btf(None)
            .map_max_entries("DOORS", doors.buckets.len() as u32)
            .map_max_entries("HALVES", room.vips)
            .map_max_entries("TABLES", room.vips * 2 * BLOCKS)
            .map_max_entries("ENDPOINTS", room.endpoints)
            .map_max_entries("FLOWS_V4", sets)
            .map_max_entries("FLOWS_V6", sets)
            .map_max_entries("LINES", room.endpoints)
            // One that gets another number has both for a moment.
            .map_max_entries("SERVERS", 2 * room.endpoints)
            .map_max_entries("ADDRESSES", room.addresses)
            .map_max_entries("VIP_COUNTERS", room.vips)
            .map_max_entries("NATS", (ours.regions.len() as u32 * NAT_SETS).max(1))
            .map_max_entries("OURS", ours.regions.len().max(1) as u32)
            .map_max_entries("FRONTS", fronts.len().max(1) as u32)
            .load(if ours.regions.is_empty() { OBJECT } else { WITH_NAT })
            .map_err(|error| refusal("maps", &error))?;
        program(&mut ebpf, kind)?.load().map_err(|error| refusal("program", &error))?;
        let next = Next::of(&mut ebpf)?;
        let settings = Settings {
            source: outer(source),
            tick: 1,
            door_shift: doors.shift,
            door_multiplier: doors.multiplier,
            flow_shift: 64 - sets.trailing_zeros(),
            flow_multiplier: secret()? | 1,
            ours: ours.count,
        };
        let mut program = Self { ebpf, kind, settings, next };
        program.tell(settings)?;
        program.set_doors(&doors)?;
        program.read_ids(&[])?;
        if !ours.regions.is_empty() {
            program.set_ours(&ours, &fronts)?;
        }
        (0..room.vips).try_for_each(|vip| program.set_table(vip, 0, None))?;
        Ok(program)
    }

    /// As [`load`](Self::load), with as little room as there can be: to see whether it is granted, the one that rewrites addresses as well.
    ///
    /// # Errors
    /// As there.
    pub fn try_to_load(kind: Kind) -> Result<(), String> {
        let room = Room { vips: 1, addresses: 1, endpoints: 1, flows: 8 };
        let load = |ours: &[IpAddr]| Self::load(kind, room, OuterSource::default(), &[], ours).map(drop);
        load(&[])?;
        if kind == Kind::Balance {
            load(&[Ipv4Addr::UNSPECIFIED.into()]).map_err(|why| format!("with `nat`: {why}"))?;
        }
        Ok(())
    }

    /// Counts ticks up to `tick`: ways that were learnt before are asked for again, and flows grow older.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn tick(&mut self, tick: u32) -> Result<(), String> {
        if tick == self.settings.tick {
            return Ok(());
        }
        self.tell(Settings { tick, ..self.settings })
    }

    fn tell(&mut self, settings: Settings) -> Result<(), String> {
        self.settings = settings;
        let mut map: Array<&mut MapData, [u64; SETTINGS_WORDS]> = self.map("SETTINGS")?;
        map.set(0, settings.words(), 0).map_err(|error| refusal("settings", &error))
    }

    fn set_doors(&mut self, doors: &Doors) -> Result<(), String> {
        let mut map: Array<&mut MapData, [u32; BUCKET_WORDS]> = self.map("DOORS")?;
        for (bucket, at) in doors.buckets.iter().zip(0..).filter(|(bucket, _)| bucket.iter().any(|word| *word != 0)) {
            map.set(at, *bucket, 0).map_err(|error| refusal("VIPs", &error))?;
        }
        Ok(())
    }

    fn set_ours(&mut self, ours: &Ours, fronts: &[[u32; FRONT_WORDS]]) -> Result<(), String> {
        let mut map: Array<&mut MapData, Address> = self.map("OURS")?;
        for ((address, _), region) in ours.regions.iter().zip(0..) {
            map.set(region, words(*address), 0).map_err(|error| refusal("addresses", &error))?;
        }
        let mut map: Array<&mut MapData, [u32; FRONT_WORDS]> = self.map("FRONTS")?;
        for (front, door) in fronts.iter().zip(0..) {
            map.set(door, *front, 0).map_err(|error| refusal("VIPs", &error))?;
        }
        Ok(())
    }

    /// Writes one of the two tables of a VIP, which must not be the one that counts. Slots name places of endpoints; `None`: nobody has any.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn set_table(&mut self, vip: u32, half: u32, slots: Option<&[u16]>) -> Result<(), String> {
        let first = first_block(vip, half);
        let mut map: Array<&mut MapData, [u16; SLOTS_PER_BLOCK]> = self.map("TABLES")?;
        for (at, index) in (first..).take(BLOCKS as usize).enumerate() {
            let mut block = [NOBODY; SLOTS_PER_BLOCK];
            let part = slots.and_then(|slots| slots.chunks(SLOTS_PER_BLOCK).nth(at)).unwrap_or_default();
            block[..part.len()].copy_from_slice(part);
            map.set(index, block, 0).map_err(|error| refusal("tables", &error))?;
        }
        Ok(())
    }

    /// Which of a VIP's tables counts: from now on, at once and for all CPUs.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn turn(&mut self, vip: u32, half: u32) -> Result<(), String> {
        let mut map: Array<&mut MapData, u32> = self.map("HALVES")?;
        map.set(vip, half, 0).map_err(|error| refusal("tables", &error))
    }

    /// Who has a place.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn set_endpoint(
        &mut self,
        place: u16,
        address: SocketAddr,
        generation: u16,
        keeps: bool,
    ) -> Result<(), String> {
        let endpoint = Endpoint { address: words(address.ip()), port: address.port(), generation, keeps };
        let mut map: Array<&mut MapData, [u32; ENDPOINT_WORDS]> = self.map("ENDPOINTS")?;
        map.set(place.into(), endpoint.words(), 0).map_err(|error| refusal("endpoints", &error))
    }

    /// Nothing has been counted of who has a place, and no CPU knows the way there.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn forget_counts(&mut self, place: u16) -> Result<(), String> {
        self.set_lines(place, Line::default())
    }

    /// Ids of QUIC connections are these and no others, at VIPs that read them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn read_ids(&mut self, ids: &[ConnectionIds]) -> Result<(), String> {
        let mut map: Array<&mut MapData, [u64; 7]> = self.map("IDS")?;
        for config in 0..CONFIGS {
            let known = ids.iter().find(|ids| ids.config() == config);
            map.set(config.into(), known.unwrap_or(&ConnectionIds::NONE).words(), 0)
                .map_err(|error| refusal("ids", &error))?;
        }
        Ok(())
    }

    /// Whose connections are that have a server's number in their ids, by place and generation; `None`: nobody's.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn set_server(&mut self, vip: u32, server: u16, whose: Option<(u16, u16)>) -> Result<(), String> {
        let mut map: HashMap<&mut MapData, u32, u32> = self.map("SERVERS")?;
        let key = server_of(vip, server);
        let told = match whose {
            Some((place, generation)) => map.insert(key, u32::from(place) | u32::from(generation) << 16, 0),
            None => map.remove(&key),
        };
        told.map_err(|error| refusal("servers", &error))
    }

    /// Whom packets are unwrapped for, one more.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn unwrap_for(&mut self, address: IpAddr) -> Result<(), String> {
        let mut map: HashMap<&mut MapData, Address, u32> = self.map("ADDRESSES")?;
        map.insert(words(address), 1, 0).map_err(|error| refusal("addresses", &error))
    }

    /// What CPUs would learn in this tick of the way to who has a place, of whom nothing has been counted then: for tests and measurements, which have no neighbours.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn teach(&mut self, place: u16, hop: Hop) -> Result<(), String> {
        let hop = Hop { tick: self.settings.tick, ..hop };
        self.set_lines(place, Line { hop, ..Line::default() })
    }

    fn set_lines(&mut self, place: u16, line: Line) -> Result<(), String> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error.to_string())?;
        let lines = PerCpuValues::try_from(vec![line.words(); cpus]).map_err(|error| error.to_string())?;
        let mut map: PerCpuArray<&mut MapData, [u64; LINE_WORDS]> = self.map("LINES")?;
        map.set(place.into(), lines, 0).map_err(|error| refusal("ways", &error))
    }

    /// Lets it see an interface's packets, as long as it stands there.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn stand(&mut self, on: &Interfaces, interface: &str, mode: XdpMode) -> Result<Standing, String> {
        let own = program(&mut self.ebpf, self.kind)?.fd().map_err(|error| refusal("program", &error))?;
        let (place, name) = (Place::Balance, self.kind.name());
        on.raise(interface, mode, Comer { place, name, program: own, next: Some(&self.next) })
    }

    /// Has another program hand on to it what comes by the interface of this index, wherever that stands: for tests and measurements.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn stand_behind(&mut self, before: &Next, interface: u32) -> Result<(), String> {
        let own = program(&mut self.ebpf, self.kind)?.fd().map_err(|error| refusal("program", &error))?;
        before.lead(interface, Some(own))
    }

    /// Who sees what passes.
    #[must_use]
    pub const fn next(&self) -> &Next {
        &self.next
    }

    /// Packets by what became of them, over all CPUs.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        let count = |map, at, name, verdict| {
            let [packets, octets] = bpf::sum(&self.ebpf, map, at);
            Count { name, verdict, packets, octets }
        };
        match self.kind {
            Kind::Balance => {
                let outcomes = Outcome::ALL.iter();
                outcomes.map(|of| count("COUNTS", *of as u32, of.name(), of.verdict())).collect()
            }
            Kind::Decap => {
                let decaps = Decap::ALL.iter();
                decaps.map(|of| count("DECAPS", *of as u32, of.name(), of.verdict())).collect()
            }
            Kind::Floor => Vec::new(),
        }
    }

    /// What a VIP has seen, over all CPUs.
    #[must_use]
    pub fn vip_counts(&self, number: u32) -> VipCounts {
        let [packets, octets, flows, moved, by_id, elsewhere] =
            bpf::sum::<VIP_COUNTS>(&self.ebpf, "VIP_COUNTERS", number);
        VipCounts { packets, octets, flows, moved, by_id, elsewhere }
    }

    /// Packets and octets that went to who has a place, over all CPUs.
    #[must_use]
    pub fn endpoint_counts(&self, place: u16) -> [u64; 2] {
        let [packets, octets, ..] = bpf::sum::<LINE_WORDS>(&self.ebpf, "LINES", place.into());
        [packets, octets]
    }

    /// Runs it over a packet `repeat` times, as it would run if the packet came in: each time over what the time before has made of it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn try_on(&mut self, packet: &[u8], repeat: u32) -> Result<Tried, String> {
        // Outer headers, for each time.
        let mut out = vec![0; packet.len() + limits::OUTER_OCTETS_MAX * repeat as usize];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), repeat, ..TestRunOptions::new() };
        let ran = program(&mut self.ebpf, self.kind)?.test_run(options).map_err(|error| refusal("trying", &error))?;
        out.truncate(ran.data_size_out as usize);
        Ok(Tried { action: ran.return_value, packet: out, each: ran.duration })
    }

    fn map<'a, M: TryFrom<&'a mut aya::maps::Map>>(&'a mut self, name: &str) -> Result<M, String> {
        bpf::map(&mut self.ebpf, name)
    }
}

/// An address, protocol and port that a VIP's packets come to.
#[must_use]
pub fn door(address: SocketAddr, protocol: Transport, vip: Vip) -> Door {
    let number = match protocol {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    Door { address: words(address.ip()), protocol_port: protocol_port(number, address.port()), vip }
}

/// The addresses that packets come from whose addresses are rewritten, by region: one for each address and protocol.
struct Ours {
    regions: Vec<(IpAddr, Transport)>,
    /// Addresses of IPv4 and of IPv6.
    count: [u8; 2],
}

impl Ours {
    fn of(addresses: &[IpAddr]) -> Self {
        let of = |is_v4: bool| addresses.iter().copied().filter(move |address| address.is_ipv4() == is_v4);
        let regions = [true, false].into_iter().flat_map(|is_v4| {
            [Transport::Tcp, Transport::Udp].into_iter().flat_map(move |of_what| of(is_v4).map(move |at| (at, of_what)))
        });
        Self { regions: regions.collect(), count: [true, false].map(|is_v4| of(is_v4).count() as u8) }
    }

    /// Each on all of its ports.
    fn doors(&self) -> Vec<Door> {
        let back = |number| Vip { number, forward: Forward::Back, quic: false };
        let regions = self.regions.iter().zip(0..);
        regions.map(|((address, of), number)| door(SocketAddr::new(*address, 0), *of, back(number))).collect()
    }
}

/// What nobody can guess.
fn secret() -> Result<u64, String> {
    let mut octets = [0; 8];
    rand::fill(&mut octets).map_err(|_| "there is no randomness".to_owned())?;
    Ok(u64::from_le_bytes(octets))
}

/// An address as its words lie in a packet.
fn words(address: IpAddr) -> Address {
    match address.to_canonical() {
        IpAddr::V4(address) => mapped(address.into()),
        IpAddr::V6(address) => bpf::words(address),
    }
}

fn outer(source: OuterSource) -> Outer {
    let rest = |prefix: u8| u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let [_, _, _, v4] = words(source.v4.network());
    let rest_v4 = rest(96 + source.v4.bits()) as u32;
    Outer { v4: [v4, rest_v4.to_be()], v6: [words(source.v6.network()), bpf::words(rest(source.v6.bits()).into())] }
}

fn program(ebpf: &mut Ebpf, kind: Kind) -> Result<&mut Xdp, String> {
    bpf::program(ebpf, kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_network_and_what_is_left_of_it() {
        let of = |v4: &str, v6: &str| outer(OuterSource { v4: v4.parse().unwrap(), v6: v6.parse().unwrap() });
        let Outer { v4, v6 } = of("172.16.0.0/16", "100::/64");
        assert_eq!(v4.map(u32::from_be), [0xac10_0000, 0xffff]);
        assert_eq!(v6[0].map(u32::from_be), [0x0100_0000, 0, 0, 0]);
        assert_eq!(v6[1].map(u32::from_be), [0, 0, u32::MAX, u32::MAX]);
        let Outer { v4, v6 } = of("10.0.0.7", "2001:db8::7");
        assert_eq!(v4.map(u32::from_be), [0x0a00_0007, 0]);
        assert_eq!(v6[1], [0; 4]);
    }
}
