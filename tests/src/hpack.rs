//! HPACK (RFC 7541), as an independent witness: not a line of it is shared with `proto::h2`.
//!
//! The encoder says everything literally, without tables and without Huffman codes, so that a test says exactly what it says; the decoder
//! takes what a server may send. Both are slow, and meant to be read.

use std::collections::VecDeque;

/// A field: name and value, as Latin-1.
pub type Field = (String, String);

/// A field block that says `fields` literally.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name.as_ref(), value.as_ref())).collect()
}

/// One literal field without indexing (RFC 7541 §6.2.2).
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0], string(name), string(value)].concat()
}

/// One literal field that is put into the table (RFC 7541 §6.2.1).
pub fn indexed(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0x40], string(name), string(value)].concat()
}

/// A string as it is (RFC 7541 §5.2).
pub fn string(text: &[u8]) -> Vec<u8> {
    [integer(0, 7, text.len()), text.to_vec()].concat()
}

/// An integer behind the bits of `first` (RFC 7541 §5.1).
pub fn integer(first: u8, bits: u8, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let (mut bytes, mut rest) = (vec![first | most as u8], value - most);
    while rest >= 128 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// What a server's blocks are read with, in the order in which they come.
#[derive(Debug)]
pub struct Decoder {
    /// The newest entry first.
    table: VecDeque<Field>,
    /// Bytes that the server has said it uses, and those that it may.
    used: usize,
    allowed: usize,
    /// It has heard that it may use no more than this, and has yet to say so (RFC 9113 §4.3.1).
    due: Option<usize>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), used: TABLE_BYTES, allowed: TABLE_BYTES, due: None }
    }
}

impl Decoder {
    /// The server has agreed to a table of that size, by way of the smallest of several.
    pub fn allow(&mut self, smallest: usize, bytes: usize) {
        self.allowed = bytes;
        if smallest < self.used {
            self.due = Some(self.due.map_or(smallest, |due| due.min(smallest)));
        }
    }

    /// The fields of a block.
    ///
    /// # Errors
    /// What of RFC 7541 it breaks.
    pub fn decode(&mut self, mut block: &[u8]) -> Result<Vec<Field>, String> {
        let mut fields = Vec::new();
        while let Some(&first) = block.first() {
            if let (Some(due), 0x40.. | ..0x20) = (self.due, first) {
                return Err(format!("the table is to have no more than {due} bytes, and it is not said that it has"));
            }
            let (bits, indexing) = match first {
                0x80.. => {
                    fields.push(self.entry(take_integer(&mut block, 7)?)?);
                    continue;
                }
                0x20..=0x3f => {
                    self.resize(take_integer(&mut block, 5)?, fields.is_empty())?;
                    continue;
                }
                0x40..=0x7f => (6, true),
                _ => (4, false),
            };
            let name = match take_integer(&mut block, bits)? {
                0 => take_string(&mut block)?,
                index => self.entry(index)?.0,
            };
            let field = (name, take_string(&mut block)?);
            if indexing {
                self.table.push_front(field.clone());
                self.evict(self.used);
            }
            fields.push(field);
        }
        Ok(fields)
    }

    fn resize(&mut self, bytes: usize, at_the_front: bool) -> Result<(), String> {
        if bytes > self.allowed || !at_the_front {
            return Err(format!("a table size update to {bytes}, at the front: {at_the_front}"));
        }
        self.used = bytes;
        self.due = self.due.filter(|&due| bytes > due);
        self.evict(bytes);
        Ok(())
    }

    fn evict(&mut self, bytes: usize) {
        let size =
            |table: &VecDeque<Field>| table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        while size(&self.table) > bytes {
            self.table.pop_back();
        }
    }

    fn entry(&self, index: usize) -> Result<Field, String> {
        let known = index.checked_sub(1).and_then(|at| match STATIC.get(at) {
            Some(&(name, value)) => Some((name.to_owned(), value.to_owned())),
            None => self.table.get(at - STATIC.len()).cloned(),
        });
        known.ok_or_else(|| format!("index {index} means nothing"))
    }
}

