//! Datagrams through a door that paces them: a client that sends too many, and an origin that says what it hears.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ring::Transmit;
use ring::sim::{Host, Postbox};

use crate::scene::{DATAGRAMS, DATAGRAMS_ORIGIN};
use crate::tunnel::PACE;

/// Bytes of each, of which 333 a second are sent: more than twice what may go.
const LENGTH: usize = 1_000;
const EVERY: Duration = Duration::from_millis(3);
const COUNT: u32 = 2_000;

async fn send(postbox: &Postbox, to: SocketAddr, bytes: &[u8]) {
    let transmit = Transmit { to, from: None, ecn: 0, segment: None, bytes };
    postbox.send(&transmit).await.expect("one datagram is not too long");
}

/// Sends all the time and hears all the time: replies come in order, at the pace of their class, within 2 %.
pub(crate) async fn client(host: Host) {
    let postbox = Rc::new(host.postbox("10.4.0.1:0".parse().expect("written here")).expect("there are ports"));
    let speaker = Rc::clone(&postbox);
    let said = host.spawn("datagrams", async move |host: Host| {
        let door = DATAGRAMS.parse().expect("written here");
        for number in 0..COUNT {
            let mut datagram = [0; LENGTH];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            send(&speaker, door, &datagram).await;
            host.sleep(EVERY).await;
        }
    });
    let (mut heard, mut last, mut first, mut end) = (0, None, 0, 0);
    while let Some(letter) = host.within(Duration::from_secs(1), postbox.recv()).await {
        assert_eq!(letter.bytes.len(), LENGTH);
        let number = u32::from_be_bytes(letter.bytes[..4].try_into().expect("four"));
        assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
        (heard, last, end) = (heard + 1, Some(number), host.now());
        if heard == 1 {
            first = end;
        }
    }
    said.await;
    assert!(heard < COUNT as u64, "more than it may");
    let (bytes, wanted) = ((heard - 1) * LENGTH as u64, (end - first) * PACE / 1_000_000_000);
    assert!((wanted * 98 / 100..=wanted * 102 / 100).contains(&bytes), "{bytes} bytes, and not {wanted}");
}

pub(crate) async fn origin(host: Host) {
    let postbox = host.postbox(DATAGRAMS_ORIGIN.parse().expect("written here")).expect("it is free");
    loop {
        let letter = postbox.recv().await;
        send(&postbox, letter.from, &letter.bytes).await;
    }
}
