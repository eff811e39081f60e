//! One pool as one worker sees it.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use policy::{
    Ask, Balancer, Breaker, Endpoints, Hedge, Need, NoPick, Now, Outcome, Patience, PatienceSettings, Pick, Random,
    Replay, RetryBudget, RetryDecision, RetryPolicy, Seen, SlowStart, Standing, Stop, Try,
};
use ring::Timer;

use super::dial::{Approach, DialError};
use super::endpoint::{Endpoint, Tried};
use super::lease::Lease;
use super::lending::Lender;
use super::list::seats;
use super::view::View;
use super::{Affinity, Member, Members, policy_now, proxy_header};
use crate::limits;
use crate::samehost::Switch;
use crate::snapshot::{self, PoolProtocol};
use crate::telemetry::{Counters, WorkerCells};

pub struct Cluster {
    endpoints: RefCell<Vec<Rc<Endpoint>>>,
    members: RefCell<Members>,
    /// Counts the lists that it has followed.
    generation: Cell<u64>,
    balancer: RefCell<Balancer>,
    /// For requests that are told by a key, where the pool's own policy does not hash.
    sessions: RefCell<Option<Balancer>>,
    slow_start: SlowStart,
    budget: RefCell<RetryBudget>,
    hedge: Option<RefCell<Hedge>>,
    patience: RefCell<Patience>,
    random: RefCell<Random>,
    /// When to look again for endpoints that want a trial.
    look_at: Cell<Now>,
    /// Until when nobody needs to look for an endpoint: none can have any request.
    barren_until: Cell<Now>,
    /// Requests that wait for one.
    waiting: Cell<u32>,
    worker: usize,
    /// How its endpoints are met by TLS, if they are.
    pub(super) approach: Option<Approach>,
    /// When standard error was last told why it could not be.
    pub(super) told_at: Cell<Option<ring::Now>>,
    workers: usize,
    /// Where idle connections may go to other workers and come from them.
    pub(super) lender: RefCell<Option<Lender>>,
    /// Whether requests to endpoints on this host skip TCP, where they could.
    pub(super) switch: Option<Arc<Switch>>,
}

/// What an exchange wants of a lease.
pub struct Wanted<'a> {
    pub endpoint: &'a Rc<Endpoint>,
    pub pool: &'a snapshot::Pool,
    /// How long connecting may take.
    pub connect: Duration,
    /// No pooled connection.
    pub fresh: bool,
    /// The request asks for something else than HTTP.
    pub upgrade: bool,
    /// It is here as a whole, and at most [`limits::SAME_HOST_REQUEST_MAX`] bytes.
    pub short: bool,
    /// From where to where the client connected.
    pub path: Option<(SocketAddr, SocketAddr)>,
}

/// What a try asks of the choice of its endpoint.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    pub tried: &'a Tried,
    pub affinity: &'a Affinity,
    /// The request may find out whether an endpoint is back: it can be sent twice, or has nothing to lose.
    pub repeatable: bool,
    /// It cannot be sent twice.
    pub once: bool,
}

/// A request that waits until some endpoint of its pool is ready.
pub struct Waiting<'a> {
    cluster: &'a Cluster,
    since: ring::Now,
}

/// A try that has ended, for which another one may be granted.
pub struct Repetition<'a> {
    pub outcome: &'a Outcome,
    pub replay: Replay,
    /// Tries begun.
    pub tries: u8,
    /// The last pause between two of them.
    pub waited: Duration,
    /// There is an endpoint to go to that the request has not been to.
    pub elsewhere: bool,
}

/// A try that is out, of which to know how long it may take.
pub struct Impatient<'a> {
    pub endpoint: &'a Rc<Endpoint>,
    /// When the whole request had been sent.
    pub sent: Now,
    /// There will be no other one.
    pub last: bool,
    pub replay: Replay,
    pub tried: &'a Tried,
    /// Another pool would have the request.
    pub elsewhere: bool,
    /// The operator's own time for it.
    pub per_try: Option<Duration>,
    /// When it has failed whatever there is elsewhere.
    pub configured: Duration,
    /// Its endpoint was on trial when it was chosen.
    pub on_trial: bool,
}

