//! Moments as certificates and logs name them.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted: what a log's timestamp is (RFC 6962 §3.2).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(i64);

impl Time {
    /// Times beyond the year 292 million are that year's.
    #[must_use]
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    #[must_use]
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn unix(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole days from here to `later`, rounded down: less than a day is 0, a second too late −1.
    #[must_use]
    pub const fn days_until(self, later: Self) -> i64 {
        later.0.saturating_sub(self.0).div_euclid(DAY_MS)
    }

    /// Seconds from here to `later`.
    #[must_use]
    pub const fn seconds_until(self, later: Self) -> i64 {
        later.0.saturating_sub(self.0).div_euclid(1000)
    }

    /// Reads `2026-11-22T10:00:00Z` (RFC 3339).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().map(|time| Self::from_unix(time.unix_timestamp()))
    }
}

/// `2026-11-22 10:00:00 UTC`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.unix()) {
            Err(_) => write!(f, "{} s after 1970", self.unix()),
            Ok(time) => {
                let (hour, minute, second) = time.to_hms();
                let (year, month, day) = time.to_calendar_date();
                write!(f, "{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", u8::from(month))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_there_and_back() {
        let time = Time::parse("2026-11-22T10:00:07Z").unwrap();
        assert_eq!((time.unix(), time.to_string().as_str()), (1_795_341_607, "2026-11-22 10:00:07 UTC"));
        assert_eq!(Time::parse("2026-11-22T11:00:07+01:00"), Some(time));
        assert_eq!(Time::from_unix_ms(u64::MAX).to_string(), "9223372036854775 s after 1970");
        for text in ["", "2026-11-22", "2026-13-22T10:00:00Z", "yesterday"] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    #[test]
    fn days_are_whole_ones() {
        let now = Time::from_unix(1_000_000);
        for (later, days) in [(0, 0), (86_399, 0), (86_400, 1), (-1, -1), (-86_400, -1), (-86_401, -2)] {
            assert_eq!(now.days_until(Time::from_unix(1_000_000 + later)), days, "{later}");
        }
    }
}
