//! What is tried again, and what is not: content sent twice, statuses, silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Origin, Setup, answer, on_each_driver, pattern};

/// Round robin and no breaker: every second first try goes to the bad one, as long as it is there.
const LINES: &str = "balance = \"round-robin\"\nbreaker.failures = 0\nretry.budget = \"100%\"";

on_each_driver! {
    /// An origin that takes a request in and breaks off: the next one gets all of it, from the first byte.
    fn content_is_sent_again_in_full(driver) {
        let bad = Origin::start(|peer| {
            peer.request();
            peer.reset();
        });
        let good = Origin::answering(|request| Some(answer(&request.body)));
        let engine = Setup::new(driver).origin(&bad).origin(&good).pool_line(LINES).start();
        let mut client = engine.client();
        for size in [1, 100, 5_000, 60_000] {
            for _ in 0..4 {
                let content = pattern(7, size);
                let framed = [format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").into_bytes(), content.clone()];
                let response = client.ask(framed.concat());
                assert_eq!((response.status(), response.body == content), (200, true), "PUT of {size} bytes");
                let chunks = [format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n").into_bytes(), content.clone(), b"\r\n0\r\n\r\n".to_vec()];
                let response = client.ask(chunks.concat());
                assert_eq!((response.status(), response.body == content), (200, true), "PUT of a chunk of {size} bytes");
            }
        }
        assert!(bad.accepted() >= 8, "the bad origin was asked {} times", bad.accepted());
    }

    /// More content than is kept cannot be sent again, and less than that no more than once if the method forbids it.
    fn what_is_not_kept_is_not_sent_again(driver) {
        let bad = Origin::start(|peer| {
            peer.request();
            peer.reset();
        });
        let good = Origin::answering(|request| Some(answer(&request.body)));
        let engine = Setup::new(driver)
            .origin(&bad)
            .origin(&good)
            .pool_line(LINES)
            .pool_line("retry.buffer = \"1KiB\"")
            .start();
        let mut client = engine.client();
        for (method, size, repeated) in [("PUT", 1_024, true), ("PUT", 1_025, false), ("POST", 10, false)] {
            let content = pattern(7, size);
            let mut lost = 0;
            for _ in 0..6 {
                let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
                let response = client.ask([head.into_bytes(), content.clone()].concat());
                assert!([200, 502].contains(&response.status()), "{}", response.status());
                assert!(response.status() == 502 || response.body == content);
                lost += usize::from(response.status() == 502);
                if response.is_closing() {
                    client = engine.client();
                }
            }
            assert_eq!(lost == 0, repeated, "{method} of {size} bytes: {lost} of 6 lost");
        }
    }

    /// An answer that says "not here" is for the next endpoint, however long it is; only a request that may not be sent twice
    /// gets it, and so does one that meets nothing else.
    fn statuses_are_tried_elsewhere(driver) {
        for size in [0, 1_000, 300_000] {
            let busy = Origin::answering(move |_| {
                let head = format!("HTTP/1.1 503 Busy\r\nContent-Length: {size}\r\n\r\n");
                Some([head.into_bytes(), vec![b'x'; size]].concat())
            });
            let good = Origin::standard();
            let engine = Setup::new(driver).origin(&busy).origin(&good).pool_line(LINES).start();
            let mut client = engine.client();
            for number in 0..10 {
                assert_eq!(client.get("/").status(), 200, "GET {number}, answers of {size} bytes");
            }
            let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
            let refused = (0..10).filter(|_| engine.client().ask(post).status() == 503).count();
            assert!((3..=7).contains(&refused), "{refused} of 10 POSTs");
        }
        // What is left of an answer that nobody gets does not mix with the one that is passed on.
        let trailed = "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\nX-Trailer: busy\r\nX-Other: busy\r\n\r\n";
        let busy = Origin::answering(move |_| Some(trailed.as_bytes().to_vec()));
        let plain = "HTTP/1.1 200 OK\r\nX-Good: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Better: 2\r\nContent-Length: 4\r\n\r\ngood";
        let good = Origin::answering(move |_| Some(plain.as_bytes().to_vec()));
        let engine = Setup::new(driver).origin(&busy).origin(&good).pool_line(LINES).start();
        for number in 0..6 {
            let response = engine.client().get("/");
            let fields = ["x-good", "x-better", "x-hop", "x-trailer"].map(|name| response.field(name));
            assert_eq!((response.text().as_str(), fields), ("good", [Some("1"), Some("2"), None, None]), "GET {number}");
        }
        let busy = Origin::answering(|_| Some(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec()));
        let engine = Setup::new(driver).origin(&busy).pool_line(LINES).start();
        assert_eq!((engine.client().get("/").status(), engine.client().get("/").text()), (503, "busy".to_owned()));
    }

    /// Who asks to be left alone for a second is; and who asks for longer than `retry_after_max` has its answer passed on, with what it asks for.
    fn an_endpoint_that_asks_for_time_gets_it(driver) {
        for (asked, lines, waits) in [("1", "", true), ("2", "", false), ("2", "retry.retry_after_max = \"2s\"", true)] {
            let head = format!("HTTP/1.1 503 Busy\r\nRetry-After: {asked}\r\nContent-Length: 4\r\n\r\nbusy");
            let asked_for = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked_for);
            let busy = Origin::answering(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Some(head.clone().into_bytes())
            });
            let good = Origin::standard();
            let engine =
                Setup::new(driver).origin(&busy).origin(&good).pool_line(LINES).pool_line(lines).start();
            let mut client = engine.client();
            let (mut waited, mut passed) = (0, 0);
            for number in 0..4 {
                let (before, begun) = (asked_for.load(Ordering::SeqCst), Instant::now());
                let response = client.get("/");
                let secs = begun.elapsed().as_secs_f64();
                if asked_for.load(Ordering::SeqCst) == before {
                    assert_eq!(response.status(), 200, "GET {number}, of the good one");
                } else if waits {
                    assert_eq!(response.status(), 200, "GET {number}, elsewhere in the end");
                    let wanted: f64 = asked.parse().expect("written here");
                    assert!((wanted..wanted + 1.0).contains(&secs), "{secs} s where {asked} were asked for");
                    waited += 1;
                } else {
                    assert_eq!((response.status(), response.field("retry-after")), (503, Some(asked)));
                    assert!(secs < 1.0, "{secs} s for an answer that is passed on");
                    passed += 1;
                }
            }
            assert!(waited + passed >= 1 && (waited > 0) == waits, "{waited} waited, {passed} passed on");
        }
    }

    /// What an endpoint has answered is passed on when nobody does better: no error of ours stands in its place. Its content is all there, also where
    /// the next one breaks off, or is not there.
    fn an_answer_is_held_until_there_is_a_better_one(driver) {
        for size in [4, 300_000] {
            let busy = Origin::answering(move |_| {
                let head = format!("HTTP/1.1 503 Busy\r\nX-Whose: busy\r\nContent-Length: {size}\r\n\r\n");
                Some([head.into_bytes(), pattern(3, size)].concat())
            });
            let breaks = Origin::start(|peer| {
                peer.request();
                peer.reset();
            });
            for gone in [false, true] {
                let setup = Setup::new(driver).origin(&busy);
                let setup = if gone { setup.to(&harness::free_address().to_string()) } else { setup.origin(&breaks) };
                let engine = setup.pool_line(LINES).pool_line("retry.tries = 2").start();
                let mut client = engine.client();
                for number in 0..6 {
                    let response = client.get("/");
                    assert_eq!((response.status(), response.field("x-whose")), (503, Some("busy")), "GET {number}, gone: {gone}");
                    assert!(response.body == pattern(3, size), "GET {number}: {} of {size} bytes", response.body.len());
                }
                let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000));
                assert!([502, 503].contains(&engine.client().ask(put).status()), "too long to be sent again");
                let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 7000\r\n\r\n{}", "x".repeat(7_000));
                (0..4).for_each(|_| assert_eq!(engine.client().ask(&*put).field("x-whose"), Some("busy")));
                drop(client);
                engine.until_idle();
            }
        }
    }

    /// Where an endpoint takes one connection and no other endpoint is there, the answer that is held makes room for the next try: on its connection
    /// where it is here as a whole, else on a new one.
    fn the_only_connection_is_tried_again(driver) {
        for size in [0, 1_000, 300_000] {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let origin = Origin::answering(move |_| {
                let busy = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                let head = format!("HTTP/1.1 503 Busy\r\nContent-Length: {size}\r\n\r\n");
                Some(if busy { [head.into_bytes(), vec![b'x'; size]].concat() } else { answer(b"good") })
            });
            let engine = Setup::new(driver)
                .origin(&origin)
                .pool_line(LINES)
                .pool_line("limits = { connections = 1 }\nretry.backoff = \"1ms\"")
                .start();
            let mut client = engine.client();
            for number in 0..6 {
                let response = client.get("/");
                assert_eq!((response.status(), response.text().as_str()), (200, "good"), "GET {number}, {size} bytes");
            }
            assert_eq!((asked.load(Ordering::SeqCst), engine.metrics().sum("retries_total")), (12, 6), "{size} bytes");
            assert!(size > 1_000 || origin.accepted() == 1, "{} connections, {size} bytes", origin.accepted());
            drop(client);
            engine.until_idle();
        }
    }

    /// However little its tries count for, a request is sent six times at the most.
    fn a_request_is_sent_so_often_and_no_more(driver) {
        let asked = Arc::new(AtomicUsize::new(0));
        let busy: Vec<Origin> = (0..9)
            .map(|_| {
                let count = Arc::clone(&asked);
                Origin::answering(move |_| {
                    count.fetch_add(1, Ordering::SeqCst);
                    Some(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec())
                })
            })
            .collect();
        let setup = busy.iter().fold(Setup::new(driver), |setup, origin| setup.origin(origin));
        let engine = setup.pool_line(LINES).pool_line("retry.tries = 4\nretry.backoff = \"1ms\"").start();
        let mut client = engine.client();
        let mut most = 0;
        for _ in 0..12 {
            let before = asked.load(Ordering::SeqCst);
            assert_eq!(client.get("/").status(), 503);
            most = most.max(asked.load(Ordering::SeqCst) - before);
        }
        // Once all are known to fail, three of seven tries would not count.
        assert_eq!(most, 6);
    }

    /// Tries that reach nobody are excused, three of them: nobody has seen the request.
    fn nobody_there_costs_no_tries_up_to_a_bound(driver) {
        for (tries, wanted) in [(1, 0), (3, 5), (4, 6)] {
            let setup = (0..9).fold(Setup::new(driver), |setup, _| setup.to(&harness::free_address().to_string()));
            let engine = setup.pool_line(LINES).pool_line(&format!("retry.tries = {tries}")).start();
            assert_eq!(engine.client().get("/").status(), 502);
            assert_eq!(engine.metrics().sum("retries_total"), wanted, "{tries} tries");
        }
    }

    /// An origin that takes requests and says nothing holds a request up for its pool's patience, and not for the minute that an
    /// answer may take; what may not be sent twice waits on.
    fn silence_is_left_for_another_endpoint(driver) {
        let mute = Origin::start(|peer| {
            peer.request();
            std::thread::sleep(Duration::from_secs(120));
        });
        let good = Origin::standard();
        let engine = Setup::new(driver).origin(&mute).origin(&good).pool_line(LINES).start();
        let mut client = engine.client();
        let begun = Instant::now();
        for number in 0..6 {
            assert_eq!(client.get("/").status(), 200, "GET {number}");
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?} for six requests", begun.elapsed());
        assert!(engine.metrics().sum("retries_total") >= 2);
    }

    /// More requests meet silence than the budget has retries for: the others leave it as soon as there are some again, and not when the minute
    /// that an answer may take is over.
    fn silence_is_left_when_there_is_a_retry_again(driver) {
        let mute = Origin::start(|peer| {
            peer.request();
            std::thread::sleep(Duration::from_secs(120));
        });
        let good = Origin::standard();
        let lines = LINES.replace("retry.budget = \"100%\"", "");
        let engine = Setup::new(driver).origin(&mute).origin(&good).pool_line(&lines).start();
        let begun = Instant::now();
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let mut client = engine.client();
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                client
            })
            .collect();
        for mut client in clients {
            assert_eq!(client.response(false).expect("an answer").status(), 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
        let metrics = engine.metrics();
        let (granted, refused) = (metrics.sum("retries_total"), metrics.sum("retries_refused_total"));
        // Half of them met silence; thirty retries are what ten seconds have at the least. Each that waits is counted once.
        assert!(granted <= 51 && (1..=granted - 30).contains(&refused), "{granted} granted, {refused} refused");
    }

    /// What may not be sent twice waits for an endpoint that hangs as long as that may be alive, and no longer: once it lets nobody in and those that
    /// ask it all the same, a request or a probe, get no answer either, the client is told.
    fn nobody_waits_for_the_dead(driver) {
        let probes = "health.http = \"/health\"\nhealth.every = \"500ms\"\nhealth.timeout = \"300ms\"";
        for (line, asks) in [("", true), (probes, false)] {
            let (stuck, posts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let (sticks, counted) = (Arc::clone(&stuck), Arc::clone(&posts));
            let dying = Origin::answering(move |request| {
                counted.fetch_add(usize::from(request.method() == "POST"), Ordering::SeqCst);
                if sticks.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_secs(120));
                }
                Some(answer(b"well"))
            });
            let good = Origin::answering(|_| Some(answer(b"good")));
            let setup = Setup::new(driver).origin(&dying).origin(&good).pool_line("balance = \"round-robin\"");
            let engine = setup.pool_line("timeout.silent = \"1s\"").pool_line(line).start();
            let mut client = engine.client();
            (0..100).for_each(|_| assert_eq!(client.get("/").status(), 200));
            stuck.store(true, Ordering::SeqCst);
            let begun = Instant::now();
            let mut waiting: Vec<_> = (0..4).map(|_| engine.client()).collect();
            waiting.iter_mut().for_each(|client| client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
            let over = Arc::new(AtomicBool::new(false));
            std::thread::scope(|scope| {
                if asks {
                    scope.spawn(|| while !over.load(Ordering::SeqCst) {
                        assert_eq!(client.get("/").status(), 200);
                        std::thread::sleep(Duration::from_millis(5));
                    });
                }
                let answers: Vec<_> = waiting.iter_mut().map(|client| client.response(false).expect("an answer")).collect();
                over.store(true, Ordering::SeqCst);
                let told = answers.iter().filter(|answer| answer.status() == 504 && answer.text().contains("stopped answering"));
                assert_eq!((told.count(), posts.load(Ordering::SeqCst)), (2, 2), "those at the dead one, and nobody twice");
            });
            assert!((Duration::from_secs(1)..Duration::from_secs(30)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        }
    }

    /// An endpoint that stood still for a while, long enough for nothing to be sent there any more, and that is back: what takes long there takes long.
    fn who_is_back_is_waited_for(driver) {
        let stuck = Arc::new(AtomicBool::new(false));
        let sticks = Arc::clone(&stuck);
        let dozing = Origin::answering(move |request| {
            if request.method() == "POST" {
                std::thread::sleep(Duration::from_secs(6));
            }
            while sticks.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            Some(answer(b"done"))
        });
        let good = Origin::answering(|_| Some(answer(b"good")));
        let setup = Setup::new(driver).origin(&dozing).origin(&good).pool_line("balance = \"round-robin\"");
        let engine = setup.pool_line("timeout.silent = \"2s\"").start();
        let mut client = engine.client();
        (0..100).for_each(|_| assert_eq!(client.get("/").status(), 200));
        stuck.store(true, Ordering::SeqCst);
        let mut waiting: Vec<_> = (0..4).map(|_| engine.client()).collect();
        waiting.iter_mut().for_each(|client| client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
        while engine.metrics().sum("retries_total") < 5 {
            assert_eq!(client.get("/").status(), 200);
        }
        stuck.store(false, Ordering::SeqCst);
        let over = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| while !over.load(Ordering::SeqCst) {
                assert_eq!(client.get("/").status(), 200);
                std::thread::sleep(Duration::from_millis(5));
            });
            let done: Vec<_> = waiting.iter_mut().map(|client| client.response(false).expect("an answer").status()).collect();
            assert_eq!(done, [200; 4]);
            over.store(true, Ordering::SeqCst);
        });
    }

    /// An origin that answers before it was asked in full, and then stands still: the answer is cut when its idle time is over.
    fn an_early_answer_that_stands_still_is_cut(driver) {
        let early = || Origin::start(|peer| {
            let Ok(_) = peer.wire.head() else { return };
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            std::thread::sleep(Duration::from_secs(30));
        });
        let origins = [early(), early()];
        let engine = Setup::new(driver)
            .origin(&origins[0])
            .origin(&origins[1])
            .pool_line(LINES)
            .pool_line("timeout.idle = \"1s\"")
            .start();
        let mut client = engine.client();
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
        assert_eq!(client.head().expect("a head").status(), 200);
        // The rest of the request leaves after the answer has begun.
        client.send("67890");
        let begun = Instant::now();
        let (body, end) = client.rest();
        assert_eq!((body.as_slice(), end), (&b"half"[..], harness::End::Reset));
        assert!(begun.elapsed() < Duration::from_secs(10), "cut after {:?}", begun.elapsed());
        engine.until_idle();
    }
}
