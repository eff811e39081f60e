//! What each request is called. The name goes to the origin, comes back in the answer, and stands in the origins' journals, so that a mixed-up
//! body, a second execution and a retry can each be told from the first try of another request.

/// Answers, unless more is asked for, and what a POST carries, are the id's text over and over, to this length.
pub(crate) const BODY_BYTES: usize = 512;
/// Where ids live on an origin: `/echo/ID/BYTES`.
const PATH: &str = "/echo/";

/// Phase, kind, connection and number of a request: 8, 1, 15 and 40 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u64);

impl Id {
    pub(crate) fn new(phase: u8, post: bool, connection: usize, number: u64) -> Self {
        let connection = (connection as u64 & 0x7fff) << 40;
        Self(u64::from(phase) << 56 | u64::from(post) << 55 | connection | number & 0xff_ffff_ffff)
    }

    /// The phase in which it was asked.
    pub(crate) fn phase(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// A POST: it may be executed once at the most.
    pub(crate) fn is_post(self) -> bool {
        self.0 >> 55 & 1 == 1
    }

    /// From a request's target, with how many bytes it wants.
    pub(crate) fn of_target(target: &str) -> Option<(Self, usize)> {
        let (id, bytes) = target.strip_prefix(PATH)?.split_once('/')?;
        Some((Self(u64::from_str_radix(id, 16).ok()?), bytes.parse().ok()?))
    }

    /// What an origin answers, and what a POST carries.
    pub(crate) fn body(self, bytes: usize) -> Vec<u8> {
        let text = format!("{:016x}", self.0);
        text.as_bytes().iter().copied().cycle().take(bytes).collect()
    }

    /// The request, whole, for an answer of that many bytes.
    pub(crate) fn request(self, host: &str, bytes: usize) -> Vec<u8> {
        let target = format!("{PATH}{:016x}/{bytes}", self.0);
        if !self.is_post() {
            return format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        }
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        [head.into_bytes(), self.body(BODY_BYTES)].concat()
    }

    /// A number that looks drawn, the same for the same id (SplitMix64).
    pub(crate) fn draw(self) -> u64 {
        mix(self.0)
    }
}

/// Stands in a journal for a connection; no request has it (there are never 255 phases).
pub(crate) const CONNECTION: Id = Id(u64::MAX);

/// The finish of SplitMix64.
pub(crate) fn mix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let id = Id::new(7, true, 63, 123_456);
        assert_eq!((id.phase(), id.is_post()), (7, true));
        assert!(!Id::new(255, false, usize::MAX, u64::MAX).is_post());
        assert_eq!(Id::of_target(&format!("{PATH}{:016x}/9", id.0)), Some((id, 9)));
        assert_eq!(Id::of_target("/health"), None);
        assert_ne!(id, Id::new(7, true, 62, 123_456));
    }

    #[test]
    fn requests_carry_their_id() {
        let get = String::from_utf8(Id::new(1, false, 0, 2).request("a", 70)).unwrap();
        assert_eq!(get, "GET /echo/0100000000000002/70 HTTP/1.1\r\nHost: a\r\n\r\n");
        let post = String::from_utf8(Id::new(1, true, 0, 2).request("a", 0)).unwrap();
        assert!(post.starts_with("POST /echo/0180000000000002/0 ") && post.ends_with("0180000000000002"));
        assert_eq!(Id(5).body(40).len(), 40);
    }
}
