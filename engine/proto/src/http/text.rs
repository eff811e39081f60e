//! Character classes of RFC 9110 §5.6, as tables: one load a byte.

/// `token` (RFC 9110 §5.6.2): what methods and field names are made of.
pub fn is_token(bytes: &[u8]) -> bool {
    let is_word = |word: &[u8; 8]| is_plain_word(*word) || word.iter().all(|&byte| is_token_byte(byte));
    match bytes.last_chunk::<8>() {
        Some(last) => is_word(last) && bytes.as_chunks::<8>().0.iter().all(is_word),
        None => !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte)),
    }
}

/// Nothing but small letters and hyphens among eight bytes, which is what names of fields are made of.
#[inline]
const fn is_plain_word(word: [u8; 8]) -> bool {
    let word = u64::from_ne_bytes(word);
    // A sum that has its highest bit is of a byte that is not 0.
    let no_hyphen = (word & !HIGH ^ (ONES * b'-' as u64)) + !HIGH;
    (between(word, b'a', b'z') | !no_hyphen) & !word & HIGH == HIGH
}

/// A byte of each value 1 in a word of eight, and the highest bit of each.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
pub(crate) const HIGH: u64 = ONES << 7;

/// Which of eight bytes are of ASCII characters from `first` to `last`: their highest bits. Those above ASCII count as what they are without theirs.
#[inline]
pub(crate) const fn between(word: u64, first: u8, last: u8) -> u64 {
    let low = word & !HIGH;
    let from_first = low + ONES * (0x80 - first as u64);
    let beyond_last = low + ONES * (0x80 - last as u64 - 1);
    from_first & !beyond_last & HIGH
}

#[inline]
pub fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// `field-value` (RFC 9110 §5.5) without its surrounding white space: visible characters, obs-text, SP and HTAB.
pub fn is_field_value(bytes: &[u8]) -> bool {
    let is_word = |word: &[u8; 8]| has_no_control(*word) || word.iter().all(|&byte| is_value_byte(byte));
    match bytes.last_chunk::<8>() {
        // The last bytes are looked at once more, because that is a word at a time.
        Some(last) => is_word(last) && bytes.as_chunks::<8>().0.iter().all(is_word),
        None => bytes.iter().all(|&byte| is_value_byte(byte)),
    }
}

/// No byte below SP and no DEL among eight: those with a HTAB or obs-text are left to the table.
#[inline]
const fn has_no_control(word: [u8; 8]) -> bool {
    let word = u64::from_ne_bytes(word);
    let below_space = word.wrapping_sub(ONES * 0x20);
    let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
    (below_space | delete | word) & HIGH == 0
}

/// Whether two names of token characters are the same but for case. Setting bit 5 folds capitals onto small letters and
/// leaves the other characters of field names as they are; no other token character falls onto a letter or a hyphen.
#[inline]
pub(crate) fn is_same_name(lower: &[u8], name: &[u8]) -> bool {
    const FOLD: u64 = u64::from_ne_bytes([0x20; 8]);
    if lower.len() != name.len() {
        return false;
    }
    let ((lower_words, lower_rest), (words, rest)) = (lower.as_chunks::<8>(), name.as_chunks::<8>());
    lower_words.iter().zip(words).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b) | FOLD)
        && lower_rest.iter().zip(rest).all(|(a, b)| *a == b | 0x20)
}

#[inline]
pub(crate) fn is_value_byte(byte: u8) -> bool {
    CLASS[byte as usize] & VALUE != 0
}

/// A byte that a request target may hold. RFC 3986 allows fewer; browsers send `|`, `{` and `"` in queries, which are harmless.
/// A fragment (`#`) never belongs on the wire, and raw bytes above ASCII mean different things to different origins.
#[inline]
fn is_target_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TARGET != 0
}

/// Whether all bytes are such.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| is_target_word(*word)) && rest.iter().all(|&byte| is_target_byte(byte))
}

/// The same, of eight bytes at once. A byte borrows from its neighbour only where it is none itself.
#[inline]
const fn is_target_word(word: [u8; 8]) -> bool {
    let word = u64::from_ne_bytes(word);
    let to_space = word.wrapping_sub(ONES * (b' ' as u64 + 1));
    let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
    let fragment = (word ^ (ONES * b'#' as u64)).wrapping_sub(ONES);
    (to_space | delete | fragment | word) & HIGH == 0
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), trimmed; empty ones are skipped, as the RFC asks of recipients.
#[inline]
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Without optional white space (SP and HTAB, nothing else) at either end.
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The digits of a number, in storage of the caller's.
#[inline]
#[must_use]
pub fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    while value >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    if value >= 10 {
        digits[at - 2..at].copy_from_slice(&PAIRS[value as usize]);
        return &digits[at - 2..];
    }
    digits[at - 1] = b'0' + value as u8;
    &digits[at - 1..]
}

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
};

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        if character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class[byte] |= TOKEN;
        }
        if character == b'\t' || (character >= b' ' && character != 0x7f) {
            class[byte] |= VALUE;
        }
        if character > b' ' && character < 0x7f && character != b'#' {
            class[byte] |= TARGET;
        }
        byte += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_alike_by_word_and_by_byte() {
        for byte in 0..=255_u8 {
            for at in 0..20 {
                let mut value = [b'a'; 20];
                value[at] = byte;
                assert_eq!(is_field_value(&value), is_value_byte(byte), "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn decimals_are_as_the_language_writes_them() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        let around = powers.flat_map(|power| [power - 1, power, power + 1]);
        for number in (0..1_100).chain(around).chain([u64::from(u32::MAX), u64::MAX]) {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn tokens_are_judged_alike_by_word_and_by_byte() {
        for pair in 0..=u16::MAX {
            let [byte, next] = pair.to_ne_bytes();
            let mut name = *b"x-forwarded-proto";
            (name[3], name[4]) = (byte, next);
            assert_eq!(is_token(&name), is_token_byte(byte) && is_token_byte(next), "{byte:#x} {next:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn targets_are_judged_alike_by_word_and_by_byte() {
        for pair in 0..=u16::MAX {
            let [byte, next] = pair.to_ne_bytes();
            let mut target = [b'/'; 20];
            (target[3], target[4], target[17]) = (byte, next, byte);
            assert_eq!(is_target(&target), is_target_byte(byte) && is_target_byte(next), "{byte:#x} {next:#x}");
        }
    }

    #[test]
    fn names_are_the_same_whatever_their_case_and_only_then() {
        for byte in (0..=255_u8).filter(|&byte| is_token_byte(byte)) {
            for at in 0..17 {
                let mut name = *b"X-Forwarded-Proto";
                name[at] = byte;
                let same = name.eq_ignore_ascii_case(b"x-forwarded-proto");
                assert_eq!(is_same_name(b"x-forwarded-proto", &name), same, "{byte:#x} at {at}");
            }
        }
        assert!(!is_same_name(b"host", b"hos") && !is_same_name(b"hos", b"host"));
    }
}
