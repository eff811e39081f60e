//! A pool, its workers and their traffic on virtual time: what an engine does around the policy, and what endpoints do to it.
//!
//! Each worker has a balancer, breakers, latencies, patience and a retry budget of its own, as in the engine; breakers share
//! their verdicts through a cell an endpoint, and requests in flight are counted over all workers. Workers read clocks of
//! their own, which may jump; timers run on true time, as the kernel's do.

use crate::settings::{Fault, MS, SECOND, Service, Settings, Traffic};
use policy::{
    Ask, Avoid, BalanceSettings, Balancer, Breaker, BreakerSettings, BreakerState, BreakerVerdict, Class,
    EndpointPatience, Endpoints, HealthCheck, HealthSettings, Load, Member, Need, Now, Outcome, OutlierSettings,
    Outliers, Patience, PatienceSettings, PeakEwma, ProbeResult, Random, Replay, RetryBudget, RetryBudgetSettings,
    RetryCauses, RetryDecision, RetryPolicy, Standing, StatusSet, Sums, Tried, Try, Verdict,
};
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// The engine's `timeout.head`.
const HARD: Duration = Duration::from_secs(60);

/// Until a refusal is back.
const REFUSAL_NS: u64 = MS / 5;

/// Between two looks for another endpoint, when there was none at the soft time.
const ASK_AGAIN_NS: u64 = 100 * MS;

/// The engine's `breaker.wait`, the pause between two looks meanwhile, and from when on a request that must not be sent twice goes on
/// trial all the same.
const WAIT_NS: u64 = 500 * MS;
const LOOK_NS: u64 = 20 * MS;
const DARE_NS: u64 = WAIT_NS / 2;

/// Requests that an endpoint works on at a time; the others queue.
const SLOTS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// A try ends by what its endpoint does.
    End(u32, u8),
    Soft(u32, u8),
    Hard(u32, u8),
    Again(u32),
    /// Probes and outliers.
    Tick,
}

/// One request, and what became of it.
pub(crate) struct Request {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) well: bool,
    pub(crate) idempotent: bool,
    pub(crate) tries: u8,
    worker: u8,
    endpoint: u8,
    /// Changes with each try and each end: timers of another one are void.
    attempt: u8,
    sent: u64,
    sent_by_clock: Now,
    avoid: Avoid,
    waited: Duration,
    last: Option<Class>,
    /// Since when it waits for an endpoint.
    waits_since: Option<u64>,
}

struct Worker {
    breakers: Vec<Breaker>,
    latencies: Vec<PeakEwma>,
    patiences: Vec<EndpointPatience>,
    patience: Patience,
    budget: RetryBudget,
}

/// What all workers share.
struct Shared {
    verdicts: Vec<BreakerVerdict>,
    in_flight: Vec<u32>,
    checks: Vec<HealthCheck>,
    outliers: Outliers,
    sums: Vec<Sums>,
    ready_since: Vec<Option<u64>>,
}

pub(crate) struct Played {
    pub(crate) requests: Vec<Request>,
    /// When a try went out, and where to.
    pub(crate) tries: Vec<(u64, u8)>,
    /// When a retry was granted.
    pub(crate) retries: Vec<u64>,
    /// When, and where, a breaker opened or closed for all.
    pub(crate) turns: Vec<(u64, u8, bool)>,
}

pub(crate) struct World<F> {
    settings: Settings,
    fault: F,
    retry: RetryPolicy,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, Event)>>,
    workers: Vec<Worker>,
    /// One a worker.
    balancers: Vec<Balancer>,
    shared: Shared,
    /// For each endpoint, until when each of its slots is busy.
    slots: Vec<BinaryHeap<Reverse<u64>>>,
    played: Played,
    end: u64,
}

struct View<'a> {
    worker: &'a Worker,
    shared: &'a Shared,
    settings: &'a Settings,
    fault: &'a dyn Fn(usize, u64) -> Option<Fault>,
    at: u64,
    now: Now,
    /// The request may find out whether an endpoint is back.
    trial: bool,
}

