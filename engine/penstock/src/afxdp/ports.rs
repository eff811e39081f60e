//! Datagrams that come past the kernel: received for all ports of a worker, and handed to the one whose address they went to.
//!
//! What holds: a port that is closed is no longer here; what is for none is nobody's, as a network would lose it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::Poll;

use ring::Received;

use super::frame::Way;
use super::lane::{Lane, Open};

/// An address of ours that datagrams go to, on one worker: an endpoint of QUIC, or flows.
pub trait Port {
    /// Where it is bound.
    fn local(&self) -> SocketAddr;

    /// Takes in a datagram that came past the kernel, and how its answer gets back.
    fn take(&self, received: Received<'_>, way: Way);

    /// All that was here has been taken in.
    fn settle(&self) {}
}

/// A worker's ports, as they come and go.
#[derive(Default)]
pub(super) struct Ports(RefCell<Vec<(SocketAddr, Weak<dyn Port>)>>);

impl Ports {
    pub(super) fn join(&self, port: Weak<dyn Port>, local: SocketAddr) {
        let mut ports = self.0.borrow_mut();
        ports.retain(|(_, port)| port.strong_count() > 0);
        ports.push((local, port));
    }

    /// Whose address it is: the port that is bound to just this, else one that is bound to all of them.
    fn at(&self, to: SocketAddr) -> Option<Rc<dyn Port>> {
        let ports = self.0.borrow();
        let takes_all = |local: SocketAddr| local.ip().is_unspecified() && (local.is_ipv6() || to.is_ipv4());
        let exactly = ports.iter().filter(|(local, _)| *local == to);
        let widely = ports.iter().filter(|(local, _)| local.port() == to.port() && takes_all(*local));
        exactly.chain(widely).find_map(|(_, port)| port.upgrade())
    }

    fn settle(&self) {
        self.0.borrow().iter().filter_map(|(_, port)| port.upgrade()).for_each(|port| port.settle());
    }
}

/// Receives by a lane for the ports that have joined it, for as long as it is open.
pub(super) fn serve(lane: &Rc<Lane>, open: &Rc<Open>) {
    for socket in 0..open.sockets.len() {
        ring::spawn(receive(Rc::clone(lane), Rc::clone(open), socket));
    }
}

async fn receive(lane: Rc<Lane>, open: Rc<Open>, socket: usize) {
    open.expects(ring::current_task());
    loop {
        let is_over = poll_fn(|cx| {
            let mut take = |to, received: Received<'_>, way| {
                if let Some(port) = lane.ports.at(to) {
                    port.take(received, way);
                }
            };
            match lane.poll_receive(&open, socket, cx, &mut take) {
                Poll::Pending if open.is_closed() => Poll::Ready(true),
                received => received.map(|()| false),
            }
        })
        .await;
        if is_over {
            return;
        }
        lane.ports.settle();
        // There may be more, but first those have their turn for whom this was.
        ring::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bound(SocketAddr);

    impl Port for Bound {
        fn local(&self) -> SocketAddr {
            self.0
        }

        fn take(&self, _: Received<'_>, _: Way) {}
    }

    #[test]
    fn a_datagram_is_its_addresses_and_then_a_wildcards() {
        let all = ["192.0.2.1:53", "[::]:53", "0.0.0.0:54", "[2001:db8::1]:54"];
        let ports = Ports::default();
        let bound: Vec<Rc<dyn Port>> =
            all.iter().map(|at| Rc::new(Bound(at.parse().unwrap())) as Rc<dyn Port>).collect();
        bound.iter().for_each(|port| ports.join(Rc::downgrade(port), port.local()));
        let at = |to: &str| ports.at(to.parse().unwrap()).map(|port| port.local().to_string());
        for (to, whose) in [
            ("192.0.2.1:53", Some(all[0])),
            ("192.0.2.2:53", Some(all[1])),
            ("[2001:db8::1]:53", Some(all[1])),
            ("192.0.2.1:54", Some(all[2])),
            ("[2001:db8::1]:54", Some(all[3])),
            ("[2001:db8::2]:54", None),
            ("192.0.2.1:55", None),
        ] {
            assert_eq!(at(to).as_deref(), whose, "{to}");
        }
    }

    #[test]
    fn who_has_closed_is_forgotten() {
        let ports = Ports::default();
        let at: SocketAddr = "192.0.2.1:53".parse().unwrap();
        for _ in 0..100 {
            let port: Rc<dyn Port> = Rc::new(Bound(at));
            ports.join(Rc::downgrade(&port), at);
            assert!(ports.at(at).is_some() && ports.0.borrow().len() <= 2);
        }
        assert!(ports.at(at).is_none());
    }
}
