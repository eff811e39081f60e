//! Routes as an operator writes them: which one a request takes, what is said of those that none can reach, what is
//! refused, and that no spelling of a path walks past a route.

use penstock::snapshot::{self, Asked, Found, Question, RouteId, RouteTable, Rule, Snapshot, normal};
use policy::Random;
use proto::h1::HeadLimits;
use proto::http::Fields;

/// A file with three pools around some routes.
fn around(routes: &str) -> String {
    let pools =
        ["api", "pages", "canary"].map(|name| format!("[[pool]]\nname = \"{name}\"\nendpoints = [\"{name}:1\"]\n"));
    format!("[[listen]]\nname = \"web\"\naddr = \":80\"\n{}{routes}", pools.concat())
}

fn compile(routes: &str) -> Snapshot {
    match snapshot::read("edge.toml", &around(routes)) {
        Ok(compiled) => compiled.snapshot,
        Err(report) => panic!("{}", report.render()),
    }
}

/// What is wrong, errors or warnings, without the warnings about pools that nothing leads to.
fn report(routes: &str) -> String {
    let report = match snapshot::read("edge.toml", &around(routes)) {
        Ok(compiled) => compiled.report,
        Err(report) => report,
    };
    let told = report.problems.iter().filter(|problem| problem.code != snapshot::Code::Unused);
    told.map(|problem| format!("{}: {} ({})\n", problem.code.number(), problem.message, problem.advice)).collect()
}

/// The number of the route that a request written as text takes. The path is brought into its normal form.
fn find(table: &RouteTable, request: &str, client: &str) -> Option<u16> {
    let text = format!("{}\r\n\r\n", request.replace('\n', "\r\n"));
    let mut fields = Fields::default();
    let head = proto::h1::parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
    let bytes = text.as_bytes();
    let mut path = Vec::new();
    normal::normalise(head.path.of(bytes), &mut path);
    let asked = Asked {
        host: head.authority.of(bytes),
        path: &path,
        query: head.query.of(bytes),
        method: head.method_text.of(bytes),
        client: client.parse().ok(),
        fields: &fields,
        bytes,
    };
    table.find(&asked).map(|found| found.route.0)
}

fn get(table: &RouteTable, path: &str) -> Option<u16> {
    find(table, &format!("GET {path} HTTP/1.1\nHost: a"), "")
}

/// Routes from lines: the keys of each, but for its pool.
fn routes(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("[[route]]\npool = \"api\"\n{}\n", line.replace("; ", "\n"))).collect()
}

#[test]
fn templates_stand_between_texts_and_the_rest() {
    let table = compile(&routes(&[
        "path = \"/*\"",
        "path = \"/users/*\"",
        "path = \"/users/{id}\"",
        "path = \"/users/me\"",
        "path = \"/users/me/*\"",
        "path = \"/users/{id}/posts/{rest...}\"",
        "path = \"/users/{id}/posts/new\"",
        "path = \"/{a}/{b}/{c}\"",
        "path = \"/users/\"",
    ]))
    .table;
    let wanted = [
        ("/", 0),
        ("/x", 0),
        ("/x/", 0),
        ("/users", 1),
        ("/users/", 8),
        ("/users/7", 2),
        ("/users/me", 3),
        ("/users/me/", 4),
        ("/users/me/posts/new", 4),
        ("/users/7/posts", 5),
        ("/users/7/posts/", 5),
        ("/users/7/posts/a/b", 5),
        ("/users/7/posts/new", 6),
        ("/users/7/posts/new/", 5),
        ("/users/7/", 1),
        ("/users/7/likes", 1),
        ("/x/y/z", 7),
        ("/x/y/z/", 0),
        ("/x/y", 0),
        ("//users//7/", 1),
        ("/users/x/../7", 2),
        ("/%75sers/%6de", 3),
    ];
    for (path, route) in wanted {
        assert_eq!(get(&table, path), Some(route), "{path}");
    }
    assert_eq!(find(&table, "OPTIONS * HTTP/1.1\nHost: a", ""), Some(0));
}

