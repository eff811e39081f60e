//! Where a stream is cut must not matter, and what is encoded must decode.

mod drive;

use drive::{Seen, client, cut, server};
use proptest::prelude::*;
use proto::h1::{Decoder, Encoder, Trailers};
use proto::http::{Framing, Method};

#[test]
fn every_single_cut_of_a_pipelined_stream() {
    let stream: &[u8] = b"\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;a=\"b\\\"\";c\r\nhello\r\n00c\r\n, my world!!\r\n0\r\nX-Sum: 1\r\nCookie: 2\r\n\r\n\
        GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /c HTTP/1.1\r\nHost: z\r\nContent-Length: 7\r\n\r\n1234567\
        GET /d HTTP/1.1\r\nHost: z\r\nConnection: close\r\n\r\nignored";
    let whole = server(&[stream]);
    let (seen, _) = whole.clone().unwrap();
    assert!(seen.contains(&Seen::Data(b"hello, my world!!".to_vec())), "{seen:?}");
    assert!(seen.contains(&Seen::End { trailers: vec![(b"X-Sum".to_vec(), b"1".to_vec())] }));
    assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Request { .. })).count(), 4);
    for at in 0..stream.len() {
        let (before, after) = stream.split_at(at);
        assert_eq!(server(&[before, after]), whole, "cut at {at}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(server(&bytes), whole);
}

#[test]
fn every_single_cut_of_a_response() {
    let table: &[(&[u8], bool, bool)] = &[
        (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n", false, false),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", false, false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\na: b\r\n\r\n", false, true),
        (b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw\r\n\r\nbytes", true, false),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", false, true),
    ];
    for (stream, upgrade, reusable) in table {
        let whole = client(Method::Get, *upgrade, &[stream]);
        assert_eq!(whole.as_ref().map(|(_, reusable)| *reusable), Ok(*reusable), "{}", stream.escape_ascii());
        for at in 0..stream.len() {
            let (before, after) = stream.split_at(at);
            assert_eq!(client(Method::Get, *upgrade, &[before, after]), whole, "cut at {at}");
        }
    }
}

#[test]
fn broken_chunks() {
    use proto::Malformed::*;
    let long = format!("1;{}\r\n", "a".repeat(257));
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(33));
    let wide = format!("0\r\na: {}\r\n\r\n", "b".repeat(9000));
    let table: &[(&[u8], proto::Malformed)] = &[
        (b"\r\n", ChunkSize),
        (b" 5\r\n", ChunkSize),
        (b"+5\r\n", ChunkSize),
        (b"-5\r\n", ChunkSize),
        (b"0x5\r\n", ChunkSize),
        (b"5 \r\n", ChunkSize),
        (b"5\t\r\n", ChunkSize),
        (b"5\n", ChunkSize),
        (b"g\r\n", ChunkSize),
        (b";a\r\n", ChunkSize),
        (b"00000000000000005\r\nhello", ChunkSize),
        (b"fffffffffffffffff\r\n", ChunkSize),
        (b"5\rX", ChunkEnd),
        (b"5\r\nhelloX", ChunkEnd),
        (b"5\r\nhello\n", ChunkEnd),
        (b"5\r\nhello\rX", ChunkEnd),
        (b"5\r\nhello5\r\n", ChunkEnd),
        (b"5;a\nhello", ChunkExtension),
        (b"5;a\r\r\n", ChunkEnd),
        (b"5;\x00\r\n", ChunkExtension),
        (b"5;a=\"\r\n", ChunkExtension),
        (b"5;a=\"\n\"\r\n", ChunkExtension),
        (long.as_bytes(), ChunkExtension),
        (b"0\r\n\n", TrailerField),
        (b"0\r\n\rX", ChunkEnd),
        (b"0\r\n a: b\r\n\r\n", TrailerField),
        (b"0\r\na : b\r\n\r\n", TrailerField),
        (b"0\r\n: b\r\n\r\n", TrailerField),
        (b"0\r\na\r\n\r\n", TrailerField),
        (b"0\r\na: b\n\r\n", TrailerField),
        (b"0\r\na: \x00\r\n\r\n", TrailerField),
        (b"0\r\nContent-Length: 5\r\n\r\n", TrailerForbidden),
        (b"0\r\nTRANSFER-ENCODING: chunked\r\n\r\n", TrailerForbidden),
        (b"0\r\nhost: b\r\n\r\n", TrailerForbidden),
        (b"0\r\nX-Forwarded-For: b\r\n\r\n", TrailerForbidden),
        (many.as_bytes(), TrailersTooLong),
        (wide.as_bytes(), TrailersTooLong),
    ];
    for (text, expected) in table {
        let mut decoder = Decoder::new(Framing::Chunked);
        let verdict = decoder.decode(&mut text.to_vec(), &mut Trailers::default());
        assert_eq!(verdict, Err(*expected), "{}", text.escape_ascii());
        let (mut decoder, mut trailers) = (Decoder::new(Framing::Chunked), Trailers::default());
        let verdict = text.iter().find_map(|&byte| decoder.decode(&mut [byte], &mut trailers).err());
        assert_eq!(verdict, Some(*expected), "byte by byte: {}", text.escape_ascii());
    }
}

/// Requests that are well-formed, of every framing.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    let fields = proptest::collection::vec(("x-[a-z]{1,10}", "[ -~]{0,30}"), 0..6);
    ("/[a-z/]{0,20}", fields, body, 0..3u8, proptest::collection::vec(1..50usize, 1..5)).prop_map(
        |(path, fields, body, framing, sizes)| {
            let mut text = format!("POST {path} HTTP/1.1\r\nHost: a.example\r\n").into_bytes();
            for (name, value) in fields {
                text.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
            }
            match framing {
                0 => text.extend_from_slice(b"\r\n"),
                1 => {
                    text.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                    text.extend_from_slice(&body);
                }
                _ => {
                    text.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                    text.extend_from_slice(&chunked(&body, &sizes));
                }
            }
            text
        },
    )
}

fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut encoder, mut out, mut rest) = (Encoder::new(Framing::Chunked), Vec::new(), body);
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        let frame = encoder.frame(piece.len()).unwrap();
        out.extend_from_slice(&frame.prefix);
        out.extend_from_slice(piece);
        out.extend_from_slice(frame.suffix);
        rest = after;
    }
    out.extend_from_slice(encoder.end().unwrap());
    out
}

proptest! {
    #[test]
    fn cuts_do_not_matter(requests in proptest::collection::vec(request(), 1..4), seed: u64) {
        let stream = requests.concat();
        let whole = server(&[&stream]);
        prop_assert!(whole.is_ok());
        prop_assert_eq!(server(&cut(&stream, seed)), whole);
    }

    #[test]
    fn what_is_encoded_decodes(body in proptest::collection::vec(any::<u8>(), 0..2000), sizes in proptest::collection::vec(1..300usize, 1..9), seed: u64) {
        let mut wire = chunked(&body, &sizes);
        wire.extend_from_slice(b"next");
        let (mut decoder, mut trailers, mut out) = (Decoder::new(Framing::Chunked), Trailers::default(), Vec::new());
        let mut left = wire.len();
        for piece in cut(&wire, seed) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece, &mut trailers).unwrap();
            out.extend_from_slice(&piece[..decoded.payload]);
            left -= decoded.consumed;
            prop_assert!(decoded.ended || decoded.consumed == piece.len());
        }
        prop_assert_eq!(left, 4);
        prop_assert_eq!(out, body);
        prop_assert!(trailers.is_empty());
    }

    #[test]
    fn no_bytes_panic(stream in proptest::collection::vec(any::<u8>(), 0..300), seed: u64) {
        prop_assert_eq!(server(&[&stream]).is_ok(), server(&cut(&stream, seed)).is_ok());
        prop_assert_eq!(client(Method::Get, false, &[&stream]).is_ok(), client(Method::Get, false, &cut(&stream, seed)).is_ok());
        let _ = proto::proxy::parse(&stream);
    }
}
