//! The simulation itself: that it repeats itself, that scripts do what they say, and that planted bugs are caught.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::{Appetite, Buf, DriverChoice, Listener, Options, Ring, Stream};

const DOOR: &str = "10.0.0.1:80";

fn address(text: &str) -> Address {
    Address::Inet(text.parse::<SocketAddr>().unwrap())
}

/// A ring on the world's node, and the echo server that runs on it.
fn ring(world: &World) -> Ring {
    Ring::new(Options { driver: DriverChoice::Sim(world.node()), ..Options::default() }).unwrap()
}

async fn echo_for_ever() {
    let mut listener = Listener::bind(&address(DOOR), &ListenOptions::default()).unwrap();
    loop {
        match listener.accept().await {
            Ok(stream) => _ = crate::spawn(echo(stream)),
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => crate::sleep(Duration::from_millis(1)).await,
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED)),
        }
    }
}

/// Changes between both ways to receive, as a proxy does between heads and bodies.
async fn echo(mut stream: Stream) {
    for round in 0_u32.. {
        stream.set_appetite(if round % 3 == 0 { Appetite::Any } else { Appetite::Bulk(1 + round * 97 % 5_000) });
        let Ok(Some(buf)) = stream.recv().await else { break };
        stream.send(buf);
        if stream.sent(4_096).await.is_err() {
            return;
        }
    }
    stream.finish();
    let _ = stream.sent(0).await;
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|index| (index.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 21) as u8).collect()
}

/// Sends some messages in random pieces, each answered before the next; returns whether all came back.
async fn client(host: Host, salt: usize) -> io::Result<()> {
    host.dawdle(Duration::from_millis(5)).await;
    let socket = host.connect(&address(DOOR)).await?;
    for _ in 0..host.pick(1..=5) {
        let message = pattern(host.pick(1..=20_000), salt);
        let reader = socket.clone();
        let (count, other) = (message.len(), message.clone());
        let reading = host.spawn("reader", async move |_| {
            let got = reader.recv_exact(count).await?;
            assert!(got == other, "the echo is something else");
            Ok::<_, io::Error>(())
        });
        let sent = socket.send_split(&host, &message, Duration::from_millis(2)).await;
        reading.await?;
        sent?;
    }
    socket.shutdown_write();
    assert_eq!(socket.recv_to_end().await?, b"");
    Ok(())
}

/// Runs an echo server and four clients; returns how the clients fared.
fn echoes(world: &World) -> Vec<io::Result<()>> {
    let clients: Vec<_> = (0..4).map(|salt| world.spawn("client", move |host| client(host, salt))).collect();
    let ring = ring(world);
    let outcomes = ring.block_on(async move {
        let mut server = Box::pin(echo_for_ever());
        let mut outcomes = Vec::new();
        for mut client in clients {
            let outcome = poll_fn(|cx| {
                let _ = server.as_mut().poll(cx);
                Pin::new(&mut client).poll(cx)
            });
            outcomes.push(outcome.await);
        }
        drop(server);
        // The connections that the clients have left come to their ends.
        crate::sleep(Duration::from_secs(1)).await;
        outcomes
    });
    assert_eq!(ring.block_on(async { crate::counts().panics }), 0);
    outcomes
}

#[test]
fn every_exchange_survives_harmless_faults() {
    check("every_exchange_survives_harmless_faults", 400, |seed| {
        let world = World::new(seed, Faults::from_seed(seed).harmless());
        for outcome in echoes(&world) {
            outcome.map_err(|error| error.to_string())?;
        }
        world.verdict()
    });
}

#[test]
fn harmful_faults_leave_nothing_behind() {
    check("harmful_faults_leave_nothing_behind", 400, |seed| {
        let world = World::new(seed, if seed.is_multiple_of(4) { Faults::wild() } else { Faults::from_seed(seed) });
        echoes(&world);
        world.verdict()
    });
}

