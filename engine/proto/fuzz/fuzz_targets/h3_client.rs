//! A client's HTTP/3 connection with six requests open: the same story however its streams are cut, within bounds whatever they hold.
#![no_main]

#[path = "../../tests/quic/mod.rs"]
mod quic;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, Vec<(u8, Vec<u8>, bool)>)| {
    let (seed, segments) = input;
    let segments = quic::segments(&segments);
    let rig = || {
        let mut rig = quic::client(4);
        rig.ask(16, proto::http::Method::Connect, proto::http::Framing::None);
        rig.ask(20, proto::http::Method::Post, proto::http::Framing::Chunked);
        rig
    };
    assert_eq!(quic::tell(rig(), &segments, Some(seed)), quic::tell(rig(), &segments, None));
});
