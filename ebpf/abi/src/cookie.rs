//! The SYN-ACK that the XDP shield answers a SYN with, whose sequence number is the kernel's cookie (RFC 4987 §3.6).
//!
//! What holds: its only option is the MSS. The kernel takes what a SYN asked for beside that (window scaling, SACK) out of the cookie's time
//! stamp, which it shifts by a secret of its own, so that nobody else can write it there. Nothing is remembered of a SYN.
//!
//! Headers are words as they lie in a packet: each is big-endian, whatever the machine is.

/// Octets of the answer's TCP header: its only option is 4 long.
pub const ANSWER_TCP: u32 = 24;
/// Words of an answer, from the IP header on.
pub const ANSWER_V4_WORDS: usize = (20 + ANSWER_TCP as usize) / 4;
/// The same of IPv6.
pub const ANSWER_V6_WORDS: usize = (40 + ANSWER_TCP as usize) / 4;

/// The window until the kernel tells its own: twenty segments of Ethernet, which is more than anybody sends at first (RFC 6928) and less than
/// Linux grants at first without scaling.
const WINDOW: u32 = 20 * 1_460;

/// A SYN-ACK's flags, behind the length of its header.
const SYN_ACK: u32 = (ANSWER_TCP / 4) << 28 | 0x12 << 16;

/// TCP, as IP headers call it.
const TCP: u32 = 6;

/// The SYN that is answered.
#[derive(Debug, Clone, Copy)]
pub struct Syn {
    /// Its source port and then its destination port, as they lie in it.
    pub ports: u32,
    /// Its sequence number, as it lies in it.
    pub sequence: u32,
}

/// What is said to it.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The kernel's.
    pub cookie: u32,
    /// Octets of a packet that the interface takes, its IP header included.
    pub mtu: u32,
}

/// The answer, to `source` from `destination`: addresses of the SYN as they lie in it.
#[inline(always)]
#[must_use]
pub fn answer_v4(source: u32, destination: u32, syn: Syn, answer: Answer) -> [u32; ANSWER_V4_WORDS] {
    let pseudo = sum(&[source, destination, (TCP << 16 | ANSWER_TCP).to_be()]);
    let [ports, sequence, acknowledged, fourth, check, mss] = tcp(syn, answer, 40, pseudo);
    let mut ip = [
        (0x4500_0000 | (20 + ANSWER_TCP)).to_be(),
        // Never a fragment, and so without an id (RFC 6864 §4.1).
        0x4000_u32.to_be(),
        (64 << 24 | TCP << 16).to_be(),
        destination,
        source,
    ];
    ip[2] |= check_of(sum(&ip)).rotate_left(16);
    let [first, second, third, from, to] = ip;
    [first, second, third, from, to, ports, sequence, acknowledged, fourth, check, mss]
}

/// The same of IPv6.
#[inline(always)]
#[must_use]
pub fn answer_v6(source: [u32; 4], destination: [u32; 4], syn: Syn, answer: Answer) -> [u32; ANSWER_V6_WORDS] {
    let pseudo = sum(&source) + sum(&destination) + sum(&[ANSWER_TCP.to_be(), TCP.to_be()]);
    let [ports, sequence, acknowledged, fourth, check, mss] = tcp(syn, answer, 60, pseudo);
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (source, destination);
    let (first, second) = (0x6000_0000_u32.to_be(), (ANSWER_TCP << 16 | TCP << 8 | 64).to_be());
    [first, second, d0, d1, d2, d3, s0, s1, s2, s3, ports, sequence, acknowledged, fourth, check, mss]
}

