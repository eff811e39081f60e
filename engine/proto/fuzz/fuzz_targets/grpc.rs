//! Answers to health checks, and text of gRPC-Web: no bytes panic, and text is the same however it is cut, there and back.
#![no_main]

#[path = "../../tests/drive/mod.rs"]
mod drive;

use libfuzzer_sys::fuzz_target;
use proto::grpc::web::{Coding, Decoder, Encoder, NotBase64};
use proto::grpc::{Boundaries, health};

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, bool), NotBase64> {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let length = decoder.decode(&mut piece)?;
        all.extend_from_slice(&piece[..length]);
    }
    Ok((all, decoder.is_complete()))
}

fuzz_target!(|input: (u64, &[u8])| {
    let (seed, bytes) = input;
    let _ = (health::response(bytes), Coding::of(bytes));
    assert_eq!(decode(drive::cut(bytes, seed)), decode([bytes]));

    let (mut encoder, mut text) = (Encoder::default(), Vec::new());
    let (mut whole, mut cut) = (Boundaries::default(), Boundaries::default());
    whole.pass(bytes);
    for piece in drive::cut(bytes, seed).into_iter().chain([&b""[..]]) {
        cut.pass(piece);
        let mut out = vec![0; Encoder::room(piece.len())];
        let length = encoder.encode(piece, cut.is_between() || piece.is_empty(), &mut out);
        text.extend_from_slice(&out[..length]);
    }
    assert_eq!(whole.is_between(), cut.is_between());
    assert_eq!(decode([&text[..]]), Ok((bytes.to_vec(), true)));
});
