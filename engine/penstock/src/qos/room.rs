//! A pool's places on one worker, and those who wait for one.
//!
//! A request enters, waits if it must, holds its place for as long as it is in flight, and by dropping it lets the next one in. Whose turn it is
//! [`policy::WaitingRoom`] knows; how many there are, [`Places`] or a found limit. Where only the endpoints have limits, the places are theirs: the room
//! is [told](Room::attend) how to see whether one of them has any.
//!
//! What holds here: nobody overtakes the row; each who waits has a deadline of its own, so a pool that has stopped keeps nobody longer
//! than that; who leaves gives its seat up in that moment; storage is taken when the worker starts.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use policy::classes::Seat;
use policy::{
    Begun, ClassSettings, Concurrency, Dropped, Now, Preference, QueueSettings, Reason, Verdict, Waiting, WaitingRoom,
};
use ring::TaskRef;

use super::places::Places;
use super::{ClassCells, PoolCells, Shared};
use crate::limits;
use crate::snapshot::{Admission, Class, ClassId, ConcurrencyLimit};

/// Weight of a new request in what one of its class is thought to cost: an eighth, as in TCP's round-trip estimate (RFC 6298).
const COST_SHIFT: u32 = 3;
/// What a request is thought to cost before any was seen, µs.
const COST_FIRST: u32 = 1_000;

/// How many may be in.
#[derive(Debug)]
pub(super) enum Gate {
    /// As many as the endpoints take.
    Open,
    Shared {
        places: Arc<Places>,
        worker: usize,
    },
    Found(RefCell<Concurrency>),
}

impl Gate {
    pub(super) fn new(admission: &Admission, places: Option<Arc<Places>>, worker: usize, seed: u64) -> Self {
        match (admission.concurrency, places) {
            (ConcurrencyLimit::Auto, _) => Self::Found(RefCell::new(Concurrency::found(admission.gradient, seed))),
            (_, Some(places)) => Self::Shared { places, worker },
            _ => Self::Open,
        }
    }

    /// `strict`: the place is for the strict class.
    fn take(&self, now: Now, strict: bool) -> Option<Held> {
        let held = Held { since: now, begun: None };
        match self {
            Self::Open => Some(held),
            Self::Shared { places, worker } => places.take(*worker, now, strict).then_some(held),
            Self::Found(found) => {
                let mut found = found.borrow_mut();
                let begun = if strict { found.begin_first(now) } else { found.begin(now) };
                Some(Held { since: now, begun: Some(begun?) })
            }
        }
    }

    fn give_back(&self, held: Held, at: Now, verdict: Verdict) {
        match (self, held.begun) {
            (Self::Shared { places, worker }, _) => places.give_back(*worker),
            (Self::Found(found), Some(begun)) => found.borrow_mut().end(at, begun, verdict),
            _ => {}
        }
    }
}

/// Where the room's counts are told.
#[derive(Debug)]
pub(super) struct Told {
    shared: Arc<Shared>,
    worker: usize,
    pool: usize,
}

impl Told {
    pub(super) fn new(shared: &Arc<Shared>, worker: usize, pool: usize) -> Self {
        Self { shared: Arc::clone(shared), worker, pool }
    }

    fn class(&self, class: usize) -> &ClassCells {
        &self.shared.cells[self.worker].classes[class]
    }

    fn pool(&self) -> &PoolCells {
        &self.shared.cells[self.worker].pools[self.pool]
    }
}

pub struct Room {
    gate: Gate,
    row: RefCell<Row>,
    /// Requests in flight here.
    inside: Cell<u32>,
    /// Whether an endpoint would take one more, where they have limits.
    endpoints: OnceCell<Box<dyn Fn() -> bool>>,
    /// Somebody looks for places that others gave back.
    watched: Cell<bool>,
    /// How long one of each class may wait, and what one costs, µs.
    waits: Box<[Duration]>,
    costs: Box<[Cell<u32>]>,
    strict: Option<usize>,
    told: Told,
}

#[derive(Debug)]
struct Row {
    waiting: WaitingRoom,
    seats: Box<[Who]>,
    free: u32,
}

/// Who waits, and what became of it.
#[derive(Debug)]
enum Who {
    /// The next free one.
    Nobody(u32),
    Waits(TaskRef),
    Served(Held),
    SentAway(Reason),
}

/// A place that is held.
#[derive(Debug)]
struct Held {
    since: Now,
    begun: Option<Begun>,
}

