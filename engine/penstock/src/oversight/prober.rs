//! The prober of one endpoint: asks when `policy` says so, and passes the verdict to every worker at once.
//!
//! A task of the control thread's ring (`docs/decisions/0014`): no request waits for it, and it waits for no request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::task::Poll;

use policy::{HealthCheck, Now, ProbeResult};
use ring::Timer;

use super::probe::{Probed, probe};
use super::{Note, Watched};
use crate::snapshot::{HealthProbe, Pool};
use crate::upstream::{Approach, Health, policy_now};

/// What a prober has found so far.
#[derive(Debug, Default)]
pub struct Probes {
    sent: Cell<u64>,
    failed: Cell<u64>,
    last: RefCell<Option<Note>>,
}

impl Probes {
    /// Probes that really went out: somebody was connected to, or tried to be.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Of those, the ones without a good answer.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.failed.get()
    }

    /// What the last one came to.
    #[must_use]
    pub fn last(&self) -> Option<Note> {
        self.last.borrow().clone()
    }

    fn count(&self, probed: &Probed, now: Now) -> Option<ProbeResult> {
        let (result, text) = match probed {
            Probed::Good(text) => (Some(ProbeResult::Good), text.clone()),
            Probed::Bad(text) | Probed::Silent(text) => (Some(ProbeResult::Bad), text.clone()),
            Probed::Nobody => (Some(ProbeResult::Bad), "its name has no address".into()),
            Probed::Unsent(why) => (None, format!("not sent: {why}")),
        };
        let failed = matches!(probed, Probed::Bad(_) | Probed::Silent(_));
        let sent = failed || matches!(probed, Probed::Good(_));
        self.sent.set(self.sent.get() + u64::from(sent));
        self.failed.set(self.failed.get() + u64::from(failed));
        self.last.replace(Some(Note { at: now, text }));
        result
    }
}

/// Starts the prober of an endpoint, if its pool is probed and it has none.
pub(super) fn start(watched: &Rc<Watched>, pool: &Rc<Pool>, by: Option<Approach>) {
    if pool.health.is_some() && watched.prober.get().is_none() {
        let task = ring::spawn(keep_probing(Rc::clone(watched), Rc::clone(pool), by));
        watched.prober.set(Some(task));
    }
}

async fn keep_probing(watched: Rc<Watched>, pool: Rc<Pool>, by: Option<Approach>) {
    let Some(settings) = &pool.health else { return };
    let seed = RandomState::new().build_hasher().finish();
    let mut check = HealthCheck::new(settings.settings, now(), seed);
    while watched.wait_until(check.next_at(now())).await {
        if check.begin(now()) {
            let asked = now();
            let probed = watched.ask(settings, by.as_ref(), &pool).await;
            if matches!(probed, Probed::Silent(_)) {
                watched.shared.was_silent(asked);
            }
            watched.learn(&mut check, settings, &probed);
        }
    }
}

impl Watched {
    /// False when it has left its pool meanwhile.
    async fn wait_until(&self, at: Now) -> bool {
        let mut timer = Timer::new();
        timer.set(ring::Now::from_nanos(at.nanos()));
        poll_fn(|_| if self.retired.get() || timer.poll_expired() { Poll::Ready(()) } else { Poll::Pending }).await;
        !self.retired.get()
    }

    async fn ask(&self, settings: &HealthProbe, by: Option<&Approach>, pool: &Pool) -> Probed {
        let addresses = self.addresses.borrow().clone();
        probe(settings, by, pool, &addresses, &self.name).await
    }

    fn learn(&self, check: &mut HealthCheck, settings: &HealthProbe, probed: &Probed) {
        let before = check.health();
        let Some(result) = self.probes.count(probed, now()) else { return check.withdraw(now()) };
        if !check.record(now(), result) || self.retired.get() {
            return;
        }
        let said = self.probes.last().map(|note| note.text).unwrap_or_default();
        let settings = &settings.settings;
        match (before, check.health()) {
            (policy::Health::Unhealthy, _) => {
                // Before it is asked again: the slow start counts from here.
                self.shared.set_ready_since(now());
                self.shared.set_health(Health::Up);
                self.note(format!("up: {said}, {} in a row", settings.rise), now());
            }
            (_, policy::Health::Unhealthy) => {
                self.shared.set_health(Health::Down);
                self.note(format!("down: {said}, {} in a row", settings.fall), now());
            }
            _ => {
                self.shared.set_health(Health::Up);
                self.note_quietly(format!("up: {said}"), now());
            }
        }
    }
}

fn now() -> Now {
    policy_now(ring::now())
}
