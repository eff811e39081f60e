//! A request's head: spans lie within it, and more bytes never change a verdict.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h1::{HeadLimits, head_complete_hint, parse_request};
use proto::http::Fields;

fuzz_target!(|bytes: &[u8]| {
    let (mut fields, mut again) = (Fields::default(), Fields::default());
    let limits = HeadLimits::DEFAULT;
    let whole = parse_request(bytes, &limits, &mut fields);
    if let Ok(Some(head)) = whole {
        let length = head.length as usize;
        assert!(bytes[..length].ends_with(b"\r\n\r\n"));
        for span in [head.method_text, head.target, head.authority, head.path, head.query, head.host, head.upgrade] {
            assert!(span.end() <= length);
        }
        for field in fields.iter() {
            assert!(
                !field.name.is_empty() && field.value.end() <= length && field.name.end() <= field.value.start as usize
            );
            assert!(!field.value.of(bytes).iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
        }
        assert!(bytes[..length - 1].windows(2).all(|pair| pair[1] != b'\n' || pair[0] == b'\r'));
        assert_eq!(parse_request(&bytes[..length], &limits, &mut again), whole);
        assert_eq!(head_complete_hint(bytes, 0), Some(length));
        assert_eq!(head_complete_hint(bytes, length - 1), Some(length));
    }
    let half = parse_request(&bytes[..bytes.len() / 2], &limits, &mut again);
    match half {
        Ok(Some(_)) => assert_eq!(half, whole),
        Ok(None) => {}
        Err(_) => assert!(whole.is_err()),
    }
});
