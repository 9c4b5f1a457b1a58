//! ADAPTER the share that PTworkflow and the RIP read.
//!
//! Nothing is written without the marker file: an unmounted share must not fill the local disk. A file is copied
//! under a temporary name in a hidden folder of the same file system, verified, made durable, and then renamed
//! into place without overwriting. All calls block; callers run them on the blocking pool.

mod looking;
mod modes;
mod parts;

pub use looking::Placed as FoundFile;
pub use modes::Modes;

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::domain::content::{ContentHash, ContentHasher};
use crate::domain::hotname::{self, SafeName};
use crate::domain::time::Timestamp;
use crate::steps;

/// Proves that the share is mounted and is ours.
pub const MARKER: &str = ".ptportal-share-id";
/// Where files grow; hidden, so that no watcher looks.
pub const TEMP_DIR: &str = ".ptportal-tmp";

/// Why the share cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum HotfolderError {
    #[error(
        "the marker {marker} is missing: the share is not mounted, or the folder was emptied; mount it, or run `ptportal check --init-hotfolder`"
    )]
    NoMarker { marker: PathBuf },
    #[error(
        "the marker {marker} belongs to another share ({found} instead of {expected}); mount the right one, or run `ptportal check --init-hotfolder`"
    )]
    OtherShare { marker: PathBuf, found: String, expected: String },
    #[error(
        "the copy of {name} in the hotfolder differs from the vault (SHA-256 {copied} instead of {expected})"
    )]
    Differs { name: String, copied: String, expected: String },
    #[error("the lease of this delivery went to another worker")]
    LeaseLost,
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// How a rename into place ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is in place now.
    Now,
    /// The temporary file was gone: an earlier attempt has placed it.
    Before,
    /// The name is taken; choose another and record it first.
    Taken,
}

/// The folder tree of the print shop.
pub struct Hotfolder {
    /// As the configuration names it.
    root: PathBuf,
    /// Where it is reached: by the same path, or by the descriptor that pins it.
    base: PathBuf,
    _pinned: Option<OwnedFd>,
    share_id: String,
    modes: Modes,
    /// Where `RENAME_NOREPLACE` does not work, looking and renaming happens under this lock.
    placing: Arc<Mutex<()>>,
}

fn io_error<'p>(what: &'static str, path: &'p Path) -> impl Fn(io::Error) -> HotfolderError + 'p {
    move |source| HotfolderError::Io { what, path: path.to_owned(), source }
}

impl Hotfolder {
    /// Opens the share. `id_file` (in the data folder) remembers which share is ours: at the very first start the
    /// marker is made, later a missing one means "not mounted".
    ///
    /// # Errors
    /// When the marker cannot be made or the id not be kept.
    pub fn open(
        root: &Path,
        id_file: &Path,
        new_id: &str,
        modes: Modes,
    ) -> Result<Self, HotfolderError> {
        let known = fs::read_to_string(id_file).ok().map(|t| t.trim().to_owned());
        let share_id = match known {
            Some(id) => id,
            None => {
                let marker = root.join(MARKER);
                let id = match fs::read_to_string(&marker) {
                    Ok(text) => text.trim().to_owned(),
                    Err(_) => {
                        write_marker(root, new_id)?;
                        new_id.to_owned()
                    }
                };
                write_synced(id_file, &id).map_err(io_error("cannot write", id_file))?;
                id
            }
        };
        Ok(Self {
            root: root.to_owned(),
            base: root.to_owned(),
            _pinned: None,
            share_id,
            modes,
            placing: Arc::default(),
        })
    }

