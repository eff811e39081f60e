//! What the programs of the same-host shortcut and the engine share in maps.
//!
//! A connection has two [`End`]s. Each is the key of its socket, and of the word that says what it has sent ([`SPENT`], [`FALLEN`]): the other
//! end's are found by [`End::other`]. The kernel is told of a connection by its socket's priority, which is the engine's [`Settings::token`].

/// One end of a connection as its own socket sees it: network namespace, addresses (IPv4's mapped into IPv6), and ports.
///
/// Words of 32 bits, so that there is no padding: namespace (2), local address (4), remote address (4), local port, remote port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct End(pub [u32; 12]);

/// An address as an [`End`] has it: the words of IPv6 as they lie in memory.
pub type Words = [u32; 4];

/// What stands before an IPv4 address that is mapped into IPv6 (RFC 4291 §2.5.5.2), in network order.
const MAPPED: u32 = 0xffff_u32.to_be();

impl End {
    /// Of a socket in the namespace with this cookie.
    #[inline(always)]
    #[must_use]
    pub const fn new(namespace: u64, (local, local_port): (Words, u32), (remote, remote_port): (Words, u32)) -> Self {
        let (low, high) = (namespace as u32, (namespace >> 32) as u32);
        let ([a, b, c, d], [e, f, g, h]) = (local, remote);
        Self([low, high, a, b, c, d, e, f, g, h, local_port, remote_port])
    }

    /// The same connection as its other end's socket sees it.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        let [low, high, a, b, c, d, e, f, g, h, local_port, remote_port] = self.0;
        Self([low, high, e, f, g, h, a, b, c, d, remote_port, local_port])
    }
}

/// An IPv4 address, given as it lies in memory, among those of IPv6.
#[inline(always)]
#[must_use]
pub const fn mapped(address: u32) -> Words {
    [0, 0, MAPPED, address]
}

/// Of an end's word: bytes that it has sent by the shortcut since the other end last spoke.
pub const SPENT: u64 = (1 << 63) - 1;

/// Of an end's word: what it sends goes by TCP from now on, for good. The other end reads what has come by the shortcut first, and by
/// TCP after it: going back would change the order.
pub const FALLEN: u64 = 1 << 63;

/// What the engine tells the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    /// Priority of sockets whose connections are to take the shortcut; 0: none.
    pub token: u32,
    /// Bytes that an end may send by it until the other one has spoken.
    pub budget: u32,
}

impl Settings {
    /// As it stands in the map.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.token as u64 | (self.budget as u64) << 32
    }

    /// From what stands in the map.
    #[inline(always)]
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        Self { token: word as u32, budget: (word >> 32) as u32 }
    }
}

/// What the programs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Count {
    /// Connections of which both ends were taken up.
    Joined,
    /// Ends that could not be: a table is full, or another program has the socket.
    Refused,
    /// Messages that went by the shortcut.
    Messages,
    /// Their bytes.
    Bytes,
    /// Ends that had spent their budget, and go by TCP from then on.
    Spent,
    /// Ends that found nobody at the other one, and go by TCP from then on.
    Alone,
}

impl Count {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Joined, Self::Refused, Self::Messages, Self::Bytes, Self::Spent, Self::Alone];

    /// As operators read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Refused => "refused",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Spent => "spent",
            Self::Alone => "alone",
        }
    }
}

/// What becomes of the words of both ends when one sends `size` bytes: whether they may go by the shortcut, and what that leaves of its own word.
/// `None`: by TCP, from now on.
#[inline(always)]
#[must_use]
pub const fn spend(own: u64, size: u32, budget: u32) -> Option<u64> {
    let spent = (own & SPENT).saturating_add(size as u64);
    if own & FALLEN != 0 || spent > budget as u64 { None } else { Some(spent) }
}
