//! The keys of a pool that divide requests: which of them contradict each other, where that is said, and what is only warned of.

use penstock::snapshot;

/// A pool with these lines, and what is said of it.
fn said_of_pool(lines: &str) -> String {
    let text = format!(
        "[[listen]]\nname = \"web\"\naddr = \":8080\"\n[[pool]]\nname = \"api\"\nendpoints = [\"10.0.0.1:80\"]\n{lines}\n"
    );
    match snapshot::read("edge.toml", &text) {
        Ok(compiled) => compiled.report.render(),
        Err(report) => report.render(),
    }
}

#[test]
fn what_divides_requests_must_fit_together() {
    for (lines, at, why) in [
        ("balance = \"ring\"", "7:", "needs something to tell requests by"),
        ("hash = \"path\"", "7:", "only `ring` and `maglev` look at it"),
        ("balance = \"maglev\"\nhash = \"host\"", "8:8", "nothing to tell requests by"),
        ("sticky = { cookie = \"at\", header = \"x\" }", "7:", "known by `cookie` already"),
        ("balance = \"ring\"\nhash = \"path\"\nsticky = { header = \"x\" }", "9:", "the pool hashes already"),
        ("sticky = { header = \"a b\" }", "7:", "no name of a field"),
        ("sticky = { cookie = \"a;b\" }", "7:", "no name of a cookie"),
        ("sticky = { cookie = \"at\", path = \"x\" }", "7:", "no path of a cookie"),
        ("sticky = { cookie = \"at\", path = \"/; Secure\" }", "7:", "no path of a cookie"),
        ("sticky = { cookie = \"at\", domain = \"a;b\" }", "7:", "no domain"),
        ("sticky = { cookie = \"at\", ttl = \"1s\" }", "7:", "ends after 1s"),
        ("sticky = { cookie = \"at\", same_site = \"none\" }", "7:", "may travel in the clear"),
        ("sticky = { cookie = \"__Host-at\", secure = true, domain = \"a.b\" }", "7:", "browsers refuse this name"),
        ("sticky = { cookie = \"at\", secret = \"hunter2\" }", "7:", "not where a secret is"),
        ("limits = { requests = 0 }", "7:", "lets nothing through"),
        ("spread = { choices = 1 }", "7:", "`choices` cannot be 1"),
        ("spread = { overprovision = \"90%\" }", "7:", "not such a share"),
        ("reuse = { warm = 4, max_idle = 2 }", "7:", "4 connections are made ready, and 2 are kept"),
        ("reuse = { warm = 4 }\nlimits = { connections = 3 }", "7:", "more connections are made ready"),
        ("reuse = { warm = 4 }\nproxy_protocol = \"v2\"", "7:", "belongs to one client"),
        ("reuse = { max_age = \"0s\" }", "7:", "cannot be zero"),
        ("protocol = \"h3\"", "7:", "HTTP/3 is never without TLS"),
        ("protocol = \"h3\"\ntls.verify = false\nhealth = { expect = \"220\" }", "9:", "do not go over HTTP/3"),
        ("protocol = \"h3\"\ntls.verify = false\nproxy_protocol = \"v2\"", "9:", "carries many"),
    ] {
        let said = said_of_pool(lines);
        assert!(said.contains("error[E0") && said.contains(why), "{lines}:\n{said}");
        assert!(said.contains(&format!("edge.toml:{at}")), "{lines}: at {at}\n{said}");
    }
}

#[test]
fn what_has_no_effect_and_what_does_not_last_is_told() {
    for (lines, why) in [
        ("spread = { table_size = 101 }", "only `maglev` looks at it"),
        ("spread = { bound = \"125%\" }", "only a policy that hashes looks at it"),
        ("sticky = { client_address = true, ttl = \"1h\" }", "`ttl` belongs to a cookie"),
        ("sticky = { cookie = \"at\" }", "a restart and other machines do not know them"),
    ] {
        let said = said_of_pool(lines);
        assert!(said.contains("warning[W10") && said.contains(why), "{lines}:\n{said}");
    }
    for lines in [
        "balance = \"ring\"\nhash = \"client-address\"\nspread = { bound = \"off\" }",
        "balance = \"maglev\"\nhash = \"cookie:user\"\nspread = { table_size = 101 }",
        "sticky = { cookie = \"__Host-at\", secure = true, same_site = \"none\", secret = \"env:S\", ttl = \"1h\" }",
        "slow_start = \"30s\"\nlimits = { requests = 9, connections = 9 }\nreuse = { warm = 3, max_age = \"10m\" }",
    ] {
        assert_eq!(said_of_pool(lines), "", "{lines}");
    }
}
