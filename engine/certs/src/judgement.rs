//! Whether enough logs have promised to publish a certificate, as browsers ask for it.
//!
//! An SCT *counts* if a log of the list has signed it over this very certificate, not in the future, and the log is one that is believed, or
//! was when it signed. Enough, of those that count:
//!
//! * in the certificate: two of different logs where it lives 180 days or less, three otherwise, and one of a log that is believed today;
//! * from the handshake (TLS extension or OCSP staple): two of different logs that are believed today;
//! * and of two operators at least, so that no single one can hide a certificate.
//!
//! Deliberately absent: proofs of inclusion. That a log has kept its promise is for monitors to find out; and Chrome's wish that one of the
//! logs have RFC 6962's own API, which says nothing about a promise.
//! Sources: RFC 6962 §3.2 and §5.2; "Chrome Certificate Transparency Policy" and "Apple's Certificate Transparency policy", both as of 2025, of which each number
//! is the stricter.

use std::collections::BTreeSet;
use std::fmt;

use crate::logs::{Log, Logs, State};
use crate::sct::{Entry, Sct, read_list};
use crate::{BadScts, Certificate, Time, precert_tbs, sct_list_of_ocsp, sha256};

/// A certificate that lives longer needs three.
const SHORT_LIFE_S: i64 = 180 * 24 * 60 * 60;

/// How an SCT came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    Certificate,
    TlsExtension,
    Ocsp,
}

/// What is known of an SCT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A log that is believed today has signed it.
    Counts,
    /// The log was believed when it signed, and has been retired since.
    CountsOfRetired,
    /// The list has no such log.
    UnknownLog,
    /// The signature is not the log's, or is over another certificate.
    BadSignature,
    /// It is in the certificate, and nobody knows with which key that was issued: what the log saw cannot be told.
    IssuerUnknown,
    InTheFuture,
    /// The log takes certificates of other years only.
    OutsideInterval,
    /// The log signed after it had been retired.
    Retired,
    /// The log is not believed, or not yet.
    NotBelieved,
}

/// An SCT with what is known of it.
#[derive(Clone, Debug)]
pub struct Judged {
    pub sct: Sct,
    pub source: Source,
    pub verdict: Verdict,
    /// The log's name and operator, if it is known.
    pub log: Option<(String, String)>,
}

/// Where the promises for a certificate are.
#[derive(Clone, Copy, Debug)]
pub struct Promises<'a> {
    pub certificate: &'a Certificate,
    /// The SubjectPublicKeyInfo of its issuer, in DER. Without it SCTs in the certificate cannot be verified.
    pub issuer_spki: Option<&'a [u8]>,
    /// The content of the TLS extension `signed_certificate_timestamp`; empty: there was none.
    pub tls_extension: &'a [u8],
    /// The OCSP response that came with it; empty: there was none.
    pub ocsp: &'a [u8],
}

/// All that is known of a certificate's promises.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub scts: Vec<Judged>,
    /// Lists that cannot be read.
    pub unreadable: Vec<(Source, BadScts)>,
    /// SCTs that the certificate needs in it: see [`needed`].
    pub needed: usize,
}

/// What is missing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shortfall {
    /// There is no SCT at all.
    None,
    /// A list of SCTs cannot be read, and nothing else is enough.
    Unreadable(BadScts),
    TooFew {
        counting: usize,
        needed: usize,
    },
    /// All logs are of one operator.
    OneOperator,
    /// None of the logs is believed today.
    NoneCurrent,
}

/// How many SCTs of different logs a certificate that lives from `not_before` to `not_after` needs in it.
#[must_use]
pub const fn needed(certificate: &Certificate) -> usize {
    if certificate.not_before.seconds_until(certificate.not_after) <= SHORT_LIFE_S { 2 } else { 3 }
}

/// Verifies every SCT of a certificate.
#[must_use]
pub fn judge(logs: &Logs, promises: &Promises<'_>, now: Time) -> Judgement {
    let certificate = promises.certificate;
    let mut judgement = Judgement { scts: Vec::new(), unreadable: Vec::new(), needed: needed(certificate) };
    let tbs = promises.issuer_spki.and_then(|_| precert_tbs(certificate.der()));
    let precert = promises.issuer_spki.zip(tbs.as_deref());
    let precert = precert.map(|(spki, tbs)| Entry::Precert { issuer_key_hash: sha256(spki), tbs });
    let x509 = Some(Entry::X509(certificate.der()));
    let read = |list: &[u8]| if list.is_empty() { Ok(Vec::new()) } else { read_list(list) };
    for (source, entry, scts) in [
        (Source::Certificate, precert, certificate.scts.clone()),
        (Source::TlsExtension, x509, read(promises.tls_extension)),
        (Source::Ocsp, x509, sct_list_of_ocsp(promises.ocsp).map_or(Ok(Vec::new()), read_list)),
    ] {
        match scts {
            Err(bad) => judgement.unreadable.push((source, bad)),
            Ok(scts) => judgement.scts.extend(scts.into_iter().map(|sct| {
                let log = logs.get(&sct.log_id);
                let verdict = verdict(log, &sct, entry, certificate, now);
                let log = log.map(|log| (log.description.clone(), log.operator(sct.timestamp).to_owned()));
                Judged { sct, source, verdict, log }
            })),
        }
    }
    judgement
}

