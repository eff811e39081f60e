//! What goes over a request's stream: one HEADERS frame there, and back a response that is read for its status and its length.
//!
//! Heads are written, and statuses read, with QPACK's static table alone: this client allows no dynamic one. Anything that cannot be read so
//! is told, never guessed.

/// Frames (RFC 9114 §7.2).
const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const SETTINGS: u8 = 0x04;
/// The control stream's type (RFC 9114 §6.2.1).
const CONTROL: u8 = 0x00;

/// All that the control stream carries: SETTINGS without any, which allows no dynamic table.
pub(crate) const CONTROL_STREAM: &[u8] = &[CONTROL, SETTINGS, 0];

/// A GET, as the one frame of its stream.
pub(crate) fn request(authority: &str, path: &str) -> Vec<u8> {
    // No insertion needed, base zero.
    headers(&[&[0, 0], &fields(authority, path)[..]].concat())
}

/// What its section says.
pub(crate) fn fields(authority: &str, path: &str) -> Vec<u8> {
    // `:method GET` and `:scheme https`, whole entries of the static table (RFC 9204, appendix A).
    let mut fields = vec![0xc0 | 17, 0xc0 | 23];
    // Literals with the table's names: `:authority` is 0, `:path` 1 (RFC 9204 §4.5.4).
    for (index, value) in [(0, authority), (1, path)] {
        fields.push(0x50 | index);
        prefixed(&mut fields, 0, 0x7f, value.len());
        fields.extend_from_slice(value.as_bytes());
    }
    fields
}

/// A section's frame.
pub(crate) fn headers(section: &[u8]) -> Vec<u8> {
    let mut frame = vec![HEADERS as u8];
    // A length as a variable-length integer of two bytes (RFC 9000 §16); a section here has less than 16 KiB.
    frame.extend_from_slice(&(0x4000 | section.len().min(0x3fff) as u16).to_be_bytes());
    frame.extend_from_slice(section);
    frame
}

/// An integer whose first byte has room for `most` beside a pattern (RFC 7541 §5.1).
pub(crate) fn prefixed(out: &mut Vec<u8>, pattern: u8, most: u8, value: usize) {
    if value < usize::from(most) {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | most);
    let mut rest = value - usize::from(most);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes of a field section that are kept: its prefix and its first field, the status.
const KEPT: usize = 16;

/// A response as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The frame's type and length, while they are incomplete.
    head: Vec<u8>,
    /// The frame under way: its type, and what is left of it.
    frame: Option<(u64, u64)>,
    section: Vec<u8>,
    status: Option<u16>,
    body: u64,
}

impl Answer {
    /// Takes the stream's next bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some((kind, left)) = self.frame else {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                self.frame = frame_head(&self.head);
                if self.frame.is_some() {
                    self.head.clear();
                    self.end_frame();
                }
                continue;
            };
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(count);
            match kind {
                DATA => self.body += count as u64,
                HEADERS => self.section.extend_from_slice(&now[..count.min(KEPT - self.section.len())]),
                // Frames of other types are passed over (RFC 9114 §9).
                _ => {}
            }
            self.frame = Some((kind, left - count as u64));
            bytes = later;
            self.end_frame();
        }
    }

    /// Forgets a frame that has nothing left; of the first head that is final, keeps the status.
    fn end_frame(&mut self) {
        let Some((kind, 0)) = self.frame else { return };
        self.frame = None;
        if kind == HEADERS {
            if !matches!(self.status, Some(200..)) {
                self.status = status(&self.section);
            }
            self.section.clear();
        }
    }

    /// What is wrong with it, now that it has ended.
    pub(super) fn judge(&self, body: u64) -> Option<String> {
        if self.status != Some(200) {
            Some(
                self.status.map_or_else(
                    || "an answer without a readable status".to_owned(),
                    |status| format!("status {status}"),
                ),
            )
        } else if self.body != body || self.frame.is_some() || !self.head.is_empty() {
            Some(format!("{} bytes of body instead of {body}", self.body))
        } else {
            None
        }
    }
}

/// A frame's type and length, when both are there.
fn frame_head(bytes: &[u8]) -> Option<(u64, u64)> {
    let (kind, rest) = variable_integer(bytes)?;
    let (length, _) = variable_integer(rest)?;
    Some((kind, length))
}

