//! An origin and a client of datagrams.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::PATIENCE;

/// An origin that says what it hears, unless it is told to be mute, or the datagram is `mute`. Ends when it is dropped.
#[derive(Debug)]
pub struct Echo {
    pub address: SocketAddr,
    heard: Arc<AtomicU64>,
    last_port: Arc<AtomicU64>,
    pub mute: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Echo {
    /// Begins to answer.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        let address = socket.local_addr().expect("a bound socket");
        let origin = Self {
            address,
            heard: Arc::default(),
            last_port: Arc::default(),
            mute: Arc::default(),
            over: Arc::default(),
        };
        let (heard, last_port) = (Arc::clone(&origin.heard), Arc::clone(&origin.last_port));
        let (mute, over) = (Arc::clone(&origin.mute), Arc::clone(&origin.over));
        std::thread::spawn(move || {
            let mut room = vec![0; 65_536];
            while !over.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut room) else { continue };
                heard.fetch_add(1, Ordering::SeqCst);
                last_port.store(from.port().into(), Ordering::SeqCst);
                if !mute.load(Ordering::SeqCst) && &room[..length] != b"mute" {
                    let _ = socket.send_to(&room[..length], from);
                }
            }
        });
        origin
    }

    /// How many datagrams it has heard.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }

    /// The port that it heard from last.
    pub fn last_port(&self) -> u16 {
        self.last_port.load(Ordering::SeqCst) as u16
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// A client with a port of its own.
#[derive(Debug)]
pub struct Caller(pub UdpSocket);

impl Caller {
    /// One that asks nobody else, and hears nobody else.
    pub fn new(to: SocketAddr) -> Self {
        let own = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(own).expect("a socket");
        socket.connect(to).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self(socket)
    }

    pub fn send(&self, said: &[u8]) {
        self.0.send(said).expect("it is sent");
    }

    /// # Errors
    /// Nothing comes within [`PATIENCE`].
    pub fn hear(&self) -> std::io::Result<Vec<u8>> {
        let mut room = vec![0; 65_536];
        let length = self.0.recv(&mut room)?;
        room.truncate(length);
        Ok(room)
    }

    pub fn ask(&self, said: &[u8]) -> Vec<u8> {
        self.send(said);
        self.hear().expect("a reply")
    }
}
