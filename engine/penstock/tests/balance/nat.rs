//! Packets whose addresses are rewritten.

use std::net::{IpAddr, Ipv4Addr};

use abi::balance::Forward;
use penstock::balance::Program;

use crate::packets::{checksum, ipv4, udp};
use crate::{
    ACK, CLIENT_V4, CLIENT_V6, MACS, ORIGINS, OURS, PORT, SYN, TX, VIP_V4, asked, balancer, ip, sent, sum_of, summed,
    told_of,
};

#[test]
fn nat_goes_from_a_port_of_ours_to_the_endpoints_own() {
    for (client, place) in [(CLIENT_V4, 1), (CLIENT_V6, 2)] {
        let Some(mut program) = balancer(Forward::Nat, place) else { return };
        for protocol in [6, 17] {
            let mut ports = std::collections::BTreeSet::new();
            for port in 1..=200 {
                let packet = summed(asked(client, protocol, port, SYN));
                let (outcome, action, out) = sent(&mut program, &packet);
                assert_eq!((outcome, action, &out[..12]), ("forwarded", TX, &MACS[..]), "{client} {protocol}");
                let out = &out[14..];
                let (from, to, header) = if client == CLIENT_V4 { (12..16, 16..20, 20) } else { (8..24, 24..40, 40) };
                let octets = |text: &str| match ip(text) {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                assert_eq!(out[from], octets(OURS[usize::from(client == CLIENT_V6)]));
                assert_eq!(out[to], octets(ORIGINS[usize::from(place)]));
                assert_eq!(out[header + 2..header + 4], 8_443_u16.to_be_bytes());
                assert_eq!((sum_of(out), out.len()), (0, packet.len()), "{client} {protocol} {port}");
                if header == 20 {
                    assert_eq!((checksum(&out[..20]), out[8]), (0, 63));
                }
                let own = u16::from_be_bytes([out[header], out[header + 1]]);
                assert!(own >= 32_768 && ports.insert(own), "{own}");
                // The same one for all of a flow's packets.
                let again = sent(&mut program, &summed(asked(client, protocol, port, ACK))).2;
                assert_eq!(again[14 + header..16 + header], own.to_be_bytes());
            }
        }
    }
}

/// An error about what the endpoint has sent to us, as the client's router knows it of the VIP.
#[test]
fn nat_turns_errors_into_the_endpoints_own() {
    for (client, place) in [(CLIENT_V4, 1), (CLIENT_V6, 2)] {
        let Some(mut program) = balancer(Forward::Nat, place) else { return };
        // Of a flow that nobody knows: the kernel's.
        assert_eq!(sent(&mut program, &summed(told_of(client, 777))).0, "other");
        let flow = sent(&mut program, &summed(asked(client, 6, 40_000, ACK))).2[14..].to_vec();
        let (outcome, action, error) = sent(&mut program, &summed(told_of(client, 40_000)));
        assert_eq!((outcome, action), ("icmp_error", TX));
        let error = &error[14..];
        if client == CLIENT_V4 {
            assert_eq!((checksum(&error[..20]), checksum(&error[20..]), checksum(&error[28..48])), (0, 0, 0));
            assert_eq!((&error[16..20], &error[40..44], &error[44..48]), (&flow[16..20], &flow[16..20], &flow[12..16]));
            assert_eq!((&error[48..50], &error[50..52]), (&flow[22..24], &flow[20..22]));
        } else {
            assert_eq!(sum_of(error), 0);
            assert_eq!((&error[24..40], &error[56..72], &error[72..88]), (&flow[24..40], &flow[24..40], &flow[8..24]));
            assert_eq!((&error[88..90], &error[90..92]), (&flow[42..44], &flow[40..42]));
        }
    }
}

/// More flows than there are ports: each packet is sent, those that lasted longest stay.
#[test]
fn nat_has_as_many_flows_as_ports() {
    let Some(mut program) = balancer(Forward::Nat, 1) else { return };
    let own = |program: &mut Program, from: Ipv4Addr, port| {
        let packet = ipv4(from, VIP_V4.parse().unwrap(), 17, 0x4000, &[], &udp(port, PORT, b""));
        let (outcome, _, out) = sent(program, &packet);
        assert_eq!(outcome, "forwarded");
        u16::from_be_bytes([out[34], out[35]])
    };
    let mut seen = vec![0_u32; 1 << 15];
    for number in 0..40_000_u32 {
        let from = Ipv4Addr::from(0xc633_0000 + number / 60_000);
        seen[usize::from(own(&mut program, from, (number % 60_000) as u16 + 1) - 32_768)] += 1;
    }
    let free = seen.iter().filter(|flows| **flows == 0).count();
    assert!(free < 2_000 && seen.iter().sum::<u32>() == 40_000, "{free} ports are free");
}
