//! What is offered to peers, and allowed them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use abi::Place;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, ConnectionId, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, QlogStream, ServerConfig,
    TransportConfig, ValidationTokenConfig, VarInt,
};

use super::Keys;
use super::ids::Ids;
use super::padding::Unpadded;
use crate::limits;
use crate::snapshot::{Congestion, Http3};
use crate::tls;

/// A listener's QUIC: what clients are shown by TLS, and what they may do.
pub struct Offer {
    http3: Http3,
    /// To clients behind a network.
    far: Arc<ServerConfig>,
    /// And to those of this host.
    near: Arc<ServerConfig>,
}

impl Offer {
    pub(super) const fn to(&self, reach: Reach) -> &Arc<ServerConfig> {
        match reach {
            Reach::Far => &self.far,
            Reach::Near => &self.near,
        }
    }

    /// The same, told to `stream`.
    pub(super) fn recorded(&self, reach: Reach, stream: Option<QlogStream>) -> Arc<ServerConfig> {
        let mut transport = of_clients(&self.http3, reach);
        transport.qlog_stream(stream);
        with_transport(&self.far, transport)
    }
}

/// What a connection's datagrams go through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reach {
    Far,
    /// Nothing but this host.
    Near,
}

impl Reach {
    /// Of one that comes from there to here.
    pub(super) fn between(from: IpAddr, to: Option<IpAddr>) -> Self {
        let from = from.to_canonical();
        let same = from.is_loopback() || to.is_some_and(|to| to.to_canonical() == from);
        if same { Self::Near } else { Self::Far }
    }
}

/// What a listener that shows this by TLS offers.
///
/// # Errors
/// Its TLS has no suite that QUIC begins with (RFC 9001 §5.2).
pub fn offer(tls: &tls::ServerConfig, http3: &Http3, keys: &Keys) -> Result<Arc<Offer>, rustls::Error> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    // All or none of it (RFC 9001 §4.6.1): how much it is, the windows below say.
    if tls.max_early_data_size > 0 {
        tls.max_early_data_size = u32::MAX;
    }
    tls.send_half_rtt_data = false;
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| without_suite())?;
    let mut tokens = ValidationTokenConfig::default();
    tokens.log(Arc::clone(&keys.used) as _).sent(1);
    let mut config = ServerConfig::new(Arc::new(Unpadded(Arc::new(crypto))), Arc::clone(&keys.token));
    config
        .transport_config(Arc::new(of_clients(http3, Reach::Far)))
        .validation_token_config(tokens)
        .max_incoming(limits::QUIC_INCOMING_MAX)
        .incoming_buffer_size(limits::QUIC_INCOMING_BYTES)
        .incoming_buffer_size_total(limits::QUIC_INCOMING_BYTES_ALL);
    let near = with_transport(&config, of_clients(http3, Reach::Near));
    Ok(Arc::new(Offer { http3: http3.clone(), far: Arc::new(config), near }))
}

fn with_transport(server: &ServerConfig, transport: TransportConfig) -> Arc<ServerConfig> {
    let mut server = server.clone();
    server.transport_config(Arc::new(transport));
    Arc::new(server)
}

/// How an endpoint is called, which is asked this by TLS. It may begin no requests of its own.
///
/// # Errors
/// The TLS has no suite that QUIC begins with (RFC 9001 §5.2).
pub fn client(tls: Arc<rustls::ClientConfig>) -> Result<ClientConfig, rustls::Error> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| without_suite())?;
    let mut config = ClientConfig::new(Arc::new(Unpadded(Arc::new(crypto))));
    config.transport_config(Arc::new(of_endpoints()));
    Ok(config)
}

/// The same, told to `stream`; and the endpoint is called by this id at first.
pub(super) fn recorded(mut client: ClientConfig, id: ConnectionId, stream: Option<QlogStream>) -> ClientConfig {
    let mut transport = of_endpoints();
    transport.qlog_stream(stream);
    client.transport_config(Arc::new(transport)).initial_dst_cid_provider(Arc::new(move || id));
    client
}

fn without_suite() -> rustls::Error {
    rustls::Error::General("no TLS_AES_128_GCM_SHA256, with which QUIC begins".to_owned())
}

