//! Clients of HTTP/3: how they come to the engine, and what both show of themselves by TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, TransportConfig};
use ring::sim::Host;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};

use crate::asker;
use crate::h3::{End, Manners};
use crate::ledger::Ledger;
use crate::scene::{QUIC, Strict};

pub(crate) async fn run(host: Host, ledger: Rc<Ledger>, strict: Strict, rude: bool, wanders: bool) {
    let server: SocketAddr = QUIC.parse().expect("written here");
    // A network of its own.
    let number = ledger.ask().id as u16;
    let [high, low] = number.to_be_bytes();
    let manners = Manners {
        home: (Ipv4Addr::new(10, 4, high, low), 0).into(),
        abroad: (Ipv4Addr::new(10, 5, high, low), 0).into(),
        wanders,
        rude,
    };
    let dialling = host.clone();
    let config = config(&host, wanders);
    let dial = async || End::connect(&dialling, server, &config, manners).await;
    asker::run(host, ledger, strict, rude, dial).await;
}

/// What a client brings along. Tokens of the engine's are kept from one connection to the next; sessions are not.
fn config(host: &Host, wanders: bool) -> ClientConfig {
    // A hello with a key of the new kind takes two datagrams.
    let tls = client(host.chance(0.3));
    let mut config = ClientConfig::new(Arc::clone(tls) as _);
    let windows = [4_000_u32, 20_000, 65_535, 300_000, 1_000_000];
    let window = || windows[host.pick(0..=windows.len() - 1)].into();
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(window()).receive_window(window());
    if wanders || host.chance(0.3) {
        // Who only listens must be heard now and then to be found again.
        transport.keep_alive_interval(Some(Duration::from_secs(3)));
    }
    config.transport_config(Arc::new(transport));
    config
}

/// A certificate and its key. Signatures of this kind always have the same length, so that a seed's datagrams have.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let params = rcgen::CertificateParams::new(vec!["app.test".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Identity { certificate, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    })
}

/// What the engine's listener shows.
pub(crate) fn server() -> Arc<ServerConfig> {
    static SERVER: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let Identity { certificate, key } = identity();
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("one of ours");
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.clone()], key.clone_key());
        Arc::new(config.expect("they belong together"))
    };
    Arc::clone(SERVER.get_or_init(make))
}

fn client(post_quantum: bool) -> &'static Arc<QuicClientConfig> {
    static CLIENTS: [OnceLock<Arc<QuicClientConfig>>; 2] = [const { OnceLock::new() }; 2];
    CLIENTS[usize::from(post_quantum)].get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add(identity().certificate.clone()).expect("our own");
        let mut provider = aws_lc_rs::default_provider();
        if !post_quantum {
            provider = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..provider };
        }
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("one of ours");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.resumption = Resumption::disabled();
        Arc::new(QuicClientConfig::try_from(config).expect("a suite that QUIC begins with"))
    })
}
