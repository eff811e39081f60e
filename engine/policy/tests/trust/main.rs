//! Whom to trust, and for how long: breakers, budgets, patience and outliers over many seeds on a clock that costs nothing.

mod world;

use policy::{
    Breaker, BreakerSettings, BreakerState, BreakerVerdict, Change, Class, Now, Outcome, OutlierSettings, Outliers,
    Random, Sums,
};
use std::time::Duration;
use world::{Does, Settings, World, between, usual};

const GOOD: Outcome = Outcome::answered(Duration::from_millis(1), 200);
const BAD: Outcome = Outcome::new(Duration::from_millis(1), Class::Refused);
const SECOND: u64 = 1_000_000_000;

// Breakers.

#[test]
fn a_breaker_does_as_specified_whatever_the_clock_does() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let settings = BreakerSettings::default();
        let mut breaker = Breaker::new(settings, seed);
        let mut now = Now::from_secs(1_000_000);
        let (mut row, mut under_way) = (0, 0);
        for _ in 0..2_000 {
            // Mostly a second or so ahead; now and then hours, either way.
            now = match random.below(50) {
                0 => now.plus_nanos(random.below(10_000 * SECOND)),
                1 => Now::from_nanos(now.nanos() - random.below(10_000 * SECOND)),
                _ => now.plus_nanos(random.below(2 * SECOND)),
            };
            let before = breaker.state(now);
            assert_eq!(breaker.admits(now), breaker.admits(now), "asking changes nothing");
            assert_eq!(before == BreakerState::Closed, breaker.reason().is_none());
            if let Some(until) = breaker.reopens_at(now) {
                assert!(
                    until.since(now) <= settings.open_for * 16 * 2,
                    "no jump makes it longer than twice its longest"
                );
                assert!(!breaker.admits(now));
            }
            if !breaker.admits(now) {
                continue;
            }
            let outcome = if random.below(3) == 0 { GOOD } else { BAD };
            breaker.begin(now);
            breaker.record(now, &outcome);
            let after = breaker.state(now);
            match (before, outcome == GOOD) {
                (BreakerState::Closed, true) => {
                    row = 0;
                    assert_eq!(after, BreakerState::Closed);
                }
                (BreakerState::Closed, false) => {
                    row += 1;
                    assert_eq!(after == BreakerState::Open, row == 5);
                }
                (BreakerState::HalfOpen, true) => {
                    under_way += 1;
                    assert_eq!(after == BreakerState::Closed, under_way == 3);
                }
                (BreakerState::HalfOpen, false) => assert_eq!(after, BreakerState::Open),
                (BreakerState::Open, _) => unreachable!("it admits nothing"),
            }
            if after != before {
                (row, under_way) = (0, 0);
            }
        }
    }
}

/// Breakers of W workers, and the cell that they share.
struct Workers {
    breakers: Vec<Breaker>,
    cell: BreakerVerdict,
}

impl Workers {
    fn new(count: u16, seed: u64) -> Self {
        let settings = BreakerSettings::default();
        let breaker = |worker| Breaker::new(settings, seed << 16 | u64::from(worker)).shared_by(count);
        Self { breakers: (0..count).map(breaker).collect(), cell: BreakerVerdict::default() }
    }

    fn read(&mut self, worker: usize, now: Now) {
        self.breakers[worker].adopt(now, self.cell);
    }

    fn publish(&mut self, worker: usize) {
        self.cell = self.cell.max(self.breakers[worker].verdict());
    }
}

