//! What a head gains and loses on its way: hop-by-hop fields go, forwarding fields come (RFC 9110 §7.6, RFC 7239).

use std::rc::Rc;
use std::time::Duration;

use proto::grpc::MEDIA_TYPE;
use proto::grpc::web::Coding;
use proto::h1::{RequestRewrite, ResponseHead, ResponseRewrite};
use proto::http::{Fields, Framing, Known, KnownSet, Span, Version, hop};

use super::bridge::Web;
use super::relay::Exchange;
use super::route::{Matched, Way};
use super::tries::Tries;
use super::{Door, Peer, Request, affinity, early, grpc, upgrade};
use crate::conn::{Composed, Conn, Lane};
use crate::limits;
use crate::snapshot::{Facts, Forwarded, HeaderRule, HeaderRules, HostPolicy, ServerPolicy, ViaName, normal};
use crate::upstream::Endpoint;
use proto::h1::Server;

/// Room for what a head gains: the forwarding fields of a client and of the proxies before us.
const GAIN_BYTES_MAX: usize = 2 << 10;

/// Fields that we add of our own accord: three of `X-Forwarded-*`, `Forwarded`, `Via`, cookies without ours, `Client-Cert`, a WebSocket's key,
/// gRPC's `Content-Type`, `Early-Data`; and `Server`, `Alt-Svc`, a sticky cookie, what is left of limits, and what answers such a key in a response.
const OWN_FIELDS_MAX: usize = 11;

/// What a field's line has beside name and value: `: ` and CRLF.
const FIELD_EXTRA: usize = 4;

