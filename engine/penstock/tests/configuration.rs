//! Configuration files as an operator meets them: what is refused and how, what is understood, and that what is printed
//! is what was read.

use penstock::snapshot::{self, Action, Asked, Found, PoolId, Question, RouteId, Snapshot, Target};
use proto::http::Fields;

fn compile(text: &str) -> Snapshot {
    match snapshot::read("edge.toml", text) {
        Ok(compiled) => compiled.snapshot,
        Err(report) => panic!("{}", report.render()),
    }
}

/// A request that says nothing beside these three.
fn find(table: &snapshot::RouteTable, host: &str, path: &str, method: &str) -> Option<RouteId> {
    let (host, path, method) = (host.as_bytes(), path.as_bytes(), method.as_bytes());
    let asked = Asked { host, path, query: b"", method, client: None, fields: &Fields::with_limit(0), bytes: b"" };
    table.find(&asked).map(|found| found.route)
}

fn target(snapshot: &Snapshot, route: u16) -> Target {
    match &snapshot[RouteId(route)].action {
        Action::Pool(target) => *target,
        other => panic!("{other:?}"),
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

[classes.bulk]
bandwidth = "25MB/s"

[classes.interactive]
weight = 8
queue = "200ms"

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
    assert_eq!(find(&snapshot.table, "API.example.net", "/v1/x", "GET"), Some(RouteId(0)));
    assert_eq!(find(&snapshot.table, "api.example.net", "/v2", "GET"), Some(RouteId(1)));
    assert_eq!(snapshot.pool_named("db"), Some(PoolId(2)));
    assert_eq!(report(EXAMPLE), "");
}

// ── What is refused, and how it is said ─────────────────────────────────────────────────────────────────────────────

#[test]
fn everything_wrong_is_said_at_once_with_its_place() {
    let text = r#"[engine]
cores = "3-1"
driver = "iouring"
drain_timeout = 30

[[listen]]
name = "web"
adress = ":443"

[[listen]]
name = "web"
addr = "localhost:80"
max_connections = "100"

[[pool]]
name = "api"
endpoints = ["10.0.0.1:80", "10.0.0.2", "10.0.0.1:80 wait=2"]
breaker = { failure = 3, open_for = "1min" }
retry = { on = ["conect"], tries = 9, budget = "200%" }

[[route]]
host = "http://a.example/x"
path = "v1/*"
pool = "apo"
"#;
    let wanted = r#"error[E015]: `cores`: `3-1` has a range that ends before it begins (`3-1`)
  --> edge.toml:2:9
   |
 2 | cores = "3-1"
   |         ^^^^^ write `1-3`

error[E015]: `iouring` is nothing that `driver` can be
  --> edge.toml:3:10
   |
 3 | driver = "iouring"
   |          ^^^^^^^^^ did you mean `uring`?

error[E013]: `drain_timeout` is a number, and must be text
  --> edge.toml:4:17
   |
 4 | drain_timeout = 30
   |                 ^^ write "30s" for seconds

error[E014]: `addr` is missing in [[listen]]
  --> edge.toml:6:1
   |
 6 | [[listen]]
   | ^^^^^^^^^^ `addr`: Where to listen: one address or several

error[E012]: unknown key `adress` in [[listen]]
  --> edge.toml:8:1
   |
 8 | adress = ":443"
   | ^^^^^^ did you mean `addr`?
"#;
    let found = report(text);
    assert!(found.starts_with(wanted), "{found}");
    for line in [
        "error[E021]: the listener `web` is there twice",
        "`addr`: `localhost:80` is a name",
        "`max_connections` is text, and must be a number",
        "write 100",
        "the first one is at line 7",
        "`endpoints`: `10.0.0.2` has no port",
        "`endpoints`: `10.0.0.1:80 wait=2` has `wait=2` after the address",
        "unknown key `failure` in breaker",
        "did you mean `failures`?",
        "`breaker.open_for`: `1min` has the unknown unit `min`",
        "`retry.on`: `conect` is no cause to try again",
        "`tries` cannot be 9",
        "write a number from 1 to 4",
        "`retry.budget`: `200%` is not a share",
        "`host`: `http://a.example/x` is a URL",
        "write the host alone: `a.example`",
        "`path`: `v1/*` does not begin with `/`",
        "there is no pool `apo`",
        "did you mean `api`?",
        "\n18 errors\n",
    ] {
        assert!(found.contains(line), "{line}\n---\n{found}");
    }
}

/// A file around the part that a case is about.
fn around(part: &str) -> String {
    format!("[[listen]]\nname = \"web\"\naddr = \":80\"\n[[pool]]\nname = \"api\"\nendpoints = [\"a:1\"]\n{part}")
}

#[test]
fn one_problem_at_a_time() {
    let table = [
        ("[[rout]]\npool = \"api\"", "error[E012]: unknown key `rout` in the file", "did you mean `route`?"),
        (
            "[route]\npool = \"api\"",
            "[[route]] is a table, and must be a list",
            "write [[route]] above its keys, with two brackets",
        ),
        ("[[route]]\nhost = \"a\"", "error[E014]: `pool` is missing in [[route]]", "`pool`: Where such requests go"),
        ("[[route]]\nhost = \"a:80\"\npool = \"api\"", "`host`: `a:80` has a port", "write `a`"),
        ("[[route]]\nhost = \"a/b\"\npool = \"api\"", "`host`: `a/b` has a path", "write host = \"a\", path = \"/b\""),
        ("[[route]]\npath = \"/a*b\"\npool = \"api\"", "has `*` in the middle", "`/v1/*`"),
        ("[[route]]\npath = \"/a?b\"\npool = \"api\"", "has `?` in it", "without its query"),
        ("[[route]]\nmethod = \"get\"\npool = \"api\"", "has small letters", "`GET`"),
        ("[[route]]\npool = \"api\"\ntimeout = { head = \"0s\" }", "`head` cannot be zero", "leave it out"),
        ("[[pool]]\nname = \"api\"\nendpoints = [\"b:1\"]", "error[E021]: the pool `api` is there twice", "line 5"),
        (
            "[[pool]]\nname = \"b\"\nendpoints = [\"b:1\"]",
            "error[E022]: there are 2 pools and no [[route]]",
            "pool = \"api\"",
        ),
        (
            "[[pool]]\nname = \"b\"\nendpoints = []\n[[route]]\npool = \"b\"\n[[route]]\nhost = \"x\"\npool = \"api\"",
            "a pool needs an endpoint",
            "127.0.0.1:8080",
        ),
        (
            "[[pool]]\nname = \"b\"\nendpoints = [\"a:1 weight=0\"]\n[[route]]\npool = \"b\"\n[[route]]\nhost = \"x\"\npool = \"api\"",
            "every endpoint has weight 0",
            "weight",
        ),
        (
            "[[pool]]\nname = \"b\"\nendpoints = [\"b:1\"]\n[[route]]\npool = \"api\"",
            "warning[W102]: nothing leads to the pool `b`",
            "no route",
        ),
        (
            "[[route]]\npool = \"api\"\n[[route]]\nhost = \"*\"\npath = \"/*\"\npool = \"api\"",
            "warning[W101]: route `*/*` can never match",
            "line 7",
        ),
        (
            "[[listen]]\nname = \"t\"\naddr = \":81\"\nprotocol = \"tcp\"",
            "a tcp listener needs a `pool`",
            "name the pool",
        ),
        (
            "[[listen]]\nname = \"t\"\naddr = \":81\"\npool = \"api\"",
            "an http listener has no `pool`",
            "protocol = \"tcp\"",
        ),
        ("[[listen]]\nname = \"t\"\naddr = [\":80\"]", "the address `:80` is there twice", "line 3"),
        ("[[listen]]\nname = \"t\"\naddr = \":0\"", "`addr`: `:0` has the port `0`", "1 to 65535"),
        ("[[listen]]\nname = \"t\"\naddr = \":81\"\nbacklog = -1", "`backlog` cannot be -1", "from 0"),
        ("[[listen]]\nname = \"t\"\naddr = \":81\"\nbacklog = 1.5", "a number with a fraction", ""),
        (
            "[[listen]]\nname = \"t\"\naddr = \":81\"\ntrusted = [\"10.0.0.1/8\"]",
            "has bits set beyond its prefix",
            "`10.0.0.0/8`",
        ),
        (
            "[log]\naccess = { format = \"common\" }",
            "warning[W103]: a format for an access log that is off",
            "path = \"-\"",
        ),
        ("[engine]\nspin = \"1s\"", "`spin`: `1s` is too long to spin", "`1ms`"),
        ("[engine]\nadmin = \":80\"", "`admin`: `:80` has no host", "`127.0.0.1:80`"),
        ("[engine]\nvia = \"a b\"", "`via`: `a b` is not a token", "`off`"),
        ("x = ", "error[E010]: this is not TOML", ""),
        ("[engine]\ncores = \"0\"\ncores = \"1\"", "error[E010]: this is not TOML: duplicate key", ""),
    ];
    for (part, message, advice) in table {
        let found = report(&around(part));
        assert!(found.contains(message) && found.contains(advice), "{part}\n---\n{found}");
        let problems = found.matches("-->").count();
        assert_eq!(problems, 1, "one problem, said once\n{part}\n---\n{found}");
    }
}

#[test]
fn an_empty_file_says_what_to_write() {
    let wanted = "error[E014]: `listen` is missing in the file\n  --> edge.toml:1:1\n   |\n 1 | \n   | ^ write [[listen]]: A door: where connections come in\n\n1 error\n";
    assert_eq!(report(""), wanted);
}

#[test]
fn any_text_is_answered() {
    let mut seed = 1_u64;
    let letters: Vec<char> = "[]{}=\"'\\#.,\n\t -0123aäßlisteproudcn_:".chars().collect();
    for _ in 0..3000 {
        let mut text = String::new();
        for _ in 0..40 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text.push(letters[(seed >> 33) as usize % letters.len()]);
        }
        report(&text);
        report(&around(&text));
    }
}

