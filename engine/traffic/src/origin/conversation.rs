//! One connection of an origin: requests in, answers out, one after the other.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use proto::h1::{self, Decoder, HeadLimits, Trailers};
use proto::http::{Fields, Method};
use ring::{Buf, Stream};

use super::answer::{self, Answer, Answers};
use super::{Failure, Origin, Served};

/// How long, and for how many bytes, a client that still talks is listened to after the last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What all connections of one origin share.
pub(crate) struct Site {
    pub(crate) origin: Origin,
    pub(crate) answers: Answers,
    /// State of the draws of jitter.
    pub(crate) draws: Cell<u64>,
}

/// What a head asked for: kept with the head's bytes, since the next one is most often the same.
struct Asked {
    head: Vec<u8>,
    answer: Rc<Answer>,
    head_only: bool,
    expects_continue: bool,
    close: bool,
    body: Decoder,
}

enum Next {
    Answered,
    /// The connection ends politely.
    Close,
    /// It ends now: the client is gone.
    Gone,
    Reset,
}

/// Serves one connection to its end.
pub(crate) async fn hold(site: Rc<Site>, stream: Stream) {
    let served = Rc::clone(&site.origin.served);
    Served::add(&served.connections);
    Served::add(&served.open);
    let _open = Open(served);
    let mut conversation = Conversation { site: &site, stream, unread: None, asked: None };
    loop {
        match conversation.exchange().await {
            Next::Answered => {}
            Next::Close => {
                return ring::linger(&mut conversation.stream, LINGER, LINGER_BYTES_MAX).await;
            }
            Next::Gone => return,
            Next::Reset => return conversation.stream.reset(),
        }
    }
}

/// Counts the connection as open for as long as its task lives.
struct Open(Rc<Served>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

struct Conversation<'a> {
    site: &'a Site,
    stream: Stream,
    /// Received and not understood yet.
    unread: Option<Buf>,
    asked: Option<Asked>,
}

impl Conversation<'_> {
    async fn exchange(&mut self) -> Next {
        let length = match self.head().await {
            Ok(length) => length,
            Err(next) => return next,
        };
        self.consume(length);
        let Some(asked) = &self.asked else {
            return Next::Gone;
        };
        let (answer, head_only, close, body) = (Rc::clone(&asked.answer), asked.head_only, asked.close, asked.body);
        if asked.expects_continue {
            self.stream.send(Buf::copy_of(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        if !body.is_ended()
            && let Err(next) = self.drop_body(body).await
        {
            return next;
        }
        let origin = &self.site.origin;
        if let Some(delay) = origin.delay {
            ring::sleep(delay + self.site.jitter()).await;
        }
        Served::add(&origin.served.requests);
        let answer = if self.site.fails() {
            Served::add(&origin.served.failures);
            match origin.failure {
                Failure::Status500 => Rc::clone(&self.site.answers.failure),
                Failure::Reset => return Next::Reset,
            }
        } else {
            answer
        };
        match self.site.answers.send(&answer, head_only, &mut self.stream).await {
            Err(_) => Next::Gone,
            Ok(()) if close => Next::Close,
            Ok(()) => Next::Answered,
        }
    }

    /// Reads up to the end of a head, whose length it returns; `asked` then tells what it asks for.
    async fn head(&mut self) -> Result<usize, Next> {
        loop {
            if let Some(unread) = &self.unread {
                if let Some(asked) = &self.asked
                    && unread.bytes().starts_with(&asked.head)
                {
                    return Ok(asked.head.len());
                }
                if let Some(asked) = self.site.understand(unread.bytes())? {
                    let length = asked.head.len();
                    self.asked = Some(asked);
                    return Ok(length);
                }
            }
            self.receive().await?;
        }
    }

    async fn drop_body(&mut self, mut body: Decoder) -> Result<(), Next> {
        let mut trailers = Trailers::default();
        loop {
            if let Some(unread) = &mut self.unread {
                let decoded = body.decode(unread.bytes_mut(), &mut trailers).map_err(|_| self.site.malformed())?;
                self.consume(decoded.consumed);
                if decoded.ended {
                    return Ok(());
                }
            }
            self.receive().await?;
        }
    }

    /// Adds what comes next to what is unread.
    async fn receive(&mut self) -> Result<(), Next> {
        let received = match self.stream.recv().await {
            Ok(Some(received)) => received,
            Ok(None) if self.unread.is_none() => return Err(Next::Close),
            Ok(None) | Err(_) => return Err(Next::Gone),
        };
        self.unread = Some(match self.unread.take() {
            None => received,
            Some(unread) => {
                // Never more than a head of the largest size and one receive: `understand` refuses larger ones.
                let mut joined = unread.with_more_room(received.len()).ok_or_else(|| self.site.malformed())?;
                joined.extend(received.bytes());
                joined
            }
        });
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        if let Some(unread) = &mut self.unread {
            unread.consume(count);
            if unread.is_empty() {
                self.unread = None;
            }
        }
    }
}

impl Site {
    /// What the head at the start of `bytes` asks for; `None` if it has not arrived whole.
    fn understand(&self, bytes: &[u8]) -> Result<Option<Asked>, Next> {
        let mut fields = Fields::default();
        let head = h1::parse_request(bytes, &HeadLimits::DEFAULT, &mut fields).map_err(|_| self.malformed())?;
        Ok(head.map(|head| {
            let close = !head.persistent || !self.origin.keep_alive;
            let size = answer::size_of(head.path.of(bytes)).unwrap_or(self.origin.body_bytes);
            Asked {
                head: bytes[..head.length as usize].to_vec(),
                answer: self.answers.of(size, close),
                head_only: head.method == Method::Head,
                expects_continue: head.expect_continue,
                close,
                body: Decoder::new(head.framing),
            }
        }))
    }

    fn malformed(&self) -> Next {
        Served::add(&self.origin.served.malformed);
        Next::Reset
    }

    fn fails(&self) -> bool {
        let nth = self.origin.served.requests.get();
        self.origin.fail_every.is_some_and(|every| every > 0 && nth.is_multiple_of(u64::from(every)))
    }

    /// Evenly between nothing and the origin's jitter (xorshift64).
    fn jitter(&self) -> Duration {
        let mut draw = self.draws.get();
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        self.draws.set(draw);
        self.origin.jitter.mul_f64((draw >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