impl Endpoints for View<'_> {
    fn len(&self) -> usize {
        self.settings.endpoints
    }
    fn standing(&self, index: usize) -> Standing {
        if (self.fault)(index, self.at).is_none() {
            return Standing::Out;
        }
        let breaker = &self.worker.breakers[index];
        if !breaker.admits(self.now) || !self.trial && breaker.state(self.now) == BreakerState::HalfOpen {
            return Standing::Down;
        }
        let ill = self.settings.health && !self.shared.checks[index].is_ready();
        let odd = self.settings.outliers && self.shared.outliers.is_ejected(index);
        if ill || odd { Standing::Suspect } else { Standing::Ready }
    }
    fn load(&self, index: usize) -> Load {
        let latency = &self.worker.latencies[index];
        Load {
            latency_ns: latency.nanos(self.now),
            failing: latency.failing(self.now),
            in_flight: self.shared.in_flight[index],
        }
    }
    fn ramp(&self, index: usize) -> f32 {
        let since = self.shared.ready_since[index].map_or(Now::ZERO, Now::from_nanos);
        self.settings.slow_start.factor(since, Now::from_nanos(self.at))
    }
}

/// Faults as seconds say; `None`: the endpoint is not in the pool.
impl<F: Fn(usize, u64) -> Option<Fault>> World<F> {
    pub(crate) fn new(settings: Settings, seed: u64, fault: F) -> Self {
        let mut random = Random::new(seed);
        let count = settings.endpoints;
        let names: Vec<_> = (0..count).map(|index| format!("10.0.0.{index}:80")).collect();
        let members: Vec<_> = names.iter().map(|name| Member { name, weight: 1, tier: 0 }).collect();
        let mut budget = RetryBudgetSettings::default();
        budget.per_second_min = (budget.per_second_min / settings.workers as u16).max(1);
        let breaker = BreakerSettings { count_500: settings.count_500, ..BreakerSettings::default() };
        let workers = (0..settings.workers).map(|_| Worker {
            breakers: (0..count)
                .map(|_| Breaker::new(breaker, random.next_u64()).shared_by(settings.workers as u16))
                .collect(),
            latencies: vec![PeakEwma::default(); count],
            patiences: vec![EndpointPatience::default(); count],
            patience: Patience::new(PatienceSettings::default(), count as u32),
            budget: RetryBudget::new(budget),
        });
        let workers: Vec<_> = workers.collect();
        let balancer = Balancer::new(BalanceSettings::from(settings.policy), &members);
        let start = Now::from_nanos((settings.ahead)(0, 0));
        let checks = (0..count).map(|index| HealthCheck::new(HealthSettings::default(), start, index as u64));
        let on = RetryCauses { statuses: StatusSet::of(&[500, 502, 503, 504]), ..RetryCauses::default() };
        Self {
            shared: Shared {
                verdicts: vec![BreakerVerdict::default(); count],
                in_flight: vec![0; count],
                checks: checks.collect(),
                outliers: Outliers::new(OutlierSettings::default(), count, start),
                sums: vec![Sums::default(); count],
                ready_since: vec![None; count],
            },
            slots: vec![(0..SLOTS).map(|_| Reverse(0)).collect(); count],
            retry: RetryPolicy { on, tries: 3, ..RetryPolicy::default() },
            played: Played { requests: Vec::new(), tries: Vec::new(), retries: Vec::new(), turns: Vec::new() },
            end: settings.seconds * SECOND,
            queue: BinaryHeap::new(),
            fault,
            balancers: vec![balancer; workers.len()],
            workers,
            random,
            settings,
        }
    }

    pub(crate) fn play(mut self) -> Played {
        let clients = match self.settings.traffic {
            Traffic::Open(_) => 1,
            Traffic::Closed(clients) => clients,
        };
        for _ in 0..clients {
            let first = self.random.below(20 * MS);
            self.at(first, Event::Arrive);
        }
        if self.settings.health || self.settings.outliers {
            self.at(0, Event::Tick);
        }
        while let Some(Reverse((at, event))) = self.queue.pop() {
            match event {
                Event::Arrive => self.arrive(at),
                Event::End(number, attempt) if self.is_out(number, attempt) => self.end(at, number),
                Event::Soft(number, attempt) if self.is_out(number, attempt) => self.soft(at, number),
                Event::Hard(number, attempt) if self.is_out(number, attempt) => {
                    self.settle(at, number, Outcome::new(HARD, Class::TimedOut));
                }
                Event::Again(number) => self.send(at, number),
                Event::Tick => self.tick(at),
                Event::End(..) | Event::Soft(..) | Event::Hard(..) => {}
            }
        }
        assert!(self.shared.in_flight.iter().all(|&count| count == 0), "what begins must end");
        self.played
    }

    fn at(&mut self, when: u64, event: Event) {
        self.queue.push(Reverse((when, event)));
    }

    fn clock(&self, worker: u8, at: u64) -> Now {
        Now::from_nanos(at + (self.settings.ahead)(usize::from(worker), at))
    }

