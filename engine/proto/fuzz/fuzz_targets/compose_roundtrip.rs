//! A head that was read, stripped and written again is read as the same head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h1::{
    HeadLimits, RequestRewrite, ResponseRewrite, parse_request, parse_response, write_interim, write_request,
    write_response,
};
use proto::http::{Fields, Framing, Known, Method, Version, hop};

const WIDE: HeadLimits = HeadLimits { bytes: u16::MAX, target: u16::MAX, fields: HeadLimits::FIELDS_MAX };

fuzz_target!(|bytes: &[u8]| {
    request(bytes);
    response(bytes);
});

fn request(bytes: &[u8]) {
    let mut fields = Fields::default();
    let Ok(Some(head)) = parse_request(bytes, &HeadLimits::DEFAULT, &mut fields) else { return };
    let stripped = hop::strip(&mut fields, bytes, head.framing);
    let mut rewrite = RequestRewrite::new(&head);
    rewrite.te_trailers = stripped.te_trailers;
    rewrite.add = &[(b"x-added", b"1")];
    if head.authority.is_empty() {
        rewrite.host = Some(b"fallback");
    }
    let mut out = Vec::new();
    write_request(bytes, &head, &fields, &rewrite, &mut out).unwrap();
    let mut again_fields = Fields::with_limit(HeadLimits::FIELDS_MAX as usize);
    let again = parse_request(&out, &WIDE, &mut again_fields).unwrap().unwrap();
    assert_eq!(again.length as usize, out.len());
    assert_eq!(again.version, Version::Http11);
    assert_eq!((again.method, again.framing), (head.method, head.framing));
    assert_eq!(again.method_text.of(&out), head.method_text.of(bytes));
    assert_eq!(again.upgrade.of(&out), head.upgrade.of(bytes));
    assert_eq!(again.query.of(&out), head.query.of(bytes));
    assert!(again.persistent);
    if !head.authority.is_empty() {
        assert_eq!(again.authority.of(&out), head.authority.of(bytes));
    }
    if !head.path.is_empty() {
        assert_eq!(again.path.of(&out), head.path.of(bytes));
    }
    for known in [Known::KeepAlive, Known::ProxyConnection, Known::ProxyAuthorization, Known::Http2Settings] {
        assert!(!again_fields.has(known));
    }
}

fn response(bytes: &[u8]) {
    let mut fields = Fields::default();
    for method in [Method::Get, Method::Head] {
        let Ok(Some(head)) = parse_response(bytes, &HeadLimits::DEFAULT, method, &mut fields) else { return };
        hop::strip(&mut fields, bytes, head.framing);
        let mut again_fields = Fields::with_limit(HeadLimits::FIELDS_MAX as usize);
        for peer in [Version::Http10, Version::Http11] {
            let (mut out, rewrite) = (Vec::new(), ResponseRewrite::new(&head, peer));
            if head.status.is_interim() {
                write_interim(bytes, &head, &fields, &mut out).unwrap();
            } else {
                write_response(bytes, &head, &fields, &rewrite, &mut out).unwrap();
            }
            let again = parse_response(&out, &WIDE, method, &mut again_fields).unwrap().unwrap();
            assert_eq!(again.length as usize, out.len());
            assert_eq!(again.status, head.status);
            assert_eq!(again.framing, rewrite.framing);
            if !head.status.is_interim() && again.upgrade.is_empty() {
                assert_eq!(again.persistent, rewrite.persistent && again.framing != Framing::UntilClose);
            }
        }
    }
}
