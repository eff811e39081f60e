//! What endpoints offer to clients, and allow them.

use std::sync::Arc;
use std::time::Duration;

use abi::Place;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt};

use super::Keys;
use super::ids::Ids;
use crate::limits;
use crate::tls;

/// A listener's QUIC, with what it shows by TLS, and so many requests under way on each connection.
///
/// # Errors
/// Its TLS has no suite that QUIC begins with (RFC 9001 §5.2).
pub fn server(tls: &tls::ServerConfig, streams: u16, keys: &Keys) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|_| rustls::Error::General("no TLS_AES_128_GCM_SHA256, with which QUIC begins".to_owned()))?;
    let mut tokens = ValidationTokenConfig::default();
    tokens.log(Arc::clone(&keys.used) as _).sent(1);
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::clone(&keys.token));
    config
        .transport_config(Arc::new(transport(streams)))
        .validation_token_config(tokens)
        .max_incoming(limits::QUIC_INCOMING_MAX)
        .incoming_buffer_size(limits::QUIC_INCOMING_BYTES)
        .incoming_buffer_size_total(limits::QUIC_INCOMING_BYTES_ALL);
    Ok(Arc::new(config))
}

fn transport(streams: u16) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from(streams))
        .max_concurrent_uni_streams(limits::HTTP3_ONE_WAY_STREAMS.into())
        .stream_receive_window(limits::QUIC_STREAM_WINDOW.into())
        .receive_window(limits::QUIC_WINDOW.into())
        .send_window(limits::QUIC_SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(limits::QUIC_SILENCE).ok())
        .datagram_receive_buffer_size(None);
    transport
}

/// What every endpoint of a worker is.
pub(super) fn endpoint(keys: &Keys, place: Place) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::clone(&keys.reset));
    let ids = keys.ids;
    config.cid_generator(move || Box::new(Ids { ids, place })).min_reset_interval(Duration::from_millis(1));
    config
}
