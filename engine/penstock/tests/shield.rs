//! The shield's program over made-up packets (`BPF_PROG_TEST_RUN`): each is counted under the reason that it must be, and dropped or not.
//!
//! Where the program cannot be loaded (no capabilities, a kernel without it) each test says so and proves nothing.

mod granted;
mod packets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use abi::NEXT_MAX;
use abi::shield::{
    BUCKET_INITIALS, BUCKET_PACKETS, BUCKET_SYNS, Bucket, DRY_RUN, LISTS_V4, LISTS_V6, Ports, RATES, Reason,
    SAMPLE_OCTETS, SAMPLE_RING, SAMPLE_SIZE, SAMPLES_PER_SECOND, SANE, Settings, VERDICTS,
};
use penstock::afxdp;
use penstock::balance::{self, Kind, Room};
use penstock::shield::{Listed, Program};
use penstock::snapshot::{OuterSource, Transport};

use self::granted::granted;
use self::packets::{tcp, udp};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PORT: u16 = 443;
const SECOND: u64 = 1_000_000_000;

/// A program that is loaded and protects port 443, or `None` where this process may not load one.
fn shield(settings: Settings) -> Option<Program> {
    let mut program = granted(Program::load())?;
    program.protect([(Ports::Tcp, PORT), (Ports::Udp, PORT), (Ports::Quic, PORT), (Ports::Udp, 53)]).unwrap();
    program.tell(&settings).unwrap();
    Some(program)
}

fn sane() -> Settings {
    Settings { flags: SANE, ..Settings::default() }
}

/// Runs it over one packet: what it was counted as beside any notes, and whether it was dropped.
fn judge(program: &mut Program, packet: &[u8]) -> (&'static str, bool) {
    let packets = |program: &Program| -> Vec<u64> {
        program.counts().iter().filter(|count| count.verdict.is_some()).map(|count| count.packets).collect()
    };
    let before = packets(program);
    let tried = program.try_on(packet, 1).unwrap();
    let after = packets(program);
    let counts = program.counts();
    let mut grown = before.iter().zip(&after).enumerate().filter(|(_, (before, after))| before != after);
    let (at, (before, after)) = grown.next().expect("a packet is counted");
    assert_eq!(after - before, 1);
    assert_eq!(grown.next(), None, "a packet is counted under one reason");
    let octets = counts[at].octets;
    assert!(octets >= packet.len() as u64, "{octets} octets");
    (counts[at].name, tried.dropped)
}

fn note(program: &Program, name: &str) -> u64 {
    program.counts().iter().find(|count| count.name == name).expect("it is counted").packets
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A frame: Ethernet, tags, and what is behind them.
fn frame(tags: &[u16], kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(rest);
    // The kernel tries nothing that is shorter than an Ethernet header.
    frame
}

fn ipv4(from: &str, to: &str, protocol: u8, fragment: u16, options: &[u8], rest: &[u8]) -> Vec<u8> {
    packets::ipv4(v4(from), v4(to), protocol, fragment, options, rest)
}

fn ipv6(from: &str, to: &str, next: u8, rest: &[u8]) -> Vec<u8> {
    packets::ipv6(v6(from), v6(to), next, rest)
}

fn tcp4(from: &str, flags: u8) -> Vec<u8> {
    frame(&[], 0x0800, &ipv4(from, "192.0.2.1", 6, 0x4000, &[], &tcp(40_000, PORT, flags)))
}

fn tcp6(from: &str, flags: u8) -> Vec<u8> {
    frame(&[], 0x86dd, &ipv6(from, "2001:db8::1", 6, &tcp(40_000, PORT, flags)))
}

/// A datagram with a long header of this first octet and version.
fn quic4(from: &str, first: u8, version: u32) -> Vec<u8> {
    let mut payload = vec![first];
    payload.extend(version.to_be_bytes());
    payload.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    frame(&[], 0x0800, &ipv4(from, "192.0.2.1", 17, 0x4000, &[], &udp(40_000, PORT, &payload)))
}

#[test]
fn what_is_in_order_passes() {
    let Some(mut program) = shield(sane()) else { return };
    for (packet, wanted) in [
        (tcp4("198.51.100.1", SYN), "passed"),
        (tcp4("198.51.100.1", ACK), "passed"),
        (tcp4("198.51.100.1", 0x04), "passed"),
        (tcp4("198.51.100.1", SYN | ACK), "passed"),
        (tcp6("2001:db8:1::1", SYN), "passed"),
        (quic4("198.51.100.1", 0xc0, 1), "passed"),
        (frame(&[], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 6, 0, &[], &tcp(1, 22, SYN))), "other"),
        (frame(&[], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 17, 0, &[], &udp(1, 54, b"q"))), "other"),
        (frame(&[], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 1, 0, &[], &[8; 16])), "unread"),
        (frame(&[], 0x86dd, &ipv6("fe80::1", "ff02::1", 58, &[135; 24])), "unread"),
        (frame(&[], 0x0806, &[0; 28]), "other"),
        (frame(&[], 0x88cc, &[0; 40]), "other"),
        // To a port that is nobody's, what is strange is nobody's business.
        (frame(&[], 0x0800, &ipv4("224.0.0.1", "192.0.2.1", 6, 0, &[], &tcp(0, 22, 0))), "other"),
    ] {
        assert_eq!(judge(&mut program, &packet), (wanted, false), "{packet:02x?}");
    }
    assert_eq!((note(&program, "options"), note(&program, "extensions"), note(&program, "vlan")), (0, 0, 0));
}

