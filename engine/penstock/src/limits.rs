//! Every bound, each with the sentence that it follows from.
//!
//! A bound that an operator may move has its default in `snapshot::schema`; here stands what it may be moved to.

mod kernel;
mod quic;

use std::time::Duration;

pub use self::kernel::*;
pub use self::quic::*;

// ── What a peer may send ────────────────────────────────────────────────────────────────────────────────────────────

/// Bytes of a request or response head, request line included. nginx gives 8 KiB a line, HAProxy 16 KiB a head, Node 16
/// KiB: cookies and tokens of real applications reach 10 KiB, and one head is one buffer.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Fields of a head. Browsers send about 20, gateways behind gateways 40; Apache and Envoy stop at 100. Each costs a span of
/// 8 bytes in a table of fixed size.
pub const FIELDS_MAX: usize = 100;

/// What the machines are told of both.
pub const HEADS: proto::h1::HeadLimits =
    proto::h1::HeadLimits { bytes: HEAD_BYTES_MAX as u16, fields: FIELDS_MAX as u8, ..proto::h1::HeadLimits::DEFAULT };

// ── Connections ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Client connections of one listener over all workers, unless it says otherwise: at 512 bytes idle each, 10 MiB; at one head
/// buffer each, 320 MiB.
pub const CONNECTIONS_DEFAULT: u32 = 20_000;

/// What `max_connections` may be set to: the kernel's own ceiling for one process is `fs.nr_open`, 2^20 by default.
pub const CONNECTIONS_MAX: u32 = 1 << 20;

/// Descriptors kept back from connections: rings, listeners, logs, admin, and a resolver's socket a worker.
pub const DESCRIPTORS_RESERVED: u32 = 256;

/// Connections waiting for `accept`, unless the listener says otherwise. The kernel clips it to `net.core.somaxconn` (4096 since 5.4).
pub const BACKLOG_DEFAULT: u32 = 4096;

/// What `backlog` may be set to: `listen(2)` takes an `int`, and the queue's length is 16 bits in `inet_diag`.
pub const BACKLOG_MAX: u32 = 65_535;

// ── Content ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Bytes a second of content below which a client is too slow, unless the listener says otherwise: a tenth of what the worst of mobile networks
/// carries, and what Kestrel asks for.
pub const BODY_RATE_DEFAULT: u64 = 240;

/// How long a client may take before its rate counts: some round trips of a network that loses half.
pub const BODY_RATE_GRACE: Duration = Duration::from_secs(5);

/// A response whose length is known and at most this is sent in one piece: it is on its way already, and a second send
/// costs 4 µs (half of the whole exchange's kernel time).
pub const WHOLE_RESPONSE_BYTES_MAX: u64 = 64 << 10;

/// How long such a response may wait for its rest before what has come is sent: long against a local network's round trip,
/// short against a person's notice.
pub const WHOLE_RESPONSE_WAIT: Duration = Duration::from_millis(2);

/// Content of at least this is received straight into large buffers: below, arming one receive a piece costs more than the
/// copy out of the provided buffers.
pub const BULK_FROM: u64 = 32 << 10;

/// The largest receive of content: 256 KiB is a quarter of a MiB-body in one completion, and stays in a second-level cache.
pub const BULK_BYTES: usize = 256 << 10;

/// The receive of content while the worker's buffers are many: one page-sized piece of progress a stream.
pub const BULK_BYTES_SCARCE: usize = 16 << 10;

/// From so many bytes lent out by a worker, its buffers are many: 1,000 streams at full speed. Then each stream holds at most
/// two small buffers, so 20,000 stalled ones add 800 MiB and no more.
pub const BUFFERS_SCARCE_FROM: usize = 256 << 20;

/// Unsent bytes of one stream from which its source is not read any further: one buffer leaves while the next one fills.
pub const UNSENT_BYTES_MAX: usize = 64 << 10;

/// Bytes of a tunnel's direction, in pieces of [`BULK_FROM`] or more, after which it is spliced: what is shorter ends before it has paid.
pub const SPLICE_AFTER_BYTES: u64 = 256 << 10;

/// Small pieces in a row after which it is copied again: a stream in bulk has gaps, and a talk that follows on bulk costs two calls more for each.
pub const SPLICES_SMALL_MAX: u8 = 4;

