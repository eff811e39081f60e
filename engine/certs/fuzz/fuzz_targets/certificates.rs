//! Certificates: read, looked at and judged whatever they are; what logs have signed is no longer than what they came in.
#![no_main]

use certs::{Certificate, Logs, Promises, Time, flaws, is_precertificate, judge, precert_tbs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let tbs = precert_tbs(bytes);
    assert!(tbs.is_none_or(|tbs| tbs.len() < bytes.len()));
    let _ = is_precertificate(bytes);
    let Ok(certificate) = Certificate::read(bytes) else { return };
    let promises =
        Promises { certificate: &certificate, issuer_spki: Some(certificate.spki()), tls_extension: &[], ocsp: bytes };
    let now = Time::from_unix(1_800_000_000);
    assert_eq!(judge(&Logs::default(), &promises, now).counting(), 0);
    let _ = flaws(&[certificate.clone(), certificate], now, None);
});
