//! Certificate Transparency logs of a test's own: keys that sign what they are shown, and certificates with their promises in them.
//!
//! The format is written down here a second time, from RFC 6962, so that what the engine reads was not made by the engine.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64;
use rcgen::{
    CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, SigningKey,
};

use crate::place::Folder;
use crate::tls::{Authority, Issued, Kind};

/// 1.3.6.1.4.1.11129.2.4.2: the SCTs in a certificate.
const SCTS: [u64; 10] = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
/// 1.3.6.1.4.1.11129.2.4.3: poison, for logs only.
const POISON: [u64; 10] = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 3];

/// A log.
pub struct CtLog {
    name: String,
    operator: String,
    /// As `log_list.json` has it: `{"usable": {…}}`.
    state: String,
    /// More fields of its entry in the list.
    more: String,
    key: KeyPair,
    algorithm: [u8; 2],
}

/// What a log is shown.
#[derive(Clone, Copy, Debug)]
pub enum CtEntry<'a> {
    Certificate(&'a [u8]),
    Precertificate { issuer_spki: &'a [u8], tbs: &'a [u8] },
}

/// A certificate with promises in it.
#[derive(Clone, Debug)]
pub struct Logged {
    pub der: Vec<u8>,
    pub pem: String,
    pub key: String,
    /// What the logs have signed: its to-be-signed part before their promises were in it.
    pub tbs: Vec<u8>,
    /// What the logs were sent in truth, which no client may accept.
    pub precertificate: Vec<u8>,
}

impl CtLog {
    /// One that is in use.
    pub fn new(name: &str, operator: &str) -> Self {
        Self::with_key(name, operator, Kind::Ecdsa)
    }

    pub fn with_key(name: &str, operator: &str, kind: Kind) -> Self {
        let (algorithm, number) = match kind {
            Kind::Rsa => (&PKCS_RSA_SHA256, 1),
            Kind::Ed25519 => (&PKCS_ED25519, 7),
            Kind::Ecdsa => (&PKCS_ECDSA_P256_SHA256, 3),
        };
        Self {
            name: name.to_owned(),
            operator: operator.to_owned(),
            state: r#"{"usable": {"timestamp": "2024-01-01T00:00:00Z"}}"#.to_owned(),
            more: String::new(),
            key: KeyPair::generate_for(algorithm).expect("a key"),
            algorithm: [4, number],
        }
    }

    pub fn state(mut self, json: &str) -> Self {
        json.clone_into(&mut self.state);
        self
    }

    /// One more field of its entry in the list.
    pub fn field(mut self, json: &str) -> Self {
        let _ = write!(self.more, ", {json}");
        self
    }

    pub fn id(&self) -> [u8; 32] {
        sha256(&self.key.subject_public_key_info())
    }

    /// Its promise for an entry, given at a time in milliseconds since 1970 (RFC 6962 §3.2).
    pub fn promise(&self, at_ms: u64, entry: CtEntry<'_>) -> Vec<u8> {
        let at = at_ms.to_be_bytes();
        let mut signed = [&[0, 0][..], &at].concat();
        let body = match entry {
            CtEntry::Certificate(der) => {
                signed.extend([0, 0]);
                der
            }
            CtEntry::Precertificate { issuer_spki, tbs } => {
                signed.extend([0, 1]);
                signed.extend(sha256(issuer_spki));
                tbs
            }
        };
        signed.extend(&(body.len() as u32).to_be_bytes()[1..]);
        signed.extend_from_slice(body);
        signed.extend([0, 0]);
        let signature = self.key.sign(&signed).expect("a signature");
        [&[0][..], &self.id(), &at, &[0, 0], &self.algorithm, &vector(&signature)].concat()
    }

    fn json(&self) -> String {
        let (name, state, more) = (&self.name, &self.state, &self.more);
        let (id, key) = (BASE64.encode(&self.id()), BASE64.encode(&self.key.subject_public_key_info()));
        format!(
            r#"{{"description": "{name}", "log_id": "{id}", "key": "{key}", "url": "https://{name}.test/", "mmd": 86400, "state": {state}{more}}}"#
        )
    }
}