    fn is_out(&self, number: u32, attempt: u8) -> bool {
        self.played.requests[number as usize].attempt == attempt
    }

    fn exponential(&mut self, mean_ns: f64) -> u64 {
        (-(1.0 - self.random.unit()).ln() * mean_ns) as u64
    }

    fn service(&mut self) -> u64 {
        let mean = self.settings.mean_ms * MS as f64;
        match self.settings.service {
            Service::Exponential => self.exponential(mean),
            Service::LogNormal => {
                let (radius, angle) = (1.0 - self.random.unit(), self.random.unit());
                let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
                (mean * (normal - 0.5).exp()) as u64
            }
        }
    }

    fn arrive(&mut self, at: u64) {
        if at >= self.end {
            return;
        }
        if let Traffic::Open(per_second) = self.settings.traffic {
            let pause = self.exponential(SECOND as f64 / per_second);
            self.at(at + pause, Event::Arrive);
        }
        let worker = self.random.below(self.workers.len() as u64) as u8;
        let now = self.clock(worker, at);
        self.workers[usize::from(worker)].budget.request(now);
        self.played.requests.push(Request {
            begun: at,
            ended: at,
            well: false,
            idempotent: self.random.unit() < self.settings.idempotent,
            tries: 0,
            worker,
            endpoint: 0,
            attempt: 0,
            sent: at,
            sent_by_clock: now,
            avoid: Avoid::default(),
            waited: Duration::ZERO,
            last: None,
            waits_since: None,
        });
        self.send(at, self.played.requests.len() as u32 - 1);
    }

    fn pick(&mut self, at: u64, number: u32) -> Option<usize> {
        let (worker, avoid, last, trial) = {
            let request = &self.played.requests[number as usize];
            let dares = request.waits_since.is_some_and(|since| at >= since + DARE_NS);
            let repeatable = request.idempotent && request.tries + 1 < self.retry.tries;
            (request.worker, request.avoid, request.last, repeatable || dares)
        };
        let now = self.clock(worker, at);
        self.hear(worker, now);
        let untried = self.pick_but(at, worker, avoid, trial).or_else(|| {
            let hurried = trial && self.hurry(worker, now, avoid);
            if hurried { self.pick_but(at, worker, avoid, trial) } else { None }
        });
        // As the engine does: the only endpoint may get a second chance, a known failure may not.
        let fits = matches!(last, Some(Class::Reset | Class::Answered(_)));
        untried.or_else(|| if fits { self.pick_but(at, worker, Avoid::default(), trial) } else { None })
    }

    fn pick_but(&mut self, at: u64, worker: u8, avoid: Avoid, trial: bool) -> Option<usize> {
        let now = self.clock(worker, at);
        let Self { workers, balancers, shared, settings, fault, random, .. } = self;
        let view = View { worker: &workers[usize::from(worker)], shared, settings, fault, at, now, trial };
        let ask = Ask { avoid, key: Some(random.next_u64()), prefer: None };
        balancers[usize::from(worker)].pick(&view, &ask, random).ok().map(|pick| pick.index)
    }

    /// Takes over what other workers have published.
    fn hear(&mut self, worker: u8, now: Now) {
        let Worker { breakers, latencies, .. } = &mut self.workers[usize::from(worker)];
        for ((breaker, latency), &verdict) in breakers.iter_mut().zip(latencies).zip(&self.shared.verdicts) {
            if breaker.adopt(now, verdict) && breaker.state(now) == BreakerState::Closed {
                *latency = PeakEwma::default();
            }
        }
    }

    /// Nobody is left to ask. True if that changes by it.
    fn hurry(&mut self, worker: u8, now: Now, avoid: Avoid) -> bool {
        let breakers = self.workers[usize::from(worker)].breakers.iter_mut().enumerate();
        breakers
            .filter(|&(index, _)| !avoid.contains(index))
            .fold(false, |any, (_, breaker)| breaker.hurry(now, Need::All) | any)
    }

