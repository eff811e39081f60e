//! `breaker` of a pool and of a route: when to stop asking.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pool::FallbackDoc;
use crate::snapshot::literal::{Percent, Text, Time};

/// When to stop asking an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerDoc {
    /// Failures in a row that open it: no connection, a reset, a timeout, a broken answer, 502, 503, 504. 0: never for that.
    pub failures: u16,
    /// The share of failures within `window` that opens it too: it sees an endpoint that fails every second time. None unless given.
    pub failure_rate: Option<Text<Percent>>,
    /// The share of calls slower than `slower_than` within `window` that opens it too. None unless given.
    pub slow_rate: Option<Text<Percent>>,
    /// What is slow, for `slow_rate`: up to the answer's head.
    pub slower_than: Option<Text<Time>>,
    /// What the two shares are taken over.
    pub window: Text<Time>,
    /// Calls within `window` below which a share says nothing.
    pub calls_min: u32,
    /// Whether any 5xx is a failure. Off: an endpoint that answers 500 is alive, and a client that found one failing address of
    /// the application must not be able to take it away from everybody else.
    pub count_500: bool,
    /// How long it stays open the first time, ±10 %; each failed trial doubles it, up to 16 times.
    pub open_for: Text<Time>,
    /// Requests let through afterwards, over all workers, to see whether the endpoint is back.
    pub trials: u16,
    /// How long a request waits where breakers leave nobody to ask, before it is refused: trials are made all the while. 0: not at all.
    pub wait: Text<Time>,
}

impl Default for BreakerDoc {
    fn default() -> Self {
        let policy::BreakerSettings { failures, open_for, trials, window, count_500, .. } =
            policy::BreakerSettings::default();
        Self {
            failures,
            failure_rate: None,
            slow_rate: None,
            slower_than: None,
            window: Text(Time(window)),
            calls_min: 20,
            count_500,
            open_for: Text(Time(open_for)),
            trials,
            wait: Text(Time(std::time::Duration::from_millis(500))),
        }
    }
}

/// When to stop asking any endpoint for a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteBreakerDoc {
    /// Whether there is one. Off: endpoints have breakers of their own, and where one of several fails, the others serve. It is for a route whose
    /// requests fail wherever they go, so that clients and endpoints are spared the rest.
    pub enabled: bool,
    /// Requests in a row that fail, their retries included, and open it: no connection, a reset, a timeout, a broken answer, 502, 503, 504,
    /// no endpoint to be had. 0: never for that.
    pub failures: u16,
    /// The share of failures within `window` that opens it too. None unless given.
    pub failure_rate: Option<Text<Percent>>,
    /// The share of requests slower than `slower_than` within `window` that opens it too. None unless given.
    pub slow_rate: Option<Text<Percent>>,
    /// What is slow, for `slow_rate`: the time that the last endpoint took to the head of its answer.
    pub slower_than: Option<Text<Time>>,
    /// What the two shares are taken over.
    pub window: Text<Time>,
    /// Requests within `window` below which a share says nothing.
    pub calls_min: u32,
    /// Whether any 5xx is a failure.
    pub count_500: bool,
    /// How long it stays open the first time, ±10 %; each failed trial doubles it, up to 16 times.
    pub open_for: Text<Time>,
    /// Requests let through afterwards at a time, over all workers, and successes that close it.
    pub trials: u16,
    /// What serves requests while it is open. Unless given, they are answered 503.
    pub fallback: FallbackDoc,
}

impl Default for RouteBreakerDoc {
    fn default() -> Self {
        let BreakerDoc { failures, window, calls_min, count_500, open_for, trials, .. } = BreakerDoc::default();
        Self {
            enabled: false,
            failures,
            failure_rate: None,
            slow_rate: None,
            slower_than: None,
            window,
            calls_min,
            count_500,
            open_for,
            trials,
            fallback: FallbackDoc::default(),
        }
    }
}

impl RouteBreakerDoc {
    /// What opens it and for how long: as a pool's.
    pub fn settings(&self) -> BreakerDoc {
        let Self {
            failures,
            failure_rate,
            slow_rate,
            slower_than,
            window,
            calls_min,
            count_500,
            open_for,
            trials,
            enabled: _,
            fallback: _,
        } = self.clone();
        BreakerDoc {
            failures,
            failure_rate,
            slow_rate,
            slower_than,
            window,
            calls_min,
            count_500,
            open_for,
            trials,
            ..BreakerDoc::default()
        }
    }
}
