//! The command line, as far as it needs a running engine or tools of others; the rest is tested beside it.

use std::net::TcpStream;
use std::process::Command;

use harness::{
    Authority, Driver, Folder, Issued, Kind, Origin, Setup, Sharing, Tool, binary, free_address, on_each_driver, run,
};
use serde_json::Value;

fn penstock(args: &[&str]) -> harness::Ran {
    Tool::new(binary(), 30).args(args).run()
}

#[test]
fn check_finds_everything_at_once() {
    run(Sharing::Shared, || {
        let folder = Folder::new();
        let good = folder.write("good.toml", Setup::new(Driver::Epoll).to("127.0.0.1:9").toml(free_address()));
        assert_eq!(penstock(&["check", "-c", &good.display().to_string()]).code, Some(0));
        let bad = folder.write(
            "bad.toml",
            "[[lisen]]\nname = \"web\"\n[[listen]]\nname = \"a\"\naddr = \":80x\"\n\
             [[pool]]\nname = \"p\"\nendpoint = [\"a:1\"]\n[[route]]\npool = \"q\"\n",
        );
        let ran = penstock(&["check", "-c", &bad.display().to_string()]);
        assert_eq!(ran.code, Some(3), "{}", ran.err);
        for wanted in ["listen", "endpoints", ":80x", "bad.toml:1", "bad.toml:5"] {
            assert!(ran.err.contains(wanted), "{wanted} is not told:\n{}", ran.err);
        }
        let refused = penstock(&["run", "-c", &bad.display().to_string()]);
        assert_eq!(refused.code, Some(3), "{}", refused.err);
    });
}

/// RFC 9460: a record for each name and port, with what is spoken there and no more.
#[test]
fn check_tells_what_belongs_into_the_dns() {
    run(Sharing::Shared, || {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let both = authority.issue(&folder, "both", &["Example.com", "*.example.com"], Kind::Ecdsa);
        let other = authority.issue(&folder, "other", &["other.test", "127.0.0.1"], Kind::Ecdsa);
        let listener = |name: &str, addr: &str, tls: &str, more: &str| {
            format!("[[listen]]\nname = \"{name}\"\naddr = {addr}\n{tls}\n{more}\n")
        };
        let pair = |one: &Issued| format!("{{ cert = {:?}, key = {:?} }}", one.cert, one.key);
        let several = format!("tls = {{ certificates = [{}, {}] }}", pair(&both), pair(&other));
        let rest = "[[pool]]\nname = \"p\"\nendpoints = [\"127.0.0.1:9\"]\n[[route]]\npool = \"p\"\n";
        let toml = [
            listener("site", "[\":443\", \"127.0.0.1:443\", \"127.0.0.1:8443\"]", &several, ""),
            listener("plain", "\":80\"", "", ""),
            listener("shy", "\":4443\"", &both.line(), "http3.advertise = \"0s\""),
            listener("old", "\":4444\"", &other.line(), "http3.enabled = false\nhttp2.enabled = false"),
            listener("through", "\":4445\"", &other.line(), "protocol = \"tcp\"\npool = \"p\""),
            rest.to_owned(),
        ];
        let config = folder.write("c.toml", toml.concat()).display().to_string();
        let ran = penstock(&["check", "-c", &config]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let told = ran.text();
        let records: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        let wanted = [
            "*.example.com. IN HTTPS 1 . alpn=\"h3,h2\"",
            "_4443._https.example.com. IN HTTPS 1 . alpn=\"h2\"",
            "_8443._https.example.com. IN HTTPS 1 . alpn=\"h3,h2\"",
            "_8443._https.other.test. IN HTTPS 1 . alpn=\"h3,h2\"",
            "example.com. IN HTTPS 1 . alpn=\"h3,h2\"",
            "other.test. IN HTTPS 1 . alpn=\"h3,h2\"",
        ];
        assert_eq!(records, wanted, "{told}");
        let json = penstock(&["check", "-c", &config, "--format", "json"]);
        let value: Value = serde_json::from_slice(&json.out).expect("JSON");
        assert_eq!(value["dns"], serde_json::json!(wanted));
    });
}

#[test]
fn check_explains_a_url() {
    run(Sharing::Shared, || {
        let folder = Folder::new();
        let toml =
            Setup::new(Driver::Epoll).to("127.0.0.1:9").route_line("host = \"www.example\"").toml(free_address());
        let config = folder.write("c.toml", toml).display().to_string();
        let hit = penstock(&["check", "-c", &config, "--explain", "http://www.example/x"]);
        assert_eq!(hit.code, Some(0), "{}", hit.err);
        assert!(hit.text().contains("origins") && hit.text().contains("127.0.0.1:9"), "{}", hit.text());
        let miss = penstock(&["check", "-c", &config, "--explain", "http://other.example/x"]);
        assert!(miss.text().contains("404"), "{}\n{}", miss.text(), miss.err);
    });
}

#[test]
fn what_machines_read_is_well_formed() {
    run(Sharing::Shared, || {
        let schema = penstock(&["schema"]);
        let value: Value = serde_json::from_slice(&schema.out).expect("the schema is JSON");
        assert!(value["$schema"].as_str().is_some_and(|uri| uri.contains("json-schema.org")), "{value:.100}");
        for key in ["engine", "listen", "pool", "route"] {
            assert!(value["properties"].get(key).is_some(), "{key}");
        }
        let doctor = penstock(&["doctor", "--json"]);
        assert!(matches!(doctor.code, Some(0 | 4)), "{:?} {}", doctor.code, doctor.err);
        let value: Value = serde_json::from_slice(&doctor.out).expect("doctor's answer is JSON");
        assert!(value.to_string().contains("io_uring"), "{value}");
        let folder = Folder::new();
        let script = folder.write("completion", penstock(&["completion", "bash"]).out);
        Tool::new("bash", 10).args(["-n"]).args([script]).succeed();
        let man = penstock(&["man"]).text();
        assert!(man.contains(".TH") && man.contains("serve"), "{man:.200}");
    });
}

#[test]
fn demo_ends_by_itself() {
    run(Sharing::Shared, || {
        let ran = penstock(&["demo", "--for", "3s"]);
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.err);
        let said = ran.text() + &ran.err;
        assert!(said.contains("http://127.0.0.1:"), "no address to try: {said}");
        assert!(said.contains("p99"), "{said}");
    });
}

