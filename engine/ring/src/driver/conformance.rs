//! The contract of `driver/mod.rs`, told as scenarios that every driver has to pass: io_uring and epoll on loopback
//! sockets, the simulation over several hundred seeds with every harmless fault.
//!
//! A scenario sees the `Driver` enum only, and is written as its callers have to be: receives may be short, multishot
//! operations end when they like, and a completion of something that is over means nothing.

mod splices;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use self::splices::{splices_keep_order_and_wait_for_room, streams_tell_what_they_are_ready_for};
use super::sim::{self, Faults, World};
use super::{Driver, Fd, Request, Token, Wait, epoll, uring};
use crate::net::{Address, ListenOptions};
use crate::spin::{Spin, SpinPolicy};

/// Seeds of each scenario in the simulation.
const SEEDS: u64 = 300;

/// Turns in which nothing that is waited for happens before a scenario has failed; each sleeps 1 s at the most.
const TURNS_MAX: usize = 20_000;

struct Answer {
    token: Token,
    result: i32,
    more: bool,
    bytes: Vec<u8>,
}

/// A driver, and what it has answered so far.
struct Rig {
    driver: Driver,
    tokens: Token,
    live: HashSet<Token>,
    answers: Vec<Answer>,
    /// Bytes that fill every buffer of a connection several times over.
    large: usize,
}

/// Two ends of one connection.
struct Pair {
    near: Fd,
    far: Fd,
}

impl Rig {
    fn new(driver: Driver) -> Self {
        let large = if matches!(driver, Driver::Sim(_)) { 600_000 } else { 16_000_000 };
        Self { driver, tokens: 0, live: HashSet::new(), answers: Vec::new(), large }
    }

    fn submit(&mut self, request: Request) -> Token {
        self.tokens += 1;
        self.live.insert(self.tokens);
        self.driver.submit(self.tokens, request);
        self.tokens
    }

    fn cancel(&mut self, target: Token) {
        self.tokens += 1;
        self.driver.submit(self.tokens, Request::Cancel { target });
    }

