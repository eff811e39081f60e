//! `penstock set`: changes an endpoint of a running engine, its breaker or a route's, or whom its shield denies, until the engine ends or is
//! told otherwise.

use super::{ADMIN_DEFAULT, FAILED, admin_address, client, refuse, say, table::cell};
use crate::snapshot::Address;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  penstock set endpoint 10.0.0.1:80 drain        new requests go elsewhere, what it has is finished
  penstock set endpoint 10.0.0.1:80 weight=3     three times the share of a weight of 1
  penstock set breaker 10.0.0.1:80 open          nothing goes to it, whatever evidence says
  penstock set route checkout breaker=open       its requests get the route's fallback
  penstock set shield 203.0.113.0/24 deny=1h     its packets are dropped for an hour
  penstock set same-host api off                 its requests go to endpoints on this host by TCP
  penstock set qlog 198.51.100.7 on              its next connections of HTTP/3 are written down")]
pub(super) struct SetArgs {
    /// What to change
    what: What,
    /// The endpoint, as `penstock show endpoints` calls it; or the route, as `penstock show routes` does; `shield` and `qlog`: a
    /// network or an address; `same-host`: a pool
    #[arg(value_name = "NAME")]
    name: String,
    /// `endpoint`: drain, ready, maint, weight=N, weight=auto, or breaker=open, breaker=closed, breaker=auto. `breaker`: open, closed or
    /// auto, which is the same. `route`: breaker=open, breaker=closed or breaker=auto. `shield`: deny,
    /// deny=TIME or clear. `same-host`: auto or off. `qlog`: on or off
    #[arg(value_name = "CHANGE")]
    to: String,
    /// Its pool, where several have an endpoint of that name
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// The engine's admin endpoint: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = ADMIN_DEFAULT, value_parser = admin_address)]
    admin: Address,
    /// Prints the answer as it came
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Whether requests go to it, and how many
    Endpoint,
    /// Whether its breaker follows the evidence
    Breaker,
    /// Whether a route's breaker does
    Route,
    /// Whether the XDP shield drops a network's packets
    Shield,
    /// Whether a pool's requests skip TCP on this host
    SameHost,
    /// Whether connections of HTTP/3 with a network are written down as qlog
    Qlog,
}

pub(super) fn set(args: &SetArgs) -> ExitCode {
    let what = args.what.to_possible_value().expect("no value is skipped");
    match client::ask(&args.admin, &format!("/set/{}", what.get_name()), Some(&args.order())) {
        Err(why) => refuse(FAILED, &why),
        Ok(done) if args.json => say(&format!("{done:#}\n")),
        Ok(done) => say(&told(&done)),
    }
}

impl SetArgs {
    fn order(&self) -> Value {
        let mut order = Map::new();
        let pool = self.pool.as_ref().map(|pool| ("pool", pool));
        for (key, value) in [("name", &self.name), ("to", &self.to)].into_iter().chain(pool) {
            order.insert(key.into(), value.as_str().into());
        }
        order.into()
    }
}

fn told(done: &Value) -> String {
    let word = |key: &str| cell(key, &done[key]);
    if done["route"].is_string() {
        return format!("route {}: breaker {} (was {})\n", word("route"), word("is"), word("was"));
    }
    if done["same_host"].is_string() {
        return format!("pool {}: same host {} (was {})\n", word("same_host"), word("is"), word("was"));
    }
    if let Some(network) = done.get("qlog") {
        return format!("qlog of {}: {} (was {})\n", cell("network", network), word("is"), word("was"));
    }
    if let Some(network) = done.get("network") {
        return format!("network {}: {} (was {})\n", cell("network", network), word("is"), word("was"));
    }
    let (endpoint, pool, is, was) = (word("endpoint"), word("pool"), word("is"), word("was"));
    format!("endpoint {endpoint} of pool {pool}: {is} (was {was}), {} in flight\n", word("in_flight"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_done_is_told_in_a_line() {
        let done = json!({ "pool": "api", "endpoint": "10.0.0.1:80", "is": "drain", "was": "ready", "in_flight": 3 });
        assert_eq!(told(&done), "endpoint 10.0.0.1:80 of pool api: drain (was ready), 3 in flight\n");
    }
}
