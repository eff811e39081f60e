//! Who is worse than the rest of its pool: `policy` judges, once an interval, over what all workers saw.
//!
//! What holds here: an ejection is a time in the endpoint's shared words and ends by itself, even if nobody is left to end it;
//! what is known of an endpoint moves with it when the list changes.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use policy::{Change, Now, Oddity, OutlierSettings, Outliers, Sums};

use super::Watched;
use crate::upstream::Judged;

/// The judging of one pool.
pub(super) struct Jury {
    outliers: Outliers,
    /// What has been seen of each endpoint up to the last judgement, in the order of the list.
    before: Vec<Judged>,
    sums: Vec<Sums>,
}

impl Jury {
    pub(super) fn new(settings: OutlierSettings, now: Now) -> Self {
        Self { outliers: Outliers::new(settings, 0, now), before: Vec::new(), sums: Vec::new() }
    }

    /// The list is this one now, where it was that one.
    pub(super) fn follow(&mut self, was: &[Rc<Watched>], is: &[Rc<Watched>]) {
        let known: HashMap<_, _> = was.iter().enumerate().map(|(at, of)| (Arc::as_ptr(&of.shared), at)).collect();
        let places: Vec<_> = is.iter().map(|of| known.get(&Arc::as_ptr(&of.shared)).copied()).collect();
        self.outliers.rearrange(&places);
        let seen = |(place, watched): (&Option<usize>, &Rc<Watched>)| {
            place.and_then(|place| self.before.get(place).copied()).unwrap_or_else(|| watched.shared.judged())
        };
        self.before = places.iter().zip(is).map(seen).collect();
    }

    /// Judges, if it is time to.
    pub(super) fn judge(&mut self, list: &[Rc<Watched>], now: Now) {
        if now < self.outliers.next_at(now) || list.is_empty() {
            return;
        }
        self.sums.clear();
        for (watched, before) in list.iter().zip(&mut self.before) {
            let after = watched.shared.judged();
            watched.shared.begin_interval();
            self.sums.push(after.since(before));
            *before = after;
        }
        let sums = &self.sums;
        self.outliers.evaluate(now, sums, |at, change| list[at].obey(change, &sums[at], now));
    }
}

impl Watched {
    fn obey(&self, change: Change, sums: &Sums, now: Now) {
        match change {
            Change::Eject { why, until } => {
                self.shared.set_ejected_until(until);
                self.ejections.set(self.ejections.get() + 1);
                let secs = until.since(now).as_secs();
                self.note(format!("ejected for {secs} s: {}", told(why, sums)), now);
            }
            Change::Return => {
                // Before it is asked again: the slow start counts from here.
                self.shared.set_ready_since(now);
                self.shared.set_ejected_until(Now::ZERO);
                self.note("back in the choice: its ejection is over".into(), now);
            }
        }
    }
}

fn told(why: Oddity, sums: &Sums) -> String {
    match why {
        Oddity::ConsecutiveGateway => format!("{} gateway errors in a row", sums.gateway_in_a_row),
        Oddity::Consecutive5xx => format!("{} server errors in a row", sums.failures_in_a_row),
        Oddity::SuccessRate => {
            let percent = f64::from(sums.failures) * 100.0 / f64::from(sums.calls.max(1));
            format!("{percent:.0} % of its {} answers were errors, far more than in its pool", sums.calls)
        }
        Oddity::Latency => {
            let mean = sums.latency_ns as f64 / f64::from(sums.calls.saturating_sub(sums.failures).max(1)) / 1e6;
            format!("{mean:.0} ms an answer, far more than in its pool")
        }
    }
}
