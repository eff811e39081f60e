//! Minutes of traffic through limits, found concurrency, queues and classes, against origins that have a knee.

use policy::{
    Begun, ClassSettings, Concurrency, GradientSettings, HeldTable, Lease, Now, QueueSettings, Random, Rate,
    RateSettings, RateTable, Verdict, Wait, Waiting, WaitingRoom,
};
use std::{cmp::Reverse, collections::BinaryHeap, collections::VecDeque, time::Duration};

const SECOND: u64 = 1_000_000_000;

const fn per_second(quota: u32, burst: u32) -> RateSettings {
    RateSettings { quota, period: Duration::from_secs(1), burst }
}

fn exponential(random: &mut Random, mean_ns: f64) -> u64 {
    (-(1.0 - random.unit()).ln() * mean_ns) as u64
}

/// Two workers, one limit; `side` says where a request of second `s` arrives. Gives what was granted in seconds 2 to 12, by then
/// the burst is spent.
fn two_workers(limit: u32, offered: u32, seed: u64, side: impl Fn(u64, &mut Random) -> usize) -> f64 {
    let (rate, lease) = Lease::share(per_second(limit, limit / 2), 2);
    let (mut tat, mut leases, mut random) = (0, [lease.clone(), lease], Random::new(seed));
    let (mut now, mut granted) = (Now::from_secs(1), 0_u64);
    while now < Now::from_secs(12) {
        now = now.plus_nanos(exponential(&mut random, SECOND as f64 / f64::from(offered)));
        let lease = &mut leases[side(now.nanos() / SECOND, &mut random)];
        let (least, most) = lease.wants(1);
        if least > 0
            && let Ok((next, units)) = rate.draw(tat, now, least, most)
        {
            tat = next;
            lease.put(units);
        }
        granted += u64::from(lease.spend(1) && now >= Now::from_secs(2));
    }
    granted as f64 / 10.0
}

#[test]
fn a_shared_rate_is_exact_wherever_the_traffic_arrives() {
    for seed in 0..5 {
        for limit in [100, 1000, 20_000] {
            for offered in [limit * 2, (limit * 10).min(50_000)] {
                for (name, found) in [
                    ("one", two_workers(limit, offered, seed, |_, _| 0)),
                    ("even", two_workers(limit, offered, seed, |_, random| random.below(2) as usize)),
                    ("uneven", two_workers(limit, offered, seed, |_, random| usize::from(random.below(50) == 0))),
                    ("in turns", two_workers(limit, offered, seed, |second, _| second as usize % 2)),
                ] {
                    let off = (found / f64::from(limit) - 1.0).abs();
                    assert!(off < 0.01, "{name}, {limit}/s, offered {offered}/s, seed {seed}: {found}/s");
                }
            }
        }
    }
}

#[test]
fn no_shared_window_holds_more_than_rate_and_burst() {
    for seed in 0..20 {
        let settings = per_second(1000, 200);
        let (rate, lease) = Lease::share(settings, 2);
        let (mut tat, mut leases, mut random) = (0, [lease.clone(), lease], Random::new(seed));
        let (mut now, mut grants) = (Now::from_secs(1), VecDeque::new());
        for _ in 0..50_000 {
            // Lulls in which the burst comes back, on either worker.
            now = now.plus_nanos(if random.below(2000) == 0 { SECOND } else { random.below(100_000) });
            let cost = 1 + random.below(20) as u32;
            let lease = &mut leases[random.below(2) as usize];
            let (least, most) = lease.wants(cost);
            if let Ok((next, units)) = rate.draw(tat, now, least, most) {
                tat = next;
                lease.put(units);
            }
            if lease.spend(cost) {
                grants.push_back((now, u64::from(cost)));
            }
            while grants.front().is_some_and(|&(then, _)| now.nanos_since(then) > SECOND / 2) {
                grants.pop_front();
            }
            let all: u64 = grants.iter().map(|(_, cost)| cost).sum();
            assert!(all <= 500 + 200 + 1, "seed {seed}: {all} in half a second");
        }
    }
}

