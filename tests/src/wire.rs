//! A connection, of either side, whose every read and write has a deadline.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::PATIENCE;
use crate::message::{Cut, Message, field};

/// What a [`Wire`] can run over.
pub trait Stream: Read + Write + Send {
    fn patience(&self, patience: Duration) -> io::Result<()>;
    fn end(&self, how: Shutdown) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience)).and_then(|()| self.set_write_timeout(Some(patience)))
    }

    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

impl Stream for UnixStream {
    fn patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience)).and_then(|()| self.set_write_timeout(Some(patience)))
    }

    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn patience(&self, patience: Duration) -> io::Result<()> {
        (**self).patience(patience)
    }

    fn end(&self, how: Shutdown) -> io::Result<()> {
        (**self).end(how)
    }
}

/// A connection with what has been received and not been looked at.
#[derive(Debug)]
pub struct Wire<S> {
    pub stream: S,
    pub unread: Vec<u8>,
    /// Everything that is received is also put here.
    pub tap: Option<Arc<Mutex<Vec<u8>>>>,
}

/// A client's connection.
pub type Client = Wire<TcpStream>;

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Closed,
    Reset,
    /// It did not, in time.
    Silent,
}

impl Wire<TcpStream> {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Self::new(stream)
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl Wire<UnixStream> {
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::new(stream).expect("deadlines on a socket")
    }
}

impl<S: Stream> Wire<S> {
    pub fn new(stream: S) -> io::Result<Self> {
        stream.patience(PATIENCE)?;
        Ok(Self { stream, unread: Vec::new(), tap: None })
    }

    /// How long a single read or write may take from now on.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        self.stream.patience(patience).expect("a deadline on a socket");
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("sending");
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&self) {
        let _ = self.stream.end(Shutdown::Write);
    }

    /// Receives more; 0 is the end.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 << 10];
        let length = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.unread.extend_from_slice(&piece[..length]);
        if let Some(tap) = &self.tap {
            tap.lock().expect("no panic while it is held").extend_from_slice(&piece[..length]);
        }
        Ok(length)
    }

    /// Sends a request and wants its response.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        let request = request.as_ref();
        self.send(request);
        let head = request.starts_with(b"HEAD ");
        match self.response(head) {
            Ok(response) => response,
            Err(cut) => panic!("no response to {}: {cut}", request[..request.len().min(80)].escape_ascii()),
        }
    }

    /// `GET path`, kept alive.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Message {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// The next response, interim ones before it included. `to_head`: it answers HEAD.
    pub fn response(&mut self, to_head: bool) -> Result<Message, Cut> {
        let mut interim = Vec::new();
        loop {
            let mut message = self.head()?;
            if !message.start.starts_with("HTTP/1.") {
                return Err(Cut::Malformed(message.start));
            }
            let status = message.status();
            if (100..200).contains(&status) && status != 101 {
                interim.push(message);
                continue;
            }
            if !to_head && status != 204 && status != 304 && status != 101 {
                self.body(&mut message, true)?;
            }
            message.interim = interim;
            return Ok(message);
        }
    }

    /// The next request, its content included. `None`: the peer closed before it.
    pub fn request(&mut self) -> Result<Option<Message>, Cut> {
        let mut message = match self.head() {
            Ok(message) => message,
            Err(Cut::Closed(0)) => return Ok(None),
            Err(cut) => return Err(cut),
        };
        if message.lists("expect", "100-continue") {
            self.try_send("HTTP/1.1 100 Continue\r\n\r\n").map_err(|error| Cut::of(error, 1))?;
        }
        self.body(&mut message, false)?;
        Ok(Some(message))
    }

    /// The next head alone.
    pub fn head(&mut self) -> Result<Message, Cut> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.unread[searched..], b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..searched + at + 4).collect();
                return Message::parse(&head).map_err(Cut::Malformed);
            }
            searched = self.unread.len().saturating_sub(3);
            self.more()?;
        }
    }

    /// Exactly so many bytes.
    pub fn take(&mut self, length: usize) -> Result<Vec<u8>, Cut> {
        while self.unread.len() < length {
            self.more()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// Everything up to the end of the connection, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match self.more() {
                Ok(()) => {}
                Err(Cut::Closed(_)) => break End::Closed,
                Err(Cut::Silent(_)) => break End::Silent,
                Err(_) => break End::Reset,
            }
        };
        (std::mem::take(&mut self.unread), end)
    }

    fn more(&mut self) -> Result<(), Cut> {
        let had = self.unread.len();
        match self.fill() {
            Ok(0) => Err(Cut::Closed(had)),
            Ok(_) => Ok(()),
            Err(error) => Err(Cut::of(error, had)),
        }
    }

    fn body(&mut self, message: &mut Message, response: bool) -> Result<(), Cut> {
        let malformed = |why: String| Err(Cut::Malformed(why));
        let had = message.head.len();
        // A cut within content is a cut within a message, even if none of the content had come.
        let within = |cut: Cut| match cut {
            Cut::Closed(more) => Cut::Closed(more + had),
            Cut::Reset(more) => Cut::Reset(more + had),
            Cut::Silent(more) => Cut::Silent(more + had),
            other => other,
        };
        match (message.all("transfer-encoding").as_slice(), message.all("content-length").as_slice()) {
            (["chunked"], []) => self.chunked(message).map_err(within)?,
            ([], [length]) => match length.parse() {
                Ok(length) => message.body = self.take(length).map_err(within)?,
                Err(_) => return malformed(format!("Content-Length: {length}")),
            },
            ([], []) if response => {
                let (body, end) = self.rest();
                message.until_close = true;
                match end {
                    End::Closed => message.body = body,
                    End::Reset => return Err(Cut::Reset(had + body.len())),
                    End::Silent => return Err(Cut::Silent(had + body.len())),
                }
            }
            ([], []) => {}
            (codings, lengths) => return malformed(format!("codings {codings:?}, lengths {lengths:?}")),
        }
        Ok(())
    }

    fn chunked(&mut self, message: &mut Message) -> Result<(), Cut> {
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| Cut::Malformed(format!("chunk size `{}`", line.escape_debug())))?;
            if size == 0 {
                break;
            }
            let chunk = self.take(size + 2)?;
            if !chunk.ends_with(b"\r\n") {
                return Err(Cut::Malformed("a chunk does not end with CRLF".to_owned()));
            }
            message.body.extend_from_slice(&chunk[..size]);
        }
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            message.trailers.push(field(&line).map_err(Cut::Malformed)?);
        }
    }

    fn line(&mut self) -> Result<String, Cut> {
        loop {
            if let Some(at) = find(&self.unread, b"\n") {
                let line: Vec<u8> = self.unread.drain(..=at).collect();
                let text = line.strip_suffix(b"\r\n").ok_or_else(|| Cut::Malformed("a bare LF".to_owned()))?;
                return Ok(text.iter().map(|&byte| byte as char).collect());
            }
            self.more()?;
        }
    }
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}
