//! Passwords: argon2id, gated, with a short memory of positive checks.
//!
//! One check costs about 16 ms and 19 MiB; without a gate 64 logins at once took 4.3 GiB. Clients open many
//! parallel connections, so a positive check is remembered for 5 minutes as an HMAC under a key of this process.
//! The remembered key includes the stored hash and the account's version, so any change ends it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

const REMEMBERED: Duration = Duration::from_secs(300);
const REMEMBERED_MAX: usize = 10_000;
/// Longer passwords cannot have been set: 128 characters of at most 4 bytes.
const BYTES_MAX: usize = 512;
/// A wrong password is never answered later than this because of others.
const SLOWEST_MAX: Duration = Duration::from_secs(3);
/// A new password waits this long behind logins.
const HASH_WAIT: Duration = Duration::from_secs(20);
/// Checks that run at once.
const PERMITS: usize = 2;

/// Letters and digits that are not mixed up on paper.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const SUGGESTED: usize = 20;

/// Whether a text has the form of a suggestion.
#[must_use]
pub fn is_suggestion(text: &str) -> bool {
    text.len() == SUGGESTED && text.bytes().all(|byte| LETTERS.contains(&byte))
}

/// 20 letters and digits that are not mixed up on paper: what a page suggests.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn suggestion() -> anyhow::Result<String> {
    let mut random = [0u8; SUGGESTED];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    let letter = |byte: u8| LETTERS.get(usize::from(byte & 31)).copied().map_or('x', char::from);
    Ok(random.into_iter().map(letter).collect())
}

/// Why a hash of another system is not taken.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn importable(hash: &str) -> Result<(), String> {
    let too_dear =
        |what: &str| Err(format!("{what} would make each login too slow; take a new password"));
    if hash.starts_with("$2a$") || hash.starts_with("$2b$") || hash.starts_with("$2y$") {
        let parts =
            hash.parse::<bcrypt::HashParts>().map_err(|e| format!("not a bcrypt hash: {e}"))?;
        return if parts.get_cost() > 14 { too_dear("its cost") } else { Ok(()) };
    }
    if let Some(rest) = hash.strip_prefix("$6$") {
        let (rounds, rest) = match rest.strip_prefix("rounds=").and_then(|r| r.split_once('$')) {
            Some((rounds, rest)) => (rounds.parse::<u32>().ok(), rest),
            None => (Some(5000), rest),
        };
        let is_crypt = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/';
        let is_whole = rest.split_once('$').is_some_and(|(salt, digest)| {
            salt.len() <= 16
                && digest.len() == 86
                && salt.chars().chain(digest.chars()).all(is_crypt)
        });
        return match rounds {
            Some(1_000_001..) => too_dear("its rounds"),
            Some(1000..) if is_whole => Ok(()),
            Some(_) | None => Err("not a sha512-crypt hash".to_owned()),
        };
    }
    if hash.starts_with("$argon2") {
        let parsed = PasswordHash::new(hash).map_err(|e| format!("not an argon2 hash: {e}"))?;
        let parameters =
            Params::try_from(&parsed).map_err(|e| format!("not an argon2 hash: {e}"))?;
        if parsed.salt.is_none() || parsed.hash.is_none() {
            return Err("not a whole argon2 hash".to_owned());
        }
        let is_dear = parameters.m_cost() > 262_144 || parameters.t_cost() > 10;
        return if is_dear { too_dear("its parameters") } else { Ok(()) };
    }
    Err("is not a hash that is known; bcrypt ($2b$), sha512-crypt ($6$) and argon2 ($argon2id$) are".to_owned())
}

/// Whether a hash is of another kind than ours, so that the next login replaces it.
#[must_use]
pub fn is_outdated(hash: &str) -> bool {
    !hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
}

/// The gate in front of argon2id.
pub struct Passwords {
    permits: Arc<Semaphore>,
    /// The working memory of each permit, kept: freed and taken anew by changing threads it would add up.
    memory: Arc<Mutex<Vec<Memory>>>,
    slowest_ms: AtomicU64,
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
            memory: Arc::default(),
            slowest_ms: AtomicU64::new(0),
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
        let began = Instant::now();
        let is_too_long = password.len() > BYTES_MAX;
        // What nobody can have set costs as much as any other wrong one, whatever hash it is for.
        let stored = stored.filter(|_| !is_too_long);
        let password = if is_too_long { "" } else { password };
        let hash = stored.map_or_else(|| self.decoy.clone(), |(hash, _)| hash.to_owned());
        let normal: String = password.nfc().collect();
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return false };
        let memory = Arc::clone(&self.memory);
        let is_imported = is_outdated(&hash);
        let checking = Instant::now();
        let check = move || with_memory(&memory, |memory| verify(&hash, &normal, memory));
        let checked = tokio::task::spawn_blocking(check).await;
        if is_imported {
            self.note_slow(checking.elapsed());
        }
        drop(permit);
        let right = checked.unwrap_or(false) && stored.is_some();
        if right {
            self.remember(key);
        } else {
            // Imported hashes take longer to check; a wrong password for any name, or none, then takes as long.
            tokio::time::sleep(self.slowest().saturating_sub(began.elapsed())).await;
        }
        right
    }

    fn note_slow(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.slowest_ms.fetch_max(millis, Ordering::Relaxed);
    }

    /// The longest check of an imported hash so far.
    fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest_ms.load(Ordering::Relaxed)).min(SLOWEST_MAX)
    }

    /// Hashes a new password behind the same gate.
    ///
    /// # Errors
    /// When the gate stays closed for 20 s, or there are no random bytes.
    pub async fn hash(&self, normal: String) -> anyhow::Result<String> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let Ok(Ok(_permit)) = tokio::time::timeout(HASH_WAIT, permit).await else {
            anyhow::bail!("too many logins at this moment; try again in a minute");
        };
        let memory = Arc::clone(&self.memory);
        let make = move || with_memory(&memory, |memory| hash_in(&normal, memory));
        tokio::task::spawn_blocking(make).await?
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

