//! What is dropped before it costs a socket: the XDP program of `ebpf/shield`, raised on the interfaces that the configuration names.
//!
//! ```text
//! configuration, files, operator ─► Lists ─► table ─► LIST_V4, LIST_V6 ┐
//! listeners ─► PORTS     rates ─► SETTINGS                             ├─► program ─► COUNTS ─► metrics, `show shield`
//! qos: who does not heed its limit ─► Shield::deny ─► DENIED           ┘
//! ```
//!
//! What holds here: all of it is the control thread's, and workers know nothing of it but where they tell of a client that does not heed its limit.
//! Where the program is not granted the engine serves without it, and says so ([`Shield::lines`]). Nothing is pinned: program, maps and
//! attachments end with the process, however that ends.

mod cookies;
mod headers;
mod hints;
mod lists;
mod program;
mod tap;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use abi::shield::{
    BUCKET_INITIALS, BUCKET_PACKETS, BUCKET_SYNS, Bucket, COOKIES, DRY_RUN, LISTS_V4, LISTS_V6, Ports, RATES, SANE,
    SOURCE_BITS_V6, Settings, VERDICTS,
};
use policy::RateSettings;
use ring::Now;

pub use headers::Headers;
pub use program::{Count, Listed, Program, Sample, Tried};
pub use tap::{Tapped, Tapping};

use self::cookies::Pressure;
use self::lists::{Lists, Table, difference};
use self::tap::Tap;
use crate::bpf::{self, Interfaces, Standing, stand_on};
use crate::limits;
use crate::snapshot::{Balancer, Bind, Cidr, ListenerProtocol, Shield as Wish, Snapshot, SynCookies, Transport};

/// The shield as the control thread holds it.
#[derive(Default)]
pub struct Shield {
    raised: Option<Raised>,
    /// What was wanted and is not granted.
    refused: Vec<String>,
}

/// One that stands on at least one interface.
struct Raised {
    wish: Wish,
    program: Program,
    interfaces: Vec<Standing>,
    lists: Lists,
    /// What the kernel has.
    table: Table,
    /// Sources that the engine has denied, with when that ends.
    denied: BTreeMap<IpAddr, Now>,
    /// What the program was told last.
    settings: Settings,
    /// Of SYNs on listeners' queues; `None` where cookies are not ours to send.
    pressure: Option<Pressure>,
    tap: Tap,
}

/// A denial, for the operator's eye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub network: String,
    /// Who said so.
    pub by: &'static str,
    /// `None`: it does not end by itself.
    pub left: Option<Duration>,
}

impl Shield {
    /// Raises what the configuration asks for, as far as it is granted.
    #[must_use]
    pub fn raise(snapshot: &Snapshot, on: &Interfaces) -> Self {
        let Some(wish) = &snapshot.shield else { return Self::default() };
        let mut refused = Vec::new();
        let raised = Raised::new(wish, &mut refused).and_then(|mut raised| {
            raised.protect(snapshot)?;
            raised.stand(snapshot, on, &mut refused);
            Ok(raised)
        });
        let raised = raised.map_err(|why| refused.push(why)).ok().filter(|raised| !raised.interfaces.is_empty());
        Self { raised, refused }
    }

    /// Goes on by another configuration: where it stands already, with what it has learnt and been told.
    pub fn adopt(&mut self, snapshot: &Snapshot, on: &Interfaces) {
        let (Some(raised), Some(wish)) = (&mut self.raised, &snapshot.shield) else {
            *self = Self::raise(snapshot, on);
            return;
        };
        self.refused.retain(|why| why.starts_with(NO_COOKIES));
        if let Err(why) = raised.succeed(wish).and_then(|()| raised.protect(snapshot)) {
            self.refused.push(why);
        }
        raised.stand(snapshot, on, &mut self.refused);
        if raised.interfaces.is_empty() {
            self.raised = None;
        }
    }

    #[must_use]
    pub const fn is_raised(&self) -> bool {
        self.raised.is_some()
    }

