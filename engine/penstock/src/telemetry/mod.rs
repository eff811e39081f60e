//! What the engine counts: each worker stores to cells of its own, readers sum.
//!
//! What holds here: a cell has one writer, so counting is a plain load and store and no shared line is ever fought over;
//! a reader sees each cell whole, and all of them a moment apart. Deliberately absent: labels made at run time.

pub mod access_log;
mod grpc;
mod histogram;
pub mod prometheus;
pub mod qlog;
mod websocket;

use std::sync::atomic::{AtomicU64, Ordering};

pub use grpc::{CODES, Calls, MethodCells};
pub use histogram::{Histogram, Summary};
pub use websocket::{Closing, MessageCells, WebSocketCells, WebSockets};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the cell's own worker may.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// Takes away; only the cell's own worker may.
    #[inline]
    pub fn sub(&self, less: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(less), Ordering::Relaxed);
    }

    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares the counters of a worker once: their names, what they are to Prometheus, and what they mean.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:literal,)+) => {
        /// A worker's counters.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: Cell,)+
        }

        impl Counters {
            /// Name, kind (`counter` or `gauge`), help and value of each.
            pub fn each(&self, mut visit: impl FnMut(&'static str, &'static str, &'static str, u64)) {
                $(visit(stringify!($name), $kind, concat!($($help),+), self.$name.get());)+
            }
        }
    };
}

