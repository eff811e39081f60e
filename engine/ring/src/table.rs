//! Every socket of a thread and what it waits for: where completions arrive and requests are gathered.
//!
//! What holds here:
//! * Tasks and completions only change this table; what the kernel shall do is collected in [`Todo`] and handed over
//!   once a turn. So nothing here makes a system call; but datagrams are received and sent by calls (`datagrams.rs`).
//! * A stream's slot outlives its handle until no operation is in flight on its descriptor; only then is it closed.
//! * Bytes that arrive are never dropped while somebody owns the stream, late ones of a cancelled receive included.

use std::io;
use std::rc::Rc;

use crate::buf::Buf;
use crate::driver::{Completion, Fd, Request, Token};
use crate::exec::{Exec, TaskRef};
use crate::op::{GATHER_MAX, Gather, OpId, Ops, Owned, Purpose};
use crate::queue::Queue;
use crate::slab::Slab;
use crate::xsk;

mod datagrams;
mod detach;
mod listeners;
mod splices;
mod waits;

use datagrams::DatagramSlot;
use listeners::ListenerSlot;
use waits::WaitSlot;

/// A stream whose reader is behind by this much stops receiving until the reader has caught up: one bulk receive.
const INBOX_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub(crate) struct Todo {
    pub(crate) requests: Vec<(Token, Request)>,
    pub(crate) shutdowns: Vec<(Fd, bool)>,
    pub(crate) closes: Vec<(Fd, bool)>,
}

pub(crate) struct Table {
    pub(crate) ops: Ops,
    pub(crate) todo: Todo,
    streams: Slab<StreamSlot>,
    listeners: Slab<ListenerSlot>,
    datagrams: Slab<DatagramSlot>,
    waits: Slab<WaitSlot>,
    /// Streams with something to send and nothing in flight.
    unsent: Vec<u32>,
    /// Datagram sockets that the kernel has room for again.
    writable: Vec<u32>,
    #[allow(clippy::vec_box, reason = "the kernel knows their addresses")]
    gathers: Vec<Box<Gather>>,
    pub(crate) bell_rang: bool,
    /// Streams whose receive is armed anew: empty between looks.
    quiet: Vec<u32>,
    /// Sockets of AF_XDP with something to send.
    pub(crate) kicks: Vec<Rc<xsk::Shared>>,
}

/// How a stream receives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Appetite {
    /// Whatever comes, as it comes: heads and small messages. Holds no memory while it waits.
    Any,
    /// One receive at a time, of up to this many bytes, straight into a buffer of the stream's own; only when somebody
    /// asks. For bodies: who does not ask, does not receive.
    Bulk(u32),
}

pub(crate) struct StreamSlot {
    fd: Fd,
    recv_op: OpId,
    send_op: OpId,
    recv_task: TaskRef,
    send_task: TaskRef,
    inbox: Queue,
    outbox: Queue,
    /// Bytes in `outbox` and in flight.
    unsent: u32,
    /// Bytes of the send in flight.
    sending: u32,
    /// Errno that ended receiving; 0 with `eof` is an orderly end.
    recv_error: i32,
    send_error: i32,
    appetite: Appetite,
    flags: Flags,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    /// A handle exists.
    owned: bool,
    receiving_multi: bool,
    cancelling_recv: bool,
    cancelling_send: bool,
    starved: bool,
    ended: bool,
    connecting: bool,
    /// On the list of streams with something to send.
    listed: bool,
    fin_wanted: bool,
    reset: bool,
    /// Receiving ends, because the connection leaves this ring or is spliced: what receives is not armed anew.
    leaving: bool,
    /// A receive would not wait, as was said since it was asked; and a send.
    arrived: bool,
    room: bool,
    heard: Heard,
}

