//! What an operator says of QUIC: how much is under way, secrets that processes and machines share, and what is written down.

use std::path::Path;

use harness::{
    Authority, Folder, H3Door, Issued, Kind, Origin, PATIENCE, Setup, Tool, binary, free_address, on_each_driver, quic,
    until,
};
use serde_json::Value;

on_each_driver! {
    fn every_congestion_control_serves(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let (authority, issued) = site(&folder);
        for congestion in ["cubic", "newreno", "bbr"] {
            let line = format!("http3.congestion = \"{congestion}\"");
            let engine = Setup::new(driver).origin(&origin).listen_line(&issued.line()).listen_line(&line).start();
            let mut visitor = quic::Visitor::connect(engine.address, &quic::config(&authority, 64 << 10));
            until("the download is complete", PATIENCE, || {
                visitor.turn("/bytes/1000000");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended, Some(Ok(())), "{congestion}");
            assert!(visitor.received > 1_000_000, "{congestion}");
        }
    }

    /// A process that dies leaves connections behind of which the next one knows nothing but the secret: it is enough to tell their clients, who so begin anew
    /// at once and not when their patience is over (RFC 9000 §10.3). Also when the fleet has gone on to another secret meanwhile.
    fn clients_of_a_process_that_died_are_told(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let (authority, issued) = site(&folder);
        let address = free_address();
        let config = quic::config(&authority, 64 << 10);
        let (old, new) = ("3 ".to_owned() + &"0a".repeat(32) + "\n", "# of today\n5 ".to_owned() + &"0B".repeat(32) + "\n");
        for (before, after) in [(old.clone(), old.clone()), (old.clone(), new + &old)] {
            let secrets = folder.join("secrets");
            let start = |text: &str| {
                std::fs::write(&secrets, text).expect("a file of our own");
                let line = format!("quic = {{ secrets = {secrets:?}, server = 9 }}");
                let setup = Setup::new(driver).at(address).cores("auto").engine_line(&line);
                setup.origin(&origin).listen_line(&issued.line()).start()
            };
            let mut engine = start(&before);
            let mut visitor = quic::Visitor::connect(address, &config);
            until("an answer", PATIENCE, || {
                visitor.turn("/");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended.take(), Some(Ok(())));
            engine.kill();
            engine.wait(PATIENCE);
            let engine = start(&after);
            visitor.ping();
            until("the client knows", PATIENCE, || {
                visitor.turn("/");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended, Some(Err("reset by peer".to_owned())));
            drop(engine);
        }
    }

    /// Of whom it is asked and from when on, by a client that moves while it downloads: what any reader of qlog takes, and no field of any request.
    fn a_connection_is_written_down(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let traces = folder.join("made").join("traces");
        let door = H3Door::of(Setup::new(driver).origin(&origin).more(&format!("[log.qlog]\nfolder = {traces:?}")), "");
        let config = quic::config(&door.authority, 8 << 10);
        assert_eq!(visit(&door, &config, false), Ok(()));
        let tell = |word: &str| {
            let admin = door.engine.admin.to_string();
            Tool::new(binary(), 30).args(["set", "qlog", "127.0.0.1", word, "--admin", &admin]).run().text()
        };
        assert_eq!(tell("on"), "qlog of 127.0.0.1: on (was off)\n");
        assert_eq!(visit(&door, &config, true), Ok(()));
        assert_eq!(tell("off"), "qlog of 127.0.0.1: off (was on)\n");
        assert_eq!(visit(&door, &config, false), Ok(()));
        door.engine.until_idle();
        let mut records = Vec::new();
        until("the connection is on disk, to its end", PATIENCE, || {
            let files: Vec<_> = files(&traces);
            assert!(files.len() <= 1, "{files:?}");
            records = files.first().map(|file| read(&traces.join(file))).unwrap_or_default();
            records.iter().any(|record| record["name"] == "connectivity:connection_closed")
        });
        assert_eq!(door.engine.metrics().sum("qlog_connections_total"), 1);
        assert_eq!(door.engine.metrics().sum("qlog_records_dropped_total"), 0);
        let head = &records[0];
        assert_eq!((&head["qlog_format"], &head["qlog_version"]), (&"JSON-SEQ".into(), &"0.3".into()));
        assert_eq!(head["trace"]["vantage_point"]["type"], "server");
        let named = |name: &str| records.iter().filter(|record| record["name"] == name).collect::<Vec<_>>();
        assert_eq!(records[1]["name"], "connectivity:connection_started");
        assert_eq!(records[1]["data"]["src_ip"], "127.0.0.1");
        let id = records[1]["data"]["dst_cid"].as_str().expect("the id that the client chose").to_owned();
        assert_eq!(files(&traces), [format!("{id}.sqlog")]);
        // 60,000 bytes are 40 packets at the least.
        assert!(named("transport:packet_sent").len() > 40 && named("transport:packet_received").len() > 10);
        assert!(!named("recovery:metrics_updated").is_empty());
        assert_eq!(named("connectivity:connection_state_updated").len(), 1);
        assert_eq!(named("generic:marker").len(), 1, "the client has moved once");
        assert_eq!(named("http:parameters_set").len(), 1);
        let of = |name: &str, kind: &str| {
            named(name).iter().filter(|record| record["data"]["frame"]["frame_type"] == kind).count()
        };
        assert_eq!((of("http:frame_parsed", "headers"), of("http:frame_created", "headers")), (1, 1));
        let created = named("http:frame_created");
        let content: u64 = created.iter().filter_map(|record| record["data"]["length"].as_u64()).sum();
        assert_eq!(content, 60_000);
        let times: Vec<f64> = records[1..].iter().filter_map(|record| record["time"].as_f64()).collect();
        assert!(times.len() == records.len() - 1 && times.is_sorted(), "{times:?}");
        assert!(!std::fs::read_to_string(traces.join(format!("{id}.sqlog"))).expect("text").contains("localhost"));
    }

    /// A connection to an endpoint, seen from our side of it.
    fn what_is_said_with_an_endpoint_is_written_down(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let (traces, authority) = (folder.join("traces"), Authority::new(&folder, "ca"));
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let back = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        let pool = format!("tls = {{ ca = {:?} }}\nprotocol = \"h3\"", authority.file);
        let log = format!("[log.qlog]\nfolder = {traces:?}\npeers = [\"127.0.0.1\"]");
        let setup = Setup::new(driver).to(&format!("https://{}", back.address)).pool_line(&pool);
        let mut engine = setup.more(&log).start();
        assert_eq!(engine.client().get("/bytes/60000").body.len(), 60_000);
        assert_eq!(engine.metrics().sum("qlog_connections_total"), 1);
        engine.terminate();
        engine.wait(PATIENCE);
        let files = files(&traces);
        let records = read(&traces.join(&files[0]));
        assert_eq!(records[0]["trace"]["vantage_point"]["type"], "client");
        let begun = &records[1]["data"];
        assert_eq!((begun["dst_ip"].as_str(), begun["dst_port"].as_u64()), (Some("127.0.0.1"), Some(back.address.port().into())));
        assert_eq!(files, [format!("{}.sqlog", begun["dst_cid"].as_str().expect("the id that we chose"))]);
        let count = |name: &str| records.iter().filter(|record| record["name"] == name).count();
        assert!(count("transport:packet_received") >= 4 && count("transport:packet_sent") > 2);
        assert_eq!((count("http:parameters_set"), count("connectivity:connection_closed")), (1, 1));
        let heads = |name: &str| {
            let of_name = records.iter().filter(|record| record["name"] == name);
            of_name.filter(|record| record["data"]["frame"]["frame_type"] == "headers").count()
        };
        assert_eq!((heads("http:frame_created"), heads("http:frame_parsed")), (1, 1));
    }

    /// As many files as may be and no more, and none longer than it may become.
    fn what_is_written_down_is_bounded(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let traces = folder.join("traces");
        let bounds = "peers = [\"127.0.0.0/8\"], files = 3, file_max = \"16KiB\"";
        let more = format!("[log]\nqlog = {{ folder = {traces:?}, {bounds} }}");
        let door = H3Door::of(Setup::new(driver).origin(&origin).more(&more), "");
        let config = quic::config(&door.authority, 8 << 10);
        // More at a time than there may be files.
        let mut visitors: Vec<_> = (0..5).map(|_| quic::Visitor::connect(door.engine.address, &config)).collect();
        until("all are served", PATIENCE, || {
            visitors.iter_mut().for_each(|visitor| visitor.turn("/bytes/60000"));
            visitors.iter().all(|visitor| visitor.ended.is_some())
        });
        assert!(visitors.iter().all(|visitor| visitor.ended == Some(Ok(()))));
        let metrics = door.engine.metrics();
        assert_eq!((metrics.sum("qlog_connections_total"), metrics.sum("qlog_refused_total")), (3, 2));
        assert!(metrics.sum("qlog_records_dropped_total") > 0, "60,000 bytes are more than 16 KiB of records");
        visitors.iter_mut().for_each(quic::Visitor::close);
        door.engine.until_idle();
        // And more after them.
        for _ in 0..3 {
            assert_eq!(visit(&door, &config, false), Ok(()));
            door.engine.until_idle();
        }
        assert_eq!(door.engine.metrics().sum("qlog_connections_total"), 6);
        let mut door = door;
        door.engine.terminate();
        door.engine.wait(PATIENCE);
        let left = files(&traces);
        assert_eq!(left.len(), 3, "{left:?}");
        for file in left {
            let length = std::fs::metadata(traces.join(&file)).expect("it is there").len();
            assert!(length > 8 << 10 && length <= 16 << 10, "{file}: {length}");
            assert_eq!(read(&traces.join(&file))[0]["trace"]["vantage_point"]["type"], "server");
        }
    }
}

/// A download, and whether the client moves while it lasts; how it ended.
fn visit(door: &H3Door, config: &quinn_proto::ClientConfig, moves: bool) -> Result<(), String> {
    let mut visitor = quic::Visitor::connect(door.engine.address, config);
    let mut moves = moves;
    until("the download is over", PATIENCE, || {
        visitor.turn("/bytes/60000");
        if visitor.received > 20_000 && std::mem::take(&mut moves) {
            visitor.move_on();
        }
        visitor.ended.is_some()
    });
    visitor.close();
    visitor.ended.expect("it is over")
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.expect("it is there").file_name().into_string().expect("it is text")).collect()
}

/// The records of a JSON text sequence (RFC 7464).
fn read(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("it is there, and text");
    let mut records = text.split('\x1e');
    assert_eq!(records.next(), Some(""), "something stands before the first record");
    records.map(|record| serde_json::from_str(record).expect(record)).collect()
}

/// What is wrong with a file of secrets is said before anything is served.
#[test]
fn a_bad_file_of_secrets_is_told() {
    harness::run(harness::Sharing::Shared, || {
        let folder = Folder::new();
        let secrets = folder.write("secrets", "7 00\n");
        let toml = format!(
            "[engine]\nquic.secrets = {secrets:?}\n[[listen]]\nname = \"l\"\naddr = \"{}\"\n\
             [[pool]]\nname = \"p\"\nendpoints = [\"127.0.0.1:9\"]\n[[route]]\npool = \"p\"\n",
            free_address()
        );
        let config = folder.write("c.toml", toml).display().to_string();
        let ran = Tool::new(binary(), 30).args(["check", "-c", &config]).run();
        assert_ne!(ran.code, Some(0));
        assert!(ran.err.contains("line 1: write a number from 0 to 6"), "{}", ran.err);
    });
}

fn site(folder: &Folder) -> (Authority, Issued) {
    let authority = Authority::new(folder, "ca");
    let issued = authority.issue(folder, "site", &["localhost"], Kind::Ecdsa);
    (authority, issued)
}
