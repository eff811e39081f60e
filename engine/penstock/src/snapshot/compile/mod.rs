//! The snapshot: what workers read, with indexes for names and numbers for texts.

mod balance;
mod breaker;
mod health;
mod listen;
mod outlier;
mod pool;
mod qos;
mod route;
mod shield;
mod sni;
mod tls;
mod vip;
mod websocket;

pub use balance::{CookieRule, Division, Stickiness};
pub use breaker::{Fallback, RouteBreaker};
pub use health::{HealthProbe, ProbeAsk};
pub(super) use listen::further_ports;
pub use listen::{Flows, Http3, Listener, ListenerProtocol};
pub use pool::{Pool, Retry, Reuse, Timeouts};
pub(super) use qos::DEFAULT_CLASS;
pub use qos::{Admission, Class, ClassId, Limit, Pace, Paces, RouteQos};
pub use route::{Action, Candidates, Fixed, HeaderRule, HeaderRules, Mirror, Redirect, Rewrite, Route, Target};
pub(super) use route::{default_route_name, rules_of};
pub use shield::{OverLimit, Shield};
pub use sni::SniTable;
pub use tls::{Certificate, ListenerTls, PoolTls, PoolTransparency, Trust};
pub use vip::{Balancer, Decap, OuterSource, Vip};
pub use websocket::WebSockets;

use std::{
    net::{IpAddr, SocketAddr},
    ops::Index,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Files,
    address::Cidr,
    literal::{Cores, Listed, ServerPolicy, Spin, Text, Time, ViaName},
    route::{Asked, Found, RouteId, RouteTable},
    schema::{AccessFormat, Document, Driver, PoolDoc, RouteDoc, Splice, Steering, XdpMode},
};
use crate::snapshot::Address;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// A configuration that passed every check. It never changes: workers share it behind an `Arc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub engine: EngineSettings,
    pub access_log: Option<AccessLog>,
    /// `None`: there is none.
    pub qlog: Option<QlogSettings>,
    /// `None`: there is none.
    pub shield: Option<Shield>,
    /// `None`: there is none.
    pub balance: Option<Balancer>,
    /// `None`: there is none.
    pub decap: Option<Decap>,
    /// The default one first.
    pub classes: Box<[Class]>,
    pub listeners: Box<[Listener]>,
    pub pools: Box<[Pool]>,
    pub routes: Box<[Route]>,
    pub table: RouteTable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    pub cores: Cores,
    pub driver: Driver,
    pub steering: Steering,
    /// Whether large tunnels are spliced.
    pub splice: Splice,
    pub admin: Box<[Address]>,
    pub drain_timeout: Duration,
    /// None: those of the host.
    pub resolver: Box<[SocketAddr]>,
    pub spin: Spin,
    pub via: ViaName,
    pub server: ServerPolicy,
    /// What the shortcut to endpoints of this host is limited to; `None`: all of the host.
    pub same_host_cgroup: Option<PathBuf>,
    pub quic: QuicSettings,
    /// `None`: all datagrams are the kernel's.
    pub af_xdp: Option<AfXdp>,
}

/// Where datagrams of HTTP/3 go past the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfXdp {
    pub interface: Box<str>,
    pub mode: XdpMode,
}

/// What QUIC's endpoints of all listeners have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuicSettings {
    /// Where the secrets are that the machines of a fleet share; `None`: this process has its own.
    pub secrets: Option<PathBuf>,
    /// Which of those machines this is.
    pub server: u16,
    /// Datagrams are brought to the worker that has their connection.
    pub pass_on: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// `None`: standard output.
    pub path: Option<PathBuf>,
    pub format: AccessFormat,
}

/// Whose connections of HTTP/3 are written down, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QlogSettings {
    pub folder: PathBuf,
    /// Whose connections are written down, from the start.
    pub peers: Vec<Cidr>,
    pub files: u32,
    /// Bytes of each.
    pub file_max: u64,
}

/// A set of networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Box<[Cidr]>);

impl Networks {
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Cidr> {
        self.0.iter()
    }
}

