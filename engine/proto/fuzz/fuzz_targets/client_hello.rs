//! ClientHellos: bounded, cut anywhere, and the same in however many records they lie.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::tls::{HELLO_BYTES_MAX, read_hello};

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, step) = input;
    let (mut scratch, mut other) = (Vec::new(), Vec::new());
    let Ok(Some(hello)) = read_hello(bytes, &mut scratch) else { return };
    for name in hello.server_name {
        assert!(name.len() <= 253 && !name.is_empty());
    }
    assert!(hello.protocols.iter().all(|name| !name.is_empty() && hello.protocols.contains(name)));
    // More behind it changes nothing, and less is either not enough or already all.
    assert_eq!(read_hello(&[bytes, b"more"].concat(), &mut other), Ok(Some(hello)));
    for end in 0..bytes.len() {
        match read_hello(&bytes[..end], &mut other) {
            Ok(None) => {}
            Ok(Some(early)) => assert_eq!(early, hello),
            Err(why) => panic!("{end}: {why}"),
        }
    }
    // The handshake's bytes of the first record, in records of another size.
    let content = &bytes[5..];
    let content = &content[..content.len().min(usize::from(u16::from_be_bytes([bytes[3], bytes[4]])))];
    let size = usize::from(step).max(1);
    let cut: Vec<u8> = content.chunks(size).flat_map(|piece| [&[22, 3, 1, 0, piece.len() as u8], piece].concat()).collect();
    if cut.len() <= HELLO_BYTES_MAX
        && let Ok(Some(again)) = read_hello(&cut, &mut other)
    {
        assert_eq!(again, hello);
    }
});
