//! Secrets that all workers have in common.

use std::fmt;
use std::io;
use std::sync::Arc;

use abi::{ConnectionIds, SECRET_LEN};
use aws_lc_rs::{hkdf, hmac, rand};
use quinn_proto::BloomTokenLog;
use quinn_proto::crypto::{HandshakeTokenKey, HmacKey};

/// What makes a worker's tokens and ids readable to the others.
#[derive(Clone)]
pub struct Keys {
    /// Of stateless resets (RFC 9000 §10.3).
    pub(super) reset: Arc<dyn HmacKey>,
    /// Of Retry and NEW_TOKEN tokens (RFC 9000 §8.1).
    pub(super) token: Arc<dyn HandshakeTokenKey>,
    /// Tokens that clients have used.
    pub(super) used: Arc<BloomTokenLog>,
    /// Of connection ids.
    pub(super) ids: ConnectionIds,
    /// What endpoints draw their chance from, if that is not the system.
    pub(super) chance: Option<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Keys of this process and no other.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn random() -> io::Result<Self> {
        Ok(Self {
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret::<32>()?)),
            token: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret::<32>()?)),
            used: Arc::default(),
            ids: ConnectionIds::new(0, &secret::<SECRET_LEN>()?),
            chance: None,
        })
    }

    /// For simulations: endpoints with these keys act the same way whenever `seed` is the same, and can be foreseen.
    #[must_use]
    pub fn repeatable(self, seed: u64) -> Self {
        let mut chance = [0; 32];
        chance[..8].copy_from_slice(&seed.to_le_bytes());
        Self { chance: Some(chance), ..self }
    }

    /// How a datagram finds its worker.
    #[must_use]
    pub const fn ids(&self) -> &ConnectionIds {
        &self.ids
    }
}

fn secret<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness for the keys of QUIC"))?;
    Ok(bytes)
}
