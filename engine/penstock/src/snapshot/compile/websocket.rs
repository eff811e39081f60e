//! What is asked of WebSockets, compiled.

use std::time::Duration;

use policy::RateSettings;

use super::{qos::rate_settings, time};
use crate::snapshot::literal::Text;
use crate::snapshot::quantity::Size;
use crate::snapshot::schema::WebSocketDoc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSockets {
    /// Frames are looked at.
    pub inspect: bool,
    pub message_bytes_max: u64,
    pub frame_bytes_max: u64,
    pub utf8: bool,
    /// Instead of the exchange's own.
    pub idle: Option<Duration>,
    pub ping: Option<Duration>,
    pub rate: Option<RateSettings>,
    /// How long a Close of ours waits for its answer.
    pub drain: Duration,
}

pub(super) fn websockets(doc: &WebSocketDoc) -> WebSockets {
    let size = |size: &Option<Text<Size>>| size.as_ref().map_or(u64::MAX, |size| size.0.0);
    WebSockets {
        inspect: doc.inspect,
        message_bytes_max: size(&doc.message_max),
        frame_bytes_max: size(&doc.frame_max),
        utf8: doc.utf8,
        idle: doc.idle.as_ref().map(time),
        ping: doc.ping.as_ref().map(time),
        rate: doc.rate.as_ref().map(|rate| rate_settings(rate.0, None)),
        drain: time(&doc.drain),
    }
}
