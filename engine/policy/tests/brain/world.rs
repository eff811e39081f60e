//! A pool, its workers and their traffic on virtual time: what an engine does around the policy, and what endpoints do to it.
//!
//! Each worker has a balancer, breakers, latencies, patience and a retry budget of its own, as in the engine; breakers share
//! their verdicts through a cell an endpoint, and of requests in flight each worker knows its own at once and the others' a moment later. Workers read clocks of
//! their own, which may jump; timers run on true time, as the kernel's do.

mod choice;

use crate::settings::{Fault, MS, SECOND, Service, Settings, Traffic};
use choice::TRIALS_EVERY_NS;
use policy::{
    Avoid, BalanceSettings, Balancer, Breaker, BreakerSettings, BreakerState, BreakerVerdict, Class, EndpointPatience,
    HealthCheck, HealthSettings, Hearsay, Load, Member, Now, Outcome, OutlierSettings, Outliers, Patience,
    PatienceSettings, PeakEwma, ProbeResult, Random, Replay, RetryBudget, RetryBudgetSettings, RetryCauses,
    RetryDecision, RetryPolicy, StatusSet, Stop, Sums, Tried, Try, Verdict,
};
use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

/// The engine's `timeout.head`.
const HARD: Duration = Duration::from_secs(60);

/// Until a refusal is back.
const REFUSAL_NS: u64 = MS / 5;

/// Between two looks for another endpoint, or for a retry that may be had, when there was none at the soft time.
const ASK_AGAIN_NS: u64 = 100 * MS;

/// The engine's `breaker.wait`, the pause between two looks meanwhile, and from when on a request that must not be sent twice goes on
/// trial all the same.
const WAIT_NS: u64 = 500 * MS;
const LOOK_NS: u64 = 20 * MS;
const DARE_NS: u64 = WAIT_NS / 2;

/// The engine's bound of tries that do not count.
const UNCOUNTED_MAX: u8 = 3;

/// Requests that an endpoint works on at a time; the others queue.
const SLOTS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// A try ends by what its endpoint does.
    End(u32, u8),
    Soft(u32, u8),
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
    /// How long it has done so before.
    waited_before: u64,
    /// Its endpoint was on trial when it was sent there.
    on_trial: bool,
    /// Tries that do not count for that reason.
    uncounted: u8,
}

impl Request {
    const fn counted(&self) -> u8 {
        self.tries - self.uncounted
    }

    fn waited_for_endpoint(&self, at: u64) -> u64 {
        self.waited_before + self.waits_since.map_or(0, |since| at - since)
    }
}

struct Worker {
    breakers: Vec<Breaker>,
    latencies: Vec<PeakEwma>,
    patiences: Vec<EndpointPatience>,
    patience: Patience,
    budget: RetryBudget,
    /// Requests that the others have out.
    others: Vec<Cell<Hearsay>>,
    /// When to look again for endpoints that want a trial.
    look_at: u64,
}

/// What all workers share.
struct Shared {
    verdicts: Vec<BreakerVerdict>,
    /// By worker, and by endpoint.
    in_flight: Vec<Vec<u32>>,
    checks: Vec<HealthCheck>,
    outliers: Outliers,
    sums: Vec<Sums>,
    ready_since: Vec<Option<u64>>,
    /// When the last try began that succeeded, by true time.
    well_since: Vec<u64>,
}

#[derive(Default)]
pub(crate) struct Played {
    pub(crate) requests: Vec<Request>,
    /// When a try went out, and where to.
    pub(crate) tries: Vec<(u64, u8)>,
    /// When a retry was granted.
    pub(crate) retries: Vec<u64>,
    /// What the slowest answer took, of those that were waited for.
    pub(crate) slowest_answer: u64,
    /// When, and where, a breaker opened or closed for all.
    pub(crate) turns: Vec<(u64, u8, bool)>,
}

impl Played {
    /// A timer of this try is void.
    fn is_over(&self, number: u32, attempt: u8) -> bool {
        self.requests[number as usize].attempt != attempt
    }
}

