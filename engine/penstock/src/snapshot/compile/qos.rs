//! Classes, limits and queues, compiled.

use std::time::Duration;

use policy::{GradientSettings, QueueSettings, RateSettings};

use super::{Networks, networks, time};
use crate::limits;
use crate::snapshot::limit::{ConcurrencyLimit, LimitKey};
use crate::snapshot::literal::Text;
use crate::snapshot::quantity::{Bandwidth, Rate};
use crate::snapshot::schema::{ClassDoc, Document, LimitDoc, LimitFields, PoolDoc, RouteDoc};

/// A class, by its place in [`Snapshot::classes`](super::Snapshot::classes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClassId(pub u8);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub name: Box<str>,
    pub weight: u16,
    /// Goes before all others.
    pub strict: bool,
    /// How long its requests may wait; the pool's time unless given.
    pub wait: Option<Duration>,
    pub clients: Networks,
    pub pace: Paces,
}

/// How fast content and requests may go: of all together, and of each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paces {
    pub all: Pace,
    pub per_client: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Bytes a second, each direction by itself.
    pub bandwidth: Option<u64>,
    /// Requests.
    pub rate: Option<Rate>,
}

impl Paces {
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A rate beyond which requests are turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub key: LimitKey,
    pub rate: RateSettings,
    pub status: u16,
    /// What the response's fields call it.
    pub name: Box<str>,
    pub fields: LimitFields,
}

/// What a route says about whose turn it is and how fast it goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteQos {
    pub class: Option<ClassId>,
    pub limits: Box<[Limit]>,
    pub pace: Paces,
}

/// How many requests a pool takes, and who may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    pub concurrency: ConcurrencyLimit,
    /// For a limit that is found.
    pub gradient: GradientSettings,
    pub queue: QueueSettings,
    /// Its endpoints have limits of their own.
    pub by_endpoint: bool,
}

impl Admission {
    /// Requests may have to wait for a place.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.concurrency != ConcurrencyLimit::Off || self.by_endpoint
    }
}

/// The class of requests that nothing says otherwise of: first, and there even if the configuration has none.
pub(in crate::snapshot) const DEFAULT_CLASS: &str = "default";

/// The default class, then the others by name.
pub(super) fn classes(document: &Document) -> Box<[Class]> {
    let default = document.classes.get(DEFAULT_CLASS).cloned().unwrap_or_default();
    let others = document.classes.iter().filter(|(name, _)| *name != DEFAULT_CLASS);
    std::iter::once(class(DEFAULT_CLASS, &default)).chain(others.map(|(name, doc)| class(name, doc))).collect()
}

fn class(name: &str, doc: &ClassDoc) -> Class {
    Class {
        name: name.into(),
        weight: doc.weight,
        strict: doc.strict,
        wait: doc.queue.as_ref().map(time),
        clients: networks(&doc.clients),
        pace: Paces {
            all: pace(doc.bandwidth.as_ref(), doc.rate.as_ref()),
            per_client: pace(doc.per_client.bandwidth.as_ref(), doc.per_client.rate.as_ref()),
        },
    }
}

fn pace(bandwidth: Option<&Text<Bandwidth>>, rate: Option<&Text<Rate>>) -> Pace {
    Pace { bandwidth: bandwidth.map(|text| text.0.0), rate: rate.map(|text| text.0) }
}

pub(super) fn class_named(classes: &[Class], name: &str) -> Option<ClassId> {
    classes.iter().position(|class| &*class.name == name).map(|at| ClassId(at as u8))
}

pub(super) fn route(doc: &RouteDoc, classes: &[Class]) -> RouteQos {
    RouteQos {
        class: doc.class.as_deref().and_then(|name| class_named(classes, name)),
        limits: doc.limit.iter().filter_map(limit).collect(),
        pace: Paces {
            all: pace(doc.bandwidth.as_ref(), doc.rate.as_ref()),
            per_client: pace(doc.per_client.bandwidth.as_ref(), doc.per_client.rate.as_ref()),
        },
    }
}

fn limit(doc: &LimitDoc) -> Option<Limit> {
    let rate = doc.rate.as_ref()?.0;
    Some(Limit {
        key: doc.key.0.clone(),
        rate: rate_settings(rate, doc.burst),
        status: doc.status,
        name: doc.name.clone().unwrap_or_else(|| doc.key.0.to_string()).into(),
        fields: doc.fields,
    })
}

pub(super) fn rate_settings(rate: Rate, burst: Option<u32>) -> RateSettings {
    // A second's worth: browsers ask for a page's parts at once, and a rate by the hour still lets one through.
    let a_second = (u64::from(rate.count.get()) / rate.per.as_secs().max(1)).max(1) as u32;
    RateSettings { quota: rate.count.get(), period: rate.per, burst: burst.unwrap_or(a_second).max(1) }
}

pub(super) fn admission(doc: &PoolDoc) -> Admission {
    Admission {
        concurrency: doc.concurrency,
        gradient: GradientSettings { ceiling: limits::CONCURRENCY_FOUND_MAX, ..GradientSettings::default() },
        queue: QueueSettings {
            length_max: doc.queue.len,
            wait_max: time(&doc.queue.wait),
            target: time(&doc.queue.target),
            interval: time(&doc.queue.interval),
        },
        by_endpoint: doc.limits_endpoints(),
    }
}
