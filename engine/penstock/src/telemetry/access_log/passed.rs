//! A connection or a flow of datagrams that was passed through, as it is told of when it is over.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Agreed, agreed, escaped, field, or_dash};

/// One of them.
#[derive(Debug, Default)]
pub struct Passed<'a> {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    pub listener: &'a str,
    /// The client, and its port if that is known.
    pub client: Option<IpAddr>,
    pub port: Option<u16>,
    /// Where it was led; the endpoint of the last try.
    pub pool: &'a str,
    pub upstream: &'a str,
    pub tries: u8,
    /// Bytes from the client, and from the endpoint.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Of a flow: datagrams from the client, and from the endpoint.
    pub datagrams: Option<(u64, u64)>,
    pub duration: Duration,
    /// Of TLS that we ended.
    pub tls: Agreed,
    /// In the terms of HTTP, as of nginx's stream module: 200 where the ends were joined.
    pub status: u16,
    /// Why, when it did not go well; empty otherwise.
    pub reason: &'static str,
}

pub(super) fn json(out: &mut Vec<u8>, passed: &Passed<'_>, stamp: &str) {
    let _ = write!(out, r#"{{"time":"{stamp}","protocol":"{}""#, passed.protocol);
    if let Some(client) = passed.client {
        let _ = write!(out, r#","client":"{}""#, client.to_canonical());
    }
    if let Some(port) = passed.port {
        let _ = write!(out, r#","client_port":{port}"#);
    }
    for (name, value) in
        [("listener", passed.listener), ("pool", passed.pool), ("upstream", passed.upstream), ("reason", passed.reason)]
    {
        field(out, name, value.as_bytes());
    }
    agreed(out, passed.tls);
    if let Some((datagrams_in, datagrams_out)) = passed.datagrams {
        let _ = write!(out, r#","datagrams_in":{datagrams_in},"datagrams_out":{datagrams_out}"#);
    }
    let _ = writeln!(
        out,
        r#","status":{},"bytes_in":{},"bytes_out":{},"duration_us":{},"tries":{}}}"#,
        passed.status,
        passed.bytes_in,
        passed.bytes_out,
        passed.duration.as_micros(),
        passed.tries
    );
}

/// A line of a request's columns: what was asked is the protocol, the listener and the endpoint.
pub(super) fn common(out: &mut Vec<u8>, passed: &Passed<'_>, stamp: &str) {
    let quote = |byte| byte == b'"' || byte == b'\\';
    match passed.client {
        Some(client) => drop(write!(out, "{}", client.to_canonical())),
        None => out.extend_from_slice(b"unknown"),
    }
    let _ = write!(out, " - - [{stamp}] \"{} ", passed.protocol.to_ascii_uppercase());
    escaped(out, passed.listener.as_bytes(), quote);
    out.push(b' ');
    escaped(out, or_dash(passed.upstream.as_bytes()), quote);
    let _ = writeln!(out, "\" {} {} \"-\" \"-\"", passed.status, passed.bytes_out);
}

/// The port that a client called from, where its address is the one that called.
#[must_use]
pub fn port_of(client: Option<IpAddr>, from: Option<SocketAddr>) -> Option<u16> {
    from.filter(|from| Some(from.ip().to_canonical()) == client.map(|client| client.to_canonical()))
        .map(|from| from.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed() -> Passed<'static> {
        Passed {
            protocol: "udp",
            listener: "d\"ns",
            client: Some(IpAddr::from([192, 0, 2, 7])),
            port: Some(5_353),
            pool: "resolvers",
            upstream: "10.0.0.1:53",
            tries: 1,
            bytes_in: 40,
            bytes_out: 90,
            datagrams: Some((1, 1)),
            duration: Duration::from_micros(1_500),
            tls: Agreed::default(),
            status: 200,
            reason: "",
        }
    }

    #[test]
    fn json_lines_are_json() {
        let mut out = Vec::new();
        json(&mut out, &passed(), "2026-11-23T00:00:00Z");
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let wanted = serde_json::json!({
            "time": "2026-11-23T00:00:00Z", "protocol": "udp", "client": "192.0.2.7", "client_port": 5353, "listener": "d\"ns",
            "pool": "resolvers", "upstream": "10.0.0.1:53", "datagrams_in": 1, "datagrams_out": 1, "status": 200,
            "bytes_in": 40, "bytes_out": 90, "duration_us": 1500, "tries": 1,
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn common_lines_have_the_columns_of_requests() {
        let mut out = Vec::new();
        common(&mut out, &passed(), "23/Nov/2026:00:00:00 +0000");
        let wanted = "192.0.2.7 - - [23/Nov/2026:00:00:00 +0000] \"UDP d\\\"ns 10.0.0.1:53\" 200 90 \"-\" \"-\"\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_port_is_the_clients_own() {
        let from = |text: &str| Some(text.parse().unwrap());
        let client = Some(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(port_of(client, from("192.0.2.7:9")), Some(9));
        assert_eq!(port_of(client, from("[::ffff:192.0.2.7]:9")), Some(9));
        assert_eq!(port_of(client, from("192.0.2.8:9")), None);
        assert_eq!(port_of(None, from("192.0.2.8:9")), None);
    }
}
