//! How often a request is tried, and where: what the policy is asked, in one place.

use std::rc::Rc;
use std::time::Duration;

use policy::{Class, NoPick, Outcome, Replay, Stop};
use ring::Now;

use super::admit::Counted;
use super::affinity::affinity;
use super::held::{Answer, Held};
use super::replay::Kept;
use super::route::Way;
use super::{Door, Peer, Reason, Request};
use crate::limits;
use crate::snapshot::{CookieRule, Fallback, Pool, Stickiness, Timeouts};
use crate::telemetry::Counters;
use crate::upstream::{
    Affinity, Choice, Cluster, DialError, Endpoint, Impatient, Lease, Repetition, Tried, Waiting, policy_now,
};

/// The tries of one request.
pub(super) struct Tries<'a> {
    pub(super) door: &'a Door,
    cluster: &'a Cluster,
    pool: &'a Pool,
    pub(super) way: Way<'a>,
    counted: Counted,
    /// What holds it to an endpoint.
    affinity: Affinity,
    /// Endpoints that it has failed at.
    tried: Tried,
    /// Tries begun, and those of them that do not count.
    count: u8,
    excused: u8,
    /// How often it has been sent.
    sent: u8,
    /// The best answer so far.
    pub(super) held: Option<Box<Held<'a>>>,
    /// Its method may be done twice (RFC 9110 §9.2.2).
    idempotent: bool,
    /// Its content as far as it was read, for a request that has any.
    content: Content<'a>,
    /// Something of a try has gone downstream.
    interim: bool,
    /// A try has begun in this pool.
    here: bool,
    last: Option<Class>,
    /// Those that would do had as much as they may.
    pub(super) full: bool,
    /// The last endpoint lets nothing leave HTTP.
    no_upgrades: bool,
    /// It has answered nobody since it was asked.
    silent: bool,
    /// How long to wait before the next one, and how long that was the last time.
    pub(super) pause_ns: u64,
    /// Nobody could have it; and how long that was so before.
    waiting: Option<Waiting<'a>>,
    waited_us: u32,
    /// Ask this endpoint once more, on a fresh connection: the pooled one had died of old age.
    again_at: Option<Rc<Endpoint>>,
}

enum Content<'a> {
    /// There is none.
    None,
    /// It is kept on its way.
    Kept(Kept<'a>),
    /// It streams through and is gone; whether that has begun.
    Gone(bool),
}

/// One of them.
pub(super) struct Attempt {
    pub(super) endpoint: Rc<Endpoint>,
    /// Asked once more, and not on a pooled connection; a shared one that is open will do.
    pub(super) fresh: bool,
    pub(super) reused: bool,
    /// The endpoint is asked to find out about it.
    on_trial: bool,
    /// The endpoint says that it has not looked at the request.
    pub(super) unprocessed: bool,
    /// What became of it is known at its endpoint.
    pub(super) is_recorded: bool,
    /// The budget had no retry for it, and that is counted.
    is_denied: bool,
    /// The answer that it had, when that is held back.
    pub(super) answer: Option<Box<Answer>>,
    begun: Now,
    /// When the whole request had been passed on: an endpoint's time does not begin before.
    sent: Option<Now>,
    /// When the head of its answer came.
    answered: Option<Now>,
}

impl Attempt {
    const fn new(endpoint: Rc<Endpoint>, begun: Now) -> Self {
        Self {
            endpoint,
            fresh: false,
            reused: false,
            on_trial: false,
            unprocessed: false,
            is_recorded: false,
            is_denied: false,
            answer: None,
            begun,
            sent: None,
            answered: None,
        }
    }

    pub(super) fn sent(&mut self) {
        self.sent = Some(ring::now());
    }

    pub(super) const fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    pub(super) fn answered(&mut self) {
        self.answered = Some(ring::now());
    }

