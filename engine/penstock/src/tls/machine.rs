//! One TLS connection without its socket: rustls's unbuffered API, fed and drained in the worker's own buffers.
//!
//! What holds here:
//! * [`Machine::feed`] with ciphertext, then [`Machine::read`] until it pauses; [`Machine::seal`] content at any time once it is open. What TLS
//!   itself has to say (flights, alerts, key updates) collects in [`Machine::take_output`], in front of content sealed later.
//! * A machine with nothing under way holds no buffer: the beginning of a record is kept only until its end has come.
//! * What is kept of a peer's bytes is bounded: one record, or [`limits::HANDSHAKE_BYTES_MAX`] of a message over several records.
//! * Early data is open in both directions as the rest is, from when some of it was read; until the handshake is complete it says so ([`Machine::is_early`]), and
//!   what it means is for those who read it.
//! * rustls is always shown the bytes that it has not let go of, at the front of what it is given: its deframer counts on that.
//!
//! What it costs besides the cipher: rustls 0.23 puts each decrypted record, and each encrypted one, into memory of its own before it
//! is copied into ours (rustls#2380); nothing of ours is allocated.

use std::sync::Arc;

use proto::tls::read_hello;
use ring::{Buf, Now};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadEarlyData, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, Error, HandshakeKind, ProtocolVersion, ServerConfig};

use super::Failure;
use super::records::{OVERHEAD, RecordSizes};
use crate::limits;
use crate::telemetry::access_log::Agreed;

/// A TLS connection of either role.
pub struct Machine {
    side: Side,
    /// Received, and not looked at yet.
    input: Option<Buf>,
    kept: Kept,
    sizes: RecordSizes,
    handshaking: bool,
    /// Early data would be taken.
    asks: bool,
    /// Whether the client wants to send early data; `None` while nobody knows or asks.
    offered: Option<bool>,
    /// The peer has said that nothing follows.
    ended: bool,
    /// We have.
    closed: bool,
    /// Anything has been received.
    begun: bool,
    failed: Option<Box<Failure>>,
}

/// What is on its way in or out of rustls.
#[derive(Default)]
struct Kept {
    /// What rustls has seen and needs to see again: the beginning of a record, or of a message over several.
    part: Option<Buf>,
    /// Plaintext that nobody has taken yet.
    plain: Option<Buf>,
    /// Ciphertext to be sent.
    output: Option<Buf>,
    /// Early data has been read.
    early: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What [`Machine::read`] has to say.
#[derive(Debug)]
pub enum Read {
    Data(Buf),
    /// The peer said that nothing follows.
    End,
    /// More ciphertext is needed.
    Pause,
}

/// What the two ends have agreed upon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Secured {
    /// `TLSv1.3`, `TLSv1.2`.
    pub version: &'static str,
    pub cipher: &'static str,
    pub resumed: bool,
    /// HTTP/2 was chosen (ALPN).
    pub http2: bool,
}

impl From<Secured> for Agreed {
    fn from(Secured { version, cipher, resumed, .. }: Secured) -> Self {
        Self { version, cipher, resumed }
    }
}

/// Why rustls stopped.
enum Stop {
    Handshaking,
    Open,
    Closed,
}

