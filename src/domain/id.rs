//! Ids of rows and of content in the vault: ULIDs as text (26 characters of Crockford's base 32).

use std::fmt;

/// An id that we made ourselves, sortable by time.
///
/// Invariant: exactly 26 characters of `0-9A-Z`, so it is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

/// Crockford's alphabet (the ULID specification).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Id {
    /// Builds an id from the time in Unix milliseconds and 80 random bits.
    #[must_use]
    pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut value: u128 = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
        for (i, byte) in (0u32..).zip(random) {
            value |= u128::from(byte) << (8u32.saturating_mul(i));
        }
        let text = (0u32..26)
            .rev()
            .map(|place| {
                let digit = (value >> (5u32.saturating_mul(place))) & 0x1f;
                let index = usize::try_from(digit).unwrap_or(0);
                char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
            })
            .collect();
        Self(text)
    }

    /// Takes an id as it stands in a row or on a command line.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let fits = upper.len() == 26 && upper.bytes().all(|b| ALPHABET.contains(&b));
        fits.then_some(Self(upper))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The two characters that name the vault folder; from the random part, so folders fill evenly.
    #[must_use]
    pub fn shard(&self) -> &str {
        self.0.get(24..26).unwrap_or("00")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let early = Id::from_parts(1_700_000_000_000, [0xff; 10]);
        let late = Id::from_parts(1_700_000_000_001, [0; 10]);
        assert!(early < late);
        assert_eq!(Id::parse(early.as_str()), Some(early.clone()));
        assert_eq!(early.as_str().len(), 26);
        assert_eq!(Id::parse("../../etc/passwd"), None);
    }
}
