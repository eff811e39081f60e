//! gRPC's bytes: what a health check says, and what gRPC-Web makes of messages, however they are cut.

mod drive;

use drive::cut;
use proptest::prelude::*;
use proto::grpc::health::{self, Serving, Unreadable};
use proto::grpc::web::{self, Coding, Decoder, Encoder, NotBase64};
use proto::grpc::{Boundaries, length_of, prefix};

#[test]
fn a_health_check_asks_for_a_service() {
    assert_eq!(health::request(""), b"\0\0\0\0\0");
    let long = "s".repeat(200);
    let request = health::request(&long);
    assert_eq!(request[..8], *b"\0\0\0\0\xcb\x0a\xc8\x01");
    assert_eq!(request[8..], *long.as_bytes());
}

#[test]
fn what_a_server_says_of_a_service() {
    let known: &[(&[u8], Serving)] = &[
        (b"", Serving::Unknown),
        (b"\x08\x00", Serving::Unknown),
        (b"\x08\x01", Serving::Serving),
        (b"\x08\x02", Serving::NotServing),
        (b"\x08\x03", Serving::ServiceUnknown),
        (b"\x08\x04", Serving::Other(4)),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Serving::Other(u64::MAX)),
        // Written longer than it must be, and said twice: the last one counts.
        (b"\x08\x81\x80\x00", Serving::Serving),
        (b"\x08\x02\x08\x01", Serving::Serving),
        // What is not known is passed over: a string, an integer, eight bytes, four bytes.
        (b"\x12\x03abc\x18\x07\x21\0\0\0\0\0\0\0\0\x2d\0\0\0\0\x08\x01", Serving::Serving),
        // The field's number with another type is another field.
        (b"\x0a\x01\x02", Serving::Unknown),
    ];
    for (message, expected) in known {
        assert_eq!(health::response(message), Ok(*expected), "{}", message.escape_ascii());
    }
}

#[test]
fn what_is_no_answer_to_a_health_check() {
    let broken: &[&[u8]] = &[
        b"\x08",
        b"\x08\x81",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x12\x04abc",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x21\0\0\0",
        b"\x2d\0",
        // Field number 0, a group, and two types that nobody has defined.
        b"\x00\x01",
        b"\x0b\x0c",
        b"\x0e",
        b"\x0f",
    ];
    for message in broken {
        assert_eq!(health::response(message), Err(Unreadable), "{}", message.escape_ascii());
    }
}

#[test]
fn media_types_of_grpc_web() {
    for (value, expected) in [
        ("application/grpc-web", Some((Coding::Binary, ""))),
        ("application/grpc-web+proto", Some((Coding::Binary, "+proto"))),
        ("Application/gRPC-Web-Text", Some((Coding::Text, ""))),
        ("application/grpc-web-text+thrift;a=b", Some((Coding::Text, "+thrift;a=b"))),
        ("application/grpc-web;charset=utf-8", Some((Coding::Binary, ";charset=utf-8"))),
        ("application/grpc", None),
        ("application/grpc+proto", None),
        ("application/grpc-webtext", None),
        ("application/grpc-web-texts", None),
        ("application/grpc-web-", None),
        ("", None),
    ] {
        let found = Coding::of(value.as_bytes());
        assert_eq!(found, expected.map(|(coding, rest)| (coding, rest.as_bytes())), "{value}");
    }
}

#[test]
fn trailers_are_a_message_that_says_so() {
    let mut out = Vec::new();
    let trailers: [(&[u8], &[u8]); 2] = [(b"Grpc-Status", b"0"), (b"x-last", b"")];
    web::write_trailers(trailers.into_iter(), &mut out);
    assert_eq!(out, b"\x80\0\0\0\x1agrpc-status: 0\r\nx-last: \r\n");
}

