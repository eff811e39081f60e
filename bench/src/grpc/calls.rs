//! `bench calls`: unary calls, as many at once as are asked for, each answer read to its end: a head, the message, and trailers that say OK.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use proto::Event;
use proto::h1::{HeadLimits, RequestHead, RequestRewrite, ResponseHead, parse_request};
use proto::h2::{Client, HeadSpace, Said, StreamId};
use proto::http::{Fields, Status};
use ring::{Address, Now, Stream};
use serde_json::{Value, json};
use xtask::Outcome;

use super::PATH;
use super::wire::{Wire, now};
use crate::flags::Flags;
use crate::load::own;
use crate::process::{myself, pinned_command, words};

/// How long calls that are under way when the time is over may take to be answered.
const GRACE: Duration = Duration::from_secs(3);

/// Makes calls for so many seconds, one each at least, and returns how many; every one was answered whole.
pub(crate) fn check(to: SocketAddr, connections: usize, streams: usize, seconds: u64, cpu: usize) -> Outcome<u64> {
    let mut line = words([&myself()?, &"calls", &"--to", &to.to_string(), &"--seconds", &seconds.to_string()]);
    line.extend(words([&"--connections", &connections.to_string(), &"--streams", &streams.to_string()]));
    let output = pinned_command(&cpu.into(), &line)?.output().map_err(|error| format!("bench calls: {error}"))?;
    let told: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let count = |name: &str| told.as_ref()?.get(name)?.as_u64();
    match (count("calls"), count("wrong")) {
        (Some(calls), Some(0)) if calls > 0 => Ok(calls),
        (Some(calls), Some(wrong)) => {
            let why = told.as_ref().and_then(|told| told["why"].as_str()).unwrap_or_default();
            Err(format!("{wrong} of {calls} calls were not answered whole: {why}"))
        }
        _ => Err(format!("bench calls ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// `bench calls --to ADDRESS --connections N --streams N --seconds N`.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--to", "--connections", "--streams", "--seconds", "--driver"], &[])?;
    let (to, seconds): (SocketAddr, u64) = (flags.need("--to")?, flags.need("--seconds")?);
    let (connections, streams) = (flags.need("--connections")?, flags.need("--streams")?);
    let ring = own::ring(&flags)?;
    let tally = ring.block_on(all(to, connections, streams, Duration::from_secs(seconds)));
    println!("{}", json!({"calls": tally.calls, "wrong": tally.wrong, "why": tally.why}));
    Ok(())
}

/// What came of the calls.
#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    wrong: u64,
    /// Of the first that was wrong.
    why: Option<String>,
    /// Connections at work.
    busy: usize,
}

impl Tally {
    fn answered(&mut self, why: Option<&str>) {
        self.calls += 1;
        if let Some(why) = why {
            self.wrong += 1;
            self.why.get_or_insert_with(|| why.to_owned());
        }
    }
}

async fn all(to: SocketAddr, connections: usize, streams: usize, span: Duration) -> Tally {
    let tally = Rc::new(RefCell::new(Tally { busy: connections, ..Tally::default() }));
    let (main, until) = (ring::current_task(), ring::now() + span);
    for _ in 0..connections {
        let tally = Rc::clone(&tally);
        ring::spawn(async move {
            let mut answers = HashMap::new();
            let outcome = talk(to, streams, until, &mut answers, &tally).await;
            let why = outcome.err().map(|error| error.to_string());
            let mut tally = tally.borrow_mut();
            for _ in 0..answers.len().max(usize::from(why.is_some())) {
                tally.answered(Some(why.as_deref().unwrap_or("the connection ended first")));
            }
            tally.busy -= 1;
            ring::wake(main);
        });
    }
    let idle = poll_fn(|_| if tally.borrow().busy == 0 { Poll::Ready(()) } else { Poll::Pending });
    let ended = ring::until(until + GRACE, idle).await;
    let mut tally = tally.take();
    if ended.is_none() {
        tally.answered(Some("no answer in time"));
    }
    tally
}

/// What there is of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    head: bool,
    content: Vec<u8>,
}

impl Answer {
    fn begin(&mut self, head: &ResponseHead, space: &HeadSpace) {
        let kind = space.fields.iter().find(|field| field.name.of(&space.text) == b"content-type");
        let grpc = kind.is_some_and(|field| field.value.of(&space.text) == b"application/grpc");
        self.head = head.status == Status::OK && grpc;
    }

    /// What is wrong with it, now that it has ended.
    fn judge(&self, message: &[u8], trailers: bool, space: &HeadSpace) -> Option<&'static str> {
        let status = space.fields.iter().find(|field| field.name.of(&space.text) == b"grpc-status");
        if !self.head {
            Some("no head of gRPC's")
        } else if self.content != message {
            Some("not the message")
        } else if !trailers {
            Some("no trailers")
        } else if status.is_none_or(|field| field.value.of(&space.text) != b"0") {
            Some("trailers without `grpc-status: 0`")
        } else {
            None
        }
    }
}

