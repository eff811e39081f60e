//! `bench ws-origin`: agrees to every WebSocket, and answers each message at once.

use std::io;
use std::net::SocketAddr;

use proto::h1::{HeadLimits, parse_request};
use proto::http::Fields;
use proto::ws;
use ring::{Address, Buf, ListenOptions, Listener, Stream};
use xtask::Outcome;

use super::frame::{Front, answer, front};
use crate::flags::Flags;
use crate::load::own;

/// `bench ws-origin --listen ADDRESS [--driver uring|epoll]`: serves until it is ended.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--listen", "--driver"], &[])?;
    let listen: SocketAddr = flags.need("--listen")?;
    let ring = own::ring(&flags)?;
    ring.block_on(serve(listen)).map_err(|error| format!("{listen}: {error}"))
}

pub(super) async fn serve(listen: SocketAddr) -> io::Result<()> {
    let mut listener = Listener::bind(&Address::Inet(listen), &ListenOptions::default())?;
    loop {
        let stream = listener.accept().await?;
        ring::spawn(async move {
            // How a connection ends is its client's matter: what is missing is an error there.
            let _ = hold(stream).await;
        });
    }
}

async fn hold(mut stream: Stream) -> io::Result<()> {
    let mut unread = Vec::new();
    let Some(agreement) = agree(&mut stream, &mut unread).await? else { return Ok(()) };
    stream.send(Buf::copy_of(agreement.as_bytes()));
    loop {
        let mut answers = Vec::new();
        let mut at = 0;
        loop {
            match front(&unread[at..]) {
                Front::Part => break,
                Front::Message(length, message) => {
                    at += length;
                    answers.extend(answer(&message, ring::precise_now()));
                }
                Front::Close | Front::Strange => return Ok(()),
            }
        }
        unread.drain(..at);
        if !answers.is_empty() {
            stream.send(Buf::copy_of(&answers));
        }
        let Some(more) = stream.recv().await? else { return Ok(()) };
        unread.extend_from_slice(more.bytes());
    }
}

/// Reads a handshake, and says what to answer to it; none at the end of the connection.
async fn agree(stream: &mut Stream, unread: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        let mut fields = Fields::default();
        let head = parse_request(unread, &HeadLimits::DEFAULT, &mut fields);
        if let Some(head) = head.map_err(|_| io::Error::other("no request"))? {
            let key = fields.iter().find(|field| field.name.of(unread).eq_ignore_ascii_case(b"sec-websocket-key"));
            let key = key.and_then(|field| ws::parse_key(field.value.of(unread)));
            let accept = ws::accept_of(key.ok_or_else(|| io::Error::other("no WebSocket"))?);
            unread.drain(..head.length as usize);
            return Ok(Some(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                String::from_utf8_lossy(&accept)
            )));
        }
        let Some(more) = stream.recv().await? else { return Ok(None) };
        unread.extend_from_slice(more.bytes());
    }
}
