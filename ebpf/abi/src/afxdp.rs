//! What the program that takes datagrams past the kernel (AF_XDP) and the engine share in maps.
//!
//! What holds: each packet is counted under the one [`Outcome`] that it had, and only those that a door is for are taken; all others are the kernel's.
//! Values of maps are arrays of words, so that there is no padding.

use crate::balance::Address;

/// What doors are looked up by: the address that a datagram goes to, and its port.
pub type DoorKey = [u32; 5];

/// The key of a door.
#[inline(always)]
#[must_use]
pub const fn door_key([a, b, c, d]: Address, port: u16) -> DoorKey {
    [a, b, c, d, port as u32]
}

/// Words of [`Settings`].
pub const SETTINGS_WORDS: usize = 3;

/// What the program must know of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// The interface's link-layer address: what goes to another one (an interface that listens to everything sees such) is not for us.
    pub address: [u8; 6],
    /// Octets of the longest frame that a socket has room for.
    pub frame_max: u32,
}

impl Settings {
    /// Itself as the words that a map holds; the address as it lies in a frame.
    #[must_use]
    pub const fn words(self) -> [u32; SETTINGS_WORDS] {
        let [a, b, c, d, e, f] = self.address;
        [u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]) as u32, self.frame_max]
    }
}

/// What became of a packet: an index into the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Given to the socket of its queue.
    Taken,
    /// No datagram, or for no door of ours.
    Other,
    /// A fragment: the kernel puts them together.
    Fragment,
    /// With options of IPv4, or with extension headers where a door's datagrams have none.
    Options,
    /// Longer than a socket has room for: several that were joined, or an interface with a large MTU.
    TooLong,
    /// Cut off, or lengths that contradict each other.
    Malformed,
    /// The queue has no socket.
    NoSocket,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::Taken, Self::Other, Self::Fragment, Self::Options, Self::TooLong, Self::Malformed, Self::NoSocket];

    /// The word for it in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Other => "other",
            Self::Fragment => "fragment",
            Self::Options => "options",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::NoSocket => "no_socket",
        }
    }
}
