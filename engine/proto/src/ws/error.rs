//! What a sender can do wrong, and the code that answers it (RFC 6455 §7.4).

use std::fmt;

/// A status code as it stands in a Close frame. Codes that nobody registered are kept as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    pub const NORMAL: Self = Self(1000);
    pub const GOING_AWAY: Self = Self(1001);
    pub const PROTOCOL_ERROR: Self = Self(1002);
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// What a Close without a code means (RFC 6455 §7.1.5); never on the wire.
    pub const NO_STATUS: Self = Self(1005);
    /// The connection ended without a Close (RFC 6455 §7.1.5); never on the wire.
    pub const ABNORMAL: Self = Self(1006);
    pub const INVALID_PAYLOAD: Self = Self(1007);
    pub const POLICY_VIOLATION: Self = Self(1008);
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    pub const INTERNAL_ERROR: Self = Self(1011);
    pub const SERVICE_RESTART: Self = Self(1012);
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    pub const BAD_GATEWAY: Self = Self(1014);

    /// Whether a Close frame may carry it (RFC 6455 §7.4): those of the RFC and of IANA's registry, and the ranges left to libraries and
    /// applications. What stands below 3000 without a meaning is kept for later versions of the protocol.
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why bytes were refused. The sender is at fault, always: a frame cannot come from anybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// RSV2, RSV3, or an RSV1 that no extension allows here (RFC 6455 §5.2, RFC 7692 §6).
    ReservedBit,
    /// An opcode that no extension defined (RFC 6455 §5.2).
    ReservedOpcode,
    /// A frame of a client's without a masking key (RFC 6455 §5.1).
    Unmasked,
    /// A frame of a server's with one (RFC 6455 §5.1).
    Masked,
    /// A control frame that is a fragment (RFC 6455 §5.5).
    ControlFragmented,
    /// A control frame with more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A length that fewer bytes could have told (RFC 6455 §5.2).
    LengthNotMinimal,
    /// A length beyond 63 bits (RFC 6455 §5.2).
    LengthTooLarge,
    /// A continuation of no message (RFC 6455 §5.4).
    NothingToContinue,
    /// A message that begins within another one (RFC 6455 §5.4).
    Interleaved,
    /// Data, or a second Close, after a Close (RFC 6455 §5.5.1).
    AfterClose,
    /// A Close with half a code (RFC 6455 §5.5.1).
    CloseBody,
    /// A code that must not stand in a Close (RFC 6455 §7.4).
    CloseCode,
    /// The reason of a Close is not UTF-8 (RFC 6455 §5.5.1).
    CloseReason,
    /// A text message is not UTF-8 (RFC 6455 §8.1).
    Text,
    /// A data frame exceeds [`Rules::frame_bytes_max`](super::Rules).
    FrameTooLarge,
    /// A message exceeds [`Rules::message_bytes_max`](super::Rules).
    MessageTooLarge,
}

impl Violation {
    pub const ALL: [Self; 17] = [
        Self::ReservedBit,
        Self::ReservedOpcode,
        Self::Unmasked,
        Self::Masked,
        Self::ControlFragmented,
        Self::ControlTooLong,
        Self::LengthNotMinimal,
        Self::LengthTooLarge,
        Self::NothingToContinue,
        Self::Interleaved,
        Self::AfterClose,
        Self::CloseBody,
        Self::CloseCode,
        Self::CloseReason,
        Self::Text,
        Self::FrameTooLarge,
        Self::MessageTooLarge,
    ];

    /// A word for metrics.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ReservedBit => "reserved-bit",
            Self::ReservedOpcode => "reserved-opcode",
            Self::Unmasked => "unmasked",
            Self::Masked => "masked",
            Self::ControlFragmented => "control-fragmented",
            Self::ControlTooLong => "control-too-long",
            Self::LengthNotMinimal => "length-not-minimal",
            Self::LengthTooLarge => "length-too-large",
            Self::NothingToContinue => "nothing-to-continue",
            Self::Interleaved => "interleaved",
            Self::AfterClose => "after-close",
            Self::CloseBody => "close-body",
            Self::CloseCode => "close-code",
            Self::CloseReason => "close-reason",
            Self::Text => "text",
            Self::FrameTooLarge => "frame-too-large",
            Self::MessageTooLarge => "message-too-large",
        }
    }

    /// The code that tells the sender what it did wrong (RFC 6455 §7.4.1).
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Text | Self::CloseReason => CloseCode::INVALID_PAYLOAD,
            Self::FrameTooLarge | Self::MessageTooLarge => CloseCode::MESSAGE_TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// The rule in words, short enough to be the reason of a Close.
    pub const fn why(self) -> &'static str {
        match self {
            Self::ReservedBit => "a reserved bit is set",
            Self::ReservedOpcode => "the opcode is reserved",
            Self::Unmasked => "a client's frame is not masked",
            Self::Masked => "a server's frame is masked",
            Self::ControlFragmented => "a control frame is fragmented",
            Self::ControlTooLong => "a control frame is too long",
            Self::LengthNotMinimal => "a length is not in its shortest form",
            Self::LengthTooLarge => "a length exceeds 63 bits",
            Self::NothingToContinue => "a continuation of no message",
            Self::Interleaved => "a message within another one",
            Self::AfterClose => "a frame after the Close",
            Self::CloseBody => "a Close with half a code",
            Self::CloseCode => "a Close with a code that must not be sent",
            Self::CloseReason => "the reason of a Close is not UTF-8",
            Self::Text => "a text message is not UTF-8",
            Self::FrameTooLarge => "a frame is too large",
            Self::MessageTooLarge => "a message is too large",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.why())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stand_in_their_order() {
        assert!(Violation::ALL.iter().enumerate().all(|(at, violation)| *violation as usize == at));
    }
}