/// A key's grants as the law allows them: what one TAT of its own would have granted, at every moment.
#[test]
fn cycling_keys_buys_nobody_anything() {
    for seed in 0..5 {
        let (settings, cells, seconds) = (per_second(10, 20), 256, 20);
        let mut table = RateTable::new(settings, cells, seed);
        let mut random = Random::new(seed);
        let (mut now, end) = (Now::from_secs(1), Now::from_secs(1 + seconds));
        let (mut heavy, mut all) = (0_u64, 0_u64);
        while now < end {
            now = now.plus_nanos(random.below(100_000));
            // One in eight is a client that wants fifty times its rate; the others are keys by the hundred thousand.
            let key = if random.below(8) == 0 { 7 } else { 1000 + random.below(100_000) };
            let granted = table.check(now, key, 1).allowed;
            heavy += u64::from(granted && key == 7);
            all += u64::from(granted);
        }
        let each = 20 + 10 * seconds;
        assert!(heavy <= each + 1, "seed {seed}: {heavy} of {each}");
        assert!(heavy >= each * 9 / 10, "seed {seed}: keys that cycle take nothing from who is in: {heavy} of {each}");
        assert!(all <= (each + 1) * cells as u64, "seed {seed}: {all} through {cells} cells");
    }
}

#[test]
fn clients_within_their_rate_are_served_while_the_table_has_room() {
    for seed in 0..10 {
        let (clients, mut table) = (1000_u64, RateTable::new(per_second(10, 10), 4096, seed));
        let (mut random, mut now, mut refused) = (Random::new(seed), Now::from_secs(1), 0);
        let requests = 200_000;
        for _ in 0..requests {
            // 5/s each on average.
            now = now.plus_nanos(SECOND / 5 / clients);
            refused += u64::from(!table.check(now, random.below(clients), 1).allowed);
        }
        // A Poisson stream at half the rate overflows a burst of ten about once in ten thousand requests.
        assert!(refused * 2000 < requests, "seed {seed}: {refused}");
    }
}

#[test]
fn rates_under_hostile_clocks_and_costs() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let quota = (random.next_u64() >> random.below(64)) as u32;
        let settings = RateSettings {
            quota,
            period: Duration::from_nanos(random.next_u64() >> random.below(64)),
            burst: (random.next_u64() >> random.below(64)) as u32,
        };
        let (rate, mut table) = (Rate::new(settings), RateTable::new(settings, 64, seed));
        for _ in 0..500 {
            let now = Now::from_nanos(random.next_u64() >> random.below(64));
            let cost = (random.next_u64() >> random.below(64)) as u32;
            let decision = table.check(now, random.below(1000), cost);
            let possible = quota > 0 && cost <= settings.burst.max(1);
            assert!(possible || (!decision.allowed && decision.retry_after.is_none()), "{settings:?} {cost}");
            assert!(decision.remaining <= settings.burst.max(1));
            if let Err(Wait::For(time)) = rate.step(random.next_u64(), now, cost) {
                assert!(time.as_nanos() > 0);
            }
        }
        // Standing time: the burst once, and no more.
        if quota > 0 && settings.period > Duration::from_nanos(u64::from(quota) * 1000) && settings.burst < 1000 {
            let now = Now::from_secs(1 << 30);
            let mut own = 0;
            let granted = (0..3000).filter(|_| rate.check(&mut own, now, 1).allowed).count();
            assert_eq!(granted as u32, settings.burst.max(1), "{settings:?}");
        }
    }
}

#[test]
fn held_places_add_up_whoever_comes_and_goes() {
    for seed in 0..50 {
        let (mut table, mut random) = (HeldTable::new(4, 32, seed), Random::new(seed));
        let mut held: Vec<(u64, policy::Held)> = Vec::new();
        for _ in 0..5000 {
            if random.below(2) == 0 {
                let key = random.below(200);
                if let Some(place) = table.acquire(key) {
                    held.push((key, place));
                    let count = held.iter().filter(|(other, _)| *other == key).count();
                    assert!(count <= 8, "twice the limit: {count}");
                }
            } else if !held.is_empty() {
                let (_, place) = held.swap_remove(random.below(held.len() as u64) as usize);
                table.release(place);
            }
            // Four sets of eight cells and one of strangers, four each.
            assert!(held.len() <= 4 * 9 * 4);
        }
        held.drain(..).for_each(|(_, place)| table.release(place));
        assert!((0..200).all(|key| table.count(key) == 0));
        let all = (0..32).filter(|&key| table.acquire(1_000_000 + key).is_some()).count();
        assert!(all >= 20, "everything was given back: {all}");
    }
}

/// An origin that works on `servers` requests at a time, and queues the rest, in the order in which they came.
struct Origin {
    servers: u32,
    mean_ns: f64,
    /// Exponentially distributed service; else always the mean.
    varies: bool,
    busy: u32,
    row: VecDeque<usize>,
}

