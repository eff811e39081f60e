//! Making a connection: one address after another, a quarter of a second apart (RFC 8305, Happy Eyeballs).

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ring::{Address, Buf, Now, Stream, Timer};

use super::Cluster;
use super::endpoint::Endpoint;
use super::shared::Held;
use crate::conn::Transport;
use crate::limits;
use crate::quic::{self, Caller, ConnectionError, Link};
use crate::telemetry::Counters;
use crate::tls::{Failure, Origination};

/// How long an attempt is alone before the next address gets its chance: RFC 8305 §5's recommended value.
const STAGGER: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The name stands for no address.
    Unresolved,
    TimedOut,
    /// The endpoint has as many connections as it may.
    Full,
    /// It says that streams of its shared connections do not leave HTTP (RFC 8441 §3, RFC 9220 §3).
    NoUpgrades,
    /// The last attempt's error.
    Failed(io::Error),
    /// Connected, and TLS was not agreed upon.
    Tls(Failure),
}

/// How a pool's endpoints are reached where they are met by TLS.
#[derive(Clone, Debug)]
pub struct Approach {
    pub tls: Arc<Origination>,
    /// Where that is over QUIC.
    pub caller: Rc<Caller>,
}

type Attempt<T> = Pin<Box<dyn Future<Output = Result<T, DialError>>>>;

/// Connects to the first of `addresses` that answers, with a socket of this `priority`.
///
/// # Errors
/// Nothing to connect to, no time left, or the last attempt's error.
pub async fn dial(
    addresses: &[Address],
    priority: Option<u32>,
    patience: Duration,
    timer: &mut Timer,
) -> Result<Stream, DialError> {
    let attempt = |address: Address| -> Attempt<Stream> {
        Box::pin(async move { Stream::connect_as(&address, priority).await.map_err(DialError::Failed) })
    };
    race(addresses, ring::now() + patience, timer, attempt).await
}

/// As [`dial`], over QUIC, TLS included; at another port where one is given.
///
/// # Errors
/// As [`dial`]'s, or why there is no TLS.
pub async fn call(
    by: &Approach,
    authority: &str,
    addresses: &[Address],
    port: Option<u16>,
    patience: Duration,
    timer: &mut Timer,
) -> Result<Link, DialError> {
    let deadline = ring::now() + patience;
    let name = by.tls.name(authority).map_err(DialError::Tls)?.to_str().into_owned();
    let config = quic::client(by.tls.http3()).map_err(|error| DialError::Tls(error.into()))?;
    let attempt = |address: Address| -> Attempt<Link> {
        let (caller, config, name) = (Rc::clone(&by.caller), config.clone(), name.clone());
        Box::pin(async move {
            let to = address.inet().ok_or_else(no_datagrams)?;
            let to = SocketAddr::new(to.ip(), port.unwrap_or_else(|| to.port()));
            let mut link = caller.call(config, to, &name).map_err(DialError::Failed)?;
            link.shake_hands(deadline, &mut Timer::new()).await.map_err(unmet)?;
            Ok(link)
        })
    };
    race(addresses, deadline, timer, attempt).await
}

fn no_datagrams() -> DialError {
    DialError::Failed(io::Error::new(io::ErrorKind::Unsupported, "a Unix socket has no QUIC"))
}

/// Why a handshake of QUIC came to nothing.
fn unmet(error: ConnectionError) -> DialError {
    let code = match &error {
        ConnectionError::TimedOut => return DialError::TimedOut,
        ConnectionError::TransportError(ours) => ours.code,
        ConnectionError::ConnectionClosed(theirs) => theirs.error_code,
        _ => return DialError::Failed(error.into()),
    };
    match u64::from(code) {
        // CONNECTION_REFUSED (RFC 9000 §20.1).
        0x2 => DialError::Failed(io::ErrorKind::ConnectionRefused.into()),
        // Alerts of TLS (RFC 9001 §4.8).
        0x100..=0x1ff => DialError::Tls(Failure::Quic(error.to_string())),
        _ => DialError::Failed(error.into()),
    }
}

