//! TLS, compiled: which files, and what is asked of peers. The files are read by whoever uses them, again when they change.

use std::path::{Path, PathBuf};

use crate::snapshot::schema::{CertificateDoc, TlsDoc, TlsVersion};

/// What a listener shows to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// The default one first; at least one.
    pub certificates: Box<[Certificate]>,
    pub min: TlsVersion,
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
    (!certificates.is_empty()).then_some(ListenerTls { certificates, min: doc.min, strict_sni: doc.strict_sni })
}

impl ListenerTls {
    /// Paths are the configuration file's, wherever the program was started.
    pub(super) fn root(&mut self, folder: &Path) {
        for certificate in &mut self.certificates {
            let paths = [&mut certificate.cert, &mut certificate.key].into_iter().chain(&mut certificate.ocsp);
            paths.for_each(|path| *path = folder.join(&path));
        }
    }
}
