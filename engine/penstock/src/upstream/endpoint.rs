//! An endpoint as one worker sees it, and the few that a request has failed at.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use policy::{
    Avoid, Breaker, BreakerState, BreakerVerdict, Class, EndpointPatience, Hearsay, Load, Need, Now, Outcome, Patience,
    PeakEwma, Seen, Standing, Try, Verdict,
};

use super::Member;
use super::pool::Idle;
use super::shared::{AdminState, BreakerOrder, EndpointCell, EndpointShared, Health, Held, Spoken, began};
use super::sharing::Sharing;
use super::shortcut::Shortcut;
use crate::limits;
use crate::snapshot::{EndpointLimits, Pool};

/// Held by its cluster while the list names it, and by tries and leases for as long as they need it: it never moves, and an
/// exchange never finds another one in its place.
pub struct Endpoint {
    /// What operators know it by.
    pub name: Box<str>,
    /// What it is called in requests to it: for `host = "endpoint"`.
    pub authority: Box<str>,
    pub(super) shared: Arc<EndpointShared>,
    pub(super) idle: RefCell<Vec<Idle>>,
    pub(super) sharing: Sharing,
    pub(super) shortcut: Shortcut,
    /// Where connections are made to; several are tried in turn.
    addresses: RefCell<Box<[ring::Address]>>,
    breaker: RefCell<Breaker>,
    latency: Cell<PeakEwma>,
    patience: Cell<EndpointPatience>,
    /// Tries that other workers have out at it.
    others: Cell<Hearsay>,
    /// Its place in the list; `None` when the list no longer names it.
    place: Cell<Option<u16>>,
    worker: usize,
    /// Another configuration has another cluster for the pool: this one serves to its end what it has begun.
    superseded: Cell<bool>,
    /// Connections on their way that nobody waits for.
    pub(super) warming: Cell<u32>,
    /// It was found full, for want of an idle connection.
    pub(super) lacks_idle: Cell<bool>,
    /// When another worker was asked for one; `None`: it has answered.
    pub(super) asked: Cell<Option<ring::Now>>,
    /// The pool's, and what counts: its own first.
    limits_of_pool: EndpointLimits,
    limits: Cell<EndpointLimits>,
}

impl Endpoint {
    pub(super) fn new(member: &Member, breaker: Breaker, worker: usize, pool: &Pool) -> Self {
        Self {
            name: (&*member.name).into(),
            authority: member.authority.clone(),
            shared: Arc::clone(&member.shared),
            idle: RefCell::default(),
            sharing: Sharing::default(),
            shortcut: Shortcut::default(),
            addresses: RefCell::new(member.addresses.clone()),
            breaker: RefCell::new(breaker),
            latency: Cell::default(),
            patience: Cell::default(),
            others: Cell::default(),
            place: Cell::new(None),
            worker,
            superseded: Cell::new(false),
            warming: Cell::new(0),
            lacks_idle: Cell::new(false),
            asked: Cell::new(None),
            limits_of_pool: EndpointLimits {
                requests: pool.division.requests_max,
                connections: pool.division.connections_max,
            },
            limits: Cell::default(),
        }
    }

    /// A request goes over this.
    pub(super) fn spoke(&self, spoken: Spoken) {
        self.shared.spoke(self.worker, spoken);
    }

    /// Takes what a new list says of it; everything that it has learnt stays.
    pub(super) fn renew(&self, member: &Member, place: usize) {
        self.place.set(Some(place as u16));
        self.limits.set(member.limits.or(self.limits_of_pool));
        if *self.addresses.borrow() != member.addresses {
            self.addresses.borrow_mut().clone_from(&member.addresses);
            self.shortcut.moved();
        }
    }

    /// The list no longer names it, unless a new one does at once.
    pub(super) fn leave(&self) {
        self.place.set(None);
    }

    /// Nothing new may be sent to it, not even on a connection that lies ready.
    pub(super) fn is_retired(&self) -> bool {
        self.place.get().is_none()
    }

