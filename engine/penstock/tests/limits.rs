//! Classes, limits and queues in a configuration: what is refused and how, and what is understood.

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

/// A file around the part that a case is about.
fn around(part: &str) -> String {
    format!("[[listen]]\nname = \"web\"\naddr = \":80\"\n[[pool]]\nname = \"api\"\nendpoints = [\"a:1\"]\n{part}")
}

#[test]
fn one_problem_at_a_time() {
    let route = |lines: &str| format!("[[route]]\npool = \"api\"\n{lines}");
    let door = |lines: &str| format!("[[listen]]\nname = \"d\"\naddr = \":81\"\n{lines}");
    let table = [
        ("[classes.bulk]\nweight = 0".into(), "`weight` cannot be 0", "from 1 to 1000"),
        ("[classes.bulk]\nwait = 0".into(), "unknown key `wait` in [classes.bulk]", "did you mean `weight`?"),
        ("[classes.\"a b\"]".into(), "the class `a b` has more than letters", "metrics"),
        (route("class = \"blk\"\n[classes.bulk]"), "there is no class `blk`", "did you mean `bulk`?"),
        (route("class = \"bulk\""), "there is no class `bulk`", "write [classes.bulk]"),
        (route("limit = { key = \"route\" }"), "`rate` is missing in limit", "Requests granted"),
        (route("limit = { rate = \"1/s\", key = \"ip\" }"), "`ip` is nothing to count by", "client-address"),
        (route("limit = [{ rate = \"1/s\", status = 200 }]"), "`status` cannot be 200", "write 429"),
        (route("limit = { rate = \"1/s\", burst = 0 }"), "`burst` cannot be 0", "from 1"),
        (route("bandwidth = \"10\""), "`bandwidth`: `10` has the unknown unit", "`10MB/s`"),
        ("concurrency = 0".into(), "`concurrency` cannot be 0", "from 1"),
        ("concurrency = \"many\"".into(), "`concurrency`: `many` is no number of requests", "`auto`"),
        ("queue = { len = 5 }".into(), "nobody waits for a pool without a limit", "concurrency = \"auto\""),
        (
            "limits = { requests = 1 }\nqueue = { for = \"1s\", target = \"2s\" }".into(),
            "nobody waits for as long as that",
            "less than `for`",
        ),
        ("timeout.head = \"5s\"\nretry.per_try = \"5s\"".into(), "`per_try` is no shorter than", "`timeout.head`"),
        ("timeout.head = \"5s\"\nhedge.after = \"6s\"".into(), "`after` is no shorter than", "`timeout.head`"),
        ("breaker = { failures = 0, trials = 1 }".into(), "`trials` of a breaker that never opens", "failures = 5"),
        ("limits = { requests = 1 }\nqueue = { for = \"0s\" }".into(), "`for` cannot be zero", "leave it out"),
        (door("max_connections_per_client = 0"), "`max_connections_per_client` cannot be 0", "from 1"),
        (
            door(
                "protocol = \"tcp\"\npool = \"raw\"\nclass = \"bluk\"\n[[pool]]\nname = \"raw\"\nendpoints = [\"b:1\"]\n[classes.bulk]",
            ),
            "there is no class `bluk`",
            "did you mean `bulk`?",
        ),
        (door("class = \"bulk\"\n[classes.bulk]"), "have the class of their route", "write it there"),
        (door("class_header = \"X-Class\""), "nobody's class would be believed", "trusted = "),
        (
            "[[route]]\nredirect = { to = \"/x\" }\nrate = \"1/s\"\n[[route]]\npath = \"/y\"\npool = \"api\"".into(),
            "`rate` has no effect: a route with `redirect` asks no endpoint",
            "leave it out",
        ),
    ];
    for (part, message, advice) in table {
        let part: String = part;
        let found = report(&around(&part));
        assert!(found.contains(message) && found.contains(advice), "{part}\n---\n{found}");
        let problems = found.matches("-->").count();
        assert_eq!(problems, 1, "one problem, said once\n{part}\n---\n{found}");
    }
}

#[test]
fn what_is_written_is_understood() {
    let snapshot = compile(&around(
        "concurrency = \"auto\"\nqueue = { len = 7, for = \"1s\" }\n\
         [[route]]\npool = \"api\"\nclass = \"bulk\"\nlimit = { rate = \"30/m\", key = \"cookie:Sid\" }\nper_client = { rate = \"5/s\" }\n\
         [classes.bulk]\nqueue = \"50ms\"\nbandwidth = \"8Mbit/s\"\n[classes.an]\nweight = 3\nclients = \"10.0.0.0/8\"",
    ));
    let names: Vec<_> = snapshot.classes.iter().map(|class| (&*class.name, class.weight)).collect();
    assert_eq!(names, [("default", 1), ("an", 3), ("bulk", 1)]);
    let route = &snapshot[RouteId(0)];
    let bulk = &snapshot[route.qos.class.expect("a class")];
    assert_eq!((bulk.pace.all.bandwidth, bulk.wait), (Some(1_000_000), Some(std::time::Duration::from_millis(50))));
    let limit = &route.qos.limits[0];
    assert_eq!((limit.rate.quota, limit.rate.burst, limit.status, &*limit.name), (30, 1, 429, "cookie:Sid"));
    assert!(route.qos.pace.per_client.rate.is_some() && route.qos.pace.all.rate.is_none());
    assert_eq!(snapshot[PoolId(0)].admission.queue.length_max, 7);
}
