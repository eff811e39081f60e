//! The contract of `UdpSocket`, told as scenarios that every driver has to pass: the real ones on loopback, the simulation over
//! many seeds with every fault that loses nothing.

mod refused;

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::driver::pretended;
use crate::sim::{self, Faults, World};
use crate::{DriverChoice, Options, Ring, SpinPolicy};

/// Seeds of each scenario in the simulation.
const SEEDS: u64 = 100;

/// A received batch, kept.
#[derive(Clone, Debug)]
struct Got {
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: u8,
    stride: usize,
    bytes: Vec<u8>,
}

impl Got {
    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.stride).chain(self.bytes.is_empty().then_some(&[][..]))
    }
}

async fn receive_some(socket: &UdpSocket) -> Vec<Got> {
    let mut all = Vec::new();
    let mut take = |Received { from, to, ecn, stride, bytes }: Received<'_>| {
        all.push(Got { from, to, ecn, stride, bytes: bytes.to_vec() });
    };
    let handed = poll_fn(|cx| socket.poll_receive(cx, &mut take)).await.unwrap();
    assert_eq!(handed, all.len());
    all
}

/// Receives until `count` datagrams have come.
async fn receive(socket: &UdpSocket, count: usize) -> Vec<Got> {
    let mut all: Vec<Got> = Vec::new();
    while all.iter().flat_map(Got::datagrams).count() < count {
        all.extend(receive_some(socket).await);
    }
    assert_eq!(all.iter().flat_map(Got::datagrams).count(), count);
    all
}

async fn receive_one(socket: &UdpSocket) -> Got {
    receive(socket, 1).await.remove(0)
}

fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind(address.parse().unwrap(), &UdpOptions { reuse_port: false, ..UdpOptions::default() }).unwrap()
}

fn to(to: SocketAddr, bytes: &[u8]) -> Transmit<'_> {
    Transmit { to, from: None, ecn: 0, segment: None, bytes }
}

/// Sends all of it, waiting for room.
async fn send(socket: &UdpSocket, transmit: Transmit<'_>) {
    while socket.send(&transmit) == Sent::Full {
        poll_fn(|cx| socket.poll_room(cx)).await;
    }
}

/// Waits until `count` sockets are left, and the others closed.
async fn until_open(count: usize) {
    while crate::counts().udp_sockets > count {
        crate::sleep(Duration::from_millis(1)).await;
    }
    // What has come to rest is closed at the end of the round.
    crate::yield_now().await;
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
}

async fn echoes() {
    let (near, far) = (bind("0.0.0.0:0"), bind("127.0.0.1:0"));
    let address = far.local().unwrap();
    for round in 0..200_usize {
        send(&near, to(address, &pattern(round * 7))).await;
        let got = receive_one(&far).await;
        assert_eq!((got.from.port(), got.to), (near.local().unwrap().port(), Some(address.ip())));
        assert_eq!(got.bytes, pattern(round * 7));
        send(&far, to(got.from, &got.bytes)).await;
        let back = receive_one(&near).await;
        assert_eq!((back.from, back.bytes), (address, pattern(round * 7)));
    }
    assert_eq!((near.counts().sent, near.counts().received), (200, 200));
}

/// Twenty datagrams of 1,200 bytes in one send, the last one shorter now and then.
async fn segments_stay_segments() {
    let (near, far) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    for len in [20 * 1_200, 19 * 1_200 + 500, 1_201, 1_200, 300] {
        let sent = pattern(len);
        let transmit = Transmit { segment: Some(1_200), ..to(far.local().unwrap(), &sent) };
        send(&near, transmit).await;
        let got = receive(&far, len.div_ceil(1_200)).await;
        let sizes: Vec<usize> = got.iter().flat_map(Got::datagrams).map(<[u8]>::len).collect();
        assert_eq!(sizes, sent.chunks(1_200).map(<[u8]>::len).collect::<Vec<_>>());
        assert!(got.iter().flat_map(|got| got.bytes.clone()).eq(sent));
    }
}

/// More than one send can carry, by number and by sum, is cut here.
async fn batches_are_bounded_by_bytes_and_number() {
    let (near, far) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    for (segment, count) in [(1_472, 100), (100, 300), (9_000, 20), (65_507, 2)] {
        let sent = pattern(segment * count);
        let transmit = Transmit { segment: Some(segment), ..to(far.local().unwrap(), &sent) };
        send(&near, transmit).await;
        let got = receive(&far, count).await;
        assert!(got.iter().flat_map(Got::datagrams).all(|datagram| datagram.len() == segment));
        assert!(got.iter().flat_map(|got| got.bytes.clone()).eq(sent));
    }
    assert_eq!(near.counts().failed + near.counts().too_large, 0);
}

