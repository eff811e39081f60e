//! A peer that writes the bytes of QUIC's streams by hand, right or wrong, and writes down what the machine says. Shared with the fuzz
//! targets.

#![allow(dead_code, unreachable_pub)]

use proto::h1::{Client, RequestHead, RequestRewrite, ResponseHead, ResponseRewrite, Server, Trailers};
use proto::h1::{HeadLimits, Refused, parse_request, parse_response};
use proto::h3::frame::{FrameHead, put_integer, read_integer};
use proto::h3::qpack::{Decoder, ListLimits};
use proto::h3::{Abort, Connection, ErrorCode, Fault, HeadSpace, Limits, Out, Said, Step, StreamId};
use proto::http::{Fields, Framing, Method, Version};
use proto::{Event, Malformed};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub const DATA: u64 = 0x0;
pub const HEADERS: u64 = 0x1;
pub const CANCEL_PUSH: u64 = 0x3;
pub const SETTINGS: u64 = 0x4;
pub const PUSH_PROMISE: u64 = 0x5;
pub const GOAWAY: u64 = 0x7;
pub const MAX_PUSH_ID: u64 = 0xd;
pub const PRIORITY_UPDATE: u64 = 0xf0700;
pub const PRIORITY_UPDATE_PUSH: u64 = 0xf0701;
/// One that is reserved for meaning nothing.
pub const GREASE: u64 = 0x1f * 7 + 0x21;

pub fn integer(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_integer(value, &mut out);
    out
}

pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&integer(kind), &integer(payload.len() as u64), payload].concat()
}

/// An integer behind a prefix, whose first byte has these bits besides.
pub fn prefixed(pattern: u8, prefix: u32, value: u64) -> Vec<u8> {
    let full = (1 << prefix) - 1;
    if value < full {
        return vec![pattern | value as u8];
    }
    let (mut out, mut rest) = (vec![pattern | full as u8], value - full);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn string(pattern: u8, prefix: u32, text: &str) -> Vec<u8> {
    [prefixed(pattern, prefix, text.len() as u64), text.as_bytes().to_vec()].concat()
}

/// Lines, literally and without any table.
pub fn lines(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [string(0x20, 3, name), string(0, 7, value)].concat()).collect()
}

/// A section that refers to nothing.
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    [&[0, 0][..], &lines(fields)].concat()
}

pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, &section(fields))
}

pub fn data(payload: &[u8]) -> Vec<u8> {
    frame(DATA, payload)
}

pub fn settings(entries: &[(u64, u64)]) -> Vec<u8> {
    let payload: Vec<u8> = entries.iter().flat_map(|&(id, value)| [integer(id), integer(value)].concat()).collect();
    frame(SETTINGS, &payload)
}

/// The instruction that makes an entry of a name and a value.
pub fn insert(name: &str, value: &str) -> Vec<u8> {
    [string(0x40, 5, name), string(0, 7, value)].concat()
}

/// The instruction that sets the table's size.
pub fn table_size(size: u64) -> Vec<u8> {
    prefixed(0x20, 5, size)
}

pub const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")];
pub const POST: &[(&str, &str)] = &[(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "a")];
pub const OK: &[(&str, &str)] = &[(":status", "200")];

/// `fields` and more of them.
pub fn with<'a>(fields: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [fields, more].concat()
}

/// The frames that bytes are, each with its payload.
pub fn frames(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (head, length) = FrameHead::parse(bytes).expect("a frame is whole");
        let end = length + head.length as usize;
        frames.push((head.kind.number(), bytes[length..end].to_vec()));
        bytes = &bytes[end..];
    }
    frames
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Head { stream: u64, text: String, framing: Framing },
    Data { stream: u64, bytes: Vec<u8> },
    End { stream: u64, trailers: String },
    Reset { stream: u64, why: Malformed },
    Refused { stream: u64, why: Malformed, answerable: bool },
    Prioritised(u64),
    GoneAway(u64),
    Settings,
}

