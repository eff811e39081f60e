//! What clients saw in a phase, and what the origins saw of it; as a table's line and as JSON.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::echo::client::{End, Seen};
use crate::echo::fleet::Journal;
use crate::echo::id::Id;

/// A request that takes longer was noticed.
const NOTICED_US: u32 = 1_000_000;

/// One kind of request in one phase.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ends {
    pub(crate) requests: u64,
    pub(crate) status: u64,
    pub(crate) connection: u64,
    pub(crate) corrupt: u64,
    pub(crate) hung: u64,
    /// Took over a second, whatever the end.
    pub(crate) over_a_second: u64,
}

impl Ends {
    pub(crate) fn errors(&self) -> u64 {
        self.status + self.connection + self.corrupt + self.hung
    }

    fn add(&mut self, seen: &Seen) {
        self.requests += 1;
        match seen.end {
            End::Answered => {}
            End::Status => self.status += 1,
            End::Connection => self.connection += 1,
            End::Corrupt => self.corrupt += 1,
            End::Hung => self.hung += 1,
        }
        self.over_a_second += u64::from(seen.micros > NOTICED_US);
    }

    fn join(&mut self, other: &Self) {
        self.requests += other.requests;
        self.status += other.status;
        self.connection += other.connection;
        self.corrupt += other.corrupt;
        self.hung += other.hung;
        self.over_a_second += other.over_a_second;
    }

    fn to_json(&self) -> Value {
        json!({
            "requests": self.requests, "status": self.status, "connection": self.connection, "corrupt": self.corrupt,
            "hung": self.hung, "over_a_second": self.over_a_second,
        })
    }
}

/// A phase through one proxy.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    /// What may be asked twice.
    pub(crate) gets: Ends,
    pub(crate) posts: Ends,
    /// POSTs that origins received more than once.
    pub(crate) twice: u64,
    /// What origins received of this phase's requests, again ones included.
    pub(crate) tries: u64,
    /// Milliseconds, both kinds together.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Tally {
    /// One for each of `phases` phases, of which `first` is the first.
    pub(crate) fn of(seen: &[Seen], journals: &[Journal], first: u8, phases: usize) -> Vec<Self> {
        let mut tallies = vec![Self::default(); phases];
        let mut micros: Vec<Vec<u32>> = vec![Vec::new(); phases];
        let place = |id: Id| id.phase().checked_sub(first).map_or(usize::MAX, usize::from);
        for seen in seen {
            let Some((tally, micros)) = tallies.get_mut(place(seen.id)).zip(micros.get_mut(place(seen.id))) else {
                continue;
            };
            if seen.id.is_post() { &mut tally.posts } else { &mut tally.gets }.add(seen);
            micros.push(seen.micros);
        }
        let mut tries: HashMap<Id, u32> = HashMap::new();
        for (id, count) in journals.iter().flat_map(|journal| &journal.tries) {
            *tries.entry(*id).or_default() += count;
        }
        for (id, count) in tries {
            if let Some(tally) = tallies.get_mut(place(id)) {
                tally.tries += u64::from(count);
                tally.twice += u64::from(id.is_post() && count > 1);
            }
        }
        for (tally, micros) in tallies.iter_mut().zip(&mut micros) {
            micros.sort_unstable();
            tally.p50 = quantile(micros, 0.5);
            tally.p99 = quantile(micros, 0.99);
            tally.p999 = quantile(micros, 0.999);
            tally.max = quantile(micros, 1.0);
        }
        tallies
    }

    /// Several phases as one; its quantiles are left out, its maximum is not.
    pub(crate) fn sum<'a>(tallies: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self { p50: f64::NAN, p99: f64::NAN, p999: f64::NAN, ..Self::default() };
        for tally in tallies {
            sum.gets.join(&tally.gets);
            sum.posts.join(&tally.posts);
            sum.twice += tally.twice;
            sum.tries += tally.tries;
            sum.max = sum.max.max(tally.max);
        }
        sum
    }

    /// How often a request was put to an origin, on the average. Below one where requests failed before they reached any.
    pub(crate) fn amplification(&self) -> f64 {
        self.tries as f64 / (self.gets.requests + self.posts.requests).max(1) as f64
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "gets": self.gets.to_json(), "posts": self.posts.to_json(), "posts_received_twice": self.twice,
            "tries": self.tries, "tries_per_request": self.amplification(),
            "p50_ms": self.p50, "p99_ms": self.p99, "p999_ms": self.p999, "max_ms": self.max,
        })
    }
}

