//! Pools, compiled.

use std::time::Duration;

use policy::{BreakerSettings, RetryBudgetSettings};

use super::health::{HealthProbe, health};
use super::time;
use crate::limits;
use crate::snapshot::endpoint::Endpoint;
use crate::snapshot::literal::HostPolicy;
use crate::snapshot::schema::{Balance, PoolDoc, ProxyProtocol, RetryCause};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: Box<str>,
    pub endpoints: Box<[Endpoint]>,
    pub balance: Balance,
    pub host: HostPolicy,
    pub breaker: BreakerSettings,
    /// `None`: its endpoints are not probed.
    pub health: Option<HealthProbe>,
    pub reuse: Reuse,
    pub retry: Retry,
    pub timeouts: Timeouts,
    pub proxy_protocol: ProxyProtocol,
    pub resolve_every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    pub idle: Duration,
    /// A worker, an endpoint. Zero: none are kept.
    pub max_idle: u32,
    pub max_requests: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    pub on_connect: bool,
    pub on_reset: bool,
    /// The first one included: at least 1, at most [`limits::TRIES_MAX`].
    pub tries: u8,
    /// For the whole process: a worker takes its share of `per_second_min`.
    pub budget: RetryBudgetSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub head: Duration,
    pub idle: Duration,
}

pub(super) fn pool(doc: &PoolDoc) -> Pool {
    Pool {
        name: doc.name.as_str().into(),
        endpoints: doc.endpoints.iter().map(|endpoint| endpoint.0.clone()).collect(),
        balance: doc.balance,
        host: doc.host.0.clone(),
        breaker: BreakerSettings {
            failures: doc.breaker.failures,
            open_for: time(&doc.breaker.open_for),
            trials: doc.breaker.trials,
            ..BreakerSettings::default()
        },
        health: health(doc),
        reuse: Reuse {
            idle: time(&doc.reuse.idle),
            max_idle: doc.reuse.max_idle,
            max_requests: doc.reuse.max_requests,
        },
        retry: Retry {
            on_connect: doc.retry.on.contains(&RetryCause::Connect),
            on_reset: doc.retry.on.contains(&RetryCause::Reset),
            tries: doc.retry.tries,
            budget: RetryBudgetSettings {
                percent: doc.retry.budget.0.0,
                per_second_min: limits::RETRIES_PER_SECOND_MIN,
            },
        },
        timeouts: Timeouts {
            connect: time(&doc.timeout.connect),
            head: time(&doc.timeout.head),
            idle: time(&doc.timeout.idle),
        },
        proxy_protocol: doc.proxy_protocol,
        resolve_every: time(&doc.resolve_every),
    }
}