/// RFC 9000 §16.
fn variable_integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (number, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let value = number[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}

/// The status of a field section: pseudo-headers come first, and a response has but this one (RFC 9114 §4.3.2). None if it takes more than
/// the static table to tell.
fn status(section: &[u8]) -> Option<u16> {
    let [0, _base, first, rest @ ..] = section else { return None };
    match first {
        0xc0.. => status_at(indexed(first & 0x3f, 0x3f, rest)?.0),
        0x50..0x60 | 0x70..0x80 => {
            let (index, value) = indexed(first & 0x0f, 0x0f, rest)?;
            status_at(index)?;
            literal(value)
        }
        _ => None,
    }
}

/// An index that began in its first byte (RFC 7541 §5.1); the table has 99 entries, so one more byte is all there can be.
fn indexed(begun: u8, most: u8, rest: &[u8]) -> Option<(u8, &[u8])> {
    if begun < most {
        return Some((begun, rest));
    }
    let (more, rest) = rest.split_first()?;
    (*more < 0x80).then(|| (most + more, rest))
}

/// The static table's entries that are statuses (RFC 9204, appendix A).
fn status_at(index: u8) -> Option<u16> {
    let status = match index {
        24..=28 => [103, 200, 304, 404, 503][usize::from(index) - 24],
        63..=71 => [100, 204, 206, 302, 400, 403, 421, 425, 500][usize::from(index) - 63],
        _ => return None,
    };
    Some(status)
}

/// Three digits, plain or in Huffman's code, of which every digit has a code of five or six bits (RFC 7541, appendix B).
fn literal(value: &[u8]) -> Option<u16> {
    let (length, value) = value.split_first()?;
    let text = value.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        let digits: [u8; 3] = text.try_into().ok()?;
        return digits
            .iter()
            .try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')));
    }
    let (mut bits, mut left) =
        text.iter().fold((0_u64, 0_u32), |(bits, left), byte| (bits << 8 | u64::from(*byte), left + 8));
    if text.len() > 3 {
        return None;
    }
    let mut status = 0;
    for _ in 0..3 {
        let next = |count: u32| left.checked_sub(count).map(|rest| (bits >> rest) & ((1 << count) - 1));
        // 0, 1, 2 have the five bits of their value; 3 to 9 six bits from 0x19 on.
        let (digit, count) = match next(5)? {
            digit @ 0..=2 => (digit, 5),
            _ => (next(6)?.checked_sub(0x16).filter(|digit| (3..=9).contains(digit))?, 6),
        };
        status = status * 10 + digit as u16;
        left -= count;
        bits &= (1 << left) - 1;
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, payload.len() as u8][..], payload].concat()
    }

    #[test]
    fn a_request_is_one_frame_of_literals_behind_the_static_table() {
        let frame = request("127.0.0.1:8443", "/100");
        let section = b"\x00\x00\xd1\xd7\x50\x0e127.0.0.1:8443\x51\x04/100";
        assert_eq!(frame, [&[1, 0x40, section.len() as u8][..], section].concat());
        let long = "x".repeat(0x7f + 0x85);
        assert!(request("a", &long).windows(3).any(|bytes| bytes == [0x7f, 0x85, 0x01]));
    }

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        let text = [
            frame(1, &[0, 0, 0xff, 0]),
            frame(1, b"\x00\x00\xd9\x54\x83\xaa\xaa\xaa"),
            frame(0x21, b"greasegrease"),
            frame(0, b"abc"),
            frame(0, b""),
            frame(0, b"de"),
            frame(1, b"\x00\x00\x23abc\x01x"),
        ]
        .concat();
        for piece in 1..=text.len() {
            let mut answer = Answer::default();
            text.chunks(piece).for_each(|bytes| answer.read(bytes));
            assert_eq!(answer.judge(5), None, "{piece}");
            assert_eq!(answer.judge(6).as_deref(), Some("5 bytes of body instead of 6"));
        }
        let mut cut = Answer::default();
        cut.read(&text[..text.len() - 1]);
        assert!(cut.judge(5).is_some(), "an unfinished frame");
        assert!(Answer::default().judge(0).is_some(), "nothing at all");
    }

    #[test]
    fn statuses() {
        let of = |field: &[u8]| status(&[&[0, 0][..], field].concat());
        for (field, expected) in [
            (&[0xd9][..], Some(200)),
            (&[0xff, 0], Some(100)),
            (&[0xff, 8], Some(500)),
            (b"\x5f\x09\x03200", Some(200)),
            (b"\x7f\x09\x03999", Some(999)),
            (b"\x5f\x09\x82\x10\x01", Some(200)),
            // 6-bit codes: 4 is 011010, 9 is 011111.
            (b"\x5f\x09\x83\x69\xf6\xbf", Some(494)),
            (b"\x5f\x09\x03 00", None),
            (b"\x5f\x09\x032", None),
            (b"\x5f\x09\x81\x10", None),
            (b"\x5f\x09\x82\xff\xff", None),
            (b"\x5f\x09\xff\xff\xff", None),
            (b"\x51\x03200", None),
            (b"\xd1", None),
            (b"\xff\x80", None),
            (b"\x80", None),
            (b"\x23abc\x01x", None),
        ] {
            assert_eq!(of(field), expected, "{field:x?}");
        }
        assert_eq!(status(&[1, 0, 0xd9]), None, "the dynamic table");
        assert_eq!(status(&[]), None);
    }
}
