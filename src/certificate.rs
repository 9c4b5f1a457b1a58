//! ADAPTER the server's TLS certificate: PEM files, made when both are missing, read again when they change.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::domain::time::Timestamp;

/// A certificate of our own lasts this long: customers' programs remember it, and nobody is there to renew it.
const LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Fewer days than this left are worth a warning.
pub const WARN_DAYS: i64 = 30;

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct CertificateError {
    path: PathBuf,
    problem: String,
}

fn wrong(path: &Path, problem: impl ToString) -> CertificateError {
    CertificateError { path: path.to_owned(), problem: problem.to_string() }
}

/// What files looked like when they were read.
type Stamp = Option<[(u64, i64, i64, i64, i64); 2]>;

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    validity: Validity,
    stamp: Stamp,
}

/// The certificate that new handshakes get.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    private_key: PathBuf,
    current: RwLock<Current>,
}

/// What an operator wants to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    pub begins: Timestamp,
    pub expires: Timestamp,
    /// Lower case.
    pub names: Vec<String>,
    pub is_self_signed: bool,
    /// SHA-256 in hex with colons, as clients show it.
    pub fingerprint: String,
}

impl Validity {
    /// Whole days until it expires; negative afterwards.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        self.expires.0.saturating_sub(now.0).div_euclid(24 * 3600 * 1000)
    }

    /// Whether it is time for another one: less than a third of its life is left, it does not hold one of the names, or it
    /// is one of our own making.
    #[must_use]
    pub fn wants_renewal(&self, names: &[String], now: Timestamp) -> bool {
        let life = self.expires.0.saturating_sub(self.begins.0);
        let left = self.expires.0.saturating_sub(now.0);
        self.is_self_signed
            || left.saturating_mul(3) < life
            || !names.iter().all(|name| self.names.contains(&name.to_lowercase()))
    }
}

impl Certificate {
    /// Reads the files; makes a self-signed certificate when both are missing.
    ///
    /// # Errors
    /// Files that cannot be read, do not belong together, or a key that everyone may read.
    pub fn load_or_make(
        chain: &Path,
        private_key: &Path,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        if !chain.exists() && !private_key.exists() {
            make(chain, private_key, names, now)?;
        } else if !private_key.exists() && read(chain, &prepared(private_key)).is_ok() {
            finish_making(private_key).map_err(|e| wrong(private_key, e))?;
        }
        let current = RwLock::new(read(chain, private_key)?);
        Ok(Self { chain: chain.to_owned(), private_key: private_key.to_owned(), current })
    }

    /// Reads the files again if they have changed; true when handshakes get another certificate now.
    ///
    /// # Errors
    /// The new files cannot be used: the one before stays. Told once for each change.
    pub fn reload_if_changed(&self) -> Result<bool, CertificateError> {
        let stamp = stamp(&self.chain, &self.private_key);
        if stamp == self.current.read().unwrap_or_else(PoisonError::into_inner).stamp {
            return Ok(false);
        }
        // Read before the lock is taken: handshakes do not wait for the disk.
        let read = read(&self.chain, &self.private_key);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Remembered also when it is of no use: that is told once, and looked at when it changes again.
        current.stamp = stamp;
        *current = read?;
        Ok(true)
    }

    #[must_use]
    pub fn validity(&self) -> Validity {
        self.current.read().unwrap_or_else(PoisonError::into_inner).validity.clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// What lies in the files, without making anything.
///
/// # Errors
/// As [`Certificate::load_or_make`]; nothing when both are missing.
pub fn inspect(chain: &Path, private_key: &Path) -> Result<Option<Validity>, CertificateError> {
    if !chain.exists() && !private_key.exists() {
        return Ok(None);
    }
    Ok(Some(read(chain, private_key)?.validity))
}

fn stamp(chain: &Path, private_key: &Path) -> Stamp {
    let of = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        // The change time too: chmod may be all that was missing.
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
    };
    Some([of(chain)?, of(private_key)?])
}

fn read(chain: &Path, private_key: &Path) -> Result<Current, CertificateError> {
    let stamp = stamp(chain, private_key);
    let pem = fs::read(chain).map_err(|e| wrong(chain, e))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|e| wrong(chain, format!("is not PEM: {e}")))?;
    let leaf = certificates.first().ok_or_else(|| wrong(chain, "holds no certificate"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|e| wrong(chain, format!("is not a certificate: {e}")))?;
    let validity = Validity {
        begins: Timestamp(parsed.validity().not_before.timestamp().saturating_mul(1000)),
        expires: Timestamp(parsed.validity().not_after.timestamp().saturating_mul(1000)),
        names: names_of(&parsed),
        is_self_signed: parsed.subject() == parsed.issuer(),
        fingerprint: fingerprint(leaf),
    };
    let meta = fs::metadata(private_key).map_err(|e| wrong(private_key, e))?;
    if meta.permissions().mode() & 0o007 != 0 {
        return Err(wrong(private_key, "can be read by everyone; run chmod o= on it"));
    }
    let pem = fs::read(private_key).map_err(|e| wrong(private_key, e))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| {
        wrong(private_key, format!("holds no private key without a passphrase: {e}"))
    })?;
    let provider = aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(certificates, key, &provider)
        .map_err(|e| wrong(private_key, format!("does not go with {}: {e}", chain.display())))?;
    Ok(Current { key: Arc::new(key), validity, stamp })
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| {
        if let GeneralName::DNSName(name) = name { Some(name.to_lowercase()) } else { None }
    });
    dns.collect()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate);
    let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