impl Machine {
    /// The side that accepts.
    ///
    /// # Errors
    /// A configuration that rustls refuses.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Self, Failure> {
        let mut machine = Self::new(Side::Server(UnbufferedServerConnection::new(Arc::clone(config))?));
        machine.asks = config.max_early_data_size > 0;
        Ok(machine)
    }

    /// The side that connects, to who calls itself `name`. Its first flight is in [`Machine::take_output`].
    ///
    /// # Errors
    /// A configuration that rustls refuses.
    pub fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Failure> {
        let mut machine = Self::new(Side::Client(UnbufferedClientConnection::new(Arc::clone(config), name)?));
        machine.process(&mut Buf::with_room(0))?;
        Ok(machine)
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            input: None,
            kept: Kept::default(),
            sizes: RecordSizes::new(),
            handshaking: true,
            asks: false,
            offered: None,
            ended: false,
            closed: false,
            begun: false,
            failed: None,
        }
    }

    #[must_use]
    pub const fn is_handshaking(&self) -> bool {
        self.handshaking
    }

    /// What is read may be somebody's who only repeats it: it is open, and the handshake is not complete.
    #[must_use]
    pub const fn is_early(&self) -> bool {
        self.handshaking && self.kept.early
    }

    /// Whether early data that the client wanted to send was read, or not; `None`: it wanted none.
    #[must_use]
    pub fn early_data(&self) -> Option<bool> {
        self.offered.filter(|&offered| offered).map(|_| self.kept.early)
    }

    /// There is something to read, or the beginning of it.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.kept.plain.is_some() || self.has_part() || self.ended || self.failed.is_some()
    }

    /// There is ciphertext that is no whole record yet, or that nobody has asked for.
    #[must_use]
    pub const fn has_part(&self) -> bool {
        self.input.is_some() || self.kept.part.is_some()
    }

    /// Takes ciphertext. Everything fed before must have been read until the pause.
    pub fn feed(&mut self, cipher: Buf) {
        debug_assert!(self.input.is_none(), "fed before it had paused");
        if !cipher.is_empty() {
            self.input = Some(cipher);
        }
    }

    /// Goes on with the handshake as far as what was fed leads, or until early data has come; true while more is needed.
    ///
    /// # Errors
    /// Why it has failed; what is to be told to the peer about it is in [`Machine::take_output`].
    pub fn shake_hands(&mut self) -> Result<bool, Failure> {
        while self.handshaking && !self.kept.early && self.input.is_some() {
            self.advance()?;
        }
        Ok(self.handshaking && !self.kept.early)
    }

    /// Goes on with it to its very end; early data stays to be read. True while more is needed.
    ///
    /// # Errors
    /// As [`shake_hands`](Self::shake_hands).
    pub fn confirm(&mut self) -> Result<bool, Failure> {
        while self.handshaking && self.input.is_some() {
            self.advance()?;
        }
        Ok(self.handshaking)
    }

    /// Looks at what was fed until there is news, or nothing left of it. What goes wrong is news for [`read`](Self::read).
    pub fn digest(&mut self) {
        while self.input.is_some() && self.kept.plain.is_none() && self.advance().is_ok() {}
    }

    /// What the peer says next.
    ///
    /// # Errors
    /// What it breaks, now and from then on.
    pub fn read(&mut self) -> Result<Read, Failure> {
        loop {
            if let Some(plain) = self.kept.plain.take() {
                return Ok(Read::Data(plain));
            }
            if let Some(failure) = &self.failed {
                return Err(Failure::clone(failure));
            }
            if self.ended {
                return Ok(Read::End);
            }
            if self.input.is_none() {
                return Ok(Read::Pause);
            }
            // What came in front of what breaks it is read first, however they were cut; why it broke stays.
            let _ = self.advance();
        }
    }

    /// Looks at what was fed, as far as it can be looked at in one piece.
    fn advance(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.failed {
            return Err(Failure::clone(failure));
        }
        let Some(mut input) = self.input.take() else { return Ok(()) };
        if !std::mem::replace(&mut self.begun, true) && self.is_plain_http(&input) {
            let failure = self.fail(Failure::PlainHttp);
            self.input = Some(input);
            return Err(failure);
        }
        let mut piece = match self.kept.part.take() {
            None => input,
            Some(part) => {
                let room = limits::HANDSHAKE_BYTES_MAX.saturating_sub(part.len());
                let more = missing(part.bytes()).min(input.len()).min(room);
                let Some(mut whole) = part.with_more_room(more).filter(|_| more > 0) else {
                    return Err(self.fail(Failure::TooLong));
                };
                whole.extend(&input.bytes()[..more]);
                input.consume(more);
                self.input = Some(input).filter(|input| !input.is_empty());
                whole
            }
        };
        let processed = self.process(&mut piece);
        if !piece.is_empty() && processed.is_ok() {
            if piece.len() > limits::HANDSHAKE_BYTES_MAX {
                return Err(self.fail(Failure::TooLong));
            }
            let mut part = Buf::with_room(piece.len() + missing(piece.bytes()));
            part.extend(piece.bytes());
            self.kept.part = Some(part);
        }
        processed
    }

    /// Lets rustls process `piece`, and takes from it what it lets go of.
    fn process(&mut self, piece: &mut Buf) -> Result<(), Failure> {
        if self.asks && self.offered.is_none() {
            self.offered = read_hello(piece.bytes(), &mut Vec::new()).ok().flatten().map(|hello| hello.early_data);
        }
        let stopped = match &mut self.side {
            Side::Server(conn) => drive(conn, piece, &mut self.kept, &mut self.ended),
            Side::Client(conn) => drive(conn, piece, &mut self.kept, &mut self.ended),
        };
        // What is open may be written to before the client's last word, where early data may be answered; what breaks it may come right behind that word.
        if matches!(stopped, Ok(Stop::Open) | Err(_)) {
            self.handshaking &= self.common().is_handshaking();
        }
        match stopped {
            Ok(Stop::Handshaking | Stop::Open) => {}
            Ok(Stop::Closed) => self.ended = true,
            Err(error) => {
                match &mut self.side {
                    Side::Server(conn) => last_words(conn, piece, &mut self.kept.output),
                    Side::Client(conn) => last_words(conn, piece, &mut self.kept.output),
                }
                return Err(self.fail(error.into()));
            }
        }
        Ok(())
    }

    /// What a peer that speaks HTTP without TLS has said, as far as it came in one piece.
    #[must_use]
    pub fn said_in_the_clear(&self) -> &[u8] {
        let plain = matches!(self.failed.as_deref(), Some(Failure::PlainHttp));
        self.input.as_ref().filter(|_| plain).map_or(&[], Buf::bytes)
    }

    /// A request in the clear begins with a method's name, a TLS record never does.
    fn is_plain_http(&self, input: &Buf) -> bool {
        matches!(self.side, Side::Server(_)) && input.bytes().first().is_some_and(u8::is_ascii_uppercase)
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        self.input = None;
        self.kept.part = None;
        self.failed = Some(Box::new(failure.clone()));
        failure
    }

    /// Seals `content` and hands the records over to `send`, behind what TLS itself had to say.
    ///
    /// # Errors
    /// It is not open, has failed, or its keys are used up.
    pub fn seal(&mut self, now: Now, content: &[u8], mut send: impl FnMut(Buf)) -> Result<(), Failure> {
        if self.handshaking && !self.kept.early || self.closed {
            return Err(Failure::Tls(Error::HandshakeNotComplete));
        }
        // RFC 8446 §6.2: nothing is said behind a fatal alert, the peer's or ours.
        if let Some(failure) = &self.failed {
            return Err(Failure::clone(failure));
        }
        self.sizes.begin(now);
        let (kept, sizes) = (&mut self.kept, &mut self.sizes);
        let sealed = match &mut self.side {
            Side::Server(conn) => seal(conn, kept, sizes, content, &mut send),
            Side::Client(conn) => seal(conn, kept, sizes, content, &mut send),
        };
        if let Some(output) = self.take_output() {
            send(output);
        }
        sealed.map_err(|error| self.fail(error.into()))
    }

    /// Says that nothing follows (`close_notify`); nothing can be sealed any more.
    pub fn close(&mut self) {
        if self.handshaking && !self.kept.early || self.failed.is_some() || std::mem::replace(&mut self.closed, true) {
            return;
        }
        match &mut self.side {
            Side::Server(conn) => close(conn, &mut self.kept),
            Side::Client(conn) => close(conn, &mut self.kept),
        }
    }

    /// What TLS itself has to say, to be sent at once.
    pub fn take_output(&mut self) -> Option<Buf> {
        self.kept.output.take()
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(conn) => conn,
            Side::Client(conn) => conn,
        }
    }

    /// What was agreed upon, once it was.
    #[must_use]
    pub fn secured(&self) -> Option<Secured> {
        let common = self.common();
        Some(Secured {
            version: match common.protocol_version()? {
                ProtocolVersion::TLSv1_3 => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: common.negotiated_cipher_suite()?.suite().as_str().unwrap_or("unknown"),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            http2: common.alpn_protocol() == Some(b"h2"),
        })
    }

    /// The protocol that both chose by ALPN, if they did.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.common().alpn_protocol()
    }

    /// The peer's certificate and what it sent behind it.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }
}

