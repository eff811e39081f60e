//! Packets that never reach user space: the XDP programs of `ebpf/balance`, raised on the interfaces that the configuration names.
//!
//! ```text
//! pool: who serves, with what weight ─► Balance::follow ─► places, a table of 65,537 slots ─► ENDPOINTS, TABLES, VIPS ─► program `balance`
//! `[decap]` ─► ADDRESSES, OUTER ─► program `decap`
//! ```
//!
//! What holds here: all of it is the control thread's. A table depends on names and weights alone, so two machines with one configuration choose the same endpoints. One table is written while
//! the other counts, and they change places with one write. A place is given to another endpoint only after no table names it, and with another
//! generation, so that no flow takes the newcomer for who had it before. Where the programs are not granted the engine serves without them, and says so
//! ([`Balance::lines`]). Nothing is pinned: programs, maps and attachments end with the process, however that ends.

mod doors;
mod places;
mod program;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use abi::ConnectionIds;
use abi::balance::{Forward, Vip as Target};
use policy::balance::maglev_slots;
use policy::hash::xxh64;

pub use program::{Count, Kind, Program, Room, Tried, VipCounts, door};

use self::places::{Place, Places};
use crate::bpf::{Interfaces, Standing, stand_on};
use crate::limits;
use crate::snapshot::{self, Balancer, Snapshot, Vip};

/// The programs as the control thread holds them.
#[derive(Default)]
pub struct Balance {
    raised: Option<Raised>,
    decap: Option<Decap>,
    /// What was wanted and is not granted.
    refused: Vec<String>,
}

/// An endpoint as its pool knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// 0: it gets no new flows.
    pub weight: u32,
    /// Whether flows that it has stay with it.
    pub keeps: bool,
    /// Which machine it is in ids of QUIC connections.
    pub server: Option<u16>,
}

/// A balancer that stands on at least one interface.
struct Raised {
    wish: Balancer,
    program: Program,
    interfaces: Vec<Standing>,
    vips: Vec<Followed>,
    places: Places,
    /// Packets that found no neighbour, when that was last looked at.
    unanswered: u64,
}

/// A VIP, as far as the kernel was told.
struct Followed {
    /// Which of its two tables counts.
    half: u32,
    origins: Vec<Origin>,
    /// Of each slot, whose it is by its place in `origins`; `None`: nobody's.
    slots: Option<Vec<u16>>,
    /// Numbers of servers whose connections are known by their ids.
    servers: Vec<u16>,
    /// Why it is not what its pool has now, as far as that was told.
    refused: Option<String>,
}

/// A decapsulator that stands on at least one interface.
struct Decap {
    wish: snapshot::Decap,
    program: Program,
    interfaces: Vec<Standing>,
}

/// An endpoint of a VIP, for the operator's eye.
#[derive(Debug, Clone)]
pub struct Share<'a> {
    pub vip: &'a Vip,
    pub origin: &'a Origin,
    /// Slots of the table.
    pub slots: u32,
    pub packets: u64,
    pub octets: u64,
}

impl Balance {
    /// Raises what the configuration asks for, as far as it is granted. VIPs have nobody until they are told of; those that read ids of QUIC connections read these.
    #[must_use]
    pub fn raise(snapshot: &Snapshot, ids: &[ConnectionIds], on: &Interfaces) -> Self {
        let mut balance = Self::default();
        balance.adopt(snapshot, ids, on);
        balance
    }

