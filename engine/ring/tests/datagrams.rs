//! What a datagram costs by the counters: no allocation, few system calls.

use std::alloc::System;
use std::future::poll_fn;
use std::net::SocketAddr;

use ring::alloc::{Counting, allocations};
use ring::{DriverChoice, Options, Received, Ring, Sent, SpinPolicy, Transmit, UdpOptions, UdpSocket};

#[global_allocator]
static HEAP: Counting<System> = Counting(System);

const ROUNDS: usize = 1_000;
const SEGMENT: usize = 1_200;

fn bind() -> UdpSocket {
    let options = UdpOptions { reuse_port: false, ..UdpOptions::default() };
    UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap()
}

/// Sends `count` datagrams and receives them, round by round.
async fn rounds(near: &UdpSocket, far: &UdpSocket, count: usize) {
    let to: SocketAddr = far.local().unwrap();
    let bytes = vec![7; count * SEGMENT];
    for _ in 0..ROUNDS {
        let transmit = Transmit { to, from: None, ecn: 0b10, segment: Some(SEGMENT), bytes: &bytes };
        assert_eq!(near.send(&transmit), Sent::Done);
        let mut received = 0;
        while received < bytes.len() {
            let mut take = |got: Received<'_>| received += got.bytes.len();
            poll_fn(|cx| far.poll_receive(cx, &mut take)).await.unwrap();
        }
    }
}

#[test]
fn nothing_is_allocated_for_datagrams() {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        let ring =
            Ring::new(Options { driver: driver.clone(), spin: SpinPolicy::Off }).expect("this machine grants both");
        ring.block_on(async move {
            let (near, far) = (bind(), bind());
            for count in [1, 20] {
                rounds(&near, &far, count).await;
                let before = (allocations(), ring::counts().driver, far.counts());
                rounds(&near, &far, count).await;
                let (calls, came) = (ring::counts().driver.calls - before.1.calls, far.counts());
                assert_eq!(came.received - before.2.received, (ROUNDS * count) as u64);
                // The bytes to be sent are one.
                assert_eq!(allocations() - before.0, 1, "{driver:?}, {count} at a time");
                // One send and one receive a round, and under epoll one call that arms the poll.
                assert!(calls <= 3 * ROUNDS as u64 + 3, "{driver:?}: {calls} calls for {ROUNDS} rounds of {count}");
            }
        });
    }
}
