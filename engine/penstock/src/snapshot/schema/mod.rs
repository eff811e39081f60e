//! The document: what a configuration file may say, with every default.
//!
//! The comments on the fields below are the configuration reference (`docs/configuration.md`) and the descriptions in
//! the JSON Schema: they are written for the operator.

mod balance;
mod breaker;
mod classes;
mod engine;
mod health;
mod limit;
mod listen;
mod outlier;
mod pool;
mod queue;
mod route;
mod shield;
mod tls;
mod vip;
mod websocket;

pub use balance::Balance;
pub(super) use balance::{SameSite, StickyDoc};
pub(super) use breaker::{BreakerDoc, RouteBreakerDoc};
pub use classes::{ClassDoc, PaceDoc};
pub(super) use engine::{AccessDoc, AfXdpDoc, QlogDoc};
pub use engine::{AccessFormat, Driver, Splice, Steering};
use engine::{EngineDoc, LogDoc};
pub(super) use health::HealthDoc;
pub use limit::{LimitDoc, LimitFields};
pub(super) use listen::SniDoc;
pub use listen::{Congestion, ListenDoc, Protocol};
pub(super) use outlier::{OutlierCause, OutlierDoc};
pub(super) use pool::{FallbackDoc, HedgeDoc, RetryDoc};
pub use pool::{PoolDoc, PoolProtocol, ProxyProtocol, SameHost};
pub use queue::QueueDoc;
pub(super) use route::{
    AdaptiveDoc, HeadersDoc, MirrorDoc, RedirectDoc, RedirectQuery, RespondDoc, RewriteDoc, RouteTimeouts,
};
pub use route::{Forwarded, RouteDoc};
pub(super) use shield::{ShieldDoc, ShieldRateDoc};
pub use shield::{SynCookies, XdpMode};
pub(super) use vip::{BalanceDoc, DecapDoc, VipDoc};
pub use vip::{Forward, Transport};

pub(super) use tls::{CertificateDoc, TlsDoc, Transparency};
pub use tls::{ClientAuth, TlsVersion};
pub(super) use websocket::WebSocketDoc;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Penstock configuration: doors (`listen`), pools of endpoints (`pool`), and routes between them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Document {
    /// The process as a whole.
    pub engine: EngineDoc,
    /// What is written down.
    pub log: LogDoc,
    /// The XDP shield: an eBPF program that drops packets on the interfaces named here before the kernel has made anything of them. Off unless
    /// `interfaces` names some.
    pub shield: ShieldDoc,
    /// The XDP balancer: an eBPF program that sends packets for each `vip` on to the endpoints of a pool, before the kernel has made anything of
    /// them. Off unless `interfaces` names some.
    pub balance: BalanceDoc,
    /// The balancer's counterpart where endpoints are: takes outer headers off that a balancer has put on. Off unless `interfaces` names some.
    pub decap: DecapDoc,
    /// A class of requests, by its name: whose go first, and how fast. Requests that nothing says otherwise of are of the class
    /// `default`, which is always there. A request's class is what a believed `class_header` names, or else its route's, or else that of its
    /// client's network.
    pub classes: BTreeMap<String, ClassDoc>,
    /// A door: where connections come in. At least one, unless there is a `vip` or `decap` stands somewhere.
    pub listen: Vec<ListenDoc>,
    /// A virtual address, whose packets the XDP balancer sends on to the endpoints of a pool.
    pub vip: Vec<VipDoc>,
    /// A pool of endpoints that can stand in for each other.
    pub pool: Vec<PoolDoc>,
    /// Which requests go to which pool. The most specific route wins, wherever it stands: an exact host before the longest
    /// wildcard before any; then the path, segment by segment from the left (a written one before a `{name}` before what takes the
    /// rest); then one that names the method; then the one with the most `header` conditions, then the most of `query`, then the
    /// narrowest `client` network; then the first in the file. One whose conditions do not hold is passed over. Without any
    /// route, everything goes to the only HTTP pool. A request that no route matches is answered 404.
    pub route: Vec<RouteDoc>,
}

/// The JSON Schema of [`Document`], every type in its place. A key that must be given has no default.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Document>().to_value();
    schema["title"] = "Penstock configuration".into();
    drop_defaults_of_required(&mut schema);
    schema
}

fn drop_defaults_of_required(schema: &mut serde_json::Value) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    if let Some(properties) = schema.get_mut("properties").and_then(|properties| properties.as_object_mut()) {
        for (name, property) in properties {
            // A table's default is that of its keys; saying it twice invites them to differ.
            if (required.iter().any(|required| required == name) || property.get("properties").is_some())
                && let Some(property) = property.as_object_mut()
            {
                property.remove("default");
            }
            drop_defaults_of_required(property);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            drop_defaults_of_required(inner);
        }
    }
}
