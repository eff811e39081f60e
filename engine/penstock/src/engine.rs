//! The engine: its workers, as the control thread holds them.

mod reload;
mod thread;
mod vips;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::{Granted, Now, Sender};

pub use self::reload::{Reloaded, Reloads, Reread, compare, follow_discovery, reload};
pub(crate) use self::thread::driver;
use self::thread::{Started, work};
use crate::afxdp::AfXdp;
use crate::balance::Balance;
use crate::bpf::Interfaces;
use crate::cores;
use crate::exchange::Splicing;
use crate::limits;
use crate::oversight::Oversight;
use crate::qos;
use crate::quic;
use crate::samehost::SameHost;
use crate::session::udp::Owners;
use crate::shield::Shield;
use crate::snapshot::{Bind, ListenerId, ListenerProtocol, PoolId, RouteId, Snapshot, Splice};
use crate::steer::{Datagrams, Group, Mode, Neighbours, Place, Steering};
use crate::telemetry::access_log::Log;
use crate::telemetry::qlog::Qlog;
use crate::telemetry::{WebSockets, WorkerCells};
use crate::tls::{self, OriginationFiles, Originations, Terminators};
use crate::upstream::{Admin, BreakerOrder, Breakers, Discovery, Roster, Selections, policy_now};
use crate::worker::{Generation, Message, Plan};

/// A running engine.
pub struct Engine {
    /// What holds now.
    generation: Arc<Generation>,
    /// Those before it that something still goes on in.
    ending: Vec<Weak<Snapshot>>,
    reloads: Reloads,
    cells: Vec<Arc<WorkerCells>>,
    steering: Steering,
    shield: Shield,
    same_host: SameHost,
    balance: Balance,
    afxdp: AfXdp,
    /// Which worker has a flow of datagrams, where there are several.
    owners: Option<Arc<Owners>>,
    interfaces: Interfaces,
    roster: Roster,
    oversight: Oversight,
    discovery: Option<Discovery>,
    terminators: Terminators,
    quic: quic::Keys,
    origination_files: OriginationFiles,
    /// Whose mailbox was full when a list changed: it is told again.
    behind: BTreeSet<(usize, PoolId)>,
    cpus: Vec<u16>,
    granted: Granted,
    mail: Vec<Sender<Message>>,
    threads: Vec<JoinHandle<()>>,
    log: Option<Log>,
    qlog: Option<Arc<Qlog>>,
    begun: Now,
    draining: bool,
}

