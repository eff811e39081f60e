//! What the XDP shield and the engine share in maps.
//!
//! What holds: a packet is counted once, under the one reason that decided over it ([`Reason`]); what is remarkable about it beside that is
//! counted apart ([`Note`]). A bucket is one word ([`Bucket`]), so that it needs no lock.

/// Prefix bits of an IPv6 address that are one source: what one subscriber has (RFC 6177).
pub const SOURCE_BITS_V6: u32 = 64;

/// The key of an IPv4 source, whose octets are read as one big-endian number. It stands in `::/16`, where no IPv6 source is (RFC 4291 §2.4).
#[inline(always)]
#[must_use]
pub const fn source_v4(address: u32) -> u64 {
    0xffff_u64 << 32 | address as u64
}

/// The key of an IPv6 source: its first 64 bits as one big-endian number.
#[inline(always)]
#[must_use]
pub const fn source_v6(address: u128) -> u64 {
    (address >> SOURCE_BITS_V6) as u64
}

/// A rate, and how much may come at once, as the generic cell rate algorithm has them (ITU-T I.371): a source's state is the time at which
/// its bucket will be full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Bucket {
    /// Nanoseconds that each takes; 0 for no limit.
    pub interval_ns: u64,
    /// How far ahead of the present the time may be at which it is full again.
    pub depth_ns: u64,
}

/// What becomes of a bucket's time when one more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It was full: its time is this from now on.
    Begins(u64),
    /// Its time moves on by this. An addition, so that CPUs which do it at once lose nothing.
    Moves(u64),
    /// It is empty.
    Refused,
}

impl Bucket {
    /// `quota` in `period_ns`, and `burst` at once.
    #[must_use]
    pub const fn new(quota: u32, period_ns: u64, burst: u32) -> Self {
        let quota = if quota == 0 { 1 } else { quota as u64 };
        // Rounded up: never more than the rate. At least 1, which is no limit that anybody meets.
        let interval_ns = period_ns.div_ceil(quota);
        let interval_ns = if interval_ns == 0 { 1 } else { interval_ns };
        Self { interval_ns, depth_ns: interval_ns.saturating_mul(burst.saturating_sub(1) as u64) }
    }

    /// One more at `now`, of a bucket that is full again at `full`.
    #[inline(always)]
    #[must_use]
    pub const fn step(self, full: u64, now: u64) -> Step {
        if full <= now {
            Step::Begins(now.wrapping_add(self.interval_ns))
        } else if full - now > self.depth_ns {
            Step::Refused
        } else {
            Step::Moves(self.interval_ns)
        }
    }
}

/// The kinds of bucket that a source has, as places in its state.
pub const BUCKETS: usize = 3;
/// Every packet to a protected port.
pub const BUCKET_PACKETS: usize = 0;
/// SYNs.
pub const BUCKET_SYNS: usize = 1;
/// Initials of QUIC.
pub const BUCKET_INITIALS: usize = 2;

/// Nothing is dropped, and what would be is counted.
pub const DRY_RUN: u64 = 1 << 0;
/// There are IPv4 networks in the lists.
pub const LISTS_V4: u64 = 1 << 1;
/// There are IPv6 networks in the lists.
pub const LISTS_V6: u64 = 1 << 2;
/// The engine has denied sources for a while.
pub const VERDICTS: u64 = 1 << 3;
/// There is a rate.
pub const RATES: u64 = 1 << 4;
/// Packets that cannot be meant are dropped.
pub const SANE: u64 = 1 << 5;
/// SYNs are answered with a cookie where a listener's queue is full.
pub const COOKIES: u64 = 1 << 6;

/// What the program must know. All words have 64 bits, so that there is no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    /// [`DRY_RUN`] and its neighbours.
    pub flags: u64,
    /// By kind.
    pub buckets: [Bucket; BUCKETS],
    /// A bit for each reason to drop a packet of which samples are taken.
    pub tapped: u64,
    /// One packet in so many is, of each reason and CPU.
    pub one_in: u64,
}

