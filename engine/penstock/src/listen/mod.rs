//! The doors: sockets that accept, the PROXY header that some clients begin with, and the budget of connections.

pub mod quic;
pub mod udp;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use proto::proxy;
use ring::{Address, Buf, Foreign, ListenOptions, Listener, Socket, Stream, TaskRef, Timer};

use crate::conn::Transport;
use crate::exchange::Door;
use crate::limits;
use crate::session::{self, Accepted, Sessions};
use crate::snapshot::{self, Bind};
use crate::steer;

/// Binds every address of a listener.
pub fn bind(listener: &snapshot::Listener) -> io::Result<Vec<Listener>> {
    let mut bound = Vec::new();
    for address in &listener.addresses {
        let named = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => "; another process listens there (`ss -ltnp` names it)",
                io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                _ => "",
            };
            io::Error::new(error.kind(), format!("listener `{}`: {address}: {error}{advice}", listener.name))
        };
        bound.push(bind_one(address, listener.backlog).map_err(named)?);
    }
    Ok(bound)
}

fn bind_one(address: &Bind, backlog: u32) -> io::Result<Listener> {
    let options = ListenOptions { backlog: backlog as i32, ..ListenOptions::default() };
    match address {
        Bind::Tcp(inet) => Listener::bind(&Address::Inet(*inet), &options),
        Bind::Unix(path) => Listener::bind(&Address::Unix(path.clone()), &options),
        Bind::Any { port } => {
            let any = |ip: IpAddr| Address::Inet(SocketAddr::new(ip, *port));
            Listener::bind(&any(Ipv6Addr::UNSPECIFIED.into()), &options)
                .or_else(|_| Listener::bind(&any(Ipv4Addr::UNSPECIFIED.into()), &options))
        }
    }
}

/// Binds every address of a listener to UDP, and further ports of [`also`](snapshot::Listener::also), for a `purpose` that errors name, with advice for ports that are taken.
fn datagrams<T>(
    listener: &snapshot::Listener,
    purpose: &str,
    advice: &str,
    mut one: impl FnMut(SocketAddr, Foreign) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let mut bound = Vec::new();
    let own = if listener.also.is_empty() { Foreign::Refused } else { Foreign::Answers };
    let further = listener.further_ports().into_iter().map(|further| (Bind::Tcp(further), Foreign::Bound));
    for (address, foreign) in listener.addresses.iter().map(|own_one| (own_one.clone(), own)).chain(further) {
        let named = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("; another process has the UDP port (`ss -lunp` names it){advice}")
                }
                io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE".into(),
                _ => String::new(),
            };
            io::Error::new(error.kind(), format!("listener `{}`: {address}{purpose}: {error}{advice}", listener.name))
        };
        let socket = match address {
            Bind::Unix(_) => continue,
            Bind::Tcp(inet) => one(inet, foreign),
            Bind::Any { port } => {
                let mut any = |ip: IpAddr| one(SocketAddr::new(ip, port), foreign);
                any(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| any(Ipv4Addr::UNSPECIFIED.into()))
            }
        };
        bound.push(socket.map_err(named)?);
    }
    Ok(bound)
}

/// What accepting needs to know of its worker. A gate is a socket's, and stays when the configuration changes.
pub struct Gate {
    door: RefCell<Rc<Door>>,
    pub sessions: Rc<Sessions>,
    /// Workers that share the listener's connections.
    workers: usize,
    /// Of a listening socket.
    pub steered: Option<steer::Steered>,
    closing: Cell<bool>,
    task: Cell<Option<TaskRef>>,
}

impl Gate {
    pub fn new(door: Rc<Door>, sessions: Rc<Sessions>, workers: usize, steered: Option<steer::Steered>) -> Self {
        let door = RefCell::new(door);
        Self { door, sessions, workers, steered, closing: Cell::new(false), task: Cell::new(None) }
    }

    /// Who comes in now goes through this one.
    pub fn door(&self) -> Rc<Door> {
        Rc::clone(&self.door.borrow())
    }

    /// Who comes in from now on goes through this one.
    pub fn lead_to(&self, door: &Rc<Door>) {
        self.door.replace(Rc::clone(door));
        self.wake();
    }

    /// This worker's share of the listener's connections.
    fn connections_max(&self) -> usize {
        (self.door.borrow().listener().max_connections as usize).div_ceil(self.workers.max(1))
    }

