//! HPACK: the RFC's own examples, stories in the form of the public test cases (`http2jp/hpack-test-case`), and what holds of any list.

use proptest::prelude::*;
use proto::h2::hpack::{Corrupt, Decoder, Encoder, Fit, Indexing, ListLimits};
use serde_json::Value;

type List = Vec<(Vec<u8>, Vec<u8>)>;

const LIMITS: ListLimits = ListLimits { bytes: 64 * 1024, fields: 128 };

fn decode(decoder: &mut Decoder, block: &[u8], limits: &ListLimits) -> Result<(List, Fit), Corrupt> {
    let (mut text, mut list) = (Vec::new(), Vec::new());
    let fit = decoder.decode(block, limits, &mut text, |text, line| {
        list.push((line.name(text).to_vec(), line.value(text).to_vec()));
    })?;
    assert!(text.len() <= limits.bytes + limits.fields * 4);
    Ok((list, fit))
}

fn fields(case: &Value) -> List {
    let pairs = case["headers"].as_array().unwrap().iter().flat_map(|field| field.as_object().unwrap());
    pairs.map(|(name, value)| (name.clone().into_bytes(), value.as_str().unwrap().to_owned().into_bytes())).collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn stories() -> Vec<(String, Value)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hpack");
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let stories: Vec<_> = paths
        .map(|path| {
            let story = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            (path.display().to_string(), story)
        })
        .collect();
    assert!(stories.len() >= 7, "the stories are beside this test");
    stories
}

/// A story's cases, each with the table size that was agreed upon just before it.
fn cases(story: &Value) -> impl Iterator<Item = (&Value, Option<usize>)> {
    let cases = story["cases"].as_array().unwrap().iter();
    cases.map(|case| (case, case["header_table_size"].as_u64().map(|size| size as usize)))
}

#[test]
fn stories_are_read() {
    for (path, story) in stories() {
        let mut decoder = Decoder::new();
        for (case, size) in cases(&story) {
            if let Some(size) = size {
                decoder.set_table_max(size);
            }
            let read = decode(&mut decoder, &hex(case["wire"].as_str().unwrap()), &LIMITS);
            assert_eq!(read, Ok((fields(case), Fit::Whole)), "{path} {}", case["seqno"]);
        }
    }
}

#[test]
fn stories_are_written_and_read_again() {
    for (path, story) in stories() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (case, size) in cases(&story) {
            if let Some(size) = size {
                decoder.set_table_max(size);
                encoder.set_table_max(size);
            }
            let (list, mut block) = (fields(case), Vec::new());
            encoder.begin(&mut block);
            for (name, value) in &list {
                encoder.field(name, value, Indexing::Store, &mut block);
            }
            assert_eq!(decode(&mut decoder, &block, &LIMITS), Ok((list, Fit::Whole)), "{path} {}", case["seqno"]);
        }
    }
}

#[test]
fn rfc7541_c_4_requests_are_written_to_the_byte() {
    let (_, story) = stories().into_iter().find(|(path, _)| path.ends_with("rfc7541_c4.json")).unwrap();
    let mut encoder = Encoder::new();
    for (case, _) in cases(&story) {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        for (name, value) in fields(case) {
            encoder.field(&name, &value, Indexing::Store, &mut block);
        }
        assert_eq!(block, hex(case["wire"].as_str().unwrap()));
    }
}

#[test]
fn rfc7541_c_2_representations() {
    for (wire, name, value, never_indexed) in [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key", "custom-header", false),
        ("040c2f73616d706c652f70617468", ":path", "/sample/path", false),
        ("100870617373776f726406736563726574", "password", "secret", true),
        ("82", ":method", "GET", false),
    ] {
        let (mut text, mut seen) = (Vec::new(), Vec::new());
        let fit = Decoder::new().decode(&hex(wire), &LIMITS, &mut text, |text, line| {
            seen.push((line.name(text).to_vec(), line.value(text).to_vec(), line.never_indexed));
        });
        assert_eq!(fit, Ok(Fit::Whole));
        assert_eq!(seen, [(name.as_bytes().to_vec(), value.as_bytes().to_vec(), never_indexed)]);
        assert_eq!(text, format!("{name}: {value}\r\n").as_bytes());
    }
}

