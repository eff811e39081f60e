//! What a person reads: one table a scenario, and notes that say what the figures do not.

use serde_json::{Value, json};

use crate::measure::{CallsEach, Round};
use crate::rivals::Kind;
use crate::scenario::Scenario;
use crate::stats::{median, min, ratio};

/// One contender in one scenario.
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) rounds: Vec<Round>,
    pub(crate) calls: Option<CallsEach>,
}

impl Line {
    fn kept(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(|round| round.discarded.is_none())
    }

    fn of(&self, figure: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        self.kept().filter_map(figure).collect()
    }

    pub(crate) fn cpu(&self) -> (Option<f64>, Option<f64>) {
        let values = self.of(Round::proxy_us);
        (min(&values), median(&values))
    }

    /// Median requests a second.
    pub(crate) fn rate(&self) -> Option<f64> {
        median(&self.of(|round| Some(round.rate())))
    }
}

/// One scenario's result.
pub(crate) struct Section {
    pub(crate) scenario: Scenario,
    pub(crate) lines: Vec<Line>,
    /// The open loop's rate.
    pub(crate) paced_at: Option<f64>,
}

const COLUMNS: &[&str] = &[
    "",
    "CPU µs/req min",
    "median",
    "penstock ÷ it: min",
    "median",
    "system µs/req",
    "req/s",
    "p50 µs",
    "p99",
    "p99.9",
    "calls/req",
    "sends/req",
    "errors",
    "rounds",
];

impl Section {
    fn line(&self, kind: Kind) -> Option<&Line> {
        self.lines.iter().find(|line| line.kind == kind)
    }

    pub(crate) fn table(&self) -> String {
        let ours = self.line(Kind::Penstock).map(Line::cpu);
        let mut rows = vec![COLUMNS.iter().map(ToString::to_string).collect::<Vec<_>>()];
        for line in &self.lines {
            let (least, middle) = line.cpu();
            let against = |ours: Option<f64>, theirs| {
                if line.kind == Kind::Penstock { None } else { ratio(ours, theirs) }
            };
            let time = |figure: fn(&Round) -> f64| figure_text(median(&line.of(|round| Some(figure(round)))), 0);
            rows.push(vec![
                line.kind.name().to_owned(),
                figure_text(least, 1),
                figure_text(middle, 1),
                figure_text(against(ours.and_then(|cpu| cpu.0), least), 2),
                figure_text(against(ours.and_then(|cpu| cpu.1), middle), 2),
                figure_text(median(&line.of(Round::system_us)), 1),
                figure_text(line.rate(), 0),
                time(|round| round.seen.p50),
                time(|round| round.seen.p99),
                time(|round| round.seen.p999),
                figure_text(line.calls.map(|calls| calls.calls), 2),
                figure_text(line.calls.map(|calls| calls.sends), 2),
                line.kept().map(|round| round.seen.errors).sum::<u64>().to_string(),
                format!("{}/{}", line.kept().count(), line.rounds.len()),
            ]);
        }
        let paced = self.paced_at.map_or_else(String::new, |rate| format!(" ({rate:.0} requests/s)"));
        format!("{}{paced}\n{}", self.scenario.told(), aligned(&rows))
    }

