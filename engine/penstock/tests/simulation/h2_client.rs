//! Clients of HTTP/2: how they ask, over a stream of bytes.

use std::rc::Rc;
use std::time::Duration;

use proto::h1::{HeadLimits, RequestRewrite, ResponseHead, parse_request};
use proto::h2::{Client, ErrorCode, StreamId};
use proto::http::Fields;
use ring::sim::Host;

use crate::asker::{self, Way};
use crate::client::PATIENCE;
use crate::h2::{End, Heard};
use crate::ledger::Ledger;
use crate::scene::{Strict, WEB, address};

pub(crate) async fn run(host: Host, ledger: Rc<Ledger>, strict: Strict, rude: bool) {
    let dialling = host.clone();
    let dial = async || {
        let socket = dialling.connect(&address(WEB)).await.map_err(|error| error.to_string())?;
        Ok(End::new(&dialling, socket, 0))
    };
    asker::run(host, ledger, strict, rude, dial).await;
}

impl Way for End<Client> {
    type Id = StreamId;

    fn can_open(&self) -> bool {
        self.machine.can_open()
    }

    fn open(&mut self, text: &[u8]) -> StreamId {
        let mut fields = Fields::default();
        let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields).expect("a request").expect("whole");
        let Self { machine, out, .. } = self;
        machine.write_request(text, &head, &fields, &RequestRewrite::new(&head), out).expect("there is room")
    }

    fn ends_late(&self, _: StreamId) -> bool {
        false
    }

    fn has_sent(&self) -> bool {
        !self.broken
    }

    fn queued(&self, id: StreamId) -> usize {
        self.machine.queued(id)
    }

    fn queue(&mut self, id: StreamId, piece: &[u8]) -> bool {
        self.queue(id, piece)
    }

    fn finish(&mut self, id: StreamId, trailer: Option<String>) {
        self.finish(id, trailer);
    }

    fn reset(&mut self, id: StreamId, enough: bool) {
        self.reset(id, if enough { ErrorCode::NO_ERROR } else { ErrorCode::CANCEL });
    }

    fn is_withholding(&self) -> bool {
        self.is_withholding()
    }

    fn is_over(&self) -> bool {
        self.over
    }

    async fn flush(&mut self) {
        self.flush().await;
    }

    async fn hear(&mut self, patience: Duration) -> Vec<Heard<ResponseHead, StreamId>> {
        self.hear(patience).await
    }

    async fn say_goodbye(&mut self) {
        self.machine.drain(self.now(), &mut self.out);
        self.flush().await;
        self.socket.shutdown_write();
        while !self.over {
            self.hear(PATIENCE).await;
        }
    }

    fn break_off(&mut self) {
        self.socket.clone().reset();
    }
}
