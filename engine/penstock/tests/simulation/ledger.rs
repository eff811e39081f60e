//! What every request asks and is answered, and who saw it: written by the scripts of both sides, and compared here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use ring::sim::Dice;

/// How often one request is sent in all: three tries of the pool's policy, each preceded by one on a pooled connection that turned out to be dead; or some
/// that do not count.
const SIGHTINGS_MAX: usize = 6;

/// How the content of a message is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    None,
    Length,
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) id: u64,
    pub(crate) method: &'static str,
    pub http10: bool,
    /// Asks for the connection to be kept, or to be closed; else says nothing.
    pub(crate) connection: Option<&'static str>,
    pub(crate) framing: Framing,
    pub(crate) size: usize,
    pub(crate) expect: bool,
    /// Its end may arrive later than its head, so that there might be content.
    pub(crate) ends_late: bool,
}

/// What an origin answers to it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) size: usize,
    /// 103s before it.
    pub(crate) hints: usize,
    /// It comes before the request's content has been read.
    pub(crate) early: bool,
    /// The origin says that it closes, and does.
    pub(crate) closes: bool,
}

#[derive(Debug)]
struct Entry {
    ask: Ask,
    sightings: Vec<Sighting>,
    /// How often an origin would not look at it, since the client asked.
    refused: usize,
    /// The client has seen something of a final answer.
    answered: bool,
    /// An origin has given a final answer, and soon.
    given: bool,
}

/// A request as one origin saw it.
#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    /// Bytes of content that make the answer whole, once the origin gives it wholly.
    whole: Option<usize>,
}

pub(crate) struct Ledger {
    seed: u64,
    size_max: usize,
    entries: RefCell<HashMap<u64, Entry>>,
    issued: Cell<u64>,
    /// When the engine was told to end.
    drained_at: Cell<Option<u64>>,
    /// Of what may be sent twice and has no content, two copies may be out at once.
    hedges: bool,
}

impl Ledger {
    pub(crate) fn new(seed: u64, size_max: usize, hedges: bool) -> Rc<Self> {
        let (entries, issued, drained_at) = (RefCell::default(), Cell::new(1), Cell::default());
        Rc::new(Self { seed, size_max, entries, issued, drained_at, hedges })
    }

    /// A new request; what it is follows from the seed and its number.
    pub(crate) fn ask(&self) -> Ask {
        let id = self.issued.replace(self.issued.get() + 1);
        let mut dice = self.dice(id, 0);
        let method = *one_of(&mut dice, &["GET", "GET", "GET", "HEAD", "DELETE", "POST", "POST", "PUT"]);
        let http10 = dice.chance(0.15);
        let framing = match method {
            "POST" | "PUT" if http10 => Framing::Length,
            "POST" | "PUT" => *one_of(&mut dice, &[Framing::Length, Framing::Chunked]),
            _ => Framing::None,
        };
        let connection = match http10 {
            true => *one_of(&mut dice, &[None, Some("keep-alive")]),
            false => *one_of(&mut dice, &[None, None, None, None, None, None, None, Some("close")]),
        };
        let size = if framing == Framing::None { 0 } else { self.size(&mut dice) };
        let expect = size > 0 && !http10 && dice.chance(0.2);
        let ask = Ask { id, method, http10, connection, framing, size, expect, ends_late: false };
        let entry = Entry { ask: ask.clone(), sightings: Vec::new(), refused: 0, answered: false, given: false };
        self.entries.borrow_mut().insert(id, entry);
        ask
    }

    /// The same, as it can be asked over HTTP/2.
    pub(crate) fn ask_multiplexed(&self) -> Ask {
        let ask = Ask { http10: false, connection: None, expect: false, ..self.ask() };
        self.entries.borrow_mut().get_mut(&ask.id).expect("it was just asked").ask = ask.clone();
        ask
    }

    /// The end of this one may arrive later than its head.
    pub(crate) fn may_end_late(&self, id: u64) {
        self.entries.borrow_mut().get_mut(&id).expect("asked").ask.ends_late = true;
    }

    pub(crate) fn asked(&self, id: u64) -> Option<Ask> {
        self.entries.borrow().get(&id).map(|entry| entry.ask.clone())
    }

    /// What every origin answers to this request.
    pub(crate) fn answer(&self, ask: &Ask) -> Answer {
        let mut dice = self.dice(ask.id, 1);
        let status = *one_of(&mut dice, &[200, 200, 200, 200, 200, 404, 204, 304, 503]);
        let framing = match status {
            204 | 304 => Framing::None,
            _ => *one_of(&mut dice, &[Framing::Length, Framing::Length, Framing::Chunked, Framing::Close]),
        };
        let size = if framing == Framing::None { 0 } else { self.size(&mut dice) };
        Answer {
            status,
            framing,
            size,
            hints: if dice.chance(0.1) { dice.within(1..=3) } else { 0 },
            early: ask.size > 0 && !ask.expect && dice.chance(0.15),
            closes: framing == Framing::Close || dice.chance(0.1),
        }
    }