impl Cluster {
    #[must_use]
    pub fn new(
        pool: &snapshot::Pool,
        approach: Option<Approach>,
        members: &Members,
        (worker, workers): (usize, usize),
        seed: u64,
    ) -> Self {
        let mut budget = pool.retry.budget;
        // The floor is the process's; each worker takes its share of it, and at least one.
        budget.per_second_min = (budget.per_second_min / workers.max(1) as u16).max(1);
        let cluster = Self {
            endpoints: RefCell::default(),
            members: RefCell::default(),
            generation: Cell::default(),
            balancer: RefCell::new(Balancer::new(pool.division.settings, &[])),
            sessions: RefCell::default(),
            slow_start: SlowStart { window: pool.division.slow_start, ..SlowStart::default() },
            budget: RefCell::new(RetryBudget::new(budget)),
            hedge: pool.hedge.map(|settings| RefCell::new(Hedge::new(settings))),
            patience: RefCell::new(Patience::new(PatienceSettings::default(), 0)),
            random: RefCell::new(Random::new(seed)),
            look_at: Cell::new(Now::ZERO),
            barren_until: Cell::new(Now::ZERO),
            waiting: Cell::new(0),
            worker,
            workers,
            approach,
            told_at: Cell::new(None),
            lender: RefCell::default(),
            switch: None,
        };
        cluster.follow(pool, members, &Counters::default());
        cluster
    }

    /// From now on the pool has these members. Those that stay keep breaker, latency, idle connections and what they have in
    /// flight; those that go finish what they have begun. Allocates: not for the request path.
    pub fn follow(&self, pool: &snapshot::Pool, members: &Members, counters: &Counters) {
        let before = self.endpoints.take();
        // One that left and came back is another one: the process knows nothing of it any more.
        let known: HashMap<_, _> = before.iter().map(|endpoint| (Arc::as_ptr(&endpoint.shared), endpoint)).collect();
        let after: Vec<Rc<Endpoint>> = members
            .iter()
            .map(|member| match known.get(&Arc::as_ptr(&member.shared)) {
                Some(&endpoint) => Rc::clone(endpoint),
                None => self.enlist(pool, member),
            })
            .collect();
        before.iter().for_each(|endpoint| endpoint.leave());
        for (place, (endpoint, member)) in after.iter().zip(members.iter()).enumerate() {
            endpoint.renew(member, place);
        }
        before.iter().filter(|endpoint| endpoint.is_retired()).for_each(|endpoint| endpoint.close_idle(counters));
        match members.balancer() {
            // Its tables took the control thread milliseconds to build; nothing is learnt in them.
            Some(built) => *self.balancer.borrow_mut() = built.clone(),
            None => self.balancer.borrow_mut().update(&seats(members)),
        }
        self.sessions.replace(members.sessions().cloned());
        self.members.replace(members.clone());
        self.generation.set(self.generation.get() + 1);
        self.patience
            .borrow_mut()
            .follow(after.len() as u32, after.iter().filter(|one| one.is_suspect()).count() as u32);
        self.endpoints.replace(after);
        self.barren_until.set(Now::ZERO);
    }

    /// A new configuration has another one in its place: what is under way ends here, and no connection lies idle.
    pub fn supersede(&self, counters: &Counters) {
        self.endpoints().iter().for_each(|endpoint| endpoint.supersede());
        self.close_idle(counters);
    }