/// What differs between the two sides.
pub trait Side: proto::h1::Role {
    /// The low bit of the streams that the peer opens.
    const PEER: u64;
    fn read(
        connection: &mut Connection<Self>,
        now: Duration,
        stream: StreamId,
        bytes: (&[u8], bool),
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Step<Self::Head>, Fault>;
    fn framing(head: &Self::Head) -> Framing;
    /// Reads the head's text as HTTP/1 would: what the machine wrote there is one.
    fn check(head: &Self::Head, space: &HeadSpace);
}

const LARGE: HeadLimits = HeadLimits { bytes: u16::MAX, fields: 128, target: u16::MAX };

impl Side for Server {
    const PEER: u64 = 0;

    fn read(
        connection: &mut Connection<Self>,
        now: Duration,
        stream: StreamId,
        (bytes, fin): (&[u8], bool),
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Step<RequestHead>, Fault> {
        connection.read(now, stream, bytes, fin, space, out)
    }

    fn framing(head: &RequestHead) -> Framing {
        head.framing
    }

    fn check(head: &RequestHead, space: &HeadSpace) {
        assert_eq!((head.length as usize, head.version), (space.text.len(), Version::Http3));
        if let Ok(again) = parse_request(&space.text, &LARGE, &mut Fields::with_limit(128)) {
            let again = again.expect("a head is complete");
            assert_eq!((head.path, head.host, head.method), (again.path, again.host, again.method));
        }
    }
}

impl Side for Client {
    const PEER: u64 = 1;

    fn read(
        connection: &mut Connection<Self>,
        now: Duration,
        stream: StreamId,
        (bytes, fin): (&[u8], bool),
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Step<ResponseHead>, Fault> {
        connection.read(now, stream, bytes, fin, space, out)
    }

    fn framing(head: &ResponseHead) -> Framing {
        head.framing
    }

    fn check(head: &ResponseHead, space: &HeadSpace) {
        assert_eq!((head.length as usize, head.version), (space.text.len(), Version::Http3));
        if let Ok(again) = parse_response(&space.text, &LARGE, Method::Get, &mut Fields::with_limit(128)) {
            assert_eq!(head.status, again.expect("a head is complete").status);
        }
    }
}

/// One stream as QUIC would have it: what waits to be read.
#[derive(Debug, Default)]
struct Line {
    unread: Vec<u8>,
    fin: bool,
}

/// A machine, and everything that it is given and says.
pub struct Rig<S: Side> {
    pub connection: Connection<S>,
    pub space: HeadSpace,
    pub out: Out,
    pub now: Duration,
    lines: BTreeMap<u64, Line>,
    /// What our own requests or responses consist of.
    pub sent: BTreeMap<u64, Vec<u8>>,
    /// Streams that wait for entries.
    pub blocked: Vec<u64>,
    /// Everything that was ever said.
    pub story: Vec<Seen>,
}

/// The peer's streams of one direction, by what they are for.
pub const CONTROL: u64 = 2;
pub const ENCODER: u64 = 6;
pub const DECODER: u64 = 10;

pub fn server() -> Rig<Server> {
    server_with(Limits::DEFAULT)
}

pub fn server_with(limits: Limits) -> Rig<Server> {
    let mut rig = Rig::new(limits);
    rig.greet(&[]);
    rig
}

/// A client that has asked for `/` so many times.
pub fn client(requests: u64) -> Rig<Client> {
    let mut rig = Rig::new(Limits::DEFAULT);
    rig.greet(&[(0x8, 1)]);
    for at in 0..requests {
        rig.get(4 * at, Method::Get);
    }
    rig.out = Out::default();
    rig
}

impl<S: Side> Rig<S> {
    pub fn new(limits: Limits) -> Self {
        let mut connection = Connection::new(limits);
        let mut out = Out::default();
        connection.start(&mut out);
        Self {
            connection,
            space: HeadSpace::default(),
            out,
            now: Duration::ZERO,
            lines: BTreeMap::new(),
            sent: BTreeMap::new(),
            blocked: Vec::new(),
            story: Vec::new(),
        }
    }

