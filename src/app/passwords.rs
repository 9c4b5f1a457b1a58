//! Passwords: argon2id, gated, with a short memory of positive checks.
//!
//! One check costs about 16 ms and 19 MiB; without a gate 64 logins at once took 4.3 GiB. Clients open many
//! parallel connections, so a positive check is remembered for 5 minutes as an HMAC under a key of this process.
//! The remembered key includes the stored hash and the account's version, so any change ends it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

const REMEMBERED: Duration = Duration::from_secs(300);
const REMEMBERED_MAX: usize = 10_000;
/// Checks that run at once.
const PERMITS: usize = 2;

/// Why a new password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    #[error("the password has fewer than 12 characters; choose a longer one")]
    TooShort,
    #[error("the password has more than 128 characters; choose a shorter one")]
    TooLong,
    #[error("the password holds control characters; use letters, digits and signs")]
    ControlCharacter,
    #[error("the password is the username; choose another")]
    IsUsername,
    #[error("the password is one of the commonest, or one character repeated; choose another")]
    Common,
}

/// Checks a new password (spec section 11) and brings it into NFC.
///
/// # Errors
/// The reason, for the person who chose it.
pub fn acceptable(username: &str, password: &str) -> Result<String, BadPassword> {
    let normal: String = password.nfc().collect();
    let length = normal.chars().count();
    if length < 12 {
        return Err(BadPassword::TooShort);
    }
    if length > 128 {
        return Err(BadPassword::TooLong);
    }
    if normal.chars().any(char::is_control) {
        return Err(BadPassword::ControlCharacter);
    }
    let folded = normal.to_lowercase();
    if folded == username.to_lowercase() {
        return Err(BadPassword::IsUsername);
    }
    let letters = folded.trim_end_matches(|c: char| c.is_ascii_digit() || "!?.".contains(c));
    let mut distinct: Vec<char> = folded.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 4 || COMMON.contains(&letters) || COMMON.contains(&folded.as_str()) {
        return Err(BadPassword::Common);
    }
    Ok(normal)
}

/// What people choose when twelve characters are asked for (compared without digits and `!?.` at the end).
const COMMON: [&str; 24] = [
    "password",
    "passwort",
    "passwordpassword",
    "passwortpasswort",
    "qwertyuiop",
    "qwertzuiop",
    "qwertyuiopasdf",
    "administrator",
    "iloveyou",
    "letmein",
    "willkommen",
    "hallohallo",
    "schalke",
    "1q2w3e4r5t6z",
    "1q2w3e4r5t6y",
    "q1w2e3r4t5z6",
    "abcdefghijkl",
    "abc",
    "123456789abc",
    "geheimgeheim",
    "sommer",
    "winter",
    "druckerei",
    "ptportal",
];

/// The gate in front of argon2id.
pub struct Passwords {
    permits: Arc<Semaphore>,
    process_key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    /// A hash of nothing, so that an unknown name takes as long as a known one.
    decoy: String,
}

impl Passwords {
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new() -> anyhow::Result<Self> {
        let mut process_key = [0u8; 32];
        getrandom::fill(&mut process_key).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
        Ok(Self {
            permits: Arc::new(Semaphore::new(PERMITS)),
            process_key,
            remembered: Mutex::default(),
            decoy: hash("a decoy that nobody can type\0")?,
        })
    }

    /// Checks a password against a stored PHC string; `None` (no such account, no password) costs the same time
    /// and is never right. `version` is the account's, which rises with every change.
    pub async fn is_right(&self, stored: Option<(&str, i64)>, password: &str) -> bool {
        let key = self.cache_key(stored, password);
        if stored.is_some() && self.remembers(&key) {
            return true;
        }
        let hash = stored.map_or_else(|| self.decoy.clone(), |(hash, _)| hash.to_owned());
        let normal: String = password.nfc().collect();
        let Ok(_permit) = Arc::clone(&self.permits).acquire_owned().await else { return false };
        let checked = tokio::task::spawn_blocking(move || verify(&hash, &normal)).await;
        let right = checked.unwrap_or(false) && stored.is_some();
        if right {
            self.remember(key);
        }
        right
    }

    fn cache_key(&self, stored: Option<(&str, i64)>, password: &str) -> [u8; 32] {
        let (hash, version) = stored.unwrap_or(("", 0));
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.process_key) {
            Ok(mac) => mac,
            Err(_any_length_is_a_key) => return [0; 32],
        };
        mac.update(hash.as_bytes());
        mac.update(&version.to_le_bytes());
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn remembers(&self, key: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(key).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, key: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, at| at.elapsed() < REMEMBERED);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(key, Instant::now());
        }
    }
}

fn argon2id() -> anyhow::Result<Argon2<'static>> {
    let params = Params::new(19_456, 2, 1, None).map_err(|e| anyhow::anyhow!("argon2: {e}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes a password: argon2id, m = 19 MiB, t = 2, p = 1, a fresh salt, as PHC string. Takes about 16 ms.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn hash(password: &str) -> anyhow::Result<String> {
    let hashed = argon2id()?.hash_password(password.as_bytes());
    Ok(hashed.map_err(|e| anyhow::anyhow!("argon2: {e}"))?.to_string())
}

fn verify(stored: &str, password: &str) -> bool {
    use argon2::password_hash::PasswordVerifier;
    argon2id().is_ok_and(|argon2| argon2.verify_password(password.as_bytes(), stored).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_an_existing_account_is_right() {
        let passwords = Passwords::new().unwrap();
        let stored = hash("Ein-langes-Kennwort").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.is_right(Some((&stored, 1)), "Ein-langes-Kennwort").await);
        assert!(passwords.is_right(Some((&stored, 1)), "Ein-langes-Kennwort").await, "remembered");
        assert!(!passwords.is_right(Some((&stored, 1)), "ein-langes-kennwort").await);
        assert!(!passwords.is_right(None, "a decoy that nobody can type\0").await);
        let other = hash("ein anderes Kennwort").unwrap();
        assert!(!passwords.is_right(Some((&other, 2)), "Ein-langes-Kennwort").await);
    }

    #[test]
    fn the_password_policy_of_spec_section_11() {
        let check = |password: &str| acceptable("druckkunde-4711", password).map(|_| ());
        assert_eq!(check("kurz"), Err(BadPassword::TooShort));
        assert_eq!(check(&"äb1-".repeat(33)), Err(BadPassword::TooLong));
        assert_eq!(check("Druckkunde-4711"), Err(BadPassword::IsUsername));
        assert_eq!(check("Passwort123456"), Err(BadPassword::Common));
        assert_eq!(check("aaaaaaaaaaaaaa"), Err(BadPassword::Common));
        assert_eq!(check("zwölf\u{7}Zeichen!"), Err(BadPassword::ControlCharacter));
        assert_eq!(check("zwölf Zeichen sind genug"), Ok(()));
    }
}
