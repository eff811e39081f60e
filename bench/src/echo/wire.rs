//! HTTP/1.1 messages over blocking sockets, as much of it as this origin and its client need.
//!
//! Deliberately not the engine's own reader: what judges the engine must not share its mistakes.

use std::io::{self, BufRead, ErrorKind, Read};

/// A head may take this many bytes, and so may a body: both ends are ours, and what is larger is broken.
const HEAD_BYTES_MAX: u64 = 64 << 10;
const BODY_BYTES_MAX: u64 = 1 << 20;

/// A request or a response, whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The request line or the status line.
    pub(crate) first: String,
    pub(crate) body: Vec<u8>,
    /// Its sender closes the connection after it.
    pub(crate) close: bool,
}

enum Framing {
    Length(u64),
    Chunked,
    /// A response that ends with its connection.
    UntilEnd,
}

impl Message {
    /// Reads a request; `None` where the connection ends instead.
    ///
    /// # Errors
    /// The connection broke, or what came is no request.
    pub(crate) fn request(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        Self::read(reader, Framing::Length(0))
    }

    /// Reads a response with its body; `None` where the connection ends instead.
    ///
    /// # Errors
    /// The connection broke, or what came is no response.
    pub(crate) fn response(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        Self::read(reader, Framing::UntilEnd)
    }

    /// A status line's code.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first.split(' ').nth(1)?.parse().ok()
    }

    /// A request line's target.
    pub(crate) fn target(&self) -> Option<&str> {
        self.first.split(' ').nth(1)
    }

    fn read(reader: &mut impl BufRead, unless_told: Framing) -> io::Result<Option<Self>> {
        let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
        let Some(first) = line(&mut head)? else {
            return Ok(None);
        };
        let mut message =
            Self { close: first.ends_with("HTTP/1.0") || first.starts_with("HTTP/1.0"), ..Self::default() };
        message.first = first;
        let mut framing = unless_told;
        loop {
            let field = line(&mut head)?.ok_or(ErrorKind::UnexpectedEof)?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':').ok_or(ErrorKind::InvalidData)?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                framing = Framing::Length(value.parse().map_err(|_| ErrorKind::InvalidData)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                message.close |= value.eq_ignore_ascii_case("close");
            }
        }
        match framing {
            Framing::Length(length) => message.append(reader, length)?,
            Framing::Chunked => message.append_chunks(reader)?,
            Framing::UntilEnd => {
                message.close = true;
                reader.by_ref().take(BODY_BYTES_MAX).read_to_end(&mut message.body)?;
            }
        }
        Ok(Some(message))
    }

    fn append(&mut self, reader: &mut impl Read, length: u64) -> io::Result<()> {
        if length > BODY_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let from = self.body.len();
        self.body.resize(from + length as usize, 0);
        reader.read_exact(&mut self.body[from..])
    }

    fn append_chunks(&mut self, reader: &mut impl BufRead) -> io::Result<()> {
        loop {
            let mut limited = reader.by_ref().take(HEAD_BYTES_MAX);
            let size = line(&mut limited)?.ok_or(ErrorKind::UnexpectedEof)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| ErrorKind::InvalidData)?;
            if length > 0 {
                self.append(reader, length)?;
            }
            // The end of the chunk's line, or of the trailers, of which our ends send none.
            let end = line(&mut reader.by_ref().take(HEAD_BYTES_MAX))?.ok_or(ErrorKind::UnexpectedEof)?;
            if !end.is_empty() || self.body.len() as u64 > BODY_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            if length == 0 {
                return Ok(());
            }
        }
    }
}

/// A line without its end; `None` at the connection's end.
fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if reader.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let Some(text) = bytes.strip_suffix(b"\r\n") else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    String::from_utf8(text.to_vec()).map(Some).map_err(|_| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(mut text: &[u8]) -> io::Result<Option<Message>> {
        Message::response(&mut text)
    }

    #[test]
    fn bodies_of_every_framing() {
        let length = response(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcREST").unwrap().unwrap();
        assert_eq!((length.status(), length.body.as_slice(), length.close), (Some(200), &b"abc"[..], false));
        let chunked =
            response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\n\r\n").unwrap();
        assert_eq!(chunked.unwrap().body, b"abc");
        let to_the_end = response(b"HTTP/1.1 502 Bad Gateway\r\n\r\nabc").unwrap().unwrap();
        assert_eq!((to_the_end.body.as_slice(), to_the_end.close), (&b"abc"[..], true));
    }

    #[test]
    fn requests_and_ends() {
        let mut two =
            &b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\nz"[..];
        assert_eq!(Message::request(&mut two).unwrap().unwrap().target(), Some("/a"));
        let post = Message::request(&mut two).unwrap().unwrap();
        assert_eq!((post.target(), post.body.as_slice(), post.close), (Some("/b"), &b"z"[..], true));
        assert_eq!(Message::request(&mut two).unwrap(), None);
    }

    #[test]
    fn what_breaks_off_is_an_error() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Le",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
            "HTTP/1.1",
        ] {
            assert!(response(text.as_bytes()).is_err(), "{text}");
        }
    }
}
