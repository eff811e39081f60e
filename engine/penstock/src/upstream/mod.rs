//! The client role: pools of endpoints, and leases of connections to them.
//!
//! The way: [`Cluster::pick`] chooses an endpoint → [`Cluster::lease`] takes an idle connection or dials → the exchange
//! uses it → [`Cluster::give_back`] parks it or lets it go, and [`Cluster::record`] learns from the outcome. All of that
//! belongs to one worker; what the process knows of an endpoint is in its [`EndpointShared`], and who is in a pool comes
//! as whole lists from the control thread's [`Roster`].

mod affinity;
mod alternative;
mod breakers;
mod cluster;
mod dial;
mod discovery;
mod endpoint;
mod homes;
mod lease;
mod lending;
mod list;
mod members;
mod pool;
mod selection;
mod shared;
mod sharing;
mod shortcut;
mod token;
mod view;

use std::io;
use std::net::SocketAddr;

use policy::Now;
use proto::proxy;
use ring::Buf;

pub use self::affinity::Affinity;
pub use self::breakers::{Breakers, Passage, RouteBreaker, RouteShared, RouteSums};
pub use self::cluster::{Choice, Cluster, Impatient, Repetition, Waiting, Wanted};
pub use self::dial::{Approach, DialError, call, dial, secure};
pub use self::discovery::{Discovery, Report};
pub use self::endpoint::{Endpoint, Tried};
pub use self::homes::Homes;
pub use self::lease::Lease;
pub use self::lending::{Lending, join};
pub use self::list::{Badges, Members, PoolLoad};
pub use self::members::{Finding, Found, Member, Roster};
pub use self::selection::{CandidateCells, Selecting, Selection, SelectionCells, Selections};
pub use self::shared::{Admin, AdminState, BreakerOrder, EndpointShared, EndpointSums, Health, Held, Judged};
pub use self::token::{Seal, Seals, TOKEN_BYTES, Token};
use crate::snapshot::{Address, Host, ProxyProtocol};

/// The header that tells an endpoint who asks, if the pool wants one.
#[must_use]
pub fn proxy_header(version: ProxyProtocol, path: Option<(SocketAddr, SocketAddr)>) -> Option<Buf> {
    let mut header = Vec::new();
    match version {
        ProxyProtocol::Off => return None,
        ProxyProtocol::V1 => proxy::write_v1(path, &mut header),
        ProxyProtocol::V2 => proxy::write_v2(path, &mut header),
    }
    Some(Buf::copy_of(&header))
}

/// The addresses of an endpoint that needs no resolving.
#[must_use]
pub fn literal(address: &Address) -> Vec<ring::Address> {
    match address {
        Address::Tcp { host: Host::Ip(ip), port } => vec![ring::Address::Inet(SocketAddr::new(*ip, *port))],
        Address::Tcp { host: Host::Name(_), .. } => Vec::new(),
        Address::Unix(path) => vec![ring::Address::Unix(path.clone())],
    }
}

/// Turns the ring's time into the policy's.
#[must_use]
pub fn policy_now(now: ring::Now) -> Now {
    Now::from_nanos(now.as_nanos())
}

/// Why no connection was to be had, as an outcome of the try.
impl From<&DialError> for policy::Class {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Unresolved => Self::Unresolved,
            DialError::TimedOut => Self::ConnectTimedOut,
            DialError::Tls(_) => Self::Untrusted,
            // The endpoint is as well as ever: it only does not do this.
            DialError::Full | DialError::NoUpgrades => Self::Shed,
            DialError::Failed(error) if is_ours(error) => Self::Shed,
            DialError::Failed(_) => Self::Refused,
        }
    }
}

/// Running out of descriptors, ports or memory is our fault and not the endpoint's.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(24 /* EMFILE */ | 23 /* ENFILE */ | 12 /* ENOMEM */ | 105 /* ENOBUFS */ | 99 /* EADDRNOTAVAIL */)
    )
}
