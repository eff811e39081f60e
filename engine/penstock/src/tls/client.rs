//! What is asked of endpoints that are reached by TLS: whom to trust, by which name, and who we are.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::certificates::certified;
use super::files::Watched;
use super::server::Wrong;
use super::transparency::Transparency;
use super::{Failure, Roots};
use crate::snapshot::{Kin, Pool, PoolId, PoolProtocol, PoolTls, Snapshot, SpkiPin, Trust};

/// How the endpoints of a pool are met by TLS. One for all workers: a session that one has made, any may resume.
#[derive(Debug)]
pub struct Origination {
    /// What its files said when they were read last. Handshakes take it, the control thread puts another one there.
    terms: RwLock<Terms>,
    sni: Option<ServerName<'static>>,
    /// Counts handshakes that showed too few promises of Certificate Transparency logs; `None` where nobody looks.
    untransparent: Option<Arc<AtomicU64>>,
}

/// What is asked of an endpoint, and shown to it.
#[derive(Clone, Debug)]
struct Terms {
    config: Arc<ClientConfig>,
    /// The same, where an endpoint that may choose shall not.
    http1: Arc<ClientConfig>,
    /// The same, over QUIC.
    http3: Arc<ClientConfig>,
}

/// Those of all pools.
#[derive(Clone, Debug, Default)]
pub struct Originations(Vec<Option<Arc<Origination>>>);

/// Their files, as the control thread holds them.
#[derive(Debug, Default)]
pub struct OriginationFiles(Vec<Watched>);

impl Originations {
    /// Reads what the snapshot names.
    ///
    /// # Errors
    /// The first file that will not do.
    pub fn load(snapshot: &Snapshot) -> Result<Self, Wrong> {
        snapshot.pools.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// For a new configuration: pools that go on are met as before, with the sessions that may be resumed.
    ///
    /// # Errors
    /// The first file that will not do.
    pub fn succeed(&self, snapshot: &Snapshot, kin: &[Kin]) -> Result<Self, Wrong> {
        let one = |(pool, kin): (&Pool, &Kin)| match kin.same() {
            Some(of) => Ok(self.of(of)),
            None => load(pool),
        };
        snapshot.pools.iter().zip(kin).map(one).collect::<Result<_, _>>().map(Self)
    }

    /// A pool's; `None` where its endpoints are met without TLS.
    #[must_use]
    pub fn of(&self, pool: PoolId) -> Option<Arc<Origination>> {
        self.0.get(usize::from(pool.0))?.clone()
    }
}

impl Terms {
    fn new(tls: &PoolTls, pool: &Pool, untransparent: Option<&Arc<AtomicU64>>) -> Result<Self, Wrong> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Verifier::new(tls, &pool.name, &provider, untransparent)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(Wrong::from)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certified = certified(&identity.cert, &identity.key, None)?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
            }
        };
        let offered: &[&[u8]] = match pool.protocol {
            PoolProtocol::Http11 => &[b"http/1.1"],
            PoolProtocol::Http2 => &[b"h2"],
            PoolProtocol::Http3 => &[b"h3"],
            PoolProtocol::Auto => &[b"h2", b"http/1.1"],
        };
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http3 = config.clone();
        http3.alpn_protocols = vec![b"h3".to_vec()];
        // What was agreed upon over TCP says nothing of QUIC's parameters.
        http3.resumption = Resumption::default();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        Ok(Self { config: Arc::new(config), http1: Arc::new(http1), http3: Arc::new(http3) })
    }
}

fn load(pool: &Pool) -> Result<Option<Arc<Origination>>, Wrong> {
    let Some(tls) = &pool.tls else { return Ok(None) };
    Origination::new(tls, pool).map(|one| Some(Arc::new(one))).map_err(|wrong| wrong.of_pool(&pool.name))
}

/// Those that a pool's TLS is made of.
fn files(pool: &Pool) -> impl Iterator<Item = &Path> {
    pool.tls.iter().flat_map(|tls| {
        let trusted = if let Trust::File(file) = &tls.trust { Some(file) } else { None };
        let shown = tls.identity.iter().flat_map(|identity| [&identity.cert, &identity.key]);
        let logs = tls.transparency.iter().map(|asked| &asked.logs);
        trusted.into_iter().chain(shown).chain(logs).map(PathBuf::as_path)
    })
}

impl OriginationFiles {
    /// To be made before they are read.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        Self(snapshot.pools.iter().map(|pool| Watched::new(files(pool))).collect())
    }

    /// For a new configuration; to be made before the files are read. Those of pools that go on are read when they change.
    #[must_use]
    pub fn succeed(&self, snapshot: &Snapshot, kin: &[Kin]) -> Self {
        let known = |kin: &Kin| self.0.get(usize::from(kin.same()?.0)).cloned();
        let pools = snapshot.pools.iter().zip(kin);
        Self(pools.map(|(pool, kin)| known(kin).unwrap_or_else(|| Watched::new(files(pool)))).collect())
    }

    /// Reads anew what has changed and has stood still since the last look, for handshakes from now on. Connections go on; sessions are not
    /// resumed, for they were agreed upon under other terms.
    pub fn look(&mut self, snapshot: &Snapshot, originations: &Originations) -> Vec<(PoolId, Result<(), Wrong>)> {
        let mut looked = Vec::new();
        for (at, (watched, pool)) in self.0.iter_mut().zip(&snapshot.pools).enumerate() {
            let id = PoolId(at as u16);
            if let (Some(origination), Some(tls)) = (originations.of(id), &pool.tls)
                && watched.have_changed(files(pool))
            {
                looked.push((id, origination.renew(tls, pool)));
            }
        }
        looked
    }
}