#[test]
fn what_nobody_can_have_meant_is_dropped() {
    let Some(mut program) = shield(sane()) else { return };
    let of = |from: &str, rest: &[u8]| frame(&[], 0x0800, &ipv4(from, "192.0.2.1", 6, 0, &[], rest));
    let cases = [
        (tcp4("198.51.100.1", 0), "bad_flags"),
        (tcp4("198.51.100.1", 0x08), "bad_flags"),
        (tcp4("198.51.100.1", SYN | 0x01), "bad_flags"),
        (tcp4("198.51.100.1", SYN | 0x04), "bad_flags"),
        (tcp4("198.51.100.1", 0x29), "bad_flags"),
        (tcp4("198.51.100.1", 0x01), "bad_flags"),
        (tcp6("2001:db8:1::1", 0x3f), "bad_flags"),
        (of("198.51.100.1", &tcp(0, PORT, SYN)), "bad_port"),
        (tcp4("224.0.0.9", ACK), "bad_source"),
        (tcp4("255.255.255.255", ACK), "bad_source"),
        (tcp6("ff02::1", ACK), "bad_source"),
        (of("192.0.2.1", &tcp(PORT, PORT, SYN)), "land"),
        (frame(&[], 0x86dd, &ipv6("2001:db8::1", "2001:db8::1", 6, &tcp(PORT, PORT, SYN))), "land"),
        (frame(&[], 0x0800, &ipv4("192.0.2.1", "192.0.2.1", 17, 0, &[], &udp(PORT, PORT, b""))), "land"),
    ];
    for (packet, wanted) in &cases {
        assert_eq!(judge(&mut program, packet), (*wanted, true), "{packet:02x?}");
    }
    // The same when that is not wanted.
    program.tell(&Settings::default()).unwrap();
    for (packet, _) in &cases {
        assert_eq!(judge(&mut program, packet), ("passed", false), "{packet:02x?}");
    }
}

/// Cut off after every octet: nothing is read that is not there, and a header that ends early is `truncated`.
#[test]
fn what_is_cut_off_is_dropped_wherever_it_is_cut() {
    let Some(mut program) = shield(sane()) else { return };
    let whole = [
        tcp4("198.51.100.1", SYN),
        tcp6("2001:db8:1::1", SYN),
        frame(&[0x88a8, 0x8100], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 6, 0, &[1; 8], &tcp(9, PORT, SYN))),
        frame(
            &[],
            0x86dd,
            &ipv6("2001:db8:1::1", "2001:db8::1", 0, &[&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp(9, PORT, SYN)].concat()),
        ),
    ];
    for packet in &whole {
        assert_eq!(judge(&mut program, packet), ("passed", false));
        for length in 16..packet.len() {
            assert_eq!(judge(&mut program, &packet[..length]), ("truncated", true), "{length} of {packet:02x?}");
        }
    }
    let mut lies = tcp4("198.51.100.1", SYN);
    for (at, value) in [(14, 0x44), (14, 0x55), (17, 19), (46, 0x40)] {
        let was = std::mem::replace(&mut lies[at], value);
        assert_eq!(judge(&mut program, &lies), ("truncated", true), "octet {at} is {value:#x}");
        lies[at] = was;
    }
    let short = frame(&[], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 17, 0, &[], &[0, 9, 1, 0xbb, 0, 7, 0, 0]));
    assert_eq!(judge(&mut program, &short), ("truncated", true));
}

