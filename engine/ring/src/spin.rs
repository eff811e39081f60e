//! Whether to spin before blocking. A wake-up costs a halt, an interrupt and a schedule, which may be more than a short wait; while a worker
//! sleeps, though, more work gathers for one turn. Which of the two is cheaper depends on the machine and on what its peers do, so it is measured:
//! [`Auto`](SpinPolicy::Auto) tries both by turns and goes on with what takes less CPU time for the same work (docs/decisions/0058).

use std::time::Duration;

/// How a ring waits when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SpinPolicy {
    /// Spin only while waits have lately been short, and where that costs no more CPU time than to sleep.
    #[default]
    Auto,
    /// Always block at once.
    Off,
    /// Spin this long before each block.
    Fixed(Duration),
}

/// The longest spin of `Auto`. A halt, interrupt and wake-up of a virtual core take 30 to 60 µs; a wait longer than twice that is cheaper slept
/// through.
const WINDOW_NANOS: u64 = 100_000;
/// The mean wait up to which both ways are tried. What takes 20 µs awake takes 70 to 100 asleep, and some of it longer: to look no further would be to
/// stay with whatever sleeps.
const SHORT_NANOS: u64 = 3 * WINDOW_NANOS;
/// How long one way to wait is tried before the other one's next turn.
const PERIOD_NANOS: u64 = 3_000_000;
/// The order of a trial: whether to spin in each period. Either way comes as often first as second, so that a load which grows or shrinks
/// meanwhile weighs on both alike.
const TRIAL: [bool; 8] = [true, false, false, true, false, true, true, false];
/// A trial in which either way did less than this says nothing.
const WORK_LEAST: u64 = 32;
/// How long a verdict holds at first. Twice as long each time that it is confirmed, up to `HOLD_MAX_NANOS`: trials are then one part in 700.
const HOLD_NANOS: u64 = 1_000_000_000;
const HOLD_MAX_NANOS: u64 = 16 * HOLD_NANOS;
/// How often it is asked meanwhile whether the load is still the one that was judged.
const GLANCE_NANOS: u64 = 100_000_000;
/// What spinning may cost more than sleeping, as a part of it: noise.
const DEARER: u128 = 50;
/// The same where half as much again gets done in the same time, for a client that waits for its answer has that much sooner what it waits for.
const SOONER_DEARER: u128 = 4;

/// What a worker has used and done since its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Nanoseconds of any clock that only grows.
    pub(crate) time: u64,
    /// CPU time of the thread, in nanoseconds.
    pub(crate) cpu: u64,
    /// What it has moved, in units that do not depend on how the worker waits.
    pub(crate) work: u64,
}

impl Tally {
    fn since(self, earlier: Self) -> Self {
        Self { time: self.time - earlier.time, cpu: self.cpu - earlier.cpu, work: self.work - earlier.work }
    }

    fn and(self, other: Self) -> Self {
        Self { time: self.time + other.time, cpu: self.cpu + other.cpu, work: self.work + other.work }
    }
}

/// What `Auto` is about.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Waits are long, or have just become short: nothing has been tried.
    Untried,
    /// In this period of a trial; what sleeping and spinning took and did in those before it.
    Trying { period: usize, slept: Tally, spun: Tally },
    /// A verdict, of when, and the work of a glance then: it holds until `hold` is over, or until the load is another one.
    Decided { at: u64, rate: Option<u64> },
}

/// The state of the decision.
#[derive(Clone, Debug)]
pub(crate) struct Spin {
    policy: SpinPolicy,
    /// A moving average of how long waits have been.
    wait_nanos: u64,
    phase: Phase,
    /// What `Auto` does now, where waits are short.
    spins: bool,
    /// When to look at the tally again, and what it was last time.
    look_at: u64,
    looked: Tally,
    verdict: Option<bool>,
    hold: u64,
}

