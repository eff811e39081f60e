//! Two ends of TLS, and somebody between them who cuts, changes, repeats, swaps and invents what they say. Shared with the fuzz targets.
//!
//! What is held against every story: what an end has read is the beginning of what the other has sealed, and none of it came before the handshake was done or early
//! data was taken; while it waits it keeps one buffer at the most, and none with nothing under way; who has failed stays so; an end that is announced was announced by
//! the other one; and where nobody came between, everything arrives.

#![allow(dead_code, unreachable_pub)]

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use penstock::tls::{Failure, Machine, Read, ServerConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use ring::{Buf, Now};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

pub const NOW: Now = Now::from_nanos(7_000_000_000);

/// The most that a machine may keep of its peer's bytes: a buffer of the largest class.
const KEPT_MAX: usize = 260 << 10;
/// What is on its way to one end, at the most.
const WIRE_MAX: usize = 512 << 10;

/// What the two ends are to agree upon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    Tls13,
    Tls12,
    /// The client shows a certificate too.
    Mutual,
    /// A client of rustls's own comes again and sends early data, and new keys at times.
    Early,
}

pub const SORTS: [Sort; 4] = [Sort::Tls13, Sort::Tls12, Sort::Mutual, Sort::Early];

pub struct World {
    pub sort: Sort,
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl World {
    pub fn new(sort: Sort) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let chain = vec![cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let versions = if sort == Sort::Tls12 { &[&TLS12] } else { &[&TLS13] };
        let server = ServerConfig::builder_with_protocol_versions(versions);
        let server = match sort {
            Sort::Mutual => server
                .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots.clone())).build().unwrap()),
            _ => server.with_no_client_auth(),
        };
        let mut server = server.with_single_cert(chain.clone(), key()).unwrap();
        server.send_tls13_tickets = 1;
        if sort == Sort::Early {
            server.session_storage = ServerSessionMemoryCache::new(64);
            server.max_early_data_size = 16 << 10;
            server.send_half_rtt_data = true;
        }
        let client = ClientConfig::builder().with_root_certificates(roots);
        let mut client = match sort {
            Sort::Mutual => client.with_client_auth_cert(chain, key()).unwrap(),
            _ => client.with_no_client_auth(),
        };
        client.enable_early_data = sort == Sort::Early;
        Self { sort, server: Arc::new(server), client: Arc::new(client) }
    }

    fn machine_of_server(&self) -> Machine {
        Machine::server(&self.server).unwrap()
    }

    fn machine_of_client(&self) -> Machine {
        Machine::client(&self.client, ServerName::try_from("localhost").unwrap()).unwrap()
    }

    fn rustls(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.client), ServerName::try_from("localhost").unwrap()).unwrap()
    }

    /// Both ends of a new connection; a client that has early data to send has a session for it.
    fn ends(&self) -> [End; 2] {
        if self.sort != Sort::Early {
            return [self.machine_of_server().into(), self.machine_of_client().into()].map(End::new);
        }
        let mut before = [self.machine_of_server().into(), Side::Rustls(Box::new(self.rustls()))].map(End::new);
        settle(&mut before, false);
        let mut ends = [self.machine_of_server().into(), Side::Rustls(Box::new(self.rustls()))].map(End::new);
        ends[1].collect();
        ends
    }
}

enum Side {
    Ours(Box<Machine>),
    Rustls(Box<ClientConnection>),
}

impl From<Machine> for Side {
    fn from(machine: Machine) -> Self {
        Self::Ours(Box::new(machine))
    }
}

struct End {
    side: Side,
    /// On its way from here.
    wire: Vec<u8>,
    sealed: Vec<u8>,
    heard: Vec<u8>,
    opened: bool,
    closed: bool,
    /// It has heard that nothing follows.
    ended: bool,
    /// Why.
    failed: Option<String>,
}

