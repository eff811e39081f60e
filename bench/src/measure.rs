//! One round: a contender under load for a few seconds, with the kernel's counters read before and after.

use std::path::Path;

use serde_json::{Value, json};
use xtask::Outcome;

use crate::far::Far;
use crate::grpc;
use crate::load::{Load, Plan, Seen};
use crate::meter::{self, Machine};
use crate::origin::Origin;
use crate::rivals::{Contender, Kind};
use crate::scenario::Scenario;
use crate::strace;
use crate::tls::Identity;

/// What every round of a run has in common.
pub(crate) struct Bench<'a> {
    pub(crate) origin: &'a Origin,
    /// What proxies show, where TLS is spoken.
    pub(crate) identity: Option<&'a Identity>,
    /// The file with the message of a call, where calls are made.
    pub(crate) message: Option<&'a Path>,
    pub(crate) load: Load,
    pub(crate) load_cpu: usize,
    pub(crate) seconds: u64,
    /// Percent of the machine's time; rounds beyond are discarded.
    pub(crate) steal_max: f64,
    pub(crate) foreign_max: Option<f64>,
}

/// A round's raw figures.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) scenario: Scenario,
    pub(crate) kind: Kind,
    pub(crate) seen: Seen,
    /// CPU time of the proxy, the origin, the load generator, and of the whole machine.
    pub(crate) proxy_ns: u64,
    pub(crate) origin_ns: u64,
    pub(crate) load_ns: u64,
    pub(crate) busy_ns: u64,
    /// Percent of the machine's time that went elsewhere: to the hypervisor's other guests; to processes that are not this benchmark's.
    pub(crate) steal: f64,
    pub(crate) foreign: f64,
    /// Why the round does not count, if so.
    pub(crate) discarded: Option<String>,
}

impl Round {
    /// A share of CPU time, in microseconds a request.
    fn each_us(&self, ns: u64) -> Option<f64> {
        (self.seen.requests > 0).then(|| ns as f64 / 1e3 / self.seen.requests as f64)
    }

    pub(crate) fn proxy_us(&self) -> Option<f64> {
        if self.kind == Kind::Direct { None } else { self.each_us(self.proxy_ns) }
    }

    pub(crate) fn system_us(&self) -> Option<f64> {
        self.each_us(self.busy_ns)
    }

    pub(crate) fn rate(&self) -> f64 {
        if self.seen.seconds > 0.0 { self.seen.requests as f64 / self.seen.seconds } else { 0.0 }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut value = self.seen.to_json();
        let more = json!({
            "scenario": self.scenario.name, "contender": self.kind.name(),
            "proxy_cpu_ns": self.proxy_ns, "origin_cpu_ns": self.origin_ns, "load_cpu_ns": self.load_ns, "machine_busy_ns": self.busy_ns,
            "steal_percent": self.steal, "foreign_percent": self.foreign, "discarded": self.discarded,
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        value
    }
}

/// System calls and sends a request; of a ring, enters and sends as it counts them itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct CallsEach {
    pub(crate) calls: f64,
    pub(crate) sends: f64,
}

impl Bench<'_> {
    fn plan(&self, scenario: &Scenario, contender: &Contender, seconds: u64, rate: Option<f64>) -> Plan {
        Plan {
            to: contender.address,
            over: scenario.over,
            path: scenario.path.to_owned(),
            connections: scenario.connections,
            streams: scenario.streams,
            body: scenario.body,
            seconds,
            close: scenario.close,
            browser: scenario.browser,
            resumed: scenario.resumed,
            rate,
            trust: self.identity.map(|identity| identity.cert.clone()),
            message: self.message.map(Path::to_owned),
        }
    }

    /// Pools filled, code paged in, before anything counts.
    pub(crate) fn warm_up(&self, scenario: &Scenario, contender: &Contender) -> Outcome {
        self.load.run(&self.plan(scenario, contender, 1, None), self.load_cpu).map(drop)
    }

