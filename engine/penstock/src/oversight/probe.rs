//! One probe: a connection of its own, a question, and whether the answer is the one that is wanted.
//!
//! What holds here: a probe is over by its deadline, connecting included; it reads [`limits::PROBE_BYTES_MAX`] at the most; it
//! tells its result in words that an operator can act on. Never on a pooled connection: one that was made an hour ago says
//! nothing about who could connect now.

mod grpc;

use std::future::poll_fn;
use std::task::Context;
use std::time::Duration;

use proto::h1::{Client, ResponseHead};
use proto::h2::Limits;
use proto::http::{Fields, Framing, Method};
use ring::{Address, Buf, Timer};

use crate::conn::{Broken, Conn, Lane, Multiplex, Multiplexed, Read, Stream, Transport, h3};
use crate::limits;
use crate::quic::Link;
use crate::snapshot::{HealthProbe, Pool, PoolProtocol, ProbeAsk, Statuses};
use crate::upstream::{self, Approach, DialError, proxy_header};

/// What came of a probe, in words.
pub(super) enum Probed {
    Good(String),
    Bad(String),
    /// It was connected to, and said nothing in time.
    Silent(String),
    /// The endpoint's name has no address: there was nobody to ask.
    Nobody,
    /// It could not be sent, for a reason of ours: it says nothing about the endpoint.
    Unsent(String),
}

/// A connection for a probe.
enum Reached {
    Stream(Box<Transport>),
    Quic(Box<Link>),
}

/// Bytes of what an endpoint said that are shown.
const SHOWN_MAX: usize = 40;

/// Asks an endpoint once. `name` is the Host where the settings name none.
pub(super) async fn probe(
    of: &HealthProbe,
    by: Option<&Approach>,
    pool: &Pool,
    addresses: &[Address],
    name: &str,
) -> Probed {
    let begun = ring::now();
    let addresses: Vec<Address> = addresses.iter().map(|address| at_port(address, of.port)).collect();
    let mut timer = Timer::new();
    let timeout = of.settings.timeout;
    let reached = match by.filter(|_| pool.protocol == PoolProtocol::Http3) {
        Some(by) => upstream::call(by, name, &addresses, None, timeout, &mut timer)
            .await
            .map(|link| Reached::Quic(Box::new(link))),
        None => match upstream::dial(&addresses, None, timeout, &mut timer).await {
            Ok(stream) => {
                let (header, tls) = (proxy_header(pool.proxy_protocol, None), by.map(|by| &*by.tls));
                let secured = upstream::secure(stream, header, tls, name, begun + timeout, &mut timer).await;
                secured.map(|stream| Reached::Stream(Box::new(stream)))
            }
            Err(error) => Err(error),
        },
    };
    let reached = match reached {
        Ok(reached) => reached,
        Err(error) => return unconnected(error, timeout),
    };
    match ring::until(begun + timeout, ask(reached, of, pool.protocol, name)).await {
        Some(Ok(said)) => Probed::Good(format!("{said} in {}", shown_time(ring::now().since(begun)))),
        Some(Err(why)) => Probed::Bad(why),
        None => Probed::Silent(format!("no answer within {timeout:?}")),
    }
}

fn unconnected(error: DialError, timeout: Duration) -> Probed {
    let ours = policy::Class::from(&error) == policy::Class::Shed;
    match error {
        DialError::Unresolved => Probed::Nobody,
        DialError::Full => Probed::Unsent("it has as many connections as it may".into()),
        DialError::NoUpgrades => Probed::Bad("it lets no stream leave HTTP".into()),
        DialError::TimedOut => Probed::Bad(format!("no connection within {timeout:?}")),
        DialError::Tls(failure) => Probed::Bad(failure.to_string()),
        DialError::Failed(error) if ours => Probed::Unsent(error.to_string()),
        DialError::Failed(error) => Probed::Bad(error.to_string()),
    }
}

fn at_port(address: &Address, port: Option<u16>) -> Address {
    match (address, port) {
        (Address::Inet(inet), Some(port)) => Address::Inet((inet.ip(), port).into()),
        _ => address.clone(),
    }
}

async fn ask(reached: Reached, of: &HealthProbe, protocol: PoolProtocol, name: &str) -> Result<String, String> {
    match &of.ask {
        ProbeAsk::Tcp => Ok("connected".into()),
        ProbeAsk::Bytes { send, expect } => match reached {
            Reached::Stream(stream) => bytes(*stream, send.as_bytes(), expect.as_bytes()).await,
            Reached::Quic(_) => Err("HTTP/3 has no bytes to expect: probe by `http`".into()),
        },
        ProbeAsk::Http { target, host, status, body } => {
            let mut asked = Asked::new(reached, protocol == PoolProtocol::Http2);
            asked.send_request(target, host_of(host.as_deref(), name))?;
            asked.answer(status, body.as_deref()).await
        }
        ProbeAsk::Grpc { service, host } => {
            if let Reached::Stream(stream) = &reached
                && stream.secured().is_some_and(|secured| !secured.http2)
            {
                return Err("it does not choose HTTP/2 (ALPN), over which gRPC is spoken".into());
            }
            let mut asked = Asked::new(reached, true);
            asked.check_service(service, host_of(host.as_deref(), name), of.settings.timeout)?;
            asked.serving(service).await
        }
    }
}

/// The Host to ask with.
fn host_of<'a>(host: Option<&'a str>, name: &'a str) -> &'a str {
    // A Unix socket's path is none.
    host.unwrap_or(if name.starts_with("unix:") { "localhost" } else { name })
}

