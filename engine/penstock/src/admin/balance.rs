//! The XDP balancer and decapsulator: where they stand, what they have made of packets, who has got which.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::balance::{Count, Kind, Share, VipCounts};
use crate::engine::Engine;
use crate::telemetry::prometheus;

/// A row for each interface that a program stands on.
pub(super) fn interfaces(engine: &Engine) -> Vec<Value> {
    let row = |(interface, kind, mode): (&str, Kind, &str)| json!({ "interface": interface, "program": kind.name(), "mode": mode });
    engine.balance().interfaces().map(row).collect()
}

/// A row for each endpoint of each VIP; one that nobody serves has a row too.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let balance = engine.balance();
    let shares = balance.shares();
    let rows = balance.vip_counts().flat_map(|(vip, counts)| {
        let addresses: Vec<_> = vip.addresses.iter().map(ToString::to_string).collect();
        let row = |share: Option<&Share<'_>>| {
            json!({
                "vip": vip.name,
                "address": format!("{} {}", addresses.join(" "), vip.protocol.text()),
                "forward": vip.forward.text(),
                "endpoint": share.map(|share| &*share.origin.name),
                "state": share.map_or("nobody serves", state),
                "slots": share.map(|share| share.slots),
                "packets": share.map(|share| share.packets),
                "bytes": share.map(|share| share.octets),
                "flows": counts.flows,
                "moved": counts.moved,
            })
        };
        let own: Vec<_> = shares.iter().filter(|share| share.vip.name == vip.name).collect();
        let nobody = own.is_empty().then(|| row(None));
        own.into_iter().map(move |share| row(Some(share))).chain(nobody).collect::<Vec<_>>()
    });
    rows.collect()
}

const fn state(share: &Share<'_>) -> &'static str {
    match (share.origin.weight, share.origin.keeps) {
        (0, true) => "keeps flows",
        (0, false) => "out",
        _ => "serves",
    }
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let balance = engine.balance();
    if !balance.is_raised() && !balance.has_decap() {
        return;
    }
    let attached = balance.interfaces().map(|(interface, kind, mode)| {
        (format!("interface={},program=\"{}\",mode=\"{mode}\"", prometheus::label(interface), kind.name()), 1)
    });
    let help = "Where the XDP balancer and decapsulator stand, and in which mode.";
    prometheus::family(out, "penstock_balance", "gauge", help, attached);
    let counts: Vec<_> =
        Kind::ALL.into_iter().flat_map(|kind| balance.counts(kind).into_iter().map(move |of| (kind, of))).collect();
    let label = |kind: Kind, count: &Count| {
        format!("program=\"{}\",outcome=\"{}\",verdict=\"{}\"", kind.name(), count.name, count.verdict)
    };
    let packets = counts.iter().map(|(kind, count)| (label(*kind, count), count.packets));
    let help = "Packets that the XDP balancer and decapsulator have seen, by what became of them.";
    prometheus::family(out, "penstock_balance_packets_total", "counter", help, packets);
    let octets = counts.iter().map(|(kind, count)| (label(*kind, count), count.octets));
    prometheus::family(out, "penstock_balance_bytes_total", "counter", "The same in bytes.", octets);
    vips(engine, out);
}

fn vips(engine: &Engine, out: &mut String) {
    let vips: Vec<_> = engine.balance().vip_counts().collect();
    let shares = engine.balance().shares();
    let of_vip = |name: &str| format!("vip={}", prometheus::label(name));
    let of_share = |share: &Share<'_>| {
        let mut label = of_vip(&share.vip.name);
        let _ = write!(label, ",endpoint={}", prometheus::label(&share.origin.name));
        label
    };
    let packets = vips.iter().map(|(vip, counts)| (of_vip(&vip.name), counts.packets));
    prometheus::family(out, "penstock_vip_packets_total", "counter", "Packets to a VIP.", packets);
    let octets = vips.iter().map(|(vip, counts)| (of_vip(&vip.name), counts.octets));
    prometheus::family(out, "penstock_vip_bytes_total", "counter", "The same in bytes, of IP.", octets);
    let flows = vips.iter().map(|(vip, counts)| (of_vip(&vip.name), counts.flows));
    let help = "Flows that were remembered: one that was forgotten and goes on counts again.";
    prometheus::family(out, "penstock_vip_flows_total", "counter", help, flows);
    let moved = vips.iter().map(|(vip, counts)| (of_vip(&vip.name), counts.moved));
    let help = "Flows of a VIP that have got another endpoint, because theirs has gone.";
    prometheus::family(out, "penstock_vip_flows_moved_total", "counter", help, moved);
    let ids = |of: fn(&VipCounts) -> u64| {
        let reading = vips.iter().filter(|(vip, _)| vip.quic);
        reading.map(move |(vip, counts)| (of_vip(&vip.name), of(counts))).collect::<Vec<_>>().into_iter()
    };
    let help = "Packets of a VIP that went where the id of their QUIC connection says.";
    prometheus::family(out, "penstock_vip_by_id_total", "counter", help, ids(|counts| counts.by_id));
    let help = "Packets of a VIP whose QUIC connection is of a server that is no endpoint, or none that serves.";
    prometheus::family(out, "penstock_vip_elsewhere_total", "counter", help, ids(|counts| counts.elsewhere));
    let slots = shares.iter().map(|share| (of_share(share), share.slots.into()));
    let help = "Slots of the VIP's table that an endpoint has, of 65,537.";
    prometheus::family(out, "penstock_vip_endpoint_slots", "gauge", help, slots);
    let packets = shares.iter().map(|share| (of_share(share), share.packets));
    let help = "Packets of a VIP that were for an endpoint.";
    prometheus::family(out, "penstock_vip_endpoint_packets_total", "counter", help, packets);
    let octets = shares.iter().map(|share| (of_share(share), share.octets));
    prometheus::family(out, "penstock_vip_endpoint_bytes_total", "counter", "The same in bytes, of IP.", octets);
}