async fn ecn_is_carried() {
    let far = bind("[::]:0");
    let port = far.local().unwrap().port();
    for near in [bind("127.0.0.1:0"), bind("[::1]:0"), bind("[::]:0")] {
        for target in ["127.0.0.1", "::1"] {
            let target = SocketAddr::new(target.parse().unwrap(), port);
            let local = near.local().unwrap().ip();
            if !local.is_unspecified() && local.is_ipv4() != target.is_ipv4() {
                continue;
            }
            for ecn in 0..4 {
                send(&near, Transmit { ecn, ..to(target, b"ecn") }).await;
                assert_eq!(receive_one(&far).await.ecn, ecn, "{near:?} to {target}");
            }
        }
    }
}

/// A wildcard socket tells where a datagram was sent to, and answers from there.
async fn destinations_are_told_and_sources_chosen() {
    for (wildcard, targets) in [("0.0.0.0:0", &["127.0.0.1", "127.0.0.2"][..]), ("[::]:0", &["::1", "127.0.0.2"])] {
        let far = bind(wildcard);
        for target in targets {
            let target = SocketAddr::new(target.parse().unwrap(), far.local().unwrap().port());
            let near = bind(if target.is_ipv4() { "127.0.0.9:0" } else { "[::1]:0" });
            send(&near, to(target, b"who is there?")).await;
            let got = receive_one(&far).await;
            assert_eq!((got.from, got.to), (near.local().unwrap(), Some(target.ip())));
            send(&far, Transmit { from: got.to, ..to(got.from, b"I") }).await;
            assert_eq!(receive_one(&near).await.from, target);
        }
    }
}

async fn ten_thousand_are_counted() {
    let (near, far) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let address = far.local().unwrap();
    let mut seen = Vec::new();
    for round in 0..100_u32 {
        for number in 0..100 {
            send(&near, to(address, &(round * 100 + number).to_be_bytes())).await;
        }
        let got = receive(&far, 100).await;
        let numbers = got.iter().flat_map(Got::datagrams).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
        seen.extend(numbers);
    }
    assert!(seen.into_iter().eq(0..10_000));
    assert_eq!((near.counts().sent, far.counts().received), (10_000, 10_000));
}

/// What a full receive buffer drops is counted, and what comes later arrives.
async fn overload_recovers() {
    let small = UdpOptions { reuse_port: false, receive_buffer: 8 << 10, ..UdpOptions::default() };
    let (near, far) = (bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &small).unwrap());
    for _ in 0..3 {
        let before = far.counts();
        for _ in 0..1_000 {
            send(&near, to(far.local().unwrap(), &[7; 1_000])).await;
        }
        crate::sleep(Duration::from_millis(60)).await;
        let mut got = 0;
        while crate::until(crate::now() + Duration::from_millis(60), async { got += receive_some(&far).await.len() })
            .await
            .is_some()
        {}
        assert!((1..1_000).contains(&got), "{got}");
        // Drops are told with the next datagram.
        send(&near, to(far.local().unwrap(), b"late")).await;
        assert_eq!(receive_one(&far).await.bytes, b"late");
        let dropped = far.counts().overflowed - before.overflowed;
        assert!(dropped > 0 && dropped <= 1_000, "{dropped}");
    }
}

async fn dropped_while_waiting() {
    let near = bind("127.0.0.1:0");
    for _ in 0..20 {
        let far = Rc::new(bind("127.0.0.1:0"));
        let address = far.local().unwrap();
        let waiting = far.clone();
        let waiter = crate::spawn(async move {
            crate::until(crate::now() + Duration::from_millis(3), receive_some(&waiting)).await;
        });
        crate::yield_now().await;
        drop(far);
        send(&near, to(address, b"too late or not")).await;
        while crate::is_alive(waiter) {
            crate::sleep(Duration::from_millis(1)).await;
        }
        until_open(1).await;
        // The port is free again.
        drop(bind(&address.to_string()));
    }
}

/// ICMP's "nobody there" reaches no one here.
async fn nobody_there_is_no_error() {
    let (near, far) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let gone = bind("127.0.0.1:0").local().unwrap();
    until_open(2).await;
    for _ in 0..10 {
        send(&near, to(gone, b"hello?")).await;
        send(&near, to(far.local().unwrap(), b"hello!")).await;
        send(&far, to(near.local().unwrap(), &receive_one(&far).await.bytes)).await;
        assert_eq!(receive_one(&near).await.bytes, b"hello!");
    }
}

