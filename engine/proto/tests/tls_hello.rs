//! ClientHellos, right and wrong, cut anywhere.

use proptest::prelude::*;
use proto::tls::{Alert, HELLO_BYTES_MAX, NoHello, alert, read_hello};

/// A vector with its length in so many bytes.
fn vector<const N: usize>(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&(content.len() as u32).to_be_bytes()[4 - N..], content].concat()
}

fn extension(kind: u16, data: impl AsRef<[u8]>) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector::<2>(data)].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    extension(0, vector::<2>([&[0][..], &vector::<2>(name)].concat()))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    extension(16, vector::<2>(names.iter().flat_map(vector::<1>).collect::<Vec<_>>()))
}

/// What Chromium puts anywhere (RFC 8701).
fn grease() -> Vec<u8> {
    extension(0x3a3a, [0])
}

/// A message's body up to its extensions.
fn start() -> Vec<u8> {
    [&[3, 3][..], &[7; 32], &vector::<1>([9; 32]), &vector::<2>([0x13, 1, 0xa, 0xa]), &vector::<1>([0])].concat()
}

fn message(body: impl AsRef<[u8]>) -> Vec<u8> {
    [&[1][..], &vector::<3>(body)].concat()
}

fn with(extensions: &[Vec<u8>]) -> Vec<u8> {
    message([start(), vector::<2>(extensions.concat())].concat())
}

/// A message in records of so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|piece| [&[22, 3, 1][..], &vector::<2>(piece)].concat()).collect()
}

/// Name and protocols.
type Asked = (Option<String>, Vec<String>);

fn read(bytes: &[u8]) -> Result<Option<Asked>, NoHello> {
    let mut scratch = Vec::new();
    let hello = read_hello(bytes, &mut scratch)?;
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    Ok(hello.map(|hello| (hello.server_name.map(str::to_owned), hello.protocols.iter().map(text).collect())))
}

fn asked(name: Option<&str>, protocols: &[&str]) -> Result<Option<Asked>, NoHello> {
    Ok(Some((name.map(str::to_owned), protocols.iter().map(|&name| name.to_owned()).collect())))
}

#[test]
fn what_clients_ask_for() {
    for (extensions, name, protocols) in [
        (vec![], None, &[][..]),
        (vec![server_name("a.example")], Some("a.example"), &[]),
        (vec![alpn(&["h2", "http/1.1"])], None, &["h2", "http/1.1"]),
        (
            vec![grease(), alpn(&["\x0a\x0a", "h2"]), grease(), server_name("A.Ex_ample-1")],
            Some("A.Ex_ample-1"),
            &["\x0a\x0a", "h2"],
        ),
    ] {
        let whole = records(&with(&extensions), 1 << 14);
        assert_eq!(read(&whole), asked(name, protocols), "{extensions:x?}");
        // Early data follows at once; it is not looked at.
        assert_eq!(read(&[&whole[..], &[23, 3, 3, 0, 1, 0]].concat()), asked(name, protocols));
    }
    // TLS 1.2 without any extension.
    assert_eq!(read(&records(&message(start()), 1 << 14)), asked(None, &[]));
}

#[test]
fn every_cut_and_every_size_of_records() {
    let message = with(&[grease(), server_name("a.example"), alpn(&["h2"]), extension(21, [0; 700])]);
    for size in [1, 2, 3, 4, 5, 100, 300, message.len() - 1, message.len(), 1 << 14] {
        let whole = records(&message, size);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Ok(None), "{end} of {}", whole.len());
        }
        assert_eq!(read(&whole), asked(Some("a.example"), &["h2"]));
        assert_eq!(read(&[&whole[..], b"anything"].concat()), asked(Some("a.example"), &["h2"]));
    }
}

#[test]
fn what_is_not_tls() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"S",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x02\x00",
        b"\x00",
    ] {
        assert_eq!(read(bytes), Err(NoHello::NotTls), "{bytes:x?}");
    }
}

