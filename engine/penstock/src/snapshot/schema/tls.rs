//! `tls` of a listener, what it shows to clients; and of a pool, what it asks of endpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::literal::Listed;
use crate::snapshot::pin::SpkiPin;

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
    /// The authorities of which clients must show a certificate, in PEM. Anybody is served unless given.
    pub client_ca: Option<String>,
    /// Whether everybody must: `optional` serves those who show none, too, and nobody who shows another one.
    pub client_auth: ClientAuth,
    /// Whether endpoints learn of a client's certificate, by the field `Client-Cert` (RFC 9440). What clients put into it is removed, at every
    /// listener of this file.
    pub client_cert_field: bool,
    /// The oldest version of TLS that is spoken.
    pub min: TlsVersion,
    /// Whether clients that come again may send requests with their first flight (0-RTT, RFC 8470), a round trip earlier. What is sent so can be recorded and sent
    /// again by others, so sessions are then good for one use; only GET, HEAD and OPTIONS without content go on at once, with `Early-Data: 1`, and all else waits for the
    /// handshake. Endpoints must understand that field, and answer 425 to what they do not want so (RFC 8470 §6.1).
    pub early_data: bool,
    /// Whether clients that ask for a name that no certificate has are sent away. Off: they get the first certificate.
    pub strict_sni: bool,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    #[default]
    Required,
    Optional,
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

/// TLS with endpoints. On where they are written `https://…`, or `ca` says whom to trust. Paths are relative to this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolTlsDoc {
    /// Whom to trust: `system` for the roots of the host, or a file of PEM. `system` unless given.
    pub ca: Option<String>,
    /// Whether certificates are checked: their chain, their dates, and that they are for the endpoint's name.
    pub verify: bool,
    /// The name to ask for, and to check. The endpoint's own host unless given.
    pub sni: Option<String>,
    /// Keys of which the endpoint must have one, on top of `verify` or instead of it.
    pub pin: Listed<SpkiPin>,
    /// Whether enough Certificate Transparency logs must have promised to publish an endpoint's certificate, as browsers ask for: `require` refuses endpoints
    /// without; `warn` counts them and says so on standard error; `off` does not look.
    pub transparency: Transparency,
    /// The logs that are believed: `log_list.json` as Google and Apple publish it, in version 3 of its schema.
    pub logs: Option<String>,
    /// Our own certificate, for endpoints that ask for one, in PEM.
    pub cert: Option<String>,
    /// Its key, in PEM.
    pub key: Option<String>,
}

/// What becomes of certificates that too few logs have promised to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transparency {
    #[default]
    Off,
    Warn,
    Require,
}

impl Default for PoolTlsDoc {
    fn default() -> Self {
        Self {
            ca: None,
            verify: true,
            sni: None,
            pin: Listed::default(),
            transparency: Transparency::Off,
            logs: None,
            cert: None,
            key: None,
        }
    }
}
