//! `penstock show`: what a running engine knows of endpoints, pools, breakers, routes, limits, WebSockets, gRPC, TLS, the shield and the balancer, as a table.

use super::{ADMIN_DEFAULT, FAILED, admin_address, client, refuse, say, table::table};
use crate::snapshot::Address;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// What to show
    what: What,
    /// Of this pool only
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// The engine's admin endpoint: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = ADMIN_DEFAULT, value_parser = admin_address)]
    admin: Address,
    /// Prints the answer as it came: a list of objects
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Each endpoint: whether requests go to it, and if not, why and since when
    Endpoints,
    /// Each pool: how many of its endpoints serve
    Pools,
    /// Each endpoint's breaker
    Breakers,
    /// Each route: where it leads, and how long it waits
    Routes,
    /// What is bounded, how far it is used, and how often the bound was met
    Limits,
    /// Each route that has had WebSockets: how many, their messages, how long those took here, and how they ended
    #[value(name = "websockets")]
    WebSockets,
    /// Each method of gRPC that was called: how often, how long it took, and how it failed
    Grpc,
    /// Each certificate that a listener shows: its names and days left, its key, and what goes with it
    Tls,
    /// How TLS handshakes with clients have ended
    Handshakes,
    /// Packets that the XDP shield has seen, by what it made of them
    Shield,
    /// Whom the XDP shield drops because an operator said so, or because it does not heed a limit
    Denied,
    /// Each VIP of the XDP balancer: whom its packets go to, and how many
    Vips,
}

pub(super) fn show(args: &ShowArgs) -> ExitCode {
    let what = args.what.to_possible_value().expect("no value is skipped");
    let query = args.pool.as_ref().map(|pool| format!("?pool={pool}")).unwrap_or_default();
    match client::ask(&args.admin, &format!("/show/{}{query}", what.get_name()), None) {
        Err(why) => refuse(FAILED, &why),
        Ok(rows) if args.json => say(&format!("{rows:#}\n")),
        Ok(rows) => say(&page(&rows)),
    }
}

/// The rows as a table; what is no row is nothing that this version knows how to show.
fn page(rows: &Value) -> String {
    let rows: Vec<_> = rows.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    let mut out = String::new();
    if rows.is_empty() {
        return "nothing\n".into();
    }
    table(&rows, "", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_become_a_table() {
        let rows = json!([
            { "pool": "api", "endpoint": "10.0.0.1:80", "state": "up", "in_flight": 2, "latency_us": 812, "since_s": 3700, "last": "in the pool" },
            { "pool": "api", "endpoint": "10.0.0.2:80", "state": "drain", "in_flight": 0, "latency_us": 0, "since_s": 4, "last": "drain \u{1b}[2J" },
        ]);
        let wanted = "\
pool  endpoint     state  in flight  latency      since  last
api   10.0.0.1:80  up             2   812 µs  1 h 1 min  in the pool
api   10.0.0.2:80  drain          0     0 µs        4 s  drain ?[2J
";
        assert_eq!(page(&rows), wanted);
        assert_eq!(page(&json!([])), "nothing\n");
        assert_eq!(page(&json!({ "a": 1 })), "nothing\n");
    }
}
