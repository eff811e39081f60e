//! A new configuration in place of the one that runs, in one step, and nothing lost by it.
//!
//! ```text
//! Snapshot ─► Diff (what goes on?) ─► files read, names looked up ─► Prepare: every worker binds what is new ─► Adopt
//!                  └─ refused ──────────────── refused ──────────────────────── refused: Abandon. Nothing has changed.
//! ```
//!
//! What holds here: until every worker has said that it can, nothing has changed; from then on nothing can fail.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use ring::Now;

use super::{Engine, now};
use crate::afxdp::{AfXdp, Shares};
use crate::limits;
use crate::service::Reloading;
use crate::snapshot::{Diff, ListenerId, PoolId, Snapshot};
use crate::steer::Group;
use crate::tls::{OriginationFiles, Originations, Terminators};
use crate::upstream::{Discovery, Roster};
use crate::worker::{Answer, Draft, Message, Prepared};

/// What reloading has come to since the process began.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Configurations that were adopted, and those that were refused.
    pub adopted: u64,
    pub refused: u64,
    /// When what holds now was adopted; `None`: the process began with it.
    pub at: Option<Now>,
    /// Why the last one was refused; `None`: it was not.
    pub refusal: Option<String>,
    /// One is being read.
    under_way: bool,
}

/// A configuration that workers bind sockets for.
struct Coming {
    draft: Arc<Draft>,
    terminators: Terminators,
    originations: Originations,
    origination_files: OriginationFiles,
    discovery: Option<Discovery>,
    /// Of its new listeners.
    groups: Vec<Group>,
    /// Some entry stands for nothing yet.
    lacks_somebody: bool,
}

/// A configuration that was adopted, or would be.
#[derive(Debug)]
pub struct Reloaded {
    /// What it changes, a line each.
    pub lines: Vec<String>,
    /// Which one it is, counted from 1.
    pub number: u64,
}

impl Coming {
    /// Waits for names that nobody has looked up yet: requests had better not find nobody behind them. Not in a drain, which is not waited out.
    async fn look_up(&self, engine: &RefCell<Engine>) {
        let Some(discovery) = self.discovery.as_ref().filter(|_| self.lacks_somebody) else { return };
        let deadline = ring::now() + limits::DISCOVERY_FIRST;
        while !discovery.has_looked() && ring::now() < deadline && !engine.borrow().draining {
            ring::sleep(limits::RELOAD_LOOK).await;
        }
    }
}

/// Programs on interfaces come and go as the configuration says that holds now. What they are refused it goes without, and that is said.
async fn follow_interfaces(engine: &RefCell<Engine>, workers: usize) {
    let before = engine.borrow().interfaces.lines();
    engine.borrow_mut().follow_programs();
    // A queue has one socket: those that are no longer wanted go first.
    let gone = engine.borrow_mut().close_lanes();
    if let Some(gone) = gone {
        collect(&gone, workers).await;
        let opened = engine.borrow_mut().open_lanes();
        collect(&opened, workers).await;
    }
    engine.borrow_mut().follow_doors();
    let lines = engine.borrow().interfaces.lines();
    lines.iter().filter(|line| !before.contains(line)).for_each(|line| eprintln!("penstock: {line}"));
}

/// What a configuration that is read anew comes to, with its warnings.
///
/// # Errors
/// What is wrong with it, rendered.
pub type Reread = dyn Fn() -> Result<(Arc<Snapshot>, String), String>;

/// Reads the configuration anew and goes on by it; gives what that changes, and warnings. On the control thread's ring.
///
/// # Errors
/// Why not; nothing has changed then.
pub async fn reload(engine: &Rc<RefCell<Engine>>, reread: Option<&Reread>) -> Result<(Reloaded, String), String> {
    if std::mem::replace(&mut engine.borrow_mut().reloads.under_way, true) {
        return Err("it is being read anew already".into());
    }
    let reloading = Reloading::begin();
    let reloaded = try_reload(engine, reread).await;
    let mut this = engine.borrow_mut();
    this.reloads.under_way = false;
    match &reloaded {
        Ok((Reloaded { lines, .. }, _)) => {
            this.reloads.refusal = None;
            if !lines.is_empty() {
                this.reloads.adopted += 1;
                this.reloads.at = Some(ring::monotonic());
            }
        }
        Err(why) => {
            this.reloads.refused += 1;
            this.reloads.refusal = Some(why.clone());
        }
    }
    reloading.end(&this.sentence());
    reloaded
}

