//! Requests, tries and retries over a pool: what an engine does around the policy, on virtual time.

use crate::SECOND;
use policy::{
    Avoid, Breaker, BreakerSettings, Class, EndpointPatience, Now, Outcome, Patience, PatienceSettings, Random, Replay,
    RetryBudget, RetryBudgetSettings, RetryCauses, RetryDecision, RetryPolicy, StatusSet, Tried, Try,
};
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// What an endpoint does with a try: an answer after a time, a failure after a time, or nothing at all.
#[derive(Clone, Copy)]
pub(crate) enum Does {
    Answer(Duration, u16),
    Refuse(Duration),
    /// It takes the request and ends the connection.
    Break(Duration),
    Hang,
}

#[derive(Clone, Copy)]
enum Event {
    Arrive,
    /// A try ends by what the endpoint does.
    End {
        request: usize,
        attempt: u8,
    },
    Soft {
        request: usize,
        attempt: u8,
    },
    Hard {
        request: usize,
        attempt: u8,
    },
    Again {
        request: usize,
    },
}

struct Request {
    begun: Now,
    /// Number of the try that is out; odd ones out of date are ignored.
    attempt: u8,
    endpoint: usize,
    sent: Now,
    does: Does,
    avoid: Avoid,
    tried: usize,
    waited: Duration,
    slow_route: bool,
    done: Option<(Now, bool)>,
}

struct Host {
    breaker: Breaker,
    patience: EndpointPatience,
}

pub(crate) struct Settings {
    pub(crate) endpoints: usize,
    pub(crate) per_second: u64,
    pub(crate) end: Now,
    pub(crate) policy: RetryPolicy,
    /// Share of requests to a route that is slow by nature.
    pub(crate) slow_routes: f64,
    pub(crate) hard: Duration,
    pub(crate) breaker: BreakerSettings,
}

impl Default for Settings {
    fn default() -> Self {
        let on = RetryCauses { statuses: StatusSet::of(&[502, 503, 504]), ..RetryCauses::default() };
        Self {
            endpoints: 4,
            per_second: 500,
            end: Now::from_secs(60),
            policy: RetryPolicy { on, tries: 3, ..RetryPolicy::default() },
            slow_routes: 0.0,
            hard: Duration::from_secs(30),
            breaker: BreakerSettings::default(),
        }
    }
}

pub(crate) struct World<F> {
    settings: Settings,
    does: F,
    random: Random,
    queue: BinaryHeap<Reverse<(Now, u64)>>,
    events: Vec<Event>,
    hosts: Vec<Host>,
    budget: RetryBudget,
    patience: Patience,
    requests: Vec<Request>,
    tries: u64,
    /// Tries given up at their soft time: when.
    given_up: Vec<Now>,
}

/// What came of it: every request with its beginning, its duration and whether it succeeded.
pub(crate) struct Report {
    pub(crate) requests: Vec<(Now, Duration, bool, bool)>,
    pub(crate) tries: u64,
    pub(crate) given_up: Vec<Now>,
    pub(crate) opened: usize,
}

impl Report {
    pub(crate) fn amplification(&self) -> f64 {
        self.tries as f64 / self.requests.len() as f64
    }
    pub(crate) fn slowest(&self) -> Duration {
        self.requests.iter().map(|request| request.1).max().unwrap_or_default()
    }
    pub(crate) fn failed(&self) -> usize {
        self.requests.iter().filter(|request| !request.2).count()
    }
    pub(crate) fn given_up_within(&self, from: u64, to: u64) -> usize {
        self.given_up.iter().filter(|at| (Now::from_secs(from)..Now::from_secs(to)).contains(at)).count()
    }
}