#[test]
fn what_one_worker_finds_all_know_at_once_and_trials_stay_few() {
    for (seed, count) in (0..60).zip([1_u16, 2, 3, 4, 8, 16].into_iter().cycle()) {
        let mut workers = Workers::new(count, seed);
        let (mut now, last) = (Now::from_secs(10), usize::from(count) - 1);
        for _ in 0..5 {
            workers.breakers[0].begin(now);
            workers.breakers[0].record(now, &BAD);
        }
        workers.publish(0);
        let until = workers.breakers[0].reopens_at(now).unwrap();
        for worker in 0..=last {
            workers.read(worker, now);
            assert!(!workers.breakers[worker].admits(now));
            let told = workers.breakers[worker].reopens_at(now).unwrap();
            assert!(told >= until && told.since(until) < Duration::from_millis(68));
        }
        now = until.plus(Duration::from_millis(68));
        let mut under_way = Vec::new();
        for worker in 0..=last {
            while workers.breakers[worker].admits(now) {
                workers.breakers[worker].begin(now);
                under_way.push(worker);
            }
        }
        assert!(under_way.len() < 3 + usize::from(count), "{} trials of {count} workers", under_way.len());
        // Three good ones in all close it, whoever sees them.
        for (good, &worker) in under_way.iter().take(3).enumerate() {
            workers.read(worker, now);
            assert_eq!(workers.breakers[worker].state(now), BreakerState::HalfOpen, "after {good}");
            workers.breakers[worker].record(now, &GOOD);
            workers.publish(worker);
        }
        if under_way.len() >= 3 {
            for worker in 0..=last {
                workers.read(worker, now);
                assert_eq!(workers.breakers[worker].state(now), BreakerState::Closed);
            }
        }
    }
}

#[test]
fn verdicts_settle_in_any_order_and_never_go_to_and_fro() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut workers = Workers::new(4, seed);
        let mut now = Now::from_secs(10);
        for _ in 0..400 {
            now = now.plus_nanos(random.below(5 * SECOND));
            let worker = random.below(4) as usize;
            // Some read late, and decide on what they knew before.
            if random.below(3) > 0 {
                workers.read(worker, now);
            }
            let breaker = &mut workers.breakers[worker];
            if breaker.admits(now) {
                breaker.begin(now);
                breaker.record(now, if random.below(3) == 0 { &GOOD } else { &BAD });
            }
            let cell = workers.cell;
            workers.publish(worker);
            assert!(workers.cell >= cell);
        }
        // Silence: whatever each believed, one round of reading makes them agree, and a second one changes nothing.
        (0..4).for_each(|worker| workers.publish(worker));
        (0..4).for_each(|worker| workers.read(worker, now));
        for worker in 0..4 {
            assert_eq!(workers.breakers[worker].verdict(), workers.cell);
            let heard = workers.cell;
            assert!(!workers.breakers[worker].adopt(now, heard));
        }
        let states: Vec<_> =
            workers.breakers.iter().map(|breaker| breaker.state(now.plus_nanos(SECOND / 10))).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    }
}

#[test]
fn a_flapping_endpoint_is_kept_out_longer_and_longer_by_all_workers_together() {
    for seed in 0..50 {
        let (mut workers, mut random) = (Workers::new(4, seed), Random::new(seed));
        let (mut now, mut sentences) = (Now::from_secs(10), Vec::new());
        while sentences.len() < 7 {
            let worker = random.below(4) as usize;
            workers.read(worker, now);
            let breaker = &mut workers.breakers[worker];
            if breaker.admits(now) {
                // Well enough for the trials, and sick as soon as the load is back.
                let outcome = if breaker.state(now) == BreakerState::HalfOpen { GOOD } else { BAD };
                breaker.begin(now);
                breaker.record(now, &outcome);
            }
            workers.publish(worker);
            let breaker = &workers.breakers[worker];
            match breaker.reopens_at(now) {
                Some(until) => {
                    sentences.push((until.since(now).as_secs_f64() / 60.0).round() as u64);
                    now = until.plus_nanos(SECOND / 10);
                }
                None => now = now.plus_nanos(SECOND / 100),
            }
        }
        for (found, wanted) in sentences.iter().zip([1_u64, 2, 4, 8, 16, 16, 16]) {
            assert!(found.abs_diff(wanted) * 10 <= wanted + 9, "{sentences:?}");
        }
    }
}

// Retries and patience.

#[test]
fn retries_add_a_fifth_at_most_in_outages_whole_and_partial() {
    for seed in 0..4 {
        for dead in [1, 2, 4] {
            for kind in 0..3 {
                let settings = Settings {
                    breaker: BreakerSettings { failures: 0, ..BreakerSettings::default() },
                    ..Settings::default()
                };
                let report = World::new(settings, seed, |index, _, _, random| match kind {
                    _ if index >= dead => usual(random),
                    0 => Does::Break(Duration::from_micros(50)),
                    1 => Does::Answer(Duration::from_millis(3), 503),
                    _ if random.below(2) == 0 => Does::Break(Duration::from_micros(50)),
                    _ => usual(random),
                })
                .run();
                // A fifth, and the floor of three a second beside 500 requests.
                let amplification = report.amplification();
                assert!(amplification <= 1.21, "{dead} dead, kind {kind}: {amplification}");
                assert!(amplification > 1.1, "and they are made: {amplification}");
            }
        }
    }
}