/// Makes attempts at one address after another until one succeeds.
async fn race<T>(
    addresses: &[Address],
    deadline: Now,
    timer: &mut Timer,
    attempt: impl Fn(Address) -> Attempt<T>,
) -> Result<T, DialError> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut attempts: Vec<Attempt<T>> = Vec::with_capacity(1);
    let begun = ring::now();
    let mut next_at = begun;
    let mut last = None;
    poll_fn(|cx| {
        loop {
            if (attempts.is_empty() || ring::now() >= next_at)
                && let Some(address) = waiting.next()
            {
                attempts.push(attempt(address));
                next_at = ring::now() + STAGGER;
            }
            let Some(done) =
                attempts.iter_mut().enumerate().find_map(|(at, attempt)| match attempt.as_mut().poll(cx) {
                    Poll::Ready(answer) => Some((at, answer)),
                    Poll::Pending => None,
                })
            else {
                break;
            };
            drop(attempts.swap_remove(done.0));
            match done.1 {
                Ok(connected) => return Poll::Ready(Ok(connected)),
                Err(error) => last = Some(error),
            }
            if attempts.is_empty() && waiting.len() == 0 {
                break;
            }
        }
        if attempts.is_empty() && waiting.len() == 0 {
            return Poll::Ready(Err(last.take().unwrap_or(DialError::Unresolved)));
        }
        if ring::now() >= deadline {
            return Poll::Ready(Err(DialError::TimedOut));
        }
        timer.set(if waiting.len() > 0 { deadline.min(next_at) } else { deadline });
        if timer.poll_expired() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// Agrees upon TLS with the endpoint that `stream` leads to, if its pool is met by it. A PROXY `header` goes before everything else (PROXY
/// protocol §2).
///
/// # Errors
/// Why not; no time left counts as none to connect.
pub async fn secure(
    mut stream: Stream,
    header: Option<Buf>,
    tls: Option<&Origination>,
    authority: &str,
    deadline: Now,
    timer: &mut Timer,
) -> Result<Transport, DialError> {
    if let Some(header) = header {
        stream.send(header);
    }
    let Some(tls) = tls else { return Ok(stream.into()) };
    let mut transport = Transport::connect(stream, tls, authority).map_err(DialError::Tls)?;
    // Boxed: what a handshake holds is no part of every exchange.
    match Box::pin(transport.shake_hands(deadline, timer)).await {
        Ok(()) => Ok(transport),
        Err(Failure::TimedOut) => Err(DialError::TimedOut),
        Err(failure) => {
            // The alert, if there is one, leaves before the connection is closed.
            ring::yield_now().await;
            Err(DialError::Tls(failure))
        }
    }
}

impl Cluster {
    /// A new stream to an endpoint, and its place among those that the endpoint may have: one that skips TCP where there is a token for that. A PROXY
    /// `header` is the first that it hears.
    pub async fn dial(
        &self,
        endpoint: &Endpoint,
        near: Option<u32>,
        header: Option<Buf>,
        patience: Duration,
        timer: &mut Timer,
        counters: &Counters,
    ) -> Result<(Transport, Held), DialError> {
        let tls = self.approach.as_ref().map(|by| &*by.tls);
        self.dial_by(tls, endpoint, near, header, patience, timer, counters).await
    }

    /// As [`dial`](Self::dial), met by TLS as `tls` says.
    #[allow(clippy::too_many_arguments, reason = "what a connection is made from")]
    pub(super) async fn dial_by(
        &self,
        tls: Option<&Origination>,
        endpoint: &Endpoint,
        near: Option<u32>,
        header: Option<Buf>,
        patience: Duration,
        timer: &mut Timer,
        counters: &Counters,
    ) -> Result<(Transport, Held), DialError> {
        let authority = &endpoint.authority;
        let dialled = async |addresses: &[Address], timer: &mut Timer| {
            let begun = ring::now();
            let stream = dial(addresses, near, patience, timer).await?;
            secure(stream, header, tls, authority, begun + patience, timer).await
        };
        self.reach_out(endpoint, timer, counters, dialled).await
    }

    /// A new connection of HTTP/3 to an endpoint, at another port where one is given, and its place among those that the endpoint may have.
    pub(super) async fn call(
        &self,
        endpoint: &Endpoint,
        port: Option<u16>,
        patience: Duration,
        timer: &mut Timer,
        counters: &Counters,
    ) -> Result<(Link, Held), DialError> {
        let by = self.approach.as_ref().ok_or(DialError::Unresolved)?;
        let called = async |addresses: &[Address], timer: &mut Timer| {
            call(by, &endpoint.authority, addresses, port, patience, timer).await
        };
        self.reach_out(endpoint, timer, counters, called).await
    }

    /// Counts what a connection costs, and keeps its place.
    async fn reach_out<T>(
        &self,
        endpoint: &Endpoint,
        timer: &mut Timer,
        counters: &Counters,
        connect: impl AsyncFnOnce(&[Address], &mut Timer) -> Result<T, DialError>,
    ) -> Result<(T, Held), DialError> {
        let held = endpoint.hold().ok_or(DialError::Full)?;
        let addresses = endpoint.addresses();
        counters.upstream_connects_total.add(1);
        let begun = ring::now();
        let connected = connect(&addresses, timer).await;
        if let Err(DialError::Tls(failure)) = &connected {
            self.tell(&endpoint.name, failure);
        }
        counters.upstream_connect_nanoseconds_total.add(ring::now().since(begun).as_nanos() as u64);
        counters.upstream_connect_failures_total.add(u64::from(connected.is_err()));
        connected.map(|connected| (connected, held))
    }

    /// Why an endpoint is not met by TLS: an operator cannot guess it from a status. Now and then is enough.
    pub(super) fn tell(&self, endpoint: &str, failure: &Failure) {
        let now = ring::now();
        if self.told_at.get().is_none_or(|told| now.since(told) >= limits::TLS_TOLD_EVERY) {
            self.told_at.set(Some(now));
            eprintln!("penstock: endpoint `{endpoint}`: {failure}");
        }
    }
}

/// The families in turn, beginning with the first address's (RFC 8305 §4).
fn interleaved(addresses: &[Address]) -> Vec<Address> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let is_v6 = |address: &Address| address.inet().is_some_and(|inet| inet.is_ipv6());
    let (mut same, mut other): (Vec<_>, Vec<_>) =
        addresses.iter().cloned().partition(|address| is_v6(address) == is_v6(first));
    let mut ordered = Vec::with_capacity(addresses.len());
    same.reverse();
    other.reverse();
    while let Some(address) = same.pop() {
        ordered.push(address);
        ordered.extend(other.pop());
    }
    other.reverse();
    ordered.extend(other);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses = |texts: &[&str]| -> Vec<Address> {
            texts.iter().map(|text| Address::Inet(text.parse().unwrap())).collect()
        };
        let given = addresses(&["[::1]:1", "[::1]:2", "[::1]:3", "127.0.0.1:1", "127.0.0.1:2"]);
        let expected = addresses(&["[::1]:1", "127.0.0.1:1", "[::1]:2", "127.0.0.1:2", "[::1]:3"]);
        assert_eq!(interleaved(&given), expected);
        assert_eq!(interleaved(&given[3..]), given[3..]);
        assert!(interleaved(&[]).is_empty());
    }
}
