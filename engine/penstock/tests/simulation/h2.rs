//! HTTP/2 as the scripts speak it: one end of a connection, over the machine of `proto`; what the engine does around that is on trial.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::Event;
use proto::Malformed;
use proto::h1::{RequestHead, ResponseHead};
use proto::h2::{Client, Connection, Fault, HeadSpace, Limits, Role, Said, Server, Step, StreamId};
use ring::sim::{Host, Socket};

use crate::wire::Pace;

/// The two roles' `read`, under one name.
pub(crate) trait Speaks: Role {
    fn step(
        machine: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<Self::Head>, Fault>;
}

impl Speaks for Client {
    fn step(
        machine: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<ResponseHead>, Fault> {
        machine.read(now, bytes, space, out)
    }
}

impl Speaks for Server {
    fn step(
        machine: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<RequestHead>, Fault> {
        machine.read(now, bytes, space, out)
    }
}

/// What the engine said.
pub(crate) enum Heard<H, I = StreamId> {
    Head(I, H, Lines),
    Data(I, Vec<u8>),
    /// With trailers, if there were any.
    End(I, Option<Lines>),
    Reset(I, Malformed),
}

/// Fields, with the text of their head.
#[derive(Debug)]
pub(crate) struct Lines {
    text: String,
    fields: Vec<(String, String)>,
}

impl Lines {
    pub(crate) fn of(space: &HeadSpace) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("heads are text");
        let pair = |field: &proto::http::Field| (text(field.name.of(&space.text)), text(field.value.of(&space.text)));
        Self { text: text(&space.text), fields: space.fields.iter().map(pair).collect() }
    }

    pub(crate) fn text(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The only field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        value
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.field(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {self:?}")))
    }
}

/// One end of a connection.
pub(crate) struct End<R: Role> {
    host: Host,
    pub(crate) socket: Socket,
    pace: Pace,
    pub(crate) machine: Connection<R>,
    pub(crate) out: Vec<u8>,
    space: HeadSpace,
    unread: Vec<u8>,
    /// Content that waits, and the trailers behind it.
    outbox: BTreeMap<u32, (Vec<u8>, Option<String>)>,
    /// Credit that is given late.
    withheld: BTreeMap<u32, usize>,
    withholds: bool,
    /// Sending has failed.
    pub(crate) broken: bool,
    /// Nothing more will be received.
    pub(crate) over: bool,
}

impl<R: Speaks> End<R> {
    /// `streams`: what the peer may open.
    pub(crate) fn new(host: &Host, socket: Socket, streams: u16) -> Self {
        let windows = [1_000, 20_000, 65_535, 65_535, 300_000];
        let limits = Limits {
            streams,
            stream_window: windows[host.pick(0..=windows.len() - 1)],
            connection_window: windows[host.pick(0..=windows.len() - 1)],
            header_table: if host.chance(0.3) { 0 } else { 4_096 },
            settings_timeout: Duration::from_secs(48 * 3600),
            stall_timeout: Duration::from_secs(48 * 3600),
            secure: false,
            ..Limits::DEFAULT
        };
        let slow = host.chance(0.1);
        let mut end = Self {
            host: host.clone(),
            socket,
            pace: if slow { Pace { bytes: 3_000, pause: Duration::from_millis(20) } } else { Pace::FAST },
            machine: Connection::new(limits),
            out: Vec::new(),
            space: HeadSpace::default(),
            unread: Vec::new(),
            outbox: BTreeMap::new(),
            withheld: BTreeMap::new(),
            withholds: host.chance(0.2),
            broken: false,
            over: false,
        };
        end.machine.start(end.now(), &mut end.out);
        end
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.host.now())
    }

    /// Puts content; false when the stream takes none any more.
    pub(crate) fn queue(&mut self, id: StreamId, piece: &[u8]) -> bool {
        let queued = self.machine.queue(self.now(), id, piece.len(), &mut self.out).is_ok();
        if queued {
            self.outbox.entry(id.0).or_default().0.extend_from_slice(piece);
        }
        queued
    }

