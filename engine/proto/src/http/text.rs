//! Character classes of RFC 9110 §5.6, as tables: one load a byte.

/// `token` (RFC 9110 §5.6.2): what methods and field names are made of.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

#[inline]
pub fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// `field-value` (RFC 9110 §5.5) without its surrounding white space: visible characters, obs-text, SP and HTAB.
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| is_value_byte(byte))
}

#[inline]
pub(crate) fn is_value_byte(byte: u8) -> bool {
    CLASS[byte as usize] & VALUE != 0
}

/// A byte that a request target may hold. RFC 3986 allows fewer; browsers send `|`, `{` and `"` in queries, which are harmless.
/// A fragment (`#`) never belongs on the wire, and raw bytes above ASCII mean different things to different origins.
#[inline]
pub(crate) fn is_target_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TARGET != 0
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), trimmed; empty ones are skipped, as the RFC asks of recipients.
#[inline]
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|element| !element.is_empty())
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
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
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
