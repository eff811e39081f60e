//! There under other addresses, and back.
//!
//! ```text
//! client:port ─► VIP:port                 becomes   ours:port ─► endpoint:port        (outward)
//! endpoint:port ─► ours:port              becomes   VIP:port ─► client:port           (homeward)
//! ```
//!
//! A flow's port is its place in the table: sets of four, of which a flow's hash names two. So what comes back names its flow itself, there is no second table that could know something else, and no
//! port is looked for. The oldest goes when both sets are full; those that have ended, or that nobody has answered, go before.
//!
//! What holds: each of our addresses has 32,768 ports a protocol, and no more flows than that. What comes back is of the endpoint that it was sent to, and from the port that it was sent to, or it is not touched.
//! Sums are corrected by what has changed (RFC 1624), so that a packet that came in broken leaves as broken.

use core::ptr;

use abi::balance::{
    Address, FRONT_WORDS, Forward, NAT_PORT_FIRST, NAT_PORTS, NAT_SETS, NAT_WORDS, Outcome, WAYS, nat_sets, nat_tag,
    regions,
};
use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, TCP, UDP, load, store};

use crate::door::door_of;
use crate::flows::{TAKEN, UDP_FLOW_LASTS, either, exchange, is_less, is_none, way_of};
use crate::hop::{Line, ask, is_v4};
use crate::packet::{CLOSES, ERROR, IS_ERROR, IS_V4, OPENS, Packet};
use crate::sum::{corrected, difference};
use crate::way::out;
use crate::{
    Endpoint, Settings, UNDECIDED, V4, V6, by_slot, count, count_of_flow, count_of_vip, ended, owned_by, quic,
};

/// Sets of flows: the client's address, the tag, and whose it is. Their number is the engine's to say, as that of the next ones.
#[map]
static NATS: Array<[u64; NAT_WORDS * WAYS]> = Array::with_max_entries(1, 0);

/// Our addresses, by region: those of one family and protocol lie together.
#[map]
static OURS: Array<Address> = Array::with_max_entries(1, 0);

/// What clients know of a VIP, by door: address and port.
#[map]
static FRONTS: Array<[u32; FRONT_WORDS]> = Array::with_max_entries(1, 0);

/// What is known of a flow, in the lowest bits of its value's upper half; above them stands the tick until which its port is its own.
const ANSWERED: u32 = 1 << 0;
const CLOSED: u32 = 1 << 1;

/// Ticks that a flow of TCP lasts in silence: a day. Two sets of four must be full of those that are younger before it goes.
const TCP_FLOW_LASTS: u32 = 86_400;

/// What was closed: as long as an endpoint keeps TIME-WAIT.
const CLOSED_LASTS: u32 = 60;

/// Who has opened a flow waits for its answer.
const UNANSWERED_LASTS: u32 = 5;

/// It has a hop less from here on.
const AGES: u32 = 1 << 0;
/// Of an error: the outer source is another one, too.
const HIDES: u32 = 1 << 1;

/// What becomes of a packet to a VIP whose addresses are rewritten, or back from its endpoint; `None`: it is neither.
#[inline(always)]
pub(crate) fn translated(ctx: &XdpContext, packet: &Packet) -> Option<u32> {
    // What functions return is something that the verifier does not know: else it would follow each value that they may return through all that comes after it.
    let zero = Settings::get()?.zero();
    let found = found(ctx, packet) ^ zero;
    let (vip, door) = ((found >> 16) as u32 & 0xffff, found as u32 & 0xffff);
    let (outcome, returned) = match found >> 32 & 0xff {
        TO_VIP => {
            count_of_vip(vip, packet.octets);
            let outcome = if packet.is(IS_ERROR) { Outcome::Error } else { Outcome::Forwarded };
            let named = if found & QUIC != 0 && !packet.is(IS_ERROR) { quic::whose(ctx, packet, vip) } else { 0 };
            let named = named ^ zero;
            (outcome as u32, outward(ctx, packet, vip, door, named))
        }
        TO_US => (Outcome::Returned as u32, homeward(ctx, packet, vip)),
        _ => return None,
    };
    let returned = returned ^ zero;
    match (returned >> 32) as u32 {
        0 => {
            count(outcome, u64::from(packet.octets + ETHERNET));
            Some(returned as u32)
        }
        TOO_BIG => Some(UNDECIDED),
        instead => Some(ended(ctx, instead - 1)),
    }
}

