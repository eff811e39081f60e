//! One direction of a WebSocket.

use std::io;
use std::task::{Context, Poll};

use policy::{Rate, Wait};
use proto::h1::FixedSink;
use proto::ws::{CONTROL_FRAME_BYTES_MAX, Event, Inspector, Sender, put_close};
use ring::{Buf, Now};

use super::{Common, Gone};
use crate::exchange::admit::Paced;
use crate::exchange::half::Pacing;
use crate::exchange::tunnel::{Pipe, Raw, appetite_after};
use crate::qos::Direction;
use crate::upstream::policy_now;

/// What one side says to the other.
pub(super) struct Flow<'a> {
    pub(super) inspector: Inspector,
    /// Who speaks.
    sender: Sender,
    /// Bytes passed on.
    pub(super) bytes: u64,
    /// Who listens has been told everything: an end, or a Close of ours. Nothing follows.
    pub(super) told: bool,
    /// Who speaks has said everything: an end, or a Close.
    pub(super) heard: bool,
    /// Who listens waits for the rest of a frame, which does not come.
    pub(super) cut: bool,
    /// Messages that have ended in what is about to be passed on.
    ended: u64,
    pace: Option<Box<Pace>>,
    /// When bytes may go. Far away, for next to nobody has one.
    shape: Option<Box<Pacing<'a>>>,
}

/// How fast frames may come.
struct Pace {
    rate: Rate,
    /// The rate's whole memory.
    taken: u64,
    /// A frame has passed that is not paid for.
    owed: bool,
    /// When it can be.
    turn: Now,
    /// What was received, and waits; and since when.
    rest: Option<(Buf, Now)>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(
        inspector: Inspector,
        sender: Sender,
        rate: Option<policy::RateSettings>,
        paced: Option<&'a Paced<'a>>,
    ) -> Self {
        let pace = rate
            .map(|rate| Box::new(Pace { rate: Rate::new(rate), taken: 0, owed: false, turn: ring::now(), rest: None }));
        let direction = if sender == Sender::Client { Direction::Up } else { Direction::Down };
        let shape = paced.map(|paced| Box::new(paced.pacing(direction)));
        Self { inspector, sender, bytes: 0, told: false, heard: false, cut: false, ended: 0, pace, shape }
    }

    /// Whether a frame of ours may go here now.
    pub(super) fn is_open(&self) -> bool {
        !self.told && self.inspector.is_between_frames() && !self.inspector.is_closed()
    }

    /// When what waits may go on.
    pub(super) fn turn(&self) -> Option<Now> {
        let frames = self.pace.as_ref().filter(|pace| pace.owed && !self.told).map(|pace| pace.turn);
        frames.into_iter().chain(self.shaped()).min()
    }

    /// What was received waits for its bytes' turn.
    pub(super) fn is_held_up(&self) -> bool {
        self.shaped().is_some()
    }

    /// When that comes.
    fn shaped(&self) -> Option<Now> {
        self.shape.as_ref().filter(|_| !self.told)?.turn_after(ring::now())
    }

    /// What comes next, at its pace. Who listens no more waits for none.
    fn receive(&mut self, from: &mut impl Pipe, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        let Some(shape) = &mut self.shape else { return from.poll_recv(cx) };
        if !self.told {
            let piece = shape.poll_piece(&mut Raw(from, None), cx);
            return piece.map(|piece| piece.map(|piece| piece.data).map_err(|_| io::ErrorKind::ConnectionReset.into()));
        }
        match shape.take_rest() {
            Some(rest) => Poll::Ready(Ok(Some(rest))),
            None => from.poll_recv(cx),
        }
    }

