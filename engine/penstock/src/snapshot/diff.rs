//! What a new configuration changes of the one that runs.
//!
//! What holds here: a part of the new snapshot continues a part of the old one by what operators know it by: a listener by the addresses that it is
//! bound to, a pool and a route by their names. What cannot change while sockets, programs and threads stand is named, all of it at once.

use std::collections::BTreeSet;

use super::XdpMode;
use super::compile::{Balancer, Fallback, Listener, ListenerId, Pool, PoolId, Retry, Snapshot};
use super::route::RouteId;

/// What a snapshot continues of another one, by its own numbers.
#[derive(Debug, Default)]
pub struct Diff {
    /// Whose sockets a listener takes over; `None`: it is bound anew.
    pub listeners: Box<[Option<ListenerId>]>,
    pub pools: Box<[Kin]>,
    pub routes: Box<[Option<RouteId>]>,
    /// For the operator's eye, each with `+`, `-` or `~` first. Nothing: they say the same.
    pub lines: Vec<String>,
}

/// What a pool is to the one that had its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kin {
    New,
    /// It is met in another way: its connections are made anew.
    Changed(PoolId),
    /// At the most, its endpoints are others, and what requests are granted.
    Same(PoolId),
}

impl Kin {
    /// The pool of its name.
    #[must_use]
    pub const fn of(self) -> Option<PoolId> {
        match self {
            Self::New => None,
            Self::Changed(of) | Self::Same(of) => Some(of),
        }
    }

    /// The pool that goes on in it.
    #[must_use]
    pub const fn same(self) -> Option<PoolId> {
        match self {
            Self::Same(of) => Some(of),
            Self::New | Self::Changed(_) => None,
        }
    }
}

impl Diff {
    /// What `after` changes of `before`.
    ///
    /// # Errors
    /// What stays as it is until the process is started anew, and why.
    pub fn of(before: &Snapshot, after: &Snapshot) -> Result<Self, Vec<String>> {
        let mut diff = Self {
            listeners: listeners(before, after),
            pools: after.pools.iter().map(|pool| kin(before, pool)).collect(),
            routes: after.routes.iter().map(|route| route_named(before, &route.name)).collect(),
            lines: Vec::new(),
        };
        let fixed = fixed(before, after, &diff);
        if !fixed.is_empty() {
            return Err(fixed);
        }
        diff.tell(before, after);
        Ok(diff)
    }

    /// Where pools have other numbers than before, a part that names one is said to have changed: a line too many, and no more.
    fn tell(&mut self, before: &Snapshot, after: &Snapshot) {
        let mut lines = Vec::new();
        if before.engine != after.engine {
            lines.push("~ engine".to_owned());
        }
        if before.classes != after.classes {
            lines.push("~ classes".to_owned());
        }
        let was_there = [before.shield.is_some(), before.balance.is_some(), before.decap.is_some()];
        let is_there = [after.shield.is_some(), after.balance.is_some(), after.decap.is_some()];
        let same = [before.shield == after.shield, before.balance == after.balance, before.decap == after.decap];
        for (at, part) in ["shield", "balance", "decap"].into_iter().enumerate() {
            match (was_there[at], is_there[at], same[at]) {
                (false, true, _) => lines.push(format!("+ {part}")),
                (true, false, _) => lines.push(format!("- {part}")),
                (.., true) => {}
                (.., false) => lines.push(format!("~ {part}")),
            }
        }
        let addresses =
            |listener: &Listener| listener.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        for (listener, of) in after.listeners.iter().zip(&self.listeners) {
            match of {
                None => lines.push(format!("+ listener `{}` ({})", listener.name, addresses(listener))),
                Some(of) if *listener != before[*of] => lines.push(format!("~ listener `{}`", listener.name)),
                Some(_) => {}
            }
        }
        let gone = numbered(&before.listeners).filter(|(at, _)| !self.listeners.contains(&Some(ListenerId(*at))));
        lines.extend(gone.map(|(_, gone)| format!("- listener `{}` ({})", gone.name, addresses(gone))));
        for (pool, kin) in after.pools.iter().zip(&self.pools) {
            let name = &pool.name;
            match kin {
                Kin::New => lines.push(format!("+ pool `{name}`")),
                Kin::Changed(_) => lines.push(format!("~ pool `{name}`: its connections are made anew")),
                Kin::Same(of) => {
                    let was = &before[*of];
                    // Of the sources that an entry names, what they stand for is discovery's affair.
                    let entries = |of: &Pool, other: &Pool, sign: &str| {
                        let only = of.endpoints.iter().filter(|one| !other.endpoints.contains(one));
                        only.map(|one| format!("{sign}{}", one.source)).collect::<Vec<_>>()
                    };
                    let changed = [entries(pool, was, "+"), entries(was, pool, "-")].concat();
                    if !changed.is_empty() {
                        lines.push(format!("~ pool `{name}`: {}", changed.join(" ")));
                    } else if pool != was {
                        lines.push(format!("~ pool `{name}`"));
                    }
                }
            }
        }
        let gone = before.pools.iter().filter(|pool| after.pool_named(&pool.name).is_none());
        lines.extend(gone.map(|gone| format!("- pool `{}`", gone.name)));
        for (at, of) in (0..).map(RouteId).zip(&self.routes) {
            match of {
                None => lines.push(format!("+ route `{}`", after[at].name)),
                Some(of) if *of != at || !is_as_before(before, *of, after, at) => {
                    lines.push(format!("~ route `{}`", after[at].name));
                }
                Some(_) => {}
            }
        }
        let gone = numbered(&before.routes).filter(|(at, _)| !self.routes.contains(&Some(RouteId(*at))));
        lines.extend(gone.map(|(_, gone)| format!("- route `{}`", gone.name)));
        self.lines = lines;
    }
}

