//! What is asked of every contender, by the command that asks it.

use xtask::Outcome;

use crate::grpc;

/// What clients speak to a proxy. It speaks HTTP/1.1 in the clear to the origin, unless it is told otherwise here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// HTTP/1.1 in the clear.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/3.
    H3,
    /// gRPC over HTTP/2 in the clear, to the origin too.
    Grpc,
}

impl Over {
    /// Whether proxies show a certificate.
    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::H2 | Self::H3)
    }
}

/// A closed loop, or (for `latency`) an open one at a fixed rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) over: Over,
    pub(crate) connections: usize,
    /// Requests at once on a connection: more than one with HTTP/2 and HTTP/3 only.
    pub(crate) streams: usize,
    /// What the origin serves: its path, and the length of the body.
    pub(crate) path: &'static str,
    pub(crate) body: usize,
    /// One request a connection; over TLS, what is measured is handshakes.
    pub(crate) close: bool,
    /// Those are resumed from a ticket.
    pub(crate) resumed: bool,
    /// Over a path that is long and loses ([`Far`](crate::far::Far)).
    pub(crate) far: bool,
    /// Requests have a browser's heads.
    pub(crate) browser: bool,
    /// Open loop: requests are due at times of their own, whether or not earlier ones were answered.
    pub(crate) paced: bool,
}

/// What one command measures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suite {
    /// The command's word.
    pub(crate) name: &'static str,
    /// The first one also warms everybody up.
    pub(crate) scenarios: &'static [Scenario],
    /// Whom to measure against unless told, and in a smoke round: there, nobody whom a package must bring.
    pub(crate) rivals: &'static str,
    pub(crate) smoke: (&'static str, &'static str),
}

/// `bench h1`.
pub(crate) const H1: Suite = Suite {
    name: "h1",
    scenarios: &[
        C64,
        Scenario { name: "c1", connections: 1, ..C64 },
        Scenario { name: "c512", connections: 512, ..C64 },
        Scenario { name: "browser", browser: true, ..C64 },
        Scenario { name: "16k", path: "/16k", body: 16 << 10, ..C64 },
        Scenario { name: "1m", connections: 16, path: "/1m", body: 1 << 20, ..C64 },
        Scenario { name: "close", close: true, ..C64 },
        Scenario { name: "latency", paced: true, ..C64 },
    ],
    rivals: "nginx,haproxy",
    smoke: ("c64", "epoll-relay"),
};

/// `bench samehost`: the shortcut to endpoints of this host, against itself switched off and against rivals.
pub(crate) const SAME_HOST: Suite = Suite {
    name: "samehost",
    scenarios: &[
        C64,
        Scenario { name: "c1", connections: 1, ..C64 },
        Scenario { name: "16k", path: "/16k", body: 16 << 10, ..C64 },
        Scenario { name: "1m", connections: 16, path: "/1m", body: 1 << 20, ..C64 },
    ],
    rivals: "penstock-same-host,nginx,haproxy",
    smoke: ("c64", "penstock-same-host"),
};

/// `bench tls`: HTTP/1.1 over TLS. ECDSA P-256 for everybody, TLS 1.3, and X25519 in handshakes.
pub(crate) const TLS: Suite = Suite {
    name: "tls",
    scenarios: &[
        Scenario { over: Over::Tls, ..C64 },
        Scenario { name: "1m", over: Over::Tls, connections: 16, path: "/1m", body: 1 << 20, ..C64 },
        HANDSHAKE,
        Scenario { name: "resumed", resumed: true, ..HANDSHAKE },
    ],
    rivals: "nginx,haproxy,h2o",
    smoke: ("handshake", ""),
};

/// `bench h2`: HTTP/2 over TLS.
pub(crate) const H2: Suite = Suite {
    name: "h2",
    scenarios: &[
        Scenario { name: "16x16", over: Over::H2, connections: 16, streams: 16, ..C64 },
        Scenario { name: "1x1", over: Over::H2, connections: 1, ..C64 },
        Scenario { name: "1m", over: Over::H2, connections: 4, streams: 4, path: "/1m", body: 1 << 20, ..C64 },
    ],
    rivals: "nginx,haproxy,h2o",
    smoke: ("16x16", ""),
};

/// `bench h3`: HTTP/3.
pub(crate) const H3: Suite = Suite {
    name: "h3",
    scenarios: &[
        Scenario { name: "16x16", over: Over::H3, connections: 16, streams: 16, ..C64 },
        Scenario { name: "64x1", over: Over::H3, ..C64 },
        Scenario { name: "1x1", over: Over::H3, connections: 1, ..C64 },
        Scenario { name: "1m", over: Over::H3, connections: 4, streams: 4, path: "/1m", body: 1 << 20, ..C64 },
        Scenario { over: Over::H3, ..HANDSHAKE },
        Scenario { name: "far", over: Over::H3, connections: 16, path: "/1m", body: 1 << 20, far: true, ..C64 },
    ],
    rivals: "nginx,haproxy",
    smoke: ("16x16", ""),
};

