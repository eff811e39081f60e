//! `[balance]`, `[[vip]]` and `[decap]` as an operator meets them: what is refused and how, and what is understood.

use penstock::limits;
use penstock::snapshot::{self, Compiled, Forward, Report, Snapshot, Transport, XdpMode};

fn read(more: &str) -> Result<Compiled, Report> {
    let text = format!(
        "[[listen]]\nname = \"web\"\naddr = \":80\"\n[[pool]]\nname = \"api\"\nendpoints = [\"a:1\"]\n[[pool]]\nname = \"far\"\n\
         endpoints = [\"10.0.0.1:80\"]\n[[pool]]\nname = \"local\"\nendpoints = [\"unix:/run/a\"]\n[[route]]\npool = \"api\"\n{more}\n"
    );
    snapshot::read("edge.toml", &text)
}

fn understood(more: &str) -> Snapshot {
    read(more).unwrap_or_else(|report| panic!("{}", report.render())).snapshot
}

const VIP: &str = "[[vip]]\nname = \"v\"\naddr = \"192.0.2.1:443\"\npool = \"far\"\n";

#[test]
fn what_cannot_work_is_refused_once_and_with_advice() {
    let vip = |lines: &str| format!("[balance]\ninterfaces = [\"eth0\"]\n[[vip]]\nname = \"v\"\n{lines}");
    let balance = |lines: &str| format!("[balance]\n{lines}\n{VIP}");
    let decap = |lines: &str| format!("[decap]\ninterfaces = [\"eth0\"]\n{lines}");
    let address = "addr = \"192.0.2.1:443\"";
    let nat = |addresses: &str| {
        format!("[balance]\ninterfaces = [\"eth0\"]\nnat = [{addresses}]\n{}forward = \"nat\"\n", VIP)
    };
    let pool = |endpoints: &str| format!("[[pool]]\nname = \"num\"\nendpoints = [\"{endpoints}\"]\n");
    let numbered = pool("10.0.0.1:443 server=1");
    let quic = |endpoints: &str, more: &str| {
        let lines = format!("{address}\nprotocol = \"udp\"\nquic = true\npool = \"num\"\n");
        vip(&(lines + &pool(endpoints) + more))
    };
    let secrets = "[engine.quic]\nsecrets = \"/etc/penstock/quic\"\n";
    for (lines, message, advice) in [
        (VIP.to_owned(), "[balance] names no interface", "interfaces = [\"eth0\"]"),
        ("[balance]\ninterfaces = [\"eth0\"]".to_owned(), "nothing to balance", "[[vip]]"),
        ("[balance]\nmode = \"native\"".to_owned(), "[balance] stands nowhere", "interfaces = [\"eth0\"]"),
        (balance("interfaces = [\"eth/0\"]"), "`eth/0` is no interface's name", "`ip link`"),
        (balance("interfaces = [\"eth0\", \"eth0\"]"), "the interface `eth0` is there twice", "line "),
        (balance("interfaces = [\"eth0\"]\nsource = \"10.0.0.0/8\""), "one IPv4 and one IPv6 network", "100::/64"),
        (
            format!(
                "[shield]\ninterfaces = [\"eth1\", \"eth0\"]\nmode = \"native\"\n{}",
                balance("interfaces = [\"eth0\"]\nmode = \"generic\"")
            ),
            "`eth0` has the shield in another mode",
            "the mode that [shield] has",
        ),
        (vip(&format!("{address}\npool = \"farr\"")), "there is no pool `farr`", "`far`"),
        (vip("addr = \":443\"\npool = \"far\""), "`:443` is not one address and port", "192.0.2.1:443"),
        (vip("addr = \"0.0.0.0:443\"\npool = \"far\""), "is not one address and port", "192.0.2.1:443"),
        (vip("addr = \"unix:/run/v\"\npool = \"far\""), "is not one address and port", "192.0.2.1:443"),
        (vip(&format!("{address}\npool = \"local\"")), "cannot be sent to a Unix socket", "write an address"),
        (vip(&format!("{address}\nforward = \"nut\"\npool = \"far\"")), "`nut`", "`nat`"),
        (vip(&format!("{address}\nforward = \"nat\"\npool = \"far\"")), "no address of the family", "nat = ["),
        (balance("interfaces = [\"eth0\"]\nnat = \"10.0.0.7\""), "no VIP has forward = \"nat\"", "take `nat` out"),
        (nat("\"10.0.0.0/24\", \"10.0.0.7\""), "`10.0.0.0/24` is a network", "each address"),
        (nat("\"192.0.2.1\""), "`192.0.2.1` is a VIP's", "no other use"),
        (nat("\"10.0.0.7\", \"10.0.0.7\""), "the address `10.0.0.7` is there twice", "line "),
        (
            nat(&(0..17).map(|last| format!("\"10.0.0.{last}\"")).collect::<Vec<_>>().join(", ")),
            "17 addresses",
            "at most 16",
        ),
        (
            format!("{}{}", balance("interfaces = [\"eth0\"]"), VIP.replace("\"v\"", "\"w\"")),
            "the address `192.0.2.1:443/tcp` is there twice",
            "line ",
        ),
        (format!("{}{}", balance("interfaces = [\"eth0\"]"), VIP.replace(":443", ":80")), "the VIP `v`", "line "),
        (
            vip(&format!("{address}\nquic = true\npool = \"num\"\n{numbered}")),
            "QUIC is spoken over UDP",
            "protocol = \"udp\"",
        ),
        (quic("10.0.0.1:443 server=1", ""), "read with their fleet's secrets", "[engine.quic] with secrets"),
        (quic("10.0.0.1:443", secrets), "no endpoint of `num` says which server", "server=1"),
        (quic("10.0.0.1:443 server=1\", \"10.0.0.2:443 server=1", secrets), "the server `1` is there twice", "line "),
        (vip(&format!("{address}\npool = \"num\"\n{numbered}")), "no VIP with this pool reads them", "quic = true"),
        (decap(""), "`addresses` names none", "VIPs"),
        (decap("addresses = \"192.0.2.0/24\""), "`192.0.2.0/24` is a network", "each address"),
        (decap("addresses = \"192.0.2.1\"\nsource = \"100::/64\""), "one IPv4 and one IPv6 network", "100::/64"),
        (
            format!("{}\n{}", balance("interfaces = [\"eth0\"]"), decap("addresses = \"192.0.2.1\"")),
            "`eth0` has the program of [balance] already",
            "take it out",
        ),
    ] {
        let found = match read(&lines) {
            Ok(compiled) => compiled.report.render(),
            Err(report) => report.render(),
        };
        assert!(found.contains(message) && found.contains(advice), "{lines}\n---\n{found}");
        // Pools that this case does not lead to.
        let others = found.matches("nothing leads to the pool").count();
        assert_eq!(found.matches("-->").count() - others, 1, "one problem, said once\n{lines}\n---\n{found}");
    }
}