counters! {
    /// Client connections accepted.
    connections_total: "counter",
    /// Client connections open.
    connections_open: "gauge",
    /// Client connections closed at once because their client has as many as it may.
    connections_refused_total: "counter",
    /// Pauses of accepting because the listener's limit of connections was reached.
    accept_pauses_total: "counter",
    /// Client connections handed over to a worker with less to do.
    handed_over_total: "counter",
    /// Client connections taken over from a worker with more to do.
    taken_over_total: "counter",
    /// TLS handshakes with clients that came to their end.
    tls_handshakes_total: "counter",
    /// Of those, the ones that resumed a session.
    tls_resumed_total: "counter",
    /// Of those, the ones that agreed upon TLS 1.2.
    tls12_handshakes_total: "counter",
    /// Connections on which early data (0-RTT) of the client was taken.
    tls_early_data_accepted_total: "counter",
    /// Connections on which it was not: its session is not known here, was used before, or has grown old.
    tls_early_data_rejected_total: "counter",
    /// Requests in early data that were passed on before the handshake was complete.
    requests_early_total: "counter",
    /// Requests in early data that waited for the handshake, because they might change something.
    requests_early_held_total: "counter",
    /// Of those, the ones that were answered 425, because it did not come to its end in time.
    requests_too_early_total: "counter",
    /// TLS handshakes that took too long.
    tls_handshakes_timed_out_total: "counter",
    /// TLS handshakes in which the client left.
    tls_handshakes_left_total: "counter",
    /// Connections with HTTP in the clear where TLS is spoken.
    tls_handshakes_plain_http_total: "counter",
    /// TLS handshakes without a version, cipher, protocol or name in common.
    tls_handshakes_incompatible_total: "counter",
    /// TLS handshakes that ended at a certificate: the client refused ours, or showed none or a bad one.
    tls_handshakes_certificate_total: "counter",
    /// TLS handshakes that the client ended with another alert.
    tls_handshakes_alert_total: "counter",
    /// TLS handshakes that broke the protocol.
    tls_handshakes_malformed_total: "counter",
    /// TLS connections that are passed through, led by their first words.
    sni_led_total: "counter",
    /// Of TLS that is passed through, those that asked for a name, or offered protocols, that lead nowhere.
    sni_unrecognized_total: "counter",
    /// Those that took too long to say where they want to go.
    sni_timed_out_total: "counter",
    /// Those whose client left before.
    sni_left_total: "counter",
    /// Connections without TLS where it is passed through.
    sni_not_tls_total: "counter",
    /// Those whose ClientHello breaks the protocol or is too long.
    sni_malformed_total: "counter",
    /// Client connections that went on as HTTP/2.
    h2_connections_total: "counter",
    /// Connections of HTTP/2 that were ended because the client broke the protocol or did too much of what costs only us.
    h2_faults_total: "counter",
    /// Client connections of HTTP/3.
    h3_connections_total: "counter",
    /// Connections of HTTP/3 that were ended because the client broke the protocol or did too much of what costs only us.
    h3_faults_total: "counter",
    /// Clients of QUIC that had to show first that they receive what is sent to their address.
    quic_retries_total: "counter",
    /// Clients of QUIC that were not let in: the listener has as many connections as it may, or is closing.
    quic_refused_total: "counter",
    /// Datagrams of QUIC that came to this worker and were brought to the one that has their connection.
    quic_passed_on_total: "counter",
    /// Of such, those that were lost because the way there was full.
    quic_passed_on_lost_total: "counter",
    /// Datagrams of requests (RFC 9297) that went on: as such, or where they had to as capsules.
    http_datagrams_total: "counter",
    /// Those that were dropped: too many waited, or one was too long for the other path.
    http_datagrams_dropped_total: "counter",
    /// Connections of HTTP/3 that are or were written down as qlog.
    qlog_connections_total: "counter",
    /// Those that should have been, but there were as many at a time as there may be files.
    qlog_refused_total: "counter",
    /// Records of qlog that were not written: the file was full, or the disk behind.
    qlog_records_dropped_total: "counter",
    /// Datagrams that came past the kernel (AF_XDP).
    afxdp_received_total: "counter",
    /// Datagrams that left past the kernel.
    afxdp_sent_total: "counter",
    /// Sends, of one datagram or several, that went by the kernel though there is a way past it: the next hop is not known, they do not fit a frame, or none is free.
    afxdp_by_kernel_total: "counter",
    /// Frames that came past the kernel and are no good: a wrong checksum, lengths that contradict each other, a source that cannot be.
    afxdp_flawed_total: "counter",
    /// Frames that were lost because a socket of AF_XDP had none free, as the kernel counts.
    afxdp_lost_total: "counter",
    /// Connections of HTTP/2 and HTTP/3 to endpoints, each shared by many requests.
    upstream_shared: "gauge",
    /// Of those, the ones of HTTP/3.
    upstream_h3: "gauge",
    /// Connections of HTTP/3 begun because an endpoint had said that it has that (`Alt-Svc`).
    upstream_h3_tried_total: "counter",
    /// Connections of HTTP/3 to endpoints that may choose which did not come about, or broke while something was awaited: requests went on over TCP.
    upstream_h3_broken_total: "counter",
    /// Requests begun: a head was read.
    requests_total: "counter",
    /// Requests in progress.
    requests_open: "gauge",
    /// Requests of HTTP/2 and 3 that were refused, to be sent again, because too many were in progress.
    requests_refused_total: "counter",
    /// Responses with a 1xx, 2xx or 3xx status.
    responses_ok_total: "counter",
    /// Responses with a 4xx status.
    responses_client_error_total: "counter",
    /// Responses with a 5xx status.
    responses_server_error_total: "counter",
    /// Responses that broke off: the client saw an incomplete one.
    responses_broken_total: "counter",
    /// Requests refused because they break HTTP.
    requests_malformed_total: "counter",
    /// Requests that no route took.
    requests_unrouted_total: "counter",
    /// Exchanges that the client left before their end.
    requests_abandoned_total: "counter",
    /// Requests that waited because their client had just given up many.
    requests_doubted_total: "counter",
    /// Content bytes received from clients.
    bytes_in_total: "counter",
    /// Content bytes sent to clients.
    bytes_out_total: "counter",
    /// Flows of datagrams begun.
    udp_flows_total: "counter",
    /// Those of clients that have come from elsewhere with a connection of QUIC, and went to its endpoint.
    udp_flows_moved_total: "counter",
    /// Datagrams received from clients.
    datagrams_in_total: "counter",
    /// Datagrams received from endpoints for clients.
    datagrams_out_total: "counter",
    /// Datagrams dropped: no room to send them, no more flows, or no endpoint.
    datagrams_dropped_total: "counter",
    /// Datagrams to flows' ports from others than their endpoints.
    datagrams_stray_total: "counter",
    /// Tunnels opened: TCP pass-through and upgrades.
    tunnels_total: "counter",
    /// Tunnels open.
    tunnels_open: "gauge",
    /// Bytes of tunnels from clients that were spliced: nobody copied them.
    tunnel_spliced_in_bytes_total: "counter",
    /// Bytes of tunnels to clients that were spliced.
    tunnel_spliced_out_bytes_total: "counter",
    /// Times that a tunnel was to be spliced and no pipe was free: it was copied.
    tunnel_no_pipe_total: "counter",
    /// Pipes open for splicing, in use or not.
    tunnel_pipes: "gauge",
    /// Exchanges that found an idle upstream connection.
    upstream_reused_total: "counter",
    /// Upstream connections attempted.
    upstream_connects_total: "counter",
    /// Attempts that made no connection.
    upstream_connect_failures_total: "counter",
    /// Time that was spent on making upstream connections, in nanoseconds; most of it exchanges waited for.
    upstream_connect_nanoseconds_total: "counter",
    /// Upstream connections let go between two exchanges: worn, too old or too many, closed by the endpoint, or wanted elsewhere.
    upstream_discarded_total: "counter",
    /// Requests over connections that were made for the same-host shortcut.
    same_host_requests_total: "counter",
    /// Upstream connections lying idle.
    upstream_idle: "gauge",
    /// Upstream connections that came from another worker, because their endpoint has as many as it may.
    upstream_borrowed_total: "counter",
    /// Upstream connections that went to another worker for that reason.
    upstream_lent_total: "counter",
    /// Tries after the first.
    retries_total: "counter",
    /// Tries that the retry budget refused.
    retries_refused_total: "counter",
    /// Second copies sent of requests that were slower than most.
    hedges_total: "counter",
    /// Second copies whose answer began first.
    hedges_won_total: "counter",
    /// Second copies that the hedging budget refused.
    hedges_refused_total: "counter",
    /// Choices of an endpoint that found all that would do at their limits.
    endpoints_full_total: "counter",
    /// Choices of an endpoint made against the verdicts of health checks, because too few were healthy.
    panic_picks_total: "counter",
    /// Requests whose sticky cookie named an endpoint that could not have them: another one got them.
    sticky_moved_total: "counter",
    /// Requests that no endpoint could be found for.
    no_endpoint_total: "counter",
    /// Requests that what stands in for a pool or route had to serve.
    fallbacks_total: "counter",
    /// Requests that waited for an endpoint to be back.
    endpoint_waits_total: "counter",
    /// Copies of requests sent to mirrors.
    mirrors_total: "counter",
    /// Copies on their way, or in the making.
    mirrors_open: "gauge",
    /// Copies not made: too much content, too many at a time, or no endpoint of the mirror available.
    mirrors_dropped_total: "counter",
    /// Copies that got no answer, or not in time.
    mirrors_failed_total: "counter",
    /// Access log lines dropped because the writer was behind.
    log_lines_dropped_total: "counter",
    /// Tasks that ended in a panic: each is a bug.
    panics_total: "counter",
    /// Heap allocations of the worker's thread.
    allocations_total: "counter",
    /// CPU time of the worker's thread, in nanoseconds.
    cpu_nanoseconds_total: "counter",
    /// Turns of the worker's ring.
    ring_turns_total: "counter",
    /// System calls that entered the kernel to submit or wait.
    ring_enters_total: "counter",
    /// Send operations.
    ring_sends_total: "counter",
    /// Receive completions.
    ring_receives_total: "counter",
    /// Other system calls on the data path.
    ring_calls_total: "counter",
    /// Receives that ended because the provided buffers had run out.
    ring_no_buffers_total: "counter",
    /// Completion queue overflows.
    ring_overflows_total: "counter",
    /// Spins before blocking that found work.
    ring_spins_won_total: "counter",
    /// Spins before blocking that found none.
    ring_spins_lost_total: "counter",
    /// 1 while the worker spins before it blocks, where `engine.spin` lets it choose.
    ring_spinning: "gauge",
    /// Completions that named no operation in flight.
    ring_stale_total: "counter",
    /// Streams open, idle upstream ones included.
    ring_streams: "gauge",
    /// Operations in flight.
    ring_operations: "gauge",
    /// Tasks alive.
    ring_tasks: "gauge",
    /// Bytes lent out as buffers.
    buffers_lent_bytes: "gauge",
    /// The most bytes ever lent out at once.
    buffers_lent_bytes_max: "gauge",
    /// Bytes of buffers kept free.
    buffers_free_bytes: "gauge",
}

