//! What is offered to peers, and allowed them.

use std::sync::Arc;
use std::time::Duration;

use abi::Place;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, QlogStream, ServerConfig, TransportConfig,
    ValidationTokenConfig, VarInt,
};

use super::Keys;
use super::ids::Ids;
use super::padding::Unpadded;
use crate::limits;
use crate::snapshot::{Congestion, Http3};
use crate::tls;

/// A listener's QUIC, with what it shows by TLS.
///
/// # Errors
/// Its TLS has no suite that QUIC begins with (RFC 9001 §5.2).
pub fn server(tls: &tls::ServerConfig, http3: &Http3, keys: &Keys) -> Result<Arc<ServerConfig>, rustls::Error> {
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
        .transport_config(Arc::new(of_clients(http3)))
        .validation_token_config(tokens)
        .max_incoming(limits::QUIC_INCOMING_MAX)
        .incoming_buffer_size(limits::QUIC_INCOMING_BYTES)
        .incoming_buffer_size_total(limits::QUIC_INCOMING_BYTES_ALL);
    Ok(Arc::new(config))
}

/// The same listener's, for a connection of which `stream` is told.
pub(super) fn recorded(server: &ServerConfig, http3: &Http3, stream: Option<QlogStream>) -> Arc<ServerConfig> {
    let mut transport = of_clients(http3);
    transport.qlog_stream(stream);
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
    config.transport_config(Arc::new(transport(0, limits::QUIC_WINDOW_UPSTREAM, Congestion::Cubic, true)));
    Ok(config)
}

fn without_suite() -> rustls::Error {
    rustls::Error::General("no TLS_AES_128_GCM_SHA256, with which QUIC begins".to_owned())
}

fn of_clients(http3: &Http3) -> TransportConfig {
    transport(http3.streams, limits::QUIC_WINDOW, http3.congestion, http3.datagrams)
}

fn transport(streams: u16, window: u32, congestion: Congestion, datagrams: bool) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(limits::QUIC_DATAGRAM_MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from(streams))
        .congestion_controller_factory(controllers(congestion))
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
fn controllers(congestion: Congestion) -> Arc<dyn ControllerFactory + Send + Sync> {
    match congestion {
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::NewReno => Arc::new(NewRenoConfig::default()),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
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
    fn each_name_means_its_controller() {
        let made = |congestion| controllers(congestion).build(ring::monotonic().instant(), 1_200).into_any();
        assert!(made(Congestion::Cubic).is::<Cubic>());
        assert!(made(Congestion::NewReno).is::<NewReno>());
        assert!(made(Congestion::Bbr).is::<Bbr>());
    }
}
