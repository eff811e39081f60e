//! Packets whose connection's id says whose they are.

use abi::balance::Forward;
use abi::{ConnectionIds, ID_LEN, Place};
use penstock::balance::Program;

use crate::packets::udp;
use crate::{
    CLIENT_V4, CLIENT_V6, ORIGINS, PORT, VIP_V4, VIP_V6, asked, balancer_of, frame, ip, kind_of, outer_destination,
    packet, ran, sent, told_of_udp,
};

const UDP_VIP: u32 = 1;

fn ids(config: u8) -> ConnectionIds {
    ConnectionIds::new(config, &[7; 16])
}

/// A balancer whose packets all go to the first place but for what ids say: server 5 is the second, server 9 the third.
fn reading(forward: Forward) -> Option<Program> {
    let mut program = balancer_of(forward, 0, 1 << 14, true)?;
    program.read_ids(&[ids(2), ids(4)]).unwrap();
    program.set_server(UDP_VIP, 5, Some((1, 1))).unwrap();
    program.set_server(UDP_VIP, 9, Some((2, 1))).unwrap();
    Some(program)
}

fn id_of(server: u16, config: u8) -> [u8; ID_LEN] {
    ids(config).encode(Place { server, generation: 3, worker: 11 }, [server as u8; 8])
}

/// A short header (RFC 9000 §17.3), which begins with the id.
fn short(id: &[u8]) -> Vec<u8> {
    [&[0x41][..], id, &[0xa5; 24]].concat()
}

/// A long one (RFC 9000 §17.2).
fn long(id: &[u8]) -> Vec<u8> {
    [&[0xe1, 0, 0, 0, 1, id.len() as u8][..], id, &[4, 1, 2, 3, 4], &[0xa5; 24]].concat()
}

/// From a client's port to the VIP of its family.
fn says(client: &str, port: u16, datagram: &[u8]) -> Vec<u8> {
    packet(client, if client.contains(':') { VIP_V6 } else { VIP_V4 }, 17, &udp(port, PORT, datagram))
}

fn goes_to(program: &mut Program, client: &str, port: u16, datagram: &[u8]) -> usize {
    let (outcome, _, out) = sent(program, &says(client, port, datagram));
    assert_eq!(outcome, "forwarded");
    ORIGINS.iter().position(|origin| ip(origin) == outer_destination(&out)).expect("one of ours")
}

#[test]
fn a_connection_is_its_servers_wherever_its_client_is() {
    for forward in [Forward::IpIp, Forward::Gue] {
        let Some(mut program) = reading(forward) else { return };
        let mut named = 0;
        for client in [CLIENT_V4, CLIENT_V6] {
            for (port, form) in [short as fn(&[u8]) -> Vec<u8>, long].into_iter().cycle().take(40).enumerate() {
                let port = port as u16 + 1_000;
                for (server, config, place) in [(5, 2, 1), (9, 4, 2), (9, 2, 2)] {
                    assert_eq!(goes_to(&mut program, client, port, &form(&id_of(server, config))), place);
                    named += 1;
                }
            }
        }
        let counts = program.vip_counts(UDP_VIP);
        assert_eq!((counts.by_id, counts.elsewhere), (named, 0));
    }
}

/// Whatever is not an id of ours for somebody who serves goes as it would without.
#[test]
fn all_others_have_their_flows_endpoint() {
    let Some(mut program) = reading(Forward::IpIp) else { return };
    let ours = id_of(5, 2);
    let mut forged = Vec::new();
    for octet in 0..ID_LEN {
        let mut id = ours;
        id[octet] ^= 0x10;
        forged.extend([short(&id), long(&id)]);
    }
    // Of a config that nobody has, of another length, by other keys, of no config at all.
    let mut longer = ours.to_vec();
    longer.push(0);
    forged.extend([short(&id_of(5, 3)), long(&longer), long(&ours[..16]), long(&[]), vec![0xff; 60], vec![0; 60]]);
    let stranger = ConnectionIds::new(2, &[8; 16]).encode(Place { server: 5, generation: 0, worker: 0 }, [1; 8]);
    let keyless = ConnectionIds::new(0, &[0; 16]).encode(Place { server: 5, generation: 0, worker: 0 }, [1; 8]);
    forged.extend([short(&stranger), long(&stranger), short(&keyless)]);
    for client in [CLIENT_V4, CLIENT_V6] {
        for (datagram, port) in forged.iter().zip(2_000..) {
            assert_eq!(goes_to(&mut program, client, port, datagram), 0, "{datagram:x?}");
        }
    }
    let counts = program.vip_counts(UDP_VIP);
    assert_eq!((counts.by_id, counts.elsewhere), (0, 0));
    // Ours, of a server that there is not.
    assert_eq!(goes_to(&mut program, CLIENT_V4, 3_000, &short(&id_of(6, 2))), 0);
    // One that has gone, and one whose place is another's by now.
    program.set_endpoint(1, (ip(ORIGINS[1]), 8_443).into(), 1, false).unwrap();
    assert_eq!(goes_to(&mut program, CLIENT_V4, 3_001, &short(&ours)), 0);
    program.set_endpoint(1, (ip(ORIGINS[1]), 8_443).into(), 2, true).unwrap();
    assert_eq!(goes_to(&mut program, CLIENT_V4, 3_002, &short(&ours)), 0);
    // It is nobody's number any more.
    program.set_server(UDP_VIP, 9, None).unwrap();
    assert_eq!(goes_to(&mut program, CLIENT_V4, 3_003, &short(&id_of(9, 2))), 0);
    let counts = program.vip_counts(UDP_VIP);
    assert_eq!((counts.by_id, counts.elsewhere), (0, 4));
    // TCP has no ids, whatever it carries.
    let tcp = sent(&mut program, &asked(CLIENT_V4, 6, 3_004, crate::ACK)).2;
    assert_eq!(outer_destination(&tcp), ip(ORIGINS[0]));
}