/// An outcome as functions here return it, above an action.
const TOO_BIG: u32 = Outcome::TooBig as u32 + 1;

const TO_VIP: u64 = 1;
const TO_US: u64 = 2;
/// Beside those: ids of connections are read.
const QUIC: u64 = 1 << 40;

/// Whether it is one of those, and the VIP or our region, and the door. Like the next ones a function of its own, with its own stack, for the reason that `send` is one.
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn found(_: &XdpContext, packet: &Packet) -> u64 {
    let Some(settings) = Settings::get() else { return 0 };
    let door = match door_of(&settings, packet, packet.ports as u16) {
        Some(door) => Some(door),
        None => door_of(&settings, packet, 0),
    };
    let Some(door) = door else { return 0 };
    let what = match door.vip.forward {
        Forward::Nat => TO_VIP,
        Forward::Back => TO_US,
        _ => return 0,
    };
    let quic = if door.vip.quic { QUIC } else { 0 };
    quic | what << 32 | u64::from(door.vip.number & 0xffff) << 16 | u64::from(door.number & 0xffff)
}

/// To an endpoint: of a flow that is new, the one that `named` says ([`quic::whose`]).
// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
fn outward(ctx: &XdpContext, packet: &Packet, vip: u32, door: u32, named: u64) -> u64 {
    encoded(try_outward(ctx, packet, vip, door, named))
}

/// What comes back from an endpoint to one of our addresses, of a region.
// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
fn homeward(ctx: &XdpContext, packet: &Packet, region: u32) -> u64 {
    encoded(try_homeward(ctx, packet, region))
}

/// An action, or an outcome above it: what such a function can return.
#[inline(always)]
fn encoded(result: Result<u32, Outcome>) -> u64 {
    match result {
        Ok(refused) if refused & REFUSED != 0 => u64::from(refused & !REFUSED) << 32,
        Ok(action) => u64::from(action),
        Err(outcome) => (outcome as u64 + 1) << 32,
    }
}

#[inline(always)]
fn try_outward(ctx: &XdpContext, packet: &Packet, vip: u32, door: u32, named: u64) -> Result<u32, Outcome> {
    let settings = Settings::get().ok_or(Outcome::NoPort)?;
    let entered = entered(ctx, packet, vip, door, named) ^ settings.zero();
    if entered >> FAILED != 0 {
        return Ok(REFUSED | (entered >> FAILED) as u32);
    }
    let (index, number) = (entered as u32, (entered >> 32) as u32 & 0xffff);
    let tick = settings.tick();
    let endpoint = Endpoint::of(number).ok_or(Outcome::NoEndpoint)?;
    let line = Line::of(number).ok_or(Outcome::NoEndpoint)?;
    line.count(packet.octets);
    let hop = line.hop(ctx, &endpoint, Forward::Nat, tick)?;
    if hop.mtu != 0 && packet.octets > hop.mtu {
        return Err(packet.too_big(hop.mtu));
    }
    let from = ours(index / NAT_PORTS).ok_or(Outcome::NoPort)?;
    let ports = (NAT_PORT_FIRST | index % NAT_PORTS) << 16 | endpoint.port;
    // A router that tells of an error stays who it is.
    changed(ctx, packet, from, endpoint.address, ports, AGES)?;
    if store(ctx, 0, hop.addresses) { Ok(out(ctx, &hop)) } else { Err(Outcome::Truncated) }
}

