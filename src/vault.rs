//! ADAPTER the data folder: content under ids that we chose.
//!
//! `spool/ID` is being written, `vault/xx/ID` is sealed (complete and durable), `quarantine/ID` was found infected
//! and is never served. Names of customers never reach this folder. All calls block; callers run them on the
//! blocking pool. A failed fsync is final for its upload: it is never tried again on the same descriptor.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::domain::id::Id;
use crate::domain::verdict::FileIdentity;
use crate::steps;

/// The largest block in which a file system keeps holes, in bytes.
const BLOCK_MAX: u64 = 64 * 1024;

/// What is known about a sealed content, beside it, so that rows can be rebuilt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sidecar {
    pub id: String,
    pub client_no: String,
    pub username: String,
    pub project_no: String,
    pub path: String,
    pub version: i64,
    pub size: u64,
    /// Empty when the client wrote out of order; then it is taken with the scan.
    pub sha256: String,
    /// Unix milliseconds.
    pub mtime: i64,
    pub completed: i64,
}

/// The folder that holds all content.
pub struct Vault {
    root: PathBuf,
    spool_dir: File,
}

/// Holds `data_dir/lock`; another process gets it when this one is gone.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Takes the lock of the data folder: exclusive with SQLite, shared with PostgreSQL (spec section 15).
///
/// # Errors
/// `WouldBlock` when another process holds it; else what the file system says.
pub fn lock(data_dir: &Path, exclusive: bool) -> io::Result<DataLock> {
    make_private_dir(data_dir)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(data_dir.join("lock"))?;
    let operation = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    rustix::fs::flock(&file, operation)?;
    Ok(DataLock { _file: file })
}

/// Waits until no other process starts on this data folder: the first start makes keys, certificate and marker, and two that
/// start together must not both. Blocks.
///
/// # Errors
/// What the file system says.
pub fn lock_start(data_dir: &Path) -> io::Result<DataLock> {
    make_private_dir(data_dir)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(data_dir.join("start.lock"))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(DataLock { _file: file })
}

