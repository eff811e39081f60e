//! What an idle connection of HTTP/2 costs: 5,000 of them, with TLS and without, each of which has carried one request.

use std::time::Duration;

use harness::h2::H2Client;
use harness::{Authority, Driver, Engine, Folder, Kind, Origin, PATIENCE, Setup, on_each_driver, until};

const CONNECTIONS: usize = 5_000;
/// User memory for one of them: the machine, both tables of HPACK, and over TLS rustls's state. The budget is 16 KiB; this test has measured
/// 2.8 to 3.3 KiB, and 6.1 to 6.6 over TLS. The bounds leave room for what the allocator keeps, and for no buffer.
const BYTES_MAX: u64 = 6 << 10;
const BYTES_MAX_TLS: u64 = 10 << 10;
/// How long they have been idle when it is read.
const IDLE: Duration = Duration::from_secs(3);

on_each_driver! {
    alone fn five_thousand_idle_connections_without_tls(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.keep_alive = \"10m\"").start();
        judge(driver, &engine, "without TLS", BYTES_MAX, || H2Client::connect(engine.address));
    }

    alone fn five_thousand_idle_connections_over_tls(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "localhost", &["localhost"], Kind::Ecdsa);
        let origin = Origin::standard();
        let engine =
            Setup::new(driver).origin(&origin).listen_line(&issued.line()).listen_line("timeout.keep_alive = \"10m\"").start();
        let config = authority.client(None);
        judge(driver, &engine, "over TLS", BYTES_MAX_TLS, || H2Client::connect_tls(engine.address, "localhost", config.clone()));
    }
}

fn judge(driver: Driver, engine: &Engine, how: &str, bytes_max: u64, connect: impl Fn() -> H2Client) {
    // What the allocator keeps of a burst on a busy machine comes on top, now and then; never the other way round.
    let measured = (0..3).map(|_| grown(engine, &connect) / CONNECTIONS as u64);
    let told = |each: &u64| {
        println!("penstock ({}): {each} B of user memory for an idle connection of HTTP/2 {how}", driver.name());
    };
    let fits = measured.inspect(told).any(|each| each <= bytes_max);
    assert!(fits, "an idle connection {how}, with {CONNECTIONS} of them, in each of three rounds");
}

/// User memory after [`CONNECTIONS`] have come and stay, less what it was after some had come and gone.
fn grown(engine: &Engine, connect: &impl Fn() -> H2Client) -> u64 {
    drop(served(connect, 200));
    engine.until_metric("connections_open", 0);
    let before = engine.memory().anonymous;
    let mut clients = served(connect, CONNECTIONS);
    assert_eq!(engine.metrics().sum("connections_open"), CONNECTIONS as u64);
    std::thread::sleep(IDLE);
    assert_eq!(engine.metrics().sum("buffers_lent_bytes"), 0, "an idle connection holds a buffer");
    until("free buffers have gone back", PATIENCE, || engine.metrics().sum("buffers_free_bytes") < 64 << 10);
    let after = engine.memory().anonymous;
    // They are still there, and served.
    for client in clients.iter_mut().step_by(97) {
        assert_eq!(client.get("/").text(), "hello\n");
    }
    drop(clients);
    engine.until_metric("connections_open", 0);
    after.saturating_sub(before)
}

/// Connections, each of which has carried one request.
fn served(connect: &impl Fn() -> H2Client, count: usize) -> Vec<H2Client> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = connect();
        client.greet(&[]);
        assert_eq!(client.get("/").text(), "hello\n");
        clients.push(client);
    }
    clients
}
