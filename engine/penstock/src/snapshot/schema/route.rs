//! `[[route]]`: which requests go where, and what becomes of them on the way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::literal::{Listed, Text, Time};
use crate::snapshot::route::{HostPattern, Method, PathPattern};

/// Which requests go to which pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pool"]))]
pub struct RouteDoc {
    /// What logs and `check --explain` call it; `host` and `path` unless given.
    pub name: Option<String>,
    /// The request's host, without its port: `api.example.net`, `*.example.net` for everything below, or `*` for any. One or several.
    pub host: Listed<HostPattern>,
    /// The request's path: `/login` for that one, `/v1/*` for `/v1` and everything below it. One or several.
    pub path: Listed<PathPattern>,
    /// The request's method, one or several. Any unless given.
    pub method: Listed<Method>,
    /// Where such requests go.
    pub pool: String,
    /// Times that differ from the pool's.
    pub timeout: RouteTimeouts,
    /// Which fields tell endpoints about the client: `X-Forwarded-For`, `-Proto` and `-Host`, or RFC 7239's `Forwarded`.
    pub forwarded: Forwarded,
}

impl Default for RouteDoc {
    fn default() -> Self {
        Self {
            name: None,
            host: Listed(vec![HostPattern::Any]),
            path: Listed(vec![PathPattern::everything()]),
            method: Listed::default(),
            pool: String::new(),
            timeout: RouteTimeouts::default(),
            forwarded: Forwarded::default(),
        }
    }
}

/// Times that differ from the pool's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTimeouts {
    /// To accept a connection; the pool's unless given.
    pub connect: Option<Text<Time>>,
    /// From the end of the request to the end of the answer's head; the pool's unless given.
    pub head: Option<Text<Time>>,
    /// Between two pieces of a body; the pool's unless given.
    pub idle: Option<Text<Time>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    #[default]
    XForwarded,
    Forwarded,
    Both,
    Off,
}
