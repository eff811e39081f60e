//! Balancers under traffic: queues that fill and drain, endpoints that leave and come back, on a clock that costs nothing.

use policy::balance::MAGLEV_SIZE_DEFAULT;
use policy::hash::xxh64;
use policy::{
    Ask, BalanceSettings, Balancer, Endpoints, Load, Member, NoPick, Now, Outcome, PeakEwma, Pick, Policy, Random,
    SlowStart, Standing,
};
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

const POLICIES: [Policy; 7] = [
    Policy::Adaptive,
    Policy::RoundRobin,
    Policy::Random,
    Policy::LEAST_REQUESTS,
    Policy::RING,
    Policy::MAGLEV,
    Policy::Maglev { size: MAGLEV_SIZE_DEFAULT, bound_percent: 125 },
];

#[derive(Clone)]
struct Endpoint {
    standing: Standing,
    ewma: PeakEwma,
    in_flight: u32,
    ramp: f32,
    /// Mean time of one request's service; one at a time.
    service: Duration,
    free_at: Now,
}

#[derive(Clone)]
struct Pool {
    endpoints: Vec<Endpoint>,
    now: Now,
}

impl Pool {
    fn of(count: usize) -> Self {
        let endpoint = Endpoint {
            standing: Standing::Ready,
            ewma: PeakEwma::default(),
            in_flight: 0,
            ramp: 1.0,
            service: Duration::from_millis(1),
            free_at: Now::ZERO,
        };
        Self { endpoints: vec![endpoint; count], now: Now::ZERO }
    }

    fn standings(standings: &[Standing]) -> Self {
        let mut pool = Self::of(standings.len());
        pool.endpoints.iter_mut().zip(standings).for_each(|(endpoint, &standing)| endpoint.standing = standing);
        pool
    }
}

impl Endpoints for Pool {
    fn len(&self) -> usize {
        self.endpoints.len()
    }
    fn standing(&self, index: usize) -> Standing {
        self.endpoints[index].standing
    }
    fn load(&self, index: usize) -> Load {
        let endpoint = &self.endpoints[index];
        Load {
            latency_ns: endpoint.ewma.nanos(self.now),
            failing: endpoint.ewma.failing(self.now),
            in_flight: endpoint.in_flight,
        }
    }
    fn ramp(&self, index: usize) -> f32 {
        self.endpoints[index].ramp
    }
}

fn members_of(names: &[String], weights: &[u32], tiers: &[u8], settings: BalanceSettings) -> Balancer {
    Balancer::new(settings, &list(names, weights, tiers))
}

fn list<'a>(names: &'a [String], weights: &[u32], tiers: &[u8]) -> Vec<Member<'a>> {
    let triples = names.iter().zip(weights).zip(tiers);
    triples.map(|((name, &weight), &tier)| Member { name, weight, tier }).collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("10.0.{}.{}:8080", index / 256, index % 256)).collect()
}

fn balancer(settings: impl Into<BalanceSettings>, weights: &[u32]) -> Balancer {
    members_of(&names(weights.len()), weights, &vec![0; weights.len()], settings.into())
}

fn tiered(settings: impl Into<BalanceSettings>, tiers: &[u8]) -> Balancer {
    members_of(&names(tiers.len()), &vec![1; tiers.len()], tiers, settings.into())
}

fn keyed(key: u64) -> Ask {
    Ask { key: Some(xxh64(&key.to_le_bytes(), 0)), ..Ask::default() }
}

/// Shares of many choices in a pool that nothing is sent to.
fn idle_shares(balancer: &mut Balancer, pool: &Pool, picks: u64) -> Vec<f64> {
    let (mut counts, mut random) = (vec![0_u64; pool.len()], Random::new(picks));
    for key in 0..picks {
        if let Ok(pick) = balancer.pick(pool, &keyed(key), &mut random) {
            counts[pick.index] += 1;
        }
    }
    counts.iter().map(|&count| count as f64 / picks as f64).collect()
}

/// Jain, Chiu, Hawe 1984: 1 when all have the same.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

