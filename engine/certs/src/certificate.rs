//! A certificate, described.

use std::fmt;
use std::net::IpAddr;

use pki_types::CertificateDer;
use pki_types::pem::PemObject;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::precert::SCT_LIST;
use crate::{BadScts, Sct, Time, der, read_list, sha256};

/// Certificates of a chain that are looked at: TLS libraries accept ten or fewer intermediates.
const CHAIN_MAX: usize = 100;

/// What a certificate says. Text in it comes from whoever made it; control characters are question marks here.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// For which hosts it is: DNS names, addresses, and other names with their kind in front (`email:…`).
    pub names: Vec<String>,
    /// Hexadecimal, bytes apart by colons.
    pub serial: String,
    pub not_before: Time,
    pub not_after: Time,
    pub key: Key,
    /// What the issuer has signed with.
    pub signature: String,
    /// It may issue others (RFC 5280 §4.2.1.9).
    pub is_ca: bool,
    /// SHA-256 of the whole.
    pub fingerprint: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo: what pools pin (RFC 7469 §2.4).
    pub pin: [u8; 32],
    /// The SCTs that its authority has put in; empty where there are none.
    pub scts: Result<Vec<Sct>, BadScts>,
    der: Box<[u8]>,
    spki: Box<[u8]>,
    subject_der: Box<[u8]>,
    issuer_der: Box<[u8]>,
    key_ids: KeyIds,
}

/// Identifiers of keys (RFC 5280 §4.2.1.1, §4.2.1.2).
#[derive(Clone, Debug, Default)]
struct KeyIds {
    own: Option<Box<[u8]>>,
    issuers: Option<Box<[u8]>>,
}

/// The kind of a public key, and how large it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Key {
    /// Bits of the modulus.
    Rsa(usize),
    /// The curve, as `P-256`.
    Ecdsa(String),
    Ed25519,
    /// Its algorithm's name or object identifier.
    Other(String),
}

/// Why bytes are no certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// Reads the certificates of a file in their order: of PEM as many as it has, of DER the one that it is.
///
/// # Errors
/// Which one cannot be read, and why; or that there is none.
pub fn read_chain(file: &[u8]) -> Result<Vec<Certificate>, Unreadable> {
    if der::only(file, der::SEQUENCE).is_some() {
        return Certificate::read(file).map(|one| vec![one]);
    }
    let mut chain = Vec::new();
    for one in CertificateDer::pem_slice_iter(file) {
        let at = chain.len() + 1;
        if at > CHAIN_MAX {
            return Err(Unreadable(format!("there are more than {CHAIN_MAX} certificates in it")));
        }
        let one = one.map_err(|error| Unreadable(format!("certificate {at} is no PEM: {error}")))?;
        chain.push(Certificate::read(&one).map_err(|error| Unreadable(format!("certificate {at}: {error}")))?);
    }
    if chain.is_empty() { Err(Unreadable("there is no certificate in it".to_owned())) } else { Ok(chain) }
}