/// Whose sockets go on: those that are bound alike.
fn listeners(before: &Snapshot, after: &Snapshot) -> Box<[Option<ListenerId>]> {
    let find = |listener: &Listener| before.listeners.iter().position(|one| one.is_bound_as(listener));
    after.listeners.iter().map(|listener| find(listener).map(|at| ListenerId(at as u16))).collect()
}

fn route_named(snapshot: &Snapshot, name: &str) -> Option<RouteId> {
    snapshot.routes.iter().position(|route| &*route.name == name).map(|at| RouteId(at as u16))
}

fn kin(before: &Snapshot, pool: &Pool) -> Kin {
    let Some(of) = before.pool_named(&pool.name) else { return Kin::New };
    // What is asked of the configuration each time. Clusters, endpoints and probes are made from the rest.
    let was = Pool {
        endpoints: pool.endpoints.clone(),
        host: pool.host.clone(),
        wait: pool.wait,
        fallback: pool.fallback.clone(),
        retry: Retry { budget: before[of].retry.budget, ..pool.retry },
        admission: pool.admission,
        timeouts: pool.timeouts,
        resolve_every: pool.resolve_every,
        ..before[of].clone()
    };
    if was == *pool { Kin::Same(of) } else { Kin::Changed(of) }
}

/// What cannot change while the process runs, and does.
fn fixed(before: &Snapshot, after: &Snapshot, diff: &Diff) -> Vec<String> {
    let (was, is) = (&before.engine, &after.engine);
    let mut fixed: Vec<String> = [
        ("engine.cores", was.cores != is.cores),
        ("engine.driver", was.driver != is.driver),
        ("engine.steering", was.steering != is.steering),
        ("engine.splice", was.splice != is.splice),
        ("engine.spin", was.spin != is.spin),
        ("engine.admin", was.admin != is.admin),
        ("engine.same_host_cgroup", was.same_host_cgroup != is.same_host_cgroup),
        ("engine.quic", was.quic != is.quic),
        ("log.access", before.access_log != after.access_log),
        ("log.qlog", before.qlog != after.qlog),
        ("shield.syn_cookies", !same_cookies(before, after)),
        ("balance and vip", !same_vips(before, after)),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(what, _)| what.to_owned())
    .collect();
    fixed.extend(turned(before, after).map(|interface| format!("where programs of XDP stand on `{interface}`")));
    for (listener, of) in after.listeners.iter().zip(&diff.listeners) {
        let name = &listener.name;
        let also_was = of.map_or(&[][..], |of| &before[of].also);
        if *listener.also != *also_was {
            fixed.push(format!("listen.also of `{name}`"));
        }
        let shares = |one: &Listener| one.addresses.iter().any(|address| listener.addresses.contains(address));
        let taken = before.listeners.iter().find(|one| one.has_datagrams() && shares(one));
        if let (None, true, Some(taken)) = (of, listener.has_datagrams(), taken) {
            fixed.push(format!("the UDP addresses of `{name}`, which `{}` shares in another way", taken.name));
        }
    }
    fixed
}