impl Spin {
    pub(crate) fn new(policy: SpinPolicy) -> Self {
        // Starts as if idle: the first waits block.
        Self {
            policy,
            wait_nanos: 10 * WINDOW_NANOS,
            phase: Phase::Untried,
            spins: false,
            look_at: 0,
            looked: Tally::default(),
            verdict: None,
            hold: HOLD_NANOS,
        }
    }

    /// Whether to spin before this wait.
    #[inline]
    pub(crate) fn worthwhile(&self) -> bool {
        match self.policy {
            SpinPolicy::Auto => self.spins && self.waits_are_short(),
            SpinPolicy::Off => false,
            SpinPolicy::Fixed(_) => true,
        }
    }

    /// The longest spin, in nanoseconds.
    #[inline]
    pub(crate) fn window(&self) -> u64 {
        match self.policy {
            SpinPolicy::Auto => WINDOW_NANOS,
            SpinPolicy::Off => 0,
            SpinPolicy::Fixed(span) => span.as_nanos() as u64,
        }
    }

    /// A wait, spun or slept, took this long.
    #[inline]
    pub(crate) fn waited(&mut self, nanos: u64) {
        // One long wait must not end the spinning of a busy worker, nor one short one begin it: weight 1/8, and a wait
        // counts at most ten windows.
        let wait = nanos.min(10 * WINDOW_NANOS);
        self.wait_nanos = self.wait_nanos - self.wait_nanos / 8 + wait / 8;
    }

    /// Before a wait at `now`, by the tally's clock: looks at what the worker has used and done, when that is due.
    #[inline]
    pub(crate) fn consider(&mut self, now: u64, tally: impl FnOnce() -> Tally) {
        if now >= self.look_at && self.policy == SpinPolicy::Auto {
            self.look(now, tally);
        }
    }

    fn waits_are_short(&self) -> bool {
        self.wait_nanos < SHORT_NANOS
    }

    fn look(&mut self, now: u64, tally: impl FnOnce() -> Tally) {
        if !self.waits_are_short() {
            // Whoever is idle sleeps, and what was found of another load is no longer so.
            self.phase = Phase::Untried;
            self.verdict = None;
            self.look_at = now + PERIOD_NANOS;
            return;
        }
        let tally = tally();
        let done = tally.since(std::mem::replace(&mut self.looked, tally));
        match self.phase {
            Phase::Untried => self.try_both(now),
            Phase::Trying { period, slept, spun } => {
                let (slept, spun) = if TRIAL[period] { (slept, spun.and(done)) } else { (slept.and(done), spun) };
                match TRIAL.get(period + 1) {
                    Some(&spins) => {
                        self.phase = Phase::Trying { period: period + 1, slept, spun };
                        self.spins = spins;
                        self.look_at = now + PERIOD_NANOS;
                    }
                    None => self.decide(now, slept, spun),
                }
            }
            Phase::Decided { at, rate } => {
                let now_rate = done.work.saturating_mul(GLANCE_NANOS) / done.time.max(1);
                let changed = rate.is_some_and(|rate| now_rate > rate.saturating_mul(2) || now_rate < rate / 2);
                let held = now - at;
                if held >= self.hold || (changed && held >= HOLD_NANOS) {
                    self.verdict = self.verdict.filter(|_| !changed);
                    self.try_both(now);
                } else {
                    self.phase = Phase::Decided { at, rate: rate.or(Some(now_rate)) };
                    self.look_at = now + GLANCE_NANOS;
                }
            }
        }
    }

    fn try_both(&mut self, now: u64) {
        self.phase = Phase::Trying { period: 0, slept: Tally::default(), spun: Tally::default() };
        self.spins = TRIAL[0];
        self.look_at = now + PERIOD_NANOS;
    }

