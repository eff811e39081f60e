//! Keys that leave each other nothing to do, or cannot hold together: each is said once, with its place and what to do.

use penstock::snapshot;

fn said(text: &str) -> String {
    match snapshot::read("edge.toml", text) {
        Ok(compiled) => compiled.report.render(),
        Err(report) => report.render(),
    }
}

/// A listener and a pool of addresses with these lines, and what follows.
fn pool(lines: &str, more: &str) -> String {
    format!(
        "[[listen]]\nname = \"web\"\naddr = \":8080\"\n[[pool]]\nname = \"api\"\n\
         endpoints = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n{lines}\n{more}\n"
    )
}

/// That one problem is said, of this kind, at this line, and in these words.
fn assert_says(text: &str, kind: &str, line: u32, words: &str) {
    let found = said(text);
    assert!(found.starts_with(kind) && found.contains(words), "{words}\n---\n{text}\n---\n{found}");
    assert_eq!(found.matches("-->").count(), 1, "one problem, said once\n---\n{text}\n---\n{found}");
    assert!(found.contains(&format!("--> edge.toml:{line}:")), "at line {line}\n---\n{found}");
}

const WARNING: &str = "warning[W103]";
const ERROR: &str = "error[E022]";

#[test]
fn of_a_pool() {
    for (lines, kind, words) in [
        ("health = { http = \"/\", every = \"1s\", timeout = \"3s\" }", WARNING, "every 3s and not every 1s"),
        ("health = { tcp = true, every = \"1s\", every_in_doubt = \"2s\" }", ERROR, "asked less often"),
        ("protocol = \"h2\"\nreuse.warm = 2", WARNING, "one of them is made ready"),
        ("protocol = \"h2\"\nreuse.max_idle = 2", WARNING, "here requests share them"),
        ("proxy_protocol = \"v2\"\nreuse.idle = \"5s\"", WARNING, "those with a PROXY header are not"),
        ("reuse = { max_idle = 0,\nmax_requests = 9 }", WARNING, "`max_idle` keeps none"),
        ("reuse = { idle = \"2m\", max_age = \"1m\" }", WARNING, "`max_age`, which closes connections first"),
        ("concurrency = 5\nlimits.requests = 6", WARNING, "the pool works on 5 at one time"),
        ("limits = { requests = 6, connections = 5 }", WARNING, "each takes one of 5 connections"),
        ("concurrency = 5\nqueue = { len = 0, for = \"1s\" }", WARNING, "`len` lets nobody wait"),
        ("retry = { on = [], tries = 2 }", WARNING, "no cause to try again"),
        ("retry = { on = [\"connect\"], retry_after_max = \"2s\" }", WARNING, "`on` has no status"),
        (
            "retry = { on = [\"reset\"], tries = 2, backoff = \"5ms\" }",
            WARNING,
            "a first retry for these causes makes none",
        ),
        ("hedge = { after = \"95%\", at_least = \"60s\" }", WARNING, "no shorter than `timeout.head`"),
        ("outlier.on = [\"latency\"]", WARNING, "2 endpoints are not compared with each other"),
        ("resolve_every = \"5s\"", WARNING, "all endpoints are addresses"),
    ] {
        let line = 6 + lines.lines().count() as u32;
        assert_says(&pool(lines, ""), kind, line, words);
    }
    for lines in [
        "health = { http = \"/\", every = \"1s\" }",
        "health = { http = \"/\", every = \"3s\", timeout = \"3s\", every_in_doubt = \"3s\" }",
        "protocol = \"h2\"\nreuse = { idle = \"5s\", max_requests = 9, max_age = \"1m\" }\nlimits = { requests = 9, connections = 2 }",
        "reuse = { idle = \"1m\", max_age = \"2m\", warm = 2 }",
        "concurrency = 6\nlimits = { requests = 6, connections = 6 }\nqueue.len = 0",
        "retry = { on = [\"connect\", \"503\"], tries = 2, backoff = \"5ms\", retry_after_max = \"2s\" }",
        "hedge = { after = \"95%\", at_least = \"1s\" }\nqueue.for = \"1s\"\nconcurrency = \"auto\"",
        "outlier = { on = [\"latency\"], endpoints_min = 2 }",
    ] {
        assert_eq!(said(&pool(lines, "")), "", "{lines}");
    }
    let alone = pool("hedge.after = \"95%\"", "").replace(", \"10.0.0.2:80\"", "");
    assert_says(&alone, WARNING, 7, "a copy goes to another endpoint, and there is one");
    let named = pool("resolve_every = \"5s\"\noutlier.on = [\"latency\"]\nhedge.after = \"95%\"", "")
        .replace("\"10.0.0.1:80\", \"10.0.0.2:80\"", "\"app.internal:80\"");
    assert_eq!(said(&named), "", "a name may have any number of addresses");
}

