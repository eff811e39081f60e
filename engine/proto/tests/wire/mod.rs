//! A peer that writes frames by hand, right or wrong, and writes down what the machine says. Shared with the fuzz targets.

#![allow(dead_code, unreachable_pub)]

use proto::h1::{Client, RequestHead, RequestRewrite, ResponseHead, ResponseRewrite, Server};
use proto::h1::{HeadLimits, parse_request, parse_response};
use proto::h2::hpack::{Decoder, ListLimits};
use proto::h2::{Connection, ErrorCode, Fault, HeadSpace, Limits, Said, Step, StreamId};
use proto::http::{Fields, Framing, Method};
use proto::{Event, Malformed};
use std::time::Duration;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const PRIORITY_UPDATE: u8 = 16;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields, literally and without any table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let string = |text: &str| {
        let length = text.len();
        if length < 127 {
            return [&[length as u8], text.as_bytes()].concat();
        }
        let mut out = vec![127];
        let mut rest = length - 127;
        while rest >= 128 {
            out.push(rest as u8 | 128);
            rest >>= 7;
        }
        out.push(rest as u8);
        out.extend_from_slice(text.as_bytes());
        out
    };
    fields.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

pub fn headers(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(end), stream, &block(fields))
}

pub fn data(stream: u32, payload: &[u8], end: bool) -> Vec<u8> {
    frame(DATA, u8::from(end), stream, payload)
}

pub fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        entries.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub fn rst(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"12345678")
}

pub fn go_away(last: u32, code: ErrorCode) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.0.to_be_bytes()].concat())
}

pub const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")];
pub const POST: &[(&str, &str)] = &[(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "a")];
pub const OK: &[(&str, &str)] = &[(":status", "200")];

/// `fields` and more of them.
pub fn with<'a>(fields: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [fields, more].concat()
}

/// A frame that the machine put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Put {
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub fn frames(mut bytes: &[u8]) -> Vec<Put> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        frames.push(Put {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes(bytes[5..9].try_into().unwrap()),
            payload: bytes[9..9 + length].to_vec(),
        });
        bytes = &bytes[9 + length..];
    }
    frames
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Head { stream: u32, text: String, framing: Framing },
    Data { stream: u32, bytes: Vec<u8> },
    End { stream: u32, trailers: String },
    Reset { stream: u32, why: Malformed },
    Refused { stream: u32, why: Malformed, answerable: bool },
    GoneAway { last: u32, code: ErrorCode },
    Pong(u64),
}

