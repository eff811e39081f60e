//! Packets that are longer than the way to their endpoint, and what their senders hear of that.

use abi::balance::{Forward, TOLD_A_TICK_MAX};
use penstock::balance::Program;

use crate::packets::{checksum, ipv4, udp};
use crate::{
    ACK, CLIENT_V4, CLIENT_V6, DROP, PORT, TX, VIP_V4, VIP_V6, balancer, frame, kind_of, packet, ran, sent, sum_of,
    tcp, teach,
};

const MTU: u32 = 1_500;

/// A segment of so many octets from the client of a family to the VIP.
fn long(client: &str, octets: usize) -> Vec<u8> {
    let (vip, header) = if client.contains(':') { (VIP_V6, 40) } else { (VIP_V4, 20) };
    let segment = tcp(40_000, PORT, ACK);
    let content: Vec<_> = (0..octets - header - segment.len()).map(|at| at as u8 ^ (at >> 8) as u8).collect();
    packet(client, vip, 6, &[segment, content].concat())
}

/// What came out of a program in whose frames of `long` the way's MTU leaves no room.
fn told(program: &mut Program, packet: &[u8]) -> (&'static str, u32, Vec<u8>) {
    let mut whole = frame(kind_of(packet), packet);
    whole[..12].copy_from_slice(&[2, 1, 1, 1, 1, 1, 6, 5, 4, 3, 2, 1]);
    ran(program, &whole)
}

#[test]
fn the_sender_of_what_is_too_big_is_told_how_long_it_may_be() {
    for (forward, place, room) in [
        (Forward::IpIp, 0, 20),
        (Forward::IpIp, 2, 40),
        (Forward::Gue, 1, 28),
        (Forward::Gue, 2, 48),
        (Forward::Nat, 1, 0),
        (Forward::Nat, 2, 0),
    ] {
        let families = [CLIENT_V4, CLIENT_V6].into_iter();
        // With `nat` the endpoint is of the VIP's family.
        let families = families.filter(|client| forward != Forward::Nat || client.contains(':') == (place == 2));
        for client in families {
            let Some(mut program) = balancer(forward, place) else { return };
            let most = MTU - room;
            assert_eq!(sent(&mut program, &long(client, most as usize)).0, "forwarded");
            let packet = long(client, most as usize + 1);
            let (outcome, action, answer) = told(&mut program, &packet);
            assert_eq!((outcome, action), ("told_too_big", TX), "{forward:?} {client}");
            assert_eq!(answer[..12], [6, 5, 4, 3, 2, 1, 2, 1, 1, 1, 1, 1]);
            assert_eq!(answer[12..14], kind_of(&packet).to_be_bytes());
            let answer = &answer[14..];
            let mtu = most.to_be_bytes();
            if client == CLIENT_V4 {
                assert_eq!((answer.len(), u16::from_be_bytes([answer[2], answer[3]])), (576, 576));
                assert_eq!((answer[0], answer[8], answer[9]), (0x45, 64, 1));
                assert_eq!((&answer[12..16], &answer[16..20]), (&packet[16..20], &packet[12..16]));
                assert_eq!((checksum(&answer[..20]), checksum(&answer[20..])), (0, 0));
                assert_eq!((&answer[20..22], &answer[24..28], &answer[28..]), (&[3, 4][..], &mtu[..], &packet[..548]));
            } else {
                assert_eq!((answer.len(), u16::from_be_bytes([answer[4], answer[5]])), (1_280, 1_240));
                assert_eq!((answer[0], answer[6], answer[7]), (0x60, 58, 64));
                assert_eq!((&answer[8..24], &answer[24..40]), (&packet[24..40], &packet[8..24]));
                assert_eq!(sum_of(answer), 0);
                assert_eq!(
                    (&answer[40..42], &answer[44..48], &answer[48..]),
                    (&[2, 0][..], &mtu[..], &packet[..1_232])
                );
            }
        }
    }
}

/// Whatever the sums are, they come out right.
#[test]
fn each_sum_of_what_is_told_is_right() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    for number in 0..100_u8 {
        for client in [CLIENT_V4, CLIENT_V6] {
            let mut packet = long(client, 1_490);
            let at = packet.len() - 1_000;
            packet[at..].iter_mut().for_each(|octet| *octet = octet.wrapping_mul(number | 1).wrapping_add(number));
            let (outcome, _, answer) = told(&mut program, &packet);
            assert_eq!(outcome, "told_too_big");
            let sum = if client == CLIENT_V4 { checksum(&answer[34..]) } else { sum_of(&answer[14..]) };
            assert_eq!(sum, 0, "{client} {number}");
        }
    }
}

