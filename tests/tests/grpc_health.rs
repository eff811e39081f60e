//! Probes that ask as gRPC's health checking has it: grpcio's own health service, and servers that say anything but what they should.

use harness::h2::{data, headers, kind, settings};
use harness::{
    Authority, Engine, Folder, GrpcServer, Kind, Origin, PATIENCE, Peer, Setup, Tool, on_each_driver, python, script,
    until,
};

const FAST: &str = "every = \"100ms\", rise = 1, fall = 1";

on_each_driver! {
    /// A server as a whole, and one service of it; what is told is what the server says.
    fn serving_is_good_and_nothing_else(driver) {
        let server = GrpcServer::with_health(None);
        let engine = probing(driver, &server, "protocol = \"h2\"", "grpc = \"a.B\"");
        let told = |expected: &str| {
            until(expected, PATIENCE, || engine.endpoints()[0]["probe"].as_str().is_some_and(|told| told.contains(expected)));
        };
        told("NOT_FOUND: it does not know the service \"a.B\"");
        assert_eq!(engine.endpoints()[0]["health"], "down");
        becomes(&server, "a.B=SERVING");
        told("SERVING in ");
        until("it is up", PATIENCE, || engine.endpoints()[0]["health"] == "up");
        for status in ["NOT_SERVING", "UNKNOWN", "SERVICE_UNKNOWN"] {
            becomes(&server, &format!("a.B={status}"));
            told(status);
            until("it is down", PATIENCE, || engine.endpoints()[0]["health"] == "down");
        }
        becomes(&server, "a.B=SERVING");
        until("it is up again", PATIENCE, || engine.endpoints()[0]["health"] == "up");
        // Another pool may ask for the whole server, and what it speaks otherwise does not matter.
        let whole = probing(driver, &server, "", "grpc = \"\"");
        until("the server is up", PATIENCE, || whole.endpoints()[0]["health"] == "up");
    }

    fn over_tls(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let server = GrpcServer::with_health(Some(&issued));
        let lines = format!("protocol = \"h2\"\ntls.ca = {:?}", authority.file);
        let engine = probing(driver, &server, &lines, "grpc = \"\"");
        until("it is up", PATIENCE, || engine.endpoints()[0]["health"] == "up");
    }

    fn who_has_no_health_service_is_not_well(driver) {
        let server = GrpcServer::new();
        let engine = probing(driver, &server, "protocol = \"h2\"", "grpc = \"\"");
        until("it is down", PATIENCE, || {
            engine.endpoints()[0]["probe"] == "UNIMPLEMENTED: it has no /grpc.health.v1.Health/Check"
        });
    }

    /// Each wrong answer is told in words, and none is taken for a good one.
    fn each_wrong_answer_is_told(driver) {
        const OK: [(&str, &str); 1] = [("grpc-status", "0")];
        const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
        let answers: [(Vec<u8>, &str); 11] = [
            (message(&HEAD, b"\0\0\0\0\x02\x08\x01", &OK), "SERVING in "),
            (message(&HEAD, b"\0\0\0\0\x02\x08", &OK), "not one plain message"),
            (message(&HEAD, b"\x01\0\0\0\x02\x08\x01", &OK), "not one plain message"),
            (message(&HEAD, b"\0\0\0\0\x02\x08\x01\0\0\0\0\0", &OK), "not one plain message"),
            (message(&HEAD, b"", &OK), "not one plain message"),
            (message(&HEAD, b"\0\0\0\0\x01\x08", &OK), "no HealthCheckResponse"),
            (message(&HEAD, b"\0\0\0\0\x02\x08\x09", &OK), "the status 9, which nobody knows"),
            (message(&HEAD, b"\0\0\0\0\x02\x08\x01", &[("grpc-status", "13"), ("grpc-message", "lost")]), "INTERNAL: \"lost\""),
            (message(&HEAD, b"\0\0\0\0\x02\x08\x01", &[("x-last", "word")]), "no grpc-status"),
            (headers(1, &[(":status", "200"), ("content-type", "text/html")], true), "200 with content-type \"text/html\", which is no gRPC"),
            (headers(1, &[(":status", "404")], true), "404 with content-type nothing, which is no gRPC"),
        ];
        let told = answers.each_ref().map(|(_, told)| *told);
        let origins = answers.map(|(answer, _)| Origin::start(move |peer| say(peer, &answer)));
        let http1 = Origin::standard();
        let engine = origins
            .iter()
            .chain([&http1])
            .fold(Setup::new(driver), |setup, origin| setup.origin(origin))
            .pool_line("protocol = \"h2\"")
            .pool_line(&format!("health = {{ grpc = \"\", {FAST}, timeout = \"5s\" }}"))
            .start();
        for (origin, told) in origins.iter().zip(told) {
            let mut last = serde_json::Value::Null;
            until(told, PATIENCE, || {
                last = engine.endpoint(&origin.address.to_string());
                last["probe"].as_str().is_some_and(|probe| probe.contains(told))
            });
            let wanted = if told.starts_with("SERVING") { "up" } else { "down" };
            until(told, PATIENCE, || engine.endpoint(&origin.address.to_string())["health"] == wanted);
        }
        until("who speaks HTTP/1.1", PATIENCE, || engine.endpoint(&http1.address.to_string())["health"] == "down");
        assert_eq!(engine.metrics().sum("panics_total"), 0);
    }
}

fn message(head: &[(&str, &str)], content: &[u8], trailers: &[(&str, &str)]) -> Vec<u8> {
    [headers(1, head, false), data(1, content, false), headers(1, trailers, true)].concat()
}

/// Answers the first request of a connection.
fn say(peer: &mut Peer, answer: &[u8]) {
    peer.send(settings(&[]));
    if peer.wire.take(24).is_err() {
        return;
    }
    while let Ok(head) = peer.wire.take(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        if peer.wire.take(length as usize).is_err() {
            return;
        }
        if head[3] == kind::HEADERS {
            peer.send(answer);
            let _ = peer.wait_for_end();
            return;
        }
    }
}

fn probing(driver: harness::Driver, server: &GrpcServer, lines: &str, ask: &str) -> Engine {
    let health = format!("health = {{ {ask}, {FAST}, timeout = \"2s\" }}");
    Setup::new(driver).to(&server.address.to_string()).pool_line(lines).pool_line(&health).start()
}

fn becomes(server: &GrpcServer, told: &str) {
    let call = format!("becomes:{told}");
    Tool::new(python(), 50)
        .args([script("grpc_client.py").display().to_string(), server.address.to_string(), call])
        .succeed();
}