impl End {
    fn new(side: Side) -> Self {
        let (wire, sealed, heard) = Default::default();
        let mut end = Self { side, wire, sealed, heard, opened: false, closed: false, ended: false, failed: None };
        end.collect();
        end
    }

    fn is_over(&self) -> bool {
        self.ended || self.failed.is_some()
    }

    /// Puts on the wire what TLS itself has to say.
    fn collect(&mut self) {
        match &mut self.side {
            Side::Ours(machine) => {
                if let Some(output) = machine.take_output() {
                    assert!(output.len() <= 32 << 10, "a flight of {} bytes", output.len());
                    self.wire.extend_from_slice(output.bytes());
                }
            }
            Side::Rustls(client) => {
                while client.wants_write() {
                    client.write_tls(&mut self.wire).unwrap();
                }
            }
        }
    }

    /// Lets it hear `bytes`, in one of the orders in which the house asks a machine.
    fn hear(&mut self, bytes: &[u8], order: u8, meddled: bool) {
        // Who has closed, and then hears what is broken, trips over an assertion of rustls's, which takes `close_notify` for a fatal alert (rustls#959): without
        // assertions a second alert leaves, and hurts nobody.
        if self.is_over() || bytes.is_empty() || self.closed && meddled {
            return;
        }
        match &mut self.side {
            Side::Ours(machine) => {
                machine.feed(Buf::copy_of(bytes));
                let more = match order % 4 {
                    0 => machine.shake_hands().unwrap_or_default(),
                    1 => machine.confirm().unwrap_or_default(),
                    2 => {
                        machine.digest();
                        false
                    }
                    _ => false,
                };
                if !more || machine.is_early() {
                    self.read(bytes.len());
                }
            }
            Side::Rustls(client) => {
                let mut rest = bytes;
                while !rest.is_empty() && self.failed.is_none() && !self.ended {
                    client.read_tls(&mut rest).unwrap();
                    let processed = client.process_new_packets();
                    self.ended = processed.as_ref().is_ok_and(|state| state.peer_has_closed());
                    self.failed = processed.err().map(|error| error.to_string());
                    // An error when there is no more for now.
                    let _ = client.reader().read_to_end(&mut self.heard);
                }
                self.opened = !client.is_handshaking();
            }
        }
        self.collect();
        self.check();
    }

    /// Reads until it pauses; `most` bytes have come since the last time.
    fn read(&mut self, most: usize) {
        let Side::Ours(machine) = &mut self.side else { return };
        for _ in 0..=most {
            match machine.read() {
                Ok(Read::Data(data)) => {
                    assert!(!data.is_empty(), "data that is none");
                    assert!(!machine.is_handshaking() || machine.is_early(), "content before the handshake was done");
                    self.heard.extend_from_slice(data.bytes());
                }
                Ok(Read::Pause) => return,
                Ok(Read::End) => return self.ended = true,
                Err(failure) => {
                    assert!(machine.read().is_err() && machine.has_news(), "it stays broken");
                    return self.failed = Some(failure.to_string());
                }
            }
        }
        panic!("{most} bytes were read more often than there are of them");
    }

    fn check(&mut self) {
        let Side::Ours(machine) = &self.side else { return };
        self.opened |= !machine.is_handshaking();
        assert!(!self.opened || machine.secured().is_some(), "open, with nothing agreed upon");
        assert!(
            !machine.has_part() || self.failed.is_none() || machine.said_in_the_clear() != b"",
            "what is kept for nobody"
        );
    }