    fn turn(&mut self, wait: Wait) {
        let Self { driver, live, answers, .. } = self;
        let sink = |completion: super::Completion<'_>| {
            let super::Completion { token, result, more, bytes } = completion;
            let known = if more { live.contains(&token) } else { live.remove(&token) };
            if known {
                answers.push(Answer { token, result, more, bytes: bytes.to_vec() });
            }
        };
        driver.turn(wait, sink).unwrap();
    }

    /// The next answer to `token`.
    fn answer(&mut self, token: Token) -> Answer {
        for _ in 0..TURNS_MAX {
            if let Some(index) = self.answers.iter().position(|answer| answer.token == token) {
                return self.answers.remove(index);
            }
            self.turn(Wait::AtMost(Duration::from_secs(1)));
        }
        panic!("no answer to {token}");
    }

    /// The one result of an operation that has one.
    fn result(&mut self, token: Token) -> i32 {
        let answer = self.answer(token);
        assert!(!answer.more);
        answer.result
    }

    /// Cancels a multishot operation and returns what it still had.
    fn stop(&mut self, token: Token) -> Vec<Answer> {
        self.cancel(token);
        let mut rest = Vec::new();
        loop {
            let answer = self.answer(token);
            let more = answer.more;
            rest.push(answer);
            if !more {
                return rest;
            }
        }
    }

    fn listen(&mut self) -> (Fd, Address) {
        let any = Address::Inet(SocketAddr::from(([127, 0, 0, 1], 0)));
        let options = ListenOptions { reuse_port: false, ..ListenOptions::default() };
        let fd = self.driver.listen(&any, &options).unwrap();
        let address = self.driver.local(fd).unwrap();
        (fd, address)
    }

    fn connect(&mut self, fd: Fd, address: &Address) -> i32 {
        let (storage, len) = address.to_storage().unwrap();
        let storage = Box::new(storage);
        let token = self.submit(Request::Connect { fd, addr: &raw const *storage, len });
        self.result(token)
    }

    /// Accepts one connection, arming again after every end that a listener may meet.
    fn accept(&mut self, listener: Fd) -> Fd {
        loop {
            let token = self.submit(Request::AcceptMulti { fd: listener });
            let answer = self.answer(token);
            if answer.more {
                for late in self.stop(token) {
                    assert_eq!(late.result, -libc::ECANCELED, "only one connection was made");
                }
            }
            match answer.result {
                fd if fd >= 0 => return fd,
                error => assert_eq!(error, -libc::EMFILE),
            }
        }
    }

    fn pair(&mut self) -> Pair {
        let (listener, address) = self.listen();
        let near = self.driver.socket(&address).unwrap();
        assert_eq!(self.connect(near, &address), 0);
        let far = self.accept(listener);
        self.driver.close(listener, false);
        Pair { near, far }
    }

    fn send(&mut self, fd: Fd, bytes: &[u8]) -> i32 {
        let owned = bytes.to_vec();
        let token = self.submit(Request::Send { fd, ptr: owned.as_ptr(), len: owned.len() as u32 });
        self.result(token)
    }

    /// Receives once, up to `max` bytes.
    fn recv(&mut self, fd: Fd, max: usize) -> Result<Vec<u8>, i32> {
        let mut memory = vec![0xa5; max];
        let token = self.submit(Request::Recv { fd, ptr: memory.as_mut_ptr(), len: max as u32 });
        let result = self.result(token);
        if result < 0 {
            return Err(-result);
        }
        memory.truncate(result as usize);
        Ok(memory)
    }

    fn recv_exact(&mut self, fd: Fd, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let got = self.recv(fd, count - all.len()).unwrap();
            assert!(!got.is_empty(), "the stream ended after {} of {count} bytes", all.len());
            all.extend(got);
        }
        all
    }

    /// Receives with multishot up to the end of the stream.
    fn recv_multi_to_end(&mut self, fd: Fd) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let token = self.submit(Request::RecvMulti { fd });
            loop {
                let answer = self.answer(token);
                all.extend_from_slice(&answer.bytes);
                match answer.result {
                    0 => return all,
                    count if count > 0 => assert_eq!(answer.bytes.len(), count as usize),
                    error => assert!(error == -libc::ENOBUFS && !answer.more, "{error}"),
                }
                if !answer.more {
                    break;
                }
            }
        }
    }

    fn close(&mut self, pair: Pair) {
        self.driver.close(pair.near, false);
        self.driver.close(pair.far, false);
    }
}

/// Bytes in which a shift or a repetition shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
}

fn addresses_agree(rig: &mut Rig) {
    let pair = rig.pair();
    assert_eq!(rig.driver.local(pair.near).unwrap(), rig.driver.peer(pair.far).unwrap());
    assert_eq!(rig.driver.peer(pair.near).unwrap(), rig.driver.local(pair.far).unwrap());
    rig.close(pair);
}

fn recv_finds_waits_and_ends(rig: &mut Rig) {
    let pair = rig.pair();
    assert_eq!(rig.send(pair.near, b"found"), 5);
    assert_eq!(rig.recv_exact(pair.far, 5), b"found");
    let mut memory = vec![0; 64];
    let waiting = rig.submit(Request::Recv { fd: pair.far, ptr: memory.as_mut_ptr(), len: 64 });
    rig.turn(Wait::None);
    assert!(rig.answers.is_empty());
    assert_eq!(rig.send(pair.near, b"x"), 1);
    assert_eq!(rig.result(waiting), 1);
    assert_eq!(memory[0], b'x');
    rig.driver.shutdown(pair.near, false);
    assert_eq!(rig.recv(pair.far, 10), Ok(vec![]));
    assert_eq!(rig.recv(pair.far, 10), Ok(vec![]), "the end stays");
    rig.close(pair);
}

