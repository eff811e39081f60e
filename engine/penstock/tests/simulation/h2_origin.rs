//! Origins of HTTP/2: they answer what the ledger says, many streams by turns; rude ones reset, refuse, go away and break off.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proto::h1::{HeadLimits, RequestHead, ResponseHead, ResponseRewrite, parse_response};
use proto::h2::{ErrorCode, Fault as Leaving, Server, StreamId, frame};
use proto::http::{Fields, Method, Version};
use ring::sim::{Host, Listening, Socket};

use crate::client::PATIENCE;
use crate::h2::{End, Heard, Lines};
use crate::ledger::{Answer, Ask, Framing, Ledger, REQUEST, content};
use crate::origin::{SOON, content_size};

/// How an exchange goes wrong at an origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    /// Resets the stream behind so many bytes of content, or before the head.
    Reset(Option<usize>),
    /// Ends the whole connection when that much of this answer has gone.
    Break(usize),
    /// Never answers.
    Mute,
    /// The request's answer has begun elsewhere: the engine has given this one up, and its word on that is still unread. It stands
    /// behind the head on a connection that may be slow, or has never come because the connection broke.
    Stray,
}

/// Until a stray is given up at the latest: before the engine would lose patience with an origin that it waits for.
const STRAY_MAX: u64 = 15_000_000_000;

/// A request that is under way.
struct Work {
    ask: Ask,
    attempt: usize,
    answer: Answer,
    fault: Fault,
    /// The request's content, and whether that is all.
    heard: Vec<u8>,
    ended: bool,
    /// Not answered before.
    due: u64,
    /// Until when its answer comes soon.
    soon: u64,
    /// Content that has not been put yet, once the head has.
    rest: Option<Vec<u8>>,
}

impl Work {
    /// It will be, sooner or later.
    fn is_answered(&self) -> bool {
        !matches!(self.fault, Fault::Mute | Fault::Stray)
    }
}

pub(crate) async fn serve(host: Host, listening: Listening, ledger: Rc<Ledger>, rude: bool) {
    loop {
        let socket = listening.accept().await;
        if rude && host.chance(0.03) {
            socket.reset();
            continue;
        }
        let ledger = Rc::clone(&ledger);
        host.spawn("h2 conversation", move |host| async move {
            converse(&host, socket, &ledger, rude).await;
        });
    }
}

async fn converse(host: &Host, socket: Socket, ledger: &Ledger, rude: bool) {
    // Few streams are a cause of refusals, which not every request survives.
    let streams = if rude && host.chance(0.3) { host.pick(1..=4) as u16 } else { 100 };
    let mut connection = Connection {
        host,
        ledger,
        rude,
        // Some are busy with everything.
        refuses: if rude && host.chance(0.1) { 1.0 } else { 0.1 },
        end: End::new(host, socket, streams),
        works: BTreeMap::new(),
        breaks: host.chance(0.5),
        given: Vec::new(),
        goes_after: if host.chance(0.3) { host.pick(0..=6) } else { usize::MAX },
        gone: None,
    };
    connection.serve().await;
}

struct Connection<'a> {
    host: &'a Host,
    ledger: &'a Ledger,
    rude: bool,
    /// How probable it is that it does not look at a request.
    refuses: f64,
    end: End<Server>,
    works: BTreeMap<u32, Work>,
    /// Answers may end with the connection, and take others with them that were on their way.
    breaks: bool,
    /// Requests whose answers have begun soon and are on their way.
    given: Vec<u64>,
    /// Requests after which it takes its leave.
    goes_after: usize,
    /// It has gone, and looks at no stream above this one.
    gone: Option<u32>,
}

