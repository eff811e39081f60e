//! What outlier detection compares: calls, errors and latencies of an endpoint, counted by each worker for itself.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use policy::{Fault, Outcome, Sums, Verdict};

use super::SingleWriter;

/// One worker's part of it.
#[derive(Debug, Default)]
pub(super) struct JudgedCell {
    calls: AtomicU64,
    errors: AtomicU64,
    latency_nanos: AtomicU64,
    /// The interval in which the longest runs were seen.
    interval: AtomicU32,
    gateway: Run,
    error: Run,
}

/// Errors in a row.
#[derive(Debug, Default)]
struct Run {
    present: AtomicU32,
    longest: AtomicU32,
}

/// What was seen of an endpoint since it joined, and the longest runs of the present interval. What says nothing about the
/// endpoint is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    pub calls: u64,
    /// Of those, 5xx and failures to answer.
    pub errors: u64,
    /// The latencies of the others, added up.
    pub latency_nanos: u64,
    /// 502, 503, 504 and failures to answer, in a row at one worker.
    pub gateway_in_a_row: u32,
    /// Errors of any kind, in a row at one worker.
    pub errors_in_a_row: u32,
}

impl JudgedCell {
    pub(super) fn note(&self, outcome: &Outcome, interval: u32) {
        let verdict = outcome.verdict();
        if verdict == Verdict::Neutral {
            return;
        }
        self.enter(interval);
        let error = outcome.fault() == Some(Fault::Upstream);
        self.calls.change(|count| count + 1);
        self.errors.change(|count| count + u64::from(error));
        if !error {
            let latency = u64::try_from(outcome.latency.as_nanos()).unwrap_or(u64::MAX);
            self.latency_nanos.change(|sum| sum.wrapping_add(latency));
        }
        self.gateway.note(verdict == Verdict::Failure);
        self.error.note(error);
    }

    /// A new interval: runs go on, their records do not. After one without a call nothing goes on.
    fn enter(&self, interval: u32) {
        let before = self.interval.load(Ordering::Relaxed);
        if before != interval {
            self.interval.store(interval, Ordering::Relaxed);
            let next = before.wrapping_add(1) == interval;
            self.gateway.enter(next);
            self.error.enter(next);
        }
    }
}

impl Run {
    fn note(&self, bad: bool) {
        let present = if bad { self.present.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.present.store(present, Ordering::Relaxed);
        self.longest.change(|longest| longest.max(present));
    }

    fn enter(&self, goes_on: bool) {
        self.longest.store(0, Ordering::Relaxed);
        if !goes_on {
            self.present.store(0, Ordering::Relaxed);
        }
    }
}

impl Judged {
    /// Adds what one worker has seen; its runs, if they are of this interval.
    pub(super) fn add(&mut self, cell: &JudgedCell, interval: u32) {
        let JudgedCell { calls, errors, latency_nanos, interval: seen, gateway, error } = cell;
        self.calls += calls.load(Ordering::Relaxed);
        self.errors += errors.load(Ordering::Relaxed);
        self.latency_nanos += latency_nanos.load(Ordering::Relaxed);
        if seen.load(Ordering::Relaxed) == interval {
            self.gateway_in_a_row = self.gateway_in_a_row.max(gateway.longest.load(Ordering::Relaxed));
            self.errors_in_a_row = self.errors_in_a_row.max(error.longest.load(Ordering::Relaxed));
        }
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Sums {
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Sums {
            calls: narrow(self.calls.saturating_sub(before.calls)),
            failures: narrow(self.errors.saturating_sub(before.errors)),
            latency_ns: self.latency_nanos.wrapping_sub(before.latency_nanos),
            gateway_in_a_row: self.gateway_in_a_row,
            failures_in_a_row: self.errors_in_a_row,
        }
    }
}
