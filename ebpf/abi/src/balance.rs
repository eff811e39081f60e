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

/// Words of an entry of the table of doors: address, protocol and port, VIP's number, way, its own number.
pub const DOOR_WORDS: usize = 8;

/// Words of what clients know of a door.
pub const FRONT_WORDS: usize = 5;

/// Words of a bucket of two doors: one line of a cache.
pub const BUCKET_WORDS: usize = 2 * DOOR_WORDS;

/// What a door is found by beside its address; never 0. `protocol` is IP's number of it.
#[inline(always)]
#[must_use]
pub const fn protocol_port(protocol: u32, port: u16) -> u32 {
    protocol << 16 | port as u32
}

/// The bucket that a door is in, of a table of 2^(64 - `shift`) buckets. The engine looks for a multiplier by which none has more than two doors,
/// so that a program reads one line and follows no chain.
#[inline(always)]
#[must_use]
pub const fn bucket_of([a, b, c, d]: Address, protocol_port: u32, multiplier: u64, shift: u32) -> u32 {
    // Each part by a multiplier of its own: a port and an address that differ in the same bits must not make up for each other.
    let high = ((a as u64) << 32 | b as u64).wrapping_mul(0x9e37_79b1_85eb_ca87);
    let low = (c as u64) << 32 | d as u64;
    let port = (protocol_port as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    ((high ^ low ^ port).wrapping_mul(multiplier) >> (shift & 63)) as u32
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
    /// From an address and port of ours, to the endpoint's; answers come back this way.
    Nat,
    /// No VIP's: what comes back to an address of ours.
    Back,
}

impl Forward {
    /// The way of a number; what is none is [`IpIp`](Self::IpIp).
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Gue,
            2 => Self::Dsr,
            3 => Self::Nat,
            4 => Self::Back,
            _ => Self::IpIp,
        }
    }
}

/// GUE's port (IANA).
pub const GUE_PORT: u16 = 6080;

/// A VIP as programs know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vip {
    /// Its place in all that is kept by VIP.
    pub number: u32,
    /// How its packets reach their endpoint.
    pub forward: Forward,
    /// What clients speak is QUIC, and ids of its connections are read.
    pub quic: bool,
}

impl Vip {
    /// What a door says of it beside its number.
    const fn way(self) -> u32 {
        self.forward as u32 | (self.quic as u32) << 8
    }

    /// The VIP of these words of a door.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u32, way: u32) -> Self {
        Self { number, forward: Forward::of(way & 0xff), quic: way & 0x100 != 0 }
    }
}

/// What an endpoint of a VIP is found by, whose connections have its server's number in their ids.
#[inline(always)]
#[must_use]
pub const fn server_of(vip: u32, server: u16) -> u32 {
    vip << 16 | server as u32
}

/// Where one of a VIP's tables begins in the map of all blocks.
#[inline(always)]
#[must_use]
pub const fn first_block(vip: u32, half: u32) -> u32 {
    (vip * 2 + (half & 1)) * BLOCKS
}

/// A door: an address, protocol and port that packets of a VIP come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// Where packets go to.
    pub address: Address,
    /// As [`protocol_port`] makes it.
    pub protocol_port: u32,
    /// Whose they are.
    pub vip: Vip,
}

impl Door {
    /// Itself as the words that a bucket holds. `number` is its place among all doors.
    #[must_use]
    pub const fn words(self, number: u32) -> [u32; DOOR_WORDS] {
        let [a, b, c, d] = self.address;
        [a, b, c, d, self.protocol_port, self.vip.number, self.vip.way(), number]
    }

    /// What clients know of it, as the words that a map holds: address and port.
    #[must_use]
    pub const fn front(self) -> [u32; FRONT_WORDS] {
        let [a, b, c, d] = self.address;
        [a, b, c, d, self.protocol_port & 0xffff]
    }
}

/// Words of an [`Endpoint`].
pub const ENDPOINT_WORDS: usize = 6;

/// An endpoint of a VIP as programs know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Where packets go that are for it.
    pub address: Address,
    /// The port that it serves. Only with [`Forward::Nat`] it need not be the VIP's.
    pub port: u16,
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
        [a, b, c, d, self.generation as u32, self.keeps as u32 | (self.port as u32) << 16]
    }
}