#[test]
fn nobody_is_told_who_must_not_be() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    let mut dropped = |what: &str, packet: &[u8]| {
        let (outcome, action, after) = told(&mut program, packet);
        assert_eq!((outcome, action, &after[14..]), ("too_big", DROP, packet), "{what}");
    };
    let vip = VIP_V4.parse().unwrap();
    let rest = [tcp(40_000, PORT, ACK), vec![7; 1_453]].concat();
    dropped("it may be divided", &ipv4(CLIENT_V4.parse().unwrap(), vip, 6, 0, &[], &rest));
    for from in ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        dropped(from, &ipv4(from.parse().unwrap(), vip, 6, 0x4000, &[], &rest));
    }
    for from in ["::", "ff02::1"] {
        dropped(from, &packet(from, VIP_V6, 6, &rest));
    }
    // An error is told of by nobody.
    let about = packet(VIP_V4, CLIENT_V4, 17, &udp(PORT, 40_000, &[7; 1_450]));
    let error = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &about].concat();
    dropped("an error", &packet("203.0.113.9", VIP_V4, 1, &error));
    // To a group's link-layer address.
    let long = long(CLIENT_V4, 1_490);
    assert_eq!(ran(&mut program, &[&[1, 0, 0x5e, 0, 0, 1, 6, 5, 4, 3, 2, 1, 8, 0][..], &long].concat()).0, "too_big");
}

/// Where there is less room than IPv6 promises, its senders can do nothing about that.
#[test]
fn nobody_is_told_of_less_than_ipv6_promises() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    teach(&mut program, 0, 1_290, 1);
    assert_eq!(sent(&mut program, &long(CLIENT_V6, 1_270)).0, "forwarded");
    assert_eq!(sent(&mut program, &long(CLIENT_V6, 1_280)).0, "too_big");
    let (outcome, _, answer) = told(&mut program, &long(CLIENT_V6, 1_281));
    assert_eq!((outcome, &answer[14 + 44..14 + 48]), ("told_too_big", &1_280_u32.to_be_bytes()[..]));
    // Less than an error quotes.
    teach(&mut program, 0, 500, 1);
    assert_eq!(told(&mut program, &long(CLIENT_V4, 547)).0, "too_big");
    let (outcome, _, answer) = told(&mut program, &long(CLIENT_V4, 548));
    assert_eq!((outcome, &answer[14 + 24..14 + 28]), ("told_too_big", &480_u32.to_be_bytes()[..]));
}

/// Each CPU makes so many in a tick, and goes on in the next.
#[test]
fn so_many_are_told_in_a_tick_and_no_more() {
    let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for tick in [2, 3] {
        program.tick(tick).unwrap();
        teach(&mut program, 0, 1_500, 1);
        // This thread may be on each CPU in turn.
        let tries = (TOLD_A_TICK_MAX as usize + 1) * cpus;
        let outcomes: Vec<_> = (0..tries).map(|_| told(&mut program, &long(CLIENT_V4, 1_490)).0).collect();
        let told = outcomes.iter().filter(|outcome| **outcome == "told_too_big").count();
        assert!((TOLD_A_TICK_MAX as usize..=TOLD_A_TICK_MAX as usize * cpus).contains(&told), "{told} of {tries}");
        assert!(outcomes.iter().all(|outcome| ["told_too_big", "too_big"].contains(outcome)));
    }
}

/// What IP says of the length is more than there is.
#[test]
fn what_is_cut_off_is_not_told_of() {
    for (client, quoted) in [(CLIENT_V4, 548), (CLIENT_V6, 1_232)] {
        let Some(mut program) = balancer(Forward::IpIp, 0) else { return };
        let packet = long(client, 1_490);
        for end in [60, 100, quoted - 1, quoted, quoted + 1, 1_489] {
            let (outcome, _, answer) = told(&mut program, &packet[..end]);
            assert_eq!(outcome, if end < quoted { "too_big" } else { "told_too_big" }, "{client} {end}");
            assert!(answer.len() <= 14 + 1_280);
        }
    }
}
