//! One connection of QUIC on a socket of its own, as a client has one: quinn's machine, moved by the ring.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig, TransportConfig,
    VarInt,
};
use ring::{Received, Sent, Timer, Transmit, UdpOptions, UdpSocket};
use xtask::Outcome;

use crate::tls;

/// Datagrams that one send may carry.
const DATAGRAMS_A_SEND: usize = 16;
/// No window is what a server waits for; h2load's are as large.
const WINDOW: u32 = 1 << 30;
/// Longer than any pause of a closed loop.
const IDLE: Duration = Duration::from_secs(10);
/// H3_NO_ERROR (RFC 9114 §8.1).
const NO_ERROR: u32 = 0x100;

/// What all connections of a run have in common.
pub(crate) struct Client {
    pub(crate) to: SocketAddr,
    endpoint: Arc<EndpointConfig>,
    config: ClientConfig,
}

impl Client {
    /// For a server that shows the certificate of this file.
    pub(crate) fn new(to: SocketAddr, trust: &std::path::Path) -> Outcome<Self> {
        Self::taking(to, trust, WINDOW)
    }

    /// The same, that takes so many bytes of each stream before it reads them.
    pub(crate) fn taking(to: SocketAddr, trust: &std::path::Path, window: u32) -> Outcome<Self> {
        let crypto = QuicClientConfig::try_from(tls::quic_client(trust)?).map_err(|error| error.to_string())?;
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(window.into());
        transport.max_idle_timeout(IDLE.try_into().ok());
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        Ok(Self { to, endpoint: Arc::new(EndpointConfig::default()), config })
    }
}

pub(crate) struct Link {
    to: SocketAddr,
    socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    pub(crate) connection: Connection,
    timer: Timer,
    out: Vec<u8>,
}

impl Link {
    /// Begins a connection; nothing is sent yet.
    pub(crate) fn new(client: &Client) -> io::Result<Self> {
        let local = match client.to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(local, &UdpOptions { reuse_port: false, ..UdpOptions::default() })?;
        let mut endpoint = Endpoint::new(Arc::clone(&client.endpoint), None, true, None);
        let (handle, connection) =
            endpoint.connect(Instant::now(), client.config.clone(), client.to, tls::NAME).map_err(io::Error::other)?;
        Ok(Self { to: client.to, socket, endpoint, handle, connection, timer: Timer::new(), out: Vec::new() })
    }

    /// Sends what is due, and waits until something has come or a deadline has passed.
    pub(crate) async fn turn(&mut self) -> io::Result<()> {
        self.flush().await;
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    /// Says that all is well, and is gone.
    pub(crate) async fn close(mut self) {
        self.connection.close(Instant::now(), VarInt::from_u32(NO_ERROR), Bytes::new());
        self.flush().await;
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, endpoint, connection, out, .. } = self;
        let now = Instant::now();
        let mut take = |Received { from, to, ecn, stride, bytes }: Received<'_>| {
            for datagram in bytes.chunks(stride) {
                let (ecn, datagram) = (EcnCodepoint::from_bits(ecn), BytesMut::from(datagram));
                // What belongs to no connection would be answered by a reset; this client has nothing to say to it.
                if let Some(DatagramEvent::ConnectionEvent(_, event)) =
                    endpoint.handle(now, from, to, ecn, datagram, out)
                {
                    connection.handle_event(event);
                }
            }
        };
        if let Poll::Ready(received) = socket.poll_receive(cx, &mut take) {
            return Poll::Ready(received.map(drop));
        }
        let due = connection.poll_timeout();
        if due.is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
            return Poll::Ready(Ok(()));
        }
        match due {
            Some(at) => self.timer.set(ring::precise_now() + at.duration_since(now)),
            None => self.timer.clear(),
        }
        // The ring's clock stands still for a turn, and may say so here already: then the next poll finds it due.
        if self.timer.poll_expired() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Sends what is due.
    pub(crate) async fn flush(&mut self) {
        loop {
            while let Some(event) = self.connection.poll_endpoint_events() {
                if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                    self.connection.handle_event(answer);
                }
            }
            self.out.clear();
            let Some(due) = self.connection.poll_transmit(Instant::now(), DATAGRAMS_A_SEND, &mut self.out) else {
                return;
            };
            let ecn = due.ecn.map_or(0, |ecn| ecn as u8);
            let bytes = &self.out[..due.size];
            let transmit = Transmit { to: self.to, from: None, ecn, segment: due.segment_size, bytes };
            while self.socket.send(&transmit) == Sent::Full {
                poll_fn(|cx| self.socket.poll_room(cx)).await;
            }
        }
    }
}
