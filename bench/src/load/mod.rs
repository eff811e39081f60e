//! Load: which generator, told what, and what it saw. Always a process of its own.

mod browser;
mod h2load;
pub(crate) mod h3;
pub(crate) mod handshakes;
pub(crate) mod own;
mod wrk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value, json};
use xtask::Outcome;

use crate::scenario::Over;

/// What to ask for, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) to: SocketAddr,
    pub(crate) over: Over,
    pub(crate) path: String,
    pub(crate) connections: usize,
    /// Requests at once on each.
    pub(crate) streams: usize,
    pub(crate) seconds: u64,
    /// Bytes of an answer's body.
    pub(crate) body: usize,
    /// One request a connection.
    pub(crate) close: bool,
    /// Requests have a browser's heads.
    pub(crate) browser: bool,
    /// Each resumes an earlier session.
    pub(crate) resumed: bool,
    /// Requests a second, due at times of their own; none for a closed loop.
    pub(crate) rate: Option<f64>,
    /// The certificate that is expected of the proxy, in PEM.
    pub(crate) trust: Option<PathBuf>,
    /// A file with the message of a call.
    pub(crate) message: Option<PathBuf>,
}

/// What a round of load saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Failed connects, reads and writes, time-outs, and answers that were no success.
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    /// Microseconds: the mean; half, 99 %, 99.9 % of the answers took no longer, and the longest. What a generator does not tell is no
    /// number.
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Seen {
    /// Of the microseconds that each answer took.
    pub(crate) fn of(mut times: Vec<f64>, errors: u64, seconds: f64) -> Self {
        times.sort_by(f64::total_cmp);
        let last = times.len().saturating_sub(1);
        let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(last)).copied();
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|share| at(share).unwrap_or(0.0));
        Self { requests: times.len() as u64, errors, seconds, mean, p50, p99, p999, max }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "requests": self.requests, "errors": self.errors, "seconds": self.seconds,
            "mean_us": self.mean, "p50_us": self.p50, "p99_us": self.p99, "p999_us": self.p999, "max_us": self.max,
        })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_f64();
        let count = |name: &str| value.get(name)?.as_u64();
        Some(Self {
            requests: count("requests")?,
            errors: count("errors")?,
            seconds: number("seconds")?,
            mean: number("mean_us")?,
            p50: number("p50_us")?,
            p99: number("p99_us")?,
            p999: number("p999_us")?,
            max: number("max_us")?,
        })
    }
}

/// Which generator, for HTTP/1.1 in the clear and for HTTP/3; the others are each for what they alone can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// wrk: a closed loop that we did not write.
    Wrk,
    /// `bench load`: closed and open loops; `bench h3-load`.
    Own,
    /// h2load, for HTTP/3: a closed loop that we did not write.
    H2load,
}

impl FromStr for Load {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "wrk" => Ok(Self::Wrk),
            "own" => Ok(Self::Own),
            "h2load" => Ok(Self::H2load),
            _ => Err(()),
        }
    }
}

impl Load {
    /// Runs a plan on one CPU and waits for its end.
    pub(crate) fn run(self, plan: &Plan, cpu: usize) -> Outcome<Seen> {
        match self {
            Self::Own if plan.over == Over::H3 => h3::run(plan, cpu),
            _ if plan.over == Over::Tls && plan.close => handshakes::run(plan, cpu),
            _ if plan.over != Over::Plain => h2load::run(plan, cpu),
            Self::Wrk if plan.rate.is_none() => wrk::run(plan, cpu),
            // wrk knows no rate.
            Self::Wrk | Self::Own | Self::H2load => own::run(plan, cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        let seen = Seen::of((1..=1000).rev().map(f64::from).collect(), 3, 2.0);
        assert_eq!((seen.requests, seen.errors, seen.p50, seen.p99, seen.max), (1000, 3, 501.0, 991.0, 1000.0));
        assert_eq!(Seen::of(Vec::new(), 1, 2.0).requests, 0);
    }
}