/// Why a request may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    /// When it would be worth to come back, s.
    pub retry_secs: u32,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Room({} inside, {} waiting)", self.inside.get(), self.row.borrow().waiting.len())
    }
}

impl Room {
    pub(super) fn new(gate: Gate, classes: &[Class], queue: QueueSettings, told: Told) -> Self {
        let wait = |class: &Class| class.wait.unwrap_or(queue.wait_max);
        let settings: Vec<ClassSettings> = classes
            .iter()
            .map(|class| ClassSettings {
                weight: class.weight,
                queue: QueueSettings { wait_max: wait(class), ..queue },
                strict_percent: class.strict.then_some(limits::STRICT_PERCENT),
            })
            .collect();
        let seats = queue.length_max.saturating_mul(classes.len() as u32);
        let row = Row { waiting: WaitingRoom::new(&settings), seats: (1..=seats).map(Who::Nobody).collect(), free: 0 };
        Self {
            gate,
            row: RefCell::new(row),
            inside: Cell::new(0),
            endpoints: OnceCell::new(),
            watched: Cell::new(false),
            waits: classes.iter().map(wait).collect(),
            costs: classes.iter().map(|_| Cell::new(COST_FIRST)).collect(),
            strict: classes.iter().position(|class| class.strict),
            told,
        }
    }

    /// A request wants a place; `deadline` is when its answer is of no use any more.
    #[must_use]
    pub fn enter(self: &Rc<Self>, class: ClassId, deadline: Option<Now>) -> Entering<'_> {
        let latest = super::now().plus(self.waits[usize::from(class.0)]);
        let latest = deadline.map_or(latest, |deadline| deadline.min(latest));
        Entering { room: self, class, deadline, latest, since: super::now(), seat: None }
    }

    /// The endpoints have limits of their own: `has_place` says whether one of them would take a request now.
    pub fn attend(&self, has_place: impl Fn() -> bool + 'static) {
        // A second word on the same thing would be a mistake of the worker's; the first one holds.
        let _ = self.endpoints.set(Box::new(has_place));
    }

    /// Whether a request that comes now would have to wait. Where only the endpoints have limits, they know.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let taken = match &self.gate {
            Gate::Open => false,
            Gate::Shared { places, .. } => places.is_full(),
            Gate::Found(found) => found.borrow().in_flight() >= found.borrow().limit(),
        };
        taken || !self.row.borrow().waiting.is_empty()
    }

    fn endpoints_have_place(&self) -> bool {
        self.endpoints.get().is_none_or(|has_place| has_place())
    }

    /// Lets those in who can be.
    pub fn serve(&self, now: Now) {
        // Whom we let in takes its endpoint later: how many more these would bear cannot be seen before.
        let most = if self.endpoints.get().is_some() { 1 } else { u32::MAX };
        for _ in 0..most {
            if self.row.borrow().waiting.is_empty() || !self.endpoints_have_place() {
                break;
            }
            let row = &mut *self.row.borrow_mut();
            let Row { waiting, seats, .. } = row;
            let before = self.heed(waiting);
            let Some(held) = self.gate.take(now, waiting.prefers()) else { break };
            let next = waiting.pop(now, &mut |dropped| self.send_away(seats, dropped));
            if let (Gate::Shared { places, .. }, Some(before), Some(after)) = (&self.gate, before, waiting.preference())
            {
                places.change_preference(before, after);
            }
            let Some(next) = next else {
                self.gate.give_back(held, now, Verdict::Neutral);
                break;
            };
            self.told.class(next.class).waits.record(next.served.waited.as_nanos() as u64);
            let who = std::mem::replace(&mut seats[next.served.id as usize], Who::Served(held));
            if let Who::Waits(task) = who {
                ring::wake(task);
            }
        }
        self.tell(now);
    }

    /// What the strict class may still go first for, where workers share the pool's places.
    fn heed(&self, waiting: &mut WaitingRoom) -> Option<Preference> {
        let Gate::Shared { places, worker } = &self.gate else { return None };
        self.strict?;
        let preference = places.preference();
        waiting.heed(preference, places.others_wait(*worker));
        Some(preference)
    }

    /// One that did not have to wait has a place: it counts all the same while others wait elsewhere.
    fn charge(&self, class: usize) {
        let (Gate::Shared { places, worker }, Some(strict)) = (&self.gate, self.strict) else { return };
        let (before, cost) = (places.preference(), self.costs[class].get());
        let after = match class == strict {
            true if places.others_wait(*worker) => before.spent(cost),
            true => before,
            false => before.earned(cost, limits::STRICT_PERCENT),
        };
        places.change_preference(before, after);
    }

    fn send_away(&self, seats: &mut [Who], dropped: Dropped) {
        let cells = self.told.class(dropped.class);
        match dropped.reason {
            Reason::Full => cells.full.add(1),
            Reason::Codel => cells.codel.add(1),
            Reason::Deadline => cells.deadline.add(1),
        }
        let who = std::mem::replace(&mut seats[dropped.id as usize], Who::SentAway(dropped.reason));
        if let Who::Waits(task) = who {
            ring::wake(task);
        }
    }

    /// Tells the other workers and the operator how things stand.
    fn tell(&self, now: Now) {
        let (waiting, strict) = {
            let row = self.row.borrow();
            (row.waiting.len(), row.waiting.strict_len())
        };
        let cells = self.told.pool();
        cells.waiting.set(waiting.into());
        cells.in_flight.set(self.inside.get().into());
        match &self.gate {
            Gate::Open => {}
            Gate::Shared { places, worker } => {
                places.set_waiting(*worker, now, waiting, strict);
                cells.limit.set(places.limit().unwrap_or_default().into());
            }
            Gate::Found(found) => cells.limit.set(found.borrow().limit().into()),
        }
    }

    /// Looks for what other workers gave back, while somebody waits.
    fn watch(self: &Rc<Self>) {
        let alone = match &self.gate {
            Gate::Shared { places, .. } => !places.is_shared(),
            Gate::Open | Gate::Found(_) => true,
        };
        if alone && self.endpoints.get().is_none() || self.watched.replace(true) {
            return;
        }
        let room = Rc::clone(self);
        ring::spawn(async move {
            while !room.row.borrow().waiting.is_empty() {
                ring::sleep(limits::PLACES_LOOK).await;
                let now = super::now();
                // Who has no endpoint for a place keeps none from the others; where endpoints have the places, that is what it waits for.
                if let Gate::Shared { places, worker } = &room.gate
                    && (places.limit().is_none() || room.endpoints_have_place())
                {
                    places.looks(*worker, now);
                }
                room.serve(now);
            }
            room.watched.set(false);
        });
    }

    fn leave(&self, held: Held, class: ClassId, at: Now, verdict: Verdict) {
        self.inside.set(self.inside.get().saturating_sub(1));
        if verdict != Verdict::Neutral {
            let cost = &self.costs[usize::from(class.0)];
            let seen = u32::try_from(at.nanos_since(held.since) / 1_000).unwrap_or(u32::MAX);
            cost.set(cost.get() - (cost.get() >> COST_SHIFT) + (seen >> COST_SHIFT));
        }
        self.gate.give_back(held, at, verdict);
        self.serve(super::now());
    }
}

