//! What is told of WebSockets, by route. A route that has had none holds nothing.

use std::sync::{Arc, OnceLock};

use proto::ws::{CloseCode, Sender, Violation};

use super::{Cell, Histogram};

/// What one worker tells of all routes.
#[derive(Debug, Default)]
pub struct WebSockets(Box<[Arc<OnceLock<Box<WebSocketCells>>>]>);

/// What one worker tells of a route's WebSockets.
#[derive(Debug, Default)]
pub struct WebSocketCells {
    pub opened: Cell,
    pub open: Cell,
    up: MessageCells,
    down: MessageCells,
    closes: [Cell; Closing::ALL.len()],
    violations: [Cell; Violation::ALL.len()],
}

/// Messages in one direction.
#[derive(Debug, Default)]
pub struct MessageCells {
    pub messages: Cell,
    /// Of all frames, with their heads.
    pub bytes: Cell,
    /// Payload of a message, as it passed.
    pub size: Histogram,
    /// From the arrival of a message's last byte until it was handed on to be sent, in nanoseconds.
    pub latency: Histogram,
}

/// How a WebSocket ended: the code of the first Close, by what it means to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    Normal,
    GoingAway,
    /// A Close without a code.
    NoCode,
    /// Somebody broke the protocol, or sent what the other side does not take.
    Protocol,
    Policy,
    /// The closing side failed.
    Failure,
    /// A code of the application's or of a library's.
    Application,
    /// Without a Close.
    Lost,
}

impl Closing {
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::GoingAway,
        Self::NoCode,
        Self::Protocol,
        Self::Policy,
        Self::Failure,
        Self::Application,
        Self::Lost,
    ];

    /// Of the first Close; `None` where there was none.
    #[must_use]
    pub const fn of(code: Option<CloseCode>) -> Self {
        match code {
            None | Some(CloseCode::ABNORMAL) => Self::Lost,
            Some(CloseCode::NORMAL) => Self::Normal,
            Some(CloseCode::GOING_AWAY) => Self::GoingAway,
            Some(CloseCode::NO_STATUS) => Self::NoCode,
            Some(CloseCode::POLICY_VIOLATION) => Self::Policy,
            Some(CloseCode(1011..=1014)) => Self::Failure,
            Some(CloseCode(3000..)) => Self::Application,
            Some(_) => Self::Protocol,
        }
    }

    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::GoingAway => "going-away",
            Self::NoCode => "no-code",
            Self::Protocol => "protocol",
            Self::Policy => "policy",
            Self::Failure => "failure",
            Self::Application => "application",
            Self::Lost => "lost",
        }
    }
}

impl WebSockets {
    /// For so many routes.
    #[must_use]
    pub fn new(routes: usize) -> Self {
        Self((0..routes).map(|_| Arc::default()).collect())
    }

    /// For the routes of a new configuration, of which some go on: each by its number before.
    #[must_use]
    pub fn succeed(&self, routes: impl Iterator<Item = Option<usize>>) -> Self {
        Self(routes.map(|of| of.and_then(|of| self.0.get(of).cloned()).unwrap_or_default()).collect())
    }

    /// A route's, if it has had a WebSocket.
    #[must_use]
    pub fn of(&self, route: usize) -> Option<&WebSocketCells> {
        self.0.get(route)?.get().map(|cells| &**cells)
    }

    /// A WebSocket of the route opens. `None`: there is no such route here.
    pub fn open(&self, route: usize) -> Option<&WebSocketCells> {
        let cells = self.0.get(route)?.get_or_init(Box::default);
        cells.opened.add(1);
        cells.open.add(1);
        Some(cells)
    }
}

impl WebSocketCells {
    /// What a side has sent.
    #[must_use]
    pub const fn of(&self, sender: Sender) -> &MessageCells {
        match sender {
            Sender::Client => &self.up,
            Sender::Server => &self.down,
        }
    }

    /// One has ended, with this code in the first Close.
    pub fn closed(&self, code: Option<CloseCode>) {
        self.open.sub(1);
        self.closes[Closing::of(code) as usize].add(1);
    }

    pub fn violated(&self, violation: Violation) {
        self.violations[violation as usize].add(1);
    }

    #[must_use]
    pub fn closes(&self, closing: Closing) -> u64 {
        self.closes[closing as usize].get()
    }

    #[must_use]
    pub fn violations(&self, violation: Violation) -> u64 {
        self.violations[violation as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_has_its_class() {
        for (code, text) in [
            (Some(1000), "normal"),
            (Some(1001), "going-away"),
            (Some(1002), "protocol"),
            (Some(1005), "no-code"),
            (Some(1007), "protocol"),
            (Some(1008), "policy"),
            (Some(1009), "protocol"),
            (Some(1011), "failure"),
            (Some(1012), "failure"),
            (Some(3000), "application"),
            (Some(4999), "application"),
            (None, "lost"),
        ] {
            assert_eq!(Closing::of(code.map(CloseCode)).text(), text, "{code:?}");
        }
    }

    #[test]
    fn cells_are_where_their_names_are() {
        assert!(Closing::ALL.iter().enumerate().all(|(at, closing)| *closing as usize == at));
        let sockets = WebSockets::new(2);
        let cells = sockets.open(1).expect("a route of two");
        cells.violated(Violation::Masked);
        cells.closed(Some(CloseCode::POLICY_VIOLATION));
        assert_eq!((cells.open.get(), cells.opened.get()), (0, 1));
        assert_eq!((cells.closes(Closing::Policy), cells.violations(Violation::Masked)), (1, 1));
        assert!(sockets.of(0).is_none() && sockets.of(2).is_none() && sockets.open(2).is_none());
    }
}
