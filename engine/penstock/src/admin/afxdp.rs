//! AF_XDP: where it stands, and what the program has made of packets.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::telemetry::prometheus;

/// A row for the interface, where there is one.
pub(super) fn interfaces(engine: &Engine) -> Vec<Value> {
    let (queues, doors) = engine.afxdp().sizes();
    let row = |(interface, mode, copies): (&str, &str, &str)| json!({ "interface": interface, "mode": mode, "copies": copies, "queues": queues, "addresses": doors });
    engine.afxdp().stands().map(row).into_iter().collect()
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let afxdp = engine.afxdp();
    let Some((interface, mode, copies)) = afxdp.stands() else { return };
    let labels = format!("interface={},mode=\"{mode}\",copies=\"{copies}\"", prometheus::label(interface));
    let help = "Where datagrams go past the kernel, and how.";
    prometheus::family(out, "penstock_afxdp", "gauge", help, std::iter::once((labels, 1)));
    let counts = afxdp.counts();
    let rows = counts.iter().map(|(outcome, packets)| (format!("outcome=\"{outcome}\""), *packets));
    let help = "Packets that the program of AF_XDP has seen: those that it took, and why the kernel kept the others.";
    prometheus::family(out, "penstock_afxdp_packets_total", "counter", help, rows);
}
