//! AF_XDP by itself: the program over made-up packets, and sockets at the ends of a cable within a network namespace.
//!
//! Where there are no namespaces, or the program cannot be loaded, each test says so and proves nothing.

mod granted;
#[allow(dead_code, reason = "others have a use for the rest")]
mod packets;

use std::fs::File;
use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;
use std::task::Poll;
use std::time::Duration;

use abi::afxdp::Settings;
use penstock::afxdp::{Program, Way, headers, read, write};
use penstock::bpf::Interfaces;
use penstock::snapshot::{self, AfXdp, Snapshot, XdpMode};
use ring::{DriverChoice, FRAME_BYTES, FRAMES, Interface, Options, RECEIVED_MAX, Ring, SpinPolicy, Xsk, XskSocket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::granted::granted;
use self::packets::{ipv4, ipv6, udp};

const DOOR_V4: &str = "192.0.2.1:443";
const DOOR_V6: &str = "[2001:db8::1]:443";
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A namespace with a cable from `near0` to `far0` in it; it goes with its owner.
struct Space(String);

impl Space {
    /// Moves the calling thread into it; `None` where that is not allowed.
    fn enter(name: &str) -> Option<Self> {
        let space = Self(format!("penstock-afxdp-{}-{name}", std::process::id()));
        if !ip(&["netns", "add", &space.0]) {
            println!("SKIPPED: network namespaces need root and `ip`");
            return None;
        }
        space.ip("link add near0 type veth peer name far0");
        space.ip("link set near0 address 02:00:00:00:00:01 up");
        space.ip("link set far0 address 02:00:00:00:00:02 up");
        let file = File::open(format!("/run/netns/{}", space.0)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        Some(space)
    }

    fn ip(&self, words: &str) {
        let words: Vec<_> = ["-n", &self.0].into_iter().chain(words.split(' ')).collect();
        assert!(ip(&words), "{words:?}");
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

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A socket on `near0`, and a program with a door of either family that gives it what comes there.
fn near() -> Option<(Program, Xsk)> {
    let interface = Interface::named("near0").unwrap();
    assert_eq!((interface.address, interface.mtu, interface.queues), (OURS, 1_500, 1));
    let mut program = granted(Program::load(1))?;
    program.tell(Settings { address: OURS, frame_max: RECEIVED_MAX as u32 }).unwrap();
    program.open(address(DOOR_V4)).unwrap();
    program.open(address(DOOR_V6)).unwrap();
    let socket = Xsk::open(&interface, 0).unwrap();
    assert!(!socket.is_zero_copy(), "no veth is");
    assert!(Xsk::open(&interface, 1).is_err());
    program.seat(0, &socket).unwrap();
    Some((program, socket))
}

fn frame(to: [u8; 6], kind: u16, packet: &[u8]) -> Vec<u8> {
    [&to[..], &[2, 0, 0, 0, 0, 2], &kind.to_be_bytes(), packet].concat()
}

fn v4(to: Ipv4Addr, port: u16, fragment: u16, options: &[u8], octets: usize) -> Vec<u8> {
    ipv4(Ipv4Addr::new(192, 0, 2, 9), to, 17, fragment, options, &udp(50_000, port, &vec![7; octets]))
}

/// What is understood of a configuration with these lines, if it is taken, and what an operator is told of it.
fn configured(more: &str, with_http3: bool) -> (Option<Snapshot>, String) {
    let tls = if with_http3 { "tls = { cert = \"site.pem\", key = \"site.key\" }" } else { "" };
    let text = format!(
        "{more}\n[[listen]]\nname = \"web\"\naddr = \":443\"\n{tls}\n[[pool]]\nname = \"api\"\nendpoints = [\"a:1\"]\n\
         [[route]]\npool = \"api\"\n"
    );
    match snapshot::read_with("edge.toml", &text, &|_| Ok(Vec::new())) {
        Ok(compiled) => (Some(compiled.snapshot), compiled.report.render()),
        Err(report) => (None, report.render()),
    }
}

#[test]
fn what_cannot_work_is_told_with_advice() {
    let on = "[engine]\naf_xdp = { interface = \"eth0\" }";
    for (more, with_http3, message, advice) in [
        ("[engine]\naf_xdp = { mode = \"native\" }", true, "AF_XDP stands nowhere", "interface = \"eth0\""),
        ("[engine]\naf_xdp = { interface = \"a/b\" }", true, "`a/b` is no interface's name", "`ip link`"),
        (on, false, "no listener is of `udp` or has HTTP/3", "`tls`"),
        (
            "[engine]\naf_xdp = { interface = \"eth0\", mode = \"native\" }\n[shield]\ninterfaces = [\"eth1\", \"eth0\"]\nmode = \"generic\"",
            true,
            "`eth0` has [shield] in another mode",
            "write the mode that [shield] has",
        ),
        (
            "[engine]\naf_xdp = { interface = \"eth0\", mode = \"native\" }\n[decap]\ninterfaces = [\"eth0\"]\nmode = \"generic\"\naddresses = [\"192.0.2.1\"]",
            true,
            "[decap] in another mode",
            "write the mode that [decap] has",
        ),
    ] {
        let (_, told) = configured(more, with_http3);
        assert!(told.contains(message) && told.contains(advice), "{more}: {told}");
    }
    let flows = "[[listen]]\nname = \"dns\"\naddr = \":53\"\nprotocol = \"udp\"\npool = \"api\"";
    assert_eq!(configured(&format!("{on}\n{flows}"), false).1, "", "flows are reason enough");
    let asked = |more| configured(more, true).0.expect("it is taken").engine.af_xdp;
    let AfXdp { interface, mode } = asked(on).expect("it is asked for");
    assert_eq!((&*interface, mode), ("eth0", XdpMode::Auto));
    assert_eq!(asked(""), None);
    let beside = format!("{on}\n[shield]\ninterfaces = [\"eth0\"]\nmode = \"generic\"");
    let (snapshot, told) = configured(&beside, true);
    assert_eq!(told, "", "it stands behind the shield");
    let snapshot = snapshot.expect("it is taken");
    assert_eq!((snapshot.xdp_mode("eth0"), snapshot.xdp_mode("eth1")), (XdpMode::Generic, XdpMode::Auto));
}

#[test]
fn only_whole_datagrams_to_doors_are_taken() {
    let Some(_space) = Space::enter("program") else { return };
    let Some((mut program, _socket)) = near() else { return };
    let door = Ipv4Addr::new(192, 0, 2, 1);
    let door_v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let client: Ipv6Addr = "2001:db8::9".parse().unwrap();
    let v6 = |to: Ipv6Addr, next: u8, rest: &[u8]| frame(OURS, 0x86dd, &ipv6(client, to, next, rest));
    let datagram = udp(50_000, 443, &[7; 100]);
    let mut short = frame(OURS, 0x0800, &v4(door, 443, 0, &[], 100));
    short.pop();
    let mut long = v4(door, 443, 0, &[], 100);
    // UDP says that it is longer than IP does.
    long[25] += 1;
    let mut old = v4(door, 443, 0, &[], 100);
    old[0] = 0x55;
    let most = RECEIVED_MAX - headers(door.into());
    let cases = [
        ("taken", frame(OURS, 0x0800, &v4(door, 443, 0, &[], 100))),
        ("taken", frame(OURS, 0x0800, &v4(door, 443, 0x4000, &[], most))),
        ("taken", frame(OURS, 0x0800, &[v4(door, 443, 0, &[], 1), vec![0; 17]].concat())),
        ("taken", v6(door_v6, 17, &datagram)),
        ("other", frame(OURS, 0x0800, &v4(door, 444, 0, &[], 100))),
        ("other", frame(OURS, 0x0800, &v4(Ipv4Addr::new(192, 0, 2, 2), 443, 0, &[], 100))),
        ("other", v6("2001:db8::2".parse().unwrap(), 17, &datagram)),
        // To another machine, to all, tagged, TCP, and a door's own packet within another's.
        ("other", frame([2, 0, 0, 0, 0, 3], 0x0800, &v4(door, 443, 0, &[], 100))),
        ("other", frame([255; 6], 0x0800, &v4(door, 443, 0, &[], 100))),
        ("other", frame(OURS, 0x8100, &[&[0, 7, 8, 0][..], &v4(door, 443, 0, &[], 100)].concat())),
        ("other", frame(OURS, 0x0800, &ipv4(Ipv4Addr::new(192, 0, 2, 9), door, 6, 0, &[], &datagram))),
        ("other", frame(OURS, 0x0806, &[0; 28])),
        ("fragment", frame(OURS, 0x0800, &v4(door, 443, 0x2000, &[], 100))),
        ("fragment", frame(OURS, 0x0800, &v4(door, 443, 0x0001, &[], 100))),
        ("fragment", v6(door_v6, 44, &[&[17, 0, 0, 1, 0, 0, 0, 1][..], &datagram].concat())),
        ("options", frame(OURS, 0x0800, &v4(door, 443, 0, &[1; 4], 100))),
        ("options", v6(door_v6, 60, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &datagram].concat())),
        ("too_long", frame(OURS, 0x0800, &v4(door, 443, 0, &[], most + 1))),
        ("malformed", short),
        ("malformed", frame(OURS, 0x0800, &long)),
        ("malformed", frame(OURS, 0x0800, &old)),
        ("malformed", frame(OURS, 0x0800, &v4(door, 443, 0, &[], 0)[..26])),
    ];
    for (number, (wanted, packet)) in cases.iter().enumerate() {
        let before = program.counts();
        assert_eq!(program.try_on(packet).unwrap(), *wanted == "taken", "{number}: {wanted}");
        let grown: Vec<_> = before.iter().zip(program.counts()).filter(|(before, after)| before.1 != after.1).collect();
        assert_eq!(grown.iter().map(|(before, _)| before.0).collect::<Vec<_>>(), [*wanted], "{number}");
    }
    let taken = frame(OURS, 0x0800, &v4(door, 443, 0, &[], 100));
    for length in 14..taken.len() {
        assert!(!program.try_on(&taken[..length]).unwrap(), "{length}");
    }
    // A door that is closed, and a queue without a socket.
    program.close(address(DOOR_V4)).unwrap();
    assert!(!program.try_on(&taken).unwrap());
    program.open(address(DOOR_V4)).unwrap();
    assert!(program.try_on(&taken).unwrap());
    let mut without = Program::load(1).unwrap();
    without.tell(Settings { address: OURS, frame_max: RECEIVED_MAX as u32 }).unwrap();
    without.open(address(DOOR_V4)).unwrap();
    assert!(!without.try_on(&taken).unwrap());
    assert_eq!(without.counts().iter().find(|count| count.0 == "no_socket").unwrap().1, 1);
}

/// Sends everything back that comes to the near end, until `wanted` have come to the far one; how many have.
async fn echoes(near: XskSocket, far: XskSocket, door: SocketAddr, wanted: usize, bytes: usize) -> usize {
    let client = address(if door.is_ipv4() { "192.0.2.9:5" } else { "[2001:db8::9]:5" });
    let way = Way { ours: [2, 0, 0, 0, 0, 2], theirs: OURS };
    let (mut sent, mut back) = (0, 0);
    let mut patience = std::pin::pin!(ring::sleep(Duration::from_secs(20)));
    poll_fn(|cx| {
        // No more at a time than either end has room for.
        while sent < wanted && sent - back < 256 {
            assert!(far.send(1, |_, room| write(room, way, client, door, 2, &vec![sent as u8; bytes])));
            sent += 1;
        }
        while near
            .poll_receive(cx, &mut |frame| {
                let datagram = read(frame).expect("it is good");
                assert_eq!((datagram.from, datagram.to, datagram.ecn), (client, door, 2));
                let (way, answer) = (datagram.way, &*datagram.bytes);
                assert!(near.send(1, |_, room| write(room, way, door, client, 1, answer)));
            })
            .is_ready()
        {}
        while far
            .poll_receive(cx, &mut |frame| {
                let datagram = read(frame).expect("it is good");
                assert_eq!((datagram.from, datagram.to, datagram.ecn), (door, client, 1));
                assert_eq!(datagram.bytes.len(), bytes);
                back += 1;
            })
            .is_ready()
        {}
        if sent < wanted && sent - back < 256 {
            cx.waker().wake_by_ref();
        }
        if back >= wanted || patience.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let counts = (near.counts(), far.counts());
    assert_eq!((counts.0.received, counts.0.sent, counts.1.sent), (wanted as u64, wanted as u64, wanted as u64));
    assert!(counts.1.kicks <= wanted as u64 / 2, "{} kicks for {wanted} frames", counts.1.kicks);
    assert_eq!((counts.0.full, near.lost(), far.lost()), (0, 0, 0));
    back
}

/// There and back, by either family and either driver, many times as many frames as a socket has.
#[test]
fn what_comes_is_sent_back() {
    for (name, driver) in [("uring", DriverChoice::Uring), ("epoll", DriverChoice::Epoll)] {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            for door in [DOOR_V4, DOOR_V6] {
                let Some(_space) = Space::enter(&format!("{name}-{mode:?}-{}", door.len())) else { return };
                let Some((mut program, near)) = near() else { return };
                let on = Interfaces::default();
                let _near = program.stand(&on, "near0", mode).unwrap();
                let mut other = Program::load(1).unwrap();
                other.tell(Settings { address: [2, 0, 0, 0, 0, 2], frame_max: RECEIVED_MAX as u32 }).unwrap();
                other.open(address(if door == DOOR_V4 { "192.0.2.9:5" } else { "[2001:db8::9]:5" })).unwrap();
                let far = Xsk::open(&Interface::named("far0").unwrap(), 0).unwrap();
                other.seat(0, &far).unwrap();
                let _far = other.stand(&on, "far0", mode).unwrap();
                let ring = Ring::new(Options { driver: driver.clone(), spin: SpinPolicy::Off }).unwrap();
                let wanted = 5 * FRAMES as usize;
                let back = ring.block_on(async move {
                    echoes(XskSocket::new(near), XskSocket::new(far), address(door), wanted, 1_200).await
                });
                assert_eq!(back, wanted, "{name} {mode:?} {door}");
            }
        }
    }
}

/// The kernel lets go of a queue some time after its socket was closed: a process that comes after another one waits for that.
#[test]
fn a_queue_is_had_again_at_once() {
    let Some(_space) = Space::enter("again") else { return };
    let Some((program, socket)) = near() else { return };
    let open = || Xsk::open(&Interface::named("near0").unwrap(), 0);
    assert_eq!(open().unwrap_err().kind(), std::io::ErrorKind::ResourceBusy, "somebody has it");
    drop((program, socket));
    for _ in 0..20 {
        open().unwrap();
    }
}

/// Frames that nobody takes away: so many are kept, the next one is refused, and when the device works again all of them leave.
#[test]
fn there_are_only_so_many_frames_to_send() {
    let Some(space) = Space::enter("full") else { return };
    let Some((_program, socket)) = near() else { return };
    space.ip("link set near0 down");
    let ring = Ring::new(Options { driver: DriverChoice::Auto, spin: SpinPolicy::Off }).unwrap();
    ring.block_on(async move {
        let socket = XskSocket::new(socket);
        let fill = |_: usize, room: &mut [u8]| {
            assert_eq!(room.len(), FRAME_BYTES);
            64
        };
        assert!(!socket.send(FRAMES as usize + 1, fill));
        for _ in 0..FRAMES / 8 {
            assert!(socket.send(8, fill));
        }
        assert!(!socket.send(1, fill));
        assert_eq!((socket.counts().sent, socket.counts().full), (u64::from(FRAMES), u64::from(FRAMES) + 2));
        space.ip("link set near0 up");
        let begun = ring::now();
        while !socket.send(FRAMES as usize, fill) {
            assert!(ring::now().since(begun) < Duration::from_secs(10), "they have not left: {:?}", socket.counts());
            ring::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Frames that nobody takes in: so many wait, and what is beyond that is lost and counted; then it goes on.
#[test]
fn there_are_only_so_many_frames_to_receive() {
    let Some(_space) = Space::enter("flood") else { return };
    let Some((mut program, near)) = near() else { return };
    let _near = program.stand(&Interfaces::default(), "near0", XdpMode::Native).unwrap();
    let far = Xsk::open(&Interface::named("far0").unwrap(), 0).unwrap();
    let ring = Ring::new(Options { driver: DriverChoice::Auto, spin: SpinPolicy::Off }).unwrap();
    ring.block_on(async move {
        let (near, far) = (XskSocket::new(near), XskSocket::new(far));
        let way = Way { ours: [2, 0, 0, 0, 0, 2], theirs: OURS };
        let (client, door) = (address("192.0.2.9:5"), address(DOOR_V4));
        let half = FRAMES as usize / 2;
        let begun = ring::now();
        for _ in 0..4 {
            while !far.send(half, |_, room| write(room, way, client, door, 0, b"many")) {
                assert!(ring::now().since(begun) < Duration::from_secs(10));
                ring::yield_now().await;
            }
            ring::yield_now().await;
        }
        while near.lost() == 0 {
            assert!(ring::now().since(begun) < Duration::from_secs(10), "nothing is lost");
            ring::sleep(Duration::from_millis(5)).await;
        }
        ring::sleep(Duration::from_millis(50)).await;
        let mut came = 0;
        let mut take = |_: &mut [u8]| came += 1;
        while poll_fn(|cx| Poll::Ready(near.poll_receive(cx, &mut take).is_ready())).await {}
        assert_eq!(came, u64::from(FRAMES));
        assert_eq!(near.lost(), 4 * half as u64 - came);
        assert!(far.send(1, |_, room| write(room, way, client, door, 0, b"one more")));
        let mut more = 0;
        poll_fn(|cx| near.poll_receive(cx, &mut |_| more += 1)).await;
        assert_eq!(more, 1);
    });
}
