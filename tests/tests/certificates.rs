//! Certificates and what Certificate Transparency logs have promised for them: explained to an operator, asked of endpoints.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use harness::{
    Authority, CtEntry, CtLog, Driver, Engine, Folder, Issued, Kind, Origin, Setup, TlsClient, Tool, binary, log_list,
    ocsp_response, on_each_driver, sct_list,
};
use serde_json::Value;

on_each_driver! {
    /// An endpoint that no log has heard of gets nothing where promises are required; one with enough of them serves.
    fn promises_are_required(driver) {
        let place = Place::new();
        for (name, by, status) in [("bare", &[][..], 502), ("one", &[0], 502), ("twice", &[0, 0], 502), ("good", &[0, 1], 200)] {
            let front = place.front(driver, &place.issue(name, by), "require");
            let answer = front.client().get("/");
            assert_eq!(answer.status(), status, "{name}: {}", answer.text());
            let refused = front.metrics().sum("pool_untransparent_total");
            assert_eq!(refused > 0, status == 502, "{name}: {refused}");
            let told = front.err();
            assert_eq!(told.contains("the certificate is refused: "), status == 502, "{name}: {told}");
        }
    }

    /// Where they are only looked at, everybody serves, and an operator is told.
    fn promises_are_missed(driver) {
        let place = Place::new();
        let front = place.front(driver, &place.issue("bare", &[]), "warn");
        assert_eq!(front.client().get("/").status(), 200);
        assert_eq!(front.client().get("/").status(), 200);
        assert!(front.metrics().sum("pool_untransparent_total") > 0);
        let told = front.err();
        assert_eq!(told.matches("pool `origins`: the certificate of `127.0.0.1`: no Certificate").count(), 1, "{told}");
    }

    /// Promises may come in an OCSP staple as well.
    fn promises_come_in_a_staple(driver) {
        let place = Place::new();
        let issued = place.issue("stapled", &[]);
        let der = harness::der_of(&issued.cert);
        let promises = place.all.iter().map(|log| log.promise(1_750_000_000_000, CtEntry::Certificate(&der)));
        let list = sct_list(&promises.collect::<Vec<_>>());
        let staple = place.folder.write("stapled.ocsp", ocsp_response(&list, true));
        let line = format!("tls = {{ cert = {:?}, key = {:?}, ocsp = {staple:?} }}", issued.cert, issued.key);
        let origin = Origin::standard();
        let back = Setup::new(driver).origin(&origin).listen_line(&line).start();
        let front = place.before(driver, &back, "require");
        assert_eq!(front.client().get("/").status(), 200);
        let args = ["s_client", "-status", "-tls1_3", "-connect", &back.address.to_string()];
        let shown = Tool::new("openssl", 10).args(args).run().text();
        assert!(shown.contains("OCSP Response Status: successful (0x0)"), "to clients that ask: {shown}");
        let told = place.check(&[&back.address.to_string(), "--logs", &place.logs]);
        assert!(told.code == 0 && told.text.contains("OCSP staple: yes") && told.text.contains("from the OCSP response: good"), "{}", told.text);
    }

    /// `penstock show`: what is shown to clients, and how handshakes have ended.
    fn what_listeners_show(driver) {
        let place = Place::new();
        let (logged, other) = (place.issue("site", &[0, 1]), place.authority.issue(&place.folder, "other", &["other.test"], Kind::Rsa));
        let staple = place.folder.write("other.ocsp", ocsp_response(&sct_list(&[]), true));
        let pair = |issued: &Issued, more: &str| format!("{{ cert = {:?}, key = {:?}{more} }}", issued.cert, issued.key);
        let both = [pair(&logged, ""), pair(&other, &format!(", ocsp = {staple:?}"))].join(", ");
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line(&format!("tls = {{ certificates = [{both}] }}")).start();
        let admin = engine.admin.to_string();
        let show = |what: &str, more: &[&str]| {
            let ran = Tool::new(binary(), 20).args(["show", what, "--admin", &admin]).args(more).succeed();
            ran.text()
        };
        let rows: Value = serde_json::from_str(&show("tls", &["--json"])).expect("a list");
        let told = |at: usize, key: &str| rows[at][key].to_string();
        for (at, key, wanted) in [
            (0, "listener", "\"door\""), (0, "names", "[\"site.test\",\"127.0.0.1\"]"), (0, "days", "89"), (0, "key", "\"ECDSA P-256\""),
            (0, "scts", "2"), (0, "ocsp", "\"none\""), (0, "sessions", "\"tickets\""), (0, "from", "\"TLS 1.3\""),
            (1, "names", "[\"other.test\"]"), (1, "key", "\"RSA 2048\""), (1, "scts", "0"), (1, "ocsp", "\"stapled\""), (1, "clients", "\"anybody\""),
        ] {
            assert_eq!(told(at, key), wanted, "{at} {key}: {rows}");
        }
        assert!(show("tls", &[]).contains("site.test, 127.0.0.1"));
        let config = Arc::new(place.authority.client(None));
        for _ in 0..2 {
            let mut client = TlsClient::connect_tls(engine.address, "site.test", &config).expect("a connection");
            assert_eq!(client.get("/").text(), "hello\n");
        }
        engine.until_metric("tls_resumed_total", 1);
        let handshakes: Value = serde_json::from_str(&show("handshakes", &["--json"])).expect("a list");
        let count = |end: &str| handshakes.as_array().into_iter().flatten().find(|row| row["handshakes"] == end).map(|row| row["count"].clone());
        assert_eq!(count("TLS 1.3"), Some(2.into()), "{handshakes}");
        assert_eq!(count("of these, a session was resumed"), Some(1.into()), "{handshakes}");
        assert_eq!((count("TLS 1.2"), count("broke TLS")), (Some(0.into()), Some(0.into())), "{handshakes}");
    }

    /// A real server: what was agreed upon, and what is wrong with what it shows.
    fn a_server_is_explained(driver) {
        let place = Place::new();
        let logged = place.issue("site", &[0, 1]);
        let engine = place.serving(driver, &logged);
        let address = engine.address.to_string();
        let good = place.check(&[&address, "--servername", "site.test", "--logs", &place.logs]);
        assert_eq!(good.code, 0, "{}", good.text);
        for wanted in ["TLSv1.3", "protocol h2", "names        site.test", "89 days left", "argon (A)", ": good\n", "nothing to mend"] {
            assert!(good.text.contains(wanted), "no {wanted}:\n{}", good.text);
        }
        let other = place.check(&[&address, "--servername", "other.test"]);
        assert_eq!(other.code, 1);
        assert!(other.text.contains("to mend: clients refuse it") && other.text.contains("other.test"), "{}", other.text);
        let plain = Origin::standard();
        let none = place.check(&[&plain.address.to_string()]);
        assert!(none.code == 1 && none.text.contains("error: 127.0.0.1:"), "{}", none.text);
    }
}

