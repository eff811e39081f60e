//! `[[route]] limit`: how often requests may come before they are turned away.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::limit::LimitKey;
use crate::snapshot::literal::Text;
use crate::snapshot::quantity::Rate;

/// A rate beyond which requests are turned away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["rate"]))]
pub struct LimitDoc {
    /// What is counted by itself: `route` (all requests together), `client-address` (IPv6: each /64), `host`, `path`, `header:NAME` or
    /// `cookie:NAME`; who does not send that field or cookie is counted by address.
    pub key: Text<LimitKey>,
    /// Requests granted in the long run, over all workers.
    pub rate: Option<Text<Rate>>,
    /// Requests that may come at once; a second's worth unless given, and at least one.
    pub burst: Option<u32>,
    /// What those are answered with that are turned away.
    pub status: u16,
    /// What `RateLimit` and `RateLimit-Policy` call it; the key unless given.
    pub name: Option<String>,
    /// Which answers tell of it by those fields: those of endpoints too (`always`), so that clients can slow down before they must; those to
    /// requests that are turned away (`refused`); or none (`off`).
    pub fields: LimitFields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitFields {
    #[default]
    Always,
    Refused,
    Off,
}

impl Default for LimitDoc {
    fn default() -> Self {
        Self {
            key: Text(LimitKey::Client),
            rate: None,
            burst: None,
            status: 429,
            name: None,
            fields: LimitFields::default(),
        }
    }
}
