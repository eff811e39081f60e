//! A listener's sockets on one worker, from the moment when they are bound to that when they are closed, over all configurations between.

use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ring::{Listener as Listening, UdpSocket};

use crate::exchange::{Door, Doorway};
use crate::listen::{self, Gate};
use crate::quic;
use crate::snapshot::{Bind, Listener, ListenerId};
use crate::steer::{DatagramSocket, Sockets};
use crate::tls::ServerConfig;

/// Sockets that are bound, behind which nobody stands yet.
#[derive(Default)]
pub(super) struct Bound {
    pub(super) listening: Vec<Listening>,
    pub(super) datagrams: Vec<UdpSocket>,
    pub(super) quic: Vec<Rc<quic::Endpoint>>,
}

/// Where clients of a listener come in.
pub(super) struct Entrance {
    pub(super) way: Rc<Doorway>,
    pub(super) gates: Vec<Rc<Gate>>,
    /// Those of HTTP/3, in the order of its addresses.
    pub(super) quic: Vec<Rc<quic::Endpoint>>,
    addresses: Box<[Bind]>,
    /// Those of its gates that datagrams come in by, for as long as their sockets are open.
    ports: Vec<Weak<Gate>>,
}

impl Bound {
    /// Binds every address of a listener, `first` endpoints of QUIC being there already.
    ///
    /// # Errors
    /// The first address that cannot be bound, named.
    pub(super) fn new(
        listener: &Listener,
        tls: Option<&ServerConfig>,
        keys: &quic::Keys,
        place: quic::Place,
        first: usize,
    ) -> io::Result<Self> {
        if listener.protocol.is_udp() {
            return Ok(Self { datagrams: listen::udp::bind(listener)?, ..Self::default() });
        }
        let server = tls.and_then(|tls| offer_quic(listener, tls, keys)).transpose()?;
        let listening = listen::bind(listener)?;
        let quic = match server {
            None => Vec::new(),
            Some(server) => listen::quic::bind(listener, first, keys, place, &server)?,
        };
        Ok(Self { listening, quic, datagrams: Vec::new() })
    }

    /// Adds those that programs choose among.
    ///
    /// # Errors
    /// The system's, where descriptors have run out.
    pub(super) fn show(&self, id: ListenerId, listener: &Listener, sockets: &mut Sockets) -> io::Result<()> {
        for (address, socket) in listener.addresses.iter().zip(&self.listening) {
            let in_group = !matches!(address, Bind::Unix(_));
            let descriptor = socket.descriptor().filter(|_| in_group);
            sockets.listening.push(descriptor.map(|socket| socket.try_clone_to_owned()).transpose()?);
        }
        for endpoint in &self.quic {
            let socket = endpoint.socket();
            let name = format!("{} over UDP (`{}`)", socket.local()?, listener.name);
            sockets.datagrams.extend(shown(id, socket, Some(name))?);
        }
        for socket in &self.datagrams {
            sockets.datagrams.extend(shown(id, socket, None)?);
        }
        Ok(())
    }
}

/// A socket for programs; `None` where there is none of the kernel's.
fn shown(listener: ListenerId, socket: &UdpSocket, quic: Option<String>) -> io::Result<Option<DatagramSocket>> {
    let Some(descriptor) = socket.descriptor() else { return Ok(None) };
    let (local, socket) = (socket.local()?, descriptor.try_clone_to_owned()?);
    Ok(Some(DatagramSocket { listener, local, quic, socket }))
}

impl Entrance {
    pub(super) fn new(listener: &Listener, way: Rc<Doorway>) -> Self {
        let addresses = listener.addresses.clone();
        Self { way, gates: Vec::new(), quic: Vec::new(), addresses, ports: Vec::new() }
    }

    /// Who comes in by datagrams comes through this gate.
    pub(super) fn add_port(&mut self, gate: &Rc<Gate>) {
        self.gates.push(Rc::clone(gate));
        self.ports.push(Rc::downgrade(gate));
    }

    /// Who comes in from now on goes through this door.
    pub(super) fn lead_to(&self, door: &Rc<Door>, keys: &quic::Keys) {
        self.gates.iter().for_each(|gate| gate.lead_to(door));
        self.show(door.listener(), door.tls.borrow().as_ref(), keys);
    }

    /// What clients of HTTP/3 are shown from now on.
    pub(super) fn show(&self, listener: &Listener, tls: Option<&Arc<ServerConfig>>, keys: &quic::Keys) {
        // A configuration that was tried out when it was loaded is not refused now.
        if let Some(Ok(offer)) = tls.and_then(|tls| offer_quic(listener, tls, keys)) {
            self.quic.iter().for_each(|endpoint| endpoint.show(Arc::clone(&offer)));
        }
    }

    /// Nobody comes in any more, but those whom the kernel has accepted.
    pub(super) fn close(&self) {
        self.gates.iter().for_each(|gate| gate.close());
    }

    /// Its listener is no more: sockets are closed when nobody needs them.
    pub(super) fn leave(mut self) -> Self {
        self.close();
        self.gates.clear();
        self.quic.clear();
        self
    }

    /// Nothing of it is there any more.
    pub(super) fn is_over(&self) -> bool {
        self.way.open.get() == 0 && self.ports.iter().all(|port| port.strong_count() == 0)
    }

    /// Its sockets of UDP are closed after the last who came in by them; until then these addresses are its own.
    pub(super) fn holds(&self, listener: &Listener) -> bool {
        let shares = listener.addresses.iter().any(|address| self.addresses.contains(address));
        shares && listener.has_datagrams() && self.ports.iter().any(|port| port.strong_count() > 0)
    }
}

/// What a listener shows to clients of QUIC; `None` where it does not speak it.
fn offer_quic(listener: &Listener, tls: &ServerConfig, keys: &quic::Keys) -> Option<io::Result<Arc<quic::Offer>>> {
    let http3 = listener.http3.as_ref()?;
    let offer = quic::offer(tls, http3, keys);
    Some(offer.map_err(|error| io::Error::other(format!("listener `{}`: {error}", listener.name))))
}
