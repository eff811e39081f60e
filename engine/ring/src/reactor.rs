//! A thread's engine room: the turn.
//!
//! One turn: run what is ready → hand everything asked for to the kernel in one call, sleeping in it if there is nothing
//! to do → take the completions in → fire the timers. Nothing runs inside a completion; tasks only ever run in the round.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::buf;
use crate::driver::epoll::Epoll;
use crate::driver::sim::Sim;
use crate::driver::uring::Uring;
use crate::driver::{Batch, Driver, DriverChoice, DriverCounts, Granted, Wait};
use crate::exec::{self, Exec, TaskRef};
use crate::mailbox::Remote;
use crate::spin::{Spin, SpinPolicy};
use crate::table::Table;
use crate::time::Now;
use crate::wheel::Wheel;

/// How often unused buffers are given back while there are any.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// When a device that had no room is asked again: about as long as a full ring of 1 Gbit/s takes to be half empty.
const KICK_AGAIN: Duration = Duration::from_millis(1);
/// How long the end of a ring waits for operations in flight to come to rest.
const REST_MAX: Duration = Duration::from_secs(2);

/// What a ring is asked to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which driver.
    pub driver: DriverChoice,
    /// How it waits.
    pub spin: SpinPolicy,
}

/// What a thread's ring has done since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Of the driver.
    pub driver: DriverCounts,
    /// Turns taken.
    pub turns: u64,
    /// Task polls.
    pub polls: u64,
    /// Tasks alive.
    pub tasks: usize,
    /// Tasks that ended in a panic.
    pub panics: u64,
    /// Streams open.
    pub streams: usize,
    /// Datagram sockets open.
    pub udp_sockets: usize,
    /// Operations in flight.
    pub operations: usize,
    /// Completions that named no operation in flight.
    pub stale: u64,
    /// Deadlines pending.
    pub timers: usize,
}

/// A ring on this thread, and everything that runs on it.
pub struct Ring {
    reactor: Rc<Reactor>,
}

impl Ring {
    /// Sets up a ring on this thread.
    ///
    /// With [`DriverChoice::Auto`], a kernel or a seccomp profile that refuses io_uring leads to epoll;
    /// [`granted`](Self::granted) then says so.
    pub fn new(options: Options) -> io::Result<Self> {
        let mut refused = None;
        let driver = match options.driver {
            DriverChoice::Uring => Driver::Uring(Uring::new(Spin::new(options.spin))?),
            DriverChoice::Epoll => Driver::Epoll(Epoll::new()?),
            DriverChoice::Sim(node) => Driver::Sim(Sim::new(node)),
            DriverChoice::Auto => match Uring::new(Spin::new(options.spin)) {
                Ok(uring) => Driver::Uring(uring),
                Err(error) => {
                    refused = Some(format!("io_uring refused ({error}): running on epoll"));
                    Driver::Epoll(Epoll::new()?)
                }
            },
        };
        let reactor = Rc::new(Reactor::new(driver, refused)?);
        REACTOR.with(|current| {
            let mut current = current.borrow_mut();
            assert!(current.is_none(), "this thread has a ring already");
            *current = Some(Rc::clone(&reactor));
        });
        Ok(Self { reactor })
    }

    /// Runs `main` and everything it spawns until `main` is done. What is still running then stays and goes on in the
    /// next call; dropping the ring ends it.
    pub fn block_on<F: Future + 'static>(&self, main: F) -> F::Output {
        let answer = Rc::new(Cell::new(None));
        let slot = Rc::clone(&answer);
        let task = self.reactor.exec.spawn(async move { slot.set(Some(main.await)) });
        loop {
            self.reactor.exec.run_round();
            self.reactor.hand_over();
            if !self.reactor.exec.alive(task) {
                break;
            }
            self.reactor.turn();
        }
        // What the last round asked for must not wait for the next call.
        self.reactor.enter(Wait::None);
        answer.take().expect("the main task panicked")
    }

    /// What the kernel granted.
    pub fn granted(&self) -> Granted {
        self.reactor.granted()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.reactor.come_to_rest();
        REACTOR.with(|current| current.borrow_mut().take());
    }
}

pub(crate) struct Reactor {
    pub(crate) exec: Exec,
    pub(crate) table: RefCell<Table>,
    pub(crate) wheel: RefCell<Wheel>,
    pub(crate) driver: RefCell<Driver>,
    pub(crate) remote: Arc<Remote>,
    /// Tasks to wake when mail may have come.
    pub(crate) mail_tasks: RefCell<Vec<TaskRef>>,
    /// What datagrams are received into; none before the first receive, and while it is lent.
    pub(crate) batch: Cell<Option<Box<Batch>>>,
    now: Cell<Now>,
    trimmed: Cell<Now>,
    turns: Cell<u64>,
    /// What is done at the end of each turn.
    pub(crate) turn_work: RefCell<Option<Box<dyn Fn()>>>,
    refused: Option<String>,
}

