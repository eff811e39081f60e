//! The operator's endpoint: `/metrics` for Prometheus, `/status` and `/show` to look, `/healthz` for a supervisor, `/set` to
//! change what must not wait for a new configuration, and `/reload` for that.
//!
//! Served by the control thread, so that a scrape costs the workers one message. What holds here: only a POST changes anything,
//! none that a browser may have been made to send does ([`trust`]), and each change is noted with who made it.

mod afxdp;
mod balance;
mod breakers;
mod grpc;
mod metrics;
mod order;
mod qlog;
mod qos;
mod reload;
mod samehost;
mod selection;
mod shield;
mod show;
mod status;
mod steering;
mod tap;
mod tls;
mod trust;
mod view;
mod websocket;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use proto::h1::{RequestHead, Respond, Server};
use proto::http::{Fields, Method, Span, Status};
use ring::{ListenOptions, Listener, Stream};
use serde_json::{Value, json};

use self::order::What;
use crate::conn::{Conn, Read, Transport};
use crate::engine::{Engine, Reread};
use crate::limits;
use crate::snapshot::Address;
use crate::upstream;

type Shared = Rc<RefCell<Engine>>;

/// What is served, and where a new configuration comes from.
#[derive(Clone)]
struct Office {
    engine: Shared,
    reread: Option<Rc<Reread>>,
}

/// How long an operator's connection may take over its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked for.
const PATHS: &str = "/metrics, /status, /healthz, /show/endpoints, /show/pools, /show/breakers, /show/routes, /show/limits, /show/websockets, /show/grpc, /show/shield, /show/denied, /show/vips";

