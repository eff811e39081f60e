//! An HTTP/2 client by hand (RFC 9113): any frame, right or wrong, and a strict look at what comes back.
//!
//! What it is for: tests that no library's client lets one write. It says exactly what it is told to say, and keeps a record of what the
//! server says. What holds: a server that breaks a rule towards it fails the test, whatever the test is about, because the rules for what
//! servers send are checked at each frame ([`H2Client::step`]). Deliberately absent: any code of `proto::h2`, and any rule for what this
//! client itself sends.

mod frames;
mod trial;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::PATIENCE;
use crate::hpack::{Decoder, Field};
use crate::tls::TlsClient;
use crate::wire::{Client, End, Stream, Wire};

pub use frames::*;
pub use trial::Trial;

/// What came back on a stream.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// The heads of interim responses.
    pub interim: Vec<Vec<Field>>,
    /// The head of the response; empty until it comes.
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
    pub trailers: Vec<Field>,
    /// The response is complete.
    pub ended: bool,
    /// The code of RST_STREAM.
    pub reset: Option<u32>,
    /// Content that has been counted against the stream's window, and what was given back.
    used: i64,
    widened: i64,
    /// Credit that the server gave.
    pub credit: i64,
}

impl Exchange {
    #[track_caller]
    pub fn status(&self) -> u16 {
        let status = self.fields.first().filter(|(name, _)| name == ":status").map(|(_, value)| value.parse());
        status.and_then(Result::ok).unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

/// A GOAWAY.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gone {
    pub last: u32,
    pub code: u32,
    pub why: String,
}

/// A connection.
pub struct H2Client {
    wire: Wire<Box<dyn Stream>>,
    decoder: Decoder,
    /// Acknowledge SETTINGS and PING; true unless a test says otherwise.
    pub acknowledges: bool,
    /// Give content back as credit as it comes; true unless a test says otherwise.
    pub credits: bool,
    /// Hold the server to the windows that [`H2Client::settle`] and [`H2Client::widen`] gave it; true unless a test says otherwise.
    pub accounts: bool,
    streams: BTreeMap<u32, Exchange>,
    /// The server's.
    pub settings: BTreeMap<u16, u32>,
    /// SETTINGS of ours that the server acknowledged.
    pub agreed: usize,
    /// What the server's PINGs carried that answered ours.
    pub pongs: Vec<[u8; 8]>,
    /// The GOAWAYs that came, in their order.
    pub gone: Vec<Gone>,
    /// How the connection ended.
    pub ended: Option<End>,
    /// Content that the server sent on the whole connection, and credit that we gave.
    used: i64,
    widened: i64,
    /// The window that streams begin with, and those that go with SETTINGS which are not acknowledged yet.
    window: i64,
    windows: Vec<Option<i64>>,
    /// The sizes of the table of responses' blocks in those: the smallest and the last.
    tables: Vec<Option<(usize, usize)>>,
    /// Credit that the server gave the connection, and what was used of it.
    pub credit: i64,
    spent: i64,
    /// The stream of the next request.
    pub next: u32,
    greeted: bool,
    /// How long something that is waited for may take.
    pub patience: Duration,
}

impl H2Client {
    /// Connects, and says nothing.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(Box::new(Client::connect(address).stream))
    }