/// Interfaces on which programs are to stand natively that stand generically, or the other way round: the kernel has not both, nor one after the other without a gap.
fn turned<'a>(before: &'a Snapshot, after: &'a Snapshot) -> impl Iterator<Item = &'a str> {
    let named: BTreeSet<_> =
        before.xdp_interfaces().filter(|name| after.xdp_interfaces().any(|is| is == *name)).collect();
    named.into_iter().filter(|name| {
        let (was, is) = (before.xdp_mode(name), after.xdp_mode(name));
        was != is && was != XdpMode::Auto && is != XdpMode::Auto
    })
}

/// Whether the shield is the same program, where there is one before and after.
fn same_cookies(before: &Snapshot, after: &Snapshot) -> bool {
    let cookies = |snapshot: &Snapshot| snapshot.shield.as_ref().map(|shield| shield.syn_cookies);
    let (was, is) = (cookies(before), cookies(after));
    was.is_none() || is.is_none() || was == is
}

/// Whether VIPs are the same, where there are any before and after. A pool has its name, not its number.
fn same_vips(before: &Snapshot, after: &Snapshot) -> bool {
    let (Some(was), Some(is)) = (&before.balance, &after.balance) else { return true };
    let pools = |balance: &Balancer, snapshot: &Snapshot| {
        balance.vips.iter().map(|vip| snapshot[vip.pool].name.clone()).collect::<Vec<_>>()
    };
    let mut unnumbered = Balancer { interfaces: was.interfaces.clone(), mode: was.mode, ..is.clone() };
    unnumbered.vips.iter_mut().zip(&was.vips).for_each(|(vip, was)| vip.pool = was.pool);
    unnumbered == *was && pools(was, before) == pools(is, after)
}

/// Whether a route says the same, of the same pools.
fn is_as_before(before: &Snapshot, was: RouteId, after: &Snapshot, is: RouteId) -> bool {
    let route = &after[is];
    let fallback = route.breaker.as_ref().and_then(|breaker| breaker.fallback.as_ref());
    let fallback = fallback.and_then(|one| if let Fallback::Pool(target) = one { Some(target.pool) } else { None });
    let mirror = route.mirror.map(|mirror| mirror.target.pool);
    let mut pools = route.targets().iter().map(|target| target.pool).chain(fallback).chain(mirror);
    before[was] == *route && pools.all(|pool| before[pool].name == after[pool].name)
}

