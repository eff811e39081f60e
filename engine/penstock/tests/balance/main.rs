//! The balancer's programs over made-up packets (`BPF_PROG_TEST_RUN`): what becomes of each, octet by octet.
//!
//! Where the programs cannot be loaded (no capabilities, a kernel without them) each test says so and proves nothing.

#[path = "../granted/mod.rs"]
mod granted;
mod nat;
#[path = "../packets/mod.rs"]
mod packets;
mod quic;
mod too_big;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use abi::balance::{Door, Forward, Hop, SLOTS, Vip, hash, mapped, slot_of};
use penstock::balance::{Kind, Program, Room, door};
use penstock::snapshot::{OuterSource, Transport};
use policy::balance::maglev_slots;

use self::granted::granted;
use self::packets::{checksum, ipv4, ipv6, udp};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PORT: u16 = 443;
const CLIENT_V4: &str = "198.51.100.7";
const CLIENT_V6: &str = "2001:db8:1::7";
const VIP_V4: &str = "192.0.2.1";
const VIP_V6: &str = "2001:db8::1";
/// What is taught as the next hop: its address and ours.
const MACS: [u8; 12] = [0x02, 0, 0, 0, 0, 0x11, 0x02, 0, 0, 0, 0, 0x22];

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;
const REDIRECT: u32 = 4;

/// Endpoints of each VIP, by place.
const ORIGINS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "2001:db8:10::3"];

/// Where packets come from whose addresses are rewritten.
const OURS: [&str; 2] = ["10.9.0.1", "2001:db8:9::1"];

fn load(kind: Kind, flows: u32, doors: &[Door]) -> Option<Program> {
    let ours: &[IpAddr] =
        &if doors.iter().any(|door| door.vip.forward == Forward::Nat) { OURS.map(ip).to_vec() } else { Vec::new() };
    granted(Program::load(kind, Room { vips: 4, addresses: 16, endpoints: 8, flows }, source(), doors, ours))
}

fn source() -> OuterSource {
    OuterSource { v4: "172.16.0.0/16".parse().unwrap(), v6: "100::/64".parse().unwrap() }
}

/// A balancer with one VIP, TCP and UDP of both families, whose packets all go to `place`.
fn balancer(forward: Forward, place: u16) -> Option<Program> {
    balancer_with(forward, place, 1 << 14)
}

fn balancer_with(forward: Forward, place: u16, flows: u32) -> Option<Program> {
    balancer_of(forward, place, flows, false)
}

/// As above, which may read ids of QUIC connections where there is UDP.
fn balancer_of(forward: Forward, place: u16, flows: u32, quic: bool) -> Option<Program> {
    let protocols = [(0, Transport::Tcp), (1, Transport::Udp)];
    let doors = protocols.into_iter().flat_map(|(number, protocol)| {
        [VIP_V4, VIP_V6].map(|address| {
            door(SocketAddr::new(ip(address), PORT), protocol, Vip { number, forward, quic: quic && number == 1 })
        })
    });
    let mut program = load(Kind::Balance, flows, &doors.collect::<Vec<_>>())?;
    for (at, origin) in (0..).zip(ORIGINS) {
        program.set_endpoint(at, SocketAddr::new(ip(origin), 8_443), 1, true).unwrap();
        teach(&mut program, at, 1_500, 1);
    }
    for (number, _) in protocols {
        turn(&mut program, number, 1, Some(&vec![place; SLOTS as usize]));
    }
    Some(program)
}

/// From now on this table counts.
fn turn(program: &mut Program, number: u32, half: u32, slots: Option<&[u16]>) {
    program.set_table(number, half, slots).unwrap();
    program.turn(number, half).unwrap();
}

/// A way out of an interface; packets are tried on loopback, which is the first one.
fn teach(program: &mut Program, place: u16, mtu: u32, interface: u32) {
    let word = |at: usize| u32::from_ne_bytes([MACS[at], MACS[at + 1], MACS[at + 2], MACS[at + 3]]);
    let hop = Hop { addresses: [word(0), word(4), word(8)], interface, tick: 0, mtu, generation: 1 };
    program.teach(place, hop).unwrap();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn frame(kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x04; 12];
    frame.extend(kind.to_be_bytes());
    frame.extend(rest);
    frame
}

/// An IP packet of either family, with a checksum where there is one.
fn packet(from: &str, to: &str, protocol: u8, rest: &[u8]) -> Vec<u8> {
    match (ip(from), ip(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, protocol, 0x4000, &[], rest),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, protocol, rest),
        _ => panic!("of one family"),
    }
}

