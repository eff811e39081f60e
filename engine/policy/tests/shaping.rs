//! Rates over time: what a pacer lets through in any window, with timers as they really are.

use policy::{Flows, Grant, Now, Pacer, Random, Turn, shape};
use std::collections::VecDeque;

const SECOND: u64 = 1_000_000_000;
const START: Now = Now::from_secs(100);

/// What was sent, and when; looks at it through every window of a second.
#[derive(Default)]
struct Log {
    sent: Vec<(Now, u64)>,
}

impl Log {
    fn add(&mut self, now: Now, units: u64) {
        self.sent.push((now, units));
    }

    /// The least and the most in any second between `from` and `to`.
    fn extremes(&self, from: Now, to: Now) -> (u64, u64) {
        let (mut window, mut sum) = (VecDeque::new(), 0);
        let (mut least, mut most) = (u64::MAX, 0);
        for &(now, units) in self.sent.iter().filter(|(now, _)| (from..to).contains(now)) {
            // Just before this one, the window is at its emptiest; just after, at its fullest.
            while let Some(&(then, old)) = window.front()
                && now.nanos_since(then) >= SECOND
            {
                sum -= old;
                window.pop_front();
            }
            if now.nanos_since(from) >= SECOND {
                least = least.min(sum);
            }
            sum += units;
            window.push_back((now, units));
            most = most.max(sum);
        }
        (least, most)
    }

    fn total(&self) -> u64 {
        self.sent.iter().map(|(_, units)| units).sum()
    }
}

/// A timer of 1 ms ticks that fires up to `late_max_ns` late.
fn wake(until: Now, late_max_ns: u64, random: &mut Random) -> Now {
    let tick = until.nanos().div_ceil(1_000_000) * 1_000_000;
    Now::from_nanos(tick + random.below(late_max_ns))
}

#[track_caller]
fn within(found: (u64, u64), rate: u64, percent: f64, slack: u64) {
    let (least, most) = (found.0 as f64, found.1 as f64);
    let (low, high) = (rate as f64 * (1.0 - percent / 100.0), rate as f64 * (1.0 + percent / 100.0));
    assert!(least >= low - slack as f64 && most <= high + slack as f64, "{found:?} for {rate}");
}

#[test]
fn bytes_hold_within_two_percent_of_any_second() {
    for seed in 0..10 {
        for rate in [20_000, 140_000, 1_000_000, 12_500_000, 1_250_000_000] {
            let (mut pacer, mut random, mut log) = (Pacer::bytes(rate), Random::new(seed), Log::default());
            let mut now = START;
            while now < START.plus_nanos(10 * SECOND) {
                match pacer.grant(now, 1 + random.below(4 * pacer.quantum())) {
                    Grant::Units(units) => log.add(now, units),
                    Grant::Until(time) => now = wake(time, 5_000_000, &mut random),
                }
            }
            within(log.extremes(START.plus_nanos(SECOND), now), rate, 2.0, 0);
            let mean = log.total() as f64 / (now.nanos_since(START) as f64 / SECOND as f64);
            assert!((mean / rate as f64 - 1.0).abs() < 0.003, "no drift: {mean} for {rate}");
        }
    }
}

#[test]
fn requests_hold_to_one_request() {
    for seed in 0..10 {
        for rate in [1, 3, 50, 997, 20_000] {
            let (mut pacer, mut random, mut log) = (Pacer::requests(rate), Random::new(seed), Log::default());
            let (mut now, end) = (START, START.plus_nanos(20 * SECOND));
            while now < end {
                match pacer.grant(now, 1) {
                    Grant::Units(units) => log.add(now, units),
                    Grant::Until(time) => now = wake(time, 3_000_000, &mut random),
                }
            }
            within(log.extremes(START.plus_nanos(SECOND), end), rate, 2.0, 1);
            assert!(log.total().abs_diff(rate * 20) <= rate / 50 + 2, "no drift: {} for {rate}", log.total());
        }
    }
}

#[test]
fn nothing_is_lost_or_won_by_looking_often() {
    let rate = 1_000_003;
    let mut pacer = Pacer::bytes(rate);
    let (mut now, mut sent) = (START, 0);
    for _ in 0..3_000_000 {
        now = now.plus_nanos(333);
        if let Grant::Units(units) = pacer.grant(now, 1) {
            sent += units;
        }
    }
    let wanted = (now.nanos_since(START) as f64 / SECOND as f64 * rate as f64) as u64;
    assert!((wanted..=wanted + 10_001).contains(&sent), "the depth at most, once: {sent} for {wanted}");
}

