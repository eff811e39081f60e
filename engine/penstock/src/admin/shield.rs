//! The XDP shield: where it stands, what it has seen, whom it denies, and what an operator says of that.

use proto::http::Status;
use serde_json::{Value, json};

use super::order::Refused;
use crate::engine::Engine;
use crate::snapshot::{Cidr, Time, nearest};
use crate::telemetry::prometheus;

/// A row for each interface that it stands on.
pub(super) fn interfaces(engine: &Engine) -> Vec<Value> {
    let shield = engine.shield();
    let does = if shield.is_dry() { "counts" } else { "drops" };
    let cookies = shield.syn_cookies();
    let row = |(interface, mode)| {
        let networks = shield.networks();
        json!({ "interface": interface, "mode": mode, "does": does, "networks": networks, "syn_cookies": cookies })
    };
    shield.interfaces().map(row).collect()
}

/// A row for each thing that it has seen at all.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let counts = engine.shield().counts().into_iter().filter(|count| count.packets > 0);
    let row = |count: crate::shield::Count| {
        let verdict = count.verdict.unwrap_or("note").replace('_', " ");
        json!({ "reason": count.name, "verdict": verdict, "packets": count.packets, "bytes": count.octets })
    };
    counts.map(row).collect()
}

/// A row for each network that an operator denies, and each client that the engine does.
pub(super) fn denied(engine: &Engine) -> Vec<Value> {
    let row = |denied: crate::shield::Denied| {
        let left = denied.left.map(|left| left.as_secs());
        json!({ "network": denied.network, "by": denied.by, "left_s": left })
    };
    engine.shield().denied(ring::now()).into_iter().map(row).collect()
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let shield = engine.shield();
    if !shield.is_raised() {
        return;
    }
    let attached = shield
        .interfaces()
        .map(|(interface, mode)| (format!("interface={},mode=\"{mode}\"", prometheus::label(interface)), 1));
    let help = "Where the XDP shield stands, and in which mode.";
    prometheus::family(out, "penstock_shield", "gauge", help, attached);
    let answering = std::iter::once((String::new(), u64::from(shield.syn_cookies() == "answering")));
    let help = "Whether SYNs are answered with cookies, as a listener's queue is full.";
    prometheus::family(out, "penstock_shield_syn_cookies", "gauge", help, answering);
    let networks = std::iter::once((String::new(), shield.networks() as u64));
    prometheus::family(out, "penstock_shield_networks", "gauge", "Networks on the XDP shield's lists.", networks);
    let denied = std::iter::once((String::new(), shield.denied(ring::now()).len() as u64));
    let help = "Networks and clients that an operator or the engine has the XDP shield deny.";
    prometheus::family(out, "penstock_shield_denied", "gauge", help, denied);
    let counts = shield.counts();
    let (judged, noted): (Vec<_>, Vec<_>) = counts.iter().partition(|count| count.verdict.is_some());
    let label = |count: &&crate::shield::Count| {
        format!("reason=\"{}\",verdict=\"{}\"", count.name, count.verdict.unwrap_or_default())
    };
    let packets = judged.iter().map(|count| (label(count), count.packets));
    let help = "Packets that the XDP shield has seen, by the reason that decided over them and what became of them.";
    prometheus::family(out, "penstock_shield_packets_total", "counter", help, packets);
    let octets = judged.iter().map(|count| (label(count), count.octets));
    prometheus::family(out, "penstock_shield_bytes_total", "counter", "The same in bytes.", octets);
    let noted = noted.iter().map(|count| (format!("what=\"{}\"", count.name), count.packets));
    let help = "Packets with something unusual about them, whatever became of them.";
    prometheus::family(out, "penstock_shield_unusual_total", "counter", help, noted);
}

/// Follows an operator's word on a network: `deny`, `deny=TIME`, `clear`.
pub(super) fn follow(engine: &mut Engine, name: &str, to: &str, who: &str) -> Result<Value, Refused> {
    let refused = |why: String| Refused { status: Status::BAD_REQUEST, why };
    let network: Cidr = name.parse().map_err(|wrong| refused(format!("`{name}` {wrong}")))?;
    let now = ring::now();
    let until = match (to, to.strip_prefix("deny=").map(str::parse::<Time>)) {
        ("deny", _) => Some(ring::Now::NEVER),
        ("clear", _) => None,
        (_, Some(Ok(time))) if !time.0.is_zero() => Some(now + time.0),
        (_, Some(Err(wrong))) => return Err(refused(format!("`{to}`: the time {wrong}"))),
        _ => {
            return Err(refused(match nearest(to, ["deny", "clear"]) {
                Some(near) => format!("`{to}` is nothing that it can be; did you mean `{near}`?"),
                None => format!("`{to}` is nothing that it can be; write one of: deny, deny=TIME, clear"),
            }));
        }
    };
    let was = engine.shield_mut().tell(network, until, now).map_err(refused)?;
    eprintln!("penstock: shield: {network}: {to}, told by {who}");
    Ok(json!({ "network": network.to_string(), "is": to, "was": if was { "deny" } else { "clear" } }))
}