    /// Connects over TLS with ALPN `h2`, and says nothing in HTTP/2.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, name: &str, mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let client =
            TlsClient::connect_tls(address, name, &Arc::new(config)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"h2"[..]), "ALPN did not agree on h2");
        Self::over(Box::new(client.stream))
    }

    /// Connects without TLS and exchanges SETTINGS.
    #[track_caller]
    pub fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.greet(&[]);
        client
    }

    fn over(stream: Box<dyn Stream>) -> Self {
        Self {
            wire: Wire::new(stream).expect("deadlines on a socket"),
            decoder: Decoder::default(),
            acknowledges: true,
            credits: true,
            accounts: true,
            streams: BTreeMap::new(),
            settings: BTreeMap::new(),
            agreed: 0,
            pongs: Vec::new(),
            gone: Vec::new(),
            ended: None,
            used: 0,
            widened: WINDOW,
            window: WINDOW,
            windows: Vec::new(),
            tables: Vec::new(),
            credit: WINDOW,
            spent: 0,
            next: 1,
            greeted: false,
            patience: PATIENCE,
        }
    }

    /// Says the preface with these settings, and waits until both sides have agreed.
    #[track_caller]
    pub fn greet(&mut self, entries: &[(u16, u32)]) {
        self.send(PREFACE);
        self.settle(entries);
        self.until("SETTINGS are agreed upon", |client| client.greeted && client.agreed == 1);
    }

    /// Sends SETTINGS, and accounts for the window in it.
    #[track_caller]
    pub fn settle(&mut self, entries: &[(u16, u32)]) {
        self.send(settings(entries));
        let window = entries.iter().rev().find(|(id, _)| *id == setting::INITIAL_WINDOW_SIZE);
        let window = window.map(|(_, value)| i64::from(*value));
        self.window = self.window.max(window.unwrap_or(0));
        self.windows.push(window);
        let sizes = entries.iter().filter(|(id, _)| *id == setting::HEADER_TABLE_SIZE).map(|(_, size)| *size as usize);
        self.tables.push(sizes.clone().min().zip(sizes.clone().next_back()));
    }

    /// Sends WINDOW_UPDATE, and accounts for it.
    #[track_caller]
    pub fn widen(&mut self, stream: u32, by: u32) {
        self.send(window_update(stream, by));
        self.account(stream, by);
    }

    fn account(&mut self, stream: u32, by: u32) {
        match stream {
            0 => self.widened += i64::from(by),
            stream => self.streams.entry(stream).or_default().widened += i64::from(by),
        }
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.wire.try_send(bytes)
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes);
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&self) {
        self.wire.half_close();
    }

    /// Everything up to the end of the connection, whatever it is, and how it ended.
    pub fn rest(&mut self, bytes: &mut Vec<u8>) -> End {
        let (rest, end) = self.wire.rest();
        bytes.extend(rest);
        end
    }

    /// Opens the next stream with a request.
    #[track_caller]
    pub fn request<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, fields: &[(N, V)], end: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.send(headers(stream, fields, end));
        stream
    }

    /// Asks, and wants a whole response.
    #[track_caller]
    pub fn ask<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, fields: &[(N, V)]) -> Exchange {
        let stream = self.request(fields, true);
        self.response(stream)
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Exchange {
        self.ask(&asking("GET", path))
    }

    /// POSTs content as the server's windows let it through.
    #[track_caller]
    pub fn post(&mut self, path: &str, content: &[u8]) -> Exchange {
        let stream = self.request(&asking("POST", path), content.is_empty());
        self.upload(stream, content, true);
        self.response(stream)
    }

    /// Sends content as the server's windows let it through.
    #[track_caller]
    pub fn upload(&mut self, stream: u32, mut content: &[u8], end: bool) {
        let first = self.settings.get(&setting::INITIAL_WINDOW_SIZE).map_or(WINDOW, |&window| i64::from(window));
        let mut spent = 0;
        while !content.is_empty() {
            self.until("the server gives credit", |client| {
                let given = client.streams.get(&stream).map_or(0, |exchange| exchange.credit);
                client.spent < client.credit && spent < first + given || client.exchange(stream).is_over()
            });
            let exchange = self.exchange(stream);
            if exchange.is_over() {
                return;
            }
            let room = (self.credit - self.spent).min(first + exchange.credit - spent).min(16_384);
            let (now, later) = content.split_at(content.len().min(room as usize));
            self.send(data(stream, now, end && later.is_empty()));
            (self.spent, spent, content) = (self.spent + now.len() as i64, spent + now.len() as i64, later);
        }
    }

    /// What has come back on a stream so far.
    pub fn exchange(&self, stream: u32) -> Exchange {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// Whether a response is complete, or was reset.
    pub fn is_over(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(Exchange::is_over)
    }

    /// What came back on a stream that is over; nothing is remembered of it then.
    pub fn take_over(&mut self, stream: u32) -> Option<Exchange> {
        if self.is_over(stream) { self.streams.remove(&stream) } else { None }
    }

    /// Waits for a whole response.
    #[track_caller]
    pub fn response(&mut self, stream: u32) -> Exchange {
        self.wait(stream);
        let exchange = self.streams.remove(&stream).unwrap_or_default();
        assert!(exchange.ended && exchange.reset.is_none(), "stream {stream}: {exchange:?}, {:?}", self.gone);
        exchange
    }

    /// Waits until a stream is over, or the connection is.
    #[track_caller]
    pub fn wait(&mut self, stream: u32) {
        self.until("the stream is over", |client| client.is_over(stream));
    }

    /// Waits until the server has looked at everything that was sent, or has ended the connection.
    #[track_caller]
    pub fn barrier(&mut self) {
        let mark = self.pongs.len();
        // A server that has ended the connection does not take it.
        let _ = self.try_send(ping((mark as u64).to_be_bytes()));
        self.until("the server answers PING", |client| client.pongs.len() > mark);
    }

    /// Takes frames until something holds, or the connection has ended.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) && self.ended.is_none() {
            let left = self.patience.saturating_sub(begun.elapsed());
            let silent = self.step(left.max(Duration::from_millis(1))).is_none() && self.ended.is_none();
            assert!(!silent || !left.is_zero(), "not within {:?}: {what}; {:?}", self.patience, self.gone);
        }
    }

    /// Takes whatever comes within a time.
    #[track_caller]
    pub fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| self.ended.is_none()) {
            self.step(left.max(Duration::from_millis(1)));
        }
    }

    /// Waits for the end of the connection: the code of the last GOAWAY, and how it ended.
    #[track_caller]
    pub fn until_ended(&mut self) -> (Option<u32>, End) {
        self.until("the connection ends", |_| false);
        (self.gone.last().map(|gone| gone.code), self.ended.expect("just waited for"))
    }

    /// Takes a frame, if one comes in time.
    #[track_caller]
    pub fn step(&mut self, patience: Duration) -> Option<Frame> {
        let until = Instant::now() + patience;
        let frame = loop {
            if let Some(frame) = self.take() {
                break frame;
            }
            let left = until.checked_duration_since(Instant::now()).filter(|_| self.ended.is_none())?;
            self.fill(left.max(Duration::from_millis(1)));
        };
        self.witness(&frame);
        Some(frame)
    }

    fn fill(&mut self, patience: Duration) {
        self.wire.stream.patience(patience).expect("a deadline on a socket");
        let end = match self.wire.fill() {
            Ok(0) => End::Closed,
            Ok(_) => return,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return;
            }
            // TLS: an end that was not announced.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => End::Closed,
            Err(_) => End::Reset,
        };
        assert!(self.wire.unread.is_empty() || end == End::Reset, "the connection ends within a frame");
        self.ended = Some(end);
    }

    fn take(&mut self) -> Option<Frame> {
        let unread = &mut self.wire.unread;
        let &[a, b, c, kind, flags, s, t, u, v, ..] = &unread[..] else { return None };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        assert!(length <= 16_384, "§4.2: a frame of {length} bytes");
        if unread.len() < 9 + length {
            return None;
        }
        let payload = unread[9..9 + length].to_vec();
        unread.drain(..9 + length);
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload })
    }

    /// What a server says, held against what it may say.
    #[track_caller]
    fn witness(&mut self, frame: &Frame) {
        let Frame { kind, flags, stream, ref payload } = *frame;
        let ack = flags & flag::ACK != 0;
        assert!(self.greeted || kind == kind::SETTINGS && !ack, "§3.4: the server begins with {frame:?}");
        assert_eq!(stream >> 31, 0, "§4.1: the reserved bit is set");
        let known = [0x9, 0x2d, 0, 0, flag::ACK, 0xc, flag::ACK, 0, 0, flag::END_HEADERS];
        assert!(
            known.get(usize::from(kind)).is_none_or(|known| flags & !known == 0),
            "§4.1: flags that mean nothing: {frame:?}"
        );
        assert!(stream == 0 || stream % 2 == 1, "§5.1.1: stream {stream} is a server's");
        match (kind, stream) {
            (kind::DATA, 1..) => self.take_data(flags, stream, payload),
            (kind::HEADERS, 1..) => self.take_head(flags, stream, payload),
            (kind::RST_STREAM, 1..) => {
                let exchange = self.streams.entry(stream).or_default();
                exchange.reset = Some(number(payload));
            }
            (kind::SETTINGS, 0) if ack => {
                assert!(payload.is_empty(), "§6.5: an acknowledgement says more");
                self.agreed += 1;
                if !self.windows.is_empty() {
                    self.window = self.windows.remove(0).unwrap_or(self.window);
                    if let Some((smallest, last)) = self.tables.remove(0) {
                        self.decoder.allow(smallest, last);
                    }
                }
            }
            (kind::SETTINGS, 0) => self.take_settings(payload),
            (kind::PING, 0) => {
                let opaque = payload[..].try_into().expect("§6.7: eight bytes");
                if ack {
                    self.pongs.push(opaque);
                } else if self.acknowledges {
                    let _ = self.try_send(self::frame(kind::PING, flag::ACK, 0, opaque));
                }
            }
            (kind::GOAWAY, 0) => {
                let why = String::from_utf8_lossy(&payload[8..]).into_owned();
                let gone = Gone { last: number(&payload[..4]), code: number(&payload[4..8]), why };
                let before = self.gone.last().map_or(u32::MAX, |gone| gone.last);
                assert!(gone.last <= before, "§6.8: the last stream grows: {:?}, {gone:?}", self.gone);
                self.gone.push(gone);
            }
            (kind::WINDOW_UPDATE, _) => {
                let by = i64::from(number(payload));
                assert!(by > 0, "§6.9: WINDOW_UPDATE by nothing");
                let credit =
                    if stream == 0 { &mut self.credit } else { &mut self.streams.entry(stream).or_default().credit };
                *credit += by;
                assert!(
                    *credit < 1 << 31 || stream == 0 && *credit - self.spent < 1 << 31,
                    "§6.9.1: a window overflows"
                );
            }
            (kind::CONTINUATION, _) => panic!("a response's head of more than 16 KiB is not expected"),
            (kind::PUSH_PROMISE, _) => panic!("§6.6: nobody allowed pushes"),
            (0..=9, _) => panic!("§6: not on such a stream: {frame:?}"),
            _ => {}
        }
    }

    #[track_caller]
    fn take_settings(&mut self, payload: &[u8]) {
        assert_eq!(payload.len() % 6, 0, "§6.5: entries of six bytes");
        for entry in payload.chunks(6) {
            self.settings.insert(u16::from_be_bytes([entry[0], entry[1]]), number(&entry[2..]));
        }
        assert_ne!(self.settings.get(&setting::ENABLE_PUSH), Some(&1), "§6.5.2: a server pushes nothing to itself");
        self.greeted = true;
        if self.acknowledges {
            let _ = self.try_send(frame(kind::SETTINGS, flag::ACK, 0, []));
        }
    }

    #[track_caller]
    fn take_data(&mut self, flags: u8, stream: u32, payload: &[u8]) {
        let (used, content) = (payload.len() as i64, unpadded(flags, payload));
        let exchange = self.streams.entry(stream).or_default();
        assert!(!exchange.fields.is_empty(), "§8.1: stream {stream} has DATA before a head");
        assert!(!exchange.is_over(), "§5.1: DATA on stream {stream}, which is over: {exchange:?}");
        exchange.body.extend_from_slice(content);
        exchange.ended = flags & flag::END_STREAM != 0;
        exchange.used += used;
        self.used += used;
        if self.accounts {
            assert!(exchange.used <= exchange.widened + self.window, "§6.9: stream {stream} is beyond its window");
            assert!(self.used <= self.widened, "§6.9: the connection is beyond its window");
        }
        if self.credits && used > 0 {
            let ended = exchange.ended;
            let more =
                [window_update(0, used as u32), if ended { Vec::new() } else { window_update(stream, used as u32) }];
            // A server that has ended the connection does not take it.
            let _ = self.try_send(more.concat());
            self.account(0, used as u32);
            self.account(stream, used as u32);
        }
    }

    #[track_caller]
    fn take_head(&mut self, flags: u8, stream: u32, payload: &[u8]) {
        assert_ne!(flags & flag::END_HEADERS, 0, "a response's head of more than 16 KiB is not expected");
        let payload = unpadded(flags, payload);
        let payload = if flags & flag::PRIORITY == 0 { payload } else { &payload[5..] };
        let fields = self.decoder.decode(payload).unwrap_or_else(|why| panic!("§4.3: {why}"));
        let end = flags & flag::END_STREAM != 0;
        let exchange = self.streams.entry(stream).or_default();
        assert!(!exchange.is_over(), "§5.1: HEADERS on stream {stream}, which is over: {exchange:?}");
        for (name, value) in &fields {
            let token = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && byte != b':';
            assert!(name.strip_prefix(':').unwrap_or(name).bytes().all(token), "§8.2: `{name}`");
            assert!(
                !value.contains(['\0', '\r', '\n']) && value.trim_matches([' ', '\t']) == value,
                "§8.2.1: {name}: {value:?}"
            );
            assert!(!CONNECTIONS_OWN.contains(&name.as_str()), "§8.2.2: {name}: {value}");
        }
        let pseudo = fields.iter().filter(|(name, _)| name.starts_with(':')).count();
        if !exchange.fields.is_empty() {
            assert!(end && pseudo == 0, "§8.1: trailers that end nothing, or have a status: {fields:?}");
            exchange.trailers = fields;
        } else {
            let status =
                fields.first().filter(|(name, _)| name == ":status" && pseudo == 1).map(|(_, value)| value.len());
            assert_eq!(status, Some(3), "§8.3.2: {fields:?}");
            if fields[0].1.starts_with('1') {
                assert!(!end, "§8.1: an interim response ends the stream");
                exchange.interim.push(fields);
                return;
            }
            exchange.fields = fields;
        }
        exchange.ended = end;
    }
}

/// Fields that say something of a connection, and so nothing in HTTP/2 (RFC 9113 §8.2.2).
const CONNECTIONS_OWN: [&str; 5] = ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"];

#[track_caller]
fn unpadded(flags: u8, payload: &[u8]) -> &[u8] {
    if flags & flag::PADDED == 0 {
        return payload;
    }
    let padding = usize::from(payload[0]);
    assert!(padding < payload.len(), "§6.1: padding is longer than its frame");
    &payload[1..payload.len() - padding]
}

#[track_caller]
fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().expect("§6: four bytes"))
}
