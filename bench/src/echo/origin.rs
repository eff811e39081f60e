//! `bench echo-origin`: an origin that can be told, while it works, to misbehave. A process of its own, so that SIGKILL and SIGSTOP are real.
//!
//! Each request's id is written to a journal before anything is done for it: one `write` of eight bytes to a file opened for appending, which
//! outlives a SIGKILL. So the journals of all origins together tell how often each request was tried, and which POST was executed twice. A
//! connection is written down too, once it carries its first request.
//!
//! A thread per connection and blocking calls: nothing here is shared with what is measured.

use std::fs::File;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use xtask::Outcome;

use super::id::{BODY_BYTES, CONNECTION, Id, mix};
use super::wire::Message;
use crate::flags::Flags;

/// How long an answer takes, drawn evenly between the two from its id.
const LATENCY_US: (u64, u64) = (1_000, 3_000);
/// How much slower the slow origin is.
const SLOWNESS: u32 = 10;
/// The largest answer that may be asked for.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Where its behaviour is set, on the same port: `/behave/slow`. Obeyed however it behaves.
const BEHAVE: &str = "/behave/";

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Normal,
    /// Answers after [`SLOWNESS`] times as long.
    Slow,
    /// 500 to everything.
    Broken,
    /// 503 to everything.
    Refusing,
    /// 503 to every second request, as drawn.
    HalfFailing,
    /// The connection is reset instead of an answer.
    Resetting,
    /// No answer ever comes.
    Mute,
}

impl Behaviour {
    const ALL: &[(Self, &str)] = &[
        (Self::Normal, "normal"),
        (Self::Slow, "slow"),
        (Self::Broken, "broken"),
        (Self::Refusing, "refusing"),
        (Self::HalfFailing, "half-failing"),
        (Self::Resetting, "resetting"),
        (Self::Mute, "mute"),
    ];

    fn named(name: &str) -> Option<(u8, Self)> {
        let at = Self::ALL.iter().position(|(_, known)| *known == name)?;
        Some((at as u8, Self::ALL[at].0))
    }

    /// The target of the GET that asks for this.
    pub(crate) fn target(self) -> String {
        let name = Self::ALL.iter().find(|(known, _)| *known == self).map_or("normal", |(_, name)| name);
        format!("{BEHAVE}{name}")
    }
}

struct Site {
    /// An index of [`Behaviour::ALL`].
    behaviour: AtomicU8,
    journal: File,
    /// Requests so far, for the draws of the half-failing.
    asked: AtomicU64,
    /// How long an answer takes; drawn from [`LATENCY_US`] unless told.
    service: Option<Duration>,
    slots: Option<Slots>,
}

/// Requests that may be served at one time: the others wait.
struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    fn during(&self, work: impl FnOnce()) {
        {
            let Ok(free) = self.free.lock() else { return };
            let Ok(mut free) = self.freed.wait_while(free, |free| *free == 0) else { return };
            *free -= 1;
        }
        work();
        if let Ok(mut free) = self.free.lock() {
            *free += 1;
        }
        self.freed.notify_one();
    }
}

/// `bench echo-origin --listen ADDRESS --journal FILE [--slots N] [--service-us N]`: serves until it is ended.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--listen", "--journal", "--slots", "--service-us"], &[])?;
    // SIGTERM would wait in a stopped process for ever.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("prctl(PR_SET_PDEATHSIG): {error}"))?;
    let listen: SocketAddr = flags.need("--listen")?;
    let path: String = flags.need("--journal")?;
    let journal = File::options().create(true).append(true).open(&path).map_err(|error| format!("{path}: {error}"))?;
    let listener = TcpListener::bind(listen).map_err(|error| format!("{listen}: {error}"))?;
    let service = flags.has("--service-us").then(|| flags.need("--service-us")).transpose()?.map(Duration::from_micros);
    let slots = flags.has("--slots").then(|| flags.need("--slots")).transpose()?;
    let slots = slots.map(|free| Slots { free: Mutex::new(free), freed: Condvar::new() });
    let site = Arc::new(Site { behaviour: AtomicU8::new(0), journal, asked: AtomicU64::new(0), service, slots });
    loop {
        // Out of descriptors or threads: whoever connected sees it, and this goes on.
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let site = Arc::clone(&site);
        let _ = std::thread::Builder::new().stack_size(128 << 10).spawn(move || site.hold(&stream));
    }
}

