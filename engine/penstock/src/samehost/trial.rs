//! Whether the kernel does with redirected bytes what a proxy relies on, found out by connections of our own before any request takes the shortcut.
//!
//! What is tried: that bytes go by the shortcut at all and wake who waits for them; that they come in the order in which they were sent, also across
//! the change to TCP; that a receiver which reads nothing is soon waited for; and that an end is seen behind all bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use abi::samehost::Count;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Program;
use crate::limits;

/// Bytes after which nobody is waited for any more: many times what the sockets of any host take unread.
const STALLED_MAX: u64 = 256 * 1024 * 1024;

/// Tries it over IPv4, and over IPv6 where there is one.
///
/// # Errors
/// What the kernel does otherwise.
pub(super) fn try_out(program: &Program, token: u32) -> Result<(), String> {
    let of = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, 0));
    let v4 = of(Ipv4Addr::LOCALHOST.into()).map_err(|error| format!("no loopback to try it on: {error}"))?;
    try_over(program, token, &v4).map_err(|why| format!("it fails its trial over IPv4: {why}"))?;
    let Ok(v6) = of(Ipv6Addr::LOCALHOST.into()) else { return Ok(()) };
    try_over(program, token, &v6).map_err(|why| format!("it fails its trial over IPv6: {why}"))
}

fn try_over(program: &Program, token: u32, listener: &TcpListener) -> Result<(), String> {
    let (near, far) = connect(listener, token).map_err(|error| error.to_string())?;
    let mut trial = Trial { program, near, far };
    trial.redirects()?;
    trial.wakes_in_order().map_err(|error| format!("order: {error}"))?;
    trial.bounds_a_stalled_receiver().map_err(|error| format!("a stalled receiver: {error}"))?;
    trial.ends().map_err(|error| format!("end: {error}"))
}

fn connect(listener: &TcpListener, token: u32) -> std::io::Result<(TcpStream, TcpStream)> {
    let near = ring::connect_with_priority(listener.local_addr()?, token, limits::SAME_HOST_TRIAL_STEP)?;
    // Others may connect to it as well: it is a port like any other.
    loop {
        let (far, from) = listener.accept()?;
        if from == near.local_addr()? {
            for end in [&near, &far] {
                end.set_read_timeout(Some(limits::SAME_HOST_TRIAL_STEP))?;
                end.set_write_timeout(Some(limits::SAME_HOST_TRIAL_STEP))?;
            }
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}

struct Trial<'a> {
    program: &'a Program,
    near: TcpStream,
    far: TcpStream,
}

impl Trial<'_> {
    fn messages(&self) -> u64 {
        self.program.count(Count::Messages)
    }

    /// A word each way does not go by TCP.
    fn redirects(&mut self) -> Result<(), String> {
        let before = self.messages();
        let word = |from: &mut TcpStream, to: &mut TcpStream| -> std::io::Result<[u8; 4]> {
            let mut heard = [0; 4];
            from.write_all(b"word")?;
            is_readable(to)?;
            to.read_exact(&mut heard)?;
            Ok(heard)
        };
        let there = word(&mut self.near, &mut self.far).map_err(|error| error.to_string())?;
        let back = word(&mut self.far, &mut self.near).map_err(|error| error.to_string())?;
        if (&there, &back) != (b"word", b"word") {
            return Err("other bytes come than were sent".into());
        }
        match self.messages() - before {
            0 if self.program.count(Count::Joined) == 0 => {
                Err("the connection was not taken up: this process is outside of the control group".into())
            }
            0..2 => Err("bytes went by TCP".into()),
            _ => Ok(()),
        }
    }

    /// Several messages wait at the receiver, and come as they were sent.
    fn wakes_in_order(&mut self) -> std::io::Result<()> {
        for length in [1_u16, 700, 3, 9_000] {
            self.near.write_all(&pattern(0, length.into()))?;
        }
        is_readable(&self.far)?;
        for length in [1_u16, 700, 3, 9_000] {
            expect(&mut self.far, 0, length.into())?;
        }
        // It answers, and so has heard.
        self.far.write_all(&pattern(0, 40_000))?;
        expect(&mut self.near, 0, 40_000)
    }

    /// The sender is stopped by TCP, with no more than the budget on the shortcut; then everything comes, in order.
    fn bounds_a_stalled_receiver(&mut self) -> std::io::Result<()> {
        let before = self.program.count(Count::Bytes);
        self.near.set_nonblocking(true)?;
        let mut sent = 0;
        while sent < STALLED_MAX {
            let piece = pattern(sent, 4_000 + (sent % 9_001) as usize);
            match self.near.write(&piece) {
                Ok(taken) => sent += taken as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.near.set_nonblocking(false)?;
        let redirected = self.program.count(Count::Bytes) - before;
        if sent >= STALLED_MAX || redirected > u64::from(limits::SAME_HOST_BUDGET) {
            let why = format!("{redirected} of {sent} bytes were taken by the shortcut and not waited for");
            return Err(std::io::Error::other(why));
        }
        if redirected == 0 {
            return Err(std::io::Error::other("bytes went by TCP"));
        }
        let mut read = 0;
        while read < sent {
            let length = (sent - read).min(50_000);
            expect(&mut self.far, read, length as usize)?;
            read += length;
        }
        Ok(())
    }

    /// The end comes behind the bytes, and the other direction stays open.
    fn ends(&mut self) -> std::io::Result<()> {
        self.near.write_all(&pattern(0, 5))?;
        self.near.shutdown(Shutdown::Write)?;
        expect(&mut self.far, 0, 5)?;
        is_readable(&self.far)?;
        if self.far.read(&mut [0])? != 0 {
            return Err(std::io::Error::other("bytes came instead"));
        }
        self.far.write_all(&pattern(0, 6))?;
        self.far.shutdown(Shutdown::Write)?;
        expect(&mut self.near, 0, 6)?;
        if self.near.read(&mut [0])? != 0 {
            return Err(std::io::Error::other("bytes came instead"));
        }
        Ok(())
    }
}

/// Waits as an event loop waits.
fn is_readable(socket: &TcpStream) -> std::io::Result<()> {
    let wait = Timespec { tv_sec: limits::SAME_HOST_TRIAL_STEP.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait))?;
    if ready == 0 { Err(std::io::Error::other("bytes came, and who waits for them was not woken")) } else { Ok(()) }
}

/// The bytes of a stream without end from `at` on.
fn pattern(at: u64, length: usize) -> Vec<u8> {
    (at..at + length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn expect(from: &mut TcpStream, at: u64, length: usize) -> std::io::Result<()> {
    let mut heard = vec![0; length];
    from.read_exact(&mut heard)?;
    if heard == pattern(at, length) { Ok(()) } else { Err(std::io::Error::other("other bytes come than were sent")) }
}
