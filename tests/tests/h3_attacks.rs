//! Attacks that HTTP/3 and QUIC are known for: whoever makes one is cut off, costs little memory while it lasts, and nobody else notices.
//!
//! Each attack (`tests/python/h3_attacks.py`) runs beside a client that behaves: its requests must all be answered, and in time. How much is borne
//! before somebody is cut off is tested where it is decided (`engine/proto/tests`); here it is that the end comes, with the right code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::h2::H2Client;
use harness::{Driver, H3Door, Origin, Setup, answer, on_each_driver, pattern, until};

on_each_driver! {
    /// Resets, refusals, empty and tiny frames, priorities, QPACK's instructions.
    fn floods(driver) {
        let scene = Scene::new(driver, "");
        scene.is_borne("floods");
        assert!(scene.door.engine.metrics().sum("h3_faults_total") >= 4);
        scene.ends();
    }

    /// STOP_SENDING behind a request that is complete, in the same datagram.
    fn what_is_given_up_in_a_breath_reaches_nobody(driver) {
        let scene = Scene::new(driver, "");
        scene.is_borne("breath");
        // Connections for who is served beside and after it, and none for 300 requests.
        assert!(scene.origin.accepted() <= 6, "{} connections", scene.origin.accepted());
        assert_eq!(scene.reached(), 0);
        scene.ends();
    }

    /// Who gives up request after request is believed no more: what it asks waits until it has had time to give that up too.
    fn who_gives_up_again_and_again_soon_reaches_nobody(driver) {
        let scene = Scene::new(driver, "");
        scene.is_borne("moment");
        // Of more than 600: of each of three connections the first twenty, and as many again each second.
        let (reached, accepted) = (scene.reached(), scene.origin.accepted());
        assert!(reached.max(accepted) <= 300, "{reached} requests reached the origin, by {accepted} connections");
        assert!(scene.door.engine.metrics().sum("requests_doubted_total") > 200);
        scene.ends();
    }

    fn qpack_bombs(driver) {
        let scene = Scene::new(driver, "");
        scene.is_borne("bombs");
        scene.ends();
    }

    fn streams_that_wait_for_entries(driver) {
        let scene = Scene::new(driver, "");
        scene.is_borne("blocked");
        assert_eq!(scene.door.engine.metrics().sum("h3_faults_total"), 8);
        scene.ends();
    }

    fn readers_that_do_not_read(driver) {
        let large = answer(pattern(1_000_000, 1_000_000));
        let scene = Scene::before(driver, "", Origin::answering(move |request| {
            Some(if request.target() == "/bytes/1000000" { large.clone() } else { answer("hello\n") })
        }));
        scene.is_borne("hoarders");
        scene.ends();
    }

    fn uploads_that_nobody_reads(driver) {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let scene = Scene::before(driver, "", Origin::start(move |peer| {
            while let Ok(request) = peer.wire.head() {
                while request.target() == "/never" && !is_over.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                peer.send(answer("hello\n"));
            }
        }));
        scene.is_borne("uploads");
        over.store(true, Ordering::SeqCst);
        scene.ends();
    }

    fn slow_heads(driver) {
        let scene = Scene::new(driver, "timeout.head = \"1s\"");
        scene.is_borne("slow-heads");
        scene.ends();
    }

    /// Three probe timeouts of its path are seconds, in which the session is no more, and its client is told again that it is.
    fn sessions_end_at_once_however_far_away_their_client_is(driver) {
        let scene = Scene::new(driver, "");
        scene.is_borne("faults");
        let counted = || scene.door.engine.metrics().sum("h3_faults_total") == 2;
        until("both faults", Duration::from_millis(500), counted);
        scene.ends();
    }

    fn who_has_been_let_in_does_not_wait_for_a_crowd(driver) {
        let scene = Scene::new(driver, "timeout.handshake = \"3s\"");
        scene.is_borne("crowd");
        scene.ends();
    }

    fn who_has_left_is_told_nothing(driver) {
        let scene = Scene::new(driver, "");
        scene.is_borne("leavers");
        scene.ends();
    }

    /// From spoofed addresses, as far as a test may spoof: whoever is at all these ports answers nothing.
    fn floods_of_initials(driver) {
        let scene = Scene::new(driver, "timeout.handshake = \"3s\"");
        scene.is_borne("initial-flood");
        let metrics = scene.door.engine.metrics();
        assert!(metrics.sum("quic_retries_total") > 100, "{}", metrics.sum("quic_retries_total"));
        assert!(metrics.sum("tls_handshakes_timed_out_total") >= 200, "{}", metrics.sum("tls_handshakes_timed_out_total"));
        scene.ends();
    }
}

/// An engine, and a client of it that behaves, over the same worker's TCP.
struct Scene {
    door: H3Door,
    origin: Origin,
    bystander: JoinHandle<(u32, Duration)>,
    stop: Arc<AtomicBool>,
}

impl Scene {
    fn new(driver: Driver, listen_line: &str) -> Self {
        Self::before(driver, listen_line, Origin::standard())
    }

    fn before(driver: Driver, listen_line: &str, origin: Origin) -> Self {
        let door = H3Door::of(Setup::new(driver).origin(&origin).listen_line(listen_line), "");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, address, tls) = (Arc::clone(&stop), door.engine.address, door.client());
        let bystander = std::thread::spawn(move || {
            let mut client = H2Client::connect_tls(address, "localhost", tls);
            client.greet(&[]);
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::SeqCst) {
                let begun = Instant::now();
                assert_eq!(client.get("/").text(), "hello\n");
                (count, slowest) = (count + 1, slowest.max(begun.elapsed()));
                std::thread::sleep(Duration::from_millis(5));
            }
            (count, slowest)
        });
        Self { door, origin, bystander, stop }
    }

    #[track_caller]
    fn is_borne(&self, attack: &str) {
        let pid = self.door.engine.pid().to_string();
        let ran = self.door.script("h3_attacks.py", attack).args([pid]).run();
        assert_eq!(ran.text().lines().last(), Some("all well"), "{attack}: {}{}", ran.text(), ran.err);
    }

    /// Requests of the attack that an endpoint has seen.
    fn reached(&self) -> usize {
        let slow = |bytes: &Vec<u8>| bytes.windows(6).filter(|six| six == b"/slow/").count();
        self.origin.received().iter().map(slow).sum()
    }

    /// The bystander was served all the while, and nothing is left.
    #[track_caller]
    fn ends(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (count, slowest) = self.bystander.join().expect("the client that behaves was served");
        assert!(count > 0 && slowest < Duration::from_secs(2), "{count} requests, the slowest took {slowest:?}");
        self.door.engine.until_idle();
    }
}
