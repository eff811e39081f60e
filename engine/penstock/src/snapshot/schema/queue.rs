//! `[[pool]] concurrency` and `queue`: how many requests a pool works on, and how many may wait for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::snapshot::literal::{Text, Time};

/// Who may wait for a place in the pool, where it has a limit (`concurrency`, `limits`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueDoc {
    /// Requests of each class that may wait, a worker. 0: nobody waits.
    pub len: u32,
    /// How long one may wait.
    #[serde(rename = "for")]
    pub wait: Text<Time>,
    /// Waiting that is no reason to worry (RFC 8289). A queue that never falls below it for an interval is shortened from its old end.
    pub target: Text<Time>,
    /// How long a queue may take to fall below its target.
    pub interval: Text<Time>,
}

impl Default for QueueDoc {
    fn default() -> Self {
        let policy::QueueSettings { wait_max, target, interval, .. } = policy::QueueSettings::default();
        Self {
            len: limits::QUEUE_DEFAULT,
            wait: Text(Time(wait_max)),
            target: Text(Time(target)),
            interval: Text(Time(interval)),
        }
    }
}
