//! JSON for people: objects as rows, keys as titles, and numbers in the units that their keys name.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Columns in the order in which keys first appear; numbers to the right.
pub(super) fn table(rows: &[&Map<String, Value>], indent: &str, out: &mut String) {
    let mut columns: Vec<&str> = Vec::new();
    for key in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            columns.iter().map(|key| row.get(*key).map_or_else(|| "–".into(), |value| cell(key, value))).collect()
        })
        .collect();
    let is_number = |key: &str| rows.iter().filter_map(|row| row.get(key)).all(Value::is_number);
    let widths: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, key)| cells.iter().map(|row| width(&row[at])).chain([width(&title(key))]).max().unwrap_or(0))
        .collect();
    let titles: Vec<_> = columns.iter().map(|key| title(key)).collect();
    for row in std::iter::once(&titles).chain(&cells) {
        let mut line = indent.to_owned();
        for (at, text) in row.iter().enumerate() {
            let padding = " ".repeat(widths[at] - width(text));
            let (before, after) =
                if is_number(columns[at]) { (padding, String::new()) } else { (String::new(), padding) };
            let _ = write!(line, "{before}{text}{after}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A list of plain values is as plain as they are.
pub(super) fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.is_empty() && items.iter().all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

/// The key without its unit, which the value shows.
pub(super) fn title(key: &str) -> String {
    key.trim_end_matches("_us").trim_end_matches("_s").trim_end_matches("_ms").replace('_', " ")
}

/// A value as text, in the unit that its key names.
pub(super) fn cell(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        // What another process says goes to a terminal: no control characters.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Array(items) => items.iter().map(|item| cell(key, item)).collect::<Vec<_>>().join(", "),
        Value::Number(number) => {
            let Some(float) = number.as_f64() else {
                return number.to_string();
            };
            if key.ends_with("_us") {
                micros(float)
            } else if key.ends_with("_ms") {
                micros(float * 1e3)
            } else if key.ends_with("_s") {
                seconds(float)
            } else if number.is_f64() {
                format!("{float:.2}")
            } else {
                number.to_string()
            }
        }
        other => other.to_string(),
    }
}

fn micros(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        1e3..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
