//! `penstock status`: asks a running engine what it is doing, and shows the answer on one screen.
//!
//! The answer is shown by its shape, not by its keys: numbers and words above, lists of objects as tables, and
//! what a newer or older engine says beside what we know is shown all the same.

use super::{
    ADMIN_DEFAULT, FAILED, admin_address, client, refuse, say,
    table::{cell, is_plain, table, title},
};
use crate::snapshot::Address;
use clap::Args;
use serde_json::{Map, Value};
use std::{fmt::Write as _, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The engine's admin endpoint: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = ADMIN_DEFAULT, value_parser = admin_address)]
    admin: Address,
    /// Prints the answer as it came
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &StatusArgs) -> ExitCode {
    match client::ask(&args.admin, "/status", None) {
        Err(why) => refuse(FAILED, &why),
        Ok(status) if args.json => say(&format!("{status:#}\n")),
        Ok(status) => say(&screen(&status)),
    }
}

fn screen(status: &Value) -> String {
    let mut out = String::new();
    let Some(object) = status.as_object() else {
        return format!("{status}\n");
    };
    let word = |key: &str| object.get(key).map(|value| cell(key, value));
    let _ = write!(out, "penstock {}", word("version").unwrap_or_else(|| "?".into()));
    if let Some(uptime) = word("uptime_s") {
        let _ = write!(out, "   up {uptime}");
    }
    if let Some(driver) = word("driver") {
        let _ = write!(out, "   driver {driver}");
    }
    out.push('\n');
    facts(object, &["version", "uptime_s", "driver"], "", &mut out);
    for (key, value) in object {
        section(key, value, "", &mut out);
    }
    out
}

/// The plain values of an object, a few a line.
fn facts(object: &Map<String, Value>, known: &[&str], indent: &str, out: &mut String) {
    let plain: Vec<_> = object
        .iter()
        .filter(|(key, value)| !known.contains(&key.as_str()) && is_plain(value))
        .map(|(key, value)| format!("{} {}", title(key), cell(key, value)))
        .collect();
    for line in plain.chunks(5) {
        let _ = writeln!(out, "{indent}{}", line.join("   "));
    }
}

/// What is not a plain value: a table, or a further object.
fn section(key: &str, value: &Value, indent: &str, out: &mut String) {
    match value {
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let rows: Vec<_> = items.iter().filter_map(Value::as_object).collect();
            let nested = rows.iter().any(|row| row.values().any(|value| !is_plain(value)));
            if !nested {
                let _ = writeln!(out, "\n{indent}{}", title(key));
                table(&rows, &format!("{indent}  "), out);
                return;
            }
            for row in rows {
                let name = row.get("name").map(|name| cell("name", name)).unwrap_or_default();
                let _ = writeln!(out, "\n{indent}{} {name}", title(key).trim_end_matches('s'));
                facts(row, &["name"], &format!("{indent}  "), out);
                for (key, value) in row {
                    section(key, value, &format!("{indent}  "), out);
                }
            }
        }
        Value::Object(inner) if !inner.is_empty() => {
            let _ = writeln!(out, "\n{indent}{}", title(key));
            facts(inner, &[], &format!("{indent}  "), out);
            for (key, value) in inner {
                section(key, value, &format!("{indent}  "), out);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_fits_one_screen() {
        let status = json!({
            "version": "0.1.0", "uptime_s": 3725, "driver": "uring", "requests": 1200, "errors": 3,
            "cores": [{ "cpu": 0, "requests": 700, "busy": 0.5 }, { "cpu": 1, "requests": 500, "busy": 0.25 }],
            "listeners": [],
            "pools": [{ "name": "api", "endpoints": [
                { "address": "10.0.0.1:80", "state": "up", "in_flight": 2, "ewma_us": 812, "requests": 900, "failures": 0 },
                { "address": "10.0.0.2:80", "state": "open", "in_flight": 0, "ewma_us": 250000.0, "requests": 300, "failures": 3 },
            ]}],
        });
        let wanted = "\
penstock 0.1.0   up 1 h 2 min   driver uring
requests 1200   errors 3

cores
  cpu  requests  busy
    0       700  0.50
    1       500  0.25

pool api

  endpoints
    address      state  in flight      ewma  requests  failures
    10.0.0.1:80  up             2    812 µs       900         0
    10.0.0.2:80  open           0  250.0 ms       300         3
";
        assert_eq!(screen(&status), wanted);
    }

    #[test]
    fn any_json_is_shown() {
        for status in
            [json!(null), json!([1, [2]]), json!({}), json!({ "a": [{}, { "b": { "c": [] } }], "d": "\u{1b}[2J" })]
        {
            assert!(!screen(&status).contains('\u{1b}'));
        }
    }
}
