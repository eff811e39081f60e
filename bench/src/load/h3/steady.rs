//! A client that behaves: one connection, and requests at a steady rate, whether or not earlier ones were slow.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use quinn_proto::{Dir, Event, StreamEvent, StreamId};
use xtask::Outcome;

use super::link::{Client, Link};
use super::message::{self, Answer, CONTROL_STREAM};
use super::own;
use super::talk::drain;
use crate::scenario::C64;

/// Asks for a time, so many times a second, on a connection that has been made before: microseconds from when each request was due to the end of its
/// answer. A request that is not answered is an error.
pub(crate) fn steadily(to: SocketAddr, trust: &Path, rate: f64, time: Duration) -> Outcome<Vec<f64>> {
    let client = Client::new(to, trust)?;
    let request = message::request(&to.to_string(), C64.path);
    let asked = own::quiet_ring()?.block_on(ask(client, request, rate, time));
    asked.map_err(|error| format!("the client that behaves was not answered: {error}"))
}

async fn ask(client: Client, request: Vec<u8>, rate: f64, time: Duration) -> io::Result<Vec<f64>> {
    let mut steady = Steady { link: Link::new(&client)?, answer: None, ready: false };
    while !steady.ready {
        steady.turn().await?;
    }
    let (mut times, mut nth, begun) = (Vec::new(), 0, ring::precise_now());
    loop {
        let due = begun + Duration::from_secs_f64(f64::from(nth) / rate);
        if due.since(begun) >= time {
            steady.link.close().await;
            return Ok(times);
        }
        // What comes meanwhile is heard.
        while let Some(turned) = ring::until(due, steady.turn()).await {
            turned?;
        }
        steady.ask(&request)?;
        while steady.answer.is_some() {
            steady.turn().await?;
        }
        times.push(ring::precise_now().since(due).as_nanos() as f64 / 1e3);
        nth += 1;
    }
}

struct Steady {
    link: Link,
    /// Of the request that is under way.
    answer: Option<(StreamId, Answer)>,
    ready: bool,
}

impl Steady {
    fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        let connection = &mut self.link.connection;
        let stream = connection.streams().open(Dir::Bi).ok_or(io::ErrorKind::WouldBlock)?;
        connection.send_stream(stream).write(request).map_err(io::Error::other)?;
        connection.send_stream(stream).finish().map_err(io::Error::other)?;
        self.answer = Some((stream, Answer::default()));
        Ok(())
    }

    async fn turn(&mut self) -> io::Result<()> {
        self.link.turn().await?;
        while let Some(event) = self.link.connection.poll() {
            match event {
                Event::Connected => {
                    let stream = self.link.connection.streams().open(Dir::Uni).ok_or(io::ErrorKind::WouldBlock)?;
                    self.link.connection.send_stream(stream).write(CONTROL_STREAM).map_err(io::Error::other)?;
                    self.ready = true;
                }
                Event::ConnectionLost { reason } => return Err(io::Error::other(reason)),
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(stream) = self.link.connection.streams().accept(Dir::Uni) {
                        self.read(stream)?;
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what has come: of the answer; of the server's other streams nothing matters. Of each frame it is told that it has come, also of those that
    /// were read with the one before: the last of an answer may be told of when its stream is closed.
    fn read(&mut self, stream: StreamId) -> io::Result<()> {
        let Some((_, answer)) = self.answer.as_mut().filter(|(id, _)| *id == stream) else {
            return match stream.dir() {
                Dir::Bi => Ok(()),
                Dir::Uni => drain(&mut self.link, stream, |_| {}).map(drop),
            };
        };
        if drain(&mut self.link, stream, |bytes| answer.read(bytes))? {
            let wrong = answer.judge(C64.body as u64);
            self.answer = None;
            return wrong.map_or(Ok(()), |why| Err(io::Error::other(why)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::task::Poll;
    use std::time::Instant;

    use bytes::BytesMut;
    use quinn_proto::crypto::rustls::QuicServerConfig;
    use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, ServerConfig};
    use ring::{Received, Transmit, UdpOptions, UdpSocket};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;
    use crate::process::Scratch;
    use crate::tls::Identity;

    /// Answers everything with a head so long that its content comes in another datagram.
    struct Server {
        socket: UdpSocket,
        endpoint: Endpoint,
        connection: Option<(ConnectionHandle, Connection)>,
        out: Vec<u8>,
    }

    impl Server {
        fn new(identity: &Identity) -> Self {
            let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
            let cert = CertificateDer::from_pem_file(&identity.cert).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let tls = rustls::ServerConfig::builder_with_provider(provider);
            let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
            let mut tls = tls.with_single_cert(vec![cert], key).unwrap();
            tls.alpn_protocols = vec![b"h3".to_vec()];
            let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
            let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), Some(Arc::new(config)), true, None);
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), &UdpOptions::default()).unwrap();
            Self { socket, endpoint, connection: None, out: Vec::new() }
        }

        async fn serve(mut self) {
            loop {
                poll_fn(|cx| {
                    let Self { socket, endpoint, connection, out } = &mut self;
                    let mut take = |Received { from, to, stride, bytes, .. }: Received<'_>| {
                        for datagram in bytes.chunks(stride) {
                            let now = Instant::now();
                            match endpoint.handle(now, from, to, None, BytesMut::from(datagram), out) {
                                Some(DatagramEvent::NewConnection(incoming)) => {
                                    *connection = endpoint.accept(incoming, now, out, None).ok();
                                }
                                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                                    if let Some((_, connection)) = connection {
                                        connection.handle_event(event);
                                    }
                                }
                                _ => {}
                            }
                        }
                    };
                    if socket.poll_receive(cx, &mut take).is_ready() { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                self.answer();
            }
        }

        fn answer(&mut self) {
            let Some((handle, connection)) = &mut self.connection else { return };
            while let Some(event) = connection.poll() {
                let Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) = event else { continue };
                while let Some(stream) = connection.streams().accept(Dir::Bi) {
                    let long = [&[0, 0, 0xd9, 0x23][..], b"x-a", &[0x7f, 0x81, 0x09], &[b'x'; 1_280]].concat();
                    let body = [&[0, 0x40, C64.body as u8][..], &[b'b'; C64.body]].concat();
                    connection.send_stream(stream).write(&[message::headers(&long), body].concat()).unwrap();
                    connection.send_stream(stream).finish().unwrap();
                }
            }
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            self.out.clear();
            while let Some(due) = connection.poll_transmit(Instant::now(), 1, &mut self.out) {
                let bytes = &self.out[..due.size];
                let _ = self.socket.send(&Transmit { to: due.destination, from: None, ecn: 0, segment: None, bytes });
                self.out.clear();
            }
        }
    }

    #[test]
    fn an_answer_may_come_in_two_datagrams_at_once() {
        let scratch = Scratch::new().unwrap();
        let identity = Identity::make(&scratch).unwrap();
        let trust = identity.cert.clone();
        let asked = own::quiet_ring().unwrap().block_on(async move {
            let server = Server::new(&identity);
            let client = Client::new(server.socket.local().unwrap(), &trust).unwrap();
            ring::spawn(server.serve());
            ask(client, message::request("localhost", C64.path), 200.0, Duration::from_millis(200)).await
        });
        assert_eq!(asked.expect("all are answered").len(), 40);
    }
}