async fn bytes(mut stream: Transport, send: &[u8], expect: &[u8]) -> Result<String, String> {
    if !send.is_empty() {
        stream.send(Buf::copy_of(send));
    }
    let mut said = Vec::new();
    while said.len() < expect.len() && expect.starts_with(&said) {
        match stream.recv().await {
            Ok(Some(buf)) => said.extend_from_slice(buf.bytes()),
            Ok(None) => return Err(format!("it ended after {}", shown(&said))),
            Err(error) => return Err(error.to_string()),
        }
    }
    if said.starts_with(expect) { Ok(shown(&said)) } else { Err(format!("it said {}", shown(&said))) }
}

/// A connection for one question.
enum Asked {
    Http1(Conn<Client>),
    Http2(Multiplex<Client>, Stream<Client>),
    /// With the clock of its connection.
    Http3(h3::Multiplex<Client>, h3::Stream<Client>, Timer),
}

impl Asked {
    /// What was not agreed upon by TLS is known `http2` or not.
    fn new(reached: Reached, http2: bool) -> Self {
        let stream = match reached {
            Reached::Stream(stream) => *stream,
            Reached::Quic(link) => {
                let connection = h3::Multiplex::new(*link, limits::HTTP3_UPSTREAM);
                return Self::Http3(connection.clone(), h3::Stream::unasked(connection), Timer::new());
            }
        };
        let secured = stream.secured();
        if !secured.map_or(http2, |secured| secured.http2) {
            return Self::Http1(Conn::new(stream));
        }
        let limits = Limits { secure: secured.is_some(), ..limits::HTTP2 };
        let connection = Multiplex::new(stream, None, limits);
        Self::Http2(connection.clone(), Stream::unasked(connection))
    }

    fn lane(&mut self) -> Lane<'_, Client> {
        match self {
            Self::Http1(conn) => conn.into(),
            Self::Http2(_, stream) => stream.into(),
            Self::Http3(_, stream, _) => stream.into(),
        }
    }

    fn send_request(&mut self, target: &str, host: &str) -> Result<(), String> {
        let close = if matches!(self, Self::Http1(_)) { "Connection: close\r\n" } else { "" };
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: penstock-health\r\nAccept: */*\r\n{close}\r\n"
        );
        let asked = match self {
            Self::Http1(conn) => {
                conn.stream.send(Buf::copy_of(request.as_bytes()));
                conn.machine.head_written(Method::Get, Framing::None, false, false)
            }
            Self::Http2(_, stream) => stream.ask_as(request.as_bytes()),
            Self::Http3(_, stream, _) => stream.ask_as(request.as_bytes()),
        };
        asked.map_err(|_| "the connection is not free".to_owned())
    }

    /// What is said next.
    async fn read(&mut self, fields: &mut Fields) -> Result<Read<ResponseHead>, Broken> {
        poll_fn(|cx| {
            self.pump(cx);
            self.lane().poll_read(cx, fields)
        })
        .await
    }

    /// Moves what a shared connection has, for nobody else does. When it is over, whoever reads hears of it.
    fn pump(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(_) => {}
            Self::Http2(connection, _) => {
                let _ = connection.poll(cx, &mut |_| {});
            }
            Self::Http3(connection, _, timer) => {
                let _ = connection.poll(cx, &mut |_| {});
                if let Some(due) = connection.deadline() {
                    timer.set(due);
                    if timer.poll_expired() {
                        cx.waker().wake_by_ref();
                    }
                }
            }
        }
    }

    async fn answer(&mut self, status: &Statuses, body: Option<&str>) -> Result<String, String> {
        let mut fields = Fields::with_limit(limits::FIELDS_MAX);
        let head = self.head(&mut fields).await?;
        let code = head.status.code();
        if !status.contains(code) {
            return Err(format!("{code} instead of {status}"));
        }
        let Some(wanted) = body else { return Ok(code.to_string()) };
        self.lane().skip_head(head.length as usize);
        let mut content = Vec::new();
        loop {
            match self.read(&mut fields).await {
                Ok(Read::Data(data)) => content.extend_from_slice(data.bytes()),
                Ok(Read::End) => return Err(format!("{code}, and its content has no {wanted:?}")),
                Ok(_) => return Err(format!("{code}, and its content broke off")),
                Err(broken) => return Err(told(&broken)),
            }
            let read = &content[..content.len().min(limits::PROBE_BYTES_MAX)];
            if read.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                return Ok(format!("{code}, {wanted:?}"));
            }
            if content.len() >= limits::PROBE_BYTES_MAX {
                return Err(format!("{code}, and the first {} bytes have no {wanted:?}", limits::PROBE_BYTES_MAX));
            }
        }
    }

    /// The head of the final response.
    async fn head(&mut self, fields: &mut Fields) -> Result<ResponseHead, String> {
        loop {
            match self.read(fields).await {
                Ok(Read::Head(head)) if head.status.is_interim() => self.lane().skip_head(head.length as usize),
                Ok(Read::Head(head)) => return Ok(head),
                Ok(_) => return Err("it closed the connection without an answer".into()),
                Err(broken) => return Err(told(&broken)),
            }
        }
    }
}

fn told(broken: &Broken) -> String {
    match broken {
        Broken::Malformed(malformed) => format!("its answer is not HTTP: {malformed}"),
        Broken::Io(error) => error.to_string(),
    }
}

fn shown(said: &[u8]) -> String {
    match said {
        [] => "nothing".into(),
        _ => format!("\"{}\"", said[..said.len().min(SHOWN_MAX)].escape_ascii()),
    }
}

fn shown_time(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}
