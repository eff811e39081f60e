//! HTTP/3 as the scripts speak it: one client's end of a connection, over the machine of `proto` and quinn-proto; what the engine does
//! around those is on trial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::Event;
use proto::h1::{HeadLimits, RequestRewrite, ResponseHead, Trailers, parse_request, parse_response};
use proto::h3::{Abort, Client, Connection, ErrorCode, Fault, HeadSpace, Limits, Out, Said, Step, StreamId};
use proto::http::Fields;
use quinn_proto::{
    ClientConfig, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, ReadError,
    StreamEvent, TransportErrorCode, VarInt,
};
use ring::Transmit;
use ring::sim::{Host, Letter, Postbox};

use crate::asker::Way;
use crate::h2::{Heard, Lines};

/// What waits on a stream, and whether it is the end of it.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    ends: bool,
}

/// What has come on a stream and is not understood yet.
#[derive(Default)]
struct Unread {
    bytes: Vec<u8>,
    ended: bool,
}

/// How a client behaves on the network.
#[derive(Clone, Copy)]
pub(crate) struct Manners {
    /// Its own address, but for the port.
    pub(crate) home: SocketAddr,
    /// Where it seems to be when a box on the way forgets it, but for the port.
    pub(crate) abroad: SocketAddr,
    /// It goes on from another address now and then.
    pub(crate) wanders: bool,
    /// It gives up often enough for the engine to lose patience.
    pub(crate) rude: bool,
}

/// One end of a connection.
pub(crate) struct End {
    host: Host,
    manners: Manners,
    postbox: Postbox,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    quic: quinn_proto::Connection,
    machine: Connection<Client>,
    out: Out,
    space: HeadSpace,
    /// Our streams of one direction.
    ours: Option<[quinn_proto::StreamId; 3]>,
    outbox: BTreeMap<StreamId, Waiting>,
    unread: BTreeMap<StreamId, Unread>,
    /// Streams that have something to be read.
    readable: BTreeSet<StreamId>,
    /// What has come is read late.
    withholds: bool,
    /// The engine has greeted: who moves before that has no connection yet (RFC 9000 §9).
    greeted: bool,
    /// How the connection ended.
    lost: Option<String>,
}

/// The machines' clock.
fn instant(host: &Host) -> Instant {
    ring::Now::from_nanos(host.now()).instant()
}

fn name(id: quinn_proto::StreamId) -> StreamId {
    StreamId(id.into())
}

fn stream(id: StreamId) -> quinn_proto::StreamId {
    number(id.0).into()
}

fn number(number: u64) -> VarInt {
    VarInt::from_u64(number).expect("QUIC's numbers have 62 bits")
}