    fn send(&mut self, at: u64, number: u32) {
        let Some(index) = self.pick(at, number) else { return self.wait(at, number) };
        self.played.requests[number as usize].waits_since = None;
        let now = self.clock(self.played.requests[number as usize].worker, at);
        let request = &mut self.played.requests[number as usize];
        self.workers[usize::from(request.worker)].breakers[index].begin(now);
        self.shared.in_flight[index] += 1;
        self.played.tries.push((at, index as u8));
        request.tries += 1;
        request.attempt += 1;
        (request.endpoint, request.sent, request.sent_by_clock) = (index as u8, at, now);
        let attempt = request.attempt;
        match (self.fault)(index, at).unwrap_or(Fault::Dead) {
            Fault::Hanging => {}
            Fault::Dead => self.at(at + REFUSAL_NS, Event::End(number, attempt)),
            Fault::Slow(factor) => self.work(at, index, factor, Event::End(number, attempt)),
            Fault::Well | Fault::Failing(_) | Fault::Resetting => {
                self.work(at, index, 1.0, Event::End(number, attempt));
            }
        }
        self.at(at + HARD.as_nanos() as u64, Event::Hard(number, attempt));
        if let Some(soft) = self.soft_time(at, number) {
            self.at(at + soft, Event::Soft(number, attempt));
        }
    }

    /// Nobody can have it now.
    fn wait(&mut self, at: u64, number: u32) {
        let request = &mut self.played.requests[number as usize];
        let since = *request.waits_since.get_or_insert(at);
        if at < since + WAIT_NS { self.at(at + LOOK_NS, Event::Again(number)) } else { self.finish(at, number, false) }
    }

    fn work(&mut self, at: u64, index: usize, factor: f64, end: Event) {
        let service = (self.service() as f64 * factor) as u64;
        let Reverse(free) = self.slots[index].pop().expect("slots are put back");
        let done = free.max(at) + service;
        self.slots[index].push(Reverse(done));
        self.at(done, end);
    }

    fn end(&mut self, at: u64, number: u32) {
        let request = &self.played.requests[number as usize];
        let (index, fresh) = (usize::from(request.endpoint), at - request.sent == REFUSAL_NS);
        let answered = |status| Outcome::answered(Duration::ZERO, status);
        let outcome = match (self.fault)(index, at).unwrap_or(Fault::Dead) {
            // What was under way when it began to hang is not answered any more.
            Fault::Hanging => return,
            Fault::Dead if fresh => Outcome::new(Duration::ZERO, Class::Refused),
            Fault::Dead | Fault::Resetting => Outcome::new(Duration::ZERO, Class::Reset),
            Fault::Failing(status) if self.random.below(2) == 0 => answered(status),
            Fault::Well | Fault::Slow(_) | Fault::Failing(_) => answered(200),
        };
        let latency = Duration::from_nanos(at - request.sent);
        self.settle(at, number, Outcome { latency, ..outcome });
    }

    fn soft(&mut self, at: u64, number: u32) {
        let Some(soft) = self.soft_time(at, number) else { return };
        let request = &self.played.requests[number as usize];
        let (sent, attempt) = (request.sent, request.attempt);
        if sent + soft > at {
            return self.at(sent + soft, Event::Soft(number, attempt));
        }
        if !self.finds_another(at, number) {
            return self.at(at + ASK_AGAIN_NS, Event::Soft(number, attempt));
        }
        let outcome = Outcome::new(Duration::from_nanos(at - sent), Class::TimedOut);
        // As the engine does: a try that is left for its endpoint's silence is not counted, once.
        let counted = self.played.requests[number as usize].tries.max(2) - 1;
        if let RetryDecision::Retry { after } = self.decide(at, number, &outcome, counted) {
            self.record(at, number, &outcome);
            self.again(at, number, after, outcome.class);
        }
    }

    /// Whether there is another endpoint, if need be one on trial before its time.
    fn finds_another(&mut self, at: u64, number: u32) -> bool {
        let request = &self.played.requests[number as usize];
        if self.elsewhere(at, request) {
            return true;
        }
        let (worker, mut avoid) = (request.worker, request.avoid);
        avoid.add(usize::from(request.endpoint));
        self.hurry(worker, self.clock(worker, at), avoid)
    }

    fn settle(&mut self, at: u64, number: u32, outcome: Outcome) {
        self.record(at, number, &outcome);
        match self.decide(at, number, &outcome, self.played.requests[number as usize].tries) {
            RetryDecision::Retry { after } => self.again(at, number, after, outcome.class),
            RetryDecision::Stop(_) => {
                let well = outcome.verdict_with(true) == Verdict::Success;
                self.finish(at, number, well);
            }
        }
    }

    fn soft_time(&self, at: u64, number: u32) -> Option<u64> {
        let request = &self.played.requests[number as usize];
        let worker = &self.workers[usize::from(request.worker)];
        let waiting = Try {
            sent: request.sent_by_clock,
            last: request.tries > self.retry.tries,
            replay: replay(request),
            elsewhere: true,
            configured: HARD,
            remaining: None,
            fixed: None,
        };
        let own = &worker.patiences[usize::from(request.endpoint)];
        let limit = worker.patience.limit(self.clock(request.worker, at), own, &waiting);
        limit.soft.map(|soft| soft.as_nanos() as u64)
    }

