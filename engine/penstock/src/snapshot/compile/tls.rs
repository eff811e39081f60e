//! TLS, compiled: which files, and what is asked of peers. The files are read by whoever uses them, again when they change.

use std::path::{Path, PathBuf};

use crate::snapshot::pin::SpkiPin;
use crate::snapshot::schema::{CertificateDoc, ClientAuth, PoolDoc, TlsDoc, TlsVersion, Transparency};

/// What a listener shows to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// The default one first; at least one.
    pub certificates: Box<[Certificate]>,
    /// Whose certificates clients must show; `None`: none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether they must, or may.
    pub client_auth: ClientAuth,
    /// Endpoints learn of them.
    pub client_cert_field: bool,
    pub min: TlsVersion,
    /// Requests may come with the first flight.
    pub early_data: bool,
    pub strict_sni: bool,
}

/// Where a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ocsp: Option<PathBuf>,
}

pub(super) fn listener_tls(doc: &TlsDoc) -> Option<ListenerTls> {
    let alone = doc.cert.as_ref().zip(doc.key.as_ref()).map(|(cert, key)| Certificate {
        cert: cert.into(),
        key: key.into(),
        ocsp: doc.ocsp.as_ref().map(PathBuf::from),
    });
    let several = doc.certificates.iter().map(|CertificateDoc { cert, key, ocsp }| Certificate {
        cert: cert.into(),
        key: key.into(),
        ocsp: ocsp.as_ref().map(PathBuf::from),
    });
    let certificates: Box<[_]> = alone.into_iter().chain(several).collect();
    let client_ca = doc.client_ca.as_ref().map(PathBuf::from);
    (!certificates.is_empty()).then_some(ListenerTls {
        certificates,
        client_ca,
        client_auth: doc.client_auth,
        client_cert_field: doc.client_cert_field,
        min: doc.min,
        early_data: doc.early_data,
        strict_sni: doc.strict_sni,
    })
}

impl ListenerTls {
    /// A client that has a session by the other one may resume it here. One that had to say who it is has to say it again: whom it is believed by may
    /// have changed.
    #[must_use]
    pub fn resumes(&self, other: &Self) -> bool {
        self.early_data == other.early_data && self.client_ca.is_none() && other.client_ca.is_none()
    }

    /// Paths are the configuration file's, wherever the program was started.
    pub(super) fn root(&mut self, folder: &Path) {
        if let Some(client_ca) = &mut self.client_ca {
            *client_ca = folder.join(&client_ca);
        }
        for certificate in &mut self.certificates {
            let paths = [&mut certificate.cert, &mut certificate.key].into_iter().chain(&mut certificate.ocsp);
            paths.for_each(|path| *path = folder.join(&path));
        }
    }
}

/// What a pool asks of its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTls {
    pub trust: Trust,
    /// `None`: each endpoint's own host.
    pub sni: Option<Box<str>>,
    /// One of these must be the endpoint's, if there are any.
    pub pins: Box<[SpkiPin]>,
    /// Our own.
    pub identity: Option<Certificate>,
    /// `None`: nobody looks.
    pub transparency: Option<PoolTransparency>,
}

/// What is asked of Certificate Transparency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTransparency {
    /// Where the list of logs is.
    pub logs: PathBuf,
    /// Who has too few promises is refused, and not only told of.
    pub required: bool,
}

/// Whose word is taken for who an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The roots of the host.
    System,
    /// The authorities in this file.
    File(PathBuf),
    /// Everybody is believed; or pins alone decide.
    Nobody,
}

pub(super) fn pool_tls(pool: &PoolDoc) -> Option<PoolTls> {
    let doc = &pool.tls;
    if doc.ca.is_none() && !pool.endpoints.iter().any(|endpoint| endpoint.0.tls) {
        return None;
    }
    let trust = match doc.ca.as_deref() {
        _ if !doc.verify => Trust::Nobody,
        None | Some("system") => Trust::System,
        Some(path) => Trust::File(path.into()),
    };
    let identity = doc.cert.as_ref().zip(doc.key.as_ref());
    Some(PoolTls {
        trust,
        sni: doc.sni.as_deref().map(Into::into),
        pins: doc.pin.0.as_slice().into(),
        identity: identity.map(|(cert, key)| Certificate { cert: cert.into(), key: key.into(), ocsp: None }),
        transparency: doc
            .logs
            .as_ref()
            .filter(|_| doc.transparency != Transparency::Off)
            .map(|logs| PoolTransparency { logs: logs.into(), required: doc.transparency == Transparency::Require }),
    })
}

impl PoolTls {
    pub(super) fn root(&mut self, folder: &Path) {
        if let Trust::File(path) = &mut self.trust {
            *path = folder.join(&path);
        }
        if let Some(identity) = &mut self.identity {
            identity.cert = folder.join(&identity.cert);
            identity.key = folder.join(&identity.key);
        }
        if let Some(transparency) = &mut self.transparency {
            transparency.logs = folder.join(&transparency.logs);
        }
    }
}
