//! The field names that some part of a proxy acts on, told apart by one multiplication, one load and one comparison.

/// A field name, whatever case it was sent in.
#[inline]
pub(super) fn lookup(name: &[u8]) -> Known {
    if name.is_empty() {
        return Known::Other;
    }
    let candidate = TABLE[slot(name)];
    if super::text::is_same_name(NAMES[candidate as usize], name) { candidate } else { Known::Other }
}

/// A set of known names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KnownSet(u64);

impl KnownSet {
    pub const EMPTY: Self = Self(0);

    pub const fn of(names: &[Known]) -> Self {
        let mut set = 0;
        let mut at = 0;
        while at < names.len() {
            set |= 1 << names[at] as u8;
            at += 1;
        }
        // Unknown names are never members: they are not one name.
        Self(set & !(1 << Known::Other as u8))
    }

    #[inline]
    pub const fn contains(self, known: Known) -> bool {
        self.0 >> known as u8 & 1 != 0
    }

    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub const fn with(self, known: Known) -> Self {
        self.union(Self::of(&[known]))
    }

    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline]
    pub fn insert(&mut self, known: Known) {
        *self = self.with(known);
    }
}

macro_rules! known {
    ($($variant:ident = $name:literal;)*) => {
        /// The name of a field. [`Known::Other`] is any name that nothing here acts on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            Other,
            $($variant,)*
        }

        /// By discriminant; lower case. No field name equals the first.
        const NAMES: &[&[u8]] = &[b"", $($name.as_bytes(),)*];

        const ALL: &[Known] = &[Known::Other, $(Known::$variant,)*];
    };
}

known! {
    AcceptEncoding = "accept-encoding";
    Age = "age";
    AltSvc = "alt-svc";
    Authorization = "authorization";
    CacheControl = "cache-control";
    Connection = "connection";
    ContentEncoding = "content-encoding";
    ContentLength = "content-length";
    ContentRange = "content-range";
    ContentType = "content-type";
    Cookie = "cookie";
    Date = "date";
    Etag = "etag";
    Expect = "expect";
    Expires = "expires";
    Forwarded = "forwarded";
    Host = "host";
    Http2Settings = "http2-settings";
    IfMatch = "if-match";
    IfModifiedSince = "if-modified-since";
    IfNoneMatch = "if-none-match";
    IfRange = "if-range";
    KeepAlive = "keep-alive";
    LastModified = "last-modified";
    Location = "location";
    Pragma = "pragma";
    ProxyAuthenticate = "proxy-authenticate";
    ProxyAuthorization = "proxy-authorization";
    ProxyConnection = "proxy-connection";
    Range = "range";
    Referer = "referer";
    RetryAfter = "retry-after";
    Server = "server";
    ServerTiming = "server-timing";
    SetCookie = "set-cookie";
    StrictTransportSecurity = "strict-transport-security";
    Te = "te";
    Traceparent = "traceparent";
    Tracestate = "tracestate";
    Trailer = "trailer";
    TransferEncoding = "transfer-encoding";
    Upgrade = "upgrade";
    UserAgent = "user-agent";
    Vary = "vary";
    Via = "via";
    Warning = "warning";
    WwwAuthenticate = "www-authenticate";
    XForwardedFor = "x-forwarded-for";
    XForwardedHost = "x-forwarded-host";
    XForwardedPort = "x-forwarded-port";
    XForwardedProto = "x-forwarded-proto";
    XRealIp = "x-real-ip";
    XRequestId = "x-request-id";
}

impl Known {
    #[inline]
    pub fn from_name(name: &[u8]) -> Self {
        lookup(name)
    }

    /// As [`from_name`](Self::from_name), of a name in lower case, for the compiler.
    pub(crate) const fn of_lower_case(name: &[u8]) -> Self {
        let candidate = TABLE[slot(name)];
        let other = NAMES[candidate as usize];
        let mut at = 0;
        while at < name.len() && at < other.len() && name[at] == other[at] {
            at += 1;
        }
        if at == name.len() && at == other.len() { candidate } else { Self::Other }
    }

    /// Lower case; empty for [`Known::Other`].
    pub fn name(self) -> &'static [u8] {
        NAMES[self as usize]
    }
}

/// Perfect over `NAMES`, with multipliers found by search; the compiler refuses a new name that collides (search again then).
#[inline]
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    len.wrapping_add((name[0] | 0x20) as usize * 19)
        .wrapping_add((name[len - 1] | 0x20) as usize * 8)
        .wrapping_add((name[len * 3 / 4] | 0x20) as usize)
        % 256
}

const TABLE: [Known; 256] = {
    assert!(ALL.len() <= 64, "KnownSet is one word");
    let mut table = [Known::Other; 256];
    let mut at = 1;
    while at < ALL.len() {
        let slot = slot(NAMES[at]);
        assert!(matches!(table[slot], Known::Other), "two names share a slot: search for other multipliers");
        table[slot] = ALL[at];
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for &known in &ALL[1..] {
            assert_eq!(lookup(known.name()), known);
            assert_eq!(lookup(&known.name().to_ascii_uppercase()), known);
        }
    }

    #[test]
    fn similar_names_are_other() {
        for name in
            [&b""[..], b"x", b"hos", b"hostt", b"content_length", b"x-forwarded-fox", b"transfer-encodinG\0", b"\xff"]
        {
            assert_eq!(lookup(name), Known::Other, "{name:?}");
        }
    }

    #[test]
    fn other_is_never_a_member() {
        let mut set = KnownSet::of(&[Known::Other, Known::Host]);
        set.insert(Known::Other);
        assert!(!set.contains(Known::Other) && set.contains(Known::Host));
    }
}
