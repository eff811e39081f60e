//! Certificates for people and for policy: what is in a chain and whether it is in order, and whether enough Certificate
//! Transparency logs have promised to publish it.
//!
//! What holds here: everything is a function of its arguments ([`Time`] is one of them), whatever bytes come end in a value or
//! in an error that says what is wrong, and what is read of a peer is bounded.
//! What is deliberately absent: sockets, files, clocks; and trust. Whether a chain leads to a root is rustls's verdict; here is told
//! what is shown, and what logs have signed.
//!
//! Sources: RFC 5280 (certificates), RFC 6962 (Certificate Transparency), RFC 6960 (OCSP).

#![forbid(unsafe_code)]

mod certificate;
mod chain;
mod der;
mod judgement;
mod logs;
mod ocsp;
mod precert;
mod sct;
mod time;

pub use certificate::{Certificate, Key, Unreadable, read_chain};
pub use chain::{Flaw, IsRoot, flaws};
pub use judgement::{Judged, Judgement, Promises, Shortfall, Source, Verdict, judge, needed};
pub use logs::{BadList, Log, Logs, State};
pub use ocsp::sct_list as sct_list_of_ocsp;
pub use precert::{is_precertificate, precert_tbs};
pub use sct::{BadScts, SCTS_MAX, Sct, read_list};
pub use time::Time;

/// A SEQUENCE of DER around its content: libraries keep names and keys of roots without what is around them.
#[must_use]
pub fn sequence(content: &[u8]) -> Vec<u8> {
    der::wrap(der::SEQUENCE, content)
}

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or([0; 32])
}