    /// Moves what can be moved.
    pub(super) fn poll(
        &mut self,
        common: &mut Common<'_>,
        from: &mut impl Pipe,
        to: &mut impl Pipe,
        cx: &mut Context<'_>,
    ) -> Result<(), Gone> {
        while !(self.told && self.heard) {
            if !self.told {
                if common.ending.is_some() && self.inspector.is_between_frames() {
                    self.tell(common, to)?;
                    continue;
                }
                // In this order: what is owed must not be due while there is no room.
                if !self.pay() {
                    return self.wait(common);
                }
                match to.poll_room(cx) {
                    Poll::Pending => return self.wait(common),
                    Poll::Ready(room) => room.map_err(|_| Gone)?,
                }
            }
            let rest = self.pace.as_mut().and_then(|pace| pace.rest.take());
            let received = match rest {
                Some(rest) => Ok(Some(rest)),
                None => match self.receive(from, cx) {
                    Poll::Pending if self.is_held_up() => return self.wait(common),
                    Poll::Pending => return Ok(()),
                    Poll::Ready(received) => received.map(|data| Some((data?, ring::now()))),
                },
            };
            match received {
                Ok(Some((data, _))) if self.told => self.hear(&data),
                Ok(Some((data, arrived))) => {
                    from.set_appetite(appetite_after(&data));
                    self.take(common, data, arrived, to)?;
                }
                Ok(None) => {
                    self.heard = true;
                    if !self.told {
                        self.told = true;
                        to.finish();
                    }
                }
                Err(_) if self.told => self.heard = true,
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// Who speaks is not silent, but held up.
    fn wait(&self, common: &mut Common<'_>) -> Result<(), Gone> {
        if self.sender == Sender::Client
            && let Some(ping) = &mut common.ping
        {
            ping.postpone();
        }
        Ok(())
    }

    /// Passes a piece on, up to what may not pass.
    fn take(&mut self, common: &mut Common<'_>, mut data: Buf, arrived: Now, to: &mut impl Pipe) -> Result<(), Gone> {
        if self.sender == Sender::Client
            && let Some(ping) = &mut common.ping
        {
            ping.heard();
        }
        // Where in the piece its last whole frame ends, and as far as it has been looked at.
        let mut whole = self.inspector.is_between_frames().then_some(0);
        let mut at = 0;
        loop {
            match self.inspector.read(&data.bytes()[at..]) {
                Ok(step) => {
                    at += step.consumed;
                    match step.event {
                        Event::Pause => return self.send(common, data, arrived, to),
                        Event::Begin(_) => continue,
                        Event::Pong(echo) if whole.is_some() && common.takes_pong(self.sender, &echo) => {
                            // It answers us, and the endpoint has not asked.
                            let rest = data.split_off(at);
                            data.truncate(whole.unwrap_or(0));
                            self.send(common, data, arrived, to)?;
                            let Some(rest) = rest else { return Ok(()) };
                            (data, at) = (rest, 0);
                        }
                        event => self.count(common, event),
                    }
                    whole = Some(at);
                }
                Err(violation) => {
                    common.violated(violation);
                    let Some(whole) = whole else {
                        (self.told, self.cut) = (true, true);
                        return Ok(());
                    };
                    data.truncate(whole);
                    self.send(common, data, arrived, to)?;
                    return self.tell(common, to);
                }
            }
            if common.ending.is_some() {
                data.truncate(at);
                self.send(common, data, arrived, to)?;
                return self.tell(common, to);
            }
            if let Some(pace) = &mut self.pace {
                pace.owed = true;
            }
            if !self.pay() {
                let rest = data.split_off(at);
                if let Some(pace) = &mut self.pace {
                    pace.rest = rest.map(|rest| (rest, arrived));
                }
                return self.send(common, data, arrived, to);
            }
        }
    }

    /// Pays for the frame that has passed; false when another one has to wait.
    fn pay(&mut self) -> bool {
        let Some(pace) = self.pace.as_mut().filter(|pace| pace.owed) else { return true };
        match pace.rate.step(pace.taken, policy_now(ring::now()), 1) {
            Ok(taken) => (pace.taken, pace.owed) = (taken, false),
            Err(Wait::For(wait)) => pace.turn = ring::now() + wait,
            // A rate has a quota, and a burst that one fits in.
            Err(Wait::Never) => pace.owed = false,
        }
        !pace.owed
    }

    /// A frame has ended.
    fn count(&mut self, common: &mut Common<'_>, event: Event) {
        match event {
            Event::End(message) => {
                self.ended += 1;
                if let Some(cells) = common.cells {
                    let cells = cells.of(self.sender);
                    cells.messages.add(1);
                    cells.size.record(message.bytes);
                }
            }
            Event::Close(code) => {
                common.closed.get_or_insert(code);
            }
            _ => {}
        }
    }

    /// Passes on what arrived then.
    fn send(&mut self, common: &Common<'_>, data: Buf, arrived: Now, to: &mut impl Pipe) -> Result<(), Gone> {
        let length = data.len() as u64;
        self.bytes += length;
        let sent = if length == 0 { Ok(()) } else { to.send(data).map_err(|_| Gone) };
        let ended = std::mem::take(&mut self.ended);
        if let Some(cells) = common.cells {
            let cells = cells.of(self.sender);
            cells.bytes.add(length);
            if ended > 0 {
                cells.latency.record_all(ring::precise_now().since(arrived).as_nanos() as u64, ended);
            }
        }
        sent
    }

    /// Puts a Close between two frames, unless the sender's own has passed. Nothing follows it.
    fn tell(&mut self, common: &Common<'_>, to: &mut impl Pipe) -> Result<(), Gone> {
        self.told = true;
        if self.inspector.is_closed() {
            self.heard = true;
        } else if let Some(ending) = common.ending {
            let (code, key) = match self.sender {
                Sender::Client => (ending.endpoint, Some(common.masking_key())),
                Sender::Server => (ending.client, None),
            };
            let mut storage = [0; CONTROL_FRAME_BYTES_MAX];
            let mut frame = FixedSink::new(&mut storage);
            let put = put_close(code, ending.why, key, &mut frame);
            debug_assert!(put.is_ok(), "codes and reasons of ours may be sent");
            to.send(Buf::copy_of(frame.written())).map_err(|_| Gone)?;
        }
        to.finish();
        Ok(())
    }

    /// Looks for the sender's last word in what nobody gets any more.
    fn hear(&mut self, data: &Buf) {
        let mut at = 0;
        while let Ok(step) = self.inspector.read(&data.bytes()[at..]) {
            at += step.consumed;
            if self.inspector.is_closed() {
                self.heard = true;
            }
            if step.event == Event::Pause {
                return;
            }
        }
    }
}
