//! `bench grpc`: unary calls over HTTP/2 without TLS, on both sides of the proxy.
//!
//! Rounds are driven by h2load, which counts an answer by its status and knows nothing of gRPC. So every contender also has to pass
//! [`calls`], before its rounds and after them, with as many calls at once: there each answer is read to its trailers.
//!
//! Both ends stand on the engine's own machine of HTTP/2. Whether that speaks HTTP/2 as others do is the end-to-end tests' question.

pub(crate) mod calls;
pub(crate) mod origin;
mod wire;

/// What is called.
pub(crate) const PATH: &str = "/bench.Calls/Unary";
/// Bytes of a message, which goes there and comes back.
const PAYLOAD: usize = 100;

/// A message as it is sent: not compressed, then its length, then itself.
pub(crate) fn message() -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((PAYLOAD as u32).to_be_bytes());
    bytes.extend((0..PAYLOAD as u8).map(|at| b'a' + at % 26));
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_message_tells_its_length() {
        let message = super::message();
        assert_eq!((&message[..5], message.len()), (&[0, 0, 0, 0, 100][..], 105));
    }
}
