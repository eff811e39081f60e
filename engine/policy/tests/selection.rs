//! Routes with several candidate pools, played through: pools that slow down, swing, die, fill up and return, seen by one to four workers that
//! share nothing but sums.

use policy::select::{Reason, Seen};
use policy::{Candidates, Now, Random, SelectSettings, Selector, Standing};
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// What a pool is like at a moment.
#[derive(Clone, Copy)]
struct Weather {
    latency_ms: u64,
    up: bool,
    places: Option<u32>,
}

const fn ms(latency_ms: u64) -> Weather {
    Weather { latency_ms, up: true, places: None }
}

const DOWN: Weather = Weather { latency_ms: 1, up: false, places: None };

struct Pool {
    seen: Seen,
    weather: Weather,
}

struct Pools<'a> {
    pools: &'a [Pool],
}

impl Candidates for Pools<'_> {
    fn seen(&self, at: usize) -> Seen {
        let Pool { seen, weather } = &self.pools[at];
        Seen { ready: if weather.up { 4 } else { 0 }, endpoints: 4, places: weather.places, ..*seen }
    }

    fn standing(&self, at: usize) -> Standing {
        let Pool { seen, weather } = &self.pools[at];
        match weather.places {
            _ if !weather.up => Standing::Down,
            Some(places) if seen.in_flight >= places => Standing::Full,
            _ => Standing::Ready,
        }
    }
}

#[derive(Clone)]
struct Play {
    costs: Vec<f64>,
    settings: SelectSettings,
    per_second: u64,
    seconds: u64,
    workers: usize,
    /// Requests in a hundred that may be sent twice.
    repeatable: u64,
}

impl Default for Play {
    fn default() -> Self {
        let settings = SelectSettings::default();
        Self { costs: vec![1.0, 1.0], settings, per_second: 500, seconds: 120, workers: 2, repeatable: 80 }
    }
}

struct Choice {
    at: u64,
    worker: usize,
    pool: usize,
    reason: Reason,
    failed: bool,
}

/// What was chosen, in order.
struct Played {
    choices: Vec<Choice>,
    workers: usize,
    pools: usize,
    /// Of each worker: when its choice became another one, and which.
    moves: Vec<Vec<(u64, usize)>>,
}

impl Play {
    fn run(&self, seed: u64, weather: impl Fn(usize, u64) -> Weather) -> Played {
        let mut random = Random::new(seed);
        let mut selectors: Vec<Selector> =
            (0..self.workers).map(|_| Selector::new(self.settings, self.costs.iter().copied())).collect();
        let mut pools: Vec<Pool> =
            (0..self.costs.len()).map(|at| Pool { seen: Seen::default(), weather: weather(at, 0) }).collect();
        let mut answers = BinaryHeap::<Reverse<(u64, u64, usize, u64, bool)>>::new();
        let mut choices = Vec::new();
        let mut moves = vec![Vec::new(); self.workers];
        let (mut now, mut id) = (0, 0);
        let gap = SECOND / self.per_second;
        while now < self.seconds * SECOND {
            // Uneven, as arrivals are.
            now += gap / 2 + random.below(gap);
            while let Some(&Reverse((at, _, pool, latency, failed))) = answers.peek()
                && at <= now
            {
                answers.pop();
                let seen: &mut Seen = &mut pools[pool].seen;
                seen.in_flight -= 1;
                seen.calls += 1;
                (seen.errors, seen.latency_ns) =
                    if failed { (seen.errors + 1, seen.latency_ns) } else { (seen.errors, seen.latency_ns + latency) };
            }
            for (at, pool) in pools.iter_mut().enumerate() {
                pool.weather = weather(at, now);
            }
            let worker = random.below(self.workers as u64) as usize;
            let repeatable = random.below(100) < self.repeatable;
            let before = selectors[worker].current().index;
            let chosen =
                selectors[worker].choose(Now::from_nanos(now), repeatable, &Pools { pools: &pools }, &mut random);
            if selectors[worker].current().index != before {
                moves[worker].push((now, selectors[worker].current().index));
            }
            let pool = &mut pools[chosen.index];
            let failed = !pool.weather.up;
            // Half to one and a half times the mean.
            let latency = pool.weather.latency_ms * MS / 2 + random.below(pool.weather.latency_ms * MS);
            pool.seen.in_flight += 1;
            id += 1;
            answers.push(Reverse((now + latency, id, chosen.index, latency, failed)));
            choices.push(Choice { at: now, worker, pool: chosen.index, reason: chosen.reason, failed });
        }
        Played { choices, workers: self.workers, pools: self.costs.len(), moves }
    }
}

impl Played {
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Choice> {
        self.choices.iter().filter(move |choice| (from * SECOND..to * SECOND).contains(&choice.at))
    }

    /// Each pool's share in `[0, 1]`.
    fn shares(&self, from: u64, to: u64) -> Vec<f64> {
        let total = self.between(from, to).count().max(1) as f64;
        (0..self.pools)
            .map(|pool| self.between(from, to).filter(|choice| choice.pool == pool).count() as f64 / total)
            .collect()
    }

