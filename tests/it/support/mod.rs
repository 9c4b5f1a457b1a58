//! What the tests share: an instance of the real server, a private clamd, and real clients.

pub(crate) mod clamd;
pub(crate) mod clients;
pub(crate) mod disk;
pub(crate) mod http;
pub(crate) mod instance;
pub(crate) mod orders;
pub(crate) mod postgres;
pub(crate) mod receiver;
pub(crate) mod smtp;
pub(crate) mod tls;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A folder that goes with its test.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let unique = format!("ptportal-{name}-{}-{:x}", std::process::id(), random());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A failed test may have left a process that writes there; nothing to do about it here.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A number that differs between tests of one process and between runs.
pub(crate) fn random() -> u64 {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// Bytes that do not compress and can be made again from their seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Waits for something to become true; the limit only ends a test that has failed already.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// The standard test virus, built at run time so that no scanner takes this file for it.
pub(crate) fn eicar() -> Vec<u8> {
    hex::decode(concat!(
        "58354f2150254041505b345c505a58353428505e2937434329377d24",
        "45494341522d5354414e444152442d414e544956495255532d544553542d46494c452124482b482a"
    ))
    .unwrap()
}

/// A signature of our own that stands anywhere in a file.
pub(crate) const MARKER: &[u8] = b"PTPORTAL-TEST-MARKER-7f3a9c51e8";
