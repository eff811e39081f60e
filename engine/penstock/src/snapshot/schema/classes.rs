//! `[classes.NAME]`: whose requests go first, and how fast they may go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::address::Cidr;
use crate::snapshot::literal::{Listed, Text, Time};
use crate::snapshot::quantity::{Bandwidth, Rate};

/// A class of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassDoc {
    /// Its part of a pool's work while requests of several classes wait for it.
    pub weight: u16,
    /// How long its requests may wait for a place in a pool; the pool's `queue.for` unless given.
    pub queue: Option<Text<Time>>,
    /// Clients whose requests are of this class, unless their route or a believed `class_header` says otherwise.
    pub clients: Listed<Cidr>,
    /// Content of all its exchanges together, over all workers: responses, and requests on their own. Bytes of its tunnels (WebSockets, CONNECT, `tcp`
    /// doors) are content.
    pub bandwidth: Option<Text<Bandwidth>>,
    /// Requests of the class, and connections of `tcp` doors, begin no faster than this: those that come sooner wait for their turn.
    pub rate: Option<Text<Rate>>,
    /// The same for each client (IPv6: each /64) by itself.
    pub per_client: PaceDoc,
}

impl Default for ClassDoc {
    fn default() -> Self {
        Self {
            weight: 1,
            queue: None,
            clients: Listed::default(),
            bandwidth: None,
            rate: None,
            per_client: PaceDoc::default(),
        }
    }
}

/// How fast each client may go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PaceDoc {
    /// Content of each client's exchanges together: responses, and requests on their own.
    pub bandwidth: Option<Text<Bandwidth>>,
    /// Requests of each client begin no faster than this: those that come sooner wait for their turn.
    pub rate: Option<Text<Rate>>,
}