/// The TCP header; `headers` are the octets of a packet that are no segment's, and `pseudo` is what its checksum covers beside it.
#[inline(always)]
fn tcp(syn: Syn, answer: Answer, headers: u32, pseudo: u64) -> [u32; 6] {
    let mss = answer.mtu.saturating_sub(headers);
    // The loopback's is more than 16 bits hold.
    let mss = if mss > 0xffff { 0xffff } else { mss };
    let mut words = [
        syn.ports.rotate_right(16),
        answer.cookie.to_be(),
        u32::from_be(syn.sequence).wrapping_add(1).to_be(),
        (SYN_ACK | WINDOW).to_be(),
        0,
        (0x0204_0000 | mss).to_be(),
    ];
    words[4] = check_of(pseudo + sum(&words));
    words
}

/// RFC 1071 §2: the sum is the same in either order of octets, so words are added as the machine reads them.
#[inline(always)]
fn sum(words: &[u32]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += *word as u64;
    }
    sum
}

/// The checksum, as the first half of a word of the packet.
#[inline(always)]
fn check_of(mut sum: u64) -> u32 {
    for _ in 0..2 {
        sum = (sum & 0xffff_ffff) + (sum >> 32);
    }
    let mut sum = sum as u32;
    for _ in 0..2 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [first, second] = (!(sum as u16)).to_ne_bytes();
    u32::from_ne_bytes([first, second, 0, 0])
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn octets(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// RFC 1071, octet by octet: 0 where the checksum in it is right.
    fn wrong(octets: &[u8]) -> u16 {
        let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum = words.fold(0, |sum, word| (sum + word) % 0xffff);
        (sum % 0xffff) as u16
    }

    fn syn() -> Syn {
        Syn { ports: u32::from_ne_bytes([0x30, 0x39, 0x01, 0xbb]), sequence: u32::MAX }
    }

    #[test]
    fn an_answer_over_ipv4() {
        let (client, us) = ([198, 51, 100, 7], [192, 0, 2, 1]);
        for (cookie, mtu, mss) in [(0x1234_5678, 1_500, 1_460), (u32::MAX, 65_536, 65_496), (0, 30, 0)] {
            let words = answer_v4(u32::from_ne_bytes(client), u32::from_ne_bytes(us), syn(), Answer { cookie, mtu });
            let octets = octets(&words);
            assert_eq!(octets[..10], [0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6]);
            assert_eq!(octets[12..20], [us, client].concat());
            assert_eq!(octets[20..24], [0x01, 0xbb, 0x30, 0x39]);
            assert_eq!(octets[24..28], cookie.to_be_bytes());
            assert_eq!(octets[28..32], [0; 4], "one more than the last number there is");
            assert_eq!(octets[32..34], [0x60, 0x12]);
            assert_eq!(octets[38..42], [0, 0, 2, 4]);
            assert_eq!(u16::from_be_bytes([octets[42], octets[43]]), mss);
            assert_eq!(wrong(&octets[..20]), 0);
            let pseudo = [&octets[12..20], &[0, 6, 0, 24], &octets[20..]].concat();
            assert_eq!(wrong(&pseudo), 0);
        }
    }

    #[test]
    fn an_answer_over_ipv6() {
        let word = |text: u32| text.to_be();
        let (client, us) = ([0x2001_0db8, 1, 2, 0xffff_ffff].map(word), [0xfd77_0000, 0, 0, 1].map(word));
        for (cookie, mtu, mss) in [(0xdead_beef, 1_500_u32, 1_440), (1, 66_000, 65_535)] {
            let octets = octets(&answer_v6(client, us, syn(), Answer { cookie, mtu }));
            assert_eq!(octets[..8], [0x60, 0, 0, 0, 0, 24, 6, 64]);
            assert_eq!(octets[8..24], self::octets(&us));
            assert_eq!(octets[24..40], self::octets(&client));
            assert_eq!(octets[44..48], cookie.to_be_bytes());
            assert_eq!(u16::from_be_bytes([octets[62], octets[63]]), mss);
            let pseudo = [&octets[8..40], &[0, 0, 0, 24, 0, 0, 0, 6], &octets[40..]].concat();
            assert_eq!(wrong(&pseudo), 0);
        }
    }
}
