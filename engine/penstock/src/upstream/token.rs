//! What a sticky cookie says: which endpoint, since when, and that it was us who said so.
//!
//! ```text
//! issued, in minutes (32 bits) │ id of the endpoint (64) │ tag over both (64)      as 40 hexadecimal digits
//! ```
//!
//! The id is a keyed hash of pool and endpoint, so it tells nothing of addresses or of how many endpoints there are, and
//! is the same on every machine with the same secret. The tag is why a client can neither make up a choice nor a date.
//! Both are SipHash-2-4 (`policy::hash`) under keys of their own: a forger has one chance in 2^64 a request. What a client
//! was given it can give away: a cookie holds whoever sends it to that endpoint, and opens nothing else.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use policy::hash::siphash24;

use crate::limits;
use crate::snapshot::Secret;

/// How far another machine's clock may be ahead.
const SKEW_MINUTES: u32 = 5;

/// Hexadecimal digits of a token.
pub const TOKEN_BYTES: usize = 40;

/// Makes and reads tokens.
#[derive(Clone, Copy)]
pub struct Seal {
    ids: [u64; 2],
    tags: [u64; 2],
}

/// The secrets of a pool: the first one signs, and what any of them has signed is believed, so that sessions survive a change.
#[derive(Clone, Debug)]
pub struct Seals {
    signing: Seal,
    former: Box<[Seal]>,
}

/// What a token that we made says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: u64,
    issued_minutes: u32,
}

impl Seals {
    /// Reads them, a line each. Without any there is a random one.
    ///
    /// # Errors
    /// One is not to be had, or is none: told with where it should be, and never with what it is.
    pub fn of(secrets: &[Secret]) -> io::Result<Self> {
        let mut seals = Vec::new();
        for secret in secrets {
            let text = match secret {
                Secret::File(path) => std::fs::read_to_string(path),
                Secret::Env(name) => std::env::var(&**name).map_err(io::Error::other),
            };
            let text =
                text.map_err(|error| io::Error::new(error.kind(), format!("no secret in `{secret}`: {error}")))?;
            let wrong =
                |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the secret in `{secret}` {why}"));
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let before = seals.len();
            for line in lines {
                let keys = words::<4>(line.as_bytes());
                let none = "is none: it must be 64 hexadecimal digits, as `openssl rand -hex 32` makes them";
                seals.push(keys.map(Seal::from_words).ok_or_else(|| wrong(none))?);
            }
            if seals.len() == before {
                return Err(wrong("is none: there is nothing"));
            }
            if seals.len() > limits::SECRETS_MAX {
                return Err(wrong(&format!("is one too many: at most {} are believed", limits::SECRETS_MAX)));
            }
        }
        let mut seals = seals.into_iter();
        let signing = seals.next().map_or_else(random, Ok)?;
        Ok(Self { signing, former: seals.collect() })
    }

    /// What signs.
    #[must_use]
    pub const fn signing(&self) -> &Seal {
        &self.signing
    }

    /// All, the one that signs first.
    pub fn iter(&self) -> impl Iterator<Item = &Seal> {
        std::iter::once(&self.signing).chain(&self.former)
    }

    /// The token that a text is, if we made it with any of them.
    #[must_use]
    pub fn read(&self, text: &[u8]) -> Option<Token> {
        self.iter().find_map(|seal| seal.read(text))
    }
}

impl Seal {
    #[must_use]
    pub const fn from_words([a, b, c, d]: [u64; 4]) -> Self {
        Self { ids: [a, b], tags: [c, d] }
    }

    /// What tokens call an endpoint.
    #[must_use]
    pub fn id(&self, pool: &str, endpoint: &str) -> u64 {
        let mut name = Vec::with_capacity(pool.len() + 1 + endpoint.len());
        name.extend_from_slice(pool.as_bytes());
        // Stands in no pool's name.
        name.push(0);
        name.extend_from_slice(endpoint.as_bytes());
        siphash24(self.ids, &name)
    }

    /// Writes the token of an endpoint, issued at `wall` since 1970. Allocates nothing that `out` has room for.
    pub fn write(&self, id: u64, wall: Duration, out: &mut Vec<u8>) {
        let issued = minutes(wall);
        let mut text = Hex(out);
        // Writing to a vector does not fail.
        let _ = write!(text, "{issued:08x}{id:016x}{:016x}", self.tag(issued, id));
    }

    /// The token that a text is, if we made it.
    #[must_use]
    pub fn read(&self, text: &[u8]) -> Option<Token> {
        let (issued, rest) = text.split_at_checked(8)?;
        let [id, tag] = words(rest)?;
        let issued_minutes = u32::try_from(digits(issued)?).ok()?;
        (self.tag(issued_minutes, id) == tag).then_some(Token { id, issued_minutes })
    }

    fn tag(&self, issued: u32, id: u64) -> u64 {
        let mut said = [0; 12];
        said[..4].copy_from_slice(&issued.to_le_bytes());
        said[4..].copy_from_slice(&id.to_le_bytes());
        siphash24(self.tags, &said)
    }
}

impl Token {
    /// Whether it is still good at `wall`, having been issued for `ttl`.
    #[must_use]
    pub fn is_good(&self, wall: Duration, ttl: Duration) -> bool {
        let now = minutes(wall);
        let age = Duration::from_secs(60) * now.saturating_sub(self.issued_minutes);
        self.issued_minutes <= now.saturating_add(SKEW_MINUTES) && age <= ttl
    }