#[inline(always)]
fn try_homeward(ctx: &XdpContext, packet: &Packet, region: u32) -> Result<u32, Outcome> {
    let (tick, zero) = Settings::get().map(|settings| (settings.tick(), settings.zero())).ok_or(Outcome::Other)?;
    let port = packet.ports & 0xffff;
    if port < NAT_PORT_FIRST {
        return Err(Outcome::Other);
    }
    let index = region * NAT_PORTS + port % NAT_PORTS;
    let flow = Flow::at(index, zero).ok_or(Outcome::Other)?;
    if flow.tag == 0 || flow.tag == TAKEN {
        return Err(Outcome::Other);
    }
    let endpoint = Endpoint::of(flow.value as u32 & 0xffff).ok_or(Outcome::Other)?;
    let is_from = |[a, b, c, d]: Address, [e, f, g, h]: Address| (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0;
    if endpoint.generation != flow.value as u32 >> 16
        || endpoint.port != packet.ports >> 16
        || !is_from(endpoint.address, packet.source)
    {
        return Err(Outcome::Other);
    }
    if !packet.is(IS_ERROR) {
        let state = (flow.value >> 32) as u32 & CLOSED | ANSWERED | if packet.is(CLOSES) { CLOSED } else { 0 };
        note(index, flow.value, value_of(flow.value as u32, state, packet, tick), zero);
    }
    let (from, own) = front(flow.tag as u32 & 0xffff).ok_or(Outcome::Other)?;
    let [high, low] = flow.client;
    let client = [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32];
    let ports = own << 16 | (flow.tag >> 16) as u32 & 0xffff;
    match ask(ctx, client, Forward::Nat) {
        Ok(hop) if hop.mtu != 0 && packet.octets > hop.mtu => Err(packet.too_big(hop.mtu)),
        Ok(hop) => {
            changed(ctx, packet, from, client, ports, AGES | HIDES)?;
            if store(ctx, 0, hop.addresses) { Ok(out(ctx, &hop)) } else { Err(Outcome::Truncated) }
        }
        // The kernel forwards it then, and asks for the neighbour.
        Err(Outcome::NoNeighbour) => {
            changed(ctx, packet, from, client, ports, HIDES)?;
            Ok(XDP_PASS)
        }
        Err(outcome) => Err(outcome),
    }
}

/// A flow as it lies in the table.
struct Flow {
    client: [u64; 2],
    tag: u64,
    /// Place and generation of its endpoint, what is known, and until when it lasts.
    value: u64,
}

impl Flow {
    /// By region, set and way in one number, of which the lowest 15 bits are the port's.
    #[inline(always)]
    fn at(index: u32, zero: u64) -> Option<Self> {
        let set = NATS.get_ptr(index / WAYS as u32)?.cast::<u64>();
        let at = way_of(index.into(), zero) * NAT_WORDS;
        // SAFETY: words of the set.
        let word = |word: usize| unsafe { ptr::read_volatile(set.add(at + word)) };
        Some(Self { client: [word(0), word(1)], tag: word(2), value: word(3) })
    }
}

/// Whose a flow is, what is known of it, and until when it lasts.
#[inline(always)]
fn value_of(whose: u32, state: u32, packet: &Packet, tick: u32) -> u64 {
    let lasts = match (state & CLOSED != 0, state & ANSWERED != 0) {
        (true, _) => CLOSED_LASTS,
        (false, false) => UNANSWERED_LASTS,
        (false, true) if packet.protocol == UDP => UDP_FLOW_LASTS,
        (false, true) => TCP_FLOW_LASTS,
    };
    u64::from(whose) | u64::from((tick + lasts) << 2 | state) << 32
}

/// What is known of a flow from now on, if that is something else.
#[inline(always)]
fn note(index: u32, before: u64, value: u64, zero: u64) {
    if before != value
        && let Some(set) = NATS.get_ptr_mut(index / WAYS as u32)
    {
        let at = way_of(index.into(), zero) * NAT_WORDS;
        // SAFETY: the last word of a flow in the set, as a whole.
        unsafe { ptr::write_volatile(set.cast::<u64>().add(at + 3), value) };
    }
}

/// Where an outcome stands in what [`entered`] returns, one more than its number.
const FAILED: u64 = 48;
/// It stands in an action.
const REFUSED: u32 = 1 << 31;

/// As [`entry_of`]: the index, above it the place, above that an outcome.
// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
fn entered(_: &XdpContext, packet: &Packet, vip: u32, door: u32, named: u64) -> u64 {
    let entry =
        Settings::get().ok_or(Outcome::NoPort).and_then(|settings| entry_of(&settings, packet, vip, door, named));
    match entry {
        Ok((index, number)) => u64::from(index) | u64::from(number) << 32,
        Err(outcome) => (outcome as u64 + 1) << FAILED,
    }
}

/// Where a client's flow is in the table, and the place of its endpoint; it is entered when it is not there.
#[inline(always)]
fn entry_of(settings: &Settings, packet: &Packet, vip: u32, door: u32, named: u64) -> Result<(u32, u32), Outcome> {
    let tick = settings.tick();
    let (first, count) = regions(settings.ours(), packet.is(IS_V4), packet.protocol == UDP);
    if count == 0 {
        return Err(Outcome::NoPort);
    }
    let [a, b, c, d] = packet.source;
    let client = [u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d)];
    let tag = nat_tag((packet.ports >> 16) as u16, door);
    let sets = nat_sets(client, tag, settings.flow_multiplier(), count);
    let zero = settings.zero();
    let mut place = search(first * NAT_SETS + sets[0], client, tag, zero)?;
    if !place.is_own {
        let other = search(first * NAT_SETS + sets[1], client, tag, zero)?;
        if other.is_own {
            place = other;
        } else {
            let is_sooner = is_less(other.value >> 32, place.value >> 32);
            place.index = either(is_sooner, other.index.into(), place.index.into()) as u32;
            place.value = either(is_sooner, other.value, place.value);
        }
    }
    if packet.is(IS_ERROR) {
        return if place.is_own { Ok((place.index, place.value as u32 & 0xffff)) } else { Err(Outcome::Other) };
    }
    let closes = if packet.is(CLOSES) { CLOSED } else { 0 };
    if place.is_own && tick <= (place.value >> 34) as u32 {
        let (whose, state) = (place.value as u32, (place.value >> 32) as u32 & (ANSWERED | CLOSED));
        let endpoint = Endpoint::of(whose & 0xffff).ok_or(Outcome::NoEndpoint)?;
        if endpoint.generation == whose >> 16 && endpoint.keeps {
            let state = if packet.is(OPENS) { 0 } else { state };
            note(place.index, place.value, value_of(whose, state | closes, packet, tick), zero);
            if named == owned_by(whose) {
                quic::count_by_id(vip);
            }
            return Ok((place.index, whose & 0xffff));
        }
    }
    // A flow that has an endpoint has kept it, as it has a port at that one.
    let number = if named != 0 { (named - 1) as u32 & 0xffff } else { by_slot(packet, vip)?.0 };
    let endpoint = Endpoint::of(number).ok_or(Outcome::NoEndpoint)?;
    if is_v4(endpoint.address) != packet.is(IS_V4) {
        return Err(Outcome::NoPort);
    }
    let value = value_of(number | endpoint.generation << 16, closes, packet, tick);
    if place.is_own {
        note(place.index, place.value, value, zero);
    } else if !enter(place.index, client, tag, value, zero) {
        return Err(Outcome::NoPort);
    }
    count_of_flow(vip, place.is_own);
    if named != 0 {
        quic::count_by_id(vip);
    }
    Ok((place.index, number))
}

