//! gRPC: grpcio on both sides, and the engine between them.

use harness::{
    Authority, Folder, GrpcServer, Kind, PATIENCE, Setup, Tool, binary, free_address, on_each_driver, python, script,
    until,
};

/// Every kind of call.
const CALLS: [&str; 8] = ["unary", "large", "statuses", "deadline", "from_server", "from_client", "both", "cancelled"];

on_each_driver! {
    /// Without TLS on either side; 1,000 calls at a time share one connection a worker.
    fn every_kind_of_call(driver) {
        let server = GrpcServer::new();
        let engine = Setup::new(driver).to(&server.address.to_string()).pool_line("protocol = \"h2\"").start();
        calls(&engine.address.to_string(), &CALLS).succeed();
        let before = engine.metrics();
        calls(&engine.address.to_string(), &["many"]).succeed();
        let after = engine.metrics();
        assert_eq!(after.since(&before, "requests_total"), 1_000);
        // The server takes 100 at a time unless it says otherwise, which grpcio does not.
        assert!(after.sum("upstream_connects_total") <= 20, "{}", after.sum("upstream_connects_total"));
        engine.until_idle();
    }

    /// One client's calls over one connection find both servers: it is calls that are balanced.
    fn calls_of_a_connection_are_balanced(driver) {
        let servers = [GrpcServer::new(), GrpcServer::new()];
        let setup = Setup::new(driver).pool_line("protocol = \"h2\"\nbalance = \"round-robin\"");
        let engine = servers.iter().fold(setup, |setup, server| setup.to(&server.address.to_string())).start();
        calls(&engine.address.to_string(), &["many"]).succeed();
        assert_eq!(engine.metrics().sum("h2_connections_total"), 1);
        for server in &servers {
            let asked = engine.endpoint(&server.address.to_string())["requests"].as_u64().expect("a number");
            assert!((450..=550).contains(&asked), "{asked} of 1,000 calls");
        }
    }

    fn over_tls(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let server = GrpcServer::new();
        let setup = Setup::new(driver).to(&server.address.to_string()).pool_line("protocol = \"h2\"");
        let engine = setup.listen_line(&issued.line()).start();
        let address = format!("https://localhost:{}", engine.address.port());
        let ca = authority.file.display().to_string();
        let words: Vec<&str> = std::iter::once(ca.as_str()).chain(CALLS).collect();
        calls(&address, &words).succeed();
    }

    /// What we answer ourselves is a status of gRPC; HTTP/1.1 endpoints speak none of it.
    fn refusals_are_statuses(driver) {
        let nobody = free_address();
        let engine = Setup::new(driver).to(&nobody.to_string()).pool_line("protocol = \"h2\"").start();
        let ran = calls(&engine.address.to_string(), &["refused"]).succeed();
        assert_eq!(ran.text().trim(), "UNAVAILABLE | 502: no endpoint accepts a connection");
        let mut client = engine.client();
        client.send("POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n");
        let answer = client.response(false).expect("an answer");
        assert_eq!((answer.status(), answer.field("grpc-status"), answer.field("content-type")), (200, Some("14"), Some("application/grpc")));
    }

    /// The caller's own time counts, whatever the endpoint does; and a call that says UNAVAILABLE is made again, where 503 would be.
    fn deadlines_and_repetition(driver) {
        let server = GrpcServer::new();
        let lines = "protocol = \"h2\"\nretry.non_idempotent = true";
        let engine = Setup::new(driver).to(&server.address.to_string()).pool_line(lines).start();
        let mut client = engine.client();
        client.send(
            "POST /test.Calls/Slow HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: application/grpc\r\ngrpc-timeout: 300m\r\n\
             Content-Length: 5\r\n\r\n\0\0\0\0\0",
        );
        let answer = client.response(false).expect("an answer");
        assert_eq!((answer.status(), answer.field("grpc-status")), (200, Some("4")), "{}", answer.start);
        let before = engine.metrics();
        calls(&engine.address.to_string(), &["again"]).succeed();
        assert_eq!(engine.metrics().since(&before, "retries_total"), 1);
        // A call is a POST, and no POST is sent again unless the operator says so.
        let strict = Setup::new(driver).to(&server.address.to_string()).pool_line("protocol = \"h2\"").start();
        calls(&strict.address.to_string(), &["statuses"]).succeed();
        assert_eq!(strict.metrics().sum("retries_total"), 0);
    }

    /// By method and status; who makes methods up is told under `other`, and so is who meets nobody.
    fn calls_are_counted_by_method(driver) {
        let server = GrpcServer::new();
        let setup = || Setup::new(driver).pool_line("protocol = \"h2\"");
        let engine = setup().to(&server.address.to_string()).start();
        let counted = |method: &str, code: &str| {
            let name = format!("penstock_grpc_calls_total{{method=\"{method}\",code=\"{code}\"}} ");
            let page = engine.page("/metrics").text();
            page.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a count"))
        };
        calls(&engine.address.to_string(), &["unary", "large", "statuses", "from_server"]).succeed();
        until("all have been counted", PATIENCE, || counted("test.Calls/Counting", "OK") == 1);
        assert_eq!(counted("test.Calls/Unary", "OK"), 2);
        for code in ["CANCELLED", "NOT_FOUND", "UNIMPLEMENTED", "UNAVAILABLE", "UNAUTHENTICATED"] {
            assert_eq!(counted("test.Calls/Fail", code), 1, "{code}");
        }
        // Whatever nobody has.
        assert_eq!(counted("other", "UNIMPLEMENTED"), 1);
        let mut client = engine.client();
        for number in 0..100 {
            let request = format!("POST /made.Up/N{number} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0");
            assert_eq!(client.ask(request).field("grpc-status"), Some("12"));
        }
        until("they are counted", PATIENCE, || counted("other", "UNIMPLEMENTED") == 101);
        assert_eq!(engine.metrics().sum("grpc_call_seconds_count{method=\"other\"}"), 101);
        let shown = engine.page("/show/grpc").text();
        assert!(shown.contains("test.Calls/Fail") && !shown.contains("made.Up"), "{shown}");
        for what in ["grpc", "websockets"] {
            let ran = Tool::new(binary(), 20).args(["show", what, "--admin", &engine.admin.to_string()]).succeed();
            let wanted = if what == "grpc" { "test.Calls/Unary" } else { "nothing" };
            assert!(ran.text().contains(wanted), "{}", ran.text());
        }
        let nobody = setup().to(&free_address().to_string()).start();
        calls(&nobody.address.to_string(), &["refused"]).succeed();
        let name = "grpc_calls_total{method=\"other\",code=\"UNAVAILABLE\"}";
        until("it is counted", PATIENCE, || nobody.page("/metrics").text().contains(name));
    }
}

fn calls(address: &str, words: &[&str]) -> Tool {
    Tool::new(python(), 50).args([script("grpc_client.py").display().to_string(), address.to_owned()]).args(words)
}