/// The end of the stream is seen although it stands right behind a short read.
fn end_behind_short_read(rig: &mut Rig) {
    let pair = rig.pair();
    assert_eq!(rig.send(pair.near, b"last words"), 10);
    rig.driver.shutdown(pair.near, false);
    rig.turn(Wait::AtMost(Duration::from_millis(2)));
    assert_eq!(rig.recv_multi_to_end(pair.far), b"last words");
    rig.close(pair);
}

fn multishot_keeps_order(rig: &mut Rig) {
    let pair = rig.pair();
    let sent = pattern(rig.large / 8);
    let mut sending: Vec<Token> = Vec::new();
    let mut got = Vec::new();
    let mut armed = rig.submit(Request::RecvMulti { fd: pair.far });
    for chunk in sent.chunks(rig.large / 64 + 1) {
        let token = rig.submit(Request::Send { fd: pair.near, ptr: chunk.as_ptr(), len: chunk.len() as u32 });
        sending.push(token);
        loop {
            rig.turn(Wait::AtMost(Duration::from_secs(1)));
            let mut sent_now = false;
            for answer in std::mem::take(&mut rig.answers) {
                if answer.token == token {
                    assert_eq!(answer.result, chunk.len() as i32);
                    sent_now = true;
                    continue;
                }
                got.extend_from_slice(&answer.bytes);
                assert!(answer.result > 0 || answer.result == -libc::ENOBUFS, "{}", answer.result);
                if !answer.more {
                    armed = rig.submit(Request::RecvMulti { fd: pair.far });
                }
            }
            if sent_now {
                break;
            }
        }
    }
    rig.stop(armed).iter().for_each(|answer| got.extend_from_slice(&answer.bytes));
    rig.driver.shutdown(pair.near, false);
    got.extend(rig.recv_multi_to_end(pair.far));
    assert!(got == sent, "{} bytes arrived of {}", got.len(), sent.len());
    rig.close(pair);
}

/// A send larger than every buffer on its way is one completion, and an owner's gather list is left alone.
fn sends_are_whole(rig: &mut Rig) {
    let pair = rig.pair();
    let sent = pattern(rig.large);
    let (a, rest) = sent.split_at(rig.large / 3 + 1);
    let (b, c) = rest.split_at(0);
    let part = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut parts = [part(a), part(b), part(c)];
    // SAFETY: `msghdr` is plain data for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len();
    let message = Box::new(message);
    for _ in 0..2 {
        let token = rig.submit(Request::SendMsg { fd: pair.near, msg: &raw const *message });
        assert!(rig.recv_exact(pair.far, sent.len()) == sent);
        assert_eq!(rig.result(token), sent.len() as i32);
    }
    let token = rig.submit(Request::Send { fd: pair.near, ptr: sent.as_ptr(), len: sent.len() as u32 });
    assert!(rig.recv_exact(pair.far, sent.len()) == sent);
    assert_eq!(rig.result(token), sent.len() as i32);
    rig.close(pair);
}

fn half_close(rig: &mut Rig) {
    let pair = rig.pair();
    assert_eq!(rig.send(pair.near, b"question"), 8);
    rig.driver.shutdown(pair.near, false);
    assert_eq!(rig.recv_multi_to_end(pair.far), b"question");
    assert_eq!(rig.send(pair.far, b"answer"), 6);
    rig.driver.shutdown(pair.far, false);
    assert_eq!(rig.recv_multi_to_end(pair.near), b"answer");
    assert_eq!(rig.send(pair.near, b"more"), -libc::EPIPE);
    rig.close(pair);
}

fn shutdown_of_both_ends_a_waiting_receive(rig: &mut Rig) {
    let pair = rig.pair();
    let waiting = rig.submit(Request::RecvMulti { fd: pair.near });
    rig.turn(Wait::None);
    rig.driver.shutdown(pair.near, true);
    assert_eq!(rig.result(waiting), 0);
    assert_eq!(rig.recv(pair.far, 10), Ok(vec![]));
    rig.close(pair);
}

