//! `/reload`: the configuration file once more, and what that came to.

use std::fmt::Write;

use proto::http::Status;
use serde_json::{Value, json};

use super::Shared;
use super::order::Refused;
use crate::engine::{self, Engine, Reread};
use crate::telemetry::prometheus;

/// Reads the file and goes on by it: `{"dry_run": true}` to be told what that would change.
pub(super) async fn reload(shared: &Shared, reread: Option<&Reread>, content: &[u8]) -> Result<Value, Refused> {
    let content: Value = serde_json::from_slice(content)
        .map_err(|error| Refused::new(Status::BAD_REQUEST, format!("the content is not JSON: {error}")))?;
    let dry_run = match &content["dry_run"] {
        Value::Null => false,
        Value::Bool(dry_run) => *dry_run,
        _ => return Err(Refused::new(Status::BAD_REQUEST, "`dry_run` is true or false")),
    };
    let done = if dry_run { engine::compare(shared, reread) } else { engine::reload(shared, reread).await };
    let (reloaded, warnings) = done.map_err(|why| Refused::new(Status::CONFLICT, why))?;
    Ok(json!({
        "configuration": reloaded.number,
        "adopted": !dry_run && !reloaded.lines.is_empty(),
        "changes": reloaded.lines,
        "warnings": warnings,
    }))
}

pub(super) fn status(engine: &Engine) -> Value {
    let (number, open) = engine.generations();
    let reloads = engine.reloads();
    json!({
        "number": number,
        "age_s": reloads.at.map_or(engine.uptime(), |at| ring::monotonic().since(at)).as_secs(),
        "open": open,
        "reloads": reloads.adopted,
        "refused": reloads.refused,
        "refusal": reloads.refusal,
    })
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let (number, open) = engine.generations();
    let reloads = engine.reloads();
    let mut plain = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    plain("penstock_config_generation", "gauge", "Which configuration holds, counted from 1.", number);
    let help =
        "Configurations in which something goes on: the one that holds, and those before it that exchanges began in.";
    plain("penstock_config_generations_open", "gauge", help, open as u64);
    let help = "Whether the configuration that was read last could be adopted.";
    plain("penstock_config_last_reload_successful", "gauge", help, u64::from(reloads.refusal.is_none()));
    let rows = [("result=\"adopted\"", reloads.adopted), ("result=\"refused\"", reloads.refused)];
    let rows = rows.into_iter().map(|(labels, count)| (labels.to_owned(), count));
    prometheus::family(out, "penstock_config_reloads_total", "counter", "Configurations read anew.", rows);
}
