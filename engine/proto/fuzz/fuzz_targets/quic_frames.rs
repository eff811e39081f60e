//! Where a QUIC packet's frames end: behind that is nothing but zeros, and cut there they end in the same place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::quic::frames_end;

fuzz_target!(|bytes: &[u8]| {
    let end = frames_end(bytes);
    assert!(bytes[end..].iter().all(|&byte| byte == 0));
    assert_eq!(frames_end(&bytes[..end]), end);
});
