//! Roots: those whose word is taken for who somebody is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

use super::certificates::chain;
use super::server::Wrong;
use crate::snapshot::Trust;

/// Where distributions keep the roots that they trust: Debian, Fedora, Alpine.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Some roots, shared by whoever trusts them.
#[derive(Clone, Debug)]
pub struct Roots(pub(super) Arc<RootCertStore>);

impl Default for Roots {
    /// None at all: nobody is trusted.
    fn default() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }
}

impl Roots {
    /// Those that are trusted; `None` where nobody is, or everybody.
    ///
    /// # Errors
    /// Their file will not do.
    pub fn of(trust: &Trust) -> Result<Option<Self>, Wrong> {
        Ok(match trust {
            Trust::System => Some(system()?),
            Trust::File(path) => Some(file(path)?),
            Trust::Nobody => None,
        }
        .map(|roots| Self(Arc::new(roots))))
    }

    /// The SubjectPublicKeyInfo of the root of a distinguished name, both in DER.
    #[must_use]
    pub fn key_of(&self, name: &[u8]) -> Option<Vec<u8>> {
        let root = self.0.roots.iter().find(|root| certs::sequence(&root.subject) == name)?;
        Some(certs::sequence(&root.subject_public_key_info))
    }
}

/// The authorities in a file, every one of which must be good.
pub(super) fn file(path: &Path) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for root in chain(path)? {
        roots.add(root).map_err(|error| Wrong::of(path, error))?;
    }
    Ok(roots)
}

/// Those that the host trusts. One that cannot be read among hundreds is nobody's concern.
fn system() -> Result<RootCertStore, Wrong> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = || SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.is_file());
    let Some(path) = named.or_else(usual) else {
        let advice = "this host has no trusted roots (Debian: apt-get install ca-certificates); or name a file: tls.ca";
        return Err(Wrong::of(Path::new(SYSTEM_ROOTS[0]), advice));
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(&path)?);
    if roots.is_empty() { Err(Wrong::of(&path, "has no usable root in it")) } else { Ok(roots) }
}
