//! A small DNS server of our own: says what its zone says at the moment, over UDP and TCP, with bytes made by hand.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const A: u16 = 1;
const SRV: u16 = 33;

/// Answers for its zone and for nothing else. Ends when it is dropped.
#[derive(Debug)]
pub struct Nameserver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Records by name; a name without records of the kind asked for exists all the same.
    zone: Mutex<HashMap<String, Vec<Record>>>,
    questions: AtomicUsize,
    by_stream: AtomicUsize,
    mute: AtomicBool,
    cuts: AtomicBool,
    stopped: AtomicBool,
}

#[derive(Clone, Debug)]
struct Record {
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

impl Nameserver {
    /// On a port of the kernel's choice, the same for UDP and TCP.
    pub fn start() -> Self {
        let (listener, socket) = (0..100)
            .find_map(|_| {
                let listener = TcpListener::bind("127.0.0.1:0").ok()?;
                let socket = UdpSocket::bind(listener.local_addr().ok()?).ok()?;
                Some((listener, socket))
            })
            .expect("a port that is free for both");
        let address = socket.local_addr().expect("a bound socket has an address");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let shared = Arc::new(Shared::default());
        let (datagrams, streams) = (shared.clone(), shared.clone());
        std::thread::spawn(move || datagrams.serve_datagrams(&socket));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if streams.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = streams.clone();
                std::thread::spawn(move || stream.ok().and_then(|stream| shared.serve_stream(stream)));
            }
        });
        Self { address, shared }
    }

    /// The name has these A records from now on.
    pub fn set_a(&self, name: &str, ttl: u32, addresses: &[Ipv4Addr]) {
        self.set(name, addresses.iter().map(|ip| Record { kind: A, ttl, data: ip.octets().into() }).collect());
    }

    /// The name has these SRV records from now on: priority, weight, port, target.
    pub fn set_srv(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let record = |&(priority, weight, port, target): &(u16, u16, u16, &str)| {
            let mut data: Vec<u8> = [priority, weight, port].into_iter().flat_map(u16::to_be_bytes).collect();
            data.extend_from_slice(&wire_name(target));
            Record { kind: SRV, ttl, data }
        };
        self.set(name, services.iter().map(record).collect());
    }

    /// There is no such name any more.
    pub fn remove(&self, name: &str) {
        self.shared.zone().remove(name);
    }

    /// It hears and says nothing.
    pub fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::SeqCst);
    }

    /// Answers with records are cut off over UDP, so that they must be asked for over TCP.
    pub fn cut_datagrams(&self) {
        self.shared.cuts.store(true, Ordering::SeqCst);
    }

    /// Questions heard so far, and those of them that came over TCP.
    pub fn questions(&self) -> (usize, usize) {
        (self.shared.questions.load(Ordering::SeqCst), self.shared.by_stream.load(Ordering::SeqCst))
    }

    fn set(&self, name: &str, records: Vec<Record>) {
        self.shared.zone().insert(name.to_owned(), records);
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn zone(&self) -> MutexGuard<'_, HashMap<String, Vec<Record>>> {
        self.zone.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn serve_datagrams(&self, socket: &UdpSocket) {
        let mut bytes = [0; 2048];
        while !self.stopped.load(Ordering::SeqCst) {
            let Ok((length, peer)) = socket.recv_from(&mut bytes) else { continue };
            if let Some(answer) = self.answer(&bytes[..length], self.cuts.load(Ordering::SeqCst)) {
                let _ = socket.send_to(&answer, peer);
            }
        }
    }

    fn serve_stream(&self, mut stream: TcpStream) -> Option<()> {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question).ok()?;
        self.by_stream.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer(&question, false)?;
        stream.write_all(&(answer.len() as u16).to_be_bytes()).ok()?;
        stream.write_all(&answer).ok()
    }

    /// `None` when it is mute, or hears nonsense.
    fn answer(&self, question: &[u8], cut: bool) -> Option<Vec<u8>> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        if self.mute.load(Ordering::SeqCst) {
            return None;
        }
        let (name, end) = read_name(question)?;
        let kind = u16::from_be_bytes(question.get(end..end + 2)?.try_into().ok()?);
        let zone = self.zone();
        let records: Option<Vec<_>> =
            zone.get(&name).map(|records| records.iter().filter(|record| record.kind == kind).collect());
        let mut answer = question[..2].to_vec();
        // A response, to a recursive question, of a recursive server; no such name is 3.
        let cut = cut && records.as_ref().is_some_and(|records| !records.is_empty());
        answer.extend_from_slice(&[0x81 | u8::from(cut) << 1, 0x80 | if records.is_some() { 0 } else { 3 }]);
        let records = if cut { Vec::new() } else { records.unwrap_or_default() };
        for count in [1, records.len() as u16, 0, 0] {
            answer.extend_from_slice(&count.to_be_bytes());
        }
        answer.extend_from_slice(question.get(12..end + 4)?);
        for record in records {
            answer.extend_from_slice(b"\xc0\x0c");
            answer.extend_from_slice(&record.kind.to_be_bytes());
            answer.extend_from_slice(&1_u16.to_be_bytes());
            answer.extend_from_slice(&record.ttl.to_be_bytes());
            answer.extend_from_slice(&(record.data.len() as u16).to_be_bytes());
            answer.extend_from_slice(&record.data);
        }
        Some(answer)
    }
}

/// The name asked for, in lower case, and where it ends.
fn read_name(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
