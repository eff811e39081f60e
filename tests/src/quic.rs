//! A client of QUIC and as much of HTTP/3 as asking takes, many of which fit into one thread: to be moved about while it downloads.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ReadError,
    StreamEvent, StreamId, TransportConfig,
};

use crate::tls::Authority;

/// What every such client of a test has in common.
pub fn config(authority: &Authority, window: u32) -> ClientConfig {
    let mut tls = authority.client(None);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    // For who has a session that allows it, and asks to.
    tls.enable_early_data = true;
    let crypto = QuicClientConfig::try_from(tls).expect("a suite that QUIC begins with");
    let mut transport = TransportConfig::default();
    // A peer that is gone without a word is noticed in time.
    let silence = Duration::from_secs(8).try_into().expect("in range");
    transport.stream_receive_window(window.into()).max_idle_timeout(Some(silence));
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// A request's, by its place in the static table (RFC 9204, appendix A).
#[derive(Clone, Copy, Debug)]
pub enum Method {
    Delete = 16,
    Get = 17,
}

/// One connection with one request.
pub struct Visitor {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    socket: UdpSocket,
    server: SocketAddr,
    request: Option<StreamId>,
    /// Something was received.
    heard: bool,
    /// Datagrams that were sent before anything was received, in their order.
    pub first_flight: Vec<Vec<u8>>,
    /// Bytes of the answer, frames and all.
    pub received: usize,
    /// How it ended: the answer is whole, or why not.
    pub ended: Option<Result<(), String>>,
}

impl Visitor {
    /// Begins to connect to a server that is called `localhost`.
    pub fn connect(server: SocketAddr, config: &ClientConfig) -> Self {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let connected = endpoint.connect(Instant::now(), config.clone(), server, "localhost");
        let (handle, connection) = connected.expect("a connection begins");
        Self {
            endpoint,
            handle,
            connection,
            socket: socket(server),
            server,
            request: None,
            first_flight: Vec::new(),
            heard: false,
            received: 0,
            ended: None,
        }
    }

    /// Asks for `path` in early data, if there is a session that allows it: whether there is.
    pub fn ask_early(&mut self, method: Method, path: &str) -> bool {
        let can = self.connection.has_0rtt();
        if can {
            self.ask(method, path);
        }
        can
    }

    /// Whether the server took early data, as far as the handshake has told.
    pub fn was_taken(&self) -> bool {
        self.connection.accepted_0rtt()
    }

    /// Says something that has to be answered.
    pub fn ping(&mut self) {
        self.connection.ping();
    }

    /// Ends the connection, and tells the server.
    pub fn close(&mut self) {
        self.connection.close(Instant::now(), 0x100_u32.into(), bytes::Bytes::new());
        self.turn("");
    }

    /// Goes on from another port, as behind a NAT that has forgotten; the server is not told.
    pub fn move_on(&mut self) {
        self.socket = socket(self.server);
        self.connection.ping();
    }

    /// Each goes on from the other's port, as behind a NAT that gives to one what it had given to another.
    pub fn swap_ports(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.socket, &mut other.socket);
        self.connection.ping();
        other.connection.ping();
    }

    /// Does what there is to be done, and asks for `path` as soon as that is possible.
    pub fn turn(&mut self, path: &str) {
        let mut buffer = [0; 2048];
        let mut wire = Vec::new();
        loop {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            self.heard = true;
            let datagram = BytesMut::from(&buffer[..length]);
            let event = self.endpoint.handle(Instant::now(), from, None, None, datagram, &mut wire);
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                self.connection.handle_event(event);
            }
        }
        if self.connection.poll_timeout().is_some_and(|due| due <= Instant::now()) {
            self.connection.handle_timeout(Instant::now());
        }
        while let Some(event) = self.connection.poll() {
            self.hear(event, path);
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        loop {
            wire.clear();
            let Some(transmit) = self.connection.poll_transmit(Instant::now(), 1, &mut wire) else { break };
            if !self.heard {
                self.first_flight.push(wire[..transmit.size].to_vec());
            }
            // What finds no room is lost, as anywhere.
            let _ = self.socket.send_to(&wire[..transmit.size], transmit.destination);
        }
    }

    fn hear(&mut self, event: Event, path: &str) {
        match event {
            Event::Connected if self.request.is_none() => self.ask(Method::Get, path),
            Event::ConnectionLost { reason } => {
                self.ended.get_or_insert(Err(reason.to_string()));
            }
            Event::Stream(StreamEvent::Readable { id }) if Some(id) == self.request => self.read(id),
            _ => {}
        }
    }

    fn ask(&mut self, method: Method, path: &str) {
        // A control stream with empty SETTINGS (RFC 9114 §6.2.1, §7.2.4).
        let control = self.connection.streams().open(Dir::Uni).expect("three are allowed");
        self.connection.send_stream(control).write(&[0x00, 0x04, 0x00]).expect("room");
        let request = self.connection.streams().open(Dir::Bi).expect("one is allowed");
        self.connection.send_stream(request).write(&head(method, path)).expect("room");
        self.connection.send_stream(request).finish().expect("it is open");
        self.request = Some(request);
    }

    fn read(&mut self, id: StreamId) {
        let mut stream = self.connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => self.received += chunk.bytes.len(),
                Ok(None) => {
                    self.ended = Some(Ok(()));
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    self.ended = Some(Err(format!("reset with {code}")));
                    break;
                }
            }
        }
        let _ = chunks.finalize();
    }
}

/// At whichever of our addresses leads to the server.
fn socket(server: SocketAddr) -> UdpSocket {
    let own: IpAddr = match server {
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        SocketAddr::V4(server) if server.ip().is_loopback() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((own, 0)).expect("a port is free");
    socket.set_nonblocking(true).expect("it may be");
    socket
}

/// HEADERS of a request without content, by the static table alone (RFC 9204 §4.5, appendix A).
fn head(method: Method, path: &str) -> Vec<u8> {
    // Required Insert Count and Base: 0; `:scheme: https`.
    let mut section = vec![0, 0, 0xc0 | method as u8, 0xc0 | 23];
    for (name, value) in [(0x50, "localhost"), (0x51, path)] {
        section.push(name);
        section.push(u8::try_from(value.len()).ok().filter(|length| *length < 127).expect("it is short"));
        section.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![0x01, u8::try_from(section.len()).ok().filter(|length| *length < 64).expect("it is short")];
    frame.extend_from_slice(&section);
    frame
}