#[test]
fn of_times_and_the_total_of_a_route() {
    for key in ["connect", "head", "idle"] {
        let route = format!("[[route]]\npool = \"api\"\ntimeout = {{ total = \"5s\", {key} = \"6s\" }}");
        assert_says(&pool("", &route), WARNING, 10, &format!("`{key}` is no shorter than `total`"));
    }
    let total = "[[route]]\npool = \"api\"\ntimeout.total = \"2s\"\n";
    let longer = "[[route]]\nhost = \"slow.test\"\npool = \"api\"\ntimeout.total = \"1m\"\n";
    let without = "[[route]]\nhost = \"slow.test\"\npool = \"api\"\n";
    let stands_in = "[[pool]]\nname = \"b\"\nendpoints = [\"10.0.0.3:80\"]\nfallback.pool = \"api\"\n\
                     [[route]]\nhost = \"b.test\"\npool = \"b\"\n";
    for lines in [
        "timeout.connect = \"3s\"",
        "timeout.head = \"3s\"",
        "timeout.idle = \"3s\"",
        "retry.per_try = \"3s\"",
        "retry = { backoff_max = \"9s\", backoff = \"3s\" }",
        "retry.retry_after_max = \"3s\"",
        "hedge.after = \"3s\"",
        "hedge = { after = \"90%\", at_least = \"3s\" }",
        "concurrency = 5\nqueue.for = \"3s\"",
        "breaker.wait = \"3s\"",
    ] {
        let line = 6 + lines.lines().count() as u32;
        assert_says(&pool(lines, total), WARNING, line, "every route that leads here ends its exchanges within 2s");
        for other in [longer, without, stands_in] {
            assert_eq!(said(&pool(lines, &[total, other].concat())), "", "{lines}\n{other}");
        }
    }
}

#[test]
fn of_a_route() {
    for (lines, words) in [
        ("websocket = { idle = \"10s\", ping = \"20s\" }", "no Ping is ever sent"),
        ("websocket = { message_max = \"1KiB\", frame_max = \"2KiB\" }", "no frame is as long"),
        ("bandwidth = \"1MB/s\"\nper_client.bandwidth = \"2MB/s\"", "no client is ever as fast"),
        ("rate = \"10/s\"\nper_client.rate = \"600/m\"", "no client is ever as fast"),
    ] {
        let route = format!("[[route]]\npool = \"api\"\n{lines}");
        assert_says(&pool("", &route), WARNING, 9 + lines.lines().count() as u32, words);
    }
    let mirror = "[[pool]]\nname = \"b\"\nendpoints = [\"10.0.0.3:80\"]\n\
                  [[route]]\npool = \"api\"\nmirror = { pool = \"b\", share = \"0%\" }";
    assert_says(&pool("", mirror), WARNING, 13, "no request is ever copied");
    let fine = "[[route]]\npool = \"api\"\nwebsocket = { idle = \"20s\", ping = \"10s\", message_max = \"2KiB\", frame_max = \"1KiB\" }\n\
                bandwidth = \"1MB/s\"\nrate = \"10/s\"\nper_client = { bandwidth = \"500kB/s\", rate = \"599/m\" }";
    assert_eq!(said(&pool("", fine)), "");
}