    /// A connection that had carried requests died before it answered, or took no more of them, which says nothing about the endpoint.
    /// Who has asked again for that reason has been heard: connections that many share are not all dead of old age.
    pub(super) fn is_stale(&self, class: Class) -> bool {
        self.reused && !self.fresh && class == Class::Reset || self.unprocessed
    }

    /// How it ended, and how long the endpoint took for its part of it.
    pub(super) fn outcome(&self, class: Class) -> Outcome {
        let since = self.sent.unwrap_or(self.begun);
        Outcome::new(self.answered.unwrap_or_else(ring::now).since(since), class)
    }
}

impl<'a> Tries<'a> {
    pub(super) fn new(door: &'a Door, request: &Request, peer: &Peer, way: Way<'a>, counted: Counted) -> Self {
        let pool = &door.snapshot[way.pool];
        let idempotent = request.head.method.is_idempotent();
        let content = if !request.head.framing.has_body() {
            Content::None
        } else if (idempotent || pool.retry.policy.non_idempotent)
            && pool.retry.buffer > 0
            && pool.retry.policy.tries > 1
        {
            Content::Kept(Kept::new(pool.retry.buffer, &door.desk.kept_bytes))
        } else {
            Content::Gone(false)
        };
        let cluster = door.cluster(way.pool);
        cluster.count_request(policy_now(ring::now()));
        Self {
            door,
            cluster,
            affinity: affinity(door, request, peer, pool, cluster),
            pool,
            way,
            counted,
            tried: Tried::default(),
            count: 0,
            excused: 0,
            sent: 0,
            held: None,
            idempotent,
            content,
            interim: false,
            here: false,
            last: None,
            full: false,
            no_upgrades: false,
            silent: false,
            pause_ns: 0,
            waiting: None,
            waited_us: 0,
            again_at: None,
        }
    }

    /// From now on they are made in another pool, which stands in for this one. What has been read of the content comes along, and what was answered.
    pub(super) fn enter(&mut self, door: &'a Door, request: &Request, peer: &Peer, way: Way<'a>) {
        let content = std::mem::replace(&mut self.content, Content::None);
        let held = self.held.take();
        *self = Self { content, interim: self.interim, held, ..Self::new(door, request, peer, way, self.counted) };
    }

    /// Where the limits of its route have counted the request.
    pub(super) const fn counted(&self) -> &Counted {
        &self.counted
    }

