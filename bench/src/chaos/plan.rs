//! What goes wrong, where, and when: one fault after the other, then all of them at once, changing places.

use crate::echo::fleet::Fault;
use crate::echo::origin::Behaviour;
use crate::stats;

/// Origins behind each proxy.
pub(crate) const ORIGINS: usize = 5;

/// A stretch of the run: `turns` of the same length, and in each the origins that are not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) turns: Vec<[Option<Fault>; ORIGINS]>,
}

/// One origin has it, the others are well.
const ALONE: &[(&str, &str, Fault)] = &[
    ("dead", "one origin killed (-9), started again at the end", Fault::Dead),
    ("hanging", "one origin stopped (SIGSTOP), continued at the end", Fault::Hanging),
    ("slow", "one origin ten times slower", Fault::Behaving(Behaviour::Slow)),
    ("failing", "one origin answers 503 to half", Fault::Behaving(Behaviour::HalfFailing)),
    ("refusing", "one origin answers 503 to everything", Fault::Behaving(Behaviour::Refusing)),
    ("broken", "one origin answers 500 to everything", Fault::Behaving(Behaviour::Broken)),
    ("resetting", "one origin resets connections instead of answering", Fault::Behaving(Behaviour::Resetting)),
    ("mute", "one origin reads requests and answers none", Fault::Behaving(Behaviour::Mute)),
    ("flapping", "one origin killed and started again each second", Fault::Flapping),
];

/// One of each for every origin, none of them well.
const TOGETHER: [Fault; ORIGINS] = [
    Fault::Dead,
    Fault::Hanging,
    Fault::Behaving(Behaviour::Slow),
    Fault::Behaving(Behaviour::HalfFailing),
    Fault::Flapping,
];

/// The schedule that a seed stands for: which origin suffers when. The first phase is without faults.
pub(crate) fn phases(seed: u64) -> Vec<Phase> {
    let order = stats::shuffled(ORIGINS, seed);
    let mut phases = vec![Phase { name: "calm", about: "all origins are well", turns: vec![[None; ORIGINS]] }];
    for (number, (name, about, fault)) in ALONE.iter().enumerate() {
        let mut one = [None; ORIGINS];
        one[order[number % ORIGINS]] = Some(*fault);
        phases.push(Phase { name, about, turns: vec![one] });
    }
    let turns = (0..ORIGINS).map(|turn| {
        let mut all = [None; ORIGINS];
        for (number, fault) in TOGETHER.iter().enumerate() {
            all[order[(number + turn) % ORIGINS]] = Some(*fault);
        }
        all
    });
    phases.push(Phase {
        name: "all",
        about: "dead, hanging, slow, failing and flapping at once, one each, changing places in turn",
        turns: turns.collect(),
    });
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(phases(7), phases(7));
        assert!((0..20).any(|seed| phases(seed) != phases(7)));
        assert!(phases(7).len() < usize::from(u8::MAX));
    }

    #[test]
    fn one_suffers_then_all_do_and_each_has_had_everything() {
        let phases = phases(1);
        assert!(phases[0].turns[0].iter().all(Option::is_none));
        for phase in &phases[1..=ALONE.len()] {
            assert_eq!(phase.turns[0].iter().flatten().count(), 1, "{}", phase.name);
        }
        let all = &phases[phases.len() - 1];
        for origin in 0..ORIGINS {
            for fault in TOGETHER {
                assert!(all.turns.iter().any(|turn| turn[origin] == Some(fault)), "{origin} {fault:?}");
            }
        }
    }
}
