//! Certificates and keys: read from files, and found by the name that a client asks for.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::server::Wrong;
use crate::limits;

/// Reads a file of PEM, bounded.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    read_at_most(path, limits::TLS_FILE_BYTES_MAX)
}

/// Reads a file of `limit` bytes or fewer.
pub(super) fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, Wrong> {
    use std::io::Read;

    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Wrong::of(path, error))?;
    file.take(limit + 1).read_to_end(&mut content).map_err(|error| Wrong::of(path, error))?;
    if content.len() as u64 > limit {
        return Err(Wrong::of(path, format!("is larger than {} MiB", limit >> 20)));
    }
    Ok(content)
}

/// The certificates in a file of PEM, in its order.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let chain = chain.map_err(|error| Wrong::of(path, format!("is no PEM of certificates: {error}")))?;
    if chain.is_empty() { Err(Wrong::of(path, "has no certificate in it")) } else { Ok(chain) }
}

/// A certificate, its chain and its key, which must belong together.
pub(super) fn certified(cert: &Path, key: &Path, ocsp: Option<&Path>) -> Result<CertifiedKey, Wrong> {
    let chain = chain(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| Wrong::of(key, format!("has no private key in it: {error}")))?;
    let mut certified = CertifiedKey::from_der(chain, private, &rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|error| {
            let why = match error {
                rustls::Error::InconsistentKeys(_) => format!("is not the key of {}", cert.display()),
                error => error.to_string(),
            };
            Wrong::of(key, why)
        })?;
    certified.ocsp = ocsp.map(read).transpose()?;
    Ok(certified)
}

/// The DNS names that a certificate is for, in lower case, `*.` in front of wildcards.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<Box<str>> {
    let end_entity = webpki::EndEntityCert::try_from(certificate).ok();
    end_entity.map_or_else(Vec::new, |cert| {
        cert.valid_dns_names().map(|name| name.to_ascii_lowercase().into_boxed_str()).collect()
    })
}

/// The certificates of one listener, by name. Several may have the same one: the first whose key the client knows is shown.
pub(super) struct Certificates {
    /// The names of each; the first is the default.
    all: Vec<(Arc<CertifiedKey>, Vec<Box<str>>)>,
    /// Names, and of wildcards what follows the `*`, with places in `all`.
    by_name: HashMap<Box<str>, Vec<usize>>,
    /// Whoever asks for a name that none of them has is sent away.
    strict: bool,
}

impl Certificates {
    pub(super) fn new(certificates: Vec<CertifiedKey>, strict: bool) -> Self {
        let all: Vec<_> =
            certificates.into_iter().map(|one| (one.cert.first().map(names).unwrap_or_default(), one)).collect();
        let all: Vec<_> = all.into_iter().map(|(names, one)| (Arc::new(one), names)).collect();
        let mut by_name: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (at, (_, names)) in all.iter().enumerate() {
            for name in names {
                by_name.entry(name.strip_prefix('*').unwrap_or(name).into()).or_default().push(at);
            }
        }
        Self { all, by_name, strict }
    }

    /// The places of those for a name: exact ones before a wildcard for its first label (RFC 9525 §6.3).
    fn named(&self, name: Option<&str>) -> &[usize] {
        let Some(name) = name else { return self.default() };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let exact = self.by_name.get(name.as_str());
        let wildcard = || self.by_name.get(&name[name.find('.')?..]);
        match exact.or_else(wildcard) {
            Some(places) => places,
            None if self.strict => &[],
            None => self.default(),
        }
    }

    /// The first, and those that share its first name (with a key of another kind).
    fn default(&self) -> &[usize] {
        let first = self.all.first().and_then(|(_, names)| names.first());
        let same = first.and_then(|name| self.by_name.get(name.strip_prefix('*').unwrap_or(name)));
        same.map_or(&[0], Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut candidates = self.named(hello.server_name()).iter().filter_map(|at| self.all.get(*at));
        let known = |(one, _): &&(Arc<CertifiedKey>, _)| one.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.find(known).map(|(one, _)| Arc::clone(one))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|(_, names)| names)).finish()
    }
}
