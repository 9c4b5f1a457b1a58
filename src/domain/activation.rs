//! The token in an activation link: 256 random bits as base64url, stored only as their SHA-256 (spec section 11).

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

/// Links of one account that are good at the same time; the oldest gives way.
pub const ALIVE_MAX: i64 = 3;

/// A secret that stands in a link, a cookie or an API client's configuration. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// From the operating system's random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(BASE64URL_NOPAD.encode(&bytes))
    }

    /// Takes what stands in a link; anything that we cannot have made is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is stored. No salt and no slow hash: nobody guesses 256 bits.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_bytes()))
    }

    /// A second secret that follows from this one, for forms.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> String {
        let mut hasher = Sha256::new();
        hasher.update(purpose.as_bytes());
        hasher.update([0]);
        hasher.update(self.0.as_bytes());
        BASE64URL_NOPAD.encode(&hasher.finalize())
    }
}

/// What a link is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    Good,
    Expired,
    Used,
    /// Never made, or its account may not be used: told the same.
    Unknown,
}

impl LinkState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::Unknown => "unknown",
        }
    }
}

/// Clocks may go back; a link that is from the future is as good as expired.
const CLOCK_SLACK_MS: i64 = 5 * 60 * 1000;

/// Decides about a link that is known. Times in Unix milliseconds, 0 for never.
#[must_use]
pub fn link_state((created, expires, used): (i64, i64, i64), now: i64) -> LinkState {
    if used != 0 {
        LinkState::Used
    } else if now >= expires || now.saturating_add(CLOCK_SLACK_MS) < created {
        LinkState::Expired
    } else {
        LinkState::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_nothing_else_is_one() {
        let token = Token::from_random([7; 32]);
        assert_eq!(token.as_str().len(), 43);
        assert_eq!(Token::parse(token.as_str()), Some(token.clone()));
        assert_eq!(token.hash().len(), 64);
        assert_ne!(token.derived("a"), token.derived("b"));
        assert_eq!(format!("{token:?}"), "Token(…)");
        for bad in ["", "x", "../../etc/passwd", &"A".repeat(42), &"A".repeat(44), &"ä".repeat(43)]
        {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_link_is_good_until_it_expires_or_is_used() {
        let minute = 60_000;
        let created = 1_000 * minute;
        let expires = created + 30 * minute;
        let state = |used, now| link_state((created, expires, used), now);
        assert_eq!(state(0, created), LinkState::Good);
        assert_eq!(state(0, expires - 1), LinkState::Good);
        assert_eq!(state(0, expires), LinkState::Expired);
        assert_eq!(state(created + 1, created + 2), LinkState::Used);
        assert_eq!(state(created + 1, expires + 1), LinkState::Used);
        assert_eq!(state(0, created - 6 * minute), LinkState::Expired, "the clock went back");
    }
}