/// Milliseconds, of microseconds in order; nothing of none.
fn quantile(micros: &[u32], share: f64) -> f64 {
    let rank = (share * micros.len() as f64).ceil() as usize;
    micros.get(rank.saturating_sub(1)).map_or(0.0, |micros| f64::from(*micros) / 1e3)
}

fn milliseconds(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.1}") }
}

/// The lines of several proxies below each other.
pub(crate) fn table(rows: &[(&str, &Tally)]) -> String {
    let mut text = format!(
        "  {:<11}|{:>8} {:>6} {:>6} {:>6} {:>5} {:>6} |{:>7} {:>5} {:>5} {:>5} {:>5} {:>6} |{:>7} {:>7} {:>8} {:>8} |{:>6}\n",
        "",
        "GETs",
        "5xx",
        "conn",
        "wrong",
        "hung",
        ">1s",
        "POSTs",
        "5xx",
        "conn",
        "wrong",
        "hung",
        "twice",
        "p50 ms",
        "p99",
        "p99.9",
        "max",
        "tries"
    );
    for (name, tally) in rows {
        let (gets, posts) = (&tally.gets, &tally.posts);
        text += &format!(
            "  {name:<11}|{:>8} {:>6} {:>6} {:>6} {:>5} {:>6} |{:>7} {:>5} {:>5} {:>5} {:>5} {:>6} |{:>7} {:>7} {:>8} {:>8} |{:>6.3}\n",
            gets.requests,
            gets.status,
            gets.connection,
            gets.corrupt,
            gets.hung,
            gets.over_a_second,
            posts.requests,
            posts.status,
            posts.connection,
            posts.corrupt,
            posts.hung,
            tally.twice,
            milliseconds(tally.p50),
            milliseconds(tally.p99),
            milliseconds(tally.p999),
            milliseconds(tally.max),
            tally.amplification()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_go_to_their_phase_and_kind() {
        let seen = |phase, post, number, end, micros| {
            let id = Id::new(phase, post, 0, number);
            Seen { id, end, micros, ended: Duration::ZERO }
        };
        let all = [
            seen(0, false, 1, End::Answered, 2_000),
            seen(1, false, 2, End::Hung, 10_000_000),
            seen(1, true, 3, End::Status, 1_000),
            seen(1, false, 4, End::Answered, 4_000),
        ];
        // Two origins: each saw the POST once.
        let tries = [HashMap::from([(all[0].id, 1), (all[1].id, 3), (all[2].id, 1)]), HashMap::from([(all[2].id, 1)])];
        let journals = tries.map(|tries| Journal { tries, connections: 1 });
        let tallies = Tally::of(&all, &journals, 0, 2);
        assert_eq!((tallies[0].gets.requests, tallies[0].gets.errors(), tallies[0].tries), (1, 0, 1));
        assert_eq!((tallies[1].gets.requests, tallies[1].gets.hung, tallies[1].gets.over_a_second), (2, 1, 1));
        assert_eq!((tallies[1].posts.status, tallies[1].twice, tallies[1].tries), (1, 1, 5));
        assert_eq!((tallies[1].p50, tallies[1].max), (4.0, 10_000.0));
        assert_eq!(tallies[1].amplification(), 5.0 / 3.0);
        assert_eq!(Tally::of(&all, &journals, 1, 1), tallies[1..]);
        let sum = Tally::sum(&tallies);
        assert_eq!((sum.gets.requests, sum.posts.requests, sum.tries, sum.max), (3, 1, 6, 10_000.0));
    }

    #[test]
    fn quantiles_of_few() {
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[1_000], 0.999), 1.0);
        assert_eq!(quantile(&[1_000, 2_000, 3_000, 4_000], 0.5), 2.0);
    }
}
