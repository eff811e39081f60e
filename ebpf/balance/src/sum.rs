//! Sums of words, as the Internet has them (RFC 1071).

/// What a word that changes is worth to a sum: two more carries than the word at the most.
#[cfg(feature = "nat")]
#[inline(always)]
pub(crate) const fn difference(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// A sum after changes (RFC 1624, eqn. 3).
#[cfg(feature = "nat")]
#[inline(always)]
pub(crate) const fn corrected(sum: u32, change: u64) -> u32 {
    let total = (!sum & 0xffff) as u64 + change;
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16 & 0xffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    !total as u32 & 0xffff
}

/// Sixteen bits of a sum of words.
#[inline(always)]
pub(crate) const fn folded(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