/// A flow is that of who was named last: errors about its answers, which carry a client's id, find him.
#[test]
fn errors_find_who_was_named() {
    let Some(mut program) = reading(Forward::IpIp) else { return };
    for (client, port) in [(CLIENT_V4, 4_000), (CLIENT_V6, 4_001)] {
        let error = |program: &mut Program| {
            let (outcome, _, out) = sent(program, &told_of_udp(client, port));
            assert_eq!(outcome, "icmp_error");
            outer_destination(&out)
        };
        assert_eq!(error(&mut program), ip(ORIGINS[0]));
        for (server, place) in [(5, 1), (9, 2), (5, 1)] {
            assert_eq!(goes_to(&mut program, client, port, &short(&id_of(server, 2))), place);
            assert_eq!(error(&mut program), ip(ORIGINS[place]));
            // And so does what has no id.
            assert_eq!(goes_to(&mut program, client, port, b"no id"), place);
        }
    }
    // Each change of mind is one flow that began, and none that moved.
    let counts = program.vip_counts(UDP_VIP);
    assert_eq!((counts.flows, counts.moved), (6, 0));
}

/// Each place may change its number: there is room for both, and for no more.
#[test]
fn there_are_twice_as_many_numbers_as_places() {
    let Some(mut program) = reading(Forward::IpIp) else { return };
    for server in (0..18).filter(|server| ![5, 9].contains(server)).take(14) {
        program.set_server(UDP_VIP, server, Some((0, 1))).unwrap();
    }
    let refused = program.set_server(UDP_VIP, 100, Some((0, 1))).unwrap_err();
    assert!(refused.starts_with("servers"), "{refused}");
    program.set_server(UDP_VIP, 5, None).unwrap();
    program.set_server(UDP_VIP, 100, Some((0, 1))).unwrap();
}

#[test]
fn wherever_a_datagram_ends_it_goes_somewhere() {
    let Some(mut program) = reading(Forward::IpIp) else { return };
    for client in [CLIENT_V4, CLIENT_V6] {
        for datagram in [short(&id_of(5, 2)), long(&id_of(5, 2))] {
            let whole = says(client, 5_000, &datagram);
            let mut named = false;
            for length in 0..=datagram.len() {
                // Another flow each time, which nobody was named for.
                let port = 6_000 + length as u16;
                let (outcome, _, out) = sent(&mut program, &says(client, port, &datagram[..length]));
                assert_eq!(outcome, "forwarded", "{length}");
                let is_named = outer_destination(&out) == ip(ORIGINS[1]);
                assert!(is_named || !named, "{length}: what is longer says no less");
                named = is_named;
            }
            assert!(named);
            // What IP and UDP say of lengths is not what there is.
            for cut in 15..whole.len() {
                let (outcome, ..) = ran(&mut program, &frame(kind_of(&whole), &whole)[..cut]);
                assert!(["truncated", "other", "forwarded"].contains(&outcome), "{cut}: {outcome}");
            }
        }
    }
}

/// Where addresses are rewritten, a flow that has an endpoint stays with it; who comes from another port is led by the id.
#[test]
fn nat_follows_ids_of_flows_that_are_new() {
    let Some(mut program) = reading(Forward::Nat) else { return };
    let goes_to = |program: &mut Program, port, datagram: &[u8]| {
        let (outcome, _, out) = sent(program, &says(CLIENT_V4, port, datagram));
        assert_eq!(outcome, "forwarded");
        ORIGINS.iter().position(|origin| ip(origin) == outer_destination(&out)).expect("one of ours")
    };
    assert_eq!(goes_to(&mut program, 7_000, &long(b"chosen")), 0);
    assert_eq!(goes_to(&mut program, 7_000, &short(&id_of(5, 2))), 0, "the flow is the first one's");
    assert_eq!(goes_to(&mut program, 7_001, &short(&id_of(5, 2))), 1);
    assert_eq!(goes_to(&mut program, 7_001, b"no id"), 1);
    assert_eq!(program.vip_counts(UDP_VIP).by_id, 1);
}
