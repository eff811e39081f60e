//! A fast HTTP/1.1 origin that can be told to be slow or to fail.
//!
//! `/` answers [`Origin::body_bytes`] bytes; `/b/16384`, `/16384`, `/16k` and `/1m` answer what they say; so does any other
//! path with the default. Bodies are the [`Pattern`](crate::Pattern).

mod answer;
mod conversation;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ring::{Address, ListenOptions, Listener};

use crate::group::Group;
use answer::Answers;
use conversation::Site;

/// How long an origin pauses when it can have no more descriptors or memory.
const PAUSE: Duration = Duration::from_millis(10);

/// An origin to be.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: Address,
    /// What a path that names no size answers, in bytes.
    pub body_bytes: u64,
    /// Waits this long before each answer (to the millisecond).
    pub delay: Option<Duration>,
    /// Up to this much more, drawn evenly.
    pub jitter: Duration,
    /// Every so-manieth request fails.
    pub fail_every: Option<u32>,
    /// How it fails then.
    pub failure: Failure,
    /// Connections live on after an answer.
    pub keep_alive: bool,
    /// The value of the `server` field.
    pub name: String,
    /// What it has done so far; shared with every clone.
    pub served: Rc<Served>,
}

/// How a request fails on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// 500 with a short body; the connection lives on.
    Status500,
    /// The connection is reset instead of an answer.
    Reset,
}

/// What an origin has done.
#[derive(Debug, Default)]
pub struct Served {
    /// Requests answered, failures included.
    pub requests: Cell<u64>,
    /// Requests failed on purpose.
    pub failures: Cell<u64>,
    /// Connections accepted.
    pub connections: Cell<u64>,
    /// Connections open now.
    pub open: Cell<u64>,
    /// Connections ended because what came was no HTTP.
    pub malformed: Cell<u64>,
}

impl Origin {
    /// An origin that answers 100 bytes at once, always.
    pub fn new(listen: Address) -> Self {
        Self {
            listen,
            body_bytes: 100,
            delay: None,
            jitter: Duration::ZERO,
            fail_every: None,
            failure: Failure::Status500,
            keep_alive: true,
            name: "traffic".to_owned(),
            served: Rc::default(),
        }
    }

    /// Binds, and serves until dropped.
    ///
    /// # Errors
    /// The address cannot be bound, or the listening socket broke.
    pub async fn serve(self) -> io::Result<()> {
        self.bind()?.1.await
    }

    /// Binds; returns the address with the kernel's port, and the service, which ends when dropped.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(self) -> io::Result<(Address, impl Future<Output = io::Result<()>> + 'static)> {
        let mut listener = Listener::bind(&self.listen, &ListenOptions::default())?;
        let address = listener.local()?;
        let site = Rc::new(Site { answers: Answers::new(&self.name), draws: Cell::new(1), origin: self });
        let service = async move {
            let connections = Group::new();
            loop {
                match listener.accept().await {
                    Ok(stream) => connections.spawn(conversation::hold(Rc::clone(&site), stream)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) if is_shortage(&error) => ring::sleep(PAUSE).await,
                    Err(error) => return Err(error),
                }
            }
        };
        Ok((address, service))
    }
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: others must end before there is more.
fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [i32; 4] = [24, 23, 105, 12];
    error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code))
}

impl Served {
    fn add(counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }
}
