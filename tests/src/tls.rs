//! Certificates made for a test, and a client that speaks TLS with a library that the engine's machine does not wrap: rustls's own
//! buffered connection. OpenSSL's view of the engine is `curl`'s and `openssl s_client`'s.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
use rustls::crypto::cipher::{AeadKey, Iv, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, ContentType, KeyLog, ProtocolVersion, RootCertStore, StreamOwned};

use crate::PATIENCE;
use crate::place::Folder;
use crate::wire::{Client, Stream, Wire};

/// A certificate authority of a test's own.
pub struct Authority {
    /// Its certificate, in PEM.
    pub file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// Certificate and key, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A key's kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Ecdsa,
    Ed25519,
    Rsa,
}

/// A client's connection over TLS.
pub type TlsClient = Wire<StreamOwned<ClientConnection, TcpStream>>;

impl<C> Stream for StreamOwned<C, TcpStream>
where
    Self: Read + Write + Send,
{
    fn patience(&self, patience: Duration) -> io::Result<()> {
        self.sock.patience(patience)
    }

    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.sock.end(how)
    }
}

impl Authority {
    pub fn new(folder: &Folder, name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.self_signed(&key).expect("a certificate");
        let file = folder.write(&format!("{name}.pem"), cert.pem());
        Self { file, root: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for `names`, in files called after `file`.
    pub fn issue(&self, folder: &Folder, file: &str, names: &[&str], kind: Kind) -> Issued {
        let algorithm = match kind {
            Kind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            Kind::Ed25519 => &PKCS_ED25519,
            Kind::Rsa => &PKCS_RSA_SHA256,
        };
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, file);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            cert: folder.write(&format!("{file}.pem"), cert.pem()),
            key: folder.write(&format!("{file}.key"), key.serialize_pem()),
        }
    }

    /// Of a certificate for `names`, good for `days` from `from` on (seconds since 1970).
    pub fn params(names: &[&str], from: u64, days: u64) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
        params.not_after = params.not_before + Duration::from_secs(days * 86_400);
        params.use_authority_key_identifier_extension = true;
        params
    }

    /// Signs a certificate.
    pub fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        params.signed_by(key, &self.issuer).expect("a certificate")
    }

    /// Its certificate, in DER.
    pub fn der(&self) -> &[u8] {
        &self.root
    }

    /// Its key's SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        self.issuer.key().subject_public_key_info()
    }

    /// Trust in this authority alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("our own root");
        roots
    }

    /// Trusts this authority alone, and shows `identity`.
    pub fn client(&self, identity: Option<&Issued>) -> ClientConfig {
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        match identity {
            None => builder.with_no_client_auth(),
            Some(Issued { cert, key }) => {
                let cert = der_of(cert);
                let key = PrivateKeyDer::from_pem_file(key).expect("our own key");
                builder.with_client_auth_cert(vec![cert], key).expect("they belong together")
            }
        }
    }

    /// Connects to `address` and asks for `name`.
    #[track_caller]
    pub fn connect(&self, address: SocketAddr, name: &str) -> TlsClient {
        Wire::connect_tls(address, name, &Arc::new(self.client(None))).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// The first certificate of a file of PEM, in DER.
pub fn der_of(file: &std::path::Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).expect("a certificate of our own")
}

impl Issued {
    /// `tls = …` of a listener.
    pub fn line(&self) -> String {
        format!("tls = {{ cert = {:?}, key = {:?} }}", self.cert, self.key)
    }
}

/// What a client begins with that has a session, and puts something behind it that does not wait for an answer (0-RTT).
pub struct FirstFlight {
    /// As it goes over the wire.
    pub bytes: Vec<u8>,
    tls: ClientConnection,
}

/// A client that has sent its first flight, and will not say the last word of its handshake until it is told to.
pub struct HalfOpen {
    tls: ClientConnection,
    stream: TcpStream,
}

impl FirstFlight {
    /// With this as early data; `None`: `config` knows no session that allows it. A session is for one flight.
    pub fn new(name: &str, config: &Arc<ClientConfig>, early: &[u8]) -> Option<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        tls.early_data()?.write_all(early).expect("no more than the server takes");
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).expect("a vector takes all");
        }
        Some(Self { bytes, tls })
    }

    #[track_caller]
    pub fn send(self, address: SocketAddr) -> HalfOpen {
        let mut stream = Client::connect(address).stream;
        stream.write_all(&self.bytes).expect("sending");
        HalfOpen { tls: self.tls, stream }
    }
}

/// Keeps the secret of the early data that was sent last: with it one may say more than the server takes, which no library lets its user.
#[derive(Debug, Default)]
pub struct EarlySecret(Mutex<Vec<u8>>);

impl KeyLog for EarlySecret {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == "CLIENT_EARLY_TRAFFIC_SECRET" {
            *self.0.lock().expect("nobody panics") = secret.to_vec();
        }
    }
}

impl EarlySecret {
    /// A record that stands behind so many others (RFC 8446 §7.3).
    pub fn record(&self, behind: u64, bytes: &[u8]) -> Vec<u8> {
        let secret = self.0.lock().expect("nobody panics");
        let suite = TLS13_AES_256_GCM_SHA384.tls13().expect("it is of TLS 1.3");
        assert_eq!(secret.len(), 48, "another suite's");
        let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(&secret));
        let expand = |label: &str, out: &mut [u8]| {
            let label = format!("tls13 {label}");
            let length = (out.len() as u16).to_be_bytes();
            let info = [&length[..], &[label.len() as u8], label.as_bytes(), &[0]];
            expander.expand_slice(&info, out).expect("a short output");
        };
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        expand("key", &mut key);
        expand("iv", &mut iv);
        let mut encrypter = suite.aead_alg.encrypter(AeadKey::from(key), Iv::new(iv));
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(bytes),
        };
        encrypter.encrypt(message, behind).expect("a key").encode()
    }
}

impl HalfOpen {
    /// What the server says until `wanted` is in it.
    #[track_caller]
    pub fn until(&mut self, wanted: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&heard).into_owned();
            if text.contains(wanted) {
                return text;
            }
            let more = self.tls.read_tls(&mut self.stream).expect("something is said");
            assert_ne!(more, 0, "it ended behind {text:?}");
            let state = self.tls.process_new_packets().expect("TLS");
            let start = heard.len();
            heard.resize(start + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut heard[start..]).expect("what is there");
        }
    }

    /// What the server has to say is wrong, in words of ours.
    #[track_caller]
    pub fn until_refused(&mut self) -> String {
        loop {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => panic!("it ended without a reason"),
                Ok(_) => {}
                Err(error) => panic!("it ended without a reason: {error}"),
            }
            if let Err(error) = self.tls.process_new_packets() {
                return error.to_string();
            }
        }
    }

    /// Whether the server took the early data; it has to have answered.
    pub fn was_taken(&self) -> bool {
        self.tls.is_early_data_accepted()
    }

    /// Says the last word.
    #[track_caller]
    pub fn finish(mut self) -> TlsClient {
        while self.tls.is_handshaking() || self.tls.wants_write() {
            self.tls.complete_io(&mut self.stream).expect("a handshake");
        }
        Wire::new(StreamOwned::new(self.tls, self.stream)).expect("deadlines on a socket")
    }
}

impl TlsClient {
    /// Connects and shakes hands.
    pub fn connect_tls(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.patience(PATIENCE)?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Self::new(StreamOwned::new(tls, stream))
    }

    /// Of the certificate that the engine showed.
    pub fn shown(&self) -> CertificateDer<'static> {
        self.stream.conn.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").clone()
    }
}
