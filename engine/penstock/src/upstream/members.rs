//! Who is in a pool: the lists that the control thread makes and every worker follows.
//!
//! ```text
//! sources (an entry of `endpoints` each) ──found──► Roster ──Members, whole lists──► mailboxes ──► Cluster::follow
//! ```
//!
//! What holds here: a list is replaced as a whole and never changed; an endpoint is known by its name, and one that stays
//! keeps what the process knows of it; no finding empties a list that had somebody in it. Belongs to the control
//! thread; workers see lists, never the roster.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use policy::Now;

use super::list::Maker;
use super::{Admin, EndpointShared, Members, Seals, discovery};
use crate::limits;
use crate::snapshot::{CookieRule, Endpoint, EndpointLimits, Kin, Pool, PoolId, Secret, Snapshot, Stickiness};
use crate::tls::Watched;

/// One endpoint of a list.
#[derive(Clone, Debug)]
pub struct Member {
    /// What operators know it by; it names the endpoint in this pool.
    pub name: Arc<str>,
    /// What it is called in requests to it: host and port, as they were written or found.
    pub authority: Box<str>,
    /// Several are tried in turn; none while its name stands for nothing yet.
    pub addresses: Box<[ring::Address]>,
    /// The operator's, or else the one it was found with.
    pub weight: u32,
    pub tier: u8,
    /// Its own, in place of the pool's.
    pub limits: EndpointLimits,
    /// Which machine it is in ids of QUIC connections.
    pub server: Option<u16>,
    pub shared: Arc<EndpointShared>,
}

/// An endpoint as its source tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: Box<str>,
    pub authority: Box<str>,
    pub addresses: Box<[ring::Address]>,
    pub weight: u32,
    pub tier: u8,
    pub limits: EndpointLimits,
    pub server: Option<u16>,
}

/// Everything that one entry of a pool's `endpoints` stands for now.
#[derive(Clone, Debug)]
pub struct Finding {
    pub pool: PoolId,
    /// Which entry.
    pub source: usize,
    pub found: Vec<Found>,
}

/// Every pool's list, and what it is made from.
#[derive(Debug)]
pub struct Roster {
    pools: Vec<Roll>,
    workers: usize,
}

#[derive(Debug)]
struct Roll {
    maker: Maker,
    sources: Box<[Vec<Found>]>,
    members: Members,
    /// The files of its sticky cookie's secrets.
    secrets: Watched,
    /// What the operator said of an endpoint, by its name: it holds for one that left and comes back.
    orders: HashMap<Arc<str>, Admin>,
}

impl Roster {
    /// What the configuration says by itself: names stand for nothing yet.
    #[must_use]
    pub fn new(snapshot: &Snapshot, workers: usize, now: Now) -> Self {
        let mut pools: Vec<Roll> = snapshot.pools.iter().map(|pool| Roll::new(pool, workers)).collect();
        for roll in &mut pools {
            roll.call(workers, now);
        }
        Self { pools, workers }
    }

    /// Of a new configuration: endpoints of pools that go on are who they were, with the operator's word on them, and what entries
    /// stood for stays until something else is found.
    #[must_use]
    pub fn succeed(&self, before: &Snapshot, after: &Snapshot, kin: &[Kin], now: Now) -> Self {
        let rolls = after.pools.iter().zip(kin).map(|(pool, kin)| {
            let of = kin.of().and_then(|of| Some((&before[of], self.pools.get(usize::from(of.0))?)));
            let mut roll = match of {
                Some((was, roll)) => roll.succeed(was, pool, kin.same().is_some(), self.workers),
                None => Roll::new(pool, self.workers),
            };
            roll.call(self.workers, now);
            roll
        });
        Self { pools: rolls.collect(), workers: self.workers }
    }

    /// Some entry stands for nothing yet.
    #[must_use]
    pub fn lacks_somebody(&self) -> bool {
        self.pools.iter().flat_map(|roll| &roll.sources).flatten().any(|found| found.addresses.is_empty())
    }