    pub(super) const fn pool(&self) -> &'a Pool {
        self.pool
    }

    pub(super) const fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// A connection that has done what it was taken for: it has brought so many bytes of content.
    pub(super) fn give_back(&self, lease: Lease, content: u64, counters: &Counters) {
        self.cluster.give_back(lease, self.pool, content, counters);
    }

    /// What stands in for the pool, when no endpoint of it can have the request. A pool that is full is not replaced: there would be no
    /// limit any more.
    pub(super) fn fallback(&self) -> Option<&'a Fallback> {
        self.pool.fallback.as_ref().filter(|_| !self.full && !self.way.is_over())
    }

    /// Chooses an endpoint for the next try; `None` when there is none.
    pub(super) fn pick(&mut self) -> Option<Attempt> {
        let begun = ring::now();
        let now = policy_now(begun);
        let again = self.again_at.take().and_then(|endpoint| self.cluster.pick_again(endpoint));
        let fresh = again.is_some();
        let endpoint = again.or_else(|| self.choose(now));
        if endpoint.is_none() {
            self.last = self.last.or_else(|| self.cluster.is_unresolved().then_some(Class::Unresolved));
        }
        if let Content::Kept(kept) = &mut self.content {
            kept.rewind();
        }
        let endpoint = endpoint?;
        (self.waited_us, self.waiting) = (self.waited().as_micros() as u32, None);
        self.count += u8::from(!fresh);
        self.here = true;
        let on_trial = endpoint.is_on_trial(now);
        Some(Attempt { fresh, on_trial, ..Attempt::new(endpoint, begun) })
    }

    /// None has begun, because those endpoints that would do have as much as they may.
    pub(super) fn found_all_full(&self) -> bool {
        self.count == 0 && self.full
    }

    /// Nobody can have it. Until when to wait before the next look; `None` when waiting is of no use, or has been.
    pub(super) fn wait(&mut self) -> Option<Now> {
        let now = ring::now();
        if self.waiting.is_none() {
            let waiting = self.cluster.wait(&self.tried, now).filter(|_| !self.pool.wait.is_zero())?;
            self.counters().endpoint_waits_total.add(1);
            self.waiting = Some(waiting);
        }
        let end = self.waiting.as_ref()?.since()
            + self.pool.wait.saturating_sub(Duration::from_micros(self.waited_us.into()));
        let end = self.way.deadline.map_or(end, |deadline| deadline.min(end));
        (now < end).then(|| end.min(now + limits::WAITING_LOOKS_EVERY))
    }

    /// It can be the one that finds out whether an endpoint is back: it may be sent twice; or it has waited for half of its time for others
    /// to find out, and will be refused otherwise.
    fn may_go_on_trial(&self) -> bool {
        let again = self.idempotent && self.may_repeat() && self.spent() + 1 < self.pool.retry.policy.tries;
        again || self.has_waited_long()
    }

    /// Tries begun, of those that it may have.
    const fn spent(&self) -> u8 {
        self.count.saturating_sub(self.excused)
    }

    /// How long it has waited for an endpoint, in all.
    fn waited(&self) -> Duration {
        let now = self.waiting.as_ref().map_or(Duration::ZERO, |waiting| ring::now().since(waiting.since()));
        Duration::from_micros(self.waited_us.into()) + now
    }

    /// Half of the time that it has for that.
    fn has_waited_long(&self) -> bool {
        self.waited() * 2 >= self.pool.wait
    }

    /// An endpoint where it has failed may have it once more. While others may be back at any moment it is not their turn; when they are not, anybody
    /// is better than a refusal.
    fn has_second_chance(&self, now: policy::Now) -> bool {
        let answered = matches!(self.last, Some(Class::Reset | Class::Answered(_)));
        let waits = !self.pool.wait.is_zero();
        let now_or_never = waits && self.has_waited_long();
        let without_hope = answered && (!waits || !self.cluster.has_hope(&self.tried, now));
        !self.tried.is_empty() && (now_or_never || without_hope) && !self.goes_elsewhere()
    }

    fn choose(&mut self, now: policy::Now) -> Option<Rc<Endpoint>> {
        let last = self.spent() + 1 >= self.pool.retry.policy.tries;
        // The last try is too good for a pool where the others have failed.
        if last && self.here && self.goes_elsewhere() {
            self.full = false;
            return None;
        }
        let repeatable = self.may_go_on_trial();
        let pick = |tried: &Tried| {
            let wanted = Choice { tried, affinity: &self.affinity, repeatable, once: !self.idempotent };
            self.cluster.pick(&wanted, now, self.counters())
        };
        let picked = pick(&self.tried)
            .or_else(|why| if self.has_second_chance(now) { pick(&Tried::default()) } else { Err(why) });
        self.full = matches!(picked, Err(NoPick::Full));
        picked.ok()
    }

    fn counters(&self) -> &'a Counters {
        &self.door.cells.counters
    }

    /// Whether another pool would have the request, and may.
    fn goes_elsewhere(&self) -> bool {
        self.may_repeat() && self.door.has_another(&self.way, self.idempotent)
    }

    /// Another pool for the request, for which this one has nobody: from now on it is tried there.
    pub(super) fn elsewhere(&mut self, request: &Request, peer: &Peer) -> Option<Way<'a>> {
        if !self.may_repeat() {
            return None;
        }
        let way = self.door.another(&self.way, self.idempotent)?;
        self.turn_to(request, peer, way);
        // Those tried are places in the other pool's list.
        self.tried = Tried::default();
        (self.again_at, self.waiting, self.here, self.full) = (None, None, false, false);
        self.cluster.count_request(policy_now(ring::now()));
        Some(way)
    }

    /// From now on it is another pool's, or another one's again.
    pub(super) fn turn_to(&mut self, request: &Request, peer: &Peer, way: Way<'a>) {
        if way.pool != self.way.pool {
            let door = self.door;
            (self.cluster, self.pool) = (door.cluster(way.pool), &door.snapshot[way.pool]);
            self.affinity = affinity(door, request, peer, self.pool, self.cluster);
        }
        self.way = way;
    }

    /// The cookie that the pool holds sessions by.
    pub(super) fn cookie(&self) -> Option<&'a CookieRule> {
        match &self.pool.division.sticky {
            Stickiness::Cookie(rule) => Some(rule),
            Stickiness::Off | Stickiness::Key(_) => None,
        }
    }

    /// Writes what an answer from `endpoint` is to set it to; false when there is nothing to say.
    pub(super) fn write_cookie(&self, rule: &CookieRule, endpoint: &Rc<Endpoint>, out: &mut Vec<u8>) -> bool {
        self.cluster.write_cookie(rule, &self.affinity, endpoint, out)
    }

    /// How long to pause before the next try, if at all.
    pub(super) fn pause(&self) -> Option<Duration> {
        (self.pause_ns > 0 && self.waiting.is_none()).then(|| Duration::from_nanos(self.pause_ns))
    }

    /// The request's content, if it is kept for another try.
    pub(super) fn kept(&mut self) -> Option<&mut Kept<'a>> {
        match &mut self.content {
            Content::Kept(kept) => Some(kept),
            Content::None | Content::Gone(_) => None,
        }
    }

    /// Content has been read from the client.
    pub(super) fn content_moves(&mut self) {
        if let Content::Gone(begun) = &mut self.content {
            *begun = true;
        }
    }

    /// It is being sent.
    pub(super) const fn sends(&mut self) {
        self.sent += 1;
    }

    /// It may be sent once more, as far as that is a matter of how often it was.
    const fn may_be_sent(&self) -> bool {
        self.sent < limits::SENT_MAX
    }

    /// Something of a try has gone downstream: there will be no other one.
    pub(super) fn forbid_repetition(&mut self) {
        self.interim = true;
    }

    /// A try has ended without an answer; true when another one may follow.
    pub(super) fn failed(&mut self, attempt: &Attempt, outcome: &Outcome) -> bool {
        let stale = attempt.is_stale(outcome.class);
        let recorded = if stale { Outcome::new(outcome.latency, Class::Shed) } else { *outcome };
        self.excuse(attempt, &recorded);
        self.ended(attempt, &recorded);
        self.last = Some(outcome.class);
        if stale && !attempt.fresh && self.may_be_sent() && self.may_repeat() && outcome.retryable(self.replay()) {
            self.again_at = Some(Rc::clone(&attempt.endpoint));
            self.pause_ns = 0;
            return true;
        }
        let elsewhere = self.has_other_than(attempt);
        self.grant(attempt, outcome, elsewhere, self.spent()).is_ok()
    }

    /// A try that does not count for those of its request is none. Before it is recorded: what it says itself is no news of before.
    fn excuse(&mut self, attempt: &Attempt, outcome: &Outcome) {
        let doubtful = attempt.endpoint.is_doubtful(policy_now(ring::now()));
        // One try is one.
        let may = self.pool.retry.policy.tries > 1 && self.excused < limits::TRIES_EXCUSED_MAX;
        if may && outcome.is_excused(attempt.on_trial, doubtful) {
            self.excused += 1;
        }
    }

    /// A try that could still have gone on was given up, because another one had been [granted](Self::grants).
    pub(super) fn given_up(&mut self, attempt: &mut Attempt, outcome: &Outcome) {
        self.ended(attempt, outcome);
        attempt.is_recorded = true;
        self.last = Some(outcome.class);
    }

    /// When to think about a second copy of what has been sent.
    pub(super) fn hedge_at(&self, attempt: &Attempt) -> Option<Now> {
        let sent = attempt.sent?;
        let alone = self.count == 1 && matches!(self.content, Content::None) && self.may_repeat();
        if !alone || !self.cluster.hedges() {
            return None;
        }
        let after = self.cluster.hedge_after(&attempt.endpoint, self.replay(), policy_now(sent))?;
        Some(sent + after)
    }

    /// The second copy's try, if it may be sent now and there is somewhere to send it.
    pub(super) fn second(&mut self, first: &Attempt) -> Option<Attempt> {
        let begun = ring::now();
        self.tried.add(&first.endpoint);
        let endpoint = self.cluster.hedge(&self.tried, &self.affinity, policy_now(begun), self.counters())?;
        self.count += 1;
        self.sent += 1;
        Some(Attempt::new(endpoint, begun))
    }

    /// The second copy of `first` is answered before it, whatever has become of it.
    pub(super) fn overtaken(&self, first: &Attempt, class: Class) {
        let class = if first.is_stale(class) { Class::Shed } else { class };
        self.cluster.record(&first.endpoint, policy_now(ring::now()), &first.outcome(class));
        self.counters().hedges_won_total.add(1);
    }

    /// A try was answered, or ended in a way that leaves nothing to try.
    pub(super) fn ended(&self, attempt: &Attempt, outcome: &Outcome) {
        if !attempt.is_recorded {
            self.cluster.record(&attempt.endpoint, policy_now(ring::now()), outcome);
        }
    }

    /// Whether another try may follow `outcome`; if so, it is paid for. `elsewhere`: what
    /// [`has_other_than`](Self::has_other_than) said.
    pub(super) fn grants(&mut self, attempt: &Attempt, outcome: &Outcome, elsewhere: bool) -> bool {
        self.excuse(attempt, outcome);
        self.grant(attempt, outcome, elsewhere, self.spent()).is_ok()
    }

    /// Whether another try may follow one that has not ended, because its endpoint is silent. Such a try is not counted: the last one of
    /// all would else wait for a silent endpoint as long as the timeout says.
    ///
    /// # Errors
    /// Why not: for want of budget, it may be granted later.
    pub(super) fn moves_on(&mut self, attempt: &mut Attempt, outcome: &Outcome) -> Result<(), Stop> {
        let granted = self.grant(attempt, outcome, true, self.spent().max(2) - 1);
        match granted {
            Ok(()) => self.excuse(attempt, outcome),
            Err(why) => attempt.is_denied |= why == Stop::Budget,
        }
        granted
    }

    fn grant(&mut self, attempt: &Attempt, outcome: &Outcome, elsewhere: bool, tries: u8) -> Result<(), Stop> {
        if !self.may_repeat() {
            return Err(Stop::Unsafe);
        }
        if !self.may_be_sent() {
            return Err(Stop::TriesSpent);
        }
        let repetition = Repetition {
            outcome,
            replay: self.replay(),
            tries,
            waited: Duration::from_nanos(self.pause_ns),
            elsewhere,
        };
        let granted = self.cluster.repeats(&self.pool.retry.policy, &repetition, policy_now(ring::now()));
        if granted == Err(Stop::Budget) {
            self.counters().retries_refused_total.add(u64::from(!attempt.is_denied));
        }
        self.pause_ns = granted?.as_nanos() as u64;
        self.tried.add(&attempt.endpoint);
        self.counters().retries_total.add(1);
        Ok(())
    }

    /// What to do about a try that has been sent and is not answered yet: wait on, and until when to ask again whether to go elsewhere.
    pub(super) fn impatience(&self, attempt: &Attempt) -> Option<Now> {
        let sent = attempt.sent?;
        if !self.may_repeat() || !self.pool.retry.policy.on.timed_out {
            return None;
        }
        let soft = self.cluster.patience(&self.impatient(attempt, sent), policy_now(ring::now()))?;
        Some(sent + soft)
    }

    fn impatient<'b>(&'b self, attempt: &'b Attempt, sent: Now) -> Impatient<'b> {
        let policy = &self.pool.retry.policy;
        Impatient {
            endpoint: &attempt.endpoint,
            sent: policy_now(sent),
            last: self.spent() > policy.tries || policy.tries == 1,
            on_trial: attempt.on_trial,
            replay: self.replay(),
            tried: &self.tried,
            elsewhere: self.goes_elsewhere(),
            per_try: policy.per_try,
            configured: self.way.timeouts.head,
        }
    }

    /// When to ask next whether a try is [lost](Self::is_lost).
    pub(super) fn silence(&self, attempt: &Attempt) -> Option<Now> {
        let (first, now) = (attempt.sent? + self.silent_for()?, ring::now());
        Some(if first > now { first } else { now + limits::LOOK_FOR_SIGNS_EVERY })
    }

    /// The endpoint of a try that can go nowhere else is dead, as far as can be found out.
    pub(super) fn is_lost(&mut self, attempt: &Attempt) -> bool {
        let lost = attempt.sent.zip(self.silent_for()).is_some_and(|(sent, least)| {
            self.cluster.has_lost(&self.impatient(attempt, sent), least, policy_now(ring::now()))
        });
        self.silent = lost;
        lost
    }

    fn silent_for(&self) -> Option<Duration> {
        let Timeouts { head, silent, .. } = *self.way.timeouts;
        (silent < head).then_some(silent)
    }

    /// Whether there is somewhere else to go now.
    pub(super) fn has_other_than(&self, attempt: &Attempt) -> bool {
        self.cluster.has_other(&self.tried, &attempt.endpoint, policy_now(ring::now())) || self.goes_elsewhere()
    }

    /// Whether an answer with this status is a cause to try again.
    pub(super) fn retries_status(&self, status: u16) -> bool {
        self.pool.retry.policy.on.statuses.contains(status)
    }

    /// Whether the request can be sent once more at all.
    fn may_repeat(&self) -> bool {
        !self.interim && !matches!(self.content, Content::Gone(true)) && self.kept_whole()
    }

    fn kept_whole(&self) -> bool {
        !matches!(&self.content, Content::Kept(kept) if !kept.is_whole())
    }

    fn replay(&self) -> Replay {
        if self.idempotent { Replay::Idempotent } else { Replay::NotIdempotent }
    }

    /// No connection to the endpoint is to be had, for this reason. As [`failed`](Self::failed).
    pub(super) fn unconnected(&mut self, attempt: &Attempt, error: &DialError) -> bool {
        self.no_upgrades = matches!(error, DialError::NoUpgrades);
        self.failed(attempt, &attempt.outcome(error.into()))
    }

    /// What to tell the client when there is nothing left to try.
    pub(super) fn reason(&self) -> Reason {
        match self.last {
            _ if self.way.is_over() => Reason::DeadlinePassed,
            None if self.full => Reason::EndpointsFull,
            None => Reason::NoEndpoint,
            Some(Class::Refused) => Reason::ConnectFailed,
            Some(Class::ConnectTimedOut) => Reason::ConnectTimedOut,
            Some(Class::Untrusted) => Reason::Untrusted,
            Some(Class::Unresolved) => Reason::Unresolved,
            Some(Class::TimedOut) if self.silent => Reason::UpstreamSilent,
            Some(Class::TimedOut) => Reason::UpstreamTimedOut,
            Some(Class::Malformed) => Reason::UpstreamMalformed,
            Some(Class::Shed) if self.no_upgrades => Reason::UpgradeUnsupported,
            Some(Class::Shed) => Reason::OutOfResources,
            Some(_) => Reason::UpstreamClosed,
        }
    }
}
