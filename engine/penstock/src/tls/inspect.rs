//! What a server shows to whoever asks, trusted or not: for people who want to know what is wrong with it.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme};

use super::client::Verifier;
use super::{Failure, Roots};

/// A server, as it shows itself.
#[derive(Debug)]
pub struct Shown {
    pub version: &'static str,
    pub cipher: &'static str,
    /// What was agreed upon by ALPN, if anything.
    pub protocol: Option<String>,
    /// In DER, in the order in which they came.
    pub chain: Vec<Vec<u8>>,
    /// The OCSP response that came with them; empty: none.
    pub ocsp: Vec<u8>,
    /// Whether the chain leads to a root, today and for that name.
    pub trust: Result<(), Failure>,
}

/// Shakes hands over `stream`, which waits for as long as it is told to, and asks for `name`.
///
/// # Errors
/// There is no TLS to be had.
pub fn inspect(stream: &mut (impl Read + Write), name: ServerName<'static>, roots: &Roots) -> io::Result<Shown> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let inner = Verifier::of_roots(Some(roots), &provider).map_err(|wrong| io::Error::other(wrong.to_string()))?;
    let recorder = Arc::new(Recorder { inner, seen: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(stream)?;
    }
    let seen = recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (ocsp, trust) = seen.ok_or_else(|| io::Error::other("it showed no certificate"))?;
    let suite = tls.negotiated_cipher_suite();
    Ok(Shown {
        version: if tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "TLSv1.3" } else { "TLSv1.2" },
        cipher: suite.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        protocol: tls.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        chain: tls.peer_certificates().unwrap_or_default().iter().map(|one| one.to_vec()).collect(),
        ocsp,
        trust,
    })
}

/// Whether `chain` (in DER, the host's first) leads to a root, at `now` (since 1970) and for `name`.
///
/// # Errors
/// Why it does not.
pub fn trusted(chain: &[&[u8]], name: &ServerName<'_>, roots: &Roots, now: std::time::Duration) -> Result<(), Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        Verifier::of_roots(Some(roots), &provider).map_err(|wrong| Failure::Tls(Error::General(wrong.to_string())))?;
    let chain: Vec<_> = chain.iter().map(|&der| CertificateDer::from(der)).collect();
    let (host, rest) = chain.split_first().ok_or(Failure::Tls(Error::NoCertificatesPresented))?;
    verifier.verify_server_cert(host, rest, name, &[], UnixTime::since_unix_epoch(now))?;
    Ok(())
}

/// What a verifier saw, and what it thought of it.
type Seen = (Vec<u8>, Result<(), Failure>);

/// Lets everybody pass, and remembers what it would have said.
#[derive(Debug)]
struct Recorder {
    inner: Verifier,
    seen: Mutex<Option<Seen>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let trust = verdict.map(|_| ()).map_err(Failure::from);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((ocsp_response.to_vec(), trust));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