#[test]
fn flows_share_evenly_and_leave_the_rest_to_one_another() {
    for seed in 0..10 {
        let (rate, mut random) = (10_000_000_u64, Random::new(seed));
        let mut flows = Flows::new(Pacer::bytes(rate), 5);
        let (mut now, mut log, mut by_flow) = (START, Log::default(), [0_u64; 5]);
        // Flow 0 wants a twentieth of the rate, the others all they can get, in pieces of all sizes.
        let (mut small, end) = (START, START.plus_nanos(10 * SECOND));
        while now < end {
            for flow in 1..5 {
                // A piece replaces what is left of the one before.
                assert!(flows.want(flow, 1 + random.below(200_000)));
            }
            let earned = now.nanos_since(small) * (rate / 20) / SECOND;
            if earned > 5000 {
                assert!(flows.want(0, earned));
                small = now;
            }
            match flows.next(now) {
                Turn::Units { flow, units } => {
                    by_flow[flow as usize] += units;
                    log.add(now, units);
                }
                Turn::Until(time) => now = wake(time, 4_000_000, &mut random),
                Turn::Idle => panic!("four always want"),
            }
        }
        within(log.extremes(START.plus_nanos(SECOND), end), rate, 2.0, 0);
        let small = by_flow[0] as f64 / 10.0 / rate as f64;
        assert!((0.045..0.0505).contains(&small), "{small}");
        for &flow in &by_flow[1..] {
            let part = flow as f64 / 10.0 / rate as f64;
            assert!((part / (0.95 / 4.0) - 1.0).abs() < 0.03, "seed {seed}: {part} of {by_flow:?}");
        }
    }
}

/// Two workers, one rate divided anew every 100 ms. `wants(worker, second)`: whether it has something to send.
fn two_workers(rate: u64, seed: u64, wants: impl Fn(usize, u64) -> bool) -> Log {
    let mut random = Random::new(seed);
    let mut pacers = [Pacer::bytes(rate / 2), Pacer::bytes(rate - rate / 2)];
    let mut wakes = [START; 2];
    let (mut demands, mut period) = ([0_u64; 2], START);
    let mut log = Log::default();
    loop {
        let worker = usize::from(wakes[1] < wakes[0]);
        let now = wakes[worker];
        if now >= START.plus_nanos(20 * SECOND) {
            return log;
        }
        if now >= period {
            let mut shares = [0; 2];
            shape::split(rate, &demands, &mut shares);
            assert_eq!(shares.iter().sum::<u64>(), rate);
            for (pacer, share) in pacers.iter_mut().zip(shares) {
                pacer.set_rate(now, share);
            }
            // The idle one is asked again; the other one's timer was for another rate.
            wakes = wakes.map(|wake| wake.min(now.plus_nanos(1_000_000)));
            (demands, period) = ([0; 2], period.plus_nanos(SECOND / 10));
            continue;
        }
        if !wants(worker, now.nanos_since(START) / SECOND) {
            wakes[worker] = now.plus_nanos(2_000_000);
            continue;
        }
        // It could send a whole rate's worth: its demand is that it wants at all.
        demands[worker] = rate / 10;
        match pacers[worker].grant(now, u64::MAX) {
            Grant::Units(units) => log.add(now, units),
            Grant::Until(time) => wakes[worker] = wake(time, 3_000_000, &mut random),
        }
    }
}

#[test]
fn two_workers_hold_one_rate_together() {
    for seed in 0..10 {
        for rate in [1_000_000, 50_000_000] {
            let end = START.plus_nanos(20 * SECOND);
            let settled = START.plus_nanos(2 * SECOND);
            within(two_workers(rate, seed, |_, _| true).extremes(settled, end), rate, 2.0, 0);
            within(two_workers(rate, seed, |worker, _| worker == 1).extremes(settled, end), rate, 2.0, 0);
            // Demand that moves to and fro: never more, and a period of the rate less in a second with a move in it.
            let moving = two_workers(rate, seed, |worker, second| second as usize % 2 == worker);
            let (least, most) = moving.extremes(settled, end);
            assert!(most <= rate + rate / 50, "{most} for {rate}");
            assert!(least >= rate * 85 / 100, "{least} for {rate}");
        }
    }
}

#[test]
fn any_rate_and_any_clock() {
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let mut draw = || random.next_u64() >> random.below(64);
        let mut pacer = Pacer::bytes(draw());
        for _ in 0..200 {
            let (now, wanted) = (Now::from_nanos(draw()), draw());
            match pacer.grant(now, wanted) {
                Grant::Units(units) => assert!(units <= wanted && units <= pacer.quantum()),
                Grant::Until(time) => assert!(time > now || now == Now::from_nanos(u64::MAX)),
            }
            match draw() % 8 {
                0 => pacer.set_rate(now, draw()),
                1 => pacer.put_back(draw()),
                _ => {}
            }
        }
    }
}