/// Nobody bears a request that is refused: whatever the budget, it finds who takes it.
#[test]
fn who_is_refused_goes_on_until_somebody_takes_it() {
    for seed in 0..4 {
        for dead in [1, 2] {
            let settings = Settings {
                breaker: BreakerSettings { failures: 0, ..BreakerSettings::default() },
                ..Settings::default()
            };
            let does = |index: usize, random: &mut Random| {
                if index < dead { Does::Refuse(Duration::from_micros(50)) } else { usual(random) }
            };
            let report = World::new(settings, seed, |index, _, _, random| does(index, random)).run();
            assert_eq!(report.failed(), 0, "{dead} of five refuse");
            assert!(report.amplification() > 1.21 || dead == 1, "more than a budget has: {}", report.amplification());
        }
    }
}

#[test]
fn with_breakers_an_outage_costs_less_still() {
    for seed in 0..10 {
        let report = World::new(Settings::default(), seed, |index, now, _, random| {
            let dead = index == 0 && now > Now::from_secs(20);
            if dead { Does::Refuse(Duration::from_micros(50)) } else { usual(random) }
        })
        .run();
        assert_eq!(report.failed(), 0);
        assert!(report.amplification() < 1.002, "{}", report.amplification());
    }
}

#[test]
fn a_hung_endpoint_costs_nobody_a_second() {
    for seed in 0..10 {
        let hung_from = Now::from_secs(10).plus_nanos(seed * SECOND / 7);
        for per_second in [20, 500, 2000] {
            let settings = Settings { per_second, ..Settings::default() };
            let report =
                World::new(
                    settings,
                    seed,
                    |index, now, _, random| {
                        if index == 2 && now >= hung_from { Does::Hang } else { usual(random) }
                    },
                )
                .run();
            assert_eq!(report.failed(), 0);
            assert!(report.slowest() < Duration::from_secs(1), "{per_second}/s: {:?}", report.slowest());
            assert!(report.opened == 1 && !report.given_up.is_empty(), "{} opened", report.opened);
        }
    }
}

#[test]
fn when_half_of_the_pool_hangs_nobody_waits_a_second_either() {
    for seed in 0..20 {
        let report = World::new(Settings::default(), seed, |index, now, _, random| {
            if index >= 2 && now >= Now::from_secs(20) { Does::Hang } else { usual(random) }
        })
        .run();
        assert_eq!(report.failed(), 0);
        assert!(report.slowest() < Duration::from_secs(1), "{:?}", report.slowest());
        assert!(report.opened == 2 && report.amplification() < 1.01, "{} opened", report.opened);
    }
}

#[test]
fn hung_from_the_first_request_on_is_no_worse() {
    for seed in 0..20 {
        let does =
            |index: usize, _: Now, _: bool, random: &mut Random| if index == 1 { Does::Hang } else { usual(random) };
        let report = World::new(Settings::default(), seed, does).run();
        assert_eq!(report.failed(), 0);
        assert!(report.slowest() < Duration::from_secs(1), "{:?}", report.slowest());
    }
}

#[test]
fn when_all_slow_down_together_it_waits_longer_and_kills_nothing() {
    let mut opened = 0;
    for seed in 0..20 {
        let slow = Now::from_secs(20)..Now::from_secs(50);
        for slower in [10.0, 50.0] {
            let report = World::new(Settings::default(), seed, |_, now, _, random| {
                let factor = if slow.contains(&now) { slower } else { 1.0 };
                Does::Answer(between(random, factor, 20.0 * factor), 200)
            })
            .run();
            assert_eq!(report.failed(), 0, "×{slower}");
            assert!(report.amplification() < 1.05, "×{slower}: {}", report.amplification());
            assert_eq!(report.given_up_within(30, 61), 0, "two windows later it has learnt");
            assert!(report.given_up_within(0, 20) == 0);
            opened += report.opened;
        }
    }
    // Five silent tries in a row are what a hang looks like, and chance makes such a row now and then.
    assert!(opened <= 4, "slow is not dead: {opened} of 160 opened");
}

