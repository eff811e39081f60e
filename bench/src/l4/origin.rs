//! `bench l4-origin`: sends back what comes, over TCP and over UDP on the same port.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;

use ring::{Address, ListenOptions, Listener, Stream, Transmit, UdpOptions, UdpSocket};
use xtask::Outcome;

use crate::flags::Flags;
use crate::load::own;

/// Bytes that may wait to be sent on a connection before it is read on.
const UNSENT_MAX: usize = 256 << 10;

/// `bench l4-origin --listen ADDRESS [--driver uring|epoll]`: serves until it is ended.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--listen", "--driver"], &[])?;
    let listen: SocketAddr = flags.need("--listen")?;
    let ring = own::ring(&flags)?;
    ring.block_on(serve(listen)).map_err(|error| format!("{listen}: {error}"))
}

async fn serve(listen: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen, &UdpOptions::default())?;
    ring::spawn(datagrams(socket));
    let mut listener = Listener::bind(&Address::Inet(listen), &ListenOptions::default())?;
    loop {
        let stream = listener.accept().await?;
        ring::spawn(async move {
            // How a connection ends is its client's matter.
            let _ = bytes(stream).await;
        });
    }
}

async fn bytes(mut stream: Stream) -> io::Result<()> {
    while let Some(more) = stream.recv().await? {
        stream.send(more);
        poll_fn(|cx| stream.poll_sent(cx, UNSENT_MAX)).await?;
    }
    Ok(())
}

async fn datagrams(socket: UdpSocket) {
    loop {
        let received = poll_fn(|cx| {
            socket.poll_receive(cx, &mut |received| {
                let segment = (received.bytes.len() > received.stride).then_some(received.stride);
                let (to, from) = (received.from, received.to);
                // What finds no room is the network's loss.
                let _ = socket.send(&Transmit { to, from, ecn: 0, segment, bytes: received.bytes });
            })
        });
        if received.await.is_err() {
            return;
        }
        ring::yield_now().await;
    }
}