    /// As many connections are open as may be.
    fn is_full(&self) -> bool {
        self.door.borrow().way.open.get() >= self.connections_max()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// What comes next, by `poll`; `None`, now and then, once the gate is closing: it may be time to end.
    async fn next<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        self.task.set(Some(ring::current_task()));
        if self.closing.get() {
            return ring::until(ring::now() + limits::GATE_CLOSING_LOOK, poll_fn(poll)).await;
        }
        poll_fn(|cx| match poll(cx) {
            Poll::Ready(what) => Poll::Ready(Some(what)),
            Poll::Pending if self.closing.get() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// No more connections but those that the kernel has accepted already.
    pub fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = self.task.get() {
            ring::wake(task);
        }
    }
}

/// Accepts until the gate closes: then takes in what the kernel has accepted already, so that no client that has a
/// connection loses it.
pub async fn accept(gate: Rc<Gate>, mut listener: Listener) {
    gate.task.set(Some(ring::current_task()));
    while let Some(accepted) = accept_or_close(&gate, &mut listener).await {
        match accepted {
            Ok(socket) => take(&gate, socket),
            Err(error) if concerns_one(&error) => {}
            Err(_) => ring::sleep(limits::ACCEPT_PAUSE).await,
        }
        while gate.is_full() && !gate.closing.get() {
            // The kernel's queue holds those that come now.
            gate.door().cells.counters.accept_pauses_total.add(1);
            ring::sleep(limits::ACCEPT_PAUSE).await;
        }
    }
    let last = ring::now() + limits::ACCEPT_LAST;
    while let Some(accepted) = ring::until(last, listener.accept()).await {
        if let Ok(stream) = accepted {
            admit(&gate, stream);
        }
    }
    // What was accepted while the cancel was on its way belongs to somebody too.
    listener.stop();
    loop {
        match listener.accept().await {
            Ok(stream) => admit(&gate, stream),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
            Err(_) => {}
        }
    }
}

/// Keeps a connection, unless a worker with less to do gets it.
fn take(gate: &Rc<Gate>, socket: Socket) {
    let kept = match &gate.steered {
        Some(steered) => steered.accepted(socket, gate.connections_max()),
        None => Some(socket),
    };
    if let Some(socket) = kept {
        admit(gate, socket.into_stream());
    }
}

/// A connection that another worker has accepted is this one's from now on.
pub fn take_over(gate: &Rc<Gate>, socket: Socket) {
    gate.door().cells.counters.taken_over_total.add(1);
    admit(gate, socket.into_stream());
}

async fn accept_or_close(gate: &Gate, listener: &mut Listener) -> Option<io::Result<Socket>> {
    let mut accepting = std::pin::pin!(listener.accept_socket());
    poll_fn(|cx| if gate.closing.get() { Poll::Ready(None) } else { accepting.as_mut().poll(cx).map(Some) }).await
}

/// The connection was gone before it was accepted; the next one is none the worse.
fn concerns_one(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
        || error.raw_os_error() == Some(71 /* EPROTO */)
}

fn admit(gate: &Rc<Gate>, stream: Stream) {
    let (door, sessions) = (&gate.door(), &gate.sessions);
    door.cells.counters.connections_total.add(1);
    let peer = stream.peer().ok().and_then(|address| address.inet());
    if peer.is_some_and(|peer| door.listener().proxy_protocol_from.contains(peer.ip())) {
        let (door, sessions) = (Rc::clone(door), Rc::clone(sessions));
        ring::spawn(async move {
            if let Some(accepted) = proxied(&door, stream).await {
                enter(&door, &sessions, accepted);
            }
        });
        return;
    }
    let local = || stream.local().ok().and_then(|address| address.inet());
    let path = if door.tells_path { peer.zip(local()) } else { None };
    if let Some(stream) = secure(door, stream) {
        enter(door, sessions, Accepted { address: peer.map(|peer| peer.ip()), path, unread: None, held: None, stream });
    }
}

/// The stream as its listener speaks: TLS, which is agreed upon when the session begins, or as it is.
fn secure(door: &Door, stream: Stream) -> Option<Transport> {
    match &*door.tls.borrow() {
        None => Some(stream.into()),
        // A configuration that was tried out when it was loaded is not refused now, but for want of memory.
        Some(config) => Transport::accept(stream, config).ok(),
    }
}

/// Serves a connection, unless its client has as many as it may.
fn enter(door: &Rc<Door>, sessions: &Rc<Sessions>, accepted: Accepted) {
    match door.qos.hold(door.listener, accepted.address) {
        Some(held) => session::start(door, sessions, Accepted { held, ..accepted }),
        None => {
            door.cells.counters.connections_refused_total.add(1);
            accepted.stream.reset();
        }
    }
}

/// Reads the PROXY header that this peer must begin with; `None` when it does not, and the connection ends.
async fn proxied(door: &Door, mut stream: Stream) -> Option<Accepted> {
    let mut timer = Timer::new();
    timer.set(ring::now() + door.listener().head_timeout);
    let mut got: Option<Buf> = None;
    let header = poll_fn(|cx| {
        loop {
            if let Some(buf) = &got {
                match proxy::parse(buf.bytes()) {
                    Ok(Some(header)) => return Poll::Ready(Some(header)),
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(None),
                }
            }
            match stream.poll_recv(cx) {
                Poll::Ready(Ok(Some(more))) => match got.take() {
                    None => got = Some(more),
                    Some(part) => {
                        let Some(mut part) = part.with_more_room(more.len()) else { return Poll::Ready(None) };
                        part.extend(more.bytes());
                        got = Some(part);
                    }
                },
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if timer.poll_expired() => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    let Some(header) = header else {
        door.cells.counters.requests_malformed_total.add(1);
        stream.reset();
        return None;
    };
    let mut unread = got?;
    unread.consume(header.length);
    let path = match header.peer {
        proxy::Peer::Inet { source, destination } => Some((source, destination)),
        proxy::Peer::Local => {
            stream.peer().ok().and_then(|peer| peer.inet()).zip(stream.local().ok().and_then(|local| local.inet()))
        }
        proxy::Peer::Unknown | proxy::Peer::Unix => None,
    };
    let address = path.map(|(source, _)| source.ip());
    if door.tls.borrow().is_some() {
        // The header goes before TLS (PROXY protocol §2): what follows it is TLS already.
        stream.unread(unread);
        return Some(Accepted { stream: secure(door, stream)?, address, path, held: None, unread: None });
    }
    let unread = Some(unread).filter(|unread| !unread.is_empty());
    Some(Accepted { stream: stream.into(), address, path, held: None, unread })
}
