//! Who may change something: whoever can reach the admin address, as long as it is not somebody's browser.
//!
//! A page of any site can make a browser send requests to this host, and a name that is made to point here (DNS rebinding) can
//! make such a request look like one to the same site. So a change must come as nothing that a page can send without being
//! asked back: no `Origin` (browsers add it to every POST) nor `Sec-Fetch-Site`, content that is no form's, and a Host that
//! is an address and not a name.

use std::net::{IpAddr, SocketAddr};

use proto::h1::RequestHead;
use proto::http::{Fields, Known, Status};

/// The only kind of content that a change comes as.
const KIND: &[u8] = b"application/json";

/// Why a request may change nothing, if so.
pub(super) fn refusal(head: &RequestHead, fields: &Fields, bytes: &[u8]) -> Option<(Status, &'static str)> {
    let from_a_page = |name: &[u8]| fields.find(name, bytes).is_some();
    if from_a_page(b"origin") || from_a_page(b"sec-fetch-site") {
        return Some((Status::FORBIDDEN, "a browser may change nothing here: use `penstock set`, or curl"));
    }
    if !is_address(head.authority.of(bytes)) {
        let why = "the Host of a change must be an IP address or `localhost`: a name may have been made to point here";
        return Some((Status::FORBIDDEN, why));
    }
    let kind = fields.value(Known::ContentType, bytes).unwrap_or_default();
    let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    if !kind.eq_ignore_ascii_case(KIND) {
        return Some((Status::UNSUPPORTED_MEDIA_TYPE, "a change is sent as Content-Type: application/json"));
    }
    None
}

/// `localhost` or an IP address, with a port or without.
fn is_address(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    host.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::h1::HeadLimits;

    fn refused(lines: &str) -> Option<u16> {
        let text = format!("POST /set/endpoint HTTP/1.1\r\n{lines}\r\n");
        let mut fields = Fields::default();
        let head = proto::h1::parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
        refusal(&head, &fields, text.as_bytes()).map(|(status, _)| status.code())
    }

    #[test]
    fn what_a_page_can_send_changes_nothing() {
        let json = "Content-Type: application/json\r\n";
        for (lines, wanted) in [
            (format!("Host: 127.0.0.1:9180\r\n{json}"), None),
            (format!("Host: [::1]:9180\r\n{json}"), None),
            (format!("Host: [::1]\r\n{json}"), None),
            (format!("Host: localhost\r\n{json}"), None),
            ("Host: LOCALHOST:1\r\nContent-Type: Application/JSON; charset=utf-8\r\n".into(), None),
            (format!("Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n{json}"), Some(403)),
            (format!("Host: 127.0.0.1\r\nOrigin: null\r\n{json}"), Some(403)),
            (format!("Host: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n{json}"), Some(403)),
            (format!("Host: evil.example:9180\r\n{json}"), Some(403)),
            (format!("Host: localhost.evil.example\r\n{json}"), Some(403)),
            (format!("Host: 127.0.0.1.evil.example\r\n{json}"), Some(403)),
            ("Host: 127.0.0.1\r\n".into(), Some(415)),
            ("Host: 127.0.0.1\r\nContent-Type: text/plain\r\n".into(), Some(415)),
            ("Host: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n".into(), Some(415)),
        ] {
            assert_eq!(refused(&lines), wanted, "{lines}");
        }
    }
}
