//! The certificate that a log saw before its SCTs were put into it.
//!
//! An authority asks logs for SCTs with a precertificate, and embeds them in the certificate. What they signed is the certificate's
//! to-be-signed part without the list of SCTs (RFC 6962 §3.2), so that is made again here: every element as it stands, but that
//! extension, and the two lengths around it.

use crate::der::{self, Element, Elements, OBJECT_IDENTIFIER, SEQUENCE};

/// 1.3.6.1.4.1.11129.2.4.2: the SCTs in a certificate.
pub(crate) const SCT_LIST: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];

/// 1.3.6.1.4.1.11129.2.4.3: what keeps a precertificate from being used as a certificate (RFC 6962 §3.1).
pub(crate) const POISON: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03];

/// `[3] extensions` of a certificate.
const EXTENSIONS: u8 = der::context(3);

/// The to-be-signed part that logs signed for, of a certificate or of its precertificate in DER; `None` where it is no certificate.
#[must_use]
pub fn precert_tbs(certificate: &[u8]) -> Option<Vec<u8>> {
    let mut rebuilt = Vec::with_capacity(certificate.len());
    let mut parts = parts(certificate)?;
    while !parts.is_empty() {
        let part = parts.any()?;
        if part.tag == EXTENSIONS {
            rebuilt.extend(without_promises(part)?);
        } else {
            rebuilt.extend_from_slice(part.whole);
        }
    }
    Some(der::wrap(SEQUENCE, &rebuilt))
}

/// Whether a certificate is one that no client may accept: it was made for logs only.
#[must_use]
pub fn is_precertificate(certificate: &[u8]) -> bool {
    has_poison(certificate) == Some(true)
}

fn has_poison(certificate: &[u8]) -> Option<bool> {
    let mut parts = parts(certificate)?;
    while !parts.is_empty() {
        let part = parts.any()?;
        if part.tag == EXTENSIONS {
            let mut extensions = Elements::of(der::only(part.content, SEQUENCE)?);
            while !extensions.is_empty() {
                if name(extensions.expect(SEQUENCE)?)? == POISON {
                    return Some(true);
                }
            }
        }
    }
    Some(false)
}

/// What a certificate's to-be-signed part consists of.
fn parts(certificate: &[u8]) -> Option<Elements<'_>> {
    let tbs = Elements::of(der::only(certificate, SEQUENCE)?).expect(SEQUENCE)?;
    Some(Elements::of(tbs.content))
}

/// The extensions without those two. None left: the field is absent (RFC 5280 §4.1.2.9, "a sequence of one or more").
fn without_promises(field: Element<'_>) -> Option<Vec<u8>> {
    let mut extensions = Elements::of(der::only(field.content, SEQUENCE)?);
    let mut kept = Vec::with_capacity(field.content.len());
    while !extensions.is_empty() {
        let extension = extensions.expect(SEQUENCE)?;
        if ![SCT_LIST, POISON].contains(&name(extension)?) {
            kept.extend_from_slice(extension.whole);
        }
    }
    if kept.is_empty() {
        return Some(kept);
    }
    Some(der::wrap(EXTENSIONS, &der::wrap(SEQUENCE, &kept)))
}

/// An extension's object identifier.
fn name(extension: Element<'_>) -> Option<&[u8]> {
    Elements::of(extension.content).expect(OBJECT_IDENTIFIER).map(|name| name.content)
}
