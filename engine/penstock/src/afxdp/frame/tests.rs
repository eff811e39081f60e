use super::*;

const WAY: Way = Way { ours: [2, 0, 0, 0, 0, 1], theirs: [2, 0, 0, 0, 0, 2] };

/// Seen from the other end.
const BACK: Way = Way { ours: WAY.theirs, theirs: WAY.ours };

fn ends(is_v4: bool) -> (SocketAddr, SocketAddr) {
    let (from, to) =
        if is_v4 { ("192.0.2.1:443", "198.51.100.7:50000") } else { ("[2001:db8::1]:443", "[2001:db8:7::9]:50000") };
    (from.parse().unwrap(), to.parse().unwrap())
}

fn written(is_v4: bool, ecn: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xaa; 2_048];
    let (from, to) = ends(is_v4);
    let length = write(&mut frame, WAY, from, to, ecn, bytes);
    assert_eq!(length, headers(to.ip()) + bytes.len());
    frame.truncate(length);
    frame
}

/// RFC 1071 by the book.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn what_is_written_is_read() {
    for is_v4 in [true, false] {
        for length in [0, 1, 2, 3, 4, 5, 1_200, 1_472] {
            for ecn in 0..4 {
                let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + 3) as u8).collect();
                let mut frame = written(is_v4, ecn, &bytes);
                let (from, to) = ends(is_v4);
                let read = read(&mut frame).unwrap();
                assert_eq!((read.way, read.from, read.to, read.ecn), (BACK, from, to, ecn), "{length}");
                assert_eq!(read.bytes, bytes);
            }
        }
    }
}

#[test]
fn checksums_are_those_of_the_book() {
    for (is_v4, length) in [(true, 5), (true, 1_200), (false, 5), (false, 1_200)] {
        let frame = written(is_v4, 0, &vec![0x5c; length]);
        let (from, to) = ends(is_v4);
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut covered = [octets(from.ip()), octets(to.ip())].concat();
        covered.extend([0, PROTOCOL_UDP]);
        covered.extend(((UDP + length) as u16).to_be_bytes());
        covered.extend(&frame[headers(to.ip()) - UDP..]);
        assert_eq!(checksum(&covered), 0, "{is_v4} {length}");
        if is_v4 {
            assert_eq!(checksum(&frame[ETHERNET..ETHERNET + V4]), 0);
            // It must not become fragments.
            assert_eq!(frame[ETHERNET + 6..ETHERNET + 8], [0x40, 0]);
        }
    }
}

/// The sum of some datagram comes to 0, which says that there is none: its other form stands there.
#[test]
fn no_datagram_says_that_it_has_no_checksum() {
    let found = (0..=u16::MAX).map(|word| written(false, 0, &word.to_be_bytes())).find(|frame| {
        let at = ETHERNET + V6 + 6;
        frame[at..at + 2] == [0xff, 0xff]
    });
    let mut frame = found.expect("one of all words makes the sum that");
    assert!(read(&mut frame).is_ok());
}

#[test]
fn nothing_that_is_cut_off_is_read() {
    for is_v4 in [true, false] {
        let frame = written(is_v4, 0, &[9; 33]);
        for length in 0..frame.len() {
            assert_eq!(read(&mut frame[..length].to_vec()), Err(Flaw::Malformed), "{is_v4} {length}");
        }
        // Ethernet makes short frames longer.
        let mut padded = [frame, vec![0; 20]].concat();
        assert_eq!(read(&mut padded).unwrap().bytes.len(), 33);
    }
}

/// Whatever octet is another one, nothing panics; and the datagram is another one at most in what no checksum covers.
#[test]
fn every_octet_may_be_another_one() {
    for is_v4 in [true, false] {
        let (from, to) = ends(is_v4);
        let good = written(is_v4, 0, &[9; 40]);
        for at in 0..good.len() {
            for value in 0..=u8::MAX {
                let mut frame = good.clone();
                frame[at] = value;
                if let Ok(read) = read(&mut frame)
                    && value != good[at]
                {
                    // Link-layer addresses; of IPv6 class, label and hops. A sum cannot see 0 become 0xffff in an even half, which none here does.
                    let is_uncovered = at < 12 || !is_v4 && matches!(at - ETHERNET, 0..=3 | 7);
                    assert!(is_uncovered, "{is_v4} {at} {value}");
                    assert_eq!((read.from, read.to, &*read.bytes), (from, to, &[9; 40][..]));
                }
            }
        }
    }
}

#[test]
fn checksums_may_be_unfinished_or_in_ipv4_none() {
    for is_v4 in [true, false] {
        let (from, to) = ends(is_v4);
        let at = headers(to.ip()) - 2;
        let with = |checksum: u16| {
            let mut frame = written(is_v4, 0, &[9; 40]);
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            read(&mut frame).map(drop)
        };
        assert_eq!(with(fold(pseudo_header(from.ip(), to.ip(), 48))), Ok(()));
        assert_eq!(with(0), if is_v4 { Ok(()) } else { Err(Flaw::Checksum) });
        assert_eq!(with(0x1234), Err(Flaw::Checksum));
    }
}

#[test]
fn nobody_is_there_is_noticed() {
    let from = |address: &str, to: &str| {
        let mut frame = vec![0; 2_048];
        let length = write(&mut frame, WAY, address.parse().unwrap(), to.parse().unwrap(), 0, b"a");
        read(&mut frame[..length]).map(drop)
    };
    for address in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", "192.0.2.2:0", "192.0.2.1:443"] {
        assert_eq!(from(address, "192.0.2.1:443"), Err(Flaw::Source), "{address}");
    }
    for address in ["[::]:1", "[::1]:1", "[ff02::1]:1", "[::ffff:192.0.2.2]:1", "[2001:db8::2]:0", "[2001:db8::1]:443"]
    {
        assert_eq!(from(address, "[2001:db8::1]:443"), Err(Flaw::Source), "{address}");
    }
    assert_eq!(from("192.0.2.2:1", "192.0.2.1:443"), Ok(()));
    // A group has sent it.
    let mut frame = written(true, 0, b"a");
    frame[6] |= 1;
    assert_eq!(read(&mut frame), Err(Flaw::Source));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let (from, to) = ends(true);
    assert_eq!(write(&mut [0; 45], WAY, from, to, 0, b"four"), 0);
    assert_eq!(write(&mut [0; 46], WAY, from, to, 0, b"four"), 46);
    assert_eq!(write(&mut [0; 100], WAY, from, ends(false).1, 0, b"four"), 0);
    assert_eq!(write(&mut vec![0; 70_000], WAY, from, to, 0, &vec![0; 65_536]), 0);
}