impl Site {
    /// Serves one connection to its end.
    fn hold(&self, stream: &TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut reader = BufReader::with_capacity(4 << 10, stream);
        let mut known = false;
        while let Ok(Some(request)) = Message::request(&mut reader) {
            let asked = request.target().and_then(Id::of_target);
            if asked.is_some() && !std::mem::replace(&mut known, true) {
                self.write_down(CONNECTION);
            }
            let Some(answer) = self.answer(&request, asked, stream) else {
                return;
            };
            if { stream }.write_all(&answer).is_err() || request.close {
                return;
            }
        }
    }

    fn behaviour(&self) -> Behaviour {
        Behaviour::ALL.get(usize::from(self.behaviour.load(Ordering::Relaxed))).map_or(Behaviour::Normal, |(it, _)| *it)
    }

    fn write_down(&self, id: Id) {
        // A journal that cannot be written makes every try invisible, which no proxy's figures would survive unnoticed.
        let _ = (&self.journal).write_all(&id.0.to_ne_bytes());
    }

    /// Takes as long as it should, behind the others where only so many are served at one time.
    fn serve(&self, draw: u64, slowness: u32) {
        let drawn = || Duration::from_micros(LATENCY_US.0 + draw % (LATENCY_US.1 - LATENCY_US.0));
        let latency = self.service.unwrap_or_else(drawn) * slowness;
        match &self.slots {
            None => std::thread::sleep(latency),
            Some(slots) => slots.during(|| std::thread::sleep(latency)),
        }
    }

    /// The answer's bytes, after as long as it takes; `None` where there is none and the connection ends.
    fn answer(&self, request: &Message, asked: Option<(Id, usize)>, stream: &TcpStream) -> Option<Vec<u8>> {
        let target = request.target()?;
        if let Some(name) = target.strip_prefix(BEHAVE) {
            let Some((index, _)) = Behaviour::named(name) else {
                return Some(response("404 Not Found", b"no such behaviour\n"));
            };
            self.behaviour.store(index, Ordering::Relaxed);
            return Some(response("200 OK", b"so be it\n"));
        }
        // Whoever asks without an id (a health check) is treated alike and not written down.
        if let Some((id, _)) = asked {
            self.write_down(id);
        }
        let nth = self.asked.fetch_add(1, Ordering::Relaxed);
        let draw = asked.map_or(nth, |(id, _)| id.draw());
        match self.behaviour() {
            Behaviour::Normal => self.serve(draw, 1),
            Behaviour::Slow => self.serve(draw, SLOWNESS),
            Behaviour::Broken => return Some(response("500 Internal Server Error", b"broken\n")),
            Behaviour::HalfFailing if mix(nth) & 1 == 0 => self.serve(draw, 1),
            Behaviour::Refusing | Behaviour::HalfFailing => return Some(response("503 Service Unavailable", b"no\n")),
            Behaviour::Resetting => {
                let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                return None;
            }
            Behaviour::Mute => {
                // Until the other side gives up.
                let _ = std::io::copy(&mut { stream }, &mut std::io::sink());
                return None;
            }
        }
        Some(match asked {
            // What arrived of a POST is not what was sent.
            Some((id, _)) if id.is_post() && request.body != id.body(BODY_BYTES) => {
                response("400 Bad Request", b"mangled\n")
            }
            Some((id, bytes)) => response("200 OK", &id.body(bytes.min(ANSWER_BYTES_MAX))),
            None => response("200 OK", b"well\n"),
        })
    }
}

fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_have_names() {
        for (behaviour, name) in Behaviour::ALL {
            assert_eq!(behaviour.target(), format!("{BEHAVE}{name}"));
            assert_eq!(Behaviour::named(name).map(|(_, known)| known), Some(*behaviour));
        }
        assert_eq!(Behaviour::named("kind"), None);
    }

    #[test]
    fn answers_are_whole_messages() {
        let bytes = response("200 OK", b"well\n");
        let message = Message::response(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!((message.status(), message.body.as_slice()), (Some(200), &b"well\n"[..]));
    }
}