#[test]
fn a_report_for_machines() {
    let report = snapshot::read("edge.toml", &around("[engine]\ndriver = \"x\"")).unwrap_err();
    let wanted = serde_json::json!([{
        "code": "E015", "severity": "error", "message": "`x` is nothing that `driver` can be",
        "advice": "write one of: auto, uring, epoll", "file": "edge.toml", "line": 8, "column": 10,
    }]);
    assert_eq!(report.to_json(), wanted);
}

// ── What is understood ──────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn printing_and_reading_are_inverse() {
    for text in [
        EXAMPLE.to_owned(),
        around(""),
        around("[[route]]\nname = \"q\\\"\\u007f\"\npool = \"api\"").replace("q\\\"\\u007f", "q"),
    ] {
        let read = |text: &str| {
            snapshot::read("edge.toml", text).unwrap_or_else(|report| panic!("{}\n{text}", report.render()))
        };
        let first = read(&text);
        for printed in [snapshot::print(&first.document), snapshot::complete(&first.document)] {
            let second = read(&printed);
            assert_eq!(first.document, second.document, "{printed}");
            assert_eq!(first.snapshot, second.snapshot, "{printed}");
        }
        let printed = snapshot::print(&first.document);
        assert_eq!(printed, snapshot::print(&read(&printed).document), "canonical");
    }
}