    /// What was wanted and is not granted, with the reason.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// What stands where and what does not, for the operator's eye.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let standing = self.raised.as_ref().map(|raised| {
            let places: Vec<_> = self.interfaces().map(|(interface, mode)| format!("{interface} ({mode})")).collect();
            let counts = match (raised.wish.dry_run, &raised.pressure) {
                (true, _) => "only counts what it would drop",
                (false, None) => "drops",
                (false, Some(_)) => "drops, and answers SYNs that find no room with cookies",
            };
            format!("  shield: XDP on {}, {} networks listed; it {counts}", places.join(", "), raised.table.len())
        });
        let refused = self.refused.iter().map(|why| format!("  goes without: XDP shield ({why})"));
        standing.into_iter().chain(refused).collect()
    }

    /// Interfaces, with how it stands there.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.raised.iter().flat_map(|raised| &raised.interfaces).map(Standing::stands)
    }

    /// Networks on its lists.
    #[must_use]
    pub fn networks(&self) -> usize {
        self.raised.as_ref().map_or(0, |raised| raised.table.len())
    }

    /// Whether it only counts.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        self.raised.as_ref().is_some_and(|raised| raised.wish.dry_run)
    }

    /// What becomes of SYNs for which a listener has no room.
    #[must_use]
    pub fn syn_cookies(&self) -> &'static str {
        match self.raised.as_ref().filter(|raised| raised.answers()).and_then(|raised| raised.pressure.as_ref()) {
            None => "off",
            Some(pressure) if pressure.is_high() => "answering",
            Some(_) => "ready",
        }
    }

    /// What it has seen; nothing where there is none.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        self.raised.as_ref().map(|raised| raised.program.counts()).unwrap_or_default()
    }

    /// Whom the operator and the engine deny.
    #[must_use]
    pub fn denied(&self, now: Now) -> Vec<Denied> {
        let left = |until: Now| (until != Now::NEVER).then(|| until.since(now));
        let Some(raised) = &self.raised else { return Vec::new() };
        let told = raised.lists.told().map(|(network, until)| (network.to_string(), "operator", until));
        let denied = raised.denied.iter().map(|(source, until)| (named(*source), "over limit", *until));
        told.chain(denied).map(|(network, by, until)| Denied { network, by, left: left(until) }).collect()
    }

    /// What is due now and then: files that have changed, and what has ended. Tells what there is to say.
    pub fn look(&mut self, now: Now) -> Vec<String> {
        let mut news = Vec::new();
        if let Some(raised) = &mut self.raised
            && let Err(why) = raised.look(now, &mut news)
        {
            news.push(format!("shield: {why}"));
        }
        news
    }

    /// The operator denies a network until `until`, or (`None`) no longer. Tells whether it was denied by that word before.
    ///
    /// # Errors
    /// Why that has no effect.
    pub fn tell(&mut self, network: Cidr, until: Option<Now>, now: Now) -> Result<bool, String> {
        let raised = self.standing()?;
        if let (Some(_), Some(allowed)) = (until, raised.lists.allowed(&network)) {
            return Err(format!("`{network}` is allowed by the configuration, in `{allowed}`"));
        }
        let was = raised.lists.tell(network, until).is_some();
        if until.is_none() && !was {
            let source = network.network();
            if raised.denied.remove(&source).is_some() {
                raised.program.pardon(source);
                raised.settle()?;
                return Ok(true);
            }
            return Err(if raised.lists.is_written(&network) {
                format!("`{network}` is denied by the configuration or its files, and not by an operator")
            } else {
                format!("`{network}` is not denied: `penstock show denied` lists who is")
            });
        }
        raised.look(now, &mut Vec::new())?;
        raised.apply()?;
        Ok(was)
    }

    /// Samples of what is dropped, for who wants to see: they are taken from now on, for as long as somebody goes on asking.
    ///
    /// # Errors
    /// Why there are none.
    pub fn tap(&mut self, tapping: Tapping, now: Now) -> Result<Tapped, String> {
        let raised = self.standing()?;
        raised.tap.look(&mut raised.program, now);
        let told = raised.tap.ask(tapping, now);
        raised.settle()?;
        Ok(told)
    }

    /// The interface of an index, if it stands there.
    #[must_use]
    pub fn interface_of(&self, index: u32) -> Option<&str> {
        self.interfaces().map(|(name, _)| name).find(|name| bpf::interface_index(name) == Ok(index))
    }

    fn standing(&mut self) -> Result<&mut Raised, String> {
        self.raised.as_mut().ok_or_else(|| {
            self.refused.first().map_or_else(
                || "there is no shield: add [shield] with interfaces to the configuration".to_owned(),
                |why| format!("the shield is not granted: {why}"),
            )
        })
    }

    /// Denies a client that does not heed its limit, for as long as the configuration says.
    pub fn deny(&mut self, client: IpAddr, now: Now) {
        let Some(raised) = &mut self.raised else { return };
        let Some(over_limit) = raised.wish.over_limit else { return };
        let source = source(client);
        // One more than there is room for stays the engine's to turn away.
        if raised.denied.len() >= limits::SHIELD_DENIED_MAX as usize {
            return;
        }
        let until = now + over_limit.deny_for;
        if raised.program.deny(source, until.as_nanos()).is_ok() {
            raised.denied.insert(source, until);
            // A flag that cannot be told now is told with the next one.
            let _ = raised.settle();
        }
    }
}