async fn try_reload(engine: &Rc<RefCell<Engine>>, reread: Option<&Reread>) -> Result<(Reloaded, String), String> {
    let (snapshot, warnings) = read(reread)?;
    if *snapshot == **engine.borrow().snapshot() {
        let number = engine.borrow().generation.number;
        return Ok((Reloaded { lines: Vec::new(), number }, warnings));
    }
    let (coming, answers) = engine.borrow_mut().prepare(&snapshot)?;
    let workers = engine.borrow().mail.len();
    let answers = collect(&answers, workers).await;
    coming.look_up(engine).await;
    let (reloaded, done) = engine.borrow_mut().decide(coming, answers)?;
    // Who asks by the next request is to be served by the new one.
    collect(&done, workers).await;
    follow_interfaces(engine, workers).await;
    follow_discovery(engine);
    Ok((reloaded, warnings))
}

/// Reads the configuration anew, and tells what it would change, and warnings.
///
/// # Errors
/// Why it cannot be adopted.
pub fn compare(engine: &Rc<RefCell<Engine>>, reread: Option<&Reread>) -> Result<(Reloaded, String), String> {
    let (snapshot, warnings) = read(reread)?;
    let engine = engine.borrow();
    let diff = Diff::of(engine.snapshot(), &snapshot).map_err(|fixed| stays(&fixed))?;
    Ok((Reloaded { lines: diff.lines, number: engine.generation.number }, warnings))
}

fn read(reread: Option<&Reread>) -> Result<(Arc<Snapshot>, String), String> {
    let none = "it was started from flags or standard input: there is no file to read anew (`penstock run -c FILE`)";
    reread.ok_or_else(|| none.to_owned())?()
}

/// Passes on who joins and leaves the pools, as discovery finds it. Where a new configuration has a discovery of its own, that is followed
/// from now on, and the one before has ended.
pub fn follow_discovery(engine: &Rc<RefCell<Engine>>) {
    let (bell, mut rings) = ring::mailbox(1);
    match engine.borrow().discovery() {
        Some(discovery) => discovery.ring(bell),
        None => return,
    }
    let engine = Rc::clone(engine);
    ring::spawn(async move {
        while rings.recv().await.is_some() {
            engine.borrow_mut().take_news();
        }
    });
}

impl Engine {
    #[must_use]
    pub const fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// What it does, in a sentence for the operator's eye.
    #[must_use]
    pub fn sentence(&self) -> String {
        let workers = if self.cpus.len() == 1 { "1 worker".to_owned() } else { format!("{} workers", self.cpus.len()) };
        let refused = self.reloads.refusal.as_ref().and_then(|why| why.lines().next());
        let refused = refused.map(|why| format!("; the file as it is was refused: {why}")).unwrap_or_default();
        format!("{workers}, configuration {} holds{refused}", self.generation.number)
    }

    /// Which configuration holds, counted from 1; and how many there are behind whose doors something goes on, with it.
    #[must_use]
    pub fn generations(&self) -> (u64, usize) {
        let ending = self.ending.iter().filter(|snapshot| snapshot.strong_count() > 0).count();
        (self.generation.number, 1 + ending)
    }

