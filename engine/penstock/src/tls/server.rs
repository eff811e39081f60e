//! What listeners that terminate TLS offer: versions, certificates, tickets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};

use super::certificates::{Certificates, certified};
use super::files::Watched;
use super::roots;
use super::sessions::Sessions;
use super::shown::Showing;
use crate::limits;
use crate::snapshot::{ClientAuth, Listener, ListenerId, ListenerProtocol, ListenerTls, Snapshot, TlsVersion};

/// What is wrong with a file, and which.
#[derive(Debug)]
pub struct Wrong(String);

impl Wrong {
    pub(super) fn of(path: &Path, why: impl fmt::Display) -> Self {
        Self(format!("{}: {why}", path.display()))
    }

    pub(super) fn of_pool(self, name: &str) -> Self {
        Self(format!("pool `{name}`: {}", self.0))
    }
}

impl From<rustls::Error> for Wrong {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The listeners that terminate TLS, as the control thread holds them.
///
/// Tickets of a listener are sealed by one key for all workers, or its sessions remembered for all of them, so that a session is resumed on any; and
/// no other listener's, so that nobody brings a session past what this one asks of its clients (CVE-2025-23419).
#[derive(Debug, Default)]
pub struct Terminators(Vec<Option<Terminator>>);

#[derive(Debug)]
struct Terminator {
    config: Arc<ServerConfig>,
    showing: Vec<Showing>,
    resumption: Resumption,
    files: Watched,
}

/// What lets a client that comes again do without a whole handshake.
#[derive(Clone, Debug)]
enum Resumption {
    /// What a client brings with it. Good for any number of times, so not for early data.
    Tickets(Arc<dyn ProducesTickets>),
    /// What is remembered here, for one time.
    Once(Arc<Sessions>),
}

impl Terminators {
    /// Reads what the snapshot names.
    ///
    /// # Errors
    /// The first file that will not do.
    pub fn load(snapshot: &Snapshot) -> Result<Self, Wrong> {
        let load = |listener: &Listener| Terminator::load(listener, Resumption::new);
        snapshot.listeners.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// For a new configuration, of whose listeners some go on: those of `before` that `goes_on` names. Their clients resume what they have agreed upon.
    ///
    /// # Errors
    /// The first file that will not do.
    pub fn succeed(
        &self,
        (before, after): (&Snapshot, &Snapshot),
        goes_on: &[Option<ListenerId>],
    ) -> Result<Self, Wrong> {
        let load = |(listener, of): (&Listener, &Option<ListenerId>)| {
            let known = of.and_then(|of| {
                let terminator = self.0.get(usize::from(of.0))?.as_ref()?;
                Some((before[of].tls.as_ref()?, terminator))
            });
            Terminator::load(listener, |tls| match known {
                Some((was, terminator)) if tls.resumes(was) => Ok(terminator.resumption.clone()),
                _ => Resumption::new(tls),
            })
        };
        after.listeners.iter().zip(goes_on).map(load).collect::<Result<_, _>>().map(Self)
    }

    /// Reads anew what has changed and has stood still since the last look, for handshakes from now on. Sessions go on, and so do their tickets.
    pub fn look(&mut self, snapshot: &Snapshot) -> Vec<(ListenerId, Result<Arc<ServerConfig>, Wrong>)> {
        let mut looked = Vec::new();
        for (at, (terminator, listener)) in self.0.iter_mut().zip(&snapshot.listeners).enumerate() {
            if let (Some(terminator), Some(tls)) = (terminator, &listener.tls)
                && terminator.files.have_changed(files(tls))
            {
                let config = terminator.renew(tls, listener);
                looked.push((ListenerId(at as u16), config));
            }
        }
        looked
    }

    /// What each listener offers; `None` where it does not terminate TLS.
    #[must_use]
    pub fn configs(&self) -> Vec<Option<Arc<ServerConfig>>> {
        self.0.iter().map(|one| one.as_ref().map(|one| Arc::clone(&one.config))).collect()
    }

    /// What the listener shows to new clients; nothing where it does not terminate TLS.
    #[must_use]
    pub fn showing(&self, listener: ListenerId) -> &[Showing] {
        self.0.get(listener.0 as usize).and_then(Option::as_ref).map_or(&[], |one| &one.showing)
    }

    /// Sessions that the listener remembers for its clients; `None` where clients bring theirs.
    #[must_use]
    pub fn sessions(&self, listener: ListenerId) -> Option<usize> {
        match &self.0.get(listener.0 as usize)?.as_ref()?.resumption {
            Resumption::Tickets(_) => None,
            Resumption::Once(sessions) => Some(sessions.len()),
        }
    }
}

impl Terminator {
    /// `None` where the listener does not terminate TLS.
    fn load(
        listener: &Listener,
        resumption: impl FnOnce(&ListenerTls) -> Result<Resumption, Wrong>,
    ) -> Result<Option<Self>, Wrong> {
        let Some(tls) = &listener.tls else { return Ok(None) };
        let named = |wrong: Wrong| Wrong(format!("listener `{}`: {wrong}", listener.name));
        let files = Watched::new(files(tls));
        let resumption = resumption(tls)?;
        let (config, showing) = config(tls, listener, resumption.clone()).map_err(named)?;
        Ok(Some(Self { config, showing, resumption, files }))
    }

