//! What `[[listen]]` must mean.

use super::Meaning;
use crate::limits;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{ListenDoc, Protocol};

impl Meaning<'_> {
    pub(super) fn listeners(&mut self) {
        let mut addresses = Vec::new();
        for (at, address) in self.document.engine.admin.0.iter().enumerate() {
            addresses.push((address.to_string(), path!["engine", "admin", at].to_vec()));
        }
        for (at, door) in self.document.listen.iter().enumerate() {
            addresses.extend(
                door.addr
                    .0
                    .iter()
                    .enumerate()
                    .map(|(index, addr)| (addr.to_string(), path!["listen", at, "addr", index].to_vec())),
            );
            self.listener(at, door);
        }
        self.twice("the address", addresses);
    }

    fn listener(&mut self, at: usize, door: &ListenDoc) {
        if door.addr.0.is_empty() && self.is_empty_list(path!["listen", at, "addr"]) {
            self.report(Code::BadValue, path!["listen", at, "addr"], "a listener needs an address", "write \":8080\"");
        }
        match (door.protocol, &door.pool) {
            (Protocol::Tcp, None) if !door.sni.is_empty() => {}
            (Protocol::Tcp, None) => {
                let message = "a tcp listener needs a `pool`";
                self.report(
                    Code::MissingKey,
                    path!["listen", at, "protocol"],
                    message,
                    "name the pool that its connections go to",
                );
            }
            (Protocol::Tcp, Some(pool)) => self.pool_exists(pool, path!["listen", at, "pool"]),
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
        if door.protocol == Protocol::Tcp && !door.trusted.0.is_empty() {
            self.report(
                Code::NoEffect,
                path!["listen", at, "trusted"],
                "`trusted` has no effect on a tcp listener",
                "it is about header fields: leave it out",
            );
        }
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
}