/// The size of a pipe, which is what one may hold of a stream whose reader has stopped: `splice` through 1 MiB costs two thirds of what it does through 256 KiB, and that is
/// no less than copying. A user without privileges may have no larger one (`fs.pipe-max-size`).
pub const PIPE_BYTES_MAX: usize = 1 << 20;
pub const PIPE_BYTES_MIN: usize = 256 << 10;

/// Pipes of all workers: half of the 64 MiB that the kernel grants a user without privileges (`fs.pipe-user-pages-soft`). A worker has one at least. Streams whose readers keep up
/// share one; a pipe is a stream's own only while its reader does not.
pub const PIPES_MAX: usize = 32;

/// The final farewell to a client that still sends, or takes nothing of what it is still owed: as long as a lost FIN's second repetition, and as much as a burst of it.
pub const LINGER: Duration = Duration::from_secs(2);
pub const LINGER_BYTES_MAX: usize = 1 << 20;

/// On a drain, an idle connection is kept this long for the request that may be on its way; its response then says
/// `Connection: close`. A round trip around the world and a client's pause.
pub const DRAIN_IDLE: Duration = Duration::from_secs(2);

/// How long every worker may take to bind what a new configuration asks for: it is one turn.
pub const RELOAD_ANSWER: Duration = Duration::from_secs(5);

/// How long all of a reload may take, and who asked for it waits: workers that bind, names that are looked up, workers that adopt, and the answer.
pub const RELOAD_MAX: Duration =
    Duration::from_secs(2 * RELOAD_ANSWER.as_secs() + DISCOVERY_FIRST.as_secs() + STATUS_TIMEOUT.as_secs());

/// How often it is looked for their answers.
pub const RELOAD_LOOK: Duration = Duration::from_millis(1);

/// How often a gate of datagrams that is closing looks whether somebody is still there.
pub const GATE_CLOSING_LOOK: Duration = Duration::from_millis(100);

/// After an accept failed for want of descriptors or memory: nothing is gained by asking again at once.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// On a drain, how long a door stays open for connections that the kernel has accepted already.
pub const ACCEPT_LAST: Duration = Duration::from_millis(20);

// ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Bytes of a peer's that TLS keeps because their message is not complete. A client hello with a post-quantum key share has 1.8 KiB, a
/// chain of client certificates 4 to 10.
pub const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// Bytes of early data that a client may send (0-RTT): a page's worth of requests. They are kept until somebody reads them.
pub const EARLY_DATA_BYTES_MAX: u32 = 16 << 10;

/// Sessions that a listener remembers for its clients where tickets are good for one use: at 400 bytes each, 26 MB.
pub const SESSIONS_MAX: usize = 1 << 16;

/// Flights of handshakes that a worker does in one turn: at up to 450 µs each (RSA-2048) nobody else waits for a millisecond.
pub const HANDSHAKES_A_TURN: usize = 2;

/// Bytes of a file with certificates or a key: the largest bundles of roots in use have 250 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a list of Certificate Transparency logs: today's have 50 to 300 KiB, with the logs of all years.
pub const LOG_LIST_BYTES_MAX: u64 = 4 << 20;

/// Names of a pool's endpoints of which it is remembered what was told of their certificates: each takes 100 bytes.
pub const TRANSPARENCY_NAMES_MAX: usize = 1024;

/// The farewell to a client whose handshake failed: a round trip around the world, for the alert to be read.
pub const FAREWELL: Duration = Duration::from_millis(500);

/// How often a worker says why endpoints of a pool are not met by TLS: a person reads it, and each line is a system call.
pub const TLS_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Certificates of one listener: their keys take 2 KiB each.
pub const CERTIFICATES_MAX: usize = 1024;

/// Rules of one listener by which TLS that is passed through is led: they are looked through one after another, 50 ns each, for every
/// connection.
pub const SNI_RULES_MAX: usize = 1024;

// ── HTTP/2 ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// What a client of HTTP/2 may do, but for the number of its streams.
pub const HTTP2: proto::h2::Limits = proto::h2::Limits { heads: HEADS, ..proto::h2::Limits::DEFAULT };

/// What an endpoint of HTTP/2 may do. It is near, and its answers are large: a window of 256 KiB fills a gigabit at 2 ms, and 2 MiB are eight of those.
pub const HTTP2_UPSTREAM: proto::h2::Limits =
    proto::h2::Limits { stream_window: 256 << 10, connection_window: 2 << 20, ..HTTP2 };