    /// Whether there is one that could be asked, and has not been.
    fn elsewhere(&self, at: u64, request: &Request) -> bool {
        let (worker, now) = (&self.workers[usize::from(request.worker)], self.clock(request.worker, at));
        (0..self.settings.endpoints).any(|index| {
            let tried = request.avoid.contains(index) || index == usize::from(request.endpoint);
            !tried && (self.fault)(index, at).is_some() && worker.breakers[index].admits(now)
        })
    }

    fn decide(&mut self, at: u64, number: u32, outcome: &Outcome, tries: u8) -> RetryDecision {
        let request = &self.played.requests[number as usize];
        let now = self.clock(request.worker, at);
        let elsewhere = self.elsewhere(at, request);
        let tried = Tried { tries, replay: replay(request), deadline: None, waited: request.waited, elsewhere };
        let budget = &mut self.workers[usize::from(request.worker)].budget;
        self.retry.decide(now, outcome, &tried, budget, &mut self.random)
    }

    fn record(&mut self, at: u64, number: u32, outcome: &Outcome) {
        let request = &mut self.played.requests[number as usize];
        request.attempt += 1;
        let (index, worker) = (usize::from(request.endpoint), usize::from(request.worker));
        let now = self.clock(worker as u8, at);
        let Worker { breakers, latencies, patiences, patience, .. } = &mut self.workers[worker];
        let was_open = breakers[index].state(now) != BreakerState::Closed;
        breakers[index].record(now, outcome);
        latencies[index].record(now, outcome);
        if was_open && breakers[index].state(now) == BreakerState::Closed {
            latencies[index] = PeakEwma::default();
        }
        patience.record(now, &mut patiences[index], outcome);
        self.shared.in_flight[index] -= 1;
        self.count(index, outcome);
        let found = self.workers[worker].breakers[index].verdict();
        let known = self.shared.verdicts[index];
        if found > known {
            self.shared.verdicts[index] = found;
            if found.is_tripped() != known.is_tripped() {
                self.played.turns.push((at, index as u8, found.is_tripped()));
                self.shared.ready_since[index] = (!found.is_tripped()).then_some(at);
            }
        }
    }

    fn count(&mut self, index: usize, outcome: &Outcome) {
        let sums = &mut self.shared.sums[index];
        sums.calls += 1;
        if outcome.verdict_with(true) == Verdict::Failure {
            sums.failures += 1;
        } else {
            sums.latency_ns += outcome.latency.as_nanos() as u64;
        }
    }

    fn again(&mut self, at: u64, number: u32, after: Duration, class: Class) {
        let request = &mut self.played.requests[number as usize];
        request.avoid.add(usize::from(request.endpoint));
        self.played.retries.push(at);
        (request.waited, request.last) = (after, Some(class));
        self.at(at + after.as_nanos() as u64, Event::Again(number));
    }

    fn finish(&mut self, at: u64, number: u32, well: bool) {
        let request = &mut self.played.requests[number as usize];
        (request.ended, request.well) = (at, well);
        if let Traffic::Closed(_) = self.settings.traffic {
            let think = self.exponential(20.0 * MS as f64);
            self.at(at + think, Event::Arrive);
        }
    }

    fn tick(&mut self, at: u64) {
        let now = self.clock(0, at);
        for index in 0..self.settings.endpoints {
            let fault = (self.fault)(index, at).unwrap_or(Fault::Dead);
            let check = &mut self.shared.checks[index];
            if check.begin(now) && fault != Fault::Hanging {
                let good = match fault {
                    Fault::Well | Fault::Slow(_) => true,
                    Fault::Failing(_) => self.random.below(2) == 0,
                    Fault::Dead | Fault::Hanging | Fault::Resetting => false,
                };
                check.record(now, if good { ProbeResult::Good } else { ProbeResult::Bad });
            }
        }
        if self.settings.outliers && self.shared.outliers.next_at(now) <= now {
            self.shared.outliers.evaluate(now, &self.shared.sums, |_, _| {});
            self.shared.sums.fill(Sums::default());
        }
        if at < self.end {
            self.at(at + SECOND / 4, Event::Tick);
        }
    }
}

const fn replay(request: &Request) -> Replay {
    if request.idempotent { Replay::Idempotent } else { Replay::NotIdempotent }
}