#[test]
fn of_a_listener() {
    let listener = |lines: &str| {
        format!(
            "[[pool]]\nname = \"raw\"\nendpoints = [\"10.0.0.1:80\"]\n[[listen]]\nname = \"door\"\naddr = \":53\"\n{lines}\n"
        )
    };
    let (tcp, udp) = ("protocol = \"tcp\"\npool = \"raw\"\n", "protocol = \"udp\"\npool = \"raw\"\n");
    for (protocol, line, words) in [
        (tcp, "http2.streams = 200", "it speaks no HTTP"),
        (udp, "http3.enabled = false", "it speaks no HTTP"),
        ("", "http2 = { enabled = false, streams = 200 }", "`enabled` is false"),
        ("", "http3 = { enabled = false, streams = 200 }", "`enabled` is false"),
        ("", "http3.congestion = \"bbr\"", "not spoken without TLS"),
        (tcp, "timeout.keep_alive = \"5s\"", "`keep_alive` has no effect on a tcp listener"),
        (udp, "timeout.body = \"5s\"", "`body` has no effect on a udp listener"),
        (tcp, "timeout.head = \"5s\"", "nothing is read of what passes"),
        (udp, "backlog = 100", "datagrams wait in the socket's buffer"),
    ] {
        let at = 7 + protocol.lines().count() as u32;
        assert_says(&listener(&format!("{protocol}{line}")), WARNING, at, words);
    }
    for fine in [
        "http2.streams = 200\ntimeout = { head = \"5s\", keep_alive = \"5s\", body = \"5s\" }\nbacklog = 100",
        &format!("{tcp}timeout.head = \"5s\"\nproxy_protocol.from = \"10.0.0.0/8\"\nbacklog = 100"),
        &format!("{udp}class = \"bulk\"\n[classes.bulk]\nbandwidth = \"1MB/s\""),
    ] {
        assert_eq!(said(&listener(fine)), "", "{fine}");
    }
}

#[test]
fn of_classes() {
    let limited = |classes: &str| pool("concurrency = 5", classes);
    for (text, kind, line, words) in [
        (limited("[classes.a]\nstrict = true\n[classes.b]\nstrict = true"), ERROR, 11, "`a` is strict already"),
        (limited("[classes.a]\nstrict = true\nweight = 5"), WARNING, 10, "goes before all others, whatever it weighs"),
        (limited("[classes.default]\nstrict = true"), WARNING, 9, "no other class to go before"),
        (pool("", "[classes.a]\nstrict = true"), WARNING, 9, "no pool has a limit"),
        (
            limited("[classes.a]\nbandwidth = \"1MB/s\"\nper_client.bandwidth = \"1MB/s\""),
            WARNING,
            10,
            "all together have no more `bandwidth` than that",
        ),
    ] {
        assert_says(&text, kind, line, words);
    }
    for fine in [
        limited("[classes.a]\nstrict = true\nqueue = \"5s\"\nrate = \"100/s\"\n[classes.b]\nweight = 5"),
        limited("[classes.default]\nstrict = true\n[classes.bulk]"),
        pool("", "[classes.a]\nstrict = true").replace("\"10.0.0.1:80\"", "\"file:/etc/more\""),
    ] {
        assert_eq!(said(&fine), "", "{fine}");
    }
}

/// Who would stand in for itself is told so, and not that there is nobody.
#[test]
fn of_fallbacks_in_a_circle() {
    assert_says(&pool("fallback.pool = \"api\"", ""), ERROR, 7, "a circle: `api` → `api`");
    let two =
        pool("fallback.pool = \"b\"", "[[pool]]\nname = \"b\"\nendpoints = [\"10.0.0.3:80\"]\nfallback.pool = \"api\"");
    let found = said(&two);
    assert!(found.contains("a circle: `api` → `b` → `api`") && !found.contains("there is no pool"), "{found}");
}
