//! What the XDP balancer, its decapsulator and the engine share in maps.
//!
//! What holds: a packet is counted once, under the one outcome that it had ([`Outcome`], [`Decap`]). Which endpoint a flow has depends on the flow
//! and its VIP's table alone, so every machine with the same table chooses the same one. Values of maps are arrays of words, so that there is no padding.

/// An address as its words lie in a packet; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
pub type Address = [u32; 4];

/// The address of four octets that are one big-endian number.
#[inline(always)]
#[must_use]
pub const fn mapped(address: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), address.to_be()]
}

/// Slots of a VIP's table: Maglev's small one (Eisenbud et al., NSDI 2016, §5.3).
pub const SLOTS: u32 = 65_537;

/// Slots that lie in one value of the map: 1 KiB, so that a table is written in 129 calls.
pub const SLOTS_PER_BLOCK: usize = 512;

/// Values of the map that one table takes.
pub const BLOCKS: u32 = SLOTS.div_ceil(SLOTS_PER_BLOCK as u32);

/// A slot that is nobody's.
pub const NOBODY: u16 = u16::MAX;

/// What VIPs are looked up by: address, then port and protocol.
pub type VipKey = [u32; 5];

/// The key of a VIP. `protocol` is IP's number of it.
#[inline(always)]
#[must_use]
pub const fn vip_key([a, b, c, d]: Address, protocol: u32, port: u16) -> VipKey {
    [a, b, c, d, protocol << 16 | port as u32]
}

/// How a VIP's packets reach their endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Forward {
    /// In an IP packet of their own (RFC 2003, RFC 2473).
    IpIp,
    /// In a UDP datagram (GUE variant 1, draft-ietf-intarea-gue §4: the IP packet follows UDP's header at once).
    Gue,
    /// As they are, to the endpoint's link-layer address.
    Dsr,
}

impl Forward {
    /// The way of a number; what is none is [`IpIp`](Self::IpIp).
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Gue,
            2 => Self::Dsr,
            _ => Self::IpIp,
        }
    }
}

/// GUE's port (IANA).
pub const GUE_PORT: u16 = 6080;

/// A VIP as programs know it. Which of its two tables counts changes with one write of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vip {
    /// Its place in all that is kept by VIP.
    pub number: u32,
    /// How its packets reach their endpoint.
    pub forward: Forward,
    /// Which of its two tables counts.
    pub second: bool,
}

impl Vip {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(self) -> [u32; 2] {
        [self.number, self.forward as u32 | (self.second as u32) << 8]
    }

    /// The VIP of these words.
    #[inline(always)]
    #[must_use]
    pub const fn of([number, rest]: [u32; 2]) -> Self {
        Self { number, forward: Forward::of(rest & 0xff), second: rest >> 8 & 1 == 1 }
    }

    /// Where the table that counts, or the other one, begins in the map of all blocks.
    #[inline(always)]
    #[must_use]
    pub const fn first_block(self) -> u32 {
        (self.number * 2 + self.second as u32) * BLOCKS
    }
}

/// Words of an [`Endpoint`].
pub const ENDPOINT_WORDS: usize = 6;

/// An endpoint of a VIP as programs know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Where packets go that are for it.
    pub address: Address,
    /// Counted up whenever the place is given to another one, so that flows of who had it before are not this one's.
    pub generation: u16,
    /// Flows that it has stay with it. It may have none of the table's slots all the same.
    pub keeps: bool,
}

impl Endpoint {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(self) -> [u32; ENDPOINT_WORDS] {
        let [a, b, c, d] = self.address;
        [a, b, c, d, self.generation as u32, self.keeps as u32]
    }
}

/// Words of a [`Hop`].
pub const HOP_WORDS: usize = 7;

/// Units of 2^20 ns for which a hop counts once it was asked for: a second.
pub const HOP_LASTS: u32 = 1_024;

/// The way to an endpoint, as one CPU knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The frame's destination and source, as they lie in it.
    pub addresses: [u32; 3],
    /// Where it leaves; 0: not known.
    pub interface: u32,
    /// Until when this counts, in units of 2^20 ns of the monotonic clock.
    pub until: u32,
    /// 0: not known.
    pub mtu: u32,
    /// Of the endpoint.
    pub generation: u16,
}

impl Hop {
    /// Itself as the words that a map holds.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u32; HOP_WORDS] {
        let [a, b, c] = self.addresses;
        [a, b, c, self.interface, self.until, self.mtu, self.generation as u32]
    }
}

/// What flows are remembered by: the client's address and port, and the VIP's number.
pub type FlowKey = [u32; 6];

/// The key of a flow.
#[inline(always)]
#[must_use]
pub const fn flow_key([a, b, c, d]: Address, port: u16, vip: u32) -> FlowKey {
    [a, b, c, d, port as u32, vip]
}