/// Content that all streams of a connection may have waiting before each of them is held to [`HTTP2_WAITING_BYTES_EACH`]: what four
/// streams may have that are alone.
pub const HTTP2_WAITING_BYTES: usize = 256 << 10;

/// Content that a stream may have waiting whatever the others have: a frame.
pub const HTTP2_WAITING_BYTES_EACH: usize = 16 << 10;

/// Mailboxes, and indexes of fields, that a worker keeps for its next streams: as many as a busy one has; beyond that they are freed.
pub const HTTP2_SHELF_MAX: usize = 1_024;

/// How long an endpoint of which answers are awaited may be silent on a shared connection before it is asked for a sign of life, and how long it may
/// take for that: a connection that is dead holds up every request that is given to it.
pub const UPSTREAM_SILENCE: Duration = Duration::from_secs(5);

/// How long a connection of HTTP/2 is idle before it gives back what it does not need then: between two requests of a busy one it would only have to
/// be made anew.
pub const HTTP2_TRIM_AFTER: Duration = Duration::from_secs(1);

/// Requests that a worker has under way; further ones of HTTP/2 and 3 are refused, to be sent again. At 6 KiB each, 400 MiB. HTTP/1 is bounded by connections.
pub const EXCHANGES_MAX: u64 = 65_536;

/// How long a request waits that may not be meant, of a client of HTTP/2 or 3 that has just given up many: longer than it takes to say that this one
/// is given up as well (H2O's `http2-dos-delay`). Who gives up later than that has a hundred requests at once, and is bounded by it.
pub const DOUBT: Duration = Duration::from_millis(100);

/// What `http2.streams` may be set to: each is an exchange of 4 KiB at the least.
pub const HTTP2_STREAMS_MAX: u32 = 1_000;

// ── Upstream ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Pools that a request is passed on to, one as the fallback of the other: the one that is near, the one that is far, and one that
/// apologises.
pub const FALLBACKS_MAX: usize = 4;

/// Idle connections to one endpoint kept by one worker, unless the pool says otherwise: as many as a busy core has exchanges at
/// once finds again; at 200 bytes each they cost little, and the sweep lets go of those that grow old.
pub const IDLE_UPSTREAM_DEFAULT: u32 = 1_024;

/// What `reuse.max_idle` may be set to: beyond it an endpoint's own limit comes first.
pub const IDLE_UPSTREAM_MAX: u32 = 16_384;

/// Tries one request may have: the first and three more. Beyond that a retry only meets the same outage.
pub const TRIES_MAX: u8 = 4;

/// Further tries, of those that do not count (`policy::Outcome::is_excused`): two of three endpoints that are known to be ill leave one that is not.
pub const TRIES_EXCUSED_MAX: u8 = 3;
const _: () = assert!((TRIES_MAX + TRIES_EXCUSED_MAX) as usize <= policy::Avoid::MAX);

/// How often one request is sent at the most, whatever its tries count for and however many pooled connections turn out to be dead: a request that harms
/// whoever receives it harms no more of them. A pool that stands in for another one counts anew.
pub const SENT_MAX: u8 = 6;

/// Content of requests that one worker keeps to be able to send it again: 256 of the largest by default, a sixteenth of what
/// buffers may take before they are scarce. Beyond it requests are not tried again once their content has begun to leave.
pub const REPLAY_BYTES_WORKER: usize = 16 << 20;

/// What `retry.buffer` may be set to: a sixteenth of what a worker keeps, so that a few large requests leave room for others.
pub const REPLAY_BYTES_MAX: u64 = 1 << 20;

/// Of what was said and is no request, as much goes into the access log: a line of `GET`, a usual target and a version.
pub const REFUSED_SAID_MAX: usize = 256;

/// Content of an answer that nobody gets, taken in to keep its connection: beyond it a new connection is cheaper.
pub const DISCARD_BYTES_MAX: usize = 64 << 10;

/// Between two looks for endpoints that want a trial: each look reads all endpoints of a pool, and ten trials in a tenth of a
/// second bring one back sooner than anybody notices.
pub const TRIALS_EVERY: Duration = Duration::from_millis(10);

/// When no endpoint of a pool can have a request, those that come next are spared the look at all of them for so long: a look at
/// [`ENDPOINTS_MAX`] takes 10 µs.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// A request that waits for an endpoint to be back looks so often: the pauses of a trial that goes well are no shorter.
pub const WAITING_LOOKS_EVERY: Duration = Duration::from_millis(20);

