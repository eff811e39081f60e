//! A server's connection: the same story however the stream is cut.
#![no_main]

#[path = "../../tests/drive/mod.rs"]
mod drive;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (seed, stream) = input;
    let (whole, pieces) = (drive::server(&[stream]), drive::server(&drive::cut(stream, seed)));
    match whole {
        Ok(_) => assert_eq!(pieces, whole),
        Err(_) => assert!(pieces.is_err()),
    }
});
