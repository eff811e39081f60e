//! The access log: a line an exchange, which any reader can parse, and which no client can write into.

use std::collections::HashMap;
use std::io::Read;
use std::net::UdpSocket;

use harness::{Authority, Client, Engine, Folder, Kind, Origin, PATIENCE, Setup, on_each_driver, until};
use serde_json::Value;

on_each_driver! {
    fn json_lines(driver) {
        let origin = Origin::standard();
        let engine = logging(Setup::new(driver).origin(&origin), "json");
        let mut client = engine.client();
        client.ask("GET /bytes/500?q=1 HTTP/1.1\r\nHost: example.net\r\nUser-Agent: me/1\r\nReferer: http://from/\r\n\r\n");
        client.ask("POST /echo HTTP/1.1\r\nHost: example.net\r\nContent-Length: 5\r\n\r\nhello");
        client.get("/status/404");
        client.get("/slow/150");
        let lines = lines(&engine, 4);
        let values: Vec<Value> = lines.iter().map(|line| parsed(line)).collect();
        let first = &values[0];
        for (key, wanted) in [
            ("client", "127.0.0.1"),
            ("method", "GET"),
            ("host", "example.net"),
            ("target", "/bytes/500?q=1"),
            ("user_agent", "me/1"),
            ("referer", "http://from/"),
            ("version", "HTTP/1.1"),
        ] {
            assert_eq!(first[key], wanted, "{key} of {first}");
        }
        assert_eq!((&first["status"], &first["bytes"], &first["tries"]), (&200.into(), &500.into(), &1.into()), "{first}");
        assert_eq!(first["upstream"], origin.address.to_string());
        assert_eq!(values[1]["method"], "POST");
        assert_eq!(values[2]["status"], 404);
        let slow = values[3]["duration_us"].as_u64().unwrap_or(0);
        assert!((140_000..5_000_000).contains(&slow), "{slow} µs for an answer after 150 ms");
        let time = first["time"].as_str().unwrap_or_default();
        assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time} is not RFC 3339");
    }

    /// What a TCP door passes through is told of when it is over, and how that came.
    fn tcp_connections_are_told(driver) {
        let origin = Origin::start(|peer| {
            let mut said = [0; 3];
            while peer.wire.stream.read_exact(&mut said).is_ok() {
                match &said {
                    b"ask" => assert!(peer.send("answer")),
                    _ => return peer.reset(),
                }
            }
        });
        let nobody = harness::free_address();
        for (endpoint, said, wanted) in [
            (origin.address, "ask", ("", 200, 3, 6)),
            (origin.address, "end", ("cut", 200, 6, 6)),
            (nobody, "ask", ("no-endpoint", 502, 0, 0)),
        ] {
            let engine = logging(Setup::new(driver).to(&endpoint.to_string()).tcp(), "json");
            let mut client = engine.client();
            let port = client.stream.local_addr().expect("it is connected").port();
            client.send("ask");
            if endpoint != nobody {
                assert_eq!(client.take(6).expect("an answer"), b"answer");
                if said == "ask" { client.half_close() } else { client.send(said) }
            }
            let _ = client.rest();
            let line = &lines(&engine, 1)[0];
            unique_keys(line);
            let line = parsed(line);
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            assert_eq!((text("protocol"), text("listener"), text("pool")), ("tcp".into(), "door".into(), "origins".into()));
            assert_eq!((text("client"), text("upstream")), ("127.0.0.1".into(), endpoint.to_string()));
            assert_eq!(line["client_port"], port);
            let told = (text("reason"), line["status"].clone(), line["bytes_in"].clone(), line["bytes_out"].clone());
            assert_eq!(told, (wanted.0.to_owned(), wanted.1.into(), wanted.2.into(), wanted.3.into()), "{line}");
        }
    }

    /// And a flow of datagrams; but not through a listener that is not to be logged.
    fn flows_are_told(driver) {
        let origin = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = origin.local_addr().expect("bound");
        std::thread::spawn(move || {
            let mut said = [0; 100];
            while let Ok((count, from)) = origin.recv_from(&mut said) {
                if &said[..count] != b"mute" {
                    let _ = origin.send_to(b"reply", from);
                }
            }
        });
        let setup = |more: &str| {
            let udp = format!("udp = {{ idle = \"200ms\", replies = 1 }}\n{more}");
            logging(Setup::new(driver).to(&address.to_string()).udp().listen_line(&udp), "json")
        };
        for (said, wanted) in [("question", ("", 200, 8, 5, 1)), ("mute", ("no-reply", 504, 4, 0, 0))] {
            let engine = setup("");
            let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            client.send_to(said.as_bytes(), engine.address).expect("it leaves");
            let line = parsed(&lines(&engine, 1)[0]);
            assert_eq!((&line["protocol"], &line["listener"]), (&"udp".into(), &"door".into()), "{line}");
            assert_eq!(line["client_port"], client.local_addr().expect("bound").port());
            assert_eq!(line["reason"].as_str().unwrap_or_default(), wanted.0, "{line}");
            let told = ["status", "bytes_in", "bytes_out", "datagrams_out"].map(|key| line[key].as_u64().expect("a number"));
            assert_eq!(told, [wanted.1, wanted.2, wanted.3, wanted.4], "{line}");
        }
        let engine = setup("log = false");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.send_to(b"question", engine.address).expect("it leaves");
        engine.until_metric("udp_flows_total", 1);
        engine.until_metric("connections_open", 0);
        engine.terminate();
        until("it is gone", PATIENCE, || std::net::TcpStream::connect(engine.admin).is_err());
        assert_eq!(log(&engine), "");
    }

    /// What went wrong is told, and with whom.
    fn failures_are_told(driver) {
        let nobody = harness::free_address();
        let engine = logging(Setup::new(driver).to(&nobody.to_string()), "json");
        engine.client().get("/");
        let line = parsed(&lines(&engine, 1)[0]);
        assert_eq!(line["status"], 502, "{line}");
        assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("connect")), "{line}");
        assert_eq!(line["upstream"], nobody.to_string(), "{line}");
    }

    /// What is no request has a line too, with the beginning of what was said.
    fn refused_heads_are_told(driver) {
        let origin = Origin::standard();
        let engine = logging(Setup::new(driver).origin(&origin), "json");
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "x".repeat(2_000));
        for said in ["GET /twice HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET /\"\x01 HTTP/1.1\r\nHost: a\r\n\r\n", &long] {
            assert_eq!(engine.client().ask(said).status(), 400, "{said}");
        }
        let values: Vec<Value> = lines(&engine, 3).iter().map(|line| parsed(line)).collect();
        for value in &values {
            assert_eq!((&value["status"], &value["reason"]), (&400.into(), &"client-malformed".into()), "{value}");
            assert_eq!((&value["method"], &value["client"]), (&"GET".into(), &"127.0.0.1".into()), "{value}");
        }
        assert_eq!(values[0]["target"], "/twice");
        assert_eq!(values[2]["target"].as_str().map(str::len), Some(256 - "GET ".len()));
        let engine = logging(Setup::new(driver).origin(&origin), "common");
        engine.client().ask("\r\n \r\n\r\n");
        assert!(lines(&engine, 1)[0].ends_with("\"- - HTTP/1.1\" 400 0 \"-\" \"-\""));
    }

    /// So has HTTP in the clear where TLS is spoken.
    fn plain_http_is_told(driver) {
        let (origin, folder) = (Origin::standard(), Folder::new());
        let issued = Authority::new(&folder, "ca").issue(&folder, "localhost", &["localhost"], Kind::Ecdsa);
        let engine = logging(Setup::new(driver).origin(&origin).listen_line(&issued.line()), "json");
        assert_eq!(engine.client().ask("GET /from/a/link HTTP/1.1\r\nHost: a\r\n\r\n").status(), 400);
        let line = parsed(&lines(&engine, 1)[0]);
        for (key, wanted) in [("method", "GET"), ("target", "/from/a/link"), ("reason", "plain-http"), ("client", "127.0.0.1")] {
            assert_eq!(line[key], wanted, "{line}");
        }
        assert_eq!((&line["status"], line.get("tls")), (&400.into(), None), "{line}");
    }

    /// What is cut because the time of a drain is up is told of, with what had gone through.
    fn what_a_drain_cuts_is_told(driver) {
        let origin = Origin::start(|peer| {
            let Some(request) = peer.request() else { return };
            match request.target() {
                "/part" => assert!(peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nseven b")),
                "/upgrade" => {
                    let agreed = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome";
                    assert!(peer.send(agreed));
                }
                _ => {}
            }
            let _ = peer.wait_for_end();
        });
        let drained = |setup: Setup, begin: &dyn Fn(&Engine) -> Option<Client>| {
            let mut engine = logging(setup.engine_line("drain_timeout = \"300ms\""), "json");
            let _client = begin(&engine);
            engine.terminate();
            engine.wait(PATIENCE);
            let line = parsed(&lines(&engine, 1)[0]);
            assert_eq!(line["reason"], "drained", "{line}");
            line
        };
        let asked = |target: &str, more: &str, comes: usize| {
            drained(Setup::new(driver).origin(&origin), &|engine| {
                let mut client = engine.client();
                client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
                if comes > 0 {
                    client.head().expect("an answer");
                    client.take(comes).expect("content");
                }
                engine.until_metric("requests_open", 1);
                Some(client)
            })
        };
        for (target, more, status, bytes) in [
            ("/never", "", 0, 0),
            ("/part", "", 200, 7),
            ("/upgrade", "Connection: upgrade\r\nUpgrade: echo\r\n", 101, 7),
        ] {
            let line = asked(target, more, bytes);
            assert_eq!(line["target"], target);
            assert_eq!((&line["status"], &line["bytes"], &line["tries"]), (&status.into(), &bytes.into(), &1.into()), "{line}");
            assert_eq!(line["upstream"], origin.address.to_string());
        }
        let echo = Origin::start(|peer| {
            while let Ok(bytes) = peer.wire.take(5) {
                peer.send(bytes);
            }
        });
        let line = drained(Setup::new(driver).to(&echo.address.to_string()).tcp(), &|engine| {
            let mut client = engine.client();
            client.send("hello");
            assert_eq!(client.take(5).expect("an echo"), b"hello");
            Some(client)
        });
        assert_eq!((&line["protocol"], &line["status"]), (&"tcp".into(), &200.into()), "{line}");
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &5.into()), "{line}");
        let far = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let far_address = far.local_addr().expect("bound").to_string();
        let line = drained(Setup::new(driver).to(&far_address).udp(), &|engine| {
            let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            client.send_to(b"question", engine.address).expect("it leaves");
            engine.until_metric("udp_flows_total", 1);
            None
        });
        assert_eq!((&line["protocol"], &line["status"], &line["bytes_in"]), (&"udp".into(), &200.into(), &8.into()), "{line}");
    }

    fn no_client_writes_lines_of_its_own(driver) {
        let origin = Origin::standard();
        let nasty = [
            r#"evil","status":200,"x":"#,
            r#"\"},{\"#,
            "tab\there",
            "\u{e9}\u{80}\u{ff}",
            r"\n\r\u0000",
            "%0d%0a127.0.0.1 - - [x]",
        ];
        for format in ["json", "common"] {
            let engine = logging(Setup::new(driver).origin(&origin), format);
            let mut client = engine.client();
            for value in nasty {
                let target = value.replace(|c: char| !c.is_ascii_graphic() || "\"\\{}<>^`|".contains(c), "%22");
                let request = format!("GET /{target} HTTP/1.1\r\nHost: a\r\nUser-Agent: {value}\r\nReferer: {value}\r\n\r\n");
                let bytes: Vec<u8> = request.chars().map(|character| character as u8).collect();
                assert_eq!(client.ask(bytes).status(), 200, "{value}");
            }
            let lines = lines(&engine, nasty.len());
            for line in &lines {
                assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{}", line.escape_debug());
                if format == "json" {
                    let value = parsed(line);
                    assert_eq!(value["status"], 200, "{line}");
                    assert_eq!(value.get("x"), None, "{line}");
                    unique_keys(line);
                } else {
                    assert_eq!(unescaped_quotes(line), 6, "{line}");
                }
            }
        }
    }

    /// As every analyser reads it: host, identity, user, time, request, status, bytes, referer, agent.
    fn common_lines(driver) {
        let origin = Origin::standard();
        let engine = logging(Setup::new(driver).origin(&origin), "common");
        let mut client = engine.client();
        client.ask("GET /bytes/500?q=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: me/1\r\n\r\n");
        let line = &lines(&engine, 1)[0];
        let (before, after) = line.split_once(" [").expect("a time");
        assert_eq!(before, "127.0.0.1 - -");
        let (time, rest) = after.split_once("] ").expect("a time's end");
        // 10/Oct/2000:13:55:36 -0700
        assert!(time.len() == 26 && time.as_bytes()[2] == b'/' && time.as_bytes()[11] == b':', "{time}");
        assert_eq!(rest, "\"GET /bytes/500?q=1 HTTP/1.1\" 200 500 \"-\" \"me/1\"");
    }

    /// Nothing is lost at a regular end, nor when there are many.
    fn every_exchange_has_its_line(driver) {
        let origin = Origin::standard();
        let mut engine = logging(Setup::new(driver).origin(&origin), "json");
        let mut client = engine.client();
        for number in 0..3_000 {
            client.get(&format!("/{number}"));
        }
        drop(client);
        engine.terminate();
        assert_eq!(engine.wait(PATIENCE).code(), Some(0));
        let text = log(&engine);
        let mut targets: HashMap<String, usize> = HashMap::new();
        for line in text.lines() {
            *targets.entry(parsed(line)["target"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        for number in 0..3_000 {
            assert_eq!(targets.get(&format!("/{number}")), Some(&1), "lines of /{number}");
        }
    }

    fn standard_output_takes_it_too(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).serve(&["--access-log", "-", "--log-format", "json"]);
        engine.client().get("/out");
        until("the line is there", PATIENCE, || engine.out().contains("/out"));
        assert_eq!(parsed(engine.out().lines().next().expect("a line"))["target"], "/out");
    }
}

fn logging(setup: Setup, format: &str) -> Engine {
    // Beside the configuration, whose folder is not known before: by a path of the test's own.
    let path = std::env::temp_dir().join(format!("penstock-test-{}-{format}-log", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let toml = format!("[log]\naccess.path = \"{}\"\naccess.format = \"{format}\"", path.display());
    let engine = setup.more(&toml).start();
    let inside = engine.folder.join("access");
    std::fs::hard_link(&path, inside).expect("the engine has made its log");
    std::fs::remove_file(&path).expect("our own file");
    engine
}

fn log(engine: &Engine) -> String {
    std::fs::read_to_string(engine.folder.join("access")).expect("a log that is text")
}

/// The log's lines, once there are so many.
fn lines(engine: &Engine, count: usize) -> Vec<String> {
    until("the lines are there", PATIENCE, || log(engine).lines().count() >= count);
    let lines: Vec<String> = log(engine).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

#[track_caller]
fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// A value that ended early would show as a key that is there twice.
fn unique_keys(line: &str) {
    let value = parsed(line);
    let keys = value.as_object().map_or(0, serde_json::Map::len);
    let text = line.replace("\\\\", "").replace("\\\"", "");
    assert_eq!(text.matches("\":").count(), keys, "{line}");
}

fn unescaped_quotes(line: &str) -> usize {
    line.replace("\\\\", "").replace("\\\"", "").matches('"').count()
}
