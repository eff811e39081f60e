//! Why a TLS connection did not come about, or broke.

use std::fmt;

use rustls::{CertificateError, Error, OtherError};

/// Why there is no TLS connection, or none any more.
#[derive(Clone, Debug)]
pub enum Failure {
    /// It took too long.
    TimedOut,
    /// The peer left in the middle of the handshake.
    Left,
    /// What came is HTTP and not TLS.
    PlainHttp,
    /// The connection ended without the peer saying so (`close_notify`): what came may not be all (RFC 8446 §6.1).
    Truncated,
    /// TLS is agreed upon, and HTTP/2, which the pool wants, is not (ALPN).
    WithoutHttp2,
    /// More of one message, or of a flight, than is kept.
    TooLong,
    /// What QUIC says, which tells no more than a text.
    Quic(String),
    /// What rustls says.
    Tls(Error),
}

/// The same, coarse enough to be counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    TimedOut,
    Left,
    PlainHttp,
    /// No version, cipher, or protocol in common; or no certificate for the name.
    Incompatible,
    /// A certificate was refused, by us or by the peer, or was missing.
    Certificate,
    /// The peer ended it with an alert, for another reason.
    Alert,
    /// What came is no TLS.
    Malformed,
}

impl Failure {
    #[must_use]
    pub fn cause(&self) -> Cause {
        use rustls::AlertDescription as Alert;
        match self {
            Self::TimedOut => Cause::TimedOut,
            Self::Left | Self::Truncated => Cause::Left,
            Self::PlainHttp => Cause::PlainHttp,
            Self::WithoutHttp2 => Cause::Incompatible,
            Self::TooLong => Cause::Malformed,
            Self::Quic(_) => Cause::Alert,
            Self::Tls(error) => match error {
                Error::PeerIncompatible(_) | Error::NoApplicationProtocol | Error::General(_) => Cause::Incompatible,
                Error::InvalidCertificate(_) | Error::NoCertificatesPresented | Error::InvalidCertRevocationList(_) => {
                    Cause::Certificate
                }
                Error::AlertReceived(
                    Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::CertificateRequired,
                ) => Cause::Certificate,
                Error::AlertReceived(_) => Cause::Alert,
                _ => Cause::Malformed,
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the TLS handshake took too long"),
            Self::Left => f.write_str("the peer left in the middle of the TLS handshake"),
            Self::PlainHttp => f.write_str("the peer speaks HTTP without TLS"),
            Self::WithoutHttp2 => f.write_str("TLS is agreed upon, and the peer does not choose HTTP/2 (ALPN)"),
            Self::Truncated => f.write_str("the TLS connection ended without a close_notify"),
            Self::TooLong => f.write_str("a TLS message is too long"),
            Self::Quic(why) => write!(f, "TLS over QUIC: {why}"),
            Self::Tls(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                f.write_str("the certificate is of an issuer that is not trusted")
            }
            Self::Tls(Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
                write!(f, "the certificate is refused: {why}")
            }
            Self::Tls(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for Failure {}
