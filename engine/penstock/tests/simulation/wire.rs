//! HTTP/1 as the scripts speak it: short, strict, and nothing shared with the engine's own.

use std::io;
use std::time::Duration;

use ring::sim::{Host, Socket};

/// A head: its first line, and its fields with names in lower case.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.strip_suffix("\r\n\r\n").expect("read up to it").split("\r\n");
        let line = lines.next().expect("at least one").to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a field: {line:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Self { line, fields: lines.map(field).collect() }
    }

    /// The only field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        value
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.field(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {self:?}")))
    }

    pub(crate) fn status(&self) -> u16 {
        let code = self.line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("not a status line: {self:?}"))
    }

    pub(crate) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| {
            assert_eq!(value, "chunked");
            assert!(self.field("content-length").is_none(), "both framings: {self:?}");
            true
        })
    }
}

/// How fast a script reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) bytes: usize,
    pub(crate) pause: Duration,
}

impl Pace {
    pub(crate) const FAST: Self = Self { bytes: 64 << 10, pause: Duration::ZERO };
}

/// Reads messages from a connection.
pub(crate) struct Reader {
    host: Host,
    socket: Socket,
    pace: Pace,
    unread: Vec<u8>,
    at: usize,
    /// The content that was read last, as far as it came.
    pub(crate) content: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(host: &Host, socket: &Socket, pace: Pace) -> Self {
        Self { host: host.clone(), socket: socket.clone(), pace, unread: Vec::new(), at: 0, content: Vec::new() }
    }

    /// The next head; `None` if the connection ends before it.
    ///
    /// # Errors
    /// The connection broke, or ended within the head.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut searched = 0;
        loop {
            let unread = &self.unread[self.at..];
            if let Some(end) = find(&unread[searched..], b"\r\n\r\n") {
                let text = std::str::from_utf8(&unread[..searched + end + 4]).expect("heads are text");
                let head = Head::parse(text);
                self.at += searched + end + 4;
                return Ok(Some(head));
            }
            searched = unread.len().saturating_sub(3);
            if !self.more().await? {
                return if self.at == self.unread.len() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Content of a known length.
    ///
    /// # Errors
    /// The connection broke or ended before all of it had come.
    pub(crate) async fn exactly(&mut self, count: usize) -> io::Result<()> {
        self.content.clear();
        self.append(count).await
    }

    /// Chunked content and its trailers.
    ///
    /// # Errors
    /// As [`exactly`](Self::exactly).
    pub(crate) async fn chunked(&mut self) -> io::Result<()> {
        self.content.clear();
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().expect("at least one").trim();
            let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("not a chunk's size: {line:?}"));
            if size == 0 {
                break;
            }
            self.append(size).await?;
            assert_eq!(self.line().await?, "", "a chunk is longer than it said");
        }
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    /// Content up to the end of the connection.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn rest(&mut self) -> io::Result<()> {
        self.content.clear();
        loop {
            self.content.extend_from_slice(&self.unread[self.at..]);
            self.at = self.unread.len();
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// Nothing more may come but the end, or a break.
    pub(crate) async fn nothing_more(&mut self) {
        while let Ok(true) = self.more().await {}
        let rest = String::from_utf8_lossy(&self.unread[self.at..]);
        assert!(rest.is_empty(), "more came than was due: {rest:?}");
    }

    async fn append(&mut self, count: usize) -> io::Result<()> {
        let end = self.content.len() + count;
        loop {
            let taken = (end - self.content.len()).min(self.unread.len() - self.at);
            self.content.extend_from_slice(&self.unread[self.at..self.at + taken]);
            self.at += taken;
            if self.content.len() == end {
                return Ok(());
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.unread[self.at..], b"\r\n") {
                let line = String::from_utf8(self.unread[self.at..self.at + end].to_vec()).expect("lines are text");
                self.at += end + 2;
                return Ok(line);
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Receives; false at the end of the connection.
    async fn more(&mut self) -> io::Result<bool> {
        if self.at == self.unread.len() {
            self.unread.clear();
            self.at = 0;
        }
        if !self.pace.pause.is_zero() {
            self.host.dawdle(self.pace.pause).await;
        }
        let got = self.socket.recv(self.pace.bytes).await?;
        self.unread.extend_from_slice(&got);
        Ok(!got.is_empty())
    }
}

/// Frames content in chunks of all sizes, with extensions and trailers now and then.
pub(crate) fn chunks(host: &Host, mut content: &[u8], out: &mut Vec<u8>) {
    while !content.is_empty() {
        let least = content.len().div_ceil(8);
        let (chunk, rest) = content.split_at(host.pick(least.min(100)..=content.len()).max(1));
        let extension = if host.chance(0.1) { ";speed=\"slow\"" } else { "" };
        out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        content = rest;
    }
    out.extend_from_slice(if host.chance(0.2) { b"0\r\nx-sum: 1\r\n\r\n" } else { b"0\r\n\r\n" });
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
