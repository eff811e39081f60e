//! `bench grpc-origin`: a server of unary calls. Each is answered, once it is complete, with a head, one message and trailers.

use std::io;
use std::net::SocketAddr;

use proto::Event;
use proto::h1::{HeadLimits, ResponseHead, ResponseRewrite, parse_response};
use proto::h2::{Said, Server, StreamId};
use proto::http::{Fields, Method, Version};
use ring::{Address, ListenOptions, Listener, Stream};
use xtask::Outcome;

use super::wire::{Wire, now};
use crate::flags::Flags;
use crate::load::own;

/// `bench grpc-origin --listen ADDRESS`: serves until it is ended.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--listen", "--driver"], &[])?;
    let listen: SocketAddr = flags.need("--listen")?;
    let ring = own::ring(&flags)?;
    ring.block_on(serve(listen)).map_err(|error| format!("{listen}: {error}"))
}

pub(super) async fn serve(listen: SocketAddr) -> io::Result<()> {
    let mut listener = Listener::bind(&Address::Inet(listen), &ListenOptions::default())?;
    loop {
        let stream = listener.accept().await?;
        ring::spawn(async move {
            // How a connection ends is its client's matter: what is missing is an error there.
            let _ = hold(stream).await;
        });
    }
}

async fn hold(stream: Stream) -> io::Result<()> {
    let mut conversation = Conversation::new(stream)?;
    conversation.wire.flush().await?;
    while conversation.wire.receive().await? {
        let goes_on = conversation.understand();
        conversation.wire.put_content();
        conversation.end_answers();
        conversation.wire.flush().await?;
        if !goes_on {
            break;
        }
    }
    Ok(())
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n";
const TRAILER: (&[u8], &[u8]) = (b"grpc-status", b"0");

struct Conversation {
    wire: Wire<Server>,
    /// What all answers begin with.
    head: ResponseHead,
    fields: Fields,
    /// Streams with a message on its way, and no trailers yet.
    open: Vec<StreamId>,
}

impl Conversation {
    fn new(stream: Stream) -> io::Result<Self> {
        let mut fields = Fields::default();
        let head = parse_response(HEAD, &HeadLimits::DEFAULT, Method::Post, &mut fields);
        let head = head.ok().flatten().ok_or_else(|| io::Error::other("the answer's head is none"))?;
        Ok(Self { wire: Wire::new(stream), head, fields, open: Vec::new() })
    }

    /// Reads all there is; false if the connection has ended.
    fn understand(&mut self) -> bool {
        let mut at = 0;
        loop {
            let wire = &mut self.wire;
            let Ok(step) = wire.machine.read(now(), &wire.unread[at..], &mut wire.space, &mut wire.out) else {
                return false;
            };
            at += step.skipped;
            match step.said {
                Said::Stream(stream, Event::Data { payload, consumed }) => {
                    at += consumed;
                    wire.machine.credit(stream, payload, &mut wire.out);
                }
                Said::Stream(stream, Event::End { consumed, .. }) => {
                    at += consumed;
                    self.answer(stream);
                }
                Said::Stream(stream, Event::Reset(_)) | Said::Refused { stream, .. } => {
                    wire.machine.release(stream, &mut wire.out);
                }
                Said::Stream(_, _) | Said::GoneAway { .. } | Said::Pong(_) => {}
                Said::Pause => break,
            }
        }
        self.wire.unread.drain(..at);
        true
    }

    fn answer(&mut self, stream: StreamId) {
        let rewrite = ResponseRewrite::new(&self.head, Version::Http11);
        let Wire { machine, out, .. } = &mut self.wire;
        let begun = machine.write_response(stream, HEAD, &self.head, &self.fields, &rewrite, out).is_ok();
        if begun && self.wire.queue(stream) {
            self.open.push(stream);
        }
    }

    /// Ends every answer whose message has gone. One that the client has reset is forgotten.
    fn end_answers(&mut self) {
        let Wire { machine, out, .. } = &mut self.wire;
        self.open.retain(|&stream| {
            let waits = machine.queued(stream) > 0;
            if !waits {
                let _ = machine.write_trailers(stream, std::iter::once(TRAILER), out);
            }
            waits
        });
    }
}
