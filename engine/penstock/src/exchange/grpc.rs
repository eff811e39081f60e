//! What gRPC adds to an exchange (gRPC over HTTP/2, PROTOCOL-HTTP2.md): deadlines, and statuses that are not HTTP's.
//!
//! A call is an exchange like any other, answered 200 whatever became of it; how it ended stands in `grpc-status`, behind its messages or, where
//! there are none, in the head. What holds here: for the brain (breakers, retries, health, shares) a status of gRPC counts as the status
//! of HTTP that means the same; a refusal of ours reaches a caller as a status of gRPC; nobody works on a call longer than its caller waits.

use std::time::Duration;

use proto::grpc::{self, web::Coding};
use proto::h1::{Respond, Trailers};
use proto::http::{Fields, Known, Status};

use super::Reason;
use super::bridge::Web;

/// Whether a message is of gRPC, by its `content-type`. gRPC-Web is not: its statuses are content.
pub(super) fn is_grpc(fields: &Fields, bytes: &[u8]) -> bool {
    fields.value(Known::ContentType, bytes).is_some_and(grpc::is_media_type)
}

/// How a call of gRPC-Web says its content, if it is one. What it does not say that it hears, it hears as it asks.
pub(super) fn web(fields: &Fields, bytes: &[u8]) -> Option<Web> {
    let (asks, _) = Coding::of(fields.value(Known::ContentType, bytes)?)?;
    let accepts = fields.iter().filter(|field| field.name.of(bytes).eq_ignore_ascii_case(b"accept"));
    let hears = Coding::accepted(accepts.map(|field| field.value.of(bytes)));
    Some(Web { asks, hears: hears.unwrap_or(asks) })
}

/// The media type of what passes between gRPC-Web and gRPC: `to`, and behind it what `from` says of the messages' form.
pub(super) fn write_media_type(from: &[u8], to: &[u8], out: &mut Vec<u8>) {
    let rest = match Coding::of(from) {
        Some((_, rest)) => rest,
        None => from.get(grpc::MEDIA_TYPE.len()..).unwrap_or_default(),
    };
    out.extend_from_slice(to);
    // Who names no form means this one, and not every reader knows that.
    out.extend_from_slice(if rest.is_empty() { b"+proto" } else { rest });
}

/// How long the caller waits, if it says so: `grpc-timeout`, up to eight digits and a unit. What is no such thing says nothing.
pub(super) fn timeout(fields: &Fields, bytes: &[u8]) -> Option<Duration> {
    let value = fields.find(b"grpc-timeout", bytes)?.value.of(bytes);
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3_600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// How a call ended, as the head of its answer says where it has no messages.
pub(super) fn status_of_head(fields: &Fields, bytes: &[u8]) -> Option<u8> {
    grpc::code_of(fields.find(b"grpc-status", bytes)?.value.of(bytes))
}

/// How a call ended, as the trailers of its answer say.
pub(super) fn status_of_trailers(trailers: &Trailers) -> Option<u8> {
    trailers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(b"grpc-status"))
        .and_then(|(_, value)| grpc::code_of(value))
}

