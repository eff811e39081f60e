//! Of QUIC, HTTP/3 and flows of datagrams.

use std::time::Duration;

use super::HEADS;

/// Clients that want to connect and have not been looked at, on each socket: what arrives in 20 ms at 100,000 a second. Beyond that they are
/// refused by the machine.
pub const QUIC_INCOMING_MAX: usize = 2_048;

/// Bytes kept of one such client: a ClientHello with X25519MLKEM768 takes two datagrams, and one may come twice.
pub const QUIC_INCOMING_BYTES: u64 = 8 << 10;

/// Bytes kept of all of them.
pub const QUIC_INCOMING_BYTES_ALL: u64 = 4 << 20;

/// Connections on each socket of which nothing is left but our last words, for three probe timeouts or [`LINGER`](super::LINGER): some hundred bytes each.
/// Beyond that a peer which has missed them is told by a stateless reset. And as many whose last words were the peer's, which are not answered.
pub const QUIC_FAREWELLS_MAX: usize = 1_024;

/// Handshakes under way on a socket from which on clients must first show that they receive what is sent to their address (Retry): a flood from
/// addresses that are not the sender's then costs a datagram each, and no state.
pub const QUIC_UNPROVED_MAX: usize = 256;

/// A file of QUIC's secrets: seven lines of 67 bytes, and as much again to say what they are.
pub const QUIC_SECRETS_BYTES_MAX: usize = 2 << 10;

/// Datagrams on their way from one worker to another, for each two: a flight of a client that has moved, times eight.
pub const QUIC_ASTRAY_MAX: usize = 256;

/// How long nothing may be heard of a peer before it is taken for gone; we ask for a sign of life at a third of it while something is awaited.
pub const QUIC_SILENCE: Duration = Duration::from_secs(30);

/// Content that a peer may send on one stream before it is taken: at 50 ms, 40 Mbit/s a stream.
pub const QUIC_STREAM_WINDOW: u32 = 256 << 10;

/// And on all streams of a connection.
pub const QUIC_WINDOW: u32 = 1 << 20;

/// What may wait for a peer or be unacknowledged by it, on all streams of a connection, before anything is known of the path.
pub const QUIC_SEND_WINDOW_MIN: u64 = 256 << 10;

/// And at most, where that much is under way: at 100 ms, 320 Mbit/s and what keeps ahead of them.
pub const QUIC_SEND_WINDOW_MAX: u64 = 8 << 20;

/// The largest datagram that a path is tried with: an Ethernet's, of IPv4. Of IPv6 20 bytes less go through, which is found out.
pub const QUIC_DATAGRAM_MAX: u16 = 1_472;

/// And where nothing but this host lies in between, whose loopback takes 64 KiB: four of them fill what the kernel cuts at once. More would save little, and
/// what is found in two steps costs each connection 25 KB.
pub const QUIC_DATAGRAM_NEAR: u16 = 16_376;

/// What is under way there before anything is known: there is no network to be spared, and sockets of Linux take 208 KiB. With less (RFC 9002 §7.2 has 14,720
/// bytes for networks) the first large datagrams fill the window, and quinn-proto lets nothing out then, acknowledgements and the end included.
pub const QUIC_WINDOW_NEAR: u64 = 128 << 10;

/// Datagrams that one send of a connection may consist of: of the largest ones, so many fill what the kernel cuts at once (64 KiB).
pub const QUIC_SEGMENTS_MAX: usize = 44;

/// What the kernel cuts at once.
pub const QUIC_SEND_BYTES: usize = 65_507;

/// Sends of a connection in one turn; after those others have theirs.
pub const QUIC_SENDS_A_TURN: usize = 4;

/// Datagrams of a connection (RFC 9221) that have come and were not looked at, and that wait to be sent, each: what 100 Mbit/s brings in 5 ms. What
/// is beyond is dropped.
pub const QUIC_DATAGRAM_BYTES: usize = 64 << 10;

