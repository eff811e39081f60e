//! Bytes that go from one stream to another through a pipe of the kernel's, and are copied by nobody.
//!
//! What holds here: a pipe is taken when there is something to put into it, and given back when it is empty, so that streams whose readers keep up
//! share one; bytes come out as they went in, and before anything that is received or sent afterwards. A pipe that is not empty when its owner ends
//! is closed, and never another's.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::Poll;

use super::Stream;
use crate::driver::{Driver, Pipe};
use crate::reactor;

/// The pipes that the streams of a thread share.
#[derive(Debug)]
pub struct Pipes {
    free: RefCell<Vec<Pipe>>,
    /// Those lent and those free.
    open: Cell<usize>,
    /// How many there may be, and how large each is: at least, at most.
    open_max: usize,
    bytes: [usize; 2],
}

impl Pipes {
    /// At most `open_max` pipes of `most` bytes, or of less where the user may have no more, but not less than `least`.
    #[must_use]
    pub fn new(open_max: usize, least: usize, most: usize) -> Rc<Self> {
        Rc::new(Self { free: RefCell::default(), open: Cell::default(), open_max, bytes: [least, most] })
    }

    /// Pipes open, in use or not.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.get()
    }

    fn take(self: &Rc<Self>, driver: &Driver) -> Option<Lent> {
        let free = self.free.borrow_mut().pop();
        let pipe = match free {
            Some(pipe) => pipe,
            None if self.open.get() < self.open_max => {
                let [least, most] = self.bytes;
                let pipe = driver.pipe(least, most).ok()?;
                self.open.set(self.open.get() + 1);
                pipe
            }
            None => return None,
        };
        Some(Lent { pipe: Some(pipe), pipes: Rc::clone(self) })
    }
}

/// A pipe that goes back by itself.
#[derive(Debug)]
struct Lent {
    /// There until it goes back.
    pipe: Option<Pipe>,
    pipes: Rc<Pipes>,
}

impl Lent {
    fn pipe(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("it has not gone back")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match self.pipe.take() {
            Some(pipe) if pipe.held() == 0 => self.pipes.free.borrow_mut().push(pipe),
            _ => self.pipes.open.set(self.pipes.open.get() - 1),
        }
    }
}

/// What a step of a [`Splice`] came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moved {
    /// So many bytes have gone on their way to the other stream. `taken`: those that this step has taken from the first one.
    On {
        /// Bytes sent.
        sent: usize,
        /// Bytes received.
        taken: usize,
    },
    /// What is there cannot be spliced, or is the end: it is to be received.
    Stuck,
    /// All pipes are in use, or the user may have no more.
    NoPipe,
}

/// One direction between two streams, while it is spliced.
#[derive(Debug)]
pub struct Splice {
    pipes: Rc<Pipes>,
    /// The pipe that has bytes of this direction's; `None`: there are none.
    pipe: Option<Lent>,
}

impl Splice {
    /// Nothing has been moved yet.
    #[must_use]
    pub fn new(pipes: &Rc<Pipes>) -> Self {
        Self { pipes: Rc::clone(pipes), pipe: None }
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pipe.is_none()
    }

    /// Ready when `from` and `to` may be spliced: all that was received has been taken, and all that was sent is gone. Who is not ready has to
    /// [take](Stream::received) what has come meanwhile, and to send it.
    ///
    /// # Errors
    /// Sending has failed.
    pub fn poll_settled(from: &mut Stream, to: &mut Stream) -> Poll<io::Result<()>> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            let mut table = reactor.table.borrow_mut();
            if !table.is_settled(from.index, task) {
                return Poll::Pending;
            }
            table.sent(to.index, 0, task).map_or(Poll::Pending, Poll::Ready)
        })
    }

    /// Moves what can be moved at once, a pipe's worth at most. Only where both streams are [settled](Self::poll_settled), and from there on until
    /// it is anything but [`Moved::On`]: then the pipe is empty, and `from` can be received from again.
    ///
    /// # Errors
    /// Either stream's. What the pipe holds is lost with the connection.
    pub fn poll_move(&mut self, from: &mut Stream, to: &mut Stream) -> Poll<io::Result<Moved>> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            let (mut table, mut driver) = (reactor.table.borrow_mut(), reactor.driver.borrow_mut());
            let mut taken = 0;
            let mut lent = match self.pipe.take() {
                Some(lent) if !table.has_room(to.index, task) => {
                    self.pipe = Some(lent);
                    return Poll::Pending;
                }
                Some(lent) => lent,
                None if !table.has_arrived(from.index, task) => return Poll::Pending,
                None => {
                    let Some(mut lent) = self.pipes.take(&driver) else { return Poll::Ready(Ok(Moved::NoPipe)) };
                    match driver.fill(lent.pipe(), table.stream_fd(from.index)) {
                        Ok(0) => return Poll::Ready(Ok(Moved::Stuck)),
                        Ok(filled) => taken = filled,
                        Err(error) if is_no_end(&error) => return Poll::Ready(Ok(Moved::Stuck)),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                    lent
                }
            };
            let sent = match driver.drain(lent.pipe(), table.stream_fd(to.index)) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.pipe = (lent.pipe().held() > 0).then_some(lent);
            Poll::Ready(Ok(Moved::On { sent, taken }))
        })
    }
}

/// Nothing that splice can take is there, or it cannot take anything from such a socket.
fn is_no_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EINVAL)
}
