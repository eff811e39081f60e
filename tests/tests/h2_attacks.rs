//! Attacks that HTTP/2 is known for: whoever makes one is cut off, costs little memory while it lasts, and nobody else notices.
//!
//! Each attack runs beside a client that behaves: its requests must all be answered. How much is borne before somebody is
//! cut off is tested where it is decided (`engine/proto/tests/h2_abuse.rs`); here it is that the end comes, and in bytes that can be counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::h2::code::{CANCEL, ENHANCE_YOUR_CALM};
use harness::h2::flag::{END_HEADERS, END_STREAM};
use harness::h2::{
    H2Client, asking, data, frame, get, headers, kind, ping, post, reset, setting, settings, window_update,
};
use harness::hpack::{block, indexed};
use harness::{Driver, Engine, Origin, Setup, answer, on_each_driver, pattern};

on_each_driver! {
    /// CVE-2023-44487: requests that are given up at once.
    fn rapid_reset(driver) {
        let scene = Scene::new(driver);
        scene.is_cut_off("rapid reset", |round| [get(stream(round), "/slow/1000"), reset(stream(round), CANCEL)].concat());
        scene.ends();
    }

    /// Given up not in the breath that makes them, but when they have been on their way for a moment: soon what such a client asks waits for that.
    fn who_gives_up_again_and_again_soon_reaches_nobody(driver) {
        let scene = Scene::new(driver);
        let mut client = scene.attacker();
        let mut rounds = 0;
        while client.ended.is_none() {
            let twenty = rounds..rounds + 20;
            rounds += 20;
            let _ = client.try_send(twenty.clone().flat_map(|round| get(stream(round), "/slow/1000")).collect::<Vec<u8>>());
            while client.step(Duration::from_millis(5)).is_some() {}
            let _ = client.try_send(twenty.flat_map(|round| reset(stream(round), CANCEL)).collect::<Vec<u8>>());
            while client.step(Duration::from_micros(200)).is_some() {}
        }
        assert_eq!(client.until_ended().0, Some(ENHANCE_YOUR_CALM));
        // The first twenty, as many again each second, and the bystander's.
        assert!(rounds >= 200 && scene.origin.accepted() <= 100, "of {rounds}: {}", scene.origin.accepted());
        scene.ends();
    }

    /// CVE-2025-8671: streams that the server is made to reset, in all the ways there are.
    fn made_you_reset(driver) {
        let scene = Scene::new(driver);
        let slow = |round, more: Vec<u8>| [get(stream(round), "/slow/1000"), more].concat();
        scene.is_cut_off("a window that overflows", |round| slow(round, window_update(stream(round), 0x7fff_ffff)));
        scene.is_cut_off("a window that grows by nothing", |round| slow(round, window_update(stream(round), 0)));
        scene.is_cut_off("HEADERS on a half-closed stream", |round| slow(round, headers(stream(round), &[("x-a", "b")], true)));
        scene.is_cut_off("DATA on a half-closed stream", |round| slow(round, data(stream(round), "x", true)));
        scene.is_cut_off("PRIORITY of a wrong length", |round| slow(round, frame(kind::PRIORITY, 0, stream(round), [0; 4])));
        scene.is_cut_off("content that contradicts its length", |round| {
            let head = headers(stream(round), &[&asking("POST", "/echo")[..], &[("content-length", "1")]].concat(), false);
            [head, data(stream(round), "too much", true)].concat()
        });
        scene.is_cut_off("requests that are none", |round| headers(stream(round), &[(":method", "GET")], true));
        scene.is_cut_off("trailers that end nothing", |round| [post(stream(round), "/echo"), headers(stream(round), &[("x-a", "b")], false)].concat());
        scene.ends();
    }

    /// Streams far beyond what was announced.
    fn streams_beyond_the_limit(driver) {
        let scene = Scene::new(driver);
        scene.is_cut_off("streams beyond the limit", |round| get(stream(round), "/slow/3000"));
        scene.ends();
    }

    /// CVE-2024-27316: field blocks without end.
    fn continuation_flood(driver) {
        let scene = Scene::new(driver);
        for piece in [0, 1, 16_384] {
            scene.is_cut_off("CONTINUATION without end", |round| match round {
                0 => frame(kind::HEADERS, END_STREAM, 1, block(&asking("GET", "/"))),
                _ => frame(kind::CONTINUATION, 0, 1, block(&[("x-a", "b")]).repeat(piece / 8)),
            });
        }
        scene.ends();
    }

    /// CVE-2019-9512, 9513, 9515, 9517, 9518: frames that cost their sender nothing.
    fn floods_of_small_frames(driver) {
        let scene = Scene::new(driver);
        let on_one = |round, more: Vec<u8>| if round == 0 { post(1, "/echo") } else { more };
        scene.is_cut_off("PING", |_| ping([0; 8]));
        scene.is_cut_off("SETTINGS", |_| settings(&[]));
        scene.is_cut_off("SETTINGS that move windows", |round| settings(&[(setting::INITIAL_WINDOW_SIZE, round % 2 * 65_535)]));
        scene.is_cut_off("SETTINGS of many entries", |_| settings(&[(0xfafa, 0); 2_000]));
        scene.is_cut_off("WINDOW_UPDATE of the connection", |_| window_update(0, 1));
        scene.is_cut_off("WINDOW_UPDATE of a stream", |round| on_one(round, window_update(1, 1)));
        scene.is_cut_off("PRIORITY", |round| frame(kind::PRIORITY, 0, 1 + round % 7 * 2, [0, 0, 0, 99, 1]));
        scene.is_cut_off("PRIORITY_UPDATE", |_| frame(16, 0, 0, [&[0, 0, 0, 1][..], b"u=1"].concat()));
        scene.is_cut_off("empty DATA", |round| on_one(round, data(1, "", false)));
        scene.is_cut_off("DATA of one byte", |round| on_one(round, data(1, "x", false)));
        scene.is_cut_off("DATA of padding", |round| on_one(round, frame(kind::DATA, 8, 1, [&[255][..], &[0; 255]].concat())));
        scene.ends();
    }

    /// What is cheap to bear is borne, and costs nothing that lasts: frames of unknown types, late frames, resets of nothing.
    fn oddities_are_borne(driver) {
        let scene = Scene::new(driver);
        let mut client = scene.attacker();
        for _ in 0..200 {
            let odd = [frame(0xfa, 0, 0, [0; 64]), frame(kind::SETTINGS, 1, 0, []), frame(kind::PING, 1, 0, [9; 8])].concat();
            if client.try_send(odd.repeat(50)).is_err() {
                break;
            }
            while client.step(Duration::from_micros(1)).is_some() {}
        }
        scene.has_not_grown("oddities");
        scene.ends();
    }

    /// CVE-2019-9511, 9517: answers to PING and SETTINGS that pile up, because nobody reads them.
    fn answers_that_are_not_read(driver) {
        let scene = Scene::new(driver);
        let mut client = scene.attacker();
        let begun = Instant::now();
        // What lies in the kernel's buffers is the kernel's: more than fits there is sent.
        while begun.elapsed() < Duration::from_secs(20) && client.try_send(ping([0; 8]).repeat(1_000)).is_ok() {}
        scene.has_not_grown("answers that nobody reads");
        client.listen(Duration::from_secs(2));
        assert!(client.ended.is_some(), "it goes on for ever");
        scene.ends();
    }

    /// CVE-2016-6581 and its like: small blocks that say much, by reference.
    fn hpack_bombs(driver) {
        let scene = Scene::new(driver);
        let big = "x".repeat(3_900);
        for round in 0..300 {
            if round % 100 == 0 {
                scene.has_not_grown("HPACK bombs");
            }
            let mut client = scene.attacker();
            let bomb = |stream, name: &str| {
                let said = [block(&asking("GET", "/")), indexed(name.as_bytes(), big.as_bytes()), vec![0x80 | 62; 10_000]].concat();
                frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, said)
            };
            client.send([bomb(1, "x-a"), bomb(3, "cookie")].concat());
            for stream in [1, 3] {
                client.wait(stream);
                let got = client.exchange(stream);
                let refused = got.reset.is_some() || !client.gone.is_empty() || [400, 431].contains(&got.status());
                assert!(refused, "{got:?}");
            }
        }
        scene.has_not_grown("HPACK bombs");
        scene.ends();
    }

    /// Slow readers: many large answers, and no window for them. What is held for each is bounded, and so is how long.
    fn readers_that_do_not_read(driver) {
        let body = pattern(1_000_000, 1_000_000);
        let scene = Scene::before(driver, Origin::answering(move |request| {
            Some(if request.target() == "/large" { answer(&body) } else { answer("hello\n") })
        }));
        let mut readers = Vec::new();
        for _ in 0..5 {
            let mut client = H2Client::connect(scene.engine.address);
            client.credits = false;
            client.greet(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
            for _ in 0..100 {
                client.request(&asking("GET", "/large"), true);
            }
            client.until("all heads", |client| (0..100).all(|nth| !client.exchange(stream(nth)).fields.is_empty()));
            readers.push(client);
        }
        std::thread::sleep(Duration::from_millis(300));
        let (grown, each) = (scene.grown(), scene.grown() / 500);
        assert!(each < HELD_MAX, "{each} bytes for each answer that is not read, {grown} in all");
        drop(readers);
        scene.ends();
    }

    /// The client that all this must not hurt: 100 streams at once, 50,000 requests, one in twenty given up.
    fn a_busy_client_is_never_cut_off(driver) {
        let scene = Scene::new(driver);
        let mut client = H2Client::greeted(scene.engine.address);
        let (mut open, mut asked, mut answered, mut given_up, mut pings) = (Vec::new(), 0_u32, 0_u32, 0_u32, 0_u32);
        while answered + given_up < 50_000 {
            let mut batch = Vec::new();
            while open.len() < 100 && asked < 50_000 {
                let stream = client.next;
                client.next += 2;
                asked += 1;
                batch.extend(get(stream, if asked % 50 == 0 { "/bytes/20000" } else { "/" }));
                // Some at once, as a user who leaves; some when they are on their way.
                if asked % 20 == 0 {
                    batch.extend(reset(stream, CANCEL));
                    given_up += 1;
                } else {
                    open.push(stream);
                }
            }
            if asked / 1_000 > pings {
                pings += 1;
                batch.extend(ping([1; 8]));
            }
            client.send(batch);
            client.until("an answer", |client| open.iter().any(|&stream| client.is_over(stream)) || open.is_empty());
            assert!(client.ended.is_none() && client.gone.is_empty(), "cut off after {answered}: {:?}", client.gone);
            open.retain(|&stream| {
                let Some(got) = client.take_over(stream) else { return true };
                match got.reset {
                    None => {
                        assert_eq!(got.status(), 200);
                        assert!(got.text() == "hello\n" || got.body == pattern(20_000, 20_000));
                        answered += 1;
                    }
                    Some(code) => panic!("reset with {code}"),
                }
                false
            });
        }
        client.barrier();
        assert_eq!((client.gone.len(), client.ended), (0, None));
        assert_eq!(scene.engine.metrics().sum("requests_doubted_total"), 0);
        scene.has_not_grown("a busy client");
        drop(client);
        scene.ends();
    }
}

