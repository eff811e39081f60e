//! Datagrams that come past the kernel: received for all endpoints of a worker, and handed to the one whose address they went to.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use super::Endpoint;
use crate::afxdp::Lane;

/// Lets endpoints answer by a lane, and receives for them what comes by it, for as long as the worker works.
pub fn go_by(lane: &Rc<Lane>, endpoints: &[Rc<Endpoint>]) {
    endpoints.iter().for_each(|endpoint| endpoint.go_by(lane));
    for socket in 0..lane.sockets() {
        ring::spawn(receive(Rc::clone(lane), socket, endpoints.to_vec()));
    }
}

async fn receive(lane: Rc<Lane>, socket: usize, endpoints: Vec<Rc<Endpoint>>) {
    loop {
        poll_fn(|cx| {
            lane.poll_receive(socket, cx, &mut |to, received, way| {
                if let Some(endpoint) = endpoint_at(&endpoints, to) {
                    endpoint.take(received, Some(way));
                }
            })
        })
        .await;
        // There may be more, but first those have their turn for whom this was.
        ring::yield_now().await;
    }
}

/// Whose address it is: the one that is bound to just this, else one that is bound to all of them.
fn endpoint_at(endpoints: &[Rc<Endpoint>], to: SocketAddr) -> Option<&Rc<Endpoint>> {
    let takes_all = |local: SocketAddr| local.ip().is_unspecified() && (local.is_ipv6() || to.is_ipv4());
    let exactly = endpoints.iter().find(|endpoint| endpoint.local == to);
    let at_port = || endpoints.iter().find(|endpoint| endpoint.local.port() == to.port() && takes_all(endpoint.local));
    exactly.or_else(at_port)
}