/// The request's head as it goes to an endpoint, for `write` to write it. `content` is how a copy's content is framed, which is all there.
pub(super) fn request_head<T>(
    door: &Door,
    request: &Request,
    peer: &Peer,
    way: &Way<'_>,
    endpoint: &str,
    content: Option<Framing>,
    write: impl FnOnce(&Composed<'_>) -> Option<T>,
) -> Option<T> {
    if way.matched.route.rewrite.request.add.is_empty() {
        compose_request::<OWN_FIELDS_MAX, T>(door, request, peer, way, endpoint, content, write)
    } else {
        const FIELDS: usize = OWN_FIELDS_MAX + limits::HEADER_RULES_MAX;
        compose_request::<FIELDS, T>(door, request, peer, way, endpoint, content, write)
    }
}

/// Room for `FIELDS` more fields, ours and the route's.
fn compose_request<const FIELDS: usize, T>(
    door: &Door,
    request: &Request,
    peer: &Peer,
    way: &Way<'_>,
    endpoint: &str,
    content: Option<Framing>,
    write: impl FnOnce(&Composed<'_>) -> Option<T>,
) -> Option<T> {
    let (route, rules) = (way.matched.route, &way.matched.route.rewrite.request);
    let bytes = request.bytes.bytes();
    let mut fields = door.desk.request_fields.borrow_mut();
    ensure_parsed(door, request, &mut fields);
    let framing = content.unwrap_or(request.head.framing);
    let stripped = hop::strip(&mut fields, bytes, framing);
    // What is marked now would be missing when the same request is composed for another endpoint.
    door.desk.request_of.set(0);

    let mut rewrite = RequestRewrite::new(&request.head);
    rewrite.te_trailers = stripped.te_trailers;
    rewrite.framing = framing;
    if content.is_some() {
        rewrite.without.insert(Known::Expect);
    }
    rewrite.host = match route.rewrite.host.as_ref().unwrap_or(&door.snapshot[way.pool].host) {
        HostPolicy::Keep => None,
        HostPolicy::Endpoint => Some(endpoint.as_bytes()),
        HostPolicy::Literal(host) => Some(host.as_bytes()),
    };
    let mut value = door.desk.value.borrow_mut();
    let mut added = Added::<FIELDS>::default();
    if door.tells_certificate {
        own_certificate(&mut fields, bytes, peer, &mut added);
    }
    let mut spans = forwarding(&mut value, (door, request, peer), bytes, &fields, route.forwarded);
    spans.via = via(&mut value, door, request.head.version);
    if let Some(web) = way.web {
        let media_type = fields.value(Known::ContentType, bytes).unwrap_or_default();
        spans.media_type = written(&mut value, |value| grpc::write_media_type(media_type, MEDIA_TYPE, value));
        rewrite.te_trailers = true;
        if web.asks == Coding::Text && content.is_none() && framing.has_body() {
            // It becomes shorter.
            rewrite.framing = Framing::Chunked;
        }
    }
    let cookies = affinity::cookie_to_strip(&door.snapshot[way.pool], &fields, bytes)
        .map(|rule| written(&mut value, |value| affinity::strip_cookie(rule, &fields, bytes, value)));
    let mut values = [Place::default(); FIELDS];
    let target = rewritten(door, request, peer, &way.matched, &fields, &mut value, &mut values);
    rewrite.target = Some(target.of(&value)).filter(|target| !target.is_empty());
    remove(rules, &mut rewrite.without, &mut fields, bytes);
    let authority = request.head.authority.of(bytes);
    if matches!(route.forwarded, Forwarded::XForwarded | Forwarded::Both) {
        added.add(b"x-forwarded-for", spans.x_for.of(&value));
        rewrite.without.insert(Known::XForwardedFor);
        if !peer.trusted || !fields.has(Known::XForwardedProto) {
            added.add(b"x-forwarded-proto", scheme(door));
            rewrite.without.insert(Known::XForwardedProto);
        }
        if !peer.trusted || !fields.has(Known::XForwardedHost) {
            added.add(b"x-forwarded-host", authority);
            rewrite.without.insert(Known::XForwardedHost);
        }
    }
    if matches!(route.forwarded, Forwarded::Forwarded | Forwarded::Both) {
        added.add(b"forwarded", spans.forwarded.of(&value));
        rewrite.without.insert(Known::Forwarded);
    }
    if !spans.via.is_empty() {
        added.add(b"via", spans.via.of(&value));
    }
    if !spans.media_type.is_empty() {
        added.add(b"content-type", spans.media_type.of(&value));
        rewrite.without.insert(Known::ContentType);
    }
    if let Some(cookies) = cookies {
        let unwanted = rewrite.without.contains(Known::Cookie);
        rewrite.without.insert(Known::Cookie);
        if !cookies.is_empty() && !unwanted {
            added.add(b"cookie", cookies.of(&value));
        }
    }
    for (rule, place) in rules.add.iter().zip(values) {
        added.add(rule.name.as_bytes(), place.of(&value));
    }
    if let Some(key) = upgrade::key_to_add(request) {
        fields.drop_where(|field| field.name.of(bytes).eq_ignore_ascii_case(upgrade::KEY));
        added.add(upgrade::KEY, key);
    }
    if request.early {
        tell_early(&mut fields, bytes, &mut added);
    }
    rewrite.add = added.as_slice();

    let names: usize = rules.add.iter().map(|rule| rule.name.len() + FIELD_EXTRA).sum();
    let certificate = peer.certificate().map_or(0, <[u8]>::len);
    let room = bytes.len() + value.len() + names + certificate + GAIN_BYTES_MAX;
    write(&Composed { bytes, head: &request.head, fields: &fields, rewrite: &rewrite, room })
}

/// What tells of the client's certificate is ours to say, or a trusted proxy's (RFC 9440 §3.1).
fn own_certificate<'a, const FIELDS: usize>(
    fields: &mut Fields,
    bytes: &[u8],
    peer: &'a Peer,
    added: &mut Added<'a, FIELDS>,
) {
    if !peer.trusted || peer.certificate().is_some() {
        let names: [&[u8]; 2] = [b"client-cert", b"client-cert-chain"];
        fields.drop_where(|field| names.iter().any(|name| field.name.of(bytes).eq_ignore_ascii_case(name)));
    }
    if let Some(certificate) = peer.certificate() {
        added.add(b"client-cert", certificate);
    }
}

/// The endpoint is told that a request may come twice; who says so twice says it once (RFC 8470 §5.1).
fn tell_early<const FIELDS: usize>(fields: &mut Fields, bytes: &[u8], added: &mut Added<'_, FIELDS>) {
    fields.drop_where(|field| field.name.of(bytes).eq_ignore_ascii_case(early::FIELD));
    added.add(early::FIELD, b"1");
}

/// Writes the target that an endpoint gets and the values of the route's fields behind what `value` holds. No target: as it
/// came.
fn rewritten(
    door: &Door,
    request: &Request,
    peer: &Peer,
    matched: &Matched<'_>,
    fields: &Fields,
    value: &mut Vec<u8>,
    values: &mut [Place],
) -> Place {
    let rewrite = &matched.route.rewrite;
    let sent = request.head.path.of(request.bytes.bytes());
    let as_sent = matched.route.raw_path || !door.snapshot.table.tells_paths_apart || normal::is_plain(sent);
    if rewrite.path.is_none() && rewrite.request.add.is_empty() && as_sent {
        return Place::default();
    }
    door.with_facts(request, fields, peer, matched, |facts| {
        write_values(&rewrite.request.add, facts, value, values);
        let start = value.len();
        match &rewrite.path {
            // `*` and CONNECT's target are no paths.
            _ if !facts.path.starts_with(b"/") => return Place::default(),
            Some(path) => path.write(facts, value),
            None if as_sent => return Place::default(),
            None => value.extend_from_slice(facts.path),
        }
        if !facts.query.is_empty() {
            value.push(b'?');
            value.extend_from_slice(facts.query);
        }
        Place { start, end: value.len() }
    })
}

pub(super) fn write_values(rules: &[HeaderRule], facts: &Facts<'_>, value: &mut Vec<u8>, values: &mut [Place]) {
    for (rule, place) in rules.iter().zip(values) {
        let start = value.len();
        rule.value.write(facts, value);
        *place = Place { start, end: value.len() };
    }
}

/// Leaves the fields out that a route removes or replaces.
fn remove(rules: &HeaderRules, without: &mut KnownSet, fields: &mut Fields, bytes: &[u8]) {
    for (known, name) in &rules.remove {
        match known {
            Known::Other => fields.drop_where(|field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes())),
            known => without.insert(*known),
        }
    }
}

