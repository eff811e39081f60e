//! What an exchange has of an endpoint: a connection of its own, or a stream of one that is shared.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use proto::h1::{Client, Refused};
use proto::http::{Framing, Method};
use ring::Buf;

use super::endpoint::Endpoint;
use super::policy_now;
use super::shared::{Held, Spoken};
use crate::conn::{Composed, Conn, Lane, Stream, Transport, h3};

/// A way to an endpoint for one exchange.
pub struct Lease {
    pub(super) wire: Wire,
    pub endpoint: Rc<Endpoint>,
    /// It has carried an exchange before: its end before a response says nothing about the endpoint.
    pub reused: bool,
}

pub(super) enum Wire {
    Own(Own),
    /// A stream, or none yet, of a connection that is shared.
    H2(Stream<Client>),
    H3(h3::Stream<Client>),
}

/// A connection of HTTP/1, and what is to be known when it is given back.
pub(super) struct Own {
    pub(super) conn: Conn<Client>,
    pub(super) requests: u32,
    /// When the connection was made.
    pub(super) made: ring::Now,
    /// It was made to skip TCP: only short requests go over it.
    pub(super) near: bool,
    /// Its place among those that the endpoint may have.
    pub(super) held: Held,
}

impl Own {
    /// A connection that has just been made.
    pub(super) fn new(stream: Transport, held: Held, near: bool) -> Self {
        Self { conn: Conn::new(stream), requests: 0, made: ring::now(), near, held }
    }
}

impl Wire {
    /// Ready when the endpoint has said whether it lets streams of a shared connection leave HTTP, which its first word tells; `None`: the
    /// connection is not shared.
    pub(super) fn poll_greeted(&self) -> Poll<io::Result<Option<bool>>> {
        match self {
            Self::Own(_) => Poll::Ready(Ok(None)),
            Self::H2(stream) => stream.poll_greeted().map_ok(Some),
            Self::H3(stream) => stream.poll_greeted().map_ok(Some),
        }
    }

    pub(super) const fn spoken(&self) -> Spoken {
        match self {
            Self::Own(_) => Spoken::Http11,
            Self::H2(_) => Spoken::Http2,
            Self::H3(_) => Spoken::Http3,
        }
    }

    /// A request may be asked now.
    pub(super) fn can_ask(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::H2(stream) => stream.can_ask(),
            Self::H3(stream) => stream.can_ask(),
        }
    }
}

impl Lease {
    /// Of a connection of HTTP/1 that has just been made.
    pub(super) fn of_own(stream: Transport, held: Held, endpoint: &Rc<Endpoint>, near: bool) -> Self {
        Self { wire: Wire::Own(Own::new(stream, held, near)), endpoint: Rc::clone(endpoint), reused: false }
    }

    /// Writes a request's head. What of it is to be sent by the caller, on its own or before content, is returned.
    ///
    /// # Errors
    /// It cannot be told to this endpoint, or not over this connection.
    pub fn ask(&mut self, composed: &Composed<'_>) -> Result<Option<Buf>, Refused> {
        match &mut self.wire {
            Wire::Own(own) => {
                let text = composed.to_text().ok_or(Refused::Full)?;
                let (head, rewrite) = (composed.head, composed.rewrite);
                own.conn.machine.head_written(head.method, rewrite.framing, true, !head.upgrade.is_empty())?;
                Ok(Some(text))
            }
            Wire::H2(stream) => stream.ask(composed).map(|()| None),
            Wire::H3(stream) => stream.ask(composed).map(|()| None),
        }
    }

    /// As [`ask`](Self::ask), of a head that was written as HTTP/1 writes it before it was known where it goes.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_as(&mut self, method: Method, framing: Framing, text: Buf) -> Result<Option<Buf>, Refused> {
        match &mut self.wire {
            Wire::Own(own) => {
                own.conn.machine.head_written(method, framing, true, false)?;
                Ok(Some(text))
            }
            Wire::H2(stream) => stream.ask_as(text.bytes()).map(|()| None),
            Wire::H3(stream) => stream.ask_as(text.bytes()).map(|()| None),
        }
    }

    /// Its endpoint would take a request, were there a connection for it, and when this one is given back there is.
    #[must_use]
    pub fn is_all_there_may_be(&self) -> bool {
        matches!(self.wire, Wire::Own(_)) && self.endpoint.lacks_connection(policy_now(ring::now()))
    }

    /// What carries the exchange, once it has been [asked](Self::ask).
    pub fn lane(&mut self) -> Lane<'_, Client> {
        match &mut self.wire {
            Wire::Own(own) => Lane::H1(&mut own.conn),
            Wire::H2(stream) => Lane::H2(stream),
            Wire::H3(stream) => Lane::H3(stream),
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?}, reused {})", self.endpoint, self.reused)
    }
}