impl End {
    /// Connects.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn connect(
        host: &Host,
        server: SocketAddr,
        config: &ClientConfig,
        manners: Manners,
    ) -> Result<Self, String> {
        let mut seed = [0; 32];
        seed.iter_mut().for_each(|byte| *byte = host.pick(0..=255) as u8);
        let mut endpoint_config = EndpointConfig::default();
        endpoint_config.rng_seed(Some(seed));
        let mut endpoint = Endpoint::new(endpoint_config.into(), None, true, None);
        let connected = endpoint.connect(instant(host), config.clone(), server, "app.test");
        let (handle, quic) = connected.expect("the configuration can be used");
        let mut end = Self {
            host: host.clone(),
            manners,
            postbox: host.postbox(manners.home).expect("there are ports"),
            endpoint,
            handle,
            quic,
            machine: Connection::new(Limits {
                header_table: if host.chance(0.3) { 0 } else { Limits::DEFAULT.header_table },
                ..Limits::DEFAULT
            }),
            out: Out::default(),
            space: HeadSpace::default(),
            ours: None,
            outbox: BTreeMap::new(),
            unread: BTreeMap::new(),
            readable: BTreeSet::new(),
            withholds: host.chance(0.2),
            greeted: false,
            lost: None,
        };
        end.machine.start(&mut end.out);
        while end.ours.is_none() {
            end.pump().await;
            let heard = end.take_events();
            assert!(heard.is_empty(), "an answer before the handshake");
            if let Some(why) = end.lost {
                return Err(why);
            }
            end.wait(Duration::from_secs(3600)).await;
        }
        Ok(end)
    }

    fn clock(&self) -> Duration {
        Duration::from_nanos(self.host.now())
    }

    /// Does what time asks for, and sends what may go.
    async fn pump(&mut self) {
        self.speak();
        while self.quic.poll_timeout().is_some_and(|due| due <= instant(&self.host)) {
            self.quic.handle_timeout(instant(&self.host));
        }
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
        let mut wire = Vec::new();
        while let Some(transmit) = self.quic.poll_transmit(instant(&self.host), 1, &mut wire) {
            let ecn = transmit.ecn.map_or(0, |ecn| ecn as u8);
            let bytes = &wire[..transmit.size];
            let datagram = Transmit { to: transmit.destination, from: None, ecn, segment: None, bytes };
            self.postbox.send(&datagram).await.expect("one datagram is not too long");
            wire.clear();
        }
    }

    /// Waits for a datagram, or for what time asks for.
    async fn wait(&mut self, patience: Duration) {
        let due = self.quic.poll_timeout().map(|due| due.saturating_duration_since(instant(&self.host)));
        let patience = due.map_or(patience, |due| due.min(patience));
        let mut letter = self.host.within(patience, self.postbox.recv()).await;
        while let Some(next) = letter {
            self.receive(next);
            // What has come together is taken together.
            letter = self.host.within(Duration::ZERO, self.postbox.recv()).await;
        }
    }

    fn receive(&mut self, letter: Letter) {
        let ecn = quinn_proto::EcnCodepoint::from_bits(letter.ecn);
        let bytes = BytesMut::from(&letter.bytes[..]);
        let mut wire = Vec::new();
        let event = self.endpoint.handle(instant(&self.host), letter.from, None, ecn, bytes, &mut wire);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.quic.handle_event(event);
        }
    }

    /// Gives to QUIC what waits, as far as it is taken.
    fn speak(&mut self) {
        for abort in std::mem::take(&mut self.out.aborts) {
            match abort {
                Abort::Reset { stream: id, code } => {
                    self.outbox.remove(&id);
                    let _ = self.quic.send_stream(stream(id)).reset(number(code.0));
                }
                Abort::Stop { stream: id, code } => {
                    self.unread.remove(&id);
                    self.readable.remove(&id);
                    let _ = self.quic.recv_stream(stream(id)).stop(number(code.0));
                }
            }
        }
        let Out { control, encoder, decoder, .. } = &mut self.out;
        for (id, words) in self.ours.into_iter().flatten().zip([control, encoder, decoder]) {
            // Writing nothing would be a frame with nothing in it, each time.
            if words.is_empty() {
                continue;
            }
            let taken = self.quic.send_stream(id).write(words).unwrap_or(0);
            words.drain(..taken);
        }
        self.outbox.retain(|id, waiting| {
            let mut sending = self.quic.send_stream(stream(*id));
            let written = if waiting.bytes.is_empty() { Ok(0) } else { sending.write(&waiting.bytes) };
            match written {
                Ok(taken) => drop(waiting.bytes.drain(..taken)),
                Err(quinn_proto::WriteError::Blocked) => {}
                // The engine wants no more, which it tells in its own words.
                Err(_) => return false,
            }
            if waiting.bytes.is_empty() && waiting.ends {
                let _ = sending.finish();
                return false;
            }
            true
        });
    }

    /// What has happened.
    fn take_events(&mut self) -> Vec<Heard<ResponseHead, StreamId>> {
        let mut heard = Vec::new();
        while let Some(event) = self.quic.poll() {
            match event {
                quinn_proto::Event::Connected => {
                    let mut streams = self.quic.streams();
                    self.ours = Some([(); 3].map(|()| streams.open(Dir::Uni).expect("three are allowed")));
                }
                quinn_proto::Event::ConnectionLost { reason } => {
                    self.check_end(&reason);
                    self.lost = Some(reason.to_string());
                }
                quinn_proto::Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(id) = self.quic.streams().accept(Dir::Uni) {
                        let opened = self.machine.opened(self.clock(), name(id), &mut self.out);
                        opened.unwrap_or_else(|fault| broken(fault));
                        self.readable.insert(name(id));
                    }
                }
                quinn_proto::Event::Stream(StreamEvent::Readable { id }) => _ = self.readable.insert(name(id)),
                quinn_proto::Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                    let code = ErrorCode(error_code.into_inner());
                    let said = self.machine.peer_stopped(self.clock(), name(id), code, &mut self.out);
                    said.unwrap_or_else(|fault| broken(fault));
                }
                _ => {}
            }
        }
        while let Some(id) = self.readable.pop_first() {
            // What has come before the end is not lost with it.
            if self.withholds && self.lost.is_none() && id.is_request() && self.host.chance(0.7) {
                self.unread.entry(id).or_default();
                continue;
            }
            self.read(id, &mut heard);
        }
        if self.withholds {
            self.readable.extend(self.unread.keys().copied().filter(|id| id.is_request()));
        }
        heard
    }

    /// The engine ends connections with a reason, and this client has given it none but its leave.
    fn check_end(&self, reason: &ConnectionError) {
        let in_order = match reason {
            ConnectionError::ApplicationClosed(close) => {
                let code = ErrorCode(close.error_code.into_inner());
                code == ErrorCode::NO_ERROR || self.manners.rude && code == ErrorCode::EXCESSIVE_LOAD
            }
            ConnectionError::ConnectionClosed(close) => close.error_code == TransportErrorCode::CONNECTION_REFUSED,
            ConnectionError::Reset | ConnectionError::TimedOut | ConnectionError::LocallyClosed => true,
            _ => false,
        };
        assert!(in_order, "the engine ends a connection with {reason:?}");
    }

    /// Takes in what has come on a stream.
    fn read(&mut self, id: StreamId, heard: &mut Vec<Heard<ResponseHead, StreamId>>) {
        let mut unread = self.unread.remove(&id).unwrap_or_default();
        let mut reset = None;
        if let Ok(mut chunks) = self.quic.recv_stream(stream(id)).read(true) {
            let end = loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => unread.bytes.extend_from_slice(&chunk.bytes),
                    end => break end,
                }
            };
            match end {
                Ok(_) => unread.ended = true,
                Err(ReadError::Blocked) => {}
                Err(ReadError::Reset(code)) => reset = Some(ErrorCode(code.into_inner())),
            }
            let _ = chunks.finalize();
        }
        if let Some(code) = reset {
            let said = self.machine.peer_reset(self.clock(), id, code, &mut self.out);
            if let Some(said) = said.unwrap_or_else(|fault| broken(fault)) {
                self.take(said, &mut Unread::default(), heard);
            }
            return;
        }
        loop {
            let (now, Unread { bytes, ended }) = (self.clock(), &unread);
            let step = self.machine.read(now, id, bytes, *ended, &mut self.space, &mut self.out);
            let Step { skipped, said } = step.unwrap_or_else(|fault| broken(fault));
            unread.bytes.drain(..skipped);
            if matches!(said, Said::Pause | Said::Blocked) {
                break;
            }
            self.take(said, &mut unread, heard);
        }
        if !unread.ended || !unread.bytes.is_empty() {
            self.unread.insert(id, unread);
        }
    }

    /// One thing that the engine says; content is taken from the front of `unread`.
    fn take(&mut self, said: Said<ResponseHead>, unread: &mut Unread, heard: &mut Vec<Heard<ResponseHead, StreamId>>) {
        heard.push(match said {
            Said::Stream(id, Event::Head(head)) => Heard::Head(id, head, Lines::of(&self.space)),
            Said::Stream(id, Event::Data { payload, consumed }) => {
                let data = unread.bytes[..payload].to_vec();
                unread.bytes.drain(..consumed);
                Heard::Data(id, data)
            }
            Said::Stream(id, Event::End { consumed, trailers }) => {
                unread.bytes.drain(..consumed);
                Heard::End(id, trailers.then(|| Lines::of(&self.space)))
            }
            Said::Stream(id, Event::Reset(why)) => {
                self.machine.release(id, &mut self.out);
                self.outbox.remove(&id);
                Heard::Reset(id, why)
            }
            Said::Unblocked(id) => {
                self.readable.insert(id);
                return;
            }
            Said::Settings => {
                self.greeted = true;
                return;
            }
            Said::Refused { why, .. } => panic!("the engine asks what is no request: {why}"),
            Said::Stream(_, Event::Tunnel | Event::Pause)
            | Said::GoneAway { .. }
            | Said::Prioritised(_)
            | Said::Blocked
            | Said::Pause => return,
        });
    }

    /// Goes on from another address: of its own accord, or because a box on the way has forgotten it.
    fn wander(&mut self) {
        if self.host.chance(0.5) {
            self.postbox = self.host.postbox(self.manners.home).expect("there are ports");
        } else {
            let port = self.host.pick(1_024..=65_535) as u16;
            self.host.rebind(self.postbox.address(), SocketAddr::new(self.manners.abroad.ip(), port));
        }
        self.host.note("asker: moves");
        // Who says nothing is not known to have moved.
        self.quic.ping();
    }
}