/// Errors about packets that are too big which a CPU makes in a tick. A sender needs one, and sends no faster than that until it has heard; who sends more than that at a balancer
/// has his packets dropped unheard, as all had before.
pub const TOLD_A_TICK_MAX: u32 = 250;

/// Words of a [`Line`].
pub const LINE_WORDS: usize = 6;

/// What one CPU keeps of an endpoint: how much it has sent there, and the way, as it has asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Line {
    /// Sent by this CPU.
    pub packets: u64,
    /// The same in octets of IP.
    pub octets: u64,
    /// The way there.
    pub hop: Hop,
}

/// The way to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hop {
    /// The frame's destination and source, as they lie in it.
    pub addresses: [u32; 3],
    /// Where it leaves.
    pub interface: u32,
    /// The tick in which this was asked for, and counts; 0: not known.
    pub tick: u32,
    /// 0: not known.
    pub mtu: u32,
    /// Of the endpoint.
    pub generation: u16,
}

impl Hop {
    /// Itself as the words that a line holds behind its counts.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; LINE_WORDS - 2] {
        let [a, b, c] = self.addresses;
        [joined(a, b), joined(c, self.interface), joined(self.tick, self.mtu), self.generation as u64]
    }

    /// The hop of these words.
    #[inline(always)]
    #[must_use]
    pub const fn of([first, second, third, fourth]: [u64; LINE_WORDS - 2]) -> Self {
        Self {
            addresses: [first as u32, (first >> 32) as u32, second as u32],
            interface: (second >> 32) as u32,
            tick: third as u32,
            mtu: (third >> 32) as u32,
            generation: fourth as u16,
        }
    }
}

impl Line {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(self) -> [u64; LINE_WORDS] {
        let [a, b, c, d] = self.hop.words();
        [self.packets, self.octets, a, b, c, d]
    }
}

/// Two words as one.
#[inline(always)]
const fn joined(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Flows that lie in one value of a map: those whose hash is the same in its upper bits. The newest pushes the oldest of them out.
pub const WAYS: usize = 4;

/// Words of a flow of IPv4: what it is found by, and what is known of it.
pub const FLOW_V4_WORDS: usize = 2;

/// Words of a flow of IPv6: the client's address before that.
pub const FLOW_V6_WORDS: usize = 4;

/// What a flow of IPv4 is found by; never 0 but for what cannot be.
#[inline(always)]
#[must_use]
pub const fn flow_v4([_, _, _, d]: Address, port: u16, vip: u32) -> u64 {
    (d as u64) << 32 | (port as u64) << 16 | (vip & 0xffff) as u64
}

/// What a flow of IPv6 is found by beside its address; never 0.
#[inline(always)]
#[must_use]
pub const fn flow_v6(port: u16, vip: u32) -> u64 {
    1 << 32 | (port as u64) << 16 | (vip & 0xffff) as u64
}

/// Ports of one of our addresses that flows are given, for each protocol. The first is the number of them, so that a port and a place differ by one bit.
pub const NAT_PORTS: u32 = 1 << 15;

/// The first of them.
pub const NAT_PORT_FIRST: u32 = 1 << 15;

/// Sets of flows that these are.
pub const NAT_SETS: u32 = NAT_PORTS / WAYS as u32;

/// Words of a flow whose addresses are rewritten: the client's address, what it is found by, whose it is.
pub const NAT_WORDS: usize = 4;

/// What such a flow is found by beside the client's address; never 0.
#[inline(always)]
#[must_use]
pub const fn nat_tag(port: u16, door: u32) -> u64 {
    1 << 32 | (port as u64) << 16 | (door & 0xffff) as u64
}

/// The two sets that such a flow may be in, of those of `regions` addresses.
#[inline(always)]
#[must_use]
pub const fn nat_sets([high, low]: [u64; 2], tag: u64, multiplier: u64, regions: u32) -> [u32; 2] {
    let mixed = (high ^ tag).wrapping_mul(multiplier) ^ low;
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(multiplier);
    let other = (mixed ^ mixed >> 29).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let sets = (regions * NAT_SETS) as u64;
    [(((mixed >> 32) * sets) >> 32) as u32, (((other >> 32) * sets) >> 32) as u32]
}

/// The set that a flow is in, of 2^(64 - `shift`). The multiplier is the process's own secret, so that nobody knows whom he pushes out.
#[inline(always)]
#[must_use]
pub const fn set_of([high, low]: [u64; 2], tag: u64, multiplier: u64, shift: u32) -> u32 {
    let mixed = (high ^ tag).wrapping_mul(multiplier) ^ low;
    ((mixed ^ mixed >> 32).wrapping_mul(multiplier) >> (shift & 63)) as u32
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

/// Words of [`Settings`].
pub const SETTINGS_WORDS: usize = 9;

/// What all packets need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Where outer headers come from.
    pub source: Outer,
    /// Counted up by the engine each second, from 1 on: a way counts for the tick in which it was asked for, and flows are as old as their last one.
    pub tick: u32,
    /// Of the table of doors: see [`bucket_of`].
    pub door_shift: u32,
    /// As above.
    pub door_multiplier: u64,
    /// Of the tables of flows: see [`set_of`].
    pub flow_shift: u32,
    /// As above.
    pub flow_multiplier: u64,
    /// Our addresses of IPv4 and of IPv6, which flows come from whose addresses are rewritten.
    pub ours: [u8; 2],
}

/// The first region of a family and protocol, and how many there are: those of IPv4 before those of IPv6, of each TCP's before UDP's.
#[inline(always)]
#[must_use]
pub const fn regions([v4, v6]: [u32; 2], is_v4: bool, is_udp: bool) -> (u32, u32) {
    match (is_v4, is_udp) {
        (true, false) => (0, v4),
        (true, true) => (v4, v4),
        (false, false) => (2 * v4, v6),
        (false, true) => (2 * v4 + v6, v6),
    }
}

/// Where the source addresses of outer headers come from: a network of each family, whose rest differs with the flow, so that the receiver's queues share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outer {
    /// An IPv4 network, and the bits that are not its.
    pub v4: [u32; 2],
    /// An IPv6 network, and the bits that are not its.
    pub v6: [Address; 2],
}