#[test]
fn canonical_form() {
    let text = "[[listen]]\naddr = [\":80\"]\nname = \"web\"\nmax_connections = 20_000\ntimeout.head = \"1m30s\"\n[[pool]]\nendpoints = [\"A:1 weight=1\"]\nname = \"api\"\n[engine]\n";
    let wanted = "[[listen]]\nname = \"web\"\naddr = \":80\"\ntimeout = { head = \"90s\" }\n\n[[pool]]\nname = \"api\"\nendpoints = [\"a:1\"]\n";
    assert_eq!(snapshot::print(&snapshot::read("", text).unwrap().document), wanted);
}

#[test]
fn documented_defaults_are_those_of_the_snapshot() {
    use std::time::Duration;
    let snapshot = compile(&around(""));
    let (listener, pool, route) = (&snapshot.listeners[0], &snapshot.pools[0], &snapshot.routes[0]);
    let timeouts = target(&snapshot, 0).timeouts;
    let secs = Duration::from_secs;
    assert_eq!(snapshot.engine.drain_timeout, secs(30));
    assert_eq!(snapshot.engine.via.to_string(), "penstock");
    assert!(snapshot.engine.admin.is_empty() && snapshot.access_log.is_none());
    assert_eq!(
        (listener.head_timeout, listener.keep_alive_timeout, listener.body_timeout),
        (secs(10), secs(75), secs(60))
    );
    assert_eq!((listener.max_connections, listener.backlog), (20_000, 4096));
    assert_eq!((pool.breaker.failures, pool.breaker.open_for, pool.breaker.trials), (5, secs(60), 3));
    assert_eq!((pool.reuse.idle, pool.reuse.max_idle, pool.reuse.max_requests), (secs(60), 1024, None));
    let retry = pool.retry.policy;
    assert_eq!((retry.on.connect, retry.on.reset, retry.on.timed_out, retry.tries), (true, true, true, 3));
    assert_eq!(retry.on.statuses.iter().collect::<Vec<_>>(), [500, 502, 503, 504]);
    assert_eq!((retry.per_try, retry.non_idempotent, pool.retry.buffer), (None, false, 64 << 10));
    assert_eq!((pool.retry.budget.percent, pool.retry.budget.per_second_min), (20, 3));
    assert_eq!((timeouts.connect, timeouts.head, timeouts.idle), (secs(1), secs(60), secs(60)));
    assert_eq!(pool.resolve_every, secs(10));
    assert_eq!(route.forwarded, snapshot::Forwarded::XForwarded);
}

