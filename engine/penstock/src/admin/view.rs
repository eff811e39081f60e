//! One endpoint as the operator sees it: the pages and the metrics are made from these.

use std::rc::Rc;

use crate::engine::Engine;
use crate::oversight::{Breaker, Probes, Watched};
use crate::snapshot::{Pool, PoolId, PoolProtocol, nearest};
use crate::upstream::{Admin, AdminState, BreakerOrder, EndpointSums, Health, Member, policy_now};

/// One endpoint of one pool.
pub(super) struct EndpointView<'a> {
    pub(super) pool: &'a str,
    pub(super) name: &'a str,
    pub(super) weight: u32,
    pub(super) admin: Admin,
    pub(super) health: Health,
    pub(super) sums: EndpointSums,
    /// What requests go over, by the names of ALPN.
    pub(super) spoken: String,
    /// Answers with a 5xx, and failures to answer.
    pub(super) errors: u64,
    pub(super) watched: Option<&'a Rc<Watched>>,
    /// The statistics of its pool keep it out.
    pub(super) ejected: bool,
    /// Its pool is probed.
    probed: bool,
}

/// Every pool, by its place.
pub(super) fn pools(engine: &Engine) -> impl Iterator<Item = (PoolId, &Pool)> {
    engine.snapshot().pools.iter().enumerate().map(|(at, pool)| (PoolId(at as u16), pool))
}

/// The pool of a name.
///
/// # Errors
/// A sentence, with what may have been meant.
pub(super) fn pool_named(engine: &Engine, name: &str) -> Result<PoolId, String> {
    engine.snapshot().pool_named(name).ok_or_else(|| {
        let known: Vec<&str> = engine.snapshot().pools.iter().map(|pool| &*pool.name).collect();
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("there is no pool `{name}`; did you mean `{near}`?"),
            None => format!("there is no pool `{name}`; there are: {}", known.join(", ")),
        }
    })
}

/// Every endpoint of every pool.
pub(super) fn endpoints(engine: &Engine) -> impl Iterator<Item = EndpointView<'_>> {
    pools(engine).zip(engine.roster().pools()).flat_map(|((id, pool), members)| {
        let watched = engine.oversight().pool(id);
        members.iter().enumerate().map(move |(at, member)| EndpointView::new(pool, member, watched.get(at)))
    })
}

impl<'a> EndpointView<'a> {
    fn new(pool: &'a Pool, member: &'a Member, watched: Option<&'a Rc<Watched>>) -> Self {
        Self {
            pool: &pool.name,
            probed: pool.health.is_some(),
            name: &member.name,
            weight: member.weight,
            admin: member.shared.admin(),
            health: member.shared.health(),
            ejected: member.shared.is_ejected(policy_now(ring::now())),
            sums: member.shared.sums(),
            // A pool of nothing else has no choice to tell of.
            spoken: match pool.protocol {
                PoolProtocol::Http11 => "http/1.1".to_owned(),
                _ => member.shared.spoken(),
            },
            errors: member.shared.judged().errors,
            watched,
        }
    }

    /// Whether requests go to it, or else what keeps them away: the strongest word first.
    pub(super) fn state(&self) -> &'static str {
        match (self.admin.state, self.admin.breaker) {
            (AdminState::Maint, _) => "maint",
            (AdminState::Drain, _) => "drain",
            _ if self.health == Health::Down => "down",
            _ if self.ejected => "ejected",
            (_, BreakerOrder::Open) => "open",
            _ if self.weight == 0 => "no weight",
            (_, BreakerOrder::Closed) => "up",
            _ => match self.evidence() {
                Breaker::Closed => "up",
                breaker => breaker.text(),
            },
        }
    }

    /// Whether new requests may go to it.
    pub(super) fn serves(&self) -> bool {
        matches!(self.state(), "up" | "half-open")
    }

    /// The breaker, an operator's order first.
    pub(super) fn breaker(&self) -> &'static str {
        match self.admin.breaker {
            BreakerOrder::Auto => self.evidence().text(),
            BreakerOrder::Open => "forced open",
            BreakerOrder::Closed => "forced closed",
        }
    }

    /// What the workers' breakers make of it.
    const fn evidence(&self) -> Breaker {
        Breaker::of(self.sums.open, self.sums.half_open)
    }

    pub(super) const fn health(&self) -> &'static str {
        if self.probed { self.health.text() } else { "not probed" }
    }

    pub(super) fn probes(&self) -> Option<&Probes> {
        self.watched.map(|watched| watched.probes())
    }

    /// What the last probe came to.
    pub(super) fn last_probe(&self) -> Option<String> {
        self.probes()?.last().map(|note| note.text)
    }
}
