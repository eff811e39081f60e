//! A pinned key: the SHA-256 of a certificate's public key, as operators write it.

use super::literal::{Literal, Unreadable};
use std::{fmt, str::FromStr};

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4, in hexadecimal): it outlives renewals that keep the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpkiPin(pub [u8; 32]);

impl Literal for SpkiPin {
    const FORMAT: &'static str = "key-pin";
    const FORM: &'static str = "a pinned key, `sha256:` and 64 hexadecimal digits: `openssl x509 -in cert.pem -noout -pubkey | \
         openssl pkey -pubin -outform der | sha256sum`";
}

impl FromStr for SpkiPin {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let wrong = || Unreadable::new("is no pinned key", "write `sha256:` and 64 hexadecimal digits");
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64 && digits.is_ascii());
        let digits = digits.ok_or_else(wrong)?.as_bytes();
        let mut pin = [0; 32];
        for (byte, pair) in pin.iter_mut().zip(digits.chunks(2)) {
            let pair =
                std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
        }
        Ok(Self(pin))
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins() {
        let pin = format!("sha256:{}", "0aF1".repeat(16));
        assert_eq!(pin.parse::<SpkiPin>().map(|pin| pin.to_string()).ok(), Some(pin.to_ascii_lowercase()));
        for text in ["", "sha256:", "sha256:0a", &"0a".repeat(32), &format!("sha256:{}", "+a".repeat(32))] {
            assert!(text.parse::<SpkiPin>().is_err(), "{text}");
        }
    }
}