#[test]
fn fragments_options_extensions_and_tags_are_counted_and_do_not_hide_anything() {
    let Some(mut program) = shield(sane()) else { return };
    let rest = tcp(9, PORT, 0);
    let of =
        |fragment, options: &[u8]| frame(&[], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 6, fragment, options, &rest));
    for (fragment, wanted) in [(0x2000, "fragment"), (0x0001, "fragment"), (0x3fff, "fragment"), (0x4000, "bad_flags")]
    {
        assert_eq!(judge(&mut program, &of(fragment, &[])).0, wanted);
    }
    for words in 1..=10 {
        assert_eq!(judge(&mut program, &of(0, &vec![1; words * 4])), ("bad_flags", true), "{words} words of options");
    }
    assert_eq!(note(&program, "options"), 10);

    let hop = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
    let chain = |headers: &[Vec<u8>]| {
        let first = [0, 60, 43, 51, 44, 60, 60, 60];
        let mut rest_of = headers.concat();
        rest_of.extend(&rest);
        frame(&[], 0x86dd, &ipv6("2001:db8:1::1", "2001:db8::1", first[0], &rest_of))
    };
    // Hop-by-hop, destination options, routing, an authentication header of 24 octets, an atomic fragment.
    let mut authentication = vec![44, 4];
    authentication.extend([0; 22]);
    let long = chain(&[hop(60), hop(43), hop(51), authentication, vec![6, 0, 0, 0, 0, 0, 0, 1]]);
    assert_eq!(judge(&mut program, &long), ("bad_flags", true));
    let wide = chain(&[[&[6, 2][..], &[0; 22]].concat()]);
    assert_eq!(judge(&mut program, &wide), ("bad_flags", true));
    for offset in [1_u16, 8, 0xfff8] {
        let [high, low] = offset.to_be_bytes();
        let fragment = chain(&[hop(44), vec![6, 0, high, low, 0, 0, 0, 1]]);
        assert_eq!(judge(&mut program, &fragment), ("fragment", false));
    }
    let endless = chain(&[hop(60), hop(60), hop(60), hop(60), hop(60), hop(60), hop(6)]);
    assert_eq!(judge(&mut program, &endless), ("unread", false));
    assert_eq!(note(&program, "extensions"), 6);

    for tags in [&[0x8100_u16][..], &[0x88a8, 0x8100]] {
        let packet = frame(tags, 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 6, 0, &[], &rest));
        assert_eq!(judge(&mut program, &packet), ("bad_flags", true));
        let packet = frame(tags, 0x86dd, &ipv6("2001:db8:1::1", "2001:db8::1", 6, &rest));
        assert_eq!(judge(&mut program, &packet), ("bad_flags", true));
    }
    let three = frame(&[0x8100; 3], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 6, 0, &[], &rest));
    assert_eq!(judge(&mut program, &three), ("other", false));
    assert_eq!(note(&program, "vlan"), 5);
}