impl Engine {
    /// Starts a worker on every CPU that the snapshot asks for.
    ///
    /// # Errors
    /// The first worker's that could not start; those that did are ended again.
    pub fn start(snapshot: &Arc<Snapshot>) -> io::Result<Self> {
        let allowed = ring::allowed_cpus()?;
        let cpus = cores::choose(&snapshot.engine.cores, &allowed).map_err(io::Error::other)?;
        raise_descriptor_limit();
        let terminators = Terminators::load(snapshot).map_err(|wrong| io::Error::other(wrong.to_string()))?;
        let origination_files = OriginationFiles::new(snapshot);
        let originations = Originations::load(snapshot).map_err(|wrong| io::Error::other(wrong.to_string()))?;
        let quic = quic::Keys::new(&snapshot.engine.quic)?;
        let log = snapshot.access_log.as_ref().map(Log::start).transpose()?;
        let qlog = snapshot.qlog.as_ref().map(Qlog::start).transpose()?;
        let mut roster = Roster::new(snapshot, cpus.len(), now());
        roster.sign(snapshot)?;
        let discovery = Discovery::start(snapshot);
        if let Some(discovery) = &discovery {
            discovery.wait(limits::DISCOVERY_FIRST);
            roster.take_all(discovery.news(), now());
        }
        let members: Vec<_> = roster.pools().cloned().collect();
        let mut oversight = Oversight::new(snapshot, originations.clone(), quic.clone(), now());
        for (at, members) in (0..).zip(&members) {
            oversight.follow(PoolId(at), members, now());
        }
        let mut same_host = SameHost::prepare(snapshot);
        same_host.raise(snapshot);
        let mut generation = Generation::first(snapshot, cpus.len(), members, terminators.configs(), originations);
        generation.switches = same_host.switches().to_vec();
        let mut engine = Self {
            generation: Arc::new(generation),
            ending: Vec::new(),
            reloads: Reloads::default(),
            cells: cpus.iter().map(|_| Arc::default()).collect(),
            steering: Steering::new(snapshot.engine.steering, cpus.len()),
            shield: Shield::default(),
            same_host,
            balance: Balance::default(),
            afxdp: AfXdp::prepare(snapshot),
            owners: (cpus.len() > 1).then(Arc::default),
            interfaces: Interfaces::default(),
            roster,
            oversight,
            discovery,
            terminators,
            quic,
            origination_files,
            behind: BTreeSet::new(),
            granted: Granted::default(),
            mail: Vec::new(),
            threads: Vec::new(),
            log,
            qlog,
            begun: ring::monotonic(),
            draining: false,
            cpus,
        };
        engine.start_workers()?;
        engine.shield = Shield::raise(snapshot, &engine.interfaces);
        engine.balance = Balance::raise(snapshot, &engine.quic.ids(), &engine.interfaces);
        engine.follow_vips();
        engine.afxdp.stand(snapshot, &engine.interfaces);
        Ok(engine)
    }

    /// All bind before any works: programs choose among sockets that are all there.
    fn start_workers(&mut self) -> io::Result<()> {
        let mut sockets = Vec::new();
        let mut waiting = Vec::new();
        let mut inboxes = Vec::new();
        let mut ways = Vec::new();
        let snapshot = Arc::clone(self.snapshot());
        let listeners = (0..).map(ListenerId).zip(&snapshot.listeners);
        let groups = self.steering.open(listeners, self.cpus.len());
        let places = places(&snapshot, &groups);
        for index in 0..self.cpus.len() {
            let started = self.start_worker(index, &places)?;
            self.granted = started.granted;
            self.mail.push(started.mail);
            sockets.push(started.sockets);
            inboxes.push(started.inboxes);
            ways.push(started.ways);
            waiting.push(started.go);
        }
        self.steering.lead(&snapshot.listeners, &sockets);
        self.steering.attach(groups, &sockets, &self.known_of_datagrams());
        self.join_workers(ways);
        let hands_over = self.steering.mode() == Mode::HandOver;
        for (own, go) in waiting.into_iter().enumerate() {
            let to = inboxes.iter_mut().map(|from| from.get_mut(own).and_then(Option::take)).collect();
            let neighbours = hands_over.then(|| Neighbours::new(own, to, self.cells.clone()));
            // A worker that has ended meanwhile is noticed where the others are.
            let _ = go.send(neighbours);
        }
        Ok(())
    }

    /// What programs know of QUIC's datagrams.
    fn known_of_datagrams(&self) -> Datagrams {
        let quic::Place { server, generation, .. } = self.quic.place(0);
        Datagrams { server, generation, ids: self.quic.ids() }
    }