on_each_driver! {
    fn status_shows_a_running_engine(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        engine.client().get("/");
        let admin = engine.admin.to_string();
        let screen = penstock(&["status", "--admin", &admin]);
        assert_eq!(screen.code, Some(0), "{}", screen.err);
        assert!(screen.text().contains(driver.name()) && screen.text().contains("origins"), "{}", screen.text());
        let json = penstock(&["status", "--admin", &admin, "--json"]);
        let value: Value = serde_json::from_slice(&json.out).expect("JSON");
        assert_eq!(value["driver"], driver.name());
        assert_eq!(value["draining"], false);
        drop(engine);
        let gone = penstock(&["status", "--admin", &admin]);
        assert_eq!(gone.code, Some(1));
        assert!(gone.err.contains(&admin), "{}", gone.err);
    }

    fn the_admin_endpoint_is_strict(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        assert_eq!(engine.page("/nothing").status(), 404);
        let metrics = engine.page("/metrics");
        let kind = metrics.field("content-type").unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/plain"), "{kind}");
        for line in metrics.text().lines() {
            let comment = line.starts_with("# HELP ") || line.starts_with("# TYPE ");
            let sample = line.rsplit_once(' ').is_some_and(|(name, value)| {
                name.starts_with("penstock_") && value.parse::<f64>().is_ok()
            });
            assert!(comment || sample, "not Prometheus' text: {line}");
        }
        let mut client = harness::Client::connect(engine.admin);
        assert!(client.ask("DELETE /status HTTP/1.1\r\nHost: a\r\n\r\n").status() >= 400);
        let mut client = harness::Client::connect(engine.admin);
        assert!(client.ask("GET /status HTTP/1.1\nHost: a\n\n").status() >= 400);
        // An admin client that hangs does not hold up the engine.
        let _hangs: Vec<TcpStream> = (0..20).filter_map(|_| TcpStream::connect(engine.admin).ok()).collect();
        assert_eq!(engine.page("/status").status(), 200);
        assert_eq!(engine.client().get("/").status(), 200);
    }

    fn an_address_in_use_is_told(driver) {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        let folder = Folder::new();
        let toml = Setup::new(driver).to("127.0.0.1:9").at(address).toml(free_address());
        let config = folder.write("c.toml", toml).display().to_string();
        let ran = penstock(&["run", "-c", &config]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains(&address.to_string()), "which address is not said: {}", ran.err);
    }

    /// Several workers, several doors, one process.
    fn workers_share_the_doors(driver) {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let origin = Origin::standard();
        let second = free_address();
        let engine = Setup::new(driver)
            .cores(&if cpus > 1 { format!("0-{}", cpus - 1) } else { "0".to_owned() })
            .origin(&origin)
            .more(&format!("[[listen]]\nname = \"second\"\naddr = \"{second}\""))
            .start();
        for number in 0..60 {
            let address = if number % 2 == 0 { engine.address } else { second };
            assert_eq!(harness::Client::connect(address).get("/").text(), "hello\n");
        }
        let status = engine.status();
        let cores = status["cores"].as_array().cloned().unwrap_or_default();
        assert_eq!(cores.len(), cpus);
        for core in &cores {
            assert!(core["requests"].as_u64().is_some_and(|requests| requests > 0), "an idle worker: {status}");
        }
        engine.until_idle();
    }
}

/// A second start on the same Unix socket takes it over, or says why not; a socket left behind by a crash is no obstacle.
#[test]
fn a_socket_left_behind_is_no_obstacle() {
    run(Sharing::Shared, || {
        let folder = Folder::new();
        let path = folder.join("door");
        let toml = format!("[[listen]]\nname = \"local\"\naddr = \"unix:{}\"", path.display());
        for _ in 0..2 {
            let origin = Origin::standard();
            let engine = Setup::new(Driver::Epoll).origin(&origin).more(&toml).start();
            assert_eq!(harness::Wire::connect_unix(&path).get("/").status(), 200);
            engine.kill();
        }
        assert!(path.exists(), "SIGKILL leaves it behind");
    });
}

/// Ctrl-C is as good as SIGTERM.
#[test]
fn interrupt_ends_it_too() {
    run(Sharing::Shared, || {
        let origin = Origin::standard();
        let mut engine = Setup::new(Driver::Epoll).origin(&origin).start();
        let sent = Command::new("kill").args(["-INT", &engine.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
        assert_eq!(engine.wait(harness::PATIENCE).code(), Some(0));
    });
}
