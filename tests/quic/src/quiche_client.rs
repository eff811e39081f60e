//! quiche's own HTTP/3, over one UDP socket.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use h3i::quiche::h3::{self, Header, NameValue};
use h3i::quiche::{self, RecvInfo};

use crate::{Answer, EXCHANGES, NAME, Outcome};

const PATIENCE: Duration = Duration::from_secs(60);
const DATAGRAM_BYTES_MAX: usize = 1_350;
/// Less than the large answer, so that both windows have to be opened again and again.
const WINDOW_BYTES: u64 = 256 << 10;

struct Client {
    socket: UdpSocket,
    local: SocketAddr,
    quic: quiche::Connection,
    /// Once the handshake is through.
    http: Option<h3::Connection>,
    /// By exchange: its stream, how much of its content is sent, and its answer.
    streams: Vec<Option<u64>>,
    sent: Vec<usize>,
    answers: Vec<Answer>,
    finished: usize,
}

/// Asks for everything at once.
pub fn ask(address: SocketAddr, authority: &str) -> Outcome<Vec<Answer>> {
    let mut client = Client::connect(address, authority)?;
    let begun = Instant::now();
    while client.finished < EXCHANGES.len() {
        if begun.elapsed() > PATIENCE || client.quic.is_closed() {
            let (finished, error) = (client.finished, client.quic.peer_error());
            return Err(format!("only {finished} answers came: {error:?}").into());
        }
        client.turn()?;
    }
    client.quic.close(true, h3::WireErrorCode::NoError as u64, b"")?;
    client.flush()?;
    Ok(client.answers)
}

impl Client {
    fn connect(address: SocketAddr, authority: &str) -> Outcome<Self> {
        let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
        config.load_verify_locations_from_file(authority)?;
        config.verify_peer(true);
        config.set_application_protos(h3::APPLICATION_PROTOCOL)?;
        config.set_max_idle_timeout(10_000);
        config.set_initial_max_data(4 * WINDOW_BYTES);
        config.set_initial_max_stream_data_bidi_local(WINDOW_BYTES);
        config.set_initial_max_stream_data_uni(WINDOW_BYTES);
        config.set_initial_max_streams_uni(8);
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let local = socket.local_addr()?;
        // Unlike every other connection's: the port is one of a kind here.
        let mut id = [0x71; quiche::MAX_CONN_ID_LEN];
        id[..2].copy_from_slice(&local.port().to_be_bytes());
        let id = quiche::ConnectionId::from_ref(&id);
        let quic = quiche::connect(Some(NAME), &id, local, address, &mut config)?;
        let count = EXCHANGES.len();
        Ok(Self {
            socket,
            local,
            quic,
            http: None,
            streams: vec![None; count],
            sent: vec![0; count],
            answers: vec![Answer::default(); count],
            finished: 0,
        })
    }

    /// Sends what is due, waits for a datagram, and takes in what it brought.
    fn turn(&mut self) -> Outcome<()> {
        if self.quic.is_established() && self.http.is_none() {
            let settings = h3::Config::new()?;
            self.http = Some(h3::Connection::with_transport(&mut self.quic, &settings)?);
        }
        self.say()?;
        self.flush()?;
        self.hear()?;
        self.take_in()
    }

    fn flush(&mut self) -> Outcome<()> {
        let mut packet = [0; DATAGRAM_BYTES_MAX];
        loop {
            match self.quic.send(&mut packet) {
                Ok((bytes, info)) => drop(self.socket.send_to(&packet[..bytes], info.to)?),
                Err(quiche::Error::Done) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn hear(&mut self) -> Outcome<()> {
        let wait = self.quic.timeout().unwrap_or(PATIENCE).clamp(Duration::from_millis(1), Duration::from_secs(1));
        self.socket.set_read_timeout(Some(wait))?;
        let mut packet = [0; 65_535];
        match self.socket.recv_from(&mut packet) {
            Ok((bytes, from)) => {
                self.quic.recv(&mut packet[..bytes], RecvInfo { from, to: self.local })?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.quic.on_timeout();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Requests that have not been made, and content that has not been sent.
    fn say(&mut self) -> Outcome<()> {
        let Some(http) = &mut self.http else { return Ok(()) };
        for (at, exchange) in EXCHANGES.iter().enumerate() {
            let stream = match self.streams[at] {
                Some(stream) => stream,
                None => {
                    let method: &[u8] = if exchange.content.is_empty() { b"GET" } else { b"POST" };
                    let head = [
                        Header::new(b":method", method),
                        Header::new(b":scheme", b"https"),
                        Header::new(b":authority", NAME.as_bytes()),
                        Header::new(b":path", exchange.path.as_bytes()),
                    ];
                    match http.send_request(&mut self.quic, &head, exchange.content.is_empty()) {
                        Ok(stream) => *self.streams[at].insert(stream),
                        // No room for the head now: later.
                        Err(h3::Error::StreamBlocked) => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            let rest = &exchange.content[self.sent[at]..];
            if !rest.is_empty() {
                match http.send_body(&mut self.quic, stream, rest, true) {
                    Ok(bytes) => self.sent[at] += bytes,
                    Err(h3::Error::Done | h3::Error::StreamBlocked) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self) -> Outcome<()> {
        let Some(http) = &mut self.http else { return Ok(()) };
        loop {
            let (stream, event) = match http.poll(&mut self.quic) {
                Ok(event) => event,
                Err(h3::Error::Done) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let of = self.streams.iter().position(|&known| known == Some(stream));
            let answer = &mut self.answers[of.ok_or("an event of a stream that nobody opened")?];
            match event {
                h3::Event::Headers { list, .. } => {
                    let status = list.iter().find(|field| field.name() == b":status").ok_or("no status")?;
                    answer.status = std::str::from_utf8(status.value())?.parse()?;
                }
                h3::Event::Data => {
                    let mut piece = [0; 16 << 10];
                    while let Ok(bytes) = http.recv_body(&mut self.quic, stream, &mut piece) {
                        answer.body.extend_from_slice(&piece[..bytes]);
                    }
                }
                h3::Event::Finished => self.finished += 1,
                other => return Err(format!("{other:?} on stream {stream}").into()),
            }
        }
    }
}