/// A request that wants a place. Dropping it leaves the row.
#[derive(Debug)]
pub struct Entering<'a> {
    room: &'a Rc<Room>,
    class: ClassId,
    deadline: Option<Now>,
    latest: Now,
    since: Now,
    seat: Option<(Seat, u32)>,
}

impl<'a> Entering<'a> {
    /// The latest moment to be let in.
    #[must_use]
    pub fn latest(&self) -> ring::Now {
        ring::Now::from_nanos(self.latest.nanos())
    }

    /// Ready with a place, or with the reason why there is none. Poll again at [`latest`](Self::latest); otherwise the task is woken.
    pub fn poll(&mut self, task: TaskRef) -> Poll<Result<Place<'a>, Refused>> {
        let now = super::now();
        let Some((seat, at)) = self.seat else { return self.come(now, task) };
        let row = &mut *self.room.row.borrow_mut();
        if let Who::Waits(waits) = &mut row.seats[at as usize] {
            *waits = task;
            if now < self.latest {
                return Poll::Pending;
            }
        }
        self.seat = None;
        Poll::Ready(match row.stand_up(seat, at) {
            Who::Served(held) => Ok(self.room.place(held, self.class)),
            Who::SentAway(reason) => Err(self.refused(&row.waiting, reason)),
            Who::Waits(_) | Who::Nobody(_) => {
                self.room.told.class(usize::from(self.class.0)).deadline.add(1);
                Err(self.refused(&row.waiting, Reason::Deadline))
            }
        })
    }

    /// Goes in if nobody waits and there is a place; else sits down.
    fn come(&mut self, now: Now, task: TaskRef) -> Poll<Result<Place<'a>, Refused>> {
        let (room, class) = (self.room, usize::from(self.class.0));
        let nobody_waits = room.row.borrow().waiting.is_empty();
        if nobody_waits
            && room.endpoints_have_place()
            && let Some(held) = room.gate.take(now, room.strict == Some(class))
        {
            room.charge(class);
            return Poll::Ready(Ok(room.place(held, self.class)));
        }
        let sits = self.sit_down(now, task);
        if let Err(reason) = sits {
            let cells = room.told.class(class);
            match reason {
                Reason::Full => cells.full.add(1),
                Reason::Codel | Reason::Deadline => cells.deadline.add(1),
            }
            return Poll::Ready(Err(self.refused(&room.row.borrow().waiting, reason)));
        }
        room.tell(now);
        room.watch();
        if room.strict == Some(class) && matches!(room.gate, Gate::Found(_)) {
            // There is a place that those who wait may not have.
            room.serve(now);
            return self.poll(task);
        }
        Poll::Pending
    }

    fn sit_down(&mut self, now: Now, task: TaskRef) -> Result<(), Reason> {
        let row = &mut *self.room.row.borrow_mut();
        let at = row.free;
        let Some(Who::Nobody(next)) = row.seats.get(at as usize) else { return Err(Reason::Full) };
        let next = *next;
        let class = usize::from(self.class.0);
        let waiting = Waiting { id: at.into(), cost_us: self.room.costs[class].get(), deadline: self.deadline };
        let seat = row.waiting.push(now, class, waiting)?;
        row.free = next;
        row.seats[at as usize] = Who::Waits(task);
        self.seat = Some((seat, at));
        Ok(())
    }

    fn refused(&self, waiting: &WaitingRoom, reason: Reason) -> Refused {
        let class = usize::from(self.class.0);
        // Where nobody was served yet, nobody knows: as long as it has waited itself.
        let waited = super::now().since(self.since);
        Refused { reason, retry_secs: super::rate::seconds_up(waiting.retry_after(class).max(waited)) }
    }
}

