//! Host keys: made at the very first start, later never silently anew (spec section 4).

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::RsaKeypair;
use russh::keys::{Algorithm, HashAlg, PrivateKey, key::safe_rng};

const RSA_BITS: usize = 3072;

/// Why the service cannot show who it is.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error(
        "host key {path} is missing although this server had it before: clients would be warned of an attack; restore it from a backup, or remove {memory} to make new keys"
    )]
    Lost { path: PathBuf, memory: PathBuf },
    #[error("host key {path} can be read by others (mode {mode:o}); run chmod 600 {path}")]
    Open { path: PathBuf, mode: u32 },
    #[error("host key {path}: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

fn unusable(path: &Path, reason: impl ToString) -> HostKeyError {
    HostKeyError::Unusable { path: path.to_owned(), reason: reason.to_string() }
}

/// Loads the host keys of `dir`; `memory` (in the data folder) remembers that they were made.
///
/// # Errors
/// A missing key after the first start, a key that others may read, a key that does not load.
pub fn load_or_make(
    dir: &Path,
    memory: &Path,
    legacy: bool,
) -> Result<Vec<PrivateKey>, HostKeyError> {
    let ed25519 = dir.join("ssh_host_ed25519_key");
    let rsa = dir.join("ssh_host_rsa_key");
    let is_first = !memory.exists();
    for path in [&ed25519, &rsa] {
        match (path.exists(), is_first) {
            (true, _) => {}
            (false, true) => make(dir, path)?,
            (false, false) => {
                return Err(HostKeyError::Lost { path: path.clone(), memory: memory.to_owned() });
            }
        }
    }
    let mut keys = vec![load(&ed25519)?, load(&rsa)?];
    let ecdsa = dir.join("ssh_host_ecdsa_key");
    if legacy && ecdsa.exists() {
        keys.push(load(&ecdsa)?);
    }
    if is_first {
        let text: Vec<String> = keys.iter().map(fingerprint).collect();
        write_private(memory, format!("{}\n", text.join("\n")).as_bytes())
            .map_err(|e| unusable(memory, e))?;
    }
    Ok(keys)
}

/// Loads the host keys that are there, for showing fingerprints.
#[must_use]
pub fn fingerprints(dir: &Path) -> Vec<(String, String)> {
    let names = ["ssh_host_ed25519_key", "ssh_host_rsa_key"];
    let loaded = names.iter().filter_map(|name| load(&dir.join(name)).ok());
    loaded.map(|key| (key.algorithm().to_string(), fingerprint(&key))).collect()
}

/// `SHA256:…`, as clients show it.
#[must_use]
pub fn fingerprint(key: &PrivateKey) -> String {
    key.public_key().fingerprint(HashAlg::Sha256).to_string()
}

fn make(dir: &Path, path: &Path) -> Result<(), HostKeyError> {
    crate::vault::make_private_dir(dir).map_err(|e| unusable(dir, e))?;
    let mut rng = safe_rng();
    let key = if path.ends_with("ssh_host_rsa_key") {
        RsaKeypair::random(&mut rng, RSA_BITS).map(PrivateKey::from)
    } else {
        PrivateKey::random(&mut rng, Algorithm::Ed25519)
    };
    let key = key.map_err(|e| unusable(path, e))?;
    let pem = key.to_openssh(LineEnding::LF).map_err(|e| unusable(path, e))?;
    write_private(path, pem.as_bytes()).map_err(|e| unusable(path, e))?;
    let public = key.public_key().to_openssh().map_err(|e| unusable(path, e))?;
    fs::write(path.with_extension("pub"), format!("{public}\n")).map_err(|e| unusable(path, e))?;
    tracing::info!(key = %path.display(), fingerprint = fingerprint(&key), "host key made");
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn load(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let meta = fs::metadata(path).map_err(|e| unusable(path, e))?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(HostKeyError::Open { path: path.to_owned(), mode });
    }
    let key = PrivateKey::read_openssh_file(path).map_err(|e| unusable(path, e))?;
    if key.is_encrypted() {
        return Err(unusable(path, "it has a passphrase; take it off with ssh-keygen -p"));
    }
    Ok(key)
}