impl Settings {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(self) -> [u64; SETTINGS_WORDS] {
        let [network, rest] = self.source.v4;
        let [[a, b, c, d], [e, f, g, h]] = self.source.v6;
        [
            joined(network, rest),
            joined(a, b),
            joined(c, d),
            joined(e, f),
            joined(g, h),
            joined(self.tick, self.door_shift | self.flow_shift << 8),
            self.door_multiplier,
            self.flow_multiplier,
            self.ours[0] as u64 | (self.ours[1] as u64) << 8,
        ]
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
    /// Went back to a client, from the VIP's address again.
    Returned,
    /// Too big for the way to its endpoint, of which its sender was told: the front of it went back in an ICMP error.
    Told,
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
    /// Dropped: with its outer header it is longer than the way's MTU, and nobody was told: it may be divided, or tells of an error itself, or there were too many.
    TooBig,
    /// Dropped: its hop limit has run out.
    HopLimit,
    /// Dropped: there is no address and port of ours that it could come from, or the endpoint is of another family.
    NoPort,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Self; 16] = [
        Self::Other,
        Self::Fragment,
        Self::Options,
        Self::Truncated,
        Self::Forwarded,
        Self::Error,
        Self::Returned,
        Self::Told,
        Self::NoEndpoint,
        Self::NoNeighbour,
        Self::NoRoute,
        Self::ForwardingOff,
        Self::NotOnLink,
        Self::TooBig,
        Self::HopLimit,
        Self::NoPort,
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
            Self::Forwarded | Self::Error | Self::Returned => "forward",
            Self::Told => "answer",
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
            Self::Returned => "returned",
            Self::Told => "told_too_big",
            Self::NoEndpoint => "no_endpoint",
            Self::NoNeighbour => "no_neighbour",
            Self::NoRoute => "no_route",
            Self::ForwardingOff => "forwarding_off",
            Self::NotOnLink => "not_on_link",
            Self::TooBig => "too_big",
            Self::HopLimit => "hop_limit",
            Self::NoPort => "no_port",
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

/// What is counted of a VIP: packets, octets, flows that began, flows that left an endpoint which has gone; packets that went where their id says, and
/// those whose id is of a server that is no endpoint, or none that serves.
pub const VIP_COUNTS: usize = 6;
