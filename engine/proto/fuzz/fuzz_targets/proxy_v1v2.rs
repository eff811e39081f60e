//! PROXY headers: bounded, cut anywhere, and written as they were read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::proxy::{LENGTH_MAX, Peer, parse, write_v1, write_v2};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    match whole {
        Ok(Some(header)) => {
            assert!(header.length <= bytes.len() && header.length <= LENGTH_MAX);
            assert!((0..header.length).all(|end| parse(&bytes[..end]) == Ok(None)));
            if let Peer::Inet { source, destination } = header.peer {
                for write in [write_v1, write_v2] {
                    let mut out = Vec::new();
                    write(Some((source, destination)), &mut out);
                    let again = parse(&out).unwrap().unwrap();
                    assert_eq!((again.length, again.peer), (out.len(), header.peer));
                }
            }
        }
        Ok(None) => assert!(bytes.len() < LENGTH_MAX),
        Err(_) => {}
    }
});