#[test]
fn conditions() {
    let table = compile(&routes(&[
        "",
        "header = \"X-Env: staging\"",
        "header = [\"X-Env: staging\", \"X-Beta\"]",
        "query = \"debug=1\"",
        "client = [\"10.0.0.0/8\", \"fd00::/8\"]",
        "client = \"10.1.0.0/16\"",
        "method = \"DELETE\"",
        "header = \"User-Agent: curl/*\"; query = \"v=2*\"",
        "path = \"/none\"; header = \"!Authorization\"",
        "method = \"PUT\"; query = [\"a b\", \"!c\"]",
    ]))
    .table;
    let request = |line: &str, fields: &str| format!("{line} HTTP/1.1\nHost: a{fields}");
    let wanted = [
        (request("GET /", ""), "", 0),
        (request("GET /", "\nx-env: staging"), "", 1),
        (request("GET /", "\nX-Env: Staging"), "", 0),
        (request("GET /", "\nX-Env: production\nX-Env: staging"), "", 1),
        (request("GET /", "\nX-Env: staging\nX-Beta:"), "", 2),
        (request("GET /", "\nX-Beta: 1"), "", 0),
        (request("GET /?debug=1", ""), "", 3),
        (request("GET /?x&de%62ug=%31&y", ""), "", 3),
        (request("GET /?debug=10", ""), "", 0),
        (request("GET /?debug", ""), "", 0),
        (request("GET /?debug=1", "\nX-Env: staging"), "", 1),
        (request("GET /", ""), "10.2.3.4", 4),
        (request("GET /", ""), "::ffff:10.2.3.4", 4),
        (request("GET /", ""), "10.1.3.4", 5),
        (request("GET /", ""), "fd00::1", 4),
        (request("GET /", ""), "11.0.0.1", 0),
        (request("DELETE /?debug=1", "\nX-Env: staging"), "10.1.0.1", 6),
        (request("GET /?v=21", "\nUser-Agent: curl/8"), "", 7),
        (request("GET /?v=21", "\nUser-Agent: wget"), "", 0),
        (request("GET /none", ""), "", 8),
        (request("GET /none", "\nAuthorization: x"), "", 0),
        (request("PUT /?a+b=", ""), "", 9),
        (request("PUT /?a%20b&c", ""), "", 0),
    ];
    for (request, client, route) in wanted {
        assert_eq!(find(&table, &request, client), Some(route), "{request} from {client}");
    }
}

