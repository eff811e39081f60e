//! QPACK: the RFC's own examples (RFC 9204 Appendix B), its rules, and what holds of any list.

use proptest::prelude::*;
use proto::h3::qpack::{Corrupt, Decoder, Encoder, Fit, Indexing, ListLimits};

type List = Vec<(Vec<u8>, Vec<u8>)>;

const LIMITS: ListLimits = ListLimits { bytes: 64 * 1024, fields: 128 };

fn read(decoder: &Decoder, section: &[u8], limits: &ListLimits) -> Result<Result<(List, Fit, u64), u64>, Corrupt> {
    let (mut text, mut list) = (Vec::new(), Vec::new());
    let section = match decoder.section(section)? {
        Ok(section) => section,
        Err(awaited) => return Ok(Err(awaited)),
    };
    let required = section.required();
    let fit = section.decode(limits, &mut text, |text, line| {
        list.push((line.name(text).to_vec(), line.value(text).to_vec()));
    })?;
    assert!(text.len() <= limits.bytes + limits.fields * 4);
    Ok(Ok((list, fit, required)))
}

fn instruct(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<(), Corrupt> {
    let mut space = Vec::new();
    while let Some(length) = decoder.instruct(bytes, &mut space)? {
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "it is cut off");
    Ok(())
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn list(fields: &[(&str, &str)]) -> List {
    fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

#[test]
fn rfc9204_appendix_b() {
    let mut decoder = Decoder::new(4096);
    let section = |decoder: &Decoder, text: &str, fields: &[(&str, &str)], required| {
        assert_eq!(read(decoder, &hex(text), &LIMITS), Ok(Ok((list(fields), Fit::Whole, required))), "{text}");
    };
    let mut told = Vec::new();
    // B.1
    section(&decoder, "0000 510b 2f69 6e64 6578 2e68 746d 6c", &[(":path", "/index.html")], 0);
    // B.2: the section overtakes the entries that it refers to, and waits.
    assert_eq!(read(&decoder, &hex("0381 10 11"), &LIMITS), Ok(Err(2)));
    instruct(
        &mut decoder,
        &hex("3fbd01 c00f 7777 772e 6578 616d 706c 652e 636f 6d c10c 2f73 616d 706c 652f 7061 7468"),
    )
    .unwrap();
    section(&decoder, "0381 10 11", &[(":authority", "www.example.com"), (":path", "/sample/path")], 2);
    decoder.acknowledge(4, 2, &mut told);
    assert_eq!(std::mem::take(&mut told), hex("84"));
    // B.3
    instruct(&mut decoder, &hex("4a63 7573 746f 6d2d 6b65 790c 6375 7374 6f6d 2d76 616c 7565")).unwrap();
    decoder.tell_inserted(&mut told);
    assert_eq!(std::mem::take(&mut told), hex("01"));
    // B.4
    instruct(&mut decoder, &hex("02")).unwrap();
    let fields = [(":authority", "www.example.com"), (":path", "/"), ("custom-key", "custom-value")];
    section(&decoder, "0500 80 c1 81", &fields, 4);
    decoder.cancel(8, &mut told);
    assert_eq!(told, hex("48"));
    // B.5: the oldest is evicted.
    instruct(&mut decoder, &hex("810d 6375 7374 6f6d 2d76 616c 7565 32")).unwrap();
    section(&decoder, "0600 80 81 82", &[("custom-key", "custom-value2"), fields[0], fields[2]], 5);
    assert_eq!(read(&decoder, &hex("0600 84"), &LIMITS), Err(Corrupt::Index), "evicted");
}

#[test]
fn what_is_said_again_becomes_a_byte_once_it_is_acknowledged() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let (mut up, mut down) = (Vec::new(), Vec::new());
    encoder.set_table_max(4096, &mut up);
    let fields = list(&[("x-long-name", "and-a-long-value"), ("server", "penstock"), ("content-type", "text/plain")]);
    let mut lengths = Vec::new();
    for round in 0..4 {
        let mut lines = Vec::new();
        let mut section = encoder.section(4 * round, &mut up);
        for (name, value) in &fields {
            section.field(name, value, Indexing::Store, &mut lines);
        }
        let section = [&section.finish()[..], &lines].concat();
        lengths.push(section.len());
        // The instructions come last, and no section needs them.
        let (read, fit, required) = read(&decoder, &section, &LIMITS).unwrap().expect("our sections never wait");
        assert_eq!((read, fit), (fields.clone(), Fit::Whole));
        decoder.acknowledge(4 * round, required, &mut down);
        instruct(&mut decoder, &std::mem::take(&mut up)).unwrap();
        decoder.tell_inserted(&mut down);
        for byte in down.drain(..) {
            assert_eq!(encoder.hear(&[byte]), Ok(Some(1)));
        }
    }
    // Said, said again, and from then on an index each.
    assert!(lengths[0] == lengths[1] && lengths[2] < lengths[1] - 20, "{lengths:?}");
    assert_eq!(lengths[2..], [5, 5]);
}

fn any_field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, u8)> {
    let name = prop_oneof![
        Just(b":path".to_vec()),
        Just(b"cache-control".to_vec()),
        "[a-d]{1,2}".prop_map(String::into_bytes),
        "[A-Za-z-]{1,80}".prop_map(String::into_bytes),
    ];
    let value = prop_oneof!["[a-c]{0,2}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..900)];
    (name, value, 0..3_u8)
}

/// What happens to a section, or between two.
#[derive(Debug, Clone)]
enum Move {
    Write(Vec<(Vec<u8>, Vec<u8>, u8)>),
    /// The instructions that were written arrive, as far as that many bytes.
    Instruct(usize),
    /// The section of that place is read.
    Read(usize),
    /// It is given up instead.
    Cancel(usize),
    /// What the decoder says arrives, as far as that many bytes.
    Hear(usize),
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        prop::collection::vec(any_field(), 0..8).prop_map(Move::Write),
        (0_usize..2_000).prop_map(Move::Instruct),
        (0_usize..2_000).prop_map(Move::Instruct),
        (0_usize..40).prop_map(Move::Read),
        (0_usize..40).prop_map(Move::Cancel),
        (0_usize..40).prop_map(Move::Hear),
    ]
}

/// Follows the whole instructions at the front of `bytes[..most]`.
fn arrive(bytes: &mut Vec<u8>, most: usize, mut follow: impl FnMut(&[u8]) -> Option<usize>) {
    let most = most.min(bytes.len());
    let mut at = 0;
    while let Some(length) = follow(&bytes[at..most]) {
        at += length;
    }
    bytes.drain(..at);
}

proptest! {
    #[test]
    fn what_is_written_is_read_whatever_the_order(
        size in prop_oneof![Just(0_u64), 33..200_u64, Just(4096), Just(1 << 40)],
        moves in prop::collection::vec(any_move(), 1..150),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(size.min(4096) as usize));
        // The peer's setting is what its decoder allows.
        let told = size.min(4096);
        let (mut instructions, mut feedback, mut space) = (Vec::new(), Vec::new(), Vec::new());
        let mut waiting: Vec<(u64, Vec<u8>, List)> = Vec::new();
        let mut streams = [0, 1, 2, 3, 4, 5, 6];
        encoder.set_table_max(told, &mut instructions);
        for (at, next) in moves.into_iter().enumerate() {
            match next {
                Move::Write(fields) => {
                    let stream = streams[at % 7];
                    let mut lines = Vec::new();
                    let mut section = encoder.section(stream, &mut instructions);
                    for (name, value, how) in &fields {
                        let how = [Indexing::Store, Indexing::Pass, Indexing::Never][*how as usize];
                        section.field(name, value, how, &mut lines);
                    }
                    let section = [&section.finish()[..], &lines].concat();
                    let list = fields.into_iter().map(|(name, value, _)| (name.to_ascii_lowercase(), value)).collect();
                    waiting.push((stream, section, list));
                }
                Move::Instruct(most) => {
                    arrive(&mut instructions, most, |bytes| decoder.instruct(bytes, &mut space).unwrap());
                    decoder.tell_inserted(&mut feedback);
                }
                Move::Read(place) | Move::Cancel(place) if place >= waiting.len() => {}
                Move::Read(place) => {
                    // Of one stream, in their order (RFC 9204 §2.2).
                    let place = waiting.iter().position(|other| other.0 == waiting[place].0).unwrap();
                    let (stream, section, list) = waiting.remove(place);
                    let (fields, fit, required) = read(&decoder, &section, &LIMITS).unwrap().expect("our sections never wait");
                    prop_assert_eq!((fields, fit), (list, Fit::Whole));
                    decoder.acknowledge(stream, required, &mut feedback);
                }
                Move::Cancel(place) => {
                    let stream = waiting[place].0;
                    waiting.retain(|other| other.0 != stream);
                    // It is not used again.
                    streams[stream as usize % 7] += 7;
                    decoder.cancel(stream, &mut feedback);
                }
                Move::Hear(most) => arrive(&mut feedback, most, |bytes| encoder.hear(bytes).unwrap()),
            }
            prop_assert!(encoder.memory() <= 12 * 1024 && decoder.memory() <= 8 * 1024);
            prop_assert!(instructions.len() <= 4096 + 64);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_bounds(
        instructions in prop::collection::vec(any::<u8>(), 0..200),
        sections in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
    ) {
        let (mut decoder, mut space) = (Decoder::new(4096), Vec::new());
        let mut rest = &instructions[..];
        while let Ok(Some(length)) = decoder.instruct(rest, &mut space) {
            rest = &rest[length..];
        }
        let limits = ListLimits { bytes: 500, fields: 8 };
        for section in sections {
            if let Ok(Ok((list, ..))) = read(&decoder, &section, &limits) {
                prop_assert!(list.len() <= 8);
                prop_assert!(list.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() <= 500);
            }
        }
    }
}
