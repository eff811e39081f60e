//! Datagrams past the kernel (AF_XDP): the XDP program of `ebpf/afxdp` on one interface gives those for doors of QUIC and of flows to sockets of the workers' own, and answers
//! leave by the same.
//!
//! ```text
//! interface ─► program: a door's? ─► the queue's socket ─► Lane::poll_receive ─► a Port: quic, or flows ─► Lane::send ─► interface
//!                     └► all else: the kernel ─► the doors' own sockets ─► the same ─► those, where the lane knows no way
//! ```
//!
//! What holds here:
//! * The kernel's sockets stay bound, and take whatever the program leaves: fragments, options, tagged frames, what is for a queue that has no socket of ours.
//!   Answers go by them too where the next hop is not known, a datagram does not fit, or no frame is free. So nothing depends on this path but speed.
//! * Each queue has one socket, and each socket one worker: queue `n` of `w` workers is worker `n % w`'s. What is another worker's is brought to it, as always.
//! * The next hop of an answer is the link-layer address that the path's last packet came from ([`mod@paths`]): there is no ARP here and no routing.
//! * Where anything is refused, the engine serves without and says so. Nothing is pinned: program, sockets and attachment end with the process.
//! * It is the last of an interface's programs: it sees what the shield and the balancer let pass (`bpf::Interfaces`).
//!
//! Deliberately absent: what goes to endpoints and comes from them, and more than one interface.

mod frame;
mod lane;
mod paths;
mod ports;
mod program;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use abi::afxdp::Settings;
use ring::{Interface, RECEIVED_MAX, Xsk, local_addresses};

pub use self::frame::{Datagram, Flaw, Way, headers, read, write};
pub use self::lane::{Lane, Share, Shares};
pub use self::ports::Port;
pub use self::program::Program;
use crate::bpf::{Interfaces, Standing};
use crate::limits;
use crate::snapshot::{AfXdp as Wish, Bind, Listener, Snapshot};

/// AF_XDP as the control thread holds it.
#[derive(Default)]
pub struct AfXdp {
    raised: Option<Raised>,
    /// Why it is not there though it was wanted.
    refused: Option<String>,
}

struct Raised {
    wish: Wish,
    interface: Interface,
    program: Program,
    /// By queue, until they are given away.
    sockets: Vec<Option<Xsk>>,
    zero_copy: bool,
    /// `None` before the program stands there.
    standing: Option<Standing>,
    listens: Vec<SocketAddr>,
    /// What the program has.
    doors: BTreeSet<SocketAddr>,
    /// Doors for which there is no room.
    left_out: usize,
}

impl AfXdp {
    /// Opens sockets and loads the program, if the configuration asks for that, and tries it out. No packet comes before it [stands](Self::stand).
    #[must_use]
    pub fn prepare(snapshot: &Snapshot) -> Self {
        let Some(wish) = &snapshot.engine.af_xdp else { return Self::default() };
        match Raised::new(wish, listens(&snapshot.listeners)) {
            Ok(raised) => Self { raised: Some(raised), refused: None },
            Err(why) => Self { raised: None, refused: Some(format!("{}: {why}", wish.interface)) },
        }
    }

    /// The sockets of one worker's queues, out of `workers`; each is given away once. What a worker without a queue sends goes by the kernel.
    #[must_use]
    pub fn share(&mut self, worker: usize, workers: usize) -> Option<Share> {
        let raised = self.raised.as_mut()?;
        let own = raised.sockets.iter_mut().skip(worker).step_by(workers.max(1));
        let sockets: Vec<Xsk> = own.filter_map(Option::take).collect();
        (!sockets.is_empty()).then(|| Share::new(sockets, raised.interface))
    }

    /// Workers receive: packets may come.
    pub fn stand(&mut self, snapshot: &Snapshot, on: &Interfaces) {
        let Some(raised) = &mut self.raised else { return };
        let interface = &raised.wish.interface;
        match raised.program.stand(on, interface, snapshot.xdp_mode(interface)) {
            Ok(standing) => raised.standing = Some(standing),
            Err(why) => {
                self.refused = Some(format!("{interface}: {why}"));
                self.raised = None;
            }
        }
    }

    /// Datagrams come by the kernel from now on, which may have another process to give them to. What is sent goes on as before.
    pub fn stand_down(&mut self) {
        if let Some(raised) = &mut self.raised {
            raised.standing = None;
        }
    }

