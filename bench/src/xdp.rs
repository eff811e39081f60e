//! What a packet costs in the XDP programs: `BPF_PROG_TEST_RUN` over made-up packets, beside a program that does nothing.
//!
//! The kernel takes the time around a number of runs and tells whole nanoseconds. Where a program changes the packet, the next run sees what the one
//! before has made of it: DSR takes a hop each time and can so be repeated 250 times; what is wrapped is a VIP's no more and runs once, with caches as
//! the system call has left them: a flow that is new each time pays for tables that are not in any.
//! Each case is measured in turn with the floor at the same number of runs, and the medians are compared.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use abi::balance::{Forward, Hop, Vip};
use abi::shield::{BUCKET_PACKETS, Bucket, LISTS_V4, Ports, RATES, SANE, Settings};
use penstock::afxdp::Program as Datagrams;
use penstock::balance::{Kind, Program, Room, door};
use penstock::shield::{Listed, Program as Shield};
use penstock::snapshot::{OuterSource, Transport};
use policy::balance::maglev_slots;
use xtask::Outcome;

use crate::flags::Flags;

const PORT: u16 = 443;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NETWORKS: u32 = 50_000;
const ENDPOINTS: u16 = 64;

/// One thing that is measured.
struct Case {
    name: &'static str,
    /// Runs a system call.
    repeat: u32,
    /// Of issue "Kernel fast paths", in nanoseconds over the floor.
    bar: Option<u64>,
    run: Box<dyn FnMut(u32) -> Outcome<Duration>>,
}

pub(crate) fn run(words: &[String]) -> Outcome {
    let flags = Flags::parse(words, &["--samples"], &["--strict", "--smoke"])?;
    let samples: u32 = if flags.has("--smoke") { 5 } else { flags.read("--samples", 400)? };
    let mut floor = Program::load(Kind::Floor, room(), OuterSource::default(), &[], &[])?;
    let packet = tcp(Ipv4Addr::new(198, 51, 100, 1), 40_000, ACK);
    let mut missed = Vec::new();
    println!("{:44} {:>6} {:>9} {:>6} {:>6} {:>6}", "ns a packet, medians", "runs", "program", "floor", "over", "bar");
    for mut case in cases()? {
        let (mut own, mut bare) = (Vec::new(), Vec::new());
        for sample in 0..samples {
            own.push((case.run)(sample)?);
            bare.push(floor.try_on(&packet, case.repeat)?.each);
        }
        let (own, bare) = (median(own), median(bare));
        let over = own.saturating_sub(bare);
        let bar = case.bar.map_or_else(|| "–".to_owned(), |bar| format!("≤ {bar}"));
        println!("{:44} {:>6} {own:>9} {bare:>6} {over:>6} {bar:>6}", case.name, case.repeat);
        if case.bar.is_some_and(|bar| over > bar) {
            missed.push(format!("{}: {over} ns", case.name));
        }
    }
    if flags.has("--strict") && !missed.is_empty() {
        return Err(format!("over its bar: {}", missed.join(", ")));
    }
    Ok(())
}

fn median(mut samples: Vec<Duration>) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).map_or(0, |middle| middle.as_nanos() as u64)
}

fn cases() -> Outcome<Vec<Case>> {
    const MANY: u32 = 10_000;
    let mut cases = vec![
        shielded("shield: to another port", Settings::default(), MANY, None, 80)?,
        shielded("shield: deny list, 50,000 networks, a miss", listed(), MANY, Some(25), 80)?,
        shielded("shield: the same, and sane, to a listener", listed_and_sane(), MANY, None, PORT)?,
        shielded("shield: token bucket", bucket(), MANY, Some(60), PORT)?,
    ];
    cases.push(handed_on("shield, then what does nothing: a jump", &[Kind::Floor], false)?);
    cases.push(handed_on("shield, then balancer: another address", &[Kind::Balance], false)?);
    cases.push(handed_on("shield, balancer, what does nothing", &[Kind::Balance, Kind::Floor], false)?);
    cases.push(handed_on("shield, balancer, AF_XDP: another address", &[Kind::Balance], true)?);
    let known = |_: u32| 40_000;
    let another = |sample: u32| (sample % 60_000) as u16 + 1;
    // As often as a packet has hops, less a few.
    cases.push(balanced("balancer: dsr, the flow is known", Forward::Dsr, 250, Some(120), ACK, known, true)?);
    cases.push(balanced("balancer: dsr, a SYN: by its slot", Forward::Dsr, 250, Some(180), SYN, known, true)?);
    cases.push(balanced("balancer: dsr, a flow to remember", Forward::Dsr, 250, Some(180), ACK, known, false)?);
    cases.push(balanced("balancer: dsr, the flow is known", Forward::Dsr, 1, None, ACK, known, true)?);
    cases.push(balanced("balancer: ipip, the flow is known", Forward::IpIp, 1, Some(120), ACK, known, true)?);
    cases.push(balanced("balancer: gue, the flow is known", Forward::Gue, 1, None, ACK, known, true)?);
    cases.push(balanced("balancer: nat, the flow is known", Forward::Nat, 1, None, ACK, known, true)?);
    cases.push(balanced("balancer: ipip, a SYN: by its slot", Forward::IpIp, 1, None, SYN, another, true)?);
    cases.push(balanced("balancer: ipip, a flow to remember", Forward::IpIp, 1, None, ACK, another, true)?);
    Ok(cases)
}

