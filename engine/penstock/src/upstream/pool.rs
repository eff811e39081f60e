//! Idle connections of one worker to its endpoints: last parked, first taken.
//!
//! The youngest has the least chance of having been closed by the origin, and those that a load no longer needs grow old
//! at the bottom until the sweep lets them go.
//!
//! An endpoint with a limit of connections is everybody's: a worker that finds none of its own idle and no place left says so
//! (`EndpointShared::want`), and whichever worker gets one back next lets it have that one ([`super::lending`]). Where connections cannot
//! change hands, they are closed: that one, or by the next sweep half of what lies idle.

use std::rc::Rc;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::lease::{Own, Wire};
use super::{Cluster, Lease, policy_now};
use crate::limits;
use crate::snapshot::{Pool, PoolProtocol, ProxyProtocol, Reuse};
use crate::telemetry::{Counters, WorkerCells};
use policy::Standing;
use ring::Timer;

pub(super) struct Idle {
    pub(super) own: Own,
    pub(super) since: ring::Now,
}

impl Idle {
    /// Open, silent, and neither idle for too long nor too old. One that the origin closed, or on which it said what nobody
    /// asked for, is not to be used.
    fn is_good(&mut self, reuse: &Reuse, now: ring::Now) -> bool {
        self.own.conn.is_quiet()
            && now.since(self.since) < reuse.idle
            && reuse.max_age.is_none_or(|most| now.since(self.own.made) < most)
    }
}

impl Endpoint {
    /// One that skips TCP (`near`) or does not. Where no connection may be made any more, a plain one does for both, and one that skips TCP makes
    /// room for one that does not.
    pub(super) fn take_idle(this: &Rc<Self>, settings: &Pool, near: bool, counters: &Counters) -> Option<Lease> {
        let any = || this.has_all_connections().then(|| this.pop_idle(&settings.reuse, |_| true, counters)).flatten();
        let idle = this.pop_idle(&settings.reuse, |own| own.near == near, counters).or_else(any)?;
        if idle.own.near && !near {
            counters.upstream_discarded_total.add(1);
            return None;
        }
        counters.upstream_reused_total.add(1);
        Some(Lease { wire: Wire::Own(idle.own), endpoint: Rc::clone(this), reused: true })
    }

    /// Of those that are fit, the one that was parked last and is still good; those found bad are let go of.
    pub(super) fn pop_idle(&self, reuse: &Reuse, is_fit: impl Fn(&Own) -> bool, counters: &Counters) -> Option<Idle> {
        let mut all = self.idle.borrow_mut();
        let before = all.len();
        let mut found = None;
        while let Some(at) = all.iter().rposition(|idle| is_fit(&idle.own)) {
            let mut idle = all.remove(at);
            if idle.is_good(reuse, ring::now()) {
                found = Some(idle);
                break;
            }
            counters.upstream_discarded_total.add(1);
        }
        counters.upstream_idle.sub((before - all.len()) as u64);
        self.keeps(all.len());
        found
    }

    pub(super) fn park(&self, idle: Idle, counters: &Counters) {
        let mut all = self.idle.borrow_mut();
        counters.upstream_idle.add(1);
        all.push(idle);
        self.keeps(all.len());
    }

    pub(super) fn close_idle(&self, counters: &Counters) {
        self.sharing.drain();
        let idle = self.idle.take();
        self.keeps(0);
        counters.upstream_idle.sub(idle.len() as u64);
        counters.upstream_discarded_total.add(idle.len() as u64);
    }

    /// Where connections are lent (`lends`), who wants one asks for it. Those that skip TCP go where that is off (not `near`).
    fn sweep(&self, reuse: &Reuse, lends: bool, near: bool, counters: &Counters) {
        let now = ring::now();
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        if !self.keeps_connections() {
            self.sharing.drain();
            idle.clear();
        }
        idle.retain_mut(|idle| (near || !idle.own.near) && idle.is_good(reuse, now));
        if !lends && !idle.is_empty() && self.wanted_elsewhere().is_some() {
            let half = idle.len().div_ceil(2);
            idle.drain(..half);
        }
        let gone = (before - idle.len()) as u64;
        self.keeps(idle.len());
        counters.upstream_idle.sub(gone);
        counters.upstream_discarded_total.add(gone);
    }
}

