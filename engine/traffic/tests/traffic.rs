//! Load against origins over the real drivers: what is counted is what happened.

use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use ring::{Address, Buf, DriverChoice, ListenOptions, Listener, Options, Ring, SpinPolicy};
use traffic::{Extent, Failure, Live, Load, Mode, Origin, Report, Served};

const LONG: Duration = Duration::from_secs(20);

fn on_each_driver(test: impl AsyncFn() + Copy + 'static) {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        let ring =
            Ring::new(Options { driver: driver.clone(), spin: SpinPolicy::Auto }).expect("both drivers are granted");
        let done = ring.block_on(async move { ring::until(ring::now() + LONG, test()).await });
        assert!(done.is_some(), "{driver:?} hangs");
        for _ in 0..400 {
            if ring.block_on(async { ring::counts().streams }) == 0 {
                break;
            }
            ring.block_on(ring::sleep(Duration::from_millis(5)));
        }
        let counts = ring.block_on(async { ring::counts() });
        assert_eq!((counts.streams, counts.panics), (0, 0), "{driver:?} keeps streams open, or a task panicked");
    }
}

fn origin() -> Origin {
    Origin::new(loopback())
}

fn loopback() -> Address {
    Address::Inet("127.0.0.1:0".parse().unwrap())
}

/// Runs `plan`, changed for the origin's address, against `origin` until it ends.
async fn against(origin: Origin, plan: impl FnOnce(&mut Load)) -> (Report, Rc<Served>) {
    let served = Rc::clone(&origin.served);
    let (address, service) = origin.bind().unwrap();
    let mut load = Load { connections: 8, extent: Extent::Requests(400), verify: true, ..Load::new(address) };
    plan(&mut load);
    let mut report = None;
    let run = async { report = Some(load.run().await) };
    either(service, run).await;
    (report.expect("the origin does not end first"), served)
}

/// Polls both; ends with the second.
async fn either(first: impl Future, second: impl Future) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    std::future::poll_fn(|cx| {
        let _ = first.as_mut().poll(cx).is_ready();
        second.as_mut().poll(cx).map(drop)
    })
    .await;
}

#[test]
fn every_size_arrives_whole() {
    on_each_driver(async || {
        for (bytes, requests) in [(0, 400), (100, 4_000), (16 << 10, 400), ((64 << 10) + 1, 100), (1 << 20, 64)] {
            let (report, served) = against(origin(), |load| {
                load.path = format!("/b/{bytes}");
                load.body_bytes = Some(bytes);
                load.extent = Extent::Requests(requests);
            })
            .await;
            assert_eq!((report.requests, report.errors.total()), (requests, 0), "{bytes}: {:?}", report.errors);
            assert_eq!((report.bytes, served.requests.get()), (requests * bytes, requests));
            assert_eq!((report.connects, report.latency.len()), (8, requests));
            assert_eq!(report.statuses, [(200, requests)]);
        }
    });
}

#[test]
fn an_open_loop_keeps_its_rate() {
    on_each_driver(async || {
        let (report, _) = against(origin(), |load| {
            load.mode = Mode::Open { rate: 2_000.0 };
            load.extent = Extent::Time(Duration::from_millis(500));
            load.warmup = Duration::from_millis(100);
        })
        .await;
        assert!((999..=1_001).contains(&report.requests) && report.errors.total() == 0, "{report}");
        // Neither the wheel's tick nor the pacer shows in the middle of the distribution.
        assert!(report.quantile(0.5) < Duration::from_millis(20), "{report}");
    });
}

#[test]
fn an_open_loop_charges_for_waiting() {
    on_each_driver(async || {
        // 50 requests/s are due and 10/s can be answered: a closed loop would report 100 ms.
        let slow = Origin { delay: Some(Duration::from_millis(100)), ..origin() };
        let (report, _) = against(slow, |load| {
            load.connections = 1;
            load.mode = Mode::Open { rate: 50.0 };
            load.extent = Extent::Time(Duration::from_secs(1));
            load.grace = Duration::from_millis(300);
        })
        .await;
        assert_eq!(report.requests + report.errors.unanswered, 50, "{report} {:?}", report.errors);
        assert!((5..20).contains(&report.requests), "{report}");
        assert!(report.quantile(0.5) > Duration::from_millis(500), "{report}");
        assert!(report.quantile(1.0) > Duration::from_millis(1_000), "{report}");
    });
}

