//! Health checks, compiled.

use std::time::Duration;

use policy::HealthSettings;

use super::time;
use crate::snapshot::literal::{HostPolicy, Text, Time};
use crate::snapshot::probing::Statuses;
use crate::snapshot::schema::{HealthDoc, PoolDoc};

/// How a pool's endpoints are probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthProbe {
    pub ask: ProbeAsk,
    /// In place of the endpoint's own.
    pub port: Option<u16>,
    pub settings: HealthSettings,
}

/// What a probe asks, and what a good answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAsk {
    Http {
        target: Box<str>,
        /// `None`: the endpoint's address.
        host: Option<Box<str>>,
        status: Statuses,
        body: Option<Box<str>>,
    },
    Grpc {
        /// Empty: the server as a whole.
        service: Box<str>,
        /// `None`: the endpoint's address.
        host: Option<Box<str>>,
    },
    /// A connection is answer enough.
    Tcp,
    Bytes {
        send: Box<str>,
        expect: Box<str>,
    },
}

/// `None`: nobody asks.
pub(super) fn health(pool: &PoolDoc) -> Option<HealthProbe> {
    let doc = &pool.health;
    let ask = match (&doc.http, &doc.grpc, &doc.expect) {
        (Some(target), ..) => ProbeAsk::Http {
            target: target.0.0.clone(),
            host: host(pool),
            status: doc.status.0.clone(),
            body: doc.body.as_deref().map(Into::into),
        },
        (None, Some(service), _) => ProbeAsk::Grpc { service: service.as_str().into(), host: host(pool) },
        (None, None, Some(expect)) => {
            ProbeAsk::Bytes { send: doc.send.as_deref().unwrap_or_default().into(), expect: expect.as_str().into() }
        }
        (None, None, None) if doc.tcp => ProbeAsk::Tcp,
        (None, None, None) => return None,
    };
    Some(HealthProbe { ask, port: doc.port, settings: settings(doc) })
}

fn host(pool: &PoolDoc) -> Option<Box<str>> {
    match (&pool.health.host, &pool.host.0) {
        (Some(host), _) => Some(host.as_str().into()),
        (None, HostPolicy::Literal(host)) => Some(host.clone()),
        (None, HostPolicy::Keep | HostPolicy::Endpoint) => None,
    }
}

fn settings(doc: &HealthDoc) -> HealthSettings {
    let defaults = HealthSettings::default();
    let interval = time(&doc.every);
    let or_every = |given: &Option<Text<Time>>, default: Duration| given.as_ref().map_or(default.min(interval), time);
    HealthSettings {
        interval,
        interval_in_doubt: or_every(&doc.every_in_doubt, defaults.interval_in_doubt),
        timeout: or_every(&doc.timeout, defaults.timeout),
        rise: doc.rise,
        fall: doc.fall,
        ready_when_unknown: defaults.ready_when_unknown,
    }
}