    /// Goes on by another configuration: VIPs, where there are any before and after, are the same.
    pub fn adopt(&mut self, snapshot: &Snapshot, ids: &[ConnectionIds], on: &Interfaces) {
        self.refused.clear();
        let refused = &mut self.refused;
        let raised = snapshot.balance.as_ref().and_then(|wish| {
            let mut places = Vec::new();
            let raised = self.raised.take().map_or_else(|| Raised::new(wish, ids), Ok).map(|mut raised| {
                raised.wish = wish.clone();
                let Raised { program, interfaces, .. } = &mut raised;
                stand_on(interfaces, &wish.interfaces, &mut places, |at| program.stand(on, at, snapshot.xdp_mode(at)));
                places.extend(raised.interfaces.iter().flat_map(|standing| does_not_forward(standing.stands().0)));
                raised
            });
            granted(raised, "XDP balancer", places, refused)
        });
        self.raised = raised.filter(|raised| !raised.interfaces.is_empty());
        // One that does otherwise goes when another one has its place.
        let before = self.decap.take();
        let (same, other) = match (before, &snapshot.decap) {
            (Some(before), Some(wish)) if before.strips_as(wish) => (Some(before), None),
            (before, _) => (None, before),
        };
        let decap = snapshot.decap.as_ref().and_then(|wish| {
            let mut places = Vec::new();
            let decap = same.map_or_else(|| Decap::new(wish), Ok).map(|mut decap| {
                let Decap { program, interfaces, .. } = &mut decap;
                stand_on(interfaces, &wish.interfaces, &mut places, |at| program.stand(on, at, snapshot.xdp_mode(at)));
                decap
            });
            granted(decap, "XDP decapsulator", places, refused)
        });
        drop(other);
        self.decap = decap.filter(|decap| !decap.interfaces.is_empty());
    }

    /// Whether there are VIPs to be followed.
    #[must_use]
    pub const fn is_raised(&self) -> bool {
        self.raised.is_some()
    }

    #[must_use]
    pub const fn has_decap(&self) -> bool {
        self.decap.is_some()
    }

    /// What was wanted and is not granted, with the reason.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// VIPs, in the configuration's order.
    #[must_use]
    pub fn vips(&self) -> &[Vip] {
        self.raised.as_ref().map_or(&[], |raised| &raised.wish.vips)
    }

    /// A new configuration holds: the same VIPs, whose pools may have other numbers, or none any more.
    pub fn renumber(&mut self, vips: Option<&[Vip]>) {
        match (&mut self.raised, vips) {
            (Some(raised), Some(vips)) => raised.wish.vips = vips.into(),
            _ => self.raised = None,
        }
    }

    /// Interfaces, with the program that stands there and how.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, Kind, &'static str)> {
        let raised = self.raised.iter().flat_map(|raised| &raised.interfaces).map(|at| (Kind::Balance, at));
        let decap = self.decap.iter().flat_map(|decap| &decap.interfaces).map(|at| (Kind::Decap, at));
        raised.chain(decap).map(|(kind, standing)| {
            let (interface, mode) = standing.stands();
            (interface, kind, mode)
        })
    }

    /// What stands where and what does not, for the operator's eye.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let place = |(interface, mode): (&str, &str)| format!("{interface} ({mode})");
        let places =
            |interfaces: &[Standing]| interfaces.iter().map(Standing::stands).map(place).collect::<Vec<_>>().join(", ");
        let raised = self.raised.iter().map(|raised| {
            format!("  balancer: XDP on {}, {} VIPs", places(&raised.interfaces), raised.wish.vips.len())
        });
        let decap = self.decap.iter().map(|decap| format!("  decapsulator: XDP on {}", places(&decap.interfaces)));
        let refused = self.refused.iter().map(|why| format!("  goes without: {why}"));
        raised.chain(decap).chain(refused).collect()
    }

    /// Who a VIP's pool has now. Changes nothing where that is known already. Tells what there is to say.
    pub fn follow(&mut self, vip: usize, origins: Vec<Origin>) -> Option<String> {
        let raised = self.raised.as_mut()?;
        if raised.vips.get(vip).is_none_or(|followed| followed.origins == origins) {
            return None;
        }
        let told = raised.follow(vip, origins);
        let name = &raised.wish.vips[vip].name;
        match told {
            Ok(serving) => Some(format!("VIP `{name}`: {serving} endpoints serve")),
            Err(why) => {
                // It is tried again and again.
                let news = format!("VIP `{name}`: {why}");
                (raised.vips[vip].refused.replace(why.clone()) != Some(why)).then_some(news)
            }
        }
    }

    /// What is due now and then: neighbours that the kernel does not know are asked for.
    pub fn look(&mut self) {
        let Some(raised) = &mut self.raised else { return };
        // Refused only where there is no such map, and there is.
        let _ = raised.program.tick((ring::now().as_nanos() / 1_000_000_000) as u32 + 1);
        let counts = raised.program.counts();
        let unanswered = counts.iter().filter(|count| count.name == "no_neighbour").map(|count| count.packets).sum();
        if unanswered != raised.unanswered {
            raised.unanswered = unanswered;
            let origins = raised.vips.iter().flat_map(|vip| &vip.origins);
            origins.for_each(|origin| ask_for(origin.address.ip()));
        }
    }

    /// What each program has made of packets; nothing of one that there is not.
    #[must_use]
    pub fn counts(&self, kind: Kind) -> Vec<Count> {
        let program = match kind {
            Kind::Balance => self.raised.as_ref().map(|raised| &raised.program),
            Kind::Decap => self.decap.as_ref().map(|decap| &decap.program),
            Kind::Floor => None,
        };
        program.map(Program::counts).unwrap_or_default()
    }

    /// What each VIP has seen.
    pub fn vip_counts(&self) -> impl Iterator<Item = (&Vip, VipCounts)> {
        let vips = self.raised.iter().flat_map(|raised| raised.wish.vips.iter().map(move |vip| (raised, vip)));
        vips.zip(0..).map(|((raised, vip), number)| (vip, raised.program.vip_counts(number)))
    }

    /// What each endpoint of each VIP has got.
    #[must_use]
    pub fn shares(&self) -> Vec<Share<'_>> {
        let Some(raised) = &self.raised else { return Vec::new() };
        let vips = raised.wish.vips.iter().zip(&raised.vips).enumerate();
        let shares = vips.flat_map(|(number, (vip, followed))| {
            let mut slots = vec![0; followed.origins.len()];
            followed.slots.iter().flatten().for_each(|&slot| slots[usize::from(slot)] += 1);
            followed.origins.iter().zip(slots).map(move |(origin, slots)| {
                let place = raised.places.of(number, origin);
                let [packets, octets] = place.map_or([0, 0], |place| raised.program.endpoint_counts(place));
                Share { vip, origin, slots, packets, octets }
            })
        });
        shares.collect()
    }
}