    /// The message is complete with what was put, and with this trailer.
    pub(crate) fn finish(&mut self, id: StreamId, trailer: Option<String>) {
        match trailer {
            Some(value) => self.outbox.entry(id.0).or_default().1 = Some(value),
            None => _ = self.machine.finish(id, &mut self.out),
        }
    }

    pub(crate) fn reset(&mut self, id: StreamId, code: proto::h2::ErrorCode) {
        self.machine.reset(id, code, &mut self.out);
        self.outbox.remove(&id.0);
        self.withheld.remove(&id.0);
    }

    /// There is something to do here without a word of the peer's.
    pub(crate) fn is_withholding(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// Sends what may go.
    pub(crate) async fn flush(&mut self) {
        if self.host.chance(0.3) {
            for (id, bytes) in std::mem::take(&mut self.withheld) {
                self.machine.credit(StreamId(id), bytes, &mut self.out);
            }
        }
        let (now, most) = (self.now(), self.host.pick(1_000..=40_000));
        let mut bytes = std::mem::take(&mut self.out);
        while let Some(frame) = self.machine.next_data(now, most) {
            let waiting = &mut self.outbox.get_mut(&frame.stream.0).expect("it was queued").0;
            bytes.extend_from_slice(&frame.head);
            bytes.extend(waiting.drain(..frame.payload));
            bytes.extend(frame.suffix.into_iter().flatten());
        }
        self.outbox.retain(|id, (waiting, trailer)| {
            if !waiting.is_empty() {
                return true;
            }
            if let Some(value) = trailer.take() {
                let trailers = [(&b"x-sum"[..], value.as_bytes())];
                _ = self.machine.write_trailers(StreamId(*id), trailers.into_iter(), &mut bytes);
            }
            false
        });
        if !bytes.is_empty() && !self.broken {
            let sent = match self.host.chance(0.2) {
                true => self.socket.send_split(&self.host, &bytes, Duration::from_millis(20)).await,
                false => self.socket.send(&bytes).await,
            };
            self.broken = sent.is_err();
        }
        self.machine.sent();
    }

    /// Waits for what the engine says next.
    pub(crate) async fn hear(&mut self, patience: Duration) -> Vec<Heard<R::Head>> {
        if !self.pace.pause.is_zero() {
            self.host.dawdle(self.pace.pause).await;
        }
        match self.host.within(patience, self.socket.recv(self.pace.bytes)).await {
            None => return Vec::new(),
            Some(Ok(bytes)) if !bytes.is_empty() => self.unread.extend(bytes),
            Some(_) => self.over = true,
        }
        let (now, mut heard) = (self.now(), Vec::new());
        loop {
            let step = R::step(&mut self.machine, now, &self.unread, &mut self.space, &mut self.out);
            let Step { skipped, said } = step.unwrap_or_else(|fault| panic!("the engine breaks the protocol: {fault}"));
            self.unread.drain(..skipped);
            heard.push(match said {
                Said::Pause => return heard,
                Said::Stream(id, Event::Head(head)) => Heard::Head(id, head, Lines::of(&self.space)),
                Said::Stream(id, Event::Data { payload, consumed }) => {
                    let data = self.unread[..payload].to_vec();
                    self.unread.drain(..consumed);
                    self.take(id, payload);
                    Heard::Data(id, data)
                }
                Said::Stream(id, Event::End { consumed, trailers }) => {
                    self.unread.drain(..consumed);
                    Heard::End(id, trailers.then(|| Lines::of(&self.space)))
                }
                Said::Stream(id, Event::Reset(why)) => {
                    self.reset(id, proto::h2::ErrorCode::CANCEL);
                    Heard::Reset(id, why)
                }
                Said::Refused { why, .. } => panic!("the engine asks what is no request: {why}"),
                Said::Stream(_, Event::Tunnel | Event::Pause) | Said::GoneAway { .. } | Said::Pong(_) => continue,
            });
        }
    }

    /// Content has been taken: it is credited now or later.
    fn take(&mut self, id: StreamId, bytes: usize) {
        if self.withholds {
            *self.withheld.entry(id.0).or_default() += bytes;
        } else {
            self.machine.credit(id, bytes, &mut self.out);
        }
    }
}
