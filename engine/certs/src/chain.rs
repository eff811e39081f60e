//! Whether a chain is what clients need: the certificate first, each next one the issuer of the one before, nothing more
//! (RFC 8446 §4.4.2, RFC 5246 §7.4.2).
//!
//! Clients put up with some disorder, each with another: what works in one browser fails in a library. So all of it is told.

use std::fmt;

use crate::{Certificate, Time, is_precertificate};

/// Who has less than this of a hundred of its life left should have been renewed: ACME clients do at a third.
const SHARE_LEFT_MIN: i64 = 10;

/// What is wrong with a chain. Places count from 0.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Flaw {
    Expired {
        at: usize,
    },
    NotYetValid {
        at: usize,
    },
    /// Less than a tenth of its life is left.
    ExpiresSoon {
        at: usize,
        days_left: i64,
    },
    /// The certificate of the host is not the first.
    HostNotFirst {
        at: usize,
    },
    /// The issuer of the one at `at` is there, but not behind it.
    OutOfOrder {
        at: usize,
        issuer: usize,
    },
    /// The issuer of the last one is not there, and is not a root that clients have.
    IssuerMissing {
        at: usize,
    },
    /// A root: clients have it, or will not believe it.
    RootNotNeeded {
        at: usize,
    },
    Duplicate {
        at: usize,
        of: usize,
    },
    /// It has issued none of the others.
    Unrelated {
        at: usize,
    },
    /// Made for logs only; no client accepts it.
    Precertificate {
        at: usize,
    },
}

/// Whether clients have the root of this distinguished name, in DER.
pub type IsRoot<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Everything that is wrong with a chain. Without `is_root` only a certificate that stands alone lacks its issuer for sure.
#[must_use]
pub fn flaws(chain: &[Certificate], now: Time, is_root: Option<IsRoot<'_>>) -> Vec<Flaw> {
    let mut flaws: Vec<_> = chain.iter().enumerate().filter_map(|(at, one)| of_one(at, one, now)).collect();
    let poisoned = (0..chain.len()).filter(|&at| is_precertificate(chain[at].der()));
    flaws.extend(poisoned.map(|at| Flaw::Precertificate { at }));
    let duplicates: Vec<_> = (0..chain.len()).map(|at| twin(chain, at)).collect();
    flaws.extend(duplicates.iter().enumerate().filter_map(|(at, of)| Some(Flaw::Duplicate { at, of: (*of)? })));
    let host = chain.iter().position(|one| !one.is_ca).unwrap_or(0);
    if host > 0 {
        flaws.push(Flaw::HostNotFirst { at: host });
    }
    let path = path(chain, host);
    for step in path.windows(2) {
        let &[at, issuer] = step else { continue };
        if issuer < at || duplicates[at + 1..issuer].iter().any(Option::is_none) {
            flaws.push(Flaw::OutOfOrder { at, issuer });
        }
    }
    if let Some(&last) = path.last() {
        if chain[last].is_self_signed() {
            flaws.extend((path.len() > 1).then_some(Flaw::RootNotNeeded { at: last }));
        } else if is_root.map_or(path.len() == 1, |is_root| !is_root(chain[last].issuer_der())) {
            flaws.push(Flaw::IssuerMissing { at: last });
        }
    }
    let unrelated = (0..chain.len()).filter(|at| !path.contains(at) && duplicates[*at].is_none());
    flaws.extend(unrelated.map(|at| Flaw::Unrelated { at }));
    flaws
}

/// The place of the same certificate earlier in the chain.
fn twin(chain: &[Certificate], at: usize) -> Option<usize> {
    chain[..at].iter().position(|one| one.der() == chain[at].der())
}

/// The places of the host's certificate, of its issuer, of that one's, and so on.
fn path(chain: &[Certificate], host: usize) -> Vec<usize> {
    let mut path = Vec::new();
    let mut next = (host < chain.len()).then_some(host);
    while let Some(at) = next {
        path.push(at);
        next = issuer(chain, at, &path);
    }
    path
}

/// The place of who has issued the one at `at`, the next one first; nobody twice.
fn issuer(chain: &[Certificate], at: usize, path: &[usize]) -> Option<usize> {
    if chain[at].is_self_signed() {
        return None;
    }
    let candidates = (at + 1..chain.len()).chain(0..at);
    candidates
        .filter(|candidate| !path.contains(candidate))
        .find(|&candidate| chain[at].is_issued_by(&chain[candidate]))
}

fn of_one(at: usize, one: &Certificate, now: Time) -> Option<Flaw> {
    if now > one.not_after {
        Some(Flaw::Expired { at })
    } else if now < one.not_before {
        Some(Flaw::NotYetValid { at })
    } else if one.share_left(now) < SHARE_LEFT_MIN {
        Some(Flaw::ExpiresSoon { at, days_left: one.days_left(now) })
    } else {
        None
    }
}

/// For people, who count from 1.
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |at: &usize| at + 1;
        match self {
            Self::Expired { at } => write!(f, "certificate {} has expired", number(at)),
            Self::NotYetValid { at } => write!(f, "certificate {} is not valid yet", number(at)),
            Self::ExpiresSoon { at, days_left } => {
                write!(
                    f,
                    "certificate {} expires in {days_left} days: less than a tenth of its life is left",
                    number(at)
                )
            }
            Self::HostNotFirst { at } => {
                write!(f, "the host's certificate comes as number {}: it must be the first", number(at))
            }
            Self::OutOfOrder { at, issuer } => {
                write!(
                    f,
                    "the issuer of certificate {} comes as number {}: it must be the next",
                    number(at),
                    number(issuer)
                )
            }
            Self::IssuerMissing { at } => {
                write!(
                    f,
                    "the issuer of certificate {} is missing: clients that do not know it will refuse the chain",
                    number(at)
                )
            }
            Self::RootNotNeeded { at } => {
                write!(f, "certificate {} is a root: clients do not need it from here", number(at))
            }
            Self::Duplicate { at, of } => write!(f, "certificate {} is number {} again", number(at), number(of)),
            Self::Unrelated { at } => {
                write!(f, "certificate {} has issued none of the others: leave it out", number(at))
            }
            Self::Precertificate { at } => {
                write!(f, "certificate {} is a precertificate: no client accepts it", number(at))
            }
        }
    }
}