/// What differs between the two sides.
pub trait Side: proto::h1::Role {
    fn read(
        connection: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<Self::Head>, Fault>;
    fn framing(head: &Self::Head) -> Framing;
    /// Reads the head's text as HTTP/1 would: what the machine wrote there is one.
    fn check(head: &Self::Head, space: &HeadSpace);
}

impl Side for Server {
    fn read(
        connection: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<RequestHead>, Fault> {
        connection.read(now, bytes, space, out)
    }

    fn framing(head: &RequestHead) -> Framing {
        head.framing
    }

    fn check(head: &RequestHead, space: &HeadSpace) {
        assert_eq!(head.length as usize, space.text.len());
        let limits = HeadLimits { bytes: u16::MAX, fields: 128, target: u16::MAX };
        let mut fields = Fields::with_limit(128);
        if let Ok(again) = parse_request(&space.text, &limits, &mut fields) {
            let again = again.expect("a head is complete");
            let spans = |head: &RequestHead| {
                [head.method_text, head.target, head.authority, head.path, head.query, head.host, head.length_span()]
            };
            assert_eq!(spans(head), spans(&again), "{}", String::from_utf8_lossy(&space.text));
            assert_eq!((head.method, head.form, head.upgrade), (again.method, again.form, again.upgrade));
            // Where an empty value is, is nobody's business.
            let place = |span: proto::http::Span| (span.len > 0).then_some(span);
            let line = |field: &proto::http::Field| (field.name, place(field.value), field.known);
            let lines = |fields: &Fields| fields.iter().map(line).collect::<Vec<_>>();
            assert_eq!(lines(&space.fields), lines(&fields));
        }
    }
}

impl Side for Client {
    fn read(
        connection: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<ResponseHead>, Fault> {
        connection.read(now, bytes, space, out)
    }

    fn framing(head: &ResponseHead) -> Framing {
        head.framing
    }

    fn check(head: &ResponseHead, space: &HeadSpace) {
        assert_eq!(head.length as usize, space.text.len());
        let limits = HeadLimits { bytes: u16::MAX, fields: 128, target: u16::MAX };
        let again = parse_response(&space.text, &limits, Method::Get, &mut Fields::with_limit(128));
        if let Ok(again) = again {
            let again = again.expect("a head is complete");
            assert_eq!((head.status, head.upgrade, head.length), (again.status, again.upgrade, again.length));
        }
    }
}

trait LengthSpan {
    fn length_span(&self) -> proto::http::Span;
}

impl LengthSpan for RequestHead {
    fn length_span(&self) -> proto::http::Span {
        proto::http::Span { start: 0, len: self.length }
    }
}

/// A machine, and everything that it is given and says.
pub struct Rig<S: Side> {
    pub connection: Connection<S>,
    pub space: HeadSpace,
    pub out: Vec<u8>,
    pub now: Duration,
    unread: Vec<u8>,
    /// Content is given back as soon as it is delivered.
    pub generous: bool,
    /// Everything that was ever said.
    pub story: Vec<Seen>,
}

pub fn server() -> Rig<Server> {
    let mut rig = Rig::new(Limits::DEFAULT);
    let greeting = [PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat();
    assert_eq!(rig.feed(&greeting), Ok(vec![]));
    rig.out.clear();
    rig
}

/// A client that has asked for `/` so many times.
pub fn client(requests: usize) -> Rig<Client> {
    let mut rig = Rig::new(Limits::DEFAULT);
    let greeting = [settings(&[]), frame(SETTINGS, ACK, 0, &[])].concat();
    assert_eq!(rig.feed(&greeting), Ok(vec![]));
    for _ in 0..requests {
        rig.get(Method::Get);
    }
    rig.out.clear();
    rig
}

impl<S: Side> Rig<S> {
    pub fn new(limits: Limits) -> Self {
        let mut connection = Connection::new(limits);
        let mut out = Vec::new();
        connection.start(Duration::ZERO, &mut out);
        let space = HeadSpace::default();
        Self { connection, space, out, now: Duration::ZERO, unread: Vec::new(), generous: true, story: Vec::new() }
    }

    /// Feeds bytes and drains to the pause.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Seen>, Fault> {
        let mut seen = Vec::new();
        let fed = self.drain(bytes, &mut seen);
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

    fn drain(&mut self, bytes: &[u8], seen: &mut Vec<Seen>) -> Result<(), Fault> {
        self.unread.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let step = S::read(&mut self.connection, self.now, &self.unread[at..], &mut self.space, &mut self.out)?;
            self.connection.sent();
            at += step.skipped;
            match step.said {
                Said::Pause => break,
                Said::Stream(StreamId(stream), Event::Head(head)) => {
                    S::check(&head, &self.space);
                    let text = String::from_utf8_lossy(&self.space.text).replace("\r\n", "|");
                    seen.push(Seen::Head { stream, text, framing: S::framing(&head) });
                }
                Said::Stream(StreamId(stream), Event::Data { payload, consumed }) => {
                    assert!(payload > 0 && consumed == payload);
                    let bytes = &self.unread[at..at + payload];
                    match seen.last_mut() {
                        Some(Seen::Data { stream: last, bytes: before }) if *last == stream => {
                            before.extend_from_slice(bytes)
                        }
                        _ => seen.push(Seen::Data { stream, bytes: bytes.to_vec() }),
                    }
                    at += consumed;
                    if self.generous {
                        self.connection.credit(StreamId(stream), payload, &mut self.out);
                    }
                }
                Said::Stream(StreamId(stream), Event::End { consumed, trailers }) => {
                    assert_eq!(consumed, 0);
                    let kept = self.space.fields.iter().filter(|field| !field.dropped);
                    let line = |field: &proto::http::Field| {
                        let (name, value) = (field.name.of(&self.space.text), field.value.of(&self.space.text));
                        format!("{}: {}|", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                    };
                    let trailers = if trailers { kept.map(line).collect() } else { String::new() };
                    seen.push(Seen::End { stream, trailers });
                }
                Said::Stream(StreamId(stream), Event::Reset(why)) => {
                    seen.push(Seen::Reset { stream, why });
                    self.connection.release(StreamId(stream), &mut self.out);
                }
                Said::Stream(_, Event::Tunnel | Event::Pause) => unreachable!("HTTP/2 says neither"),
                Said::Refused { stream, why, answerable } => {
                    seen.push(Seen::Refused { stream: stream.0, why, answerable });
                }
                Said::GoneAway { last, code } => seen.push(Seen::GoneAway { last: last.0, code }),
                Said::Pong(mark) => seen.push(Seen::Pong(mark)),
            }
        }
        self.unread.drain(..at);
        assert!(self.unread.len() < 16_384 + 9, "a pause leaves less than a frame");
        Ok(())
    }

    /// The frames put since the last time.
    pub fn put(&mut self) -> Vec<Put> {
        let bytes = std::mem::take(&mut self.out);
        frames(bytes.strip_prefix(PREFACE).unwrap_or(&bytes))
    }

    /// Sends what may be sent; content is made of the stream's number.
    pub fn send(&mut self) {
        while let Some(data) = self.connection.next_data(self.now, usize::MAX) {
            self.out.extend_from_slice(&data.head);
            self.out.resize(self.out.len() + data.payload, data.stream.0 as u8);
            self.out.extend(data.suffix.into_iter().flatten());
        }
    }

    pub fn queue(&mut self, stream: u32, bytes: usize) {
        self.connection.queue(self.now, StreamId(stream), bytes, &mut self.out).unwrap();
    }

    pub fn finish(&mut self, stream: u32) {
        self.connection.finish(StreamId(stream), &mut self.out).unwrap();
    }
}

impl Rig<Server> {
    /// Answers with a head of that framing.
    pub fn answer(&mut self, stream: u32, framing: Framing) {
        let mut fields = Fields::default();
        let text = b"HTTP/1.1 200 OK\r\n\r\n";
        let head = parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
        let rewrite = ResponseRewrite { framing, ..ResponseRewrite::new(&head, proto::http::Version::Http2) };
        self.connection.write_response(StreamId(stream), text, &head, &fields, &rewrite, &mut self.out).unwrap();
    }
}

impl Rig<Client> {
    pub fn get(&mut self, method: Method) -> u32 {
        self.ask(method, Framing::None)
    }

    pub fn ask(&mut self, method: Method, framing: Framing) -> u32 {
        let target = if method == Method::Connect { "a:1" } else { "/" };
        let text = format!("{} {target} HTTP/1.1\r\nhost: a\r\n\r\n", String::from_utf8_lossy(method.as_bytes()));
        self.send_request(text.as_bytes(), framing).unwrap().0
    }

    pub fn send_request(&mut self, text: &[u8], framing: Framing) -> Result<StreamId, proto::h1::Refused> {
        let mut fields = Fields::default();
        let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
        let rewrite = RequestRewrite { framing, ..RequestRewrite::new(&head) };
        self.connection.write_request(text, &head, &fields, &rewrite, &mut self.out)
    }
}

/// How a peer's breach is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// GOAWAY with this code, and the end.
    Connection(ErrorCode),
    /// RST_STREAM with this code on this stream.
    Stream(u32, ErrorCode),
    /// Not at all.
    Fine,
}

/// Feeds bytes and says how they were met.
pub fn met<S: Side>(rig: &mut Rig<S>, bytes: &[u8]) -> Met {
    let fed = rig.feed(bytes);
    let put = rig.put();
    match fed {
        Err(fault) => {
            let last = put.last().expect("a connection does not end without a word");
            assert_eq!((last.kind, last.stream, ErrorCode(last.word(4))), (GOAWAY, 0, fault.code));
            assert_eq!(&last.payload[8..], fault.why.as_bytes());
            Met::Connection(fault.code)
        }
        Ok(_) => {
            let mut resets = put.iter().filter(|frame| frame.kind == RST_STREAM);
            let reset = resets.next().map_or(Met::Fine, |frame| Met::Stream(frame.stream, ErrorCode(frame.word(0))));
            assert!(resets.next().is_none(), "{put:?}");
            assert!(put.iter().all(|frame| frame.kind != GOAWAY), "{put:?}");
            reset
        }
    }
}

/// Reads the field blocks of frames that the machine put.
#[derive(Default)]
pub struct Blocks(Decoder);

impl Blocks {
    pub fn read(&mut self, frame: &Put) -> Vec<(String, String)> {
        assert!(frame.kind == HEADERS && frame.flags & END_HEADERS != 0);
        let (mut text, mut list) = (Vec::new(), Vec::new());
        let limits = ListLimits { bytes: 64 * 1024, fields: 200 };
        let read = self.0.decode(&frame.payload, &limits, &mut text, |text, line| {
            let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            list.push((string(line.name(text)), string(line.value(text))));
        });
        read.unwrap();
        list
    }
}

/// Feeds a stream in the pieces that it is cut into; what was said, what was put but for credit, and the error that ended it.
pub fn tell<S: Side>(mut rig: Rig<S>, pieces: &[&[u8]]) -> (Vec<Seen>, Vec<Put>, Option<Fault>) {
    let mut fault = None;
    for piece in pieces {
        if let Err(why) = rig.feed(piece) {
            fault = Some(why);
            break;
        }
    }
    let put = rig.put().into_iter().filter(|frame| frame.kind != WINDOW_UPDATE).collect();
    assert!(rig.connection.memory() <= 200 * 1024, "{}", rig.connection.memory());
    (rig.story, put, fault)
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