/// Everything that one worker tells. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCells {
    pub counters: Counters,
    /// From a request's head to the end of its response, in nanoseconds.
    pub latency: Histogram,
    /// By method.
    pub calls: Calls,
    /// Counts publications of what the worker's ring keeps to itself.
    pub published: Cell,
}

impl WorkerCells {
    /// Publishes what the ring of this thread counts. Only the worker itself may.
    pub fn publish(&self) {
        let counts = ring::counts();
        let pool = ring::buf::pool_counts();
        let to = &self.counters;
        to.panics_total.set(counts.panics);
        to.allocations_total.set(ring::alloc::allocations());
        to.cpu_nanoseconds_total.set(ring::thread_cpu_nanos());
        to.ring_turns_total.set(counts.turns);
        to.ring_enters_total.set(counts.driver.enters);
        to.ring_sends_total.set(counts.driver.sends);
        to.ring_receives_total.set(counts.driver.receives);
        to.ring_calls_total.set(counts.driver.calls);
        to.ring_no_buffers_total.set(counts.driver.no_buffers);
        to.ring_overflows_total.set(counts.driver.overflows);
        to.ring_spins_won_total.set(counts.driver.spins_won);
        to.ring_spins_lost_total.set(counts.driver.spins_lost);
        to.ring_spinning.set(u64::from(counts.driver.spinning));
        to.ring_stale_total.set(counts.stale);
        to.ring_streams.set(counts.streams as u64);
        to.ring_operations.set(counts.operations as u64);
        to.ring_tasks.set(counts.tasks as u64);
        to.buffers_lent_bytes.set(pool.lent as u64);
        to.buffers_lent_bytes_max.set(pool.lent_max as u64);
        to.buffers_free_bytes.set(pool.free as u64);
        self.published.add(1);
    }

    /// A final response with this status has been sent.
    #[inline]
    pub fn responded(&self, status: u16) {
        match status {
            400..500 => self.counters.responses_client_error_total.add(1),
            500.. => self.counters.responses_server_error_total.add(1),
            _ => self.counters.responses_ok_total.add(1),
        }
    }
}