impl<F: Fn(usize, Now, bool, &mut Random) -> Does> World<F> {
    pub(crate) fn new(settings: Settings, seed: u64, does: F) -> Self {
        let host = |index: usize| Host {
            breaker: Breaker::new(settings.breaker, seed << 8 | index as u64),
            patience: EndpointPatience::default(),
        };
        Self {
            does,
            random: Random::new(seed),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            hosts: (0..settings.endpoints).map(host).collect(),
            budget: RetryBudget::new(RetryBudgetSettings::default()),
            patience: Patience::new(PatienceSettings::default(), settings.endpoints as u32),
            requests: Vec::new(),
            tries: 0,
            given_up: Vec::new(),
            settings,
        }
    }

    fn at(&mut self, when: Now, event: Event) {
        self.queue.push(Reverse((when, self.events.len() as u64)));
        self.events.push(event);
    }

    pub(crate) fn run(mut self) -> Report {
        self.at(Now::from_secs(1), Event::Arrive);
        let mut now = Now::ZERO;
        while let Some(Reverse((when, number))) = self.queue.pop() {
            now = when;
            match self.events[number as usize] {
                Event::Arrive => self.arrive(now),
                Event::End { request, attempt } if self.is_out(request, attempt) => self.end(now, request),
                Event::Soft { request, attempt } if self.is_out(request, attempt) => self.soft(now, request),
                Event::Hard { request, attempt } if self.is_out(request, attempt) => {
                    self.settle(now, request, Class::TimedOut)
                }
                Event::Again { request } => self.send(now, request),
                Event::End { .. } | Event::Soft { .. } | Event::Hard { .. } => {}
            }
        }
        let opened = self.hosts.iter().filter(|host| host.breaker.verdict().generation() > 0).count();
        let told = |request: &Request| {
            let (over, well) = request.done.expect("every request ends");
            (request.begun, over.since(request.begun), well, request.slow_route)
        };
        assert!(now >= self.settings.end);
        Report {
            requests: self.requests.iter().map(told).collect(),
            tries: self.tries,
            given_up: self.given_up,
            opened,
        }
    }

    fn is_out(&self, request: usize, attempt: u8) -> bool {
        let request = &self.requests[request];
        request.done.is_none() && request.attempt == attempt
    }

    fn arrive(&mut self, now: Now) {
        if now < self.settings.end {
            let pause = SECOND / self.settings.per_second;
            let jitter = self.random.below(pause);
            self.at(now.plus_nanos(pause / 2 + jitter), Event::Arrive);
        }
        let slow_route = self.random.unit() < self.settings.slow_routes;
        self.budget.request(now);
        self.requests.push(Request {
            begun: now,
            attempt: 0,
            endpoint: 0,
            sent: now,
            does: Does::Hang,
            avoid: Avoid::default(),
            tried: 0,
            waited: Duration::ZERO,
            slow_route,
            done: None,
        });
        self.send(now, self.requests.len() - 1);
    }

    /// Evenly among those that are trusted and untried, or trusted at all.
    fn pick(&mut self, now: Now, avoid: Avoid) -> Option<usize> {
        let trusted = |index: &usize| self.hosts[*index].breaker.admits(now);
        let all: Vec<_> = (0..self.hosts.len()).filter(trusted).collect();
        let fresh: Vec<_> = all.iter().copied().filter(|&index| !avoid.contains(index)).collect();
        let from = if fresh.is_empty() { all } else { fresh };
        let index = self.random.below(from.len() as u64) as usize;
        from.get(index).copied()
    }

    fn send(&mut self, now: Now, number: usize) {
        let Some(endpoint) = self.pick(now, self.requests[number].avoid) else {
            self.requests[number].done = Some((now, false));
            return;
        };
        self.hosts[endpoint].breaker.begin(now);
        self.tries += 1;
        let does = (self.does)(endpoint, now, self.requests[number].slow_route, &mut self.random);
        let request = &mut self.requests[number];
        request.attempt += 1;
        request.tried += 1;
        request.avoid.add(endpoint);
        (request.endpoint, request.sent, request.does) = (endpoint, now, does);
        let attempt = request.attempt;
        match does {
            Does::Answer(after, _) | Does::Refuse(after) | Does::Break(after) => {
                self.at(now.plus(after), Event::End { request: number, attempt });
            }
            Does::Hang => {}
        }
        self.at(now.plus(self.settings.hard), Event::Hard { request: number, attempt });
        if let Some(soft) = self.soft_time(now, number) {
            self.at(now.plus(soft), Event::Soft { request: number, attempt });
        }
    }