fn reset_is_an_error_of_the_other_end(rig: &mut Rig) {
    let pair = rig.pair();
    let mut memory = [0; 16];
    let waiting = rig.submit(Request::Recv { fd: pair.far, ptr: memory.as_mut_ptr(), len: 16 });
    rig.turn(Wait::None);
    rig.driver.close(pair.near, true);
    assert_eq!(rig.result(waiting), -libc::ECONNRESET);
    assert_eq!(rig.send(pair.far, b"x"), -libc::EPIPE);
    rig.driver.close(pair.far, false);
}

fn cancelled_receives_lose_nothing(rig: &mut Rig) {
    let pair = rig.pair();
    let mut memory = vec![0; 100];
    let waiting = rig.submit(Request::Recv { fd: pair.far, ptr: memory.as_mut_ptr(), len: 100 });
    rig.turn(Wait::None);
    rig.cancel(waiting);
    assert_eq!(rig.result(waiting), -libc::ECANCELED);
    let multi = rig.submit(Request::RecvMulti { fd: pair.far });
    rig.turn(Wait::None);
    let mut got = Vec::new();
    for last in rig.stop(multi) {
        assert!(last.result == -libc::ECANCELED, "{}", last.result);
    }
    let sent = pattern(5_000);
    for chunk in sent.chunks(100) {
        let receiving = rig.submit(Request::Recv { fd: pair.far, ptr: memory.as_mut_ptr(), len: 100 });
        let sending = rig.submit(Request::Send { fd: pair.near, ptr: chunk.as_ptr(), len: chunk.len() as u32 });
        rig.turn(Wait::None);
        rig.cancel(receiving);
        let goal = got.len() + chunk.len();
        match rig.result(receiving) {
            count if count >= 0 => got.extend_from_slice(&memory[..count as usize]),
            error => assert_eq!(error, -libc::ECANCELED),
        }
        got.extend(rig.recv_exact(pair.far, goal - got.len()));
        assert_eq!(rig.result(sending), chunk.len() as i32);
    }
    rig.driver.shutdown(pair.near, false);
    got.extend(rig.recv_multi_to_end(pair.far));
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    rig.close(pair);
}

/// A cancelled send tells how much of it went.
fn cancelled_send_tells_its_part(rig: &mut Rig) {
    let pair = rig.pair();
    let sent = pattern(rig.large);
    let token = rig.submit(Request::Send { fd: pair.near, ptr: sent.as_ptr(), len: sent.len() as u32 });
    for _ in 0..5 {
        rig.turn(Wait::AtMost(Duration::from_millis(1)));
    }
    rig.cancel(token);
    let result = rig.result(token);
    assert!(result == -libc::ECANCELED || (result > 0 && (result as usize) < sent.len()), "{result}");
    rig.driver.shutdown(pair.near, false);
    let got = rig.recv_multi_to_end(pair.far);
    assert_eq!(got.len(), result.max(0) as usize);
    assert!(got == sent[..got.len()]);
    rig.close(pair);
}

fn cancelled_accept_and_unknown_targets(rig: &mut Rig) {
    let (listener, _) = rig.listen();
    let token = rig.submit(Request::AcceptMulti { fd: listener });
    rig.turn(Wait::None);
    assert_eq!(rig.stop(token).len(), 1);
    rig.cancel(token);
    rig.cancel(77_777);
    rig.turn(Wait::None);
    assert!(rig.answers.is_empty());
    rig.driver.close(listener, false);
}

