//! Configuration files as an operator meets them: what is refused and how, what is understood, and that what is printed
//! is what was read.

use penstock::snapshot::{self, PoolId, RouteId, Snapshot};

fn compile(text: &str) -> Snapshot {
    match snapshot::read("edge.toml", text) {
        Ok(compiled) => compiled.snapshot,
        Err(report) => panic!("{}", report.render()),
    }
}

/// The report, errors or warnings, as an operator sees it.
fn report(text: &str) -> String {
    match snapshot::read("edge.toml", text) {
        Ok(compiled) => compiled.report.render(),
        Err(report) => report.render(),
    }
}

const EXAMPLE: &str = r#"
[engine]
cores = "0-3"
admin = ["127.0.0.1:9180", "unix:/run/penstock.sock"]

[log]
access = { path = "-", format = "common" }

[[listen]]
name = "web"
addr = [":8080", "[::1]:8081"]
proxy_protocol = { from = ["10.0.0.0/8"] }
timeout = { head = "5s" }

[[listen]]
name = "database"
addr = "unix:/run/db.sock"
protocol = "tcp"
pool = "db"

[[pool]]
name = "api"
endpoints = ["10.0.0.1:8080", "10.0.0.2:8080 weight=2"]
breaker = { failures = 3, open_for = "30s" }

[[pool]]
name = "pages"
endpoints = ["pages.internal:80"]
balance = "round-robin"

[[pool]]
name = "db"
endpoints = ["10.0.0.9:5432"]

[[route]]
host = "api.example.net"
path = "/v1/*"
pool = "api"
timeout = { head = "5s" }

[[route]]
pool = "pages"
"#;

#[test]
fn the_example_compiles() {
    let snapshot = compile(EXAMPLE);
    assert_eq!(snapshot.pools.len(), 3);
    assert_eq!(
        snapshot.table.find(b"API.example.net", b"/v1/x", b"GET"),
        Some(RouteId(0))
    );
    assert_eq!(
        snapshot.table.find(b"api.example.net", b"/v2", b"GET"),
        Some(RouteId(1))
    );
    assert_eq!(snapshot.pool_named("db"), Some(PoolId(2)));
    assert_eq!(report(EXAMPLE), "");
}
