//! What the program for further addresses and the engine share in maps.

/// Rules that there may be: each is looked at for each connection that nobody listens for.
pub const RULES_MAX: usize = 64;

/// Words of a rule.
pub const RULE_WORDS: usize = 11;

/// Which connections a listening socket gets though it is bound elsewhere. All words are 32 bits wide, so that there is no padding.
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
    /// Where the socket stands.
    pub socket: u32,
}

impl Rule {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(&self) -> [u32; RULE_WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.network, self.mask);
        [a, b, c, d, e, f, g, h, self.first, self.last, self.socket]
    }

    /// Whether a connection to this address and port is meant.
    #[inline(always)]
    #[must_use]
    pub const fn takes(&self, address: [u32; 4], port: u32) -> bool {
        let ([a, b, c, d], [e, f, g, h], [s, t, u, v]) = (self.network, self.mask, address);
        let differs = (s & e) ^ a | (t & f) ^ b | (u & g) ^ c | (v & h) ^ d;
        differs == 0 && self.first <= port && port <= self.last
    }
}

/// What became of a connection that was looked up: an index into the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    /// A rule's socket got it.
    Led,
    /// A rule was meant, and its socket is closed.
    Closed,
}

impl Found {
    /// All of them, in their order.
    pub const ALL: [Self; 2] = [Self::Led, Self::Closed];

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Led => "led",
            Self::Closed => "closed",
        }
    }
}
