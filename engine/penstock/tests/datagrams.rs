//! Listeners of datagrams: what they cannot be told, and where that is said.

use penstock::snapshot;

/// A listener and a pool with these lines, and what is said of them.
fn said(listen: &str, pool: &str) -> String {
    let text = format!(
        "[[pool]]\nname = \"dns\"\nendpoints = [\"10.0.0.1:53\"]\n{pool}\n\
         [[listen]]\nname = \"door\"\nprotocol = \"udp\"\n{listen}\n"
    );
    match snapshot::read("edge.toml", &text) {
        Ok(compiled) => compiled.report.render(),
        Err(report) => report.render(),
    }
}

const LED: &str = "pool = \"dns\"\naddr = \":53\"";

#[test]
fn what_datagrams_cannot_have_is_refused() {
    for (listen, pool, why) in [
        ("addr = \":53\"", "", "a udp listener needs a `pool`"),
        ("pool = \"dns\"\naddr = \"unix:/run/x\"", "", "a Unix socket carries no datagrams"),
        (&format!("{LED}\nsni = [{{ host = \"a.test\", pool = \"dns\" }}]"), "", "datagrams are not looked into"),
        (&format!("{LED}\nproxy_protocol.from = \"10.0.0.0/8\""), "", "begin with no PROXY header"),
        (&format!("{LED}\nudp.idle = \"0s\""), "", "cannot be zero"),
        (&format!("{LED}\nudp.replies = 0"), "", "`replies` cannot be 0"),
        (&format!("{LED}\nudp.quic = true\nudp.replies = 1"), "", "no datagram of QUIC has a number of replies"),
        (&format!("{LED}\nalso = \"10.0.0.0/8:*\""), "", "datagrams of `10.0.0.0/8:*` cannot be answered"),
        (&format!("{LED}\ntrusted = \"10.0.0.0/8\""), "", "no effect on a udp listener"),
        (&format!("{LED}\nclass_header = \"x-class\""), "", "a udp listener sees no fields"),
        (LED, "tls.verify = false\ntls.ca = \"system\"", "sends datagrams here, which go without"),
        (LED, "proxy_protocol = \"v2\"", "sends datagrams here, which go without"),
    ] {
        let said = said(listen, pool);
        assert!(said.contains(why), "{listen} {pool}:\n{said}");
    }
    assert_eq!(said(LED, ""), "", "a plain one is well");
}

#[test]
fn a_port_of_tcp_and_one_of_udp_are_two() {
    let tcp = format!("{LED}\n[[listen]]\nname = \"tcp\"\nprotocol = \"tcp\"\n{LED}");
    assert_eq!(said(&tcp, ""), "");
    let twice = format!("{LED}\n[[listen]]\nname = \"again\"\nprotocol = \"udp\"\n{LED}");
    assert!(said(&twice, "").contains("the address `:53` is there twice"), "{}", said(&twice, ""));
    let stray = "addr = \":53\"\npool = \"dns\"\n[[listen]]\nname = \"tcp\"\nprotocol = \"tcp\"\naddr = \":54\"\npool = \"dns\"\nudp.idle = \"1s\"";
    assert!(said(stray, "").contains("`udp.idle` has no effect on a tcp listener"), "{}", said(stray, ""));
}