/// The two roles' `process_tls_records`, under one name.
trait Steps {
    type Data;
    fn step<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// There is something to be said before anything else.
    fn has_words(&self) -> bool;
    /// Takes early data into `kept`.
    fn take_early(early: ReadEarlyData<'_, '_, Self::Data>, kept: &mut Kept, room: usize) -> Result<(), Error>;
}

impl Steps for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn step<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn has_words(&self) -> bool {
        self.wants_write()
    }

    fn take_early(mut early: ReadEarlyData<'_, '_, Self::Data>, kept: &mut Kept, room: usize) -> Result<(), Error> {
        kept.early = true;
        while let Some(record) = early.next_record() {
            append(&mut kept.plain, record?.payload, room)?;
        }
        Ok(())
    }
}

impl Steps for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn step<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn has_words(&self) -> bool {
        self.wants_write()
    }

    fn take_early(_: ReadEarlyData<'_, '_, Self::Data>, _: &mut Kept, _: usize) -> Result<(), Error> {
        Err(Error::General("early data from a server".into()))
    }
}

/// Processes `piece` until nothing more comes of it.
fn drive<C: Steps>(conn: &mut C, piece: &mut Buf, kept: &mut Kept, ended: &mut bool) -> Result<Stop, Error> {
    // What is decrypted is shorter than what it was decrypted from.
    let room = piece.len();
    loop {
        let UnbufferedStatus { mut discard, state } = conn.step(piece.bytes_mut());
        let stop = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut read = Ok(None);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            append(&mut kept.plain, record.payload, room)?;
                        }
                        Err(error) => read = Err(error),
                    }
                }
                read
            }
            Ok(ConnectionState::EncodeTlsData(flight)) => encode(flight, &mut kept.output).map(|()| None),
            Ok(ConnectionState::TransmitTlsData(flight)) => {
                flight.done();
                Ok(None)
            }
            Ok(ConnectionState::PeerClosed) => {
                *ended = true;
                Ok(None)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Some(Stop::Handshaking)),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Some(Stop::Open)),
            Ok(ConnectionState::Closed) => Ok(Some(Stop::Closed)),
            Ok(ConnectionState::ReadEarlyData(early)) => C::take_early(early, kept, room).map(|()| None),
            Ok(_) => Err(Error::General("a state that nobody knows".into())),
            Err(error) => Err(error),
        };
        piece.consume(discard.min(piece.len()));
        if let Some(stop) = stop? {
            return Ok(stop);
        }
    }
}

