//! The hop-by-hop law (RFC 9110 §7.6.1): which fields concern this connection only and must not be forwarded.
//!
//! Connection lets a sender name further fields as hop-by-hop, and that is a known attack: a client that lists `X-Forwarded-For`
//! or `Authorization` has an obedient proxy delete what a later hop relies on. So a listed name is obeyed only if it means
//! nothing to us or is hop-by-hop anyway; every end-to-end name that we know is **ignored** in that list. Ignoring leaves the
//! message exactly as it would be without the trick; refusing would also be safe, but breaks clients behind sloppy middleboxes.
//!
//! Proxy-Authorization and Proxy-Authenticate are dropped: a reverse proxy is not the proxy that they address, and credentials
//! must not leak to whoever comes next. The fields that framing replaces (Content-Length, Transfer-Encoding) are
//! rewritten by [`h1::write`](crate::h1::write), from the verdict and not from the text.

use super::{Fields, Framing, Known, KnownSet, is_token, list};
use crate::Malformed;

/// What the Connection field says about the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

/// Options in all Connection fields of one head. Real messages have at most four; the bound keeps [`strip`], which looks for every
/// option among all fields, from being the dear part of a cheap request.
pub const OPTIONS_MAX: usize = 16;

/// Reads and validates the Connection fields.
#[inline]
pub fn connection_options(fields: &Fields, bytes: &[u8]) -> Result<ConnectionOptions, Malformed> {
    let mut options = ConnectionOptions::default();
    let mut count = 0;
    for option in fields.all(Known::Connection).flat_map(|field| list(field.value.of(bytes))) {
        count += 1;
        if count > OPTIONS_MAX || !is_token(option) {
            return Err(Malformed::ConnectionOption);
        }
        options.close |= option.eq_ignore_ascii_case(b"close");
        options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
    }
    Ok(options)
}

/// What was hop-by-hop but is to be said again on the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stripped {
    /// The sender takes trailers (`TE: trailers`), and so do we: gRPC depends on it.
    pub te_trailers: bool,
}

/// Marks all hop-by-hop fields as dropped. `framing` is the message's: Trailer announces trailers, which only the chunked coding
/// carries. Upgrade is dropped too; the head's own verdict says whether it may be offered again.
#[inline]
pub fn strip(fields: &mut Fields, bytes: &[u8], framing: Framing) -> Stripped {
    let takes_trailers = |te: &[u8]| {
        // Which is all that nearly everybody says.
        te == b"trailers" || list(te).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
    };
    let te_trailers = fields.has(Known::Te) && fields.all(Known::Te).any(|field| takes_trailers(field.value.of(bytes)));
    if fields.has(Known::Connection) {
        strip_listed(fields, bytes);
    }
    fields.drop_known(if framing == Framing::Chunked { HOP_BY_HOP } else { HOP_BY_HOP.with(Known::Trailer) });
    Stripped { te_trailers }
}

const HOP_BY_HOP: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Fields that Connection lists and that mean nothing to us. What we know is either in `HOP_BY_HOP` or protected.
fn strip_listed(fields: &mut Fields, bytes: &[u8]) {
    let mut listed = [&[][..]; OPTIONS_MAX];
    let mut count = 0;
    let options = fields.all(Known::Connection).flat_map(|field| list(field.value.of(bytes)));
    for option in options.take(OPTIONS_MAX) {
        let about_the_connection = option.eq_ignore_ascii_case(b"close");
        if !about_the_connection && Known::from_name(option) == Known::Other {
            listed[count] = option;
            count += 1;
        }
    }
    let listed = &listed[..count];
    if listed.is_empty() {
        return;
    }
    fields.drop_where(|field| {
        field.known == Known::Other && listed.iter().any(|option| option.eq_ignore_ascii_case(field.name.of(bytes)))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{HeadLimits, parse_request};

    fn kept(lines: &str) -> (Vec<String>, Stripped) {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let mut fields = Fields::default();
        let head = parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
        let stripped = strip(&mut fields, text.as_bytes(), head.framing);
        let name = |field: &crate::http::Field| String::from_utf8(field.name.of(text.as_bytes()).to_vec()).unwrap();
        (fields.iter().filter(|field| !field.dropped).map(name).collect(), stripped)
    }

    #[test]
    fn hop_by_hop_fields_go() {
        let (names, stripped) = kept(
            "Host: a\r\nConnection: keep-alive, x-mine, TE\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nX-Mine: 1\r\nX-mine: 2\r\n\
             TE: gzip, trailers\r\nUpgrade: x\r\nTrailer: a\r\nProxy-Authorization: b\r\nAccept: c\r\n",
        );
        assert_eq!(names, ["Host", "Accept"]);
        assert!(stripped.te_trailers);
    }

    #[test]
    fn end_to_end_fields_cannot_be_stripped_by_listing_them() {
        let (names, _) = kept(
            "Host: a\r\nConnection: close, Host, Content-Length, X-Forwarded-For, Forwarded, Cookie, Authorization\r\n\
             Content-Length: 0\r\nX-Forwarded-For: b\r\nForwarded: c\r\nCookie: d\r\nAuthorization: e\r\n",
        );
        assert_eq!(names, ["Host", "Content-Length", "X-Forwarded-For", "Forwarded", "Cookie", "Authorization"]);
    }

    #[test]
    fn trailer_survives_where_trailers_can() {
        assert_eq!(kept("Host: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n").0, ["Host", "Trailer"]);
    }

    #[test]
    fn options_are_tokens_and_few() {
        let verdict = |value: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n");
            parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut Fields::default())
                .map(|head| head.unwrap().persistent)
        };
        assert_eq!(verdict("keep-alive"), Ok(true));
        assert_eq!(verdict(",, keep-alive ,"), Ok(true));
        assert_eq!(verdict("keep-alive, Close"), Ok(false));
        assert_eq!(verdict("a b"), Err(Malformed::ConnectionOption));
        assert_eq!(verdict("\"close\""), Err(Malformed::ConnectionOption));
        assert_eq!(verdict(&"a,".repeat(OPTIONS_MAX)), Ok(true));
        assert_eq!(verdict(&"a,".repeat(OPTIONS_MAX + 1)), Err(Malformed::ConnectionOption));
    }
}