    /// There will be no next request, but of exchanges that are under way.
    pub(super) fn supersede(&self) {
        self.superseded.set(true);
    }

    /// Whether a connection to it is worth keeping for the next request.
    pub(super) fn keeps_connections(&self) -> bool {
        self.takes_flows() && !self.superseded.get()
    }

    /// Flows of datagrams that go to it may go on.
    pub fn takes_flows(&self) -> bool {
        let nobody_there = self.shared.admin().state == AdminState::Maint || self.shared.health() == Health::Down;
        !self.is_retired() && !nobody_there
    }

    /// Its name has stood for nothing so far.
    pub(super) fn is_unresolved(&self) -> bool {
        self.addresses.borrow().is_empty()
    }

    /// `repeatable`: the request may be sent twice, so that it can be the one to find out whether the endpoint is back.
    pub(super) fn standing(&self, now: Now, repeatable: bool) -> Standing {
        self.hear(now);
        let admin = self.shared.admin();
        match admin.state {
            AdminState::Maint => Standing::Out,
            // Nobody is held to what is not there any more.
            AdminState::Drain if self.shared.health() == Health::Down || !self.breaker_admits(admin.breaker, now) => {
                Standing::Out
            }
            AdminState::Drain => Standing::Draining,
            AdminState::Ready if self.is_unresolved() || !self.breaker_admits(admin.breaker, now) => Standing::Down,
            AdminState::Ready if self.shared.health() == Health::Down || self.shared.is_ejected(now) => {
                Standing::Suspect
            }
            AdminState::Ready if !repeatable && self.is_on_trial(now) => Standing::Down,
            AdminState::Ready if self.is_full() => Standing::Full,
            AdminState::Ready => Standing::Ready,
        }
    }

    /// Requests that it takes at a time; `None`: no limit.
    pub(super) fn places(&self) -> Option<u32> {
        self.limits.get().requests
    }

    /// What all workers have seen of it.
    pub(super) fn add_to(&self, pool: &mut Seen, now: Now) {
        let standing = self.standing(now, true);
        pool.endpoints += u32::from(!matches!(standing, Standing::Out | Standing::Draining));
        pool.ready += u32::from(matches!(standing, Standing::Ready | Standing::Full));
        let judged = self.shared.judged();
        pool.calls += judged.calls;
        pool.errors += judged.errors;
        pool.latency_ns = pool.latency_ns.wrapping_add(judged.latency_nanos);
    }

    pub fn is_on_trial(&self, now: Now) -> bool {
        self.shared.admin().breaker == BreakerOrder::Auto && self.breaker.borrow().state(now) == BreakerState::HalfOpen
    }

    /// It has failed too often lately to be trusted.
    pub fn is_doubtful(&self, now: Now) -> bool {
        Load { failing: self.latency.get().failing(now), ..Load::default() }.is_doubtful()
    }

    /// It wants a trial, and has room for one.
    pub(super) fn wants_trial(&self, now: Now) -> bool {
        self.standing(now, true) == Standing::Ready && self.is_on_trial(now)
    }

    /// Lets a trial through ahead of its time; false when it is not the breaker that keeps it out, or it was tried just now.
    pub(super) fn hurry(&self, now: Now, need: Need) -> bool {
        self.is_breakers_affair() && self.breaker.borrow_mut().hurry(now, need)
    }

    /// Nothing but its breaker keeps it out, so that any trial may bring it back.
    pub(super) fn may_be_back(&self, now: Now) -> bool {
        self.is_breakers_affair() && !self.is_closed(now) && !self.is_unresolved()
    }

    fn is_breakers_affair(&self) -> bool {
        let admin = self.shared.admin();
        let judged = admin.state == AdminState::Ready && admin.breaker == BreakerOrder::Auto;
        judged && self.shared.health() != Health::Down
    }

    pub(super) fn is_closed(&self, now: Now) -> bool {
        self.breaker.borrow().state(now) == BreakerState::Closed
    }