    fn start_worker(&mut self, index: usize, places: &[Vec<Place>]) -> io::Result<Started> {
        let (ready, is_ready) = channel();
        let plan = self.plan(index, places.to_vec());
        let cpu = usize::from(self.cpus[index]);
        let thread = std::thread::Builder::new().name(format!("penstock-{index}"));
        self.threads.push(thread.spawn(move || work(plan, cpu, &ready))?);
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("a worker ended before it had started")))
    }

    /// Gives each worker its ways to the others, where datagrams may be passed on; `ways` are by where they lead.
    fn join_workers(&mut self, mut ways: Vec<Vec<Option<Sender<quic::Astray>>>>) {
        if !self.snapshot().engine.quic.pass_on {
            return;
        }
        for (from, mail) in self.mail.iter_mut().enumerate() {
            let own = ways.iter_mut().map(|to| to.get_mut(from).and_then(Option::take)).collect::<Vec<_>>();
            if own.iter().any(Option::is_some) {
                // An empty mailbox takes one message.
                let _ = mail.send(Message::Ways(quic::Ways::new(own)));
            }
        }
    }

    fn plan(&mut self, index: usize, places: Vec<Vec<Place>>) -> Plan {
        Plan {
            generation: Arc::clone(&self.generation),
            cells: Arc::clone(&self.cells[index]),
            log: self.log.as_ref().map(Log::writer),
            qlog: self.qlog.clone(),
            quic: self.quic.clone(),
            afxdp: self.afxdp.share(index, self.cpus.len()),
            owners: self.owners.clone(),
            splicing: (self.snapshot().engine.splice == Splice::Auto).then(|| Splicing::among(self.cpus.len())),
            places,
            hands_over: self.steering.mode() == Mode::HandOver,
            index,
            count: self.cpus.len(),
            seed: RandomState::new().build_hasher().finish(),
        }
    }

    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.generation.snapshot
    }

    #[must_use]
    pub fn cells(&self) -> &[Arc<WorkerCells>] {
        &self.cells
    }

    /// What listeners that terminate TLS show.
    #[must_use]
    pub fn terminators(&self) -> &Terminators {
        &self.terminators
    }

    /// What limits, classes and paces count.
    #[must_use]
    pub fn qos(&self) -> &qos::Shared {
        &self.generation.qos
    }

    /// What routes with candidates have chosen, and why.
    #[must_use]
    pub fn selections(&self) -> &Selections {
        &self.generation.selections
    }

    /// What the breakers of routes make of them.
    #[must_use]
    pub fn breakers(&self) -> &Breakers {
        &self.generation.breakers
    }

    /// Whose connections of HTTP/3 are written down, where any may be.
    #[must_use]
    pub fn qlog(&self) -> Option<&Qlog> {
        self.qlog.as_deref()
    }

    /// What is told of WebSockets, by worker.
    #[must_use]
    pub fn websockets(&self) -> &[Arc<WebSockets>] {
        &self.generation.websockets
    }

    /// How connections find their worker.
    #[must_use]
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// What is dropped before it costs a socket.
    #[must_use]
    pub fn shield(&self) -> &Shield {
        &self.shield
    }

    /// What is sent on before it costs a socket.
    #[must_use]
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// Whose datagrams go past the kernel.
    #[must_use]
    pub fn afxdp(&self) -> &AfXdp {
        &self.afxdp
    }

    /// Which programs stand on interfaces.
    #[must_use]
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// To say whom it denies.
    pub fn shield_mut(&mut self) -> &mut Shield {
        &mut self.shield
    }

    /// What skips TCP on this host.
    #[must_use]
    pub fn same_host(&self) -> &SameHost {
        &self.same_host
    }

    /// To turn it on or off.
    pub fn same_host_mut(&mut self) -> &mut SameHost {
        &mut self.same_host
    }

    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    #[must_use]
    pub fn originations(&self) -> &Originations {
        &self.generation.originations
    }

    #[must_use]
    pub fn oversight(&self) -> &Oversight {
        &self.oversight
    }

    #[must_use]
    pub fn cpus(&self) -> &[u16] {
        &self.cpus
    }

    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    #[must_use]
    pub fn uptime(&self) -> Duration {
        ring::monotonic().since(self.begun)
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Notes what workers have decided of endpoints and routes.
    pub fn look(&self) {
        self.oversight.look(&self.generation.breakers, now());
    }

    /// The operator's word on the breaker of a route that has one, from now on, and `told` for the record.
    pub fn order_route(&self, route: RouteId, order: BreakerOrder, told: String) {
        if let Some(shared) = self.generation.breakers.of(route) {
            shared.set_order(order);
            self.oversight.note_route(route, told, now());
        }
    }

    /// What is due now and then: workers that were not told, breakers that have turned, endpoints to be compared.
    pub fn look_after(&mut self) {
        self.catch_up();
        self.look_at_certificates();
        self.look_at_secrets();
        for news in self.shield.look(ring::now()) {
            eprintln!("penstock: {news}");
        }
        self.balance.look();
        if let Some(news) = self.afxdp.look() {
            eprintln!("penstock: {news}");
        }
        self.look();
        self.oversight.judge(now());
    }

    /// Certificates that were replaced on disk are shown from now on, and authorities trusted; what cannot be used is said, and the old ones stay.
    fn look_at_certificates(&mut self) {
        let snapshot = Arc::clone(self.snapshot());
        for (listener, config) in self.terminators.look(&snapshot) {
            let name = &snapshot[listener].name;
            match config {
                Ok(config) => {
                    eprintln!("penstock: listener `{name}`: new certificates");
                    self.tell(&Message::Certificates { listener, config });
                }
                Err(wrong) => eprintln!("penstock: listener `{name}`: the old certificates stay: {wrong}"),
            }
        }
        for (pool, renewed) in self.origination_files.look(&snapshot, &self.generation.originations) {
            let name = &snapshot[pool].name;
            match renewed {
                Ok(()) => eprintln!("penstock: pool `{name}`: new files of TLS"),
                Err(wrong) => eprintln!("penstock: pool `{name}`: the old files of TLS stay: {wrong}"),
            }
        }
    }

    /// Secrets of sticky cookies that were replaced on disk sign from now on; what cannot be used is said, and the old ones stay.
    fn look_at_secrets(&mut self) {
        let snapshot = Arc::clone(self.snapshot());
        for (pool, read) in self.roster.look_at_secrets(&snapshot) {
            let name = &snapshot[pool].name;
            match read {
                Ok(()) => {
                    eprintln!("penstock: pool `{name}`: new secrets of its sticky cookie");
                    self.pass_on(pool);
                }
                Err(wrong) => eprintln!("penstock: pool `{name}`: the old secrets stay: {wrong}"),
            }
        }
    }

    /// Whether there are clients to be kept out.
    #[must_use]
    pub fn keeps_out(&self) -> bool {
        self.shield.is_raised() && self.snapshot().shield.as_ref().is_some_and(|shield| shield.over_limit.is_some())
    }

    /// Has the shield drop those who go on though they are turned away.
    pub fn keep_out(&mut self) {
        for client in self.generation.qos.overrunning() {
            self.shield.deny(client, ring::now());
        }
    }

    /// Begins to probe endpoints, on the ring of this thread.
    pub fn oversee(&mut self) {
        self.oversight.begin();
    }

    /// Asks every worker to publish what its ring counts.
    pub fn ask_to_publish(&mut self) {
        self.tell(&Message::Publish);
    }

    /// `None` when every endpoint is written in the configuration.
    #[must_use]
    pub fn discovery(&self) -> Option<&Discovery> {
        self.discovery.as_ref()
    }

    /// Takes in what discovery has found, and tells every worker of the pools that it changes.
    pub fn take_news(&mut self) {
        let news = self.discovery.as_ref().map(Discovery::news).unwrap_or_default();
        for finding in news {
            let pool = finding.pool;
            if self.roster.take(finding, now()) {
                self.pass_on(pool);
            }
        }
    }

    /// The operator's word on an endpoint, from now on, and `told` for the record. False when the pool has none of that name.
    pub fn set_admin(&mut self, pool: PoolId, name: &str, admin: Admin, told: String) -> bool {
        let members = self.roster.members(pool);
        let Some(member) = members.iter().find(|member| &*member.name == name) else { return false };
        let returns = !member.shared.admits();
        let changed = self.roster.set_admin(pool, name, admin, now()) == Some(true);
        if returns && member.shared.admits() {
            member.shared.set_ready_since(now());
        }
        if changed {
            self.pass_on(pool);
        }
        self.oversight.note(pool, name, told, now());
        true
    }

    /// A pool's list has changed.
    fn pass_on(&mut self, pool: PoolId) {
        self.oversight.follow(pool, &self.roster.members(pool), now());
        self.behind.extend((0..self.mail.len()).map(|worker| (worker, pool)));
        self.catch_up();
    }

    /// Tells workers of lists that they have not been told of yet.
    pub fn catch_up(&mut self) {
        let (mail, roster) = (&mut self.mail, &self.roster);
        self.behind.retain(|&(worker, pool)| {
            mail[worker].send(Message::Members { pool, members: roster.members(pool) }).is_err()
        });
    }

    /// Finish what has begun, within `patience`.
    pub fn drain(&mut self, patience: Duration) {
        self.draining = true;
        self.afxdp.stand_down();
        self.tell(&Message::Drain(patience));
    }

    /// End now, whatever is cut off.
    pub fn cut(&mut self) {
        self.tell(&Message::Cut);
    }

    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    pub fn reopen_log(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    fn tell(&mut self, message: &Message) {
        for mail in &mut self.mail {
            // A worker that has not emptied its box for a thousand messages has stopped; nothing said can help it.
            let _ = mail.send(message.clone());
        }
    }

    /// What runs, for the operator's eye.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "penstock {}: {} on CPU {}, driver {} [{}]",
            env!("CARGO_PKG_VERSION"),
            if self.cpus.len() == 1 { "1 worker".to_owned() } else { format!("{} workers", self.cpus.len()) },
            crate::snapshot::cpu_list(&self.cpus),
            self.granted.driver,
            self.granted.features.join(" ")
        )];
        lines.extend(self.granted.missing.iter().map(|missing| format!("  goes without: {missing}")));
        lines.extend(self.steering.lines());
        lines.extend(self.shield.lines());
        lines.extend(self.same_host.lines(self.snapshot()));
        lines.extend(self.balance.lines());
        lines.extend(self.afxdp.lines());
        lines.extend(tls::unpublished(self.snapshot()).iter().map(|note| format!("  note: {note}")));
        for listener in &self.snapshot().listeners {
            let protocol = match (listener.protocol, &listener.tls) {
                (ListenerProtocol::Http, None) => "http",
                (ListenerProtocol::Http, Some(_)) => "https",
                (ListenerProtocol::Tcp { .. }, None) => "tcp",
                (ListenerProtocol::Tcp { .. }, Some(_)) => "tls",
                (ListenerProtocol::Udp { .. }, _) => "udp",
                (ListenerProtocol::Sni { .. }, _) => "tls, passed through,",
            };
            for address in &listener.addresses {
                lines.push(format!("  listening: {protocol} {address} (`{}`)", listener.name));
                if listener.http3.is_some() && !matches!(address, Bind::Unix(_)) {
                    lines.push(format!("  listening: h3 {address} (`{}`, UDP)", listener.name));
                }
            }
        }
        for admin in &self.snapshot().engine.admin {
            lines.push(format!("  admin: {admin} (/metrics, /status, /show, /set, /reload)"));
        }
        lines
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Workers whose mailbox is gone end at once.
        self.mail.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What workers need to know of these groups, by listener of a configuration.
fn places(snapshot: &Snapshot, groups: &[Group]) -> Vec<Vec<Place>> {
    let mut places: Vec<_> = snapshot.listeners.iter().map(|_| Vec::new()).collect();
    groups.iter().for_each(|group| places[usize::from(group.listener.0)].push(group.place()));
    places
}

fn now() -> policy::Now {
    policy_now(ring::monotonic())
}

/// As many descriptors as the hard limit grants: each connection is one, and each upstream connection another.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused only by a sandbox; then the soft limit stays, and `doctor` says what it is.
    let _ = setrlimit(Resource::Nofile, limit);
}
