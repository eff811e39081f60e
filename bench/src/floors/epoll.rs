//! A byte relay on plain epoll: one thread, edge-triggered, one receive and one send a message, no copy but the kernel's two.
//!
//! Both descriptors of a pair are registered once, for reading and writing; after that the steady state is `epoll_wait`, `recv`, `send` and
//! nothing else. Bytes are held only while the other side does not take them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

const BACKLOG: i32 = 4096;
const BUFFER_BYTES: usize = 64 << 10;
const EVENTS_MAX: usize = 512;
/// The listener's event; pairs have `2 * index + side`.
const LISTENER: u64 = u64::MAX;

/// A client's connection (side 0) and ours to the origin (side 1).
struct Pair {
    ends: [OwnedFd; 2],
    /// Bytes that came from a side and which the other has not taken yet, with how many of them are gone.
    held: [(Vec<u8>, usize); 2],
    /// Sides that will send no more, and whether the other was told.
    finished: [bool; 2],
    told: [bool; 2],
}

struct Relay {
    epoll: OwnedFd,
    to: SocketAddr,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    /// Indices that become free when this turn's events are all seen: a later event of the turn may still mean the old pair.
    closing: Vec<usize>,
    buffer: Vec<u8>,
}

pub(crate) fn run(listen: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let listener = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::bind(&listener, &listen)?;
    rustix::net::listen(&listener, BACKLOG)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut relay =
        Relay { epoll, to, pairs: Vec::new(), free: Vec::new(), closing: Vec::new(), buffer: vec![0; BUFFER_BYTES] };
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        match epoll::wait(&relay.epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == LISTENER { relay.accept(&listener)? } else { relay.event(data, flags) }
        }
        relay.free.append(&mut relay.closing);
    }
}

impl Relay {
    fn accept(&mut self, listener: &OwnedFd) -> io::Result<()> {
        loop {
            match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                // A pair that cannot be made costs its client, not the relay.
                Ok(client) => drop(self.pair(client)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn pair(&mut self, client: OwnedFd) -> io::Result<()> {
        let origin = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        match rustix::net::connect(&origin, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        sockopt::set_tcp_nodelay(&client, true)?;
        sockopt::set_tcp_nodelay(&origin, true)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for (side, end) in [&client, &origin].into_iter().enumerate() {
            epoll::add(&self.epoll, end.as_fd(), EventData::new_u64(2 * index as u64 + side as u64), flags)?;
        }
        self.pairs[index] = Some(Pair {
            ends: [client, origin],
            held: [(Vec::new(), 0), (Vec::new(), 0)],
            finished: [false; 2],
            told: [false; 2],
        });
        Ok(())
    }

    fn event(&mut self, data: u64, flags: EventFlags) {
        let (index, side) = ((data / 2) as usize, (data % 2) as usize);
        let Some(pair) = self.pairs[index].as_mut() else {
            return;
        };
        let mut lives = !flags.contains(EventFlags::ERR);
        // Room on this side lets what came from the other go on.
        if lives && flags.contains(EventFlags::OUT) && pair.holds(1 - side) {
            // Edges that came while bytes were held were not acted upon: read until told to wait.
            lives = pair.flush(1 - side) && pair.carry(1 - side, true, &mut self.buffer);
        }
        if lives && flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP) {
            // The end may share its edge with the last bytes.
            let drain = flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
            lives = pair.carry(side, drain, &mut self.buffer);
        }
        if !lives || pair.told == [true; 2] {
            // Dropping the descriptors closes them and takes them out of the epoll set.
            self.pairs[index] = None;
            self.closing.push(index);
        }
    }
}

impl Pair {
    fn holds(&self, from: usize) -> bool {
        !self.held[from].0.is_empty()
    }

    /// Moves what came from a side to the other until either would block; unless told to `drain`, until a read comes back short.
    /// False when the pair is beyond use.
    fn carry(&mut self, from: usize, drain: bool, buffer: &mut [u8]) -> bool {
        while !self.finished[from] && !self.holds(from) {
            let room = buffer.len();
            let count = match rustix::net::recv(&self.ends[from], &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            };
            if count == 0 {
                self.finished[from] = true;
                break;
            }
            match rustix::net::send(&self.ends[1 - from], &buffer[..count], SendFlags::NOSIGNAL) {
                Ok(sent) if sent == count => {}
                Ok(sent) => self.held[from].0.extend_from_slice(&buffer[sent..count]),
                Err(Errno::AGAIN | Errno::INTR) => self.held[from].0.extend_from_slice(&buffer[..count]),
                Err(_) => return false,
            }
            // A short read emptied the socket: the next byte is an edge of its own, and asking again would only be told to wait.
            if !drain && count < room && !self.holds(from) {
                return true;
            }
        }
        self.tell(from);
        true
    }

    /// Sends what is held from a side. False when the pair is beyond use.
    fn flush(&mut self, from: usize) -> bool {
        let (bytes, gone) = &mut self.held[from];
        while *gone < bytes.len() {
            match rustix::net::send(&self.ends[1 - from], &bytes[*gone..], SendFlags::NOSIGNAL) {
                Ok(sent) => *gone += sent,
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        bytes.clear();
        *gone = 0;
        true
    }

    /// Passes on the end of a side's bytes once all of them are through.
    fn tell(&mut self, from: usize) {
        if self.finished[from] && !self.told[from] && !self.holds(from) {
            self.told[from] = true;
            // The other side may be gone already; then there is nobody to tell.
            let _ = rustix::net::shutdown(&self.ends[1 - from], Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use crate::process::free_address;

    /// More than any socket buffer holds, so that both held bytes and half-close are passed through.
    #[test]
    fn bytes_and_ends_pass_through_in_both_directions() {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let (listen, to) = (free_address().unwrap(), origin.local_addr().unwrap());
        std::thread::spawn(move || super::run(listen, to));
        std::thread::spawn(move || {
            let (mut stream, _) = origin.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let mut client = (0..200)
            .find_map(|_| {
                TcpStream::connect(listen).map_err(|_| std::thread::sleep(std::time::Duration::from_millis(10))).ok()
            })
            .unwrap();
        let sent: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == sent, "{} bytes came back of {}", back.len(), sent.len());
    }
}
