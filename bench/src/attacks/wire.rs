//! HTTP/2 over TLS as attackers speak it: bytes that are made here, right or wrong, and frames that come back. No machine of the engine's is asked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use proto::h2::StreamId;
use proto::h2::frame::{self, ACK, END_HEADERS, END_STREAM, FrameHead, Kind, PREFACE};
use rustls::{ClientConfig, ClientConnection};

use crate::tls;

/// One connection.
pub(super) struct Line {
    tls: ClientConnection,
    socket: TcpStream,
    unread: Vec<u8>,
}

/// What has been heard.
pub(super) enum Heard {
    /// Something, or for a line that does not wait: nothing, yet.
    Open,
    /// The other side has ended the connection.
    End,
}

impl Line {
    /// Connects, shakes hands and says preface and SETTINGS.
    pub(super) fn connect(
        config: &Arc<ClientConfig>,
        to: SocketAddr,
        entries: &[(u16, u32)],
        waits: bool,
    ) -> io::Result<Self> {
        let stream = tls::connect(config, to)?;
        let (mut tls, socket) = (stream.conn, stream.sock);
        // What is not sent yet is the caller's to bound.
        tls.set_buffer_limit(None);
        socket.set_nonblocking(!waits)?;
        let mut line = Self { tls, socket, unread: Vec::new() };
        line.say(&[PREFACE, &settings(entries)].concat())?;
        Ok(line)
    }

    /// Whether nothing waits for the other side to read.
    pub(super) fn has_room(&self) -> bool {
        !self.tls.wants_write()
    }

    pub(super) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what waits, and takes what has come.
    pub(super) fn hear(&mut self) -> io::Result<Heard> {
        self.flush()?;
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => return Ok(Heard::End),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Open),
            Err(error) => return Err(error),
        }
        let state = self.tls.process_new_packets().map_err(io::Error::other)?;
        let before = self.unread.len();
        self.unread.resize(before + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut self.unread[before..])?;
        Ok(if state.peer_has_closed() { Heard::End } else { Heard::Open })
    }

    /// The next frame that is whole. SETTINGS are acknowledged in passing.
    pub(super) fn frame(&mut self) -> io::Result<Option<(FrameHead, Vec<u8>)>> {
        let Some(head) = FrameHead::parse(&self.unread) else { return Ok(None) };
        let end = FrameHead::LEN + head.length as usize;
        let Some(payload) = self.unread.get(FrameHead::LEN..end).map(<[u8]>::to_vec) else { return Ok(None) };
        self.unread.drain(..end);
        if head.kind == Kind::Settings && !head.has(ACK) {
            self.say(&made(Kind::Settings, ACK, 0, &[]))?;
        }
        Ok(Some((head, payload)))
    }
}

pub(super) fn made(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FrameHead::LEN + payload.len());
    frame::put(&mut out, kind, flags, stream, payload);
    out
}

pub(super) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        entries.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    made(Kind::Settings, 0, 0, &payload)
}

pub(super) fn window_update(stream: u32, by: u32) -> Vec<u8> {
    made(Kind::WindowUpdate, 0, stream, &by.to_be_bytes())
}

/// The field block of a request (RFC 7541), of literals that no table learns.
pub(super) fn request(method: &str, path: &str) -> Vec<u8> {
    let literal = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
    // `:scheme: https` is 7; `:method`, `:path` and `:authority` have the names of 2, 4 and 1.
    [literal(2, method), vec![0x87], literal(4, path), literal(1, tls::NAME)].concat()
}

/// A whole GET.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    made(Kind::Headers, END_HEADERS | END_STREAM, stream, &request("GET", path))
}

/// A request whose content is yet to come.
pub(super) fn post(stream: u32, path: &str) -> Vec<u8> {
    made(Kind::Headers, END_HEADERS, stream, &request("POST", path))
}

/// The stream of the nth request of a connection.
pub(super) fn stream(nth: u32) -> u32 {
    (2 * nth + 1) & StreamId::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_a_machine_reads() {
        use proto::Event;
        use proto::h1::Server;
        use proto::h2::settings::INITIAL_WINDOW_SIZE;
        use proto::h2::{Connection, HeadSpace, Limits, Said};
        use std::time::Duration;

        let mut machine = Connection::<Server>::new(Limits::DEFAULT);
        let (mut space, mut out) = (HeadSpace::default(), Vec::new());
        let mut bytes = [PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, 1)]), &get(stream(0), "/100")].concat();
        let mut asked = None;
        loop {
            let step = machine.read(Duration::ZERO, &bytes, &mut space, &mut out).unwrap();
            bytes.drain(..step.skipped);
            match step.said {
                Said::Stream(id, Event::Head(_)) => {
                    asked = Some(id.0);
                    assert!(space.text.windows(4).any(|text| text == b"/100"));
                }
                Said::Pause => break,
                _ => {}
            }
        }
        assert_eq!((asked, machine.peer_settings().initial_window_size), (Some(1), 1));
    }
}