    /// Makes the marker anew: an operator says that this is the right folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn init_marker(&self) -> Result<(), HotfolderError> {
        write_marker(&self.root, &self.share_id)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks whether the share is there and ours; before every use.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_marker(&self) -> Result<(), HotfolderError> {
        let marker = self.root.join(MARKER);
        match fs::read_to_string(self.base.join(MARKER)) {
            Ok(text) if text.trim() == self.share_id => Ok(()),
            Ok(text) => Err(HotfolderError::OtherShare {
                marker,
                found: text.trim().to_owned(),
                expected: self.share_id.clone(),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(HotfolderError::NoMarker { marker })
            }
            Err(source) => Err(self.io_error("cannot read", &marker)(source)),
        }
    }

    /// The same share, held by a descriptor: whatever is unmounted, mounted or renamed at its path afterwards, all that is
    /// done with this value happens in the folder whose marker was seen, or fails. For one piece of work; a mount that is
    /// held like this cannot be taken away. Needs `/proc`.
    ///
    /// # Errors
    /// When the share is not there or not ours.
    pub fn pinned(&self) -> Result<Self, HotfolderError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(&self.root, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => {
                return Err(HotfolderError::NoMarker { marker: self.root.join(MARKER) });
            }
            Err(error) => return Err(io_error("cannot open", &self.root)(error.into())),
        };
        let pinned = Self {
            root: self.root.clone(),
            base: PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())),
            _pinned: Some(folder),
            share_id: self.share_id.clone(),
            modes: self.modes,
            placing: Arc::clone(&self.placing),
        };
        pinned.check_marker()?;
        Ok(pinned)
    }

    /// An error as an operator knows the path.
    fn io_error<'p>(
        &'p self,
        what: &'static str,
        path: &'p Path,
    ) -> impl Fn(io::Error) -> HotfolderError + 'p {
        let shown =
            path.strip_prefix(&self.base).map_or_else(|_| path.to_owned(), |p| self.root.join(p));
        move |source| HotfolderError::Io { what, path: shown.clone(), source }
    }

    fn temp_path(&self, temp_name: &str) -> PathBuf {
        self.base.join(TEMP_DIR).join(temp_name)
    }

    /// Copies a content to a temporary file while hashing it, compares, sets the customer's time, and makes file
    /// and folder durable. `keep_going` is asked every MiB (whether the lease is still ours).
    ///
    /// # Errors
    /// Any failure; the temporary file is removed then.
    pub fn copy_in(
        &self,
        source: &mut dyn Read,
        temp_name: &str,
        (expected, mtime): (&ContentHash, Timestamp),
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(), HotfolderError> {
        let dir = self.base.join(TEMP_DIR);
        fs::create_dir_all(&dir).map_err(self.io_error("cannot make", &dir))?;
        let path = self.temp_path(temp_name);
        // One that is there already is another attempt's, and stays.
        let target = OpenOptions::new().write(true).create_new(true).open(&path);
        let target = target.map_err(self.io_error("cannot make", &path))?;
        let copied = copy_hashed(source, target, mtime, keep_going);
        self.modes.give_file(&path);
        let result = match copied {
            Ok(Some(hash)) if hash == *expected => {
                sync_dir(&dir).map_err(self.io_error("cannot sync", &dir))
            }
            Ok(Some(hash)) => Err(HotfolderError::Differs {
                name: temp_name.to_owned(),
                copied: hash.as_str().to_owned(),
                expected: expected.as_str().to_owned(),
            }),
            Ok(None) => Err(HotfolderError::LeaseLost),
            Err(source) => Err(self.io_error("cannot write", &path)(source)),
        };
        if result.is_err() {
            // The failure is reported; a temporary file that stays is cleared at the next start.
            fs::remove_file(&path).ok();
        }
        result
    }

    /// Makes the folder of a delivery and finds a name in it: one of `names` that `reuse` says may be taken over, else the
    /// first of them that is free, else the last with a number. The result is the path below the root.
    ///
    /// # Errors
    /// What the file system says.
    pub fn free_name(
        &self,
        folders: &[SafeName],
        names: (&SafeName, Option<&SafeName>),
        reuse: &dyn Fn(&Path) -> bool,
    ) -> Result<PathBuf, HotfolderError> {
        let mut below = PathBuf::new();
        for folder in folders {
            let here = self.base.join(&below);
            let chosen = existing_like(&here, folder).unwrap_or_else(|| folder.as_str().to_owned());
            below.push(&chosen);
            let path = self.base.join(&below);
            match fs::create_dir(&path) {
                Ok(()) => {
                    self.modes.give_folder(&path);
                    sync_dir(&here).map_err(self.io_error("cannot sync", &here))?;
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(self.io_error("cannot make", &path)(source));
                }
            }
        }
        let here = self.base.join(&below);
        let taken = clash_keys(&here).map_err(self.io_error("cannot list", &here))?;
        let is_taken = |name: &SafeName| taken.contains(&hotname::clash_key(name));
        let (first, second) = names;
        let wanted = [Some(first), second];
        let may_reuse = |name: &&SafeName| is_taken(name) && reuse(&below.join(name.as_str()));
        if let Some(name) = wanted.into_iter().flatten().find(may_reuse) {
            return Ok(below.join(name.as_str()));
        }
        if !is_taken(first) {
            return Ok(below.join(first.as_str()));
        }
        let name = second.unwrap_or(first);
        let mut candidate = name.clone();
        let mut n = 1u32;
        while is_taken(&candidate) {
            n = n.saturating_add(1);
            candidate = hotname::nth(name, n);
        }
        Ok(below.join(candidate.as_str()))
    }

    /// Renames the temporary file into place. `overwrite` only for a file that we placed and nobody changed.
    ///
    /// # Errors
    /// What the file system says; then it is unknown whether the rename happened, and the temporary file decides.
    pub fn place(
        &self,
        temp_name: &str,
        target: &Path,
        overwrite: bool,
    ) -> Result<Placed, HotfolderError> {
        let from = self.temp_path(temp_name);
        let to = self.base.join(target);
        let rename =
            || if overwrite { rename_over(&from, &to) } else { self.rename_new(&from, &to) };
        let renamed = match rename() {
            // The consumer has cleared the emptied folder away.
            Err(e) if e.kind() == io::ErrorKind::NotFound && from.exists() => {
                let folder = to.parent().unwrap_or(&self.base);
                self.modes.make_folders(folder).map_err(self.io_error("cannot make", folder))?;
                rename()
            }
            other => other,
        };
        let placed = match renamed {
            Ok(()) => Placed::Now,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Placed::Taken),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !from.exists() => Placed::Before,
            Err(source) => {
                return Err(self.io_error("cannot rename to", &to)(source));
            }
        };
        steps::reach("delivery.renamed");
        let folder = to.parent().unwrap_or(&self.base);
        match sync_dir(folder) {
            // The consumer may have taken file and folder away already.
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(self.io_error("cannot sync", folder)(e));
            }
            Ok(()) | Err(_) => {}
        }
        let temp_dir = self.base.join(TEMP_DIR);
        sync_dir(&temp_dir).map_err(self.io_error("cannot sync", &temp_dir))?;
        steps::reach("delivery.placed");
        Ok(placed)
    }

    /// `RENAME_NOREPLACE`; where the file system cannot (SMB, NFS, FUSE) a look and a rename under a lock: we are the only
    /// one that places files. Never link and unlink: whoever takes the file in between would get it again.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            other => return Ok(other?),
        }
        let _guard = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        if to.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        rename_over(from, to)
    }

    /// Removes our own temporary file of an attempt that does not count.
    pub fn remove_temp(&self, temp_name: &str) {
        // What stays is cleared at the next start.
        fs::remove_file(self.temp_path(temp_name)).ok();
    }

    /// Names of all temporary files, for the clearing at start.
    #[must_use]
    pub fn temp_names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.base.join(TEMP_DIR)) else { return Vec::new() };
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Whether the file at a path below the root has this content (nobody changed it).
    #[must_use]
    pub fn holds(&self, below: &Path, expected: &ContentHash) -> bool {
        let hash = File::open(self.base.join(below)).and_then(|mut f| hash_file(&mut f));
        hash.is_ok_and(|h| h == *expected)
    }

    /// Renames a placed file after the customer renamed it (`rename_follows`), if it is untouched.
    ///
    /// # Errors
    /// What the file system says.
    pub fn follow_rename(&self, from: &Path, to: &Path) -> Result<bool, HotfolderError> {
        let (from, to) = (self.base.join(from), self.base.join(to));
        match self.rename_new(&from, &to) {
            Ok(()) => Ok(true),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) =>
            {
                Ok(false)
            }
            Err(source) => Err(self.io_error("cannot rename", &from)(source)),
        }
    }

    /// Tries what every delivery needs: marker, temporary file, rename on one file system. Each server by its own name.
    ///
    /// # Errors
    /// The first thing that does not work.
    pub fn probe(&self, node: &str) -> Result<u64, HotfolderError> {
        let here = self.pinned()?;
        let dir = here.base.join(TEMP_DIR);
        fs::create_dir_all(&dir).map_err(here.io_error("cannot make", &dir))?;
        let (from, to) = (dir.join(format!("probe-{node}")), dir.join(format!("probed-{node}")));
        fs::write(&from, b"probe").map_err(here.io_error("cannot write", &from))?;
        rename_over(&from, &to).map_err(here.io_error("cannot rename", &from))?;
        fs::remove_file(&to).map_err(here.io_error("cannot remove", &to))?;
        crate::vault::free_bytes(&here.base)
            .map_err(here.io_error("cannot ask free space of", &here.base))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is hotfolder.rs, one of the two places that move files"
)]
fn rename_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Returns `None` when `keep_going` said stop.
fn copy_hashed(
    source: &mut dyn Read,
    mut target: File,
    mtime: Timestamp,
    keep_going: &mut dyn FnMut() -> bool,
) -> io::Result<Option<ContentHash>> {
    let mut hasher = ContentHasher::default();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = source.read(&mut buffer)?;
        let Some(piece) = buffer.get(..n) else { break };
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        target.write_all(piece)?;
        if !keep_going() {
            return Ok(None);
        }
    }
    set_mtime(&target, mtime)?;
    target.sync_all()?;
    Ok(Some(hasher.finish()))
}