    fn decide(&mut self, now: u64, slept: Tally, spun: Tally) {
        // Time ÷ work of the one against the other's, without a division.
        let against = |time: u64, work: u64| u128::from(time) * u128::from(work);
        let (spun_cost, slept_cost) = (against(spun.cpu, slept.work), against(slept.cpu, spun.work));
        let is_sooner = 3 * against(spun.time, slept.work) <= 2 * against(slept.time, spun.work);
        let dearer = if is_sooner { SOONER_DEARER } else { DEARER };
        let told = slept.work.min(spun.work) >= WORK_LEAST;
        self.spins = told && spun_cost <= slept_cost + slept_cost / dearer;
        let confirmed = self.verdict.replace(self.spins) == Some(self.spins);
        self.hold = if confirmed { (self.hold * 2).min(HOLD_MAX_NANOS) } else { HOLD_NANOS };
        self.phase = Phase::Decided { at: now, rate: None };
        self.look_at = now + GLANCE_NANOS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A load as a worker sees it: how long a wait lasts, how much work it brings, and what CPU time that and the wait itself take, in
    /// nanoseconds, where it spins and where it sleeps.
    #[derive(Clone, Copy)]
    struct Way {
        wait: u64,
        brings: u64,
        each: u64,
        waiting: u64,
    }

    struct Load {
        spun: Way,
        slept: Way,
    }

    /// One client that waits for each answer: to sleep costs more CPU time than the wait lasts, and brings no more.
    const ONE: Load = Load {
        spun: Way { wait: 18_000, brings: 1, each: 8_000, waiting: 18_000 },
        slept: Way { wait: 70_000, brings: 1, each: 8_000, waiting: 29_000 },
    };
    /// Many of them, with time to spare: what comes while the worker sleeps is done in one turn.
    const MANY: Load = Load {
        spun: Way { wait: 28_000, brings: 6, each: 8_000, waiting: 28_000 },
        slept: Way { wait: 60_000, brings: 14, each: 7_000, waiting: 20_000 },
    };
    const IDLE: Load = Load {
        spun: Way { wait: 9_000_000, brings: 1, each: 9_000, waiting: 100_000 },
        slept: Way { wait: 9_000_000, brings: 1, each: 9_000, waiting: 29_000 },
    };

    /// Runs a worker under `load` for so long; returns the share of its waits in which it spun.
    struct Worker {
        spin: Spin,
        now: u64,
        tally: Tally,
        looks: u64,
    }

    impl Worker {
        fn new(policy: SpinPolicy) -> Self {
            Self { spin: Spin::new(policy), now: 5, tally: Tally::default(), looks: 0 }
        }

        fn run(&mut self, load: &Load, nanos: u64) -> f64 {
            self.run_disturbed(load, nanos, u64::MAX)
        }

        /// As `run`; of so many waits one lasts a millisecond.
        fn run_disturbed(&mut self, load: &Load, nanos: u64, disturbed: u64) -> f64 {
            let (until, mut spun, mut waits) = (self.now + nanos, 0_u32, 0_u32);
            while self.now < until {
                let (tally, looks) = (Tally { time: self.now, ..self.tally }, &mut self.looks);
                self.spin.consider(self.now, || {
                    *looks += 1;
                    tally
                });
                let spins = self.spin.worthwhile();
                let way = if spins { load.spun } else { load.slept };
                (spun, waits) = (spun + u32::from(spins), waits + 1);
                let wait = if u64::from(waits).is_multiple_of(disturbed) { MS } else { way.wait };
                self.spin.waited(wait);
                self.now += wait + way.brings * way.each;
                self.tally.cpu += way.waiting + way.brings * way.each;
                self.tally.work += way.brings;
            }
            f64::from(spun) / f64::from(waits)
        }
    }

    #[test]
    fn what_costs_less_is_found() {
        let mut worker = Worker::new(SpinPolicy::Auto);
        worker.run(&ONE, 100 * MS);
        let share = worker.run(&ONE, 60_000 * MS);
        assert!(share > 0.99, "one client: spun in {share} of waits");

        let mut worker = Worker::new(SpinPolicy::Auto);
        worker.run(&MANY, 100 * MS);
        let share = worker.run(&MANY, 60_000 * MS);
        assert!(share < 0.02, "many clients: spun in {share} of waits");
    }

    #[test]
    fn who_waits_for_an_answer_has_it_sooner_for_a_little_more() {
        let cheap = |waiting| Load { slept: Way { waiting, ..ONE.slept }, ..ONE };
        // Of what a sleep costs: 118 %, and 144 %. Three times as much gets done.
        for (waiting, spins) in [(14_000, true), (10_000, false)] {
            let mut worker = Worker::new(SpinPolicy::Auto);
            worker.run(&cheap(waiting), 100 * MS);
            let share = worker.run(&cheap(waiting), 10_000 * MS);
            assert_eq!(share > 0.5, spins, "{waiting}: spun in {share} of waits");
        }
    }

    #[test]
    fn a_disturbed_worker_finds_it_too() {
        const TIRED: Load = Load { slept: Way { wait: 100_000, ..ONE.slept }, ..ONE };
        let mut worker = Worker::new(SpinPolicy::Auto);
        worker.run_disturbed(&TIRED, 1_000 * MS, 30);
        let share = worker.run_disturbed(&TIRED, 60_000 * MS, 30);
        assert!(share > 0.95, "spun in {share} of waits");
    }

    #[test]
    fn another_load_is_tried_anew_before_the_verdict_is_over() {
        let mut worker = Worker::new(SpinPolicy::Auto);
        worker.run(&ONE, 60_000 * MS);
        // By then a verdict holds for sixteen seconds; half of them were no other load's.
        worker.run(&MANY, 1_300 * MS);
        let share = worker.run(&MANY, 500 * MS);
        assert!(share < 0.1, "many clients after one: {share}");
        worker.run(&ONE, 1_300 * MS);
        let share = worker.run(&ONE, 500 * MS);
        assert!(share > 0.9, "one after many: {share}");
    }

    #[test]
    fn whoever_is_idle_sleeps_and_is_not_looked_at() {
        let mut worker = Worker::new(SpinPolicy::Auto);
        assert!(worker.run(&IDLE, 10_000 * MS) == 0.0 && worker.looks == 0);
        worker.run(&ONE, 1_000 * MS);
        worker.run(&IDLE, 30 * MS);
        let looks = worker.looks;
        assert!(worker.run(&IDLE, 10_000 * MS) == 0.0 && worker.looks == looks);
    }

    #[test]
    fn a_steady_load_is_seldom_looked_at() {
        let mut worker = Worker::new(SpinPolicy::Auto);
        worker.run(&MANY, 60_000 * MS);
        let looks = worker.looks;
        worker.run(&MANY, 16_000 * MS);
        assert!(worker.looks - looks <= 160 + 2 * (TRIAL.len() as u64 + 1), "{} looks in 16 s", worker.looks - looks);
    }

    #[test]
    fn a_trial_with_next_to_no_work_decides_to_sleep() {
        // Short waits that bring nothing: timers, for example.
        const NOTHING: Load = Load { spun: Way { brings: 0, ..ONE.spun }, slept: Way { brings: 0, ..ONE.slept } };
        let mut worker = Worker::new(SpinPolicy::Auto);
        worker.run(&NOTHING, 100 * MS);
        let share = worker.run(&NOTHING, 10_000 * MS);
        assert!(share < 0.05, "{share}");
    }

    #[test]
    fn what_is_fixed_is_not_tried() {
        let mut worker = Worker::new(SpinPolicy::Off);
        assert!(worker.run(&ONE, 5_000 * MS) == 0.0 && worker.looks == 0);
        let mut worker = Worker::new(SpinPolicy::Fixed(Duration::from_micros(50)));
        assert!(worker.run(&MANY, 5_000 * MS) == 1.0 && worker.looks == 0);
        assert_eq!(worker.spin.window(), 50_000);
    }
}