/// A segment with something in it.
fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    [&packets::tcp(from, to, flags)[..], b"content"].concat()
}

fn kind_of(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

/// A packet that goes from a client's port to the VIP of its family.
fn asked(client: &str, protocol: u8, port: u16, flags: u8) -> Vec<u8> {
    let vip = if client.contains(':') { VIP_V6 } else { VIP_V4 };
    let rest = if protocol == 6 { tcp(port, PORT, flags) } else { udp(port, PORT, b"question") };
    packet(client, vip, protocol, &rest)
}

/// Runs it over one frame: what it was counted as, what XDP is to do, and the frame then.
fn ran(program: &mut Program, frame: &[u8]) -> (&'static str, u32, Vec<u8>) {
    let packets = |program: &Program| program.counts().iter().map(|count| count.packets).collect::<Vec<_>>();
    let before = packets(program);
    let tried = program.try_on(frame, 1).unwrap();
    let after = packets(program);
    let mut grown = (0..before.len()).filter(|&at| after[at] != before[at]);
    let at = grown.next().expect("a packet is counted");
    assert_eq!((after[at] - before[at], grown.next()), (1, None), "once, and under one outcome");
    (program.counts()[at].name, tried.action, tried.packet)
}

/// As [`ran`], of a packet.
fn sent(program: &mut Program, packet: &[u8]) -> (&'static str, u32, Vec<u8>) {
    ran(program, &frame(kind_of(packet), packet))
}

/// The endpoint's address in the outer header of a frame that is forwarded.
fn outer_destination(frame: &[u8]) -> IpAddr {
    let packet = &frame[14..];
    if packet[0] >> 4 == 4 {
        <[u8; 4]>::try_from(&packet[16..20]).unwrap().into()
    } else {
        <[u8; 16]>::try_from(&packet[24..40]).unwrap().into()
    }
}

#[test]
fn packets_are_wrapped_and_unwrapped_again() {
    let Some(mut decap) = load(Kind::Decap, 8, &[]) else { return };
    for address in [VIP_V4, VIP_V6] {
        decap.unwrap_for(ip(address)).unwrap();
    }
    for (forward, place) in [(Forward::IpIp, 0), (Forward::IpIp, 2), (Forward::Gue, 1), (Forward::Gue, 2)] {
        let Some(mut program) = balancer(forward, place) else { return };
        for (client, protocol) in [(CLIENT_V4, 6), (CLIENT_V4, 17), (CLIENT_V6, 6), (CLIENT_V6, 17)] {
            let inner = asked(client, protocol, 40_000, ACK);
            let (outcome, action, wrapped) = sent(&mut program, &inner);
            assert_eq!((outcome, action), ("forwarded", TX), "{forward:?} {client}");
            assert_eq!(wrapped[..12], MACS);
            let outer = &wrapped[14..];
            assert_eq!(outer_destination(&wrapped), ip(ORIGINS[usize::from(place)]));
            let (header, next, length) = if outer[0] >> 4 == 4 {
                assert_eq!((outer[0], checksum(&outer[..20])), (0x45, 0));
                assert_eq!((&outer[6..8], &outer[12..14]), (&[0x40, 0][..], &[172, 16][..]));
                (20, outer[9], u16::from_be_bytes([outer[2], outer[3]]))
            } else {
                assert_eq!(outer[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
                (40, outer[6], u16::from_be_bytes([outer[4], outer[5]]) + 40)
            };
            assert_eq!(usize::from(length), outer.len());
            let behind = &outer[header..];
            let at = if forward == Forward::Gue {
                assert_eq!((next, &behind[2..4]), (17, &6080_u16.to_be_bytes()[..]));
                assert!(u16::from_be_bytes([behind[0], behind[1]]) >= 49_152);
                assert_eq!(usize::from(u16::from_be_bytes([behind[4], behind[5]])), behind.len());
                8
            } else {
                assert_eq!(next, if inner[0] >> 4 == 4 { 4 } else { 41 });
                0
            };
            assert_eq!(behind[at..], inner);

            let (outcome, action, stripped) = ran(&mut decap, &wrapped);
            assert_eq!((outcome, action), ("stripped", PASS));
            assert_eq!((&stripped[..12], &stripped[14..]), (&MACS[..], &inner[..]));
            assert_eq!(stripped[12..14], kind_of(&inner).to_be_bytes());
        }
    }
}

#[test]
fn flows_differ_in_their_outer_headers_and_packets_of_one_do_not() {
    for forward in [Forward::IpIp, Forward::Gue] {
        let Some(mut program) = balancer(forward, 0) else { return };
        let mut outer = |port| sent(&mut program, &asked(CLIENT_V4, 6, port, ACK)).2[14..44].to_vec();
        let first = outer(40_000);
        assert_eq!(outer(40_000), first);
        let others: std::collections::BTreeSet<_> = (1..200).map(|port| outer(port)[12..16].to_vec()).collect();
        assert!(others.len() > 190, "{} sources", others.len());
    }
}

#[test]
fn dsr_changes_the_frame_and_the_hop_limit() {
    let Some(mut program) = balancer(Forward::Dsr, 1) else { return };
    for client in [CLIENT_V4, CLIENT_V6] {
        let mut packet = asked(client, 6, 40_000, ACK);
        let (outcome, action, out) = sent(&mut program, &packet);
        assert_eq!((outcome, action, &out[..12]), ("forwarded", TX, &MACS[..]));
        let limit = if client == CLIENT_V4 { 8 } else { 7 };
        assert_eq!(out[14 + limit], 63);
        if client == CLIENT_V4 {
            assert_eq!(checksum(&out[14..34]), 0);
            packet[10..12].copy_from_slice(&out[24..26]);
        }
        packet[limit] = 63;
        assert_eq!(out[14..], packet);
        packet[limit] = 1;
        assert_eq!(sent(&mut program, &packet).0, "hop_limit");
    }
}

/// The sum is carried right whatever it is.
#[test]
fn each_sum_stays_right() {
    let Some(mut program) = balancer(Forward::Dsr, 0) else { return };
    for low in 0..=255_u8 {
        let from = Ipv4Addr::new(198, 51, low, 255 - low);
        let packet = ipv4(from, VIP_V4.parse().unwrap(), 6, 0x4000, &[], &tcp(u16::from(low) + 1, PORT, SYN));
        let (_, _, out) = sent(&mut program, &packet);
        assert_eq!(checksum(&out[14..34]), 0, "{from}");
    }
}

#[test]
fn what_is_for_no_vip_passes_as_it_came() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    let (client, vip): (Ipv4Addr, Ipv4Addr) = (CLIENT_V4.parse().unwrap(), VIP_V4.parse().unwrap());
    let hop = |next: u8, kind: u8| {
        let rest = [&[kind, 0, 0, 0, 0, 0, 0, 1][..], &tcp(1, PORT, ACK)].concat();
        packet(CLIENT_V6, VIP_V6, next, &rest)
    };
    for (packet, outcome) in [
        (packet(CLIENT_V4, "192.0.2.2", 6, &tcp(1, PORT, SYN)), "other"),
        (packet(CLIENT_V4, VIP_V4, 6, &tcp(1, 80, SYN)), "other"),
        (packet(CLIENT_V6, VIP_V6, 17, &udp(1, 80, b"")), "other"),
        (packet(CLIENT_V4, VIP_V4, 47, &[0; 30]), "other"),
        // A ping, and an error about a packet that is nobody's.
        (packet(CLIENT_V4, VIP_V4, 1, &[8, 0, 0, 0, 0, 1, 0, 1]), "other"),
        (packet(CLIENT_V6, VIP_V6, 58, &[128, 0, 0, 0, 0, 1, 0, 1]), "other"),
        (ipv4(client, vip, 6, 0x2000, &[], &tcp(1, PORT, ACK)), "fragment"),
        (ipv4(client, vip, 6, 0x0010, &[], &tcp(1, PORT, ACK)), "fragment"),
        (ipv4(client, vip, 6, 0x4000, &[1, 1, 1, 0], &tcp(1, PORT, ACK)), "options"),
        (hop(44, 6), "fragment"),
        (hop(0, 6), "options"),
        (hop(60, 6), "options"),
    ] {
        let before = frame(kind_of(&packet), &packet);
        let (found, action, after) = sent(&mut program, &packet);
        assert_eq!((found, action), (outcome, PASS), "{packet:x?}");
        assert_eq!(after, before);
    }
    let arp = frame(0x0806, &[0; 28]);
    assert_eq!(ran(&mut program, &arp).0, "other");
    let lies = [&[0x44][..], &asked(CLIENT_V4, 6, 1, ACK)[1..]].concat();
    assert_eq!(ran(&mut program, &frame(0x0800, &lies)).0, "truncated");
    let lies = [&[0x50][..], &asked(CLIENT_V6, 6, 1, ACK)[1..]].concat();
    assert_eq!(ran(&mut program, &frame(0x86dd, &lies)).0, "truncated");
}

#[test]
fn wherever_a_packet_ends_it_is_judged_and_never_half_sent() {
    let error = |client: &str| told_of(client, 40_000);
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    for packet in [
        asked(CLIENT_V4, 6, 40_000, ACK),
        asked(CLIENT_V4, 17, 40_000, 0),
        asked(CLIENT_V6, 6, 40_000, ACK),
        asked(CLIENT_V6, 17, 40_000, 0),
        error(CLIENT_V4),
        error(CLIENT_V6),
    ] {
        let whole = frame(kind_of(&packet), &packet);
        let mut forwards = false;
        for end in 15..whole.len() {
            let (outcome, action, _) = ran(&mut program, &whole[..end]);
            match outcome {
                "truncated" | "other" => assert_eq!((action, forwards), (PASS, false), "{end}"),
                "forwarded" | "icmp_error" => forwards = true,
                _ => panic!("{end}: {outcome}"),
            }
        }
    }
    let Some(mut decap) = load(Kind::Decap, 8, &[]) else { return };
    decap.unwrap_for(ip(VIP_V4)).unwrap();
    for forward in [Forward::IpIp, Forward::Gue] {
        for place in [0, 2] {
            let Some(mut program) = balancer(forward, place) else { return };
            let (_, _, wrapped) = sent(&mut program, &asked(CLIENT_V4, 6, 40_000, ACK));
            let outer = wrapped.len() - asked(CLIENT_V4, 6, 40_000, ACK).len();
            for end in 15..wrapped.len() {
                let (outcome, _, _) = ran(&mut decap, &wrapped[..end]);
                assert_eq!(outcome, if end < outer + 20 { "other" } else { "stripped" }, "{end}");
            }
        }
    }
}

/// A router's word that a packet of the VIP's to a client was too big.
fn told_of(client: &str, port: u16) -> Vec<u8> {
    told_about(client, 6, &tcp(PORT, port, ACK))
}

/// The same of a datagram.
fn told_of_udp(client: &str, port: u16) -> Vec<u8> {
    told_about(client, 17, &udp(PORT, port, &[0x41; 60]))
}

fn told_about(client: &str, of_what: u8, rest: &[u8]) -> Vec<u8> {
    let is_v4 = !client.contains(':');
    let vip = if is_v4 { VIP_V4 } else { VIP_V6 };
    let about = packet(vip, client, of_what, rest);
    let error = [&[if is_v4 { 3 } else { 2 }, if is_v4 { 4 } else { 0 }, 0, 0, 0, 0, 5, 0][..], &about].concat();
    let (router, protocol) = if is_v4 { ("203.0.113.9", 1) } else { ("2001:db8:99::9", 58) };
    packet(router, vip, protocol, &error)
}

#[test]
fn an_error_goes_to_whose_packet_it_tells_of() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    let slots: Vec<_> = (0..SLOTS).map(|slot| (slot % 3) as u16).collect();
    turn(&mut program, 0, 0, Some(&slots));
    for client in [CLIENT_V4, CLIENT_V6] {
        let mut seen = BTreeMap::new();
        for port in 1..60 {
            let (_, _, flow) = sent(&mut program, &asked(client, 6, port, ACK));
            let (outcome, action, error) = sent(&mut program, &told_of(client, port));
            assert_eq!((outcome, action), ("icmp_error", TX));
            assert_eq!(outer_destination(&error), outer_destination(&flow), "{client} {port}");
            *seen.entry(outer_destination(&flow)).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
    // Of a flow that nobody remembers, by its hash; and it is not remembered for that.
    let flows = program.vip_counts(0).flows;
    assert_eq!(sent(&mut program, &told_of(CLIENT_V4, 777)).0, "icmp_error");
    assert_eq!(program.vip_counts(0).flows, flows);
    // About a packet that the VIP has not sent.
    let about = packet("192.0.2.77", CLIENT_V4, 6, &tcp(PORT, 1, ACK));
    let error = packet("203.0.113.9", VIP_V4, 1, &[&[3, 4, 0, 0, 0, 0, 5, 0][..], &about].concat());
    assert_eq!(sent(&mut program, &error).0, "other");
}

/// Three origins by Maglev, and what becomes of 3,000 flows when one of them goes.
#[test]
fn only_flows_of_who_has_gone_move() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    let weights = |last| [(11_u64, 1), (22, 1), (33, last)];
    let all = maglev_slots(&weights(1)).unwrap();
    turn(&mut program, 0, 0, Some(&all));
    // Far fewer than there is room for: no set has too many.
    let ports = 1..=300_u16;
    let whose = |program: &mut Program, flags| -> Vec<IpAddr> {
        let ports = ports.clone();
        ports.map(|port| outer_destination(&sent(program, &asked(CLIENT_V4, 6, port, flags)).2)).collect()
    };
    let syn = whose(&mut program, SYN);
    assert_eq!(program.vip_counts(0).flows, 0, "a SYN is not remembered");
    let before = whose(&mut program, ACK);
    assert_eq!((&syn, program.vip_counts(0).flows), (&before, 300));
    // What the engine would say of a slot is what the program finds.
    for (port, found) in ports.clone().zip(&before) {
        let slot = slot_of(hash(mapped(CLIENT_V4.parse::<Ipv4Addr>().unwrap().into()), port));
        assert_eq!(*found, ip(ORIGINS[usize::from(all[slot as usize])]));
    }

    // It gets nothing new, and keeps what it has.
    let two = maglev_slots(&weights(0)).unwrap();
    turn(&mut program, 0, 1, Some(&two));
    assert_eq!(whose(&mut program, ACK), before);
    let anew = whose(&mut program, SYN);
    assert!(anew.iter().all(|address| *address != ip(ORIGINS[2])));
    // It is gone.
    program.set_endpoint(2, SocketAddr::new(ip(ORIGINS[2]), 8_443), 1, false).unwrap();
    let after = whose(&mut program, ACK);
    let gone = before.iter().filter(|address| **address == ip(ORIGINS[2])).count();
    assert!(gone > 50, "{gone} of 300");
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == ip(ORIGINS[2]), "{before} moved to {after}");
        assert_ne!(*after, ip(ORIGINS[2]));
    }
    assert_eq!(program.vip_counts(0).moved, gone as u64);
    // Its place is another one's now: nobody takes that for the one who has gone.
    turn(&mut program, 0, 0, Some(&all));
    program.set_endpoint(2, SocketAddr::new(ip(ORIGINS[2]), 8_443), 2, true).unwrap();
    assert_eq!(whose(&mut program, ACK), after);
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    let packet = asked(CLIENT_V4, 6, 40_000, ACK);
    let whole = frame(kind_of(&packet), &packet);
    let by = |program: &mut Program, interface: u32, mtu: u32| {
        teach(program, 0, mtu, interface);
        let (outcome, action, _) = ran(program, &whole);
        (outcome, action)
    };
    assert_eq!(by(&mut program, 1, packet.len() as u32 + 20), ("forwarded", TX));
    assert_eq!(by(&mut program, 1, packet.len() as u32 + 19), ("too_big", DROP));
    // Out of another interface than it came in by.
    assert_eq!(by(&mut program, 2, 0), ("forwarded", REDIRECT));
    // What was learnt in another tick is asked anew, and of addresses that nobody has the kernel tells no way.
    let is_asked = |outcome: &str| ["no_route", "no_neighbour", "forwarding_off"].contains(&outcome);
    program.tick(2).unwrap();
    let (outcome, action, _) = ran(&mut program, &whole);
    assert!(is_asked(outcome) && action == DROP, "{outcome}");
    // As is what was learnt of who had the place before.
    assert_eq!(by(&mut program, 1, 0), ("forwarded", TX));
    program.set_endpoint(0, SocketAddr::new(ip("127.0.0.1"), 8_443), 2, true).unwrap();
    let (outcome, action, _) = ran(&mut program, &whole);
    assert!(is_asked(outcome) && action == DROP, "{outcome}");
    turn(&mut program, 0, 0, None);
    let (outcome, action, _) = sent(&mut program, &asked(CLIENT_V4, 6, 40_002, ACK));
    assert_eq!((outcome, action), ("no_endpoint", DROP));
}