impl Row {
    /// Frees a seat, and says what became of who sat there.
    fn stand_up(&mut self, seat: Seat, at: u32) -> Who {
        self.waiting.remove(seat);
        let who = std::mem::replace(&mut self.seats[at as usize], Who::Nobody(self.free));
        self.free = at;
        who
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        let Some((seat, at)) = self.seat.take() else { return };
        let who = self.room.row.borrow_mut().stand_up(seat, at);
        let now = super::now();
        let cells = self.room.told.class(usize::from(self.class.0));
        match who {
            // It was let in and never knew.
            Who::Served(held) => {
                cells.left.add(1);
                self.room.gate.give_back(held, now, Verdict::Neutral);
                self.room.serve(now);
            }
            Who::Waits(_) => {
                cells.left.add(1);
                self.room.tell(now);
            }
            Who::SentAway(_) | Who::Nobody(_) => {}
        }
    }
}

/// A place in a pool, for one request and all its tries.
#[derive(Debug)]
pub struct Place<'a> {
    room: &'a Rc<Room>,
    class: ClassId,
    held: Option<Held>,
}

impl Room {
    fn place(self: &Rc<Self>, held: Held, class: ClassId) -> Place<'_> {
        self.inside.set(self.inside.get() + 1);
        self.told.pool().in_flight.set(self.inside.get().into());
        Place { room: self, class, held: Some(held) }
    }
}

impl<'a> Place<'a> {
    /// The request was answered, or given up; its endpoint took `latency`, and the limit learns from that.
    pub fn end(mut self, latency: Duration, verdict: Verdict) {
        if let Some(held) = self.held.take() {
            let at = held.since.plus(latency);
            self.room.leave(held, self.class, at, verdict);
        }
    }

    /// All endpoints turned out to be full: gives the place back and gets in line again, no longer than if it had come at
    /// `since`.
    #[must_use]
    pub fn wait_again(mut self, since: Now) -> Entering<'a> {
        let (room, class) = (self.room, self.class);
        if let Some(held) = self.held.take() {
            room.inside.set(room.inside.get().saturating_sub(1));
            room.gate.give_back(held, super::now(), Verdict::Neutral);
        }
        let latest = since.plus(room.waits[usize::from(class.0)]);
        room.enter(class, Some(latest))
    }

    /// It has its endpoint: there may be room for the next one.
    pub fn has_endpoint(&self) {
        if self.room.endpoints.get().is_some() && !self.room.row.borrow().waiting.is_empty() {
            self.room.serve(super::now());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.room.leave(held, self.class, super::now(), Verdict::Neutral);
        }
    }
}

#[cfg(test)]
mod tests;