    /// It has as many requests as it may, or as many connections and none of them lies ready here.
    fn is_full(&self) -> bool {
        if self.has_all_requests() {
            return true;
        }
        let full = self.has_all_connections() && self.idle.borrow().is_empty();
        if full {
            self.shared.want(self.worker);
            self.lacks_idle.set(true);
        }
        full
    }

    fn has_all_requests(&self) -> bool {
        self.limits.get().requests.is_some_and(|most| self.shared.in_flight() >= most)
    }

    /// It would take a request if one of its connections came back here; no other worker would have that one.
    pub(super) fn lacks_connection(&self, now: Now) -> bool {
        let full = self.standing(now, true) == Standing::Full && !self.has_all_requests();
        full && !self.shared.is_wanted_by_another(self.worker)
    }

    /// Another worker that needs a connection and may not make one: this one had better let go of one.
    pub(super) fn wanted_elsewhere(&self) -> Option<usize> {
        self.limits.get().connections.and_then(|_| self.shared.wanted_by_another(self.worker))
    }

    /// What lies idle has become more, or fewer.
    pub(super) fn keeps(&self, idle: usize) {
        self.cell().keeps(idle);
    }

    /// A connection has come from another worker.
    pub(super) fn borrowed(&self) {
        self.shared.wants_no_more(self.worker);
        self.cell().borrowed();
    }

    /// A place for one more connection.
    pub fn hold(&self) -> Option<Held> {
        self.shared.hold(self.limits.get().connections)
    }

    /// Its place in the list.
    pub(super) fn place(&self) -> Option<usize> {
        self.place.get().map(usize::from)
    }

    pub(super) fn ready_since(&self) -> Now {
        self.shared.ready_since()
    }

    fn breaker_admits(&self, order: BreakerOrder, now: Now) -> bool {
        match order {
            BreakerOrder::Auto => self.breaker.borrow().admits(now),
            BreakerOrder::Open => false,
            BreakerOrder::Closed => true,
        }
    }

    /// Takes over what another worker's breaker has found.
    fn hear(&self, now: Now) {
        let heard = BreakerVerdict::from_bits(self.shared.breaker_verdict());
        let mut breaker = self.breaker.borrow_mut();
        if heard > breaker.verdict() {
            breaker.adopt(now, heard);
            if breaker.state(now) == BreakerState::Closed {
                self.forgive();
            }
            self.cell().turned(breaker.state(now));
        }
    }

    /// It is back: what its failures have cost says nothing of it any more.
    fn forgive(&self) {
        self.latency.set(PeakEwma::default());
    }

    /// Given up by its pool's patience, and not heard of since.
    pub(super) fn is_suspect(&self) -> bool {
        self.patience.get().is_suspect()
    }

    /// How long a try that has been sent may take while there is an endpoint elsewhere.
    pub(super) fn patience(&self, now: Now, pool: &Patience, waiting: &Try) -> Option<Duration> {
        pool.limit(now, &self.patience.get(), waiting).soft
    }

    /// How long a try that has been sent is out before it is asked whether it is [lost](Self::has_lost).
    pub(super) fn silence(&self, now: Now, pool: &Patience, waiting: &Try, least: Duration) -> Duration {
        pool.silence(now, &self.patience.get(), waiting, least)
    }

    /// Whether a try that was sent then waits in vain: new requests are kept away from here, one that began `since` got no answer all the same, and
    /// none has succeeded that began after this one was sent.
    pub(super) fn has_lost(&self, sent: Now, since: Now, now: Now) -> bool {
        self.hear(now);
        let out = !self.is_closed(now) || self.shared.health() == Health::Down;
        out && self.shared.silent_since() >= since && self.shared.well_since() < sent
    }

    pub(super) fn load(&self, now: Now) -> Load {
        let latency = self.latency.get();
        Load { latency_ns: latency.nanos(now), failing: latency.failing(now), in_flight: self.in_flight(now) }
    }