/// What one hash works in.
type Memory = Vec<Block>;

/// Lends the memory of a permit. A panic in `work` loses it, and the next one is made anew.
fn with_memory<T>(all: &Mutex<Vec<Memory>>, work: impl FnOnce(&mut Memory) -> T) -> T {
    let taken = all.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut memory = taken.unwrap_or_default();
    let done = work(&mut memory);
    // An imported hash may have wanted more; that much is not kept.
    memory.truncate(usize::try_from(MEMORY_KIB).unwrap_or(0));
    memory.shrink_to_fit();
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < PERMITS {
        all.push(memory);
    }
    done
}

/// Blocks of 1 KiB: 19 MiB.
const MEMORY_KIB: u32 = 19_456;

fn parameters() -> anyhow::Result<Params> {
    Params::new(MEMORY_KIB, 2, 1, Some(32)).map_err(|e| anyhow::anyhow!("argon2: {e}"))
}

fn grow(memory: &mut Memory, blocks: usize) {
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
}

/// Hashes a password: argon2id, m = 19 MiB, t = 2, p = 1, a fresh salt, as PHC string. Takes about 16 ms.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn hash(password: &str) -> anyhow::Result<String> {
    hash_in(password, &mut Memory::new())
}

fn hash_in(password: &str, memory: &mut Memory) -> anyhow::Result<String> {
    let wrong = |e: &dyn std::fmt::Display| anyhow::anyhow!("argon2: {e}");
    let mut salt = [0u8; 16];
    getrandom::fill(&mut salt).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    let parameters = parameters()?;
    grow(memory, parameters.block_count());
    let mut out = [0u8; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters.clone())
        .hash_password_into_with_memory(password.as_bytes(), &salt, &mut out, memory.as_mut_slice())
        .map_err(|e| wrong(&e))?;
    let phc = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&parameters).map_err(|e| wrong(&e))?,
        salt: Some(Salt::new(&salt).map_err(|e| wrong(&e))?),
        hash: Some(Output::new(&out).map_err(|e| wrong(&e))?),
    };
    Ok(phc.to_string())
}

fn verify(stored: &str, password: &str, memory: &mut Memory) -> bool {
    if stored.starts_with("$2") {
        return bcrypt::verify(password, stored).unwrap_or(false);
    }
    if stored.starts_with("$6$") {
        use argon2::password_hash::PasswordVerifier;
        return sha_crypt::ShaCrypt::default().verify_password(password.as_bytes(), stored).is_ok();
    }
    verify_argon2(stored, password, memory).unwrap_or(false)
}

/// None for a hash that does not read.
fn verify_argon2(stored: &str, password: &str, memory: &mut Memory) -> Option<bool> {
    let phc = PasswordHash::new(stored).ok()?;
    let algorithm = Algorithm::try_from(phc.algorithm.as_str()).ok()?;
    let version = phc.version.map_or(Ok(Version::V0x13), Version::try_from).ok()?;
    let parameters = Params::try_from(&phc).ok()?;
    let expected = phc.hash?;
    grow(memory, parameters.block_count());
    let mut out = vec![0u8; expected.len()];
    Argon2::new(algorithm, version, parameters)
        .hash_password_into_with_memory(
            password.as_bytes(),
            phc.salt.as_ref()?.as_ref(),
            &mut out,
            memory.as_mut_slice(),
        )
        .ok()?;
    // Compares in constant time.
    Some(Output::new(&out).ok()? == expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::password;

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
    fn a_suggestion_is_always_acceptable() {
        for _ in 0..50 {
            let suggestion = suggestion().unwrap();
            assert!(is_suggestion(&suggestion));
            assert_eq!(password::acceptable(("acme", &[]), &suggestion).as_ref(), Ok(&suggestion));
        }
    }

    #[test]
    fn hashes_of_other_systems_are_verified_and_replaced() {
        let password = "Kennwort von früher";
        let bcrypt = bcrypt::hash(password, 4).unwrap();
        let sha512 = "$6$rounds=5000$saltsaltsalt$";
        assert!(importable(sha512).is_err());
        for hash in [bcrypt.as_str(), &hash(password).unwrap()] {
            importable(hash).unwrap();
            let mut memory = Memory::new();
            assert!(verify(hash, password, &mut memory), "{hash}");
            assert!(!verify(hash, "etwas anderes", &mut memory), "{hash}");
        }
        assert!(is_outdated(&bcrypt) && !is_outdated(&hash(password).unwrap()));
        let dear = "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for bad in [
            "",
            "md5",
            "$1$x$y",
            "$2b$31$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234",
            dear,
        ] {
            assert!(importable(bad).is_err(), "{bad}");
        }
    }
}