/// After an error: the alert that tells the peer of it.
fn last_words<C: Steps>(conn: &mut C, piece: &mut Buf, output: &mut Option<Buf>) {
    // What waits to be said is handed out before the bytes that broke it are looked at again, which they must not be.
    while conn.has_words() {
        let Ok(ConnectionState::EncodeTlsData(flight)) = conn.step(piece.bytes_mut()).state else { return };
        if encode(flight, output).is_err() {
            return;
        }
    }
}

fn seal<C: Steps>(
    conn: &mut C,
    kept: &mut Kept,
    sizes: &mut RecordSizes,
    mut content: &[u8],
    send: &mut impl FnMut(Buf),
) -> Result<(), Error> {
    write(conn, kept, |traffic, output| {
        while !content.is_empty() {
            let room = sizes.room(content.len());
            let size = sizes.take(content.len());
            let mut out = match output.take() {
                Some(out) if out.room() >= size + OVERHEAD => out,
                full => {
                    full.into_iter().for_each(&mut *send);
                    Buf::with_room(room)
                }
            };
            let written = loop {
                match traffic.encrypt(&content[..size], out.spare_mut()) {
                    Ok(written) => break written,
                    // Words of TLS itself go before it.
                    Err(EncryptError::InsufficientSize(needed)) if out.room() < needed.required_size => {
                        out = out.with_more_room(needed.required_size).ok_or(Error::EncryptError)?;
                    }
                    Err(_) => return Err(Error::EncryptError),
                }
            };
            out.grow(written);
            *output = Some(out);
            content = &content[size..];
        }
        Ok(())
    })
}