/// Requests of one pool that wait for an endpoint to be back, a worker: half a second of 2,000 a second. What comes beyond it is refused
/// at once.
pub const WAITING_MAX: u32 = 1_024;

/// A try that takes too long while there is nowhere else to go, or no retry to be had, looks again so often: a tenth of the pause between two looks whether
/// an endpoint is back.
pub const LOOK_ELSEWHERE_EVERY: Duration = Duration::from_millis(100);

/// A try that waits for an endpoint which may be dead looks so often whether it is.
pub const LOOK_FOR_SIGNS_EVERY: Duration = Duration::from_millis(250);

/// Retries granted a second however quiet the pool is, over all workers (`policy::budget`).
pub const RETRIES_PER_SECOND_MIN: u16 = 3;

/// Endpoints of one pool. Round robin looks at each of them for each request: 1024 × 1 ns is still less than a system call.
pub const ENDPOINTS_MAX: usize = 1024;

/// An endpoint's weight. With [`ENDPOINTS_MAX`] of them sums stay far inside 32 bits.
pub const WEIGHT_MAX: u32 = 65_535;

/// A sticky cookie's name: with value and attributes it stays a fraction of what a head may hold, and browsers stop at 4 KiB a cookie.
pub const COOKIE_NAME_BYTES_MAX: usize = 64;

/// A sticky cookie is good for this long at least: it is dated to the minute.
pub const STICKY_TTL_MIN: Duration = Duration::from_secs(60);

/// Pools, listeners and routes are named by 16-bit indexes.
pub const POOLS_MAX: usize = u16::MAX as usize;
pub const ROUTES_MAX: usize = u16::MAX as usize;

/// Further networks and ports of all listeners: each is looked at for each connection that nobody listens for by its address. As many may be of datagrams, each port of each network being one.
pub const LISTEN_ALSO_MAX: usize = abi::RULES_MAX;

/// Ports of one entry of `also` at which datagrams are taken too: each is a socket a worker, since answers leave from the port that their socket is bound to.
pub const LISTEN_ALSO_PORTS_MAX: usize = 16;

/// Listeners: each is a socket a worker.
pub const LISTENERS_MAX: usize = 256;

/// No more often than this is an endpoint probed: a probe is a connection, and ten a second are a load that shows.
pub const PROBE_EVERY_MIN: Duration = Duration::from_millis(100);

/// No more often than this are a pool's endpoints compared: a second is the shortest in which a hundred calls may be usual.
pub const JUDGE_EVERY_MIN: Duration = Duration::from_secs(1);

/// Methods of gRPC that a worker tells apart: an API has some tens. Each costs the histogram of its latencies, 2.5 KiB, when it is called.
pub const GRPC_METHODS_MAX: usize = 64;

/// Bytes of an answer that a probe reads: a page of health is a few hundred; more than this is not one.
pub const PROBE_BYTES_MAX: usize = 64 * 1024;

/// No more often than this is a name resolved again, so that a short interval is no attack on the resolver.
pub const RESOLVE_EVERY_MIN: Duration = Duration::from_secs(1);

/// Records of one name that are read: a pool has no room for more. At 16 bytes each they fit the 64 KiB that a DNS answer may have.
pub const RECORDS_MAX: usize = ENDPOINTS_MAX;

/// Bytes of an endpoint file: a full pool with 512 a line, twice a long name with its weight and a comment.
pub const ENDPOINT_FILE_BYTES_MAX: u64 = 512 * ENDPOINTS_MAX as u64;

/// How often an endpoint file is looked at, if not read: one `stat`.
pub const FILE_EVERY: Duration = Duration::from_secs(1);

/// An endpoint file must stand still for this long before it is read: whoever writes it in place does so in one go, or leaves
/// gaps of milliseconds.
pub const FILE_SETTLES: Duration = Duration::from_millis(100);

/// Bytes of `/etc/hosts` and `/etc/resolv.conf`: the longest block lists in use have 200,000 lines.
pub const HOSTS_BYTES_MAX: u64 = 16 << 20;

/// How long one DNS server has for one answer, unless `/etc/resolv.conf` says otherwise: a lost datagram costs this, and glibc's
/// five seconds are a long time to miss a dead endpoint.
pub const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Rounds through the DNS servers, unless `/etc/resolv.conf` says otherwise: glibc's.
pub const RESOLVER_ATTEMPTS: u8 = 2;

