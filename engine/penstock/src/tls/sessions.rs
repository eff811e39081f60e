//! Sessions that are good for one use: what a listener with early data remembers of its clients in the place of tickets that remember themselves.
//!
//! Early data can be recorded and sent again (RFC 8446 §8). What holds here: a session is taken out when it is used, by whichever worker, so
//! that a first flight is answered with "accepted" once and never again: that is the register of RFC 8446 §8.1, and nothing else is
//! needed. Another machine, and this one after a restart, does not know the session at all; there its client shakes hands in full, and a recorded flight is
//! refused. The oldest session makes room for a new one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;

/// The sessions of one listener, for all workers. Touched in handshakes only.
#[derive(Debug)]
pub(super) struct Sessions {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Default)]
struct Kept {
    /// In a ring, the oldest at `next` once it is full. What was taken leaves its place empty.
    places: Vec<Option<Session>>,
    next: usize,
    by_id: HashMap<Vec<u8>, usize>,
}

struct Session {
    id: Vec<u8>,
    value: Vec<u8>,
}

impl Sessions {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    pub(super) fn len(&self) -> usize {
        self.kept().by_id.len()
    }

    /// What is kept is whole between any two steps, so a panic elsewhere takes nothing away.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, session: Session, most: usize) {
        let at = self.next;
        self.next = (at + 1) % most;
        if at == self.places.len() {
            self.places.push(None);
        }
        if let Some(oldest) = self.places[at].take() {
            self.by_id.remove(&oldest.id);
        }
        if let Some(before) = self.by_id.insert(session.id.clone(), at) {
            self.places[before] = None;
        }
        self.places[at] = Some(session);
    }

    fn take(&mut self, id: &[u8]) -> Option<Vec<u8>> {
        let at = self.by_id.remove(id)?;
        self.places[at].take().map(|session| session.value)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        self.kept().put(Session { id, value }, self.most);
        true
    }

    /// For TLS 1.2 alone, which has no early data.
    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept();
        let session = kept.places[*kept.by_id.get(id)?].as_ref()?;
        Some(session.value.clone())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.kept().take(id)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for Kept {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("sessions", &self.by_id.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    #[test]
    fn a_session_is_taken_once() {
        let sessions = Sessions::new(4);
        assert!(sessions.put(id(1), vec![1]));
        assert_eq!(sessions.get(&id(1)), Some(vec![1]));
        assert_eq!(sessions.take(&id(1)), Some(vec![1]));
        assert_eq!((sessions.take(&id(1)), sessions.get(&id(1))), (None, None));
    }

    #[test]
    fn many_threads_take_it_once() {
        let sessions = Sessions::new(1_000);
        (0..1_000).for_each(|number| assert!(sessions.put(id(number), id(number))));
        let take_all = || (0..1_000).filter(|&number| sessions.take(&id(number)).is_some()).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take_all)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it takes")).sum()
        });
        assert_eq!(taken, 1_000);
    }

    /// The oldest goes first, whatever was taken or put again meanwhile; nothing is kept of who has gone.
    #[test]
    fn there_is_room_for_so_many() {
        let sessions = Sessions::new(3);
        for number in 0..1_000 {
            assert!(sessions.put(id(number % 7), id(number)));
            if number % 5 == 0 {
                sessions.take(&id((number + 5) % 7));
            }
            let kept = sessions.kept();
            assert!(kept.by_id.len() <= 3 && kept.places.len() <= 3);
            assert_eq!(kept.places.iter().flatten().count(), kept.by_id.len());
            drop(kept);
            assert_eq!(sessions.get(&id(number % 7)), Some(id(number)));
        }
        (0..4).for_each(|number| assert!(sessions.put(id(10 + number), id(number))));
        assert_eq!(sessions.get(&id(10)), None);
        (1..4).for_each(|number| assert_eq!(sessions.take(&id(10 + number)), Some(id(number))));
    }
}
