//! HTTP/1 messages as a test sees them: read strictly, so that what is not exactly a message fails the test.

use std::fmt;
use std::io;

/// A request or a response, whole.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names as they were written; values as Latin-1.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The head as it came, its empty line included.
    pub head: Vec<u8>,
    /// Responses: the interim ones that came before.
    pub interim: Vec<Self>,
    /// Responses: it ended with its connection.
    pub until_close: bool,
}

impl Message {
    /// Of a head that ends with its empty line.
    pub fn parse(head: &[u8]) -> Result<Self, String> {
        let text: String = head.iter().map(|&byte| byte as char).collect();
        let inner = text.strip_suffix("\r\n\r\n").ok_or("no empty line at the end")?;
        let mut lines = inner.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        if start.contains(['\r', '\n']) {
            return Err(format!("a bare CR or LF in `{}`", start.escape_debug()));
        }
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        Ok(Self { start, fields, head: head.to_vec(), ..Self::default() })
    }

    /// A response's status.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let mut words = self.start.split(' ');
        let version = words.next().unwrap_or_default();
        assert!(version == "HTTP/1.1" || version == "HTTP/1.0", "a response begins with `{}`", self.start);
        words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status in `{}`", self.start))
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The only field of that name.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is repeated: {all:?}");
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|field| field.1.as_str()).collect()
    }

    /// Whether the comma-separated list `name` has this member.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(member))
    }

    pub fn is_closing(&self) -> bool {
        self.lists("connection", "close")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in `{}`", line.escape_debug()))?;
    let token = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
    if name.is_empty() || !name.chars().all(token) {
        return Err(format!("`{}` is no field name", name.escape_debug()));
    }
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(|character| character != '\t' && character.is_ascii_control()) {
        return Err(format!("a control character in `{}`", line.escape_debug()));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Why there is no message.
#[derive(Debug)]
pub enum Cut {
    /// The peer closed; so many bytes of the message had come.
    Closed(usize),
    /// The peer reset the connection; so many bytes of the message had come.
    Reset(usize),
    /// Nothing came in time; so many bytes of the message had come.
    Silent(usize),
    /// It is no message.
    Malformed(String),
    Io(io::Error),
}

impl Cut {
    /// Bytes of the message that had come.
    pub fn had(&self) -> usize {
        match self {
            Self::Closed(had) | Self::Reset(had) | Self::Silent(had) => *had,
            Self::Malformed(_) | Self::Io(_) => 1,
        }
    }

    pub(crate) fn of(error: io::Error, had: usize) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent(had),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset(had)
            }
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// Bytes that are different at each place, and for each seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// FNV-1a, 64 bits: enough to tell two bodies apart that nobody forged.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.trim().chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