#[test]
fn a_route_inherits_the_times_it_does_not_set() {
    let snapshot = compile(EXAMPLE);
    let times = |id: u16| target(&snapshot, id).timeouts;
    assert_eq!((times(0).head.as_secs(), times(0).idle.as_secs()), (5, 60));
    assert_eq!(times(1).head.as_secs(), 60);
}

#[test]
fn the_most_specific_route_wins() {
    let rules = [
        ("*", "/*", ""),
        ("a.example", "/*", ""),
        ("*.example", "/*", ""),
        ("*.b.example", "/*", ""),
        ("a.example", "/v1/*", ""),
        ("a.example", "/v1/x", ""),
        ("a.example", "/v1/x/*", "POST"),
        ("a.example", "/v1/*", "DELETE"),
        ("only.example", "/here", ""),
        ("[::1]", "/*", ""),
    ];
    let mut text = around("");
    for (at, (host, path, method)) in rules.iter().enumerate() {
        let method = if method.is_empty() { String::new() } else { format!("method = \"{method}\"\n") };
        text.push_str(&format!(
            "[[route]]\nname = \"r{at}\"\nhost = \"{host}\"\npath = \"{path}\"\n{method}pool = \"api\"\n"
        ));
    }
    let snapshot = compile(&text);
    let table = [
        ("nowhere", "/", "GET", 0),
        ("a.example", "/", "GET", 1),
        ("A.Example.", "/", "GET", 1),
        ("x.example", "/", "GET", 2),
        ("x.b.example", "/", "GET", 3),
        ("y.x.b.example", "/", "GET", 3),
        ("b.example", "/", "GET", 2),
        ("example", "/", "GET", 0),
        ("a.example", "/v1", "GET", 4),
        ("a.example", "/v1/", "GET", 4),
        ("a.example", "/v10", "GET", 1),
        ("a.example", "/v1/x", "GET", 5),
        ("a.example", "/v1/x/y", "GET", 4),
        ("a.example", "/v1/x/y", "POST", 6),
        ("a.example", "/v1/x", "POST", 5),
        ("a.example", "/v1/y", "DELETE", 7),
        ("a.example", "*", "OPTIONS", 1),
        ("only.example", "/here", "GET", 8),
        ("only.example", "/there", "GET", 2),
        ("[::1]", "/", "GET", 9),
        ("", "", "", 0),
    ];
    for (host, path, method, wanted) in table {
        assert_eq!(find(&snapshot.table, host, path, method), Some(RouteId(wanted)), "{method} {host}{path}");
    }
}

#[test]
fn a_miss_is_an_answer() {
    let snapshot = compile(&around(
        "[[route]]\nhost = \"a\"\npath = [\"/x\", \"/y/*\"]\nmethod = [\"GET\", \"HEAD\"]\npool = \"api\"",
    ));
    let hit = |host, path, method| find(&snapshot.table, host, path, method).is_some();
    assert!(hit("a", "/x", "GET") && hit("a", "/y/z", "HEAD"));
    assert!(!hit("a", "/x", "POST") && !hit("a", "/z", "GET") && !hit("b", "/x", "GET"));
}