impl Snapshot {
    /// The route of a request, or `None`: 404. See [`RouteTable::find`].
    #[must_use]
    pub fn route(&self, asked: &Asked<'_>) -> Option<(Found, &Route)> {
        let found = self.table.find(asked)?;
        Some((found, &self[found.route]))
    }

    /// The class of a name.
    #[must_use]
    pub fn class_named(&self, name: &[u8]) -> Option<ClassId> {
        self.classes.iter().position(|class| class.name.as_bytes() == name).map(|at| ClassId(at as u8))
    }

    /// How programs of XDP are to stand on an interface: as any section that names it says, which all say alike.
    #[must_use]
    pub fn xdp_mode(&self, interface: &str) -> XdpMode {
        let mut modes = self.xdp().filter(|(name, _)| *name == interface).map(|(_, mode)| mode);
        modes.find(|mode| *mode != XdpMode::Auto).unwrap_or_default()
    }

    /// Interfaces that programs of XDP are to stand on, each as often as sections name it.
    pub fn xdp_interfaces(&self) -> impl Iterator<Item = &str> {
        self.xdp().map(|(name, _)| name)
    }

    fn xdp(&self) -> impl Iterator<Item = (&str, XdpMode)> {
        let shield = self.shield.iter().map(|shield| (&*shield.interfaces, shield.mode));
        let balance = self.balance.iter().map(|balance| (&*balance.interfaces, balance.mode));
        let decap = self.decap.iter().map(|decap| (&*decap.interfaces, decap.mode));
        let many = shield.chain(balance).chain(decap);
        let many = many.flat_map(|(interfaces, mode)| interfaces.iter().map(move |name| (&**name, mode)));
        many.chain(self.engine.af_xdp.iter().map(|wish| (&*wish.interface, wish.mode)))
    }

    /// Makes the paths of files that are read while it runs those of the configuration file's folder.
    pub fn root(&mut self, folder: &Path) {
        if let Some(secrets) = &mut self.engine.quic.secrets {
            *secrets = folder.join(&secrets);
        }
        self.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()).for_each(|tls| tls.root(folder));
        self.pools.iter_mut().filter_map(|pool| pool.tls.as_mut()).for_each(|tls| tls.root(folder));
        let files = self.shield.iter_mut().flat_map(|shield| &mut shield.deny_files);
        files.for_each(|path| *path = folder.join(&path));
    }

    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<PoolId> {
        self.pools.iter().position(|pool| &*pool.name == name).map(|at| PoolId(at as u16))
    }
}

impl Index<PoolId> for Snapshot {
    type Output = Pool;
    fn index(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }
}

impl Index<ClassId> for Snapshot {
    type Output = Class;
    fn index(&self, id: ClassId) -> &Class {
        &self.classes[usize::from(id.0)]
    }
}

impl Index<ListenerId> for Snapshot {
    type Output = Listener;
    fn index(&self, id: ListenerId) -> &Listener {
        &self.listeners[usize::from(id.0)]
    }
}

impl Index<RouteId> for Snapshot {
    type Output = Route;
    fn index(&self, id: RouteId) -> &Route {
        &self.routes[usize::from(id.0)]
    }
}

