//! `[[listen]]`: where connections come in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::TlsDoc;
use crate::limits;
use crate::snapshot::address::{Bind, Cidr};
use crate::snapshot::literal::{Listed, Text, Time};
use crate::snapshot::quantity::{Bandwidth, LeastRate};

/// A door: where connections come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "addr"]))]
pub struct ListenDoc {
    /// What logs, metrics and errors call it.
    pub name: String,
    /// Where to listen: one address or several. `:8080` is every address of the host, IPv4 and IPv6.
    pub addr: Listed<Bind>,
    /// `http`: requests are routed. `tcp`: bytes are passed through to `pool`.
    pub protocol: Protocol,
    /// The pool that a `tcp` door leads to.
    pub pool: Option<String>,
    /// HTTP/2 with clients of an `http` door, who choose it by ALPN over TLS, and by beginning with it where there is no TLS.
    pub http2: Http2Doc,
    /// TLS with clients. Off unless `cert` or `certificates` is given.
    pub tls: TlsDoc,
    /// Connections at one time; beyond that new ones wait in the backlog.
    pub max_connections: u32,
    /// Connections of one client (IPv6: one /64) at one time, over all workers; further ones are closed at once. No limit unless given.
    pub max_connections_per_client: Option<u32>,
    /// Connections that may wait to be accepted; the kernel clips it to net.core.somaxconn.
    pub backlog: u32,
    /// Who may say on whose behalf it connects.
    pub proxy_protocol: ProxyProtocolFrom,
    /// Proxies whose `X-Forwarded-*` and `Forwarded` fields are kept and added to. From anybody else they are replaced.
    pub trusted: Listed<Cidr>,
    /// The field in which `trusted` clients name the class of a request. From anybody else it says nothing.
    pub class_header: Option<String>,
    /// How long a client may take.
    pub timeout: ListenTimeouts,
}

impl Default for ListenDoc {
    fn default() -> Self {
        Self {
            name: String::new(),
            addr: Listed::default(),
            protocol: Protocol::default(),
            pool: None,
            http2: Http2Doc::default(),
            tls: TlsDoc::default(),
            max_connections: limits::CONNECTIONS_DEFAULT,
            max_connections_per_client: None,
            backlog: limits::BACKLOG_DEFAULT,
            proxy_protocol: ProxyProtocolFrom::default(),
            trusted: Listed::default(),
            class_header: None,
            timeout: ListenTimeouts::default(),
        }
    }
}

/// HTTP/2 with clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2Doc {
    /// Whether it is spoken.
    pub enabled: bool,
    /// Requests that one connection may have under way at a time. RFC 9113 §6.5.2 asks for 100 at least.
    pub streams: u32,
}

impl Default for Http2Doc {
    fn default() -> Self {
        Self { enabled: true, streams: proto::h2::Limits::DEFAULT.streams.into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    #[default]
    Http,
    Tcp,
}

/// Who may say on whose behalf it connects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocolFrom {
    /// Networks whose connections must begin with a PROXY header (v1 or v2). From elsewhere none is accepted.
    pub from: Listed<Cidr>,
}

/// How long a client may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenTimeouts {
    /// From accepting the connection to TLS being agreed upon, where there is TLS.
    pub handshake: Text<Time>,
    /// From the first byte of a request, or from accepting the connection, to the end of its head.
    pub head: Text<Time>,
    /// Between two requests of one connection.
    pub keep_alive: Text<Time>,
    /// Between two pieces of a body, or of a `tcp` connection's bytes, in either direction.
    pub body: Text<Time>,
    /// The least rate at which a client sends content whose length it has told, after five seconds and on average: who sends a byte
    /// now and then holds an endpoint's connection for hours. What the endpoint does not take in time is not held against it.
    pub body_rate: Text<LeastRate>,
}

impl Default for ListenTimeouts {
    fn default() -> Self {
        Self {
            handshake: Text::secs(10),
            head: Text::secs(10),
            keep_alive: Text::secs(75),
            body: Text::secs(60),
            body_rate: Text(LeastRate(Some(Bandwidth(limits::BODY_RATE_DEFAULT)))),
        }
    }
}