/// Files, good and bad: the exit code says which, and the text what to do.
#[test]
fn files_are_explained() {
    let place = Place::new();
    let (logged, bare) = (place.issue("logged", &[0, 1]), place.issue("bare", &[]));
    let one = place.issue("one", &[0]);
    let of = |file: &Issued| file.cert.display().to_string();
    let pem = |file: &Issued| std::fs::read_to_string(&file.cert).unwrap();
    let root = std::fs::read_to_string(&place.authority.file).unwrap();
    let disorder = place.folder.write("disorder.pem", root + &pem(&logged));
    let stranger = Authority::new(&place.folder, "stranger").issue(&place.folder, "strange", &["a.test"], Kind::Rsa);
    let logs = place.logs.as_str();
    let table: &[(&[&str], i32, &str)] = &[
        (&[&of(&logged)], 0, "2, browsers want 2; not verified without --logs"),
        (&[&of(&logged), "--logs", logs], 0, "2 good of 2, 2 needed"),
        (&[&of(&one), "--logs", logs], 1, "1 of the 2 Certificate Transparency logs that are needed"),
        (&[&of(&bare), "--logs", logs], 1, "there is no SCT"),
        (&[&of(&bare)], 0, "nothing to mend"),
        (&[&of(&bare), "--servername", "bare.test"], 0, "nothing to mend"),
        (&[&of(&bare), "--servername", "other.test"], 1, "clients refuse it"),
        (&[disorder.to_str().unwrap()], 1, "the host's certificate comes as number 2"),
        (&[&of(&stranger)], 1, "the issuer of certificate 1 is missing"),
        (&[&of(&stranger)], 1, "RSA 2048"),
        (&[&logged.key.display().to_string()], 1, "there is no certificate in it"),
        (&[&of(&logged), "--logs", &of(&logged)], 1, "no JSON"),
    ];
    for (args, code, wanted) in table {
        let told = place.check(args);
        assert!(
            told.code == *code && told.text.contains(wanted),
            "{args:?}: {}, not {wanted}:\n{}",
            told.code,
            told.text
        );
    }
}

/// Our own certificates: what browsers will not take of a public authority is told before they do.
#[test]
fn a_certificate_of_ours_with_too_few_promises_is_told_of() {
    let place = Place::new();
    let ca = place.authority.file.display().to_string();
    for (name, by, public, note) in [
        ("bare", &[][..], true, "it has 0 of the 2 SCTs"),
        ("one", &[0], true, "it has 1 of the 2 SCTs"),
        ("strange", &[0], false, "it has 1 of the 2 SCTs"),
        ("inner", &[], false, ""),
        ("good", &[0, 1], true, ""),
    ] {
        let issued = place.issue(name, by);
        let other = Authority::new(&place.folder, "other").file.display().to_string();
        let trusted = if public { &ca } else { &other };
        let setup =
            Setup::new(Driver::Epoll).to("127.0.0.1:9").listen_line(&issued.line()).env("SSL_CERT_FILE", trusted);
        let config = place.folder.write("penstock.toml", setup.toml(harness::free_address()));
        let check = |more: &[&str]| {
            Command::new(binary())
                .args(["check", "-c"])
                .arg(&config)
                .args(more)
                .env("SSL_CERT_FILE", trusted)
                .output()
                .unwrap()
        };
        let (output, json) = (check(&[]), check(&["--format", "json"]));
        let (told, json) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&json.stdout));
        assert!(output.status.success(), "{name}: {told}");
        assert_eq!(told.contains("note: listener `door`"), !note.is_empty(), "{name}: {told}");
        assert!(told.contains(note) && json.contains(note), "{name}: {told}{json}");
        let started = setup.start().err();
        assert!(
            started.contains(note) && started.contains("note: listener `door`") != note.is_empty(),
            "{name}: {started}"
        );
    }
}