fn numbered<T>(all: &[T]) -> impl Iterator<Item = (u16, &T)> {
    (0..).zip(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;

    const FILE: &str = r#"
[[listen]]
name = "web"
addr = "10.0.0.1:80"

[[listen]]
name = "dns"
addr = "10.0.0.1:53"
protocol = "udp"
pool = "dns"

[[pool]]
name = "app"
endpoints = ["10.0.0.2:80", "10.0.0.3:80"]

[[pool]]
name = "dns"
endpoints = ["10.0.0.4:53"]

[[route]]
name = "all"
pool = "app"
"#;

    fn compile(text: &str) -> Snapshot {
        snapshot::read("test", text).unwrap_or_else(|report| panic!("{}", report.render())).snapshot
    }

    fn diff(change: impl Fn(String) -> String) -> Result<Diff, Vec<String>> {
        Diff::of(&compile(FILE), &compile(&change(FILE.to_owned())))
    }

    fn lines(change: impl Fn(String) -> String) -> Vec<String> {
        diff(change).expect("nothing that stays is another").lines
    }

    #[test]
    fn the_same_is_nothing() {
        let diff = diff(|text| format!("# a comment\n{text}")).expect("it is the same");
        assert!(diff.lines.is_empty());
        assert_eq!(*diff.pools, [Kin::Same(PoolId(0)), Kin::Same(PoolId(1))]);
        assert_eq!(
            (&*diff.listeners, &*diff.routes),
            (&[0, 1].map(|at| Some(ListenerId(at)))[..], &[Some(RouteId(0))][..])
        );
    }

    #[test]
    fn parts_are_known_by_addresses_and_names_and_not_by_their_order() {
        let spare =
            "[[pool]]\nname = \"spare\"\nendpoints = [\"10.0.0.9:80\"]\n\n[[listen]]\nname = \"new\"\naddr = \":81\"\n";
        let diff = diff(|text| format!("{spare}{}", text.replace("name = \"web\"", "name = \"www\""))).expect("it may");
        assert_eq!(*diff.pools, [Kin::New, Kin::Same(PoolId(0)), Kin::Same(PoolId(1))]);
        assert_eq!(*diff.listeners, [None, Some(ListenerId(0)), Some(ListenerId(1))]);
        for line in ["+ pool `spare`", "+ listener `new` (:81)", "~ listener `www`"] {
            assert!(diff.lines.iter().any(|told| told == line), "{line}: {:?}", diff.lines);
        }
    }

    #[test]
    fn a_pool_goes_on_with_other_endpoints_and_not_with_other_terms() {
        let app =
            |endpoints: &'static str| lines(move |text| text.replace("\"10.0.0.2:80\", \"10.0.0.3:80\"", endpoints));
        assert_eq!(app("\"10.0.0.3:80\", \"10.0.0.5:80 weight=2\""), ["~ pool `app`: +10.0.0.5:80 -10.0.0.2:80"]);
        assert_eq!(app("\"10.0.0.3:80\", \"10.0.0.2:80\""), ["~ pool `app`"]);
        let fallback = |text: String| text.replace("name = \"app\"", "name = \"app\"\nfallback = { status = 503 }");
        assert_eq!(lines(fallback), ["~ pool `app`"]);
        assert_eq!(diff(fallback).expect("it may").pools[0], Kin::Same(PoolId(0)));
        let patience =
            |text: String| text.replace("name = \"app\"", "name = \"app\"\ntimeout.head = \"7s\"\nconcurrency = 9");
        assert_eq!(diff(patience).expect("it may").pools[0], Kin::Same(PoolId(0)));
        let terms = |text: String| text.replace("name = \"app\"", "name = \"app\"\nreuse.idle = \"7s\"");
        assert_eq!(lines(terms), ["~ pool `app`: its connections are made anew"]);
        assert_eq!(diff(terms).expect("it may").pools[0], Kin::Changed(PoolId(0)));
        let renamed = |text: String| text.replace("\"app\"", "\"api\"");
        assert_eq!(lines(renamed), ["+ pool `api`", "- pool `app`", "~ route `all`"]);
    }

    #[test]
    fn what_stays_is_named_all_at_once() {
        let fixed = diff(|text| {
            format!("[engine]\ncores = \"1\"\nspin = \"off\"\n[log.access]\npath = \"-\"\n{text}")
                .replace("addr = \"10.0.0.1:53\"", "addr = [\"10.0.0.1:53\", \"10.0.0.7:53\"]")
        });
        let fixed = fixed.expect_err("much stays");
        assert_eq!(fixed[..3], ["engine.cores", "engine.spin", "log.access"]);
        assert!(fixed.len() == 4 && fixed[3].contains("UDP addresses of `dns`"), "{fixed:?}");
        // By TCP two sockets may share an address for a moment.
        let more = |text: String| text.replace("addr = \"10.0.0.1:80\"", "addr = [\"10.0.0.1:80\", \"10.0.0.7:80\"]");
        assert_eq!(lines(more), ["+ listener `web` (10.0.0.1:80, 10.0.0.7:80)", "- listener `web` (10.0.0.1:80)"]);
        assert_eq!(lines(|text| format!("[engine]\ndrain_timeout = \"9s\"\n{text}")), ["~ engine"]);
    }
}