/// Against looking at every rule: random patterns of every kind with random conditions.
#[test]
fn the_table_finds_what_looking_at_all_finds() {
    let mut random = Random::new(5);
    for _ in 0..300 {
        let patterns: Vec<(Vec<String>, bool, u64)> = (0..1 + random.below(30))
            .map(|_| {
                let steps = (0..1 + random.below(4)).map(|at| match random.below(3) {
                    0 => format!("{{c{at}}}"),
                    _ => ["a", "b"][random.below(2) as usize].to_owned(),
                });
                (steps.collect(), random.below(2) == 0, random.below(4))
            })
            .collect();
        let rules = patterns.iter().enumerate().map(|(at, (steps, open, asks))| {
            let captures = steps.iter().any(|step| step.starts_with('{'));
            let rest = match (open, captures) {
                (true, true) => "/{rest...}",
                (true, false) => "/*",
                (false, _) => "",
            };
            let header =
                (0..2).filter(|bit| asks >> bit & 1 == 1).map(|bit| format!("\"X-{bit}\"")).collect::<Vec<_>>();
            format!("path = \"/{}{rest}\"; header = [{}]; name = \"{at}\"", steps.join("/"), header.join(", "))
        });
        let rules: Vec<String> = rules.collect();
        let table = compile(&routes(&rules.iter().map(String::as_str).collect::<Vec<_>>())).table;
        for _ in 0..100 {
            let path: Vec<&str> = (0..1 + random.below(5)).map(|_| ["a", "b", "c"][random.below(3) as usize]).collect();
            let has = random.below(4);
            let wanted = patterns.iter().enumerate().filter(|(_, (steps, open, asks))| {
                let long_enough = if *open { path.len() >= steps.len() } else { path.len() == steps.len() };
                long_enough
                    && asks & !has == 0
                    && steps.iter().zip(&path).all(|(step, part)| step.starts_with('{') || step == part)
            });
            let wanted = wanted.min_by_key(|(at, (steps, open, asks))| {
                let mut kinds: Vec<u8> = steps.iter().map(|step| u8::from(step.starts_with('{'))).collect();
                kinds.push(if *open { 2 } else { 0 });
                (kinds, 2 - asks.count_ones(), *at)
            });
            let fields: String = (0..2).filter(|bit| has >> bit & 1 == 1).map(|bit| format!("\nX-{bit}: y")).collect();
            let request = format!("GET /{} HTTP/1.1\nHost: a{fields}", path.join("/"));
            assert_eq!(find(&table, &request, ""), wanted.map(|(at, _)| at as u16), "{request}\n{}", rules.join("\n"));
        }
    }
}