impl Raised {
    /// It stands nowhere yet.
    fn new(wish: &Balancer, ids: &[ConnectionIds]) -> Result<Self, String> {
        let room = Room {
            vips: wish.vips.len() as u32,
            addresses: 1,
            endpoints: limits::VIP_ENDPOINTS_MAX,
            flows: limits::VIP_FLOWS,
        };
        let doors = wish.vips.iter().zip(0..).flat_map(|(vip, number)| {
            let target = Target { number, forward: forward(vip.forward), quic: vip.quic };
            vip.addresses.iter().map(move |address| door(*address, vip.protocol, target))
        });
        let mut program = Program::load(Kind::Balance, room, wish.source, &doors.collect::<Vec<_>>(), &wish.nat)?;
        if wish.vips.iter().any(|vip| vip.quic) {
            program.read_ids(ids)?;
        }
        let nobody = || Followed { half: 0, origins: Vec::new(), slots: None, servers: Vec::new(), refused: None };
        let vips = wish.vips.iter().map(|_| nobody()).collect();
        let places = Places::new(limits::VIP_ENDPOINTS_MAX as usize);
        Ok(Self { wish: wish.clone(), program, interfaces: Vec::new(), vips, places, unanswered: 0 })
    }

    /// Endpoints, then the table that does not count yet, then the word that it does, and only then those who have gone.
    fn follow(&mut self, vip: usize, origins: Vec<Origin>) -> Result<usize, String> {
        let mut held = Vec::with_capacity(origins.len());
        for origin in &origins {
            let (place, is_new) = self.places.take(vip, origin).ok_or("there is no room for more endpoints")?;
            if is_new {
                self.program.forget_counts(place.number)?;
                ask_for(origin.address.ip());
            }
            self.program.set_endpoint(place.number, origin.address, place.generation, origin.keeps)?;
            held.push(place);
        }
        let servers = if self.wish.vips[vip].quic { servers(&origins, &held) } else { Vec::new() };
        for (server, place) in &servers {
            self.program.set_server(vip as u32, *server, Some((place.number, place.generation)))?;
        }
        let servers: Vec<_> = servers.into_iter().map(|(server, _)| server).collect();
        let members: Vec<_> = origins.iter().map(|origin| (xxh64(origin.name.as_bytes(), 0), origin.weight)).collect();
        let slots = maglev_slots(&members);
        let named: Option<Vec<u16>> =
            slots.as_ref().map(|slots| slots.iter().map(|&slot| held[usize::from(slot)].number).collect());
        let followed = &mut self.vips[vip];
        let (number, half) = (vip as u32, followed.half ^ 1);
        self.program.set_table(number, half, named.as_deref())?;
        self.program.turn(number, half)?;
        for gone in followed.servers.iter().filter(|server| !servers.contains(server)) {
            self.program.set_server(number, *gone, None)?;
        }
        for gone in self.places.leave(vip, &origins) {
            self.program.set_endpoint(gone.number, (Ipv6Addr::UNSPECIFIED, 0).into(), gone.generation, false)?;
        }
        let serving = origins.iter().filter(|origin| origin.weight > 0).count();
        *followed = Followed { half, origins, slots, servers, refused: None };
        Ok(serving)
    }
}