/// DNS servers that are asked: with two rounds of two seconds each, a look at a name that nobody answers for ends within 32 s.
pub const RESOLVERS_MAX: usize = 8;

/// Domains in which a short name is looked for: Kubernetes writes three to six.
pub const SEARCH_MAX: usize = 8;

/// Entries that are looked at at the same time: three names whose servers are silent do not keep a fourth from being resolved.
pub const DISCOVERY_THREADS: usize = 4;

/// How long the start waits for names and files: one server that is silent, and the next one that answers. Then it serves with
/// what there is.
pub const DISCOVERY_FIRST: Duration = Duration::from_secs(5);

/// Segments of a route's path: a look-up goes so deep, each step a function's frame.
pub const PATH_SEGMENTS_MAX: usize = 64;

/// Paths, and client networks, of one route: longer lists are data and not configuration.
pub const ROUTE_PATHS_MAX: usize = 1024;

/// Conditions on fields, and on the query, of one route, and the bytes of each: they are looked at one after another.
pub const CONDITIONS_MAX: usize = 16;
pub const CONDITION_BYTES_MAX: usize = 256;

/// Fields that a route may set and add to a head: they are listed on the stack while it is composed.
pub const HEADER_RULES_MAX: usize = 24;

/// Content of an answer that the configuration gives: each worker copies it once an answer.
pub const FIXED_BODY_BYTES_MAX: usize = 256 << 10;

/// Pools that one route chooses among: more regions than anybody has, and few enough for a set of bits.
pub const CANDIDATES_MAX: usize = policy::select::CANDIDATES_MAX;

/// What `adaptive.explore` may be set to: beyond a fifth it is no exploration but a split.
pub const EXPLORE_PERCENT_MAX: u8 = 20;

/// Copies of requests that a worker has under way to mirrors at a time: at a head and [`MIRROR_BODY_BYTES_MAX`] each, 5 MiB.
pub const MIRRORS_MAX: usize = 64;

/// Content of a request that is copied to a mirror: what is larger is an upload, and would be kept in memory twice.
pub const MIRROR_BODY_BYTES_MAX: usize = 64 << 10;

/// A mirror's answer is read up to this, so that its connection can carry another copy; a longer one costs the connection.
pub const MIRROR_ANSWER_BYTES_MAX: usize = 1 << 20;

// ── Overload, classes and limits ────────────────────────────────────────────────────────────────────────────────────

/// Classes of requests, the default one included. Each has a queue of its own in every pool that is limited.
pub const CLASSES_MAX: usize = 16;

/// The share of a pool's work up to which a strict class goes before all others while they wait: a tenth is enough for them to see that they are served,
/// and its queue's length is the most that can be before one of them.
pub const STRICT_PERCENT: u8 = 90;

/// A class's weight: a thousandth of the work is the least that is worth a class.
pub const CLASS_WEIGHT_MAX: u64 = 1_000;

/// Requests of one class that may wait for one pool, a worker, unless the pool says otherwise: at 1 ms a request, a second's worth.
/// 80 bytes each, taken when a worker starts.
pub const QUEUE_DEFAULT: u32 = 1_024;

/// What `queue.len` may be set to: 5 MiB a class and worker.
pub const QUEUE_MAX: u32 = 65_536;

/// What `concurrency` may be set to: as many as a listener has connections.
pub const CONCURRENCY_MAX: u32 = CONNECTIONS_MAX;

/// The largest limit that a worker finds by itself. An origin that answers more at a time without slowing down needs no limit.
pub const CONCURRENCY_FOUND_MAX: u32 = 4_096;

/// How soon a worker with waiting requests looks for places that other workers gave back: a timer's tick.
pub const PLACES_LOOK: Duration = Duration::from_millis(1);

/// Secrets of sticky cookies that a pool believes at one time: a cookie that is none of ours is hashed as often.
pub const SECRETS_MAX: usize = 4;

/// Keys that one limit tells apart, over all workers: 1 MiB. 32,768 clients at once find cells of their own; with more, those
/// that ask least share (`policy::limit`). Grants are never more than the rate, whoever asks.
pub const RATE_KEYS: usize = 65_536;

