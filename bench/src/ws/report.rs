//! What a person reads of the rounds.

use serde_json::{Value, json};

use super::load::Seen;
use crate::report::{aligned, figure_text};
use crate::rivals::Kind;
use crate::stats::{median, min, ratio};

/// A round's raw figures.
pub(super) struct Round {
    pub(super) seen: Seen,
    /// The proxy's CPU time while connections were opened, and while messages passed.
    pub(super) opening_ns: u64,
    pub(super) passing_ns: u64,
    /// Percent of the machine's time that others used while messages passed.
    pub(super) foreign: f64,
    /// Why it does not count, if so.
    pub(super) discarded: Option<String>,
}

/// One contender's rounds.
pub(super) struct Line {
    kind: Kind,
    pub(super) rounds: Vec<Round>,
}

impl Round {
    /// Microseconds of CPU time for a message in one direction.
    fn message_us(&self) -> Option<f64> {
        let messages = self.seen.messages();
        (messages > 0).then(|| self.passing_ns as f64 / 1e3 / messages as f64)
    }

    /// And for a WebSocket that was opened.
    fn opening_us(&self) -> Option<f64> {
        (self.seen.opened > 0).then(|| self.opening_ns as f64 / 1e3 / self.seen.opened as f64)
    }
}

impl Line {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, rounds: Vec::new() }
    }

    fn of(&self, figure: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter(|round| round.discarded.is_none()).filter_map(figure).collect()
    }

    fn cpu(&self) -> (Option<f64>, Option<f64>) {
        let values = self.of(Round::message_us);
        (min(&values), median(&values))
    }
}

const COLUMNS: [&str; 16] = [
    "",
    "CPU µs/message min",
    "median",
    "penstock ÷ it: min",
    "median",
    "CPU µs/opening",
    "opening ms p50",
    "p99",
    "delivery µs p50",
    "p99",
    "p99.9",
    "max",
    "sent late p99.9",
    "lost",
    "unanswered",
    "rounds",
];

/// Medians over the rounds, but for minima and counts.
pub(super) fn table(lines: &[Line]) -> String {
    let ours = lines.iter().find(|line| line.kind == Kind::Penstock).map(Line::cpu);
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for line in lines {
        let (least, middle) = line.cpu();
        let against = |ours: Option<f64>, theirs| if line.kind == Kind::Penstock { None } else { ratio(ours, theirs) };
        let time = |figure: fn(&Seen) -> f64, decimals| {
            figure_text(median(&line.of(|round| Some(figure(&round.seen)))), decimals)
        };
        let count =
            |figure: fn(&Seen) -> u64| line.rounds.iter().map(|round| figure(&round.seen)).sum::<u64>().to_string();
        rows.push(vec![
            line.kind.name().to_owned(),
            figure_text(least, 2),
            figure_text(middle, 2),
            figure_text(against(ours.and_then(|cpu| cpu.0), least), 2),
            figure_text(against(ours.and_then(|cpu| cpu.1), middle), 2),
            figure_text(median(&line.of(Round::opening_us)), 0),
            time(|seen| seen.opening.p50 / 1e3, 2),
            time(|seen| seen.opening.p99 / 1e3, 2),
            time(|seen| seen.delivery.p50, 0),
            time(|seen| seen.delivery.p99, 0),
            time(|seen| seen.delivery.p999, 0),
            time(|seen| seen.delivery.max, 0),
            time(|seen| seen.late.p999, 0),
            count(|seen| seen.failed + seen.lost),
            count(|seen| seen.sent - seen.answered),
            format!("{}/{}", line.rounds.iter().filter(|round| round.discarded.is_none()).count(), line.rounds.len()),
        ]);
    }
    aligned(&rows)
}

pub(super) fn notes(lines: &[Line]) -> Vec<String> {
    let mut notes = Vec::new();
    for (line, why) in lines
        .iter()
        .flat_map(|line| line.rounds.iter().filter_map(move |round| Some((line, round.discarded.as_ref()?))))
    {
        notes.push(format!("{}: a round was discarded: {why}", line.kind.name()));
    }
    let foreign: Vec<f64> = lines.iter().flat_map(|line| line.of(|round| Some(round.foreign))).collect();
    if let Some(share) = median(&foreign).filter(|share| *share > 10.0) {
        notes.push(format!(
            "noisy: others used {share:.0} % of the machine in the median round; only the ratios may mean something"
        ));
    }
    notes.push("delivery is one way, through the proxy, from the moment of writing to the moment of reading, so what waits for the load's and the origin's CPU is in it; \"sent late\" is not".to_owned());
    notes
}

pub(super) fn to_json(lines: &[Line]) -> Value {
    let round = |round: &Round| {
        json!({
            "seen": round.seen.to_json(), "opening_cpu_ns": round.opening_ns, "passing_cpu_ns": round.passing_ns,
            "foreign_percent": round.foreign, "discarded": round.discarded,
        })
    };
    lines
        .iter()
        .map(|line| json!({"contender": line.kind.name(), "rounds": line.rounds.iter().map(round).collect::<Vec<_>>()}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_both_ways_and_discarded_rounds_do_not_count() {
        let seen = Seen { opened: 10, sent: 50, answered: 50, ..Seen::default() };
        let round = |passing_ns, discarded: Option<&str>| Round {
            seen,
            opening_ns: 10_000,
            passing_ns,
            foreign: 0.0,
            discarded: discarded.map(str::to_owned),
        };
        let lines = [
            Line { kind: Kind::Penstock, rounds: vec![round(500_000, None), round(700_000, None)] },
            Line { kind: Kind::Nginx, rounds: vec![round(1_000_000, None), round(1, Some("stolen"))] },
        ];
        let table = table(&lines);
        let cells = |name: &str| -> Vec<String> {
            let line = table.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(cells("penstock")[1..6], ["5.00", "6.00", "–", "–", "1"]);
        assert_eq!(cells("nginx")[1..5], ["10.00", "10.00", "0.50", "0.60"]);
        assert_eq!(cells("nginx").last().unwrap(), "1/2");
    }
}