    /// Reads the secrets of sticky cookies. Before that there are none.
    ///
    /// # Errors
    /// One that is not to be had, named.
    pub fn sign(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        for (roll, pool) in self.pools.iter_mut().zip(&snapshot.pools) {
            if let Stickiness::Cookie(rule) = &pool.division.sticky {
                // Made before they are read: a change in between is seen by the next look.
                roll.secrets = Watched::new(files(rule));
                roll.sign(rule)?;
            }
        }
        Ok(())
    }

    /// Secrets whose files have changed are read anew. Gives the pools that they belong to, whose lists are others then, and what went
    /// wrong: what was read before stays then.
    pub fn look_at_secrets(&mut self, snapshot: &Snapshot) -> Vec<(PoolId, io::Result<()>)> {
        let mut changed = Vec::new();
        for (at, (roll, pool)) in self.pools.iter_mut().zip(&snapshot.pools).enumerate() {
            if let Stickiness::Cookie(rule) = &pool.division.sticky
                && roll.secrets.have_changed(files(rule))
            {
                changed.push((PoolId(at as u16), roll.sign(rule)));
            }
        }
        changed
    }

    /// The list of each pool, in the snapshot's order.
    pub fn pools(&self) -> impl Iterator<Item = &Members> {
        self.pools.iter().map(|roll| &roll.members)
    }

    /// The list of a pool; empty for one that is not there.
    #[must_use]
    pub fn members(&self, pool: PoolId) -> Members {
        self.pools.get(usize::from(pool.0)).map_or_else(Members::default, |roll| roll.members.clone())
    }

    /// Takes in what a source stands for now; true when the pool's list has changed by it. Nothing found changes nothing.
    pub fn take(&mut self, finding: Finding, now: Now) -> bool {
        let Some(roll) = self.pools.get_mut(usize::from(finding.pool.0)) else { return false };
        match roll.sources.get_mut(finding.source) {
            Some(source) if !finding.found.is_empty() => *source = finding.found,
            _ => return false,
        }
        roll.call(self.workers, now)
    }

    /// Takes in several, for lists that nobody has been told of yet.
    pub fn take_all(&mut self, findings: Vec<Finding>, now: Now) {
        for finding in findings {
            self.take(finding, now);
        }
    }

    /// The operator's word on an endpoint, from now on and until the process ends; `None` when the pool has none of that name.
    /// True when the list has changed by it, which only a weight does: the rest is read from the endpoint itself.
    pub fn set_admin(&mut self, pool: PoolId, name: &str, admin: Admin, now: Now) -> Option<bool> {
        let roll = self.pools.get_mut(usize::from(pool.0))?;
        let member = roll.members.iter().find(|member| &*member.name == name)?;
        member.shared.set_admin(admin);
        roll.remember(Arc::clone(&member.name), admin);
        Some(roll.call(self.workers, now))
    }
}

impl Roll {
    fn new(pool: &Pool, workers: usize) -> Self {
        let sources = pool.endpoints.iter().map(|endpoint| vec![discovery::one(endpoint)]).collect();
        let maker = Maker::new(pool, workers);
        Self { maker, sources, members: Members::default(), secrets: Watched::default(), orders: HashMap::new() }
    }

    /// The same pool in a new configuration; `same`: it is met as before.
    fn succeed(&self, was: &Pool, is: &Pool, same: bool, workers: usize) -> Self {
        let found = |endpoint: &Endpoint| {
            let known = was.endpoints.iter().position(|one| one == endpoint).and_then(|at| self.sources.get(at));
            known.cloned().unwrap_or_else(|| vec![discovery::one(endpoint)])
        };
        let maker = if same { self.maker.clone() } else { Maker::new(is, workers) };
        let heir = |member: &Member| Member { shared: Arc::new(member.shared.heir()), ..member.clone() };
        let members = if same { self.members.clone() } else { maker.make(self.members.iter().map(heir).collect()) };
        let sources = is.endpoints.iter().map(found).collect();
        Self { maker, sources, members, secrets: Watched::default(), orders: self.orders.clone() }
    }