/// Compiles a document that `meaning` found no error in.
pub(super) fn compile(document: &Document, files: &Files<'_>) -> Snapshot {
    let classes = qos::classes(document);
    let mut pools: Box<[Pool]> = document.pool.iter().map(pool::pool).collect();
    let pool_id = |name: &str| {
        let at = document.pool.iter().position(|pool| pool.name == name);
        PoolId(at.expect("`meaning` found the pool") as u16)
    };
    for (at, doc) in document.pool.iter().enumerate() {
        let target = |name: &str| {
            let pool = pool_id(name);
            Target { pool, timeouts: pools[usize::from(pool.0)].timeouts }
        };
        pools[at].fallback = breaker::fallback(&doc.fallback, target, files);
    }
    let mut routes: Vec<Route> = Vec::new();
    let mut rules = Vec::new();
    for doc in &document.route {
        let id = RouteId(routes.len() as u16);
        routes.push(route::route(doc, pool_id, &pools, &classes, files));
        rules.extend(rules_of(doc, id));
    }
    if let Some(only) = only_http_pool(document).filter(|_| document.route.is_empty()) {
        let doc = RouteDoc { name: Some("everything".into()), pool: Some(only.name.clone()), ..RouteDoc::default() };
        routes.push(route::route(&doc, pool_id, &pools, &classes, files));
        rules.extend(rules_of(&doc, RouteId(0)));
    }
    let mut table = RouteTable::new(rules);
    table.tells_paths_apart |= routes.iter().any(Route::uses_path);
    let listeners = document.listen.iter().map(|doc| listen::listener(doc, &classes, pool_id)).collect();
    Snapshot {
        engine: EngineSettings {
            cores: document.engine.cores.0.clone(),
            driver: document.engine.driver,
            steering: document.engine.steering,
            splice: document.engine.tunnel.splice,
            admin: document.engine.admin.0.as_slice().into(),
            drain_timeout: time(&document.engine.drain_timeout.0),
            resolver: document.engine.resolver.0.iter().map(|server| server.0).collect(),
            spin: document.engine.spin.0,
            via: document.engine.via.0.clone(),
            server: document.engine.server.0.clone(),
            same_host_cgroup: document.engine.same_host_cgroup.as_ref().map(PathBuf::from),
            quic: QuicSettings {
                secrets: document.engine.quic.secrets.as_ref().map(PathBuf::from),
                server: document.engine.quic.server,
                pass_on: document.engine.quic.pass_on,
            },
            af_xdp: document
                .engine
                .af_xdp
                .interface
                .as_deref()
                .map(|interface| AfXdp { interface: interface.into(), mode: document.engine.af_xdp.mode }),
        },
        access_log: access_log(document),
        qlog: qlog(document),
        shield: shield::shield(&document.shield),
        balance: vip::balance(&document.balance, &document.vip, pool_id),
        decap: vip::decap(&document.decap),
        classes,
        listeners,
        pools,
        routes: routes.into(),
        table,
    }
}

/// The pool that everything goes to when there is no route: the only one that no `tcp` door leads to.
pub(super) fn only_http_pool(document: &Document) -> Option<&PoolDoc> {
    let mut candidates = http_pools(document);
    candidates.next().filter(|_| candidates.next().is_none())
}

pub(super) fn http_pools(document: &Document) -> impl Iterator<Item = &PoolDoc> {
    let behind_tcp = |name: &str| document.listen.iter().any(|door| door.pools_of_bytes().any(|pool| pool == name));
    let next = move |name: &str| document.pool.iter().find(|pool| pool.name == name)?.fallback.pool.as_deref();
    // In a circle nobody stands in for anybody, which is reported as that.
    let leads_to = move |from: &str, to: &str| {
        let chain = std::iter::successors(Some(from), |name| next(name));
        chain.take(document.pool.len() + 1).any(|name| name == to)
    };
    let stands_in = move |name: &str| {
        let mut pools = document.pool.iter();
        pools.any(|pool| pool.fallback.pool.as_deref() == Some(name) && !leads_to(name, &pool.name))
    };
    let behind_vip = |name: &str| document.vip.iter().any(|vip| vip.pool == name);
    let is_led_to = move |name: &str| behind_tcp(name) || behind_vip(name) || stands_in(name);
    document.pool.iter().filter(move |pool| !is_led_to(&pool.name))
}

fn access_log(document: &Document) -> Option<AccessLog> {
    let access = &document.log.access;
    let path = match access.path.as_str() {
        "off" => return None,
        "-" => None,
        path => Some(PathBuf::from(path)),
    };
    Some(AccessLog { path, format: access.format })
}

fn qlog(document: &Document) -> Option<QlogSettings> {
    let qlog = &document.log.qlog;
    Some(QlogSettings {
        folder: qlog.folder.as_ref()?.into(),
        peers: qlog.peers.0.clone(),
        files: qlog.files,
        file_max: qlog.file_max.0.0,
    })
}

const fn time(text: &Text<Time>) -> Duration {
    text.0.0
}

fn networks(listed: &Listed<Cidr>) -> Networks {
    Networks(listed.0.as_slice().into())
}
