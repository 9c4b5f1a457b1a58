//! `client.ini` while the server runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::{ClientIni, ClientIniError};

/// The file as it is now: read again when it changes; one that has become wrong is told once, and what stood before
/// counts on.
#[derive(Debug)]
pub struct Followed {
    path: PathBuf,
    current: RwLock<(Stamp, Arc<ClientIni>)>,
}

/// What the file looked like: inode, size, times of content and of inode.
type Stamp = Option<(u64, u64, i64, i64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ))
}

impl Followed {
    /// # Errors
    /// As [`ClientIni::read`].
    pub fn open(path: &Path) -> Result<Self, ClientIniError> {
        let stamp = stamp(path);
        let read = ClientIni::read(path)?;
        Ok(Self { path: path.to_owned(), current: RwLock::new((stamp, Arc::new(read))) })
    }

    /// The file cannot be used, as its next reader will say too: what stands in the copy of the last good one counts.
    ///
    /// # Errors
    /// As [`ClientIni::read`], for the copy.
    pub fn open_copy(path: &Path, copy: &Path) -> Result<Self, ClientIniError> {
        let read = ClientIni::read(copy)?;
        Ok(Self { path: path.to_owned(), current: RwLock::new((stamp(path), Arc::new(read))) })
    }

    /// Whether the file is still the one that was read.
    #[must_use]
    pub fn is_as_read(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamp(&self.path)
    }

    /// What counts now.
    #[must_use]
    pub fn current(&self) -> Arc<ClientIni> {
        let stamp = stamp(&self.path);
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.0 == stamp {
                return Arc::clone(&current.1);
            }
        }
        let read = ClientIni::read(&self.path);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let was_there = current.0.is_some();
        current.0 = stamp;
        let is_blank = stamp.is_none_or(|(_, size, ..)| size == 0);
        if was_there && is_blank && *current.1 != ClientIni::default() {
            // Away, or caught in the moment of writing: mails must not become files because of it.
            tracing::error!(file = %self.path.display(), "client.ini is gone or empty; what stood there before counts on");
            return Arc::clone(&current.1);
        }
        match read {
            Ok(read) => {
                tracing::info!(file = %self.path.display(), "client.ini has changed and counts from now on");
                current.1 = Arc::new(read);
            }
            Err(error) => {
                tracing::error!(%error, "the changed client.ini cannot be used; what stood there before counts on");
            }
        }
        Arc::clone(&current.1)
    }

    /// Whether others on this machine can read the password in it.
    #[must_use]
    pub fn is_open_to_all(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let holds_password =
            self.current().smtp.as_ref().is_some_and(|smtp| !smtp.password.is_empty());
        holds_password
            && fs::metadata(&self.path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_vanishes_or_is_empty_for_a_moment_counts_on() {
        let path = std::env::temp_dir().join(format!("ptportal-ini-{}", std::process::id()));
        fs::write(&path, "portal_create_uplogin_automatically=1").unwrap();
        let followed = Followed::open(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(followed.current().switches.create);
        fs::remove_file(&path).unwrap();
        assert!(followed.current().switches.create);
        fs::write(&path, "portal_create_uplogin_automatically=0\n").unwrap();
        assert!(!followed.current().switches.create);
        fs::remove_file(&path).unwrap();
    }
}