/// `bench grpc`: unary calls over HTTP/2 without TLS.
pub(crate) const GRPC: Suite = Suite {
    name: "grpc",
    scenarios: &[
        Scenario { name: "16x16", over: Over::Grpc, connections: 16, streams: 16, path: grpc::PATH, ..C64 },
        Scenario { name: "1x1", over: Over::Grpc, connections: 1, path: grpc::PATH, ..C64 },
    ],
    rivals: "nginx,haproxy,envoy",
    smoke: ("16x16", ""),
};

/// The one whose throughput is called a contender's capacity.
pub(crate) const C64: Scenario = Scenario {
    name: "c64",
    over: Over::Plain,
    connections: 64,
    streams: 1,
    path: "/100",
    body: 100,
    close: false,
    resumed: false,
    far: false,
    browser: false,
    paced: false,
};

const HANDSHAKE: Scenario = Scenario { name: "handshake", over: Over::Tls, connections: 16, close: true, ..C64 };

impl Scenario {
    pub(crate) fn told(&self) -> String {
        let size = if self.body >= 1 << 20 {
            format!("{} MiB", self.body >> 20)
        } else if self.body >= 1 << 10 {
            format!("{} KiB", self.body >> 10)
        } else {
            format!("{} B", self.body)
        };
        let connections =
            if self.connections == 1 { "1 connection".to_owned() } else { format!("{} connections", self.connections) };
        let streams = if self.streams == 1 { String::new() } else { format!(" × {} streams", self.streams) };
        let how = match (self.close, self.paced) {
            (true, _) if self.resumed => ", a connection per request, resumed",
            (true, _) if self.over.is_secure() => ", a connection per request, full handshakes",
            (true, _) => ", a connection per request",
            _ if self.browser => ", heads of a browser with cookies (1.3 KB)",
            _ if self.far => ", each way 10 ms and 1 % of datagrams lost",
            (_, true) => ", open loop at half of the slowest one's capacity",
            _ => "",
        };
        format!("{}: {connections}{streams}, {size}{how}", self.name)
    }
}

impl Suite {
    /// The scenarios of a list of names, in the table's order; all of them for an empty list.
    pub(crate) fn chosen(&self, names: &[&str]) -> Outcome<Vec<Scenario>> {
        if let Some(unknown) = names.iter().find(|name| !self.scenarios.iter().any(|scenario| scenario.name == **name))
        {
            let known: Vec<&str> = self.scenarios.iter().map(|scenario| scenario.name).collect();
            return Err(format!("there is no scenario `{unknown}`: {}", known.join(", ")));
        }
        let wanted = |scenario: &&Scenario| names.is_empty() || names.contains(&scenario.name);
        Ok(self.scenarios.iter().filter(wanted).copied().collect())
    }

    /// What clients speak.
    pub(crate) fn over(&self) -> Over {
        self.scenarios.first().map_or(Over::Plain, |scenario| scenario.over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_by_name() {
        assert_eq!(H1.chosen(&[]).unwrap().len(), H1.scenarios.len());
        let names: Vec<&str> = H1.chosen(&["1m", "c1"]).unwrap().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, ["c1", "1m"]);
        assert!(H1.chosen(&["c65"]).unwrap_err().contains("no scenario `c65`"));
    }

    #[test]
    fn a_suite_has_one_protocol_and_its_smoke_round_exists() {
        for suite in [H1, TLS, H2, H3, GRPC] {
            assert!(suite.scenarios.iter().all(|scenario| scenario.over == suite.over()), "{}", suite.name);
            assert_eq!(suite.chosen(&[suite.smoke.0]).unwrap().len(), 1);
        }
    }

    #[test]
    fn told_in_words() {
        let told = |suite: Suite, name| suite.chosen(&[name]).unwrap()[0].told();
        assert_eq!(told(H1, "1m"), "1m: 16 connections, 1 MiB");
        assert_eq!(told(H1, "close"), "close: 64 connections, 100 B, a connection per request");
        assert_eq!(told(TLS, "resumed"), "resumed: 16 connections, 100 B, a connection per request, resumed");
        assert_eq!(told(GRPC, "1x1"), "1x1: 1 connection, 100 B");
        assert_eq!(
            told(H3, "handshake"),
            "handshake: 16 connections, 100 B, a connection per request, full handshakes"
        );
        assert_eq!(told(H2, "16x16"), "16x16: 16 connections × 16 streams, 100 B");
    }
}