/// Binds the admin addresses and answers there from now on.
///
/// # Errors
/// The first address that cannot be bound, named.
pub fn serve(addresses: &[Address], engine: &Shared, reread: Option<&Rc<Reread>>) -> io::Result<()> {
    let open = Rc::new(Cell::new(0));
    let office = Office { engine: Rc::clone(engine), reread: reread.cloned() };
    for address in addresses {
        let options = ListenOptions { reuse_port: false, ..ListenOptions::default() };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("admin {address}: {error}"));
        let target = upstream::literal(address).into_iter().next();
        let target =
            target.ok_or_else(|| named(io::Error::other("an admin address must be an IP address or a path")))?;
        let mut listener = Listener::bind(&target, &options).map_err(named)?;
        let (office, open) = (office.clone(), Rc::clone(&open));
        ring::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(stream) if open.get() < limits::ADMIN_CONNECTIONS_MAX => {
                        let (office, open) = (office.clone(), Rc::clone(&open));
                        open.set(open.get() + 1);
                        ring::spawn(async move {
                            converse(stream, &office).await;
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

/// A request of an operator, whole.
struct Request {
    head: RequestHead,
    method: Method,
    path: String,
    query: String,
    /// Why it may change nothing, if so.
    refusal: Option<(Status, &'static str)>,
    who: String,
    content: Vec<u8>,
}

async fn converse(stream: Stream, office: &Office) {
    let mut conn: Conn<Server> = Conn::new(stream);
    while let Some(read) = ring::until(ring::now() + PATIENCE, next_request(&mut conn)).await {
        match read {
            Ok(request) => {
                let answer = answer(&request, office).await;
                if !send(&mut conn, &request.head, &answer).await {
                    return;
                }
            }
            Err(Some(status)) => {
                let mut out = Vec::new();
                let _ = Respond::new(status).write(&mut out);
                conn.stream.send(ring::Buf::copy_of(&out));
                let _ = ring::until(ring::now() + PATIENCE, conn.stream.sent(0)).await;
                return;
            }
            Err(None) => return,
        }
    }
}

/// The next request with its content; or why there is none: a status to tell, or the end of the connection.
async fn next_request(conn: &mut Conn<Server>) -> Result<Request, Option<Status>> {
    let mut fields = Fields::with_limit(limits::FIELDS_MAX);
    let mut request = loop {
        match poll_fn(|cx| conn.poll_read(cx, &mut fields)).await {
            Ok(Read::Head(head)) => break Request::new(conn, head, &fields),
            // What is left of the request before.
            Ok(Read::Data(_) | Read::End) => {}
            Ok(Read::Tunnel | Read::Closed(_)) => return Err(None),
            Err(broken) => return Err(broken.status()),
        }
    };
    loop {
        match poll_fn(|cx| conn.poll_read(cx, &mut fields)).await {
            Ok(Read::Data(data)) if request.content.len() + data.len() > limits::ADMIN_CONTENT_MAX => {
                return Err(Some(Status::CONTENT_TOO_LARGE));
            }
            Ok(Read::Data(data)) => request.content.extend_from_slice(data.bytes()),
            Ok(Read::End) => return Ok(request),
            Ok(_) => return Err(None),
            Err(broken) => return Err(broken.status()),
        }
    }
}

impl Request {
    fn new(conn: &mut Conn<Server>, head: RequestHead, fields: &Fields) -> Self {
        let buf = conn.take_head(head.length as usize);
        let bytes = buf.bytes();
        let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
        Self {
            head,
            method: head.method,
            path: text(head.path),
            query: text(head.query),
            refusal: trust::refusal(&head, fields, bytes),
            who: who(&conn.stream),
            content: Vec::new(),
        }
    }
}

/// Where an operator sits: all that can be known without asking.
fn who(stream: &Transport) -> String {
    match (stream.peer_user(), stream.peer()) {
        (Some(user), _) => format!("user {user}"),
        (None, Ok(address)) => address.to_string(),
        (None, Err(_)) => "somebody who has gone".into(),
    }
}

struct Answer {
    status: Status,
    kind: &'static [u8],
    body: String,
}

impl Answer {
    fn text(status: Status, body: &str) -> Self {
        Self { status, kind: b"text/plain; charset=utf-8", body: format!("{body}\n") }
    }

    fn json(status: Status, body: &Value) -> Self {
        Self { status, kind: b"application/json", body: format!("{body:#}\n") }
    }

    fn refusal(status: Status, why: &str) -> Self {
        Self::json(status, &json!({ "error": why }))
    }
}

async fn answer(request: &Request, office: &Office) -> Answer {
    match request.method {
        Method::Get | Method::Head => read(request, &office.engine).await,
        Method::Post => change(request, office).await,
        _ => Answer::text(Status::METHOD_NOT_ALLOWED, "GET a page, or POST a change"),
    }
}

async fn read(request: &Request, engine: &Shared) -> Answer {
    match &*request.path {
        "/metrics" => {
            published(engine).await;
            let body = metrics::metrics(&engine.borrow());
            Answer { status: Status::OK, kind: b"text/plain; version=0.0.4", body }
        }
        "/status" => {
            published(engine).await;
            Answer::json(Status::OK, &status::status(&engine.borrow()))
        }
        "/healthz" if engine.borrow().is_draining() => Answer::text(Status::SERVICE_UNAVAILABLE, "draining"),
        "/healthz" => Answer::text(Status::OK, "ok"),
        path => match path.strip_prefix("/show/") {
            Some(page) => match show::show(&engine.borrow(), page, &request.query) {
                Ok(rows) => Answer::json(Status::OK, &rows.into()),
                Err(why) => Answer::refusal(Status::NOT_FOUND, &why),
            },
            None => Answer::text(Status::NOT_FOUND, PATHS),
        },
    }
}

/// What a POST may be for.
enum Change {
    Order(What),
    Reload,
    /// Samples are taken, which is a change as well.
    Tap,
}

async fn change(request: &Request, office: &Office) -> Answer {
    let change = match &*request.path {
        "/set/endpoint" => Change::Order(What::Endpoint),
        "/set/breaker" => Change::Order(What::Breaker),
        "/set/route" => Change::Order(What::Route),
        "/set/shield" => Change::Order(What::Shield),
        "/set/same-host" => Change::Order(What::SameHost),
        "/set/qlog" => Change::Order(What::Qlog),
        "/reload" => Change::Reload,
        "/tap/xdp" => Change::Tap,
        _ => {
            let known = "what can be set: /set/endpoint, /set/breaker, /set/route, /set/shield, /set/same-host, /set/qlog; and /reload, /tap/xdp";
            return Answer::refusal(Status::NOT_FOUND, known);
        }
    };
    if let Some((status, why)) = request.refusal {
        return Answer::refusal(status, why);
    }
    let Office { engine, reread } = office;
    told(match change {
        Change::Order(what) => order::follow(&mut engine.borrow_mut(), what, &request.content, &request.who),
        Change::Reload => reload::reload(engine, reread.as_deref(), &request.content).await,
        Change::Tap => tap::tap(&mut engine.borrow_mut(), &request.content),
    })
}

fn told(done: Result<Value, order::Refused>) -> Answer {
    match done {
        Ok(done) => Answer::json(Status::OK, &done),
        Err(refused) => Answer::refusal(refused.status, &refused.why),
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