    fn share_for(&self, reason: Reason, from: u64, to: u64) -> f64 {
        let total = self.between(from, to).count().max(1) as f64;
        self.between(from, to).filter(|choice| choice.reason == reason).count() as f64 / total
    }

    fn moves_max(&self) -> usize {
        self.moves.iter().map(Vec::len).max().unwrap_or(0)
    }
}

const SEEDS: std::ops::Range<u64> = 1..6;

fn plays(play: &Play, weather: impl Fn(usize, u64) -> Weather, each: impl Fn(&Played)) {
    for workers in [1, 2, 4] {
        let play = Play { workers, ..play.clone() };
        SEEDS.for_each(|seed| each(&play.run(seed, &weather)));
    }
}

#[test]
fn the_nearer_pool_gets_the_requests_and_the_other_one_is_kept_in_view() {
    plays(
        &Play::default(),
        |pool, _| ms([10, 40][pool]),
        |played| {
            let shares = played.shares(1, 120);
            assert!(shares[0] > 0.985, "{shares:?}");
            let exploring = played.share_for(Reason::Exploring, 1, 120);
            assert!(exploring > 0.0 && exploring <= 0.012, "{exploring}");
            assert_eq!(played.moves_max(), 0);
        },
    );
}

#[test]
fn the_operators_order_does_not_matter_for_long() {
    plays(
        &Play::default(),
        |pool, _| ms([80, 10][pool]),
        |played| {
            assert!(played.shares(0, 3)[0] > 0.9, "it begins with the first");
            let shares = played.shares(20, 120);
            assert!(shares[1] > 0.98, "{shares:?}");
            assert_eq!(played.moves_max(), 1);
        },
    );
}

#[test]
fn a_pool_that_slows_down_is_left_and_its_return_is_noticed() {
    let weather = |pool: usize, at: u64| match (pool, at / SECOND) {
        (0, 30..90) => ms(200),
        (0, _) => ms(10),
        _ => ms(30),
    };
    plays(&Play { seconds: 180, ..Play::default() }, weather, |played| {
        let (before, during, after) = (played.shares(10, 30), played.shares(50, 88), played.shares(140, 180));
        assert!(before[0] > 0.98 && during[1] > 0.98 && after[0] > 0.98, "{before:?} {during:?} {after:?}");
        for moves in &played.moves {
            let [(left, 1), (back, 0)] = moves[..] else { panic!("{moves:?}") };
            assert!((35..38).contains(&(left / SECOND)), "the hold time, and a second to be sure: {left}");
            assert!((95..130).contains(&(back / SECOND)), "{back}");
        }
    });
}

#[test]
fn swinging_latency_does_not_swing_the_choice() {
    for half in [1, 3, 7, 20, 60] {
        let play = Play { seconds: 1800, per_second: 100, ..Play::default() };
        let weather = move |pool: usize, at: u64| match pool {
            0 if (at / SECOND / half).is_multiple_of(2) => ms(100),
            0 => ms(10),
            _ => ms(30),
        };
        let mut most = 0;
        for seed in SEEDS {
            most = most.max(play.run(seed, weather).moves_max());
        }
        // In half an hour: 30 swings of a minute, 900 of a second.
        assert!(most <= 20, "{half} s: {most} moves");
    }
}

#[test]
fn noise_moves_nothing() {
    // Two pools that are alike, answers of half to one and a half times the mean, few of them.
    for per_second in [5, 50, 500] {
        let play = Play { seconds: 1200, per_second, ..Play::default() };
        for seed in SEEDS {
            let moves = play.run(seed, |_, _| ms(20)).moves_max();
            assert!(moves <= 1, "{per_second}/s: {moves}");
        }
    }
}

#[test]
fn a_dead_pool_is_left_at_once() {
    let weather = |pool: usize, at: u64| if pool == 0 && at >= 30 * SECOND { DOWN } else { ms([10, 40][pool]) };
    plays(&Play::default(), weather, |played| {
        assert!(played.between(30, 120).all(|choice| !choice.failed), "not one request more");
        assert!(played.share_for(Reason::Unhealthy, 30, 31) > 0.0);
        assert_eq!(played.share_for(Reason::Only, 31, 120), 1.0);
    });
}

#[test]
fn a_pool_that_returns_gets_its_share_step_by_step() {
    let weather = |pool: usize, at: u64| match (pool, at / SECOND) {
        (0, 30..60) => DOWN,
        (0, _) => ms(10),
        _ => ms(40),
    };
    plays(&Play::default(), weather, |played| {
        let mut before = 0.0;
        for second in 60..100 {
            let share = played.shares(second, second + 1)[0];
            // A second of the ramp is a tenth; workers begin it within a look or two of each other.
            assert!(share <= before + 0.25, "{share} after {before} at {second}");
            before = share.max(before);
        }
        assert!(played.shares(62, 64)[0] < 0.05, "nothing before the hold time is over");
        assert!(played.shares(85, 120)[0] > 0.98);
        assert!(played.share_for(Reason::Ramping, 60, 85) > 0.1);
    });
}

