//! What an endpoint's certificate must show of Certificate Transparency, and what is said of ours.
//!
//! A pool with `tls.transparency` has a list of logs. With each handshake that shows a certificate (a resumed session shows none: it was judged when it
//! began) the promises of logs are verified; too few are counted, and told when it begins or ends for a name, or refused.
//! Nobody waits here: who finds somebody else telling leaves it to the next handshake.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use certs::{Certificate, Logs, Promises, Shortfall, Time};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError};

use super::Roots;
use super::certificates::{chain, read, read_at_most};
use super::server::Wrong;
use crate::limits;
use crate::snapshot::{ListenerTls, PoolTransparency, Snapshot, Trust};

/// What a pool asks for.
pub(super) struct Transparency {
    pool: Box<str>,
    logs: Logs,
    /// Whose issuer is the root that was not sent.
    roots: Option<Roots>,
    required: bool,
    /// Counts handshakes that showed too few promises.
    short: Arc<AtomicU64>,
    /// What was last told of each name.
    told: Mutex<HashMap<Box<str>, Option<Shortfall>>>,
}

impl Transparency {
    pub(super) fn new(
        asked: &PoolTransparency,
        pool: &str,
        roots: Option<Roots>,
        short: Arc<AtomicU64>,
    ) -> Result<Self, Wrong> {
        let list = read_at_most(&asked.logs, limits::LOG_LIST_BYTES_MAX)?;
        let logs = Logs::read(&list).map_err(|wrong| Wrong::of(&asked.logs, wrong))?;
        Ok(Self { pool: pool.into(), logs, roots, required: asked.required, short, told: Mutex::default() })
    }

    /// Judges what a handshake has shown.
    pub(super) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = Certificate::read(end_entity).map_err(|wrong| other(Box::new(wrong)))?;
        let authorities = intermediates.iter().filter_map(|der| Certificate::read(der).ok());
        let issuer = authorities.filter(|one| certificate.is_issued_by(one)).map(|one| one.spki().to_vec()).next();
        let issuer = issuer.or_else(|| self.roots.as_ref()?.key_of(certificate.issuer_der()));
        let promises = Promises { certificate: &certificate, issuer_spki: issuer.as_deref(), tls_extension: &[], ocsp };
        let now = Time::from_unix(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let shortfall = certs::judge(&self.logs, &promises, now).shortfall();
        self.short.fetch_add(shortfall.is_some().into(), Ordering::Relaxed);
        match shortfall {
            Some(shortfall) if self.required => Err(other(Box::new(Unpublished(shortfall)))),
            shortfall => {
                if let Some(news) = self.news(&name.to_str(), shortfall) {
                    eprintln!("penstock: {news}");
                }
                Ok(())
            }
        }
    }

    /// What is to be told of a name, if that has changed. A lock that is taken by another worker is not waited for.
    fn news(&self, name: &str, shortfall: Option<Shortfall>) -> Option<String> {
        let mut told = self.told.try_lock().ok()?;
        let last = told.get(name).cloned().flatten();
        if last == shortfall || (!told.contains_key(name) && told.len() >= limits::TRANSPARENCY_NAMES_MAX) {
            return None;
        }
        told.insert(name.into(), shortfall.clone());
        let what = shortfall.map_or_else(|| ENOUGH.to_owned(), |shortfall| shortfall.to_string());
        Some(format!("pool `{}`: the certificate of `{name}`: {what}", self.pool))
    }
}

/// What is told when there were too few before.
const ENOUGH: &str = "enough Certificate Transparency logs have promised to publish it now";

impl fmt::Debug for Transparency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transparency({} logs, required: {})", self.logs.len(), self.required)
    }
}

/// Why a certificate is refused that is good otherwise.
#[derive(Debug)]
struct Unpublished(Shortfall);

impl fmt::Display for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unpublished {}

fn other(why: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(why.into())))
}

/// Our own certificates that browsers may refuse, a line each: those of a public authority with fewer SCTs than browsers ask for. Whether an authority is public is
/// told by the roots of this host. The SCTs are counted, not verified: this is about a file that lacks them, not about one that was forged.
#[must_use]
pub fn unpublished(snapshot: &Snapshot) -> Vec<String> {
    let listeners = || snapshot.listeners.iter().filter_map(|listener| Some((listener, listener.tls.as_ref()?)));
    if listeners().next().is_none() {
        return Vec::new();
    }
    let roots = Roots::of(&Trust::System).ok().flatten();
    let line = |name: &str, wrong: String| format!("listener `{name}`: {wrong}");
    listeners()
        .flat_map(|(listener, tls)| {
            of_listener(tls, roots.as_ref()).into_iter().map(|wrong| line(&listener.name, wrong))
        })
        .collect()
}

fn of_listener(tls: &ListenerTls, roots: Option<&Roots>) -> Vec<String> {
    let one = |files: &crate::snapshot::Certificate| {
        let chain: Vec<_> = chain(&files.cert).ok()?.iter().filter_map(|der| Certificate::read(der).ok()).collect();
        let certificate = chain.first().filter(|first| !first.is_self_signed())?;
        let staple = files.ocsp.as_ref().and_then(|path| read(path).ok()).unwrap_or_default();
        let stapled =
            certs::sct_list_of_ocsp(&staple).and_then(|list| certs::read_list(list).ok()).map_or(0, |scts| scts.len());
        let embedded = certificate.scts.as_ref().map_or(0, Vec::len);
        let is_public = chain.iter().any(|one| roots.is_some_and(|roots| roots.key_of(one.issuer_der()).is_some()));
        let (counted, needed) = (embedded.max(stapled), certs::needed(certificate));
        // Two are enough in a staple, however long the certificate lives.
        let short = embedded < needed && stapled < 2 && (is_public || counted > 0);
        short.then(|| {
            format!(
                "{}: it has {counted} of the {needed} SCTs that browsers ask for (Certificate Transparency)",
                files.cert.display()
            )
        })
    };
    tls.certificates.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let transparency = Transparency {
            pool: "app".into(),
            logs: Logs::default(),
            roots: None,
            required: false,
            short: Arc::default(),
            told: Mutex::default(),
        };
        let news = |name: &str, shortfall| transparency.news(name, shortfall);
        assert_eq!(news("a", None), None, "nothing was wrong");
        let told = news("a", Some(Shortfall::None)).unwrap();
        assert!(told.starts_with("pool `app`: the certificate of `a`: no Certificate"), "{told}");
        assert_eq!(news("a", Some(Shortfall::None)), None);
        assert!(news("b", Some(Shortfall::None)).is_some() && news("a", Some(Shortfall::OneOperator)).is_some());
        assert!(news("a", None).unwrap().ends_with(ENOUGH));
        assert_eq!(news("a", None), None);
        let many =
            (0..2 * limits::TRANSPARENCY_NAMES_MAX).filter_map(|name| news(&name.to_string(), Some(Shortfall::None)));
        assert!(many.count() < limits::TRANSPARENCY_NAMES_MAX);
    }
}
