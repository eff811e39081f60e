//! The chunked coding, whole and byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h1::{Decoder, Trailers};
use proto::http::Framing;

fuzz_target!(|bytes: &[u8]| {
    let (mut decoder, mut trailers, mut whole) = (Decoder::new(Framing::Chunked), Trailers::default(), bytes.to_vec());
    let decoded = decoder.decode(&mut whole, &mut trailers);

    let (mut slow, mut slow_trailers, mut payload, mut consumed) =
        (Decoder::new(Framing::Chunked), Trailers::default(), Vec::new(), 0);
    let mut failure = None;
    for &byte in bytes {
        let mut piece = [byte];
        match slow.decode(&mut piece, &mut slow_trailers) {
            Ok(step) => {
                payload.extend_from_slice(&piece[..step.payload]);
                consumed += step.consumed;
            }
            Err(malformed) => {
                failure = Some(malformed);
                break;
            }
        }
    }
    match decoded {
        Ok(decoded) => {
            assert_eq!((failure, consumed, slow), (None, decoded.consumed, decoder));
            assert_eq!(payload, whole[..decoded.payload]);
            assert!(decoded.ended || decoded.consumed == bytes.len());
            assert!(trailers.iter().eq(slow_trailers.iter()));
        }
        Err(malformed) => assert_eq!(failure, Some(malformed)),
    }
});