/// `log_list.json`, an operator a log.
pub fn log_list(logs: &[&CtLog]) -> String {
    let one = |log: &&CtLog| {
        format!(r#"{{"name": "{}", "email": [], "logs": [{}], "tiled_logs": []}}"#, log.operator, log.json())
    };
    let operators: Vec<_> = logs.iter().map(one).collect();
    format!(
        r#"{{"version": "60.1", "log_list_timestamp": "2026-11-20T12:00:00Z", "operators": [{}]}}"#,
        operators.join(",\n")
    )
}

/// A `SignedCertificateTimestampList` (RFC 6962 §3.3).
pub fn sct_list(scts: &[Vec<u8>]) -> Vec<u8> {
    vector(&scts.iter().flat_map(|sct| vector(sct)).collect::<Vec<_>>())
}

impl Authority {
    /// A certificate for `names`, good for `days` from `from` on (seconds since 1970), with the promises in it that `promises` gives for its precertificate.
    pub fn logged(
        &self,
        names: &[&str],
        from: u64,
        days: u64,
        promises: impl Fn(CtEntry<'_>) -> Vec<Vec<u8>>,
    ) -> Logged {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = Self::params(names, from, days);
        let signed = |params: &rcgen::CertificateParams| self.sign(params, &key);
        let tbs = tbs(signed(&params).der()).to_vec();
        let poison = CustomExtension::from_oid_content(&POISON, vec![5, 0]);
        params.custom_extensions.push(poison);
        let precertificate = signed(&params).der().to_vec();
        params.custom_extensions.clear();
        let spki = self.spki();
        let scts = promises(CtEntry::Precertificate { issuer_spki: &spki, tbs: &tbs });
        if !scts.is_empty() {
            let list = element(4, &sct_list(&scts));
            params.custom_extensions.push(CustomExtension::from_oid_content(&SCTS, list));
        }
        let cert = signed(&params);
        Logged { der: cert.der().to_vec(), pem: cert.pem(), key: key.serialize_pem(), tbs, precertificate }
    }

    /// The same in files called after `file`, for 90 days from half a day ago on, with the promise of each of `logs`.
    pub fn issue_logged(&self, folder: &Folder, file: &str, names: &[&str], logs: &[&CtLog]) -> Issued {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let promises = |entry: CtEntry<'_>| logs.iter().map(|log| log.promise((now - 3600) * 1000, entry)).collect();
        let logged = self.logged(names, now - 43_200, 90, promises);
        Issued {
            cert: folder.write(&format!("{file}.pem"), logged.pem),
            key: folder.write(&format!("{file}.key"), logged.key),
        }
    }
}

/// The to-be-signed part of a certificate: the first element inside.
fn tbs(certificate: &[u8]) -> &[u8] {
    let inside = &certificate[header(certificate).0..];
    let (head, length) = header(inside);
    &inside[..head + length]
}

/// The bytes before an element's content, and in it.
fn header(element: &[u8]) -> (usize, usize) {
    match element[1] {
        length @ 0..=127 => (2, usize::from(length)),
        more => {
            let bytes = &element[2..2 + usize::from(more & 0x7f)];
            (2 + bytes.len(), bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
        }
    }
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let head = match content.len() {
        0..=127 => vec![tag, content.len() as u8],
        128..=255 => vec![tag, 0x81, content.len() as u8],
        _ => vec![tag, 0x82, length[6], length[7]],
    };
    [head, content.to_vec()].concat()
}

/// `opaque <0..2^16-1>`.
fn vector(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

/// An OCSP response (RFC 6960 §4.2.1) for two certificates, the second with SCTs; with the fields that may be left out or without.
pub fn ocsp_response(list: &[u8], optional: bool) -> Vec<u8> {
    const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    const SCTS: &[u8] = &[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 5];
    let sequence = |parts: &[Vec<u8>]| element(0x30, &parts.concat());
    let time = element(0x18, b"20261122100000Z");
    let maybe = |tag, content: &[u8]| if optional { element(tag, content) } else { Vec::new() };
    let extension = |name: &[u8], value: &[u8]| sequence(&[element(6, name), element(4, &element(4, value))]);
    let extensions = element(0xa1, &sequence(&[extension(BASIC, b"another"), extension(SCTS, list)]));
    let other = sequence(&[sequence(&[]), element(0x80, b""), time.clone()]);
    let single = sequence(&[sequence(&[]), element(0x80, b""), time.clone(), maybe(0xa0, &time), extensions]);
    let responder = element(0xa2, &element(4, &[7; 20]));
    let data = sequence(&[maybe(0xa0, &[2, 1, 0]), responder, time, sequence(&[other, single])]);
    let basic = sequence(&[data, sequence(&[]), element(3, &[0])]);
    let bytes = sequence(&[element(6, BASIC), element(4, &basic)]);
    sequence(&[element(10, &[0]), element(0xa0, &bytes)])
}
