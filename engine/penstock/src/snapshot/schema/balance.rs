//! How a pool's requests are divided among its endpoints: the keys of `[[pool]]` that say so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::division::{Bound, Excess, Secret};
use crate::snapshot::literal::{Listed, Percent, Text, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    #[default]
    Adaptive,
    RoundRobin,
    Random,
    LeastRequests,
    Ring,
    Maglev,
}

/// How strictly requests are divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpreadDoc {
    /// Endpoints that `least-requests` compares. Two are nearly as even as all, and workers do not herd on one.
    pub choices: u8,
    /// Slots of the `maglev` table, made prime: a hundred times the endpoints keep shares even within 1 %. Two bytes each.
    pub table_size: u32,
    /// With `ring` and `maglev`: most requests that an endpoint may have out, as a share of the mean; one popular key
    /// cannot drown it then, and what is over goes to the next in that key's order. `auto`: 125% for `ring`, `off` for
    /// `maglev`, which is for keys that may not move.
    pub bound: Text<Bound>,
    /// Below this share of healthy endpoints, the verdicts of health checks and statistics are set aside: they are probably
    /// wrong about so many, and the few that are left would go down under the load of all. 0%: never.
    pub panic: Text<Percent>,
    /// How much of its usual load an endpoint can take: at 140% a tier spills to the next when less than 71 % of it is healthy.
    pub overprovision: Text<Excess>,
}

impl Default for SpreadDoc {
    fn default() -> Self {
        let policy::BalanceSettings { panic_percent, overprovision_percent, .. } = policy::BalanceSettings::default();
        Self {
            choices: 2,
            table_size: policy::balance::MAGLEV_SIZE_DEFAULT,
            bound: Text::default(),
            panic: Text(Percent(panic_percent)),
            overprovision: Text(Excess(overprovision_percent)),
        }
    }
}

/// Which requests of a client go to the same endpoint again: those with our signed cookie, with the same header, or from
/// the same address. One of the three; off unless given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StickyDoc {
    /// The cookie's name. It is set with the first answer, tells nothing of the endpoint, and never reaches it.
    pub cookie: Option<String>,
    /// A header whose value names the session; a request without it is balanced as any other.
    pub header: Option<String>,
    /// The client's address names the session.
    pub client_address: bool,
    /// How long the cookie lasts; renewed from its half on. A session of the browser unless given.
    pub ttl: Option<Text<Time>>,
    /// The cookie's `Path`.
    pub path: String,
    /// The cookie's `Domain`. The host that was asked, and no other, unless given.
    pub domain: Option<String>,
    /// `Secure`: the cookie is only sent over TLS.
    pub secure: bool,
    /// `HttpOnly`: scripts do not see the cookie. They have no use for it.
    pub http_only: bool,
    /// `SameSite`: whether requests from other sites carry it. `lax` is the browsers' own default.
    pub same_site: SameSite,
    /// What the cookie is signed with: the first of several, and of a file's lines. The others are believed as well, so that a secret can be
    /// changed. Files are watched. A random one unless given: a restart and other machines do not know its cookies.
    pub secret: Listed<Secret>,
}

impl Default for StickyDoc {
    fn default() -> Self {
        Self {
            cookie: None,
            header: None,
            client_address: false,
            ttl: None,
            path: "/".into(),
            domain: None,
            secure: false,
            http_only: true,
            same_site: SameSite::default(),
            secret: Listed::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SameSite {
    Strict,
    #[default]
    Lax,
    None,
}

/// What each endpoint is given at the most, over all workers. Beyond it other endpoints are asked, and when all have
/// enough requests wait in the pool's `queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsDoc {
    /// Requests out at one time; workers that choose at the same moment can exceed it by one each. No limit unless given.
    pub requests: Option<u32>,
    /// Connections, idle ones included; never exceeded. No limit unless given.
    pub connections: Option<u32>,
}