impl Decap {
    /// Whether it does what is wanted, wherever that is.
    fn strips_as(&self, wish: &snapshot::Decap) -> bool {
        (&self.wish.addresses, self.wish.source) == (&wish.addresses, wish.source)
    }

    /// It stands nowhere yet.
    fn new(wish: &snapshot::Decap) -> Result<Self, String> {
        let room = Room { vips: 1, addresses: wish.addresses.len() as u32, endpoints: 1, flows: 8 };
        let mut program = Program::load(Kind::Decap, room, wish.source, &[], &[])?;
        for address in &wish.addresses {
            program.unwrap_for(*address)?;
        }
        Ok(Self { wish: wish.clone(), program, interfaces: Vec::new() })
    }
}

/// Endpoints by the numbers of their servers. Of two with one number, as a file may have them, it is the first one's.
fn servers(origins: &[Origin], held: &[Place]) -> Vec<(u16, Place)> {
    let mut servers: Vec<(u16, Place)> = Vec::new();
    for (origin, place) in origins.iter().zip(held) {
        if let Some(server) = origin.server
            && servers.iter().all(|(other, _)| *other != server)
        {
            servers.push((server, *place));
        }
    }
    servers
}

/// What was raised, where it was; what is wanted of it and not granted, in the operator's words.
fn granted<T>(raised: Result<T, String>, what: &str, places: Vec<String>, refused: &mut Vec<String>) -> Option<T> {
    refused.extend(places.iter().map(|why| format!("{what} ({why})")));
    raised.map_err(|why| refused.push(format!("{what} ({why})"))).ok()
}

/// What keeps the kernel from telling the ways out of an interface, by family.
fn does_not_forward(interface: &str) -> impl Iterator<Item = String> {
    ["ipv4", "ipv6"].into_iter().filter_map(move |family| {
        let path = format!("/proc/sys/net/{family}/conf/{interface}/forwarding");
        let is_off = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
        is_off.then(|| format!("{interface}: {family} endpoints are not reached until `sysctl net.{family}.conf.{interface}.forwarding=1`"))
    })
}

const fn forward(wish: snapshot::Forward) -> Forward {
    match wish {
        snapshot::Forward::Ipip => Forward::IpIp,
        snapshot::Forward::Gue => Forward::Gue,
        snapshot::Forward::Dsr => Forward::Dsr,
        snapshot::Forward::Nat => Forward::Nat,
    }
}

/// Has the kernel find out the link-layer address on the way to an endpoint: by a datagram of nothing to nobody (RFC 863), as a program cannot ask for it.
fn ask_for(address: IpAddr) {
    const DISCARD: u16 = 9;
    let any: SocketAddr = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Without a way to it there is nothing to find out.
    if let Ok(socket) = UdpSocket::bind(any)
        && socket.set_nonblocking(true).is_ok()
    {
        let _ = socket.send_to(&[], (address, DISCARD));
    }
}