/// A ring that is dropped in the middle of everything completes and closes everything.
#[test]
fn a_dropped_ring_leaves_nothing_behind() {
    check("a_dropped_ring_leaves_nothing_behind", 400, |seed| {
        let world = World::new(seed, Faults::from_seed(seed));
        (0..4).for_each(|salt| drop(world.spawn("client", move |host| client(host, salt))));
        let ring = ring(&world);
        ring.block_on(async move {
            crate::spawn(echo_for_ever());
            crate::sleep(Duration::from_millis(seed % 50)).await;
        });
        drop(ring);
        world.verdict()
    });
}

#[test]
fn a_seed_repeats_itself() {
    let run = |seed| {
        std::thread::spawn(move || {
            let world = World::new(seed, Faults::wild());
            echoes(&world);
            (world.now(), world.trace())
        })
        .join()
        .unwrap()
    };
    (0..20).for_each(|seed| assert_eq!(run(seed), run(seed)));
    assert_ne!(run(1), run(2));
}

/// The node dials a script: a request, an answer in pieces after a delay, and a death in the middle of another.
#[test]
fn origins_answer_and_die() {
    check("origins_answer_and_die", 200, |seed| {
        let world = World::new(seed, Faults::from_seed(seed).harmless());
        let listening = world.listen(&address("10.2.0.1:9000")).unwrap();
        let origin = world.spawn("origin", async move |host: Host| {
            let first = listening.accept().await;
            assert_eq!(first.recv_until(b"\n").await.unwrap(), b"ask\n");
            host.dawdle(Duration::from_secs(1)).await;
            first.send_split(&host, b"answer", Duration::from_millis(1)).await.unwrap();
            first.close();
            let second = listening.accept().await;
            second.recv_until(b"\n").await.unwrap();
            second.send(b"ans").await.unwrap();
            host.sleep(Duration::from_millis(500)).await;
            second.reset();
        });
        let ring = ring(&world);
        ring.block_on(async move {
            assert_eq!(ask(&address("10.2.0.1:9000")).await.unwrap(), b"answer");
            let error = ask(&address("10.2.0.1:9000")).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            origin.await;
            let refused = ask(&address("10.2.0.1:9000")).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
        drop(ring);
        world.verdict()
    });
}

async fn ask(origin: &Address) -> io::Result<Vec<u8>> {
    let mut stream = Stream::connect(origin).await?;
    stream.set_appetite(Appetite::Bulk(4));
    stream.send(Buf::copy_of(b"ask\n"));
    let mut all = Vec::new();
    while let Some(buf) = stream.recv().await? {
        all.extend_from_slice(buf.bytes());
    }
    Ok(all)
}

/// The kernel has one error for both directions. Where a send took it, a receive finds an end, and must not be believed before.
#[test]
fn a_break_is_told_before_the_end_that_it_looks_like() {
    check("a_break_is_told_before_the_end_that_it_looks_like", 400, |seed| {
        let world = World::new(seed, Faults { send_late: 1.0, ..Faults::from_seed(seed).harmless() });
        let listening = world.listen(&address("10.2.0.1:9000")).unwrap();
        let origin = world.spawn("origin", async move |host: Host| {
            let socket = listening.accept().await;
            socket.recv(1).await.unwrap();
            socket.send(b"part of an answer").await.unwrap();
            host.dawdle(Duration::from_millis(5)).await;
            socket.reset();
        });
        let ring = ring(&world);
        let end = ring.block_on(async move {
            let mut stream = Stream::connect(&address("10.2.0.1:9000")).await.unwrap();
            stream.send(Buf::copy_of(b"ask"));
            while let Some(buf) = stream.recv().await? {
                drop(buf);
                crate::sleep(Duration::from_micros(seed * 97 % 6_000)).await;
                stream.send(Buf::copy_of(b"and more"));
            }
            io::Result::Ok(())
        });
        assert!(end.is_err() && origin.is_done(), "a break passes for an end");
        drop(ring);
        world.verdict()
    });
}

#[test]
fn flow_control_stops_a_sender_and_time_limits_work() {
    let world = World::new(7, Faults { buffer: (1_000, 1_000), ..Faults::none() });
    let server = world.spawn("never reads", async |host: Host| {
        let listening = host.listen(&address("10.2.0.1:1")).unwrap();
        let socket = listening.accept().await;
        host.sleep(Duration::from_secs(10)).await;
        assert_eq!(socket.recv(usize::MAX).await.unwrap().len(), 1_000);
    });
    let client = world.spawn("client", async |host: Host| {
        host.sleep(Duration::from_millis(1)).await;
        let socket = host.connect(&address("10.2.0.1:1")).await.unwrap();
        assert_eq!(socket.try_send(&[1; 700]).unwrap(), 700);
        assert!(host.within(Duration::from_secs(1), socket.send(&[1; 700])).await.is_none());
        assert!(host.now() > 1_000_000_000);
        // The server reads 1,000 bytes and goes away.
        let outcome = host.within(Duration::from_secs(60), socket.recv_to_end()).await;
        assert_eq!(outcome.unwrap().unwrap(), b"");
    });
    world.run_for(Duration::from_secs(20));
    assert!(server.is_done() && client.is_done());
    assert_eq!(world.running_scripts(), 0);
}

#[test]
fn a_close_with_unread_bytes_resets() {
    let world = World::new(7, Faults::none());
    let server = world.spawn("server", async |host: Host| {
        let socket = host.listen(&address("10.2.0.1:1")).unwrap().accept().await;
        host.sleep(Duration::from_millis(1)).await;
        socket.close();
    });
    let client = world.spawn("client", async |host: Host| {
        let socket = host.connect(&address("10.2.0.1:1")).await.unwrap();
        socket.send(b"nobody reads this").await.unwrap();
        let error = socket.recv(1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(socket.send(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
    world.run_for(Duration::from_secs(1));
    assert!(server.is_done() && client.is_done());
}

#[test]
fn a_world_in_which_nothing_will_happen_says_who_waits() {
    let world = World::new(7, Faults::none());
    let _script = world.spawn("the one who waits", async |host: Host| {
        host.listen(&address("10.2.0.1:1")).unwrap().accept().await;
    });
    let ring = ring(&world);
    let stuck = catch_unwind(AssertUnwindSafe(|| ring.block_on(std::future::pending::<()>())));
    let text = *stuck.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("the one who waits"), "{text}");
}

#[test]
fn a_run_that_does_not_end_is_ended() {
    let world = World::new(7, Faults::none());
    world.limit(Duration::from_secs(60));
    let ring = ring(&world);
    let endless = catch_unwind(AssertUnwindSafe(|| {
        ring.block_on(async {
            loop {
                crate::sleep(Duration::from_secs(1)).await;
            }
        });
    }));
    let text = *endless.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("does not end"), "{text}");
}

#[test]
fn a_failure_says_how_to_replay_it() {
    let failing = |seed| {
        let world = World::new(seed, Faults::none());
        world.note("about to fail");
        if seed == 3 { Err("as planned".to_owned()) } else { Ok(()) }
    };
    let failure = catch_unwind(|| check("some_test", 10, failing)).unwrap_err();
    let text = *failure.downcast::<String>().unwrap();
    for part in ["seed 3: as planned", "about to fail", &replay_hint("some_test", 3)] {
        assert!(text.contains(part), "{text}");
    }
    let panicking = catch_unwind(|| check("some_test", 10, |seed| panic!("no {seed}"))).unwrap_err();
    let text = *panicking.downcast::<String>().unwrap();
    assert!(text.contains("panicked: no 0") && text.contains(&replay_hint("some_test", 0)), "{text}");
}

/// A node on its own driver, connected to a script: for owners that break their promise.
struct Culprit {
    world: Rc<World>,
    sim: Sim,
    fd: Fd,
    results: Vec<(Token, i32)>,
}

impl Culprit {
    fn new(faults: Faults, script: impl AsyncFnOnce(Host, Socket) + 'static) -> Self {
        let world = Rc::new(World::new(1, faults));
        drop(world.spawn("other end", async move |host: Host| {
            let listening = host.listen(&address("10.2.0.1:1")).unwrap();
            let socket = listening.accept().await;
            script(host, socket).await;
        }));
        world.run_for(Duration::from_millis(100));
        let sim = Sim::new(world.node());
        let to = address("10.2.0.1:1");
        let fd = sim.socket(&to).unwrap();
        let (storage, len) = to.to_storage().unwrap();
        let mut culprit = Self { world, sim, fd, results: Vec::new() };
        culprit.sim.submit(1, Request::Connect { fd, addr: &raw const storage, len });
        assert_eq!(culprit.result(1), 0);
        culprit
    }

    fn turn(&mut self) {
        let results = &mut self.results;
        let wait = Wait::AtMost(Duration::from_secs(1));
        self.sim.turn(wait, |completion| results.push((completion.token, completion.result))).unwrap();
    }

    fn result(&mut self, token: Token) -> i32 {
        for _ in 0..1_000 {
            if let Some(found) = self.results.iter().find(|(other, _)| *other == token) {
                return found.1;
            }
            self.turn();
        }
        panic!("no completion of {token}");
    }

    fn accused_of(&self, what: &str) {
        let violations = self.world.violations();
        assert!(violations.iter().any(|violation| violation.contains(what)), "{what}: {violations:?}");
    }
}

#[test]
fn closing_with_an_operation_in_flight_is_a_violation() {
    let mut culprit = Culprit::new(Faults::none(), async |_, socket| drop(socket.recv_to_end().await));
    let mut memory = [0; 8];
    culprit.sim.submit(2, Request::Recv { fd: culprit.fd, ptr: memory.as_mut_ptr(), len: 8 });
    culprit.sim.close(culprit.fd, false);
    culprit.result(2);
    culprit.accused_of("close of 10000 with Recv");
    culprit.sim.close(culprit.fd, false);
    culprit.accused_of("close of 10000, which is not open");
    culprit.sim.submit(3, Request::RecvMulti { fd: culprit.fd });
    assert_eq!(culprit.result(3), -libc::EBADF);
    culprit.accused_of("10000 is not open");
}

#[test]
fn a_second_receive_beside_the_first_is_a_violation() {
    let mut culprit = Culprit::new(Faults::none(), async |_, socket| drop(socket.recv_to_end().await));
    culprit.sim.submit(2, Request::RecvMulti { fd: culprit.fd });
    culprit.turn();
    culprit.sim.submit(3, Request::RecvMulti { fd: culprit.fd });
    culprit.accused_of("RecvMulti { fd: 10000 } submitted while");
    culprit.sim.submit(3, Request::RecvMulti { fd: culprit.fd });
    culprit.accused_of("token 0x3 is in flight already");
}

#[test]
fn what_is_left_behind_is_told() {
    let mut culprit = Culprit::new(Faults::none(), async |_, socket| drop(socket.recv_to_end().await));
    culprit.sim.submit(2, Request::RecvMulti { fd: culprit.fd });
    culprit.turn();
    let verdict = culprit.world.verdict().unwrap_err();
    assert!(verdict.contains("1 descriptors were never closed"), "{verdict}");
    assert!(verdict.contains("operation 0x2: RecvMulti"), "{verdict}");
}

/// Planted: the buffer of a send is used again as soon as the send was asked for.
#[test]
fn a_send_buffer_used_too_early_is_caught() {
    let mut culprit = Culprit::new(Faults::mild(), async |_, socket| drop(socket.recv_to_end().await));
    let mut memory = vec![b'a'; 1_000];
    culprit.sim.submit(2, Request::Send { fd: culprit.fd, ptr: memory.as_ptr(), len: 1_000 });
    memory.fill(b'b');
    culprit.result(2);
    culprit.accused_of("changed while it was in flight");
}

/// Planted: the memory of a cancelled receive has a new owner before the receive's completion.
#[test]
fn a_receive_buffer_used_too_early_is_caught() {
    let caught = (0..50).any(|_| {
        let faults = Faults { cancel_late: 1.0, ..Faults::mild() };
        let mut culprit = Culprit::new(faults, async |_, socket| {
            let _ = socket.send(b"late bytes").await;
            let _ = socket.recv_to_end().await;
        });
        let mut memory = [0; 10];
        culprit.sim.submit(2, Request::Recv { fd: culprit.fd, ptr: memory.as_mut_ptr(), len: 10 });
        culprit.sim.submit(3, Request::Cancel { target: 2 });
        memory.copy_from_slice(b"new owner!");
        culprit.result(2);
        &memory != b"new owner!"
    });
    assert!(caught);
}

/// Planted: an owner that takes a cancelled receive for an empty one loses bytes in some seed.
#[test]
fn late_bytes_of_a_cancelled_receive_are_there_to_be_lost() {
    let lost = (0..50).any(|seed| {
        let world = World::new(seed, Faults::mild());
        drop(world.spawn("client", async |host: Host| {
            host.sleep(Duration::from_millis(2)).await;
            let socket = host.connect(&address(DOOR)).await.unwrap();
            socket.send(b"0123456789").await.unwrap();
            let _ = socket.recv_to_end().await;
        }));
        let sim = Sim::new(world.node());
        let listener = sim.listen(&address(DOOR), &ListenOptions::default()).unwrap();
        let mut memory = [0; 10];
        sim.submit(1, Request::AcceptMulti { fd: listener });
        let mut late = false;
        for _ in 0..10_000 {
            let mut accepted = None;
            let _ = sim.turn(Wait::AtMost(Duration::from_millis(1)), |completion| match completion.token {
                1 if completion.result >= 0 => accepted = Some(completion.result),
                2 => late = completion.result > 0,
                _ => {}
            });
            if let Some(fd) = accepted {
                sim.submit(2, Request::Recv { fd, ptr: memory.as_mut_ptr(), len: 10 });
                sim.submit(3, Request::Cancel { target: 2 });
            }
            if late {
                break;
            }
        }
        late
    });
    assert!(lost);
}

#[test]
fn dice_are_fair_enough() {
    let mut dice = Dice::new(0);
    let hits = (0..10_000).filter(|_| dice.chance(0.1)).count();
    assert!((900..1_100).contains(&hits), "{hits}");
    let mean = (0..10_000).map(|_| dice.within(10..=20)).sum::<usize>() as f64 / 10_000.0;
    assert!((14.8..15.2).contains(&mean), "{mean}");
    assert_eq!(dice.within(3..=3), 3);
    assert!(!dice.chance(0.0) && dice.chance(1.0));
}

/// A connection leaves its ring and comes back, again and again, while its origin talks: nothing of what the origin says is lost on the way, or
/// the connection is given up as one on which something has come.
#[test]
fn nothing_is_lost_of_a_connection_that_moves() {
    let moved = AtomicUsize::new(0);
    check("nothing_is_lost_of_a_connection_that_moves", 400, |seed| {
        let world = World::new(seed, Faults::from_seed(seed).harmless());
        let listening = world.listen(&address("10.2.0.1:9000")).unwrap();
        drop(world.spawn("origin", async move |host: Host| {
            let socket = listening.accept().await;
            for number in 0..40_u8 {
                host.dawdle(Duration::from_millis(2)).await;
                // Who has given the connection up does not listen to the rest.
                if socket.send_split(&host, &[number; 3], Duration::from_micros(100)).await.is_err() {
                    return;
                }
            }
            socket.close();
        }));
        let ring = ring(&world);
        let (heard, moves) = ring.block_on(async move {
            let (mut heard, mut moves) = (Vec::new(), 0);
            let mut stream = Stream::connect(&address("10.2.0.1:9000")).await.unwrap();
            loop {
                match stream.received() {
                    None => {}
                    Some(Ok(Some(buf))) => {
                        heard.extend_from_slice(buf.bytes());
                        continue;
                    }
                    Some(_) => break,
                }
                stream.watch();
                crate::yield_now().await;
                if !stream.is_quiet() {
                    continue;
                }
                let Some(socket) = stream.detach().await else { break };
                moves += 1;
                crate::sleep(Duration::from_micros(seed % 900)).await;
                stream = socket.into_stream();
            }
            crate::sleep(Duration::from_secs(1)).await;
            (heard, moves)
        });
        moved.fetch_add(moves, Ordering::Relaxed);
        let said: Vec<u8> = (0..40).flat_map(|number| [number; 3]).collect();
        if !said.starts_with(&heard) {
            return Err(format!("after {moves} moves: {heard:?}"));
        }
        drop(ring);
        world.verdict()
    });
    let moved = moved.into_inner();
    assert!(moved > 1_000, "they hardly ever moved: {moved}");
}