/// The stream of the nth request.
fn stream(nth: u32) -> u32 {
    2 * nth + 1
}

/// An engine, and a client of it that behaves.
struct Scene {
    engine: Engine,
    origin: Origin,
    bystander: Option<JoinHandle<(u32, Duration)>>,
    stop: Arc<AtomicBool>,
    memory: u64,
}

/// No attack costs the engine more, whoever else is served meanwhile.
const GROWTH_MAX: u64 = 24 << 20;

/// What may be held for an answer that is not read: 64 KiB that are not sent, and as much again on its way from the origin, each in a
/// buffer of its class.
const HELD_MAX: u64 = 256 << 10;

impl Scene {
    fn new(driver: Driver) -> Self {
        Self::before(driver, Origin::standard())
    }

    fn before(driver: Driver, origin: Origin) -> Self {
        let engine = Setup::new(driver).origin(&origin).start();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, address) = (Arc::clone(&stop), engine.address);
        let mut client = H2Client::greeted(address);
        assert_eq!(client.get("/").text(), "hello\n");
        let memory = engine.memory().anonymous;
        let bystander = std::thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            // An attack may be over before this thread has its first turn: once it asks in any case.
            loop {
                let begun = Instant::now();
                assert_eq!(client.get("/").text(), "hello\n");
                (count, slowest) = (count + 1, slowest.max(begun.elapsed()));
                if stopped.load(Ordering::SeqCst) {
                    return (count, slowest);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { engine, origin, bystander: Some(bystander), stop, memory }
    }

    /// A client that gives nothing back.
    fn attacker(&self) -> H2Client {
        let mut client = H2Client::greeted(self.engine.address);
        client.acknowledges = false;
        client
    }

    /// Says what `round` makes, over and over; that must end, with the right word.
    #[track_caller]
    fn is_cut_off(&self, what: &str, round: impl Fn(u32) -> Vec<u8>) {
        const ROUNDS_MAX: u32 = 50_000;
        let mut client = self.attacker();
        let mut rounds = 0;
        while client.ended.is_none() {
            assert!(rounds < ROUNDS_MAX, "{what}: it goes on for ever; {:?}", client.gone);
            let batch: Vec<u8> = (rounds..rounds + 20).flat_map(&round).collect();
            rounds += 20;
            let sent = client.try_send(batch);
            while client.step(Duration::from_micros(200)).is_some() {}
            if sent.is_err() {
                break;
            }
        }
        let (code, _) = client.until_ended();
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{what}: after {rounds} rounds: {:?}", client.gone);
        self.has_not_grown(what);
    }

    fn grown(&self) -> u64 {
        self.engine.memory().anonymous.saturating_sub(self.memory)
    }

    #[track_caller]
    fn has_not_grown(&self, what: &str) {
        let grown = self.grown();
        assert!(grown < GROWTH_MAX, "{what}: {grown} bytes more");
    }

    /// The bystander was served all the while, and nothing is left. How fast it was served is measured where machines are quiet (`cargo xtask bench attacks`).
    #[track_caller]
    fn ends(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let served = self.bystander.take().map(JoinHandle::join);
        let (count, slowest) = served.and_then(Result::ok).expect("the client that behaves was served");
        assert!(count > 0 && slowest < Duration::from_secs(20), "{count} requests, the slowest took {slowest:?}");
        self.engine.until_idle();
    }
}