    fn sign(&mut self, rule: &CookieRule) -> io::Result<()> {
        self.maker.seals = Some(Seals::of(&rule.secrets)?);
        self.members = self.maker.make(self.members.to_vec());
        Ok(())
    }

    fn remember(&mut self, name: Arc<str>, admin: Admin) {
        self.orders.remove(&name);
        if admin == Admin::default() {
            return;
        }
        // Names that come and go for ever must not grow it for ever: who has left is forgotten first.
        if self.orders.len() >= limits::ENDPOINTS_MAX {
            let members = &self.members;
            self.orders.retain(|name, _| members.iter().any(|member| member.name == *name));
        }
        self.orders.insert(name, admin);
    }

    /// Makes the list anew; true when it says something else than before.
    fn call(&mut self, workers: usize, now: Now) -> bool {
        let known: HashMap<&str, &Member> = self.members.iter().map(|member| (&*member.name, member)).collect();
        let mut named = HashSet::new();
        // Those of a pool that could serve nothing so far have nobody to take their share meanwhile: they start at once.
        let serves = self.members.iter().any(|member| !member.addresses.is_empty());
        let ready_since = if serves { now } else { Now::ZERO };
        // Two sources may find the same endpoint: the first one speaks for it.
        let found = self.sources.iter().flatten().filter(|found| named.insert(&*found.name));
        let members: Vec<Member> = found
            .take(limits::ENDPOINTS_MAX)
            .map(|found| found.enlist(known.get(&*found.name), self.orders.get(&*found.name), workers, ready_since))
            .collect();
        let same = self.members.len() == members.len()
            && self.members.iter().zip(&members).all(|(before, member)| before.says_the_same(member));
        if !same {
            let count = self.sources.iter().map(Vec::len).sum::<usize>();
            if count > limits::ENDPOINTS_MAX && members.len() == limits::ENDPOINTS_MAX {
                eprintln!(
                    "penstock: pool `{}`: {count} endpoints found, only {} are used",
                    self.maker.pool,
                    members.len()
                );
            }
            self.members = self.maker.make(members);
        }
        !same
    }
}

/// Those of a cookie's secrets that are in files.
fn files(rule: &CookieRule) -> impl Iterator<Item = &Path> {
    rule.secrets.iter().filter_map(|secret| if let Secret::File(path) = secret { Some(path.as_path()) } else { None })
}

impl Found {
    /// As what is known of it already, or as a newcomer.
    fn enlist(&self, known: Option<&&Member>, order: Option<&Admin>, workers: usize, ready_since: Now) -> Member {
        let (name, shared) = match known {
            Some(member) => (Arc::clone(&member.name), Arc::clone(&member.shared)),
            None => (Arc::from(&*self.name), Arc::new(EndpointShared::new(workers, ready_since))),
        };
        if let (None, Some(order)) = (known, order) {
            shared.set_admin(*order);
        }
        let weight = shared.admin().weight.unwrap_or(self.weight);
        let (authority, addresses) = (self.authority.clone(), self.addresses.clone());
        Member { name, authority, addresses, weight, tier: self.tier, limits: self.limits, server: self.server, shared }
    }
}

