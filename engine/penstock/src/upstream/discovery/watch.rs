//! One entry of a pool's `endpoints`, or one line of an endpoint file: what it stands for, and when to look again.
//!
//! What holds here: what was found is kept until something else is found, so no failure and no empty answer takes an endpoint
//! away; a look says when the next one is due, never sooner than [`limits::RESOLVE_EVERY_MIN`] for a name. Time and chance
//! are arguments.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use policy::Random;
use ring::Now;

use super::super::{Found, literal};
use super::file::{self, Stamp};
use super::message::{Kind, Service};
use super::resolver::{Addresses, Names, Trouble};
use crate::limits;
use crate::snapshot::{Address, Endpoint, EndpointLimits, Host, Source};

pub(super) struct Watch {
    entry: Endpoint,
    what: What,
    /// The longest that a name is believed.
    every: Duration,
    /// What it stands for, as of the last good look.
    pub(super) found: Vec<Found>,
    pub(super) due: Now,
    /// Why the last look failed.
    pub(super) trouble: Option<String>,
    /// Looks that failed since the last good one.
    failures: u32,
}

enum What {
    Literal,
    /// With what it stood for last.
    Name {
        name: Box<str>,
        port: u16,
        known: Addresses,
    },
    /// With what its targets stood for when they last did.
    Srv {
        name: Box<str>,
        targets: HashMap<Box<str>, Addresses>,
    },
    File(EndpointFile),
}

struct EndpointFile {
    path: PathBuf,
    /// The state of it that was read last.
    read: Option<Stamp>,
    /// A newer one that is read when it stands still.
    seen: Option<Stamp>,
    wrong: Option<String>,
    lines: Vec<Watch>,
}

impl Watch {
    pub(super) fn new(entry: &Endpoint, every: Duration) -> Self {
        let what = match &entry.source {
            Source::Address(Address::Tcp { host: Host::Name(name), port }) => {
                What::Name { name: name.clone(), port: *port, known: Addresses::default() }
            }
            Source::Address(_) => What::Literal,
            Source::Srv(name) => What::Srv { name: name.clone(), targets: HashMap::new() },
            Source::File(path) => What::File(EndpointFile::new(path.clone())),
        };
        let found = if entry.source.is_literal() { vec![one(entry)] } else { Vec::new() };
        Self { entry: entry.clone(), what, every, found, due: Now::default(), trouble: None, failures: 0 }
    }

    /// Looks what it stands for now.
    pub(super) fn look(&mut self, names: &dyn Names, random: &mut Random, now: Now) {
        let (entry, every) = (&self.entry, self.every);
        match &mut self.what {
            What::Literal => self.due = Now::NEVER,
            What::Name { name, port, known } => {
                let answer = names.addresses(name).map(|addresses| {
                    known.renew(addresses);
                    let ttl = known.ttl.unwrap_or(every);
                    (found(name, *port, known, entry.weight, entry.tier), ttl)
                });
                self.learn(answer, random, now);
            }
            What::Srv { name, targets } => {
                let answer = services(name, targets, entry.tier, every, names);
                self.learn(answer, random, now);
            }
            What::File(file) => {
                let next = file.look(every, names, random, now);
                let found = file.found(entry.tier);
                if !found.is_empty() {
                    self.found = found;
                }
                self.trouble = file.trouble();
                self.due = next;
            }
        }
        // A line of a file may have limits of its own.
        let limits = self.entry.limits;
        self.found.iter_mut().for_each(|found| found.limits = found.limits.or(limits));
    }

    fn learn(&mut self, answer: Result<(Vec<Found>, Duration), Trouble>, random: &mut Random, now: Now) {
        let wait = match answer {
            Ok((found, ttl)) => {
                (self.found, self.trouble, self.failures) = (found, None, 0);
                ttl.min(self.every)
            }
            Err(trouble) => {
                self.trouble = Some(trouble.to_string());
                self.failures = self.failures.saturating_add(1);
                // A server in trouble is asked ever less often, until as often as a healthy one.
                let patience = limits::RESOLVE_EVERY_MIN.saturating_mul(1 << (self.failures - 1).min(16));
                patience.min(self.every)
            }
        };
        // Up to a tenth sooner, so that names which were asked for together do not stay together.
        let jittered = wait.mul_f64(1.0 - random.unit() / 10.0);
        self.due = now + jittered.max(limits::RESOLVE_EVERY_MIN);
    }
}

impl EndpointFile {
    fn new(path: PathBuf) -> Self {
        Self { path, read: None, seen: None, wrong: None, lines: Vec::new() }
    }