#[test]
fn the_shield_may_stand_before_either() {
    let shield = "[shield]\ninterfaces = [\"eth0\", \"eth1\"]\nmode = \"native\"";
    for mode in ["auto", "native"] {
        let balance = format!("[balance]\ninterfaces = [\"eth0\"]\nmode = \"{mode}\"");
        let decap = format!("[decap]\ninterfaces = [\"eth1\"]\nmode = \"{mode}\"\naddresses = \"192.0.2.9\"");
        let snapshot = understood(&format!("{shield}\n{balance}\n{decap}\n{VIP}"));
        assert!(snapshot.shield.is_some() && snapshot.balance.is_some() && snapshot.decap.is_some());
    }
}

#[test]
fn there_are_so_many_and_no_more() {
    let with = |count: usize| {
        let vip = |at: usize| {
            format!("[[vip]]\nname = \"v{at}\"\naddr = \"192.0.{}.{}:443\"\npool = \"far\"\n", at / 256, at % 256)
        };
        let vips: String = (0..count).map(vip).collect();
        read(&format!("[balance]\ninterfaces = [\"eth0\"]\n{vips}"))
    };
    assert!(with(limits::VIPS_MAX).is_ok());
    let refused = with(limits::VIPS_MAX + 1).unwrap_err().render();
    assert!(refused.contains("513 of [[vip]]") && refused.contains("at most 512"), "{refused}");
}

#[test]
fn vips_have_no_more_addresses_than_flows_can_name() {
    let with = |count: usize| {
        let half = |vip: usize, count: usize| {
            let addresses = (0..count).map(|at| format!("\"10.{vip}.{}.{}:443\"", at / 256, at % 256));
            let addresses = addresses.collect::<Vec<_>>().join(", ");
            format!("[[vip]]\nname = \"{vip}\"\naddr = [{addresses}]\npool = \"far\"\n")
        };
        let vips = half(1, limits::VIP_ADDRESSES_MAX / 2) + &half(2, count - limits::VIP_ADDRESSES_MAX / 2);
        read(&format!("[balance]\ninterfaces = [\"eth0\"]\n{vips}"))
    };
    assert!(with(limits::VIP_ADDRESSES_MAX).is_ok());
    let refused = with(limits::VIP_ADDRESSES_MAX + 1).unwrap_err().render();
    assert!(refused.contains("VIPs have 16385 addresses") && refused.contains("at most 16384"), "{refused}");
}