    /// It has connections that many requests share.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.endpoints().iter().any(|endpoint| endpoint.sharing.is_open())
    }

    fn enlist(&self, pool: &snapshot::Pool, member: &Member) -> Rc<Endpoint> {
        let breaker = Breaker::new(pool.breaker, self.random.borrow_mut().next_u64());
        Rc::new(Endpoint::new(member, breaker.shared_by(self.workers as u16), self.worker, pool))
    }

    pub(super) fn endpoints(&self) -> Ref<'_, [Rc<Endpoint>]> {
        Ref::map(self.endpoints.borrow(), Vec::as_slice)
    }

    pub(super) fn members(&self) -> Ref<'_, Members> {
        self.members.borrow()
    }

    /// The endpoint for one try, none of those that have been tried. A `repeatable` request may be sent twice: it is such
    /// requests that find out whether an endpoint is back, unless something holds them to one that can have them.
    ///
    /// # Errors
    /// Whether there is none, or all that would do have as much as they may.
    pub fn pick(&self, choice: &Choice<'_>, now: Now, counters: &Counters) -> Result<Rc<Endpoint>, NoPick> {
        if now < self.barren_until.get() && choice.affinity.token.is_none() {
            return Err(NoPick::None);
        }
        let picked = self.look(choice, now, counters).or_else(|why| {
            // Another worker may have given a place back, or taken it, between two endpoints that were looked at: nobody is gone then.
            let moved = why == NoPick::None && choice.tried.is_empty() && self.has_somebody(now, choice.repeatable);
            if moved { self.look(choice, now, counters).or(Err(NoPick::Full)) } else { Err(why) }
        });
        let picked = picked.inspect_err(|why| {
            if *why == NoPick::Full {
                counters.endpoints_full_total.add(1);
                self.borrow();
            }
            if *why == NoPick::None && choice.repeatable && choice.tried.is_empty() {
                self.barren_until.set(now.plus(limits::LOOK_AGAIN_AFTER));
            }
        })?;
        self.begin(&picked, now);
        Ok(picked)
    }

    /// As [`pick`](Self::pick), of the endpoint at an address, which has begun something before that is not over; `None` where it may not go on.
    pub fn resume(&self, at: SocketAddr, now: Now) -> Option<Rc<Endpoint>> {
        let is_there = |endpoint: &&Rc<Endpoint>| {
            endpoint.takes_flows() && endpoint.addresses_now().iter().any(|address| address.inet() == Some(at))
        };
        let endpoint = self.endpoints().iter().find(is_there).cloned()?;
        self.begin(&endpoint, now);
        Some(endpoint)
    }

    fn begin(&self, endpoint: &Endpoint, now: Now) {
        endpoint.begin(now);
        self.members().load().begun(self.worker);
    }

    fn look(&self, choice: &Choice<'_>, now: Now, counters: &Counters) -> Result<Rc<Endpoint>, NoPick> {
        // Who has failed once finds out about nobody as long as there is one that needs no finding out.
        if choice.repeatable && !choice.tried.is_empty() {
            let safe = Choice { repeatable: false, ..*choice };
            if let Ok(picked) = self.balance(&safe, now, counters) {
                return Ok(picked);
            }
        }
        let free = choice.repeatable && !self.is_held(choice.affinity, now);
        let trial = if free { self.trial(choice.tried, now) } else { None };
        trial.map_or_else(|| self.balance(choice, now, counters), Ok).or_else(|why| {
            self.look_at.set(now);
            choice.repeatable.then(|| self.trial(choice.tried, now)).flatten().ok_or(why)
        })
    }

    /// Some endpoint takes requests, or would if it had not as many as it may.
    fn has_somebody(&self, now: Now, repeatable: bool) -> bool {
        matches!(self.standing(now, repeatable), Standing::Ready | Standing::Full)
    }

    /// Every endpoint that would do has as much as it may. A place may come free.
    pub fn is_full(&self, now: Now) -> bool {
        let mut full = false;
        for endpoint in self.endpoints.borrow().iter() {
            match endpoint.standing(now, true) {
                // Mostly the first one.
                Standing::Ready => return false,
                standing => full |= standing == Standing::Full,
            }
        }
        if full {
            self.borrow();
        }
        full
    }

    /// The pool as a whole, for a request that may be sent twice or not: as well as the best of those that may get any.
    pub(super) fn standing(&self, now: Now, repeatable: bool) -> Standing {
        let mut found = Standing::Down;
        let (endpoints, members) = (self.endpoints.borrow(), self.members());
        for (endpoint, _) in endpoints.iter().zip(members.iter()).filter(|(_, member)| member.weight > 0) {
            match (endpoint.standing(now, repeatable), found) {
                (Standing::Ready, _) => return Standing::Ready,
                (Standing::Full, _) => found = Standing::Full,
                (Standing::Suspect, Standing::Down) => found = Standing::Suspect,
                _ => {}
            }
        }
        found
    }

    /// What all workers have seen of the pool. How many places it has is not its own business.
    pub(super) fn seen(&self, now: Now) -> Seen {
        let (endpoints, members) = (self.endpoints.borrow(), self.members());
        let in_flight = u32::try_from(members.load().sum()).unwrap_or(u32::MAX);
        let mut seen = Seen { generation: self.generation.get(), in_flight, ..Seen::default() };
        for (endpoint, _) in endpoints.iter().zip(members.iter()).filter(|(_, member)| member.weight > 0) {
            endpoint.add_to(&mut seen, now);
        }
        seen
    }

    /// Requests that its endpoints take at a time by their own limits; `None` when one of them has none.
    pub(super) fn places(&self, now: Now) -> Option<u32> {
        let (endpoints, members) = (self.endpoints.borrow(), self.members());
        let mut sum = None;
        for (endpoint, _) in endpoints.iter().zip(members.iter()).filter(|(_, member)| member.weight > 0) {
            if !matches!(endpoint.standing(now, true), Standing::Out | Standing::Draining) {
                sum = Some(sum.unwrap_or(0_u32).saturating_add(endpoint.places()?));
            }
        }
        sum
    }

    /// Whether a request belongs to an endpoint, by its key or by a cookie of one that can have it.
    fn is_held(&self, affinity: &Affinity, now: Now) -> bool {
        let can_have = |place: usize| {
            let standing = self.endpoints()[place].standing(now, true);
            matches!(standing, Standing::Ready | Standing::Draining)
        };
        affinity.key.is_some() || self.home(affinity).is_some_and(can_have)
    }

    /// The place of the endpoint that a request's cookie names.
    fn home(&self, affinity: &Affinity) -> Option<usize> {
        self.members().badges()?.place(affinity.token?.id)
    }

    fn balance(&self, choice: &Choice<'_>, now: Now, counters: &Counters) -> Result<Rc<Endpoint>, NoPick> {
        let Choice { tried, affinity, repeatable, once } = *choice;
        let (endpoints, members) = (self.endpoints.borrow(), self.members());
        let view = View { endpoints: &endpoints, pool: members.load(), slow_start: &self.slow_start, repeatable, now };
        let (avoid, wary) = (tried.places(), !tried.is_empty());
        let ask = Ask { avoid, key: affinity.key, prefer: self.home(affinity), wary, once };
        let Pick { index, sticky, panic } = match self.sessions.borrow_mut().as_mut().filter(|_| ask.key.is_some()) {
            Some(sessions) => sessions.pick(&view, &ask, &mut self.random.borrow_mut()),
            None => self.balancer.borrow_mut().pick(&view, &ask, &mut self.random.borrow_mut()),
        }?;
        counters.panic_picks_total.add(u64::from(panic));
        counters.sticky_moved_total.add(u64::from(affinity.token.is_some() && !sticky));
        affinity.lent.set(!sticky && ask.prefer.is_some_and(|home| view.standing(home) == Standing::Full));
        Ok(Rc::clone(&endpoints[index]))
    }

    /// An endpoint whose breaker wants to know whether it is back. The balancer would not ask it: it remembers it as slow. Where
    /// fewer than half of the pool are left that nobody doubts, open breakers do not wait for their time.
    fn trial(&self, tried: &Tried, now: Now) -> Option<Rc<Endpoint>> {
        if now < self.look_at.get() {
            return None;
        }
        let endpoints = self.endpoints.borrow();
        if endpoints.iter().all(|endpoint| endpoint.is_closed(now)) {
            self.look_at.set(now.plus(limits::HOUSEKEEPING));
            return None;
        }
        self.look_at.set(now.plus(limits::TRIALS_EVERY));
        let untried = || endpoints.iter().filter(|endpoint| !tried.contains(endpoint));
        if let Some(waiting) = untried().find(|endpoint| endpoint.wants_trial(now)) {
            return Some(Rc::clone(waiting));
        }
        let ready = endpoints
            .iter()
            .filter(|endpoint| matches!(endpoint.standing(now, true), Standing::Ready | Standing::Full))
            .filter(|endpoint| !endpoint.is_doubtful(now))
            .count();
        let scarce = ready * 2 < endpoints.len();
        let need = if ready == 0 { Need::All } else { Need::Some };
        untried().find(|endpoint| scarce && endpoint.hurry(now, need)).map(Rc::clone)
    }

    /// A request for which [`pick`](Self::pick) has found nobody waits, if it is breakers that leave nobody, and not too many wait.
    #[must_use]
    pub fn wait(&self, tried: &Tried, since: ring::Now) -> Option<Waiting<'_>> {
        if self.waiting.get() >= limits::WAITING_MAX || !self.has_hope(tried, policy_now(since)) {
            return None;
        }
        self.waiting.set(self.waiting.get() + 1);
        Some(Waiting { cluster: self, since })
    }

    /// An endpoint that has not been tried may be back at any moment.
    pub fn has_hope(&self, tried: &Tried, now: Now) -> bool {
        self.endpoints().iter().any(|endpoint| !tried.contains(endpoint) && endpoint.may_be_back(now))
    }

    /// The same endpoint once more for the same request, whose first connection turned out to be dead. `None` when it has
    /// left the pool meanwhile.
    pub fn pick_again(&self, endpoint: Rc<Endpoint>) -> Option<Rc<Endpoint>> {
        if endpoint.is_retired() {
            return None;
        }
        endpoint.begin_again();
        self.members().load().begun(self.worker);
        Some(endpoint)
    }

    /// None of its endpoints' names has stood for anything so far.
    pub fn is_unresolved(&self) -> bool {
        self.endpoints().iter().all(|endpoint| endpoint.is_unresolved())
    }

    /// What became of a try that [`pick`](Self::pick) began.
    pub fn record(&self, endpoint: &Endpoint, now: Now, outcome: &Outcome) {
        endpoint.record(now, outcome, &mut self.patience.borrow_mut());
        self.barren_until.set(Now::ZERO);
        if !endpoint.is_closed(now) {
            self.look_at.set(self.look_at.get().min(now.plus(limits::TRIALS_EVERY)));
        }
        self.members().load().ended(self.worker);
    }

    /// A request has come: the retry budget grows.
    pub fn count_request(&self, now: Now) {
        self.budget.borrow_mut().request(now);
    }

    /// Whether another try may follow, and after what pause. One that may is charged to the budget.
    pub fn repeats(&self, policy: &RetryPolicy, repetition: &Repetition<'_>, now: Now) -> Result<Duration, Stop> {
        let Repetition { outcome, replay, tries, waited, elsewhere } = *repetition;
        let tried = policy::Tried { tries, replay, deadline: None, waited, elsewhere };
        let (budget, random) = (&mut self.budget.borrow_mut(), &mut self.random.borrow_mut());
        match policy.decide(now, outcome, &tried, budget, random) {
            RetryDecision::Retry { after } => Ok(after),
            RetryDecision::Stop(why) => Err(why),
        }
    }

    /// How long after it was sent a try should be thought about; `None`: it has all the time that it is configured to have.
    pub fn patience(&self, impatient: &Impatient<'_>, now: Now) -> Option<Duration> {
        impatient.endpoint.patience(now, &self.patience.borrow(), &self.waiting_try(impatient))
    }

    /// Whether the answer to a try is not to be expected any more, though nothing else can be done about it. Where only a trial can tell, the next
    /// request that may be one is.
    pub fn has_lost(&self, impatient: &Impatient<'_>, least: Duration, now: Now) -> bool {
        let Impatient { endpoint, sent, .. } = *impatient;
        let since = sent.plus(endpoint.silence(now, &self.patience.borrow(), &self.waiting_try(impatient), least));
        if now < since {
            return false;
        }
        let lost = endpoint.has_lost(sent, since, now);
        if !lost && endpoint.hurry(now, Need::Some) {
            self.look_at.set(self.look_at.get().min(now));
        }
        lost
    }

    fn waiting_try(&self, impatient: &Impatient<'_>) -> Try {
        let Impatient { endpoint, sent, last, replay, tried, elsewhere, per_try, configured, on_trial } = *impatient;
        let elsewhere =
            elsewhere || self.endpoints.borrow().iter().any(|one| !tried.contains(one) && !Rc::ptr_eq(one, endpoint));
        Try { sent, last, replay, elsewhere, configured, remaining: None, fixed: per_try, on_trial }
    }

    /// Slow requests are sent a second time.
    #[inline]
    pub const fn hedges(&self) -> bool {
        self.hedge.is_some()
    }

    /// How long after it was sent to `endpoint` a second copy of a request should be thought about. Counts the request.
    pub fn hedge_after(&self, endpoint: &Rc<Endpoint>, replay: Replay, now: Now) -> Option<Duration> {
        let mut hedge = self.hedge.as_ref()?.borrow_mut();
        let endpoints = self.endpoints.borrow();
        let mut others = endpoints.iter().filter(|one| !Rc::ptr_eq(one, endpoint));
        let elsewhere = others.any(|other| other.standing(now, false) == Standing::Ready);
        hedge.begin(now, replay, elsewhere, self.patience.borrow().latencies())
    }

    /// The endpoint for a second copy, if the budget has one: none of those tried, and none that is on trial.
    pub fn hedge(&self, tried: &Tried, affinity: &Affinity, now: Now, counters: &Counters) -> Option<Rc<Endpoint>> {
        let choice = Choice { tried, affinity, repeatable: false, once: false };
        if !self.hedge.as_ref()?.borrow_mut().fire(now) {
            counters.hedges_refused_total.add(1);
            return None;
        }
        let picked = self.balance(&choice, now, counters).ok()?;
        counters.hedges_total.add(1);
        picked.begin(now);
        self.members().load().begun(self.worker);
        Some(picked)
    }

    /// Whether there is an endpoint to go to that the request has not been to, this one left out. If it takes a trial ahead of its
    /// time, there is one.
    pub fn has_other(&self, tried: &Tried, than: &Rc<Endpoint>, now: Now) -> bool {
        let endpoints = self.endpoints.borrow();
        let mut others = endpoints.iter().filter(|one| !tried.contains(one) && !Rc::ptr_eq(one, than));
        others.clone().any(|other| other.standing(now, true) == Standing::Ready)
            || others.any(|other| other.hurry(now, Need::All))
    }

    /// A connection to an endpoint: an idle one, or with `fresh` or for want of one a new one. A pool that tells its
    /// endpoints who asks (PROXY protocol) gets a connection a client, because a connection has one header.
    pub async fn lease(
        &self,
        wanted: Wanted<'_>,
        timer: &mut Timer,
        cells: &Arc<WorkerCells>,
    ) -> Result<Lease, DialError> {
        // What making a connection holds has memory of its own: it is no part of every exchange.
        if wanted.pool.protocol != PoolProtocol::Http11 {
            if let Some(lease) = self.share_open(&wanted, cells) {
                return Ok(lease);
            }
            return ring::pooled(self.share(&wanted, timer, cells)).await;
        }
        let near = self.near_for(&wanted);
        let Wanted { endpoint, pool, connect, fresh, path, .. } = wanted;
        cells.counters.same_host_requests_total.add(u64::from(near.is_some()));
        if !fresh && let Some(lease) = Endpoint::take_idle(endpoint, pool, near.is_some(), &cells.counters) {
            return Ok(lease);
        }
        let header = proxy_header(pool.proxy_protocol, path);
        let (stream, held) = ring::pooled(self.dial(endpoint, near, header, connect, timer, &cells.counters)).await?;
        Ok(Lease::of_own(stream, held, endpoint, near.is_some()))
    }
}

impl Waiting<'_> {
    #[must_use]
    pub fn since(&self) -> ring::Now {
        self.since
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.cluster.waiting.set(self.cluster.waiting.get() - 1);
    }
}

#[cfg(test)]
mod tests;
