//! Smooth weighted round robin.
//!
//! Every turn each endpoint earns its weight; the richest is chosen and pays what all earned together. With weights
//! 5, 1, 1 that gives a a b a c a a, never five of the same in a row.
//! Source: nginx, `ngx_http_upstream_get_peer` (commit 52327e0627f4, 2012). It looks at all endpoints each time.

use super::{Ask, Endpoints, eligible};

#[derive(Debug, Clone)]
pub struct RoundRobin {
    turns: Box<[Turn]>,
}

#[derive(Debug, Clone)]
struct Turn {
    weight: i64,
    earned: i64,
}

impl RoundRobin {
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        Self { turns: weights.iter().map(|&weight| Turn { weight: i64::from(weight), earned: 0 }).collect() }
    }

    pub fn pick(&mut self, endpoints: &impl Endpoints, ask: &Ask) -> Option<usize> {
        debug_assert_eq!(self.turns.len(), endpoints.len(), "reweigh() when the endpoints change");
        let mut total = 0;
        let mut richest: Option<usize> = None;
        for index in 0..self.turns.len().min(endpoints.len()) {
            let weight = self.turns[index].weight;
            if weight == 0 || !eligible(endpoints, ask, index) {
                continue;
            }
            self.turns[index].earned += weight;
            total += weight;
            if richest.is_none_or(|best| self.turns[index].earned > self.turns[best].earned) {
                richest = Some(index);
            }
        }
        self.turns[richest?].earned -= total;
        richest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Avoid, Load};

    struct Up(Vec<bool>);

    impl Endpoints for Up {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn available(&self, index: usize) -> bool {
            self.0[index]
        }
        fn load(&self, _: usize) -> Load {
            Load::default()
        }
    }

    fn turns(weights: &[u32], up: &[bool], avoid: &[usize], count: usize) -> String {
        let mut ask = Ask { avoid: Avoid::default() };
        avoid.iter().for_each(|&index| ask.avoid.add(index));
        let (mut balancer, endpoints) = (RoundRobin::new(weights), Up(up.to_vec()));
        (0..count)
            .map(|_| balancer.pick(&endpoints, &ask).map_or('-', |index| char::from(b'a' + index as u8)))
            .collect()
    }

    #[test]
    fn smooth_in_every_case() {
        type Case<'a> = (&'a [u32], &'a [bool], &'a [usize], &'a str);
        let table: &[Case<'_>] = &[
            (&[1, 1, 1], &[true; 3], &[], "abcabc"),
            (&[5, 1, 1], &[true; 3], &[], "aabacaa"),
            (&[2, 1], &[true; 2], &[], "abaaba"),
            (&[1, 1, 1], &[true, false, true], &[], "acac"),
            (&[1, 1, 1], &[true; 3], &[0], "bcbc"),
            (&[1, 1], &[false; 2], &[], "---"),
            (&[1, 1], &[true; 2], &[0, 1], "--"),
            (&[0, 1], &[true; 2], &[], "bbb"),
            (&[], &[], &[], "--"),
        ];
        for (weights, up, avoid, wanted) in table {
            assert_eq!(&turns(weights, up, avoid, wanted.len()), wanted, "{weights:?} {up:?} {avoid:?}");
        }
    }
}