/// The customer's time, if it is known.
fn set_mtime(file: &File, mtime: Timestamp) -> io::Result<()> {
    if mtime.is_never() {
        return Ok(());
    }
    let since = Duration::from_millis(u64::try_from(mtime.0).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
    file.set_times(FileTimes::new().set_modified(time))
}

/// SHA-256 of a whole file.
///
/// # Errors
/// What the file system says.
pub fn hash_file(file: &mut File) -> io::Result<ContentHash> {
    let mut hasher = ContentHasher::default();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        match buffer.get(..n) {
            Some(piece) if !piece.is_empty() => hasher.update(piece),
            Some(_) | None => return Ok(hasher.finish()),
        }
    }
}

/// Names that Windows takes for the same as one that is there.
fn clash_keys(dir: &Path) -> io::Result<std::collections::HashSet<String>> {
    let mut keys = std::collections::HashSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        keys.insert(hotname::clash_key_of(&name.to_string_lossy()));
    }
    Ok(keys)
}

/// A folder that is there under another spelling (`Bilder` and `bilder` are one on a Windows share).
fn existing_like(dir: &Path, name: &SafeName) -> Option<String> {
    if dir.join(name.as_str()).is_dir() {
        return None;
    }
    let key = hotname::clash_key(name);
    let entries = fs::read_dir(dir).ok()?;
    entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .find(|found| hotname::clash_key_of(found) == key)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // SMB mounts refuse fsync of a folder; their server decides when names are durable.
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        other => other,
    }
}