    fn seal(&mut self, content: &[u8]) {
        if self.wire.len() + content.len() > WIRE_MAX {
            return;
        }
        let before = self.wire.len();
        match &mut self.side {
            Side::Ours(machine) => {
                let open = !machine.is_handshaking() || machine.is_early();
                let (may, wire) = (open && !self.closed && self.failed.is_none(), &mut self.wire);
                let sealed = machine.seal(NOW, content, |records| wire.extend_from_slice(records.bytes()));
                assert!(may == sealed.is_ok(), "open to content, or not: {sealed:?}");
                if may {
                    self.sealed.extend_from_slice(content);
                }
                assert!(may || self.wire.len() == before, "said behind the end");
            }
            Side::Rustls(client) => {
                let taken = if self.closed || self.failed.is_some() {
                    0
                } else if client.is_handshaking() {
                    client.early_data().map_or(0, |mut early| early.write(content).unwrap_or(0))
                } else {
                    client.writer().write(content).unwrap()
                };
                self.sealed.extend_from_slice(&content[..taken]);
            }
        }
        self.collect();
    }

    fn close(&mut self) {
        match &mut self.side {
            Side::Ours(machine) => {
                self.closed |= (!machine.is_handshaking() || machine.is_early()) && self.failed.is_none();
                machine.close();
            }
            Side::Rustls(client) if client.is_handshaking() => {}
            Side::Rustls(client) => {
                self.closed = true;
                client.send_close_notify();
            }
        }
        self.collect();
    }

    fn new_keys(&mut self) {
        if let Side::Rustls(client) = &mut self.side {
            // Refused while it shakes hands.
            let _ = client.refresh_traffic_keys();
        }
        self.collect();
    }

    fn has_part(&self) -> bool {
        matches!(&self.side, Side::Ours(machine) if machine.has_part())
    }
}

/// Brings all that is on its way to its end, until nothing more is said.
fn settle(ends: &mut [End; 2], meddled: bool) {
    while ends.iter().any(|end| !end.wire.is_empty()) {
        for to in [0, 1] {
            let bytes = std::mem::take(&mut ends[1 - to].wire);
            bytes.chunks(16_000).for_each(|piece| ends[to].hear(piece, 0, meddled));
        }
    }
}

/// What a story has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Somebody came between.
    pub meddled: bool,
    pub opened: [bool; 2],
    pub failed: [bool; 2],
    pub heard: [usize; 2],
}

/// Bytes that say what happens next.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte().unwrap_or(0)) << 8 | usize::from(self.byte().unwrap_or(0))
    }

    /// How many of `all`: mostly few.
    fn some(&mut self, all: usize) -> usize {
        let square = usize::from(self.byte().unwrap_or(0)).pow(2);
        if square == 0 { all } else { (square / 8 + 1).min(all) }
    }

    fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte().unwrap_or(0) % 64).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }
}

/// What [`tell`] knows to do to a wire, by the low half of a byte: those from here on come between the ends.
pub const MEDDLING: u8 = 9;