    /// What was thrown away and how noisy the rest was.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for line in &self.lines {
            for round in &line.rounds {
                if let Some(why) = &round.discarded {
                    notes.push(format!("{} {}: a round was discarded: {why}", self.scenario.name, line.kind.name()));
                }
            }
            let errors: u64 = line.kept().map(|round| round.seen.errors).sum();
            if errors > 0 {
                notes.push(format!(
                    "{} {}: {errors} errors in rounds that count",
                    self.scenario.name,
                    line.kind.name()
                ));
            }
        }
        notes.extend(self.handshakes());
        notes.extend(self.completion());
        notes.extend(self.protection());
        let foreign: Vec<f64> = self.lines.iter().flat_map(|line| line.of(|round| Some(round.foreign))).collect();
        if let Some(share) = median(&foreign).filter(|share| *share > 10.0) {
            notes.push(format!("{}: noisy: others used {share:.0} % of the machine in the median round; only the ratios may mean something", self.scenario.name));
        }
        notes
    }

    /// Where each request is a handshake, how many of them a second of CPU time makes.
    fn handshakes(&self) -> Option<String> {
        let Scenario { name, over, close, .. } = self.scenario;
        let each = |line: &Line| Some(format!("{} {:.0}", line.kind.name(), 1e6 / line.cpu().0?));
        let all: Vec<String> = self.lines.iter().filter_map(each).collect();
        let told = over.is_secure() && close;
        told.then(|| {
            format!("{name}: handshakes, with a request each, per CPU second in the best round: {}", all.join(", "))
        })
    }

    /// Where the path decides, how long answers take there beside each rival's.
    fn completion(&self) -> Option<String> {
        let half = |line: &Line| median(&line.of(|round| Some(round.seen.p50)));
        let ours = half(self.line(Kind::Penstock).filter(|_| self.scenario.far)?);
        let theirs = self.lines.iter().filter(|line| line.kind != Kind::Penstock);
        let each = |line: &Line| Some(format!("{:.2} of {}'s", ratio(ours, half(line))?, line.kind.name()));
        let all: Vec<String> = theirs.filter_map(each).collect();
        Some(format!("{}: median time to completion: {}", self.scenario.name, all.join(", ")))
    }

    /// What decisions that protect origins cost, where they were left out beside.
    fn protection(&self) -> Option<String> {
        let [full, bare] = [self.line(Kind::Full)?, self.line(Kind::Bare)?].map(Line::cpu);
        let (least, middle) = (ratio(full.0, bare.0)?, ratio(full.1, bare.1)?);
        Some(format!(
            "{}: with balancing, breaker, retries, outliers, limits and probes on, a request costs {least:.3} (minima) and {middle:.3} (medians) of what it costs without; at most 1.05 is wanted",
            self.scenario.name
        ))
    }

    pub(crate) fn to_json(&self) -> Value {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let (least, middle) = line.cpu();
                json!({
                    "contender": line.kind.name(), "cpu_us_min": least, "cpu_us_median": middle, "requests_per_second_median": line.rate(),
                    "calls_per_request": line.calls.map(|calls| calls.calls), "sends_per_request": line.calls.map(|calls| calls.sends),
                    "rounds": line.rounds.iter().map(Round::to_json).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"scenario": self.scenario.name, "told": self.scenario.told(), "paced_at": self.paced_at, "contenders": lines})
    }
}

/// A figure, or a dash for one that there is none of.
pub(crate) fn figure_text(value: Option<f64>, decimals: usize) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// Columns as wide as their widest cell; names to the left, figures to the right.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(wide).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                if column == 0 { format!("{cell:<0$}", widths[column]) } else { format!("{cell:>0$}", widths[column]) }
            })
            .collect();
        text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Seen;
    use crate::scenario::C64;

    fn round(kind: Kind, proxy_ns: u64, discarded: Option<&str>) -> Round {
        let seen = Seen {
            requests: 1000,
            errors: 0,
            seconds: 0.5,
            mean: 950.0,
            p50: 900.0,
            p99: 1500.0,
            p999: 2000.0,
            max: 3000.0,
        };
        Round {
            scenario: C64,
            kind,
            seen,
            proxy_ns,
            origin_ns: 0,
            load_ns: 0,
            busy_ns: 60_000_000,
            steal: 0.0,
            foreign: 0.0,
            discarded: discarded.map(str::to_owned),
        }
    }

    #[test]
    fn ratios_are_ours_to_theirs_and_discarded_rounds_do_not_count() {
        let line = |kind, rounds| Line { kind, rounds, calls: None };
        let section = Section {
            scenario: C64,
            paced_at: None,
            lines: vec![
                line(
                    Kind::Penstock,
                    vec![round(Kind::Penstock, 15_000_000, None), round(Kind::Penstock, 17_000_000, None)],
                ),
                line(
                    Kind::Nginx,
                    vec![
                        round(Kind::Nginx, 20_000_000, None),
                        round(Kind::Nginx, 1, Some("2.0 % of the time was stolen")),
                    ],
                ),
                line(Kind::Direct, vec![round(Kind::Direct, 0, None)]),
            ],
        };
        let table = section.table();
        let cells = |name: &str| {
            table
                .lines()
                .find(|line| line.trim_start().starts_with(name))
                .unwrap()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(cells("penstock")[1..7], ["15.0", "16.0", "–", "–", "60.0", "2000"]);
        assert_eq!(cells("nginx")[1..5], ["20.0", "20.0", "0.75", "0.80"]);
        assert_eq!(cells("nginx").last().unwrap(), "1/2");
        assert_eq!(cells("(no proxy)")[2..6], ["–", "–", "–", "–"]);
        assert_eq!(section.notes(), ["c64 nginx: a round was discarded: 2.0 % of the time was stolen"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "µs".to_owned()], vec!["long".to_owned(), "1.25".to_owned()]];
        assert_eq!(aligned(&rows), "  a       µs\n  long  1.25\n");
    }
}