    /// The peer opens its three streams, and says these settings.
    pub fn greet(&mut self, entries: &[(u64, u64)]) {
        let greeting = [integer(0), settings(entries)].concat();
        assert_eq!(self.feed(CONTROL, &greeting, false), Ok(vec![Seen::Settings]));
        assert_eq!(self.feed(ENCODER, &integer(2), false), Ok(vec![]));
        assert_eq!(self.feed(DECODER, &integer(3), false), Ok(vec![]));
        self.out = Out::default();
        self.story.clear();
    }

    /// Feeds a stream and drains it to its pause, and then those that need not wait any longer. Streams are told of when they are first
    /// fed; those of one direction have the peer's low bit added.
    pub fn feed(&mut self, stream: u64, bytes: &[u8], fin: bool) -> Result<Vec<Seen>, Fault> {
        let stream = if stream & 2 != 0 { stream & !1 | S::PEER } else { stream };
        let mut seen = Vec::new();
        let fed = self.take(stream, bytes, fin, &mut seen);
        for seen in &seen {
            match (self.story.last_mut(), seen) {
                (Some(Seen::Data { stream, bytes }), Seen::Data { stream: same, bytes: more }) if stream == same => {
                    bytes.extend_from_slice(more);
                }
                _ => self.story.push(seen.clone()),
            }
        }
        fed.map(|()| seen)
    }

    fn take(&mut self, stream: u64, bytes: &[u8], fin: bool, seen: &mut Vec<Seen>) -> Result<(), Fault> {
        let theirs = stream & 1 == S::PEER;
        if !self.lines.contains_key(&stream) && theirs {
            self.connection.opened(self.now, StreamId(stream), &mut self.out)?;
        }
        let line = self.lines.entry(stream).or_default();
        line.unread.extend_from_slice(bytes);
        line.fin |= fin;
        let mut due = VecDeque::from([stream]);
        while let Some(stream) = due.pop_front() {
            self.drain(stream, seen, &mut due)?;
        }
        Ok(())
    }