#[test]
fn the_longest_network_on_the_lists_decides() {
    let Some(mut program) = shield(Settings { flags: LISTS_V4 | LISTS_V6, ..Settings::default() }) else { return };
    for (network, listed) in [
        ("203.0.113.0/24", Listed::Deny),
        ("203.0.113.7", Listed::Allow),
        ("10.0.0.0/8", Listed::Allow),
        ("2001:db8:bad::/48", Listed::Deny),
        ("2001:db8:bad:1::/64", Listed::Allow),
    ] {
        program.list(&network.parse().unwrap(), Some(listed)).unwrap();
    }
    for (from, wanted) in [
        ("203.0.113.1", ("denied", true)),
        ("203.0.113.255", ("denied", true)),
        ("203.0.113.7", ("allowed", false)),
        ("203.0.112.255", ("passed", false)),
        ("10.255.0.1", ("allowed", false)),
    ] {
        assert_eq!(judge(&mut program, &tcp4(from, SYN)), wanted, "{from}");
    }
    for (from, wanted) in [
        ("2001:db8:bad::1", ("denied", true)),
        ("2001:db8:bad:1::9", ("allowed", false)),
        ("2001:db8:bae::1", ("passed", false)),
    ] {
        assert_eq!(judge(&mut program, &tcp6(from, SYN)), wanted, "{from}");
    }
    // Whatever the port, and fragments too.
    let other = frame(&[], 0x0800, &ipv4("203.0.113.1", "192.0.2.1", 6, 0x0010, &[], &[0; 24]));
    assert_eq!(judge(&mut program, &other), ("denied", true));
    let tagged = frame(&[0x8100], 0x0800, &ipv4("203.0.113.1", "192.0.2.1", 47, 0, &[], &[0; 24]));
    assert_eq!(judge(&mut program, &tagged), ("denied", true));

    program.list(&"203.0.113.0/24".parse().unwrap(), None).unwrap();
    assert_eq!(judge(&mut program, &tcp4("203.0.113.1", SYN)), ("passed", false));
    // Lists that are said to be empty are not asked.
    program.tell(&Settings::default()).unwrap();
    assert_eq!(judge(&mut program, &tcp6("2001:db8:bad::1", SYN)), ("passed", false));
}

#[test]
fn tens_of_thousands_of_networks_fit() {
    let Some(mut program) = shield(Settings { flags: LISTS_V4 | LISTS_V6, ..Settings::default() }) else { return };
    let address = |at: u32| Ipv4Addr::from(0x0b00_0000 + at * 7);
    for at in 0..50_000 {
        program.list(&address(at).to_string().parse().unwrap(), Some(Listed::Deny)).unwrap();
    }
    for at in [0, 1, 24_999, 49_999] {
        assert_eq!(judge(&mut program, &tcp4(&address(at).to_string(), ACK)), ("denied", true));
        let beside = Ipv4Addr::from(u32::from(address(at)) + 1).to_string();
        assert_eq!(judge(&mut program, &tcp4(&beside, ACK)), ("passed", false));
    }
}

/// Of `count` packets of each kind, how many pass.
fn passing(program: &mut Program, packet: &[u8], count: usize) -> usize {
    (0..count).filter(|_| !program.try_on(packet, 1).unwrap().dropped).count()
}

/// Buckets that fill once in an hour: a slow machine sees what a fast one does.
fn slow(burst: u32) -> Bucket {
    Bucket::new(1, 3_600 * SECOND, burst)
}