/// When bytes last came through a receive that stays armed ([`Table::look_again`]).
#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Heard {
    /// Since the last look.
    Lately,
    /// Before it, and nothing since.
    Before,
    /// Not since the receive was armed, or it has been armed anew.
    #[default]
    Settled,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            ops: Ops::new(),
            todo: Todo::default(),
            streams: Slab::new(),
            listeners: Slab::new(),
            datagrams: Slab::new(),
            waits: Slab::new(),
            unsent: Vec::new(),
            writable: Vec::new(),
            gathers: Vec::new(),
            bell_rang: false,
            quiet: Vec::new(),
            kicks: Vec::new(),
        }
    }

    /// Streams and datagram sockets open, and operations in flight.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.streams.len(), self.datagrams.len(), self.ops.len())
    }

    // --- streams -------------------------------------------------------------------------------------------------

    pub(crate) fn add_stream(&mut self, fd: Fd) -> u32 {
        self.streams.insert(StreamSlot {
            fd,
            recv_op: OpId::NONE,
            send_op: OpId::NONE,
            recv_task: TaskRef::NONE,
            send_task: TaskRef::NONE,
            inbox: Queue::default(),
            outbox: Queue::default(),
            unsent: 0,
            sending: 0,
            recv_error: 0,
            send_error: 0,
            appetite: Appetite::Any,
            flags: Flags { owned: true, ..Flags::default() },
        })
    }

    pub(crate) fn stream_fd(&self, stream: u32) -> Fd {
        self.streams.get(stream).fd
    }

    /// Begins to connect; [`connected`](Self::connected) tells when it is done.
    pub(crate) fn connect(&mut self, stream: u32, address: (libc::sockaddr_storage, u32)) {
        let storage = Box::new(address.0);
        let addr = &raw const *storage;
        let op = self.ops.begin(Purpose::Connect { stream }, Owned::Address(storage));
        let slot = self.streams.get_mut(stream);
        slot.send_op = op;
        slot.flags.connecting = true;
        self.todo.requests.push((op.token(), Request::Connect { fd: slot.fd, addr, len: address.1 }));
    }

    /// `None` while it is still connecting; `task` is woken then.
    pub(crate) fn connected(&mut self, stream: u32, task: TaskRef) -> Option<io::Result<()>> {
        let slot = self.streams.get_mut(stream);
        if slot.flags.connecting {
            slot.send_task = task;
            return None;
        }
        Some(error_or_ok(slot.send_error))
    }

    pub(crate) fn set_appetite(&mut self, stream: u32, appetite: Appetite) {
        let slot = self.streams.get_mut(stream);
        slot.appetite = appetite;
        if matches!(appetite, Appetite::Bulk(_)) && slot.flags.receiving_multi {
            self.cancel_recv(stream);
        }
    }

    /// Takes what has arrived: `Some(Ok(None))` is the end of the stream. `None`: nothing yet; `task` is woken.
    #[inline]
    pub(crate) fn recv(&mut self, stream: u32, task: TaskRef) -> Option<io::Result<Option<Buf>>> {
        let received = self.received(stream);
        if received.is_none() {
            self.streams.get_mut(stream).recv_task = task;
            self.arm_recv(stream);
        }
        received
    }

    /// What has arrived, and nothing more: arms no receive.
    pub(crate) fn received(&mut self, stream: u32) -> Option<io::Result<Option<Buf>>> {
        let slot = self.streams.get_mut(stream);
        if let Some(buf) = slot.inbox.pop() {
            return Some(Ok(Some(buf)));
        }
        slot.end().map(|end| end.map(|()| None))
    }

    /// Whether [`recv`](Self::recv) has something to say; arms the receive and remembers `task` if not.
    pub(crate) fn readable(&mut self, stream: u32, task: TaskRef) -> bool {
        let slot = self.streams.get_mut(stream);
        if !slot.inbox.is_empty() || slot.end().is_some() {
            return true;
        }
        slot.recv_task = task;
        self.arm_recv(stream);
        false
    }

    /// Whether the connection has failed (not: ended). Remembers `task` for when it does.
    pub(crate) fn broken(&mut self, stream: u32, task: TaskRef) -> bool {
        let slot = self.streams.get_mut(stream);
        if slot.recv_error != 0 || slot.send_error != 0 {
            return true;
        }
        slot.recv_task = task;
        if slot.inbox.is_empty() {
            self.arm_recv(stream);
        }
        false
    }

    /// Whether the other end has closed its side.
    pub(crate) fn ended(&self, stream: u32) -> bool {
        self.streams.get(stream).flags.ended
    }

    /// Keeps an eye on an idle connection, so that [`is_quiet`](Self::is_quiet) sees its end.
    pub(crate) fn watch(&mut self, stream: u32) {
        self.streams.get_mut(stream).recv_task = TaskRef::NONE;
        self.arm_recv(stream);
    }

    /// Puts bytes back in front of what arrives next.
    pub(crate) fn unread(&mut self, stream: u32, buf: Buf) {
        self.streams.get_mut(stream).inbox.push_front(buf);
    }

    /// Nothing has arrived, and nothing has gone wrong: an idle connection fit for use.
    pub(crate) fn is_quiet(&self, stream: u32) -> bool {
        let slot = self.streams.get(stream);
        slot.inbox.is_empty() && !slot.flags.ended && slot.recv_error == 0 && slot.send_error == 0
    }

    /// Queues `buf` to be sent after what is queued already.
    #[inline]
    pub(crate) fn send(&mut self, stream: u32, buf: Buf) {
        let slot = self.streams.get_mut(stream);
        if buf.is_empty() || slot.send_error != 0 {
            return;
        }
        debug_assert!(!slot.flags.fin_wanted, "bytes queued behind the end of the stream");
        slot.unsent += buf.len() as u32;
        slot.outbox.push(buf);
        if slot.send_op.is_none() && !slot.flags.listed {
            slot.flags.listed = true;
            self.unsent.push(stream);
        }
    }

    pub(crate) fn unsent(&self, stream: u32) -> usize {
        self.streams.get(stream).unsent as usize
    }

    /// `None` while more than `most` bytes are unsent; `task` is woken when something has gone out.
    pub(crate) fn sent(&mut self, stream: u32, most: usize, task: TaskRef) -> Option<io::Result<()>> {
        let slot = self.streams.get_mut(stream);
        if slot.send_error != 0 {
            return Some(error_or_ok(slot.send_error));
        }
        if slot.unsent as usize <= most {
            return Some(Ok(()));
        }
        slot.send_task = task;
        None
    }

    /// FIN behind everything queued.
    pub(crate) fn finish(&mut self, stream: u32) {
        let slot = self.streams.get_mut(stream);
        if slot.unsent == 0 && slot.send_error == 0 {
            self.todo.shutdowns.push((slot.fd, false));
        } else {
            slot.flags.fin_wanted = true;
        }
    }

    pub(crate) fn reset_on_close(&mut self, stream: u32) {
        self.streams.get_mut(stream).flags.reset = true;
    }

    /// The handle is gone: cancels what is in flight and closes when it has come to rest.
    pub(crate) fn abandon(&mut self, stream: u32) {
        let slot = self.streams.get_mut(stream);
        slot.flags.owned = false;
        slot.recv_task = TaskRef::NONE;
        slot.send_task = TaskRef::NONE;
        slot.inbox = Queue::default();
        slot.outbox = Queue::default();
        if !slot.send_op.is_none() && !slot.flags.cancelling_send {
            slot.flags.cancelling_send = true;
            self.todo.requests.push((0, Request::Cancel { target: slot.send_op.token() }));
        }
        if !slot.recv_op.is_none() {
            self.cancel_recv(stream);
        }
        self.close_if_at_rest(stream);
    }

    /// Turns what the tasks queued for sending into requests: one a stream, however many pieces it has.
    pub(crate) fn start_sends(&mut self) {
        let mut listed = std::mem::take(&mut self.unsent);
        for stream in listed.drain(..) {
            if self.streams.try_get(stream).is_some_and(|slot| slot.flags.listed) {
                self.start_send(stream);
            }
        }
        self.unsent = listed;
    }

    fn start_send(&mut self, stream: u32) {
        let slot = self.streams.get_mut(stream);
        slot.flags.listed = false;
        let Some(first) = slot.outbox.pop() else { return };
        debug_assert!(slot.send_op.is_none(), "two sends in flight on one stream");
        if slot.outbox.is_empty() {
            let (ptr, len) = (first.bytes().as_ptr(), first.len() as u32);
            slot.sending = len;
            slot.send_op = self.ops.begin(Purpose::Send { stream }, Owned::Buf(first));
            self.todo.requests.push((slot.send_op.token(), Request::Send { fd: slot.fd, ptr, len }));
            return;
        }
        let mut gather = self.gathers.pop().unwrap_or_else(Gather::new);
        gather.bufs.push(first);
        while gather.bufs.len() < GATHER_MAX
            && let Some(buf) = slot.outbox.pop()
        {
            gather.bufs.push(buf);
        }
        let (msg, total) = gather.message();
        slot.sending = total as u32;
        slot.send_op = self.ops.begin(Purpose::Send { stream }, Owned::Gather(gather));
        self.todo.requests.push((slot.send_op.token(), Request::SendMsg { fd: slot.fd, msg }));
    }

    fn arm_recv(&mut self, stream: u32) {
        let slot = self.streams.get_mut(stream);
        if !slot.recv_op.is_none() || slot.end().is_some() {
            return;
        }
        // After the provided buffers ran out, one receive into memory of our own makes progress for certain.
        let bulk = match slot.appetite {
            Appetite::Bulk(bytes) => Some(bytes),
            Appetite::Any => slot.flags.starved.then_some(16 << 10),
        };
        slot.flags.starved = false;
        slot.flags.cancelling_recv = false;
        match bulk {
            None => {
                slot.flags.receiving_multi = true;
                slot.recv_op = self.ops.begin(Purpose::RecvMulti { stream }, Owned::Nothing);
                self.todo.requests.push((slot.recv_op.token(), Request::RecvMulti { fd: slot.fd }));
            }
            Some(bytes) => {
                slot.flags.receiving_multi = false;
                let mut buf = Buf::with_room(bytes as usize);
                let (ptr, room) = buf.spare_raw();
                slot.recv_op = self.ops.begin(Purpose::RecvOnce { stream }, Owned::Buf(buf));
                let request = Request::Recv { fd: slot.fd, ptr, len: room.min(bytes) };
                self.todo.requests.push((slot.recv_op.token(), request));
            }
        }
    }

    /// Arms receives anew that somebody waits for and that have gone quiet after they brought something; called about once a
    /// second, and for each silence once.
    ///
    /// An armed receive learns of what follows by an edge. Where an RST comes right behind bytes, both are one edge: the kernel
    /// (seen on 6.18) receives the bytes, is told that nothing is left to be read, and waits for an edge that will not come. A
    /// receive that begins sees what there is.
    pub(crate) fn look_again(&mut self) {
        let mut quiet = std::mem::take(&mut self.quiet);
        for (stream, slot) in self.streams.iter_mut() {
            let waits = slot.flags.receiving_multi && !slot.recv_task.is_none();
            match slot.flags.heard {
                Heard::Lately => slot.flags.heard = Heard::Before,
                Heard::Before if waits => quiet.push(stream),
                Heard::Before | Heard::Settled => {}
            }
        }
        for stream in quiet.drain(..) {
            self.streams.get_mut(stream).flags.heard = Heard::Settled;
            self.cancel_recv(stream);
        }
        self.quiet = quiet;
    }

    fn cancel_recv(&mut self, stream: u32) {
        let slot = self.streams.get_mut(stream);
        if !slot.flags.cancelling_recv {
            slot.flags.cancelling_recv = true;
            self.todo.requests.push((0, Request::Cancel { target: slot.recv_op.token() }));
        }
    }

    fn close_if_at_rest(&mut self, stream: u32) {
        let slot = self.streams.get(stream);
        if !slot.flags.owned && slot.recv_op.is_none() && slot.send_op.is_none() {
            self.todo.closes.push((slot.fd, slot.flags.reset));
            self.streams.remove(stream);
        }
    }

    /// Cancels everything in flight: nobody waits for it any more.
    pub(crate) fn cancel_all(&mut self) {
        let cancels = self.ops.in_flight().map(|op| (0, Request::Cancel { target: op.token() }));
        self.todo.requests.extend(cancels);
    }

    // --- completions ---------------------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn complete(&mut self, completion: Completion<'_>, exec: &Exec) {
        let Some((purpose, owned)) = self.ops.complete(completion.token, completion.more) else { return };
        match purpose {
            Purpose::RecvMulti { stream } => self.received_multi(stream, &completion, exec),
            Purpose::Send { stream } => self.send_ended(stream, completion.result, owned, exec),
            Purpose::RecvOnce { stream } => self.received_once(stream, completion.result, owned, exec),
            Purpose::Accept { listener } => self.accepted(listener, &completion, exec),
            Purpose::Connect { stream } => self.connect_ended(stream, completion.result, exec),
            Purpose::Arrived { stream } => self.told_of_arrival(stream, exec),
            Purpose::Room { stream } => self.told_of_room(stream, exec),
            Purpose::Readable { socket } => self.datagrams_readable(socket, exec),
            Purpose::Writable { socket } => self.datagrams_writable(socket),
            Purpose::Poll { wait } => self.wait_ended(wait, completion.result, exec),
            Purpose::Bell => self.bell_rang = true,
        }
    }

    fn received_multi(&mut self, stream: u32, completion: &Completion<'_>, exec: &Exec) {
        let slot = self.streams.get_mut(stream);
        if !completion.more {
            slot.recv_op = OpId::NONE;
            slot.flags.receiving_multi = false;
        }
        match completion.result {
            0 => slot.flags.ended = true,
            count @ 1.. => {
                debug_assert_eq!(count as usize, completion.bytes.len());
                slot.flags.heard = Heard::Lately;
                if slot.flags.owned {
                    slot.inbox.append(completion.bytes);
                }
            }
            error if error == -libc::ENOBUFS => slot.flags.starved = true,
            error if error == -libc::ECANCELED => {}
            error => slot.recv_error = -error,
        }
        self.after_receive(stream, exec);
        let slot = self.streams.try_get(stream);
        if slot.is_some_and(|slot| slot.flags.receiving_multi && slot.inbox.bytes() > INBOX_BYTES_MAX) {
            self.cancel_recv(stream);
        }
    }

    fn received_once(&mut self, stream: u32, result: i32, owned: Owned, exec: &Exec) {
        let slot = self.streams.get_mut(stream);
        slot.recv_op = OpId::NONE;
        match result {
            0 => slot.flags.ended = true,
            count @ 1.. => {
                if let Owned::Buf(mut buf) = owned
                    && slot.flags.owned
                {
                    buf.grow(count as usize);
                    slot.inbox.push(buf);
                }
            }
            error if error == -libc::ECANCELED || error == -libc::EINTR => {}
            error => slot.recv_error = -error,
        }
        self.after_receive(stream, exec);
    }

    fn after_receive(&mut self, stream: u32, exec: &Exec) {
        let slot = self.streams.get_mut(stream);
        if !slot.flags.owned {
            return self.close_if_at_rest(stream);
        }
        if slot.recv_task.is_none() {
            return;
        }
        let at_rest = slot.flags.leaving && slot.recv_op.is_none();
        if !slot.inbox.is_empty() || slot.end().is_some() || at_rest {
            exec.wake(std::mem::replace(&mut slot.recv_task, TaskRef::NONE));
        } else if slot.recv_op.is_none() {
            // Cancelled, starved or interrupted while somebody waits: go on with what is wanted now.
            self.arm_recv(stream);
        }
    }

    fn send_ended(&mut self, stream: u32, result: i32, owned: Owned, exec: &Exec) {
        if let Owned::Gather(mut gather) = owned {
            gather.bufs.clear();
            self.gathers.push(gather);
        }
        let slot = self.streams.get_mut(stream);
        slot.send_op = OpId::NONE;
        if !slot.flags.owned {
            return self.close_if_at_rest(stream);
        }
        if result >= 0 && result as u32 == slot.sending {
            slot.unsent -= slot.sending;
        } else {
            // Part of it went out and then the peer was gone: what is left can go nowhere.
            slot.send_error = if result < 0 { -result } else { libc::EPIPE };
            slot.unsent = 0;
            slot.outbox = Queue::default();
            exec.wake(std::mem::replace(&mut slot.recv_task, TaskRef::NONE));
        }
        slot.sending = 0;
        if slot.outbox.is_empty() {
            if std::mem::take(&mut slot.flags.fin_wanted) && slot.send_error == 0 {
                self.todo.shutdowns.push((slot.fd, false));
            }
        } else if !slot.flags.listed {
            slot.flags.listed = true;
            self.unsent.push(stream);
        }
        if !slot.send_task.is_none() {
            exec.wake(std::mem::replace(&mut slot.send_task, TaskRef::NONE));
        }
    }

    fn connect_ended(&mut self, stream: u32, result: i32, exec: &Exec) {
        let slot = self.streams.get_mut(stream);
        slot.send_op = OpId::NONE;
        slot.flags.connecting = false;
        if !slot.flags.owned {
            return self.close_if_at_rest(stream);
        }
        slot.send_error = (-result).max(0);
        if !slot.outbox.is_empty() && !slot.flags.listed {
            slot.flags.listed = true;
            self.unsent.push(stream);
        }
        exec.wake(std::mem::replace(&mut slot.send_task, TaskRef::NONE));
    }
}

impl StreamSlot {
    /// How receiving ended, once all that arrived has been taken. A failed send ends it too: the peer is gone.
    ///
    /// A failed send speaks louder than an end: when a connection breaks, the kernel tells its one error (`sk_err`) to the
    /// send or to the receive, and the other one sees what looks like an end.
    fn end(&self) -> Option<io::Result<()>> {
        let error = if self.recv_error != 0 { self.recv_error } else { self.send_error };
        if error != 0 {
            return Some(Err(io::Error::from_raw_os_error(error)));
        }
        self.flags.ended.then_some(Ok(()))
    }
}

fn error_or_ok(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}
