//! `[shield]` as an operator meets it: what is refused and how, and what is understood.

use std::time::Duration;

use penstock::snapshot::{self, Compiled, Report, Shield, XdpMode};
use policy::RateSettings;

/// Files that the configurations below name.
fn files(path: &str) -> std::io::Result<Vec<u8>> {
    match path {
        "good" => Ok(b"203.0.113.0/24 # whom\n\n2001:db8::/32\n".to_vec()),
        "bad" => Ok(b"# whom\n203.0.113.0/24\n203.0.113.1/24\n".to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    }
}

fn read(shield: &str, route: &str) -> Result<Compiled, Report> {
    let text = format!(
        "{shield}\n[[listen]]\nname = \"web\"\naddr = \":80\"\n[[pool]]\nname = \"api\"\nendpoints = [\"a:1\"]\n\
         [[route]]\npool = \"api\"\n{route}\n"
    );
    snapshot::read_with("edge.toml", &text, &files)
}

fn shield(lines: &str, route: &str) -> Option<Shield> {
    read(&format!("[shield]\n{lines}"), route).unwrap_or_else(|report| panic!("{}", report.render())).snapshot.shield
}

#[test]
fn what_cannot_work_is_refused_once_and_with_advice() {
    for (lines, message, advice) in [
        ("deny = [\"10.0.0.0/8\"]", "the shield stands nowhere", "interfaces = [\"eth0\"]"),
        ("interfaces = [\"eth0/1\"]", "`eth0/1` is no interface's name", "`ip link`"),
        ("interfaces = [\"a-name-too-long-to-be\"]", "is no interface's name", "`ip link`"),
        ("interfaces = [\"eth0\", \"eth0\"]", "the interface `eth0` is there twice", "line "),
        ("interfaces = [\"eth0\"]\nmode = \"natve\"", "`natve`", "native"),
        ("interfaces = [\"eth0\"]\nsyn_cookies = \"atuo\"", "`atuo`", "auto"),
        ("interfaces = [\"eth0\"]\ndeny = [\"10.0.0.1/8\"]", "beyond its prefix", "10.0.0.0/8"),
        ("interfaces = [\"eth0\"]\nsyns = { burst = 5 }", "`syns` has no `rate`", "rate = "),
        ("interfaces = [\"eth0\"]\nsyns = { rate = \"5/s\", burst = 0 }", "`burst` cannot be 0", "from 1"),
        ("interfaces = [\"eth0\"]\npackets = { rate = \"5\" }", "is not a rate", "100/s"),
        ("interfaces = [\"eth0\"]\nover_limit = { rate = \"5/s\" }", "nobody is ever over it", "limit = ["),
        ("interfaces = [\"eth0\"]\ndeny_files = [\"none\"]", "`none` cannot be read", "a line"),
        ("interfaces = [\"eth0\"]\ndeny_files = [\"good\", \"bad\"]", "`bad`, line 3: ", "a line"),
        ("interfaces = [\"eth0\"]\ndenny = \"10.0.0.0/8\"", "unknown key `denny`", "`deny`"),
    ] {
        let found = match read(&format!("[shield]\n{lines}"), "") {
            Ok(compiled) => compiled.report.render(),
            Err(report) => report.render(),
        };
        assert!(found.contains(message) && found.contains(advice), "{lines}\n---\n{found}");
        assert_eq!(found.matches("-->").count(), 1, "one problem, said once\n{lines}\n---\n{found}");
    }
    let limit = "limit = [{ rate = \"5/s\" }]";
    let zero = "[shield]\ninterfaces = [\"eth0\"]\nover_limit = { rate = \"5/s\", for = \"0s\" }";
    let found = read(zero, limit).expect_err("no time at all").render();
    assert!(found.contains("`for` cannot be zero"), "{found}");
}

#[test]
fn there_is_none_until_it_has_an_interface() {
    assert_eq!(read("", "").unwrap_or_else(|report| panic!("{}", report.render())).snapshot.shield, None);
    let plain = shield("interfaces = [\"eth0\"]", "").expect("a shield");
    assert_eq!((&*plain.interfaces, plain.mode), (&["eth0".into()][..], XdpMode::Auto));
    assert!(plain.drop_malformed && !plain.dry_run);
    assert_eq!((plain.packets, plain.syns, plain.initials, plain.over_limit), (None, None, None, None));
    assert!(plain.allow.is_empty() && plain.deny.is_empty() && plain.deny_files.is_empty());
}

#[test]
fn all_of_it_is_understood() {
    let lines = "interfaces = [\"eth0\", \"eth1.7\"]\nmode = \"generic\"\ndry_run = true\ndrop_malformed = false\n\
                 allow = \"10.0.0.0/8\"\ndeny = [\"203.0.113.0/24\", \"2001:db8::/32\"]\ndeny_files = [\"good\"]\n\
                 packets = { rate = \"20000/s\" }\nsyns = { rate = \"600/m\", burst = 30 }\ninitials.rate = \"50/s\"\n\
                 over_limit = { rate = \"100/s\", burst = 500, for = \"30s\" }";
    let shield = shield(lines, "limit = [{ rate = \"5/s\" }]").expect("a shield");
    let rate = |quota, secs, burst| Some(RateSettings { quota, period: Duration::from_secs(secs), burst });
    assert_eq!(shield.mode, XdpMode::Generic);
    assert!(shield.dry_run && !shield.drop_malformed);
    assert_eq!((shield.allow.iter().count(), shield.deny.iter().count(), shield.deny_files.len()), (1, 2, 1));
    assert_eq!(
        (shield.packets, shield.syns, shield.initials),
        (rate(20_000, 1, 20_000), rate(600, 60, 30), rate(50, 1, 50))
    );
    let over_limit = shield.over_limit.expect("it is on");
    assert_eq!((Some(over_limit.rate), over_limit.deny_for), (rate(100, 1, 500), Duration::from_secs(30)));
}

#[test]
fn what_is_printed_is_what_was_read() {
    let text =
        "[shield]\ninterfaces = [\"eth0\"]\nover_limit = { rate = \"100/s\", for = \"30s\" }\nsyns.rate = \"5/s\"";
    let limit = "limit = [{ rate = \"5/s\" }]";
    let compiled = read(text, limit).unwrap_or_else(|report| panic!("{}", report.render()));
    for printed in [snapshot::print(&compiled.document), snapshot::complete(&compiled.document)] {
        let again = snapshot::read("again.toml", &printed).unwrap_or_else(|report| panic!("{}", report.render()));
        assert_eq!(again.snapshot.shield, compiled.snapshot.shield, "{printed}");
    }
}