fn accepts_all(rig: &mut Rig) {
    const CONNECTIONS: usize = 100;
    let (listener, address) = rig.listen();
    let (storage, len) = address.to_storage().unwrap();
    let storage = Box::new(storage);
    let mut open: Vec<Fd> = (0..CONNECTIONS).map(|_| rig.driver.socket(&address).unwrap()).collect();
    let connects: Vec<Token> =
        open.iter().map(|&fd| rig.submit(Request::Connect { fd, addr: &raw const *storage, len })).collect();
    let mut accepting = rig.submit(Request::AcceptMulti { fd: listener });
    while open.len() < 2 * CONNECTIONS {
        let answer = rig.answer(accepting);
        match answer.result {
            fd if fd >= 0 => open.push(fd),
            error => assert_eq!(error, -libc::EMFILE),
        }
        if !answer.more {
            accepting = rig.submit(Request::AcceptMulti { fd: listener });
        }
    }
    rig.stop(accepting);
    connects.into_iter().for_each(|token| assert_eq!(rig.result(token), 0));
    assert_eq!(open.iter().collect::<HashSet<_>>().len(), 2 * CONNECTIONS);
    open.into_iter().chain([listener]).for_each(|fd| rig.driver.close(fd, false));
}

fn connect_refused(rig: &mut Rig) {
    let (listener, address) = rig.listen();
    rig.driver.close(listener, false);
    let fd = rig.driver.socket(&address).unwrap();
    assert_eq!(rig.connect(fd, &address), -libc::ECONNREFUSED);
    rig.driver.close(fd, false);
}

fn polls_an_eventfd_again_and_again(rig: &mut Rig) {
    // SAFETY: a plain system call; the descriptor it opens is owned here.
    let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)) };
    let mut count = 0_u64;
    for round in 0..3 {
        let poll = rig.submit(Request::PollIn { fd: event.as_raw_fd() });
        rig.turn(Wait::None);
        assert!(rig.answers.is_empty(), "round {round}");
        let one = 1_u64;
        // SAFETY: eight valid bytes, as eventfd(2) wants them.
        assert_eq!(unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) }, 8);
        assert!(rig.result(poll) > 0);
        let ready_already = rig.submit(Request::PollIn { fd: event.as_raw_fd() });
        assert!(rig.result(ready_already) > 0);
        // SAFETY: eight valid bytes, as eventfd(2) wants them.
        assert_eq!(unsafe { libc::read(event.as_raw_fd(), (&raw mut count).cast(), 8) }, 8);
    }
    let poll = rig.submit(Request::PollIn { fd: event.as_raw_fd() });
    rig.cancel(poll);
    assert_eq!(rig.result(poll), -libc::ECANCELED);
}

/// A connection under a firehose does not keep another from being served.
fn a_busy_stream_starves_nobody(rig: &mut Rig) {
    let (busy, quiet) = (rig.pair(), rig.pair());
    let flood = pattern(rig.large);
    let mut sending = rig.submit(Request::Send { fd: busy.near, ptr: flood.as_ptr(), len: flood.len() as u32 });
    let mut receiving = rig.submit(Request::RecvMulti { fd: busy.far });
    let mut memory = [0; 8];
    let waiting = rig.submit(Request::Recv { fd: quiet.far, ptr: memory.as_mut_ptr(), len: 8 });
    let word = rig.submit(Request::Send { fd: quiet.near, ptr: b"!".as_ptr(), len: 1 });
    let mut heard = false;
    for _ in 0..TURNS_MAX {
        rig.turn(Wait::AtMost(Duration::from_millis(10)));
        for answer in std::mem::take(&mut rig.answers) {
            heard |= answer.token == waiting;
            let len = flood.len() as u32;
            if answer.token == sending {
                sending = rig.submit(Request::Send { fd: busy.near, ptr: flood.as_ptr(), len });
            } else if answer.token == receiving && !answer.more {
                receiving = rig.submit(Request::RecvMulti { fd: busy.far });
            } else if answer.token == word {
                assert_eq!(answer.result, 1);
            }
        }
        if heard && !rig.live.contains(&word) {
            break;
        }
    }
    assert!(heard);
    rig.cancel(sending);
    rig.result(sending);
    rig.stop(receiving);
    rig.close(busy);
    rig.close(quiet);
}