/// What a peer may use of its table before it is told otherwise.
const TABLE_BYTES: usize = 4096;

fn take_integer(block: &mut &[u8], bits: u8) -> Result<usize, String> {
    let mut next = || {
        let (&byte, rest) = block.split_first().ok_or("an integer is cut off")?;
        *block = rest;
        Ok::<usize, String>(byte.into())
    };
    let most = (1 << bits) - 1;
    let mut value = next()? & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = next()?;
        value += (byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err("an integer without end".to_owned())
}

fn take_string(block: &mut &[u8]) -> Result<String, String> {
    let huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = take_integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or("a string is cut off")?;
    *block = rest;
    let text = if huffman { unhuffman(text)? } else { text.to_vec() };
    Ok(text.iter().map(|&byte| byte as char).collect())
}

/// The code is canonical (RFC 7541 §5.2): codes of a length follow one another, in the order of their symbols.
fn unhuffman(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut symbols: Vec<usize> = (0..LENGTHS.len()).collect();
    symbols.sort_by_key(|&symbol| LENGTHS[symbol]);
    let (mut decoded, mut code, mut length) = (Vec::new(), 0_u32, 0);
    for bit in text.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if length > 30 {
            return Err("no such Huffman code".to_owned());
        }
        let shorter = symbols.iter().take_while(|&&symbol| LENGTHS[symbol] < length);
        let first = shorter.fold(0_u32, |sum, &symbol| sum + (1 << (length - LENGTHS[symbol])));
        let Some(at) = code.checked_sub(first) else { continue };
        let mut alike = symbols.iter().filter(|&&symbol| LENGTHS[symbol] == length);
        if let Some(&symbol) = alike.nth(at as usize) {
            decoded.push(u8::try_from(symbol).map_err(|_| "the end of a string is coded")?);
            (code, length) = (0, 0);
        }
    }
    // What is left over pads the last byte with the front of the code for the end: ones, fewer than eight.
    if length > 7 || code != (1 << length) - 1 {
        return Err("a string's padding is not of ones".to_owned());
    }
    Ok(decoded)
}

/// Bits of each symbol's code (RFC 7541, appendix B); the last is the end of a string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// RFC 7541, appendix A; the first has index 1.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"), (":scheme", "http"),
    (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""), ("accept-encoding", "gzip, deflate"), ("accept-language", ""),
    ("accept-ranges", ""), ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""),
    ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""),
    ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, appendix C.6: three responses with Huffman codes and a table, but with room for everything.
    #[test]
    fn reads_the_rfcs_own_examples() {
        let mut decoder = Decoder::default();
        let first = crate::unhex(
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        );
        let fields = decoder.decode(&first).unwrap();
        let wanted = [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ];
        assert_eq!(fields, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let second = decoder.decode(&crate::unhex("4883640effc1c0bf")).unwrap();
        assert_eq!(second[0].1, "307");
        assert_eq!(
            second[1..],
            wanted[1..].iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()[..]
        );
    }

    #[test]
    fn reads_what_is_written() {
        let long = "x".repeat(70_000);
        let fields = [("a", "b"), ("long", long.as_str()), ("", "")];
        let read = Decoder::default().decode(&block(&fields)).unwrap();
        assert!(read.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(fields));
        assert!(Decoder::default().decode(&[0x80]).is_err());
        assert!(Decoder::default().decode(&[0xbe]).is_err());
    }

    #[test]
    fn a_smaller_table_must_be_confirmed() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&indexed(b"a", b"b")).map(|fields| fields.len()), Ok(1));
        assert!(decoder.decode(&[0xbe]).is_ok());
        decoder.allow(0, 100);
        assert!(decoder.decode(&[0x88]).is_err(), "nothing is said of it");
        assert!(decoder.decode(&[0x3f, 0x45, 0x88]).is_err(), "the smallest is to be said first");
        assert!(decoder.decode(&[0x20, 0x3f, 0x45, 0x88]).is_ok(), "0 and 100");
        assert!(decoder.decode(&[0xbe]).is_err(), "it is gone");
        assert!(decoder.decode(&[0x3f, 0x46]).is_err(), "101");
    }
}