impl Connection<'_> {
    async fn serve(&mut self) {
        loop {
            if !self.answer() {
                if self.host.chance(0.5) {
                    self.end.socket.clone().reset();
                }
                return;
            }
            if self.goes_after == 0 {
                self.go_away();
            }
            self.end.flush().await;
            self.given.drain(..).for_each(|id| self.ledger.given(id));
            if self.end.machine.is_finished() || self.gone.is_some() && self.works.is_empty() {
                self.end.socket.shutdown_write();
            }
            self.check_strays();
            let acts = |work: &Work| work.is_answered() && (work.ended || work.answer.early);
            let busy = self.end.is_withholding() || self.works.values().any(acts);
            let strays = self.works.values().any(|work| work.fault == Fault::Stray);
            let patience = match busy {
                true => Duration::from_millis(self.host.pick(1..=20) as u64),
                false if strays => Duration::from_secs(1),
                false => PATIENCE,
            };
            let said = self.end.hear(patience).await;
            let reset = |heard: &Heard<_>| if let Heard::Reset(id, _) = heard { Some(*id) } else { None };
            let given_up: Vec<StreamId> = said.iter().filter_map(reset).collect();
            for heard in said {
                // A request that was given up before it was read has not been seen: it may be answered elsewhere by now.
                if !matches!(&heard, Heard::Head(id, ..) if given_up.contains(id)) {
                    self.take(heard);
                }
            }
            if self.end.over {
                return;
            }
        }
    }

    /// What was answered elsewhere has no one who waits for it here.
    fn check_strays(&self) {
        let now = self.host.now();
        for Work { ask, due, .. } in self.works.values().filter(|work| work.fault == Fault::Stray) {
            assert!(now < due + STRAY_MAX, "request {} was sent again although its answer had begun", ask.id);
        }
    }

    /// Takes its leave: politely, or with streams that it has not looked at.
    fn go_away(&mut self) {
        self.goes_after = usize::MAX;
        if !self.rude || self.host.chance(0.5) {
            return self.end.machine.drain(self.end.now(), &mut self.end.out);
        }
        let last = self.works.keys().next_back().copied().unwrap_or(0);
        self.host.note(format!("h2 origin: goes away, and looks at none above {last}"));
        frame::put_go_away(&mut self.end.out, last, &Leaving { code: ErrorCode::NO_ERROR, why: "" });
        self.gone = Some(last);
    }

    fn take(&mut self, heard: Heard<RequestHead>) {
        match heard {
            Heard::Head(id, _, lines) => self.take_head(id, &lines),
            Heard::Data(id, data) => {
                let Some(work) = self.works.get_mut(&id.0) else { return };
                work.heard.extend_from_slice(&data);
                let sent = content(work.ask.id, REQUEST, work.ask.size);
                assert!(sent.starts_with(&work.heard), "the content of request {} is something else", work.ask.id);
            }
            Heard::End(id, trailers) => {
                let Some(work) = self.works.get_mut(&id.0) else { return };
                work.ended = true;
                assert_eq!(work.heard.len(), work.ask.size, "the content of request {} ends too early", work.ask.id);
                if let Some(sum) = trailers.as_ref().and_then(|lines| lines.number("x-sum")) {
                    assert!(sum as u64 == work.ask.id || sum == 1, "another request's trailers: {sum}");
                }
            }
            Heard::Reset(id, _) => _ = self.works.remove(&id.0),
        }
    }

    fn take_head(&mut self, id: StreamId, lines: &Lines) {
        if self.gone.is_some_and(|last| id.0 > last) {
            return;
        }
        self.goes_after = self.goes_after.saturating_sub(1);
        let number = lines.number("x-id").unwrap_or_else(|| panic!("a request without its number: {lines:?}")) as u64;
        let ask = self.ledger.asked(number).unwrap_or_else(|| panic!("a request that nobody sent: {lines:?}"));
        if self.rude && self.host.chance(self.refuses) {
            self.ledger.refused(number);
            return self.end.reset(id, ErrorCode::REFUSED_STREAM);
        }
        let (stray, attempt) = (self.ledger.is_stray(number), self.ledger.seen_late(number));
        let line = format!("{} /{number} ", ask.method);
        assert!(lines.text().starts_with(line.as_bytes()), "{lines:?}");
        assert_eq!(lines.field("host"), Some("app.test"), "{lines:?}");
        let length = lines.number("content-length");
        assert!(length.is_none_or(|length| length == ask.size), "content-length of {ask:?}: {lines:?}");
        let answer = self.ledger.answer(&ask);
        let fault = match self.rude {
            _ if stray => Fault::Stray,
            true => self.fault(&ask, &answer),
            false => Fault::None,
        };
        self.host.note(format!("h2 origin: {id:?} is attempt {attempt} of {ask:?}: {answer:?}, {fault:?}"));
        let due = self.host.now() + self.host.pick(0..=if self.host.chance(0.3) { 30 } else { 1 }) as u64 * 1_000_000;
        if lines.field("expect").is_some() && !answer.early {
            self.write_head(id, ask.method, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let soon = self.host.now() + SOON;
        let work = Work { ask, attempt, answer, fault, heard: Vec::new(), ended: false, due, soon, rest: None };
        self.works.insert(id.0, work);
    }

    fn fault(&self, ask: &Ask, answer: &Answer) -> Fault {
        let some = self.host.pick(0..=content_size(ask, answer));
        match self.host.pick(0..=19) {
            0 => Fault::Reset(None),
            1..=3 => Fault::Reset(Some(some)),
            4 | 5 if self.breaks => Fault::Break(some),
            6 => Fault::Mute,
            _ => Fault::None,
        }
    }

    /// Goes on with all answers; false when the connection is to break.
    fn answer(&mut self) -> bool {
        let now = self.host.now();
        let ready = |work: &Work| (work.ended || work.answer.early) && work.due <= now && work.is_answered();
        let ids: Vec<u32> = self.works.iter().filter(|(_, work)| ready(work)).map(|(id, _)| *id).collect();
        ids.into_iter().all(|id| self.go_on(StreamId(id)))
    }

    fn go_on(&mut self, id: StreamId) -> bool {
        let Some(mut work) = self.works.remove(&id.0) else { return true };
        if work.fault == Fault::Reset(None) {
            self.end.reset(id, ErrorCode::INTERNAL_ERROR);
            return true;
        }
        if work.rest.is_none() {
            self.begin(id, &mut work);
        }
        if !self.breaks && !work.answer.early && self.host.now() < work.soon {
            self.given.push(work.ask.id);
        }
        let Some(rest) = &mut work.rest else { return true };
        let put = content_size(&work.ask, &work.answer) - rest.len();
        let most = match work.fault {
            Fault::Reset(Some(most)) | Fault::Break(most) => rest.len().min(most - put),
            _ => rest.len(),
        };
        if self.end.machine.queued(id) < 100_000 {
            let piece: Vec<u8> = rest.drain(..self.host.pick(most / 4..=most)).collect();
            if !piece.is_empty() && !self.end.queue(id, &piece) {
                return true;
            }
            let put = put + piece.len();
            if rest.is_empty() && work.answer.framing == Framing::Length {
                // The length says that it is whole, whatever becomes of the stream.
                self.ledger.whole(work.ask.id, work.attempt, put);
            }
            match work.fault {
                // Behind what has gone, or over it.
                Fault::Reset(Some(most))
                    if put == most && (self.end.machine.queued(id) == 0 || self.host.chance(0.5)) =>
                {
                    self.end.reset(id, ErrorCode::CANCEL);
                    return true;
                }
                Fault::Break(most) if put == most => return self.host.chance(0.5),
                Fault::None if rest.is_empty() => {
                    self.ledger.whole(work.ask.id, work.attempt, put);
                    let trailer = work.answer.framing == Framing::Chunked && self.host.chance(0.4);
                    self.end.finish(id, trailer.then(|| work.ask.id.to_string()));
                    return true;
                }
                _ => {}
            }
        }
        self.works.insert(id.0, work);
        true
    }

    /// Writes the head. An answer without content is complete with it.
    fn begin(&mut self, id: StreamId, work: &mut Work) {
        let Work { ask, attempt, answer, .. } = work;
        for _ in 0..answer.hints {
            self.write_head(id, ask.method, b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n");
        }
        let mut text = format!("HTTP/1.1 {} Fine\r\nx-id: {}\r\nx-attempt: {attempt}\r\n", answer.status, ask.id);
        match answer.framing {
            Framing::Length => text.push_str(&format!("content-length: {}\r\n", answer.size)),
            Framing::Chunked | Framing::Close => text.push_str("transfer-encoding: chunked\r\n"),
            Framing::None => {}
        }
        text.push_str("\r\n");
        let empty =
            ask.method == "HEAD" || answer.size == 0 && matches!(answer.framing, Framing::None | Framing::Length);
        if empty {
            self.ledger.whole(ask.id, *attempt, 0);
        }
        self.write_head(id, ask.method, text.as_bytes());
        if !empty {
            work.rest = Some(content(ask.id, *attempt, answer.size));
        }
    }

    fn write_head(&mut self, id: StreamId, method: &str, text: &[u8]) {
        let (mut fields, method) = (Fields::default(), if method == "HEAD" { Method::Head } else { Method::Get });
        let head: ResponseHead =
            parse_response(text, &HeadLimits::DEFAULT, method, &mut fields).expect("a response").expect("whole");
        let End { machine, out, .. } = &mut self.end;
        // The stream may have been reset meanwhile.
        _ = match head.status.is_interim() {
            true => machine.write_interim(id, text, &head, &fields, out),
            false => {
                machine.write_response(id, text, &head, &fields, &ResponseRewrite::new(&head, Version::Http11), out)
            }
        };
    }
}
