//! What goes wrong in a world, and how often.

use std::time::Duration;

use super::dice::Dice;

/// Probabilities (0 to 1) and bounds of everything that a [`World`](super::World) may do to its node.
///
/// Faults come in two kinds. *Harmless* ones change when and in what shape things happen; a correct node serves every
/// exchange in spite of them. *Harmful* ones break connections; a correct node fails cleanly and leaks nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Harmless. A completion waits up to this long before it shows; completions of different operations overtake.
    pub completion_delay: Duration,
    /// Harmless. Bytes, FIN, RST and SYN travel up to this long; different sockets overtake each other.
    pub network_delay: Duration,
    /// Harmless. A script reacts up to this late.
    pub script_delay: Duration,
    /// Harmless. A sleep lasts up to this much longer than asked for.
    pub oversleep: Duration,
    /// Harmless, per sleep. A turn returns early with nothing, as after a signal.
    pub spurious_turn: f64,
    /// Harmless, per turn. Only some of the completions that are due are handed out (liburing #1474).
    pub partial_reap: f64,
    /// Harmless, per receive. Fewer bytes than there are.
    pub short_receive: f64,
    /// Harmless, per completion of a multishot operation. It is the last one.
    pub multishot_end: f64,
    /// Harmless, per multishot receive. Ends with `-ENOBUFS` (liburing #1275).
    pub no_buffers: f64,
    /// Harmless, per cancel. It takes effect much later, or after the target has consumed bytes: the target completes
    /// with them (liburing #1422).
    pub cancel_late: f64,
    /// Harmless, per turn. A completion of an operation that is over comes once more (tokio #8112).
    pub stale_completion: f64,
    /// Harmless, per send. Completes up to 20 ms late although the bytes went at once.
    pub send_late: f64,
    /// Harmless, per attempt of a send. The kernel takes a part now and the rest later.
    pub send_in_parts: f64,
    /// Harmless, per splice out of a socket. It finds nothing although there is something (urgent data does that).
    pub splice_stuck: f64,
    /// Harmless, per connection waiting to be accepted. A burst of up to 4 `-EMFILE` before it.
    pub accept_emfile: f64,
    /// Harmless. Bytes that one direction of a connection holds, chosen per connection from this range.
    pub buffer: (usize, usize),
    /// Harmless, per datagram. It is lost.
    pub datagram_loss: f64,
    /// Harmless, per datagram. It arrives twice.
    pub datagram_duplicate: f64,
    /// Harmless, per datagram. It travels up to 5 ms longer, and later ones overtake it.
    pub datagram_reorder: f64,
    /// Harmless, per send of datagrams. The kernel's buffer is full for up to 2 ms.
    pub datagram_full: f64,
    /// Harmless, per send of several datagrams. The kernel refuses to cut it (`EIO`).
    pub gso_refused: f64,
    /// Harmful, per accept. `-ECONNABORTED`, and the connection is reset.
    pub accept_aborted: f64,
    /// Harmful, per connect. `-ECONNREFUSED`.
    pub connect_refused: f64,
    /// Harmful, per connect. `-ETIMEDOUT` after 127 s, as Linux gives up on SYN.
    pub connect_timeout: f64,
    /// Harmful, per delivery. The connection is reset at both ends.
    pub reset: f64,
    /// Harmful, per attempt of a send by the node. Fails after a part, and the connection is reset at both ends.
    pub send_broken: f64,
}

impl Faults {
    /// A kind kernel on a fast network: everything happens at once, in order and whole.
    pub fn none() -> Self {
        Self {
            completion_delay: Duration::ZERO,
            network_delay: Duration::ZERO,
            script_delay: Duration::ZERO,
            oversleep: Duration::ZERO,
            spurious_turn: 0.0,
            partial_reap: 0.0,
            short_receive: 0.0,
            multishot_end: 0.0,
            no_buffers: 0.0,
            cancel_late: 0.0,
            stale_completion: 0.0,
            send_late: 0.0,
            send_in_parts: 0.0,
            splice_stuck: 0.0,
            accept_emfile: 0.0,
            buffer: (256 * 1024, 256 * 1024),
            datagram_loss: 0.0,
            datagram_duplicate: 0.0,
            datagram_reorder: 0.0,
            datagram_full: 0.0,
            gso_refused: 0.0,
            accept_aborted: 0.0,
            connect_refused: 0.0,
            connect_timeout: 0.0,
            reset: 0.0,
            send_broken: 0.0,
        }
    }