/// How a response will be sent.
pub(super) struct Told<'a> {
    pub(super) framing: Framing,
    pub(super) persistent: bool,
    /// How it is said in gRPC-Web, if it is.
    pub(super) bridged: Option<Web>,
    /// Whose sticky cookie it may carry, and the endpoint that it is from.
    pub(super) tries: &'a Tries<'a>,
    pub(super) endpoint: &'a Rc<Endpoint>,
}

/// Writes the response's head to the client; what the lane leaves to be sent is on the desk. False when it cannot be told to this client.
pub(super) fn response_head(
    exchange: Exchange<'_>,
    head: &ResponseHead,
    bytes: &[u8],
    fields: &mut Fields,
    told: &Told<'_>,
    down: &mut Lane<'_, Server>,
) -> bool {
    if exchange.way.matched.route.rewrite.response.add.is_empty() {
        return compose_response::<OWN_FIELDS_MAX>(exchange, head, bytes, fields, told, down);
    }
    compose_response::<{ OWN_FIELDS_MAX + limits::HEADER_RULES_MAX }>(exchange, head, bytes, fields, told, down)
}

/// Room for `FIELDS` more fields, ours and the route's.
fn compose_response<const FIELDS: usize>(
    exchange: Exchange<'_>,
    head: &ResponseHead,
    bytes: &[u8],
    fields: &mut Fields,
    told: &Told<'_>,
    down: &mut Lane<'_, Server>,
) -> bool {
    let Exchange { door, request, peer, way, .. } = exchange;
    let rules = &way.matched.route.rewrite.response;
    hop::strip(fields, bytes, head.framing);
    let mut rewrite = ResponseRewrite::new(head, request.head.version);
    rewrite.framing = told.framing;
    rewrite.persistent = told.persistent;
    let mut added = Added::<FIELDS>::default();
    match &door.snapshot.engine.server {
        ServerPolicy::Keep => {}
        ServerPolicy::Remove => rewrite.without.insert(Known::Server),
        ServerPolicy::Literal(name) => {
            rewrite.without.insert(Known::Server);
            added.add(b"server", name.as_bytes());
        }
    }
    if let Some(alternative) = door.alternative.as_deref().filter(|_| request.head.version != Version::Http3) {
        // What the endpoint says is about itself, and where it listens.
        rewrite.without.insert(Known::AltSvc);
        added.add(b"alt-svc", alternative);
    }
    let mut value = door.desk.value.borrow_mut();
    value.clear();
    let via = via(&mut value, door, head.version);
    let media_type = told.bridged.map(|web| {
        // Trailers are content from here on.
        rewrite.without.insert(Known::Trailer);
        rewrite.without.insert(Known::ContentType);
        let media_type = fields.value(Known::ContentType, bytes).unwrap_or_default();
        written(&mut value, |value| grpc::write_media_type(media_type, web.hears.media_type(), value))
    });
    let mut values = [Place::default(); FIELDS];
    if !rules.add.is_empty() {
        let mut asked = door.desk.request_fields.borrow_mut();
        ensure_parsed(door, request, &mut asked);
        door.with_facts(request, &asked, peer, &way.matched, |facts| {
            write_values(&rules.add, facts, &mut value, &mut values);
        });
    }
    let limits = door.write_limits(&way, told.tries.counted(), &mut value);
    let cookie = value.len();
    if let Some(rule) = told.tries.cookie()
        && !affinity::is_for_everybody(fields, bytes)
        && told.tries.write_cookie(rule, told.endpoint, &mut value)
    {
        added.add(b"set-cookie", &value[cookie..]);
    }
    remove(rules, &mut rewrite.without, fields, bytes);
    if !via.is_empty() {
        added.add(b"via", via.of(&value));
    }
    if let Some(media_type) = media_type {
        added.add(b"content-type", media_type.of(&value));
    }
    if let Some((limit, policy)) = limits {
        added.add(b"ratelimit", &value[limit..policy]);
        added.add(b"ratelimit-policy", &value[policy..cookie]);
    }
    for (rule, place) in rules.add.iter().zip(values) {
        added.add(rule.name.as_bytes(), place.of(&value));
    }
    let accept = upgrade::accept_to_add(request, head);
    if let Some(accept) = &accept {
        added.add(upgrade::ACCEPT, accept);
    }
    rewrite.add = added.as_slice();
    down.write_response(bytes, head, fields, &rewrite, &mut door.desk.head.borrow_mut()).is_ok()
}

