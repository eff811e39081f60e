//! `[[pool]] outlier`: endpoints that are worse than their neighbours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::literal::{Percent, Text, Time};

/// Leaves out endpoints that are worse than the others of the pool, judged by what all workers saw. Off unless `on` says by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierDoc {
    /// What to judge by. `gateway`: 502, 503, 504 or no answer, in a row. `5xx`: any server error, in a row. `success-rate`: a share of
    /// errors far from the pool's. `latency`: a mean time far from the pool's. Errors are often the application's, and whoever
    /// finds an address that fails can send for it: so nothing unless given.
    pub on: Vec<OutlierCause>,
    /// How often the pool is judged.
    pub every: Text<Time>,
    /// Gateway errors in a row, at one worker.
    pub gateway: u32,
    /// Server errors of any kind in a row, at one worker.
    pub errors: u32,
    /// Endpoints with enough calls before `success-rate` and `latency` compare them.
    pub endpoints_min: u16,
    /// Calls of an endpoint between two judgements before it is compared.
    pub calls_min: u32,
    /// How long the first ejection lasts; the n-th lasts n times as long. Each such time that it then stays well takes one off.
    pub eject_for: Text<Time>,
    /// No ejection is longer.
    pub eject_for_max: Text<Time>,
    /// The share of the pool that may be out at a time: where more are odd, they are the norm. One always stays.
    pub share_max: Text<Percent>,
}

impl Default for OutlierDoc {
    fn default() -> Self {
        let settings = policy::OutlierSettings::default();
        Self {
            on: Vec::new(),
            every: Text(Time(settings.interval)),
            gateway: settings.consecutive_gateway,
            errors: settings.consecutive_5xx,
            endpoints_min: settings.hosts_min,
            calls_min: settings.calls_min,
            eject_for: Text(Time(settings.base)),
            eject_for_max: Text(Time(settings.longest)),
            share_max: Text(Percent(settings.share_max)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutlierCause {
    Gateway,
    #[serde(rename = "5xx")]
    Errors,
    SuccessRate,
    Latency,
}
