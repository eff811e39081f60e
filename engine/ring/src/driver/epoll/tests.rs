//! What is particular to epoll; the contract itself is in `conformance.rs`.

use super::read::RECEIVES_A_TURN;
use super::write::rest_of;
use super::*;

/// A driver, and what it has answered.
struct Rig {
    epoll: Epoll,
    answers: Vec<(Token, i32, bool)>,
    bytes: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        Self { epoll: Epoll::new().unwrap(), answers: Vec::new(), bytes: Vec::new() }
    }

    fn turn(&mut self) {
        let (answers, bytes) = (&mut self.answers, &mut self.bytes);
        let sink = |completion: Completion<'_>| {
            answers.push((completion.token, completion.result, completion.more));
            bytes.extend_from_slice(completion.bytes);
        };
        self.epoll.turn(Wait::AtMost(Duration::from_millis(50)), sink).unwrap();
    }

    fn turn_until_answered(&mut self) -> Vec<(Token, i32, bool)> {
        for _ in 0..100 {
            self.turn();
            if !self.answers.is_empty() {
                break;
            }
        }
        std::mem::take(&mut self.answers)
    }

    fn sends(&mut self, token: Token, fd: Fd, bytes: &[u8]) {
        self.epoll.submit(token, Request::Send { fd, ptr: bytes.as_ptr(), len: bytes.len() as u32 });
        assert_eq!(self.turn_until_answered(), [(token, bytes.len() as i32, false)]);
    }

    fn close(&mut self, pair: [Fd; 2]) {
        pair.into_iter().for_each(|fd| self.epoll.close(fd, false));
    }
}

fn socketpair() -> [Fd; 2] {
    let mut pair = [0; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `pair` has room for the two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) }).unwrap();
    pair
}

#[test]
fn a_message_costs_one_receive_one_send_and_two_waits() {
    let mut rig = Rig::new();
    let pair = socketpair();
    rig.epoll.submit(1, Request::RecvMulti { fd: pair[1] });
    rig.turn();
    let before = rig.epoll.counts();
    for round in 0..100 {
        rig.sends(2 + round, pair[0], b"message");
        assert_eq!(rig.turn_until_answered(), [(1, 7, true)]);
    }
    let after = rig.epoll.counts();
    assert_eq!(after.calls - before.calls, 200, "a send and a receive each");
    assert_eq!(after.enters - before.enters, 100, "a turn in which a send completed does not ask for events");
    assert_eq!((after.sends - before.sends, after.receives - before.receives), (100, 100));
    assert!(rig.bytes == b"message".repeat(100));
    rig.epoll.submit(500, Request::Cancel { target: 1 });
    assert_eq!(rig.turn_until_answered(), [(1, -libc::ECANCELED, false)]);
    rig.close(pair);
}

#[test]
fn operations_on_one_side_keep_their_order() {
    let mut rig = Rig::new();
    let pair = socketpair();
    let mut memory = [[0; 2]; 3];
    for (token, place) in (1..).zip(&mut memory) {
        rig.epoll.submit(token, Request::Recv { fd: pair[1], ptr: place.as_mut_ptr(), len: 2 });
    }
    rig.epoll.submit(9, Request::Cancel { target: 2 });
    assert_eq!(rig.turn_until_answered(), [(2, -libc::ECANCELED, false)]);
    rig.epoll.submit(4, Request::Send { fd: pair[0], ptr: b"abcd".as_ptr(), len: 4 });
    while rig.answers.len() < 3 {
        rig.turn();
    }
    assert_eq!(rig.answers, [(4, 4, false), (1, 2, false), (3, 2, false)]);
    assert_eq!(memory, [*b"ab", [0, 0], *b"cd"]);
    rig.close(pair);
}