    /// Reads the file if it has changed, looks at the lines that are due, and says when to come back.
    fn look(&mut self, every: Duration, names: &dyn Names, random: &mut Random, now: Now) -> Now {
        let mut next = now + limits::FILE_EVERY;
        match Stamp::of(&self.path) {
            Err(error) => (self.read, self.wrong) = (None, Some(error.to_string())),
            Ok(stamp) if self.read == Some(stamp) => self.seen = None,
            // At the very start there is no better list to wait with. Otherwise somebody may be writing to it.
            Ok(stamp) if self.seen == Some(stamp) || self.read.is_none() && self.wrong.is_none() => {
                (self.read, self.seen) = (Some(stamp), None);
                match file::entries(&self.path) {
                    Ok(entries) => self.adopt(&entries, every),
                    Err(wrong) => self.wrong = Some(wrong),
                }
            }
            Ok(stamp) => {
                self.seen = Some(stamp);
                next = now + limits::FILE_SETTLES;
            }
        }
        for line in self.lines.iter_mut().filter(|line| line.due <= now) {
            line.look(names, random, now);
        }
        self.lines.iter().map(|line| line.due).min().map_or(next, |due| due.min(next))
    }

    /// Lines that stay keep what they have found.
    fn adopt(&mut self, entries: &[Endpoint], every: Duration) {
        let before = self.lines.drain(..).map(|line| (line.entry.clone(), line));
        let mut before: HashMap<Endpoint, Watch> = before.collect();
        let line = |entry| before.remove(entry).unwrap_or_else(|| Watch::new(entry, every));
        self.lines = entries.iter().map(line).collect();
        self.wrong = None;
    }

    fn found(&self, tier: u8) -> Vec<Found> {
        let found = self.lines.iter().flat_map(|line| &line.found);
        found.map(|found| Found { tier: found.tier.saturating_add(tier), ..found.clone() }).collect()
    }

    fn trouble(&self) -> Option<String> {
        let of_lines = || {
            let mut lines = self.lines.iter().filter_map(|line| Some((&line.entry.source, line.trouble.as_ref()?)));
            lines.next().map(|(source, trouble)| format!("`{source}`: {trouble}"))
        };
        self.wrong.clone().or_else(of_lines)
    }
}

impl Addresses {
    /// Takes a newer answer. Addresses of a family that it is silent about stay.
    fn renew(&mut self, newer: Self) {
        let before = std::mem::replace(self, newer);
        if let Some(kind) = self.unheard {
            self.ips.extend(before.ips.iter().filter(|ip| ip.is_ipv4() == (kind == Kind::A)));
            self.ips.sort_unstable();
        }
    }
}

/// Every address of every target. One whose name is in trouble keeps what it stood for.
fn services(
    name: &str,
    known: &mut HashMap<Box<str>, Addresses>,
    tier: u8,
    every: Duration,
    names: &dyn Names,
) -> Result<(Vec<Found>, Duration), Trouble> {
    let services = names.services(name)?;
    let (mut all, mut ttl, mut trouble) = (Vec::new(), services.ttl, None);
    known.retain(|target, _| services.found.iter().any(|service| service.target == *target));
    let mut asked: HashMap<&str, Option<Addresses>> = HashMap::new();
    for (service, rank) in services.found.iter().zip(ranks(&services.found)) {
        let addresses = asked.entry(&service.target).or_insert_with(|| match names.addresses(&service.target) {
            Ok(addresses) => {
                let known = known.entry(service.target.clone()).or_default();
                known.renew(addresses);
                Some(known.clone())
            }
            Err(why) => {
                trouble = Some(why);
                known.get(&service.target).cloned()
            }
        });
        let Some(addresses) = addresses else { continue };
        ttl = ttl.min(addresses.ttl.unwrap_or(every));
        let weight = u32::from(service.weight).max(1);
        all.extend(found(&service.target, service.port, addresses, weight, tier.saturating_add(rank)));
    }
    match trouble {
        Some(trouble) if all.is_empty() => Err(trouble),
        _ => Ok((all, ttl)),
    }
}

/// The priorities' order as tiers: 0 for the lowest. Sorted, as services are.
fn ranks(services: &[Service]) -> impl Iterator<Item = u8> {
    services.iter().scan((None, 0_u8), |(before, rank), service| {
        *rank = rank.saturating_add(u8::from(before.is_some_and(|before| before != service.priority)));
        *before = Some(service.priority);
        Some(*rank)
    })
}

