//! When endpoints are not asked, and what stands in for them, compiled.

use policy::BreakerSettings;
use policy::breaker::{RateTrip, SlowTrip};

use super::route::{Fixed, Target, fixed};
use super::time;
use crate::snapshot::Files;
use crate::snapshot::schema::{BreakerDoc, FallbackDoc, RouteBreakerDoc};

/// The breaker of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteBreaker {
    pub settings: BreakerSettings,
    /// What serves requests while it is open; `None`: a refusal.
    pub fallback: Option<Fallback>,
}

/// What stands in for a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    Pool(Target),
    Answer(Fixed),
}

pub(super) fn breaker(doc: &BreakerDoc) -> BreakerSettings {
    let slow = doc.slow_rate.as_ref().zip(doc.slower_than.as_ref());
    BreakerSettings {
        failures: doc.failures,
        count_500: doc.count_500,
        rate: doc.failure_rate.as_ref().map(|rate| RateTrip { percent: rate.0.0, calls_min: doc.calls_min }),
        slow: slow.map(|(rate, slower_than)| SlowTrip {
            slower_than: time(slower_than),
            percent: rate.0.0,
            calls_min: doc.calls_min,
        }),
        window: time(&doc.window),
        open_for: time(&doc.open_for),
        trials: doc.trials,
    }
}

pub(super) fn route_breaker(
    doc: &RouteBreakerDoc,
    target: impl Fn(&str) -> Target,
    files: &Files<'_>,
) -> Option<RouteBreaker> {
    let fallback = || fallback(&doc.fallback, target, files);
    doc.enabled.then(|| RouteBreaker { settings: breaker(&doc.settings()), fallback: fallback() })
}

/// `target` knows the pools, once they are there.
pub(super) fn fallback(doc: &FallbackDoc, target: impl FnOnce(&str) -> Target, files: &Files<'_>) -> Option<Fallback> {
    match (&doc.pool, doc.status) {
        (Some(name), _) => Some(Fallback::Pool(target(name))),
        (None, Some(status)) => Some(Fallback::Answer(fixed(&doc.answer(), status, files))),
        (None, None) => None,
    }
}