/// The user agent and referer of a request, as spans of its bytes.
pub(super) fn for_log(door: &Door, request: &Request) -> (Span, Span) {
    let mut fields = door.desk.request_fields.borrow_mut();
    ensure_parsed(door, request, &mut fields);
    let span = |known| fields.get(known).map_or(Span::EMPTY, |field| field.value);
    (span(Known::UserAgent), span(Known::Referer))
}

/// How long an answer asks to be left alone (RFC 9110 §10.2.3). A date, which would need a clock that agrees with the
/// endpoint's, and what is neither date nor seconds, count as longer than anybody waits.
pub(super) fn retry_after(fields: &Fields, bytes: &[u8]) -> Option<Duration> {
    let value = fields.get(Known::RetryAfter)?.value.of(bytes);
    let seconds = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u32>().ok());
    Some(seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into())))
}

/// The desk tells of the request that was read last; another one is read anew from its own bytes.
pub(super) fn ensure_parsed(door: &Door, request: &Request, fields: &mut Fields) {
    if door.desk.request_of.get() == request.id() {
        return;
    }
    if let Some(index) = &request.index {
        index.copy_to(fields);
        return door.desk.request_of.set(request.id());
    }
    let again = proto::h1::parse_request(request.bytes.bytes(), &limits::HEADS, fields);
    debug_assert!(matches!(again, Ok(Some(_))), "a head that was read once reads again");
    door.desk.request_of.set(request.id());
}

impl Request {
    /// Takes the request that `conn` has just read; the desk tells of its fields.
    pub fn take(door: &Door, conn: &mut Conn<Server>, head: proto::h1::RequestHead) -> Self {
        let bytes = conn.take_head(head.length as usize);
        let request = Self { head, bytes, index: None, begun: ring::now(), early: false, key: None };
        door.desk.request_of.set(request.id());
        request
    }

