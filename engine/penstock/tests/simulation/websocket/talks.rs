//! WebSockets over a connection of HTTP/2, several at a time (RFC 8441), of either role.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use proto::h1::{HeadLimits, RequestRewrite, ResponseRewrite, parse_request, parse_response};
use proto::h2::{Client, ErrorCode, Server, StreamId};
use proto::http::{Fields, Method, Status, Version};
use proto::ws::Sender;
use ring::sim::{Host, Socket};

use super::part::Fared;
use super::{Open, Town, request};
use crate::client::PATIENCE;
use crate::h2::{End, Heard, Lines, Speaks};
use crate::scene::{WEB, address};

/// A WebSocket on a stream.
struct Talk {
    id: u64,
    /// It is open.
    agreed: bool,
    /// What has not been said yet; `None` once its end has.
    rest: Option<Vec<u8>>,
    heard: Vec<u8>,
    /// All that there is to be heard.
    ended: bool,
    /// It breaks off when so much is left.
    breaks: Option<usize>,
    /// At an origin.
    _open: Option<Open>,
}

struct Talks<'a, R: Speaks> {
    host: &'a Host,
    town: &'a Town,
    own: Sender,
    end: End<R>,
    talks: BTreeMap<u32, Talk>,
}

/// Opens some over one connection, and hears them out.
pub(super) async fn client(host: &Host, town: &Town) -> io::Result<()> {
    let socket = host.connect(&address(WEB)).await?;
    let end = End::<Client>::new(host, socket, 0);
    let mut all = Talks { host, town, own: Sender::Client, end, talks: BTreeMap::new() };
    while all.end.machine.takes_upgrades().is_none() && !all.end.over {
        all.end.flush().await;
        all.end.hear(PATIENCE).await;
    }
    for _ in 0..host.pick(1..=3) {
        if all.end.over || !all.end.machine.can_open() {
            assert!(town.is_excused(), "the engine takes no WebSockets over HTTP/2");
            return Ok(());
        }
        all.open(town.ledger.ask().id);
    }
    // What is still to be sent belongs to streams that have not ended.
    while !(all.end.over || all.talks.is_empty() && all.end.machine.streams() == 0) {
        for heard in all.turn().await {
            match heard {
                Heard::Head(id, head, lines) => all.answered(id, head.status, &lines),
                other => all.take(other),
            }
        }
    }
    host.note(format!("a client of WebSockets leaves: {} streams, over: {}", all.end.machine.streams(), all.end.over));
    all.leave();
    all.end.machine.drain(all.end.now(), &mut all.end.out);
    all.end.flush().await;
    all.end.socket.shutdown_write();
    while !all.end.over {
        all.end.hear(PATIENCE).await;
    }
    Ok(())
}

/// Agrees to whatever is asked for, until the engine leaves.
pub(super) async fn serve(host: &Host, socket: Socket, town: &Town, rude: bool) {
    let end = End::<Server>::new(host, socket, 100);
    let mut all = Talks { host, town, own: Sender::Server, end, talks: BTreeMap::new() };
    while !all.end.over {
        for heard in all.turn().await {
            match heard {
                Heard::Head(id, _, lines) => all.agree(id, &lines, rude),
                other => all.take(other),
            }
        }
        if all.end.machine.is_finished() {
            all.end.socket.shutdown_write();
        }
        if rude && host.chance(0.002) {
            all.end.socket.clone().reset();
            break;
        }
    }
    all.leave();
}

