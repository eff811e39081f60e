//! Signed certificate timestamps: a log's promise to publish a certificate, as it is sent (RFC 6962 §3.2, §3.3).

use std::fmt;

use crate::Time;

/// SCTs in one list. Authorities embed two to five; each that is known costs a signature to verify, and a list could hold 1,300.
pub const SCTS_MAX: usize = 32;

/// What the signature of a version 1 SCT begins with: the version, and `certificate_timestamp` (RFC 6962 §3.2).
const SIGNED_PREFIX: [u8; 2] = [0, 0];

/// One log's promise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sct {
    /// SHA-256 of the log's key.
    pub log_id: [u8; 32],
    /// When the log promised.
    pub timestamp: Time,
    timestamp_ms: u64,
    extensions: Box<[u8]>,
    /// `SignatureAndHashAlgorithm` (RFC 5246 §7.4.1.4.1): hash, signature.
    pub(crate) algorithm: [u8; 2],
    pub(crate) signature: Box<[u8]>,
}

/// Why bytes are no list of SCTs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadScts {
    /// A length leads beyond the end, or leaves something over.
    Truncated,
    /// A list or an SCT without anything in it.
    Empty,
    /// More than [`SCTS_MAX`].
    TooMany,
}

impl fmt::Display for BadScts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the list of SCTs does not end where it says"),
            Self::Empty => f.write_str("the list of SCTs is empty, or one of them is"),
            Self::TooMany => write!(f, "there are more than {SCTS_MAX} SCTs"),
        }
    }
}

impl std::error::Error for BadScts {}

/// Reads a `SignedCertificateTimestampList`: of the TLS extension as it is, of a certificate or an OCSP response from inside the octet string. SCTs of versions
/// that nobody has defined are passed over, as RFC 6962 §3.3 wants it.
///
/// # Errors
/// What is wrong with it; nothing of such a list is to be used.
pub fn read_list(bytes: &[u8]) -> Result<Vec<Sct>, BadScts> {
    let mut list = Reader(bytes);
    let mut inside = Reader(list.vector()?);
    if !list.0.is_empty() {
        return Err(BadScts::Truncated);
    }
    if inside.0.is_empty() {
        return Err(BadScts::Empty);
    }
    let mut scts = Vec::new();
    for count in 0.. {
        if inside.0.is_empty() {
            break;
        }
        if count == SCTS_MAX {
            return Err(BadScts::TooMany);
        }
        match inside.vector()? {
            [] => return Err(BadScts::Empty),
            [0, version_1 @ ..] => scts.push(read(version_1)?),
            _ => {}
        }
    }
    Ok(scts)
}

/// Reads what follows the version.
fn read(bytes: &[u8]) -> Result<Sct, BadScts> {
    let mut reader = Reader(bytes);
    let log_id = *reader.array()?;
    let timestamp_ms = u64::from_be_bytes(*reader.array()?);
    let extensions = reader.vector()?.into();
    let algorithm = *reader.array()?;
    let signature = reader.vector()?.into();
    if !reader.0.is_empty() {
        return Err(BadScts::Truncated);
    }
    Ok(Sct { log_id, timestamp: Time::from_unix_ms(timestamp_ms), timestamp_ms, extensions, algorithm, signature })
}

/// What a log has signed for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry<'a> {
    /// A certificate as it is.
    X509(&'a [u8]),
    /// One that did not have its SCTs yet, and the SHA-256 of its issuer's key.
    Precert { issuer_key_hash: [u8; 32], tbs: &'a [u8] },
}

impl Sct {
    /// The bytes that the log's signature is over; `None` where the entry is longer than one can be (16 MiB).
    pub(crate) fn signed(&self, entry: Entry<'_>) -> Option<Vec<u8>> {
        let mut signed = SIGNED_PREFIX.to_vec();
        signed.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        let body = match entry {
            Entry::X509(certificate) => {
                signed.extend_from_slice(&[0, 0]);
                certificate
            }
            Entry::Precert { issuer_key_hash, tbs } => {
                signed.extend_from_slice(&[0, 1]);
                signed.extend_from_slice(&issuer_key_hash);
                tbs
            }
        };
        let length = u32::try_from(body.len()).ok().filter(|&length| length < 1 << 24)?;
        signed.extend_from_slice(&length.to_be_bytes()[1..]);
        signed.extend_from_slice(body);
        signed.extend_from_slice(&u16::try_from(self.extensions.len()).ok()?.to_be_bytes());
        signed.extend_from_slice(&self.extensions);
        Some(signed)
    }
}

/// The presentation language of TLS (RFC 8446 §3).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], BadScts> {
        let (array, rest) = self.0.split_first_chunk().ok_or(BadScts::Truncated)?;
        self.0 = rest;
        Ok(array)
    }

    /// `opaque <0..2^16-1>`.
    fn vector(&mut self) -> Result<&'a [u8], BadScts> {
        let length = usize::from(u16::from_be_bytes(*self.array()?));
        let (vector, rest) = self.0.split_at_checked(length).ok_or(BadScts::Truncated)?;
        self.0 = rest;
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `<0..2^16-1>` vector.
    fn vector(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn sct(version: u8) -> Vec<u8> {
        [&[version][..], &[9; 32], &1_700_000_000_123_u64.to_be_bytes(), &vector(b"ext"), &[4, 3], &vector(b"sig")]
            .concat()
    }

    #[test]
    fn a_list_is_read() {
        let list = vector(&[vector(&sct(0)), vector(&sct(1)), vector(&sct(0))].concat());
        let scts = read_list(&list).unwrap();
        assert_eq!(scts.len(), 2, "one is of a version to come");
        assert_eq!((scts[0].log_id, scts[0].timestamp.unix()), ([9; 32], 1_700_000_000));
        assert_eq!((&*scts[0].signature, scts[0].algorithm), (&b"sig"[..], [4, 3]));
        let signed = scts[0].signed(Entry::X509(b"cert")).unwrap();
        let wanted =
            [&[0, 0][..], &1_700_000_000_123_u64.to_be_bytes(), &[0, 0, 0, 0, 4], b"cert", &vector(b"ext")].concat();
        assert_eq!(signed, wanted);
    }

    #[test]
    fn a_list_that_is_cut_off_anywhere_is_refused() {
        let list = vector(&vector(&sct(0)));
        for length in 0..list.len() {
            assert_eq!(read_list(&list[..length]), Err(BadScts::Truncated), "{length}");
        }
        let inner = sct(0);
        for length in 1..inner.len() {
            assert_eq!(read_list(&vector(&vector(&inner[..length]))), Err(BadScts::Truncated), "{length}");
        }
        assert_eq!(read_list(&[&*list, &[0]].concat()), Err(BadScts::Truncated));
        assert_eq!(read_list(&vector(&vector(&[&*inner, &[0]].concat()))), Err(BadScts::Truncated));
    }

    #[test]
    fn what_is_empty_or_too_much_is_refused() {
        assert_eq!(read_list(&vector(&[])), Err(BadScts::Empty));
        assert_eq!(read_list(&vector(&vector(&[]))), Err(BadScts::Empty));
        let many = |count| read_list(&vector(&vector(&sct(0)).repeat(count))).map(|scts| scts.len());
        assert_eq!((many(SCTS_MAX), many(SCTS_MAX + 1)), (Ok(SCTS_MAX), Err(BadScts::TooMany)));
    }
}
