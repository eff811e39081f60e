//! What is told of WebSockets, by route.

use proto::ws::{Sender, Violation};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::telemetry::prometheus::{self, Scale};
use crate::telemetry::{Closing, Histogram, MessageCells, Summary, WebSocketCells};

/// Upper edges of the histogram of message sizes, in bytes.
const SIZES: Scale<'_> =
    Scale { edges: &[64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20], unit: 1.0 };

/// Those of latencies, in nanoseconds: what passing a message on takes, and what one waits that is held back.
const LATENCIES: Scale<'_> = Scale {
    edges: &[
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        1_000_000,
        10_000_000,
        100_000_000,
        1_000_000_000,
        10_000_000_000,
    ],
    unit: 1e9,
};

const DIRECTIONS: [(Sender, &str); 2] = [(Sender::Client, "up"), (Sender::Server, "down")];

/// A route that has had WebSockets, and what each worker tells of them.
struct Of<'a> {
    route: &'a str,
    workers: Vec<&'a WebSocketCells>,
}

fn all(engine: &Engine) -> impl Iterator<Item = Of<'_>> {
    let routes = engine.snapshot().routes.iter().enumerate();
    routes.filter_map(|(at, route)| {
        let workers: Vec<_> = engine.websockets().iter().filter_map(|cells| cells.of(at)).collect();
        (!workers.is_empty()).then_some(Of { route: &route.name, workers })
    })
}

impl Of<'_> {
    fn sum(&self, value: impl Fn(&WebSocketCells) -> u64) -> u64 {
        self.workers.iter().map(|cells| value(cells)).sum()
    }

    fn messages(&self, sender: Sender, value: fn(&MessageCells) -> u64) -> u64 {
        self.sum(|cells| value(cells.of(sender)))
    }

    fn summary(&self, sender: Sender, histogram: fn(&MessageCells) -> &Histogram) -> Summary {
        let mut summary = Summary::default();
        self.workers.iter().for_each(|cells| summary.add(histogram(cells.of(sender))));
        summary
    }
}

/// A row a route that has had WebSockets.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let row = |of: Of<'_>| {
        let micros = |sender| of.summary(sender, |cells| &cells.latency).quantile(0.99) / 1_000;
        json!({
            "route": of.route,
            "open": of.sum(|cells| cells.open.get()),
            "opened": of.sum(|cells| cells.opened.get()),
            "messages_up": of.messages(Sender::Client, |cells| cells.messages.get()),
            "messages_down": of.messages(Sender::Server, |cells| cells.messages.get()),
            "bytes_up": of.messages(Sender::Client, |cells| cells.bytes.get()),
            "bytes_down": of.messages(Sender::Server, |cells| cells.bytes.get()),
            "p99_us_up": micros(Sender::Client),
            "p99_us_down": micros(Sender::Server),
            "lost": of.sum(|cells| cells.closes(Closing::Lost)),
            "violations": Violation::ALL.iter().map(|&cause| of.sum(|cells| cells.violations(cause))).sum::<u64>(),
        })
    };
    all(engine).map(row).collect()
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let routes: Vec<_> = all(engine).collect();
    if routes.is_empty() {
        return;
    }
    let label = |of: &Of<'_>| format!("route={}", prometheus::label(of.route));
    let mut plain = |name, kind, help, value: fn(&WebSocketCells) -> u64| {
        prometheus::family(out, name, kind, help, routes.iter().map(|of| (label(of), of.sum(value))));
    };
    plain("penstock_websockets_total", "counter", "WebSockets opened.", |cells| cells.opened.get());
    plain("penstock_websockets_open", "gauge", "WebSockets open.", |cells| cells.open.get());
    let mut each = |name, help, value: fn(&MessageCells) -> u64| {
        let rows = routes.iter().flat_map(|of| {
            DIRECTIONS.map(|(sender, way)| (format!("{},direction=\"{way}\"", label(of)), of.messages(sender, value)))
        });
        prometheus::family(out, name, "counter", help, rows);
    };
    each("penstock_websocket_messages_total", "Messages passed on.", |cells| cells.messages.get());
    each("penstock_websocket_bytes_total", "Bytes of frames passed on.", |cells| cells.bytes.get());
    let closes = routes.iter().flat_map(|of| {
        let row = |closing: Closing| {
            let label = format!("{},how=\"{}\"", label(of), closing.text());
            (label, of.sum(|cells| cells.closes(closing)))
        };
        Closing::ALL.map(row)
    });
    let help = "WebSockets that ended, by the code of the first Close.";
    prometheus::family(out, "penstock_websocket_closes_total", "counter", help, closes);
    let violations = routes.iter().flat_map(|of| {
        let row = |cause: Violation| {
            let label = format!("{},cause=\"{}\"", label(of), cause.text());
            (label, of.sum(|cells| cells.violations(cause)))
        };
        Violation::ALL.map(row)
    });
    let help = "WebSockets ended because a side broke the protocol or a limit.";
    prometheus::family(out, "penstock_websocket_violations_total", "counter", help, violations);
    let mut histogram = |name, help, scale: &Scale<'_>, histogram: fn(&MessageCells) -> &Histogram| {
        let series = routes.iter().flat_map(|of| {
            DIRECTIONS
                .map(|(sender, way)| (format!("{},direction=\"{way}\"", label(of)), of.summary(sender, histogram)))
        });
        prometheus::histogram(out, name, help, scale, series);
    };
    let help = "Payload of a message, as it passed.";
    histogram("penstock_websocket_message_bytes", help, &SIZES, |cells| &cells.size);
    let help = "From the arrival of a message's last byte until it was handed on to be sent.";
    histogram("penstock_websocket_message_seconds", help, &LATENCIES, |cells| &cells.latency);
}
