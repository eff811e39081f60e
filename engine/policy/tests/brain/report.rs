//! What is measured of a play.

use crate::settings::{MS, SECOND};
use crate::world::{Played, Request};
use policy::hash::{mix, xxh64};
use std::{cell::Cell, env, fmt, ops::Range, panic, sync::Once};

/// The worst of what was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) requests: usize,
    /// Share of requests that succeeded: of all, of those that may be sent twice, and of the others.
    pub(crate) all: f64,
    pub(crate) idempotent: f64,
    pub(crate) others: f64,
    /// Tries ÷ requests, over all and over the worst ten seconds of a thousand requests or more.
    pub(crate) amplification: f64,
    pub(crate) amplification_10s: f64,
    pub(crate) p99_ms: f64,
    /// The longest idempotent request.
    pub(crate) slowest_ms: f64,
    /// The slowest answer of an endpoint.
    pub(crate) slowest_answer_ms: f64,
}

impl Figures {
    /// Of the requests that began in `span`; what tries cost is counted over all.
    pub(crate) fn of(played: &Played, span: Range<u64>) -> Self {
        let begun = |at: u64| played.requests.partition_point(|request| request.begun < at);
        let requests = &played.requests[begun(span.start)..begun(span.end)];
        Self {
            requests: requests.len(),
            all: availability(requests.iter()),
            idempotent: availability(requests.iter().filter(|request| request.idempotent)),
            others: availability(requests.iter().filter(|request| !request.idempotent)),
            amplification: played.tries.len() as f64 / played.requests.len() as f64,
            amplification_10s: amplification_10s(played),
            p99_ms: quantile_ms(requests.iter(), 0.99),
            slowest_ms: quantile_ms(requests.iter().filter(|request| request.idempotent), 1.0),
            slowest_answer_ms: played.slowest_answer as f64 / MS as f64,
        }
    }

    pub(crate) fn worse(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            all: self.all.min(other.all),
            idempotent: self.idempotent.min(other.idempotent),
            others: self.others.min(other.others),
            amplification: self.amplification.max(other.amplification),
            amplification_10s: self.amplification_10s.max(other.amplification_10s),
            p99_ms: self.p99_ms.max(other.p99_ms),
            slowest_ms: self.slowest_ms.max(other.slowest_ms),
            slowest_answer_ms: self.slowest_answer_ms.max(other.slowest_answer_ms),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, all, idempotent, others, amplification, amplification_10s, p99_ms, slowest_ms, .. } = self;
        write!(
            f,
            "{requests:9} {:8.3} {:8.3} {:8.3} {amplification:6.3} {amplification_10s:6.3} {p99_ms:8.1} {slowest_ms:8.0}",
            all * 100.0,
            idempotent * 100.0,
            others * 100.0
        )
    }
}

fn availability<'a>(requests: impl Iterator<Item = &'a Request>) -> f64 {
    let (well, all) = requests.fold((0_u32, 0_u32), |(well, all), request| (well + u32::from(request.well), all + 1));
    f64::from(well) / f64::from(all.max(1))
}

fn quantile_ms<'a>(requests: impl Iterator<Item = &'a Request>, quantile: f64) -> f64 {
    let mut took: Vec<_> = requests.map(|request| request.ended - request.begun).collect();
    let last = took.len().saturating_sub(1);
    if took.is_empty() {
        return 0.0;
    }
    *took.select_nth_unstable((last as f64 * quantile) as usize).1 as f64 / MS as f64
}

/// Tries, counted when they are granted, ÷ requests, in the worst ten seconds of a thousand requests or more.
fn amplification_10s(played: &Played) -> f64 {
    let seconds = played.requests.last().map_or(0, |last| last.begun / SECOND) as usize + 1;
    let (mut retries, mut requests) = (vec![0_u32; seconds], vec![0_u32; seconds]);
    played.requests.iter().for_each(|request| requests[(request.begun / SECOND) as usize] += 1);
    let granted = played.retries.iter().map(|at| (at / SECOND) as usize).filter(|&second| second < seconds);
    granted.for_each(|second| retries[second] += 1);
    let windows = retries.windows(10).zip(requests.windows(10));
    let sums = windows.map(|(retries, requests)| (retries.iter().sum::<u32>(), requests.iter().sum::<u32>()));
    let enough = sums.filter(|&(_, requests)| requests >= 1000);
    enough.map(|(retries, requests)| 1.0 + f64::from(retries) / f64::from(requests)).fold(0.0, f64::max)
}