fn broken(fault: Fault) -> ! {
    panic!("the engine breaks the protocol: {fault}")
}

impl Way for End {
    type Id = StreamId;

    fn can_open(&self) -> bool {
        self.machine.can_open() && self.lost.is_none()
    }

    fn open(&mut self, text: &[u8]) -> StreamId {
        let mut fields = Fields::default();
        let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields).expect("a request").expect("whole");
        let id = name(self.quic.streams().open(Dir::Bi).expect("so many are allowed"));
        let Self { machine, out, .. } = self;
        let mut bytes = Vec::new();
        let rewrite = RequestRewrite::new(&head);
        machine.write_request(id, text, &head, &fields, &rewrite, &mut bytes, out).expect("it can be asked");
        self.outbox.insert(id, Waiting { bytes, ends: !machine.is_writable(id) });
        id
    }

    fn ends_late(&self, id: StreamId) -> bool {
        // The first one fits into the datagram that it begins.
        id != StreamId(0)
    }

    fn has_sent(&self) -> bool {
        self.lost.is_none()
    }

    fn queued(&self, id: StreamId) -> usize {
        self.outbox.get(&id).map_or(0, |waiting| waiting.bytes.len())
    }

    fn queue(&mut self, id: StreamId, piece: &[u8]) -> bool {
        let Some(waiting) = self.outbox.get_mut(&id) else { return false };
        let Ok(head) = self.machine.data_head(id, piece.len(), &mut self.out) else { return false };
        waiting.bytes.extend_from_slice(&head);
        waiting.bytes.extend_from_slice(piece);
        true
    }

    fn finish(&mut self, id: StreamId, trailer: Option<String>) {
        let Some(waiting) = self.outbox.get_mut(&id) else { return };
        let mut trailers = Trailers::default();
        if let Some(value) = trailer {
            let (text, mut fields) = (format!("HTTP/1.1 200 OK\r\nx-sum: {value}\r\n\r\n"), Fields::default());
            parse_response(text.as_bytes(), &HeadLimits::DEFAULT, proto::http::Method::Get, &mut fields)
                .expect("a head");
            trailers = Trailers::of(text.as_bytes(), &fields);
        }
        if self.machine.finish(id, &trailers, &mut waiting.bytes, &mut self.out).is_ok() {
            waiting.ends = true;
        }
    }

    fn reset(&mut self, id: StreamId, enough: bool) {
        let code = if enough { ErrorCode::NO_ERROR } else { ErrorCode::REQUEST_CANCELLED };
        self.machine.reset(id, code, &mut self.out);
    }

    fn is_withholding(&self) -> bool {
        self.withholds && !self.readable.is_empty()
    }

    fn is_over(&self) -> bool {
        self.lost.is_some()
    }

    async fn flush(&mut self) {
        if self.manners.wanders && self.greeted && self.host.chance(0.05) {
            self.wander();
        }
        self.pump().await;
    }

    async fn hear(&mut self, patience: Duration) -> Vec<Heard<ResponseHead, StreamId>> {
        let until = self.clock() + patience;
        loop {
            // Time may end the connection, which is heard of as well.
            self.pump().await;
            let heard = self.take_events();
            self.pump().await;
            let left = until.saturating_sub(self.clock());
            if !heard.is_empty() || self.lost.is_some() || left.is_zero() {
                return heard;
            }
            // What has come and is read late needs no word of the engine's.
            let nap = if self.is_withholding() { Duration::from_millis(10) } else { Duration::from_secs(60) };
            self.wait(left.min(nap)).await;
        }
    }

    async fn say_goodbye(&mut self) {
        if self.host.chance(0.5) {
            self.machine.drain(self.clock(), &mut self.out);
            self.flush().await;
            self.hear(Duration::from_millis(100)).await;
        }
        self.break_off();
        self.pump().await;
    }

    fn break_off(&mut self) {
        self.quic.close(instant(&self.host), number(ErrorCode::NO_ERROR.0), Bytes::new());
    }
}