    /// No two requests of a worker share address and moment while either is alive.
    fn id(&self) -> u64 {
        self.bytes.bytes().as_ptr() as u64 ^ self.begun.as_nanos().rotate_left(20)
    }
}

/// A few fields to add, without a heap.
pub(super) struct Added<'a, const FIELDS: usize> {
    fields: [(&'a [u8], &'a [u8]); FIELDS],
    count: usize,
}

impl<const FIELDS: usize> Default for Added<'_, FIELDS> {
    fn default() -> Self {
        Self { fields: [(&[], &[]); FIELDS], count: 0 }
    }
}

impl<'a, const FIELDS: usize> Added<'a, FIELDS> {
    pub(super) fn add(&mut self, name: &'a [u8], value: &'a [u8]) {
        self.fields[self.count] = (name, value);
        self.count += 1;
    }

    pub(super) fn as_slice(&self) -> &[(&'a [u8], &'a [u8])] {
        &self.fields[..self.count]
    }
}

/// Where the composed values lie on the desk.
#[derive(Clone, Copy, Default)]
struct Spans {
    x_for: Place,
    forwarded: Place,
    via: Place,
    media_type: Place,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    start: usize,
    end: usize,
}

impl Place {
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.end]
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// What clients speak at this door, as forwarding fields call it.
fn scheme(door: &Door) -> &'static [u8] {
    if door.listener().tls.is_some() { b"https" } else { b"http" }
}

/// `VERSION NAME`, behind what the desk holds already; the version is that of the message that came (RFC 9110 §7.6.3).
fn via(value: &mut Vec<u8>, door: &Door, came: Version) -> Place {
    let start = value.len();
    if let ViaName::Name(name) = &door.snapshot.engine.via {
        value.extend_from_slice(match came {
            Version::Http10 => b"1.0 ",
            Version::Http11 => b"1.1 ",
            Version::Http2 => b"2.0 ",
            Version::Http3 => b"3.0 ",
        });
        value.extend_from_slice(name.as_bytes());
    }
    Place { start, end: value.len() }
}

/// Where what `write` appends to `value` lies.
fn written(value: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Place {
    let start = value.len();
    write(value);
    Place { start, end: value.len() }
}

fn forwarding(
    value: &mut Vec<u8>,
    (door, request, peer): (&Door, &Request, &Peer),
    bytes: &[u8],
    fields: &Fields,
    forwarded: Forwarded,
) -> Spans {
    value.clear();
    let mut spans = Spans::default();
    if matches!(forwarded, Forwarded::XForwarded | Forwarded::Both) {
        let start = value.len();
        if peer.trusted {
            chain(value, bytes, fields, Known::XForwardedFor);
        }
        value.extend_from_slice(peer.text());
        spans.x_for = Place { start, end: value.len() };
    }
    if matches!(forwarded, Forwarded::Forwarded | Forwarded::Both) {
        let start = value.len();
        if peer.trusted {
            chain(value, bytes, fields, Known::Forwarded);
        }
        // An IPv6 address and a host with a port must be quoted (RFC 7239 §4, §6).
        let is_v6 = peer.text().contains(&b':');
        value.extend_from_slice(if is_v6 { b"for=\"[" } else { b"for=" });
        value.extend_from_slice(peer.text());
        value.extend_from_slice(if is_v6 { b"]\";proto=" } else { b";proto=" });
        value.extend_from_slice(scheme(door));
        value.extend_from_slice(b";host=\"");
        value.extend_from_slice(request.head.authority.of(bytes));
        value.push(b'"');
        spans.forwarded = Place { start, end: value.len() };
    }
    spans
}

/// The values that proxies before us wrote, each followed by a comma. Longer than any honest chain: the rest is left out.
fn chain(value: &mut Vec<u8>, bytes: &[u8], fields: &Fields, known: Known) {
    const CHAIN_BYTES_MAX: usize = 1_024;
    for field in fields.all(known) {
        let text = field.value.of(bytes);
        if value.len() + text.len() > CHAIN_BYTES_MAX {
            return;
        }
        value.extend_from_slice(text);
        value.extend_from_slice(b", ");
    }
}
