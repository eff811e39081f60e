//! The SCTs that an authority puts into its OCSP responses (RFC 6962 §3.3).
//!
//! Nothing of the response is believed: not its signature, not its status. What it is asked for are SCTs, and those
//! carry signatures of their own, over the very certificate.

use crate::der::{self, ENUMERATED, Elements, GENERALIZED_TIME, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};

/// 1.3.6.1.5.5.7.48.1.1: a basic response (RFC 6960 §4.2.1).
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// 1.3.6.1.4.1.11129.2.4.5: SCTs, among the extensions of a single response.
const SCT_LIST: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x05];

/// The `SignedCertificateTimestampList` in an OCSP response in DER, for [`read_list`](crate::read_list); of several certificates' the first. `None` where there is
/// none, or this is no OCSP response.
#[must_use]
pub fn sct_list(response: &[u8]) -> Option<&[u8]> {
    let mut response = Elements::of(der::only(response, SEQUENCE)?);
    response.expect(ENUMERATED)?;
    let mut bytes = Elements::of(der::only(response.expect(der::context(0))?.content, SEQUENCE)?);
    if bytes.expect(OBJECT_IDENTIFIER)?.content != BASIC {
        return None;
    }
    let basic = der::only(bytes.expect(OCTET_STRING)?.content, SEQUENCE)?;
    let mut data = Elements::of(Elements::of(basic).expect(SEQUENCE)?.content);
    // Its version, and who answers: by name or by key.
    data.optional(der::context(0));
    data.any()?;
    data.expect(GENERALIZED_TIME)?;
    let mut singles = Elements::of(data.expect(SEQUENCE)?.content);
    while !singles.is_empty() {
        if let Some(list) = of_single(singles.expect(SEQUENCE)?.content) {
            return Some(list);
        }
    }
    None
}

/// Of the response for one certificate.
fn of_single(single: &[u8]) -> Option<&[u8]> {
    let mut single = Elements::of(single);
    // Which certificate, its status, since when, and until when.
    single.expect(SEQUENCE)?;
    single.any()?;
    single.expect(GENERALIZED_TIME)?;
    single.optional(der::context(0));
    let mut extensions = Elements::of(der::only(single.expect(der::context(1))?.content, SEQUENCE)?);
    while !extensions.is_empty() {
        let mut extension = Elements::of(extensions.expect(SEQUENCE)?.content);
        if extension.expect(OBJECT_IDENTIFIER)?.content == SCT_LIST {
            // `critical`, if it is there.
            extension.optional(0x01);
            return der::only(extension.expect(OCTET_STRING)?.content, OCTET_STRING);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::ocsp_response;

    #[test]
    fn scts_are_found_whatever_is_optional() {
        for optional in [false, true] {
            assert_eq!(sct_list(&ocsp_response(b"list", optional)), Some(&b"list"[..]), "{optional}");
        }
    }

    #[test]
    fn what_is_cut_off_or_changed_gives_nothing_or_something_else() {
        let whole = ocsp_response(b"list", true);
        for length in 0..whole.len() {
            assert_eq!(sct_list(&whole[..length]), None, "{length}");
        }
        // An answer without an answer: `tryLater`.
        assert_eq!(sct_list(&[0x30, 3, 0x0a, 1, 3]), None);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x21;
            assert!(sct_list(&changed).is_none_or(|list| list.len() <= whole.len()), "{at}");
        }
    }
}