impl Certificate {
    /// Reads one in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn read(der: &[u8]) -> Result<Self, Unreadable> {
        let (rest, parsed) = X509Certificate::from_der(der)
            .map_err(|error| Unreadable(format!("it is no X.509 certificate: {error}")))?;
        if !rest.is_empty() {
            return Err(Unreadable(format!("{} bytes follow the certificate", rest.len())));
        }
        let spki = parsed.public_key();
        Ok(Self {
            subject: printable(&parsed.subject().to_string()),
            issuer: printable(&parsed.issuer().to_string()),
            names: names(&parsed),
            serial: parsed.raw_serial_as_string(),
            not_before: Time::from_unix(parsed.validity().not_before.timestamp()),
            not_after: Time::from_unix(parsed.validity().not_after.timestamp()),
            key: key(&parsed),
            signature: algorithm(&parsed.signature_algorithm.algorithm.to_id_string()),
            is_ca: parsed.is_ca(),
            fingerprint: sha256(der),
            pin: sha256(spki.raw),
            scts: scts(&parsed),
            der: der.into(),
            spki: spki.raw.into(),
            subject_der: parsed.subject().as_raw().into(),
            issuer_der: parsed.issuer().as_raw().into(),
            key_ids: key_ids(&parsed),
        })
    }

    /// As it was read.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its SubjectPublicKeyInfo, in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The subject's distinguished name, in DER.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The issuer's distinguished name, in DER.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    /// Issued by whom it is for, as roots are, and certificates that somebody made for himself.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.subject_der == self.issuer_der && self.names_key_of(self)
    }

    /// Whether `issuer` is the one that this certificate names, by name and, where both tell, by key.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        self.issuer_der == issuer.subject_der && self.names_key_of(issuer)
    }

    fn names_key_of(&self, issuer: &Self) -> bool {
        match (&self.key_ids.issuers, &issuer.key_ids.own) {
            (Some(named), Some(key)) => named == key,
            _ => true,
        }
    }

    /// Whole days that it is still good for; negative once it has expired.
    #[must_use]
    pub fn days_left(&self, now: Time) -> i64 {
        now.days_until(self.not_after)
    }

    /// What is left of its life, of a hundred.
    pub(crate) fn share_left(&self, now: Time) -> i64 {
        let life = self.not_before.seconds_until(self.not_after).max(1);
        now.seconds_until(self.not_after).saturating_mul(100) / life
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::Ecdsa(curve) => write!(f, "ECDSA {curve}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => printable(name),
        GeneralName::IPAddress(bytes) => address(bytes),
        GeneralName::RFC822Name(name) => format!("email:{}", printable(name)),
        GeneralName::URI(name) => format!("uri:{}", printable(name)),
        other => printable(&other.to_string()),
    };
    names.value.general_names.iter().map(name).collect()
}

fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let either = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    either.map_or_else(|_| format!("an address of {} bytes", bytes.len()), |ip| ip.to_string())
}

fn key(parsed: &X509Certificate<'_>) -> Key {
    let spki = parsed.public_key();
    let id = spki.algorithm.algorithm.to_id_string();
    match (id.as_str(), spki.parsed()) {
        ("1.3.101.112", _) => Key::Ed25519,
        (_, Ok(PublicKey::RSA(rsa))) => Key::Rsa(rsa.key_size()),
        (_, Ok(PublicKey::EC(_))) => {
            let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            Key::Ecdsa(curve.map_or_else(|| "of an unnamed curve".to_owned(), |oid| algorithm(&oid.to_id_string())))
        }
        _ => Key::Other(algorithm(&id)),
    }
}

/// What is called what, of those that certificates have; any other by its object identifier.
fn algorithm(id: &str) -> String {
    let name = match id {
        "1.2.840.113549.1.1.1" => "RSA",
        "1.2.840.113549.1.1.5" => "RSA with SHA-1",
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.113549.1.1.11" => "RSA with SHA-256",
        "1.2.840.113549.1.1.12" => "RSA with SHA-384",
        "1.2.840.113549.1.1.13" => "RSA with SHA-512",
        "1.2.840.10045.4.1" => "ECDSA with SHA-1",
        "1.2.840.10045.4.3.2" => "ECDSA with SHA-256",
        "1.2.840.10045.4.3.3" => "ECDSA with SHA-384",
        "1.2.840.10045.4.3.4" => "ECDSA with SHA-512",
        "1.2.840.10045.3.1.7" => "P-256",
        "1.3.132.0.34" => "P-384",
        "1.3.132.0.35" => "P-521",
        "1.3.132.0.10" => "secp256k1",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "2.16.840.1.101.3.4.3.17" => "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18" => "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19" => "ML-DSA-87",
        other => other,
    };
    name.to_owned()
}

fn key_ids(parsed: &X509Certificate<'_>) -> KeyIds {
    let mut ids = KeyIds::default();
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => ids.own = Some(id.0.into()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                ids.issuers = id.key_identifier.as_ref().map(|id| id.0.into());
            }
            _ => {}
        }
    }
    ids
}

fn scts(parsed: &X509Certificate<'_>) -> Result<Vec<Sct>, BadScts> {
    let extension = parsed.extensions().iter().find(|extension| extension.oid.as_bytes() == SCT_LIST);
    let Some(extension) = extension else { return Ok(Vec::new()) };
    read_list(der::only(extension.value, der::OCTET_STRING).ok_or(BadScts::Truncated)?)
}
