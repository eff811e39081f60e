//! What listeners that terminate TLS offer: versions, certificates, tickets.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;

use super::certificates::{Certificates, certified};
use crate::snapshot::{ListenerProtocol, ListenerTls, Snapshot, TlsVersion};

/// What is wrong with a file, and which.
#[derive(Debug)]
pub struct Wrong(String);

impl Wrong {
    pub(super) fn of(path: &Path, why: impl fmt::Display) -> Self {
        Self(format!("{}: {why}", path.display()))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The listeners that terminate TLS, as the control thread holds them.
///
/// Tickets of a listener are sealed by one key for all workers, so that a session is resumed on any of them; and no other
/// listener's, so that nobody brings a session past what this one asks of its clients (CVE-2025-23419).
#[derive(Debug, Default)]
pub struct Terminators(Vec<Option<Terminator>>);

#[derive(Debug)]
struct Terminator {
    config: Arc<ServerConfig>,
}

impl Terminators {
    /// Reads what the snapshot names.
    ///
    /// # Errors
    /// The first file that will not do.
    pub fn load(snapshot: &Snapshot) -> Result<Self, Wrong> {
        let load = |listener: &crate::snapshot::Listener| {
            let Some(tls) = &listener.tls else { return Ok(None) };
            let named = |wrong: Wrong| Wrong(format!("listener `{}`: {wrong}", listener.name));
            let config = tickets().and_then(|tickets| config(tls, listener.protocol, tickets)).map_err(named)?;
            Ok(Some(Terminator { config }))
        };
        snapshot.listeners.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// What each listener offers; `None` where it does not terminate TLS.
    #[must_use]
    pub fn configs(&self) -> Vec<Option<Arc<ServerConfig>>> {
        self.0.iter().map(|one| one.as_ref().map(|one| Arc::clone(&one.config))).collect()
    }
}

/// Seals tickets; its keys change every six hours, and are good for twelve.
fn tickets() -> Result<Arc<dyn ProducesTickets>, Wrong> {
    aws_lc_rs::Ticketer::new().map_err(|error| Wrong(format!("no keys for session tickets: {error}")))
}

fn config(
    tls: &ListenerTls,
    protocol: ListenerProtocol,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, Wrong> {
    let certificates: Result<Vec<_>, _> =
        tls.certificates.iter().map(|one| certified(&one.cert, &one.key, one.ocsp.as_deref())).collect();
    let versions: &[_] = match tls.min {
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| Wrong(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates::new(certificates?, tls.strict_sni)));
    config.ticketer = tickets;
    // One: a client that opens several connections at once gets one on each, and each costs a record and a seal.
    config.send_tls13_tickets = 1;
    // Sessions are the clients' to keep: nothing is shared by workers but the tickets' keys.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    if protocol == ListenerProtocol::Http {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}
