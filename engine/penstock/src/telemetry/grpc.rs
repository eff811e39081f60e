//! What is told of calls of gRPC, by method. A worker that has had none holds nothing but empty places.
//!
//! Methods are what callers write, so their number is bounded: who finds no place is told under `other`. What holds here: a place has one
//! writer, its worker, and a name for good; a stranger who makes names up gets none, for only what an endpoint knows has one
//! ([`Calls::ended`]).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Cell, Histogram};
use crate::limits;

/// What one worker tells of all methods.
#[derive(Debug)]
pub struct Calls {
    /// A table with open addressing, half of it empty at the least.
    places: Box<[OnceLock<Box<MethodCells>>]>,
    taken: Cell,
    /// Where the method stands that was called last, which most of the time is called next.
    last: AtomicUsize,
    other: OnceLock<Box<MethodCells>>,
}

/// What one worker tells of a method.
#[derive(Debug)]
pub struct MethodCells {
    /// `package.Service/Method`.
    pub name: Box<str>,
    /// From the head of a call to the end of its answer, in nanoseconds.
    pub latency: Histogram,
    codes: [Cell; CODES],
}

/// The name that all methods have that have none.
const OTHER: &str = "other";

/// Statuses of gRPC, from 0 to 16.
pub const CODES: usize = 17;

/// Bytes of a name: `google.cloud.…` reach 100.
const NAME_BYTES_MAX: usize = 128;

impl Default for Calls {
    fn default() -> Self {
        let places = (0..limits::GRPC_METHODS_MAX * 2).map(|_| OnceLock::new()).collect();
        Self { places, taken: Cell::default(), last: AtomicUsize::new(0), other: OnceLock::new() }
    }
}

impl MethodCells {
    fn new(name: &str) -> Box<Self> {
        Box::new(Self { name: name.into(), latency: Histogram::default(), codes: Default::default() })
    }

    /// Calls that ended so.
    #[must_use]
    pub fn ended(&self, code: u8) -> u64 {
        self.codes.get(usize::from(code)).map_or(0, Cell::get)
    }
}

impl Calls {
    /// A call of `path` has ended. It may give its method a place if an endpoint is `known` to have it. Only the worker itself may say so.
    pub fn ended(&self, path: &[u8], code: u8, known: bool, nanos: u64) {
        let cells = self.last(path).or_else(|| name_of(path).and_then(|name| self.place(name, known)));
        let cells = cells.unwrap_or_else(|| self.other.get_or_init(|| MethodCells::new(OTHER)));
        if let Some(cell) = cells.codes.get(usize::from(code)) {
            cell.add(1);
        }
        cells.latency.record(nanos);
    }

    /// The method that was called last, if it is that of `path`.
    fn last(&self, path: &[u8]) -> Option<&MethodCells> {
        let cells = self.places.get(self.last.load(Ordering::Relaxed))?.get()?;
        (path.strip_prefix(b"/") == Some(cells.name.as_bytes())).then_some(cells)
    }

    fn place(&self, name: &str, known: bool) -> Option<&MethodCells> {
        let (count, begin) = (self.places.len(), policy::hash::xxh64(name.as_bytes(), 0) as usize);
        for step in 0..count {
            let at = begin.wrapping_add(step) % count;
            let place = &self.places[at];
            match place.get() {
                Some(cells) if *cells.name == *name => {
                    self.last.store(at, Ordering::Relaxed);
                    return Some(cells);
                }
                Some(_) => {}
                None if known && self.taken.get() < limits::GRPC_METHODS_MAX as u64 => {
                    self.taken.add(1);
                    return Some(place.get_or_init(|| MethodCells::new(name)));
                }
                None => return None,
            }
        }
        None
    }

    /// Those that have had a call.
    pub fn methods(&self) -> impl Iterator<Item = &MethodCells> {
        self.places.iter().chain([&self.other]).filter_map(OnceLock::get).map(|cells| &**cells)
    }
}

/// `package.Service/Method` of its path, if it is one.
fn name_of(path: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(path.strip_prefix(b"/")?).ok()?;
    let (service, method) = name.split_once('/')?;
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
    };
    (name.len() <= NAME_BYTES_MAX && is_name(service) && is_name(method)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(calls: &Calls) -> Vec<(String, u64)> {
        let all = calls.methods().map(|cells| (cells.name.to_string(), (0..17).map(|code| cells.ended(code)).sum()));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    }

    #[test]
    fn methods_have_places_and_strangers_have_none() {
        let calls = Calls::default();
        assert!(told(&calls).is_empty());
        calls.ended(b"/a.B/C", 0, true, 1_000);
        calls.ended(b"/a.B/C", 14, false, 1_000);
        calls.ended(b"/a.B/Made_up", 12, false, 1_000);
        for path in
            [&b"/a.B"[..], b"/a.B/", b"//C", b"/a.B/C/D", b"/a B/C", b"/a.B/C?x=1", b"*", b"", b"/\xff/C", b"/a\"/C"]
        {
            calls.ended(path, 0, true, 1_000);
        }
        calls.ended(format!("/a/{}", "x".repeat(200)).as_bytes(), 0, true, 1_000);
        assert_eq!(told(&calls), [("a.B/C".to_owned(), 2), (OTHER.to_owned(), 12)]);
        let cells = calls.methods().find(|cells| &*cells.name == "a.B/C").expect("it has a place");
        assert_eq!((cells.ended(0), cells.ended(14), cells.ended(99)), (1, 1, 0));
    }

    #[test]
    fn there_are_no_more_of_them_than_there_may_be() {
        let calls = Calls::default();
        for number in 0..1_000 {
            calls.ended(format!("/a.B/C{number}").as_bytes(), 0, true, 1_000);
            calls.ended(b"/a.B/C0", 0, true, 1_000);
        }
        let told = told(&calls);
        assert_eq!(told.len(), limits::GRPC_METHODS_MAX + 1);
        assert_eq!(told.iter().map(|(_, calls)| calls).sum::<u64>(), 2_000);
        assert!(told.contains(&("a.B/C0".to_owned(), 1_001)));
        assert!(told.contains(&(OTHER.to_owned(), 1_000 - limits::GRPC_METHODS_MAX as u64)));
    }
}
