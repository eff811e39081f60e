//! Where answers go: the link-layer addresses of what came last by each path.
//!
//! What holds: so many paths are remembered, those longest unheard of are forgotten, and it does not matter: an answer whose way is not known goes by the kernel,
//! which asks for it. Whoever is on the link could send answers astray by frames of his own, as he could by ARP; beyond the link nobody can.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::frame::Way;

/// A peer, and which address of ours it talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub(super) peer: SocketAddr,
    pub(super) local: IpAddr,
}

/// How to reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) way: Way,
    /// Which of the worker's sockets it came to.
    pub(super) socket: usize,
}

/// Paths, each half as many as may be: what is heard of is in the first half, and when that is full it becomes the second one.
#[derive(Debug)]
pub(super) struct Paths {
    first: HashMap<Path, Next>,
    second: HashMap<Path, Next>,
    half: usize,
}

impl Paths {
    /// Room for twice `half`.
    pub(super) fn new(half: usize) -> Self {
        Self { first: HashMap::new(), second: HashMap::new(), half }
    }

    /// Something came by a path.
    pub(super) fn learn(&mut self, path: Path, next: Next) {
        if let Some(known) = self.first.get_mut(&path) {
            *known = next;
            return;
        }
        if self.first.len() >= self.half {
            std::mem::swap(&mut self.first, &mut self.second);
            self.first.clear();
        }
        self.first.insert(path, next);
    }

    pub(super) fn find(&self, path: &Path) -> Option<Next> {
        self.first.get(path).or_else(|| self.second.get(path)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path { peer: SocketAddr::new([192, 0, 2, 1].into(), port), local: [192, 0, 2, 2].into() }
    }

    fn next(last: u8) -> Next {
        Next { way: Way { ours: [2, 0, 0, 0, 0, 0], theirs: [2, 0, 0, 0, 0, last] }, socket: 0 }
    }

    #[test]
    fn the_last_way_counts() {
        let mut paths = Paths::new(4);
        assert_eq!(paths.find(&path(1)), None);
        paths.learn(path(1), next(1));
        paths.learn(path(1), next(2));
        assert_eq!(paths.find(&path(1)), Some(next(2)));
        assert_eq!(paths.first.len(), 1);
    }

    #[test]
    fn there_are_never_more_and_those_heard_of_stay() {
        let mut paths = Paths::new(4);
        for port in 0..1_000 {
            paths.learn(path(port), next(0));
            paths.learn(path(9_999), next(9));
            assert!(paths.first.len() <= 4 && paths.second.len() <= 4);
            assert_eq!(paths.find(&path(port)), Some(next(0)));
            assert_eq!(paths.find(&path(9_999)), Some(next(9)));
        }
        assert_eq!(paths.find(&path(1)), None);
    }
}
