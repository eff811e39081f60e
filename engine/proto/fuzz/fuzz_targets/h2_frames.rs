//! Frame heads, settings and priorities: any bytes are judged, and what passes is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h2::frame::{FrameHead, Kind};
use proto::h2::{PeerSettings, Priority};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let mut settings = PeerSettings::INITIAL;
    while let Some(head) = FrameHead::parse(rest) {
        assert_eq!(FrameHead::parse(&head.to_bytes()), Some(head));
        rest = &rest[FrameHead::LEN..];
        let Some((payload, after)) = rest.split_at_checked(head.length as usize) else { return };
        rest = after;
        if head.check(16_384).is_err() {
            continue;
        }
        assert!(head.length >= head.preamble() || head.kind == Kind::PushPromise);
        match head.kind {
            Kind::Settings => {
                let _ = settings.apply(payload, head.flags & 2 != 0);
                assert!(settings.initial_window_size <= i32::MAX as u32 && settings.max_frame_size < 1 << 24);
            }
            Kind::PriorityUpdate => assert!(Priority::parse(&payload[4..]).urgency < 8),
            _ => {}
        }
    }
});