/// Limits with a key, and paces per client, of one configuration: 256 MiB of keys at most.
pub const KEYED_LIMITS_MAX: usize = 256;

/// Limits of one route: each is looked at for each request.
pub const ROUTE_LIMITS_MAX: usize = 8;

/// The least that is received at once of content that keeps to a pace: a page.
pub const PACED_BYTES_MIN: usize = 4 << 10;

/// The longest that a datagram waits for its turn: a long round trip. Who speaks over datagrams sees by their loss that it is too fast, and later than that it has
/// sent them again.
pub const PACED_DATAGRAM_WAIT: Duration = Duration::from_millis(100);

/// Bytes of datagrams of one socket that may wait for their turns, in each direction: as many as the socket itself holds.
pub const PACED_DATAGRAMS_BYTES: usize = 4 << 20;

/// The longest that a request waits for its turn where a class, route or client has a pace. Who is further back is told so
/// at once: a person has left by then, and a connection that waits holds a buffer of 16 KiB.
pub const PACE_WAIT_MAX: Duration = Duration::from_secs(10);

// ── Workers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Workers of one process: the largest machine sold has 768 hardware threads, and a CPU set has 1024 bits.
pub const CORES_MAX: usize = 1024;

/// The longest a worker may spin before it blocks. Beyond a scheduler tick's quarter (1 ms of 4) it only takes time from others.
pub const SPIN_MAX: Duration = Duration::from_millis(1);

/// Access log lines a worker may be ahead of the writer: 4096 × 512 bytes = 2 MiB. Then lines are dropped, and counted.
pub const ACCESS_LOG_QUEUE: usize = 4096;

/// Batches of qlog on their way to its writer, of 16 KiB: 4 MiB. Then records are dropped, and counted.
pub const QLOG_QUEUE: usize = 256;

/// Networks whose connections are written down: a list that is gone through at each handshake.
pub const QLOG_PEERS_MAX: usize = 64;

/// Files that `log.qlog` may have: each is a connection, with 16 KiB that wait to be written.
pub const QLOG_FILES_MAX: u32 = 10_000;

/// The least that such a file is worth: a handshake and a few requests.
pub const QLOG_FILE_MIN: u64 = 16 << 10;

/// How often a worker looks after its pools, hands its log lines over and publishes its counts.
pub const HOUSEKEEPING: Duration = Duration::from_secs(1);

// ── Configuration ───────────────────────────────────────────────────────────────────────────────────────────────────

/// Bytes of a configuration file: ten thousand routes at 200 bytes are 2 MiB; a file beyond 16 MiB is not one.
pub const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Problems of one file that are shown: a screen or three. The rest is counted.
pub const PROBLEMS_SHOWN_MAX: usize = 50;

/// Any time in the configuration: beyond 30 days it is a mistake of units.
pub const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

// ── Administration ──────────────────────────────────────────────────────────────────────────────────────────────────

/// Bytes that `penstock status` reads from an admin endpoint: 1024 endpoints at 300 bytes, times ten.
pub const STATUS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Connections to the admin endpoint at a time: a scraper, an operator, a dashboard, and ten times that.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Bytes of content of an operator's request: an order is a name, a pool and a word, ten times over.
pub const ADMIN_CONTENT_MAX: usize = 4 * 1024;

/// How long a scrape waits for the workers to publish what they count: a busy worker's turn is well under a millisecond.
pub const PUBLISH_WAIT: Duration = Duration::from_millis(50);

/// Messages on their way to a worker: changes of names, drains, scrapes; each is handled within a turn.
pub const MAILBOX: usize = 1024;

/// Connections on their way from one worker to another; those beyond are kept. A turn accepts 256 at the most, and finds a part of them too much.
pub const HANDED_OVER_MAX: usize = 64;

/// Workers that hand connections over to one another: each has a mailbox from each other one, 64 × 63 × 1 KiB = 4 MiB.
pub const HANDING_OVER_MAX: usize = 64;

/// Questions for idle connections, and such connections, on their way from one worker to another: one question an endpoint is out at a time, and
/// what finds no room is asked again, or closed.
pub const LENDING_MAX: usize = 16;

/// How long a worker that was asked for an idle connection has to answer before somebody is asked again: a turn of its and one of ours, of
/// a busy machine, many times over.
pub const LENDING_WAIT: Duration = Duration::from_millis(100);

/// How long `penstock status` waits for it: a worker that does not answer within this is itself the news.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