#[test]
fn what_cannot_be_reached_is_told() {
    let never = |at: usize| format!("`r{at}` can never match");
    let table: [(&[&str], Vec<String>); 10] = [
        (&["", ""], vec![never(1)]),
        (&["header = \"X\"", ""], vec![]),
        (&["header = \"X\"", "header = \"X: a\""], vec![never(1)]),
        (&["header = \"X: a\"", "header = \"X\""], vec![]),
        (&["header = \"X: a\"", "header = \"x: a\""], vec![never(1)]),
        (&["path = \"/u/{a}\"", "path = \"/u/{b}\""], vec![never(1)]),
        (&["path = \"/u/*\"", "path = \"/u/{rest...}\""], vec![never(1)]),
        (&["client = \"10.0.0.0/8\"", "client = \"10.1.0.0/16\""], vec![]),
        (&["client = \"10.1.0.0/16\"", "client = [\"10.1.0.0/16\", \"10.2.0.0/16\"]"], vec![]),
        (&["method = [\"GET\", \"PUT\"]", "method = [\"PUT\", \"POST\"]"], vec!["`r1` is partly out of reach".into()]),
    ];
    for (lines, wanted) in table {
        let named: Vec<String> =
            lines.iter().enumerate().map(|(at, line)| format!("name = \"r{at}\"; {line}")).collect();
        let found = report(&routes(&named.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(found.matches("W101").count(), wanted.len(), "{lines:?}\n{found}");
        for line in wanted {
            assert!(found.contains(&line), "{lines:?}\n{found}");
        }
    }
}

/// A rule that is told to be out of reach is never found: whatever is asked.
#[test]
fn nothing_reachable_is_told_to_be_out_of_reach() {
    let mut random = Random::new(3);
    let choices = [
        "",
        "header = \"X\"",
        "header = \"X: a\"",
        "header = \"X: b\"",
        "header = [\"X: a\", \"Y\"]",
        "header = \"!X\"",
        "query = \"q\"",
        "query = \"q=1\"",
        "method = \"GET\"",
        "client = \"10.0.0.0/8\"",
        "client = \"10.1.0.0/16\"",
    ];
    for _ in 0..300 {
        let lines: Vec<String> = (0..4)
            .map(|at| format!("name = \"r{at}\"; {}", choices[random.below(choices.len() as u64) as usize]))
            .collect();
        let routes = routes(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let (told, table) = (report(&routes), compile(&routes).table);
        for fields in ["", "\nX: a", "\nX: b", "\nX: a\nY: 1"] {
            for (target, client) in [("/", ""), ("/?q", "10.1.0.1"), ("/?q=1", "10.2.0.1"), ("/", "10.1.0.1")] {
                for method in ["GET", "PUT"] {
                    let found = find(&table, &format!("{method} {target} HTTP/1.1\nHost: a{fields}"), client);
                    let hidden = found.is_some_and(|at| told.contains(&format!("`r{at}` can never match")));
                    assert!(!hidden, "{found:?}\n{}\n{told}", lines.join("\n"));
                }
            }
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let route = |lines: &str| format!("[[route]]\n{}\n", lines.replace("; ", "\n"));
    let table = [
        ("host = \"a\"", "E014: `pool` is missing in [[route]]"),
        ("pool = \"api\"; redirect = { to = \"/x\" }", "E022: a route with `pool` and `redirect`"),
        ("pool = \"api\"; split = [\"pages\"]", "E022: a route with `pool` and `split`"),
        ("redirect = { to = \"/x\" }; respond = { status = 200 }", "E022: a route with `redirect` and `respond`"),
        ("redirect = { to = \"/x\" }; rewrite = { path = \"/y\" }", "E022: `rewrite` has no effect"),
        ("respond = { status = 200 }; mirror = { pool = \"api\" }", "E022: `mirror` has no effect"),
        ("pool = \"api\"; grpc_web = true", "E022: gRPC needs HTTP/2, and the pool `api` speaks HTTP/1.1"),
        ("respond = { status = 204 }; grpc_web = true", "E022: `grpc_web` has no effect"),
        ("redirect = { status = 301 }", "E014: a redirect needs `to`"),
        ("redirect = { to = \"/x\", status = 200 }", "E015: 200 is no redirect"),
        ("redirect = { to = \"//evil.example\" }", "is neither a path nor an http URL"),
        ("path = \"/{id}\"; redirect = { to = \"https://{id}.example/\" }", "lets the request choose the host"),
        ("redirect = { to = \"/{id}\" }", "E020: there is no `{id}` in the path `/*`"),
        ("respond = { body = \"x\" }", "E014: an answer needs a `status`"),
        ("respond = { status = 100 }", "E015: 100 is no status"),
        ("respond = { status = 204, body = \"x\" }", "E022: an answer of this status has no content"),
        ("respond = { status = 200, body = \"x\", body_file = \"y\" }", "E022: an answer with two bodies"),
        ("respond = { status = 200, body_file = \"y\" }", "E015: `y` cannot be read"),
        ("respond = { status = 200, headers = \"Content-Length: 3\" }", "E022: `Content-Length` is not a route's"),
        ("pool = \"api\"; mirror = { pool = \"api\" }", "E022: a mirror of the pool"),
        ("pool = \"api\"; mirror = { pool = \"nowhere\" }", "E020: there is no pool `nowhere`"),
        ("pool = \"api\"; mirror = { share = \"5%\" }", "E014: a mirror needs a `pool`"),
        ("pool = \"api\"; sticky = \"cookie:a\"", "W103: `sticky` without a `split`"),
        ("split = [\"api\", \"api weight=2\"]", "E021: the pool `api` is there twice"),
        ("split = [\"api weight=0\"]", "E015: a split without any weight"),
        ("split = []", "E014: `pool` is missing in [[route]]"),
        ("split = [\"nowhere\"]", "E020: there is no pool `nowhere`"),
        ("pool = \"api\"; candidates = [\"pages\", \"canary\"]", "E022: a route with `pool` and `candidates`"),
        ("split = [\"api\"]; candidates = [\"pages\", \"canary\"]", "E022: a route with `split` and `candidates`"),
        ("candidates = [\"pages\", \"canary\"]; respond = { status = 200 }", "E022: a route with `candidates` and"),
        ("candidates = []", "E014: `pool` is missing in [[route]]"),
        ("candidates = [\"pages\"]", "W103: one candidate: there is nothing to choose (write pool = \"pages\")"),
        ("candidates = [\"pages\", \"pages cost=2\"]", "E021: the pool `pages` is there twice"),
        ("candidates = [\"pages\", \"nowhere\"]", "E020: there is no pool `nowhere`"),
        ("candidates = [\"pages\", \"canary\", \"api cost=0\"]", "has `cost=0` after the pool"),
        ("candidates = [\"pages\", \"api\"]; mirror = { pool = \"api\" }", "E022: a mirror of the pool"),
        ("candidates = [\"pages\", \"api\"]; sticky = \"cookie:a\"", "W103: `sticky` without a `split`"),
        ("candidates = [\"pages\", \"api\"]; adaptive = { explore = \"21%\" }", "E015: `explore` cannot be 21%"),
        (
            "candidates = [\"pages\", \"api\"]; adaptive = { margin = \"0%\", hold = \"0s\" }",
            "E022: neither a margin nor a time to hold",
        ),
        ("pool = \"api\"; adaptive = { hold = \"1s\" }", "W103: `adaptive` without `candidates`"),
        ("pool = \"api\"; path = \"/v1\"; rewrite = { path = \"/v2/*\" }", "E022: a `*` stands for nothing"),
        ("pool = \"api\"; path = [\"/{a}\", \"/{b}/x\"]; rewrite = { path = \"/{a}\" }", "E020: there is no `{a}`"),
        ("pool = \"api\"; request_headers = { set = \"Host: x\" }", "E022: `Host` is not a route's"),
        ("pool = \"api\"; request_headers = { remove = \"connection\" }", "E022: `connection` is not a route's"),
        (
            "pool = \"api\"; request_headers = { set = \"X-Forwarded-For: x\" }",
            "E022: `X-Forwarded-For` is not a route's",
        ),
        ("pool = \"api\"; response_headers = { add = \"Transfer-Encoding: x\" }", "E022: `Transfer-Encoding` is not"),
        ("pool = \"api\"; response_headers = { set = \"X: 1\", remove = \"x\" }", "E022: `X` is set and removed"),
        ("pool = \"api\"; path = \"/a//b\"", "`/a//b` is not in normal form"),
        ("pool = \"api\"; path = \"/%61\"", "`/%61` is not in normal form"),
        ("pool = \"api\"; path = \"/{a}/{a}\"", "has `{a}` twice"),
        ("pool = \"api\"; path = \"/{host}\"", "has the name `host`"),
        ("pool = \"api\"; path = \"/{a...}/b\"", "goes on after the rest"),
        ("pool = \"api\"; path = \"/x{a}\"", "has `x{a}` for a segment"),
        ("pool = \"api\"; timeout = { total = \"0s\" }", "E015: `total` cannot be zero"),
    ];
    for (lines, wanted) in table {
        let found = report(&route(lines));
        assert!(found.contains(wanted), "{lines}\n{found}");
        assert_eq!(found.lines().count(), 1, "one problem, said once\n{lines}\n{found}");
    }
}

#[test]
fn what_is_printed_is_what_was_read() {
    let text = around(
        r#"
[[route]]
path = ["/u/{id}/{rest...}", "/v/{id}/{rest...}"]
header = ["X-Env: staging", "!X-Beta"]
query = "v=2*"
client = "10.0.0.0/8"
split = ["pages weight=99", "canary"]
sticky = "cookie:session"
rewrite = { path = "/users/{id}/{rest}", host = "users.internal" }
request_headers = { set = ["X-Client: {client.ip}"], add = "X-Id: {id}", remove = "Cookie" }
response_headers = { set = "Cache-Control: no-store" }
mirror = { pool = "api", share = "5%" }
timeout = { total = "3s" }
raw_path = true

[[route]]
path = "/near/*"
candidates = ["pages", "canary cost=1.5"]
adaptive = { margin = "10%", hold = "2s", ramp = "0s", explore = "5%" }

[[route]]
path = "/old/*"
redirect = { to = "https://{host}/new{path}", status = 308, query = "drop" }

[[route]]
respond = { status = 503, headers = "Retry-After: 60", body = "later\n" }
"#,
    );
    let read = |text: &str| snapshot::read("", text).unwrap_or_else(|report| panic!("{}\n{text}", report.render()));
    let first = read(&text);
    for printed in [snapshot::print(&first.document), snapshot::complete(&first.document)] {
        let second = read(&printed);
        assert_eq!(first.document, second.document, "{printed}");
        assert_eq!(first.snapshot, second.snapshot, "{printed}");
    }
}

#[test]
fn files_are_read_through_the_caller() {
    let text = around("[[route]]\nrespond = { status = 404, body_file = \"gone.html\" }\n");
    let files =
        |name: &str| if name == "gone.html" { Ok(b"<p>gone</p>".to_vec()) } else { Err(std::io::Error::other("?")) };
    let compiled = snapshot::read_with("", &text, &files).unwrap();
    let snapshot::Action::Respond(fixed) = &compiled.snapshot.routes[0].action else { panic!() };
    assert_eq!((fixed.status.code(), &*fixed.body), (404, &b"<p>gone</p>"[..]));
    let long = |_: &str| Ok(vec![0; penstock::limits::FIXED_BODY_BYTES_MAX + 1]);
    assert!(snapshot::read_with("", &text, &long).is_err());
}

#[test]
fn explanations() {
    let snapshot = compile(
        r#"
[[route]]
path = "/u/{id}/{rest...}"
header = "X-Env: staging"
client = "10.0.0.0/8"
pool = "api"
rewrite = { path = "/users/{id}/{rest}" }
request_headers = { set = "X-Client: {client.ip}", remove = "Cookie" }
mirror = { pool = "canary", share = "5%" }

[[route]]
path = "/old/*"
redirect = { to = "https://{host}/new{path}", status = 308 }

[[route]]
path = "/near/*"
candidates = ["api cost=2", "pages", "canary cost=1.5"]
adaptive = { margin = "100%", explore = "0%" }

[[route]]
split = ["pages weight=99", "canary"]
"#,
    );
    let explain = |url: &str, headers: &[&str], client: &str| {
        let headers = headers.iter().map(|&header| header.to_owned()).collect();
        let question = Question { method: "GET".into(), url: url.into(), headers, client: client.parse().ok() };
        snapshot::explain(&snapshot, &question).unwrap().render()
    };
    let found = explain("a/%75/7/./x/y?q", &["X-Env: staging"], "10.1.2.3");
    for line in [
        "path       /u/7/x/y in normal form\n",
        "route      */u/{id}/{rest...}\n",
        "why        host *, path /u/{id}/{rest...}, any method, {id} is `7`, {rest} is `x/y`, header X-Env: staging, client in 10.0.0.0/8\n",
        "rewrite    path /users/7/x/y\n",
        "rewrite    x-client: 10.1.2.3\n",
        "rewrite    without cookie\n",
        "pool       api (adaptive)\n",
        "mirror     5% of the requests to canary\n",
    ] {
        assert!(found.contains(line), "{line}\n{found}");
    }
    let found = explain("a/u/7/x", &["X-Env: staging"], "");
    assert!(
        found.contains("routes for networks are passed over")
            && found.contains("split      pages | canary, by client\n"),
        "{found}"
    );
    assert!(explain("a/u/7/x", &[], "192.0.2.1").contains("by client: "), "{found}");
    let found = explain("a/near/x", &[], "");
    for line in [
        "candidates api  cost 2, no limit: the choice once it is 4.00 times faster than pages, or at once, for what is too much, when that is full\n",
        "           pages  cost 1, no limit: the choice while all fare alike\n",
        "           canary  cost 1.5, no limit: the choice once it is 3.00 times faster than pages,",
        "adaptive   better by 100% for 5s, full share after 10s, 0% to learn; left at once when nobody is ready\n",
        "pool       canary (adaptive)\n",
    ] {
        assert!(found.contains(line), "{line}\n{found}");
    }
    let found = explain("http://a/old/x?y=z", &[], "");
    assert!(found.contains("answer     308 Permanent Redirect, to https://a/new/old/x?y=z\n"), "{found}");
    assert!(explain("a/old/..%2fx", &[], "").contains("400: the path is ambiguous"));
}

/// What a careless origin makes of a path: everything decoded, backslashes turned, parameters cut, dots resolved.
fn careless(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        (bytes, rest) = match (byte, escape) {
            (b'%', Some(decoded)) => ([bytes, vec![decoded]].concat(), &after[2..]),
            _ => ([bytes, vec![byte]].concat(), after),
        };
    }
    let text = String::from_utf8_lossy(&bytes).replace('\\', "/").replace("\u{fffd}\u{fffd}", ".");
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            // Parameters of a segment with a name are its own.
            _ => segments.push(segment.to_owned()),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Whoever writes a path in whatever way: where the origin sees `/admin`, so have our routes, or it was refused.
#[test]
fn no_spelling_walks_past_a_route() {
    let table = compile(
        "[[route]]\npath = \"/admin/*\"\nrespond = { status = 403 }\n[[route]]\npool = \"api\"\n[[route]]\npath = \"/public/*\"\npool = \"pages\"\n",
    )
    .table;
    let check = |path: &str| {
        let mut forwarded = Vec::new();
        if normal::normalise(path.as_bytes(), &mut forwarded) {
            return;
        }
        let forwarded = String::from_utf8(forwarded).unwrap();
        let seen = careless(&forwarded);
        let route = get(&table, path);
        assert_eq!(
            seen == "/admin" || seen.starts_with("/admin/"),
            route == Some(0),
            "{path}: forwarded {forwarded}, seen {seen}"
        );
    };
    for path in [
        "/admin",
        "/admin/",
        "/%61dmin/x",
        "//admin/x",
        "/./admin",
        "/public/../admin/x",
        "/public/%2e%2e/admin",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public/%2e%2e;x=1/admin",
        "/public/.%2e//./admin",
        "/public%2f..%2fadmin",
        "/x/%c0%ae%c0%ae/admin",
        "/x/%c0%ae%c0%ae%c0%afadmin",
        "/admin%2fx",
        "/adm%69n%00",
        "/%2561dmin",
        "/public/../../../admin/../admin/.",
    ] {
        check(path);
    }
    let pieces = [
        "/", "/", "admin", "adm", "in", "%61dmin", "public", "..", ".", "%2e", "%2E.", "%2f", "%5c", "\\", ";",
        "%c0%ae", "%", "x",
    ];
    let mut random = Random::new(9);
    for _ in 0..200_000 {
        let path = (0..1 + random.below(8))
            .fold("/".to_owned(), |path, _| path + pieces[random.below(pieces.len() as u64) as usize]);
        check(&path);
    }
}

/// Rules that are made by hand, as the reference for the snapshot's own.
#[test]
fn a_table_of_thousands() {
    let rules = (0..5_000).map(|at| Rule {
        host: format!("h{}.example", at % 50).parse().unwrap(),
        path: format!("/p{at}/{{id}}/*").replace("/*", "").parse().unwrap(),
        method: None,
        conditions: None,
        to: Found { route: RouteId(at as u16), path: 0 },
    });
    let table = RouteTable::new(rules.collect());
    for at in (0..5_000).step_by(7) {
        let request = format!("GET /p{at}/x HTTP/1.1\nHost: h{}.example", at % 50);
        assert_eq!(find(&table, &request, ""), Some(at));
    }
}
