//! Our own answers: when there is nothing to forward.

use proto::Malformed;
use proto::h1::{Respond, Server};
use proto::http::{Method, Status, Version};
use ring::Buf;

use super::{Door, Request};
use crate::conn::Conn;

/// Why the engine answers itself, or why an exchange did not end well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    NoRoute,
    NoEndpoint,
    ConnectFailed,
    ConnectTimedOut,
    Unresolved,
    UpstreamClosed,
    UpstreamTimedOut,
    UpstreamMalformed,
    /// The response broke off after its head was sent.
    UpstreamTruncated,
    OutOfResources,
    ClientMalformed(Malformed),
    ClientTimedOut,
    ClientGone,
}

impl Reason {
    /// A word for logs.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NoEndpoint => "no-endpoint",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimedOut => "connect-timeout",
            Self::Unresolved => "unresolved",
            Self::UpstreamClosed => "upstream-closed",
            Self::UpstreamTimedOut => "upstream-timeout",
            Self::UpstreamMalformed => "upstream-malformed",
            Self::UpstreamTruncated => "upstream-truncated",
            Self::OutOfResources => "out-of-resources",
            Self::ClientMalformed(_) => "client-malformed",
            Self::ClientTimedOut => "client-timeout",
            Self::ClientGone => "client-gone",
        }
    }

    fn status(self) -> Status {
        match self {
            Self::NoRoute => Status::NOT_FOUND,
            Self::NoEndpoint | Self::OutOfResources => Status::SERVICE_UNAVAILABLE,
            Self::ConnectTimedOut | Self::UpstreamTimedOut => Status::GATEWAY_TIMEOUT,
            Self::ClientMalformed(malformed) => malformed.status(),
            Self::ClientTimedOut => Status::REQUEST_TIMEOUT,
            Self::ConnectFailed
            | Self::Unresolved
            | Self::UpstreamClosed
            | Self::UpstreamMalformed
            | Self::UpstreamTruncated
            | Self::ClientGone => Status::BAD_GATEWAY,
        }
    }

    fn body(self) -> &'static [u8] {
        match self {
            Self::NoRoute => b"404: no route takes this request\n",
            Self::NoEndpoint => b"503: no endpoint is available\n",
            Self::ConnectFailed => b"502: no endpoint accepts a connection\n",
            Self::ConnectTimedOut => b"504: no endpoint accepts a connection in time\n",
            Self::Unresolved => b"502: the endpoint's name has no address\n",
            Self::UpstreamClosed => b"502: the endpoint closed the connection before it answered\n",
            Self::UpstreamTimedOut => b"504: the endpoint did not answer in time\n",
            Self::UpstreamMalformed => b"502: the endpoint's answer is not valid HTTP\n",
            Self::UpstreamTruncated => b"502: the endpoint's answer broke off\n",
            Self::OutOfResources => b"503: out of resources\n",
            Self::ClientMalformed(_) => b"the request is not valid HTTP\n",
            Self::ClientTimedOut => b"408: the request did not arrive in time\n",
            Self::ClientGone => b"",
        }
    }
}

/// Answers a request whose head was read. Returns the status sent.
pub(super) fn answer(door: &Door, conn: &mut Conn<Server>, request: &Request, reason: Reason) -> u16 {
    if reason == Reason::ClientGone {
        return 0;
    }
    if door.desk.draining.get() {
        conn.machine.close_after();
    }
    // Content that nobody reads would be taken for the next request.
    let persistent = conn.machine.is_persistent() && conn.machine.is_body_read();
    let head_only = request.head.method == Method::Head;
    send(door, conn, reason, persistent, head_only, request.head.version)
}

/// Answers a client whose request could not even be read, and ends the connection.
pub fn refuse(door: &Door, conn: &mut Conn<Server>, reason: Reason) -> u16 {
    send(door, conn, reason, false, false, Version::Http11)
}

fn send(door: &Door, conn: &mut Conn<Server>, reason: Reason, persistent: bool, head_only: bool, peer: Version) -> u16 {
    let status = reason.status();
    let mut respond = Respond::new(status);
    respond.content_type = b"text/plain";
    respond.body = reason.body();
    respond.persistent = persistent;
    respond.head_only = head_only;
    respond.peer = peer;
    if status == Status::SERVICE_UNAVAILABLE {
        respond.retry_after = Some(1);
    }
    let mut head = door.desk.head.borrow_mut();
    head.clear();
    let framing = respond.framing();
    if respond.write(&mut *head).is_err() || conn.machine.head_written(status, framing, persistent).is_err() {
        return 0;
    }
    if framing.has_body() && conn.machine.body_written(respond.body.len()).is_err()
        || conn.machine.end_written().is_err()
    {
        return 0;
    }
    conn.stream.send(Buf::copy_of(&head));
    status.code()
}
