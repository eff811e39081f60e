//! Pools, compiled.

use std::time::Duration;

use policy::retry::{RetryCauses, StatusSet};
use policy::{Backoff, BreakerSettings, HedgeAfter, HedgeSettings, OutlierSettings, RetryBudgetSettings, RetryPolicy};

use super::balance::{Division, division};
use super::breaker::{Fallback, breaker};
use super::health::{HealthProbe, health};
use super::outlier::outlier;
use super::tls::{PoolTls, pool_tls};
use super::{Admission, qos, time};
use crate::limits;
use crate::snapshot::endpoint::Endpoint;
use crate::snapshot::literal::HostPolicy;
use crate::snapshot::repetition::{CopyAfter, PerTry, RetryCause};
use crate::snapshot::schema::{
    Balance, FallbackDoc, HedgeDoc, PoolDoc, PoolProtocol, ProxyProtocol, RetryDoc, SameHost,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: Box<str>,
    pub endpoints: Box<[Endpoint]>,
    pub protocol: PoolProtocol,
    /// `None`: they are met without TLS.
    pub tls: Option<PoolTls>,
    pub balance: Balance,
    pub division: Division,
    pub host: HostPolicy,
    pub breaker: BreakerSettings,
    /// How long a request waits where breakers leave nobody to ask. Zero: not at all.
    pub wait: Duration,
    /// What becomes of a request that no endpoint can have; `None`: a refusal.
    pub fallback: Option<Fallback>,
    /// `None`: its endpoints are not probed.
    pub health: Option<HealthProbe>,
    /// `None`: they are not compared with each other.
    pub outlier: Option<OutlierSettings>,
    pub reuse: Reuse,
    pub retry: Retry,
    pub hedge: Option<HedgeSettings>,
    pub admission: Admission,
    pub timeouts: Timeouts,
    pub proxy_protocol: ProxyProtocol,
    pub same_host: SameHost,
    pub resolve_every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    pub idle: Duration,
    /// A worker, an endpoint. Zero: none are kept.
    pub max_idle: u32,
    pub max_requests: Option<u32>,
    pub max_age: Option<Duration>,
    /// Kept ready, a worker, an endpoint.
    pub warm: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Its `tries` is at least 1, at most [`limits::TRIES_MAX`].
    pub policy: RetryPolicy,
    /// Bytes of a request's content kept for another try.
    pub buffer: usize,
    /// For the whole process: a worker takes its share of `per_second_min`.
    pub budget: RetryBudgetSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub head: Duration,
    pub silent: Duration,
    pub idle: Duration,
}

pub(super) fn pool(doc: &PoolDoc) -> Pool {
    Pool {
        name: doc.name.as_str().into(),
        endpoints: doc.endpoints.iter().map(|endpoint| endpoint.0.clone()).collect(),
        protocol: doc.protocol,
        tls: pool_tls(doc),
        balance: doc.balance,
        division: division(doc),
        host: doc.host.0.clone(),
        breaker: breaker(&doc.breaker),
        wait: if doc.fallback == FallbackDoc::default() { time(&doc.breaker.wait) } else { Duration::ZERO },
        fallback: None,
        health: health(doc),
        outlier: outlier(&doc.outlier),
        reuse: Reuse {
            idle: time(&doc.reuse.idle),
            max_idle: doc.reuse.max_idle,
            max_requests: doc.reuse.max_requests,
            max_age: doc.reuse.max_age.as_ref().map(time),
            warm: doc.reuse.warm,
        },
        retry: retry(&doc.retry),
        hedge: hedge(&doc.hedge),
        admission: qos::admission(doc),
        timeouts: Timeouts {
            connect: time(&doc.timeout.connect),
            head: time(&doc.timeout.head),
            silent: time(&doc.timeout.silent),
            idle: time(&doc.timeout.idle),
        },
        proxy_protocol: doc.proxy_protocol,
        same_host: doc.same_host,
        resolve_every: time(&doc.resolve_every),
    }
}

fn hedge(doc: &HedgeDoc) -> Option<HedgeSettings> {
    let after = match doc.after.as_ref()?.0 {
        CopyAfter::Share(share) => HedgeAfter::Permille(u16::from(share.0) * 10),
        CopyAfter::Fixed(time) => HedgeAfter::Fixed(time.0),
    };
    Some(HedgeSettings { after, floor: time(&doc.at_least), percent: doc.budget.0.0 })
}

fn retry(doc: &RetryDoc) -> Retry {
    let has = |cause| doc.on.iter().any(|on| on.0 == cause);
    let statuses: Vec<u16> = doc
        .on
        .iter()
        .filter_map(|on| match on.0 {
            RetryCause::Status(code) => Some(code),
            _ => None,
        })
        .collect();
    Retry {
        policy: RetryPolicy {
            on: RetryCauses {
                connect: has(RetryCause::Connect),
                reset: has(RetryCause::Reset),
                timed_out: has(RetryCause::Timeout) && doc.per_try.0 != PerTry::Off,
                statuses: StatusSet::of(&statuses),
            },
            tries: doc.tries,
            per_try: match doc.per_try.0 {
                PerTry::Fixed(time) => Some(time.0),
                PerTry::Auto | PerTry::Off => None,
            },
            backoff: Backoff { base: time(&doc.backoff), cap: time(&doc.backoff_max), ..Backoff::default() },
            non_idempotent: doc.non_idempotent,
            retry_after_max: time(&doc.retry_after_max),
        },
        buffer: doc.buffer.0.0 as usize,
        budget: RetryBudgetSettings { percent: doc.budget.0.0, per_second_min: limits::RETRIES_PER_SECOND_MIN },
    }
}