fn sleeps_as_long_as_asked(rig: &mut Rig) {
    let before = rig.driver.clock();
    let deadline = before + 20_000_000;
    // A turn may come back early.
    while rig.driver.clock() < deadline {
        rig.turn(Wait::AtMost(Duration::from_nanos(deadline - rig.driver.clock())));
    }
    assert!(rig.driver.clock() - before < 2_000_000_000);
}

/// What a close leaves behind must not be met by the next socket of the same number.
fn descriptors_come_back(rig: &mut Rig) {
    for round in 0..20_u8 {
        let pair = rig.pair();
        let armed = rig.submit(Request::RecvMulti { fd: pair.far });
        assert_eq!(rig.send(pair.near, &[round]), 1);
        let first = rig.answer(armed);
        if first.result == -libc::ENOBUFS {
            assert_eq!(rig.recv_exact(pair.far, 1), [round]);
        } else {
            assert_eq!(first.bytes, [round]);
        }
        if first.more {
            rig.stop(armed);
        }
        rig.close(pair);
    }
}

macro_rules! scenarios {
    ($($scenario:ident)*) => {
        mod on_epoll {
            $(#[test] fn $scenario() { super::real(super::epoll_driver(), super::$scenario); })*
        }
        mod on_uring {
            $(#[test] fn $scenario() { super::on_ring(false, super::$scenario); })*
        }
        mod on_uring_without_buffer_ring {
            $(#[test] fn $scenario() { super::on_ring(true, super::$scenario); })*
        }
        mod on_sim {
            $(#[test] fn $scenario() { super::simulated(stringify!($scenario), super::$scenario); })*
        }
    };
}

scenarios! {
    addresses_agree
    recv_finds_waits_and_ends
    end_behind_short_read
    multishot_keeps_order
    sends_are_whole
    half_close
    shutdown_of_both_ends_a_waiting_receive
    reset_is_an_error_of_the_other_end
    cancelled_receives_lose_nothing
    cancelled_send_tells_its_part
    cancelled_accept_and_unknown_targets
    accepts_all
    connect_refused
    polls_an_eventfd_again_and_again
    a_busy_stream_starves_nobody
    sleeps_as_long_as_asked
    descriptors_come_back
    streams_tell_what_they_are_ready_for
    splices_keep_order_and_wait_for_room
}

fn epoll_driver() -> Driver {
    Driver::Epoll(epoll::Epoll::new().unwrap())
}

/// Where the kernel refuses io_uring there is nothing to test; `doctor` says so, and epoll is tested in its place.
fn on_ring(without_buffer_ring: bool, scenario: fn(&mut Rig)) {
    match uring::Uring::new(Spin::new(SpinPolicy::Off)) {
        Ok(uring) if without_buffer_ring => real(Driver::Uring(uring.without_buffer_ring()), scenario),
        Ok(uring) => real(Driver::Uring(uring), scenario),
        Err(error) => eprintln!("io_uring refused ({error}): not tested"),
    }
}

fn real(driver: Driver, scenario: fn(&mut Rig)) {
    let mut rig = Rig::new(driver);
    scenario(&mut rig);
    assert!(rig.live.is_empty(), "operations without an end: {:?}", rig.live);
}

fn simulated(name: &str, scenario: fn(&mut Rig)) {
    sim::check(&format!("on_sim::{name}"), SEEDS, |seed| {
        let faults = if seed == 0 { Faults::none() } else { Faults::from_seed(seed).harmless() };
        let world = World::new(seed, faults);
        let mut rig = Rig::new(Driver::Sim(sim::Sim::new(world.node())));
        scenario(&mut rig);
        assert!(rig.live.is_empty(), "operations without an end: {:?}", rig.live);
        drop(rig);
        world.verdict()
    });
}