/// An endpoint for each record, called `host:port/address`; one for the addresses that the host's own table has for a name.
fn found(name: &str, port: u16, addresses: &Addresses, weight: u32, tier: u8) -> Vec<Found> {
    let authority: Box<str> = format!("{name}:{port}").into();
    let inet = |ip: &IpAddr| ring::Address::Inet(SocketAddr::new(*ip, port));
    if addresses.is_one {
        let addresses = addresses.ips.iter().map(inet).collect();
        return vec![Found {
            name: authority.clone(),
            authority,
            addresses,
            weight,
            tier,
            limits: EndpointLimits::default(),
            server: None,
        }];
    }
    let each = addresses.ips.iter().map(|ip| Found {
        name: format!("{authority}/{ip}").into(),
        authority: authority.clone(),
        addresses: [inet(ip)].into(),
        weight,
        tier,
        limits: EndpointLimits::default(),
        server: None,
    });
    each.collect()
}

/// An entry as its own endpoint; without an address when it stands for others that are not known yet.
pub(in super::super) fn one(entry: &Endpoint) -> Found {
    let name: Box<str> = entry.source.to_string().into();
    let addresses = match &entry.source {
        Source::Address(address) => literal(address).into(),
        Source::Srv(_) | Source::File(_) => Box::default(),
    };
    Found {
        authority: name.clone(),
        name,
        addresses,
        weight: entry.weight,
        tier: entry.tier,
        limits: entry.limits,
        server: entry.server,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::fs;

    use super::super::resolver::Services;
    use super::*;

    /// Answers by name; asked for others, it fails.
    #[derive(Default)]
    struct Book {
        addresses: RefCell<HashMap<&'static str, (Vec<&'static str>, u64)>>,
        services: RefCell<Vec<(u16, u16, u16, &'static str)>>,
        unheard: Cell<Option<Kind>>,
    }

    impl Book {
        fn set(&self, name: &'static str, ips: &[&'static str], ttl: u64) {
            self.addresses.borrow_mut().insert(name, (ips.to_vec(), ttl));
        }
    }

    impl Names for Book {
        fn addresses(&self, name: &str) -> Result<Addresses, Trouble> {
            let book = self.addresses.borrow();
            let (ips, ttl) = book.get(name).ok_or(Trouble::NoSuchName)?;
            let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            Ok(Addresses {
                ips,
                ttl: Some(Duration::from_secs(*ttl)),
                unheard: self.unheard.get(),
                ..Addresses::default()
            })
        }

        fn services(&self, _: &str) -> Result<Services, Trouble> {
            let service = |&(priority, weight, port, target): &(u16, u16, u16, &str)| Service {
                priority,
                weight,
                port,
                target: target.into(),
            };
            let found: Vec<Service> = self.services.borrow().iter().map(service).collect();
            if found.is_empty() {
                Err(Trouble::NoRecords)
            } else {
                Ok(Services { found, ttl: Duration::from_secs(30) })
            }
        }
    }

    const EVERY: Duration = Duration::from_secs(100);

    fn watch(entry: &str) -> Watch {
        Watch::new(&entry.parse().unwrap(), EVERY)
    }

    /// Looks when it is due; returns how long that was after `now`, in seconds.
    fn look(watch: &mut Watch, book: &Book, now: &mut Now) -> f64 {
        *now = (*now).max(watch.due);
        watch.look(book, &mut Random::new(1), *now);
        watch.due.since(*now).as_secs_f64()
    }

    fn shown(watch: &Watch) -> String {
        let each = watch.found.iter().map(|found| format!("{}*{}@{}", found.name, found.weight, found.tier));
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_is_each_of_its_records_for_as_long_as_they_live() {
        let (book, mut now) = (Book::default(), Now::from_nanos(1));
        let mut watch = watch("web.a:80 weight=3 tier=1");
        for (ttl, least, most) in [(30, 27.0, 30.0), (0, 1.0, 1.0), (5_000, 90.0, 100.0)] {
            book.set("web.a", &["10.0.0.1", "fd00::1"], ttl);
            let waits = look(&mut watch, &book, &mut now);
            assert!((least..=most).contains(&waits), "TTL {ttl}: {waits}");
            assert_eq!(shown(&watch), "web.a:80/10.0.0.1*3@1 web.a:80/fd00::1*3@1");
        }
        assert!(watch.found.iter().all(|found| &*found.authority == "web.a:80"));
    }

    #[test]
    fn what_was_found_outlives_trouble_and_trouble_is_asked_about_ever_less_often() {
        let (book, mut now) = (Book::default(), Now::from_nanos(1));
        let mut watch = watch("web.a:80");
        book.set("web.a", &["10.0.0.1"], 30);
        look(&mut watch, &book, &mut now);
        book.addresses.borrow_mut().clear();
        let waits: Vec<u64> = (0..9).map(|_| look(&mut watch, &book, &mut now).ceil() as u64).collect();
        assert!(waits.is_sorted() && waits[0] == 1 && (90..=100).contains(&waits[8]), "{waits:?}");
        assert_eq!(
            (shown(&watch).as_str(), watch.trouble.as_deref()),
            ("web.a:80/10.0.0.1*1@0", Some("there is no such name"))
        );
        book.set("web.a", &["10.0.0.2"], 30);
        look(&mut watch, &book, &mut now);
        assert_eq!((shown(&watch).as_str(), watch.trouble.as_deref()), ("web.a:80/10.0.0.2*1@0", None));
    }

    #[test]
    fn a_family_that_nobody_answers_for_stays_as_it_was() {
        let (book, mut now) = (Book::default(), Now::from_nanos(1));
        let mut watch = watch("web.a:80");
        book.set("web.a", &["10.0.0.1", "fd00::1"], 30);
        look(&mut watch, &book, &mut now);
        book.set("web.a", &["10.0.0.2"], 30);
        book.unheard.set(Some(Kind::Aaaa));
        for _ in 0..2 {
            look(&mut watch, &book, &mut now);
            assert_eq!(shown(&watch), "web.a:80/10.0.0.2*1@0 web.a:80/fd00::1*1@0");
        }
        book.unheard.set(None);
        look(&mut watch, &book, &mut now);
        assert_eq!(shown(&watch), "web.a:80/10.0.0.2*1@0");
    }

    #[test]
    fn services_become_tiers_and_weights_and_a_target_in_trouble_stays() {
        let (book, mut now) = (Book::default(), Now::from_nanos(1));
        let mut watch = watch("srv:_http._tcp.a tier=2");
        *book.services.borrow_mut() = vec![(10, 3, 81, "x.a"), (10, 0, 80, "y.a"), (70, 1, 80, "z.a")];
        book.set("x.a", &["10.0.0.1"], 30);
        book.set("y.a", &["10.0.0.2", "10.0.0.3"], 20);
        book.set("z.a", &["10.0.0.4"], 30);
        let waits = look(&mut watch, &book, &mut now);
        assert!((18.0..=20.0).contains(&waits), "{waits}");
        let all = "x.a:81/10.0.0.1*3@2 y.a:80/10.0.0.2*1@2 y.a:80/10.0.0.3*1@2 z.a:80/10.0.0.4*1@3";
        assert_eq!(shown(&watch), all);
        book.addresses.borrow_mut().remove("y.a");
        look(&mut watch, &book, &mut now);
        assert_eq!((shown(&watch).as_str(), &watch.trouble), (all, &None));
        book.services.borrow_mut().clear();
        look(&mut watch, &book, &mut now);
        assert_eq!((shown(&watch).as_str(), watch.trouble.is_some()), (all, true));
    }

    #[test]
    fn a_file_is_followed_when_it_stands_still_and_a_bad_one_is_not() {
        let folder = std::env::temp_dir().join(format!("penstock-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("pool");
        fs::write(&path, "10.0.0.1:80\nweb.a:80 # by name\n").unwrap();
        let (book, mut now) = (Book::default(), Now::from_nanos(1));
        book.set("web.a", &["10.0.0.9"], 3_600);
        let mut watch = watch(&format!("file:{}", path.display()));
        look(&mut watch, &book, &mut now);
        let first = "10.0.0.1:80*1@0 web.a:80/10.0.0.9*1@0";
        assert_eq!(shown(&watch), first);
        // In place: seen, and read when it has not changed again.
        fs::write(&path, "10.0.0.2:80 weight=5\nweb.a:80\n").unwrap();
        assert!(look(&mut watch, &book, &mut now) <= 0.1);
        assert_eq!(shown(&watch), first);
        look(&mut watch, &book, &mut now);
        let second = "10.0.0.2:80*5@0 web.a:80/10.0.0.9*1@0";
        assert_eq!((shown(&watch).as_str(), &watch.trouble), (second, &None));
        // Truncated, gone, nonsense: what it said last counts.
        for (text, why) in
            [(Some(""), "there is no endpoint in it"), (None, "No such file"), (Some("10.0.0.3"), "line 1")]
        {
            match text {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            for _ in 0..3 {
                look(&mut watch, &book, &mut now);
            }
            assert_eq!(shown(&watch), second);
            assert!(watch.trouble.as_ref().is_some_and(|trouble| trouble.contains(why)), "{:?}", watch.trouble);
        }
        // Replaced in one go.
        fs::write(folder.join("new"), "10.0.0.4:80\n").unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        for _ in 0..2 {
            look(&mut watch, &book, &mut now);
        }
        assert_eq!((shown(&watch).as_str(), &watch.trouble), ("10.0.0.4:80*1@0", &None));
        fs::remove_dir_all(&folder).unwrap();
    }
}
