//! Running seeds, and saying how to run one again.

use std::any::Any;
use std::cell::RefCell;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;

use super::trace::Trace;

thread_local! {
    /// The trace of the world that this thread made last.
    static LATEST: RefCell<Option<Rc<RefCell<Trace>>>> = const { RefCell::new(None) };
}

/// The one command that runs `test_name` with this seed only.
pub fn replay_hint(test_name: &str, seed: u64) -> String {
    format!("PENSTOCK_SIM_FROM={seed} PENSTOCK_SIM_SEEDS=1 cargo nextest run --no-capture {test_name}")
}

/// The seeds to run: `PENSTOCK_SIM_SEEDS` of them (else `default_count`) from `PENSTOCK_SIM_FROM` (else 0) on.
///
/// # Panics
/// If one of the two variables is not a number: a typing error must not pass for a run of the default.
pub fn seeds(default_count: u64) -> impl Iterator<Item = u64> {
    let from = number("PENSTOCK_SIM_FROM").unwrap_or(0);
    let count = number("PENSTOCK_SIM_SEEDS").unwrap_or(default_count);
    from..from.saturating_add(count)
}

/// Runs `run` for every seed of [`seeds`], each on a thread of its own: what a thread keeps (pools, caches) must not
/// make a seed's run depend on the seeds before it.
///
/// # Panics
/// At the first seed that returns an error or panics; says what happened, the world's last events, and how to replay it.
pub fn check(test_name: &str, default_count: u64, run: impl Fn(u64) -> Result<(), String> + Sync) {
    for seed in seeds(default_count) {
        let failed = thread::scope(|scope| {
            let alone = || catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(text_of).flatten().map_err(with_trace);
            scope.spawn(alone).join().expect("panics are caught inside")
        });
        if let Err(why) = failed {
            panic!("{test_name}, seed {seed}: {why}\nreplay: {}", replay_hint(test_name, seed));
        }
    }
}

fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("with something that is no text"))
}

/// Adds what happened last in this thread's world.
fn with_trace(why: String) -> String {
    let trace = LATEST.with_borrow(|latest| latest.as_ref().map(|trace| trace.borrow().text()));
    format!("{why}\n{}", trace.unwrap_or_default())
}

pub(super) fn remember(trace: Rc<RefCell<Trace>>) {
    LATEST.set(Some(trace));
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
}