impl Vault {
    /// Opens (and at the very first time makes) the folders.
    ///
    /// # Errors
    /// When they cannot be made, or spool, vault and quarantine are not on one file system: a rename between them
    /// would not be atomic.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        for name in ["spool", "vault", "quarantine"] {
            make_private_dir(&data_dir.join(name))?;
        }
        let device = |name: &str| fs::metadata(data_dir.join(name)).map(|m| m.dev());
        let (spool, vault, quarantine) =
            (device("spool")?, device("vault")?, device("quarantine")?);
        if spool != vault || spool != quarantine {
            return Err(io::Error::other(
                "spool, vault and quarantine in data_dir are on different file systems; put them on one",
            ));
        }
        let spool_dir = File::open(data_dir.join("spool"))?;
        Ok(Self { root: data_dir.to_owned(), spool_dir })
    }

    fn spool_path(&self, id: &Id) -> PathBuf {
        self.root.join("spool").join(id.as_str())
    }

    fn vault_path(&self, id: &Id) -> PathBuf {
        self.root.join("vault").join(id.shard()).join(id.as_str())
    }

    fn sidecar_path(&self, id: &Id) -> PathBuf {
        self.root.join("vault").join(id.shard()).join(format!("{id}.json"))
    }

    /// Begins a content; the file is new and private.
    ///
    /// # Errors
    /// What the file system says (no space, no inode).
    pub fn create(&self, id: &Id) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(self.spool_path(id))
    }

    /// Opens an unfinished content to go on.
    ///
    /// # Errors
    /// `NotFound` when it was cleared away, else what the file system says.
    pub fn reopen(&self, id: &Id) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.spool_path(id))
    }

    /// Present size of an unfinished content.
    #[must_use]
    pub fn spool_len(&self, id: &Id) -> Option<u64> {
        fs::metadata(self.spool_path(id)).ok().map(|m| m.len())
    }

    /// Copies a sealed content to the beginning of an unfinished one (appending to a released file).
    ///
    /// # Errors
    /// What the file system says.
    pub fn copy_sealed(&self, from: &Id, into: &mut File) -> io::Result<u64> {
        let mut source = self.open_sealed(from)?;
        // std uses copy_file_range here: a reflink where the file system can.
        io::copy(&mut source, into)
    }

    /// Seals a complete content: fsync, sidecar, rename into the vault, fsync of both folders. After this a crash
    /// cannot undo it; its presence in the vault means "complete".
    ///
    /// # Errors
    /// Any failure is final for this content.
    pub fn seal(&self, id: &Id, file: &File, sidecar: &Sidecar) -> io::Result<()> {
        file.sync_all()?;
        steps::reach("upload.synced");
        let shard = self.shard(id)?;
        let text = serde_json::to_vec_pretty(sidecar).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        let mut beside = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.sidecar_path(id))?;
        beside.write_all(&text)?;
        beside.sync_all()?;
        steps::reach("upload.sidecar");
        rename_new(&self.spool_path(id), &self.vault_path(id))?;
        steps::reach("upload.in-vault");
        shard.sync_all()?;
        self.spool_dir.sync_all()?;
        steps::reach("upload.sealed");
        Ok(())
    }

    /// Opens a sealed content for reading.
    ///
    /// # Errors
    /// `NotFound` when it is not there (any more).
    pub fn open_sealed(&self, id: &Id) -> io::Result<File> {
        File::open(self.vault_path(id))
    }

    #[must_use]
    pub fn is_sealed(&self, id: &Id) -> bool {
        self.vault_path(id).exists()
    }

    /// What stands in the sidecar of a sealed content.
    ///
    /// # Errors
    /// When it is not there or not readable.
    pub fn sidecar(&self, id: &Id) -> io::Result<Sidecar> {
        serde_json::from_slice(&fs::read(self.sidecar_path(id))?).map_err(io::Error::other)
    }

    /// Moves infected bytes, sealed or not, where nobody is served from.
    ///
    /// # Errors
    /// What the file system says; the content then still lies where it was, which is not served either.
    pub fn quarantine(&self, id: &Id) -> io::Result<()> {
        let target = self.root.join("quarantine").join(id.as_str());
        if self.is_sealed(id) {
            rename_new(&self.vault_path(id), &target)?;
            ignore_missing(rename_new(&self.sidecar_path(id), &target.with_extension("json")))?;
            self.shard(id)?.sync_all()?;
        } else {
            rename_new(&self.spool_path(id), &target)?;
            self.spool_dir.sync_all()?;
        }
        File::open(self.root.join("quarantine"))?.sync_all()
    }

    /// Brings a content back from quarantine (a false positive).
    ///
    /// # Errors
    /// `NotFound` when it was not kept or was cleared away.
    pub fn restore_from_quarantine(&self, id: &Id) -> io::Result<()> {
        let source = self.root.join("quarantine").join(id.as_str());
        let shard = self.shard(id)?;
        ignore_missing(rename_new(&source.with_extension("json"), &self.sidecar_path(id)))?;
        rename_new(&source, &self.vault_path(id))?;
        shard.sync_all()?;
        File::open(self.root.join("quarantine"))?.sync_all()
    }

    /// Forgets infected bytes.
    ///
    /// # Errors
    /// What the file system says, a missing file aside.
    pub fn remove_quarantined(&self, id: &Id) -> io::Result<()> {
        let path = self.root.join("quarantine").join(id.as_str());
        ignore_missing(fs::remove_file(&path))?;
        ignore_missing(fs::remove_file(path.with_extension("json")))
    }

    /// Forgets a content wherever it lies, except in quarantine.
    ///
    /// # Errors
    /// What the file system says, a missing file aside.
    pub fn remove(&self, id: &Id) -> io::Result<()> {
        ignore_missing(fs::remove_file(self.spool_path(id)))?;
        ignore_missing(fs::remove_file(self.vault_path(id)))?;
        ignore_missing(fs::remove_file(self.sidecar_path(id)))
    }

    /// Forgets an unfinished content; one that was sealed in this moment stays.
    ///
    /// # Errors
    /// What the file system says, a missing file aside.
    pub fn remove_spooled(&self, id: &Id) -> io::Result<()> {
        ignore_missing(fs::remove_file(self.spool_path(id)))
    }

    /// Cuts an unfinished content of a dead writer where its bytes are whole, and gives the length: a client may have
    /// written out of order, and nobody knows any more what was still to come. A hole is found to a block of the file
    /// system, so what lies right before it does not count either.
    ///
    /// # Errors
    /// What the file system says; `NotFound` without a file.
    pub fn cut_at_hole(&self, id: &Id) -> io::Result<u64> {
        let file = File::options().read(true).write(true).open(self.spool_path(id))?;
        let len = file.metadata()?.len();
        // Not every file system tells; behind the end, of an empty file, is none.
        let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap_or(len);
        if hole >= len {
            return Ok(len);
        }
        let whole = hole.saturating_sub(BLOCK_MAX);
        file.set_len(whole)?;
        Ok(whole)
    }

    /// Writes, moves and removes a file as an upload does, each server one of its own, and says how many bytes are free.
    ///
    /// # Errors
    /// What the file system says: read-only, full, gone.
    pub fn probe(&self, node: &str) -> io::Result<u64> {
        let spool = self.root.join("spool");
        let (path, moved) =
            (spool.join(format!("probe-{node}")), spool.join(format!("probed-{node}")));
        fs::write(&path, b"probe")?;
        ignore_missing(fs::remove_file(&moved))?;
        rename_new(&path, &moved)?;
        fs::remove_file(&moved)?;
        self.free_bytes()
    }

    /// Ids of all unfinished contents.
    ///
    /// # Errors
    /// What the file system says.
    pub fn spooled(&self) -> io::Result<Vec<Id>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.root.join("spool"))? {
            ids.extend(Id::parse(&entry?.file_name().to_string_lossy()));
        }
        Ok(ids)
    }

    /// Every sealed content with its size in bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn contents(&self) -> io::Result<Vec<(Id, u64)>> {
        let mut contents = Vec::new();
        for shard in fs::read_dir(self.root.join("vault"))? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                if let Some(id) = Id::parse(&entry.file_name().to_string_lossy()) {
                    contents.push((id, entry.metadata()?.len()));
                }
            }
        }
        Ok(contents)
    }

    /// Free bytes for an ordinary user on the file system of the data folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(&self.root)
    }

    /// The folder of an id in the vault, made when missing; open only as long as it is used, because there are a
    /// thousand of them.
    fn shard(&self, id: &Id) -> io::Result<File> {
        let path = self.root.join("vault").join(id.shard());
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private_dir(&path)?;
                File::open(self.root.join("vault"))?.sync_all()?;
                File::open(path)
            }
            opened => opened,
        }
    }
}

