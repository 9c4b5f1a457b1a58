//! What a file is, apart from its name: length and SHA-256.

use sha2::{Digest, Sha256};

/// The SHA-256 of a whole content, as lower-case hex where it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of a content that is in memory.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        let mut hasher = ContentHasher::default();
        hasher.update(content);
        hasher.finish()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a hash as it stands in a row; an empty column means "not known yet".
    #[must_use]
    pub fn from_row(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }
}

/// Hashes content that arrives in order.
#[derive(Clone)]
pub struct ContentHasher {
    state: Sha256,
    len: u64,
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self { state: Sha256::new(), len: 0 }
    }
}

impl ContentHasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.len = self.len.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
    }

    /// How many bytes were hashed.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn finish(self) -> ContentHash {
        ContentHash(hex::encode(self.state.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256_over_all_pieces() {
        let mut hasher = ContentHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.len(), 3);
        assert_eq!(
            hasher.finish().as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
