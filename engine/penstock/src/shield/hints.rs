//! Which addresses may be on a list at all, told by their first bits: most are not, and need no look-up in a trie.
//!
//! What holds: a hint that is set too much costs a look-up, and one that is missing would let somebody pass who is denied. So they are set before a
//! network is listed, and taken away only when all networks that are listed have been looked at anew.

use std::net::IpAddr;

use abi::shield::{HINT_BITS, HINT_WORDS, hint_v4, hint_v6};

use crate::snapshot::Cidr;

/// As the kernel's map has them.
#[derive(Debug)]
pub(super) struct Hints(Vec<u64>);

impl Default for Hints {
    fn default() -> Self {
        Self(vec![0; HINT_WORDS as usize])
    }
}

impl Hints {
    /// Of these networks and no others.
    pub(super) fn of<'a>(networks: impl IntoIterator<Item = &'a Cidr>) -> Self {
        let mut hints = Self::default();
        for network in networks {
            let _ = hints.add(network);
        }
        hints
    }

    /// One network more. Tells which words have changed, with what they are now.
    pub(super) fn add(&mut self, network: &Cidr) -> Vec<(u32, u64)> {
        let mut changed = Vec::new();
        for (index, mask) in words(network) {
            let word = &mut self.0[index as usize];
            if *word | mask != *word {
                *word |= mask;
                changed.push((index, *word));
            }
        }
        changed
    }

    /// What has to be written where these are, so that they become `wanted`.
    pub(super) fn become_these(&mut self, wanted: Self) -> Vec<(u32, u64)> {
        let before = std::mem::replace(&mut self.0, wanted.0);
        let words = (0..).zip(before.iter().zip(&self.0));
        words.filter(|(_, (before, after))| before != after).map(|(index, (_, after))| (index, *after)).collect()
    }
}

/// The words that a network has bits in, and which.
fn words(network: &Cidr) -> Vec<(u32, u64)> {
    let one = |(index, bit): (u32, u32)| vec![(index, 1 << bit)];
    let bits = u32::from(network.bits());
    match network.network() {
        IpAddr::V4(address) if bits >= HINT_BITS => one(hint_v4(address.into())),
        IpAddr::V4(address) => {
            let (first, bit) = hint_v4(address.into());
            let count = 1_u32 << (HINT_BITS - bits);
            if count < u64::BITS {
                // As many bits as fit into a word, and aligned to that.
                return vec![(first, ((1 << count) - 1) << bit)];
            }
            (first..first + count / u64::BITS).map(|index| (index, u64::MAX)).collect()
        }
        // By a hash of so many bits: of less than that, any may be meant.
        IpAddr::V6(address) if bits >= u32::BITS => one(hint_v6((u128::from(address) >> 96) as u32)),
        IpAddr::V6(_) => (HINT_WORDS / 2..HINT_WORDS).map(|index| (index, u64::MAX)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hints: &Hints, address: &str) -> bool {
        let (word, bit) = match address.parse().unwrap() {
            IpAddr::V4(address) => hint_v4(address.into()),
            IpAddr::V6(address) => hint_v6((u128::from(address) >> 96) as u32),
        };
        hints.0[word as usize] >> bit & 1 == 1
    }

    fn networks(list: &[&str]) -> Vec<Cidr> {
        list.iter().map(|network| network.parse().unwrap()).collect()
    }

    #[test]
    fn whoever_is_on_a_list_has_a_hint() {
        for (network, inside, outside) in [
            ("192.0.2.7", vec!["192.0.2.7"], vec!["192.0.16.0", "11.0.0.0"]),
            ("10.16.0.0/20", vec!["10.16.0.0", "10.16.15.255"], vec!["10.16.16.0", "10.15.255.255"]),
            ("10.16.0.0/18", vec!["10.16.0.0", "10.16.63.255"], vec!["10.16.64.0", "10.15.255.255"]),
            ("10.64.0.0/14", vec!["10.64.0.0", "10.67.255.255"], vec!["10.68.0.0", "10.63.255.255"]),
            ("10.0.0.0/8", vec!["10.0.0.0", "10.255.255.255"], vec!["9.255.255.255", "11.0.0.0"]),
            ("0.0.0.0/0", vec!["0.0.0.0", "255.255.255.255"], vec!["2001:db8::1"]),
            ("2001:db8::/32", vec!["2001:db8:1::1"], vec!["2001:db9::1", "10.0.0.1"]),
            ("2001:db8:1:2::/64", vec!["2001:db8:1:2::9"], vec!["2a00::1"]),
            ("2001:d00::/24", vec!["2001:db8::1", "2001:d00::1"], vec!["10.0.0.1"]),
        ] {
            let hints = Hints::of(&networks(&[network]));
            inside.into_iter().for_each(|address| assert!(set(&hints, address), "{address} in {network}"));
            outside.into_iter().for_each(|address| assert!(!set(&hints, address), "{address} not in {network}"));
        }
    }

    #[test]
    fn only_what_changes_is_written() {
        let mut hints = Hints::default();
        let [near, same, far] = ["192.0.2.7", "192.0.3.0/24", "10.0.0.0/8"].map(|text| text.parse::<Cidr>().unwrap());
        assert_eq!(hints.add(&near).len(), 1);
        assert_eq!(hints.add(&same), [], "they share their first bits");
        assert_eq!(hints.add(&far).len(), (1 << (HINT_BITS - 8)) / 64);
        let written = hints.become_these(Hints::of([&far]));
        assert_eq!(written.len(), 1);
        assert!(!set(&hints, "192.0.2.7") && set(&hints, "10.1.2.3"));
        assert_eq!(hints.become_these(Hints::default()).len(), (1 << (HINT_BITS - 8)) / 64);
    }
}
