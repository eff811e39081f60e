//! Pools whose endpoints change while they are in use: by DNS, by SRV records, and by a file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::{Client, Engine, Folder, Nameserver, Origin, PATIENCE, Setup, answer, on_each_driver, until};

on_each_driver! {
    /// The records of a name change under load: traffic moves, no request is lost, what left is let go of, and trouble with the
    /// server changes nothing.
    fn records_change_under_load(driver) {
        let names = Nameserver::start();
        let three = Hosts::start();
        names.set_a("web.test", 1, &[host(0), host(1)]);
        let engine = with(&names, Setup::new(driver)).to(&format!("web.test:{}", three.port)).start();
        let load = Load::start(&engine, 8);
        three.until_served("both", [0, 1]);
        names.set_a("web.test", 1, &[host(1), host(2)]);
        three.until_served("the new one", [2]);
        // Its idle connections went with it, and nothing comes any more.
        until("what left has no connection", PATIENCE, || three.origins[0].open() == 0);
        let left = three.served(0);
        names.set_a("web.test", 1, &[]);
        engine.until_metric("discovery_stale", 1);
        names.remove("web.test");
        let asked = names.questions().0;
        until("it is asked again", PATIENCE, || names.questions().0 >= asked + 2);
        names.mute(true);
        three.until_served("who was there last", [1, 2]);
        let pool = &engine.status()["pools"][0];
        assert_eq!(pool["sources"][0]["state"], "stale", "{pool:#}");
        assert_eq!(pool["endpoints"].as_array().map(Vec::len), Some(2), "{pool:#}");
        names.mute(false);
        names.set_a("web.test", 1, &[host(2)]);
        engine.until_metric("discovery_stale", 0);
        until("the other one is let go of", PATIENCE, || three.origins[1].open() == 0);
        assert_eq!(three.served(0), left, "an endpoint that had left was asked");
        load.end();
        engine.until_idle();
    }

    /// The file changes under load, replaced and in place; nonsense in it changes nothing.
    fn a_file_changes_under_load(driver) {
        let folder = Folder::new();
        let three = Hosts::start();
        let line = |at: usize| format!("{} # number {at}\n", three.origins[at].address);
        let path = folder.write("pool", line(0));
        let engine = Setup::new(driver).to(&format!("file:{}", path.display())).start();
        let load = Load::start(&engine, 8);
        three.until_served("the only one", [0]);
        std::fs::rename(folder.write("new", line(1) + &line(2)), &path).expect("a file of our own");
        three.until_served("the new ones", [1, 2]);
        until("what left has no connection", PATIENCE, || three.origins[0].open() == 0);
        for nonsense in ["", "# nobody\n", "127.0.0.1\n"] {
            let failures = engine.metrics().sum("discovery_failures_total");
            std::fs::write(&path, nonsense).expect("a file of our own");
            until("it was refused", PATIENCE, || engine.metrics().sum("discovery_failures_total") > failures);
        }
        std::fs::remove_file(&path).expect("a file of our own");
        three.until_served("who was there last", [1, 2]);
        assert_eq!(engine.metrics().sum("discovery_stale"), 1);
        std::fs::write(&path, line(0)).expect("a file of our own");
        three.until_served("who is back", [0]);
        until("the others are let go of", PATIENCE, || three.origins[1].open() + three.origins[2].open() == 0);
        load.end();
        engine.until_idle();
    }

    /// Priorities are tiers and weights are weights; the next tier is there when the first is not.
    fn services_have_priorities_and_weights(driver) {
        let names = Nameserver::start();
        let mut three = Hosts::start();
        for (at, name) in ["a.test", "b.test", "c.test"].into_iter().enumerate() {
            names.set_a(name, 1, &[host(at)]);
        }
        let port = three.port;
        names.set_srv("_http._tcp.test", 1, &[(20, 1, port, "c.test"), (10, 3, port, "a.test"), (10, 1, port, "b.test")]);
        let engine =
            with(&names, Setup::new(driver)).to("srv:_http._tcp.test").pool_line("balance = \"round-robin\"\nretry.tries = 3").start();
        let mut client = engine.client();
        for _ in 0..40 {
            assert_eq!(client.get("/").status(), 200);
        }
        assert_eq!([0, 1, 2].map(|at| three.served(at)), [30, 10, 0]);
        // The first tier dies: the second one takes over, and no request that may be repeated is lost.
        three.origins.drain(..2);
        for _ in 0..40 {
            assert_eq!(client.get("/").status(), 200);
        }
        assert_eq!(three.served(2), 40);
    }

    /// What stays keeps its connections and its breaker, and what it has begun is finished even by what leaves.
    fn a_new_list_is_no_new_beginning(driver) {
        let names = Nameserver::start();
        let three = Hosts::start();
        let dead = Ipv4Addr::new(127, 0, 0, 99);
        names.set_a("web.test", 1, &[host(0), dead]);
        let engine = with(&names, Setup::new(driver))
            .to(&format!("web.test:{}", three.port))
            .pool_line("balance = \"round-robin\"\nbreaker.failures = 2\nbreaker.open_for = \"60s\"")
            .start();
        let mut client = engine.client();
        for _ in 0..10 {
            assert_eq!(client.get("/").status(), 200);
        }
        let before = engine.metrics();
        assert_eq!((before.sum("endpoint_breakers_open"), three.origins[0].accepted()), (1, 1));
        names.set_a("web.test", 1, &[host(0), host(1), dead]);
        until("it is found", PATIENCE, || engine.metrics().sum("discovery_endpoints") == 3);
        for _ in 0..10 {
            assert_eq!(client.get("/").status(), 200);
        }
        let after = engine.metrics();
        assert_eq!(after.sum("endpoint_breakers_open"), 1, "a breaker forgot");
        assert_eq!(after.since(&before, "endpoint_failures_total"), 0, "an endpoint with an open breaker was asked");
        assert_eq!(three.origins[0].accepted(), 1, "its connection was not kept");
        assert_eq!((three.served(0), three.served(1)), (15, 5));
        let slow = std::thread::spawn(move || {
            let answers: Vec<_> = (0..2).map(|_| client.get("/slow")).collect();
            answers.iter().map(harness::Message::status).collect::<Vec<_>>()
        });
        until("the slow ones have begun", PATIENCE, || engine.metrics().sum("endpoint_in_flight") == 1);
        names.set_a("web.test", 1, &[host(2)]);
        assert_eq!(slow.join().expect("a client without complaint"), [200, 200]);
        until("what left has no connection", PATIENCE, || three.origins[0].open() + three.origins[1].open() == 0);
    }

    /// An answer that is too long for a datagram comes over TCP.
    fn long_answers_come_by_stream(driver) {
        let names = Nameserver::start();
        let three = Hosts::start();
        names.cut_datagrams();
        names.set_a("web.test", 60, &[host(0)]);
        let engine = with(&names, Setup::new(driver)).to(&format!("web.test:{}", three.port)).start();
        assert_eq!(engine.client().get("/").status(), 200);
        assert!(names.questions().1 > 0);
        // `Host` is what the name says, whatever the endpoint is called.
        let endpoint = &engine.status()["pools"][0]["endpoints"][0]["address"];
        assert_eq!(endpoint, &format!("web.test:{}/{}", three.port, host(0)));
    }

    /// A server that says nothing keeps the start for a while and not for ever; when it speaks, the pool comes to life.
    fn it_starts_without_its_names(driver) {
        let names = Nameserver::start();
        let three = Hosts::start();
        names.mute(true);
        names.set_a("web.test", 1, &[host(0)]);
        let engine = with(&names, Setup::new(driver)).to(&format!("web.test:{}", three.port)).start();
        let mut client = engine.client();
        let refused = client.get("/");
        assert_eq!(refused.status(), 502, "{}", refused.text());
        names.mute(false);
        until("it serves", PATIENCE, || client.get("/").status() == 200);
        assert!(engine.err().contains("does not answer") || engine.err().contains("no answer within"), "{}", engine.err());
    }
}