#[test]
fn a_connection_per_request() {
    on_each_driver(async || {
        let (report, served) = against(origin(), |load| load.connection_per_request = true).await;
        assert_eq!((report.requests, report.errors.total(), report.connects), (400, 0, 400), "{:?}", report.errors);
        assert_eq!(served.connections.get(), 400);
        // The same when the origin is the one that wants it.
        let (report, served) = against(Origin { keep_alive: false, ..origin() }, |_| {}).await;
        assert_eq!((report.requests, report.errors.total(), served.connections.get()), (400, 0, 400));
    });
}

#[test]
fn failures_are_counted_by_kind() {
    on_each_driver(async || {
        let failing = Origin { fail_every: Some(10), ..origin() };
        let (report, served) = against(failing.clone(), |_| {}).await;
        assert_eq!((report.requests, report.errors.status, report.errors.total()), (360, 40, 40));
        assert_eq!((served.failures.get(), report.statuses.len(), report.connects), (40, 2, 8));

        let failing = Origin { failure: Failure::Reset, served: Rc::default(), ..failing };
        let (report, _) = against(failing, |_| {}).await;
        assert_eq!((report.requests, report.errors.reset, report.errors.total()), (360, 40, 40));

        let (report, _) = against(origin(), |load| load.body_bytes = Some(99)).await;
        assert_eq!((report.requests, report.errors.corrupt), (0, 400));

        let silent = Origin { delay: Some(Duration::from_secs(5)), ..origin() };
        let (report, _) = against(silent, |load| {
            load.extent = Extent::Requests(16);
            load.timeout = Duration::from_millis(50);
        })
        .await;
        assert_eq!((report.requests, report.errors.timeout, report.errors.total()), (0, 16, 16));
        assert!(report.quantile(0.0) >= Duration::from_millis(49), "{report}");

        let nobody = Listener::bind(&loopback(), &ListenOptions::default()).unwrap().local().unwrap();
        let report = Load { connections: 2, extent: Extent::Requests(6), ..Load::new(nobody) }.run().await;
        assert_eq!((report.requests, report.errors.connect, report.errors.total()), (0, 6, 6));
    });
}

#[test]
fn no_http_is_malformed_and_no_end_is_unanswered() {
    on_each_driver(async || {
        for (words, malformed) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", true),
            ("SSH-2.0-OpenSSH\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", false),
        ] {
            let mut listener = Listener::bind(&loopback(), &ListenOptions::default()).unwrap();
            let address = listener.local().unwrap();
            let speaker = async {
                loop {
                    let mut stream = listener.accept().await.unwrap();
                    ring::spawn(async move {
                        if let Ok(Some(_)) = stream.recv().await {
                            stream.send(Buf::copy_of(words.as_bytes()));
                            while let Ok(Some(_)) = stream.recv().await {}
                        }
                    });
                }
            };
            let load = Load {
                connections: 2,
                extent: Extent::Requests(4),
                timeout: Duration::from_millis(100),
                ..Load::new(address)
            };
            let mut report = None;
            either(speaker, async { report = Some(load.run().await) }).await;
            let report = report.unwrap();
            let errors = if malformed { report.errors.malformed } else { report.errors.timeout };
            assert_eq!((report.requests, errors, report.errors.total()), (0, 4, 4), "{words:?}: {:?}", report.errors);
        }
    });
}

#[test]
fn heads_and_posts() {
    on_each_driver(async || {
        let (report, _) = against(origin(), |load| load.method = "HEAD".to_owned()).await;
        assert_eq!((report.requests, report.errors.total(), report.bytes), (400, 0, 0));
        for bytes in [0, 5_000, 600_000] {
            let (report, served) = against(origin(), |load| {
                load.method = "POST".to_owned();
                load.body = Some(vec![b'x'; bytes]);
                load.extent = Extent::Requests(50);
            })
            .await;
            assert_eq!((report.requests, report.errors.total()), (50, 0), "{bytes}: {:?}", report.errors);
            assert_eq!((served.connections.get(), served.malformed.get()), (8, 0));
        }
    });
}