/// Tells the story of a connection as `script` says.
pub fn tell(world: &World, script: &[u8]) -> Told {
    let base = ring::buf::pool_counts().lent;
    let mut ends = world.ends();
    let mut script = Script(script);
    let mut meddled = false;
    while let Some(word) = script.byte() {
        let (what, from, order) = (word & 15, usize::from(word >> 7), word >> 5);
        let [wire, back] = {
            let [server, client] = &mut ends;
            if from == 0 { [&mut server.wire, &mut client.wire] } else { [&mut client.wire, &mut server.wire] }
        };
        meddled |= what >= MEDDLING;
        match what {
            0..=4 => {
                let count = script.some(wire.len()).min(200_000);
                let bytes: Vec<_> = wire.drain(..count).collect();
                ends[1 - from].hear(&bytes, order, meddled);
            }
            5 | 6 => {
                let count = script.number() % 20_000 + 1;
                let at = ends[from].sealed.len();
                ends[from].seal(&content(at, count));
            }
            7 => ends[from].new_keys(),
            8 if script.byte() == Some(0) => ends[from].close(),
            8 => {}
            9 => {
                let (at, bit) = (script.number(), word >> 4 & 7);
                let length = wire.len().max(1);
                wire.get_mut(at % length).into_iter().for_each(|byte| *byte ^= 1 << bit);
            }
            10 => {
                let again = wire[..script.some(wire.len()).min(WIRE_MAX.saturating_sub(wire.len()))].to_vec();
                wire.splice(..0, again);
            }
            11 => drop(wire.drain(..script.some(wire.len()))),
            12 => drop(wire.splice(..0, script.bytes().iter().copied())),
            13 => {
                let kind = 20 + script.byte().unwrap_or(0) % 5;
                let bytes = script.bytes();
                wire.splice(..0, [&[kind, 3, 3, 0, bytes.len() as u8], bytes].concat());
            }
            14 => {
                let own = back[..script.some(back.len()).min(WIRE_MAX.saturating_sub(wire.len()))].to_vec();
                wire.splice(..0, own);
            }
            _ => {
                let first = record(wire).unwrap_or(0);
                let both = first + record(&wire[first..]).unwrap_or(0);
                wire[..both].rotate_left(first);
            }
        }
        judge(&ends, base, meddled);
    }
    settle(&mut ends, meddled);
    judge(&ends, base, meddled);
    if !meddled {
        let [server, client] = &ends;
        for (end, other) in [(server, client), (client, server)] {
            assert!(end.opened && end.failed.is_none(), "nobody came between");
            assert!(end.ended == other.closed && (end.heard == other.sealed || end.closed), "all of it arrives");
        }
    }
    let each = |of: fn(&End) -> bool| [of(&ends[0]), of(&ends[1])];
    Told {
        meddled,
        opened: each(|end| end.opened),
        failed: each(|end| end.failed.is_some()),
        heard: [ends[0].heard.len(), ends[1].heard.len()],
    }
}

/// What holds whatever has happened.
fn judge(ends: &[End; 2], base: usize, meddled: bool) {
    let [server, client] = ends;
    for (end, other) in [(server, client), (client, server)] {
        assert!(other.sealed.starts_with(&end.heard), "content that nobody has sealed");
        assert!(!end.ended || other.closed, "an end that nobody has announced");
        assert!(meddled || end.failed.is_none(), "it broke by itself: {:?}", end.failed);
    }
    let parts = ends.iter().filter(|end| end.has_part()).count();
    let lent = ring::buf::pool_counts().lent - base;
    assert!(lent <= parts * KEPT_MAX, "{lent} bytes are kept of {parts} parts");
}

/// The length of the record that begins `bytes`, as far as it is there.
fn record(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<5>()?;
    let length = 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
    Some(length.min(bytes.len()))
}

/// `count` bytes of a stream, from `at` on.
fn content(at: usize, count: usize) -> Vec<u8> {
    (at..at + count).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// What a machine of either role makes of a stream that comes in such pieces: all that it reads, and why it broke. An end that is no peer's is none.
pub fn listen<'a>(world: &World, client: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<String>) {
    let base = ring::buf::pool_counts().lent;
    let mut end = End::new(if client { world.machine_of_client() } else { world.machine_of_server() }.into());
    for piece in pieces {
        end.hear(piece, 3, true);
        assert!(ring::buf::pool_counts().lent - base <= KEPT_MAX);
    }
    let Side::Ours(machine) = &mut end.side else { unreachable!("a machine of ours") };
    assert!(machine.is_handshaking() && !end.ended, "agreed, with nobody");
    let failure = machine.read().err().map(|failure: Failure| format!("{failure:?}"));
    (end.heard, failure)
}

/// A stream in pieces, whose lengths are drawn from `seed`: mostly short.
pub fn cut(stream: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
    let (mut random, mut rest) = (policy::Random::new(seed), stream);
    std::iter::from_fn(move || {
        let most = 1 << random.below(12);
        let (piece, behind) = rest.split_at((1 + random.below(most) as usize).min(rest.len()));
        rest = behind;
        Some(piece).filter(|piece| !piece.is_empty())
    })
}