    fn drain(&mut self, stream: u64, seen: &mut Vec<Seen>, due: &mut VecDeque<u64>) -> Result<(), Fault> {
        let line = self.lines.entry(stream).or_default();
        let mut at = 0;
        loop {
            let rest = (&line.unread[at..], line.fin);
            let step = S::read(&mut self.connection, self.now, StreamId(stream), rest, &mut self.space, &mut self.out)?;
            at += step.skipped;
            match step.said {
                Said::Pause => break,
                Said::Blocked => {
                    self.blocked.push(stream);
                    break;
                }
                Said::Unblocked(StreamId(other)) => {
                    let before = self.blocked.len();
                    self.blocked.retain(|&blocked| blocked != other);
                    assert!(self.blocked.len() < before, "it was not blocked");
                    due.push_back(other);
                }
                Said::Settings => seen.push(Seen::Settings),
                Said::Prioritised(StreamId(stream)) => seen.push(Seen::Prioritised(stream)),
                Said::GoneAway { first } => seen.push(Seen::GoneAway(first.0)),
                Said::Refused { stream, why, answerable } => {
                    seen.push(Seen::Refused { stream: stream.0, why, answerable });
                }
                Said::Stream(StreamId(stream), Event::Head(head)) => {
                    S::check(&head, &self.space);
                    let text = String::from_utf8_lossy(&self.space.text).replace("\r\n", "|");
                    seen.push(Seen::Head { stream, text, framing: S::framing(&head) });
                }
                Said::Stream(StreamId(stream), Event::Data { payload, consumed }) => {
                    assert!(payload > 0 && consumed == payload);
                    let bytes = &line.unread[at..at + payload];
                    match seen.last_mut() {
                        Some(Seen::Data { stream: last, bytes: before }) if *last == stream => {
                            before.extend_from_slice(bytes);
                        }
                        _ => seen.push(Seen::Data { stream, bytes: bytes.to_vec() }),
                    }
                    at += consumed;
                }
                Said::Stream(StreamId(stream), Event::End { consumed, trailers }) => {
                    assert_eq!(consumed, 0);
                    let kept = self.space.fields.iter().filter(|field| !field.dropped);
                    let field = |field: &proto::http::Field| {
                        let (name, value) = (field.name.of(&self.space.text), field.value.of(&self.space.text));
                        format!("{}: {}|", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                    };
                    let trailers = if trailers { kept.map(field).collect() } else { String::new() };
                    seen.push(Seen::End { stream, trailers });
                }
                Said::Stream(StreamId(stream), Event::Reset(why)) => {
                    seen.push(Seen::Reset { stream, why });
                    self.connection.release(StreamId(stream), &mut self.out);
                }
                Said::Stream(_, Event::Tunnel | Event::Pause) => unreachable!("HTTP/3 says neither"),
            }
        }
        line.unread.drain(..at);
        Ok(())
    }

    /// Bytes that are ours to keep for want of more.
    pub fn unread(&self) -> usize {
        self.lines.values().map(|line| line.unread.len()).sum()
    }

    /// What is still unread of a stream is of no interest.
    pub fn forget(&mut self, stream: u64) {
        if let Some(line) = self.lines.get_mut(&stream) {
            line.unread.clear();
        }
    }

    /// So much content, made of the stream's number.
    pub fn data(&mut self, stream: u64, bytes: usize) -> Result<(), Refused> {
        let head = self.connection.data_head(StreamId(stream), bytes, &mut self.out)?;
        let sent = self.sent.entry(stream).or_default();
        sent.extend_from_slice(&head);
        sent.resize(sent.len() + bytes, stream as u8);
        Ok(())
    }

    pub fn finish(&mut self, stream: u64, trailers: &[(&str, &str)]) -> Result<(), Refused> {
        let (text, fields) = index(trailers);
        let trailers = Trailers::of(&text, &fields);
        let sent = self.sent.entry(stream).or_default();
        self.connection.finish(StreamId(stream), &trailers, sent, &mut self.out)
    }

    /// What has been written on a stream since the last time.
    pub fn put(&mut self, stream: u64) -> Vec<u8> {
        self.sent.remove(&stream).unwrap_or_default()
    }

    /// What was asked of QUIC since the last time.
    pub fn aborts(&mut self) -> Vec<Abort> {
        std::mem::take(&mut self.out.aborts)
    }
}

/// Lines and their index, as a machine would have written them.
fn index(fields: &[(&str, &str)]) -> (Vec<u8>, Fields) {
    use proto::http::{Known, Span};
    let (mut text, mut index) = (Vec::new(), Fields::default());
    for (name, value) in fields {
        let start = text.len();
        text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        let middle = start + name.len();
        let (name_span, value_span) =
            (Span::between(start, middle), Span::between(middle + 2, middle + 2 + value.len()));
        index.push(name_span, value_span, Known::from_name(name.as_bytes()));
    }
    (text, index)
}

impl Rig<Server> {
    /// Answers with a head of that framing.
    pub fn answer(&mut self, stream: u64, framing: Framing) {
        self.answer_with(stream, framing, &[]).unwrap();
    }

    pub fn answer_with(&mut self, stream: u64, framing: Framing, add: &[(&[u8], &[u8])]) -> Result<(), Refused> {
        let mut fields = Fields::default();
        let text = b"HTTP/1.1 200 OK\r\n\r\n";
        let head = parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
        let rewrite = ResponseRewrite { framing, add, ..ResponseRewrite::new(&head, Version::Http3) };
        let sent = self.sent.entry(stream).or_default();
        self.connection.write_response(StreamId(stream), text, &head, &fields, &rewrite, sent, &mut self.out)
    }
}

impl Rig<Client> {
    pub fn get(&mut self, stream: u64, method: Method) {
        self.ask(stream, method, Framing::None);
    }

    pub fn ask(&mut self, stream: u64, method: Method, framing: Framing) {
        let target = if method == Method::Connect { "a:1" } else { "/" };
        let text = format!("{} {target} HTTP/1.1\r\nhost: a\r\n\r\n", String::from_utf8_lossy(method.as_bytes()));
        self.send_request(stream, text.as_bytes(), framing).unwrap();
    }

