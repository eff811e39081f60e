//! A name server for one bench: it knows one set of addresses, which may change, and gives them for every name (RFC 1035, over UDP).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use xtask::Outcome;

/// How long an answer may be kept, in seconds: whoever honours it notices a change within so much.
pub(crate) const TTL_SECONDS: u8 = 1;
/// Bytes of a header, and of an answer's record.
const HEADER: usize = 12;
/// The only kind of record it has: A, of class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// Answers until it is dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    addresses: Mutex<Vec<Ipv4Addr>>,
    stop: AtomicBool,
}

impl NameServer {
    pub(crate) fn start(addresses: &[Ipv4Addr]) -> Outcome<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("a name server: {error}"))?;
        let address = socket.local_addr().map_err(|error| format!("a name server: {error}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(|error| format!("a name server: {error}"))?;
        let shared = Arc::new(Shared { addresses: Mutex::new(addresses.to_vec()), stop: AtomicBool::new(false) });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || serving.serve(&socket));
        Ok(Self { address, shared })
    }

    /// From now on the name stands for these.
    pub(crate) fn set(&self, addresses: &[Ipv4Addr]) {
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut query = [0; 512];
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut query) {
                let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(reply) = reply(&query[..length], &addresses) {
                    // A lost answer is asked for again.
                    let _ = socket.send_to(&reply, from);
                }
            }
        }
    }
}

/// The answer to a query of one question; `None` to what is no such query. Any other kind of record does not exist, which is no error.
fn reply(query: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let header = query.get(..HEADER)?;
    if header[2] & 0x80 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        match usize::from(*query.get(end)?) {
            0 => break,
            // A question is never compressed.
            length if length < 64 => end += 1 + length,
            _ => return None,
        }
    }
    let kind = query.get(end + 1..end + 5)?;
    let answers = if kind == A_IN { addresses } else { &[] };
    // Response, authoritative, recursion as it was desired and available; no error.
    let mut reply = vec![header[0], header[1], 0x84 | header[2] & 1, 0x80, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0];
    reply.extend_from_slice(&query[HEADER..end + 5]);
    for address in answers {
        // The name is the question's.
        reply.extend_from_slice(&[0xc0, HEADER as u8]);
        reply.extend_from_slice(&A_IN);
        reply.extend_from_slice(&[0, 0, 0, TTL_SECONDS, 0, 4]);
        reply.extend_from_slice(&address.octets());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a.test`, of the kind given.
    fn query(kind: u8) -> Vec<u8> {
        [&[7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1][..], b"a", &[4], b"test", &[0, 0, kind, 0, 1]].concat()
    }

    #[test]
    fn addresses_are_given_for_any_name() {
        let addresses = [Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(127, 0, 0, 12)];
        let reply = reply(&query(1), &addresses).unwrap();
        assert_eq!(reply[..12], [7, 9, 0x85, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
        assert!(reply.ends_with(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 12]));
    }

    #[test]
    fn other_kinds_are_empty_and_nonsense_is_not_answered() {
        let empty = reply(&query(28), &[Ipv4Addr::LOCALHOST]).unwrap();
        assert_eq!((empty[3] & 15, empty[7], empty.len()), (0, 0, query(28).len()));
        for length in 0..query(1).len() {
            assert_eq!(reply(&query(1)[..length], &[]), None, "{length}");
        }
        assert_eq!(reply(&[0xff; 40], &[]), None);
    }

    #[test]
    fn a_change_is_told_from_then_on() {
        let server = NameServer::start(&[Ipv4Addr::LOCALHOST]).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ask = || {
            client.send_to(&query(1), server.address).unwrap();
            let mut reply = [0; 512];
            let length = client.recv(&mut reply).unwrap();
            reply[length - 4..length].to_vec()
        };
        assert_eq!(ask(), [127, 0, 0, 1]);
        server.set(&[Ipv4Addr::new(127, 0, 0, 9)]);
        assert_eq!(ask(), [127, 0, 0, 9]);
    }
}
