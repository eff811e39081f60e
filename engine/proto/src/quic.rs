//! Where the frames of a QUIC packet end (RFC 9000 §12.4, §19), read by somebody who does nothing else with them.
//!
//! Some senders fill their packets: to have them of one length, as the kernel's segmentation offload wants them, or so that nobody sees how much they say.
//! What fills them means nothing, and is a frame a byte.

use crate::h3::frame::read_integer;

/// Zeros are looked for so many at a time.
const STEP: usize = 16;

/// Where the frames of a decrypted payload end: from there on it is PADDING (RFC 9000 §19.1). That is its end where it has less than 16 bytes of padding
/// there, or has a frame that is not known or not whole.
#[must_use]
pub fn frames_end(payload: &[u8]) -> usize {
    let zeros = payload.rchunks_exact(STEP).take_while(|step| step.iter().all(|&byte| byte == 0)).count() * STEP;
    if zeros == 0 {
        return payload.len();
    }
    let mut rest = Rest(payload);
    while rest.0.len() > zeros {
        if rest.pass_frame().is_none() {
            return payload.len();
        }
    }
    payload.len() - rest.0.len()
}

/// What has not been read of a payload.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// `None`: a frame of something else than QUIC version 1 with datagrams (RFC 9221), or one that is cut off.
    fn pass_frame(&mut self) -> Option<()> {
        let (&kind, rest) = self.0.split_first()?;
        self.0 = rest;
        match kind {
            // PADDING, PING, HANDSHAKE_DONE
            0x00 | 0x01 | 0x1e => Some(()),
            // ACK, and with counts of ECN
            0x02 | 0x03 => {
                self.pass_integers(2)?;
                let ranges = self.integer()?;
                let counts = if kind == 0x03 { 3 } else { 0 };
                self.pass_integers(ranges.checked_mul(2)?.checked_add(1 + counts)?)
            }
            // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED, RETIRE_CONNECTION_ID
            0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => self.pass_integers(1),
            // STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED
            0x05 | 0x11 | 0x15 => self.pass_integers(2),
            // RESET_STREAM
            0x04 => self.pass_integers(3),
            // PATH_CHALLENGE, PATH_RESPONSE
            0x1a | 0x1b => self.pass_bytes(8),
            // NEW_CONNECTION_ID
            0x18 => {
                self.pass_integers(2)?;
                let length = *self.0.first()?;
                self.pass_bytes(1 + usize::from(length) + 16)
            }
            // NEW_TOKEN, DATAGRAM with a length
            0x07 | 0x31 => self.pass_measured(),
            // CRYPTO, CONNECTION_CLOSE of the application
            0x06 | 0x1d => self.pass_integers(1).and_then(|()| self.pass_measured()),
            // CONNECTION_CLOSE
            0x1c => self.pass_integers(2).and_then(|()| self.pass_measured()),
            // STREAM, which may have an offset and a length
            0x08..=0x0f => {
                self.pass_integers(if kind & 0x04 == 0 { 1 } else { 2 })?;
                if kind & 0x02 == 0 { self.pass_bytes(self.0.len()) } else { self.pass_measured() }
            }
            // DATAGRAM, to the packet's end
            0x30 => self.pass_bytes(self.0.len()),
            _ => None,
        }
    }

    fn integer(&mut self) -> Option<u64> {
        let (value, length) = read_integer(self.0)?;
        self.0 = &self.0[length..];
        Some(value)
    }

    /// However many are said to be there: no more are read than there are bytes.
    fn pass_integers(&mut self, count: u64) -> Option<()> {
        (0..count).try_for_each(|_| self.integer().map(drop))
    }

    fn pass_bytes(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    fn pass_measured(&mut self) -> Option<()> {
        let length = self.integer()?;
        self.pass_bytes(usize::try_from(length).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind whose end can be told, and most of them end in zeros.
    const FRAMES: [&[u8]; 24] = [
        &[0x01],
        &[0x02, 0x0a, 0x00, 0x00, 0x00],
        &[0x02, 0x4a, 0x00, 0x40, 0x00, 0x01, 0x00, 0x00, 0x00],
        &[0x03, 0x0a, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00],
        &[0x04, 0x00, 0x00, 0x00],
        &[0x05, 0x00, 0x00],
        &[0x06, 0x00, 0x05, 0x01, 0x00, 0x00, 0x00, 0x00],
        &[0x07, 0x02, 0x07, 0x00],
        &[0x0a, 0x00, 0x03, 0x00, 0x00, 0x00],
        &[0x0f, 0x00, 0x40, 0x00, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x10, 0x80, 0x00, 0x00, 0x00],
        &[0x11, 0x04, 0x00],
        &[0x12, 0x00],
        &[0x13, 0x00],
        &[0x14, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
        &[0x15, 0x00, 0x00],
        &[0x16, 0x00],
        &[0x17, 0x00],
        &[0x18, 0x01, 0x00, 0x04, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x19, 0x00],
        &[0x1a, 1, 2, 3, 4, 5, 0, 0, 0],
        &[0x1c, 0x00, 0x00, 0x00],
        &[0x1d, 0x00, 0x00],
        &[0x31, 0x02, 0x00, 0x00],
    ];

    fn filled(frames: &[u8], zeros: usize) -> Vec<u8> {
        [frames, &vec![0; zeros]].concat()
    }

    #[test]
    fn frames_end_where_only_padding_is_left() {
        for first in FRAMES {
            for second in FRAMES {
                for between in [0, 1, 40] {
                    let frames = [&filled(first, between), second].concat();
                    let end = frames_end(&filled(&frames, 1_000));
                    // What may be a frame's own zeros is, and a few of padding may stay.
                    assert!(end >= frames.len(), "{first:x?} {between} {second:x?}");
                    assert!(end < frames.len() + STEP, "{first:x?} {between} {second:x?}: {end}");
                }
            }
        }
        assert_eq!(frames_end(&filled(FRAMES[9], 1_000)), FRAMES[9].len(), "content of zeros");
    }

    #[test]
    fn what_has_no_padding_is_left_alone() {
        for frame in FRAMES {
            assert_eq!(frames_end(frame), frame.len());
        }
        assert_eq!(frames_end(&[]), 0);
        assert_eq!(frames_end(&[0; 15]), 15);
        assert_eq!(frames_end(&[0; 1_200]), 0);
    }

    /// A stream, or a datagram, without a length goes to the end.
    #[test]
    fn content_of_zeros_is_no_padding() {
        for head in [&[0x08, 0x04][..], &[0x0c, 0x04, 0x40, 0x40], &[0x0d, 0x04, 0x01], &[0x30]] {
            assert_eq!(frames_end(&filled(head, 1_000)), head.len() + 1_000);
        }
        assert_eq!(frames_end(&filled(&[0x0a, 0x04, 0x43, 0xe8], 1_000)), 1_004);
    }

    #[test]
    fn what_is_not_known_or_not_whole_is_left_alone() {
        for frame in [
            // Of extensions, and a kind in more bytes than it needs.
            &[0x21, 0x05][..],
            &[0x40, 0x01],
            // Ranges that cannot be there.
            &[0x02, 0x0a, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x02, 0x0a, 0x00, 0x44, 0x00],
            // Content that is not there.
            &[0x06, 0x00, 0x47, 0xff, 0x01],
            &[0x0a, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(frames_end(&filled(frame, 1_000)), frame.len() + 1_000, "{frame:x?}");
        }
    }
}
