//! Connection ids of QUIC that say where their connection lives, to us and to nobody else.
//!
//! ```text
//! byte 0         bytes 1–8    bytes 9–12                                        bytes 13–16
//! config │ 5 b   nonce        server 16 b · generation 6 b · worker 10 b        32 b of the check value
//!        └ of the check value └ sealed: xor with PRF(seal, nonce, config)
//! ```
//!
//! The check value is PRF(check, nonce, config, what is sealed), 37 bits of it. What holds: whoever has not got the keys cannot tell
//! two ids of one connection from ids of two (RFC 9000 §5.1, §9.5), because beside the config nothing in them is not random or
//! the PRF's; and a made-up id passes for ours once in 2³⁷, which costs no more than a packet on a worker that does not know it.
//!
//! The form is QUIC-LB's (draft-ietf-quic-load-balancers: config in the first three bits, 0b111 for none, then server id and nonce),
//! with SipHash in place of AES, which the kernel's half of the readers has not. An id of another config, or of another process's keys,
//! is not ours.

use crate::siphash::{Key, siphash};

/// Octets of an id of ours. Each short header carries one, so each counts; RFC 9000 §17.2 allows 20.
pub const ID_LEN: usize = 17;

/// Octets of the longest id of QUIC version 1 (RFC 9000 §17.2).
pub const ID_LEN_MAX: usize = 20;

/// Workers that an id can tell apart.
pub const WORKERS_MAX: u16 = 1 << 10;

/// Generations of the process until the count begins anew: an upgrade is over long before the 64th after it.
pub const GENERATIONS: u8 = 1 << 6;

/// Configs: sets of keys that may be in use at once while a fleet changes from one to the next. The eighth value means "not routable" in QUIC-LB.
pub const CONFIGS: u8 = 7;

/// Octets of the secret that keys are made from.
pub const SECRET_LEN: usize = 16;

/// Where a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Place {
    /// Which machine of the fleet.
    pub server: u16,
    /// Which process of that machine, counted up with each upgrade, modulo [`GENERATIONS`].
    pub generation: u8,
    /// Which worker of that process, below [`WORKERS_MAX`].
    pub worker: u16,
}

impl Place {
    #[inline(always)]
    fn pack(self) -> u32 {
        let generation = u32::from(self.generation % GENERATIONS);
        u32::from(self.server) << 16 | generation << 10 | u32::from(self.worker % WORKERS_MAX)
    }

    #[inline(always)]
    fn unpack(word: u32) -> Self {
        Self {
            server: (word >> 16) as u16,
            generation: (word >> 10) as u8 % GENERATIONS,
            worker: word as u16 % WORKERS_MAX,
        }
    }
}

/// A key for each purpose. As it stands, it is the value of a map that programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Keys {
    /// Hides the place.
    pub seal: Key,
    /// Makes the check value.
    pub check: Key,
    /// Spreads ids that clients chose over workers, so that nobody can choose ids for one worker.
    pub spread: Key,
}

impl Keys {
    /// The keys that follow from a secret, which must be as good as random and for this purpose only (HKDF of the fleet's secret, say).
    #[must_use]
    pub fn derive(secret: &[u8; SECRET_LEN]) -> Self {
        let secret = Key::from_bytes(secret);
        // One-byte messages, each another.
        let half = |purpose: u64| siphash(secret, [1 << 56 | purpose]);
        let key = |purpose: u64| Key([half(2 * purpose), half(2 * purpose + 1)]);
        Self { seal: key(0), check: key(1), spread: key(2) }
    }
}

/// Writes and reads connection ids of one config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionIds {
    keys: Keys,
    /// Below [`CONFIGS`]; a word, so that the map's value has no padding.
    config: u64,
}

impl ConnectionIds {
    /// Reads nothing as its own: stands where a config is not in use.
    pub const NONE: Self =
        Self { keys: Keys { seal: Key([0; 2]), check: Key([0; 2]), spread: Key([0; 2]) }, config: CONFIGS as u64 };