/// Words of [`Settings`].
pub const SETTINGS_WORDS: usize = 3 + 2 * BUCKETS;

impl Settings {
    /// Itself as the words that a map holds.
    #[must_use]
    pub const fn words(&self) -> [u64; SETTINGS_WORDS] {
        let [packets, syns, initials] = self.buckets;
        [
            self.flags,
            packets.interval_ns,
            packets.depth_ns,
            syns.interval_ns,
            syns.depth_ns,
            initials.interval_ns,
            initials.depth_ns,
            self.tapped,
            self.one_in,
        ]
    }
}

/// A network of the allow list. Zero in a table of lists means that there is none.
pub const LISTED_ALLOW: u32 = 1;
/// A network of the deny list.
pub const LISTED_DENY: u32 = 2;

/// Leading bits of an IPv4 address that tell whether it may be on a list: one of 4,096 neighbours is, or none of them. An IPv6 address has as many
/// bits of a hash of its first 32, which is what a provider has. 128 KiB for each family.
pub const HINT_BITS: u32 = 20;

/// 64 hints a word; IPv4's first.
pub const HINT_WORDS: u32 = 2 << (HINT_BITS - 6);

/// Where an IPv4 address's hint stands: the word, and the bit's number in it.
#[inline(always)]
#[must_use]
pub const fn hint_v4(address: u32) -> (u32, u32) {
    let hint = address >> (32 - HINT_BITS);
    (hint >> 6, hint & 63)
}

/// As [`hint_v4`], of an IPv6 address by its first 32 bits.
#[inline(always)]
#[must_use]
pub const fn hint_v6(first: u32) -> (u32, u32) {
    // Knuth's multiplicative hash.
    let hint = first.wrapping_mul(0x9E37_79B1) >> (32 - HINT_BITS);
    (HINT_WORDS / 2 + (hint >> 6), hint & 63)
}

/// What a port is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Ports {
    /// A listener's.
    Tcp,
    /// A listener's.
    Udp,
    /// A listener's of UDP at which QUIC is spoken. What looks like an Initial at another one may be anything.
    Quic,
}

/// 64 ports a word; TCP's 65,536 first, then UDP's, then QUIC's.
pub const PORT_WORDS: u32 = 3 << 10;

/// Where a port's bit stands: the word, and its number in it.
#[inline(always)]
#[must_use]
pub const fn port_bit(of: Ports, port: u16) -> (u32, u32) {
    ((of as u32) << 10 | port as u32 >> 6, port as u32 & 63)
}

/// What decided over a packet: an index into the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Reason {
    /// Passed unjudged: no IP, or to a port that is not a listener's.
    Other,
    /// Passed: to a listener's port, and nothing is wrong with it.
    Passed,
    /// Passed: its source is on the allow list.
    Allowed,
    /// Passed: a fragment, which has no ports or not all of a packet.
    Fragment,
    /// Passed: its ports stand behind more extension headers than are read, or its protocol is neither TCP nor UDP.
    Unread,
    /// Answered: a SYN to a listener whose queue is full, with a cookie.
    Cookie,
    /// Its source is on the deny list.
    Denied,
    /// The engine has denied its source for a while.
    OverLimit,
    /// Its source sends too many packets.
    PacketRate,
    /// Its source opens too many TCP connections.
    SynRate,
    /// Its source opens too many QUIC connections.
    InitialRate,
    /// A header is cut off, or has a length that cannot be.
    Truncated,
    /// TCP flags that no stack sends: none, SYN with FIN or RST, FIN without ACK.
    BadFlags,
    /// Port 0.
    BadPort,
    /// From a multicast, broadcast or reserved address.
    BadSource,
    /// From the address and port that it goes to.
    Land,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 16] = [
        Self::Other,
        Self::Passed,
        Self::Allowed,
        Self::Fragment,
        Self::Unread,
        Self::Cookie,
        Self::Denied,
        Self::OverLimit,
        Self::PacketRate,
        Self::SynRate,
        Self::InitialRate,
        Self::Truncated,
        Self::BadFlags,
        Self::BadPort,
        Self::BadSource,
        Self::Land,
    ];

    /// Whether it is a reason to drop a packet.
    #[inline(always)]
    #[must_use]
    pub const fn drops(self) -> bool {
        self as u32 >= Self::Denied as u32
    }

    /// What becomes of a packet outside of a dry run.
    #[must_use]
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Cookie => "answer",
            _ if self.drops() => "drop",
            _ => "pass",
        }
    }

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Passed => "passed",
            Self::Allowed => "allowed",
            Self::Fragment => "fragment",
            Self::Unread => "unread",
            Self::Cookie => "cookie",
            Self::Denied => "denied",
            Self::OverLimit => "over_limit",
            Self::PacketRate => "packet_rate",
            Self::SynRate => "syn_rate",
            Self::InitialRate => "initial_rate",
            Self::Truncated => "truncated",
            Self::BadFlags => "bad_flags",
            Self::BadPort => "bad_port",
            Self::BadSource => "bad_source",
            Self::Land => "land",
        }
    }
}

