//! Streams and listeners over the real drivers: what goes in comes out, whoever is slow and whoever ends first.

use std::time::Duration;

use ring::{
    Address, Appetite, Buf, DriverChoice, ListenOptions, Listener, Moved, Options, Pipes, Ring, SpinPolicy, Splice,
    Stream,
};

fn on_each_driver(test: impl AsyncFn() + Copy + 'static) {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        for spin in [SpinPolicy::Off, SpinPolicy::Fixed(Duration::from_micros(20))] {
            let ring = Ring::new(Options { driver: driver.clone(), spin }).expect("this machine grants both drivers");
            let done = ring.block_on(async move { ring::until(ring::now() + Duration::from_secs(20), test()).await });
            assert!(done.is_some(), "{driver:?} hangs");
            for _ in 0..200 {
                if ring.block_on(async { ring::counts().streams }) == 0 {
                    break;
                }
                ring.block_on(ring::sleep(Duration::from_millis(5)));
            }
            assert_eq!(ring.block_on(async { ring::counts().streams }), 0, "{driver:?} keeps streams open");
        }
    }
}

async fn pair() -> (Stream, Stream) {
    let mut listener = Listener::bind(&loopback(), &ListenOptions::default()).unwrap();
    let address = listener.local().unwrap();
    let near = Stream::connect(&address).await.unwrap();
    (near, listener.accept().await.unwrap())
}

fn loopback() -> Address {
    Address::Inet("127.0.0.1:0".parse().unwrap())
}