#[test]
fn one_descriptor_has_a_bounded_share_of_a_turn() {
    let mut rig = Rig::new();
    let (busy, quiet) = (socketpair(), socketpair());
    let size: i32 = 4 << 20;
    // SAFETY: an int option that lives through the call.
    check(unsafe {
        let len = size_of::<i32>() as libc::socklen_t;
        libc::setsockopt(busy[0], libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const size).cast(), len)
    })
    .unwrap();
    let flood = vec![7; 1 << 20];
    // SAFETY: `flood` is valid for its length.
    while unsafe { libc::send(busy[0], flood.as_ptr().cast(), flood.len(), libc::MSG_DONTWAIT) } > 0 {}
    rig.epoll.submit(1, Request::RecvMulti { fd: busy[1] });
    rig.turn();
    assert!(rig.bytes.len() <= RECEIVES_A_TURN as usize * SCRATCH);
    let mut memory = 0;
    rig.epoll.submit(2, Request::Recv { fd: quiet[1], ptr: &raw mut memory, len: 1 });
    rig.answers.clear();
    rig.epoll.submit(3, Request::Send { fd: quiet[0], ptr: b"x".as_ptr(), len: 1 });
    let turns = (1..100).find(|_| {
        rig.turn();
        rig.answers.contains(&(2, 1, false))
    });
    assert!(turns.is_some_and(|turns| turns <= 3), "{turns:?}");
    rig.epoll.submit(4, Request::Cancel { target: 1 });
    rig.turn();
    rig.close(busy);
    rig.close(quiet);
}

#[test]
fn unix_listeners_and_what_cannot_be_polled() {
    let path = std::env::temp_dir().join(format!("penstock-epoll-{}", std::process::id()));
    let address = Address::Unix(path.clone());
    let mut rig = Rig::new();
    let listener = rig.epoll.listen(&address, &ListenOptions::default()).unwrap();
    let near = rig.epoll.socket(&address).unwrap();
    let (storage, len) = address.to_storage().unwrap();
    rig.epoll.submit(1, Request::Connect { fd: near, addr: &raw const storage, len });
    assert_eq!(rig.turn_until_answered(), [(1, 0, false)]);
    rig.epoll.submit(2, Request::AcceptMulti { fd: listener });
    let accepted = rig.turn_until_answered()[0];
    assert!(accepted.1 > 0 && accepted.2);
    rig.epoll.submit(3, Request::Cancel { target: 2 });
    rig.turn_until_answered();
    [accepted.1, near, listener].into_iter().for_each(|fd| rig.epoll.close(fd, false));
    std::fs::remove_file(path).unwrap();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    rig.epoll.submit(4, Request::PollIn { fd: file.as_raw_fd() });
    assert_eq!(rig.turn_until_answered(), [(4, -libc::EPERM, false)]);
    rig.epoll.submit(5, Request::Recv { fd: 1_000, ptr: std::ptr::null_mut(), len: 0 });
    assert_eq!(rig.turn_until_answered(), [(5, -libc::EBADF, false)]);
}

#[test]
fn a_gather_list_is_cut_anywhere() {
    let mut parts = [b"abc".as_slice(), b"", b"defgh", b"i"]
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    // SAFETY: `msghdr` is plain data for which all zeroes is a value.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = parts.as_mut_ptr();
    msg.msg_iovlen = parts.len();
    let mut gather = Vec::new();
    for skip in 0..=9 {
        rest_of(&raw const msg, skip, &mut gather);
        let rest: Vec<u8> = gather
            .iter()
            // SAFETY: the pieces name parts of the literals above.
            .flat_map(|piece| unsafe { std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len) })
            .copied()
            .collect();
        assert_eq!(rest, b"abcdefghi"[skip..]);
    }
}

#[test]
fn waits_are_rounded_up_to_milliseconds() {
    assert_eq!(millis_up(Duration::ZERO), 0);
    assert_eq!(millis_up(Duration::from_nanos(1)), 1);
    assert_eq!(millis_up(Duration::from_micros(1_001)), 2);
    assert_eq!(millis_up(Duration::MAX), i32::MAX);
}