#[test]
fn an_origin_understands_chunks_pipelines_and_expectations() {
    on_each_driver(async || {
        let (address, service) = Origin { body_bytes: 3, ..origin() }.bind().unwrap();
        let text = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n4\r\nbody\r\n0\r\n\r\n\
            GET /b/1 HTTP/1.1\r\nHost: x\r\n\r\nHEAD /b/70000 HTTP/1.1\r\nHost: x\r\n\r\n\
            GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let talk = async {
            // In one piece, and byte by byte.
            for piece in [text.len(), 1] {
                let mut stream = ring_connect(&address).await;
                for piece in text.chunks(piece) {
                    stream.send(Buf::copy_of(piece));
                    stream.sent(0).await.unwrap();
                }
                let mut answers = Vec::new();
                while let Some(buf) = stream.recv().await.unwrap() {
                    answers.extend_from_slice(buf.bytes());
                }
                let answers = String::from_utf8(answers).unwrap();
                assert!(answers.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answers}");
                assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
                assert!(answers.contains("content-length: 70000\r\n\r\nHTTP/1.1 200 OK"), "{answers}");
                assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
            }
        };
        either(service, talk).await;
    });
}

async fn ring_connect(address: &Address) -> ring::Stream {
    ring::Stream::connect(address).await.unwrap()
}

#[test]
fn a_load_can_be_watched_stopped_and_dropped() {
    on_each_driver(async || {
        let (address, service) = origin().bind().unwrap();
        let load = Load { connections: 4, extent: Extent::Time(Duration::from_secs(60)), ..Load::new(address) };
        let watched = async {
            let live = Live::new();
            let mut report = None;
            let watch = async {
                ring::sleep(Duration::from_millis(100)).await;
                let first = live.snapshot();
                assert!(first.requests > 10 && first.rate > 100.0, "{first:?}");
                ring::sleep(Duration::from_millis(100)).await;
                live.stop();
                std::future::pending::<()>().await;
            };
            either(watch, async { report = Some(load.run_live(&live).await) }).await;
            let report = report.unwrap();
            assert!(report.requests > 20 && report.errors.total() == 0, "{report}");
            assert!(report.elapsed < Duration::from_secs(2), "{report}");
            assert_eq!(report.latency.len(), report.requests);

            let mut twice = report.clone();
            twice.merge(&report);
            assert_eq!((twice.requests, twice.elapsed), (2 * report.requests, report.elapsed));

            // Dropped in the middle: the streams close, which `on_each_driver` checks.
            assert!(ring::until(ring::now() + Duration::from_millis(50), load.run()).await.is_none());
        };
        either(service, watched).await;
    });
}

#[test]
fn nginx_is_understood() {
    let folder = std::env::temp_dir().join(format!("penstock-traffic-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let root = folder.display();
    std::fs::write(folder.join("big"), vec![b'x'; 1 << 20]).unwrap();
    std::fs::write(
        folder.join("conf"),
        format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/log; events {{}}\n\
             http {{ access_log off; keepalive_requests 50; server {{ listen 127.0.0.1:{port}; root {root};\n\
             location = /small {{ return 200 hello; }} }} }}"
        ),
    )
    .unwrap();
    let started = std::process::Command::new("nginx").arg("-p").arg(&folder).arg("-c").arg(folder.join("conf")).spawn();
    let Ok(mut nginx) = started else {
        let _ = writeln!(std::io::stderr(), "skipped: nginx is not installed (apt-get install nginx)");
        return;
    };
    let address = Address::Inet(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let ring = Ring::new(Options::default()).unwrap();
    let reports = ring.block_on(async move {
        while ring::Stream::connect(&address).await.is_err() {
            ring::sleep(Duration::from_millis(10)).await;
        }
        let mut reports = Vec::new();
        for (path, bytes) in [("/small", 5), ("/big", 1 << 20)] {
            let load = Load {
                connections: 8,
                extent: Extent::Requests(500),
                path: path.to_owned(),
                body_bytes: Some(bytes),
                ..Load::new(address.clone())
            };
            reports.push(ring::until(ring::now() + LONG, load.run()).await);
        }
        reports
    });
    let _ = nginx.kill();
    let _ = nginx.wait();
    let _ = std::fs::remove_dir_all(&folder);
    for report in reports {
        let report = report.expect("a bounded load ends");
        assert_eq!((report.requests, report.errors.total()), (500, 0), "{:?}", report.errors);
        // nginx ended connections by itself, after 50 requests each.
        assert!(report.connects >= 10, "{}", report.connects);
    }
}
