//! What a play is made of: traffic, and what befalls endpoints.

use policy::{Policy, SlowStart};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Well,
    /// Refuses at once; what was under way ends with it.
    Dead,
    /// Accepts, and never answers.
    Hanging,
    /// So many times as slow.
    Slow(f64),
    /// Answers every second request with this status.
    Failing(u16),
    /// Ends each connection without an answer.
    Resetting,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Service {
    Exponential,
    /// From half of the mean to one and a half.
    Even,
    /// Of the deviation 1 in the logarithm: its 99.5th percentile is eight times its mean.
    LogNormal,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Traffic {
    /// Poisson arrivals, so many a second.
    Open(f64),
    /// So many clients, who think for 20 ms on average.
    Closed(usize),
}

/// What a worker's clock is ahead, in nanoseconds, at a true time.
pub(crate) type Ahead = fn(usize, u64) -> u64;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) workers: usize,
    pub(crate) endpoints: usize,
    pub(crate) traffic: Traffic,
    pub(crate) seconds: u64,
    pub(crate) service: Service,
    pub(crate) mean_ms: f64,
    /// Share of requests that may be sent twice.
    pub(crate) idempotent: f64,
    /// Whether breakers count any 5xx.
    pub(crate) count_500: bool,
    pub(crate) health: bool,
    pub(crate) outliers: bool,
    pub(crate) slow_start: SlowStart,
    pub(crate) ahead: Ahead,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            workers: 2,
            endpoints: 5,
            traffic: Traffic::Open(500.0),
            seconds: 120,
            service: Service::Exponential,
            mean_ms: 5.0,
            idempotent: 0.8,
            count_500: false,
            health: false,
            outliers: false,
            slow_start: SlowStart::default(),
            ahead: |_, _| 1000 * SECOND,
        }
    }
}