/// Who asks for it is told where nobody is, once for each datagram, however many there are, and goes on undisturbed.
#[test]
fn where_nobody_listens_is_told_to_who_asks() {
    for (any, host) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0"), ("[::]:0", "127.0.0.1:0")] {
        on_both(async move || {
            let options = UdpOptions { reuse_port: false, refusals: true, ..UdpOptions::default() };
            let near = UdpSocket::bind(any.parse().unwrap(), &options).unwrap();
            let (far, nobody) = (bind(host), bind(host).local().unwrap());
            until_open(2).await;
            for count in [1, 5, 200] {
                for _ in 0..count {
                    send(&near, to(nobody, b"hello?")).await;
                }
                let mut told = Vec::new();
                while told.len() < count {
                    let nothing = crate::until(crate::now() + Duration::from_millis(20), receive_some(&near)).await;
                    assert!(nothing.is_none());
                    near.take_refused(&mut |destination| told.push(destination));
                }
                assert!(told.iter().all(|destination| *destination == nobody), "{told:?}");
                send(&near, to(far.local().unwrap(), b"hello!")).await;
                assert_eq!(receive_one(&far).await.bytes, b"hello!");
            }
            assert_eq!(near.counts().failed, 0);
        });
    }
}

/// Several tasks send on the socket that one receives on, and the receiver answers from inside of the call.
async fn one_receives_and_several_send() {
    let (near, far) = (Rc::new(bind("127.0.0.1:0")), Rc::new(bind("127.0.0.1:0")));
    let address = far.local().unwrap();
    for task in 0..10_u8 {
        let near = near.clone();
        crate::spawn(async move {
            for round in 0..20 {
                send(&near, to(address, &[task, round])).await;
                crate::yield_now().await;
            }
        });
    }
    let answering = far.clone();
    crate::spawn(async move {
        loop {
            let mut full = Vec::new();
            poll_fn(|cx| {
                answering.poll_receive(cx, &mut |got| {
                    for datagram in got.bytes.chunks(got.stride) {
                        if answering.send(&to(got.from, datagram)) == Sent::Full {
                            full.push((got.from, datagram.to_vec()));
                        }
                    }
                })
            })
            .await
            .unwrap();
            for (from, datagram) in full {
                send(&answering, to(from, &datagram)).await;
            }
        }
    });
    let got = receive(&near, 200).await;
    let mut all: Vec<&[u8]> = got.iter().flat_map(Got::datagrams).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 200);
}

/// Datagrams of one sender go to one of the sockets that share a port; each arrives once.
async fn sharing_a_port() {
    let options = UdpOptions::default();
    let first = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let address = first.local().unwrap();
    let second = UdpSocket::bind(address, &options).unwrap();
    assert!(UdpSocket::bind(address, &UdpOptions { reuse_port: false, ..options }).is_err());
    let senders: Vec<UdpSocket> = (0..40).map(|_| bind("127.0.0.1:0")).collect();
    for near in &senders {
        send(near, to(address, b"once")).await;
        send(near, to(address, b"once")).await;
    }
    let mut froms = Vec::new();
    for socket in [&first, &second] {
        while let Some(got) = crate::until(crate::now() + Duration::from_millis(100), receive_some(socket)).await {
            froms.extend(got.iter().flat_map(|got| got.datagrams().map(|_| (got.from, socket.index))));
        }
    }
    assert_eq!(froms.len(), 80);
    froms.sort();
    froms.dedup();
    assert_eq!(froms.len(), 40, "a sender's datagrams went to two sockets");
    assert!(first.counts().received > 0 && second.counts().received > 0);
}