    pub fn send_request(&mut self, stream: u64, text: &[u8], framing: Framing) -> Result<(), Refused> {
        let mut fields = Fields::default();
        let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
        let rewrite = RequestRewrite { framing, ..RequestRewrite::new(&head) };
        let sent = self.sent.entry(stream).or_default();
        self.connection.write_request(StreamId(stream), text, &head, &fields, &rewrite, sent, &mut self.out)
    }
}

/// How a peer's breach is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// The connection ends with this code.
    Connection(ErrorCode),
    /// This stream is given up with this code.
    Stream(u64, ErrorCode),
    /// The client is asked not to go on.
    Stopped(u64, ErrorCode),
    /// Not at all.
    Fine,
}

/// Feeds a stream and says how it was met.
pub fn met<S: Side>(rig: &mut Rig<S>, stream: u64, bytes: &[u8], fin: bool) -> Met {
    let fed = rig.feed(stream, bytes, fin);
    if let Err(fault) = fed {
        assert_eq!(rig.connection.fault(), Some(fault));
        assert_eq!(rig.feed(stream, b"", false), Err(fault), "it stays broken");
        return Met::Connection(fault.code);
    }
    let aborts = rig.aborts();
    let stopped = |id| aborts.iter().any(|abort| matches!(abort, Abort::Stop { stream, .. } if *stream == id));
    match aborts.first() {
        Some(&Abort::Reset { stream, code }) => Met::Stream(stream.0, code),
        Some(&Abort::Stop { stream, code }) if stopped(stream) => Met::Stopped(stream.0, code),
        _ => Met::Fine,
    }
}

/// Reads the sections of frames that a machine put and that refer to nothing which arrives.
pub fn read_section(section: &[u8]) -> Vec<(String, String)> {
    let decoder = Decoder::new(0);
    let (mut text, mut list) = (Vec::new(), Vec::new());
    let limits = ListLimits { bytes: 64 * 1024, fields: 200 };
    let section = decoder.section(section).unwrap().unwrap_or_else(|_| panic!("it waits for something"));
    let read = section.decode(&limits, &mut text, |text, line| {
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        list.push((string(line.name(text)), string(line.value(text))));
    });
    read.unwrap();
    list
}

/// The type that a stream of one direction begins with, and what follows it.
pub fn split_type(bytes: &[u8]) -> (u64, &[u8]) {
    let (sort, length) = read_integer(bytes).unwrap();
    (sort, &bytes[length..])
}

/// Feeds each of the streams' bytes in pieces, in the order of the list; what was said, what was asked for, and the error that ended it.
pub fn tell<S: Side>(
    mut rig: Rig<S>,
    segments: &[(u64, Vec<u8>, bool)],
    seed: Option<u64>,
) -> (Vec<Seen>, Vec<Abort>, Vec<u8>, Option<Fault>) {
    let mut fault = None;
    'told: for (stream, bytes, fin) in segments {
        let pieces = seed.map_or_else(|| vec![&bytes[..]], |seed| cut(bytes, seed ^ stream));
        let last = pieces.len().saturating_sub(1);
        let pieces = if pieces.is_empty() { vec![&[][..]] } else { pieces };
        for (at, piece) in pieces.iter().enumerate() {
            if let Err(why) = rig.feed(*stream, piece, *fin && at == last) {
                fault = Some(why);
                break 'told;
            }
        }
    }
    assert!(rig.connection.memory() <= 100 * 1024, "{}", rig.connection.memory());
    let Out { control, aborts, .. } = rig.out;
    (rig.story, aborts, control, fault)
}

/// Cuts `bytes` at places that `seed` decides.
pub fn cut(bytes: &[u8], mut seed: u64) -> Vec<&[u8]> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let longest = if seed >> 60 == 0 { 4096 } else { 24 };
        let (piece, after) = rest.split_at(((seed >> 33) as usize % longest + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// What a fuzzer says, on streams that there may be.
pub fn segments(said: &[(u8, Vec<u8>, bool)]) -> Vec<(u64, Vec<u8>, bool)> {
    let stream = |at: u8| match at % 16 {
        0..4 => CONTROL,
        4..6 => ENCODER,
        6 => DECODER,
        7 => 14,
        other => 4 * (u64::from(other) - 8),
    };
    said.iter().map(|(at, bytes, fin)| (stream(*at), bytes.clone(), *fin)).collect()
}