/// What the file system tells of an open file's identity (taken before and after a scan).
///
/// # Errors
/// What the file system says.
pub fn identity(file: &File) -> io::Result<FileIdentity> {
    let meta = file.metadata()?;
    let ns = |seconds: i64, nanos: i64| {
        i128::from(seconds).saturating_mul(1_000_000_000).saturating_add(i128::from(nanos))
    };
    Ok(FileIdentity {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.len(),
        modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
        changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
    })
}

/// Free bytes for an ordinary user on the file system of a folder.
///
/// # Errors
/// What the file system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether a folder lies on a file system of the network, where SQLite's locks cannot be trusted.
///
/// # Errors
/// What the file system says.
pub fn is_on_network(path: &Path) -> io::Result<bool> {
    // NFS, SMB, SMB2, CIFS, AFS, Ceph, 9p (linux/magic.h).
    const MAGIC: [u64; 7] =
        [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x5346_414f, 0x00c3_6400, 0x0102_1997];
    let stat = rustix::fs::statfs(path)?;
    let kind = u64::try_from(stat.f_type).unwrap_or(0) & 0xffff_ffff;
    Ok(MAGIC.contains(&kind))
}

/// Whether reading this file never waits for a device: it lies in memory (tmpfs), where the kernel offers no
/// "only what is cached" reads because all of it is.
#[must_use]
pub fn lies_in_memory(file: &File) -> bool {
    // TMPFS_MAGIC, RAMFS_MAGIC (linux/magic.h).
    rustix::fs::fstatfs(file).is_ok_and(|stat| matches!(stat.f_type, 0x0102_1994 | 0x8584_58f6))
}

/// Root's files in the data folder of a service that runs as another user would be closed to it.
///
/// # Errors
/// When we are root and the folder is not root's.
pub fn refuse_foreign_root(data_dir: &Path) -> io::Result<()> {
    let Ok(meta) = fs::metadata(data_dir) else { return Ok(()) };
    let owner = meta.uid();
    if owner == 0 || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let why = format!(
        "data_dir {} belongs to user {owner}, who could not read what root writes there; run this as that user: \
         sudo -u '#{owner}' ptportal …",
        data_dir.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Makes a folder that only the service user may enter.
///
/// # Errors
/// What the file system says.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a small file for the service user alone, whole or not at all; an older one of the name is replaced.
///
/// # Errors
/// What the file system says.
pub fn write_private(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let (temporary, path) = (dir.join(format!(".{name}.part")), dir.join(name));
    ignore_missing(fs::remove_file(&temporary))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rustix::fs::renameat(rustix::fs::CWD, &temporary, rustix::fs::CWD, &path)?;
    File::open(dir)?.sync_all()
}

/// Moves a file that others put into the data folder to a free name like `name` in `dir`, and gives that name.
///
/// # Errors
/// What the file system says.
pub fn set_aside(from: &Path, dir: &Path, name: &str) -> io::Result<String> {
    make_private_dir(dir)?;
    for n in 1u32.. {
        let free = if n == 1 { name.to_owned() } else { format!("{n}-{name}") };
        match rename_new(from, &dir.join(&free)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && n < 10_000 => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(free),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Moves without overwriting. NFS knows no `RENAME_NOREPLACE`; a look is enough there, because the names are ids, each of
/// one upload with one writer.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, renameat, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        other => return Ok(other?),
    }
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    Ok(renameat(CWD, from, CWD, to)?)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
