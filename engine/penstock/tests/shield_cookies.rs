//! SYN cookies of the shield's program over made-up packets (`BPF_PROG_TEST_RUN`), in a network namespace whose kernel makes a cookie for every SYN.
//!
//! Where there are no namespaces, or the program cannot be loaded, each test says so and proves nothing.

mod granted;

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::Command;

use abi::shield::{BUCKET_SYNS, Bucket, COOKIES, Ports, RATES, SANE, Settings};
use penstock::shield::Program;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::granted::granted;

const SYN: u8 = 0x02;
const PORT: u16 = 443;
const US: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const US_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const CLIENT_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// A namespace in which `192.0.2.1` and `2001:db8::1` are ours; it goes with its owner.
struct Space(String);

impl Space {
    /// Moves the calling thread into it; `None` where that is not allowed.
    fn enter(name: &str) -> Option<Self> {
        let space = Self(format!("penstock-cookies-{}-{name}", std::process::id()));
        if !ip(&["netns", "add", &space.0]) {
            println!("SKIPPED: network namespaces need root and `ip`");
            return None;
        }
        for words in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", "192.0.2.1/32", "dev", "lo"],
            &["addr", "add", "2001:db8::1/128", "dev", "lo", "nodad"],
        ] {
            assert!(ip(&[&["-n", &space.0], words].concat()), "{words:?}");
        }
        let file = File::open(format!("/run/netns/{}", space.0)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        Some(space)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.0]);
    }
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).output().is_ok_and(|output| output.status.success())
}

/// 0: never. 1: where a queue is full. 2: always.
fn kernel_makes_cookies(when: u8) {
    std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", when.to_string()).unwrap();
}

fn program(settings: Settings) -> Option<Program> {
    let mut program = granted(Program::load_with_cookies())?;
    program.protect([(Ports::Tcp, PORT)]).unwrap();
    program.tell(&settings).unwrap();
    Some(program)
}

fn cookies() -> Settings {
    Settings { flags: COOKIES | SANE, ..Settings::default() }
}