/// RFC 4648 §10, and padding between two messages, which gRPC-Web allows.
#[test]
fn text_becomes_bytes() {
    for (text, expected) in [
        ("", ""),
        ("Zg==", "f"),
        ("Zm8=", "fo"),
        ("Zm9v", "foo"),
        ("Zm9vYg==", "foob"),
        ("Zm9vYmE=", "fooba"),
        ("Zm9vYmFy", "foobar"),
        ("Zg==Zm8=Zm9vZg==", "ffofoof"),
    ] {
        let mut text = text.as_bytes().to_vec();
        let mut decoder = Decoder::default();
        let length = decoder.decode(&mut text).expect("base64");
        assert_eq!((&text[..length], decoder.is_complete()), (expected.as_bytes(), true));
    }
}

#[test]
fn what_is_no_base64() {
    for text in [
        "=", "Z=", "Zg=a", "Zg=A", "Zm8==", "Zg===", "Zh==", "Zm9=", "Zm9v=", "Zm 9v", "Zm9v\n", "Zm9-", "Zm9_",
        "Z\u{e4}",
    ] {
        assert_eq!(Decoder::default().decode(&mut text.as_bytes().to_vec()), Err(NotBase64), "{text}");
    }
    for text in ["Z", "Zg", "Zg=", "Zm8", "Zm9vZ"] {
        let mut decoder = Decoder::default();
        decoder.decode(&mut text.as_bytes().to_vec()).expect("a beginning");
        assert!(!decoder.is_complete(), "{text}");
    }
}

fn decoded(pieces: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<u8>, NotBase64> {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for mut piece in pieces {
        let length = decoder.decode(&mut piece)?;
        all.extend_from_slice(&piece[..length]);
    }
    if decoder.is_complete() { Ok(all) } else { Err(NotBase64) }
}

proptest! {
    /// Wherever it is cut, and wherever it is padded, what comes out is what went in.
    #[test]
    fn text_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..400), ends in any::<u64>(), seeds in any::<(u64, u64)>()) {
        let (mut encoder, mut text) = (Encoder::default(), Vec::new());
        let pieces = cut(&bytes, seeds.0);
        for (at, piece) in pieces.iter().enumerate() {
            let mut out = vec![0; Encoder::room(piece.len())];
            let whole = at + 1 == pieces.len() || ends >> (at % 64) & 1 == 1;
            let length = encoder.encode(piece, whole, &mut out);
            text.extend_from_slice(&out[..length]);
        }
        prop_assert_eq!(decoded(cut(&text, seeds.1).into_iter().map(<[u8]>::to_vec)), Ok(bytes));
    }

    /// Whatever comes is decoded the same however it is cut, and never to more than it was.
    #[test]
    fn any_text(text in "[A-D=]{0,12}|[A-Za-z0-9+/]{0,40}={0,2}|.{0,20}", seed in any::<u64>()) {
        let whole = decoded([text.clone().into_bytes()]);
        prop_assert_eq!(&decoded(cut(text.as_bytes(), seed).into_iter().map(<[u8]>::to_vec)), &whole);
        prop_assert!(whole.is_err() || whole.is_ok_and(|bytes| bytes.len() <= text.len()));
    }

    #[test]
    fn boundaries_are_seen_wherever_messages_are_cut(
        messages in proptest::collection::vec((any::<u8>(), 0..300_usize), 0..6), lost in 1..6_usize, seed in any::<u64>(),
    ) {
        let mut stream = Vec::new();
        for (flag, length) in &messages {
            stream.extend_from_slice(&prefix(*flag, *length as u32));
            stream.resize(stream.len() + length, 7);
        }
        let mut boundaries = Boundaries::default();
        cut(&stream, seed).into_iter().for_each(|piece| boundaries.pass(piece));
        prop_assert!(boundaries.is_between());
        boundaries.pass(&prefix(0, 3)[..lost.min(5)]);
        prop_assert!(!boundaries.is_between());
    }

    #[test]
    fn no_bytes_panic_a_health_check(message in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = health::response(&message);
    }

    #[test]
    fn a_prefix_tells_its_length(flag in any::<u8>(), length in any::<u32>()) {
        prop_assert_eq!(length_of(prefix(flag, length)), length);
    }
}
