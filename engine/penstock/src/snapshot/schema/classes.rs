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
    /// Its requests go before those of all other classes that wait, for what has to get through when all else stands: health checks of others, administration. Where
    /// they are more than nine tenths of a pool's work, they wait for the others, so that nobody starves. One class can be.
    pub strict: bool,
    /// How long its requests may wait for a place in a pool; the pool's `queue.for` unless given.
    pub queue: Option<Text<Time>>,
    /// Clients whose requests are of this class, unless their route or a believed `class_header` says otherwise.
    pub clients: Listed<Cidr>,
    /// Content of all its exchanges together, over all workers: responses, and requests on their own. Bytes of its tunnels (WebSockets, CONNECT, `tcp`
    /// doors) and of datagrams of `udp` doors are content; datagrams wait 100 ms at the most, and are dropped beyond.
    pub bandwidth: Option<Text<Bandwidth>>,
    /// Requests of the class, connections of `tcp` doors and flows of `udp` doors begin no faster than this: those that come sooner wait for their turn, a flow 100 ms
    /// at the most.
    pub rate: Option<Text<Rate>>,
    /// The same for each client (IPv6: each /64) by itself.
    pub per_client: PaceDoc,
}

impl Default for ClassDoc {
    fn default() -> Self {
        Self {
            weight: 1,
            strict: false,
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
