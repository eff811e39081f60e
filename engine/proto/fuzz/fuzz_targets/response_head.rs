//! A response's head, to any method.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h1::{HeadLimits, head_complete_hint, parse_response};
use proto::http::{Fields, Framing, Method};

fuzz_target!(|bytes: &[u8]| {
    let (mut fields, mut again) = (Fields::default(), Fields::default());
    let limits = HeadLimits::DEFAULT;
    for method in [Method::Get, Method::Head, Method::Connect] {
        let whole = parse_response(bytes, &limits, method, &mut fields);
        if let Ok(Some(head)) = whole {
            let length = head.length as usize;
            assert!(bytes[..length].ends_with(b"\r\n\r\n"));
            assert!(head.reason.end() <= length && head.upgrade.end() <= length);
            assert!(fields.iter().all(|field| field.value.end() <= length));
            assert!(method != Method::Head || head.framing == Framing::None);
            assert_eq!(parse_response(&bytes[..length], &limits, method, &mut again), whole);
            assert_eq!(head_complete_hint(bytes, 0), Some(length));
        }
        match parse_response(&bytes[..bytes.len() / 2], &limits, method, &mut again) {
            Ok(Some(head)) => assert_eq!(whole, Ok(Some(head))),
            Ok(None) => {}
            Err(_) => assert!(whole.is_err()),
        }
    }
});