/// A hash of a flow: its high half chooses the slot, its low half what differs between flows in an outer header. It has no key, because a fleet would have to share it:
/// who wants all of his own connections on one endpoint can have that, as with one source port.
#[inline(always)]
#[must_use]
pub const fn hash([a, b, c, d]: Address, port: u16) -> u64 {
    let high = ((a as u64) << 32 | b as u64).wrapping_mul(0x9e37_79b1_85eb_ca87);
    let low = ((c as u64) << 32 | d as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let mut hash = high ^ low.rotate_left(29) ^ (port as u64).wrapping_mul(0x1656_67b1_9e37_79f9);
    // The finalizer of MurmurHash3.
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// The slot that a hash means, below [`SLOTS`].
#[inline(always)]
#[must_use]
pub const fn slot_of(hash: u64) -> u32 {
    // The high half times their number, without a division.
    (((hash >> 32) * SLOTS as u64) >> 32) as u32
}

/// Words of [`Outer`].
pub const OUTER_WORDS: usize = 10;

/// Where the source addresses of outer headers come from: a network of each family, whose rest differs with the flow, so that the receiver's queues share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// An IPv4 network, and the bits that are not its.
    pub v4: [u32; 2],
    /// An IPv6 network, and the bits that are not its.
    pub v6: [Address; 2],
}

impl Outer {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(self) -> [u32; OUTER_WORDS] {
        let [network, rest] = self.v4;
        let [[a, b, c, d], [e, f, g, h]] = self.v6;
        [network, rest, a, b, c, d, e, f, g, h]
    }
}

/// What became of a packet: an index into the balancer's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Outcome {
    /// Passed: it is for no VIP.
    Other,
    /// Passed: a fragment, which has no ports or not all of a packet.
    Fragment,
    /// Passed: with IPv4's options, which are not read.
    Options,
    /// Passed: a header is cut off, or has a length that cannot be.
    Truncated,
    /// Went to an endpoint.
    Forwarded,
    /// An ICMP error that went to the endpoint whose packet it tells of.
    Error,
    /// Dropped: nobody serves its VIP.
    NoEndpoint,
    /// Dropped: the kernel does not know the link-layer address yet. The engine has it asked for.
    NoNeighbour,
    /// Dropped: the kernel has no way to the endpoint.
    NoRoute,
    /// Dropped: the interface that it came in on does not forward (`net.ipv4.conf.*.forwarding`).
    ForwardingOff,
    /// Dropped: `dsr`, and the endpoint is not on the link.
    NotOnLink,
    /// Dropped: with its outer header it is longer than the way's MTU.
    TooBig,
    /// Dropped: its hop limit has run out.
    HopLimit,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Self; 13] = [
        Self::Other,
        Self::Fragment,
        Self::Options,
        Self::Truncated,
        Self::Forwarded,
        Self::Error,
        Self::NoEndpoint,
        Self::NoNeighbour,
        Self::NoRoute,
        Self::ForwardingOff,
        Self::NotOnLink,
        Self::TooBig,
        Self::HopLimit,
    ];

    /// Whether a packet of it is dropped; it may be sent or passed otherwise.
    #[inline(always)]
    #[must_use]
    pub const fn drops(self) -> bool {
        self as u32 >= Self::NoEndpoint as u32
    }

    /// What is done with its packets.
    #[must_use]
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Forwarded | Self::Error => "forward",
            _ if self.drops() => "drop",
            _ => "pass",
        }
    }

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Fragment => "fragment",
            Self::Options => "options",
            Self::Truncated => "truncated",
            Self::Forwarded => "forwarded",
            Self::Error => "icmp_error",
            Self::NoEndpoint => "no_endpoint",
            Self::NoNeighbour => "no_neighbour",
            Self::NoRoute => "no_route",
            Self::ForwardingOff => "forwarding_off",
            Self::NotOnLink => "not_on_link",
            Self::TooBig => "too_big",
            Self::HopLimit => "hop_limit",
        }
    }
}

/// What the decapsulator made of a packet: an index into its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Decap {
    /// Passed as it came: nothing is wrapped in it, or what is, is for none of the addresses.
    Other,
    /// Passed without its outer header.
    Stripped,
    /// Dropped: it is for one of the addresses, and its outer header comes from a network that nobody wraps from.
    Stranger,
}

impl Decap {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Other, Self::Stripped, Self::Stranger];

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Stripped => "stripped",
            Self::Stranger => "stranger",
        }
    }

    /// What is done with its packets.
    #[must_use]
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Other => "pass",
            Self::Stripped => "strip",
            Self::Stranger => "drop",
        }
    }
}

/// What is counted of a VIP: packets, octets, flows that began, flows that left an endpoint which has gone.
pub const VIP_COUNTS: usize = 4;