/// Three origins on one port and different addresses, all of this host.
struct Hosts {
    port: u16,
    origins: Vec<Origin>,
    served: Vec<Arc<AtomicUsize>>,
}

fn host(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 11 + at as u8)
}

impl Hosts {
    fn start() -> Self {
        let (port, listeners) = (0..100)
            .find_map(|_| {
                let port = harness::free_address().port();
                let bind = |at| TcpListener::bind(SocketAddr::new(IpAddr::V4(host(at)), port)).ok();
                Some((port, (0..3).map(bind).collect::<Option<Vec<_>>>()?))
            })
            .expect("a port that is free on all of them");
        let served: Vec<_> = (0..3).map(|_| Arc::<AtomicUsize>::default()).collect();
        let origins = listeners.into_iter().zip(&served).map(|(listener, served)| {
            let served = served.clone();
            Origin::on(listener, move |peer| {
                while let Some(request) = peer.request() {
                    if request.target() == "/slow" {
                        std::thread::sleep(Duration::from_secs(2));
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                    if !peer.send(answer("hello")) {
                        return;
                    }
                }
            })
        });
        Self { port, origins: origins.collect(), served }
    }

    fn served(&self, at: usize) -> usize {
        self.served[at].load(Ordering::SeqCst)
    }

    /// Waits until each of these has served some more.
    #[track_caller]
    fn until_served<const N: usize>(&self, what: &str, wanted: [usize; N]) {
        let before = wanted.map(|at| self.served(at));
        until(&format!("{what} serve"), PATIENCE, || {
            wanted.iter().zip(before).all(|(&at, before)| self.served(at) >= before + 20)
        });
    }
}

/// Names come from this server, and are asked for as soon as their records say.
fn with(names: &Nameserver, setup: Setup) -> Setup {
    setup.engine_line(&format!("resolver = [\"{}\"]", names.address))
}

/// Clients that ask one request after the other, and bear no failure.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(engine: &Engine, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number: usize| {
            let (stop, address) = (stop.clone(), engine.address);
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut asked = 0;
                let begun = Instant::now();
                while !stop.load(Ordering::SeqCst) {
                    // Half of them may not be repeated: those a careless change of the list would lose first.
                    let request = if number.is_multiple_of(2) {
                        "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
                    } else {
                        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
                    };
                    let response = client.ask(request);
                    assert_eq!(response.status(), 200, "after {:?}: {}", begun.elapsed(), response.text());
                    asked += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                asked
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            assert!(client.join().expect("a client without complaint") > 0);
        }
    }
}
