//! What a datagram costs by each way that the kernel offers, on loopback: the figures behind `net/udp.rs`.
//!
//! `cargo run --release -p penstock-ring --example datagram_cost`, alone on the machine. Sender and receiver are one thread; a
//! round sends a burst and receives it, and each half is timed for itself. Told are medians over rounds in nanoseconds a
//! datagram, all ways in one run, so that their ratios hold whatever the machine does meanwhile.

use std::io;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use io_uring::types::{BufRingEntry, Fd, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode};

const ROUNDS: usize = 4_000;
/// Receives of one `recvmmsg`, and buffers of the multishot receive's ring.
const BATCH: usize = 8;
const BUFFERS: u16 = 32;
const ROOM: usize = 65_535 + 256;
const CONTROL: usize = 96;
const GETEVENTS: u32 = 1;

/// What a burst is: sends of so many segments each.
#[derive(Clone, Copy)]
struct Burst {
    sends: usize,
    segments: usize,
}

const BURSTS: [Burst; 5] = [
    Burst { sends: 1, segments: 1 },
    Burst { sends: 8, segments: 1 },
    Burst { sends: 64, segments: 1 },
    Burst { sends: 1, segments: 20 },
    Burst { sends: 8, segments: 20 },
];
const SEGMENT: usize = 1_200;

