//! `[[route]] websocket`: what is asked of WebSockets, and what becomes of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::literal::{Text, Time};
use crate::snapshot::quantity::{Rate, Size};

/// What is asked of WebSockets, and what becomes of them. Frames are passed on as they come; who breaks the protocol is told so with a
/// Close, and so is the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketDoc {
    /// Looks at frames. Without, an open WebSocket is bytes, and nothing here has an effect.
    pub inspect: bool,
    /// The longest message, as it passes: compressed if it is compressed. A longer one ends the WebSocket with code 1009. No limit unless
    /// given: nothing of a message is kept here.
    pub message_max: Option<Text<Size>>,
    /// The longest frame of a message. No limit unless given.
    pub frame_max: Option<Text<Size>>,
    /// Text that is not UTF-8 ends the WebSocket with code 1007. Compressed text is not looked at.
    pub utf8: bool,
    /// How long both sides may be silent; the pool's or route's `timeout.idle` unless given. Then both get a Close with code 1001.
    pub idle: Option<Text<Time>>,
    /// A client that has been silent for so long is sent a Ping, and has as long again to answer: if it does not, the WebSocket ends, for the
    /// client with code 1011. No Pings unless given.
    pub ping: Option<Text<Time>>,
    /// Frames that a client may send, those of messages and others; a second's worth may come at once. Those beyond wait for their
    /// turn. No limit unless given.
    pub rate: Option<Text<Rate>>,
    /// How long a Close of ours waits for the answer, and for as long again where some of what was said before has been taken meanwhile: when the engine
    /// drains, open WebSockets get one with code 1001 at once.
    pub drain: Text<Time>,
}

impl Default for WebSocketDoc {
    fn default() -> Self {
        Self {
            inspect: true,
            message_max: None,
            frame_max: None,
            utf8: false,
            idle: None,
            ping: None,
            rate: None,
            drain: Text::secs(5),
        }
    }
}