impl<R: Speaks> Talks<'_, R> {
    /// Goes on with what is to be said, and waits for what is.
    async fn turn(&mut self) -> Vec<Heard<R::Head>> {
        let streams: Vec<u32> = self.talks.iter().filter(|(_, talk)| talk.agreed).map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.say(stream);
        }
        self.end.flush().await;
        let busy = self.end.is_withholding() || self.talks.values().any(|talk| talk.agreed && talk.rest.is_some());
        let patience = if busy { Duration::from_millis(self.host.pick(1..=20) as u64) } else { PATIENCE };
        self.end.hear(patience).await
    }

    /// Says a piece of what is left, and behind the last one that this was all.
    fn say(&mut self, stream: u32) {
        let id = StreamId(stream);
        let Some(talk) = self.talks.get_mut(&stream) else { return };
        let Some(rest) = &mut talk.rest else { return };
        if self.end.machine.queued(id) > 50_000 {
            return;
        }
        let piece: Vec<u8> = rest.drain(..self.host.pick(rest.len() / 4..=rest.len())).collect();
        if talk.breaks.is_some_and(|left| rest.len() <= left) {
            self.talks.remove(&stream);
            return self.end.reset(id, ErrorCode::CANCEL);
        }
        let all = rest.is_empty();
        // A stream that takes none has been reset, which comes to be heard.
        let taken = piece.is_empty() || self.end.queue(id, &piece);
        if all || !taken {
            talk.rest = None;
            if talk.ended {
                self.talks.remove(&stream);
            }
            self.end.finish(id, None);
        }
    }

    fn take(&mut self, heard: Heard<R::Head>) {
        let (stream, fared) = match heard {
            Heard::Data(id, bytes) => {
                if let Some(talk) = self.talks.get_mut(&id.0) {
                    talk.heard.extend(bytes);
                }
                return;
            }
            Heard::End(id, trailers) => {
                assert!(trailers.is_none(), "a tunnel has no trailers");
                (id, Fared::Ended)
            }
            Heard::Reset(id, _) => (id, Fared::Broken),
            Heard::Head(..) => panic!("a head within a WebSocket"),
        };
        let Some(mut talk) = self.talks.remove(&stream.0) else { return };
        self.host.note(format!(
            "{:?} {}: {fared:?}, {} to say",
            self.own,
            talk.id,
            talk.rest.as_ref().map_or(0, Vec::len)
        ));
        if !talk.ended {
            self.judge(&talk, fared);
        }
        talk.ended = true;
        // Who has said its last word hears the other's.
        if fared == Fared::Ended && talk.rest.is_some() {
            self.talks.insert(stream.0, talk);
        }
    }

    fn judge(&self, talk: &Talk, fared: Fared) {
        if !talk.agreed {
            return assert!(self.town.is_excused(), "WebSocket {} is not agreed upon", talk.id);
        }
        let other = if self.own == Sender::Client { Sender::Server } else { Sender::Client };
        self.town.judge(talk.id, other, &talk.heard, fared);
    }

    /// The connection has ended, and what was still open with it.
    fn leave(&mut self) {
        for talk in std::mem::take(&mut self.talks).into_values().filter(|talk| !talk.ended) {
            self.judge(&talk, Fared::Broken);
        }
    }

    fn talk(&self, id: u64) -> Talk {
        let rest = Some(self.town.part(id, self.own).bytes);
        Talk { id, agreed: false, rest, heard: Vec::new(), ended: false, breaks: None, _open: None }
    }
}

impl Talks<'_, Client> {
    fn open(&mut self, id: u64) {
        let (text, mut fields) = (request(id), Fields::default());
        let head =
            parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut fields).expect("a request").expect("whole");
        let End { machine, out, .. } = &mut self.end;
        let asked = machine.write_request(text.as_bytes(), &head, &fields, &RequestRewrite::new(&head), out);
        let talk = self.talk(id);
        self.talks.insert(asked.expect("there is room").0, talk);
    }

    fn answered(&mut self, stream: StreamId, status: Status, lines: &Lines) {
        let Some(talk) = self.talks.get_mut(&stream.0) else { return };
        if status == Status::SWITCHING_PROTOCOLS {
            talk.agreed = true;
            return;
        }
        assert!(self.town.is_excused(), "WebSocket {}: {lines:?}", talk.id);
        self.talks.remove(&stream.0);
        self.end.reset(stream, ErrorCode::CANCEL);
    }
}

impl Talks<'_, Server> {
    fn agree(&mut self, stream: StreamId, lines: &Lines, rude: bool) {
        let id = lines.number("x-id").unwrap_or_else(|| panic!("a WebSocket without its number: {lines:?}")) as u64;
        assert!(self.town.ledger.asked(id).is_some(), "a WebSocket that nobody asked for: {lines:?}");
        assert_eq!(
            (lines.field("upgrade"), lines.field("sec-websocket-version")),
            (Some("websocket"), Some("13")),
            "{lines:?}"
        );
        let fault = if rude { self.host.pick(0..=9) } else { 9 };
        let text: &[u8] = match fault {
            0 => return self.end.reset(stream, ErrorCode::REFUSED_STREAM),
            1 => b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
            _ => b"HTTP/1.1 101 Fine\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        };
        let mut fields = Fields::default();
        let head =
            parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut fields).expect("a response").expect("whole");
        let End { machine, out, .. } = &mut self.end;
        // It may have been given up.
        if machine
            .write_response(stream, text, &head, &fields, &ResponseRewrite::new(&head, Version::Http11), out)
            .is_err()
        {
            return;
        }
        if fault == 1 {
            return;
        }
        let mut talk = self.talk(id);
        (talk.agreed, talk._open) = (true, Some(self.town.open()));
        talk.breaks = (fault < 4).then(|| self.host.pick(0..=talk.rest.as_ref().map_or(0, Vec::len)));
        self.talks.insert(stream.0, talk);
    }
}
