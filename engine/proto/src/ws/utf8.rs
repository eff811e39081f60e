//! Whether text is UTF-8 (RFC 3629) when it comes in pieces that end anywhere, masked or not.
//!
//! The standard library judges what is whole: it takes ASCII by the word and is as quick with the rest as a table would be. A character
//! that a piece cuts is held until its other bytes come. What can no longer become UTF-8 is refused at that byte, however it was cut.

use super::frame::{MaskingKey, mask};

/// A character that is not whole yet. None is longer than four bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Utf8 {
    held: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Takes the next piece; false if this is not UTF-8, whatever may follow. `key` is turned so that it begins with the piece.
    pub(super) fn take(&mut self, piece: &[u8], key: Option<MaskingKey>) -> bool {
        let Some(key) = key else {
            return self.take_plain(piece);
        };
        let mut block = [0; BLOCK_BYTES];
        piece.chunks(BLOCK_BYTES).all(|masked| {
            let plain = &mut block[..masked.len()];
            plain.copy_from_slice(masked);
            mask(key, plain);
            self.take_plain(plain)
        })
    }

    /// Whether no character is cut.
    pub(super) fn is_whole(self) -> bool {
        self.len == 0
    }

    #[inline]
    fn take_plain(&mut self, piece: &[u8]) -> bool {
        let Some(piece) = self.complete(piece) else {
            return false;
        };
        let Err(error) = std::str::from_utf8(piece) else {
            return true;
        };
        let cut = &piece[error.valid_up_to()..];
        if error.error_len().is_some() {
            return false;
        }
        // A character that lacks bytes has three at most, and more bytes of this piece would have been judged.
        for (held, &byte) in self.held.iter_mut().zip(cut) {
            *held = byte;
            self.len += 1;
        }
        true
    }

    /// Completes the character that is held, and returns what follows it; `None` if it is none.
    #[inline]
    fn complete<'a>(&mut self, mut piece: &'a [u8]) -> Option<&'a [u8]> {
        while self.len > 0
            && let Some((&byte, rest)) = piece.split_first()
        {
            piece = rest;
            self.held[self.len as usize] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.held[..self.len as usize]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return None,
                Err(_) => {}
            }
        }
        Some(piece)
    }
}

/// Unmasked at once, on the stack: a multiple of four, so that the key fits each block alike.
const BLOCK_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: MaskingKey = [0x37, 0xfa, 0x21, 0x3d];

    /// The verdict on text that comes in two pieces, and at which byte of one-byte pieces it is refused.
    fn judged(text: &[u8], cut: usize, masked: bool) -> Option<bool> {
        let mut wire = text.to_vec();
        if masked {
            mask(KEY, &mut wire);
        }
        let (before, after) = wire.split_at(cut);
        let key = |turn: usize| {
            let mut key = KEY;
            key.rotate_left(turn % 4);
            masked.then_some(key)
        };
        let mut utf8 = Utf8::default();
        (utf8.take(before, key(0)) && utf8.take(after, key(cut))).then(|| utf8.is_whole())
    }

    #[test]
    fn text_is_judged_alike_however_it_is_cut() {
        let long = "κόσμε 🦀 ".repeat(90);
        let mut broken_late = long.clone().into_bytes();
        broken_late.push(0xc0);
        let table: &[(&[u8], Option<bool>)] = &[
            (b"", Some(true)),
            (b"plain", Some(true)),
            (long.as_bytes(), Some(true)),
            (&long.as_bytes()[..1], Some(false)),
            ("\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}".as_bytes(), Some(true)),
            (b"\xf0\x9f\xa6", Some(false)),
            (b"\x80", None),
            (b"a\xc0\xaf", None),
            (b"\xe0\x9f\xbf", None),
            (b"\xed\xa0\x80", None),
            (b"\xf0\x8f\xbf\xbf", None),
            (b"\xf4\x90\x80\x80", None),
            (b"\xf5", None),
            (b"\xce\xbaa\xce", Some(false)),
            (b"\xceb", None),
            (b"\xf0\x9f\xa6\x80\x80", None),
            (&broken_late, None),
        ];
        for (text, expected) in table {
            for cut in 0..=text.len() {
                for masked in [false, true] {
                    let verdict = judged(text, cut, masked);
                    assert_eq!(verdict, *expected, "{} cut at {cut}, masked: {masked}", text.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn what_cannot_become_text_is_refused_at_once() {
        for hopeless in [&b"\xed\xa0"[..], b"\xe0\x80", b"\xf4\x90", b"\xf0\x8f", b"\xc1", b"\xff"] {
            let mut utf8 = Utf8::default();
            let verdicts: Vec<bool> = hopeless.iter().map(|&byte| utf8.take(&[byte], None)).collect();
            assert_eq!(verdicts.iter().position(|&verdict| !verdict), Some(hopeless.len() - 1), "{hopeless:x?}");
        }
    }

    #[test]
    fn every_character_in_single_bytes() {
        let mut utf8 = Utf8::default();
        for character in ['\0'..='\u{d7ff}', '\u{e000}'..='\u{10ffff}'].into_iter().flatten() {
            let mut storage = [0; 4];
            let bytes = character.encode_utf8(&mut storage).as_bytes();
            assert!(bytes.iter().all(|&byte| utf8.take(&[byte], None)) && utf8.is_whole(), "{character:?}");
        }
    }
}
