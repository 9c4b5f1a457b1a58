//! Wall-clock times as they are stored (Unix milliseconds) and shown (RFC 3339, UTC).

use std::fmt;
use std::time::Duration;

/// A moment of the wall clock in Unix milliseconds. Only stored and shown, never used to measure durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// "Never": how an absent time stands in a row.
    pub const NEVER: Self = Self(0);

    #[must_use]
    pub fn is_never(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Whole seconds since 1970, clamped to what SFTP version 3 carries.
    #[must_use]
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0.div_euclid(1000)).unwrap_or(0)
    }

    /// RFC 3339, or nothing for "never".
    #[must_use]
    pub fn rfc3339(self) -> Option<String> {
        (!self.is_never()).then(|| self.to_string())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0).saturating_mul(1_000_000);
        let shown = time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok());
        f.write_str(shown.as_deref().unwrap_or("out of range"))
    }
}

/// Reads an RFC 3339 time or a date (`YYYY-MM-DD`, midnight UTC).
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    use time::format_description::well_known::Rfc3339;
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let moment = time::OffsetDateTime::parse(&full, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_rfc_3339_and_read_back() {
        assert_eq!(Timestamp(1_764_000_000_123).to_string(), "2025-11-24T16:00:00.123Z");
        assert_eq!(parse("2025-11-24T16:00:00.123Z"), Some(Timestamp(1_764_000_000_123)));
        assert_eq!(parse("2025-11-24"), Some(Timestamp(1_763_942_400_000)));
        assert_eq!(parse("24.11.2025"), None);
        assert_eq!(Timestamp::NEVER.rfc3339(), None);
    }
}
