//! `bench afxdp-echo`: sends back what comes past the kernel, as `l4-origin` does by a socket. A process of its own.

use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use abi::afxdp::Settings;
use penstock::afxdp::{Lane, Port, Program, Share, Way};
use penstock::bpf::Interfaces;
use penstock::snapshot::XdpMode;
use penstock::telemetry::WorkerCells;
use ring::{Interface, RECEIVED_MAX, Received, Transmit, Xsk};
use xtask::Outcome;

use crate::flags::Flags;
use crate::load::own;

/// `bench afxdp-echo --interface NAME --listen ADDRESS --mode native|generic [--driver uring|epoll]`: serves until it is ended.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--interface", "--listen", "--mode", "--driver"], &[])?;
    let (name, listen): (String, SocketAddr) = (flags.need("--interface")?, flags.need("--listen")?);
    let mode = match flags.text("--mode") {
        Some("generic") => XdpMode::Generic,
        _ => XdpMode::Native,
    };
    let interface = Interface::named(&name).map_err(|error| format!("{name}: {error}"))?;
    let mut program = Program::load(1)?;
    program.tell(Settings { address: interface.address, frame_max: RECEIVED_MAX as u32 })?;
    program.open(listen)?;
    let socket = Xsk::open(&interface, 0).map_err(|error| format!("{name}: {error}"))?;
    program.seat(0, &socket)?;
    let _standing = program.stand(&Interfaces::default(), &name, mode)?;
    let share = Share::new(vec![socket], interface);
    own::ring(&flags)?.block_on(async move {
        let lane = Lane::new(Arc::new(WorkerCells::default()));
        lane.open(share);
        let echo = Rc::new(Echo { lane: Rc::clone(&lane), at: listen });
        lane.join(&echo);
        pending().await
    })
}

/// Sends back what comes to its address.
struct Echo {
    lane: Rc<Lane>,
    at: SocketAddr,
}

impl Port for Echo {
    fn local(&self) -> SocketAddr {
        self.at
    }

    fn take(&self, received: Received<'_>, _: Way) {
        let answer = Transmit { to: received.from, from: received.to, ecn: 0, segment: None, bytes: received.bytes };
        // What finds no room is the network's loss.
        let _ = self.lane.send(self.at.port(), &answer);
    }
}
