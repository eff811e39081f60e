//! How urgent a response is, in the client's words (RFC 9218): the Priority field, and PRIORITY_UPDATE's payload.

/// RFC 9218 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority {
    /// 0, the most urgent, to 7.
    pub urgency: u8,
    /// Useful before it is complete: shares the connection with its like instead of waiting for them.
    pub incremental: bool,
}

impl Priority {
    /// How many urgencies there are.
    pub const LEVELS: usize = 8;

    /// A Structured Fields dictionary (RFC 8941 §3.2), of which `u` and `i` are understood. What is out of range or of another type is
    /// ignored (RFC 9218 §4), and so is everything from the first thing on that is no dictionary: a priority is a wish, not a promise.
    pub fn parse(field: &[u8]) -> Self {
        let mut priority = Self::default();
        for member in field.split(|&byte| byte == b',').take(MEMBERS_MAX) {
            let member = member.trim_ascii();
            let bare = member.split(|&byte| byte == b';').next().unwrap_or(&[]).trim_ascii();
            match bare {
                [b'u', b'=', digit @ b'0'..=b'7'] => priority.urgency = digit - b'0',
                b"i" | b"i=?1" => priority.incremental = true,
                b"i=?0" => priority.incremental = false,
                _ => {}
            }
        }
        priority
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgency: 3, incremental: false }
    }
}

/// Members that are looked at; two are defined.
const MEMBERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9218_4_fields() {
        for (field, urgency, incremental) in [
            ("", 3, false),
            ("u=0", 0, false),
            ("u=5, i", 5, true),
            ("i,u=7", 7, true),
            ("i=?1", 3, true),
            ("i=?0", 3, false),
            ("i, i=?0", 3, false),
            ("u=1, u=2", 2, false),
            ("u=1;x=2, i;y", 1, true),
            ("u=8", 3, false),
            ("u=-1", 3, false),
            ("u=1.0", 3, false),
            ("u=\"1\"", 3, false),
            ("i=1", 3, false),
            ("x=1, u=4,, ", 4, false),
            ("U=1, I", 3, false),
        ] {
            assert_eq!(Priority::parse(field.as_bytes()), Priority { urgency, incremental }, "{field}");
        }
    }

    #[test]
    fn any_bytes_are_some_priority() {
        for seed in 0..5_000_u32 {
            let bytes: Vec<u8> =
                (0..seed % 30).map(|at| b"ui=?01789,; \xff"[(seed * 31 + at * at * 7) as usize % 13]).collect();
            assert!(Priority::parse(&bytes).urgency < 8);
        }
    }
}