#[test]
fn only_balancers_are_unwrapped_and_only_for_our_addresses() {
    let Some(mut program) = load(Kind::Decap, 8, &[]) else { return };
    program.unwrap_for(ip(VIP_V4)).unwrap();
    let inner = asked(CLIENT_V4, 6, 1, ACK);
    let to_other = packet(CLIENT_V4, "192.0.2.99", 6, &tcp(1, PORT, ACK));
    for (outer, outcome, action) in [
        (packet("172.16.9.9", "10.0.0.1", 4, &inner), "stripped", PASS),
        (packet("172.17.9.9", "10.0.0.1", 4, &inner), "stranger", DROP),
        (packet("172.17.9.9", "10.0.0.1", 4, &to_other), "other", PASS),
        (packet("100::9", "2001:db8::9", 4, &inner), "stripped", PASS),
        (packet("100:0:0:1::9", "2001:db8::9", 4, &inner), "stranger", DROP),
        (packet("172.16.9.9", "10.0.0.1", 17, &udp(50_000, 6_080, &inner)), "stripped", PASS),
        (packet("172.17.9.9", "10.0.0.1", 17, &udp(50_000, 6_080, &inner)), "stranger", DROP),
        (packet("172.16.9.9", "10.0.0.1", 17, &udp(50_000, 6_081, &inner)), "other", PASS),
        (inner.clone(), "other", PASS),
    ] {
        let (found, found_action, _) = sent(&mut program, &outer);
        assert_eq!((found, found_action), (outcome, action));
    }
}