/// Against looking at every rule: thousands of routes with prefixes of each other.
#[test]
fn the_table_finds_what_looking_at_all_finds() {
    let mut seed = 7_u64;
    let mut draw = |bound: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % bound
    };
    let mut path = |depth: u64| {
        (0..draw(depth)).fold(String::new(), |path, _| format!("{path}/{}", ["a", "b", "ab", "a-"][draw(4) as usize]))
    };
    let prefixes: std::collections::BTreeSet<_> = (0..60).map(|_| path(5)).collect();
    let rules = prefixes.iter().enumerate().map(|(at, prefix)| snapshot::Rule {
        host: snapshot::HostPattern::Any,
        path: format!("{prefix}/*").parse().unwrap(),
        method: None,
        conditions: None,
        to: Found { route: RouteId(at as u16), path: 0 },
    });
    let table = snapshot::RouteTable::new(rules.collect());
    for _ in 0..20_000 {
        let asked = path(7);
        let covers = |prefix: &str| {
            asked.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        let wanted =
            prefixes.iter().enumerate().filter(|(_, prefix)| covers(prefix)).max_by_key(|(_, prefix)| prefix.len());
        let wanted = wanted.map(|(at, _)| RouteId(at as u16));
        assert_eq!(find(&table, "any", &asked, "GET"), wanted, "{asked}");
    }
}