/// A flow's place, or that of the one that goes for it.
struct Place {
    is_own: bool,
    index: u32,
    value: u64,
}

/// Of a set, the flow itself, or else the one that lasts the shortest. All four are looked at, and chosen from by arithmetic.
#[inline(always)]
fn search(set: u32, client: [u64; 2], tag: u64, zero: u64) -> Result<Place, Outcome> {
    const ITSELF: u64 = 0;
    let flows = NATS.get_ptr(set).ok_or(Outcome::NoPort)?.cast::<u64>();
    let (mut chosen, mut least, mut value) = (zero, u64::MAX >> 1, zero);
    for way in 0..WAYS {
        let at = way * NAT_WORDS;
        // SAFETY: words of the set.
        let word = |word: usize| unsafe { ptr::read_volatile(flows.add(at + word)) };
        let own = word(3);
        let differs = (word(2) ^ tag) | (word(0) ^ client[0]) | (word(1) ^ client[1]);
        let score = either(is_none(differs), ITSELF, (own >> 32) + 1);
        let is_sooner = is_less(score, least);
        least = either(is_sooner, score, least);
        value = either(is_sooner, own, value);
        // A number that the verifier does not know: else it would follow each way that the choice may fall out through all that comes after it.
        chosen = either(is_sooner, way as u64 ^ zero, chosen);
    }
    Ok(Place { is_own: least == ITSELF, index: set * WAYS as u32 + chosen as u32, value })
}