/// A request as HTTP/1.1 would send it: the machine turns it into its own.
struct Request {
    text: Vec<u8>,
    head: RequestHead,
    fields: Fields,
}

impl Request {
    fn new(to: SocketAddr) -> io::Result<Self> {
        let text = format!(
            "POST {PATH} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/grpc\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let mut fields = Fields::default();
        let head = parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut fields);
        let head = head.ok().flatten().ok_or_else(|| io::Error::other("the request's head is none"))?;
        Ok(Self { text: text.into_bytes(), head, fields })
    }

    /// Opens a stream with it; none while the server takes no more.
    fn send(&self, wire: &mut Wire<Client>) -> Option<StreamId> {
        let rewrite = RequestRewrite { te_trailers: true, ..RequestRewrite::new(&self.head) };
        let Wire { machine, out, .. } = wire;
        let stream = machine.write_request(&self.text, &self.head, &self.fields, &rewrite, out).ok()?;
        wire.queue(stream);
        let _ = wire.machine.finish(stream, &mut wire.out);
        Some(stream)
    }
}

/// One connection: `streams` calls at once until the time is over, then what is still under way.
async fn talk(
    to: SocketAddr,
    streams: usize,
    until: Now,
    answers: &mut HashMap<StreamId, Answer>,
    tally: &RefCell<Tally>,
) -> io::Result<()> {
    let request = Request::new(to)?;
    let mut wire = Wire::new(Stream::connect(&Address::Inet(to)).await?);
    let mut first = true;
    loop {
        while (first || ring::now() < until) && answers.len() < streams {
            let Some(stream) = request.send(&mut wire) else { break };
            answers.insert(stream, Answer::default());
        }
        first = false;
        if answers.is_empty() {
            return Ok(());
        }
        wire.put_content();
        wire.flush().await?;
        if !wire.receive().await? {
            return Err(io::Error::other("the connection ended first"));
        }
        understand(&mut wire, answers, tally)?;
    }
}

fn understand(
    wire: &mut Wire<Client>,
    answers: &mut HashMap<StreamId, Answer>,
    tally: &RefCell<Tally>,
) -> io::Result<()> {
    let mut at = 0;
    loop {
        let Wire { machine, space, unread, out, .. } = wire;
        let step = machine.read(now(), &unread[at..], space, out).map_err(|fault| io::Error::other(fault.why))?;
        at += step.skipped;
        match step.said {
            Said::Stream(stream, Event::Head(head)) => answers.entry(stream).or_default().begin(&head, space),
            Said::Stream(stream, Event::Data { payload, consumed }) => {
                answers.entry(stream).or_default().content.extend_from_slice(&unread[at..at + payload]);
                at += consumed;
                machine.credit(stream, payload, out);
            }
            Said::Stream(stream, Event::End { consumed, trailers }) => {
                at += consumed;
                let answer = answers.remove(&stream).unwrap_or_default();
                tally.borrow_mut().answered(answer.judge(wire.message(), trailers, &wire.space));
            }
            Said::Stream(stream, Event::Reset(why)) => {
                answers.remove(&stream);
                tally.borrow_mut().answered(Some(&format!("the stream was reset: {why:?}")));
                machine.release(stream, out);
            }
            Said::Stream(_, _) | Said::Refused { .. } | Said::GoneAway { .. } | Said::Pong(_) => {}
            Said::Pause => break,
        }
    }
    wire.unread.drain(..at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{message, origin};
    use crate::process::free_address;

    #[test]
    fn our_origin_answers_whole() {
        let (address, ring) = (free_address().unwrap(), own::ring(&Flags::default()).unwrap());
        let tally = ring.block_on(async move {
            ring::spawn(async move { origin::serve(address).await.unwrap() });
            all(address, 2, 16, Duration::ZERO).await
        });
        assert_eq!((tally.calls, tally.wrong, tally.why), (32, 0, None));
    }

    #[test]
    fn what_is_missing_is_told() {
        let message = message();
        let space = HeadSpace::default();
        let whole = Answer { head: true, content: message.clone() };
        assert_eq!(whole.judge(&message, false, &space), Some("no trailers"));
        assert_eq!(whole.judge(&message, true, &space), Some("trailers without `grpc-status: 0`"));
        assert_eq!(Answer { head: true, content: Vec::new() }.judge(&message, true, &space), Some("not the message"));
        assert_eq!(Answer { head: false, ..whole }.judge(&message, true, &space), Some("no head of gRPC's"));
    }
}
