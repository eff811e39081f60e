//! What an idle TLS connection costs: 5,000 of them, each of which has been served once.

use std::sync::Arc;

use harness::{Authority, Folder, Kind, Origin, PATIENCE, Setup, TlsClient, on_each_driver, until};

const CONNECTIONS: usize = 5_000;
/// User memory for one idle connection over TLS, rustls's state included.
const BYTES_MAX: u64 = 8 << 10;

on_each_driver! {
    alone fn five_thousand_idle_tls_connections(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "localhost", &["localhost"], Kind::Ecdsa);
        let origin = Origin::standard();
        let engine =
            Setup::new(driver).origin(&origin).listen_line(&issued.line()).listen_line("timeout.keep_alive = \"10m\"").start();
        let config = Arc::new(authority.client(None));
        let connect = |count: usize| -> Vec<TlsClient> {
            (0..count)
                .map(|_| {
                    let mut client = TlsClient::connect_tls(engine.address, "localhost", &config).expect("a connection");
                    assert_eq!(client.get("/").text(), "hello\n");
                    client
                })
                .collect()
        };
        drop(connect(200));
        engine.until_metric("connections_open", 0);
        let before = engine.memory().anonymous;
        let mut clients = connect(CONNECTIONS);
        assert_eq!(engine.metrics().sum("buffers_lent_bytes"), 0, "an idle connection holds a buffer");
        until("free buffers have gone back", PATIENCE, || engine.metrics().sum("buffers_free_bytes") < 64 << 10);
        std::thread::sleep(std::time::Duration::from_secs(2));
        let each = engine.memory().anonymous.saturating_sub(before) / CONNECTIONS as u64;
        println!("penstock ({}): {each} B of user memory for an idle TLS connection", driver.name());
        for client in clients.iter_mut().step_by(97) {
            assert_eq!(client.get("/").text(), "hello\n");
        }
        assert!(each <= BYTES_MAX, "{each} B for an idle TLS connection, with {CONNECTIONS} of them");
    }
}