    fn soft_time(&self, now: Now, number: usize) -> Option<Duration> {
        let request = &self.requests[number];
        let waiting = Try {
            sent: request.sent,
            last: request.tried >= usize::from(self.settings.policy.tries),
            replay: Replay::Idempotent,
            elsewhere: self.elsewhere(now, request.avoid),
            configured: self.settings.hard,
            remaining: None,
            fixed: None,
            on_trial: false,
        };
        self.patience.limit(now, &self.hosts[request.endpoint].patience, &waiting).soft
    }

    fn elsewhere(&self, now: Now, avoid: Avoid) -> bool {
        (0..self.hosts.len()).any(|index| !avoid.contains(index) && self.hosts[index].breaker.admits(now))
    }

    fn end(&mut self, now: Now, number: usize) {
        match self.requests[number].does {
            Does::Answer(_, status) => self.settle_with(now, number, Outcome::answered(Duration::ZERO, status)),
            Does::Refuse(_) => self.settle(now, number, Class::Refused),
            Does::Break(_) => self.settle(now, number, Class::Reset),
            Does::Hang => unreachable!("a hung try has no end"),
        }
    }

    fn soft(&mut self, now: Now, number: usize) {
        let (sent, attempt) = (self.requests[number].sent, self.requests[number].attempt);
        match self.soft_time(now, number) {
            None => {}
            Some(soft) if sent.plus(soft) > now => self.at(sent.plus(soft), Event::Soft { request: number, attempt }),
            Some(_) => {
                let outcome = Outcome::new(now.since(sent), Class::TimedOut);
                if let RetryDecision::Retry { after } = self.decide(now, number, &outcome) {
                    self.record(now, number, &outcome);
                    self.given_up.push(now);
                    self.again(now, number, after);
                }
            }
        }
    }

    fn settle(&mut self, now: Now, number: usize, class: Class) {
        self.settle_with(now, number, Outcome::new(Duration::ZERO, class));
    }

    fn settle_with(&mut self, now: Now, number: usize, outcome: Outcome) {
        let outcome = Outcome { latency: now.since(self.requests[number].sent), ..outcome };
        self.record(now, number, &outcome);
        match self.decide(now, number, &outcome) {
            RetryDecision::Retry { after } => self.again(now, number, after),
            RetryDecision::Stop(_) => {
                let well = !outcome.counts_for_breaker();
                self.requests[number].done = Some((now, well));
            }
        }
    }

    fn decide(&mut self, now: Now, number: usize, outcome: &Outcome) -> RetryDecision {
        let request = &self.requests[number];
        let tried = Tried {
            tries: request.tried as u8,
            replay: Replay::Idempotent,
            deadline: None,
            waited: request.waited,
            elsewhere: self.elsewhere(now, request.avoid),
        };
        self.settings.policy.decide(now, outcome, &tried, &mut self.budget, &mut self.random)
    }

    fn record(&mut self, now: Now, number: usize, outcome: &Outcome) {
        let host = &mut self.hosts[self.requests[number].endpoint];
        host.breaker.record(now, outcome);
        self.patience.record(now, &mut host.patience, outcome);
    }

    fn again(&mut self, now: Now, number: usize, after: Duration) {
        let request = &mut self.requests[number];
        request.attempt += 1;
        request.waited = after;
        self.at(now.plus(after), Event::Again { request: number });
    }
}

pub(crate) fn between(random: &mut Random, least_ms: f64, most_ms: f64) -> Duration {
    Duration::from_secs_f64((least_ms + random.unit() * (most_ms - least_ms)) / 1000.0)
}

pub(crate) fn usual(random: &mut Random) -> Does {
    Does::Answer(between(random, 1.0, 20.0), 200)
}
