//! `[[pool]] health`: how endpoints are asked whether they are well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::literal::{Text, Time};
use crate::snapshot::probing::{ProbeTarget, Statuses};

/// Asks each endpoint by itself whether it is well. Off unless `http`, `grpc`, `tcp` or `expect` says how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthDoc {
    /// What to GET, on a connection of its own each time.
    pub http: Option<Text<ProbeTarget>>,
    /// Statuses of a good answer to `http`.
    pub status: Text<Statuses>,
    /// Text that the first 64 KiB of a good answer to `http` have. Any content will do unless given.
    pub body: Option<String>,
    /// The service to ask `grpc.health.v1.Health/Check` for; `""`: the server as a whole. `SERVING` is a good answer. Spoken over HTTP/2, without
    /// TLS by prior knowledge.
    pub grpc: Option<String>,
    /// The `Host` to ask with. Unless given the pool's `host` if it is a name, or else the endpoint's address.
    pub host: Option<String>,
    /// `true`: a connection that comes about is a good answer.
    pub tcp: bool,
    /// What a good endpoint says first: its first bytes.
    pub expect: Option<String>,
    /// What to say before `expect` is waited for. Nothing unless given.
    pub send: Option<String>,
    /// The port to ask at. The endpoint's own unless given.
    pub port: Option<u16>,
    /// Between two probes of an endpoint, ±10 %.
    pub every: Text<Time>,
    /// The same while a change is in the air: before the first verdict, and after an answer that speaks against the last one.
    /// `1s` unless given, or `every` if that is shorter.
    pub every_in_doubt: Option<Text<Time>>,
    /// What a probe may take in all, connecting included. `2s` unless given, or `every` if that is shorter: a probe waits for the one before.
    pub timeout: Option<Text<Time>>,
    /// Good answers in a row that bring an endpoint back.
    pub rise: u8,
    /// Bad answers in a row that take it away. Until the first verdict it is used.
    pub fall: u8,
}

impl Default for HealthDoc {
    fn default() -> Self {
        let policy::HealthSettings { interval, rise, fall, .. } = policy::HealthSettings::default();
        Self {
            http: None,
            status: Text::default(),
            body: None,
            grpc: None,
            host: None,
            tcp: false,
            expect: None,
            send: None,
            port: None,
            every: Text(Time(interval)),
            every_in_doubt: None,
            timeout: None,
            rise,
            fall,
        }
    }
}