thread_local! {
    static REACTOR: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// The reactor of this thread.
///
/// # Panics
///
/// Without a [`Ring`] on this thread.
#[inline]
pub(crate) fn with<T>(use_it: impl FnOnce(&Reactor) -> T) -> T {
    REACTOR.with(|current| use_it(current.borrow().as_ref().expect("no ring on this thread")))
}

/// As [`with`], doing nothing where there is no ring.
pub(crate) fn try_with(use_it: impl FnOnce(&Reactor)) {
    let _ = REACTOR.try_with(|current| {
        if let Ok(current) = current.try_borrow()
            && let Some(reactor) = current.as_ref()
        {
            use_it(reactor);
        }
    });
}

impl Reactor {
    fn new(driver: Driver, refused: Option<String>) -> io::Result<Self> {
        let now = Now::from_nanos(driver.clock());
        let simulated = matches!(driver, Driver::Sim(_));
        let remote = Remote::new(driver.ring_fd(), simulated)?;
        let mut table = Table::new();
        if let Some(bell) = remote.bell_fd() {
            table.hang_bell(bell);
        }
        Ok(Self {
            exec: Exec::new(),
            table: RefCell::new(table),
            wheel: RefCell::new(Wheel::new(now)),
            driver: RefCell::new(driver),
            remote: Arc::new(remote),
            mail_tasks: RefCell::default(),
            batch: Cell::default(),
            now: Cell::new(now),
            trimmed: Cell::new(now),
            turns: Cell::new(0),
            turn_work: RefCell::default(),
            refused,
        })
    }

    #[inline]
    pub(crate) fn now(&self) -> Now {
        self.now.get()
    }

    /// Turns taken so far.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
    }

    pub(crate) fn granted(&self) -> Granted {
        let mut granted = self.driver.borrow().granted();
        granted.missing.extend(self.refused.clone());
        granted
    }

    pub(crate) fn counts(&self) -> Counts {
        let table = self.table.borrow();
        let (tasks, panics) = self.exec.counts();
        let (streams, udp_sockets, operations) = table.counts();
        Counts {
            driver: self.driver.borrow().counts(),
            turns: self.turns.get(),
            polls: self.exec.polls(),
            tasks,
            panics,
            streams,
            udp_sockets,
            operations,
            stale: table.ops.stale,
            timers: self.wheel.borrow().len(),
        }
    }

    /// Enters the kernel and takes in what has happened there.
    fn turn(&self) {
        if let Some(work) = &*self.turn_work.borrow() {
            work();
        }
        let wait = self.wait();
        let awake = wait == Wait::None || self.remote.fall_asleep();
        self.enter(if awake { wait } else { Wait::None });
        self.remote.wake_up();
        self.turns.set(self.turns.get() + 1);
        self.now.set(Now::from_nanos(self.driver.borrow().clock()));
        self.wheel.borrow_mut().expire(self.now.get(), |task| self.exec.wake(task));
        self.take_mail();
        self.trim_if_due();
    }

    /// Passes everything that the tasks asked for to the driver.
    fn hand_over(&self) {
        let mut table = self.table.borrow_mut();
        let mut driver = self.driver.borrow_mut();
        table.start_sends();
        table.send_what_waited(&mut driver, &self.exec);
        table.kicks.retain(|socket| !socket.settle_sends());
        let todo = &mut table.todo;
        for (token, request) in todo.requests.drain(..) {
            driver.submit(token, request);
        }
        for (fd, both) in todo.shutdowns.drain(..) {
            driver.shutdown(fd, both);
        }
        for (fd, reset) in todo.closes.drain(..) {
            driver.close(fd, reset);
        }
    }

    fn wait(&self) -> Wait {
        if !self.exec.is_idle() {
            return Wait::None;
        }
        let now = Now::from_nanos(self.driver.borrow().clock());
        let timer = self.wheel.borrow().next();
        let trim = (buf::pool_counts().free > 0).then(|| self.trimmed.get() + TRIM_EVERY);
        let kick = (!self.table.borrow().kicks.is_empty()).then(|| now + KICK_AGAIN);
        match timer.into_iter().chain(trim).chain(kick).min() {
            None => Wait::Forever,
            Some(at) if at <= now => Wait::None,
            Some(at) => Wait::AtMost(at.since(now)),
        }
    }

    fn enter(&self, wait: Wait) {
        let mut table = self.table.borrow_mut();
        let entered = self.driver.borrow_mut().turn(wait, |completion| table.complete(completion, &self.exec));
        if let Err(error) = entered {
            // The kernel refuses to wait on our own ring: nothing this thread holds can ever complete.
            panic!("the ring failed: {error}");
        }
    }

    fn take_mail(&self) {
        if std::mem::take(&mut self.table.borrow_mut().bell_rang)
            && let Some(bell) = self.remote.bell_fd()
        {
            self.remote.silence_bell();
            self.table.borrow_mut().hang_bell(bell);
        }
        if self.remote.has_mail() {
            for task in self.mail_tasks.borrow_mut().drain(..) {
                self.exec.wake(task);
            }
        }
    }

    fn trim_if_due(&self) {
        if self.now.get().since(self.trimmed.get()) >= TRIM_EVERY {
            self.trimmed.set(self.now.get());
            buf::trim();
            exec::trim_blocks();
            self.table.borrow_mut().look_again();
        }
    }

    /// Ends every task and waits until nothing is in flight, so that no memory is freed that the kernel may touch.
    fn come_to_rest(&self) {
        self.exec.clear();
        self.table.borrow_mut().cancel_all();
        let deadline = Now::from_nanos(self.driver.borrow().clock()) + REST_MAX;
        while self.table.borrow().counts().2 > 0 {
            self.hand_over();
            self.enter(Wait::AtMost(Duration::from_millis(10)));
            if Now::from_nanos(self.driver.borrow().clock()) > deadline {
                break;
            }
        }
        self.hand_over();
        self.enter(Wait::None);
        self.table.borrow_mut().ops.leak();
    }
}