    /// Whether a configuration wants what there is, wherever other programs stand.
    #[must_use]
    pub fn is_as_wanted(&self, snapshot: &Snapshot) -> bool {
        let wanted = snapshot.engine.af_xdp.as_ref().map(|wish| &wish.interface);
        self.refused.is_none() && self.raised.as_ref().map(|raised| &raised.wish.interface) == wanted
    }

    /// Workers go on by another configuration: its doors are those that there are. Tells what there is to say.
    pub fn adopt(&mut self, snapshot: &Snapshot) -> Option<String> {
        self.raised.as_mut()?.listens = listens(&snapshot.listeners);
        self.look()
    }

    /// What is due now and then: addresses that the host has got or lost. Tells what there is to say.
    pub fn look(&mut self) -> Option<String> {
        let raised = self.raised.as_mut()?;
        let before = raised.left_out;
        let followed = raised.follow();
        let left_out = (raised.left_out > before).then(|| too_many(raised.left_out));
        followed.err().or(left_out).map(|why| format!("AF_XDP: {why}"))
    }

    /// Why it is not there though it was wanted.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// The interface, how the program stands there, and how frames get to us.
    #[must_use]
    pub fn stands(&self) -> Option<(&str, &'static str, &'static str)> {
        let raised = self.raised.as_ref()?;
        let copies = if raised.zero_copy { "zero-copy" } else { "copy" };
        let (interface, mode) = raised.standing.as_ref()?.stands();
        Some((interface, mode, copies))
    }

    /// Queues that have a socket, and doors that the program knows.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.raised.as_ref().map_or((0, 0), |raised| (raised.sockets.len(), raised.doors.len()))
    }

    /// What became of packets; nothing where there is no program.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.raised.as_ref().map(|raised| raised.program.counts()).unwrap_or_default()
    }

    /// What stands where and what does not, for the operator's eye.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let standing = self.stands().map(|(interface, mode, copies)| {
            let (queues, doors) = self.sizes();
            format!("  AF_XDP: on {interface} ({mode}, {copies}), {queues} queues, {doors} addresses")
        });
        let left_out = self.raised.as_ref().map(|raised| raised.left_out).filter(|count| *count > 0);
        let left_out = left_out.map(|count| format!("  goes without: AF_XDP ({})", too_many(count)));
        let refused = self.refused.iter().map(|why| format!("  goes without: AF_XDP ({why})"));
        standing.into_iter().chain(left_out).chain(refused).collect()
    }
}

fn too_many(left_out: usize) -> String {
    format!("{left_out} addresses are the kernel's: there is room for {}", limits::AFXDP_DOORS_MAX)
}

impl Raised {
    fn new(wish: &Wish, listens: Vec<SocketAddr>) -> Result<Self, String> {
        let interface = Interface::named(&wish.interface).map_err(|error| error.to_string())?;
        let mut program = Program::load(interface.queues)?;
        let frame_max = RECEIVED_MAX as u32;
        program.tell(Settings { address: interface.address, frame_max })?;
        let mut sockets = Vec::new();
        for queue in 0..interface.queues {
            let socket = Xsk::open(&interface, queue).map_err(|error| refused(Some(queue), &error))?;
            program.seat(queue, &socket)?;
            sockets.push(Some(socket));
        }
        let zero_copy = sockets.iter().flatten().all(Xsk::is_zero_copy);
        let (doors, standing) = (BTreeSet::new(), None);
        let wish = wish.clone();
        let mut raised = Self { wish, interface, program, sockets, zero_copy, standing, listens, doors, left_out: 0 };
        raised.try_out()?;
        raised.follow()?;
        Ok(raised)
    }