macro_rules! scenarios {
    ($($scenario:ident)*) => {
        mod on_epoll {
            $(#[test] fn $scenario() { super::real(super::DriverChoice::Epoll, super::$scenario); })*
        }
        mod on_uring {
            $(#[test] fn $scenario() { super::real(super::DriverChoice::Uring, super::$scenario); })*
        }
        mod on_sim {
            $(#[test] fn $scenario() { super::simulated(stringify!($scenario), super::$scenario); })*
        }
    };
}

scenarios! {
    echoes
    segments_stay_segments
    batches_are_bounded_by_bytes_and_number
    ecn_is_carried
    destinations_are_told_and_sources_chosen
    ten_thousand_are_counted
    overload_recovers
    dropped_while_waiting
    nobody_there_is_no_error
    one_receives_and_several_send
    sharing_a_port
}

fn real(driver: DriverChoice, scenario: impl AsyncFn() + 'static) {
    let Ok(ring) = Ring::new(Options { driver: driver.clone(), spin: SpinPolicy::Off }) else {
        return eprintln!("{driver:?} refused: not tested");
    };
    let done = ring.block_on(async move { crate::until(crate::now() + Duration::from_secs(30), scenario()).await });
    assert!(done.is_some(), "{driver:?} hangs");
}

fn on_both(scenario: impl AsyncFn() + Copy + 'static) {
    real(DriverChoice::Uring, scenario);
    real(DriverChoice::Epoll, scenario);
}

/// Every fault that neither loses nor doubles nor reorders.
fn simulated(name: &str, scenario: impl AsyncFn() + Copy + Sync + 'static) {
    sim::check(&format!("net::udp::tests::on_sim::{name}"), SEEDS, |seed| {
        let seeded = if seed == 0 { Faults::none() } else { Faults::from_seed(seed).harmless() };
        let orderly = Faults { datagram_loss: 0.0, datagram_duplicate: 0.0, datagram_reorder: 0.0, ..seeded };
        in_world(&World::new(seed, orderly), async move { scenario().await })
    });
}

fn in_world(world: &World, scenario: impl Future<Output = ()> + 'static) -> Result<(), String> {
    let driver = DriverChoice::Sim(world.node());
    let ring = Ring::new(Options { driver, spin: SpinPolicy::Off }).unwrap();
    ring.block_on(scenario);
    drop(ring);
    world.verdict()
}

// --- what loopback does not do by itself --------------------------------------------------------------------------------

#[test]
fn a_full_kernel_is_waited_for_in_order() {
    on_both(async || {
        let (near, far) = (Rc::new(bind("127.0.0.1:0")), bind("127.0.0.1:0"));
        let address = far.local().unwrap();
        pretended::fail(u32::MAX, libc::EAGAIN);
        let mut taken = 0_u16;
        loop {
            let bytes = [taken.to_be_bytes(); 600].concat();
            match near.send(&Transmit { segment: Some(600), ..to(address, &bytes) }) {
                Sent::Queued => taken += 1,
                Sent::Full => break,
                Sent::Done => panic!("nothing can have left"),
            }
        }
        assert!((32..=64).contains(&taken), "{taken}");
        let roomy = near.clone();
        let waiter = crate::spawn(async move { poll_fn(|cx| roomy.poll_room(cx)).await });
        crate::sleep(Duration::from_millis(20)).await;
        assert!(crate::is_alive(waiter), "there was no room");
        assert_eq!(near.counts().sent, 0);
        pretended::fail(0, 0);
        let got = receive(&far, usize::from(taken) * 2).await;
        let numbers = got.iter().flat_map(Got::datagrams).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        assert!(numbers.eq((0..taken).flat_map(|number| [number, number])));
        assert!(!crate::is_alive(waiter));
        assert_eq!(near.send(&to(address, b"at once")), Sent::Done);
        assert_eq!(near.counts().queued, u64::from(taken));
    });
}

/// Dropped with sends that wait for room: nothing is in flight on memory, and the socket closes.
#[test]
fn dropped_with_sends_that_wait() {
    on_both(async || {
        let near = bind("127.0.0.1:0");
        pretended::fail(u32::MAX, libc::EAGAIN);
        assert_eq!(near.send(&to(near.local().unwrap(), b"never")), Sent::Queued);
        crate::yield_now().await;
        drop(near);
        until_open(0).await;
        pretended::fail(0, 0);
    });
}

/// A program of classic BPF sends each datagram to the socket whose number is its first byte.
#[test]
fn a_program_chooses_the_socket() {
    use crate::{FilterInstruction, attach_reuseport_filter};
    let step = |code, operand| FilterInstruction { code, jump_true: 0, jump_false: 0, operand };
    let load_first_byte = step((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0);
    let program = [load_first_byte, step((libc::BPF_RET | libc::BPF_A) as u16, 0)];
    on_both(async move || {
        let options = UdpOptions::default();
        let mut address = "127.0.0.1:0".parse().unwrap();
        let sockets = [(); 3].map(|()| {
            let socket = UdpSocket::bind(address, &options).unwrap();
            address = socket.local().unwrap();
            socket
        });
        assert!(attach_reuseport_filter(sockets[0].descriptor().unwrap(), &[]).is_err());
        attach_reuseport_filter(sockets[0].descriptor().unwrap(), &program).unwrap();
        let near = bind("127.0.0.1:0");
        for number in [2_u8, 0, 1, 1, 2] {
            send(&near, to(sockets[0].local().unwrap(), &[number, 7])).await;
            assert_eq!(receive_one(&sockets[usize::from(number)]).await.bytes, [number, 7]);
        }
    });
}

#[test]
fn what_was_granted_is_told() {
    on_both(async || {
        let socket = UdpSocket::bind("[::]:0".parse().unwrap(), &UdpOptions::default()).unwrap();
        let granted = socket.granted();
        let told = |name: &str| granted.missing.iter().any(|line| line.starts_with(name));
        assert!(granted.receive_buffer >= 4 << 20 || told("receive buffer"));
        assert!(granted.gro || told("UDP_GRO"));
        assert!(granted.gso_segments == 64 || told("UDP_SEGMENT"));
        assert!(socket.descriptor().is_some());
    });
}

// --- what only a bad network does ---------------------------------------------------------------------------------------

#[test]
fn a_bad_network_loses_doubles_and_reorders_as_often_as_it_is_told_to() {
    let faults = Faults { datagram_loss: 0.1, datagram_duplicate: 0.05, datagram_reorder: 0.2, ..Faults::none() };
    let world = World::new(7, faults);
    let verdict = in_world(&world, async {
        let (near, far) = (bind("10.0.0.1:1000"), bind("10.0.0.2:2000"));
        for number in 0..10_000_u32 {
            send(&near, to(far.local().unwrap(), &number.to_be_bytes())).await;
            if number % 100 == 0 {
                crate::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut seen = Vec::new();
        while let Some(got) = crate::until(crate::now() + Duration::from_secs(1), receive_some(&far)).await {
            let bytes = got.iter().flat_map(Got::datagrams).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
            seen.extend(bytes);
        }
        let late = seen.windows(2).filter(|pair| pair[0] > pair[1]).count();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert!((8_800..9_200).contains(&seen.len()), "{} of 10,000 arrived", seen.len());
        assert!((350..550).contains(&(all - seen.len())), "{} twice", all - seen.len());
        assert!(late > 500, "{late} out of order");
    });
    assert_eq!(verdict, Ok(()));
}

/// The address that a server knows a client by changes under way; what is sent to the former one is lost.
#[test]
fn a_client_moves_to_another_address() {
    let world = Rc::new(World::new(1, Faults::none()));
    let moving = world.clone();
    let verdict = in_world(&world, async move {
        let (near, far) = (bind("10.0.0.1:1000"), bind("10.0.0.2:2000"));
        send(&near, to(far.local().unwrap(), b"before")).await;
        assert_eq!(receive_one(&far).await.from, near.local().unwrap());
        let outside: SocketAddr = "192.0.2.7:4444".parse().unwrap();
        moving.rebind(near.local().unwrap(), outside);
        send(&near, to(far.local().unwrap(), b"after")).await;
        assert_eq!(receive_one(&far).await.from, outside);
        send(&far, to(near.local().unwrap(), b"to where it was")).await;
        send(&far, to(outside, b"to where it is")).await;
        let got = receive_one(&near).await;
        assert_eq!((got.bytes.as_slice(), got.to), (b"to where it is".as_slice(), Some(near.local().unwrap().ip())));
    });
    assert_eq!(verdict, Ok(()));
}

/// A client outside of the node: what it repeats until it is answered gets through any network.
#[test]
fn a_script_is_answered_over_any_network() {
    sim::check("net::udp::tests::a_script_is_answered_over_any_network", SEEDS, |seed| {
        let world = World::new(seed, Faults::from_seed(seed).harmless());
        let server: SocketAddr = "10.0.0.1:443".parse().unwrap();
        let client = world.spawn("client", move |host| async move {
            let postbox = host.postbox("10.1.0.1:5000".parse().unwrap()).unwrap();
            for number in 0..20_u8 {
                if number == 10 {
                    host.rebind(postbox.address(), "192.0.2.7:4444".parse().unwrap());
                }
                loop {
                    postbox.send(&Transmit { ecn: 0b10, ..to(server, &[number]) }).await.unwrap();
                    let answer = host.within(Duration::from_millis(100), postbox.recv()).await;
                    if answer.is_some_and(|letter| letter.from == server && letter.ecn == 1 && letter.bytes == [number])
                    {
                        break;
                    }
                }
            }
        });
        in_world(&world, async move {
            let socket = Rc::new(bind("0.0.0.0:443"));
            let answering = socket.clone();
            crate::spawn(async move {
                loop {
                    for got in receive_some(&answering).await {
                        assert_eq!((got.ecn, got.to), (0b10, Some(server.ip())));
                        for datagram in got.datagrams() {
                            send(&answering, Transmit { ecn: 1, from: got.to, ..to(got.from, datagram) }).await;
                        }
                    }
                }
            });
            client.await;
        })
    });
}
