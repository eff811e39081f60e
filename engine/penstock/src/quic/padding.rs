//! Padding is taken from packets where they are decrypted: quinn-proto takes each byte of it for a frame of its own, which for a filled packet costs more than
//! all the rest of it (h2load, whose packets ngtcp2 fills: [the measurement](../../../../docs/perf/2026-11-23-http3.md)).
//!
//! Everything else is passed on to the TLS that this stands before.

use std::any::Any;
use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::crypto::{
    self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

/// So much padding is worth a copy of what is not: all of a packet's bytes are kept for as long as any of them is.
const WORTH_A_COPY: usize = 64;

/// The crypto of a listener, or of a pool's endpoints.
pub(super) struct Unpadded<C>(pub(super) Arc<C>);

impl<C: crypto::ServerConfig> crypto::ServerConfig for Unpadded<C> {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid).map(unpadded)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        Box::new(Session(Arc::clone(&self.0).start_session(version, params)))
    }
}

impl<C: crypto::ClientConfig> crypto::ClientConfig for Unpadded<C> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        Ok(Box::new(Session(Arc::clone(&self.0).start_session(version, server_name, params)?)))
    }
}

/// Every key that it gives out takes padding away.
struct Session(Box<dyn crypto::Session>);

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        unpadded(self.0.initial_keys(dst_cid, side))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto().map(|(header, packet)| (header, wrapped(packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.0.write_handshake(buf).map(unpadded)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys().map(|KeyPair { local, remote }| KeyPair { local, remote: wrapped(remote) })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

fn unpadded(Keys { header, packet: KeyPair { local, remote } }: Keys) -> Keys {
    Keys { header, packet: KeyPair { local, remote: wrapped(remote) } }
}

fn wrapped(key: Box<dyn PacketKey>) -> Box<dyn PacketKey> {
    Box::new(Key(key))
}

struct Key(Box<dyn PacketKey>);

impl PacketKey for Key {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.0.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.0.decrypt(packet, header, payload)?;
        let end = proto::quic::frames_end(payload);
        if payload.len() - end >= WORTH_A_COPY {
            // A packet without any frame would be an error (RFC 9000 §12.4).
            *payload = BytesMut::from(&payload[..end.max(1)]);
        }
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything for what it says.
    struct Open;

    impl PacketKey for Open {
        fn encrypt(&self, _: u64, _: &mut [u8], _: usize) {}

        fn decrypt(&self, _: u64, _: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
            if payload.is_empty() { Err(CryptoError) } else { Ok(()) }
        }

        fn tag_len(&self) -> usize {
            0
        }

        fn confidentiality_limit(&self) -> u64 {
            0
        }

        fn integrity_limit(&self) -> u64 {
            0
        }
    }

    fn decrypted(payload: &[u8]) -> Option<BytesMut> {
        let mut payload = BytesMut::from(payload);
        wrapped(Box::new(Open)).decrypt(0, &[], &mut payload).ok().map(|()| payload)
    }

    const PING: u8 = 1;

    #[test]
    fn a_filled_packet_becomes_what_it_says_and_keeps_no_more_memory() {
        let mut filled = vec![0; 1_200];
        filled[0] = PING;
        let payload = decrypted(&filled).expect("a payload");
        assert_eq!(payload[0], PING);
        assert!(payload.len() <= 16 && payload.capacity() < 64, "{} {}", payload.len(), payload.capacity());
    }

    #[test]
    fn a_packet_of_nothing_else_is_still_one() {
        assert_eq!(&decrypted(&[0; 1_200]).expect("a payload")[..], [0]);
    }

    #[test]
    fn a_little_padding_is_not_worth_a_copy() {
        let mut filled = [0; WORTH_A_COPY];
        filled[0] = PING;
        assert_eq!(&decrypted(&filled).expect("a payload")[..], filled);
    }

    #[test]
    fn what_is_not_the_peers_is_refused_as_before() {
        assert!(decrypted(&[]).is_none());
    }
}