/// Enters a flow in another one's place, if no other CPU is about to.
#[inline(always)]
fn enter(index: u32, [high, low]: [u64; 2], tag: u64, value: u64, zero: u64) -> bool {
    let Some(set) = NATS.get_ptr_mut(index / WAYS as u32) else { return false };
    let at = way_of(index.into(), zero) * NAT_WORDS;
    // SAFETY: words of the set, which other CPUs write as well: whoever takes the tag writes the rest.
    unsafe {
        let flow = set.cast::<u64>().add(at);
        let before = ptr::read_volatile(flow.add(2));
        if before == TAKEN || !exchange(flow.add(2), before, TAKEN) {
            return false;
        }
        ptr::write_volatile(flow, high);
        ptr::write_volatile(flow.add(1), low);
        ptr::write_volatile(flow.add(3), value);
        ptr::write_volatile(flow.add(2), tag);
    }
    true
}

#[inline(always)]
fn ours(region: u32) -> Option<Address> {
    let words = OURS.get_ptr(region)?.cast::<u32>();
    // SAFETY: words of the map's value, written before the program is attached.
    let word = |at: usize| unsafe { ptr::read_volatile(words.add(at)) };
    Some([word(0), word(1), word(2), word(3)])
}

/// A door's address and port.
#[inline(always)]
fn front(door: u32) -> Option<(Address, u32)> {
    let words = FRONTS.get_ptr(door)?.cast::<u32>();
    // SAFETY: as in `ours`.
    let word = |at: usize| unsafe { ptr::read_volatile(words.add(at)) };
    Some(([word(0), word(1), word(2), word(3)], word(4)))
}

#[inline(always)]
fn changed(
    ctx: &XdpContext,
    packet: &Packet,
    [a, b, c, d]: Address,
    [e, f, g, h]: Address,
    ports: u32,
    flags: u32,
) -> Result<(), Outcome> {
    let becomes = [a, b, c, d, e, f, g, h, ports, packet.ports, packet.protocol, flags];
    let told = match (packet.is(IS_ERROR), packet.is(IS_V4)) {
        (false, true) => change_v4(ctx, &becomes),
        (false, false) => change_v6(ctx, &becomes),
        (true, true) => change_error_v4(ctx, &becomes),
        (true, false) => change_error_v6(ctx, &becomes),
    };
    match told {
        DONE => Ok(()),
        TOO_OLD => Err(Outcome::HopLimit),
        _ => Err(Outcome::Truncated),
    }
}

/// What a packet becomes: source, destination, ports; ports that it has, protocol, flags.
type Becomes = [u32; 12];

