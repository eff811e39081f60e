//! A server's HTTP/2 connection: the same story however the stream is cut, within bounds whatever it holds.
#![no_main]

#[path = "../../tests/wire/mod.rs"]
mod wire;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, bool, &[u8])| {
    let (seed, greeted, stream) = input;
    let rig = || if greeted { wire::server() } else { wire::Rig::new(proto::h2::Limits::DEFAULT) };
    assert_eq!(wire::tell(rig(), &wire::cut(stream, seed)), wire::tell(rig(), &[stream]));
});
