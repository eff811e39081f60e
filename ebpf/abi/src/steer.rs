//! What the steering programs and the engine share in maps.
//!
//! A [`Seat`] is a worker's line in the array that connections are steered by. Its first half is the worker's to write, its second the
//! programs': each reads what the other writes, and no word has two writers.

use crate::connection_id::GENERATIONS;

/// Words of a seat: two cache lines of 64 bytes, one for each writer.
pub const SEAT_WORDS: usize = 16;

/// What a worker has to do, in [`CONNECTION_LOAD`]s and [`EXCHANGE_LOAD`]s. The worker writes it.
pub const SEAT_LOAD: usize = 0;

/// Connections that the worker has taken of those given to it, and those that it does not expect any more. The worker writes it.
pub const SEAT_TAKEN: usize = 1;

/// Connections given to the worker. Programs add to it.
pub const SEAT_GIVEN: usize = 8;

/// A worker's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Seat(pub [u64; SEAT_WORDS]);

/// A connection that is open costs memory, and a little of each turn.
pub const CONNECTION_LOAD: u64 = 1;

/// An exchange under way costs time: as much as many connections that lie idle. By Little's law the number under way is the rate times how
/// long each takes, so it weighs connections by what they do, without counting what has been.
pub const EXCHANGE_LOAD: u64 = 16;

/// A connection that was given and is not taken yet: it comes with an exchange, or with a handshake.
pub const NEWCOMER_LOAD: u64 = CONNECTION_LOAD + EXCHANGE_LOAD;

impl Seat {
    /// What the worker has to do, and what is on its way to it.
    #[inline(always)]
    #[must_use]
    pub const fn burden(&self) -> u64 {
        let coming = self.0[SEAT_GIVEN].wrapping_sub(self.0[SEAT_TAKEN]);
        // The words are written by two sides and read one after the other: taken may be ahead for a moment.
        let coming = if coming as i64 > 0 { coming as u32 } else { 0 };
        self.0[SEAT_LOAD].wrapping_add(coming as u64 * NEWCOMER_LOAD)
    }
}

/// Generations whose sockets a group can hold: the one that serves, and the one that it came after.
pub const GENERATIONS_HELD: usize = 2;

/// What the programs of one group must know. All words are 32 bits wide, so that there is no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Group {
    /// Of this machine, in a fleet.
    pub server: u32,
    /// That new connections go to, below [`GENERATIONS`].
    pub generation: u32,
    /// Config whose key spreads ids that clients chose.
    pub config: u32,
    /// Places a generation has in the table of sockets.
    pub stride: u32,
    /// Workers of the generations held, by the generation's lowest bit; 0 for one that is not there.
    pub workers: [u32; GENERATIONS_HELD],
}

impl Group {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(&self) -> [u32; 6] {
        [self.server, self.generation, self.config, self.stride, self.workers[0], self.workers[1]]
    }

    /// Whether sockets of a generation are held: the serving one, or the one before it.
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, generation: u32) -> bool {
        let count = GENERATIONS as u32;
        let back = (self.generation.wrapping_sub(generation)) % count;
        back < GENERATIONS_HELD as u32
    }

    /// Workers of a generation that is held.
    #[inline(always)]
    #[must_use]
    pub const fn workers_of(&self, generation: u32) -> u32 {
        let [even, odd] = self.workers;
        if generation & 1 == 0 { even } else { odd }
    }

    /// Where a worker's socket stands in the table.
    #[inline(always)]
    #[must_use]
    pub const fn socket_of(&self, generation: u32, worker: u32) -> u32 {
        (generation & 1).wrapping_mul(self.stride).wrapping_add(worker)
    }
}

/// Two different workers out of `workers` by one random word; the same one twice when there is one. Of none, the first.
#[inline(always)]
#[must_use]
pub const fn two_of(random: u64, workers: u32) -> (u32, u32) {
    if workers < 2 {
        return (0, 0);
    }
    let first = crate::worker_of(random, workers);
    let step = 1 + crate::worker_of(random << 32, workers - 1);
    let second = first + step;
    (first, if second >= workers { second - workers } else { second })
}

/// What became of a connection or a datagram: an index into the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// A connection went to the less loaded of two workers.
    LeastLoaded,
    /// A connection that waited at a listener that closes went to another one.
    Migrated,
    /// A datagram went where its connection id says.
    ById,
    /// A datagram with an id that a client chose went to one of the live workers.
    ByHash,
    /// A datagram with a short header and an id that is not ours, or cut off: the kernel's hash chose.
    Stranger,
    /// The id is ours, of another machine or of a process that is gone: the kernel's hash chose.
    Elsewhere,
    /// The socket that was meant is not there: the kernel's hash chose.
    Missing,
}

impl Verdict {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::LeastLoaded, Self::Migrated, Self::ById, Self::ByHash, Self::Stranger, Self::Elsewhere, Self::Missing];

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeastLoaded => "least_loaded",
            Self::Migrated => "migrated",
            Self::ById => "by_id",
            Self::ByHash => "by_hash",
            Self::Stranger => "stranger",
            Self::Elsewhere => "elsewhere",
            Self::Missing => "missing",
        }
    }
}