fn make(
    chain: &Path,
    private_key: &Path,
    names: Vec<String>,
    now: Timestamp,
) -> Result<(), CertificateError> {
    for dir in [chain.parent(), private_key.parent()].into_iter().flatten() {
        crate::vault::make_private_dir(dir).map_err(|e| wrong(dir, e))?;
    }
    let unmade = |e: rcgen::Error| wrong(chain, format!("cannot be made: {e}"));
    let date = |at: Timestamp| {
        time::OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000))
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    };
    let common_name = names.first().cloned().unwrap_or_else(|| "ptportal".to_owned());
    let mut params = CertificateParams::new(names).map_err(unmade)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(now.minus(Duration::from_secs(24 * 3600)));
    params.not_after = date(now.plus(LASTS));
    let key = KeyPair::generate().map_err(unmade)?;
    let certificate = params.self_signed(&key).map_err(unmade)?;
    // The key last, and at once: see `finish_making`.
    let prepared = prepared(private_key);
    write(&prepared, key.serialize_pem().as_bytes()).map_err(|e| wrong(&prepared, e))?;
    write(chain, certificate.pem().as_bytes())
        .and_then(|()| fs::set_permissions(chain, fs::Permissions::from_mode(0o644)))
        .map_err(|e| wrong(chain, e))?;
    finish_making(private_key).map_err(|e| wrong(private_key, e))?;
    tracing::warn!(
        certificate = %chain.display(),
        "no certificate was there: a self-signed one is made, which clients must be told to trust; replace it by one of your own"
    );
    Ok(())
}

/// Where a new key lies until its certificate does.
fn prepared(private_key: &Path) -> PathBuf {
    private_key.with_added_extension("new")
}

/// The last step of [`make`], done again by the next start if this one ends before it.
fn finish_making(private_key: &Path) -> std::io::Result<()> {
    let prepared = prepared(private_key);
    write(private_key, &fs::read(&prepared)?)?;
    fs::remove_file(&prepared)
}

/// As a whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    crate::vault::write_private(dir, &name, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_764_000_000_000);

    fn made(dir: &Path) -> Certificate {
        let (chain, key) = (dir.join("server.crt"), dir.join("server.key"));
        Certificate::load_or_make(&chain, &key, vec!["ftp.example".to_owned()], NOW).unwrap()
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ptportal-{name}-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        dir
    }

    #[test]
    fn a_missing_certificate_is_made_and_stays() {
        let dir = scratch("certificate");
        let first = made(&dir).validity();
        assert!(first.is_self_signed);
        assert_eq!(first.days_left(NOW), 3650);
        assert_eq!(first.names, ["ftp.example"]);
        let bought = Validity { is_self_signed: false, ..first.clone() };
        let ours = ["FTP.example".to_owned()];
        assert!(first.wants_renewal(&ours, NOW), "one of our own");
        assert!(!bought.wants_renewal(&ours, NOW));
        assert!(bought.wants_renewal(&["other.example".to_owned()], NOW));
        let late = NOW.plus(LASTS.mul_f64(0.7));
        assert!(bought.wants_renewal(&ours, late));
        let mode = fs::metadata(dir.join("server.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = fs::read(dir.join("server.crt")).unwrap();
        assert_eq!(made(&dir).validity(), first);
        assert_eq!(fs::read(dir.join("server.crt")).unwrap(), bytes);
        // One of the two gone is never made anew in silence: clients would be warned of an attack.
        fs::remove_file(dir.join("server.crt")).unwrap();
        let (chain, key) = (dir.join("server.crt"), dir.join("server.key"));
        assert!(Certificate::load_or_make(&chain, &key, Vec::new(), NOW).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_start_that_ended_between_certificate_and_key_is_made_good() {
        let dir = scratch("half-made");
        let (chain, key) = (dir.join("server.crt"), dir.join("server.key"));
        let first = made(&dir).validity();
        fs::copy(&key, prepared(&key)).unwrap();
        fs::remove_file(&key).unwrap();
        assert_eq!(made(&dir).validity(), first);
        // Before even the certificate was there: both anew.
        fs::remove_file(&chain).unwrap();
        fs::copy(&key, prepared(&key)).unwrap();
        fs::remove_file(&key).unwrap();
        assert_ne!(made(&dir).validity(), first);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_changed_pair_is_taken_and_a_broken_one_is_not() {
        let (dir, other) = (scratch("reload"), scratch("reload-other"));
        let certificate = made(&dir);
        drop(made(&other));
        assert!(!certificate.reload_if_changed().unwrap());
        fs::copy(other.join("server.crt"), dir.join("server.crt")).unwrap();
        let error = certificate.reload_if_changed().unwrap_err().to_string();
        assert!(error.contains("does not go with"), "{error}");
        assert!(!certificate.reload_if_changed().unwrap(), "told once");
        fs::copy(other.join("server.key"), dir.join("server.key")).unwrap();
        assert!(certificate.reload_if_changed().unwrap());
        let everyone = fs::Permissions::from_mode(0o644);
        fs::set_permissions(dir.join("server.key"), everyone).unwrap();
        assert!(inspect(&dir.join("server.crt"), &dir.join("server.key")).is_err());
        fs::remove_dir_all(&dir).unwrap();
        fs::remove_dir_all(&other).unwrap();
    }
}