fn verdict(log: Option<&Log>, sct: &Sct, entry: Option<Entry<'_>>, certificate: &Certificate, now: Time) -> Verdict {
    let Some(log) = log else { return Verdict::UnknownLog };
    let Some(entry) = entry else { return Verdict::IssuerUnknown };
    if !sct.signed(entry).is_some_and(|signed| log.has_signed(sct, &signed)) {
        return Verdict::BadSignature;
    }
    if sct.timestamp > now {
        return Verdict::InTheFuture;
    }
    if log.interval.is_some_and(|(from, to)| certificate.not_after < from || certificate.not_after >= to) {
        return Verdict::OutsideInterval;
    }
    match log.state {
        State::Qualified | State::Usable | State::ReadOnly => Verdict::Counts,
        State::Retired(when) if sct.timestamp < when => Verdict::CountsOfRetired,
        State::Retired(_) => Verdict::Retired,
        State::Pending | State::Rejected => Verdict::NotBelieved,
    }
}

impl Judgement {
    /// What is missing; `None`: it is enough.
    #[must_use]
    pub fn shortfall(&self) -> Option<Shortfall> {
        let embedded = |judged: &&Judged| judged.source == Source::Certificate;
        let counts = |judged: &&Judged| matches!(judged.verdict, Verdict::Counts | Verdict::CountsOfRetired);
        let current = |judged: &&Judged| judged.verdict == Verdict::Counts;
        let inside = enough(self.scts.iter().filter(embedded).filter(counts), self.needed);
        let handshake = enough(self.scts.iter().filter(|judged| !embedded(judged)).filter(current), 2);
        let (Some(inside), Some(_)) = (inside, handshake) else { return None };
        let unreadable = self.unreadable.first().map(|(_, bad)| Shortfall::Unreadable(*bad));
        Some(match inside {
            Shortfall::TooFew { .. } if unreadable.is_some() => unreadable?,
            _ if self.scts.is_empty() => Shortfall::None,
            inside => inside,
        })
    }

    /// How many SCTs count.
    #[must_use]
    pub fn counting(&self) -> usize {
        self.scts.iter().filter(|one| matches!(one.verdict, Verdict::Counts | Verdict::CountsOfRetired)).count()
    }
}

/// What `counting` lack, of different logs `needed`.
fn enough<'a>(counting: impl Iterator<Item = &'a Judged>, needed: usize) -> Option<Shortfall> {
    let (mut logs, mut operators, mut current) = (BTreeSet::new(), BTreeSet::new(), false);
    for one in counting {
        logs.insert(one.sct.log_id);
        operators.extend(one.log.as_ref().map(|(_, operator)| operator));
        current |= one.verdict == Verdict::Counts;
    }
    if logs.len() < needed {
        Some(Shortfall::TooFew { counting: logs.len(), needed })
    } else if operators.len() < 2 {
        Some(Shortfall::OneOperator)
    } else {
        (!current).then_some(Shortfall::NoneCurrent)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::TlsExtension => "TLS extension",
            Self::Ocsp => "OCSP response",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counts => "good",
            Self::CountsOfRetired => "good: the log was retired later",
            Self::UnknownLog => "of a log that is not in the list",
            Self::BadSignature => "the signature is not the log's over this certificate",
            Self::IssuerUnknown => "cannot be verified without the issuer's certificate",
            Self::InTheFuture => "from the future",
            Self::OutsideInterval => "of a log for other expiry dates",
            Self::Retired => "of a log that had been retired",
            Self::NotBelieved => "of a log that is not believed",
        })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no Certificate Transparency log has promised to publish it: there is no SCT"),
            Self::Unreadable(bad) => bad.fmt(f),
            Self::TooFew { counting, needed } => {
                write!(
                    f,
                    "{counting} of the {needed} Certificate Transparency logs that are needed have promised to publish it"
                )
            }
            Self::OneOperator => {
                f.write_str("all Certificate Transparency logs that have promised to publish it are of one operator")
            }
            Self::NoneCurrent => {
                f.write_str("no Certificate Transparency log that is believed today has promised to publish it")
            }
        }
    }
}
