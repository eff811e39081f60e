//! What stands behind every contender: small answers, and tunnels that say what they are told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use proto::h1::{HeadLimits, parse_request};
use proto::http::Fields;
use proto::ws;
use xtask::Outcome;

/// In this process, for as long as that lives: a thread for each connection, and nobody's CPU is measured.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
}

impl Origin {
    pub(super) fn start() -> Outcome<Self> {
        let failed = |error: std::io::Error| format!("an origin: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        Ok(Self { address })
    }
}

/// Until its other end has enough.
fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut unread = Vec::new();
    let mut more = [0; 4_096];
    loop {
        let mut fields = Fields::default();
        while let Some(head) = parse_request(&unread, &HeadLimits::DEFAULT, &mut fields).ok()? {
            let key = fields.iter().find(|field| field.name.of(&unread).eq_ignore_ascii_case(b"sec-websocket-key"));
            match key.and_then(|field| ws::parse_key(field.value.of(&unread)).copied()) {
                Some(key) => return tunnel(stream, &key),
                None => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?,
            }
            unread.drain(..head.length as usize);
            fields = Fields::default();
        }
        let count = stream.read(&mut more).ok().filter(|count| *count > 0)?;
        unread.extend_from_slice(&more[..count]);
    }
}

fn tunnel(mut stream: TcpStream, key: &ws::Key) -> Option<()> {
    let accept = ws::accept_of(key);
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        String::from_utf8_lossy(&accept)
    )
    .ok()?;
    let mut said = [0; 4_096];
    loop {
        let count = stream.read(&mut said).ok().filter(|count| *count > 0)?;
        // A client's frame, unmasked: the mask of all here is of zeros.
        let frame = said[..count].get(6..).filter(|_| said[1] & 0x80 != 0).unwrap_or_default();
        let answer = [&[said[0], frame.len() as u8], frame].concat();
        stream.write_all(&answer).ok()?;
    }
}