fn write_marker(root: &Path, id: &str) -> Result<(), HotfolderError> {
    fs::create_dir_all(root).map_err(io_error("cannot make", root))?;
    let marker = root.join(MARKER);
    write_synced(&marker, id).map_err(io_error("cannot write", &marker))?;
    sync_dir(root).map_err(io_error("cannot sync", root))
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_unmounted_in_the_middle_gets_it_all_and_the_empty_folder_nothing() {
        let dir = std::env::temp_dir().join(format!("ptportal-pinned-{}", std::process::id()));
        let (root, away) = (dir.join("root"), dir.join("away"));
        fs::create_dir_all(&dir).unwrap();
        let share = Hotfolder::open(&root, &dir.join("id"), "S", Modes::default()).unwrap();
        let pinned = share.pinned().unwrap();
        rename_over(&root, &away).unwrap();
        fs::create_dir(&root).unwrap();
        let content = b"a press run";
        let hash = ContentHash::of(content);
        let whole = (&hash, Timestamp::NEVER);
        pinned.copy_in(&mut content.as_slice(), "t.1", whole, &mut || true).unwrap();
        let (folder, name) = (hotname::safe_folder_name("1001"), hotname::safe_file_name("a.pdf"));
        let target = pinned.free_name(&[folder], (&name, None), &|_| false).unwrap();
        assert_eq!(pinned.place("t.1", &target, false).unwrap(), Placed::Now);
        assert_eq!(fs::read(away.join("1001/a.pdf")).unwrap(), content);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert!(matches!(share.pinned(), Err(HotfolderError::NoMarker { .. })));
        // Messages name the path that the operator knows.
        fs::remove_dir_all(&away).unwrap();
        let error =
            pinned.copy_in(&mut content.as_slice(), "t.2", whole, &mut || true).unwrap_err();
        assert!(error.to_string().contains(&root.display().to_string()), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
