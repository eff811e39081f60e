//! What listeners show by TLS, and what became of handshakes.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::snapshot::{ClientAuth, Listener, ListenerId, ListenerTls, TlsVersion};
use crate::telemetry::Counters;
use crate::tls::Showing;

/// A row a certificate of each listener.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let listeners = engine.snapshot().listeners.iter().zip(0..);
    let row = |listener: &Listener, tls: &ListenerTls, at: ListenerId, one: &Showing| {
        json!({
            "listener": listener.name,
            "certificate": one.file,
            "names": one.names,
            "days": one.days_left(),
            "key": one.key,
            "issuer": one.issuer,
            "ocsp": if one.staple { "stapled" } else { "none" },
            "scts": one.scts,
            "from": match tls.min {
                TlsVersion::Tls12 => "TLS 1.2",
                TlsVersion::Tls13 => "TLS 1.3",
            },
            "clients": match (&tls.client_ca, tls.client_auth) {
                (None, _) => "anybody",
                (Some(_), ClientAuth::Optional) => "with a certificate, or without",
                (Some(_), ClientAuth::Required) => "with a certificate",
            },
            "sessions": engine.terminators().sessions(at).map_or_else(|| "tickets".into(), |count| format!("{count} remembered")),
        })
    };
    listeners
        .filter_map(|(listener, at)| Some((listener, listener.tls.as_ref()?, ListenerId(at))))
        .flat_map(|(listener, tls, at)| {
            engine.terminators().showing(at).iter().map(move |one| row(listener, tls, at, one))
        })
        .collect()
}

/// How a handshake can end, and its counter.
type End = (&'static str, fn(&Counters) -> u64);

/// Those over TCP: QUIC's are told of by the connections that came of them.
const ENDS: &[End] = &[
    ("TLS 1.3", |of| of.tls_handshakes_total.get().saturating_sub(of.tls12_handshakes_total.get())),
    ("TLS 1.2", |of| of.tls12_handshakes_total.get()),
    ("of these, a session was resumed", |of| of.tls_resumed_total.get()),
    ("of these, early data was taken", |of| of.tls_early_data_accepted_total.get()),
    ("of these, early data was refused", |of| of.tls_early_data_rejected_total.get()),
    ("took too long", |of| of.tls_handshakes_timed_out_total.get()),
    ("the client left", |of| of.tls_handshakes_left_total.get()),
    ("HTTP in the clear", |of| of.tls_handshakes_plain_http_total.get()),
    ("nothing in common", |of| of.tls_handshakes_incompatible_total.get()),
    ("refused for a certificate", |of| of.tls_handshakes_certificate_total.get()),
    ("another alert of the client's", |of| of.tls_handshakes_alert_total.get()),
    ("broke TLS", |of| of.tls_handshakes_malformed_total.get()),
];

/// A row an end; nothing where no listener terminates TLS.
pub(super) fn handshakes(engine: &Engine) -> Vec<Value> {
    if engine.snapshot().listeners.iter().all(|listener| listener.tls.is_none()) {
        return Vec::new();
    }
    let sum = |count: fn(&Counters) -> u64| engine.cells().iter().map(|cells| count(&cells.counters)).sum::<u64>();
    ENDS.iter().map(|(end, count)| json!({ "handshakes": end, "count": sum(*count) })).collect()
}
