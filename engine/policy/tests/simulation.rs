//! Hours of traffic through balancer, EWMA and breaker together, on a clock that costs nothing.

use policy::{
    Ask, Balancer, Breaker, BreakerSettings, BreakerState, Class, Endpoints, Load, Member, Now, Outcome, PeakEwma,
    Policy, Random, Standing,
};
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

struct Endpoint {
    ewma: PeakEwma,
    breaker: Breaker,
    in_flight: u32,
    served: u64,
    failed: u64,
}

struct Pool<'a> {
    endpoints: &'a [Endpoint],
    now: Now,
}

impl Endpoints for Pool<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }
    fn standing(&self, index: usize) -> Standing {
        if self.endpoints[index].breaker.admits(self.now) { Standing::Ready } else { Standing::Down }
    }
    fn load(&self, index: usize) -> Load {
        let endpoint = &self.endpoints[index];
        Load {
            latency_ns: endpoint.ewma.nanos(self.now),
            failing: endpoint.ewma.failing(self.now),
            in_flight: endpoint.in_flight,
        }
    }
}

/// Sends a request every `every` until `end`; `answer` says what endpoint `i` does with a request of time `now`.
fn play(
    mut balancer: Balancer,
    count: usize,
    end: Now,
    every: Duration,
    answer: impl Fn(usize, Now, &mut Random) -> Outcome,
) -> Vec<Endpoint> {
    let mut random = Random::new(1);
    let mut endpoints: Vec<_> = (0..count)
        .map(|index| Endpoint {
            ewma: PeakEwma::default(),
            breaker: Breaker::new(BreakerSettings::default(), index as u64),
            in_flight: 0,
            served: 0,
            failed: 0,
        })
        .collect();
    let mut returning = BinaryHeap::new();
    let mut outcomes = Vec::new();
    let mut now = Now::from_secs(1);
    while now < end {
        while let Some(&Reverse((at, index, slot))) = returning.peek()
            && at <= now
        {
            returning.pop();
            let endpoint: &mut Endpoint = &mut endpoints[index];
            let outcome: &Outcome = &outcomes[slot];
            endpoint.in_flight -= 1;
            endpoint.ewma.record(at, outcome);
            endpoint.breaker.record(at, outcome);
            endpoint.failed += u64::from(outcome.counts_for_breaker());
        }
        let chosen = balancer.pick(&Pool { endpoints: &endpoints, now }, &Ask::default(), &mut random);
        if let Ok(policy::Pick { index, .. }) = chosen {
            let outcome = answer(index, now, &mut random);
            let endpoint = &mut endpoints[index];
            endpoint.breaker.begin(now);
            endpoint.in_flight += 1;
            endpoint.served += 1;
            outcomes.push(outcome);
            returning.push(Reverse((now.plus(outcome.latency), index, outcomes.len() - 1)));
        }
        now = now.plus(every);
    }
    endpoints
}

fn balancer(policy: Policy, count: usize) -> Balancer {
    let names: Vec<_> = (0..count).map(|index| index.to_string()).collect();
    let members: Vec<_> = names.iter().map(|name| Member { name, weight: 1, tier: 0 }).collect();
    Balancer::new(policy.into(), &members)
}

fn adaptive(count: usize) -> Balancer {
    balancer(Policy::Adaptive, count)
}

fn share(endpoints: &[Endpoint], index: usize) -> f64 {
    endpoints[index].served as f64 / endpoints.iter().map(|endpoint| endpoint.served).sum::<u64>() as f64
}

/// 2 ms with some spread; endpoint 0 is `slower` times that.
fn one_slow(slower: f64) -> impl Fn(usize, Now, &mut Random) -> Outcome {
    move |index, _, random| {
        let base = 0.002 * (0.5 + random.unit());
        Outcome::answered(Duration::from_secs_f64(if index == 0 { base * slower } else { base }), 200)
    }
}

#[test]
fn adaptive_moves_load_away_from_a_slow_endpoint_and_round_robin_does_not() {
    let (end, every) = (Now::from_secs(600), Duration::from_millis(1));
    let even = play(adaptive(4), 4, end, every, one_slow(1.0));
    assert!((0.22..0.28).contains(&share(&even, 0)), "{}", share(&even, 0));
    let slow = play(adaptive(4), 4, end, every, one_slow(20.0));
    assert!(share(&slow, 0) < 0.03, "{}", share(&slow, 0));
    assert!(slow[0].served > 0, "it is still asked now and then");
    let turns = play(balancer(Policy::RoundRobin, 4), 4, end, every, one_slow(20.0));
    assert!((0.249..0.251).contains(&share(&turns, 0)));
}

#[test]
fn adaptive_comes_back_to_an_endpoint_that_recovers() {
    let recover = Now::from_secs(300);
    let answer = |slow_until: Now| {
        move |index: usize, now: Now, random: &mut Random| {
            let slower = if now < slow_until { 20.0 } else { 1.0 };
            one_slow(slower)(index, now, random)
        }
    };
    let (end, every) = (Now::from_secs(600), Duration::from_millis(1));
    let half = play(adaptive(4), 4, end, every, answer(recover));
    assert!(share(&half, 0) > 0.10, "{}", share(&half, 0));
}

#[test]
fn a_dead_endpoint_costs_a_handful_of_requests_an_hour() {
    // Endpoint 1 refuses everything from minute 1 to minute 31 of an hour and a half at 200 requests a second.
    let dead = Now::from_secs(60)..Now::from_secs(31 * 60);
    let answer = |index: usize, now: Now, random: &mut Random| {
        if index == 1 && dead.contains(&now) {
            Outcome::new(Duration::from_micros(50), Class::Refused)
        } else {
            one_slow(1.0)(index, now, random)
        }
    };
    let end = Now::from_secs(90 * 60);
    for balancer in [adaptive(3), balancer(Policy::RoundRobin, 3)] {
        let endpoints = play(balancer, 3, end, Duration::from_millis(5), answer);
        // Five to open, then one trial at 1, 3, 7, 15 and 31 minutes.
        assert!((5..=12).contains(&endpoints[1].failed), "{}", endpoints[1].failed);
        assert_eq!(endpoints[1].breaker.state(end), BreakerState::Closed);
        assert!(share(&endpoints, 1) > 0.15, "back in its place afterwards: {}", share(&endpoints, 1));
    }
}
