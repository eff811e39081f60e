//! The control thread: raises the workers, passes them what changes, answers the operator, and brings everything down.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ring::{Options, Ring, Signals};

use crate::admin;
use crate::engine::{self, Engine, Reloaded, Reread};
use crate::limits;
use crate::service;
use crate::snapshot::Snapshot;
use crate::telemetry::WorkerCells;

/// Signals that end the process in order, and one that opens the log anew and reads the configuration once more.
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// How often the control thread looks whether the workers have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long workers may take to end after what is left was cut.
const LAST_TURNS: Duration = Duration::from_secs(1);

/// How soon a worker whose mailbox was full is told again, and how often breakers are looked at.
const LOOK_AFTER_EVERY: Duration = Duration::from_secs(1);

/// How often clients that do not heed their limits are handed to the shield.
const KEEP_OUT_EVERY: Duration = Duration::from_millis(50);

/// Runs the engine until a signal ends it and it has drained.
///
/// # Errors
/// What kept it from starting.
/// `reread` reads the configuration anew, where it can be.
pub fn run(snapshot: Arc<Snapshot>, reread: Option<Rc<Reread>>, say: &mut dyn FnMut(&str)) -> io::Result<()> {
    let signals = Signals::block(&[SIGHUP, SIGINT, SIGTERM])?;
    let engine = Engine::start(&snapshot)?;
    for line in engine.lines() {
        say(&line);
    }
    let ring = Ring::new(Options { driver: engine::driver(&snapshot), ..Options::default() })?;
    // It may not be what holds for ever.
    drop(snapshot);
    let engine = Rc::new(RefCell::new(engine));
    let shared = Rc::clone(&engine);
    let forced = ring.block_on(operate(Rc::clone(&engine), reread, signals))?;
    drop(ring);
    if forced {
        say("penstock: told twice to end: some exchanges were cut");
    }
    drop(shared);
    Ok(())
}

/// Serves the operator until it is time to end. True when the end was not waited for.
async fn operate(engine: Rc<RefCell<Engine>>, reread: Option<Rc<Reread>>, mut signals: Signals) -> io::Result<bool> {
    let admin = engine.borrow().snapshot().engine.admin.clone();
    admin::serve(&admin, &engine, reread.as_ref())?;
    engine::follow_discovery(&engine);
    engine.borrow_mut().oversee();
    look_after(&engine);
    keep_out(&engine);
    follow_vips(&engine);
    keep_watch(&engine);
    service::serves(&engine.borrow().sentence());
    while signals.next().await? == SIGHUP {
        engine.borrow().reopen_log();
        if reread.is_some() {
            told(engine::reload(&engine, reread.as_deref()).await);
        }
    }
    let patience = engine.borrow().snapshot().engine.drain_timeout;
    engine.borrow_mut().drain(patience);
    service::drains(patience + LAST_TURNS);
    let deadline = ring::now() + patience + LAST_TURNS;
    while !engine.borrow().has_ended() && ring::now() < deadline {
        if let Some(signal) = ring::until(ring::now() + LOOK_EVERY, signals.next()).await
            && signal? != SIGHUP
        {
            engine.borrow_mut().cut();
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says what a signal has come to.
fn told(done: Result<(Reloaded, String), String>) {
    match done {
        Ok((Reloaded { lines, number }, warnings)) => {
            eprint!("{warnings}");
            match lines.as_slice() {
                [] => eprintln!("penstock: configuration {number} holds: nothing has changed"),
                lines => eprintln!("penstock: configuration {number} holds: {}", lines.join("; ")),
            }
        }
        Err(why) => eprintln!("penstock: the old configuration stays: {}", why.trim_end()),
    }
}

/// Hands clients that do not heed their limits to the shield, while there is one for that.
fn keep_out(engine: &Rc<RefCell<Engine>>) {
    let engine = Rc::clone(engine);
    ring::spawn(async move {
        loop {
            let is_there = engine.borrow().keeps_out();
            ring::sleep(if is_there { KEEP_OUT_EVERY } else { limits::HOUSEKEEPING }).await;
            engine.borrow_mut().keep_out();
        }
    });
}

/// Tells the balancer who serves, while there is one.
fn follow_vips(engine: &Rc<RefCell<Engine>>) {
    let engine = Rc::clone(engine);
    ring::spawn(async move {
        loop {
            let is_there = engine.borrow().balance().is_raised();
            ring::sleep(if is_there { limits::VIPS_FOLLOW_EVERY } else { limits::HOUSEKEEPING }).await;
            engine.borrow_mut().follow_vips();
        }
    });
}

/// Tells the service manager that the process lives, if it wants to know: as long as every worker does its turns.
fn keep_watch(engine: &Rc<RefCell<Engine>>) {
    let Some(every) = service::watchdog() else { return };
    let engine = Rc::clone(engine);
    ring::spawn(async move {
        let mut turns = Turns::default();
        loop {
            look_at(&mut engine.borrow_mut(), &mut turns);
            ring::sleep(every / 2).await;
        }
    });
}

fn look_at(engine: &mut Engine, turns: &mut Turns) {
    // Who drains ends worker by worker.
    if turns.all_go_on(engine.cells()) || engine.is_draining() {
        service::lives();
    }
    engine.ask_to_publish();
}

/// What each worker had published at the last look.
#[derive(Default)]
struct Turns(Vec<u64>);

impl Turns {
    /// Each of them has published since then.
    fn all_go_on(&mut self, cells: &[Arc<WorkerCells>]) -> bool {
        let now: Vec<u64> = cells.iter().map(|cells| cells.published.get()).collect();
        let all = now.iter().enumerate().all(|(worker, now)| self.0.get(worker).is_none_or(|before| now > before));
        self.0 = now;
        all
    }
}

/// What is due now and then, whatever happens.
pub(crate) fn look_after(engine: &Rc<RefCell<Engine>>) {
    let engine = Rc::clone(engine);
    ring::spawn(async move {
        loop {
            ring::sleep(LOOK_AFTER_EVERY).await;
            engine.borrow_mut().look_after();
        }
    });
}
