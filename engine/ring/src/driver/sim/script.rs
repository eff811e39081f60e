//! Scripts: what clients and origins outside of the node do, written as plain `async` code.
//!
//! A script gets a [`Host`], a machine of its own, and acts through it: connect, listen, send, receive, sleep. Each `await`
//! looks again whenever something changed, in virtual time; order and delays come from the world's seed alone. A script
//! that panics fails the turn of the node in which it ran, and so the seed.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::kernel::{Event, Got, Kernel, Shared};
use super::net::SocketId;
use crate::net::Address;

/// Connections that wait at a script's listener, as `net.core.somaxconn` has it.
const BACKLOG: usize = 4_096;

/// Names a script of a world.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ScriptId(u32);

/// A script and what is left to do of it.
pub(super) struct Slot {
    pub(super) name: String,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    pub(super) done: bool,
}

/// Starts a script; it runs when the world's time goes on.
pub(super) fn spawn<T: 'static, F: Future<Output = T> + 'static>(
    shared: &Shared,
    name: &str,
    script: impl FnOnce(Host) -> F,
) -> Script<T> {
    let number = {
        let kernel = &mut *shared.borrow_mut();
        kernel.hosts += 1;
        kernel.hosts
    };
    let future = script(Host { shared: shared.clone(), number });
    let ending = Rc::new(RefCell::new(Ending { value: None, ended: false, waker: None, scripts: Vec::new() }));
    let (handle, kernel) = (ending.clone(), Rc::downgrade(shared));
    let future = async move {
        let value = future.await;
        let mut ending = ending.borrow_mut();
        ending.value = Some(value);
        ending.ended = true;
        let waker = ending.waker.take();
        let scripts = std::mem::take(&mut ending.scripts);
        drop(ending);
        if let Some(kernel) = kernel.upgrade() {
            let kernel = &mut *kernel.borrow_mut();
            kernel.woken |= waker.is_some();
            scripts.into_iter().for_each(|script| kernel.schedule(0, Event::Wake { script }));
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    let kernel = &mut *shared.borrow_mut();
    let id = ScriptId(kernel.scripts.len() as u32);
    kernel.scripts.push(Slot { name: name.into(), future: Some(Box::pin(future)), done: false });
    let delay = kernel.dice.span(kernel.faults.script_delay);
    kernel.schedule(delay, Event::Wake { script: id });
    Script { ending: handle, shared: shared.clone() }
}

/// Lets everything happen whose time has come, scripts included.
pub(super) fn run_due(shared: &Shared) {
    loop {
        let mut kernel = shared.borrow_mut();
        let Some(id) = kernel.advance() else { return };
        if kernel.giving_up() {
            continue;
        }
        let Some(mut future) = kernel.scripts[id.0 as usize].future.take() else { continue };
        kernel.current = Some(id);
        drop(kernel);
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut kernel = shared.borrow_mut();
        kernel.current = None;
        let slot = &mut kernel.scripts[id.0 as usize];
        match polled {
            Poll::Pending => slot.future = Some(future),
            Poll::Ready(()) => {
                slot.done = true;
                drop(kernel);
                // Its sockets close as it goes, for which they need the kernel.
                drop(future);
            }
        }
    }
}

/// Takes all scripts away, so that they can be dropped while nobody holds the kernel.
pub(super) fn take_all(shared: &Shared) -> Vec<Pin<Box<dyn Future<Output = ()>>>> {
    shared.borrow_mut().scripts.iter_mut().filter_map(|slot| slot.future.take()).collect()
}

/// Tries again whenever the script is woken, until there is an answer. `register` says what to wait for.
pub(super) async fn until<T>(shared: &Shared, mut attempt: impl FnMut(&mut Kernel) -> Option<T>) -> T {
    poll_fn(|_| match attempt(&mut shared.borrow_mut()) {
        Some(value) => Poll::Ready(value),
        None => Poll::Pending,
    })
    .await
}

struct Ending<T> {
    value: Option<T>,
    ended: bool,
    waker: Option<Waker>,
    scripts: Vec<ScriptId>,
}

/// A script that was started; as a future, its result. Both the node's tasks and other scripts can await it.
///
/// Dropping it lets the script go on.
pub struct Script<T> {
    ending: Rc<RefCell<Ending<T>>>,
    shared: Shared,
}

impl<T> Script<T> {
    /// The script has ended.
    pub fn is_done(&self) -> bool {
        self.ending.borrow().ended
    }

    /// What the script returned, once.
    pub fn take(&self) -> Option<T> {
        self.ending.borrow_mut().value.take()
    }
}

impl<T> Future for Script<T> {
    type Output = T;

    /// # Panics
    /// If the result was taken before.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut ending = self.ending.borrow_mut();
        if ending.ended {
            return Poll::Ready(ending.value.take().expect("a script's result is taken once"));
        }
        match self.shared.borrow().current {
            Some(script) => ending.scripts.push(script),
            None => ending.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

/// A machine outside of the node: what a script acts through.
#[derive(Clone)]
pub struct Host {
    shared: Shared,
    number: u16,
}

impl Host {
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Connects from this host's own address (10.1.x.y).
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens, `TimedOut` after 127 s, `ConnectionReset`.
    pub async fn connect(&self, address: &Address) -> io::Result<Socket> {
        let socket = {
            let kernel = &mut *self.shared.borrow_mut();
            let local = kernel.client_address(self.number);
            let id = kernel.open(local);
            kernel.connect_to(id, address.clone());
            Socket::own(&self.shared, id)
        };
        let error = until(&self.shared, |kernel| {
            if kernel.socket(socket.id()).connecting() {
                return kernel.watch(socket.id());
            }
            Some(kernel.connect_outcome(socket.id()))
        })
        .await;
        if error == 0 { Ok(socket) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Listens; port 0 stands for a free one.
    ///
    /// # Errors
    /// `AddrInUse`.
    pub fn listen(&self, address: &Address) -> io::Result<Listening> {
        Listening::open(&self.shared, address)
    }

    /// Waits for a time.
    pub async fn sleep(&self, time: Duration) {
        let deadline = self.shared.borrow().now + time.as_nanos() as u64;
        self.shared.borrow_mut().wake_at(deadline);
        until(&self.shared, |kernel| (kernel.now >= deadline).then_some(())).await;
    }

    /// What `work` comes to, or `None` if that takes longer than `time`.
    pub async fn within<T>(&self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let deadline = self.shared.borrow().now + time.as_nanos() as u64;
        self.shared.borrow_mut().wake_at(deadline);
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.shared.borrow().now >= deadline => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Starts another script, on a host of its own.
    pub fn spawn<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        name: &str,
        script: impl FnOnce(Self) -> F,
    ) -> Script<T> {
        spawn(&self.shared, name, script)
    }

    /// Virtual nanoseconds since the world began.
    pub fn now(&self) -> u64 {
        self.shared.borrow().now
    }

    /// A number within `range`, both ends included, from the world's seed.
    pub fn pick(&self, range: RangeInclusive<usize>) -> usize {
        self.shared.borrow_mut().dice.within(range)
    }

    /// True with this probability, from the world's seed.
    pub fn chance(&self, probability: f64) -> bool {
        self.shared.borrow_mut().dice.chance(probability)
    }

    /// Sleeps for a random time up to `most`.
    pub async fn dawdle(&self, most: Duration) {
        let time = self.shared.borrow_mut().dice.span(most);
        self.sleep(Duration::from_nanos(time)).await;
    }

    /// Writes into the world's trace.
    pub fn note(&self, text: impl Into<String>) {
        let kernel = self.shared.borrow();
        kernel.trace.borrow_mut().note(kernel.now, text.into());
    }
}

/// A listening socket of a script; dropping it closes it.
pub struct Listening {
    socket: Socket,
}

impl Listening {
    pub(super) fn open(shared: &Shared, address: &Address) -> io::Result<Self> {
        let id = shared.borrow_mut().listen_at(address, BACKLOG).map_err(io::Error::from_raw_os_error)?;
        Ok(Self { socket: Socket::own(shared, id) })
    }

    /// The next connection.
    pub async fn accept(&self) -> Socket {
        let listener = self.socket.id();
        let shared = &self.socket.handle.shared;
        let id = until(shared, |kernel| kernel.accept_one(listener).or_else(|| kernel.watch(listener))).await;
        Socket::own(shared, id)
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        self.socket.local()
    }
}

/// A connection of a script. Clones are the same connection; dropping the last one closes it (FIN, or RST if it
/// holds unread bytes).
#[derive(Clone)]
pub struct Socket {
    handle: Rc<Handle>,
}

struct Handle {
    shared: Shared,
    id: SocketId,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(mut kernel) = self.shared.try_borrow_mut()
            && !kernel.socket(self.id).closed
        {
            kernel.close_socket(self.id, false);
        }
    }
}

impl Socket {
    fn own(shared: &Shared, id: SocketId) -> Self {
        Self { handle: Rc::new(Handle { shared: shared.clone(), id }) }
    }

    fn id(&self) -> SocketId {
        self.handle.id
    }

    /// Offers bytes; returns how many were taken, 0 if there is no room.
    ///
    /// # Errors
    /// `ConnectionReset`, once; then, and after `shutdown_write`, `BrokenPipe`.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.shared.borrow_mut().transmit(self.id(), bytes).map_err(io::Error::from_raw_os_error)
    }

    /// Sends all bytes, waiting for room.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        until(&self.handle.shared, |kernel| {
            match kernel.transmit(self.id(), &bytes[sent..]) {
                Err(error) => return Some(Err(io::Error::from_raw_os_error(error))),
                Ok(taken) => sent += taken,
            }
            if sent == bytes.len() { Some(Ok(())) } else { kernel.watch(self.id()) }
        })
        .await
    }

    /// Sends all bytes in up to eight pieces, cut anywhere, with pauses of up to `pause` between them.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub async fn send_split(&self, host: &Host, mut bytes: &[u8], pause: Duration) -> io::Result<()> {
        for _ in 1..host.pick(1..=8) {
            let (piece, rest) = bytes.split_at(host.pick(0..=bytes.len()));
            self.send(piece).await?;
            bytes = rest;
            host.dawdle(pause).await;
        }
        self.send(bytes).await
    }

    /// Receives up to `max` bytes; an empty answer is the end of the stream.
    ///
    /// # Errors
    /// `ConnectionReset`, once; then the end.
    pub async fn recv(&self, max: usize) -> io::Result<Vec<u8>> {
        until(&self.handle.shared, |kernel| match kernel.take(self.id(), max) {
            Got::Bytes(bytes) => Some(Ok(bytes)),
            Got::End => Some(Ok(Vec::new())),
            Got::Failed(error) => Some(Err(io::Error::from_raw_os_error(error))),
            Got::Nothing => kernel.watch(self.id()),
        })
        .await
    }

    /// Receives exactly `count` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before, else as [`recv`](Self::recv).
    pub async fn recv_exact(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let got = self.recv(count - all.len()).await?;
            if got.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            all.extend_from_slice(&got);
        }
        Ok(all)
    }

    /// Receives up to and including `mark`, and nothing behind it.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before, else as [`recv`](Self::recv).
    pub async fn recv_until(&self, mark: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while !all.ends_with(mark) {
            all.extend(self.recv_exact(1).await?);
        }
        Ok(all)
    }

    /// Receives everything up to the end of the stream.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_to_end(&self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let got = self.recv(64 * 1024).await?;
            if got.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&got);
        }
    }

    /// Sends FIN: the other end sees the end of the stream, and may go on sending.
    pub fn shutdown_write(&self) {
        self.handle.shared.borrow_mut().end(self.id(), false);
    }

    /// Closes the connection for all clones: FIN, or RST if there are unread bytes.
    pub fn close(self) {
        self.close_with(false);
    }

    /// Closes the connection for all clones with RST.
    pub fn reset(self) {
        self.close_with(true);
    }

    /// This end's address.
    pub fn local(&self) -> Address {
        self.handle.shared.borrow().socket(self.id()).local.clone()
    }

    /// The other end's address; `None` if there is no connection.
    pub fn peer(&self) -> Option<Address> {
        self.handle.shared.borrow().socket(self.id()).remote.clone()
    }

    fn close_with(&self, reset: bool) {
        let kernel = &mut *self.handle.shared.borrow_mut();
        if !kernel.socket(self.id()).closed {
            kernel.close_socket(self.id(), reset);
        }
    }
}

impl Kernel {
    /// The script that runs now looks again when something changes at `socket`. Returns `None` for the caller to return.
    pub(super) fn watch<T>(&mut self, socket: SocketId) -> Option<T> {
        let script = self.current.expect("a script's sockets are used by scripts only");
        let watchers = &mut self.socket_mut(socket).watchers;
        if !watchers.contains(&script) {
            watchers.push(script);
        }
        None
    }

    /// The script that runs now looks again at this time.
    fn wake_at(&mut self, at: u64) {
        let script = self.current.expect("scripts sleep on their own time, tasks of the node on the reactor's");
        self.schedule_at(at, Event::Wake { script });
    }
}