    /// An origin has read the request's head, as soon as it came; returns which attempt this is, from 0.
    pub(crate) fn seen(&self, id: u64) -> usize {
        assert!(!self.is_stray(id), "request {id} was sent again although its answer had begun");
        self.seen_late(id)
    }

    /// Its answer has begun, from another origin or this one, and not both of two copies.
    pub(crate) fn is_stray(&self, id: u64) -> bool {
        let entry = &self.entries.borrow()[&id];
        // A second copy may have been on its way when the first one's answer began.
        let copied = self.hedges && entry.ask.method != "POST" && entry.ask.size == 0;
        entry.answered && !copied
    }

    /// The same of an origin that may have let it lie.
    pub(crate) fn seen_late(&self, id: u64) -> usize {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&id).expect("an origin saw a request that nobody sent");
        entry.sightings.push(Sighting::default());
        let count = entry.sightings.len();
        let most = if entry.ask.method == "POST" { 1 } else { SIGHTINGS_MAX };
        assert!(count <= most, "request {id} was sent {count} times: {:?}", entry.ask);
        count - 1
    }

    /// An origin does not look at the request, and says so.
    pub(crate) fn refused(&self, id: u64) {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&id).expect("an origin saw a request that nobody sent");
        entry.refused += 1;
        assert!(entry.refused <= SIGHTINGS_MAX, "request {id} was refused {} times: {:?}", entry.refused, entry.ask);
    }

    /// The client asks the same once more.
    pub(crate) fn asked_again(&self, id: u64) {
        self.entries.borrow_mut().get_mut(&id).expect("asked").refused = 0;
    }

    pub(crate) fn sightings(&self, id: u64) -> usize {
        self.entries.borrow()[&id].sightings.len()
    }

    /// The origin is about to give the last of `size` bytes of content, and nothing is missing.
    pub(crate) fn whole(&self, id: u64, attempt: usize, size: usize) {
        self.entries.borrow_mut().get_mut(&id).expect("seen").sightings[attempt].whole = Some(size);
    }

    /// An origin has given a final answer, at least its head, so soon that nobody has lost patience with it.
    pub(crate) fn given(&self, id: u64) {
        self.entries.borrow_mut().get_mut(&id).expect("seen").given = true;
    }

    /// The client gets an answer of the engine's own, with no connection broken but by origins.
    pub(crate) fn check_own(&self, id: u64, status: u16) {
        let entries = self.entries.borrow();
        let entry = &entries[&id];
        // One that broke off in its content is no answer that could be passed on.
        let given = entry.given && entry.sightings.iter().any(|sighting| sighting.whole.is_some());
        assert!(!given || status < 500, "{status} by ourselves, though an origin has answered request {id}");
    }

    /// How long the answer of that attempt is, if it was given wholly.
    pub(crate) fn whole_size(&self, id: u64, attempt: usize) -> Option<usize> {
        self.entries.borrow()[&id].sightings.get(attempt)?.whole
    }

    /// The client sees a final answer.
    pub(crate) fn answered(&self, id: u64) {
        self.entries.borrow_mut().get_mut(&id).expect("asked").answered = true;
    }

    pub(crate) fn drain_at(&self, now: u64) {
        self.drained_at.set(Some(now));
    }

    pub(crate) fn drained_at(&self) -> Option<u64> {
        self.drained_at.get()
    }

    /// What there is of chance in what `id` is about.
    pub(crate) fn dice(&self, id: u64, salt: u64) -> Dice {
        Dice::new(self.seed ^ (id * 4 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Mostly small, now and then as large as it may be.
    fn size(&self, dice: &mut Dice) -> usize {
        let most = *one_of(dice, &[0, 10, 500, 500, 5_000, 20_000, 70_000, 200_000]);
        dice.within(0..=most.min(self.size_max))
    }
}

/// The content of an answer, or with attempt `usize::MAX` of a request: nobody else's.
pub(crate) fn content(id: u64, attempt: usize, size: usize) -> Vec<u8> {
    let mut state = id.wrapping_mul(0xd129_0b2c_6ab6_4d4d) ^ (attempt as u64).wrapping_add(1);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The attempt that stands for a request's own content.
pub(crate) const REQUEST: usize = usize::MAX;

pub(crate) fn one_of<'a, T>(dice: &mut Dice, from: &'a [T]) -> &'a T {
    &from[dice.within(0..=from.len() - 1)]
}