/// A TCP header with these options, and what is behind it.
fn tcp(sequence: u32, flags: u8, options: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = [40_000_u16.to_be_bytes(), PORT.to_be_bytes()].concat();
    header.extend(sequence.to_be_bytes());
    header.extend([0, 0, 0, 0, (20 + options.len() as u8) << 2, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header.extend(options);
    header.extend(content);
    header
}

fn frame(kind: u16, ip: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut frame = [[0x0a; 6], [0x0c; 6]].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(ip);
    frame.extend(rest);
    frame
}

fn over_v4(tcp: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 20 + tcp.len() as u8, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip.extend([CLIENT, US].concat());
    frame(0x0800, &ip, tcp)
}

fn over_v6(tcp: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, tcp.len() as u8, 6, 64];
    ip.extend([CLIENT_V6, US_V6].concat());
    frame(0x86dd, &ip, tcp)
}

/// What Linux asks for, and the least that anybody does.
const OPTIONS: [&[u8]; 4] =
    [&[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7], &[2, 4, 0x05, 0xb4], &[], &[1; 40]];

/// RFC 1071: 0 where the checksum within is right.
fn wrong(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    (words.sum::<u32>() % 0xffff) as u16
}

#[test]
fn a_syn_is_answered_with_the_kernels_cookie() {
    let Some(_space) = Space::enter("answer") else { return };
    let Some(mut program) = program(cookies()) else { return };
    kernel_makes_cookies(2);
    let _v4 = TcpListener::bind(("192.0.2.1", PORT)).unwrap();
    let _v6 = TcpListener::bind(("2001:db8::1", PORT)).unwrap();
    let mut seen = Vec::new();
    for options in OPTIONS {
        for content in [&b""[..], b"early"] {
            for sequence in [7, u32::MAX] {
                let segment = tcp(sequence, SYN, options, content);
                let next = sequence.wrapping_add(1).to_be_bytes();

                let answer = program.try_on(&over_v4(&segment), 1).unwrap().answer.expect("an answer");
                assert_eq!(answer.len(), 14 + 20 + 24);
                assert_eq!(answer[..14], [&[0x0c; 6][..], &[0x0a; 6], &[8, 0]].concat(), "to whom it came from");
                assert_eq!(answer[26..34], [US, CLIENT].concat());
                assert_eq!(answer[42..46], next);
                assert_eq!((answer[46] >> 4, answer[47]), (6, 0x12), "SYN and ACK");
                assert_eq!(answer[54..56], [2, 4], "an MSS");
                assert_eq!(wrong(&answer[14..34]), 0);
                assert_eq!(wrong(&[&answer[26..34], &[0, 6, 0, 24], &answer[34..]].concat()), 0);
                seen.push(answer[38..42].to_vec());

                let answer = program.try_on(&over_v6(&segment), 1).unwrap().answer.expect("an answer");
                assert_eq!(answer.len(), 14 + 40 + 24);
                assert_eq!(answer[22..54], [US_V6, CLIENT_V6].concat());
                assert_eq!(answer[62..66], next);
                assert_eq!(answer[67], 0x12);
                assert_eq!(wrong(&[&answer[22..54], &[0, 24, 0, 6], &answer[54..]].concat()), 0);
                seen.push(answer[58..62].to_vec());
            }
        }
    }
    let different: std::collections::BTreeSet<_> = seen.iter().collect();
    assert!(different.len() >= 4, "a cookie tells addresses, ports and numbers: {different:02x?}");
    assert_eq!(program.cookies(), 2 * seen.len() as u64 / 2);
}

#[test]
fn what_is_not_for_a_cookie_is_left_to_the_kernel() {
    let Some(_space) = Space::enter("pass") else { return };
    let Some(mut program) = program(cookies()) else { return };
    let syn = over_v4(&tcp(7, SYN, OPTIONS[0], b""));
    kernel_makes_cookies(2);
    assert_eq!(program.try_on(&syn, 1).unwrap().answer, None, "nobody listens");
    let listener = TcpListener::bind(("192.0.2.1", PORT)).unwrap();
    assert!(program.try_on(&syn, 1).unwrap().answer.is_some());

    // All but a SYN, and a SYN whose header is not where it mostly is.
    for flags in [0x10, 0x12, 0x04, 0x18, 0x11] {
        assert_eq!(program.try_on(&over_v4(&tcp(7, flags, OPTIONS[0], b"")), 1).unwrap().answer, None, "{flags:#x}");
    }
    let mut tagged = syn.clone();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    let mut with_options = syn.clone();
    with_options[14] = 0x46;
    with_options[17] += 4;
    with_options.splice(34..34, [1; 4]);
    for packet in [tagged, with_options] {
        let tried = program.try_on(&packet, 1).unwrap();
        assert_eq!((tried.answer, tried.dropped), (None, false));
    }
    // Options that are cut off, wherever.
    for length in 54..syn.len() {
        let tried = program.try_on(&syn[..length], 1).unwrap();
        assert_eq!((tried.answer, tried.dropped), (None, false), "{length}");
    }

    // While the queue has room, and where the kernel has no cookies.
    for when in [1, 0] {
        kernel_makes_cookies(when);
        assert_eq!(program.try_on(&syn, 1).unwrap().answer, None, "tcp_syncookies = {when}");
    }
    kernel_makes_cookies(2);
    drop(listener);
    assert_eq!(program.try_on(&syn, 1).unwrap().answer, None, "nobody listens any more");
}

#[test]
fn only_who_may_open_a_connection_gets_a_cookie() {
    let mut settings = cookies();
    settings.flags |= RATES;
    settings.buckets[BUCKET_SYNS] = Bucket::new(1, 3_600_000_000_000, 3);
    let Some(_space) = Space::enter("rate") else { return };
    let Some(mut program) = program(settings) else { return };
    kernel_makes_cookies(2);
    let _listener = TcpListener::bind(("192.0.2.1", PORT)).unwrap();
    let syn = over_v4(&tcp(7, SYN, OPTIONS[0], b""));
    let answered = (0..10).filter(|_| program.try_on(&syn, 1).unwrap().answer.is_some()).count();
    assert_eq!(answered, 3);
    assert!(program.try_on(&syn, 1).unwrap().dropped);
    settings.flags &= !(COOKIES | RATES);
    program.tell(&settings).unwrap();
    assert_eq!(program.try_on(&syn, 1).unwrap().answer, None, "it is not told to");
}
