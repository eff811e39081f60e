//! Secrets that all workers have in common, and all machines of a fleet that have one file.
//!
//! What is made from a secret: the keys of connection ids, of stateless resets, and of tokens. A file holds several of them, so that a fleet can change from one to the next: the
//! first is in use, and what the others have made is still read. Ids carry the number of theirs in their config; a token does not say, and each is tried.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use abi::{CONFIGS, ConnectionIds, GENERATIONS, SECRET_LEN};
use aws_lc_rs::{hkdf, hmac, rand};
use data_encoding::HEXLOWER_PERMISSIVE;
use quinn_proto::BloomTokenLog;
use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};

use crate::limits;
use crate::snapshot::QuicSettings;

/// Bytes of a secret in a file.
const SHARED_LEN: usize = 32;

/// What makes a worker's tokens and ids readable to the others.
#[derive(Clone)]
pub struct Keys {
    /// Of stateless resets (RFC 9000 §10.3).
    pub(super) reset: Arc<dyn HmacKey>,
    /// Of Retry and NEW_TOKEN tokens (RFC 9000 §8.1).
    pub(super) token: Arc<dyn HandshakeTokenKey>,
    /// Tokens that clients have used.
    pub(super) used: Arc<BloomTokenLog>,
    /// Of connection ids: those in use first.
    pub(super) ids: Arc<[ConnectionIds]>,
    /// What endpoints draw their chance from, if that is not the system.
    pub(super) chance: Option<[u8; 32]>,
    server: u16,
    generation: u8,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// A secret, and the number that ids made from it carry.
struct Shared {
    config: u8,
    secret: [u8; SHARED_LEN],
}

impl Keys {
    /// Those of the configured file, or of this process and no other.
    ///
    /// # Errors
    /// What is wrong with the file; or the system has no randomness to give.
    pub fn new(settings: &QuicSettings) -> io::Result<Self> {
        let shared = match &settings.secrets {
            Some(path) => read(path).map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?,
            None => vec![Shared { config: 0, secret: random()? }],
        };
        Ok(Self {
            reset: Arc::new(Resets(shared.iter().map(Shared::reset).collect())),
            token: Arc::new(Tokens(shared.iter().map(Shared::token).collect())),
            used: Arc::default(),
            ids: shared.iter().map(Shared::ids).collect(),
            chance: None,
            server: settings.server,
            generation: generation(),
        })
    }

    /// For simulations: endpoints with these keys act the same way whenever `seed` is the same, and can be foreseen.
    #[must_use]
    pub fn repeatable(self, seed: u64) -> Self {
        let mut chance = [0; 32];
        chance[..8].copy_from_slice(&seed.to_le_bytes());
        Self { chance: Some(chance), generation: 0, ..self }
    }

    /// How a datagram finds its worker.
    #[must_use]
    pub fn ids(&self) -> Arc<[ConnectionIds]> {
        Arc::clone(&self.ids)
    }

    /// Where a worker of this process is, among all machines and processes of a fleet.
    #[must_use]
    pub const fn place(&self, worker: u16) -> abi::Place {
        abi::Place { server: self.server, generation: self.generation, worker }
    }
}

/// Tells this process from the one before it: the seconds since the host started, so that a process which comes after another one within a minute, as at an
/// upgrade, never has the same; later on once in 64 times, and then a connection of the other is looked for at a worker that does not know it, which costs nothing.
fn generation() -> u8 {
    (ring::monotonic().as_nanos() / 1_000_000_000 % u64::from(GENERATIONS)) as u8
}

impl Shared {
    /// Bytes for one purpose (HKDF, RFC 5869).
    fn derive<const LEN: usize>(&self, purpose: &[u8]) -> [u8; LEN] {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut bytes = [0; LEN];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"penstock quic").extract(&self.secret);
        let filled = extracted.expand(&[purpose], Length(LEN)).and_then(|derived| derived.fill(&mut bytes));
        debug_assert!(filled.is_ok(), "so few bytes can always be had");
        bytes
    }

    fn ids(&self) -> ConnectionIds {
        ConnectionIds::new(self.config, &self.derive::<SECRET_LEN>(b"connection ids"))
    }

    fn reset(&self) -> (u8, hmac::Key) {
        (self.config, hmac::Key::new(hmac::HMAC_SHA256, &self.derive::<32>(b"stateless resets")))
    }

    fn token(&self) -> hkdf::Prk {
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.derive::<32>(b"tokens"))
    }
}

/// Reads a file of secrets: a line each, its number and 32 bytes in hexadecimal; empty lines, and those behind a `#`, say nothing.
fn read(path: &Path) -> Result<Vec<Shared>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    if text.len() > limits::QUIC_SECRETS_BYTES_MAX {
        return Err("is too long for seven secrets".to_owned());
    }
    let text = String::from_utf8(text).map_err(|_| "is no text".to_owned())?;
    let mut shared: Vec<Shared> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let one = line_of(line).ok_or_else(|| {
            format!("line {}: write a number from 0 to {} and 64 hexadecimal digits", at + 1, CONFIGS - 1)
        })?;
        if shared.iter().any(|other| other.config == one.config) {
            return Err(format!("line {}: there are two secrets with the number {}", at + 1, one.config));
        }
        shared.push(one);
    }
    if shared.is_empty() { Err("has no secret in it".to_owned()) } else { Ok(shared) }
}