impl Origin {
    fn service(&self, random: &mut Random) -> u64 {
        if self.varies { exponential(random, self.mean_ns) } else { self.mean_ns as u64 }
    }
}

/// What one second of an overloaded pool looked like.
#[derive(Debug, Default, Clone)]
struct Second {
    limit: f64,
    latencies: Vec<u64>,
}

impl Second {
    fn mean_ms(&self) -> f64 {
        self.latencies.iter().sum::<u64>() as f64 / self.latencies.len().max(1) as f64 / 1e6
    }
}

/// Requests at `load` times the origin's first capacity, through a found limit; `change` may alter the origin each second.
fn overload(mut origin: Origin, load: f64, seconds: u64, seed: u64, change: impl Fn(u64, &mut Origin)) -> Vec<Second> {
    let mut pool = Concurrency::found(GradientSettings::default(), seed);
    let mut random = Random::new(seed ^ 0xabcd);
    let between = origin.mean_ns / f64::from(origin.servers) / load;
    let mut requests: Vec<Option<(Now, Begun)>> = Vec::new();
    let mut returning: BinaryHeap<Reverse<(Now, usize)>> = BinaryHeap::new();
    let mut report = vec![Second::default(); seconds as usize];
    let start = 10;
    let (mut now, mut arrival) = (Now::from_secs(start), Now::from_secs(start));
    let mut told = 0;
    while now < Now::from_secs(start + seconds) {
        let second = now.nanos() / SECOND - start;
        if second > told {
            told = second;
            change(second, &mut origin);
        }
        report[second as usize].limit = f64::from(pool.limit());
        if let Some(&Reverse((at, id))) = returning.peek()
            && at <= arrival
        {
            returning.pop();
            now = at;
            origin.busy -= 1;
            let (since, begun) = requests[id].take().expect("answered once");
            pool.end(now, begun, Verdict::Success);
            let index = (now.nanos() / SECOND - start).min(seconds - 1);
            report[index as usize].latencies.push(now.nanos_since(since));
        } else {
            now = arrival;
            arrival = now.plus_nanos(exponential(&mut random, between));
            if let Some(begun) = pool.begin(now) {
                requests.push(Some((now, begun)));
                origin.row.push_back(requests.len() - 1);
            }
        }
        while origin.busy < origin.servers
            && let Some(id) = origin.row.pop_front()
        {
            origin.busy += 1;
            returning.push(Reverse((now.plus_nanos(origin.service(&mut random)), id)));
        }
    }
    report
}

fn origin(servers: u32, mean_ms: u64, varies: bool) -> Origin {
    Origin { servers, mean_ns: mean_ms as f64 * 1e6, varies, busy: 0, row: VecDeque::new() }
}

/// The mean over some seconds of: limit ÷ servers, latency ÷ mean service time, answers ÷ what the servers can do.
fn summary(report: &[Second], servers: u32, mean_ms: f64) -> (f64, f64, f64) {
    let each = |of: &dyn Fn(&Second) -> f64| report.iter().map(of).sum::<f64>() / report.len() as f64;
    let capacity = f64::from(servers) * 1000.0 / mean_ms;
    (
        each(&|second| second.limit) / f64::from(servers),
        each(&|second| second.mean_ms()) / mean_ms,
        each(&|second| second.latencies.len() as f64) / capacity,
    )
}

#[track_caller]
fn near_the_knee(report: &[Second], servers: u32, mean_ms: f64) {
    let (limit, latency, goodput) = summary(report, servers, mean_ms);
    let found = format!("limit {limit:.2} × servers, latency {latency:.2} × base, goodput {goodput:.2}");
    assert!((0.8..1.7).contains(&limit) && latency < 1.5 && goodput > 0.75, "{found}");
    // Three seconds hold enough answers of every origin here for their mean to be no chance.
    let three = |seconds: &[Second]| seconds.iter().map(Second::mean_ms).sum::<f64>() / 3.0;
    assert!(report.windows(3).all(|seconds| three(seconds) < 2.0 * mean_ms), "{found}");
}

#[test]
fn a_found_limit_comes_to_the_knee_and_stays() {
    for seed in 0..5 {
        for (servers, mean_ms, seconds) in [(4, 5, 120), (10, 20, 120), (100, 20, 60), (40, 200, 180)] {
            for varies in [false, true] {
                for load in [1.3, 3.0] {
                    let report = overload(origin(servers, mean_ms, varies), load, seconds, seed, |_, _| {});
                    near_the_knee(&report[seconds as usize / 3..], servers, mean_ms as f64);
                }
            }
        }
    }
}