    /// Tries out at it: this worker's as they are, the others' as they were a moment ago.
    fn in_flight(&self, now: Now) -> u32 {
        let mut others = self.others.get();
        let number = others.number(now, || self.shared.in_flight_elsewhere(self.worker));
        self.others.set(others);
        self.cell().in_flight() + number
    }

    /// A try begins.
    pub(super) fn begin(&self, now: Now) {
        self.breaker.borrow_mut().begin(now);
        self.cell().begun();
    }

    /// The same try begins once more, on another connection.
    pub(super) fn begin_again(&self) {
        self.cell().begun();
    }

    pub(super) fn record(&self, now: Now, outcome: &Outcome, patience: &mut Patience) {
        let mut breaker = self.breaker.borrow_mut();
        let was_open = breaker.state(now) != BreakerState::Closed;
        let failed = outcome.counts_for_breaker();
        if failed && Breaker::is_late(outcome) {
            breaker.hear_well(now, self.shared.well_since());
        }
        let is_news = !failed || !breaker.is_overtaken(now, outcome);
        breaker.record(now, outcome);
        if was_open && breaker.state(now) == BreakerState::Closed {
            self.forgive();
            self.shared.set_ready_since(now);
        }
        if breaker.verdict().bits() > self.shared.breaker_verdict() {
            self.shared.raise_breaker(breaker.verdict().bits());
        }
        let mut latency = self.latency.get();
        if is_news {
            latency.record(now, outcome);
        }
        self.latency.set(latency);
        let mut own = self.patience.get();
        patience.record(now, &mut own, outcome);
        self.patience.set(own);
        self.cell().ended(failed);
        if outcome.verdict() == Verdict::Success {
            self.cell().was_well(now, outcome.latency);
        } else if outcome.class == Class::TimedOut {
            self.shared.was_silent(began(now, outcome.latency));
        }
        self.shared.compare(self.worker, outcome);
        self.cell().turned(breaker.state(now));
        self.cell().learnt(latency.nanos(now) as u64);
    }

    pub(super) fn addresses_now(&self) -> Ref<'_, Box<[ring::Address]>> {
        self.addresses.borrow()
    }

    /// It has as many connections as it may.
    pub(super) fn has_all_connections(&self) -> bool {
        self.limits.get().connections.is_some_and(|most| self.shared.connections() >= most)
    }

    /// Where connections are made to now.
    pub fn addresses(&self) -> Box<[ring::Address]> {
        self.addresses.borrow().clone()
    }

    fn cell(&self) -> &EndpointCell {
        self.shared.cell(self.worker)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.name)
    }
}

/// Endpoints that a request has failed at. Holds them and not their places, because the list may change between two tries. Most requests fail nowhere,
/// and hold nothing.
#[derive(Debug, Default)]
pub struct Tried(Option<Box<Places>>);

#[derive(Debug, Default)]
struct Places {
    endpoints: [Option<Rc<Endpoint>>; (limits::TRIES_MAX + limits::TRIES_EXCUSED_MAX) as usize],
    count: usize,
}

impl Tried {
    /// Remembers one more. Beyond all that a request may have the oldest is forgotten.
    pub fn add(&mut self, endpoint: &Rc<Endpoint>) {
        let Places { endpoints, count } = &mut **self.0.get_or_insert_default();
        endpoints[*count % endpoints.len()] = Some(Rc::clone(endpoint));
        *count += 1;
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn endpoints(&self) -> impl Iterator<Item = &Rc<Endpoint>> {
        self.0.iter().flat_map(|places| places.endpoints.iter().flatten())
    }

    pub(super) fn contains(&self, endpoint: &Rc<Endpoint>) -> bool {
        self.endpoints().any(|tried| Rc::ptr_eq(tried, endpoint))
    }

    /// The places that they have in the list now.
    pub(super) fn places(&self) -> Avoid {
        let mut avoid = Avoid::default();
        for place in self.endpoints().filter_map(|endpoint| endpoint.place.get()) {
            avoid.add(place.into());
        }
        avoid
    }
}
