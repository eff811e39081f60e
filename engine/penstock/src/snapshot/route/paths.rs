//! The paths of one host: sorted lists where all are exact or prefixes, a tree of segments where one is a template.
//!
//! Both give the same answers; the lists find theirs in one or two binary searches over whole paths.

use super::pattern::{Segment, first_segment};
use super::{Asked, Found, Leaf, PathPattern, Rule};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Paths {
    Lists(Lists),
    Tree(Node),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Lists(Lists::default())
    }
}

impl Paths {
    /// From rules of one host.
    pub(super) fn new(rules: &[Rule]) -> Self {
        if rules.iter().any(|rule| matches!(rule.path, PathPattern::Template(_))) {
            return Self::Tree(Node::new(&rules.iter().map(|rule| (steps(&rule.path), rule)).collect::<Vec<_>>()));
        }
        Self::Lists(Lists::new(rules))
    }

    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<Found> {
        match self {
            Self::Lists(lists) => lists.find(asked),
            Self::Tree(root) => match asked.path.strip_prefix(b"/") {
                Some(path) => root.find(Some(path), asked),
                None => root.rest.find(asked),
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lists {
    /// Sorted.
    exact: Box<[(Box<str>, Leaf)]>,
    /// Sorted.
    prefixes: Box<[Prefix]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    path: Box<str>,
    leaf: Leaf,
    /// The longest other prefix that this one begins with: where to go on when this one does not match. All prefixes of a
    /// path lie on one such chain, which begins at the greatest that sorts before the path.
    parent: Option<u32>,
}

impl Lists {
    fn new(rules: &[Rule]) -> Self {
        let mut rules: Vec<&Rule> = rules.iter().collect();
        rules.sort_by(|a, b| a.path.cmp(&b.path));
        let (mut exact, mut prefixes) = (Vec::new(), Vec::<Prefix>::new());
        for rules in rules.chunk_by(|a, b| a.path == b.path) {
            let leaf = Leaf::new(rules.iter().copied());
            match &rules[0].path {
                PathPattern::Exact(path) => exact.push((path.clone(), leaf)),
                PathPattern::Prefix(path) => {
                    let mut parent = prefixes.len().checked_sub(1).map(|at| at as u32);
                    while let Some(at) = parent
                        && !path.starts_with(&*prefixes[at as usize].path)
                    {
                        parent = prefixes[at as usize].parent;
                    }
                    prefixes.push(Prefix { path: path.clone(), leaf, parent });
                }
                PathPattern::Template(_) => unreachable!("templates make a tree"),
            }
        }
        Self { exact: exact.into(), prefixes: prefixes.into() }
    }

    fn find(&self, asked: &Asked<'_>) -> Option<Found> {
        let path = asked.path;
        if let Ok(at) = self.exact.binary_search_by(|(known, _)| known.as_bytes().cmp(path))
            && let Some(found) = self.exact[at].1.find(asked)
        {
            return Some(found);
        }
        // The empty prefix, which nearly everybody has, is not compared: it lies nowhere, and that makes a processor stumble.
        let is_behind = |prefix: &Prefix| prefix.path.is_empty() || prefix.path.as_bytes() <= path;
        let mut candidate = self.prefixes.partition_point(is_behind).checked_sub(1);
        while let Some(at) = candidate {
            let prefix = &self.prefixes[at];
            if prefix.covers(path)
                && let Some(found) = prefix.leaf.find(asked)
            {
                return Some(found);
            }
            candidate = prefix.parent.map(|at| at as usize);
        }
        None
    }
}

impl Prefix {
    /// `/v1` covers `/v1` and `/v1/x`, not `/v10`; the empty prefix covers `*` too.
    fn covers(&self, path: &[u8]) -> bool {
        self.path.is_empty()
            || path.strip_prefix(self.path.as_bytes()).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
    }
}

/// What has been read of a path, and how it may go on. Each node is visited at most once in a look-up, in the order of
/// how specific its paths are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Node {
    /// Sorted.
    texts: Box<[(Box<str>, Self)]>,
    capture: Option<Box<Self>>,
    /// Paths that end here.
    here: Leaf,
    /// Paths that end here, or go on in any way.
    rest: Leaf,
}

/// One step down the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Step<'a> {
    Text(&'a str),
    Capture,
    Rest,
}

/// The way to a pattern's leaf: two patterns that match the same paths have the same one.
pub(super) fn steps(pattern: &PathPattern) -> Vec<Step<'_>> {
    match pattern {
        PathPattern::Exact(path) => path[1..].split('/').map(Step::Text).collect(),
        PathPattern::Prefix(path) => path.split('/').skip(1).map(Step::Text).chain([Step::Rest]).collect(),
        PathPattern::Template(template) => template
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Text(text) => Step::Text(text),
                Segment::Capture(_) => Step::Capture,
            })
            .chain(template.rest.as_ref().map(|_| Step::Rest))
            .collect(),
    }
}

impl Node {
    /// From rules and the ways to them that are left from here.
    fn new(rules: &[(Vec<Step<'_>>, &Rule)]) -> Self {
        let mut firsts: Vec<Step<'_>> = rules.iter().filter_map(|(steps, _)| steps.first().copied()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        let begin = |first| rules.iter().filter(move |(steps, _)| steps.first().copied() == first);
        let below = |first| {
            Self::new(&begin(Some(first)).map(|(steps, rule)| (steps[1..].to_vec(), *rule)).collect::<Vec<_>>())
        };
        let mut node = Self { here: Leaf::new(begin(None).map(|(_, rule)| *rule)), ..Self::default() };
        let mut texts = Vec::new();
        for first in firsts {
            match first {
                Step::Text(text) => texts.push((text.into(), below(first))),
                Step::Capture => node.capture = Some(Box::new(below(first))),
                Step::Rest => node.rest = Leaf::new(begin(Some(first)).map(|(_, rule)| *rule)),
            }
        }
        node.texts = texts.into();
        node
    }

    /// `path` is what follows the last slash; `None` when nothing does. Goes as deep as the longest template.
    fn find(&self, path: Option<&[u8]>, asked: &Asked<'_>) -> Option<Found> {
        let Some(path) = path else { return self.here.find(asked).or_else(|| self.rest.find(asked)) };
        let (segment, next) = first_segment(path);
        let text = self.texts.binary_search_by(|(known, _)| known.as_bytes().cmp(segment)).ok();
        text.and_then(|at| self.texts[at].1.find(next, asked))
            .or_else(|| self.capture.as_ref().filter(|_| !segment.is_empty())?.find(next, asked))
            .or_else(|| self.rest.find(asked))
    }
}
