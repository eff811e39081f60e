//! Whose a packet is, by where it goes to.

use core::ptr;

use abi::balance::{BUCKET_WORDS, DOOR_WORDS, Vip, bucket_of, protocol_port};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

use crate::Settings;
use crate::packet::Packet;

/// Buckets of two doors. Written before the program is attached, and never again.
#[map]
static DOORS: Array<[u32; BUCKET_WORDS]> = Array::with_max_entries(1, 0);

/// Where a packet goes to.
pub(crate) struct Door {
    pub(crate) vip: Vip,
    /// Its place among all doors: of no use but for `nat`.
    #[cfg_attr(not(feature = "nat"), expect(dead_code))]
    pub(crate) number: u32,
}

/// The VIP that a packet is for.
#[inline(always)]
pub(crate) fn vip_of(settings: &Settings, packet: &Packet) -> Option<Vip> {
    door_of(settings, packet, packet.ports as u16).map(|door| door.vip)
}

/// The door of a packet's destination and a port.
#[inline(always)]
pub(crate) fn door_of(settings: &Settings, packet: &Packet, port: u16) -> Option<Door> {
    let protocol_port = protocol_port(packet.protocol, port);
    let (shift, _) = settings.shifts();
    let bucket = bucket_of(packet.destination, protocol_port, settings.door_multiplier(), shift);
    let words = DOORS.get_ptr(bucket)?.cast::<u32>();
    let [a, b, c, d] = packet.destination;
    for at in [0, DOOR_WORDS] {
        // SAFETY: within the map's value.
        let word = |word: usize| unsafe { ptr::read_volatile(words.add(at + word)) };
        if word(4) == protocol_port && (word(3) ^ d) | (word(2) ^ c) | (word(1) ^ b) | (word(0) ^ a) == 0 {
            return Some(Door { vip: Vip::of(word(5), word(6)), number: word(7) });
        }
    }
    None
}
