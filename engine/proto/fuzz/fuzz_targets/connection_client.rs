//! A client's connection: the same story however the stream is cut.
#![no_main]

#[path = "../../tests/drive/mod.rs"]
mod drive;

use libfuzzer_sys::fuzz_target;
use proto::http::Method;

fuzz_target!(|input: (u64, u8, &[u8])| {
    let (seed, kind, stream) = input;
    let method = [Method::Get, Method::Head, Method::Connect][kind as usize % 3];
    let upgrade = kind & 0x80 != 0;
    let (whole, pieces) =
        (drive::client(method, upgrade, &[stream]), drive::client(method, upgrade, &drive::cut(stream, seed)));
    match whole {
        Ok(_) => assert_eq!(pieces, whole),
        Err(_) => assert!(pieces.is_err()),
    }
});
