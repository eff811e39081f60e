//! What a connection's bytes go over: a stream, with TLS on it or without.
//!
//! What holds here: the verbs are [`Stream`]'s, and mean the same over TLS, so that nobody above asks which it is. An end that the peer did not
//! announce (`close_notify`) is an error. What is unsent is counted as it leaves, sealed. Without TLS every verb is the stream's own
//! behind one test of a pointer.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ring::{Address, Appetite, Buf, Now, Stream, Timer};

use crate::tls::{self, Failure, Machine, Origination, Read, Secured, ServerConfig};

/// A stream of bytes to a peer.
pub struct Transport {
    socket: Stream,
    tls: Option<Box<Machine>>,
}

impl From<Stream> for Transport {
    fn from(socket: Stream) -> Self {
        Self { socket, tls: None }
    }
}

impl Transport {
    /// The accepting side of TLS; nothing has been said yet.
    ///
    /// # Errors
    /// A configuration that TLS refuses.
    pub fn accept(socket: Stream, config: &Arc<ServerConfig>) -> Result<Self, Failure> {
        Ok(Self { socket, tls: Some(Box::new(Machine::server(config)?)) })
    }

    /// The connecting side of TLS; its first words are on their way. `authority` is the endpoint's, by which it must prove itself
    /// unless its pool has a name for it.
    ///
    /// # Errors
    /// A configuration that TLS refuses, or an endpoint without a name.
    pub fn connect(socket: Stream, tls: &Origination, authority: &str) -> Result<Self, Failure> {
        let machine = Machine::client(&tls.config(), tls.name(authority)?)?;
        Ok(Self { socket, tls: Some(Box::new(machine)) })
    }

    /// TLS is agreed upon before anything else.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Agrees upon TLS with the peer, until `deadline`, or as far as early data.
    ///
    /// # Errors
    /// Why not. The peer has been told of it as far as TLS has words for it, and the transport is good for nothing but its end.
    pub async fn shake_hands(&mut self, deadline: Now, timer: &mut Timer) -> Result<(), Failure> {
        loop {
            let Some(tls) = &mut self.tls else { return Ok(()) };
            let more = tls.shake_hands();
            if let Some(output) = tls.take_output() {
                self.socket.send(output);
            }
            if !more? {
                return Ok(());
            }
            timer.set(deadline);
            let received = poll_fn(|cx| match self.socket.poll_recv(cx) {
                Poll::Ready(received) => Poll::Ready(received.ok().flatten().ok_or(Failure::Left)),
                Poll::Pending if timer.poll_expired() => Poll::Ready(Err(Failure::TimedOut)),
                Poll::Pending => Poll::Pending,
            });
            let received = received.await?;
            tls::turn().await;
            tls.feed(received);
        }
    }

    /// Whether early data that the client wanted to send was read, or not; `None`: it wanted none.
    #[must_use]
    pub fn early_data(&self) -> Option<bool> {
        self.tls.as_ref()?.early_data()
    }

