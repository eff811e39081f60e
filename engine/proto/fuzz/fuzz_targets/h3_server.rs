//! A server's HTTP/3 connection: the same story however its streams are cut, within bounds whatever they hold.
#![no_main]

#[path = "../../tests/quic/mod.rs"]
mod quic;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, bool, Vec<(u8, Vec<u8>, bool)>)| {
    let (seed, greeted, segments) = input;
    let segments = quic::segments(&segments);
    let rig = || if greeted { quic::server() } else { quic::Rig::new(proto::h3::Limits::DEFAULT) };
    assert_eq!(quic::tell(rig(), &segments, Some(seed)), quic::tell(rig(), &segments, None));
});