impl Member {
    fn says_the_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
            && self.addresses == other.addresses
            && (self.weight, self.tier, self.limits, self.server)
                == (other.weight, other.tier, other.limits, other.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;

    const POOL: PoolId = PoolId(0);

    fn roster(endpoints: &str) -> Roster {
        let text =
            format!("[[listen]]\nname = \"l\"\naddr = \":1\"\n[[pool]]\nname = \"p\"\nendpoints = [{endpoints}]\n");
        let compiled = snapshot::read("test", &text).unwrap_or_else(|report| panic!("{}", report.render()));
        Roster::new(&compiled.snapshot, 2, Now::ZERO)
    }

    fn found(names: &[(&str, u32)]) -> Vec<Found> {
        let found = |&(name, weight): &(&str, u32)| Found {
            name: name.into(),
            authority: name.into(),
            addresses: [ring::Address::Inet(name.parse().unwrap())].into(),
            weight,
            tier: 0,
            limits: EndpointLimits::default(),
            server: None,
        };
        names.iter().map(found).collect()
    }

    fn take(roster: &mut Roster, source: usize, names: &[(&str, u32)]) -> bool {
        roster.take(Finding { pool: POOL, source, found: found(names) }, Now::from_secs(9))
    }

    fn shown(roster: &Roster) -> String {
        let members = roster.members(POOL);
        members.iter().map(|member| format!("{}*{} ", member.name, member.weight)).collect()
    }

    #[test]
    fn who_stays_keeps_what_is_known_of_it_and_who_joins_begins_anew() {
        let mut roster = roster("\"a:1\", \"10.0.0.1:1 weight=3\"");
        assert_eq!(shown(&roster), "a:1*1 10.0.0.1:1*3 ");
        assert!(take(&mut roster, 0, &[("10.1.0.1:1", 1), ("10.1.0.2:1", 1)]));
        let before = roster.members(POOL);
        assert!(take(&mut roster, 0, &[("10.1.0.2:1", 5), ("10.1.0.3:1", 1)]));
        assert_eq!(shown(&roster), "10.1.0.2:1*5 10.1.0.3:1*1 10.0.0.1:1*3 ");
        let after = roster.members(POOL);
        assert!(Arc::ptr_eq(&before[1].shared, &after[0].shared) && Arc::ptr_eq(&before[2].shared, &after[2].shared));
        assert_eq!((after[1].shared.ready_since(), after[2].shared.ready_since()), (Now::from_secs(9), Now::ZERO));
    }

    #[test]
    fn nothing_new_and_nothing_found_change_nothing() {
        let mut roster = roster("\"a:1\"");
        assert!(take(&mut roster, 0, &[("10.1.0.1:1", 1)]));
        assert!(!take(&mut roster, 0, &[("10.1.0.1:1", 1)]));
        assert!(!take(&mut roster, 0, &[]));
        assert!(!take(&mut roster, 7, &[("10.1.0.2:1", 1)]));
        assert_eq!(shown(&roster), "10.1.0.1:1*1 ");
    }

    #[test]
    fn two_sources_of_one_endpoint_make_one() {
        let mut roster = roster("\"a:1\", \"b:1\"");
        assert!(take(&mut roster, 0, &[("10.1.0.1:1", 2)]));
        assert!(take(&mut roster, 1, &[("10.1.0.1:1", 9), ("10.1.0.2:1", 1)]));
        assert_eq!(shown(&roster), "10.1.0.1:1*2 10.1.0.2:1*1 ");
    }

    #[test]
    fn the_operators_weight_outlives_new_lists() {
        let mut roster = roster("\"a:1\"");
        assert!(take(&mut roster, 0, &[("10.1.0.1:1", 1), ("10.1.0.2:1", 1)]));
        let admin = Admin { weight: Some(7), ..Admin::default() };
        assert_eq!(roster.set_admin(POOL, "10.1.0.1:1", admin, Now::ZERO), Some(true));
        assert_eq!(roster.set_admin(POOL, "nobody", admin, Now::ZERO), None);
        assert!(take(&mut roster, 0, &[("10.1.0.1:1", 2)]));
        assert_eq!(shown(&roster), "10.1.0.1:1*7 ");
        let drain = Admin { state: super::super::AdminState::Drain, ..admin };
        assert_eq!(roster.set_admin(POOL, "10.1.0.1:1", drain, Now::ZERO), Some(false));
        assert!(!roster.members(POOL)[0].shared.admits());
        assert!(take(&mut roster, 0, &[("10.1.0.2:1", 1)]) && take(&mut roster, 0, &[("10.1.0.1:1", 1)]));
        assert_eq!(shown(&roster), "10.1.0.1:1*7 ", "it left and came back");
        assert_eq!(roster.members(POOL)[0].shared.admin(), drain);
    }
}
