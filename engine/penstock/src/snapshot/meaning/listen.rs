//! What `[[listen]]` must mean.

use super::Meaning;
use crate::limits;
use crate::snapshot::address::{Address, Bind};
use crate::snapshot::also::Also;
use crate::snapshot::compile::further_ports;
use crate::snapshot::endpoint::{Endpoint, Source};
use crate::snapshot::literal::Text;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{ListenDoc, Protocol, ProxyProtocol};
use crate::snapshot::text::Step;

impl Meaning<'_> {
    pub(super) fn listeners(&mut self) {
        let (mut addresses, mut ports, mut further) = (Vec::new(), Vec::new(), 0);
        for (at, address) in self.document.engine.admin.0.iter().enumerate() {
            addresses.push((address.to_string(), path!["engine", "admin", at].to_vec()));
        }
        for (at, door) in self.document.listen.iter().enumerate() {
            // A port of TCP and one of UDP are two.
            let listening = if door.protocol == Protocol::Udp { &mut ports } else { &mut addresses };
            listening.extend(
                door.addr
                    .0
                    .iter()
                    .enumerate()
                    .map(|(index, addr)| (addr.to_string(), path!["listen", at, "addr", index].to_vec())),
            );
            self.listener(at, door);
            if speaks_quic(door) {
                // Of two at one address of TCP that is said already.
                let own = addresses.iter().filter(|(address, _)| {
                    let is_own = |own: &Bind| !matches!(own, Bind::Unix(_)) && own.to_string() == *address;
                    door.addr.0.iter().any(is_own)
                        && addresses.iter().filter(|(other, _)| other == address).count() == 1
                });
                ports.extend(own.cloned());
            }
            further += self.further_datagrams(at, door, further, &mut ports);
        }
        self.twice("the address", addresses);
        self.twice("the address", ports);
        if self.document.engine.quic.secrets.is_none() {
            let why = |key: &str| format!("`quic.{key}` says nothing to machines that cannot read it");
            self.idle(path!["engine", "quic"], &["server"], why, "add `quic.secrets`, or leave it out");
        }
    }

    fn listener(&mut self, at: usize, door: &ListenDoc) {
        if door.addr.0.is_empty() && self.is_empty_list(path!["listen", at, "addr"]) {
            self.report(Code::BadValue, path!["listen", at, "addr"], "a listener needs an address", "write \":8080\"");
        }
        match (door.protocol, &door.pool) {
            (Protocol::Tcp, None) if !door.sni.is_empty() => {}
            (Protocol::Tcp | Protocol::Udp, None) => {
                let message = format!("a {} listener needs a `pool`", door.protocol.text());
                self.report(
                    Code::MissingKey,
                    path!["listen", at, "protocol"],
                    message,
                    "name the pool that it leads to",
                );
            }
            (Protocol::Tcp | Protocol::Udp, Some(pool)) => self.pool_exists(pool, path!["listen", at, "pool"]),
            (Protocol::Http, Some(pool)) => {
                let advice = format!("write protocol = \"tcp\", or a [[route]] with pool = \"{pool}\"");
                self.report(
                    Code::Conflict,
                    path!["listen", at, "pool"],
                    "an http listener has no `pool`: requests are routed",
                    advice,
                );
            }
            (Protocol::Http, None) => {}
        }
        if door.protocol != Protocol::Http && !door.trusted.0.is_empty() {
            self.report(
                Code::NoEffect,
                path!["listen", at, "trusted"],
                format!("`trusted` has no effect on a {} listener", door.protocol.text()),
                "it is about header fields: leave it out",
            );
        }
        self.flows(at, door);
        self.other_protocols(at, door);
        self.further(at, door);
        self.within(
            path!["listen", at, "max_connections"],
            door.max_connections.into(),
            1,
            limits::CONNECTIONS_MAX.into(),
        );
        let streams = u64::from(door.http2.streams);
        self.within(path!["listen", at, "http2", "streams"], streams, 1, limits::HTTP2_STREAMS_MAX.into());
        let streams = u64::from(door.http3.streams);
        self.within(path!["listen", at, "http3", "streams"], streams, 1, limits::HTTP2_STREAMS_MAX.into());
        self.clients_of(at, door);
        self.listener_tls(at, door);
        self.sni(at, door);
        self.within(path!["listen", at, "backlog"], door.backlog.into(), 1, limits::BACKLOG_MAX.into());
        for (key, time) in [
            ("handshake", &door.timeout.handshake),
            ("head", &door.timeout.head),
            ("keep_alive", &door.timeout.keep_alive),
            ("body", &door.timeout.body),
        ] {
            self.not_zero(path!["listen", at, "timeout", key], time);
        }
    }

    /// What is said of protocols that it does not speak.
    fn other_protocols(&mut self, at: usize, door: &ListenDoc) {
        let (h2, h3) = (path!["listen", at, "http2"], path!["listen", at, "http3"]);
        let of_h3 = ["streams", "congestion", "advertise"];
        if door.protocol != Protocol::Http {
            let why =
                |key: &str| format!("`{key}` has no effect on a {} listener: it speaks no HTTP", door.protocol.text());
            self.idle(h2, &["enabled", "streams"], why, "leave it out");
            self.idle(h3, &["enabled"], why, "leave it out");
            self.idle(h3, &of_h3, why, "leave it out");
        } else {
            let why = |key: &str| format!("`{key}` of what is not spoken: `enabled` is false");
            if !door.http2.enabled {
                self.idle(h2, &["streams"], why, "leave it out");
            }
            if !door.http3.enabled {
                self.idle(h3, &of_h3, why, "leave it out");
            } else if !door.tls.is_on() {
                let why = |key: &str| format!("`{key}` of HTTP/3, which is not spoken without TLS");
                self.idle(h3, &of_h3, why, "add `tls`, or leave it out");
            }
        }
        let why = |key: &str| format!("`{key}` has no effect on a {} listener", door.protocol.text());
        let table = path!["listen", at, "timeout"];
        if door.protocol != Protocol::Http {
            let advice = "the pool's timeout.idle counts: leave it out";
            self.idle(table, &["keep_alive", "body", "body_rate"], why, advice);
        }
        let has_head = !door.sni.is_empty() || !door.proxy_protocol.from.0.is_empty();
        if door.protocol == Protocol::Udp || door.protocol == Protocol::Tcp && !has_head {
            self.idle(table, &["head"], why, "nothing is read of what passes: leave it out");
        }
        if door.protocol == Protocol::Udp {
            self.idle(path!["listen", at], &["backlog"], why, "datagrams wait in the socket's buffer: leave it out");
        }
    }

    /// Addresses that it has not bound: the socket that it has must be able to take their connections.
    fn further(&mut self, at: usize, door: &ListenDoc) {
        let count: usize = self.document.listen[..=at].iter().map(|door| door.also.0.len()).sum();
        if count > limits::LISTEN_ALSO_MAX {
            let message = format!("{count} networks are too many, of all listeners so far");
            self.report(
                Code::BadValue,
                path!["listen", at, "also"],
                message,
                format!("{} are the most", limits::LISTEN_ALSO_MAX),
            );
        }
        for also in &door.also.0 {
            let is_v4 = also.network.network().is_ipv4();
            if !door.addr.0.iter().any(|address| address.takes(is_v4)) {
                let advice = "give `addr` an address of that family, or `:PORT` for both";
                self.report(
                    Code::Conflict,
                    path!["listen", at, "also"],
                    format!("`addr` has none of the family of {also}"),
                    advice,
                );
            }
        }
    }

    /// What comes to its sockets of UDP too, behind `before` such places of other listeners: how many places those are. Of further ports, sockets must be its own.
    fn further_datagrams(
        &mut self,
        at: usize,
        door: &ListenDoc,
        before: usize,
        ports: &mut Vec<(String, Vec<Step<'static>>)>,
    ) -> usize {
        if door.protocol != Protocol::Udp && !speaks_quic(door) {
            return 0;
        }
        if door.protocol == Protocol::Udp {
            let wide = door.also.0.iter().enumerate().filter(|(_, also)| also.for_datagrams().next().is_none());
            for (index, also) in wide {
                let message = format!(
                    "datagrams of `{also}` cannot be answered: an answer leaves from the port that its socket is bound to"
                );
                let advice = format!("each port is a socket a worker: {} are the most", limits::LISTEN_ALSO_PORTS_MAX);
                self.report(Code::BadValue, path!["listen", at, "also", index], message, advice);
            }
        }
        let places: Vec<Also> = door.also.0.iter().flat_map(|also| also.for_datagrams()).collect();
        if before + places.len() > limits::LISTEN_ALSO_MAX {
            let message = format!(
                "{} networks and ports of them are too many for datagrams, of all listeners so far",
                before + places.len()
            );
            let advice = format!("{} are the most; `http3.enabled = false` goes without them", limits::LISTEN_ALSO_MAX);
            self.report(Code::BadValue, path!["listen", at, "also"], message, advice);
        }
        let further = further_ports(&door.addr.0, places.iter().copied());
        ports.extend(further.iter().map(|address| (address.to_string(), path!["listen", at, "also"].to_vec())));
        places.len()
    }

    /// What a listener says of datagrams.
    fn flows(&mut self, at: usize, door: &ListenDoc) {
        if door.protocol != Protocol::Udp {
            let why = |key: &str| format!("`udp.{key}` has no effect on a {} listener", door.protocol.text());
            self.idle(
                path!["listen", at, "udp"],
                &["idle", "replies", "quic"],
                why,
                "write protocol = \"udp\", or leave it out",
            );
            return;
        }
        self.not_zero(path!["listen", at, "udp", "idle"], &door.udp.idle);
        if let Some(replies) = door.udp.replies {
            self.within(path!["listen", at, "udp", "replies"], replies.into(), 1, u32::MAX.into());
            if door.udp.quic {
                let message =
                    "no datagram of QUIC has a number of replies of its own: a flow would be over with the first one";
                self.report(Code::Conflict, path!["listen", at, "udp", "replies"], message, "leave it out");
            }
        }
        if let Some(unix) = door.addr.0.iter().position(|address| matches!(address, Bind::Unix(_))) {
            let message = "a Unix socket carries no datagrams of UDP";
            self.report(Code::Conflict, path!["listen", at, "addr", unix], message, "write an address and a port");
        }
        for (key, written, why) in [
            ("tls", door.tls.is_on(), "TLS is not spoken over UDP: of QUIC the datagrams are passed through"),
            ("sni", !door.sni.is_empty(), "datagrams are not looked into: all go to `pool`"),
            ("proxy_protocol", !door.proxy_protocol.from.0.is_empty(), "datagrams begin with no PROXY header"),
        ] {
            if written {
                self.report(Code::Conflict, path!["listen", at, key], why, "leave it out");
            }
        }
        let Some(pool) = self.document.pool.iter().position(|pool| Some(&pool.name) == door.pool.as_ref()) else {
            return;
        };
        let doc = &self.document.pool[pool];
        let is_unix = |endpoint: &Text<Endpoint>| matches!(endpoint.0.source, Source::Address(Address::Unix(_)));
        if let Some(unix) = doc.endpoints.iter().position(is_unix) {
            let message =
                format!("the listener `{}` sends datagrams here, and a Unix socket takes none of UDP", door.name);
            self.report(Code::Conflict, path!["pool", pool, "endpoints", unix], message, "write an address and a port");
        }
        let is_tls = doc.tls.ca.is_some() || doc.endpoints.iter().any(|endpoint| endpoint.0.tls);
        for (key, written) in [("tls", is_tls), ("proxy_protocol", doc.proxy_protocol != ProxyProtocol::Off)] {
            if written {
                let message = format!("the listener `{}` sends datagrams here, which go without", door.name);
                self.report(Code::Conflict, path!["pool", pool, key], message, "make a pool of its own for them");
            }
        }
    }
}

/// Whether it has HTTP/3 beside TCP.
fn speaks_quic(door: &ListenDoc) -> bool {
    door.protocol == Protocol::Http && door.http3.enabled && door.tls.is_on()
}