impl Raised {
    /// It stands nowhere yet. `refused` says what it has to do without.
    fn new(wish: &Wish, refused: &mut Vec<String>) -> Result<Self, String> {
        let wants_cookies = wish.syn_cookies == SynCookies::Auto;
        let cookies = wants_cookies.then(|| cookies::granted().and_then(|()| Program::load_with_cookies()));
        let (program, pressure) = match cookies {
            Some(Ok(program)) => (program, Some(Pressure::default())),
            Some(Err(why)) => {
                refused.push(format!("{NO_COOKIES}{why}"));
                (Program::load()?, None)
            }
            None => (Program::load()?, None),
        };
        let mut raised = Self {
            wish: wish.clone(),
            program,
            interfaces: Vec::new(),
            lists: Lists::new(wish),
            table: Table::new(),
            denied: BTreeMap::new(),
            settings: Settings::default(),
            pressure,
            tap: Tap::default(),
        };
        raised.lists.look(ring::monotonic(), &mut Vec::new());
        raised.apply()?;
        Ok(raised)
    }

    /// What is wanted from now on. What operators and the engine have said of clients goes on.
    fn succeed(&mut self, wish: &Wish) -> Result<(), String> {
        if self.wish == *wish {
            return Ok(());
        }
        self.wish = wish.clone();
        self.lists.succeed(wish);
        self.lists.look(ring::monotonic(), &mut Vec::new());
        self.apply()
    }

    fn protect(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        self.program.protect(ports(snapshot))
    }

    /// Stands on the interfaces that are wanted, and on no others. `refused` says where it is not granted.
    fn stand(&mut self, snapshot: &Snapshot, on: &Interfaces, refused: &mut Vec<String>) {
        let Self { wish, program, interfaces, .. } = self;
        stand_on(interfaces, &wish.interfaces, refused, |at| program.stand(on, at, snapshot.xdp_mode(at)));
    }

    fn look(&mut self, now: Now, news: &mut Vec<String>) -> Result<(), String> {
        if self.lists.look(now, news) {
            self.apply()?;
        }
        if let Some(pressure) = &mut self.pressure {
            news.extend(pressure.look(self.program.cookies()));
        }
        self.tap.look(&mut self.program, now);
        let program = &mut self.program;
        self.denied.retain(|source, until| {
            let stays = *until > now;
            if !stays {
                program.pardon(*source);
            }
            stays
        });
        self.settle()
    }

    /// Makes the kernel's tables those that are wanted. What it refuses (there is no room) is left out, and told; the rest stands.
    fn apply(&mut self) -> Result<(), String> {
        let wanted = self.lists.table();
        let mut refused = None;
        let mut table = std::mem::take(&mut self.table);
        let changes: Vec<_> = difference(&table, &wanted).collect();
        for (network, listed) in changes {
            match (self.program.list(&network, listed), listed) {
                (Err(why), _) => refused = refused.or(Some(format!("{network}: {why}"))),
                (Ok(()), Some(listed)) => drop(table.insert(network, listed)),
                (Ok(()), None) => drop(table.remove(&network)),
            }
        }
        self.table = table;
        self.program.tidy_hints(self.table.keys())?;
        self.settle()?;
        refused.map_or(Ok(()), Err)
    }