fn main() -> io::Result<()> {
    println!("ns a datagram of {SEGMENT} bytes, median of {ROUNDS} rounds");
    println!(
        "{:>16} {:>12} {:>12} {:>12} | {:>12} {:>12} {:>12}",
        "sends×segments", "sendmsg", "ring", "ring+copy", "recvmmsg", "recvmsg", "multishot"
    );
    for burst in BURSTS {
        let send = [Send::Direct, Send::Ring, Send::RingCopied]
            .map(|send| rounds(burst, send, Receive::Many).map(|both| both.0));
        let receive = [Receive::Many, Receive::Each, Receive::Multishot]
            .map(|receive| rounds(burst, Send::Direct, receive).map(|both| both.1));
        let [a, b, c] = send;
        let [d, e, f] = receive;
        let name = format!("{}×{}", burst.sends, burst.segments);
        println!("{name:>16} {:>12.0} {:>12.0} {:>12.0} | {:>12.0} {:>12.0} {:>12.0}", a?, b?, c?, d?, e?, f?);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Send {
    /// `sendmsg`, one call a send.
    Direct,
    /// `SENDMSG` entries, all in one enter.
    Ring,
    /// The same, from memory that the operation owns: the bytes are copied into it.
    RingCopied,
}

#[derive(Clone, Copy, PartialEq)]
enum Receive {
    /// Poll, then `recvmmsg`.
    Many,
    /// Poll, then `recvmsg` until there is nothing.
    Each,
    /// Multishot `RECVMSG` with a ring of provided buffers.
    Multishot,
}

/// Median nanoseconds a datagram of sending and of receiving.
fn rounds(burst: Burst, send: Send, receive: Receive) -> io::Result<(f64, f64)> {
    let mut rig = Rig::new(receive)?;
    let (mut sending, mut receiving) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        rig.arm(receive)?;
        let armed = Instant::now();
        rig.send(burst, send)?;
        let sent = Instant::now();
        rig.receive(burst, receive)?;
        let received = Instant::now();
        sending.push((sent - armed).as_nanos());
        receiving.push((armed - begun + (received - sent)).as_nanos());
    }
    let datagrams = (burst.sends * burst.segments) as f64;
    let median = |mut all: Vec<u128>| {
        all.sort_unstable();
        all[all.len() / 2] as f64 / datagrams
    };
    Ok((median(sending), median(receiving)))
}

struct Rig {
    near: UdpSocket,
    far: UdpSocket,
    ring: IoUring,
    /// Sends have a ring of their own, so that what they reap is theirs.
    send_ring: IoUring,
    armed: bool,
    bytes: Vec<u8>,
    owned: Vec<Vec<u8>>,
    memory: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<[u64; CONTROL / 8]>,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    template: Box<libc::msghdr>,
    entries: Option<Provided>,
}

impl Rig {
    fn new(receive: Receive) -> io::Result<Self> {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        near.connect(far.local_addr()?)?;
        for (level, option, value) in [
            (libc::SOL_UDP, libc::UDP_GRO, 1),
            (libc::SOL_IP, libc::IP_PKTINFO, 1),
            (libc::SOL_IP, libc::IP_RECVTOS, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20),
        ] {
            set(far.as_raw_fd(), level, option, value)?;
        }
        let ring = || IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun().build(256);
        // SAFETY: plain data of the kernel's, for which all zeroes is a value.
        let (name, message, template) = unsafe { (zeroed(), zeroed(), Box::new(zeroed())) };
        let mut rig = Self {
            near,
            far,
            ring: ring()?,
            send_ring: ring()?,
            armed: false,
            bytes: vec![7; 64 * SEGMENT],
            owned: (0..64).map(|_| Vec::with_capacity(64 * SEGMENT)).collect(),
            memory: vec![0; BATCH * ROOM],
            names: vec![name; BATCH],
            controls: vec![[0; CONTROL / 8]; 64],
            vectors: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 64],
            messages: vec![message; 64],
            template,
            entries: None,
        };
        rig.template.msg_namelen = 28;
        rig.template.msg_controllen = CONTROL as _;
        if receive == Receive::Multishot {
            rig.entries = Some(Provided::register(&rig.ring)?);
        }
        Ok(rig)
    }

    /// Arms what is not armed. The call is made in any case, as a turn makes its own.
    fn arm(&mut self, receive: Receive) -> io::Result<()> {
        let fd = Fd(self.far.as_raw_fd());
        let entry = match receive {
            Receive::Multishot => opcode::RecvMsgMulti::new(fd, &raw const *self.template, 0).build(),
            Receive::Many | Receive::Each => opcode::PollAdd::new(fd, libc::POLLIN as u32).build(),
        };
        if !self.armed {
            // SAFETY: the template and the provided buffers live as long as the ring.
            unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        // SAFETY: no argument beside the numbers.
        unsafe { self.ring.submitter().enter::<()>(u32::from(!self.armed), 0, GETEVENTS, None) }?;
        self.armed = true;
        Ok(())
    }

    fn send(&mut self, burst: Burst, send: Send) -> io::Result<()> {
        let len = burst.segments * SEGMENT;
        for index in 0..burst.sends {
            let source = match send {
                Send::RingCopied => {
                    self.owned[index].clear();
                    self.owned[index].extend_from_slice(&self.bytes[..len]);
                    self.owned[index].as_ptr()
                }
                Send::Direct | Send::Ring => self.bytes.as_ptr(),
            };
            self.vectors[index] = libc::iovec { iov_base: source.cast_mut().cast(), iov_len: len };
            let control = &raw mut self.controls[index];
            let message = &mut self.messages[index].msg_hdr;
            message.msg_name = std::ptr::null_mut();
            message.msg_namelen = 0;
            message.msg_iov = &raw mut self.vectors[index];
            message.msg_iovlen = 1;
            message.msg_controllen = 0;
            message.msg_control = std::ptr::null_mut();
            if burst.segments > 1 {
                // `struct cmsghdr` of 64-bit hosts: length 18, level, type, then the segment's size.
                // SAFETY: 24 bytes of room in each.
                unsafe {
                    (*control)[0] = 18;
                    (*control)[1] = libc::SOL_UDP as u64 | (libc::UDP_SEGMENT as u64) << 32;
                    (*control)[2] = SEGMENT as u64;
                }
                message.msg_control = control.cast();
                message.msg_controllen = 24 as _;
            }
            let message = &raw const *message;
            if send == Send::Direct {
                // SAFETY: the message and what it names are valid for the call.
                if unsafe { libc::sendmsg(self.near.as_raw_fd(), message, libc::MSG_DONTWAIT) } < 0 {
                    return Err(io::Error::last_os_error());
                }
                continue;
            }
            let entry = opcode::SendMsg::new(Fd(self.near.as_raw_fd()), message).build();
            // SAFETY: all of it is kept until the completions below.
            unsafe { self.send_ring.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        if send != Send::Direct {
            self.send_ring.submit_and_wait(burst.sends)?;
            let ring = &mut self.send_ring;
            assert!(ring.completion().all(|completion| completion.result() == len as i32));
        }
        Ok(())
    }

    fn receive(&mut self, burst: Burst, receive: Receive) -> io::Result<()> {
        let mut left = burst.sends * burst.segments * SEGMENT;
        while left > 0 {
            self.ring.submit_and_wait(1)?;
            match receive {
                Receive::Multishot => left -= self.reap()?,
                Receive::Many | Receive::Each => {
                    self.ring.completion().for_each(drop);
                    self.armed = false;
                    left -= if receive == Receive::Many { self.receive_many()? } else { self.receive_each()? };
                }
            }
            if left > 0 {
                self.arm(receive)?;
            }
        }
        Ok(())
    }

    fn receive_many(&mut self) -> io::Result<usize> {
        let mut total = 0;
        loop {
            (0..BATCH).for_each(|index| self.lay_out(index));
            // SAFETY: the messages and what they name are valid for the call.
            let got = unsafe {
                let (fd, messages) = (self.far.as_raw_fd(), self.messages.as_mut_ptr());
                libc::recvmmsg(fd, messages, BATCH as u32, libc::MSG_DONTWAIT, std::ptr::null_mut())
            };
            if got < 0 {
                return empty_or_error(total);
            }
            total += self.messages[..got as usize].iter().map(|message| message.msg_len as usize).sum::<usize>();
            if (got as usize) < BATCH {
                return Ok(total);
            }
        }
    }

    fn receive_each(&mut self) -> io::Result<usize> {
        let mut total = 0;
        loop {
            self.lay_out(0);
            // SAFETY: the message and what it names are valid for the call.
            let got =
                unsafe { libc::recvmsg(self.far.as_raw_fd(), &raw mut self.messages[0].msg_hdr, libc::MSG_DONTWAIT) };
            if got < 0 {
                return empty_or_error(total);
            }
            total += got as usize;
        }
    }

    fn lay_out(&mut self, index: usize) {
        self.vectors[index] = libc::iovec { iov_base: self.memory[index * ROOM..].as_mut_ptr().cast(), iov_len: ROOM };
        let message = &mut self.messages[index].msg_hdr;
        message.msg_name = (&raw mut self.names[index]).cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        message.msg_control = (&raw mut self.controls[index]).cast();
        message.msg_controllen = CONTROL as _;
        message.msg_iov = &raw mut self.vectors[index];
        message.msg_iovlen = 1;
    }

    fn reap(&mut self) -> io::Result<usize> {
        let Self { ring, entries, template, armed, .. } = self;
        let provided = entries.as_mut().expect("registered for multishot");
        let mut total = 0;
        for completion in ring.completion() {
            *armed &= cqueue::more(completion.flags());
            if completion.result() == -libc::ENOBUFS {
                continue;
            }
            let buffer = cqueue::buffer_select(completion.flags()).ok_or(io::ErrorKind::InvalidData)?;
            let bytes = &provided.memory[buffer as usize * ROOM..][..completion.result() as usize];
            let out = RecvMsgOut::parse(bytes, template).map_err(|()| io::ErrorKind::InvalidData)?;
            total += std::hint::black_box(&out).payload_data().len();
            provided.provide(buffer);
        }
        Ok(total)
    }
}

fn empty_or_error(total: usize) -> io::Result<usize> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(total) } else { Err(error) }
}

fn set(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: an int option that lives through the call.
    let done = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), 4) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A ring of provided buffers, not incremental.
struct Provided {
    entries: *mut BufRingEntry,
    memory: Vec<u8>,
    tail: u16,
}

impl Provided {
    fn register(ring: &IoUring) -> io::Result<Self> {
        // SAFETY: a page, not empty; kept for ever.
        let entries = unsafe { std::alloc::alloc_zeroed(std::alloc::Layout::from_size_align_unchecked(4_096, 4_096)) };
        let mut this = Self { entries: entries.cast(), memory: vec![0; BUFFERS as usize * ROOM], tail: 0 };
        (0..BUFFERS).for_each(|buffer| this.provide(buffer));
        // SAFETY: page-aligned, with room for the entries, and never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(this.entries as u64, BUFFERS, 0, 0) }?;
        Ok(this)
    }

    fn provide(&mut self, buffer: u16) {
        // SAFETY: within the page; the kernel reads an entry only behind the tail.
        unsafe {
            let entry = &mut *self.entries.add((self.tail & (BUFFERS - 1)) as usize);
            entry.set_addr(self.memory.as_ptr().add(buffer as usize * ROOM) as u64);
            entry.set_len(ROOM as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}
