//! Sends that the kernel refuses: to cut them, for their length, or at all.

use super::*;

#[test]
fn where_cutting_is_refused_each_goes_alone_and_none_is_lost() {
    for errno in [libc::EIO, libc::EINVAL] {
        on_both(async move || {
            let (near, far) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
            let sent = pattern(20 * 1_200);
            let transmit = Transmit { segment: Some(1_200), ..to(far.local().unwrap(), &sent) };
            pretended::fail(1, errno);
            assert_eq!(near.send(&transmit), Sent::Done);
            let got = receive(&far, 20).await;
            assert!(got.iter().flat_map(|got| got.bytes.clone()).eq(sent));
            assert_eq!((near.granted().gso_segments, near.counts().sends, near.counts().sent), (1, 20, 20));
            assert!(near.granted().missing.iter().any(|line| line.starts_with("UDP_SEGMENT")));
        });
    }
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted() {
    on_both(async || {
        let (near, far) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        let address = far.local().unwrap();
        pretended::fail(1, libc::EMSGSIZE);
        assert_eq!(near.send(&Transmit { segment: Some(100), ..to(address, &[0; 250]) }), Sent::Done);
        assert_eq!(near.send(&to(address, &[0; 65_508])), Sent::Done);
        assert_eq!((near.counts().too_large, near.counts().failed), (4, 0));
        // Of an address that is not ours, which is no reason not to cut.
        let strange =
            Transmit { from: Some("192.0.2.1".parse().unwrap()), segment: Some(100), ..to(address, &[0; 250]) };
        assert_eq!(near.send(&strange), Sent::Done);
        pretended::fail(1, libc::EPERM);
        assert_eq!(near.send(&to(address, b"x")), Sent::Done);
        assert_eq!((near.counts().failed, near.granted().gso_segments), (2, 64));
        assert_eq!(near.send(&to(address, b"after all")), Sent::Done);
        assert_eq!(receive_one(&far).await.bytes, b"after all");
    });
}

/// The kernel makes fragments of one datagram, and none of several that it is to cut.
#[test]
fn what_does_not_fit_goes_alone_where_it_may_go_in_fragments() {
    on_both(async || {
        let options = UdpOptions { reuse_port: false, fragments: true, ..UdpOptions::default() };
        let (near, far) = (UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap(), bind("127.0.0.1:0"));
        let sent: Vec<u8> = (0..250).collect();
        pretended::fail(1, libc::EMSGSIZE);
        let address = far.local().unwrap();
        assert_eq!(near.send(&Transmit { segment: Some(100), ..to(address, &sent) }), Sent::Done);
        let got = receive(&far, 3).await;
        assert!(got.iter().flat_map(|got| got.bytes.clone()).eq(sent));
        assert_eq!((near.counts().too_large, near.granted().gso_segments), (0, 64), "others are cut as before");
        // Alone, it is simply too large.
        assert_eq!(near.send(&to(address, &[0; 65_508])), Sent::Done);
        assert_eq!(near.counts().too_large, 1);
    });
}