/// What cannot be meant is found before the start.
#[test]
fn settings_that_cannot_be_meant_are_found() {
    let place = Place::new();
    let list = place.folder.write("bad.json", "{\"operators\": 7}");
    for (lines, code, wanted) in [
        (format!("transparency = \"warn\", logs = {:?}", place.logs), 0, ""),
        (
            format!("transparency = \"warn\", logs = {list:?}"),
            3,
            "bad.json: the list: `operators` is missing, or no array",
        ),
        ("transparency = \"warn\", logs = \"none.json\"".to_owned(), 3, "`none.json` cannot be read"),
        ("transparency = \"require\"".to_owned(), 3, "`tls.transparency` without `tls.logs`"),
        (format!("logs = {:?}", place.logs), 0, "`tls.logs` has no effect without `tls.transparency`"),
    ] {
        let line = format!("tls = {{ ca = {:?}, {lines} }}", place.authority.file);
        let config = Setup::new(Driver::Epoll).to("https://a.test").pool_line(&line);
        let config = place.folder.write("penstock.toml", config.toml(harness::free_address()));
        let output = Command::new(binary()).args(["check", "-c"]).arg(&config).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && told.contains(wanted), "{lines}: {told}");
    }
}

#[test]
fn programs_get_json() {
    let place = Place::new();
    let logged = place.issue("logged", &[0, 2]);
    let told = place.check(&[&logged.cert.display().to_string(), "--logs", &place.logs, "--json"]);
    let json: Value = serde_json::from_str(&told.text).unwrap();
    assert_eq!((&json["good"], &json["scts"]["counting"]), (&true.into(), &2.into()), "{json:#}");
    assert_eq!(json["scts"]["each"][1]["operator"], "C");
    assert_eq!(json["certificates"][0]["names"][0], "logged.test");
    assert_eq!(json["certificates"][0]["days_left"], 89);
}

/// An authority, three logs, and the list that names them.
struct Place {
    folder: Folder,
    authority: Authority,
    all: [CtLog; 3],
    logs: String,
}

/// An engine, and who stands behind it.
struct Front {
    engine: Engine,
    _back: Engine,
    _origin: Origin,
}

impl std::ops::Deref for Front {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

/// What the command said on both of its outputs, and its exit code.
struct Told {
    code: i32,
    text: String,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        let all = [CtLog::new("argon", "A"), CtLog::new("birch", "B"), CtLog::new("cedar", "C")];
        let logs = folder.write("log_list.json", log_list(&all.each_ref())).display().to_string();
        Self { authority: Authority::new(&folder, "ca"), folder, all, logs }
    }

    /// A certificate for `NAME.test` and the loopback, with the promises of some of the logs.
    fn issue(&self, name: &str, by: &[usize]) -> Issued {
        let logs: Vec<_> = by.iter().map(|&log| &self.all[log]).collect();
        self.authority.issue_logged(&self.folder, name, &[&format!("{name}.test"), "127.0.0.1"], &logs)
    }

    /// An engine that shows a certificate to its clients.
    fn serving(&self, driver: Driver, issued: &Issued) -> Engine {
        Setup::new(driver).to("127.0.0.1:9").listen_line(&issued.line()).start()
    }

    /// An engine whose pool is another one, which shows a certificate.
    fn front(&self, driver: Driver, issued: &Issued, transparency: &str) -> Front {
        let origin = Origin::standard();
        let back = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        Front { engine: self.before(driver, &back, transparency), _back: back, _origin: origin }
    }

    fn before(&self, driver: Driver, back: &Engine, transparency: &str) -> Engine {
        let (ca, logs) = (&self.authority.file, &self.logs);
        let line = format!("tls = {{ ca = {ca:?}, transparency = {transparency:?}, logs = {logs:?} }}");
        Setup::new(driver).to(&format!("https://{}", back.address)).pool_line(&line).start()
    }

    fn check(&self, args: &[&str]) -> Told {
        let ca: &Path = &self.authority.file;
        let output = Command::new(binary()).args(["cert", "check", "--ca"]).arg(ca).args(args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        Told { code: output.status.code().unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() }
    }
}