impl Cluster {
    /// Takes a connection back after its exchange, whose answer had so many bytes of content: parks it if it can carry another one.
    pub fn give_back(&self, lease: Lease, settings: &Pool, content: u64, counters: &Counters) {
        let Lease { wire: Wire::Own(mut own), endpoint, .. } = lease else { return };
        own.requests += 1;
        endpoint.answered(content);
        // What has gone by TCP once goes on so.
        let fallen = own.near && (content >= limits::SAME_HOST_ANSWER_LARGE || self.near().is_none());
        let reuse = &settings.reuse;
        let worn = reuse.max_requests.is_some_and(|most| own.requests >= most)
            || reuse.max_age.is_some_and(|most| ring::now().since(own.made) >= most);
        let somebodys = settings.proxy_protocol != ProxyProtocol::Off;
        let full = endpoint.idle.borrow().len() >= reuse.max_idle as usize;
        let unwanted = worn || full || fallen || somebodys || !endpoint.keeps_connections();
        let conn = &mut own.conn;
        let good = conn.machine.is_reusable() && conn.is_quiet() && conn.stream.unsent() == 0;
        if unwanted || !good {
            counters.upstream_discarded_total.add(1);
            return;
        }
        if let Some(worker) = endpoint.wanted_elsewhere() {
            return self.send_over(&endpoint, Idle { own, since: ring::now() }, worker, counters);
        }
        conn.stream.set_appetite(ring::Appetite::Any);
        conn.stream.watch();
        endpoint.park(Idle { own, since: ring::now() }, counters);
    }

    /// Lets go of connections that have been idle for too long, that the origin has closed, or that lead to an endpoint
    /// where nobody is thought to be.
    pub fn sweep(&self, settings: &Pool, counters: &Counters) {
        let (lends, near) = (self.lends(), self.near().is_some());
        self.endpoints().iter().for_each(|endpoint| endpoint.sweep(&settings.reuse, lends, near, counters));
    }

    /// Begins to make connections ready until every endpoint has as many idle ones as the pool wants. An endpoint that
    /// refuses them is asked again by the next call, and its breaker hears nothing: no request was lost.
    pub fn warm(this: &Rc<Self>, settings: &Pool, cells: &Arc<WorkerCells>) {
        let (wanted, protocol) = (settings.reuse.warm as usize, settings.protocol);
        let (connect, idle_for) = (settings.timeouts.connect, settings.reuse.idle);
        let now = policy_now(ring::now());
        for endpoint in this.endpoints().iter().filter(|_| wanted > 0) {
            if endpoint.standing(now, true) != Standing::Ready {
                continue;
            }
            let (idle, warming) = (endpoint.idle.borrow().len(), endpoint.warming.get() as usize);
            let lacks = match protocol {
                PoolProtocol::Http11 => wanted.saturating_sub(idle + warming),
                _ => endpoint.sharing.lacks(wanted, idle, warming),
            };
            for _ in 0..lacks {
                endpoint.warming.set(endpoint.warming.get() + 1);
                let (cluster, endpoint, cells) = (Rc::clone(this), Rc::clone(endpoint), Arc::clone(cells));
                ring::spawn(async move {
                    let near = cluster.near().filter(|_| endpoint.skips_tcp() && protocol == PoolProtocol::Http11);
                    let made = if protocol == PoolProtocol::Http11 {
                        cluster.dial(&endpoint, near, None, connect, &mut Timer::new(), &cells.counters).await.ok()
                    } else {
                        cluster.make_ready(&endpoint, protocol, connect, idle_for, &cells).await
                    };
                    endpoint.warming.set(endpoint.warming.get() - 1);
                    let Some((stream, held)) = made.filter(|_| endpoint.keeps_connections()) else { return };
                    let mut own = Own::new(stream, held, near.is_some());
                    own.conn.stream.watch();
                    endpoint.park(Idle { since: own.made, own }, &cells.counters);
                });
            }
        }
    }

    /// Lets go of all idle connections.
    pub fn close_idle(&self, counters: &Counters) {
        self.endpoints().iter().for_each(|endpoint| endpoint.close_idle(counters));
    }
}
