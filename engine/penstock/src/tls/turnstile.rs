//! The turnstile that handshakes pass: so many a turn of the worker's ring, the others in the order in which they came.
//!
//! A flight of a handshake is 150 to 450 µs of arithmetic. A thousand clients that connect at once would otherwise stop every exchange of
//! their worker for a third of a second; so each turn does a few, and everything else that is due (HAProxy's heavy tasks, `task.c`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use ring::{Now, TaskRef};

use crate::limits;

thread_local! {
    static TURNSTILE: RefCell<Turnstile<TaskRef>> = const { RefCell::new(Turnstile::new()) };
}

struct Turnstile<Task> {
    turn: Now,
    passed: usize,
    tickets: u64,
    waiting: VecDeque<(u64, Task)>,
}

/// A place in the queue; given up when whoever has it no longer waits.
struct Place(u64);

impl<Task: Copy> Turnstile<Task> {
    const fn new() -> Self {
        Self { turn: Now::from_nanos(0), passed: 0, tickets: 0, waiting: VecDeque::new() }
    }

    /// Whether the holder of this place goes now.
    fn passes(&mut self, now: Now, place: Option<u64>) -> bool {
        if self.turn != now {
            self.turn = now;
            self.passed = 0;
        }
        let at = match place {
            Some(ticket) => self.waiting.iter().position(|(waiting, _)| *waiting == ticket),
            None => Some(self.waiting.len()),
        };
        let goes = at.is_some_and(|at| at + self.passed < limits::HANDSHAKES_A_TURN);
        self.passed += usize::from(goes);
        goes
    }

    /// Those who may go in the next turn.
    fn next(&self) -> [Option<Task>; limits::HANDSHAKES_A_TURN] {
        std::array::from_fn(|at| self.waiting.get(at).map(|(_, task)| *task))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = TURNSTILE.with_borrow_mut(|turnstile| {
            turnstile.waiting.retain(|(ticket, _)| *ticket != self.0);
            turnstile.next()
        });
        next.into_iter().flatten().for_each(ring::wake);
    }
}

/// Waits for the right to one flight of a handshake.
pub async fn turn() {
    let mut place: Option<Place> = None;
    poll_fn(|_| {
        let ticket = place.as_ref().map(|place| place.0);
        let goes = TURNSTILE.with_borrow_mut(|turnstile| {
            let goes = turnstile.passes(ring::now(), ticket);
            if !goes && ticket.is_none() {
                turnstile.tickets += 1;
                let ticket = turnstile.tickets;
                turnstile.waiting.push_back((ticket, ring::current_task()));
                place = Some(Place(ticket));
            }
            goes
        });
        if goes {
            return Poll::Ready(());
        }
        // The first ones look again in the next turn; those behind them are woken when it is theirs.
        let next = TURNSTILE.with_borrow(Turnstile::next);
        next.into_iter().flatten().for_each(ring::wake);
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_in_a_turn_and_nobody_overtakes() {
        let mut turnstile = Turnstile::new();
        let first = Now::from_nanos(1);
        assert!(turnstile.passes(first, None) && turnstile.passes(first, None));
        assert!(!turnstile.passes(first, None));
        for ticket in 1..=3 {
            turnstile.waiting.push_back((ticket, ()));
        }
        let second = Now::from_nanos(2);
        assert!(!turnstile.passes(second, None), "a newcomer waits behind those who wait");
        assert!(!turnstile.passes(second, Some(3)));
        assert!(turnstile.passes(second, Some(1)));
        turnstile.waiting.pop_front();
        assert!(turnstile.passes(second, Some(2)));
        turnstile.waiting.pop_front();
        assert!(!turnstile.passes(second, Some(3)), "two have passed");
        assert!(turnstile.passes(Now::from_nanos(3), Some(3)));
    }
}
