//! Frame heads, settings and priorities: any bytes are judged, and what passes is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h3::frame::{FrameHead, INTEGER_MAX, Kind, put, read_integer};
use proto::h3::{PeerSettings, Priority};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let mut settings = PeerSettings::INITIAL;
    while let Some((head, length)) = FrameHead::parse(rest) {
        assert!(length <= FrameHead::LEN_MAX && head.length <= INTEGER_MAX);
        assert_eq!(Kind::from_number(head.kind.number()), head.kind);
        rest = &rest[length..];
        let Some(payload) = usize::try_from(head.length).ok().and_then(|length| rest.get(..length)) else { return };
        rest = &rest[payload.len()..];
        let mut again = Vec::new();
        put(&mut again, head.kind, payload);
        assert_eq!(FrameHead::parse(&again), Some((head, again.len() - payload.len())));
        match head.kind {
            Kind::Settings => {
                let _ = settings.apply(payload);
            }
            Kind::PriorityUpdate => {
                if let Some((_, length)) = read_integer(payload) {
                    assert!(Priority::parse(&payload[length..]).urgency < 8);
                }
            }
            _ => {}
        }
    }
});