#[test]
fn corrupt_blocks_are_told_apart() {
    let verdict = |wire: &str| decode(&mut Decoder::new(), &hex(wire), &LIMITS).map(|_| ()).unwrap_err();
    for (wire, why, section) in [
        ("80", Corrupt::Index, "RFC 7541 §6.1: index 0"),
        ("be", Corrupt::Index, "§2.3.3: beyond both tables"),
        ("7f00", Corrupt::Index, "§2.3.3: a name beyond both tables"),
        ("ffffffffff7f", Corrupt::Integer, "§5.1: overflow"),
        ("ff", Corrupt::Integer, "§5.1: cut off"),
        ("40", Corrupt::Integer, "§5.2: no name"),
        ("400161", Corrupt::Integer, "§5.2: no value"),
        ("4001610261", Corrupt::Truncated, "§5.2: value cut off"),
        ("0005616263", Corrupt::Truncated, "§5.2: name cut off"),
        ("008200000161", Corrupt::Huffman, "§5.2: padding of zeros"),
        ("0084ffffffff0161", Corrupt::Huffman, "§5.2: EOS"),
        ("3fe21f", Corrupt::SizeUpdate, "§6.3: 4097 bytes"),
        ("8220", Corrupt::SizeUpdate, "§4.2: behind a field"),
        ("202020", Corrupt::SizeUpdate, "§4.2: three updates"),
    ] {
        assert_eq!(verdict(wire), why, "{section}");
    }
}

#[test]
fn rfc9113_4_3_1_a_smaller_table_must_be_confirmed() {
    let mut decoder = Decoder::new();
    decoder.set_table_max(100);
    assert_eq!(decode(&mut decoder.clone(), &[0x82], &LIMITS).map(|_| ()), Err(Corrupt::SizeUpdate));
    assert!(decode(&mut decoder, &hex("3f4582"), &LIMITS).is_ok(), "an update to 100");
    assert!(decode(&mut decoder, &[0x82], &LIMITS).is_ok(), "once is enough");
    assert_eq!(decode(&mut decoder, &hex("3f46"), &LIMITS).map(|_| ()), Err(Corrupt::SizeUpdate), "101");
}

#[test]
fn rfc7541_4_2_the_least_size_is_told_before_the_last() {
    let mut encoder = Encoder::new();
    encoder.field(b"a", b"b", Indexing::Store, &mut Vec::new());
    for size in [0, 50, 1 << 20] {
        encoder.set_table_max(size);
    }
    let mut block = Vec::new();
    encoder.begin(&mut block);
    assert_eq!(block, hex("203fe11f"));
    encoder.begin(&mut block);
    assert_eq!(block.len(), 4, "told once");
}

/// What tells one sender from another has a place in the table once it was said twice in a row, so that a crowd leaves it alone.
#[test]
fn what_is_said_by_one_after_another_is_kept() {
    let mut encoder = Encoder::new();
    let mut length_of = |value: &[u8]| {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        encoder.field(b"x-forwarded-for", value, Indexing::Again, &mut block);
        (block.len(), encoder.memory())
    };
    let (literal, nothing) = length_of(b"192.0.2.1");
    assert!(literal > 15 && nothing == 0);
    for round in 0..50_u8 {
        let (length, memory) = length_of(&[b"192.0.2.", &[b'2' + round % 5][..]].concat());
        assert!(length > 15 && memory == 0, "{round}: {length}");
    }
    assert!(length_of(b"192.0.2.1").0 > 15);
    assert!(length_of(b"192.0.2.1").0 > 15, "it is put into the table");
    assert_eq!(length_of(b"192.0.2.1").0, 1);
    assert!(length_of(b"192.0.2.2").0 > 5);
    assert_eq!(length_of(b"192.0.2.1").0, 1, "and stays there");
}