#[test]
fn a_cost_is_honoured() {
    // Twice as fast and three times as dear; then three times as dear and six times as fast.
    let play = Play { costs: vec![1.0, 3.0], ..Play::default() };
    plays(
        &play,
        |pool, _| ms([40, 20][pool]),
        |played| {
            let shares = played.shares(1, 120);
            assert!(shares[0] > 0.98, "{shares:?}");
            assert!(played.share_for(Reason::Cheaper, 10, 120) > 0.98);
        },
    );
    plays(
        &play,
        |pool, _| ms([60, 10][pool]),
        |played| {
            let shares = played.shares(30, 120);
            assert!(shares[1] > 0.98, "{shares:?}");
        },
    );
}

#[test]
fn what_is_too_much_spills_over_and_no_more() {
    // 20 places of 100 ms take 200 requests a second, of 300.
    let near = Weather { places: Some(20), ..ms(100) };
    let play = Play { costs: vec![1.0, 10.0], per_second: 300, ..Play::default() };
    plays(
        &play,
        move |pool, _| if pool == 0 { near } else { ms(100) },
        |played| {
            let shares = played.shares(10, 120);
            assert!((0.58..0.70).contains(&shares[0]), "{shares:?}");
            assert!(played.share_for(Reason::Full, 10, 120) > 0.25);
            assert_eq!(played.moves_max(), 0);
        },
    );
}

#[test]
fn nobody_ready_is_no_reason_to_stop() {
    let play = Play { seconds: 90, ..Play::default() };
    let weather = |pool: usize, at: u64| if (20..40).contains(&(at / SECOND)) { DOWN } else { ms([10, 40][pool]) };
    plays(&play, weather, |played| {
        assert_eq!(played.share_for(Reason::Panic, 20, 40), 1.0);
        let after = played.shares(70, 90);
        assert!(after[0] > 0.9, "{after:?}");
    });
}

#[test]
fn workers_agree() {
    let weather = |pool: usize, at: u64| ms(if pool == 0 && at > 40 * SECOND { 100 } else { [10, 30][pool] });
    for seed in SEEDS {
        let played = Play { workers: 4, ..Play::default() }.run(seed, weather);
        let when: Vec<u64> = played.moves.iter().map(|moves| moves[0].0 / (SECOND / 10)).collect();
        let (first, last) = (when.iter().min().unwrap(), when.iter().max().unwrap());
        assert!(last - first <= 10, "within a second: {when:?}");
        for worker in 0..played.workers {
            let own: Vec<_> = played.between(60, 120).filter(|choice| choice.worker == worker).collect();
            let share = own.iter().filter(|choice| choice.pool == 1).count() as f64 / own.len() as f64;
            assert!(share > 0.97, "worker {worker}: {share}");
        }
    }
}

#[test]
fn nothing_that_must_not_be_sent_twice_explores() {
    let play = Play { repeatable: 0, ..Play::default() };
    plays(
        &play,
        |pool, _| ms([10, 40][pool]),
        |played| {
            assert_eq!(played.shares(0, 120)[0], 1.0);
        },
    );
}

#[test]
fn hours_in_any_weather_and_under_clock_jumps() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let count = 1 + random.below(16) as usize;
        let settings = SelectSettings {
            margin_percent: random.below(200) as u16,
            hold: Duration::from_millis(random.below(9_000)),
            ramp: Duration::from_millis(random.below(20_000)),
            explore_percent: random.below(101) as u8,
        };
        let costs: Vec<f64> =
            (0..count).map(|_| [0.5, 1.0, f64::NAN, -1.0, 0.0, 1e300][random.below(6) as usize]).collect();
        let mut selector = Selector::new(settings, costs);
        let mut pools: Vec<Pool> = (0..count).map(|_| Pool { seen: Seen::default(), weather: ms(10) }).collect();
        let mut now: u64 = 1 << 40;
        for _ in 0..50_000 {
            now = match random.below(100) {
                0 => now.saturating_sub(random.below(100 * SECOND)),
                1 => now + random.below(1000 * SECOND),
                _ => now + random.below(200 * MS),
            };
            let pool = &mut pools[random.below(count as u64) as usize];
            pool.weather.up = random.below(10) > 0;
            pool.weather.places = (random.below(3) == 0).then(|| random.below(5) as u32);
            pool.seen = Seen {
                generation: pool.seen.generation + u64::from(random.below(50) == 0),
                calls: pool.seen.calls.wrapping_add(random.below(100)),
                errors: random.next_u64() >> random.below(64),
                latency_ns: random.next_u64() >> random.below(64),
                in_flight: random.below(10) as u32,
                ..pool.seen
            };
            let of = Pools { pools: &pools };
            let chosen = selector.choose(Now::from_nanos(now), random.below(2) == 0, &of, &mut random);
            assert!(chosen.index < count);
            let ready = |at: usize| of.standing(at) == Standing::Ready;
            let some = (0..count).any(ready);
            assert!(!some || ready(chosen.index), "somebody is ready, and was not asked: {chosen:?}");
            assert!(chosen.reason != Reason::Exploring || ready(chosen.index));
            assert_eq!(selector.next(u16::MAX, &of), None);
        }
    }
}