#[test]
fn slow_routes_among_fast_ones_are_not_killed() {
    for slow_routes in [0.001, 0.01, 0.1] {
        let mut slow = Vec::new();
        for seed in 0..8 {
            let settings = Settings { slow_routes, ..Settings::default() };
            let report = World::new(settings, seed, |_, _, slow_route, random| {
                if slow_route { Does::Answer(between(random, 2000.0, 4000.0), 200) } else { usual(random) }
            })
            .run();
            assert_eq!(report.failed(), 0, "{slow_routes}");
            assert!(report.amplification() < 1.0 + 2.0 * slow_routes.min(0.02) + 0.01, "{}", report.amplification());
            assert_eq!(report.opened, 0, "{slow_routes}");
            slow.extend(report.requests.iter().filter(|request| request.3).map(|request| request.1));
        }
        let mean = slow.iter().sum::<Duration>() / slow.len().max(1) as u32;
        // The rarest are moved on, twice at most, and drawn anew each time; the last try has all its time.
        assert!(mean < Duration::from_millis(4_200), "{slow_routes}: {mean:?} instead of 3 s");
    }
}

// Outliers.

#[test]
fn outliers_are_found_and_the_cap_is_kept() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let endpoints = 5 + random.below(20) as usize;
        let sick = random.below(endpoints as u64) as usize;
        let settings = OutlierSettings::default();
        let mut outliers = Outliers::new(settings, endpoints, Now::ZERO);
        let (mut now, mut found, mut innocent) = (Now::from_secs(1000), 0, 0);
        for _ in 0..100 {
            let sums: Vec<_> = (0..endpoints)
                .map(|index| {
                    let calls = 800 + random.below(400) as u32;
                    let errors = if index == sick { 0.2 } else { 0.005 };
                    let failures = (0..calls).filter(|_| random.unit() < errors).count() as u32;
                    let latency_ns = u64::from(calls - failures) * (9_000_000 + random.below(2_000_000));
                    if outliers.is_ejected(index) {
                        Sums::default()
                    } else {
                        Sums { calls, failures, latency_ns, ..Sums::default() }
                    }
                })
                .collect();
            outliers.evaluate(now, &sums, |index, change| {
                if let Change::Eject { .. } = change {
                    found += u32::from(index == sick);
                    innocent += u32::from(index != sick);
                }
            });
            let ejected = (0..endpoints).filter(|&index| outliers.is_ejected(index)).count();
            assert!(ejected * 2 <= endpoints, "{ejected} of {endpoints}");
            now = outliers.next_at(now);
        }
        // In a thousand seconds: after 30, 60, 90, … seconds it is tried, and found again.
        assert!((5..=9).contains(&found), "found {found} times of {endpoints}");
        assert!(innocent <= 2, "{innocent} ejected that were well");
    }
}

#[test]
fn whatever_comes_in_half_of_the_pool_stays() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let endpoints = random.below(12) as usize;
        let mut outliers = Outliers::new(OutlierSettings::default(), endpoints, Now::ZERO);
        for _ in 0..100 {
            let now = Now::from_nanos(random.below(100_000 * SECOND));
            let sums: Vec<_> = (0..endpoints)
                .map(|_| Sums {
                    calls: random.below(300) as u32,
                    failures: random.below(400) as u32,
                    latency_ns: random.next_u64() >> random.below(64),
                    gateway_in_a_row: random.below(8) as u32,
                    failures_in_a_row: random.below(12) as u32,
                })
                .collect();
            let mut changes = Vec::new();
            let mut twin = outliers.clone();
            outliers.evaluate(now, &sums, |index, change| changes.push((index, change)));
            let mut again = Vec::new();
            twin.evaluate(now, &sums, |index, change| again.push((index, change)));
            assert_eq!(changes, again, "the same input gives the same output");
            assert!((0..endpoints).filter(|&index| outliers.is_ejected(index)).count() <= endpoints / 2);
        }
    }
}