fn close<C: Steps>(conn: &mut C, kept: &mut Kept) {
    // Where it cannot be said any more, the end without it is what the peer sees.
    let _ = write(conn, kept, |traffic, output| {
        let mut out =
            output.take().and_then(|out| out.with_more_room(2 * OVERHEAD)).unwrap_or_else(|| Buf::with_room(0));
        if let Ok(written) = traffic.queue_close_notify(out.spare_mut()) {
            out.grow(written);
        }
        *output = Some(out).filter(|out| !out.is_empty());
        Ok(())
    });
}

/// Brings rustls to where content may be written, and lets `act` write it.
fn write<C: Steps>(
    conn: &mut C,
    kept: &mut Kept,
    act: impl FnOnce(&mut WriteTraffic<'_, C::Data>, &mut Option<Buf>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Kept { part, output, .. } = kept;
    loop {
        let bytes = part.as_mut().map_or(&mut [][..], Buf::bytes_mut);
        let UnbufferedStatus { discard, state } = conn.step(bytes);
        debug_assert_eq!(discard, 0, "what could be processed was");
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => return act(&mut traffic, output),
            ConnectionState::EncodeTlsData(flight) => encode(flight, output)?,
            ConnectionState::TransmitTlsData(flight) => flight.done(),
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

/// Appends a flight's next message to the output.
fn encode<Data>(mut flight: EncodeTlsData<'_, Data>, output: &mut Option<Buf>) -> Result<(), Error> {
    let mut out = output.take().unwrap_or_else(|| Buf::with_room(0));
    let written = loop {
        match flight.encode(out.spare_mut()) {
            Ok(written) => break written,
            Err(EncodeError::InsufficientSize(needed)) => {
                let larger = out.with_more_room(needed.required_size);
                out = larger.ok_or_else(|| Error::General("a flight larger than any buffer".into()))?;
            }
            Err(EncodeError::AlreadyEncoded) => break 0,
        }
    };
    out.grow(written);
    *output = Some(out);
    Ok(())
}

/// Appends plaintext; `room` is what all of it may come to.
fn append(plain: &mut Option<Buf>, payload: &[u8], room: usize) -> Result<(), Error> {
    let buf = plain.take().unwrap_or_else(|| Buf::with_room(room));
    let mut buf = buf.with_more_room(payload.len()).ok_or(Error::PeerSentOversizedRecord)?;
    buf.extend(payload);
    *plain = Some(buf).filter(|buf| !buf.is_empty());
    Ok(())
}

/// How many bytes the first record still lacks; where it is whole, and kept because its message goes on, a page.
fn missing(part: &[u8]) -> usize {
    const HEADER: usize = 5;
    const PAGE: usize = 4 << 10;
    let Some(header) = part.first_chunk::<HEADER>() else { return HEADER - part.len() };
    let record = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if record > part.len() { record - part.len() } else { PAGE }
}