fn line_of(line: &str) -> Option<Shared> {
    let (config, secret) = line.split_once(char::is_whitespace)?;
    let config = config.parse().ok().filter(|config| *config < CONFIGS)?;
    let secret = HEXLOWER_PERMISSIVE.decode(secret.trim_start().as_bytes()).ok()?;
    Some(Shared { config, secret: secret.try_into().ok()? })
}

/// Resets of connections whose ids any of the secrets has made.
struct Resets(Vec<(u8, hmac::Key)>);

impl Resets {
    /// By the number in the id's first three bits.
    fn of(&self, id: &[u8]) -> &hmac::Key {
        let config = id.first().map_or(0, |first| first >> 5);
        let own = self.0.iter().find(|(of, _)| *of == config);
        &own.unwrap_or(&self.0[0]).1
    }
}

impl HmacKey for Resets {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        HmacKey::sign(self.of(data), data, signature_out);
    }

    fn signature_len(&self) -> usize {
        HmacKey::signature_len(&self.0[0].1)
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        HmacKey::verify(self.of(data), data, signature)
    }
}

/// Tokens that any of the secrets has sealed.
struct Tokens(Vec<hkdf::Prk>);

impl HandshakeTokenKey for Tokens {
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Seals(self.0.iter().map(|key| key.aead_from_hkdf(random_bytes)).collect()))
    }
}

struct Seals(Vec<Box<dyn AeadKey>>);

impl AeadKey for Seals {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        self.0[0].seal(data, additional_data)
    }

    fn open<'a>(&self, data: &'a mut [u8], additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        // What one has tried in vain is no longer what it was.
        let sealed = data.to_vec();
        let mut opened = Err(CryptoError);
        for key in &self.0 {
            data.copy_from_slice(&sealed);
            opened = key.open(data, additional_data).map(|plain| plain.len());
            if opened.is_ok() {
                break;
            }
        }
        Ok(&mut data[..opened?])
    }
}

fn random<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness for the keys of QUIC"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use abi::Place;

    use super::*;

    fn settings(text: &str) -> QuicSettings {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("penstock-quic-{}-{number}", std::process::id()));
        std::fs::write(&path, text).expect("a file of our own");
        QuicSettings { secrets: Some(path), server: 7, ..QuicSettings::default() }
    }

    fn keys(text: &str) -> io::Result<Keys> {
        let settings = settings(text);
        let keys = Keys::new(&settings);
        std::fs::remove_file(settings.secrets.expect("written above")).expect("it is there");
        keys
    }

    fn line(config: u8, byte: u8) -> String {
        format!("{config} {}\n", HEXLOWER_PERMISSIVE.encode(&[byte; SHARED_LEN]))
    }

    fn reset(keys: &Keys, id: &[u8]) -> Vec<u8> {
        let mut token = vec![0; keys.reset.signature_len()];
        keys.reset.sign(id, &mut token);
        token
    }

    /// One machine goes ahead to the next secret, another one still makes ids and tokens with the old one: both read both.
    #[test]
    fn a_fleet_changes_its_secret() {
        let before = keys(&line(3, 1)).unwrap();
        let ahead = keys(&format!("# the next\n\n{}{}", line(4, 2), line(3, 1))).unwrap();
        let behind = keys(&format!("{}{}", line(3, 1), line(4, 2))).unwrap();
        let place = Place { server: 7, generation: 1, worker: 5 };
        let read = |keys: &Keys, id: &[u8]| keys.ids.iter().find_map(|ids| ids.decode(id));
        for (maker, reader) in [(&before, &behind), (&before, &ahead), (&behind, &ahead), (&ahead, &behind)] {
            let id = maker.ids[0].encode(place, [9; 8]);
            assert_eq!(read(reader, &id), Some(place));
            assert_eq!(reset(maker, &id), reset(reader, &id));
            let mut token = b"an address".to_vec();
            maker.token.aead_from_hkdf(b"nonce").seal(&mut token, b"more").unwrap();
            let opened = reader.token.aead_from_hkdf(b"nonce");
            assert_eq!(opened.open(&mut token.clone(), b"more").map(|plain| plain.to_vec()).unwrap(), b"an address");
            assert!(opened.open(&mut token, b"less").is_err());
        }
        let id = ahead.ids[0].encode(place, [9; 8]);
        assert_eq!(read(&before, &id), None, "made with a secret that it has not got");
        assert_ne!(reset(&before, &id), reset(&ahead, &id));
    }

    #[test]
    fn what_is_no_file_of_secrets_is_told() {
        let long = line(0, 1).repeat(40);
        let two = format!("{}{}", line(2, 1), line(2, 2));
        for (text, wanted) in [
            ("", "no secret"),
            ("# nothing\n", "no secret"),
            ("0\n", "line 1"),
            ("0 abcd\n", "line 1"),
            (&line(7, 1), "line 1"),
            (&format!("{}x", line(6, 1)), "line 2"),
            (&two, "line 2: there are two"),
            (&long, "too long"),
        ] {
            let told = keys(text).unwrap_err().to_string();
            assert!(told.contains(wanted), "{text:?}: {told}");
        }
    }

    #[test]
    fn processes_without_a_file_have_nothing_in_common() {
        let settings = QuicSettings::default();
        let (one, other) = (Keys::new(&settings).unwrap(), Keys::new(&settings).unwrap());
        let id = one.ids[0].encode(Place::default(), [0; 8]);
        assert_eq!(other.ids[0].decode(&id), None);
        assert_ne!(reset(&one, &id), reset(&other, &id));
    }
}
