//! A look at what is dropped: samples that the program takes, as long as somebody asks for them.
//!
//! What holds: the program takes so many samples a second and no more, and none while nobody asks. They have numbers, each its own; who asks says
//! up to which he has them. What finds no room, in the kernel's ring or here, leaves its number unused, so that a slow reader is told how many he has missed.

use std::collections::VecDeque;

use ring::Now;

use super::program::{Program, Sample};
use crate::limits;

/// What somebody wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tapping {
    /// A bit for each reason.
    pub reasons: u64,
    /// One packet in so many.
    pub one_in: u32,
    /// The number of the last sample that he has; `None`: from now on.
    pub after: Option<u64>,
}

/// What there is for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tapped {
    pub samples: Vec<Sample>,
    /// The number to ask with the next time.
    pub upto: u64,
    /// Samples since the last time, of whatever reason, for which there was no room.
    pub missed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tap {
    kept: VecDeque<(u64, Sample)>,
    /// The number of the last sample.
    last: u64,
    /// Samples for which there was no room in the kernel's ring, as of the last look.
    lost: u64,
    wish: Option<Wish>,
}

/// What all want together.
#[derive(Debug, Clone, Copy)]
struct Wish {
    reasons: u64,
    one_in: u32,
    until: Now,
}

impl Tap {
    /// What the program is to sample: a bit for each reason, and one packet in how many.
    pub(super) fn wanted(&self) -> (u64, u64) {
        self.wish.map_or((0, 1), |wish| (wish.reasons, wish.one_in.into()))
    }

    /// Takes what the program has sampled, and notes who asks no more.
    pub(super) fn look(&mut self, program: &mut Program, now: Now) {
        let lost = program.samples_lost();
        self.take(std::iter::from_fn(|| program.next_sample()), lost);
        if self.wish.is_some_and(|wish| wish.until <= now) {
            self.wish = None;
            self.kept.clear();
        }
    }

    fn take(&mut self, samples: impl Iterator<Item = Sample>, lost: u64) {
        self.last += lost.saturating_sub(self.lost);
        self.lost = lost;
        // No more than there is room for, however fast they come.
        for sample in samples.take(limits::TAP_KEPT) {
            self.last += 1;
            self.kept.push_back((self.last, sample));
        }
        while self.kept.len() > limits::TAP_KEPT {
            self.kept.pop_front();
        }
    }

    /// Somebody asks: what he wants is sampled for a while from now on, the finest of what all want. Gives him what there is.
    pub(super) fn ask(&mut self, tapping: Tapping, now: Now) -> Tapped {
        let until = now + limits::TAP_LASTS;
        let wish = self.wish.get_or_insert(Wish { reasons: 0, one_in: tapping.one_in, until });
        wish.reasons |= tapping.reasons;
        wish.one_in = wish.one_in.min(tapping.one_in);
        wish.until = until;
        let Some(after) = tapping.after.filter(|after| *after <= self.last) else {
            return Tapped { upto: self.last, ..Tapped::default() };
        };
        let news: Vec<_> = self.kept.iter().filter(|(number, _)| *number > after).collect();
        let is_wanted = |sample: &Sample| tapping.reasons >> sample.reason as u32 & 1 == 1;
        let mut told = Tapped { upto: self.last, ..Tapped::default() };
        let mut passed = 0;
        for (number, sample) in news {
            if told.samples.len() == limits::TAP_ANSWER_MAX {
                told.upto = number - 1;
                break;
            }
            passed += 1;
            if is_wanted(sample) {
                told.samples.push(sample.clone());
            }
        }
        told.missed = told.upto - after - passed;
        told
    }
}

#[cfg(test)]
mod tests {
    use abi::shield::Reason;

    use super::*;

    const ALL: u64 = u64::MAX;

    fn sample(reason: Reason, octets: u32) -> Sample {
        Sample { at_ns: 1, reason, is_dry: false, interface: 1, octets, packet: Vec::new() }
    }

    fn asks(tap: &mut Tap, after: Option<u64>, reasons: u64) -> (usize, u64, u64) {
        let told = tap.ask(Tapping { reasons, one_in: 1, after }, Now::from_nanos(0));
        (told.samples.len(), told.upto, told.missed)
    }

    #[test]
    fn everybody_gets_what_is_new_to_him() {
        let mut tap = Tap::default();
        assert_eq!(asks(&mut tap, None, ALL), (0, 0, 0));
        tap.take([sample(Reason::Denied, 60), sample(Reason::Land, 61)].into_iter(), 0);
        assert_eq!(asks(&mut tap, Some(0), ALL), (2, 2, 0));
        assert_eq!(asks(&mut tap, Some(1), ALL), (1, 2, 0));
        assert_eq!(asks(&mut tap, Some(2), ALL), (0, 2, 0));
        assert_eq!(
            asks(&mut tap, Some(0), 1 << Reason::Land as u32),
            (1, 2, 0),
            "what he does not want he has not missed"
        );
        assert_eq!(asks(&mut tap, Some(9), ALL), (0, 2, 0), "of another engine");
        // Three found no room in the kernel's ring.
        tap.take([sample(Reason::Denied, 62)].into_iter(), 3);
        assert_eq!(asks(&mut tap, Some(2), ALL), (1, 6, 3));
    }

    #[test]
    fn who_is_slow_misses_what_there_is_no_room_for() {
        let mut tap = Tap::default();
        let most = limits::TAP_KEPT as u64;
        for _ in 0..3 {
            tap.take((0..most).map(|at| sample(Reason::Denied, at as u32)), 0);
        }
        let (mut after, mut got) = (0, 0);
        let (first, upto, missed) = asks(&mut tap, Some(after), ALL);
        assert_eq!((first, missed), (limits::TAP_ANSWER_MAX, 2 * most));
        after = upto;
        got += first as u64;
        while got < most {
            let (more, upto, missed) = asks(&mut tap, Some(after), ALL);
            assert_eq!(missed, 0);
            assert!(more > 0);
            (after, got) = (upto, got + more as u64);
        }
        assert_eq!((got, after), (most, 3 * most));
        // However fast they come, a look takes no more than there is room for.
        tap.take(std::iter::repeat(sample(Reason::Denied, 1)), 0);
        assert_eq!(asks(&mut tap, Some(after), ALL).2, 0);
    }

    #[test]
    fn the_finest_wish_counts_until_nobody_has_one() {
        let mut tap = Tap::default();
        assert_eq!(tap.wanted(), (0, 1));
        let (denied, land) = (1 << Reason::Denied as u32, 1 << Reason::Land as u32);
        tap.ask(Tapping { reasons: denied, one_in: 100, after: None }, Now::from_nanos(0));
        assert_eq!(tap.wanted(), (denied, 100));
        tap.ask(Tapping { reasons: land, one_in: 10, after: None }, Now::from_nanos(0));
        tap.ask(Tapping { reasons: land, one_in: 1_000, after: None }, Now::from_nanos(0));
        assert_eq!(tap.wanted(), (denied | land, 10));
    }
}
