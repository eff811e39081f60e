//! The operator's endpoint: `/metrics` for Prometheus, `/status` for `penstock status`, `/healthz` for a supervisor.
//!
//! Served by the control thread, so that a scrape costs the workers one message. Read-only.

mod status;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use proto::h1::{RequestHead, Respond, Server};
use proto::http::{Fields, Method, Status};
use ring::{ListenOptions, Listener, Stream};

use crate::conn::{Conn, Read};
use crate::engine::Engine;
use crate::limits;
use crate::snapshot::Address;
use crate::telemetry::prometheus;
use crate::upstream;

type Shared = Rc<RefCell<Engine>>;

/// How long an operator's connection may take over its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Binds the admin addresses and answers there from now on.
///
/// # Errors
/// The first address that cannot be bound, named.
pub fn serve(addresses: &[Address], engine: &Shared) -> io::Result<()> {
    let open = Rc::new(Cell::new(0));
    for address in addresses {
        let options = ListenOptions { reuse_port: false, ..ListenOptions::default() };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("admin {address}: {error}"));
        let target = upstream::literal(address).into_iter().next();
        let target =
            target.ok_or_else(|| named(io::Error::other("an admin address must be an IP address or a path")))?;
        let mut listener = Listener::bind(&target, &options).map_err(named)?;
        let (engine, open) = (Rc::clone(engine), Rc::clone(&open));
        ring::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(stream) if open.get() < limits::ADMIN_CONNECTIONS_MAX => {
                        let (engine, open) = (Rc::clone(&engine), Rc::clone(&open));
                        open.set(open.get() + 1);
                        ring::spawn(async move {
                            converse(stream, &engine).await;
                            open.set(open.get() - 1);
                        });
                    }
                    Ok(_) => {}
                    Err(_) => ring::sleep(limits::ACCEPT_PAUSE).await,
                }
            }
        });
    }
    Ok(())
}

async fn converse(stream: Stream, engine: &Shared) {
    let mut conn: Conn<Server> = Conn::new(stream);
    let mut fields = Fields::with_limit(limits::FIELDS_MAX);
    loop {
        let read = ring::until(ring::now() + PATIENCE, poll_fn(|cx| conn.poll_read(cx, &mut fields))).await;
        match read {
            Some(Ok(Read::Head(head))) => {
                let bytes = conn.take_head(head.length as usize);
                let answer = answer(&head, head.path.of(bytes.bytes()), engine).await;
                if !send(&mut conn, &head, &answer).await {
                    return;
                }
            }
            // No admin request has content of interest.
            Some(Ok(Read::Data(_) | Read::End)) => {}
            Some(Err(crate::conn::Broken::Malformed(malformed))) => {
                let mut out = Vec::new();
                let _ = Respond::new(malformed.status()).write(&mut out);
                conn.stream.send(ring::Buf::copy_of(&out));
                let _ = ring::until(ring::now() + PATIENCE, conn.stream.sent(0)).await;
                return;
            }
            _ => return,
        }
    }
}

struct Answer {
    status: Status,
    kind: &'static [u8],
    body: String,
}

async fn answer(head: &RequestHead, path: &[u8], engine: &Shared) -> Answer {
    let text = b"text/plain; charset=utf-8".as_slice();
    if !matches!(head.method, Method::Get | Method::Head) {
        return Answer { status: Status::METHOD_NOT_ALLOWED, kind: text, body: "read-only: GET it\n".into() };
    }
    match path {
        b"/metrics" => {
            published(engine).await;
            Answer { status: Status::OK, kind: b"text/plain; version=0.0.4", body: metrics(&engine.borrow()) }
        }
        b"/status" => {
            published(engine).await;
            let body = format!("{:#}\n", status::status(&engine.borrow()));
            Answer { status: Status::OK, kind: b"application/json", body }
        }
        b"/healthz" if engine.borrow().is_draining() => {
            Answer { status: Status::SERVICE_UNAVAILABLE, kind: text, body: "draining\n".into() }
        }
        b"/healthz" => Answer { status: Status::OK, kind: text, body: "ok\n".into() },
        _ => Answer { status: Status::NOT_FOUND, kind: text, body: "/metrics, /status, /healthz\n".into() },
    }
}

/// Waits until every worker has published what its ring counts, but not for one that is stuck.
async fn published(engine: &Shared) {
    let before: Vec<u64> = engine.borrow().cells().iter().map(|cells| cells.published.get()).collect();
    engine.borrow_mut().ask_to_publish();
    let deadline = ring::now() + limits::PUBLISH_WAIT;
    while ring::now() < deadline {
        let done = engine.borrow().cells().iter().zip(&before).all(|(cells, before)| cells.published.get() > *before);
        if done {
            return;
        }
        ring::sleep(Duration::from_millis(1)).await;
    }
}

fn metrics(engine: &Engine) -> String {
    let mut out = String::with_capacity(32 << 10);
    let cells: Vec<_> = engine.cells().iter().map(|cells| &**cells).collect();
    prometheus::workers(&mut out, &cells);
    let endpoints: Vec<_> = status::endpoints(engine).collect();
    let mut family = |name, kind, help, value: &dyn Fn(&status::EndpointStatus<'_>) -> u64| {
        let labels = |of: &status::EndpointStatus<'_>| {
            format!("pool={},endpoint={}", prometheus::label(of.pool), prometheus::label(of.name))
        };
        prometheus::family(&mut out, name, kind, help, endpoints.iter().map(|of| (labels(of), value(of))));
    };
    family("penstock_endpoint_requests_total", "counter", "Tries that ended.", &|of| of.sums.requests);
    family("penstock_endpoint_failures_total", "counter", "Tries that count against it.", &|of| of.sums.failures);
    family("penstock_endpoint_in_flight", "gauge", "Tries in progress.", &|of| of.sums.in_flight);
    family("penstock_endpoint_breakers_open", "gauge", "Workers whose breaker is open.", &|of| of.sums.open as u64);
    let uptime =
        std::iter::once(("version=\"".to_owned() + env!("CARGO_PKG_VERSION") + "\"", engine.uptime().as_secs()));
    prometheus::family(&mut out, "penstock_uptime_seconds", "counter", "Since the start.", uptime);
    out
}

/// Sends the answer; false when the connection is over.
async fn send(conn: &mut Conn<Server>, head: &RequestHead, answer: &Answer) -> bool {
    let mut respond = Respond::new(answer.status);
    respond.content_type = answer.kind;
    respond.body = answer.body.as_bytes();
    respond.head_only = head.method == Method::Head;
    respond.peer = head.version;
    respond.persistent = conn.machine.is_persistent() && conn.machine.is_body_read();
    let framing = respond.framing();
    let mut out = Vec::with_capacity(answer.body.len() + 256);
    let told = respond.write(&mut out).is_ok()
        && conn.machine.head_written(answer.status, framing, respond.persistent).is_ok()
        && (!framing.has_body() || conn.machine.body_written(respond.body.len()).is_ok())
        && conn.machine.end_written().is_ok();
    if !told {
        return false;
    }
    for piece in out.chunks(64 << 10) {
        conn.stream.send(ring::Buf::copy_of(piece));
    }
    let sent = ring::until(ring::now() + PATIENCE, poll_fn(|cx| conn.stream.poll_sent(cx, 0))).await;
    matches!(sent, Some(Ok(()))) && conn.machine.is_persistent()
}
