//! Settings: what each end asks of the other (RFC 9113 §6.5).

use super::error::Fault;
use super::frame::{self, Kind};
use super::hpack::TABLE_SIZE_DEFAULT;

/// What the peer asks of us. It begins with the values that hold before a peer has said anything (RFC 9113 §6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    pub header_table_size: u32,
    pub enable_push: bool,
    pub max_concurrent_streams: u32,
    pub initial_window_size: u32,
    pub max_frame_size: u32,
    pub max_header_list_size: u32,
    /// RFC 8441 §3.
    pub enable_connect_protocol: bool,
    /// RFC 9218 §2.1.
    pub no_rfc7540_priorities: bool,
}

impl PeerSettings {
    pub const INITIAL: Self = Self {
        header_table_size: TABLE_SIZE_DEFAULT as u32,
        enable_push: true,
        max_concurrent_streams: u32::MAX,
        initial_window_size: WINDOW_DEFAULT,
        max_frame_size: FRAME_SIZE_DEFAULT,
        max_header_list_size: u32::MAX,
        enable_connect_protocol: false,
        no_rfc7540_priorities: false,
    };

    /// Takes in a payload, entry by entry in its order. `by_server` says who sent it. Returns the least `header_table_size` on the way: what does
    /// not fit that is gone, whatever comes behind it (RFC 7541 §4.2).
    ///
    /// # Errors
    /// An error of the connection. What came before it has been taken in.
    pub fn apply(&mut self, payload: &[u8], by_server: bool) -> Result<u32, Fault> {
        let (entries, _) = payload.as_chunks::<6>();
        let mut least = self.header_table_size;
        for &[id_high, id_low, a, b, c, d] in entries {
            self.set(u16::from_be_bytes([id_high, id_low]), u32::from_be_bytes([a, b, c, d]), by_server)?;
            least = least.min(self.header_table_size);
        }
        Ok(least)
    }

    fn set(&mut self, id: u16, value: u32, by_server: bool) -> Result<(), Fault> {
        match id {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            ENABLE_PUSH if value > 1 => return Err(Fault::protocol("ENABLE_PUSH is neither 0 nor 1 (RFC 9113 6.5.2)")),
            ENABLE_PUSH if by_server && value == 1 => {
                return Err(Fault::protocol("a server enables push (RFC 9113 6.5.2)"));
            }
            ENABLE_PUSH => self.enable_push = value == 1,
            MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
            INITIAL_WINDOW_SIZE if value > WINDOW_MAX => {
                return Err(Fault::flow("INITIAL_WINDOW_SIZE is above 2^31-1 (RFC 9113 6.5.2)"));
            }
            INITIAL_WINDOW_SIZE => self.initial_window_size = value,
            MAX_FRAME_SIZE if !(FRAME_SIZE_DEFAULT..1 << 24).contains(&value) => {
                return Err(Fault::protocol("MAX_FRAME_SIZE is out of its range (RFC 9113 6.5.2)"));
            }
            MAX_FRAME_SIZE => self.max_frame_size = value,
            MAX_HEADER_LIST_SIZE => self.max_header_list_size = value,
            ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(Fault::protocol("ENABLE_CONNECT_PROTOCOL is neither 0 nor 1 (RFC 8441 3)"));
            }
            ENABLE_CONNECT_PROTOCOL if self.enable_connect_protocol && value == 0 => {
                return Err(Fault::protocol("ENABLE_CONNECT_PROTOCOL is taken back (RFC 8441 3)"));
            }
            ENABLE_CONNECT_PROTOCOL => self.enable_connect_protocol = value == 1,
            NO_RFC7540_PRIORITIES if value > 1 => {
                return Err(Fault::protocol("NO_RFC7540_PRIORITIES is neither 0 nor 1 (RFC 9218 2.1)"));
            }
            NO_RFC7540_PRIORITIES => self.no_rfc7540_priorities = value == 1,
            _ => {}
        }
        Ok(())
    }
}

