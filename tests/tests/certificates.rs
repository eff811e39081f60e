//! Certificates and what Certificate Transparency logs have promised for them: explained to an operator, asked of endpoints.

use std::path::Path;
use std::process::Command;

use harness::{
    Authority, CtLog, Driver, Engine, Folder, Issued, Kind, Origin, Setup, binary, log_list, on_each_driver,
};
use serde_json::Value;

on_each_driver! {
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

    fn check(&self, args: &[&str]) -> Told {
        let ca: &Path = &self.authority.file;
        let output = Command::new(binary()).args(["cert", "check", "--ca"]).arg(ca).args(args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        Told { code: output.status.code().unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() }
    }
}