    /// Reads the files that a configuration names, and has every worker bind what is new.
    fn prepare(&mut self, snapshot: &Arc<Snapshot>) -> Result<(Coming, Receiver<Answer>), String> {
        if self.draining {
            return Err(DRAINS.into());
        }
        let before = &self.generation;
        let diff = Diff::of(&before.snapshot, snapshot).map_err(|fixed| stays(&fixed))?;
        // Made before the files are read: a change in between is seen by the next look.
        let origination_files = self.origination_files.succeed(snapshot, &diff.pools);
        let terminators = self.terminators.succeed((&before.snapshot, snapshot), &diff.listeners).map_err(told)?;
        let originations = before.originations.succeed(snapshot, &diff.pools).map_err(told)?;
        let listeners = (0..).map(ListenerId).zip(&snapshot.listeners);
        let new = listeners.filter(|(id, _)| diff.listeners[usize::from(id.0)].is_none());
        let groups = self.steering.open(new, self.cpus.len());
        let places = super::places(snapshot, &groups);
        let draft = Arc::new(before.draft(snapshot, diff, terminators.configs(), places));
        let discovery = Discovery::start(snapshot);
        let roster = self.roster.succeed(&before.snapshot, snapshot, &draft.diff.pools, now());
        let lacks_somebody = roster.lacks_somebody();
        let (bound, answers) = channel();
        self.tell(&Message::Prepare { draft: Arc::clone(&draft), bound });
        Ok((Coming { draft, terminators, originations, origination_files, discovery, groups, lacks_somebody }, answers))
    }

    /// Has every worker go on by what was prepared, if they all can.
    fn decide(&mut self, coming: Coming, answers: Vec<Answer>) -> Result<(Reloaded, Receiver<()>), String> {
        let decided = self.all_prepared(answers).and_then(|prepared| Ok((prepared, self.call_roll(&coming)?)));
        let (prepared, roster) = decided.inspect_err(|_| self.tell(&Message::Abandon))?;

        // From here on nothing can fail.
        let Coming { draft, terminators, originations, origination_files, discovery, groups, .. } = coming;
        let (sockets, ways): (Vec<_>, Vec<_>) = prepared.into_iter().map(|one| (one.sockets, one.ways)).unzip();
        self.steering.renumber(&draft.diff.listeners);
        self.steering.attach(groups, &sockets, &self.known_of_datagrams());
        let switches = self.same_host.succeed(&draft.snapshot, &draft.diff.pools);
        let members = roster.pools().cloned().collect();
        let generation = Arc::new(self.generation.succeed(&draft, members, switches.clone(), originations.clone()));
        let (done, all_done) = channel();
        // Of a list that a worker has not been told of yet it is told now.
        self.behind.clear();
        self.tell(&Message::Adopt { generation: Arc::clone(&generation), done });
        let before = std::mem::replace(&mut self.generation, generation);
        self.join_workers(ways);
        self.ending.retain(|snapshot| snapshot.strong_count() > 0);
        self.ending.push(Arc::downgrade(&before.snapshot));
        (self.terminators, self.origination_files) = (terminators, origination_files);
        (self.roster, self.discovery) = (roster, discovery);
        self.watch_over(&draft, originations);
        self.same_host.adopt(switches, &draft.snapshot, &draft.diff.pools);
        self.balance.renumber(draft.snapshot.balance.as_ref().map(|balance| &*balance.vips));
        Ok((Reloaded { lines: draft.diff.lines.clone(), number: draft.number }, all_done))
    }

    /// What every worker has prepared, in their order.
    fn all_prepared(&self, mut answers: Vec<Answer>) -> Result<Vec<Prepared>, String> {
        // Who drains goes by no other configuration, and is told of members by the numbers of the one that it has.
        if self.draining {
            return Err(DRAINS.into());
        }
        answers.sort_by_key(|(worker, _)| *worker);
        let missing = self.mail.len() - answers.len();
        let prepared: io::Result<Vec<_>> = answers.into_iter().map(|(_, prepared)| prepared).collect();
        let prepared = prepared.map_err(told)?;
        match missing {
            0 => Ok(prepared),
            1 => Err("1 worker does not answer".into()),
            _ => Err(format!("{missing} workers do not answer")),
        }
    }

