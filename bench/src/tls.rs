//! One certificate for every contender, and a client that expects it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedCipherSuite};
use xtask::Outcome;

use crate::process::{self, Scratch};

/// A key and its certificate, signed by itself, in PEM.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

/// Whom it is for.
pub(crate) const NAME: &str = "localhost";

impl Identity {
    /// ECDSA P-256: what public authorities issue most.
    pub(crate) fn make(scratch: &Scratch) -> Outcome<Self> {
        Self::make_in(&scratch.folder("tls")?)
    }

    pub(crate) fn make_in(folder: &Path) -> Outcome<Self> {
        let problem = |error: rcgen::Error| format!("no certificate: {error}");
        let identity = Self::at(folder);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(problem)?;
        let params = CertificateParams::new(vec![NAME.to_owned()]).map_err(problem)?;
        let (cert, key) = (params.self_signed(&key).map_err(problem)?.pem(), key.serialize_pem());
        process::write_file(&identity.cert, &cert)?;
        process::write_file(&identity.key, &key)?;
        process::write_file(&identity.both, cert + &key)?;
        Ok(identity)
    }

    /// Its files' names in a folder.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { cert: folder.join("cert.pem"), key: folder.join("key.pem"), both: folder.join("both.pem") }
    }

    /// One GET over HTTP/1.1, the whole response as text.
    pub(crate) fn get(&self, address: SocketAddr, path: &str) -> std::io::Result<String> {
        let config = client(&self.cert).map_err(std::io::Error::other)?;
        process::get_over(connect(&Arc::new(config), address)?, address, path)
    }
}

/// Expects the certificate of this file; agrees upon X25519, as every contender can, and HTTP/1.1.
pub(crate) fn client(trust: &Path) -> Outcome<ClientConfig> {
    expecting(trust, aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec(), b"http/1.1")
}

/// The same for HTTP/2.
pub(crate) fn h2_client(trust: &Path) -> Outcome<ClientConfig> {
    expecting(trust, aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec(), b"h2")
}

/// The same for HTTP/3, with full handshakes only. AES-128 comes first, as in browsers and in h2load: a server that leaves the choice to its
/// client is not measured with another cipher than by those.
pub(crate) fn quic_client(trust: &Path) -> Outcome<ClientConfig> {
    let mut suites = aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec();
    suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut config = expecting(trust, suites, b"h3")?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn expecting(trust: &Path, cipher_suites: Vec<SupportedCipherSuite>, protocol: &[u8]) -> Outcome<ClientConfig> {
    let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", trust.display());
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(trust).map_err(|error| problem(&error))?;
    roots.add(cert).map_err(|error| problem(&error))?;
    let kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let provider = CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|error| problem(&error))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Connects and shakes hands.
pub(crate) fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> std::io::Result<StreamOwned<ClientConnection, std::net::TcpStream>> {
    let mut stream = process::connect(address)?;
    let mut tls = conversation(config)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(tls, stream))
}

/// The client's side of one that has not begun.
pub(crate) fn conversation(config: &Arc<ClientConfig>) -> std::io::Result<ClientConnection> {
    let name = ServerName::try_from(NAME).map_err(std::io::Error::other)?;
    ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)
}