struct Played {
    /// When, and where to.
    picks: Vec<(Now, usize)>,
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Played {
    fn shares(&self, endpoints: usize) -> Vec<f64> {
        let mut shares = vec![0.0; endpoints];
        self.picks.iter().for_each(|&(_, index)| shares[index] += 1.0 / self.picks.len() as f64);
        shares
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies[(self.latencies.len() as f64 * quantile) as usize]
    }

    /// The greatest share that an endpoint has in any second from `from` on, stepping by a twentieth.
    fn worst_second(&self, index: usize, from: Now) -> f64 {
        let end = self.picks.last().unwrap().0;
        let mut worst: f64 = 0.0;
        let mut start = from;
        while start.plus(Duration::from_secs(1)) < end {
            let low = self.picks.partition_point(|&(at, _)| at < start);
            let high = self.picks.partition_point(|&(at, _)| at < start.plus(Duration::from_secs(1)));
            let window = &self.picks[low..high];
            let mine = window.iter().filter(|&&(_, chosen)| chosen == index).count();
            worst = worst.max(mine as f64 / window.len() as f64);
            start = start.plus(Duration::from_millis(50));
        }
        worst
    }
}

/// How an endpoint serves.
#[derive(Clone, Copy)]
enum Service {
    /// One request after the other, each an exponential time.
    Queue,
    /// All at once, each an exponential time.
    Parallel,
}

/// Poisson arrivals, `per_second` of them, until `end`. `change` may alter the pool before each.
fn play(
    balancer: &mut Balancer,
    mut pool: Pool,
    (service, per_second, end, seed): (Service, f64, Now, u64),
    mut change: impl FnMut(&mut Pool),
) -> Played {
    let mut random = Random::new(seed);
    let mut ends = BinaryHeap::new();
    let mut played = Played { picks: Vec::new(), latencies: Vec::new() };
    let exponential = |random: &mut Random, mean: f64| Duration::from_secs_f64(-(1.0 - random.unit()).ln() * mean);
    while pool.now < end {
        pool.now = pool.now.plus(exponential(&mut random, per_second.recip()));
        while let Some(&Reverse((at, begun, index))) = ends.peek()
            && at <= pool.now
        {
            ends.pop();
            let (at, begun): (Now, Now) = (at, begun);
            let endpoint: &mut Endpoint = &mut pool.endpoints[index];
            endpoint.in_flight -= 1;
            endpoint.ewma.record(at, &Outcome::answered(at.since(begun), 200));
            played.latencies.push(at.since(begun).as_secs_f64() * 1e3);
        }
        change(&mut pool);
        let key = random.next_u64();
        let Ok(Pick { index, .. }) = balancer.pick(&pool, &keyed(key), &mut random) else { continue };
        let (now, endpoint) = (pool.now, &mut pool.endpoints[index]);
        let mean = endpoint.service.as_secs_f64();
        let done = match service {
            Service::Queue => endpoint.free_at.max(now).plus(exponential(&mut random, mean)),
            Service::Parallel => now.plus(exponential(&mut random, mean)),
        };
        endpoint.free_at = done;
        endpoint.in_flight += 1;
        ends.push(Reverse((done, now, index)));
        played.picks.push((now, index));
    }
    played.latencies.sort_by(f64::total_cmp);
    played
}

#[test]
fn equals_get_the_same_idle_or_busy() {
    for policy in POLICIES {
        for count in [1, 2, 3, 5, 1000] {
            let picks = if count == 1000 { 200_000 } else { 20_000 };
            let shares = idle_shares(&mut balancer(policy, &vec![1; count]), &Pool::of(count), picks);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{policy:?}, {count}");
            assert!(jain(&shares) >= 0.99, "{policy:?}, {count} endpoints: {}", jain(&shares));
        }
        for seed in 0..10 {
            let traffic = (Service::Queue, 3000.0, Now::from_secs(5), seed);
            let played = play(&mut balancer(policy, &[1; 5]), Pool::of(5), traffic, |_| {});
            let shares = played.shares(5);
            assert!(jain(&shares) >= 0.99, "{policy:?}, seed {seed}: {shares:?}");
        }
    }
}

#[test]
fn weights_are_shares() {
    for policy in POLICIES {
        let shares = idle_shares(&mut balancer(policy, &[5, 3, 0, 2]), &Pool::of(4), 50_000);
        for (share, wanted) in shares.iter().zip([0.5, 0.3, 0.0, 0.2]) {
            assert!((share - wanted).abs() <= wanted * 0.15, "{policy:?}: {shares:?}");
        }
        // A canary of 1 %, idle and with some 20 requests out at the other.
        for per_second in [10.0, 2000.0] {
            let mut pool = Pool::of(2);
            pool.endpoints.iter_mut().for_each(|endpoint| endpoint.service = Duration::from_millis(10));
            let traffic =
                (Service::Parallel, per_second, Now::from_secs(if per_second < 100.0 { 3000 } else { 20 }), 1);
            let canary = play(&mut balancer(policy, &[99, 1]), pool, traffic, |_| {}).shares(2)[1];
            assert!((0.002..0.025).contains(&canary), "{policy:?} at {per_second}/s: {canary}");
        }
    }
}

#[test]
fn choosing_of_two_spares_the_tail_from_a_slow_endpoint() {
    for seed in 0..10 {
        let p99 = |policy| {
            let mut pool = Pool::of(5);
            pool.endpoints[0].service = Duration::from_millis(10);
            let traffic = (Service::Queue, 300.0, Now::from_secs(60), seed);
            play(&mut balancer(policy, &[1; 5]), pool, traffic, |_| {}).quantile_ms(0.99)
        };
        let turns = p99(Policy::RoundRobin);
        // Who knows no latency sends a slow one its share whenever it is idle.
        for (policy, better) in [(Policy::Adaptive, 2.0), (Policy::LEAST_REQUESTS, 1.5)] {
            let two = p99(policy);
            assert!(two * better <= turns, "{policy:?}, seed {seed}: {two} ms against {turns} ms");
        }
    }
}

#[test]
fn who_comes_back_is_not_overrun() {
    let (away, back, end) = (Now::from_secs(3), Now::from_secs(40), Now::from_secs(48));
    for policy in POLICIES {
        for (latency_ms, seeds) in [(1, 8), (20, 8), (300, 4)] {
            for seed in 0..seeds {
                let mut pool = Pool::of(5);
                pool.endpoints.iter_mut().for_each(|one| one.service = Duration::from_millis(latency_ms));
                // Half of the time it was never there before.
                let away = if seed % 2 == 0 { away } else { Now::ZERO };
                let played =
                    play(&mut balancer(policy, &[1; 5]), pool, (Service::Parallel, 1000.0, end, seed), |pool| {
                        let out = (away..back).contains(&pool.now);
                        pool.endpoints[2].standing = if out { Standing::Down } else { Standing::Ready };
                    });
                let worst = played.worst_second(2, back);
                assert!(worst <= 1.5 * 0.2, "{policy:?}, {latency_ms} ms, seed {seed}: {worst}");
                let settled = played.picks.iter().filter(|&&(at, _)| at > back.plus(Duration::from_secs(2)));
                let (mine, all) = settled.fold((0, 0), |(mine, all), pick| (mine + u32::from(pick.1 == 2), all + 1));
                let share = f64::from(mine) / f64::from(all);
                assert!(share > 0.15, "{policy:?}, {latency_ms} ms, seed {seed}: back in its place, {share}");
            }
        }
    }
}

#[test]
fn slow_start_holds_in_every_policy() {
    let law = SlowStart { window: Duration::from_secs(20), aggression: 1.0, least: 0.1 };
    let back = Now::from_secs(10);
    for policy in POLICIES {
        for seed in 0..4 {
            let mut pool = Pool::of(5);
            pool.endpoints.iter_mut().for_each(|endpoint| endpoint.service = Duration::from_millis(5));
            let played = play(
                &mut balancer(policy, &[1; 5]),
                pool,
                (Service::Parallel, 1000.0, Now::from_secs(40), seed),
                |pool| {
                    pool.endpoints[0].standing = if pool.now < back { Standing::Out } else { Standing::Ready };
                    pool.endpoints[0].ramp = law.factor(back, pool.now);
                },
            );
            let share = |from: u64, to: u64| {
                let span =
                    played.picks.iter().filter(|&&(at, _)| (Now::from_secs(from)..Now::from_secs(to)).contains(&at));
                let (mine, all) = span.fold((0, 0), |(mine, all), pick| (mine + u32::from(pick.1 == 0), all + 1));
                f64::from(mine) / f64::from(all)
            };
            let shares = [share(10, 12), share(19, 21), share(32, 40)];
            assert!((0.005..0.06).contains(&shares[0]), "{policy:?}, a tenth: {shares:?}");
            assert!((0.07..0.16).contains(&shares[1]), "{policy:?}, half: {shares:?}");
            assert!((0.16..0.24).contains(&shares[2]), "{policy:?}, whole: {shares:?}");
            assert!(played.worst_second(0, back) <= 0.3, "{policy:?}: {}", played.worst_second(0, back));
        }
    }
}

#[test]
fn bounded_load_is_bounded() {
    for policy in [Policy::RING, Policy::Maglev { size: 65_537, bound_percent: 125 }] {
        for seed in 0..20 {
            let (count, mut random) = (8, Random::new(seed));
            let (mut pool, mut balancer, mut out) = (Pool::of(count), balancer(policy, &[1; 8]), Vec::new());
            for _ in 0..5000 {
                // Nine of ten requests are for one key.
                let key = if random.below(10) > 0 { 7 } else { random.next_u64() };
                let Pick { index, .. } = balancer.pick(&pool, &keyed(key), &mut random).unwrap();
                pool.endpoints[index].in_flight += 1;
                out.push(index);
                let most = 1.25 * out.len() as f64 / count as f64 + 1.0;
                assert!(f64::from(pool.endpoints[index].in_flight) <= most, "{policy:?}, seed {seed}");
                while out.len() as u64 > random.below(400) {
                    let ended = out.swap_remove(random.below(out.len() as u64) as usize);
                    pool.endpoints[ended].in_flight -= 1;
                }
            }
        }
    }
}

fn homes(balancer: &mut Balancer, pool: &Pool, keys: u64) -> Vec<usize> {
    let mut random = Random::new(1);
    (0..keys).map(|key| balancer.pick(pool, &keyed(key), &mut random).unwrap().index).collect()
}

#[test]
fn keys_stay_where_they_are() {
    let keys = 20_000;
    for policy in [Policy::RING, Policy::MAGLEV] {
        for count in [2, 3, 5, 20, 100] {
            let (all, names) = (Pool::of(count), names(count));
            let (weights, tiers) = (vec![1; count], vec![0; count]);
            let mut balancer = members_of(&names, &weights, &tiers, policy.into());
            let before = homes(&mut balancer, &all, keys);
            // The order of the list is nothing, and another worker's balancer is the same.
            let backwards: Vec<_> = names.iter().rev().cloned().collect();
            let mirrored = homes(&mut members_of(&backwards, &weights, &tiers, policy.into()), &all, keys);
            assert!(before.iter().zip(mirrored).all(|(home, mirrored)| home + mirrored == count - 1), "{policy:?}");
            // One is down for a while: only its own keys move.
            let mut one_down = all.clone();
            one_down.endpoints[1].standing = Standing::Down;
            let meanwhile = homes(&mut balancer, &one_down, keys);
            assert!(before.iter().zip(&meanwhile).all(|(&was, &is)| if was == 1 { is != 1 } else { was == is }));
            // One is removed.
            balancer.update(&list(&names[..count - 1], &weights, &tiers));
            let after = homes(&mut balancer, &Pool::of(count - 1), keys);
            let moved = before.iter().zip(&after).filter(|(was, is)| was != is).count();
            let most = 2.0 / count as f64 * keys as f64;
            assert!(moved > 0 && moved as f64 <= most, "{policy:?}, {count}: {moved} of {keys}");
            // And comes again.
            balancer.update(&list(&names, &weights, &tiers));
            assert_eq!(homes(&mut balancer, &all, keys), before, "{policy:?}, {count}");
        }
    }
}

#[test]
fn every_machine_sends_these_keys_to_these_endpoints() {
    let pool = Pool::of(5);
    assert_eq!(homes(&mut balancer(Policy::RING, &[1, 1, 2, 1, 3]), &pool, 16), GOLDEN_RING);
    assert_eq!(homes(&mut balancer(Policy::MAGLEV, &[1, 1, 2, 1, 3]), &pool, 16), GOLDEN_MAGLEV);
}

const GOLDEN_RING: [usize; 16] = [3, 1, 2, 2, 2, 1, 2, 4, 1, 4, 2, 4, 3, 0, 2, 2];
const GOLDEN_MAGLEV: [usize; 16] = [0, 4, 2, 3, 4, 0, 1, 2, 2, 1, 0, 3, 0, 3, 4, 4];

#[test]
fn without_a_key_chance_decides() {
    for policy in [Policy::RING, Policy::MAGLEV] {
        let (mut balancer, mut random, mut counts) = (balancer(policy, &[1; 4]), Random::new(5), [0_u32; 4]);
        for _ in 0..20_000 {
            counts[balancer.pick(&Pool::of(4), &Ask::default(), &mut random).unwrap().index] += 1;
        }
        assert!(counts.iter().all(|count| (4_000..6_000).contains(count)), "{policy:?}: {counts:?}");
    }
}

#[test]
fn what_a_tier_lacks_spills_to_the_next() {
    use Standing::{Down, Ready};
    // Ten endpoints in tier 0, and ten in tier 3, of which so many are well; the share that tier 0 should have.
    let table = [
        (10, 10, 1.0),
        (8, 10, 1.0),
        (7, 10, 0.98),
        (5, 10, 0.7),
        (2, 10, 0.28),
        (0, 10, 0.0),
        (2, 2, 0.5),
        (3, 1, 0.75),
    ];
    for policy in POLICIES {
        for (first, second, wanted) in table {
            let tiers: Vec<_> = (0..20).map(|index| if index < 10 { 0 } else { 3 }).collect();
            let well = |index| if (index < first) || (10..10 + second).contains(&index) { Ready } else { Down };
            let pool = Pool::standings(&(0..20).map(well).collect::<Vec<_>>());
            let shares = idle_shares(&mut tiered(policy, &tiers), &pool, 20_000);
            let share: f64 = shares[..10].iter().sum();
            assert!((share - wanted).abs() < 0.015, "{policy:?}, {first} and {second} well: {share}");
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert!((0..20).all(|index| pool.standing(index) == Ready || shares[index] == 0.0), "{policy:?}");
        }
    }
}

#[test]
fn in_panic_verdicts_are_set_aside_and_facts_are_not() {
    use Standing::{Down, Draining, Full, Out, Ready, Suspect};
    let table: &[(&[Standing], u8, &[bool], bool)] = &[
        (&[Ready, Ready, Suspect], 50, &[true, true, false], false),
        (&[Ready, Suspect, Suspect], 50, &[true, true, true], true),
        (&[Ready, Suspect, Suspect], 0, &[true, false, false], false),
        (&[Suspect, Suspect], 50, &[true, true], true),
        (&[Ready, Suspect, Down, Down], 50, &[true, true, false, false], true),
        (&[Ready, Down, Down], 50, &[true, false, false], false),
        (&[Ready, Suspect, Out, Out, Draining], 50, &[true, false, false, false, false], false),
        (&[Ready, Full, Suspect], 50, &[true, false, false], false),
    ];
    for policy in POLICIES {
        for &(standings, panic_percent, wanted, panic) in table {
            let pool = Pool::standings(standings);
            let settings = BalanceSettings { policy, panic_percent, ..BalanceSettings::default() };
            let mut balancer = balancer(settings, &vec![1; standings.len()]);
            let found = idle_shares(&mut balancer, &pool, 500);
            let served: Vec<_> = found.iter().map(|&share| share > 0.0).collect();
            assert_eq!(served, wanted, "{policy:?} {standings:?}");
            assert_eq!(balancer.panics(), panic);
            let pick = balancer.pick(&pool, &keyed(1), &mut Random::new(1)).unwrap();
            assert_eq!((pick.panic, pick.sticky), (panic, false), "{policy:?} {standings:?}");
        }
        // Another tier can take it all: no reason to panic.
        let pool = Pool::standings(&[Ready, Suspect, Suspect, Ready]);
        let shares = idle_shares(&mut tiered(policy, &[0, 0, 0, 1]), &pool, 500);
        assert_eq!(shares[1] + shares[2], 0.0, "{policy:?}");
    }
}

#[test]
fn sticking_draining_and_refusing() {
    use Standing::{Down, Draining, Full, Out, Ready, Suspect};
    for policy in POLICIES {
        let mut random = Random::new(1);
        let mut pick = |standings: &[Standing], prefer: Option<usize>, avoid: &[usize]| {
            let mut ask = Ask { prefer, ..keyed(3) };
            avoid.iter().for_each(|&index| ask.avoid.add(index));
            let weights = vec![1; standings.len()];
            let found = balancer(policy, &weights).pick(&Pool::standings(standings), &ask, &mut random);
            found.map(|pick| (pick.index, pick.sticky))
        };
        assert_eq!(pick(&[Ready, Ready, Ready], Some(2), &[]), Ok((2, true)));
        assert_eq!(pick(&[Ready, Draining], Some(1), &[]), Ok((1, true)));
        assert_eq!(pick(&[Ready, Draining], None, &[]), Ok((0, false)));
        for gone in [Suspect, Down, Full, Out] {
            assert_eq!(pick(&[Ready, gone], Some(1), &[]), Ok((0, false)), "{gone:?}");
        }
        assert_eq!(pick(&[Ready, Ready], Some(1), &[1]), Ok((0, false)));
        assert_eq!(pick(&[Ready], Some(77), &[]), Ok((0, false)));
        assert_eq!(pick(&[Down, Draining, Out], None, &[]), Err(NoPick::None));
        assert_eq!(pick(&[Down, Full, Out], None, &[]), Err(NoPick::Full));
        assert_eq!(pick(&[Ready, Full], None, &[0]), Err(NoPick::Full));
        assert_eq!(pick(&[Ready, Full], None, &[0, 1]), Err(NoPick::None));
        assert_eq!(pick(&[], None, &[]), Err(NoPick::None));
        let nothing = balancer(policy, &[0]).pick(&Pool::of(1), &Ask::default(), &mut random);
        assert_eq!(nothing.unwrap_err(), NoPick::None);
    }
}

#[test]
fn the_last_one_left_is_found() {
    for policy in POLICIES {
        for count in [1, 2, 3, 1000] {
            let (mut balancer, mut random) = (balancer(policy, &vec![1; count]), Random::new(2));
            let mut pool = Pool::of(count);
            // A census of all well goes first: the news must be found out between two of them.
            assert!(balancer.pick(&pool, &keyed(0), &mut random).is_ok());
            for standing in [Standing::Down, Standing::Suspect] {
                pool.endpoints.iter_mut().for_each(|endpoint| endpoint.standing = Standing::Down);
                pool.endpoints[count / 2].standing =
                    if standing == Standing::Suspect { Standing::Suspect } else { Standing::Ready };
                for key in 0..50 {
                    let pick = balancer.pick(&pool, &keyed(key), &mut random);
                    assert_eq!(pick.map(|pick| pick.index), Ok(count / 2), "{policy:?}, {count}");
                }
            }
        }
    }
}

#[test]
fn who_stays_keeps_its_turn() {
    let names: Vec<_> = ["a", "b", "c", "d"].map(String::from).to_vec();
    let mut random = Random::new(1);
    let mut turns = |balancer: &mut Balancer, names: &[&str], count: usize| -> String {
        let pool = Pool::of(names.len());
        (0..count).map(|_| names[balancer.pick(&pool, &Ask::default(), &mut random).unwrap().index]).collect()
    };
    let mut balancer = members_of(&names[..3], &[5, 1, 1], &[0; 3], Policy::RoundRobin.into());
    assert_eq!(turns(&mut balancer, &["a", "b", "c"], 3), "aab");
    // The same in another order: the rest of the round is a c a a all the same.
    let other_order = vec![names[2].clone(), names[0].clone(), names[1].clone()];
    balancer.update(&list(&other_order, &[1, 5, 1], &[0; 3]));
    assert_eq!(turns(&mut balancer, &["c", "a", "b"], 4), "acaa");
    // One comes in, one goes, in the middle of a round.
    assert_eq!(turns(&mut balancer, &["c", "a", "b"], 2), "aa");
    balancer.update(&list(&names, &[1, 1, 0, 1], &[0; 4]));
    let next = turns(&mut balancer, &["a", "b", "c", "d"], 30);
    assert!(!next.contains('c') && next.matches('d').count() >= 9, "{next}");
    assert!(!next.contains("bbb") && !next.contains("ddd"), "nobody makes up for the past at once: {next}");
}

#[test]
fn updates_of_any_kind_do_no_harm() {
    for policy in POLICIES {
        let mut random = Random::new(9);
        let policy = if let Policy::Maglev { bound_percent, .. } = policy {
            Policy::Maglev { size: 251, bound_percent }
        } else {
            policy
        };
        let mut balancer = balancer(policy, &[]);
        for _ in 0..300 {
            let count = random.below(12) as usize;
            let all = names(12);
            let offset = random.below(12) as usize;
            let list: Vec<_> = (0..count)
                .map(|index| Member {
                    name: &all[(index + offset) % 12],
                    weight: [0, 1, 7, 65_535, u32::MAX][random.below(5) as usize],
                    tier: [0, 1, 255][random.below(3) as usize],
                })
                .collect();
            balancer.update(&list);
            let kinds = [Standing::Ready, Standing::Suspect, Standing::Down, Standing::Full, Standing::Draining];
            let mut pool = Pool::of(count);
            for endpoint in &mut pool.endpoints {
                endpoint.standing = kinds[random.below(5) as usize];
                endpoint.in_flight = random.next_u64() as u32;
                endpoint.ramp = [1.0, 0.3, 0.0, -1.0, f32::NAN][random.below(5) as usize];
            }
            for key in 0..20 {
                if let Ok(pick) = balancer.pick(&pool, &keyed(key), &mut random) {
                    let standing = pool.standing(pick.index);
                    assert!(list[pick.index].weight > 0, "{policy:?}");
                    assert!(
                        standing == Standing::Ready || (pick.panic && standing == Standing::Suspect),
                        "{standing:?}"
                    );
                }
            }
        }
    }
}

/// Who must not fail goes to those that nobody doubts, though they have much to do; to the others where there is no such one.
#[test]
fn the_wary_go_where_nothing_has_failed() {
    let failed = Outcome::new(Duration::ZERO, policy::Class::Reset);
    for policy in
        [Policy::Adaptive, Policy::RoundRobin, Policy::Random, Policy::LEAST_REQUESTS, Policy::RING, Policy::MAGLEV]
    {
        let (mut balancer, mut pool, mut random) = (balancer(policy, &[1; 4]), Pool::of(4), Random::new(1));
        (0..3).for_each(|index| pool.endpoints[index].ewma.record(Now::ZERO, &failed));
        pool.endpoints[3].in_flight = 60;
        let mut reached = |pool: &Pool, wary| {
            let mut reached = [false; 4];
            for key in 0..400 {
                let ask = Ask { wary, ..keyed(key) };
                reached[balancer.pick(pool, &ask, &mut random).expect("all are ready").index] = true;
            }
            reached
        };
        assert_eq!(reached(&pool, true), [false, false, false, true], "{policy:?}");
        pool.endpoints[3].ewma.record(Now::ZERO, &failed);
        assert!(reached(&pool, true)[..3].contains(&true), "{policy:?}: all are doubtful, and one is to have it");
        pool.now = Now::from_secs(10);
        assert_eq!(reached(&pool, true)[..3], [true; 3], "{policy:?}: a failure is forgotten");
    }
}