    /// A datagram for a door is taken, and the same one is not when there is no such door.
    fn try_out(&mut self) -> Result<(), String> {
        let door = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 443);
        let client = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 2).into(), 50_000);
        let mut frame = [0; 64];
        let way = Way { ours: [2, 0, 0, 0, 0, 1], theirs: self.interface.address };
        let length = write(&mut frame, way, client, door, 0, b"trial");
        self.program.open(door)?;
        let with = self.program.try_on(&frame[..length])?;
        self.program.close(door)?;
        let without = self.program.try_on(&frame[..length])?;
        self.program.count_anew()?;
        match (with, without) {
            (true, false) => Ok(()),
            (false, _) => Err("the trial failed: what is for a door is not taken".to_owned()),
            (true, true) => Err("the trial failed: what is for nobody is taken".to_owned()),
        }
    }

    /// Makes the program's doors those that there are.
    fn follow(&mut self) -> Result<(), String> {
        let addresses = if self.listens.iter().any(|listen| listen.ip().is_unspecified()) {
            local_addresses().map_err(|error| format!("the host's addresses: {error}"))?
        } else {
            Vec::new()
        };
        let (wanted, left_out) = doors(&self.listens, &addresses);
        self.left_out = left_out;
        for gone in self.doors.difference(&wanted).copied().collect::<Vec<_>>() {
            self.program.close(gone)?;
            self.doors.remove(&gone);
        }
        for new in wanted {
            if !self.doors.contains(&new) {
                self.program.open(new)?;
                self.doors.insert(new);
            }
        }
        Ok(())
    }
}

/// Whether this process may have all of it, but for an interface.
///
/// # Errors
/// Why not.
pub fn granted() -> Result<(), String> {
    Program::load(1)?;
    Xsk::probe().map_err(|error| refused(None, &error))
}

/// Why there is no socket, with what helps.
fn refused(queue: Option<u32>, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{OutOfMemory, PermissionDenied, ResourceBusy};

    let helps = match error.kind() {
        PermissionDenied => "needs CAP_NET_RAW: ",
        ResourceBusy => "another process has it: ",
        OutOfMemory => "needs CAP_IPC_LOCK, or more memory that may be locked (LimitMEMLOCK=): ",
        _ if error.raw_os_error() == Some(105) => {
            "needs CAP_IPC_LOCK, or more memory that may be locked (LimitMEMLOCK=): "
        }
        _ => "",
    };
    let queue = queue.map(|queue| format!("queue {queue}: ")).unwrap_or_default();
    format!("{queue}{helps}{error}")
}

/// Where datagrams come in, as it is bound.
fn listens(listeners: &[Listener]) -> Vec<SocketAddr> {
    let open = listeners.iter().filter(|listener| listener.has_datagrams());
    let address = |bind: &Bind| match bind {
        Bind::Tcp(address) => Some(*address),
        // Of both families: an IPv6 wildcard takes both.
        Bind::Any { port } => Some(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), *port)),
        Bind::Unix(_) => None,
    };
    open.flat_map(|listener| listener.addresses.iter().filter_map(address)).collect()
}

/// The doors of listeners on a host with these addresses, a wildcard having one at each of them; and how many more there would be, were there room.
fn doors(listens: &[SocketAddr], addresses: &[IpAddr]) -> (BTreeSet<SocketAddr>, usize) {
    let mut doors = BTreeSet::new();
    for listen in listens {
        if !listen.ip().is_unspecified() {
            doors.insert(SocketAddr::new(listen.ip().to_canonical(), listen.port()));
            continue;
        }
        let taken = addresses.iter().filter(|address| listen.is_ipv6() || address.is_ipv4());
        doors.extend(taken.map(|address| SocketAddr::new(*address, listen.port())));
    }
    let left_out = doors.len().saturating_sub(limits::AFXDP_DOORS_MAX);
    while doors.len() > limits::AFXDP_DOORS_MAX {
        doors.pop_last();
    }
    (doors, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_has_a_door_at_each_address() {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let of = |listens: &[&str]| doors(&read(listens), &addresses).0.into_iter().collect::<Vec<_>>();
        assert_eq!(of(&["[::]:443"]), read(&["192.0.2.1:443", "[2001:db8::1]:443"]));
        assert_eq!(of(&["0.0.0.0:443", "0.0.0.0:444"]), read(&["192.0.2.1:443", "192.0.2.1:444"]));
        assert_eq!(of(&["198.51.100.1:443"]), read(&["198.51.100.1:443"]));
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn there_are_only_so_many_doors() {
        let addresses: Vec<IpAddr> = (0..=u8::MAX).map(|last| Ipv4Addr::new(192, 0, 2, last).into()).collect();
        let listens = |count: u16| {
            (1..=count).map(|port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).collect::<Vec<_>>()
        };
        let of = |count| {
            let (doors, left_out) = doors(&listens(count), &addresses);
            (doors.len(), left_out)
        };
        assert_eq!(of(4), (limits::AFXDP_DOORS_MAX, 0));
        assert_eq!(of(5), (limits::AFXDP_DOORS_MAX, 256));
    }
}