#[test]
fn there_is_none_until_it_has_an_interface() {
    let snapshot = understood("");
    assert_eq!((snapshot.balance, snapshot.decap), (None, None));
}

#[test]
fn all_of_it_is_understood() {
    let text = "[engine.quic]\nsecrets = \"/etc/penstock/quic\"\n[[pool]]\nname = \"edges\"\nendpoints = [\"10.0.0.1:443 server=1\", \"10.0.0.2:443 server=2\"]\n\
                [balance]\ninterfaces = [\"eth0\", \"eth1\"]\nmode = \"generic\"\nsource = [\"10.9.0.0/16\", \"fd00::/64\"]\n\
                [decap]\ninterfaces = [\"eth2\"]\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\n\
                [[vip]]\nname = \"web\"\naddr = [\"192.0.2.1:443\", \"[2001:db8::1]:443\"]\nprotocol = \"udp\"\nforward = \"gue\"\npool = \"edges\"\nquic = true\n";
    let compiled = read(&format!("{text}{VIP}").replace("\"192.0.2.1:443\"\npool", "\"192.0.2.9:443\"\npool"));
    let compiled = compiled.unwrap_or_else(|report| panic!("{}", report.render()));
    let balance = compiled.snapshot.balance.clone().expect("a balancer");
    assert_eq!((balance.interfaces.len(), balance.mode), (2, XdpMode::Generic));
    assert_eq!(
        (balance.source.v4.to_string(), balance.source.v6.to_string()),
        ("10.9.0.0/16".into(), "fd00::/64".into())
    );
    let [web, plain] = &*balance.vips else { panic!("two VIPs") };
    assert_eq!((&*web.name, web.addresses.len(), web.protocol, web.forward), ("web", 2, Transport::Udp, Forward::Gue));
    assert_eq!((plain.protocol, plain.forward), (Transport::Tcp, Forward::Ipip));
    assert_eq!(&*compiled.snapshot[web.pool].name, "edges");
    assert_eq!((web.quic, plain.quic), (true, false));
    let decap = compiled.snapshot.decap.clone().expect("a decapsulator");
    assert_eq!((decap.addresses.len(), decap.source.v4.to_string()), (2, "172.16.0.0/16".into()));

    for printed in [snapshot::print(&compiled.document), snapshot::complete(&compiled.document)] {
        let again = snapshot::read("again.toml", &printed).unwrap_or_else(|report| panic!("{}", report.render()));
        assert_eq!(again.snapshot.balance, compiled.snapshot.balance, "{printed}");
        assert_eq!(again.snapshot.decap, compiled.snapshot.decap, "{printed}");
    }
}

/// A pool that only a VIP leads to is nobody's that requests could go to.
#[test]
fn without_routes_requests_go_to_the_pool_that_no_vip_has() {
    let text = format!(
        "[balance]\ninterfaces = [\"eth0\"]\n[[listen]]\nname = \"web\"\naddr = \":80\"\n[[pool]]\nname = \"api\"\nendpoints = [\"a:1\"]\n\
         [[pool]]\nname = \"far\"\nendpoints = [\"10.0.0.1:80\"]\n{VIP}"
    );
    let compiled = snapshot::read("edge.toml", &text).unwrap_or_else(|report| panic!("{}", report.render()));
    assert_eq!(compiled.snapshot.routes.len(), 1);
}

/// Packets can be all that there is to do.
#[test]
fn a_balancer_needs_no_listener() {
    let pool = "[[pool]]\nname = \"far\"\nendpoints = [\"10.0.0.1:80\"]\n";
    let balance = "[balance]\ninterfaces = [\"eth0\"]\n";
    let of = |text: &str| snapshot::read("edge.toml", text).map(|compiled| compiled.snapshot.listeners.len());
    assert_eq!(of(&format!("{balance}{pool}{VIP}")).ok(), Some(0));
    let decap = "[decap]\ninterfaces = [\"eth0\"]\naddresses = \"192.0.2.1\"\n";
    assert_eq!(of(decap).ok(), Some(0));
    for (text, message) in [
        (pool.to_owned(), "`listen` is missing"),
        (format!("listen = []\n{balance}{pool}{VIP}"), "there is no listener"),
        (format!("{balance}{pool}{VIP}[[route]]\npool = \"far\"\n"), "routes have no effect"),
    ] {
        let report = match snapshot::read("edge.toml", &text) {
            Ok(compiled) => compiled.report.render(),
            Err(report) => report.render(),
        };
        assert!(report.contains(message), "{report}");
    }
}