/// What is remarkable about a packet, whatever becomes of it: counted behind the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Note {
    /// IPv4 with options.
    Options,
    /// IPv6 with extension headers.
    Extensions,
    /// In a VLAN, and its tag is still in the packet.
    Vlan,
}

impl Note {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Options, Self::Extensions, Self::Vlan];

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Options => "options",
            Self::Extensions => "extensions",
            Self::Vlan => "vlan",
        }
    }
}

/// Counters for each CPU: reasons, the same again for what a dry run let pass, notes, and [`SAMPLES_LOST`].
pub const COUNTERS: u32 = SAMPLES_LOST + 1;

/// Where samples are counted that found no room in the ring.
pub const SAMPLES_LOST: u32 = (2 * Reason::ALL.len() + Note::ALL.len()) as u32;

/// Where a reason is counted.
#[inline(always)]
#[must_use]
pub const fn counter_of(reason: Reason, dry_run: bool) -> u32 {
    let base = if dry_run && reason.drops() { Reason::ALL.len() as u32 } else { 0 };
    base + reason as u32
}

/// Where a note is counted.
#[inline(always)]
#[must_use]
pub const fn counter_of_note(note: Note) -> u32 {
    2 * Reason::ALL.len() as u32 + note as u32
}

/// Octets of a packet that are in a sample of it, a power of two: two tags, IPv6, and extension headers of 64 octets before a TCP header without options.
pub const SAMPLE_OCTETS: usize = 128;

/// A packet that was dropped, or would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// Of the monotonic clock, in nanoseconds.
    pub at_ns: u64,
    /// A [`Reason`].
    pub reason: u32,
    /// 1 where a dry run let it pass.
    pub is_dry: u32,
    /// The index of the interface that it came in by.
    pub interface: u32,
    /// Of the packet, with its Ethernet header.
    pub octets: u32,
    /// Octets of it that are here.
    pub held: u32,
    /// So that nothing is left between fields.
    pub rest: u32,
    /// Its first octets, and whatever has been there.
    pub packet: [u8; SAMPLE_OCTETS],
}

/// Octets of a [`Sample`].
pub const SAMPLE_SIZE: usize = 32 + SAMPLE_OCTETS;

/// Samples a second, and at once, over all reasons and CPUs.
pub const SAMPLE_RATE: Bucket = Bucket::new(SAMPLES_PER_SECOND, 1_000_000_000, SAMPLES_PER_SECOND);
/// As [`SAMPLE_RATE`] has them.
pub const SAMPLES_PER_SECOND: u32 = 1_000;

/// Octets of the ring of samples, with 8 before each: those of a second and a half.
pub const SAMPLE_RING: u32 = 1 << 18;
