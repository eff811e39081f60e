//! Making a connection: one address after another, a quarter of a second apart (RFC 8305, Happy Eyeballs).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use ring::{Address, Buf, Now, Stream, Timer};

use super::Cluster;
use super::endpoint::Endpoint;
use super::shared::Held;
use crate::conn::Transport;
use crate::limits;
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
    /// The last attempt's error.
    Failed(io::Error),
    /// Connected, and TLS was not agreed upon.
    Tls(Failure),
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<Stream>>>>;

/// Connects to the first of `addresses` that answers.
///
/// # Errors
/// Nothing to connect to, no time left, or the last attempt's error.
pub async fn dial(addresses: &[Address], patience: Duration, timer: &mut Timer) -> Result<Stream, DialError> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut attempts: Vec<Attempt> = Vec::with_capacity(1);
    let begun = ring::now();
    let deadline = begun + patience;
    let mut next_at = begun;
    let mut last = None;
    poll_fn(|cx| {
        loop {
            if (attempts.is_empty() || ring::now() >= next_at)
                && let Some(address) = waiting.next()
            {
                attempts.push(Box::pin(async move { Stream::connect(&address).await }));
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
                Ok(stream) => return Poll::Ready(Ok(stream)),
                Err(error) => last = Some(error),
            }
            if attempts.is_empty() && waiting.len() == 0 {
                break;
            }
        }
        if attempts.is_empty() && waiting.len() == 0 {
            return Poll::Ready(Err(last.take().map_or(DialError::Unresolved, DialError::Failed)));
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
    /// A new stream to an endpoint, and its place among those that the endpoint may have. A PROXY `header` is the first that it hears.
    pub async fn dial(
        &self,
        endpoint: &Endpoint,
        header: Option<Buf>,
        patience: Duration,
        timer: &mut Timer,
        counters: &Counters,
    ) -> Result<(Transport, Held), DialError> {
        self.dial_by(self.tls.as_deref(), endpoint, header, patience, timer, counters).await
    }

    /// As [`dial`](Self::dial), met by TLS as `tls` says.
    pub(super) async fn dial_by(
        &self,
        tls: Option<&Origination>,
        endpoint: &Endpoint,
        header: Option<Buf>,
        patience: Duration,
        timer: &mut Timer,
        counters: &Counters,
    ) -> Result<(Transport, Held), DialError> {
        let held = endpoint.hold().ok_or(DialError::Full)?;
        let addresses = endpoint.addresses();
        counters.upstream_connects_total.add(1);
        let begun = ring::now();
        let dialled = match dial(&addresses, patience, timer).await {
            Ok(stream) => secure(stream, header, tls, &endpoint.authority, begun + patience, timer).await,
            Err(error) => Err(error),
        };
        if let Err(DialError::Tls(failure)) = &dialled {
            self.tell(&endpoint.name, failure);
        }
        counters.upstream_connect_nanoseconds_total.add(ring::now().since(begun).as_nanos() as u64);
        counters.upstream_connect_failures_total.add(u64::from(dialled.is_err()));
        dialled.map(|stream| (stream, held))
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