async fn read_to_end(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(buf) = stream.recv().await.unwrap() {
        all.extend_from_slice(buf.bytes());
    }
    all
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn messages_go_back_and_forth() {
    on_each_driver(async || {
        let (mut near, mut far) = pair().await;
        for round in 0..500_u32 {
            near.send(Buf::copy_of(&round.to_be_bytes()));
            let got = far.recv().await.unwrap().unwrap();
            assert_eq!(got.bytes(), round.to_be_bytes());
            far.send(got);
            assert_eq!(near.recv().await.unwrap().unwrap().bytes(), round.to_be_bytes());
        }
        assert!(far.is_quiet());
    });
}

#[test]
fn much_arrives_whole_and_in_order_in_either_appetite() {
    on_each_driver(async || {
        for appetite in [Appetite::Any, Appetite::Bulk(64 << 10)] {
            let (mut near, mut far) = pair().await;
            let sent = pattern(3 << 20);
            let expected = sent.clone();
            ring::spawn(async move {
                for piece in sent.chunks(9_999) {
                    near.send(Buf::copy_of(piece));
                    near.sent(100_000).await.unwrap();
                }
                near.finish();
                assert!(near.recv().await.unwrap().is_none());
            });
            far.set_appetite(appetite);
            let got = read_to_end(&mut far).await;
            assert!(got == expected, "{appetite:?}: {} of {} bytes", got.len(), expected.len());
        }
    });
}

#[test]
fn a_reader_may_change_its_appetite_in_the_middle() {
    on_each_driver(async || {
        let (mut near, mut far) = pair().await;
        let sent = pattern(2 << 20);
        let expected = sent.clone();
        ring::spawn(async move {
            for piece in sent.chunks(30_000) {
                near.send(Buf::copy_of(piece));
                near.sent(60_000).await.unwrap();
            }
            near.sent(0).await.unwrap();
        });
        let mut got = Vec::new();
        let mut turn = 0;
        while let Some(buf) = far.recv().await.unwrap() {
            got.extend_from_slice(buf.bytes());
            turn += 1;
            far.set_appetite(if turn % 3 == 0 { Appetite::Any } else { Appetite::Bulk(10_000 + turn) });
        }
        assert!(got == expected);
    });
}

#[test]
fn the_writer_waits_for_a_reader_that_does_not_read() {
    on_each_driver(async || {
        let (mut near, mut far) = pair().await;
        far.set_appetite(Appetite::Bulk(1 << 10));
        let mut queued = 0;
        while ring::until(ring::now() + Duration::from_millis(100), near.sent(0)).await.is_some() {
            near.send(Buf::copy_of(&[7; 200_000]));
            queued += 200_000;
            assert!(queued < 64 << 20, "the kernel takes no end");
        }
        drop(near);
        while let Ok(Some(_)) = far.recv().await {}
    });
}

#[test]
fn pieces_queued_in_one_turn_leave_in_one_send() {
    on_each_driver(async || {
        let (mut near, mut far) = pair().await;
        let before = ring::counts().driver.sends;
        for piece in ["one ", "two ", "three"] {
            near.send(Buf::copy_of(piece.as_bytes()));
        }
        near.sent(0).await.unwrap();
        assert_eq!(far.recv().await.unwrap().unwrap().bytes(), b"one two three");
        assert_eq!(ring::counts().driver.sends - before, 1);
    });
}

#[test]
fn a_reset_is_an_error_and_an_end_is_not() {
    on_each_driver(async || {
        let (near, mut far) = pair().await;
        near.reset();
        assert!(far.recv().await.is_err());
        let (near, mut far) = pair().await;
        drop(near);
        assert!(far.recv().await.unwrap().is_none());
        far.send(Buf::copy_of(b"into the void"));
        let _ = far.sent(0).await;
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    on_each_driver(async || {
        let unused = Listener::bind(&loopback(), &ListenOptions::default()).unwrap().local().unwrap();
        let refused = Stream::connect(&unused).await;
        assert!(refused.is_err());
    });
}

#[test]
fn lingering_delivers_the_last_words_to_a_peer_that_still_talks() {
    on_each_driver(async || {
        let (mut near, mut far) = pair().await;
        near.send(Buf::copy_of(&pattern(100_000)));
        far.send(Buf::copy_of(b"enough"));
        ring::spawn(async move { ring::linger(&mut far, Duration::from_secs(2), 1 << 20).await });
        assert_eq!(near.recv().await.unwrap().unwrap().bytes(), b"enough");
        assert!(near.recv().await.unwrap().is_none());
    });
}

#[test]
fn unix_sockets_work_and_a_stale_file_is_replaced() {
    on_each_driver(async || {
        let path = std::env::temp_dir().join(format!("penstock-ring-{}.sock", std::process::id()));
        let address = Address::Unix(path.clone());
        drop(Listener::bind(&address, &ListenOptions::default()).unwrap());
        ring::yield_now().await;
        let mut listener = Listener::bind(&address, &ListenOptions::default()).unwrap();
        let mut near = Stream::connect(&address).await.unwrap();
        let mut far = listener.accept().await.unwrap();
        near.send(Buf::copy_of(b"hello"));
        assert_eq!(far.recv().await.unwrap().unwrap().bytes(), b"hello");
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn mail_wakes_a_sleeping_ring() {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        let ring = Ring::new(Options { driver: driver.clone(), spin: SpinPolicy::Off }).unwrap();
        let numbers = ring.block_on(async {
            let (mut sender, mut receiver) = ring::mailbox::<u32>(4);
            let other = std::thread::spawn(move || {
                let ring = Ring::new(Options { driver, spin: SpinPolicy::Off }).unwrap();
                ring.block_on(async move {
                    for number in 0..20 {
                        ring::sleep(Duration::from_millis(3)).await;
                        sender.send(number).unwrap();
                    }
                });
            });
            let mut numbers = Vec::new();
            while let Some(number) = receiver.recv().await {
                numbers.push(number);
            }
            other.join().unwrap();
            numbers
        });
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn an_idle_connection_moves_to_another_ring_and_what_comes_later_is_read_there() {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        let ring = Ring::new(Options { driver: driver.clone(), spin: SpinPolicy::Off }).unwrap();
        ring.block_on(async {
            let (mut near, mut far) = pair().await;
            near.send(Buf::copy_of(b"before"));
            assert_eq!(far.recv().await.unwrap().unwrap().bytes(), b"before");
            far.watch();
            ring::yield_now().await;
            let socket = far.detach().await.expect("nothing moves on it");
            near.send(Buf::copy_of(b"in between"));
            near.sent(0).await.unwrap();
            let other = std::thread::spawn(move || {
                let ring = Ring::new(Options { driver, spin: SpinPolicy::Off }).unwrap();
                ring.block_on(async move {
                    let mut far = socket.into_stream();
                    assert_eq!(far.recv().await.unwrap().unwrap().bytes(), b"in between");
                    far.send(Buf::copy_of(b"after"));
                    far.sent(0).await.unwrap();
                    far.watch();
                    ring::yield_now().await;
                    far.detach().await.expect("nothing moves on it")
                })
            });
            assert_eq!(near.recv().await.unwrap().unwrap().bytes(), b"after");
            let mut back = other.join().unwrap().into_stream();
            near.send(Buf::copy_of(b"and back"));
            assert_eq!(back.recv().await.unwrap().unwrap().bytes(), b"and back");
        });
    }
}

#[test]
fn a_connection_on_which_something_has_come_stays() {
    on_each_driver(async || {
        let (mut near, mut far) = pair().await;
        near.send(Buf::copy_of(b"unasked"));
        std::future::poll_fn(|cx| far.poll_readable(cx)).await;
        assert!(far.detach().await.is_none());
        let (near, mut far) = pair().await;
        drop(near);
        std::future::poll_fn(|cx| far.poll_readable(cx)).await;
        assert!(far.detach().await.is_none());
        let (mut near, _far) = pair().await;
        near.send(Buf::copy_of(b"unsent"));
        assert!(near.detach().await.is_none());
    });
}

#[test]
fn a_panicking_task_ends_alone() {
    on_each_driver(async || {
        ring::spawn(async { panic!("on purpose") });
        ring::sleep(Duration::from_millis(5)).await;
        assert_eq!(ring::counts().panics, 1);
    });
}

/// Passes everything from one connection to another, spliced and copied in turn, until the first one ends.
async fn pass_in_turns(from: &mut Stream, to: &mut Stream, pipes: &std::rc::Rc<Pipes>) -> usize {
    let mut spliced = 0;
    for turn in 0.. {
        from.set_appetite(if turn % 2 == 0 { Appetite::Any } else { Appetite::Bulk(100_000) });
        for _ in 0..3 {
            let Some(buf) = from.recv().await.unwrap() else { return spliced };
            to.send(buf);
        }
        // Settle, with what comes late.
        std::future::poll_fn(|_| {
            while let Some(Ok(Some(late))) = from.received() {
                to.send(late);
            }
            Splice::poll_settled(from, to)
        })
        .await
        .unwrap();
        let mut splice = Splice::new(pipes);
        let mut steps = 0;
        while steps < 4 || !splice.is_empty() {
            match std::future::poll_fn(|_| splice.poll_move(from, to)).await.unwrap() {
                Moved::On { sent, .. } => spliced += sent,
                Moved::Stuck => break,
                Moved::NoPipe => panic!("there is one"),
            }
            steps += 1;
        }
    }
    unreachable!()
}

#[test]
fn what_is_spliced_and_copied_in_turns_keeps_its_order() {
    on_each_driver(async || {
        let pipes = Pipes::new(1, 4 << 10, 64 << 10);
        let ((mut writer, mut from), (mut to, mut reader)) = (pair().await, pair().await);
        let sent = pattern(40 << 20);
        let expected = sent.clone();
        ring::spawn(async move {
            for piece in sent.chunks(77_777) {
                writer.send(Buf::copy_of(piece));
                writer.sent(150_000).await.unwrap();
            }
            writer.finish();
            assert!(writer.recv().await.unwrap().is_none());
        });
        let open = pipes.clone();
        ring::spawn(async move {
            let spliced = pass_in_turns(&mut from, &mut to, &pipes).await;
            assert!(spliced > 4 << 20, "{spliced} bytes spliced");
            to.finish();
            to.sent(0).await.unwrap();
        });
        // A reader that falls behind now and then.
        let mut got = Vec::new();
        while let Some(buf) = reader.recv().await.unwrap() {
            got.extend_from_slice(buf.bytes());
            if got.len() % 7 == 0 {
                ring::sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
        assert_eq!(open.open(), 1);
    });
}

#[test]
fn a_pipe_that_is_not_empty_is_nobody_elses() {
    on_each_driver(async || {
        let pipes = Pipes::new(1, 4 << 10, 1 << 20);
        let ((mut writer, mut from), (mut to, reader)) = (pair().await, pair().await);
        ring::spawn(async move {
            while writer.sent(1 << 20).await.is_ok() {
                writer.send(Buf::copy_of(&[7; 200_000]));
            }
        });
        let mut splice = Splice::new(&pipes);
        std::future::poll_fn(|_| Splice::poll_settled(&mut from, &mut to)).await.unwrap();
        // Nobody reads: it fills what there is.
        let moving = async {
            loop {
                std::future::poll_fn(|_| splice.poll_move(&mut from, &mut to)).await.unwrap();
            }
        };
        assert!(ring::until(ring::now() + Duration::from_millis(300), moving).await.is_none());
        assert_eq!((splice.is_empty(), pipes.open()), (false, 1));
        let ((mut other, mut other_from), (mut other_to, _other_reader)) = (pair().await, pair().await);
        other.send(Buf::copy_of(b"x"));
        let mut second = Splice::new(&pipes);
        let moved = std::future::poll_fn(|_| second.poll_move(&mut other_from, &mut other_to)).await.unwrap();
        assert_eq!(moved, Moved::NoPipe);
        assert_eq!(other_from.recv().await.unwrap().unwrap().bytes(), b"x");
        drop((splice, from, to, reader));
        assert_eq!(pipes.open(), 0);
    });
}

#[test]
fn a_spliced_stream_that_breaks_says_so() {
    on_each_driver(async || {
        let pipes = Pipes::new(1, 4 << 10, 1 << 20);
        for breaks_first in [true, false] {
            let ((writer, mut from), (mut to, reader)) = (pair().await, pair().await);
            let mut splice = Splice::new(&pipes);
            std::future::poll_fn(|_| Splice::poll_settled(&mut from, &mut to)).await.unwrap();
            ring::spawn(async move {
                let mut writer = writer;
                if breaks_first {
                    ring::sleep(Duration::from_millis(5)).await;
                    return writer.reset();
                }
                reader.reset();
                for _ in 0..20 {
                    writer.send(Buf::copy_of(&[1; 10_000]));
                    ring::sleep(Duration::from_millis(1)).await;
                }
            });
            let broken = loop {
                match std::future::poll_fn(|_| splice.poll_move(&mut from, &mut to)).await {
                    Ok(Moved::On { .. }) => {}
                    other => break other,
                }
            };
            assert!(broken.is_err(), "{broken:?}");
        }
    });
}
