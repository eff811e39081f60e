//! Idle connections of one worker to its endpoints: last parked, first taken.
//!
//! The youngest has the least chance of having been closed by the origin, and those that a load no longer needs grow old
//! at the bottom until the sweep lets them go.

use std::rc::Rc;

use super::endpoint::Endpoint;
use super::{Cluster, Lease};
use crate::conn::Conn;
use crate::snapshot::{Pool, ProxyProtocol};
use crate::telemetry::Counters;
use proto::h1::Client;

pub(super) struct Idle {
    conn: Conn<Client>,
    since: ring::Now,
    requests: u32,
}

impl Endpoint {
    pub(super) fn take_idle(this: &Rc<Self>, settings: &Pool, counters: &Counters) -> Option<Lease> {
        let mut idle = this.idle.borrow_mut();
        while let Some(Idle { conn, since, requests }) = idle.pop() {
            counters.upstream_idle.sub(1);
            // Closed by the origin meanwhile, or it said something that nobody asked for: not to be used.
            if conn.is_quiet() && ring::now().since(since) < settings.reuse.idle {
                counters.upstream_reused_total.add(1);
                return Some(Lease { conn, endpoint: Rc::clone(this), reused: true, requests });
            }
        }
        None
    }

    pub(super) fn close_idle(&self, counters: &Counters) {
        let idle = self.idle.take();
        counters.upstream_idle.sub(idle.len() as u64);
    }
}

impl Cluster {
    /// Takes a connection back after its exchange: parks it if it can carry another one.
    pub fn give_back(&self, lease: Lease, settings: &Pool, counters: &Counters) {
        let Lease { mut conn, endpoint, requests, .. } = lease;
        let requests = requests + 1;
        let worn = settings.reuse.max_requests.is_some_and(|most| requests >= most);
        let mut idle = endpoint.idle.borrow_mut();
        let somebodys = settings.proxy_protocol != ProxyProtocol::Off;
        let full = idle.len() >= settings.reuse.max_idle as usize;
        let unwanted = worn || full || somebodys || !endpoint.keeps_connections();
        if unwanted || !conn.machine.is_reusable() || !conn.is_quiet() || conn.stream.unsent() > 0 {
            return;
        }
        conn.stream.set_appetite(ring::Appetite::Any);
        conn.stream.watch();
        counters.upstream_idle.add(1);
        idle.push(Idle { conn, since: ring::now(), requests });
    }

    /// Lets go of connections that have been idle for too long, that the origin has closed, or that lead to an endpoint
    /// where nobody is thought to be.
    pub fn sweep(&self, settings: &Pool, counters: &Counters) {
        let now = ring::now();
        for endpoint in self.endpoints().iter() {
            let mut idle = endpoint.idle.borrow_mut();
            let before = idle.len();
            let keeps = endpoint.keeps_connections();
            idle.retain(|idle| keeps && idle.conn.is_quiet() && now.since(idle.since) < settings.reuse.idle);
            counters.upstream_idle.sub((before - idle.len()) as u64);
        }
    }

    /// Lets go of all idle connections.
    pub fn close_idle(&self, counters: &Counters) {
        self.endpoints().iter().for_each(|endpoint| endpoint.close_idle(counters));
    }
}
