//! `bench load`: closed and open loops over keep-alive connections, one thread, plain epoll.
//!
//! In the open loop request `i` is due at `start + i / rate` whatever became of those before it. Its time counts from when it was due, so that a
//! proxy that stalls is charged for everybody who waited (no coordinated omission); requests still unanswered at the end count with the time they
//! waited, and as errors. Swapping this for the generator on our own ring touches this file only.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use xtask::Outcome;

use super::{Plan, Seen};
use crate::flags::Flags;
use crate::process::{myself, pinned_command, words};

/// How long answers may still come in after the last request was due.
const GRACE: Duration = Duration::from_secs(1);
/// How long nothing at all may happen in a closed loop before it looks at the clock.
const TICK: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Runs `bench load` as a process of its own and reads what it prints.
pub(crate) fn run(plan: &Plan, cpu: usize) -> Outcome<Seen> {
    let mut line = words([
        &myself()?,
        &"load",
        &"--to",
        &plan.to.to_string(),
        &"--path",
        &plan.path,
    ]);
    line.extend(words([
        &"--connections",
        &plan.connections.to_string(),
        &"--seconds",
        &plan.seconds.to_string(),
    ]));
    if plan.close {
        line.extend(words([&"--close"]));
    }
    if let Some(rate) = plan.rate {
        line.extend(words([&"--rate", &rate.to_string()]));
    }
    let output = pinned_command(cpu, &line)?
        .output()
        .map_err(|error| format!("bench load: {error}"))?;
    serde_json::from_slice(&output.stdout)
        .ok()
        .and_then(|value| Seen::from_json(&value))
        .ok_or_else(|| {
            format!(
                "bench load told no result ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })
}

/// `bench load --to ADDRESS --path PATH --connections N --seconds N [--rate R] [--close]`: prints one line of JSON.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(
        arguments,
        &["--to", "--path", "--connections", "--seconds", "--rate"],
        &["--close"],
    )?;
    let plan = Plan {
        to: flags.need("--to")?,
        path: flags.need("--path")?,
        connections: flags.need("--connections")?,
        seconds: flags.need("--seconds")?,
        close: flags.has("--close"),
        rate: flags
            .has("--rate")
            .then(|| flags.need("--rate"))
            .transpose()?,
    };
    if plan.connections == 0 || plan.rate.is_some_and(|rate| rate <= 0.0) {
        return Err("--connections and --rate must be more than nothing".to_owned());
    }
    // 50 µs of slack would be added to every wait of an open loop.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let seen = Generator::new(&plan)
        .and_then(Generator::run)
        .map_err(|error| format!("{}: {error}", plan.to))?;
    println!("{}", seen.to_json());
    Ok(())
}

/// One connection: what it has been sent, and how much of the answer is still to come.
struct Connection {
    socket: Option<OwnedFd>,
    /// When the request in flight was due; none when idle.
    due: Option<Instant>,
    unsent: usize,
    head: Vec<u8>,
    /// Bytes of the body to come, once the head is read.
    body: Option<usize>,
}

struct Generator {
    epoll: OwnedFd,
    to: SocketAddr,
    request: Vec<u8>,
    close: bool,
    interval: Option<Duration>,
    start: Instant,
    end: Instant,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// Open loop: requests that were due while no connection was idle.
    waiting: VecDeque<Instant>,
    next_due: Instant,
    in_flight: usize,
    times: Histogram<u64>,
    requests: u64,
    errors: u64,
    buffer: Vec<u8>,
}

impl Generator {
    fn new(plan: &Plan) -> io::Result<Self> {
        let connection = if plan.close { "close" } else { "keep-alive" };
        let start = Instant::now();
        let mut generator = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            to: plan.to,
            request: format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n",
                plan.path, plan.to
            )
            .into_bytes(),
            close: plan.close,
            interval: plan.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            start,
            end: start + Duration::from_secs(plan.seconds),
            connections: Vec::new(),
            idle: (0..plan.connections).rev().collect(),
            waiting: VecDeque::new(),
            next_due: start,
            in_flight: 0,
            times: Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?,
            requests: 0,
            errors: 0,
            buffer: vec![0; 256 << 10],
        };
        generator
            .connections
            .resize_with(plan.connections, || Connection {
                socket: None,
                due: None,
                unsent: 0,
                head: Vec::new(),
                body: None,
            });
        Ok(generator)
    }

    fn run(mut self) -> io::Result<Seen> {
        let mut events = Vec::with_capacity(512);
        loop {
            let now = Instant::now();
            self.send_due(now);
            let over = now >= self.end;
            if over
                && (self.interval.is_none()
                    || self.in_flight + self.waiting.len() == 0
                    || now >= self.end + GRACE)
            {
                return Ok(self.seen(now));
            }
            let wait = if self.interval.is_some() && !over {
                self.next_due.saturating_duration_since(now)
            } else {
                TICK
            };
            let wait = Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                self.event(data as usize, flags);
            }
        }
    }

    /// Sends what is due, as far as there are idle connections.
    fn send_due(&mut self, now: Instant) {
        if let Some(interval) = self.interval {
            while self.next_due <= now && self.next_due < self.end {
                self.waiting.push_back(self.next_due);
                self.next_due += interval;
            }
            while let (Some(due), Some(index)) =
                (self.waiting.front().copied(), self.idle.last().copied())
            {
                self.waiting.pop_front();
                self.idle.pop();
                self.begin(index, due);
            }
        } else if now < self.end {
            // Counted beforehand: one that fails is idle again, and is not tried twice in a turn.
            for _ in 0..self.idle.len() {
                if let Some(index) = self.idle.pop() {
                    self.begin(index, Instant::now());
                }
            }
        }
    }

    fn begin(&mut self, index: usize, due: Instant) {
        self.in_flight += 1;
        let connection = &mut self.connections[index];
        connection.due = Some(due);
        connection.unsent = self.request.len();
        connection.head.clear();
        connection.body = None;
        if connection.socket.is_none() && self.dial(index).is_err() {
            return self.fail(index);
        }
        self.send(index);
    }

    fn dial(&mut self, index: usize) -> io::Result<()> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(
            &self.epoll,
            &socket,
            EventData::new_u64(index as u64),
            flags,
        )?;
        self.connections[index].socket = Some(socket);
        Ok(())
    }

    fn send(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(socket) = &connection.socket else {
            return;
        };
        while connection.unsent > 0 {
            let rest = &self.request[self.request.len() - connection.unsent..];
            match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => connection.unsent -= sent,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => return self.fail(index),
            }
        }
    }

    fn event(&mut self, index: usize, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) && self.connections[index].unsent > 0 {
            self.send(index);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            // The end may share its edge with the last bytes.
            self.receive(index, flags.intersects(EventFlags::RDHUP | EventFlags::HUP));
        }
    }

    fn receive(&mut self, index: usize, drain: bool) {
        loop {
            let Some(socket) = &self.connections[index].socket else {
                return;
            };
            let room = self.buffer.len();
            match rustix::net::recv(socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => return self.ended(index),
                Ok((count, _)) => {
                    match self.connections[index].take(&self.buffer[..count]) {
                        Ok(false) => {}
                        Ok(true) => self.answered(index),
                        Err(()) => return self.fail(index),
                    }
                    if !drain && count < room {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => return self.ended(index),
            }
        }
    }

    fn answered(&mut self, index: usize) {
        let now = Instant::now();
        if let Some(due) = self.connections[index].due.take() {
            self.in_flight -= 1;
            self.requests += 1;
            self.times.saturating_record(nanoseconds(now - due));
        }
        if self.close {
            self.connections[index].socket = None;
        }
        self.idle.push(index);
        // In the closed loop the next request goes out at once; in the open one, if somebody waits.
        self.send_due(now);
    }

    /// The peer closed. An idle connection may be closed; one with a request in flight may not.
    fn ended(&mut self, index: usize) {
        if self.connections[index].due.is_some() {
            self.fail(index)
        } else {
            self.connections[index].socket = None
        }
    }

    fn fail(&mut self, index: usize) {
        self.errors += 1;
        self.connections[index].socket = None;
        if let Some(due) = self.connections[index].due.take() {
            self.in_flight -= 1;
            self.times.saturating_record(nanoseconds(due.elapsed()));
        }
        // Tried again on the next turn, not within this call: a refusing peer must not become a recursion.
        self.idle.insert(0, index);
    }

    fn seen(mut self, now: Instant) -> Seen {
        if self.interval.is_some() {
            let unanswered = self
                .connections
                .iter()
                .filter_map(|connection| connection.due)
                .chain(self.waiting.iter().copied());
            for due in unanswered {
                self.errors += 1;
                self.times
                    .saturating_record(nanoseconds(now.saturating_duration_since(due)));
            }
        }
        let microseconds = |value: u64| value as f64 / 1e3;
        Seen {
            requests: self.requests,
            errors: self.errors,
            seconds: (now.min(self.end) - self.start).as_secs_f64(),
            p50: microseconds(self.times.value_at_quantile(0.5)),
            p99: microseconds(self.times.value_at_quantile(0.99)),
            p999: microseconds(self.times.value_at_quantile(0.999)),
            max: microseconds(self.times.max()),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Connection {
    /// Takes bytes of the answer; true when it is complete, an error when it is none that we asked for.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, ()> {
        if self.due.is_none() {
            return Err(());
        }
        let rest = match self.body {
            Some(_) => bytes.len(),
            None => {
                let before = self.head.len();
                self.head
                    .extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]);
                let Some(end) = self
                    .head
                    .windows(4)
                    .position(|window| window == b"\r\n\r\n")
                else {
                    return if self.head.len() < HEAD_BYTES_MAX {
                        Ok(false)
                    } else {
                        Err(())
                    };
                };
                self.body = Some(length(&self.head[..end]).ok_or(())?);
                before + bytes.len() - (end + 4)
            }
        };
        let left = self.body.unwrap_or(0).checked_sub(rest).ok_or(())?;
        self.body = Some(left);
        Ok(left == 0)
    }
}

/// The body's length of a successful answer: our origins always tell it.
fn length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    if lines.next()?.split(' ').nth(1)? != "200" {
        return None;
    }
    let (_, value) = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection {
            socket: None,
            due: Some(Instant::now()),
            unsent: 0,
            head: Vec::new(),
            body: None,
        }
    }

    #[test]
    fn an_answer_cut_anywhere_is_one_answer() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 1..answer.len() {
            let mut connection = connection();
            assert_eq!(connection.take(&answer[..cut]), Ok(false), "{cut}");
            assert_eq!(connection.take(&answer[cut..]), Ok(true), "{cut}");
        }
        assert_eq!(connection().take(answer), Ok(true));
        assert_eq!(
            connection().take(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Ok(true)
        );
    }

    #[test]
    fn what_is_no_success_is_an_error() {
        assert_eq!(
            connection().take(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
            Err(())
        );
        assert_eq!(
            connection().take(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"),
            Err(())
        );
        assert_eq!(connection().take(b"HTTP/1.1 200 OK\r\n\r\n"), Err(()));
        let mut idle = connection();
        idle.due = None;
        assert_eq!(idle.take(b"x"), Err(()));
    }

    /// An origin that answers each request 200 ms late, asked 50 times a second over one connection: a closed loop would report 200 ms.
    #[test]
    fn the_open_loop_charges_for_waiting() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(200));
                if stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
                    .is_err()
                {
                    break;
                }
            }
        });
        let plan = Plan {
            to,
            path: "/".to_owned(),
            connections: 1,
            seconds: 1,
            close: false,
            rate: Some(50.0),
        };
        let seen = Generator::new(&plan).and_then(Generator::run).unwrap();
        assert!(seen.requests >= 5 && seen.requests < 50, "{seen:?}");
        assert_eq!(seen.requests + seen.errors, 50, "{seen:?}");
        assert!(seen.p99 > 900_000.0, "{seen:?}");
    }
}
