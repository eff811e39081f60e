//! What a listener shows to its clients, for people: each certificate as it was read, and what lets clients come again.

use certs::{Certificate, Time};
use rustls::sign::CertifiedKey;

use crate::snapshot::Certificate as Files;

/// A certificate that is shown.
#[derive(Clone, Debug)]
pub struct Showing {
    /// The file that it came from.
    pub file: String,
    pub names: Vec<String>,
    pub issuer: String,
    /// The kind of its key, as `ECDSA P-256`.
    pub key: String,
    pub not_after: Time,
    /// An OCSP response goes with it.
    pub staple: bool,
    /// SCTs in it, or in the OCSP response if there are more; they are not verified.
    pub scts: usize,
}

impl Showing {
    /// Of what handshakes are made with; `None` where it can be shown and not read.
    pub(super) fn of(files: &Files, certified: &CertifiedKey) -> Option<Self> {
        let certificate = Certificate::read(certified.cert.first()?).ok()?;
        let staple = certified.ocsp.as_deref().unwrap_or_default();
        let stapled = certs::sct_list_of_ocsp(staple).and_then(|list| certs::read_list(list).ok());
        let embedded = certificate.scts.as_ref().map_or(0, Vec::len);
        Some(Self {
            file: files.cert.display().to_string(),
            issuer: certificate.issuer.clone(),
            key: certificate.key.to_string(),
            not_after: certificate.not_after,
            staple: !staple.is_empty(),
            scts: embedded.max(stapled.map_or(0, |scts| scts.len())),
            names: certificate.names,
        })
    }

    /// Whole days that it is still good for; negative once it has expired.
    #[must_use]
    pub fn days_left(&self) -> i64 {
        Time::from_unix_ms(ring::wall_clock().as_millis() as u64).days_until(self.not_after)
    }
}