pub(crate) struct World<F> {
    settings: Settings,
    fault: F,
    /// How each endpoint fares at this moment.
    faults: Vec<Option<Fault>>,
    retry: RetryPolicy,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, Event)>>,
    /// When tries have taken as long as any may, in the order in which they began. Nearly all are void by then: among the others they would make each
    /// step of the queue a search through a minute's requests.
    hard: VecDeque<(u64, u32, u8)>,
    workers: Vec<Worker>,
    /// One a worker.
    balancers: Vec<Balancer>,
    shared: Shared,
    /// For each endpoint, until when each of its slots is busy.
    slots: Vec<BinaryHeap<Reverse<u64>>>,
    played: Played,
    end: u64,
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
            others: vec![Cell::default(); count],
            look_at: 0,
        });
        let workers: Vec<_> = workers.collect();
        let balancer = Balancer::new(BalanceSettings::from(settings.policy), &members);
        let start = Now::from_nanos((settings.ahead)(0, 0));
        let checks = (0..count).map(|index| HealthCheck::new(HealthSettings::default(), start, index as u64));
        let on = RetryCauses { statuses: StatusSet::of(&[500, 502, 503, 504]), ..RetryCauses::default() };
        Self {
            shared: Shared {
                verdicts: vec![BreakerVerdict::default(); count],
                in_flight: vec![vec![0; count]; settings.workers],
                checks: checks.collect(),
                outliers: Outliers::new(OutlierSettings::default(), count, start),
                sums: vec![Sums::default(); count],
                ready_since: vec![None; count],
                well_since: vec![0; count],
            },
            slots: vec![(0..SLOTS).map(|_| Reverse(0)).collect(); count],
            retry: RetryPolicy { on, tries: 3, ..RetryPolicy::default() },
            played: Played::default(),
            end: settings.seconds * SECOND,
            queue: BinaryHeap::new(),
            hard: VecDeque::new(),
            fault,
            faults: vec![None; count],
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
        loop {
            while self.hard.pop_front_if(|&mut (_, number, attempt)| self.played.is_over(number, attempt)).is_some() {}
            let next = self.queue.peek().map(|&Reverse((at, _))| at);
            if let Some((at, number, _)) = self.hard.pop_front_if(|&mut (at, ..)| next.is_none_or(|next| at < next)) {
                self.look(at);
                self.settle(at, number, Outcome::new(HARD, Class::TimedOut));
                continue;
            }
            let Some(Reverse((at, event))) = self.queue.pop() else { break };
            if let Event::End(number, attempt) | Event::Soft(number, attempt) = event
                && self.played.is_over(number, attempt)
            {
                continue;
            }
            self.look(at);
            match event {
                Event::Arrive => self.arrive(at),
                Event::End(number, _) => self.end(at, number),
                Event::Soft(number, _) => self.soft(at, number),
                Event::Again(number) => self.send(at, number),
                Event::Tick => self.tick(at),
            }
        }
        assert!(self.shared.in_flight.iter().flatten().all(|&count| count == 0), "what begins must end");
        self.played
    }

    fn at(&mut self, when: u64, event: Event) {
        self.queue.push(Reverse((when, event)));
    }

    fn clock(&self, worker: u8, at: u64) -> Now {
        Now::from_nanos(at + (self.settings.ahead)(usize::from(worker), at))
    }

    /// How endpoints fare now. It is asked for many times in one step.
    fn look(&mut self, at: u64) {
        let Self { fault, faults, .. } = self;
        faults.iter_mut().enumerate().for_each(|(index, now)| *now = fault(index, at));
    }

    fn exponential(&mut self, mean_ns: f64) -> u64 {
        (-(1.0 - self.random.unit()).ln() * mean_ns) as u64
    }

    fn service(&mut self) -> u64 {
        let mean = self.settings.mean_ms * MS as f64;
        match self.settings.service {
            Service::Exponential => self.exponential(mean),
            Service::Even => (mean * (0.5 + self.random.unit())) as u64,
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
            waited_before: 0,
            on_trial: false,
            uncounted: 0,
        });
        self.send(at, self.played.requests.len() as u32 - 1);
    }

    fn send(&mut self, at: u64, number: u32) {
        let Some(index) = self.pick(at, number) else { return self.wait(at, number) };
        let now = self.clock(self.played.requests[number as usize].worker, at);
        let request = &mut self.played.requests[number as usize];
        (request.waited_before, request.waits_since) = (request.waited_for_endpoint(at), None);
        request.on_trial = self.workers[usize::from(request.worker)].breakers[index].state(now) != BreakerState::Closed;
        self.workers[usize::from(request.worker)].breakers[index].begin(now);
        self.shared.in_flight[usize::from(request.worker)][index] += 1;
        self.played.tries.push((at, index as u8));
        request.tries += 1;
        request.attempt += 1;
        (request.endpoint, request.sent, request.sent_by_clock) = (index as u8, at, now);
        let attempt = request.attempt;
        match self.faults[index].unwrap_or(Fault::Dead) {
            Fault::Hanging => {}
            Fault::Dead => self.at(at + REFUSAL_NS, Event::End(number, attempt)),
            Fault::Slow(factor) => self.work(at, index, factor, Event::End(number, attempt)),
            Fault::Well | Fault::Failing(_) | Fault::Resetting => {
                self.work(at, index, 1.0, Event::End(number, attempt));
            }
        }
        self.hard.push_back((at + HARD.as_nanos() as u64, number, attempt));
        if let Some(soft) = self.soft_time(at, number) {
            self.at(at + soft, Event::Soft(number, attempt));
        }
    }

    /// Nobody can have it now.
    fn wait(&mut self, at: u64, number: u32) {
        let request = &mut self.played.requests[number as usize];
        request.waits_since.get_or_insert(at);
        if request.waited_for_endpoint(at) < WAIT_NS {
            self.at(at + LOOK_NS, Event::Again(number))
        } else {
            self.finish(at, number, false)
        }
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
        let outcome = match self.faults[index].unwrap_or(Fault::Dead) {
            // What was under way when it began to hang is not answered any more.
            Fault::Hanging => return,
            Fault::Dead if fresh => Outcome::new(Duration::ZERO, Class::Refused),
            Fault::Dead | Fault::Resetting => Outcome::new(Duration::ZERO, Class::Reset),
            Fault::Failing(status) if self.random.below(2) == 0 => answered(status),
            Fault::Well | Fault::Slow(_) | Fault::Failing(_) => answered(200),
        };
        let took = at - request.sent;
        self.played.slowest_answer = self.played.slowest_answer.max(took);
        let latency = Duration::from_nanos(took);
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
        let counted = self.played.requests[number as usize].counted().max(2) - 1;
        match self.decide(at, number, &outcome, counted) {
            RetryDecision::Retry { after } => {
                self.excuse(at, number, &outcome);
                self.record(at, number, &outcome);
                self.again(at, number, after, outcome.class);
            }
            // There will be retries again before the hard time is over.
            RetryDecision::Stop(Stop::Budget) => self.at(at + ASK_AGAIN_NS, Event::Soft(number, attempt)),
            RetryDecision::Stop(_) => {}
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

    fn excuse(&mut self, at: u64, number: u32, outcome: &Outcome) {
        let request = &self.played.requests[number as usize];
        let (now, index) = (self.clock(request.worker, at), usize::from(request.endpoint));
        let doubtful = is_doubtful(&self.workers[usize::from(request.worker)].latencies[index], now);
        let excused = outcome.is_excused(request.on_trial, doubtful) && request.uncounted < UNCOUNTED_MAX;
        self.played.requests[number as usize].uncounted += u8::from(excused);
    }

    fn settle(&mut self, at: u64, number: u32, outcome: Outcome) {
        self.excuse(at, number, &outcome);
        self.record(at, number, &outcome);
        match self.decide(at, number, &outcome, self.played.requests[number as usize].counted()) {
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
            last: request.counted() > self.retry.tries,
            replay: replay(request),
            elsewhere: true,
            configured: HARD,
            remaining: None,
            fixed: None,
            on_trial: request.on_trial,
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
            !tried && self.faults[index].is_some() && worker.breakers[index].admits(now)
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
        let Worker { breakers, latencies, patiences, patience, look_at, .. } = &mut self.workers[worker];
        let was_open = breakers[index].state(now) != BreakerState::Closed;
        let failed = outcome.counts_for_breaker();
        if failed && Breaker::is_late(outcome) {
            breakers[index].hear_well(now, Now::from_nanos(self.shared.well_since[index] + (now.nanos() - at)));
        }
        let is_news = !failed || !breakers[index].is_overtaken(now, outcome);
        breakers[index].record(now, outcome);
        if is_news {
            latencies[index].record(now, outcome);
        }
        if outcome.verdict() == Verdict::Success {
            self.shared.well_since[index] = at - outcome.latency.as_nanos() as u64;
        }
        if was_open && breakers[index].state(now) == BreakerState::Closed {
            latencies[index] = PeakEwma::default();
        }
        patience.record(now, &mut patiences[index], outcome);
        if breakers[index].state(now) != BreakerState::Closed {
            *look_at = (*look_at).min(at + TRIALS_EVERY_NS);
        }
        self.shared.in_flight[worker][index] -= 1;
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
            let fault = self.faults[index].unwrap_or(Fault::Dead);
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

fn is_doubtful(latency: &PeakEwma, now: Now) -> bool {
    Load { failing: latency.failing(now), ..Load::default() }.is_doubtful()
}

const fn replay(request: &Request) -> Replay {
    if request.idempotent { Replay::Idempotent } else { Replay::NotIdempotent }
}
