//! What the program for further addresses and the engine share in maps.

/// Rules that there may be for connections, and as many for datagrams, which stand behind those: each is looked at for each connection, and for each datagram of
/// a socket that is not connected.
pub const RULES_MAX: usize = 64;

/// Sockets that a rule may name, one a worker: the first that is open is asked for its group. Of more workers these are the first ones.
pub const RULE_SOCKETS_MAX: u32 = 64;

/// Words of a rule.
pub const RULE_WORDS: usize = 12;

/// Which connections or datagrams a socket gets though it is bound elsewhere. All words are 32 bits wide, so that there is no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Rule {
    /// The network, in the order of the wire; IPv4 as `::ffff:a.b.c.d`.
    pub network: [u32; 4],
    /// The bits of an address that count.
    pub mask: [u32; 4],
    /// The first port that is meant.
    pub first: u32,
    /// And the last one; 0 ends the list.
    pub last: u32,
    /// Where its first socket stands.
    pub socket: u32,
    /// And how many do.
    pub sockets: u32,
}

impl Rule {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(&self) -> [u32; RULE_WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.network, self.mask);
        [a, b, c, d, e, f, g, h, self.first, self.last, self.socket, self.sockets]
    }

    /// Whether what goes to this address and port is meant.
    #[inline(always)]
    #[must_use]
    pub const fn takes(&self, address: [u32; 4], port: u32) -> bool {
        let ([a, b, c, d], [e, f, g, h], [s, t, u, v]) = (self.network, self.mask, address);
        let differs = (s & e) ^ a | (t & f) ^ b | (u & g) ^ c | (v & h) ^ d;
        differs == 0 && self.first <= port && port <= self.last
    }
}

/// What became of a connection or a datagram that was looked up: an index into the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    /// A rule's socket got a connection.
    Led,
    /// A rule was meant, and its sockets are closed.
    Closed,
    /// As `Led`, a datagram.
    DatagramLed,
    /// As `Closed`, a datagram.
    DatagramClosed,
}

impl Found {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Led, Self::Closed, Self::DatagramLed, Self::DatagramClosed];

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Led => "led",
            Self::Closed => "closed",
            Self::DatagramLed => "datagram_led",
            Self::DatagramClosed => "datagram_closed",
        }
    }
}