#[test]
fn what_is_malformed() {
    let named = |list: &[u8]| with(&[extension(0, list)]);
    let name = |name: &[u8]| named(&vector::<2>([&[0][..], &vector::<2>(name)].concat()));
    let long_label = "a".repeat(64);
    let long_name = ["a"; 128].join(".");
    for (what, message) in [
        ("another message", [&[2][..], &vector::<3>(start())].concat()),
        ("SSL 2", self::message([&[2, 0][..], &start()[2..]].concat())),
        ("nothing", self::message([])),
        ("a cut random", self::message(&start()[..20])),
        ("a long session", self::message([&start()[..34], &vector::<1>([9; 33]), &start()[67..]].concat())),
        ("odd ciphers", self::message([&start()[..67], &vector::<2>([0x13, 1, 0])[..], &vector::<1>([0])].concat())),
        ("no ciphers", self::message([&start()[..67], &vector::<2>([])[..], &vector::<1>([0])].concat())),
        ("no compression", self::message([&start()[..67], &vector::<2>([0x13, 1])[..], &vector::<1>([])].concat())),
        ("something behind the extensions", self::message([start(), vector::<2>(server_name("a")), vec![0]].concat())),
        ("half a length of extensions", self::message([start(), vec![0]].concat())),
        ("a cut extension", self::message([start(), vector::<2>([0, 0, 0])].concat())),
        ("extensions beyond the message", self::message([start(), vec![0xff, 0xff, 0, 0]].concat())),
        ("an extension beyond the others", with(&[[&[0x12, 0x34][..], &[0xff, 0xff]].concat()])),
        (
            "two names",
            named(&vector::<2>(
                [[&[0][..], &vector::<2>("a")].concat(), [&[0][..], &vector::<2>("b")].concat()].concat(),
            )),
        ),
        ("another kind of name", named(&vector::<2>([&[1][..], &vector::<2>("a")].concat()))),
        ("no name", named(&vector::<2>([]))),
        ("an empty name extension", named(&[])),
        (
            "something behind the name",
            named(&[&vector::<2>([&[0][..], &vector::<2>("a")].concat())[..], &[0]].concat()),
        ),
        ("the extension twice", with(&[server_name("a.example"), server_name("a.example")])),
        ("protocols twice", with(&[alpn(&["h2"]), alpn(&["h2"])])),
        ("an empty name", name(b"")),
        ("a dot at the end", name(b"a.example.")),
        ("an empty label", name(b"a..example")),
        ("a NUL", name(b"a.example\0.b")),
        ("a space", name(b"a example")),
        ("no ASCII", name("ä.example".as_bytes())),
        ("no UTF-8", name(b"\xff\xfe")),
        ("an address of IPv6", name(b"::1")),
        ("a long label", name(long_label.as_bytes())),
        ("a long name", name(long_name.as_bytes())),
        ("no protocols", with(&[extension(16, vector::<2>([]))])),
        ("an empty protocol", with(&[extension(16, vector::<2>([2, b'h', b'2', 0]))])),
        ("a protocol beyond its list", with(&[extension(16, vector::<2>([9, b'h', b'2']))])),
        ("something behind the protocols", with(&[extension(16, [&vector::<2>([2, b'h', b'2'])[..], &[0]].concat())])),
    ] {
        for size in [1 << 14, 7] {
            assert_eq!(read(&records(&message, size)), Err(NoHello::Malformed), "{what}");
        }
    }
    let fine = with(&[server_name("a.example")]);
    for (what, bytes) in [
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("a record beyond its limit", vec![22, 3, 1, 0x40, 1]),
        ("another record in between", [&records(&fine[..20], 20)[..], &[20, 3, 3, 0, 1, 1]].concat()),
        ("an empty record in between", [&records(&fine[..20], 20)[..], &[22, 3, 3, 0, 0]].concat()),
    ] {
        assert_eq!(read(&bytes), Err(NoHello::Malformed), "{what}");
    }
}

#[test]
fn what_is_too_long() {
    // Said to be so at its beginning.
    assert_eq!(read(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]), Err(NoHello::TooLong));
    assert_eq!(read(&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xf8]), Err(NoHello::TooLong));
    // Long because of its many records.
    let message = with(&[extension(21, vec![0; 8_000])]);
    let split = records(&message, 1);
    assert_eq!(read(&split), Err(NoHello::TooLong));
    assert_eq!(read(&split[..HELLO_BYTES_MAX - 1]), Ok(None));
    assert_eq!(read(&split[..HELLO_BYTES_MAX]), Err(NoHello::TooLong));
    // As long as may be.
    let room = HELLO_BYTES_MAX - 5 - with(&[extension(21, [])]).len();
    let longest = records(&with(&[extension(21, vec![0; room])]), 1 << 14);
    assert_eq!((longest.len(), read(&longest)), (HELLO_BYTES_MAX, asked(None, &[])));
}

#[test]
fn alerts() {
    assert_eq!(alert(Alert::UnrecognizedName), [21, 3, 3, 0, 2, 2, 112]);
    assert_eq!(alert(Alert::DecodeError), [21, 3, 3, 0, 2, 2, 50]);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = read(&records(&message(&bytes), 50));
        let _ = read(&records(&message([start(), vector::<2>(&bytes)].concat()), 1 << 14));
        let _ = read(&records(&with(&[extension(0, &bytes), extension(16, &bytes)]), 1 << 14));
    }

    /// Whatever is changed in a good one: it is refused or read, and the same however it is cut.
    #[test]
    fn cuts_do_not_matter(at in 0_usize..200, byte: u8, size in 1_usize..64) {
        let mut message = with(&[server_name("a.example"), alpn(&["h2", "http/1.1"]), grease(), extension(43, [2, 3, 4])]);
        // The message's length decides how many records there are.
        let at = 4 + at % (message.len() - 4);
        message[at] = byte;
        prop_assert_eq!(read(&records(&message, size)), read(&records(&message, 1 << 14)));
    }
}
