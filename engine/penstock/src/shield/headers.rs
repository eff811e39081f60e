//! What the headers at the front of a packet say, for an operator's eye: from whom, to whom. Whatever it is, and wherever it ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Tags of VLANs, and extension headers of IPv6, that are looked behind: as many as the program does.
const TAGS_MAX: usize = 2;
const EXTENSIONS_MAX: usize = 6;

/// What could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers {
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    /// IP's number of what is inside.
    pub protocol: Option<u8>,
    /// Of TCP or UDP: from, and to.
    pub ports: Option<(u16, u16)>,
}

impl Headers {
    /// Of a frame of Ethernet, or the front of one.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        let mut read = Self::default();
        // What is cut off is left out.
        let _ = read.ethernet(frame);
        read
    }

    /// The name of the protocol, or its number.
    #[must_use]
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            None => "?".to_owned(),
            Some(1) => "icmp".to_owned(),
            Some(6) => "tcp".to_owned(),
            Some(17) => "udp".to_owned(),
            Some(58) => "icmp6".to_owned(),
            Some(other) => other.to_string(),
        }
    }

    fn ethernet(&mut self, frame: &[u8]) -> Option<()> {
        let mut at = 12;
        for _ in 0..=TAGS_MAX {
            let kind = half(frame, at)?;
            at += 2;
            match kind {
                0x0800 => return self.v4(frame.get(at..)?),
                0x86dd => return self.v6(frame.get(at..)?),
                0x8100 | 0x88a8 => at += 2,
                _ => return None,
            }
        }
        None
    }

    fn v4(&mut self, packet: &[u8]) -> Option<()> {
        let octets =
            |at: usize| packet.get(at..at + 4)?.try_into().ok().map(|four: [u8; 4]| Ipv4Addr::from(four).into());
        self.protocol = packet.get(9).copied();
        self.source = octets(12);
        self.destination = octets(16);
        let is_first = half(packet, 6)? & 0x1fff == 0;
        let length = usize::from(packet.first()? & 0xf) * 4;
        is_first.then(|| self.transport(packet.get(length..)?))?
    }

    fn v6(&mut self, packet: &[u8]) -> Option<()> {
        let octets = |at: usize| {
            packet.get(at..at + 16)?.try_into().ok().map(|sixteen: [u8; 16]| Ipv6Addr::from(sixteen).into())
        };
        self.source = octets(8);
        self.destination = octets(24);
        let (mut next, mut at) = (*packet.get(6)?, 40);
        self.protocol = Some(next);
        for _ in 0..EXTENSIONS_MAX {
            // RFC 8200 §4: hop by hop, routing, fragment, authentication, destination.
            if !matches!(next, 0 | 43 | 44 | 51 | 60) {
                break;
            }
            let length = usize::from(*packet.get(at + 1)?);
            let is_later_fragment = next == 44 && half(packet, at + 2)? & 0xfff8 != 0;
            let header = at;
            at += match next {
                44 => 8,
                51 => (length + 2) * 4,
                _ => (length + 1) * 8,
            };
            next = *packet.get(header)?;
            self.protocol = Some(next);
            if is_later_fragment {
                return None;
            }
        }
        self.transport(packet.get(at..)?)
    }

    fn transport(&mut self, segment: &[u8]) -> Option<()> {
        if matches!(self.protocol, Some(6 | 17)) {
            self.ports = Some((half(segment, 0)?, half(segment, 2)?));
        }
        Some(())
    }
}

/// Two octets as a number.
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kinds: &[u16], rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        let (last, tags) = kinds.split_last().unwrap();
        tags.iter().for_each(|tag| frame.extend([&tag.to_be_bytes()[..], &[0, 7]].concat()));
        frame.extend(last.to_be_bytes());
        frame.extend(rest);
        frame
    }

    fn v4(words: u8, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x40 | words, 0, 0, 60, 0, 1];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
        packet.resize(usize::from(words) * 4, 0);
        packet.extend([0x01, 0x00, 0x00, 53, 0, 8, 0, 0]);
        packet
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 40, next, 64];
        packet.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(rest);
        packet
    }

    #[test]
    fn addresses_and_ports_are_found_behind_all_that_may_stand_before_them() {
        let ports = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0];
        for (packet, protocol, wanted) in [
            (frame(&[0x0800], &v4(5, 0x4000)), 17, Some((256, 53))),
            (frame(&[0x88a8, 0x8100, 0x0800], &v4(15, 0)), 17, Some((256, 53))),
            (frame(&[0x0800], &v4(5, 0x2000)), 17, Some((256, 53))),
            (frame(&[0x0800], &v4(5, 7)), 17, None),
            (frame(&[0x86dd], &v6(6, &ports)), 6, Some((40_000, 443))),
            (
                frame(&[0x86dd], &v6(0, &[&[60, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0][..], &ports].concat())),
                6,
                Some((40_000, 443)),
            ),
            (frame(&[0x86dd], &v6(44, &[&[6, 0, 0, 0, 0, 0, 0, 1][..], &ports].concat())), 6, Some((40_000, 443))),
            (frame(&[0x86dd], &v6(44, &[&[6, 0, 0, 8, 0, 0, 0, 1][..], &ports].concat())), 6, None),
            (frame(&[0x86dd], &v6(58, &ports)), 58, None),
        ] {
            let read = Headers::of(&packet);
            assert_eq!((read.protocol, read.ports), (Some(protocol), wanted), "{packet:02x?}");
            assert!(read.source.is_some() && read.destination.is_some());
            // Wherever it ends, what is read is the same as far as it goes.
            for end in 0..packet.len() {
                let cut = Headers::of(&packet[..end]);
                assert!(cut.source.is_none() || cut.source == read.source);
                assert!(cut.ports.is_none() || cut.ports == read.ports);
            }
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for packet in
            [vec![], vec![0; 13], frame(&[0x0806], &[0; 28]), frame(&[0x8100, 0x8100, 0x8100, 0x0800], &v4(5, 0))]
        {
            assert_eq!(Headers::of(&packet), Headers::default(), "{packet:02x?}");
        }
        // A header that claims to be shorter than it is, and a chain that leads beyond all.
        assert_eq!(Headers::of(&frame(&[0x0800], &[0x40; 4])).ports, None);
        assert_eq!(Headers::of(&frame(&[0x86dd], &v6(60, &[60, 255, 0, 0]))).ports, None);
    }
}
