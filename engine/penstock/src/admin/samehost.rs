//! The same-host shortcut: whose requests take it, what the kernel has counted of it, and what an operator says of that.

use proto::http::Status;
use serde_json::{Value, json};

use super::order::Refused;
use crate::engine::Engine;
use crate::snapshot::{PoolId, nearest};
use crate::telemetry::prometheus;

/// A row for each pool whose requests take it, where it stands.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let on = |at: u16| engine.same_host().switch(PoolId(at)).is_some_and(|switch| switch.token().is_some());
    let pools = (0..).zip(&engine.snapshot().pools).filter(|(at, _)| on(*at));
    let row = |name: &str| {
        let mut row = json!({ "pool": name });
        for (what, count) in engine.same_host().counts().into_iter().flatten() {
            row[what] = count.into();
        }
        row
    };
    pools.map(|(_, pool)| row(&pool.name)).collect()
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let Some(counts) = engine.same_host().counts() else { return };
    let pools = std::iter::once((String::new(), rows(engine).len() as u64));
    let help = "Pools whose requests may skip TCP on this host.";
    prometheus::family(out, "penstock_same_host_pools", "gauge", help, pools);
    let rows = counts.into_iter().map(|(what, count)| (format!("what=\"{what}\""), count));
    let help = "What the same-host shortcut's programs have seen: connections joined or refused, messages and bytes that skipped TCP, and ends that \
                went back to it because they had spent what they may send unanswered, or found themselves alone.";
    prometheus::family(out, "penstock_same_host_total", "counter", help, rows);
}

/// Follows an operator's word on a pool: `auto` or `off`.
pub(super) fn follow(engine: &mut Engine, name: &str, to: &str, who: &str) -> Result<Value, Refused> {
    let refused = |status, why: String| Refused { status, why };
    let Some(pool) = engine.snapshot().pool_named(name) else {
        let names = engine.snapshot().pools.iter().map(|pool| &*pool.name);
        let why = match nearest(name, names) {
            Some(near) => format!("there is no pool `{name}`; did you mean `{near}`?"),
            None => format!("there is no pool `{name}`: `penstock show pools` lists them"),
        };
        return Err(refused(Status::NOT_FOUND, why));
    };
    let on = match to {
        "auto" => true,
        "off" => false,
        _ => {
            let why = format!("`{to}` is nothing that it can be; write one of: auto, off");
            return Err(refused(Status::BAD_REQUEST, why));
        }
    };
    let was = engine.same_host_mut().turn(pool, on).map_err(|why| refused(Status::CONFLICT, why))?;
    eprintln!("penstock: pool `{name}`: same host {to}, told by {who}");
    Ok(json!({ "same_host": name, "is": to, "was": if was { "auto" } else { "off" } }))
}