#[test]
fn each_source_has_buckets_of_its_own() {
    let mut settings = Settings { flags: RATES, ..Settings::default() };
    settings.buckets[BUCKET_PACKETS] = slow(20);
    settings.buckets[BUCKET_SYNS] = slow(5);
    settings.buckets[BUCKET_INITIALS] = slow(3);
    let Some(mut program) = shield(settings) else { return };
    assert_eq!(passing(&mut program, &tcp4("198.51.100.1", SYN), 10), 5);
    assert_eq!(judge(&mut program, &tcp4("198.51.100.1", SYN)), ("syn_rate", true));
    // What belongs to a connection goes on, until there is too much of anything: 11 packets have been.
    assert_eq!(passing(&mut program, &tcp4("198.51.100.1", ACK), 100), 9);
    assert_eq!(judge(&mut program, &tcp4("198.51.100.1", ACK)), ("packet_rate", true));
    // Others are none the worse.
    assert_eq!(passing(&mut program, &tcp4("198.51.100.2", SYN), 10), 5);
    // Initials: version 1 and 2, and versions that would have to be answered; not what else has a long header.
    for (first, version) in [(0xc3, 1), (0xd3, 0x6b33_43cf), (0xc3, 0x0a0a_0a0a)] {
        let source = format!("198.51.101.{}", version % 251);
        assert_eq!(passing(&mut program, &quic4(&source, first, version), 10), 3, "{version:#x}");
        assert_eq!(judge(&mut program, &quic4(&source, first, version)), ("initial_rate", true));
    }
    for (first, version) in [(0xe3, 1), (0xc3, 0x6b33_43cf), (0x43, 1), (0xc3, 0)] {
        let source = format!("198.51.102.{}", (u32::from(first) + version) % 251);
        assert_eq!(passing(&mut program, &quic4(&source, first, version), 15), 15, "{first:#x} {version:#x}");
    }
    // A port of UDP at which nobody speaks QUIC: a question of DNS may begin like an Initial.
    let question = udp(1, 53, &[0xc3, 0x0a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let question = frame(&[], 0x0800, &ipv4("198.51.103.1", "192.0.2.1", 17, 0, &[], &question));
    assert_eq!(passing(&mut program, &question, 15), 15);
    // A subscriber's IPv6 addresses are one source.
    assert_eq!(passing(&mut program, &tcp6("2001:db8:1:1::1", SYN), 3), 3);
    assert_eq!(passing(&mut program, &tcp6("2001:db8:1:1:ffff::2", SYN), 10), 2);
    assert_eq!(passing(&mut program, &tcp6("2001:db8:1:2::1", SYN), 10), 5);
    // Where nobody listens nothing is counted.
    let other = frame(&[], 0x0800, &ipv4("198.51.100.9", "192.0.2.1", 6, 0, &[], &tcp(9, 22, SYN)));
    assert_eq!(passing(&mut program, &other, 100), 100);
    assert_eq!(passing(&mut program, &tcp4("198.51.100.9", SYN), 10), 5);
}

#[test]
fn buckets_fill_again() {
    let mut settings = Settings { flags: RATES, ..Settings::default() };
    settings.buckets[BUCKET_SYNS] = Bucket::new(20, SECOND, 1);
    let Some(mut program) = shield(settings) else { return };
    let packet = tcp4("198.51.100.1", SYN);
    let begun = ring::monotonic();
    let elapsed = || ring::monotonic().since(begun);
    let passed = (0..)
        .take_while(|_| elapsed() < Duration::from_millis(600))
        .fold(0, |passed, _| passed + u32::from(!program.try_on(&packet, 1).unwrap().dropped));
    let took = elapsed().as_secs_f64();
    // One at once, and 20 a second; the clock may be a tick ahead of ours.
    assert!(passed > 1 && f64::from(passed) <= 2.0 + 20.0 * took, "{passed} in {took} s");
}

#[test]
fn a_source_is_denied_for_a_while() {
    let Some(mut program) = shield(Settings { flags: VERDICTS, ..Settings::default() }) else { return };
    let now = ring::monotonic().as_nanos();
    let hour = 3_600 * SECOND;
    program.deny("198.51.100.1".parse().unwrap(), now + hour).unwrap();
    program.deny("198.51.100.2".parse().unwrap(), now - SECOND).unwrap();
    program.deny("2001:db8:1::7".parse().unwrap(), now + hour).unwrap();
    assert_eq!(judge(&mut program, &tcp4("198.51.100.1", ACK)), ("over_limit", true));
    assert_eq!(judge(&mut program, &tcp4("198.51.100.2", ACK)), ("passed", false));
    assert_eq!(judge(&mut program, &tcp6("2001:db8:1::99", ACK)), ("over_limit", true));
    let elsewhere = frame(&[], 0x0800, &ipv4("198.51.100.1", "192.0.2.1", 6, 0, &[], &tcp(9, 22, SYN)));
    assert_eq!(judge(&mut program, &elsewhere), ("other", false), "an operator's way in stays open");
    program.pardon(IpAddr::V4(v4("198.51.100.1")));
    assert_eq!(judge(&mut program, &tcp4("198.51.100.1", ACK)), ("passed", false));
}

#[test]
fn a_dry_run_drops_nothing_and_counts_everything() {
    let mut settings = Settings { flags: DRY_RUN | SANE | LISTS_V4 | RATES | VERDICTS, ..Settings::default() };
    settings.buckets[BUCKET_SYNS] = slow(1);
    let Some(mut program) = shield(settings) else { return };
    program.list(&"203.0.113.0/24".parse().unwrap(), Some(Listed::Deny)).unwrap();
    program.deny("198.51.100.1".parse().unwrap(), u64::MAX).unwrap();
    for (packet, reason) in [
        (tcp4("203.0.113.1", SYN), "denied"),
        (tcp4("198.51.100.1", SYN), "over_limit"),
        (tcp4("198.51.100.2", 0), "bad_flags"),
        (tcp4("198.51.100.2", SYN)[..40].to_vec(), "truncated"),
        (tcp4("198.51.100.3", SYN), "passed"),
        (tcp4("198.51.100.3", SYN), "syn_rate"),
    ] {
        assert_eq!(judge(&mut program, &packet), (reason, false));
    }
    let dropped: u64 =
        program.counts().iter().filter(|count| count.verdict == Some("drop")).map(|count| count.packets).sum();
    assert_eq!(dropped, 0);
}

/// What stands behind it on an interface sees what it lets pass there, and nothing else, for as long as it stands there.
#[test]
fn who_stands_behind_it_sees_what_passes() {
    /// The interface that packets are tried on: loopback, which is the first of each network namespace.
    const LOOPBACK: u32 = 1;
    let Some(mut program) = shield(Settings { flags: LISTS_V4, ..Settings::default() }) else { return };
    program.list(&"203.0.113.0/24".parse().unwrap(), Some(Listed::Deny)).unwrap();
    let room = Room { vips: 1, addresses: 1, endpoints: 1, flows: 64 };
    let vip = abi::balance::Vip { number: 0, forward: abi::balance::Forward::Dsr, quic: false };
    let door = balance::door("192.0.2.1:443".parse().unwrap(), Transport::Tcp, vip);
    let load = |kind| balance::Program::load(kind, room, OuterSource::default(), &[door], &[]).unwrap();
    let mut behind = load(Kind::Balance);
    let (good, bad) = (tcp4("198.51.100.1", SYN), tcp4("203.0.113.1", SYN));
    // A VIP with no endpoint drops what is for it.
    let without_endpoint = |behind: &balance::Program| {
        behind.counts().iter().find(|count| count.name == "no_endpoint").expect("it is counted").packets
    };
    assert_eq!(judge(&mut program, &good), ("passed", false));
    assert_eq!(without_endpoint(&behind), 0);

    behind.stand_behind(program.next(), LOOPBACK).unwrap();
    assert_eq!(judge(&mut program, &good), ("passed", true));
    assert_eq!(judge(&mut program, &bad), ("denied", true));
    assert_eq!(without_endpoint(&behind), 1);
    program.tell(&Settings { flags: LISTS_V4 | DRY_RUN, ..Settings::default() }).unwrap();
    assert_eq!(judge(&mut program, &bad), ("denied", true));
    assert_eq!(without_endpoint(&behind), 2, "what would be dropped is handed on");

    // It hands on what it passes itself, to the third.
    let mut third = afxdp::Program::load(1).unwrap();
    third.stand_behind(behind.next(), LOOPBACK).unwrap();
    let elsewhere = frame(&[], 0x0800, &ipv4("198.51.100.1", "192.0.2.9", 6, 0x4000, &[], &tcp(40_000, PORT, SYN)));
    let seen = |third: &afxdp::Program| third.counts().iter().map(|(_, packets)| packets).sum::<u64>();
    program.try_on(&elsewhere, 1).unwrap();
    assert_eq!(seen(&third), 1);
    program.try_on(&good, 1).unwrap();
    assert_eq!(seen(&third), 1, "the balancer has dropped it");
    behind.next().lead(LOOPBACK, None).unwrap();
    program.try_on(&elsewhere, 1).unwrap();
    assert_eq!(seen(&third), 1);

    // It goes, and the shield stays; and another one takes its place.
    program.next().lead(LOOPBACK, None).unwrap();
    assert_eq!(judge(&mut program, &good), ("passed", false));
    let mut floor = load(Kind::Floor);
    floor.stand_behind(program.next(), LOOPBACK).unwrap();
    assert_eq!(judge(&mut program, &good), ("passed", false));

    assert!(floor.stand_behind(program.next(), NEXT_MAX - 1).is_ok());
    let refused = floor.stand_behind(program.next(), NEXT_MAX).unwrap_err();
    assert!(refused.contains("65536") && refused.contains("beyond 65535"), "{refused}");
}

/// Samples are taken of what is dropped for the reasons that were asked for, one in so many, so many a second, and as many as there is room for.
#[test]
fn samples_are_taken_of_what_is_dropped() {
    let deny = Settings { flags: LISTS_V4 | SANE, one_in: 1, ..Settings::default() };
    let Some(mut program) = shield(deny) else { return };
    program.list(&"203.0.113.0/24".parse().unwrap(), Some(Listed::Deny)).unwrap();
    let (bad, strange) = (tcp4("203.0.113.1", SYN), tcp4("198.51.100.1", 0));
    let taken = |program: &mut Program| std::iter::from_fn(|| program.next_sample()).collect::<Vec<_>>();
    judge(&mut program, &bad);
    assert_eq!(taken(&mut program), [], "nobody has asked");

    program.tell(&Settings { tapped: 1 << Reason::Denied as u32, ..deny }).unwrap();
    for packet in [&bad, &strange, &tcp4("198.51.100.1", SYN)] {
        judge(&mut program, packet);
    }
    let [sample] = &taken(&mut program)[..] else { panic!("one") };
    assert_eq!((sample.reason, sample.is_dry, sample.interface), (Reason::Denied, false, 1));
    assert_eq!((sample.octets as usize, &sample.packet), (bad.len(), &bad));
    let headers = penstock::shield::Headers::of(&sample.packet);
    assert_eq!((headers.source, headers.ports), (Some("203.0.113.1".parse().unwrap()), Some((40_000, PORT))));
    let now = ring::monotonic().as_nanos();
    assert!(sample.at_ns <= now && now - sample.at_ns < 60 * SECOND);

    // One that is longer than a sample, one that is cut off, and a dry run.
    let long = frame(&[], 0x0800, &ipv4("203.0.113.9", "192.0.2.1", 17, 0, &[], &udp(1, PORT, &[7; 900])));
    let cut = &tcp4("198.51.100.1", SYN)[..20];
    let all = Settings { tapped: u64::MAX, flags: deny.flags | DRY_RUN, ..deny };
    program.tell(&all).unwrap();
    for packet in [&long[..], cut, &strange] {
        judge(&mut program, packet);
    }
    let samples = taken(&mut program);
    let told: Vec<_> =
        samples.iter().map(|sample| (sample.reason.name(), sample.is_dry, sample.packet.len())).collect();
    assert_eq!(told, [("denied", true, SAMPLE_OCTETS), ("truncated", true, 20), ("bad_flags", true, strange.len())]);
    assert_eq!((samples[0].octets as usize, &samples[0].packet[..]), (long.len(), &long[..SAMPLE_OCTETS]));

    // One in ten; the counter that it goes by is this CPU's.
    program.tell(&Settings { one_in: 10, ..all }).unwrap();
    program.try_on(&strange, 500).unwrap();
    let tenth = taken(&mut program).len();
    assert!((49..=51).contains(&tenth), "{tenth}");
}

/// A flood fills neither the ring nor the operator's screen.
#[test]
fn no_more_samples_are_taken_than_there_is_room_for() {
    let settings = Settings { flags: SANE, tapped: u64::MAX, one_in: 1, ..Settings::default() };
    let Some(mut program) = shield(settings) else { return };
    let strange = tcp4("198.51.100.1", 0);
    let begun = ring::monotonic();
    program.try_on(&strange, 20_000).unwrap();
    let passed = ring::monotonic().since(begun);
    let taken = std::iter::from_fn(|| program.next_sample()).count();
    let most = SAMPLES_PER_SECOND as f64 * (1.0 + passed.as_secs_f64()) + 20.0;
    assert!(taken >= SAMPLES_PER_SECOND as usize && taken as f64 <= most, "{taken}, and not {most}");
    assert_eq!(program.samples_lost(), 0);

    // Nobody takes them: the ring fills, and what finds no room is counted.
    let room = SAMPLE_RING as usize / (SAMPLE_SIZE + 8);
    let begun = ring::monotonic();
    while program.samples_lost() == 0 {
        program.try_on(&strange, 5_000).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(ring::monotonic().since(begun) < Duration::from_secs(30), "the ring has room for ever");
    }
    let taken = std::iter::from_fn(|| program.next_sample()).count();
    assert!((room - 2..=room).contains(&taken), "{taken} of {room}");
    program.try_on(&strange, 1).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    program.try_on(&strange, 1).unwrap();
    assert!(program.next_sample().is_some(), "there is room again");
}