    /// The shield and the balancer.
    fn follow_programs(&mut self) {
        let snapshot = Arc::clone(self.snapshot());
        let before = self.without();
        self.shield.adopt(&snapshot, &self.interfaces);
        self.balance.adopt(&snapshot, &self.quic.ids(), &self.interfaces);
        self.follow_vips();
        self.tell_without(&before);
    }

    /// Has datagrams come by the kernel, where they are to go past it in another way from now on, or no longer, or were refused to.
    fn close_lanes(&mut self) -> Option<Receiver<()>> {
        if self.draining || self.afxdp.is_as_wanted(self.snapshot()) {
            return None;
        }
        self.afxdp.stand_down();
        self.afxdp = AfXdp::default();
        Some(self.tell_lanes())
    }

    /// Gives workers the queues of the interface that is wanted, if any is.
    fn open_lanes(&mut self) -> Receiver<()> {
        if !self.draining {
            self.afxdp = AfXdp::prepare(&Arc::clone(self.snapshot()));
        }
        self.tell_lanes()
    }

    fn tell_lanes(&mut self) -> Receiver<()> {
        let (done, all_done) = channel();
        let workers = self.mail.len();
        let share = Shares::new((0..workers).map(|worker| self.afxdp.share(worker, workers)).collect());
        self.tell(&Message::Lane { share, done });
        all_done
    }

    /// What goes past the kernel is what goes to the listeners that there are now, whom workers have opened.
    fn follow_doors(&mut self) {
        let (snapshot, before) = (Arc::clone(self.snapshot()), self.without());
        if !self.draining && self.afxdp.stands().is_none() {
            self.afxdp.stand(&snapshot, &self.interfaces);
        }
        if let Some(news) = self.afxdp.adopt(&snapshot) {
            eprintln!("penstock: {news}");
        }
        self.tell_without(&before);
    }

    /// What interfaces go without.
    fn without(&self) -> BTreeSet<String> {
        let lines = [self.shield.lines(), self.balance.lines(), self.afxdp.lines()].concat();
        lines.into_iter().filter(|line| line.trim_start().starts_with("goes without")).collect()
    }

    fn tell_without(&self, before: &BTreeSet<String>) {
        for line in self.without().difference(before) {
            eprintln!("penstock: {}", line.trim_start());
        }
    }

    /// Who is in the pools of a new configuration.
    fn call_roll(&self, coming: &Coming) -> Result<Roster, String> {
        let Draft { snapshot, diff, .. } = &*coming.draft;
        let mut roster = self.roster.succeed(self.snapshot(), snapshot, &diff.pools, now());
        roster.sign(snapshot).map_err(told)?;
        if let Some(discovery) = &coming.discovery {
            roster.take_all(discovery.news(), now());
        }
        Ok(roster)
    }

    fn watch_over(&mut self, draft: &Draft, originations: Originations) {
        self.oversight.succeed(&draft.snapshot, &draft.diff.pools, originations, self.quic.clone(), now());
        for pool in (0..draft.snapshot.pools.len()).map(|at| PoolId(at as u16)) {
            self.oversight.follow(pool, &self.roster.members(pool), now());
        }
    }
}

const DRAINS: &str = "the engine drains";

/// What workers say to the same question, as far as they do in time. They hear it in the coming turns of this ring.
async fn collect<T>(answers: &Receiver<T>, count: usize) -> Vec<T> {
    let deadline = ring::now() + limits::RELOAD_ANSWER;
    let mut heard = Vec::with_capacity(count);
    while heard.len() < count && ring::now() < deadline {
        match answers.try_recv() {
            Ok(answer) => heard.push(answer),
            Err(TryRecvError::Empty) => ring::sleep(limits::RELOAD_LOOK).await,
            Err(TryRecvError::Disconnected) => break,
        }
    }
    heard
}

fn told(wrong: impl std::fmt::Display) -> String {
    wrong.to_string()
}

fn stays(fixed: &[String]) -> String {
    format!("this cannot change while the process runs: {}; restart it for that", fixed.join(", "))
}