const FROM: usize = 0;
const TO: usize = 4;
const PORTS: usize = 8;
const OLD_PORTS: usize = 9;
const PROTOCOL: usize = 10;
const FLAGS: usize = 11;

/// A word of it, read where it is used: else the compiler would hand the words over one by one, and more of them than a call may have.
#[inline(always)]
fn word_of(becomes: &Becomes, at: usize) -> u32 {
    // SAFETY: one of its words.
    unsafe { ptr::read_volatile(becomes.as_ptr().add(at)) }
}

const DONE: u32 = 0;
const TOO_OLD: u32 = 1;
const TOO_SHORT: u32 = 2;

// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
fn change_v4(ctx: &XdpContext, becomes: &Becomes) -> u32 {
    told(header_v4(ctx, becomes, true).and_then(|change| segment::<{ ETHERNET + V4 }>(ctx, becomes, change)))
}

// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
fn change_v6(ctx: &XdpContext, becomes: &Becomes) -> u32 {
    told(header_v6(ctx, becomes, true).and_then(|change| segment::<{ ETHERNET + V6 }>(ctx, becomes, change)))
}

/// The error, and what is left of the packet that it tells of: that was on its way from whom the error goes to now.
// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
fn change_error_v4(ctx: &XdpContext, becomes: &Becomes) -> u32 {
    told(header_v4(ctx, becomes, word_of(becomes, FLAGS) & HIDES != 0).and_then(|_| inner_v4(ctx, becomes)))
}

// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
fn change_error_v6(ctx: &XdpContext, becomes: &Becomes) -> u32 {
    let outer = header_v6(ctx, becomes, word_of(becomes, FLAGS) & HIDES != 0);
    told(outer.and_then(|change| inner_v6(ctx, becomes, change)))
}

#[inline(always)]
fn told(result: Result<u64, u32>) -> u32 {
    match result {
        Ok(_) => DONE,
        Err(why) => why,
    }
}

/// A word of the packet that becomes another one, and what that changes in sums.
#[inline(always)]
fn swap(ctx: &XdpContext, at: u32, new: u32) -> Result<u64, u32> {
    let [old] = load::<1, true>(ctx, at).ok_or(TOO_SHORT)?;
    if store(ctx, at, [new]) { Ok(difference(u32::from_be(old), u32::from_be(new))) } else { Err(TOO_SHORT) }
}

/// As above, of an address of IPv6.
#[inline(always)]
fn swap_v6(ctx: &XdpContext, at: u32, becomes: &Becomes, from: usize) -> Result<u64, u32> {
    let mut change = 0;
    for word in 0..4 {
        change += swap(ctx, at + 4 * word as u32, word_of(becomes, from + word))?;
    }
    Ok(change)
}

/// An IPv4 header to another one, and from another one if it `hides` who it is from; what that changes in sums over its addresses.
#[inline(always)]
fn header_v4(ctx: &XdpContext, becomes: &Becomes, hides: bool) -> Result<u64, u32> {
    let [third, _, _] = load::<3, true>(ctx, ETHERNET + 8).ok_or(TOO_SHORT)?;
    let third = u32::from_be(third);
    let ages = word_of(becomes, FLAGS) & AGES != 0;
    if third >> 24 <= 1 && ages {
        return Err(TOO_OLD);
    }
    let older = if ages { third - 0x0100_0000 } else { third };
    let mut change = swap(ctx, ETHERNET + 16, word_of(becomes, TO + 3))?;
    if hides {
        change += swap(ctx, ETHERNET + 12, word_of(becomes, FROM + 3))?;
    }
    let sum = corrected(third & 0xffff, change + difference(third & 0xffff_0000, older & 0xffff_0000));
    if store(ctx, ETHERNET + 8, [(older & 0xffff_0000 | sum).to_be()]) { Ok(change) } else { Err(TOO_SHORT) }
}