#[test]
fn a_bomb_is_refused_before_it_grows_and_the_table_stays_right() {
    let mut decoder = Decoder::new();
    // An entry of 4 KiB, and then one byte for each further copy of it (CVE-2026-49975).
    let mut block = hex("4001617fa11e");
    block.extend([b'x'; 4000]);
    block.extend([0xbe; 10_000]);
    let limits = ListLimits { bytes: 16 * 1024, fields: 100 };
    let (mut text, mut count) = (Vec::new(), 0);
    assert_eq!(decoder.decode(&block, &limits, &mut text, |_, _| count += 1), Ok(Fit::TooLong));
    assert_eq!(count, 4);
    assert!(text.capacity() <= 64 * 1024 && decoder.memory() <= 8 * 1024);
    // Crumbs and other small fields are counted.
    let crumbs = [0x90; 101];
    assert_eq!(
        decode(&mut decoder, &crumbs, &limits).map(|(list, fit)| (list.len(), fit)),
        Ok((100, Fit::TooManyFields))
    );
    // What was stored beyond the limit is known to both ends.
    let block = [&[0x90; 101][..], &hex("4001620163")].concat();
    assert_eq!(decode(&mut decoder, &block, &limits).map(|(_, fit)| fit), Ok(Fit::TooManyFields));
    assert_eq!(decode(&mut decoder, &[0xbe], &limits), Ok((vec![(b"b".to_vec(), b"c".to_vec())], Fit::Whole)));
    // A field that is larger than list and table is passed over, and empties the table.
    let mut block = hex("4001617fe98301");
    block.extend(vec![b'x'; 17_000]);
    assert_eq!(decode(&mut decoder, &block, &limits).map(|(_, fit)| fit), Ok(Fit::TooLong));
    assert_eq!(decode(&mut decoder, &[0xbe], &limits), Err(Corrupt::Index));
}

#[test]
fn secrets_are_marked_and_kept_out_of_the_tables() {
    let (mut encoder, mut decoder, mut block) = (Encoder::new(), Decoder::new(), Vec::new());
    encoder.field(b"Authorization", b"secret", Indexing::Never, &mut block);
    encoder.field(b"x-key", b"secret", Indexing::Never, &mut block);
    let (mut text, mut marked) = (Vec::new(), 0);
    decoder.decode(&block, &LIMITS, &mut text, |_, line| marked += usize::from(line.never_indexed)).unwrap();
    assert_eq!((marked, encoder.memory(), decoder.memory()), (2, 0, 0));
    assert_eq!(text, b"authorization: secret\r\nx-key: secret\r\n");
}

fn any_field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, u8)> {
    let name = prop_oneof![
        Just(b":path".to_vec()),
        Just(b"cache-control".to_vec()),
        "[a-d]{1,3}".prop_map(String::into_bytes),
        "[A-Za-z-]{1,80}".prop_map(String::into_bytes),
    ];
    let value = prop_oneof!["[a-c]{0,2}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..1200)];
    (name, value, 0..3_u8)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        blocks in prop::collection::vec((prop::option::of(0_usize..6000), prop::collection::vec(any_field(), 0..12)), 1..20)
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (size, list) in blocks {
            if let Some(size) = size {
                encoder.set_table_max(size);
                decoder.set_table_max(size);
            }
            let mut block = Vec::new();
            encoder.begin(&mut block);
            for (name, value, how) in &list {
                let how = [Indexing::Store, Indexing::Pass, Indexing::Never][*how as usize];
                encoder.field(name, value, how, &mut block);
            }
            let list: List = list.into_iter().map(|(name, value, _)| (name.to_ascii_lowercase(), value)).collect();
            prop_assert_eq!(decode(&mut decoder, &block, &LIMITS), Ok((list, Fit::Whole)));
            prop_assert!(encoder.memory() <= 8 * 1024 && decoder.memory() <= 8 * 1024);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_bounds(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8)) {
        let mut decoder = Decoder::new();
        let limits = ListLimits { bytes: 500, fields: 8 };
        for block in blocks {
            if let Ok((list, _)) = decode(&mut decoder, &block, &limits) {
                prop_assert!(list.len() <= 8);
                prop_assert!(list.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() <= 500);
            }
        }
    }
}