#[test]
fn a_found_limit_follows_capacity_both_ways() {
    for seed in 0..5 {
        for varies in [false, true] {
            for (after, change) in [(40, 2.0), (10, 0.5)] {
                let report =
                    overload(origin(20, 20, varies), 3.0 * f64::max(change, 1.0), 120, seed, |second, origin| {
                        origin.servers = if second >= 60 { after } else { 20 };
                    });
                near_the_knee(&report[30..60], 20, 20.0);
                near_the_knee(&report[75..], after, 20.0);
            }
        }
    }
}

#[test]
fn a_slower_or_faster_deploy_is_adopted_in_bounded_time() {
    for seed in 0..5 {
        for varies in [false, true] {
            for (before, after) in [(20, 100), (100, 20)] {
                let report = overload(origin(20, before, varies), 15.0, 180, seed, |second, origin| {
                    origin.mean_ns = if second >= 60 { after } else { before } as f64 * 1e6;
                });
                near_the_knee(&report[40..60], 20, before as f64);
                near_the_knee(&report[100..], 20, after as f64);
            }
        }
    }
}

/// A pool of `places`, with a waiting room before it. Class `i` sends at `rates[i]` a second and each request takes `cost_us[i]` on average.
struct Pool<'a> {
    places: u32,
    settings: &'a [ClassSettings],
    rates: &'a [f64],
    cost_us: &'a [u32],
    /// From arrival.
    deadline: Option<Duration>,
}

#[derive(Debug, Default, Clone)]
struct Class {
    asked: u64,
    /// From arrival to answer, ns.
    latencies: Vec<u64>,
    waits: Vec<u64>,
    /// Began too late to make the deadline.
    late: u64,
    work_us: f64,
}

fn quantile(values: &mut [u64], of: f64) -> f64 {
    values.sort_unstable();
    values.get((values.len() as f64 * of) as usize).map_or(0.0, |&value| value as f64 / 1e6)
}

impl Pool<'_> {
    fn run(&self, seconds: u64, seed: u64) -> Vec<Class> {
        let mut room = WaitingRoom::new(self.settings);
        let mut random = Random::new(seed);
        let mut classes = vec![Class::default(); self.rates.len()];
        let mut events = BinaryHeap::new();
        let (mut arrived, mut busy, start) = (Vec::new(), 0, Now::from_secs(10));
        // A class that never sends has its first request after the end.
        let next =
            |class: usize, random: &mut Random| exponential(random, SECOND as f64 / self.rates[class]).min(1 << 60);
        for class in 0..self.rates.len() {
            events.push(Reverse((start.plus_nanos(next(class, &mut random)), class, usize::MAX)));
        }
        while let Some(Reverse((now, class, id))) = events.pop()
            && now < start.plus_nanos(seconds * SECOND)
        {
            if id == usize::MAX {
                events.push(Reverse((now.plus_nanos(next(class, &mut random)), class, usize::MAX)));
                classes[class].asked += 1;
                arrived.push(now);
                let deadline = self.deadline.map(|time| now.plus(time));
                let _ = room.push(
                    now,
                    class,
                    Waiting { id: arrived.len() as u64 - 1, cost_us: self.cost_us[class], deadline },
                );
            } else {
                busy -= 1;
                classes[class].latencies.push(now.nanos_since(arrived[id]));
            }
            while busy < self.places
                && let Some(next) = room.pop(now, &mut |_| {})
            {
                busy += 1;
                let id = next.served.id as usize;
                assert_eq!(next.served.waited, now.since(arrived[id]));
                let class = &mut classes[next.class];
                class.waits.push(now.nanos_since(arrived[id]));
                let deadline = self.deadline.map(|time| arrived[id].plus(time));
                class.late += u64::from(
                    deadline.is_some_and(|deadline| now.plus_nanos(u64::from(next.served.cost_us) * 1000) > deadline),
                );
                class.work_us += f64::from(next.served.cost_us);
                let service = exponential(&mut random, f64::from(next.served.cost_us) * 1000.0);
                events.push(Reverse((now.plus_nanos(service), next.class, id)));
            }
        }
        classes
    }
}