impl Origination {
    fn new(tls: &PoolTls, pool: &Pool) -> Result<Self, Wrong> {
        let sni = tls.sni.as_ref().and_then(|name| ServerName::try_from(name.to_string()).ok());
        let untransparent = tls.transparency.is_some().then(Arc::default);
        Ok(Self { terms: RwLock::new(Terms::new(tls, pool, untransparent.as_ref())?), sni, untransparent })
    }

    /// What its files say counts from now on.
    fn renew(&self, tls: &PoolTls, pool: &Pool) -> Result<(), Wrong> {
        let terms = Terms::new(tls, pool, self.untransparent.as_ref())?;
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        Ok(())
    }

    fn terms(&self) -> Terms {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many handshakes have shown too few promises of Certificate Transparency logs; `None` where nobody looks.
    #[must_use]
    pub fn untransparent(&self) -> Option<u64> {
        self.untransparent.as_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// The same, but for offering HTTP/1.1 alone.
    #[must_use]
    pub(crate) fn of_http1(&self) -> Self {
        let terms = self.terms();
        let terms = Terms { config: Arc::clone(&terms.http1), ..terms };
        Self { terms: RwLock::new(terms), sni: self.sni.clone(), untransparent: self.untransparent.clone() }
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.terms().config
    }

    /// As [`config`](Self::config), over QUIC.
    pub(crate) fn http3(&self) -> Arc<ClientConfig> {
        self.terms().http3
    }

    /// By which name an endpoint must prove itself: the pool's, or its own.
    ///
    /// # Errors
    /// It has none: a Unix socket.
    pub(crate) fn name(&self, authority: &str) -> Result<ServerName<'static>, Failure> {
        self.sni.clone().or_else(|| server_name(authority)).ok_or(Failure::Tls(Error::UnsupportedNameType))
    }
}

/// The host of `host:port`, `[v6]:port`, or of what discovery calls an endpoint (`host:port/address`).
fn server_name(authority: &str) -> Option<ServerName<'static>> {
    let authority = authority.split('/').next()?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::IpAddress(ip.into())),
        Err(_) if host == "unix" => None,
        Err(_) => ServerName::try_from(host.to_owned()).ok(),
    }
}

/// Trusts by a chain to a root, by pinned keys, by both, or everybody; and asks for promises of logs on top of that, where it shall.
pub(super) struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: Box<[SpkiPin]>,
    transparency: Option<Transparency>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        tls: &PoolTls,
        pool: &str,
        provider: &Arc<CryptoProvider>,
        untransparent: Option<&Arc<AtomicU64>>,
    ) -> Result<Self, Wrong> {
        let roots = Roots::of(&tls.trust)?;
        let trusting = Self::of_roots(roots.as_ref(), provider)?;
        let count = untransparent.cloned().unwrap_or_default();
        let transparency = tls.transparency.as_ref().map(|asked| Transparency::new(asked, pool, roots, count));
        Ok(Self { pins: tls.pins.clone(), transparency: transparency.transpose()?, ..trusting })
    }

    /// Trusts whom `roots` trust, or everybody.
    pub(super) fn of_roots(roots: Option<&Roots>, provider: &Arc<CryptoProvider>) -> Result<Self, Wrong> {
        let chain = roots.map(|roots| {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.0), Arc::clone(provider));
            builder.build().map_err(|error| Wrong::from(Error::General(error.to_string())))
        });
        Ok(Self { chain: chain.transpose()?, pins: Box::default(), transparency: None, provider: Arc::clone(provider) })
    }

    fn is_pinned(&self, cert: &CertificateDer<'_>) -> bool {
        let Ok(parsed) = webpki::EndEntityCert::try_from(cert) else { return false };
        let Some(suite) = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() else { return false };
        let digest = suite.common.hash_provider.hash(parsed.subject_public_key_info().as_ref());
        self.pins.iter().any(|pin| pin.0 == digest.as_ref())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        if !self.pins.is_empty() && !self.is_pinned(end_entity) {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        if let Some(transparency) = &self.transparency {
            transparency.judge(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier(chain {}, {} pins)", self.chain.is_some(), self.pins.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_known_by_their_host() {
        let name = |authority| server_name(authority).map(|name| name.to_str().into_owned());
        for (authority, wanted) in [
            ("app.internal:8443", Some("app.internal")),
            ("app.internal:8443/10.0.0.1", Some("app.internal")),
            ("10.0.0.1:443", Some("10.0.0.1")),
            ("[::1]:443", Some("::1")),
            ("unix:/run/app", None),
        ] {
            assert_eq!(name(authority).as_deref(), wanted, "{authority}");
        }
    }
}
