//! A client's HTTP/2 connection with four requests open: the same story however the stream is cut, within bounds whatever it holds.
#![no_main]

#[path = "../../tests/wire/mod.rs"]
mod wire;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (seed, stream) = input;
    let rig = || {
        let mut rig = wire::client(4);
        rig.ask(proto::http::Method::Connect, proto::http::Framing::None);
        rig.ask(proto::http::Method::Post, proto::http::Framing::Chunked);
        rig
    };
    assert_eq!(wire::tell(rig(), &wire::cut(stream, seed)), wire::tell(rig(), &[stream]));
});