    /// Which config it is of.
    #[must_use]
    pub const fn config(&self) -> u8 {
        self.config as u8
    }

    /// Ids of `config` (modulo [`CONFIGS`]) with the keys of `secret`, as [`Keys::derive`] asks for it.
    #[must_use]
    pub fn new(config: u8, secret: &[u8; SECRET_LEN]) -> Self {
        Self { keys: Keys::derive(secret), config: u64::from(config % CONFIGS) }
    }

    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(&self) -> [u64; 7] {
        let Keys { seal: Key([a, b]), check: Key([c, d]), spread: Key([e, f]) } = self.keys;
        [a, b, c, d, e, f, self.config]
    }

    /// An id for a connection that lives at `place`. `random` is fresh for each id: ids with the same nonce show whether their places
    /// differ, and ids of one place would be the same.
    #[must_use]
    pub fn encode(&self, place: Place, random: [u8; 8]) -> [u8; ID_LEN] {
        let nonce = u64::from_le_bytes(random);
        let sealed = place.pack() ^ self.pad(nonce);
        let check = self.check(nonce, sealed);
        let mut id = [0; ID_LEN];
        id[0] = self.first(check);
        id[1..9].copy_from_slice(&random);
        id[9..13].copy_from_slice(&sealed.to_le_bytes());
        id[13..].copy_from_slice(&(check as u32).to_le_bytes());
        id
    }

    /// Where the connection of this id lives; `None` when the id is not one of ours.
    #[must_use]
    pub fn decode(&self, id: &[u8]) -> Option<Place> {
        if id.len() == ID_LEN { self.decode_words(words(id)) } else { None }
    }

    /// As [`decode`](Self::decode), of an id that lies in little-endian words. What is behind it does not matter.
    #[inline(always)]
    #[must_use]
    pub fn decode_words(&self, [a, b, c]: [u64; 3]) -> Option<Place> {
        let nonce = a >> 8 | b << 56;
        let sealed = (b >> 8) as u32;
        let told = (b >> 40) as u32 | (c as u32) << 24;
        let check = self.check(nonce, sealed);
        let ours = a as u8 == self.first(check) && told == check as u32;
        if ours { Some(Place::unpack(sealed ^ self.pad(nonce))) } else { None }
    }

    /// A hash of an id that a client has chosen, the same on each worker and in the kernel: its first packets find one worker, however
    /// often they are sent. Of an id that is longer than [`ID_LEN_MAX`], its beginning counts.
    #[must_use]
    pub fn spread(&self, id: &[u8]) -> u64 {
        let len = id.len().min(ID_LEN_MAX);
        self.spread_words(words(&id[..len]), len as u64)
    }

    /// As [`spread`](Self::spread), of an id of `len` octets that lies in little-endian words with zeros behind it.
    #[inline(always)]
    #[must_use]
    pub fn spread_words(&self, [a, b, c]: [u64; 3], len: u64) -> u64 {
        // A message of 23 bytes: 20 of the id, its length, and two of nothing.
        siphash(self.keys.spread, [a, b, 23 << 56 | (len & 0xff) << 32 | c & 0xffff_ffff])
    }

    /// A message of nine bytes.
    #[inline(always)]
    fn pad(&self, nonce: u64) -> u32 {
        siphash(self.keys.seal, [nonce, 9 << 56 | self.config]) as u32
    }

    /// A message of thirteen bytes.
    #[inline(always)]
    fn check(&self, nonce: u64, sealed: u32) -> u64 {
        siphash(self.keys.check, [nonce, 13 << 56 | self.config << 32 | u64::from(sealed)])
    }

    #[inline(always)]
    fn first(&self, check: u64) -> u8 {
        (self.config as u8) << 5 | (check >> 59) as u8
    }
}

/// Up to 24 octets as little-endian words, zeros behind them.
fn words(octets: &[u8]) -> [u64; 3] {
    let mut words = [0; 3];
    for (word, part) in words.iter_mut().zip(octets.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(bytes);
    }
    words
}