    /// What is received may be somebody's who only repeats it (RFC 8446 §8).
    #[inline]
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_early())
    }

    /// Ready when it is not so any more: the handshake is complete. What is received meanwhile stays to be received.
    pub fn poll_confirmed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(())) };
            let more = tls.confirm();
            if let Some(output) = tls.take_output() {
                self.socket.send(output);
            }
            match more {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Ok(())),
                Err(failure) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, failure))),
            }
            match ready!(self.socket.poll_recv(cx))? {
                Some(cipher) => tls.feed(cipher),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// The stream itself, where there is no TLS on it, whose state could not go along.
    #[must_use]
    pub fn into_stream(self) -> Option<Stream> {
        self.tls.is_none().then_some(self.socket)
    }

    /// As [`into_stream`](Self::into_stream), lent.
    pub fn in_the_clear(&mut self) -> Option<&mut Stream> {
        self.tls.is_none().then_some(&mut self.socket)
    }

    /// As [`Machine::said_in_the_clear`](crate::tls::Machine::said_in_the_clear).
    #[must_use]
    pub fn said_in_the_clear(&self) -> &[u8] {
        self.tls.as_ref().map_or(&[], |tls| tls.said_in_the_clear())
    }

    /// Gives up TLS, and says something to a peer that has shown not to speak it.
    pub fn say_in_the_clear(&mut self, bytes: &[u8]) {
        self.tls = None;
        self.socket.send(Buf::copy_of(bytes));
    }

    /// What was agreed upon, over TLS.
    #[must_use]
    pub fn secured(&self) -> Option<Secured> {
        self.tls.as_ref()?.secured()
    }

    /// The certificate that the other end has shown, in DER.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.peer_certificates().first().map(AsRef::as_ref)
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer(&self) -> io::Result<Address> {
        self.socket.peer()
    }

    /// As [`Stream::peer_user`].
    #[must_use]
    pub fn peer_user(&self) -> Option<u32> {
        self.socket.peer_user()
    }

    /// As [`Stream::set_appetite`].
    pub fn set_appetite(&mut self, appetite: Appetite) {
        self.socket.set_appetite(appetite);
    }

    /// As [`Stream::poll_recv`]. What breaks TLS is an error of the kind `InvalidData`, an end without `close_notify` one of
    /// `UnexpectedEof`.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        match &mut self.tls {
            None => self.socket.poll_recv(cx),
            Some(tls) => poll_decrypted(tls, &mut self.socket, cx),
        }
    }

    /// As [`poll_recv`](Self::poll_recv).
    ///
    /// # Errors
    /// As [`poll_recv`](Self::poll_recv).
    pub async fn recv(&mut self) -> io::Result<Option<Buf>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Stream::poll_readable`]. What TLS says to itself meanwhile wakes nobody above.
    #[inline]
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(tls) = &mut self.tls else { return self.socket.poll_readable(cx) };
        while !tls.has_news() {
            ready!(self.socket.poll_readable(cx));
            // An end or an error stays to be received.
            let Some(Ok(Some(cipher))) = self.socket.received() else { break };
            look_at(tls, &mut self.socket, cipher);
        }
        Poll::Ready(())
    }

    /// As [`Stream::poll_broken`].
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_broken(cx)
    }

    /// As [`Stream::poll_ended`].
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_ended(cx)
    }

    /// As [`Stream::watch`].
    pub fn watch(&mut self) {
        self.socket.watch();
    }

    /// As [`Stream::is_quiet`]. Over TLS, tickets and new keys are no noise: they are taken in.
    pub fn is_quiet(&mut self) -> bool {
        let Some(tls) = &mut self.tls else { return self.socket.is_quiet() };
        while !tls.has_news() && !self.socket.is_quiet() {
            let Some(Ok(Some(cipher))) = self.socket.received() else { return false };
            look_at(tls, &mut self.socket, cipher);
            self.socket.watch();
        }
        !tls.has_news()
    }

    /// As [`Stream::send`]. Over TLS it is sealed now.
    #[inline]
    pub fn send(&mut self, buf: Buf) {
        match &mut self.tls {
            None => self.socket.send(buf),
            Some(tls) => {
                let socket = &mut self.socket;
                // The machine remembers its failure, and tells it to whoever receives.
                let _ = tls.seal(ring::now(), buf.bytes(), |sealed| socket.send(sealed));
            }
        }
    }

    /// As [`Stream::unsent`].
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.socket.unsent()
    }

    /// As [`Stream::poll_sent`].
    #[inline]
    pub fn poll_sent(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<()>> {
        self.socket.poll_sent(cx, most)
    }

    /// As [`Stream::sent`].
    ///
    /// # Errors
    /// As [`Stream::poll_sent`].
    pub async fn sent(&mut self, most: usize) -> io::Result<()> {
        self.socket.sent(most).await
    }

    /// Says that nothing follows, where TLS has a word for it. Nothing can be sent afterwards.
    pub fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close();
            if let Some(output) = tls.take_output() {
                self.socket.send(output);
            }
        }
    }

    /// As [`Stream::finish`].
    pub fn finish(&mut self) {
        self.close_notify();
        self.socket.finish();
    }

    /// As [`ring::linger`].
    pub async fn linger(&mut self, patience: Duration, bytes_max: usize) {
        self.close_notify();
        ring::linger(&mut self.socket, patience, bytes_max).await;
    }

    /// As [`Stream::reset_on_close`].
    pub fn reset_on_close(&mut self) {
        self.socket.reset_on_close();
    }

    /// As [`Stream::reset`].
    pub fn reset(self) {
        self.socket.reset();
    }
}

fn poll_decrypted(tls: &mut Machine, socket: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
    loop {
        let read = tls.read();
        if let Some(output) = tls.take_output() {
            socket.send(output);
        }
        match read {
            Ok(Read::Data(plain)) => return Poll::Ready(Ok(Some(plain))),
            Ok(Read::End) => return Poll::Ready(Ok(None)),
            Err(failure) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, failure))),
            Ok(Read::Pause) => {}
        }
        match ready!(socket.poll_recv(cx))? {
            Some(cipher) => tls.feed(cipher),
            None => return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, Failure::Truncated))),
        }
    }
}

/// Takes in ciphertext that arrived on an idle connection.
fn look_at(tls: &mut Machine, socket: &mut Stream, cipher: Buf) {
    tls.feed(cipher);
    tls.digest();
    if let Some(output) = tls.take_output() {
        socket.send(output);
    }
}