fn listed() -> Settings {
    Settings { flags: LISTS_V4, ..Settings::default() }
}

fn listed_and_sane() -> Settings {
    Settings { flags: LISTS_V4 | SANE, ..Settings::default() }
}

fn bucket() -> Settings {
    let mut settings = Settings { flags: RATES, ..Settings::default() };
    settings.buckets[BUCKET_PACKETS] = Bucket::new(u32::MAX, 1_000_000_000, u32::MAX);
    settings
}

fn shielded(name: &'static str, settings: Settings, repeat: u32, bar: Option<u64>, port: u16) -> Outcome<Case> {
    let mut shield = Shield::load()?;
    shield.protect([(Ports::Tcp, PORT)])?;
    if settings.flags & LISTS_V4 != 0 {
        for at in 0..NETWORKS {
            let network = Ipv4Addr::from(0x0b00_0000 + at * 7).to_string();
            let network = network.parse().map_err(|_| format!("`{network}` is no network"))?;
            shield.list(&network, Some(Listed::Deny))?;
        }
    }
    shield.tell(&settings)?;
    let mut packet = tcp(Ipv4Addr::new(198, 51, 100, 1), 40_000, ACK);
    packet[36..38].copy_from_slice(&port.to_be_bytes());
    let run = move |_: u32| Ok(shield.try_on(&packet, repeat)?.each);
    Ok(Case { name, repeat, bar, run: Box::new(run) })
}

/// What nobody takes: from the shield by a jump to each of these, and at the end to AF_XDP where that stands there.
fn handed_on(name: &'static str, behind: &[Kind], to_datagrams: bool) -> Outcome<Case> {
    /// The interface that packets are tried on: loopback, which is the first of each network namespace.
    const LOOPBACK: u32 = 1;
    const MANY: u32 = 10_000;
    let mut shield = Shield::load()?;
    let (mut next, mut programs) = (shield.next().clone(), Vec::new());
    for kind in behind {
        let mut program = Program::load(*kind, room(), OuterSource::default(), &[], &[])?;
        program.stand_behind(&next, LOOPBACK)?;
        next = program.next().clone();
        programs.push(program);
    }
    let mut datagrams = Datagrams::load(1)?;
    datagrams.tell(abi::afxdp::Settings { address: [2; 6], frame_max: 1_792 })?;
    if to_datagrams {
        datagrams.stand_behind(&next, LOOPBACK)?;
    }
    let packet = tcp(Ipv4Addr::new(198, 51, 100, 1), 40_000, ACK);
    let run = move |_: u32| {
        // They are there for as long as they are measured.
        let _ = (&programs, &datagrams);
        Ok(shield.try_on(&packet, MANY)?.each)
    };
    Ok(Case { name, repeat: MANY, bar: None, run: Box::new(run) })
}

/// A VIP with as many endpoints as there are places, each of which this machine has just learnt the way to. Where flows do not stay (`keeps`), each packet finds its flow gone, and enters it
/// again: what the first packet of a flow does, as often as it takes to measure it.
fn balanced(
    name: &'static str,
    forward: Forward,
    repeat: u32,
    bar: Option<u64>,
    flags: u8,
    port: fn(u32) -> u16,
    keeps: bool,
) -> Outcome<Case> {
    let vip = Vip { number: 0, forward, quic: false };
    let ours: &[IpAddr] = if forward == Forward::Nat { &[IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1))] } else { &[] };
    let doors = [door(SocketAddr::new(VIP.into(), PORT), Transport::Tcp, vip)];
    let mut program = Program::load(Kind::Balance, room(), OuterSource::default(), &doors, ours)?;
    let members: Vec<_> = (1..=u64::from(ENDPOINTS)).map(|id| (id, 1)).collect();
    program.set_table(vip.number, 1, maglev_slots(&members).as_deref())?;
    program.turn(vip.number, 1)?;
    for place in 0..ENDPOINTS {
        program.set_endpoint(place, (Ipv4Addr::from(0x0a00_0001 + u32::from(place)), PORT).into(), 1, keeps)?;
        // Nobody counts ticks here, so it is not forgotten.
        program.teach(place, Hop { addresses: [1, 2, 3], interface: 1, mtu: 1_500, generation: 1, tick: 0 })?;
    }
    // Once, so that the flow is known.
    program.try_on(&tcp(Ipv4Addr::new(198, 51, 100, 1), 40_000, ACK), 1)?;
    let run = move |sample: u32| {
        let packet = tcp(Ipv4Addr::new(198, 51, 100, 1), port(sample), flags);
        let tried = program.try_on(&packet, repeat)?;
        // XDP_TX.
        if tried.action == 3 { Ok(tried.each) } else { Err(format!("{name}: packets are not sent on")) }
    };
    Ok(Case { name, repeat, bar, run: Box::new(run) })
}

const fn room() -> Room {
    Room { vips: 1, addresses: 1, endpoints: ENDPOINTS as u32, flows: 1 << 18 }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A frame with a TCP segment of 100 octets to the VIP.
fn tcp(from: Ipv4Addr, port: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 140, 0, 1, 0x40, 0, 255, 6, 0, 0]);
    frame.extend(from.octets());
    frame.extend(VIP.octets());
    frame.extend(port.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(154, 0);
    frame
}
