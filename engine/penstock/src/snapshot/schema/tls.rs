//! `tls` of a listener: what it shows to clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS with clients. Off unless `cert` or `certificates` is given. Paths are relative to this file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsDoc {
    /// The certificate with its chain behind it, in PEM.
    pub cert: Option<String>,
    /// The certificate's key, in PEM.
    pub key: Option<String>,
    /// The certificate's OCSP response, in DER, passed on to clients.
    pub ocsp: Option<String>,
    /// Several certificates, in the place of `cert`: a client gets the one for the name that it asks for, an exact name before a wildcard, and
    /// of two for the same name the first whose kind of key it knows. The first is for clients that name none.
    pub certificates: Vec<CertificateDoc>,
    /// The oldest version of TLS that is spoken.
    pub min: TlsVersion,
    /// Whether clients that ask for a name that no certificate has are sent away. Off: they get the first certificate.
    pub strict_sni: bool,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub struct CertificateDoc {
    /// The certificate with its chain behind it, in PEM.
    pub cert: String,
    /// Its key, in PEM.
    pub key: String,
    /// Its OCSP response, in DER.
    pub ocsp: Option<String>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsDoc {
    /// Whether anything asks for TLS.
    pub(in crate::snapshot) fn is_on(&self) -> bool {
        self.cert.is_some() || !self.certificates.is_empty()
    }
}