fn of_clients(http3: &Http3, reach: Reach) -> TransportConfig {
    transport(http3.streams, limits::QUIC_WINDOW, http3.congestion, http3.datagrams, reach)
}

fn of_endpoints() -> TransportConfig {
    transport(0, limits::QUIC_WINDOW_UPSTREAM, Congestion::Cubic, true, Reach::Far)
}

fn transport(streams: u16, window: u32, congestion: Congestion, datagrams: bool, reach: Reach) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    match reach {
        Reach::Far => mtu.upper_bound(limits::QUIC_DATAGRAM_MAX),
        Reach::Near => mtu.upper_bound(limits::QUIC_DATAGRAM_NEAR).minimum_change(limits::QUIC_DATAGRAM_NEAR / 4),
    };
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from(streams))
        .congestion_controller_factory(controllers(congestion, reach))
        .max_concurrent_uni_streams(limits::HTTP3_ONE_WAY_STREAMS.into())
        .stream_receive_window(limits::QUIC_STREAM_WINDOW.into())
        .receive_window(window.into())
        .send_window(limits::QUIC_SEND_WINDOW_MIN)
        .max_idle_timeout(IdleTimeout::try_from(limits::QUIC_SILENCE).ok())
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(datagrams.then_some(limits::QUIC_DATAGRAM_BYTES))
        .datagram_send_buffer_size(limits::QUIC_DATAGRAM_BYTES);
    transport
}

/// Makes what decides how much is under way on a connection.
fn controllers(congestion: Congestion, reach: Reach) -> Arc<dyn ControllerFactory + Send + Sync> {
    macro_rules! made {
        ($config:ty) => {{
            let mut config = <$config>::default();
            if reach == Reach::Near {
                config.initial_window(limits::QUIC_WINDOW_NEAR);
            }
            Arc::new(config)
        }};
    }
    match congestion {
        Congestion::Cubic => made!(CubicConfig),
        Congestion::NewReno => made!(NewRenoConfig),
        Congestion::Bbr => made!(BbrConfig),
    }
}

/// What every endpoint of a worker is.
pub(super) fn endpoint(keys: &Keys, place: Place) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::clone(&keys.reset));
    let ids = Arc::clone(&keys.ids);
    config
        .cid_generator(move || Box::new(Ids { ids: Arc::clone(&ids), place }))
        .min_reset_interval(Duration::from_millis(1))
        .rng_seed(keys.chance);
    config
}

#[cfg(test)]
mod tests {
    use quinn_proto::congestion::{Bbr, Cubic, NewReno};

    use super::*;

    #[test]
    fn who_is_on_this_host_is_near() {
        let reach = |from: &str, to: Option<&str>| {
            Reach::between(from.parse().expect("an address"), to.map(|to| to.parse().expect("an address")))
        };
        assert_eq!(reach("127.0.0.1", None), Reach::Near);
        assert_eq!(reach("::ffff:127.0.0.1", None), Reach::Near);
        assert_eq!(reach("::1", Some("::1")), Reach::Near);
        assert_eq!(reach("192.0.2.1", Some("::ffff:192.0.2.1")), Reach::Near);
        assert_eq!(reach("192.0.2.2", Some("192.0.2.1")), Reach::Far);
        assert_eq!(reach("192.0.2.1", None), Reach::Far);
    }

    #[test]
    fn each_name_means_its_controller() {
        let made =
            |congestion| controllers(congestion, Reach::Far).build(ring::monotonic().instant(), 1_200).into_any();
        assert!(made(Congestion::Cubic).is::<Cubic>());
        assert!(made(Congestion::NewReno).is::<NewReno>());
        assert!(made(Congestion::Bbr).is::<Bbr>());
    }

    /// What is under way at the start holds the largest datagram that is tried, and others behind it: a window that one of them fills keeps acknowledgements back.
    #[test]
    fn a_probe_of_the_path_leaves_room() {
        for congestion in [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr] {
            for (reach, datagram) in
                [(Reach::Far, limits::QUIC_DATAGRAM_MAX), (Reach::Near, limits::QUIC_DATAGRAM_NEAR)]
            {
                let controller = controllers(congestion, reach).build(ring::monotonic().instant(), 1_200);
                assert!(controller.window() >= 4 * u64::from(datagram), "{congestion:?}, {reach:?}");
            }
        }
    }
}