/// More flows than a set has room for: the newest are remembered, and those that have been pushed out have the slot of their hash.
#[test]
fn the_newest_flows_push_the_oldest_out() {
    // Two sets of four flows, for each family.
    let Some(mut program) = balancer_with(Forward::IpIp, 0, 8) else { return };
    for client in [CLIENT_V4, CLIENT_V6] {
        turn(&mut program, 0, 1, Some(&vec![0; SLOTS as usize]));
        let before = program.vip_counts(0).flows;
        for port in 1..=100 {
            program.tick(u32::from(port) + 1).unwrap();
            teach(&mut program, 0, 1_500, 1);
            assert_eq!(sent(&mut program, &asked(client, 6, port, ACK)).0, "forwarded");
        }
        assert_eq!(program.vip_counts(0).flows - before, 100);
        turn(&mut program, 0, 0, Some(&vec![1; SLOTS as usize]));
        teach(&mut program, 1, 1_500, 1);
        // Errors are not remembered, so that looking changes nothing.
        let mut stays = |port| outer_destination(&sent(&mut program, &told_of(client, port)).2) == ip(ORIGINS[0]);
        let stayed: Vec<_> = (1..=100).filter(|port| stays(*port)).collect();
        assert!((5..=8).contains(&stayed.len()), "{stayed:?}");
        assert!(stayed.contains(&100) && stayed.iter().all(|port| *port > 70), "{stayed:?}");
    }
}

