//! Frames as they pass: the same story however they are cut, and one that adds up.
#![no_main]

#[path = "../../tests/drive/mod.rs"]
mod drive;
#[path = "../../tests/frames/mod.rs"]
mod frames;

use libfuzzer_sys::fuzz_target;
use proto::ws::{Event, Rules, Sender};

fuzz_target!(|input: (u64, u8, u16, u16, &[u8])| {
    let (seed, choice, frame_bytes_max, message_bytes_max, stream) = input;
    let limit = |bytes: u16| if bytes == 0 { u64::MAX } else { bytes.into() };
    let rules = Rules {
        sender: if choice & 1 == 0 { Sender::Client } else { Sender::Server },
        deflate: choice & 2 != 0,
        utf8: choice & 4 != 0,
        frame_bytes_max: limit(frame_bytes_max),
        message_bytes_max: limit(message_bytes_max),
    };
    let whole = frames::inspect(rules, &[stream]);
    assert_eq!(frames::inspect(rules, &drive::cut(stream, seed)), whole);

    let (mut bytes, mut open) = (0, false);
    for (event, _) in &whole.events {
        match event {
            Event::Begin(message) => {
                assert!(!open && (message.bytes, message.frames) == (0, 0));
                open = true;
            }
            Event::Fragment => assert!(open),
            Event::End(message) => {
                assert!(open && message.frames > 0 && message.bytes <= rules.message_bytes_max);
                (bytes, open) = (bytes + message.bytes, false);
            }
            Event::Ping(echo) | Event::Pong(echo) => bytes += u64::from(echo.length),
            Event::Close(_) | Event::Pause => {}
        }
    }
    assert!(bytes <= whole.sound as u64 && whole.sound <= stream.len());
    assert_eq!(whole.closed, whole.events.iter().any(|(event, _)| matches!(event, Event::Close(_))));
});
