//! Where TLS that is passed through is led.

use proto::tls::ClientHello;

use super::PoolId;
use crate::snapshot::route::HostPattern;
use crate::snapshot::schema::SniDoc;

/// The rules of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SniTable {
    /// Those that go before others come first.
    rules: Box<[Rule]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    host: HostPattern,
    /// Any, when there is none.
    protocols: Box<[Box<str>]>,
    pool: PoolId,
}

impl SniTable {
    pub(super) fn new(rules: &[SniDoc], pool_id: impl Fn(&str) -> PoolId) -> Self {
        let of = |rule: &SniDoc, host: &HostPattern| Rule {
            host: host.clone(),
            protocols: rule.alpn.0.iter().map(|name| name.0.clone()).collect(),
            pool: pool_id(&rule.pool),
        };
        let mut rules: Vec<Rule> =
            rules.iter().flat_map(|rule| rule.host.0.iter().map(move |host| of(rule, host))).collect();
        // Stable: what is left equal stays in the order of its writing.
        rules.sort_by_key(|rule| (std::cmp::Reverse(exactness(&rule.host)), rule.protocols.is_empty()));
        Self { rules: rules.into() }
    }

    /// The pool of a client that begins so.
    #[must_use]
    pub fn find(&self, hello: &ClientHello<'_>) -> Option<PoolId> {
        let name = hello.server_name.unwrap_or_default().to_ascii_lowercase();
        let offers = |rule: &Rule| rule.protocols.iter().any(|name| hello.protocols.contains(name.as_bytes()));
        let takes = |rule: &&Rule| rule.host.takes(&name) && (rule.protocols.is_empty() || offers(rule));
        self.rules.iter().find(takes).map(|rule| rule.pool)
    }
}

/// A name goes before a pattern, and a longer pattern before a shorter one.
fn exactness(host: &HostPattern) -> (u8, usize) {
    match host {
        HostPattern::Exact(_) => (2, 0),
        HostPattern::Below(name) => (1, name.len()),
        HostPattern::Any => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use proto::tls::read_hello;

    use super::*;

    /// The pool of a client that asks for `name` and offers `protocols`.
    fn find(table: &SniTable, name: &str, protocols: &[&str]) -> Option<u16> {
        let vector = |content: &[u8]| [&(content.len() as u16).to_be_bytes()[..], content].concat();
        let mut extensions = Vec::new();
        if !name.is_empty() {
            let list = vector(&[&[0][..], &vector(name.as_bytes())].concat());
            extensions.extend([&[0, 0][..], &vector(&list)].concat());
        }
        if !protocols.is_empty() {
            let list: Vec<u8> =
                protocols.iter().flat_map(|name| [&[name.len() as u8][..], name.as_bytes()].concat()).collect();
            extensions.extend([&[0, 16][..], &vector(&vector(&list))].concat());
        }
        let body = [&[3, 3][..], &[0; 32], &[0, 0, 2, 0x13, 1, 1, 0], &vector(&extensions)].concat();
        let message = [&[1, 0][..], &vector(&body)].concat();
        let record = [&[22, 3, 1][..], &vector(&message)].concat();
        let mut scratch = Vec::new();
        table.find(&read_hello(&record, &mut scratch).unwrap().unwrap()).map(|pool| pool.0)
    }

    #[test]
    fn the_most_exact_rule_counts() {
        let rule = |host: &str, alpn: &[&str], pool: &str| SniDoc {
            host: crate::snapshot::literal::Listed(vec![host.parse().unwrap()]),
            alpn: crate::snapshot::literal::Listed(alpn.iter().map(|name| name.parse().unwrap()).collect()),
            pool: pool.to_owned(),
        };
        let rules = [
            rule("*", &["acme-tls/1"], "0"),
            rule("*.example", &[], "1"),
            rule("*.b.example", &[], "2"),
            rule("a.b.example", &[], "3"),
            rule("a.b.example", &["h2"], "4"),
        ];
        let table = SniTable::new(&rules, |pool| PoolId(pool.parse().unwrap()));
        for (name, protocols, pool) in [
            ("", &[][..], None),
            ("", &["acme-tls/1"], Some(0)),
            ("example", &[], None),
            ("x.example", &["acme-tls/1"], Some(1)),
            ("b.example", &[], Some(1)),
            ("notb.example", &[], Some(1)),
            ("x.b.example", &[], Some(2)),
            ("a.b.example", &["http/1.1"], Some(3)),
            ("A.b.EXAMPLE", &["http/1.1", "h2"], Some(4)),
            ("x.a.b.example", &["h2"], Some(2)),
        ] {
            assert_eq!(find(&table, name, protocols), pool, "`{name}` {protocols:?}");
        }
    }
}