/// A flow of UDP that nothing was heard of for half a minute is another one; one of TCP stays.
#[test]
fn silent_flows_of_udp_are_forgotten() {
    for (protocol, number, stays) in [(17, 1, false), (6, 0, true)] {
        let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
        let whose = |program: &mut Program, tick| {
            program.tick(tick).unwrap();
            (0..2).for_each(|place| teach(program, place, 1_500, 1));
            outer_destination(&sent(program, &asked(CLIENT_V4, protocol, 40_000, ACK)).2)
        };
        assert_eq!(whose(&mut program, 1), ip(ORIGINS[0]));
        turn(&mut program, number, 0, Some(&vec![1; SLOTS as usize]));
        // Each is as old as its last packet.
        assert_eq!(whose(&mut program, 31), ip(ORIGINS[0]));
        assert_eq!(whose(&mut program, 61), ip(ORIGINS[0]));
        assert_eq!(whose(&mut program, 92), ip(ORIGINS[usize::from(!stays)]));
    }
}

/// The sum of a segment or datagram with its addresses: 0 where it is right.
fn sum_of(packet: &[u8]) -> u16 {
    let (addresses, protocol, rest) = if packet[0] >> 4 == 4 {
        (&packet[12..20], packet[9], &packet[20..])
    } else {
        (&packet[8..40], packet[6], &packet[40..])
    };
    let length = (rest.len() as u32).to_be_bytes();
    checksum(&[addresses, &length, &[0, 0, 0, protocol], rest].concat())
}

/// A packet with the sum that it should have.
fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    let (header, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let at = header
        + match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        };
    packet[at..at + 2].fill(0);
    let sum = if protocol == 1 { checksum(&packet[header..]) } else { sum_of(&packet) };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}