    /// Reads the files anew. A ticket says that its holder once was who it must be: whose authorities may have changed needs a new one.
    fn renew(&mut self, tls: &ListenerTls, listener: &Listener) -> Result<Arc<ServerConfig>, Wrong> {
        let resumption = if tls.client_ca.is_some() { Resumption::new(tls)? } else { self.resumption.clone() };
        (self.config, self.showing) = config(tls, listener, resumption.clone())?;
        self.resumption = resumption;
        Ok(Arc::clone(&self.config))
    }
}

/// Those that a listener's TLS is made of.
fn files(tls: &ListenerTls) -> impl Iterator<Item = &Path> {
    let pairs = tls.certificates.iter().flat_map(|one| [Some(&one.cert), Some(&one.key), one.ocsp.as_ref()]);
    pairs.flatten().chain(&tls.client_ca).map(PathBuf::as_path)
}

impl Resumption {
    fn new(tls: &ListenerTls) -> Result<Self, Wrong> {
        if tls.early_data {
            return Ok(Self::Once(Arc::new(Sessions::new(limits::SESSIONS_MAX))));
        }
        // Its keys change every six hours, and are good for twelve.
        let tickets = aws_lc_rs::Ticketer::new();
        tickets.map(Self::Tickets).map_err(|error| Wrong(format!("no keys for session tickets: {error}")))
    }

    fn apply(self, config: &mut ServerConfig) {
        match self {
            Self::Tickets(tickets) => {
                config.ticketer = tickets;
                // One: a client that opens several connections at once gets one on each, and each costs a record and a seal.
                config.send_tls13_tickets = 1;
                config.session_storage = Arc::new(NoServerSessionStorage {});
            }
            Self::Once(sessions) => {
                // Two: one for each of two connections that a client opens at once.
                config.send_tls13_tickets = 2;
                config.session_storage = sessions;
                config.max_early_data_size = limits::EARLY_DATA_BYTES_MAX;
                // What early data asks for is answered before the client's Finished, which is what it saves a round trip by.
                config.send_half_rtt_data = true;
            }
        }
    }
}

/// Who clients must be.
fn clients(tls: &ListenerTls) -> Result<Arc<dyn ClientCertVerifier>, Wrong> {
    let Some(path) = &tls.client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots::file(path)?), provider);
    let builder = match tls.client_auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| Wrong::of(path, error))
}

fn config(
    tls: &ListenerTls,
    listener: &Listener,
    resumption: Resumption,
) -> Result<(Arc<ServerConfig>, Vec<Showing>), Wrong> {
    let certificates: Result<Vec<_>, _> =
        tls.certificates.iter().map(|one| certified(&one.cert, &one.key, one.ocsp.as_deref())).collect();
    let certificates = certificates?;
    let showing =
        tls.certificates.iter().zip(&certificates).filter_map(|(files, one)| Showing::of(files, one)).collect();
    let versions: &[_] = match tls.min {
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(Wrong::from)?
        .with_client_cert_verifier(clients(tls)?)
        .with_cert_resolver(Arc::new(Certificates::new(certificates, tls.strict_sni)));
    resumption.apply(&mut config);
    if listener.protocol == ListenerProtocol::Http {
        let h2 = listener.http2_streams.map(|_| b"h2".to_vec());
        config.alpn_protocols = h2.into_iter().chain([b"http/1.1".to_vec()]).collect();
    }
    Ok((Arc::new(config), showing))
}