#[test]
fn bulk_does_not_hurt_interactive() {
    for seed in 0..10 {
        let settings = [ClassSettings { weight: 8, ..ClassSettings::default() }, ClassSettings::default()];
        let run = |bulk| {
            let (rates, cost_us) = ([200.0, bulk], [5_000, 20_000]);
            Pool { places: 16, settings: &settings, rates: &rates, cost_us: &cost_us, deadline: None }.run(60, seed)
        };
        let (mut quiet, mut loud) = (run(0.0), run(4000.0));
        let (alone, beside) = (quantile(&mut quiet[0].latencies, 0.99), quantile(&mut loud[0].latencies, 0.99));
        assert!(beside < 2.0 * alone, "seed {seed}: p99 {beside:.1} ms beside bulk, {alone:.1} ms alone");
        assert!(loud[0].latencies.len() as f64 > 0.999 * (loud[0].asked as f64 - 16.0), "and all are served");
        assert!(loud[1].work_us > 0.9 * (16.0 * 60e6 - loud[0].work_us), "bulk gets all the rest");
    }
}

#[test]
fn weights_are_honoured_when_all_wait() {
    for seed in 0..10 {
        let weights = [1, 2, 5];
        let settings = weights.map(|weight| ClassSettings { weight, ..ClassSettings::default() });
        let pool = Pool {
            places: 20,
            settings: &settings,
            rates: &[4000.0, 8000.0, 2000.0],
            cost_us: &[2_000, 900, 30_000],
            deadline: None,
        };
        let classes = pool.run(20, seed);
        let all: f64 = classes.iter().map(|class| class.work_us).sum();
        for (class, weight) in classes.iter().zip(weights) {
            let off = class.work_us / all / (f64::from(weight) / 8.0) - 1.0;
            assert!(off.abs() < 0.02, "seed {seed}, weight {weight}: {:.2} %", off * 100.0);
        }
    }
}

#[test]
fn health_checks_pass_a_flood_and_a_flood_of_them_starves_nobody() {
    for (health, share) in [(20.0, 0.0..0.02), (20_000.0, 0.09..0.11)] {
        let settings =
            [ClassSettings::default(), ClassSettings { strict_percent: Some(10), ..ClassSettings::default() }];
        let pool = Pool {
            places: 10,
            settings: &settings,
            rates: &[20_000.0, health],
            cost_us: &[5_000, 5_000],
            deadline: None,
        };
        let mut classes = pool.run(60, 1);
        let part = classes[1].work_us / (classes[0].work_us + classes[1].work_us);
        assert!(share.contains(&part), "{part}");
        if health < 100.0 {
            assert_eq!(classes[1].asked, classes[1].waits.len() as u64);
            assert!(quantile(&mut classes[1].waits, 0.99) < 5.0);
        }
    }
}

#[test]
fn an_overloaded_queue_serves_in_time_or_not_at_all() {
    for seed in 0..10 {
        for load in [1.2, 2.0, 10.0] {
            let deadline = Duration::from_millis(100);
            let settings = [ClassSettings::default()];
            let pool = Pool {
                places: 10,
                settings: &settings,
                rates: &[1000.0 * load],
                cost_us: &[10_000],
                deadline: Some(deadline),
            };
            let mut classes = pool.run(60, seed);
            let goodput = classes[0].work_us / (10.0 * 60e6);
            let (median, p90) = (quantile(&mut classes[0].waits, 0.5), quantile(&mut classes[0].waits, 0.9));
            let found = format!("load {load}: goodput {goodput:.3}, waits {median:.1}, {p90:.1} ms");
            assert_eq!(classes[0].late, 0, "nobody is served whose time is over");
            assert!((0.96..1.04).contains(&goodput), "{found}");
            assert!(median < 10.0, "most are served at once: {found}");
        }
    }
}

#[test]
fn a_burst_within_the_patience_loses_nobody() {
    for seed in 0..20 {
        let settings = ClassSettings { queue: QueueSettings::default(), ..ClassSettings::default() };
        let (mut room, mut random, mut dropped) = (WaitingRoom::new(&[settings]), Random::new(seed), 0);
        let mut now = Now::from_secs(1);
        for _ in 0..50 {
            // 80 at once, served within 80 ms: less than CoDel's interval.
            (0..80).for_each(|id| assert!(room.push(now, 0, Waiting { id, cost_us: 1000, deadline: None }).is_ok()));
            while !room.is_empty() {
                now = now.plus_nanos(random.below(2_000_000));
                let _ = room.pop(now, &mut |_| dropped += 1);
            }
            now = now.plus_nanos(SECOND / 10);
        }
        assert!(dropped <= 50, "seed {seed}: {dropped} of 4000");
    }
}
