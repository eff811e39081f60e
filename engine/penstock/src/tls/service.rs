//! What the DNS may say of listeners: HTTPS records (RFC 9460), by which clients begin with HTTP/3 or 2 without having been here before.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::certificates::{chain, names};
use crate::snapshot::{Bind, Listener, ListenerProtocol, Snapshot};

/// A record a line as zone files have them, for each name that a listener has a certificate for; in the order of names.
#[must_use]
pub fn https_records(snapshot: &Snapshot) -> Vec<String> {
    let records: BTreeSet<String> = snapshot.listeners.iter().flat_map(of_listener).collect();
    records.into_iter().collect()
}

fn of_listener(listener: &Listener) -> Vec<String> {
    let (Some(tls), Some(alpn)) = (&listener.tls, alpn(listener)) else { return Vec::new() };
    let shown = tls.certificates.iter().filter_map(|one| chain(&one.cert).ok());
    let names: Vec<_> = shown.filter_map(|chain| chain.first().map(names)).flatten().collect();
    let ports = listener.addresses.iter().filter_map(|address| match address {
        Bind::Tcp(inet) => Some(SocketAddr::port(inet)),
        Bind::Any { port } => Some(*port),
        Bind::Unix(_) => None,
    });
    let record = |owner| format!("{owner} IN HTTPS 1 . alpn=\"{alpn}\"");
    ports.flat_map(|port| names.iter().filter_map(move |name| owner(name, port))).map(record).collect()
}

/// What a client of HTTPS cannot assume: HTTP/1.1 it can (§7.1.2). `None`: nothing.
fn alpn(listener: &Listener) -> Option<&'static str> {
    let told = listener.http3.as_ref().is_some_and(|http3| http3.advertised.is_some());
    match (listener.protocol, told, listener.http2_streams) {
        (ListenerProtocol::Http, true, Some(_)) => Some("h3,h2"),
        (ListenerProtocol::Http, true, None) => Some("h3"),
        (ListenerProtocol::Http, false, Some(_)) => Some("h2"),
        _ => None,
    }
}

/// Whose record it is: another port than HTTPS's own is a part of the name (§9.1), in front of which no wildcard can stand.
fn owner(name: &str, port: u16) -> Option<String> {
    match port {
        443 => Some(format!("{name}.")),
        _ if name.starts_with('*') => None,
        port => Some(format!("_{port}._https.{name}.")),
    }
}
