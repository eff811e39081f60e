//! Calls to peers: the sockets that one thread's connections to endpoints go out by.
//!
//! What holds here: a socket is made when the first call of its family needs it, has a port of its own, and is shared by all calls that follow; what
//! comes back to it is this thread's, so that nothing has to be steered.

use std::cell::OnceCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use abi::Place;
use quinn_proto::ClientConfig;

use super::{Endpoint, Keys, Link, Recorder};
use crate::limits;

/// Makes connections.
pub struct Caller {
    keys: Keys,
    place: Place,
    /// Writes connections down, of whom that is asked.
    recorder: Option<Recorder>,
    v4: OnceCell<Rc<Endpoint>>,
    v6: OnceCell<Rc<Endpoint>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

impl Caller {
    #[must_use]
    pub fn new(keys: Keys, place: Place) -> Self {
        Self { keys, place, recorder: None, v4: OnceCell::new(), v6: OnceCell::new() }
    }

    /// Its connections are written down, of whom that is asked.
    #[must_use]
    pub fn recorded(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Begins a connection to a peer that has to prove this name. Its handshake is still to come.
    ///
    /// # Errors
    /// There is no socket to be had, or the address or the name is none that could be called.
    pub fn call(&self, config: ClientConfig, to: SocketAddr, name: &str) -> io::Result<Link> {
        let endpoint = self.endpoint(to)?;
        endpoint.call(config, to, name).map_err(io::Error::other)
    }

    fn endpoint(&self, to: SocketAddr) -> io::Result<&Rc<Endpoint>> {
        let (of_family, any) = match to {
            SocketAddr::V4(_) => (&self.v4, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            SocketAddr::V6(_) => (&self.v6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        };
        if let Some(endpoint) = of_family.get() {
            return Ok(endpoint);
        }
        let endpoint = Endpoint::calling(SocketAddr::new(any, 0), &self.keys, self.place)?;
        if let Some(recorder) = &self.recorder {
            endpoint.record(recorder.clone());
        }
        ring::spawn(receive(Rc::clone(&endpoint)));
        Ok(of_family.get_or_init(|| endpoint))
    }
}

/// Hands out what comes, for as long as the thread works: nobody can want to connect.
async fn receive(endpoint: Rc<Endpoint>) {
    loop {
        match poll_fn(|cx| endpoint.poll_carry(cx)).await {
            Ok(()) => ring::yield_now().await,
            Err(_) => ring::sleep(limits::ACCEPT_PAUSE).await,
        }
    }
}
