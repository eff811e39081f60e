//! Who takes their time: clients that send slowly or read slowly, origins that answer slowly or not at all, and who hangs up.

use std::time::{Duration, Instant};

use harness::{Cut, Driver, End, Origin, Setup, answer, on_each_driver, pattern};

const SHORT: Duration = Duration::from_millis(300);

on_each_driver! {
    /// Slow-loris: a byte now and then does not buy time.
    fn a_head_that_takes_too_long_is_refused(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.head = \"300ms\"").start();
        let mut client = engine.client().within(Duration::from_millis(25));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n");
        let begun = Instant::now();
        let mut ended = false;
        while !ended && begun.elapsed() < Duration::from_secs(5) {
            let _ = client.try_send("X");
            match client.fill() {
                Ok(0) => ended = true,
                Ok(_) => {}
                Err(error) => ended = error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
        let taken = begun.elapsed();
        assert!(ended && taken < Duration::from_secs(3), "it is still open after {taken:?}");
        assert!(taken > SHORT - Duration::from_millis(50), "after {taken:?} already");
        let answer = String::from_utf8_lossy(&client.unread).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(origin.accepted(), 0, "half a request went on");
        engine.until_idle();
    }

    /// The same without a single byte: there is nobody to answer.
    fn a_client_that_says_nothing_is_let_go(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.head = \"300ms\"").start();
        let begun = Instant::now();
        let (bytes, end) = engine.client().rest();
        assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "), "{}", bytes.escape_ascii());
        assert_ne!(end, End::Silent);
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    /// A byte of content now and then does not buy time either, however often; who sends what was asked of it may take all day, and
    /// what an endpoint does not take in is not the client's fault.
    fn content_that_trickles_is_refused(driver) {
        let origin = Origin::start(|peer| {
            let Ok(head) = peer.wire.head() else { return };
            if head.target() == "/late" {
                std::thread::sleep(Duration::from_secs(7));
            }
            let length = head.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if peer.wire.take(length).is_ok() {
                peer.send(answer("taken"));
            }
        });
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.body_rate = \"100B/s\"").start();
        let sends = |path: &str, length: usize, piece: usize| {
            let mut client = engine.client().within(Duration::from_secs(20));
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            std::thread::spawn(move || {
                let begun = Instant::now();
                client.send(head);
                for _ in 0..length / piece {
                    if client.try_send(vec![b'x'; piece]).is_err() || piece < 100 && begun.elapsed() > Duration::from_secs(12) {
                        break;
                    }
                    if piece < 1_000 {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
                let status = client.response(false).map(|response| response.status());
                (status.ok(), begun.elapsed())
            })
        };
        // Ten bytes a second; two hundred, for seven seconds; and as much as there is, to who does not read for seven.
        let [trickle, steady, late] = [sends("/", 10_000, 1), sends("/", 1_400, 20), sends("/late", 4 << 20, 4 << 20)];
        let (status, taken) = trickle.join().expect("a client");
        assert!(status.is_none_or(|status| status == 408), "{status:?}");
        assert!((Duration::from_secs(4)..Duration::from_secs(11)).contains(&taken), "after {taken:?}");
        assert_eq!(steady.join().expect("a client").0, Some(200));
        assert_eq!(late.join().expect("a client").0, Some(200));
    }

    fn an_idle_connection_is_closed_after_keep_alive(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.keep_alive = \"300ms\"").start();
        let mut client = engine.client();
        for _ in 0..3 {
            client.get("/");
            std::thread::sleep(Duration::from_millis(100));
        }
        client.get("/");
        let begun = Instant::now();
        let (bytes, end) = client.rest();
        assert!(bytes.is_empty() && end == End::Closed, "{end:?} {}", bytes.escape_ascii());
        assert!((SHORT / 2..Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        engine.until_idle();
    }

    fn content_that_does_not_come_is_not_waited_for(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.body = \"300ms\"").start();
        let mut client = engine.client();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbeginning");
        let begun = Instant::now();
        match client.response(false) {
            Ok(response) => assert!([408, 504, 502].contains(&response.status()), "{}", response.start),
            Err(cut) => assert!(matches!(cut, Cut::Closed(0) | Cut::Reset(0)), "{cut}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_ne!(client.rest().1, End::Silent);
        engine.until_idle();
    }

    /// Slow, but moving: each piece comes within the time that a piece may take.
    fn slow_content_arrives(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.body = \"1s\"").start();
        let mut client = engine.client();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n");
        for byte in pattern(1, 30) {
            client.send([byte]);
            std::thread::sleep(Duration::from_millis(40));
        }
        assert_eq!(client.response(false).expect("a response").body, pattern(1, 30));
    }

    fn an_origin_that_does_not_answer_is_a_504(driver) {
        let origin = Origin::start(|peer| _ = peer.wait_for_end());
        let engine = Setup::new(driver).origin(&origin).pool_line("timeout.head = \"300ms\"").start();
        let mut client = engine.client();
        for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"] {
            let begun = Instant::now();
            let response = client.ask(request);
            assert_eq!(response.status(), 504);
            assert!((SHORT / 2..Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        }
        engine.until_metric("requests_open", 0);
        harness::until("the origin's connections are closed", harness::PATIENCE, || origin.open() == 0);
    }

    fn a_route_has_its_own_patience(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .pool_line("timeout.head = \"200ms\"")
            .more("[[route]]\npath = \"/slow/*\"\npool = \"origins\"\ntimeout.head = \"5s\"")
            .start();
        let mut client = engine.client();
        assert_eq!(client.get("/slow/500").status(), 200);
        assert_eq!(client.get("/").status(), 200);
    }

    fn an_answer_that_stops_is_cut(driver) {
        let origin = Origin::start(|peer| {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbeginning");
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).pool_line("timeout.idle = \"300ms\"").start();
        let mut client = engine.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let begun = Instant::now();
        let cut = client.response(false).expect_err("it is not whole");
        assert!(matches!(cut, Cut::Closed(_) | Cut::Reset(_)), "{cut}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        engine.until_idle();
        harness::until("the origin's connection is closed", harness::PATIENCE, || origin.open() == 0);
    }

    fn a_slow_reader_gets_everything(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        let length = 2 << 20;
        let mut client = engine.client();
        let _ = socket2::SockRef::from(&client.stream).set_recv_buffer_size(64 << 10);
        client.send(format!("GET /bytes/{length} HTTP/1.1\r\nHost: a\r\n\r\n"));
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(30));
            client.fill().expect("more comes");
        }
        assert!(client.response(false).expect("all of it").body == pattern(length as u64, length));
    }

    /// Who has said everything may still listen.
    fn a_client_that_half_closes_gets_its_response(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        for path in ["/", "/slow/200", "/bytes/3000000", "/chunked/100000"] {
            let mut client = engine.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\nGET /bytes/7 HTTP/1.1\r\nHost: a\r\n\r\n"));
            client.half_close();
            assert_eq!(client.response(false).unwrap_or_else(|cut| panic!("{path}: {cut}")).status(), 200);
            assert_eq!(client.response(false).unwrap_or_else(|cut| panic!("{path}, second: {cut}")).body, pattern(7, 7));
            assert_eq!(client.rest(), (Vec::new(), End::Closed), "{path}");
        }
        let mut client = engine.client();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        client.half_close();
        assert_eq!(client.response(false).expect("a response").text(), "hello");
        engine.until_idle();
    }

    /// A client that goes away takes its request with it: the origin is not left to work for nobody.
    fn an_origin_is_told_that_the_client_has_gone(driver) {
        let origin = Origin::start(|peer| {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while peer.send("5\r\nhello\r\n") {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.fill().expect("the beginning of a response");
        client.reset();
        harness::until("the origin's connection is closed", harness::PATIENCE, || origin.open() == 0);
        engine.until_idle();
    }

    fn a_refused_connection_is_a_502_and_a_silent_one_a_504(driver) {
        let nobody = harness::free_address();
        let engine = Setup::new(driver).to(&nobody.to_string()).start();
        assert_eq!(engine.client().get("/").status(), 502);
        // A full backlog drops what comes: that is an endpoint that does not accept in time.
        let listener = full_backlog();
        let full = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        let engine = Setup::new(driver).to(&full.to_string()).pool_line("timeout.connect = \"300ms\"").start();
        let begun = Instant::now();
        assert_eq!(engine.client().get("/").status(), 504);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}

/// A listener that accepts nobody, and has as many waiting as it will ever have.
fn full_backlog() -> socket2::Socket {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).and_then(|()| listener.listen(0)).expect("a listener");
    let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        // Kept for as long as the process lives.
        std::mem::forget(stream);
    }
    listener
}

on_each_driver! {
    /// Tools of others: slowhttptest's slow headers, against the head timeout.
    fn slowhttptest_does_not_keep_others_out(driver) {
        slowhttptest(driver);
    }
}

fn slowhttptest(driver: Driver) {
    if xtask::place::program("slowhttptest").is_none() {
        println!("not available here: slowhttptest");
        return;
    }
    let origin = Origin::answering(|_| Some(answer("hello\n")));
    let engine = Setup::new(driver).origin(&origin).listen_line("timeout.head = \"1s\"").start();
    let url = format!("http://{}/", engine.address);
    let attack = std::thread::spawn(move || {
        let args = ["-H", "-c", "500", "-r", "500", "-i", "1", "-l", "4", "-x", "24", "-u", &url];
        harness::Tool::new("slowhttptest", 20).args(args).run()
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        assert_eq!(engine.client().get("/").text(), "hello\n");
        assert!(asked.elapsed() < Duration::from_secs(1), "others wait {:?}", asked.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = attack.join();
    engine.until_idle();
}
