//! Settings: what each end asks of the other, once (RFC 9114 §7.2.4).

use super::error::{ErrorCode, Fault};
use super::frame::{self, INTEGER_MAX, Kind, put_integer, read_integer};
use crate::multiplexed::ledger::SETTINGS_ENTRIES_MAX;

/// What the peer asks of us. It begins with the values that hold before a peer has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    /// RFC 9204 §5.
    pub qpack_max_table_capacity: u64,
    pub qpack_blocked_streams: u64,
    pub max_field_section_size: u64,
    /// RFC 9220 §3.
    pub enable_connect_protocol: bool,
    /// RFC 9297 §2.1.1.
    pub datagrams: bool,
}

impl PeerSettings {
    pub const INITIAL: Self = Self {
        qpack_max_table_capacity: 0,
        qpack_blocked_streams: 0,
        max_field_section_size: INTEGER_MAX,
        enable_connect_protocol: false,
        datagrams: false,
    };

    /// Takes in a payload.
    ///
    /// # Errors
    /// An error of the connection.
    pub fn apply(&mut self, mut payload: &[u8]) -> Result<(), Fault> {
        let mut seen = [0; SETTINGS_ENTRIES_MAX as usize];
        let mut count = 0;
        while !payload.is_empty() {
            let (id, value) = take_entry(&mut payload)
                .ok_or(Fault::frame("SETTINGS is not as long as what it holds (RFC 9114 7.1)"))?;
            let Some(place) = seen.get_mut(count) else { return Err(Fault::calm("too many settings in one frame")) };
            *place = id;
            if seen[..count].contains(&id) {
                return Err(settings_error("a setting is told twice (RFC 9114 7.2.4)"));
            }
            count += 1;
            self.set(id, value)?;
        }
        Ok(())
    }

    fn set(&mut self, id: u64, value: u64) -> Result<(), Fault> {
        match id {
            QPACK_MAX_TABLE_CAPACITY => self.qpack_max_table_capacity = value,
            MAX_FIELD_SECTION_SIZE => self.max_field_section_size = value,
            QPACK_BLOCKED_STREAMS => self.qpack_blocked_streams = value,
            ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(settings_error("ENABLE_CONNECT_PROTOCOL is neither 0 nor 1 (RFC 9220 3)"));
            }
            ENABLE_CONNECT_PROTOCOL => self.enable_connect_protocol = value == 1,
            H3_DATAGRAM if value > 1 => return Err(settings_error("H3_DATAGRAM is neither 0 nor 1 (RFC 9297 2.1.1)")),
            H3_DATAGRAM => self.datagrams = value == 1,
            0x0 | 0x2..=0x5 => return Err(settings_error("a setting of HTTP/2 (RFC 9114 7.2.4.1)")),
            _ => {}
        }
        Ok(())
    }
}

fn take_entry(payload: &mut &[u8]) -> Option<(u64, u64)> {
    let (id, first) = read_integer(payload)?;
    let (value, second) = read_integer(&payload[first..])?;
    *payload = &payload[first + second..];
    Some((id, value))
}

const fn settings_error(why: &'static str) -> Fault {
    Fault::new(ErrorCode::SETTINGS_ERROR, why)
}

/// Writes a SETTINGS frame.
pub fn put_settings(out: &mut Vec<u8>, entries: &[(u64, u64)]) {
    let mut payload = Vec::with_capacity(entries.len() * 8);
    for &(id, value) in entries {
        put_integer(id, &mut payload);
        put_integer(value, &mut payload);
    }
    frame::put(out, Kind::Settings, &payload);
}

/// Bytes of a SETTINGS frame that is looked at: as many entries as are taken, of the longest.
pub const SETTINGS_BYTES_MAX: u64 = SETTINGS_ENTRIES_MAX as u64 * 16;

pub const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
pub const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
pub const QPACK_BLOCKED_STREAMS: u64 = 0x7;
pub const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
pub const H3_DATAGRAM: u64 = 0x33;

/// One that means nothing, so that nobody gets used to there being none (RFC 9114 §7.2.4.1).
pub const GREASE: u64 = 0x1f * 0x70656e + 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(entries: &[(u64, u64)]) -> Result<PeerSettings, ErrorCode> {
        let mut payload = Vec::new();
        for &(id, value) in entries {
            put_integer(id, &mut payload);
            put_integer(value, &mut payload);
        }
        let mut settings = PeerSettings::INITIAL;
        settings.apply(&payload).map(|()| settings).map_err(|fault| fault.code)
    }

    #[test]
    fn rfc9114_7_2_4_values() {
        for (entries, expected) in [
            (&[][..], Ok(())),
            (&[(0x1, 0), (0x6, 9), (0x7, 100), (0x8, 1)], Ok(())),
            (&[(0x1, INTEGER_MAX), (GREASE, INTEGER_MAX), (0x33, 1)], Ok(())),
            (&[(0x33, 2)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(0x8, 2)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(0x7, 1), (0x7, 1)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(GREASE, 1), (GREASE, 1)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(0x0, 0)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(0x2, 0)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(0x3, 100)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(0x4, 1)], Err(ErrorCode::SETTINGS_ERROR)),
            (&[(0x5, 1)], Err(ErrorCode::SETTINGS_ERROR)),
        ] {
            assert_eq!(apply(entries).map(|_| ()), expected, "{entries:?}");
        }
        let many: Vec<(u64, u64)> = (0..33).map(|at| (0x100 + at, 0)).collect();
        assert_eq!(apply(&many), Err(ErrorCode::EXCESSIVE_LOAD));
        for cut_off in [&[1][..], &[1, 0x40]] {
            let mut settings = PeerSettings::INITIAL;
            assert_eq!(settings.apply(cut_off).map_err(|fault| fault.code), Err(ErrorCode::FRAME_ERROR));
        }
        assert_eq!(
            apply(&[(0x1, 5), (0x7, 6)]).map(|read| (read.qpack_max_table_capacity, read.qpack_blocked_streams)),
            Ok((5, 6))
        );
    }
}