/// Datagrams of a request (RFC 9297) that wait for the other side, and their bytes; the newest is dropped. A tunnel that has not come about holds
/// as much of what is sent ahead.
pub const HTTP3_DATAGRAMS_MAX: usize = 64;
pub const HTTP3_DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Content of so many bytes keeps its memory until QUIC has no more use for it; less is not worth it.
pub const QUIC_LENT_BYTES_MIN: usize = 16 << 10;

/// What is taken of a stream at once.
pub const HTTP3_READ_BYTES: usize = 16 << 10;

/// Streams in one direction that a peer may have open: three are needed (RFC 9114 §6.2), the rest is for what is not known here, which it is told.
pub const HTTP3_ONE_WAY_STREAMS: u32 = 8;

/// How long what waits for a peer may make no progress, while nobody awaits that but QUIC: longer than any path is away.
pub const QUIC_STUCK: Duration = Duration::from_secs(30);

/// What a client of HTTP/3 may do, but for the number of its streams.
pub const HTTP3: proto::h3::Limits = proto::h3::Limits { heads: HEADS, ..proto::h3::Limits::DEFAULT };

/// What an endpoint of HTTP/3 may do. A connection carries so many requests at once and no more, though it may allow thousands: of [`QUIC_WINDOW_UPSTREAM`]
/// each then has 8 KiB, and the next ones have a congestion window of their own.
pub const HTTP3_UPSTREAM: proto::h3::Limits = proto::h3::Limits { streams: 256, datagrams: true, ..HTTP3 };

/// Bytes of datagrams that may wait in each direction of a flow: what 1 Gbit/s brings in 2 ms. The listener's own socket has more, for all of them.
pub const FLOW_BUFFER: usize = 256 << 10;

/// How long a flow that was never replied to may be silent: whoever lies about its address holds a port and a kilobyte for so long.
pub const FLOW_UNREPLIED: Duration = Duration::from_secs(10);

/// Datagrams that one send may consist of, and their bytes (`UDP_SEGMENT`).
pub const JOINED_MAX: usize = 64;
pub const JOINED_BYTES_MAX: usize = 65_507;

/// Ids of QUIC connections that a `udp` listener knows the endpoints of: twice as many at the most, and less than 10 MiB.
pub const UDP_HOMES_HALF: usize = 1 << 15;

/// Buffers for what leaves together that a listening socket keeps for its flows, of 64 KiB at the most: as many flows as one call of receiving meets.
pub const JOINED_SPARE_MAX: usize = 64;

/// Bytes of a datagram that waits for its neighbours to leave with it: those of a path of 1,500 bytes, and tunnels' and jumbo frames' by themselves,
/// for which a send each costs less than the copy.
pub const JOINED_EACH_MAX: usize = 2_048;

/// Content that an endpoint may send on all streams of a connection before it is taken. It is near, and its answers are large, as with [`HTTP2_UPSTREAM`].
pub const QUIC_WINDOW_UPSTREAM: u32 = 2 << 20;

/// How long an endpoint may say nothing to a request on a connection of HTTP/3, not even that the packet has come, before further ones are asked
/// elsewhere: far beyond any round trip, and a multiple of the delays that QUIC lets it have.
pub const QUIC_MUTE: Duration = Duration::from_secs(1);

/// How long an endpoint's HTTP/3 is left alone that did not work, for the first time; each time after that it is twice as long.
pub const HTTP3_BROKEN_FOR: Duration = Duration::from_secs(60);

/// And at the longest.
pub const HTTP3_BROKEN_MAX: Duration = Duration::from_secs(60 * 60);

/// How long the peer's QPACK encoder waits to be told that a head was read, for a response to go with: it can do without for longer than that.
pub const QPACK_PATIENCE: Duration = Duration::from_millis(10);

/// What it is told at once: 64 heads, more or less.
pub const QPACK_PATIENT_BYTES: usize = 128;

/// Content that has been read of a stream and waits for its exchange; what is beyond that stays in the stream's window.
pub const HTTP3_WAITING_BYTES: usize = 64 << 10;