#[test]
fn explaining_a_request() {
    let snapshot = compile(EXAMPLE);
    let explain = |url: &str| {
        let question = Question { method: "GET".into(), url: url.into(), ..Question::default() };
        snapshot::explain(&snapshot, &question).map(|found| found.render())
    };
    let wanted = "\
request    GET /v1/users, host api.example.net
listener   web (:8080)
route      api.example.net/v1/*
why        host api.example.net, path /v1/*, any method
pool       api (adaptive)
endpoints  10.0.0.1:8080  weight 1 (33 %)
           10.0.0.2:8080  weight 2 (67 %)
host       keep
retry      3 tries, on connect, reset, timeout, 500, 502, 503, 504, budget 20%
breaker    3 failures in a row, open for 30s, then 3 trials
timeouts   connect 1s, head 5s, idle 60s
forwarded  x-forwarded
";
    assert_eq!(explain("http://api.example.net:8080/v1/users?q=1").unwrap(), wanted);
    assert!(explain("pages.example.net").unwrap().contains("pool       pages (round-robin)"));
    assert!(explain("http://a:1/").unwrap().contains("none at port 1"));
    assert!(explain("ftp://a/").is_err() && explain("http:///x").is_err() && explain("a:x").is_err());
}

// ── Pages made from the schema ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_reference_is_fresh() {
    let committed = include_str!("../../../docs/configuration.md");
    assert!(committed == snapshot::reference(), "run: cargo run -- reference > docs/configuration.md");
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(schema: &serde_json::Value, path: &str) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{path}");
            walk(property, &path);
            walk(&property["items"], &path);
        }
    }
    walk(&snapshot::json_schema(), "");
}

// ── Health checks ───────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn health_checks_are_checked() {
    for (health, message, advice) in [
        ("http = \"healthz\"", "`health.http`: `healthz` does not begin with `/`", "`/healthz`"),
        ("http = \"/a b\"", "has ` ` in it", "percent-encoded"),
        ("http = \"/\", status = \"2xx\"", "`2xx` is no list of statuses", "`200-299`"),
        ("http = \"/\", tcp = true", "`http` and `tcp`: an endpoint is asked in one way", "leave one"),
        ("tcp = true, expect = \"220\"", "`tcp` and `expect`: an endpoint is asked in one way", "leave one"),
        ("http = \"/\", grpc = \"\"", "`http` and `grpc`: an endpoint is asked in one way", "leave one"),
        ("grpc = \"\", tcp = true", "`grpc` and `tcp`: an endpoint is asked in one way", "leave one"),
        ("grpc = \"\", status = \"200\"", "warning[W103]: `status` belongs to `http`", "leave it out"),
        ("every = \"2s\"", "warning[W103]: nothing says how to ask", "http = \"/healthz\""),
        ("tcp = true, body = \"ok\"", "warning[W103]: `body` belongs to `http`", "leave it out"),
        ("http = \"/\", send = \"x\"", "warning[W103]: `send` belongs to `expect`", "leave it out"),
        ("http = \"/\", body = \"\"", "`body` is empty", "leave it out"),
        ("http = \"/\", host = \"a b\"", "`host` is not a host", "app.example.net"),
        ("http = \"/\", every = \"50ms\"", "so many probes would be a load of their own", "100ms"),
        ("http = \"/\", timeout = \"0s\"", "`timeout` cannot be zero", "leave it out"),
        ("http = \"/\", rise = 0", "`rise` cannot be 0", "from 1 to 255"),
        ("http = \"/\", fall = 300", "`health.fall` cannot be 300", "to 255"),
        ("http = \"/\", port = 0", "port 0 is none", "leave it out"),
        ("http = \"/\", jitter = 1", "unknown key `jitter` in health", "it may have: "),
    ] {
        let found = report(&around(&format!("health = {{ {health} }}")));
        assert!(found.contains(message) && found.contains(advice), "{health}\n---\n{found}");
        assert_eq!(found.matches("-->").count(), 1, "one problem, said once\n{health}\n---\n{found}");
    }
}

#[test]
fn a_health_check_is_off_until_it_says_how_to_ask() {
    use snapshot::ProbeAsk;
    use std::time::Duration;
    assert_eq!(compile(&around("")).pools[0].health, None);
    let probe = |keys: &str| compile(&around(keys)).pools[0].health.clone().expect("a probe");
    let plain = probe("health.http = \"/healthz\"");
    let ProbeAsk::Http { target, host, status, body } = &plain.ask else { panic!("{plain:?}") };
    assert_eq!((&**target, host, body, status.to_string().as_str()), ("/healthz", &None, &None, "200-299"));
    assert_eq!(plain.settings, policy::HealthSettings::default());
    let fast = probe("host = \"app.example\"\nhealth = { http = \"/\", every = \"500ms\" }");
    assert!(matches!(&fast.ask, ProbeAsk::Http { host: Some(host), .. } if &**host == "app.example"));
    assert_eq!(fast.settings.interval_in_doubt, Duration::from_millis(500), "never more seldom than without a doubt");
    assert_eq!(fast.settings.timeout, Duration::from_millis(500), "a probe is over when the next one is due");
    let bytes = probe("health = { send = \"PING\\r\\n\", expect = \"+PONG\", every_in_doubt = \"2s\" }");
    assert_eq!(bytes.ask, ProbeAsk::Bytes { send: "PING\r\n".into(), expect: "+PONG".into() });
    assert_eq!(bytes.settings.interval_in_doubt, Duration::from_secs(2));
    assert_eq!(bytes.settings.timeout, policy::HealthSettings::default().timeout);
    let grpc = probe("protocol = \"h2\"\nhealth = { grpc = \"a.B\", host = \"b\" }");
    assert_eq!(grpc.ask, ProbeAsk::Grpc { service: "a.B".into(), host: Some("b".into()) });
    let told = report(&around("tls.ca = \"system\"\nhealth.grpc = \"\""));
    assert!(told.contains("over TLS this pool offers HTTP/1.1 alone") && told.contains("protocol = \"h2\""), "{told}");
}

// ── Outliers ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn outlier_detection_is_checked() {
    for (outlier, message, advice) in [
        ("on = [\"gatway\"]", "`gatway` is nothing that", "did you mean `gateway`?"),
        ("every = \"5s\"", "warning[W103]: nothing says what to judge by", "on = ["),
        ("on = [\"5xx\"], errors = 0", "`errors` cannot be 0", "from 1"),
        ("on = [\"latency\"], endpoints_min = 1", "`endpoints_min` cannot be 1", "from 2 to 1024"),
        ("on = [\"latency\"], every = \"500ms\"", "so short a time says nothing", "1s"),
        ("on = [\"latency\"], eject_for = \"10m\"", "the longest ejection is shorter", "\"10m\""),
        ("on = [\"latency\"], share_max = \"0%\"", "warning[W103]: a share of 0%", "leave `on` out"),
    ] {
        let found = report(&around(&format!("outlier = {{ {outlier} }}")));
        assert!(found.contains(message) && found.contains(advice), "{outlier}\n---\n{found}");
        assert_eq!(found.matches("-->").count(), 1, "one problem, said once\n{outlier}\n---\n{found}");
    }
}

#[test]
fn outlier_detection_is_off_until_it_says_what_by() {
    assert_eq!(compile(&around("")).pools[0].outlier, None);
    let settings = |keys: &str| compile(&around(keys)).pools[0].outlier.expect("it is on");
    let all = settings("outlier.on = [\"gateway\", \"5xx\", \"success-rate\", \"latency\"]");
    assert_eq!(all, policy::OutlierSettings::default());
    let some = settings("outlier = { on = [\"success-rate\"], share_max = \"20%\" }");
    assert_eq!((some.consecutive_gateway, some.consecutive_5xx, some.latency_factor, some.share_max), (0, 0, 0, 20));
    assert_eq!(some.success_rate_factor, all.success_rate_factor);
}