    /// As many calls at once as in a round, each answer read to its trailers; how many there were. One that is not whole is an error.
    pub(crate) fn check(&self, scenario: &Scenario, contender: &Contender) -> Outcome<u64> {
        grpc::calls::check(contender.address, scenario.connections, scenario.streams, 1, self.load_cpu)
    }

    /// The path to a contender, where it is not the loopback as it is. The same datagrams are lost in every round, by their number.
    fn far(&self, scenario: &Scenario, contender: &Contender) -> Outcome<Option<Far>> {
        match self.identity.filter(|_| scenario.far) {
            Some(identity) => {
                Far::start(contender.address, &identity.cert, &contender.folder, self.load_cpu, 1).map(Some)
            }
            None => Ok(None),
        }
    }

    pub(crate) fn round(&self, scenario: Scenario, contender: &Contender, rate: Option<f64>) -> Outcome<Round> {
        let mut plan = self.plan(&scenario, contender, self.seconds, rate);
        let far = self.far(&scenario, contender)?;
        plan.to = far.as_ref().map_or(plan.to, |far| far.address);
        let (proxy, origin) = (contender.processes(), self.origin.processes());
        let before = (
            Machine::now(),
            meter::cpu_ns(&proxy),
            meter::cpu_ns(&origin),
            meter::ended_children_ns(),
            meter::cpu_ns(&[std::process::id()]),
        );
        let seen = self.load.run(&plan, self.load_cpu)?;
        let after = (
            Machine::now(),
            meter::cpu_ns(&proxy),
            meter::cpu_ns(&origin),
            meter::ended_children_ns(),
            meter::cpu_ns(&[std::process::id()]),
        );

        let machine = after.0.since(before.0);
        let (proxy_ns, origin_ns, load_ns) =
            (after.1.saturating_sub(before.1), after.2.saturating_sub(before.2), after.3.saturating_sub(before.3));
        let ours = proxy_ns + origin_ns + load_ns + after.4.saturating_sub(before.4);
        let (steal, foreign) =
            (machine.percent(machine.steal_ns), machine.percent(machine.busy_ns.saturating_sub(ours)));
        let discarded = if seen.requests == 0 {
            Some("no request was answered".to_owned())
        } else if contender.kind != Kind::Direct && proxy_ns == 0 {
            Some("the proxy used no CPU time: its process ended, or is not the one that answers".to_owned())
        } else if steal > self.steal_max {
            Some(format!("{steal:.1} % of the time was stolen"))
        } else if self.foreign_max.is_some_and(|max| foreign > max) {
            Some(format!("others used {foreign:.0} % of the machine"))
        } else {
            None
        };
        Ok(Round {
            scenario,
            kind: contender.kind,
            seen,
            proxy_ns,
            origin_ns,
            load_ns,
            busy_ns: machine.busy_ns,
            steal,
            foreign,
            discarded,
        })
    }

    /// A short round that counts system calls instead of time.
    pub(crate) fn calls(&self, scenario: &Scenario, contender: &Contender) -> Outcome<CallsEach> {
        // Longer with many connections: what it takes to open them should not be what is counted.
        let seconds = 1 + scenario.connections as u64 / 128;
        let plan = self.plan(scenario, contender, seconds, None);
        if contender.has_counters() {
            let none = || format!("{} tells no counters on its admin endpoint", contender.kind.name());
            let before = contender.counters().ok_or_else(none)?;
            self.load.run(&plan, self.load_cpu)?;
            let after = contender.counters().ok_or_else(none)?;
            let requests = after.requests - before.requests;
            if requests <= 0.0 {
                return Err(format!("{} counted no request", contender.kind.name()));
            }
            return Ok(CallsEach {
                calls: (after.enters - before.enters) / requests,
                sends: (after.sends - before.sends) / requests,
            });
        }
        let (calls, seen) =
            strace::during(&contender.processes(), &contender.folder, || self.load.run(&plan, self.load_cpu))?;
        if seen.requests == 0 {
            return Err("no request was answered under strace".to_owned());
        }
        let requests = seen.requests as f64;
        Ok(CallsEach { calls: calls.total as f64 / requests, sends: calls.sends as f64 / requests })
    }
}