/// The status of HTTP that means the same, as `google.rpc.Code` has it; a call that its caller gave up is nobody's failure.
pub(super) const fn http_of(code: u8) -> u16 {
    match code {
        0 | 1 => 200,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// How a call ended, for the record, by what its endpoint said of it and why we answered or broke off. And whether the endpoint knows such a
/// method: whoever is turned away before that may have made the name up.
pub(super) fn outcome(said: Option<u8>, reason: Option<Reason>) -> (u8, bool) {
    match (said, reason) {
        (Some(code), _) => (code, !matches!(code, UNIMPLEMENTED | PERMISSION_DENIED | UNAUTHENTICATED)),
        (None, Some(reason)) => (code_of(reason), false),
        (None, None) => (UNKNOWN, false),
    }
}

const UNKNOWN: u8 = 2;
const PERMISSION_DENIED: u8 = 7;
const UNIMPLEMENTED: u8 = 12;
const UNAUTHENTICATED: u8 = 16;

/// What a refusal of ours is to a caller.
const fn code_of(reason: Reason) -> u8 {
    match reason {
        Reason::NoRoute => 12,
        Reason::AmbiguousPath | Reason::ClientMalformed(_) => 13,
        Reason::DeadlinePassed => 4,
        Reason::Limited(_) => 8,
        Reason::ClientTimedOut | Reason::ClientGone => 1,
        _ => 14,
    }
}

/// The texts of all statuses, so that an answer of ours borrows them.
const CODES: [&[u8]; 17] =
    [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"10", b"11", b"12", b"13", b"14", b"15", b"16"];

/// The fields of an answer that is only a status: it is put beside `text`, in which all but space and visible ASCII is percent-encoded.
pub(super) fn refusal(reason: Reason, text: &[u8]) -> [(&'static [u8], &[u8]); 2] {
    [(b"grpc-status", CODES[usize::from(code_of(reason))]), (b"grpc-message", text)]
}

/// Makes an answer of ours one of gRPC, or of gRPC-Web, which has no content.
pub(super) fn as_grpc(respond: &mut Respond<'_>, web: Option<Web>) {
    respond.status = Status::OK;
    respond.content_type = match web.map(|web| web.hears) {
        None => grpc::MEDIA_TYPE,
        Some(Coding::Binary) => b"application/grpc-web+proto",
        Some(Coding::Text) => b"application/grpc-web-text+proto",
    };
    respond.body = b"";
}

/// What tells a caller whose call was under way that its time is over.
pub(super) fn deadline_passed() -> Trailers {
    const LINE: &[u8] = b"grpc-status: 4\r\n";
    let mut fields = Fields::with_limit(1);
    let span = |start, end| proto::http::Span::between(start, end);
    fields.push(span(0, 11), span(13, 14), Known::Other);
    Trailers::of(LINE, &fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::h1::parse_request;

    fn with<T>(lines: &str, then: impl FnOnce(&Fields, &[u8]) -> T) -> T {
        let text = format!("POST /a.B/C HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut fields = Fields::default();
        parse_request(text.as_bytes(), &crate::limits::HEADS, &mut fields).unwrap().unwrap();
        then(&fields, text.as_bytes())
    }

    #[test]
    fn what_is_grpc() {
        for (value, expected) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc;a=b", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grp", false),
            ("text/plain", false),
        ] {
            assert_eq!(with(&format!("Content-Type: {value}\r\n"), is_grpc), expected, "{value}");
        }
        assert!(!with("", is_grpc));
    }

    #[test]
    fn what_grpc_web_says_and_hears() {
        use Coding::{Binary, Text};
        for (lines, expected) in [
            ("Content-Type: application/grpc-web\r\n", Some((Binary, Binary))),
            ("Content-Type: application/grpc-web-text\r\n", Some((Text, Text))),
            ("Content-Type: application/grpc-web-text\r\nAccept: */*\r\n", Some((Text, Text))),
            ("Content-Type: application/grpc-web+proto\r\nAccept: application/grpc-web-text\r\n", Some((Binary, Text))),
            (
                "Content-Type: application/grpc-web-text\r\nAccept: text/plain, application/grpc-web\r\n",
                Some((Text, Binary)),
            ),
            ("Content-Type: application/grpc\r\nAccept: application/grpc-web-text\r\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(asks, hears)| Web { asks, hears });
            assert_eq!(with(lines, web), expected, "{lines}");
        }
    }

    #[test]
    fn media_types_keep_their_form() {
        for (from, to, expected) in [
            ("application/grpc-web", "application/grpc", "application/grpc+proto"),
            ("application/grpc-web-text+json;a=b", "application/grpc", "application/grpc+json;a=b"),
            ("application/grpc", "application/grpc-web", "application/grpc-web+proto"),
            ("application/grpc+json", "application/grpc-web-text", "application/grpc-web-text+json"),
        ] {
            let mut out = Vec::new();
            write_media_type(from.as_bytes(), to.as_bytes(), &mut out);
            assert_eq!(out, expected.as_bytes(), "{from}");
        }
    }

    #[test]
    fn timeouts() {
        for (value, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("8n", Some(Duration::from_nanos(8))),
            ("0m", Some(Duration::ZERO)),
            ("100000000m", None),
            ("m", None),
            ("5", None),
            ("-5S", None),
            ("5s", None),
            ("5 S", None),
        ] {
            assert_eq!(with(&format!("grpc-timeout: {value}\r\n"), timeout), expected, "{value}");
        }
    }

    #[test]
    fn statuses() {
        for (value, expected) in [
            ("0", Some(0)),
            ("14", Some(14)),
            ("16", Some(16)),
            ("17", Some(2)),
            ("999", Some(2)),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(grpc::code_of(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(http_of(14), 503);
        assert_eq!(status_of_trailers(&deadline_passed()), Some(4));
    }
}
