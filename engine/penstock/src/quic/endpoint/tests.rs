//! How much is kept of clients that have not been looked at, and of connections that are over.

use std::time::Duration;

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{Connection, EndpointConfig};
use ring::sim::{Faults, World};
use ring::{DriverChoice, Options, Ring};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::snapshot::{Congestion, Http3, QuicSettings};

const INITIAL_BYTES: usize = 1_200;

/// The first datagrams of a client.
struct Caller {
    endpoint: quinn_proto::Endpoint,
    config: ClientConfig,
}

impl Caller {
    fn new() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let crypto = QuicClientConfig::try_from(tls).expect("a suite that QUIC begins with");
        let endpoint = quinn_proto::Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        Self { endpoint, config: ClientConfig::new(Arc::new(crypto)) }
    }

    fn call(&mut self) -> Vec<Vec<u8>> {
        let to = "10.0.0.1:443".parse().expect("an address");
        let now = ring::monotonic().instant();
        let (_, mut connection): (_, Connection) =
            self.endpoint.connect(now, self.config.clone(), to, "localhost").expect("a connection begins");
        let mut flight = Vec::new();
        loop {
            let mut wire = Vec::new();
            let Some(transmit) = connection.poll_transmit(now, 1, &mut wire) else { break flight };
            flight.push(wire[..transmit.size].to_vec());
        }
    }
}

fn listening() -> Rc<Endpoint> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let keys = Keys::new(&QuicSettings::default()).expect("there is randomness").repeatable(1);
    let http3 = Http3 { streams: 10, congestion: Congestion::Cubic, datagrams: false, advertised: None };
    let offer = config::offer(&tls, &http3, &keys).expect("a suite that QUIC begins with");
    let place = Place { server: 0, generation: 0, worker: 0 };
    Endpoint::bind("10.0.0.1:443".parse().expect("an address"), ring::Foreign::Refused, 0, &keys, place, offer)
        .expect("a socket")
}

fn on_a_ring(act: impl AsyncFn() + 'static) {
    let world = World::new(1, Faults::none());
    let ring = Ring::new(Options { driver: DriverChoice::Sim(world.node()), ..Options::default() }).expect("a ring");
    ring.block_on(async move { act().await });
}

fn hand_in(endpoint: &Endpoint, port: u16, datagram: &[u8]) {
    endpoint.hand_out(SocketAddr::new([10, 9, 0, 1].into(), port), None, 0, BytesMut::from(datagram));
}

/// What the machine has kept of a client behind its first datagram, and gives to its connection: datagrams.
fn kept(endpoint: &Rc<Endpoint>) -> u64 {
    let newcomer = endpoint.newcomers.borrow_mut().pop_back().expect("it wants to connect");
    let mut link = endpoint.accept(newcomer).expect("its first datagram is right");
    link.advance(ring::now());
    link.heard()
}

#[test]
fn so_many_may_wait_and_no_more() {
    on_a_ring(async || {
        let (endpoint, mut caller) = (listening(), Caller::new());
        for at in 0..limits::QUIC_INCOMING_MAX + 5 {
            hand_in(&endpoint, 1_000 + at as u16, &caller.call()[0]);
        }
        assert_eq!(endpoint.newcomers.borrow().len(), limits::QUIC_INCOMING_MAX);
        // Each that is looked at makes room for another.
        let newcomer = endpoint.newcomers.borrow_mut().pop_front().expect("there are some");
        endpoint.refuse(newcomer);
        hand_in(&endpoint, 1, &caller.call()[0]);
        hand_in(&endpoint, 2, &caller.call()[0]);
        assert_eq!(endpoint.newcomers.borrow().len(), limits::QUIC_INCOMING_MAX);
        ring::sleep(Duration::from_millis(1)).await;
    });
}

#[test]
fn little_is_kept_of_each_and_of_all() {
    on_a_ring(async || {
        let (endpoint, mut caller) = (listening(), Caller::new());
        // The first datagram is with the one that wants to connect; of those behind it, so many bytes.
        let most = limits::QUIC_INCOMING_BYTES / INITIAL_BYTES as u64;
        let crowd = limits::QUIC_INCOMING_BYTES_ALL / (most * INITIAL_BYTES as u64);
        for at in 0..=crowd {
            let flight = caller.call();
            assert!(flight.iter().all(|datagram| datagram.len() == INITIAL_BYTES));
            for _ in 0..20 {
                flight.iter().for_each(|datagram| hand_in(&endpoint, 1_000 + at as u16, datagram));
            }
        }
        let all: u64 = (0..=crowd).map(|_| kept(&endpoint)).sum();
        assert_eq!(all, limits::QUIC_INCOMING_BYTES_ALL / INITIAL_BYTES as u64, "of {crowd} clients and one more");
        // With nobody else there is room, and it is that of one.
        let flight = caller.call();
        (0..20).for_each(|_| flight.iter().for_each(|datagram| hand_in(&endpoint, 7, datagram)));
        assert_eq!(kept(&endpoint), most);
        ring::sleep(Duration::from_millis(1)).await;
    });
}

#[test]
fn of_what_is_over_nothing_is_left_in_time() {
    on_a_ring(async || {
        let (endpoint, mut caller) = (listening(), Caller::new());
        let most = limits::QUIC_FAREWELLS_MAX;
        for at in 0..2 * (most + 1) {
            hand_in(&endpoint, 1_000 + at as u16, &caller.call()[0]);
            let newcomer = endpoint.newcomers.borrow_mut().pop_back().expect("it wants to connect");
            let mut link = endpoint.accept(newcomer).expect("its first datagram is right");
            link.close(ring::now(), 0x100);
            if at % 2 == 0 {
                std::future::poll_fn(|cx| link.transmit(ring::now(), cx)).await;
            }
            link.see_off(ring::now());
        }
        // Of those with words of ours and of those without, each, the one beyond the bound is forgotten at once.
        let left = || (endpoint.leaving.get(), endpoint.draining.get(), endpoint.connections());
        assert_eq!(left(), (most, most, 2 * most));
        ring::sleep(limits::LINGER + Duration::from_millis(10)).await;
        assert_eq!(left(), (0, 0, 0));
    });
}