    /// Tells the program what to look at, if that is something else than before.
    fn settle(&mut self) -> Result<(), String> {
        let settings = self.wanted();
        if settings != self.settings {
            self.program.tell(&settings)?;
            self.settings = settings;
        }
        Ok(())
    }

    /// Whether SYNs that find no room are answered.
    fn answers(&self) -> bool {
        self.pressure.is_some() && !self.wish.dry_run
    }

    fn wanted(&self) -> Settings {
        let (tapped, one_in) = self.tap.wanted();
        let mut settings = Settings { tapped, one_in, ..Settings::default() };
        for (kind, rate) in
            [(BUCKET_PACKETS, self.wish.packets), (BUCKET_SYNS, self.wish.syns), (BUCKET_INITIALS, self.wish.initials)]
        {
            settings.buckets[kind] = rate.map(bucket).unwrap_or_default();
        }
        let has_rates = settings.buckets.iter().any(|bucket| bucket.interval_ns != 0);
        let lists = |is_v4: bool| self.table.keys().any(|network| network.network().is_ipv4() == is_v4);
        for (flag, is_set) in [
            (DRY_RUN, self.wish.dry_run),
            (SANE, self.wish.drop_malformed),
            (LISTS_V4, lists(true)),
            (LISTS_V6, lists(false)),
            (VERDICTS, !self.denied.is_empty()),
            (RATES, has_rates),
            (COOKIES, self.answers()),
        ] {
            settings.flags |= if is_set { flag } else { 0 };
        }
        settings
    }
}

/// How what is said begins where it stands, and answers nobody.
const NO_COOKIES: &str = "SYN cookies: ";

fn bucket(rate: RateSettings) -> Bucket {
    let period = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX);
    Bucket::new(rate.quota, period, rate.burst)
}

/// Ports of listeners, and of VIPs whose packets come to the balancer through us.
fn ports(snapshot: &Snapshot) -> Vec<(Ports, u16)> {
    let mut ports = Vec::new();
    let ours = snapshot.shield.iter().flat_map(|shield| &shield.interfaces);
    let is_before = |balance: &&Balancer| ours.clone().any(|interface| balance.interfaces.contains(interface));
    for vip in snapshot.balance.iter().filter(is_before).flat_map(|balance| &balance.vips) {
        let of = if vip.protocol == Transport::Udp { Ports::Udp } else { Ports::Tcp };
        ports.extend(vip.addresses.iter().map(|address| (of, address.port())));
    }
    for listener in &snapshot.listeners {
        for address in &listener.addresses {
            let port = match address {
                Bind::Any { port } => *port,
                Bind::Tcp(address) => address.port(),
                Bind::Unix(_) => continue,
            };
            let is_udp = matches!(listener.protocol, ListenerProtocol::Udp { .. });
            ports.push((if is_udp { Ports::Udp } else { Ports::Tcp }, port));
            if listener.http3.is_some() {
                ports.extend([(Ports::Udp, port), (Ports::Quic, port)]);
            }
        }
    }
    ports
}

/// What a client is counted as: an IPv4 address, or the first address of the /64 that its IPv6 address is in.
fn source(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> SOURCE_BITS_V6 << SOURCE_BITS_V6).into(),
        v4 => v4,
    }
}

fn named(source: IpAddr) -> String {
    match source {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/{SOURCE_BITS_V6}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_its_subscriber() {
        let of = |text: &str| named(source(text.parse().unwrap()));
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }

    #[test]
    fn a_rate_becomes_a_bucket() {
        let rate = |quota, secs, burst| RateSettings { quota, period: Duration::from_secs(secs), burst };
        assert_eq!(bucket(rate(100, 1, 10)), Bucket { interval_ns: 10_000_000, depth_ns: 90_000_000 });
        assert_eq!(bucket(rate(u32::MAX, 1, 1)), Bucket { interval_ns: 1, depth_ns: 0 });
    }
}