    /// Whether half of its time has gone.
    #[must_use]
    pub fn is_old(&self, wall: Duration, ttl: Duration) -> bool {
        !self.is_good(wall, ttl / 2)
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// Formats into bytes.
struct Hex<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Hex<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn random() -> io::Result<Seal> {
    use std::io::Read;

    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    let word = |at: usize| u64::from_le_bytes(words[at]);
    Ok(Seal::from_words([word(0), word(1), word(2), word(3)]))
}

/// Exactly so many words of sixteen digits.
fn words<const N: usize>(text: &[u8]) -> Option<[u64; N]> {
    let (chunks, rest) = text.as_chunks::<16>();
    if chunks.len() != N || !rest.is_empty() {
        return None;
    }
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = digits(chunk)?;
    }
    Some(words)
}

/// At most sixteen hexadecimal digits.
fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |word, &digit| Some(word << 4 | u64::from(char::from(digit).to_digit(16)?)))
}

fn minutes(wall: Duration) -> u32 {
    u32::try_from(wall.as_secs() / 60).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal::from_words([1, 2, 3, 4]);
    const NOON: Duration = Duration::from_secs(1_800_000_000);

    fn written(seal: &Seal, id: u64, wall: Duration) -> Vec<u8> {
        let mut out = Vec::new();
        seal.write(id, wall, &mut out);
        out
    }

    #[test]
    fn what_was_written_is_read() {
        for id in [0, 1, u64::MAX, SEAL.id("web", "10.0.0.1:80")] {
            let text = written(&SEAL, id, NOON);
            assert_eq!(text.len(), TOKEN_BYTES);
            assert_eq!(SEAL.read(&text), Some(Token { id, issued_minutes: 30_000_000 }));
        }
    }

    #[test]
    fn nothing_else_is() {
        let text = written(&SEAL, SEAL.id("web", "10.0.0.1:80"), NOON);
        for at in 0..text.len() {
            for other in *b"0123456789abcdefgG\xff" {
                let mut forged = text.clone();
                forged[at] = other;
                assert_eq!(SEAL.read(&forged).is_some(), forged == text, "{at} {other}");
            }
            assert_eq!(SEAL.read(&text[..at]), None);
        }
        assert_eq!(SEAL.read(&[text.as_slice(), b"0"].concat()), None);
        assert_eq!(SEAL.read("ä".repeat(20).as_bytes()), None);
        assert_eq!(Seal::from_words([1, 2, 3, 5]).read(&text), None, "another secret");
    }

    #[test]
    fn an_id_is_of_pool_endpoint_and_secret() {
        let id = SEAL.id("web", "10.0.0.1:80");
        assert_ne!(id, SEAL.id("web", "10.0.0.2:80"));
        assert_ne!(id, SEAL.id("api", "10.0.0.1:80"));
        assert_ne!(id, Seal::from_words([9, 2, 3, 4]).id("web", "10.0.0.1:80"));
        assert_ne!(SEAL.id("a", "bc"), SEAL.id("ab", "c"));
    }

    #[test]
    fn tokens_age() {
        let token = SEAL.read(&written(&SEAL, 7, NOON)).unwrap();
        let hour = Duration::from_secs(3600);
        for (after, good, old) in
            [(0, true, false), (29, true, false), (31, true, true), (60, true, true), (61, false, true)]
        {
            let wall = NOON + Duration::from_secs(60) * after;
            assert_eq!((token.is_good(wall, hour), token.is_old(wall, hour)), (good, old), "{after} minutes");
        }
        assert!(token.is_good(NOON - Duration::from_secs(240), hour), "a clock that is a little behind");
        assert!(!token.is_good(NOON - Duration::from_secs(3600), hour), "a date in the future is nobody's");
    }

    #[test]
    fn secrets_come_from_where_they_are_said_to_be() {
        let folder = std::env::temp_dir().join(format!("penstock-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (first, second) = ("0f".repeat(32), "1e".repeat(32));
        let file = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            Secret::File(folder.join(name))
        };
        let of = |secrets: &[Secret]| Seals::of(secrets).map_err(|wrong| wrong.to_string());
        let (good, bad) = (file("good", &format!("{first}\n")), file("bad", "hunter2"));
        let seals = of(std::slice::from_ref(&good)).unwrap();
        let id = |seals: &Seals| seals.signing().id("a", "b");
        assert_eq!(id(&seals), id(&of(std::slice::from_ref(&good)).unwrap()));
        let both = of(&[file("new", &format!("\n{second}\n")), good]).unwrap();
        let same = of(&[file("both", &format!("{second}\n{first}"))]).unwrap();
        assert!(id(&both) != id(&seals) && id(&both) == id(&same), "the first one signs");
        let old = written(seals.signing(), 7, NOON);
        assert_eq!(both.read(&old), seals.read(&old));
        assert!(both.read(&old).is_some() && seals.read(&written(both.signing(), 7, NOON)).is_none());
        let wrong = of(&[bad]).unwrap_err();
        assert!(wrong.contains("64 hexadecimal digits") && !wrong.contains("hunter2"), "{wrong}");
        assert!(of(&[file("none", "\n")]).unwrap_err().contains("nothing"));
        assert!(of(&[file("many", &format!("{first}\n").repeat(5))]).unwrap_err().contains("too many"));
        assert!(of(&[Secret::Env("PENSTOCK_NO_SUCH_SECRET".into())]).is_err());
        assert_ne!(id(&of(&[]).unwrap()), id(&of(&[]).unwrap()));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