    /// Harmless faults only, each often enough to be met in a run with a few connections.
    pub fn mild() -> Self {
        Self {
            completion_delay: Duration::from_micros(50),
            network_delay: Duration::from_micros(500),
            script_delay: Duration::from_micros(100),
            oversleep: Duration::from_micros(200),
            spurious_turn: 0.05,
            partial_reap: 0.1,
            short_receive: 0.2,
            multishot_end: 0.1,
            no_buffers: 0.05,
            cancel_late: 0.3,
            stale_completion: 0.05,
            send_late: 0.05,
            send_in_parts: 0.1,
            splice_stuck: 0.05,
            accept_emfile: 0.05,
            buffer: (2 * 1024, 128 * 1024),
            datagram_loss: 0.01,
            datagram_duplicate: 0.01,
            datagram_reorder: 0.02,
            datagram_full: 0.02,
            ..Self::none()
        }
    }

    /// Everything, harmful faults included.
    pub fn wild() -> Self {
        Self {
            completion_delay: Duration::from_millis(2),
            network_delay: Duration::from_millis(20),
            script_delay: Duration::from_millis(5),
            oversleep: Duration::from_millis(2),
            spurious_turn: 0.2,
            partial_reap: 0.3,
            short_receive: 0.5,
            multishot_end: 0.3,
            no_buffers: 0.2,
            cancel_late: 0.6,
            stale_completion: 0.2,
            send_late: 0.2,
            send_in_parts: 0.4,
            splice_stuck: 0.2,
            accept_emfile: 0.1,
            buffer: (1, 16 * 1024),
            datagram_loss: 0.1,
            datagram_duplicate: 0.05,
            datagram_reorder: 0.1,
            datagram_full: 0.2,
            gso_refused: 0.01,
            accept_aborted: 0.05,
            connect_refused: 0.05,
            connect_timeout: 0.03,
            reset: 0.01,
            send_broken: 0.02,
        }
    }

    /// A mixture of its own for each seed: every fault is absent in half of the seeds, and up to wild in the others.
    ///
    /// Absence matters as much as presence: a fault that ends every connection early hides what would come later
    /// (swarm testing: Groce et al., ISSTA 2012).
    pub fn from_seed(seed: u64) -> Self {
        // Its own sequence, so that choosing faults does not shift the world's.
        let mut dice = Dice::new(seed ^ 0xfa17_5eed_0000_0000);
        let wild = Self::wild();
        let mut odds = |most: f64| if dice.chance(0.5) { 0.0 } else { most * dice.below(1001) as f64 / 1000.0 };
        let mut faults = Self {
            spurious_turn: odds(wild.spurious_turn),
            partial_reap: odds(wild.partial_reap),
            short_receive: odds(wild.short_receive),
            multishot_end: odds(wild.multishot_end),
            no_buffers: odds(wild.no_buffers),
            cancel_late: odds(wild.cancel_late),
            stale_completion: odds(wild.stale_completion),
            send_late: odds(wild.send_late),
            send_in_parts: odds(wild.send_in_parts),
            accept_emfile: odds(wild.accept_emfile),
            accept_aborted: odds(wild.accept_aborted),
            connect_refused: odds(wild.connect_refused),
            connect_timeout: odds(wild.connect_timeout),
            reset: odds(wild.reset),
            send_broken: odds(wild.send_broken),
            ..Self::none()
        };
        let mut time =
            |most: Duration| if dice.chance(0.5) { most / 50 } else { Duration::from_nanos(dice.span(most)) };
        faults.completion_delay = time(wild.completion_delay);
        faults.network_delay = time(wild.network_delay);
        faults.script_delay = time(wild.script_delay);
        faults.oversleep = time(wild.oversleep);
        faults.buffer = match dice.below(4) {
            0 => wild.buffer,
            1 => Self::none().buffer,
            _ => Self::mild().buffer,
        };
        // Last, so that the seeds found before there were datagrams still mean what they meant.
        let mut odds = |most: f64| if dice.chance(0.5) { 0.0 } else { most * dice.below(1001) as f64 / 1000.0 };
        faults.datagram_loss = odds(wild.datagram_loss);
        faults.datagram_duplicate = odds(wild.datagram_duplicate);
        faults.datagram_reorder = odds(wild.datagram_reorder);
        faults.datagram_full = odds(wild.datagram_full);
        faults.gso_refused = odds(wild.gso_refused);
        faults.splice_stuck = odds(wild.splice_stuck);
        faults
    }

    /// The same without the harmful ones: every exchange has to succeed.
    pub fn harmless(self) -> Self {
        Self { accept_aborted: 0.0, connect_refused: 0.0, connect_timeout: 0.0, reset: 0.0, send_broken: 0.0, ..self }
    }
}
