//! What routes with candidates have chosen, and why.

use policy::select::Reason;
use serde_json::{Map, Value, json};

use crate::engine::Engine;
use crate::snapshot::{Action, Candidates, RouteId};
use crate::telemetry::prometheus;
use crate::upstream::{CandidateCells, SelectionCells};

/// A route's candidates, and what each worker tells of them.
struct Chosen<'a> {
    engine: &'a Engine,
    route: &'a str,
    candidates: &'a Candidates,
    workers: &'a [SelectionCells],
}

fn all(engine: &Engine) -> impl Iterator<Item = Chosen<'_>> {
    (0..engine.snapshot().routes.len()).filter_map(|at| of(engine, RouteId(at as u16)))
}

fn of(engine: &Engine, id: RouteId) -> Option<Chosen<'_>> {
    let route = &engine.snapshot()[id];
    let Action::Candidates(candidates) = &route.action else { return None };
    Some(Chosen { engine, route: &route.name, candidates, workers: engine.selections().of(id) })
}

impl Chosen<'_> {
    fn pool(&self, at: usize) -> &str {
        &self.engine.snapshot()[self.candidates.targets[at].pool].name
    }

    fn count(&self) -> usize {
        self.candidates.targets.len()
    }

    fn cells(&self, at: usize) -> impl Iterator<Item = &CandidateCells> {
        self.workers.iter().map(move |worker| &worker.candidates[at])
    }

    fn choices(&self, at: usize, reason: Reason) -> u64 {
        self.cells(at).map(|cells| cells.choices(reason)).sum()
    }

    fn requests(&self, at: usize) -> u64 {
        Reason::ALL.iter().map(|&reason| self.choices(at, reason)).sum()
    }

    /// Of how many workers it is the choice, and why.
    fn chosen_by(&self, at: usize) -> (usize, Option<Reason>) {
        let mut reasons = self.workers.iter().map(SelectionCells::current).filter(|&(current, _)| current == at);
        let first = reasons.next().map(|(_, reason)| reason);
        (usize::from(first.is_some()) + reasons.count(), first)
    }

    /// Why it is the choice, if it is; workers may differ for a moment.
    fn choice(&self, at: usize) -> Option<String> {
        let (count, reason) = self.chosen_by(at);
        let text = reason?.text();
        Some(if count == self.workers.len() {
            text.to_owned()
        } else {
            format!("{text} on {count} of {} workers", self.workers.len())
        })
    }

    /// What a candidate's score is made of, as the first worker sees it.
    fn factors(&self, at: usize) -> Map<String, Value> {
        let score = self.cells(at).next().map(CandidateCells::score).unwrap_or_default();
        let micros = |nanos: f64| nanos.is_finite().then_some((nanos / 1e3) as u64);
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let factors = json!({
            "choice": self.choice(at),
            "score_us": micros(score.score),
            "cost": self.candidates.costs[at],
            "latency_us": micros(score.latency_ns).filter(|&micros| micros > 0),
            "failing": percent(score.failing),
            "load": percent(score.load),
            "ready": percent(score.ready),
            "requests": self.requests(at),
        });
        factors.as_object().cloned().unwrap_or_default()
    }
}

/// For `penstock show routes`: what is told of a candidate beside its pool. Nothing of a route without.
pub(super) fn factors(engine: &Engine, route: RouteId, at: usize) -> Map<String, Value> {
    of(engine, route).filter(|of| at < of.count()).map_or_else(Map::new, |of| of.factors(at))
}

/// For `/status`.
pub(super) fn routes(engine: &Engine) -> Vec<Value> {
    let row = |of: Chosen<'_>| {
        let candidate = |at| {
            let mut row = Map::from_iter([("pool".to_owned(), of.pool(at).into())]);
            row.extend(of.factors(at));
            Value::from(row)
        };
        json!({ "name": of.route, "candidates": (0..of.count()).map(candidate).collect::<Vec<_>>() })
    };
    all(engine).map(row).collect()
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    if all(engine).next().is_none() {
        return;
    }
    let label = |of: &Chosen<'_>, at: usize| {
        format!("route={},pool={}", prometheus::label(of.route), prometheus::label(of.pool(at)))
    };
    let mut choices = Vec::new();
    let mut current = Vec::new();
    for of in all(engine) {
        for at in 0..of.count() {
            let label = label(&of, at);
            let by = |reason: &Reason| (format!("{label},reason=\"{}\"", reason.text()), of.choices(at, *reason));
            choices.extend(Reason::ALL.iter().map(by));
            current.push((label, of.chosen_by(at).0 as u64));
        }
    }
    let help = "Requests of a route with candidates, by the pool that they went to and why.";
    prometheus::family(out, "penstock_route_choices_total", "counter", help, choices.into_iter());
    let help = "Workers whose choice the pool is.";
    prometheus::family(out, "penstock_route_chosen", "gauge", help, current.into_iter());
}