/// As above, of IPv6.
#[inline(always)]
fn header_v6(ctx: &XdpContext, becomes: &Becomes, hides: bool) -> Result<u64, u32> {
    let [second, ..] = load::<9, true>(ctx, ETHERNET + 4).ok_or(TOO_SHORT)?;
    let second = u32::from_be(second);
    let ages = word_of(becomes, FLAGS) & AGES != 0;
    if second & 0xff <= 1 && ages {
        return Err(TOO_OLD);
    }
    let older = if ages { second - 1 } else { second };
    let mut change = swap_v6(ctx, ETHERNET + 24, becomes, TO)?;
    if hides {
        change += swap_v6(ctx, ETHERNET + 8, becomes, FROM)?;
    }
    if store(ctx, ETHERNET + 4, [older.to_be()]) { Ok(change) } else { Err(TOO_SHORT) }
}

/// Ports and sum of what begins at `AT`.
#[inline(always)]
fn segment<const AT: u32>(ctx: &XdpContext, becomes: &Becomes, addresses: u64) -> Result<u64, u32> {
    let change = addresses + difference(word_of(becomes, OLD_PORTS), word_of(becomes, PORTS));
    swap(ctx, AT, word_of(becomes, PORTS).to_be())?;
    if word_of(becomes, PROTOCOL) == TCP {
        let [word] = load::<1, true>(ctx, AT + 16).ok_or(TOO_SHORT)?;
        let word = u32::from_be(word);
        return swap(ctx, AT + 16, (word & 0xffff | corrected(word >> 16, change) << 16).to_be());
    }
    let [word] = load::<1, true>(ctx, AT + 4).ok_or(TOO_SHORT)?;
    let word = u32::from_be(word);
    // Who has sent none means none, and 0 is how that is said (RFC 768).
    let sum = match (word & 0xffff, corrected(word & 0xffff, change)) {
        (0, _) => 0,
        (_, 0) => 0xffff,
        (_, sum) => sum,
    };
    swap(ctx, AT + 4, (word & 0xffff_0000 | sum).to_be())
}

/// The packet that an error tells of. Its addresses and their own sum are worth as much together as before, so only its ports count in the error's.
#[inline(always)]
fn inner_v4(ctx: &XdpContext, becomes: &Becomes) -> Result<u64, u32> {
    const INNER: u32 = ETHERNET + V4 + ERROR;
    let [third, _, _] = load::<3, true>(ctx, INNER + 8).ok_or(TOO_SHORT)?;
    let third = u32::from_be(third);
    let change = swap(ctx, INNER + 12, word_of(becomes, TO + 3))? + swap(ctx, INNER + 16, word_of(becomes, FROM + 3))?;
    swap(ctx, INNER + 8, (third & 0xffff_0000 | corrected(third & 0xffff, change)).to_be())?;
    let ports = swap(ctx, INNER + V4, word_of(becomes, PORTS).rotate_left(16).to_be())?;
    message::<{ ETHERNET + V4 }>(ctx, ports)
}

/// As above; the error's sum is of all addresses that there are.
#[inline(always)]
fn inner_v6(ctx: &XdpContext, becomes: &Becomes, outer: u64) -> Result<u64, u32> {
    const INNER: u32 = ETHERNET + V6 + ERROR;
    let change = outer + swap_v6(ctx, INNER + 8, becomes, TO)? + swap_v6(ctx, INNER + 24, becomes, FROM)?;
    let ports = swap(ctx, INNER + V6, word_of(becomes, PORTS).rotate_left(16).to_be())?;
    message::<{ ETHERNET + V6 }>(ctx, change + ports)
}

/// The sum of an ICMP message that begins at `AT`.
#[inline(always)]
fn message<const AT: u32>(ctx: &XdpContext, change: u64) -> Result<u64, u32> {
    let [head] = load::<1, true>(ctx, AT).ok_or(TOO_SHORT)?;
    let head = u32::from_be(head);
    swap(ctx, AT, (head & 0xffff_0000 | corrected(head & 0xffff, change)).to_be())
}