/// The greatest part of the tries that an endpoint has in any second of `from..to`, stepping by a twentieth; of seconds with
/// 400 tries or more.
pub(crate) fn worst_second(played: &Played, endpoint: usize, from: u64, to: u64) -> f64 {
    let starts = (from..to.saturating_sub(SECOND)).step_by(50 * MS as usize);
    let shares = starts.map(|start| {
        let place = |at: u64| played.tries.partition_point(|&(sent, _)| sent < at);
        let window = &played.tries[place(start)..place(start + SECOND)];
        let mine = window.iter().filter(|&&(_, chosen)| usize::from(chosen) == endpoint).count();
        if window.len() < 400 { 0.0 } else { mine as f64 / window.len() as f64 }
    });
    shares.fold(0.0, f64::max)
}

/// Jain, Chiu, Hawe 1984, over the tries of these endpoints in `from..to`: 1 when all have the same.
pub(crate) fn jain(played: &Played, endpoints: &[usize], from: u64, to: u64) -> f64 {
    let mut counts = vec![0.0; endpoints.len()];
    for &(_, chosen) in played.tries.iter().filter(|(at, _)| (from..to).contains(at)) {
        if let Some(place) = endpoints.iter().position(|&endpoint| endpoint == usize::from(chosen)) {
            counts[place] += 1.0;
        }
    }
    let sum: f64 = counts.iter().sum();
    sum * sum / (counts.len() as f64 * counts.iter().map(|count| count * count).sum::<f64>())
}

/// A seed, and whether it was drawn for this run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    pub(crate) number: u64,
    pub(crate) is_drawn: bool,
}

thread_local! {
    /// How many seeds this test has drawn, and the last one.
    static DRAWN: Cell<(u64, Option<u64>)> = const { Cell::new((0, None)) };
}

/// The seeds to run: `PENSTOCK_SIM_SEEDS` of them from `PENSTOCK_SIM_FROM` on. Unless these are given, the first ones, as many as `default` says, and where there is a
/// `PENSTOCK_SIM_DRAW` (`cargo xtask test --draw` gives the day's number) one that follows from it: another one in each test and scenario. A test that
/// fails says which.
pub(crate) fn seeds(default: u64) -> impl Iterator<Item = Seed> + Clone {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number of seeds"));
    let (from, count) = (number("PENSTOCK_SIM_FROM"), number("PENSTOCK_SIM_SEEDS"));
    let is_asked_for = from.is_some() || count.is_some();
    let drawn = number("PENSTOCK_SIM_DRAW").filter(|_| !is_asked_for).map(draw);
    let from = from.unwrap_or(0);
    let given = (from..from + count.unwrap_or(default)).map(|number| Seed { number, is_drawn: false });
    given.chain(drawn.map(|number| Seed { number, is_drawn: true }))
}

/// Short enough to be typed, and above those that are run by their numbers.
fn draw(lot: u64) -> u64 {
    static TELL: Once = Once::new();
    TELL.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            told(info);
            if let (_, Some(seed)) = DRAWN.get() {
                eprintln!("a seed was drawn, and may be why. To run it alone: {}", replay(seed));
            }
        }));
    });
    let (count, _) = DRAWN.get();
    let seed = 1_000_000 + mix(xxh64(test().as_bytes(), lot) ^ count) % 1_000_000_000;
    DRAWN.set((count + 1, Some(seed)));
    seed
}

fn replay(seed: u64) -> String {
    format!(
        "PENSTOCK_SIM_FROM={seed} PENSTOCK_SIM_SEEDS=1 cargo nextest run -p penstock-policy --test brain {}",
        test()
    )
}

fn test() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}