/// Writes a SETTINGS frame of at most eight entries.
pub fn put_settings(out: &mut Vec<u8>, entries: &[(u16, u32)]) {
    let mut payload = [0; 6 * ENTRIES_MAX];
    let (chunks, _) = payload.as_chunks_mut::<6>();
    let mut count = 0;
    for ((id, value), chunk) in entries.iter().zip(chunks) {
        chunk[..2].copy_from_slice(&id.to_be_bytes());
        chunk[2..].copy_from_slice(&value.to_be_bytes());
        count += 1;
    }
    frame::put(out, Kind::Settings, 0, 0, &payload[..6 * count]);
}

/// Entries that we ever send.
const ENTRIES_MAX: usize = 8;

/// RFC 9113 §6.9.1, §6.9.2.
pub const WINDOW_DEFAULT: u32 = 65_535;
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// RFC 9113 §6.5.2. We never ask for more: larger frames only hold up what has a higher priority.
pub const FRAME_SIZE_DEFAULT: u32 = 16_384;

pub const HEADER_TABLE_SIZE: u16 = 0x1;
pub const ENABLE_PUSH: u16 = 0x2;
pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
pub const MAX_FRAME_SIZE: u16 = 0x5;
pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
pub const NO_RFC7540_PRIORITIES: u16 = 0x9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::ErrorCode;

    fn apply(entries: &[(u16, u32)], by_server: bool) -> Result<PeerSettings, ErrorCode> {
        let mut frame = Vec::new();
        put_settings(&mut frame, entries);
        let mut settings = PeerSettings::INITIAL;
        settings.apply(&frame[frame::FrameHead::LEN..], by_server).map(|_| settings).map_err(|fault| fault.code)
    }

    #[test]
    fn rfc9113_6_5_2_values() {
        let (protocol, flow) = (Err(ErrorCode::PROTOCOL_ERROR), Err(ErrorCode::FLOW_CONTROL_ERROR));
        for (id, value, by_server, expected) in [
            (ENABLE_PUSH, 0, true, Ok(())),
            (ENABLE_PUSH, 1, true, protocol),
            (ENABLE_PUSH, 1, false, Ok(())),
            (ENABLE_PUSH, 2, false, protocol),
            (INITIAL_WINDOW_SIZE, WINDOW_MAX, false, Ok(())),
            (INITIAL_WINDOW_SIZE, WINDOW_MAX + 1, false, flow),
            (MAX_FRAME_SIZE, 16_383, false, protocol),
            (MAX_FRAME_SIZE, 16_384, false, Ok(())),
            (MAX_FRAME_SIZE, (1 << 24) - 1, false, Ok(())),
            (MAX_FRAME_SIZE, 1 << 24, false, protocol),
            (ENABLE_CONNECT_PROTOCOL, 2, true, protocol),
            (NO_RFC7540_PRIORITIES, 2, false, protocol),
            (0x7, u32::MAX, false, Ok(())),
            (0xffff, u32::MAX, true, Ok(())),
        ] {
            assert_eq!(apply(&[(id, value)], by_server).map(|_| ()), expected, "{id:#x} {value}");
        }
        assert_eq!(
            apply(&[(ENABLE_CONNECT_PROTOCOL, 1), (ENABLE_CONNECT_PROTOCOL, 0)], true),
            Err(ErrorCode::PROTOCOL_ERROR)
        );
    }

    #[test]
    fn rfc9113_6_5_3_entries_are_taken_in_their_order() {
        let settings =
            apply(&[(MAX_CONCURRENT_STREAMS, 1), (HEADER_TABLE_SIZE, 0), (MAX_CONCURRENT_STREAMS, 7)], true).unwrap();
        assert_eq!((settings.max_concurrent_streams, settings.header_table_size), (7, 0));
        assert_eq!(apply(&[], false), Ok(PeerSettings::INITIAL));
    }
}
