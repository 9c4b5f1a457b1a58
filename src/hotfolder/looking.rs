//! Looks at what others did on the share: files that staff put there, files that consumers took.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Hotfolder, HotfolderError};
use crate::domain::path::Name;
use crate::domain::publish::Found;

/// Folders below a folder that is looked through.
const DEPTH_MAX: usize = 30;
/// More files in one folder are not looked at: nobody reads such a listing.
const FILES_MAX: usize = 100_000;

/// A file that staff put there, with its place on the share.
#[derive(Debug, Clone)]
pub struct Placed {
    pub found: Found,
    /// Below the root; its names may be composed differently from those in `found`.
    pub below: PathBuf,
}

impl Hotfolder {
    /// Opens something below the root; nowhere on the way is a link followed, or the root left.
    fn open_beneath(&self, below: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let root = File::open(&self.base)?;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(&root, below, flags, Mode::empty(), resolve);
        opened.map_err(|error| match error {
            Errno::LOOP => {
                io::Error::other("is a link, or lies behind one; links are not followed")
            }
            other => other.into(),
        })
    }

    /// Everything below a folder that a customer may see; nothing when the folder is not there. What is hidden, no
    /// file, or no possible name is passed over; links are not followed.
    ///
    /// # Errors
    /// Whatever cannot be read: then the look tells nothing.
    pub fn look_through(&self, below: &Path) -> Result<Vec<Placed>, HotfolderError> {
        let mut placed = Vec::new();
        let mut folders = vec![(below.to_owned(), String::new(), 0usize)];
        while let Some((folder, prefix, depth)) = folders.pop() {
            let path = self.base.join(&folder);
            let listed = self.open_beneath(&folder, OFlags::DIRECTORY);
            let listed =
                listed.and_then(|fd| Ok(Dir::read_from(&fd).map(|entries| (fd, entries))?));
            let (fd, entries) = match listed {
                Ok(listed) => listed,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.io_error("cannot list", &path)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(|e| self.io_error("cannot list", &path)(e.into()))?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let Some(shown) = shown_name(&name.to_string_lossy()) else { continue };
                let stat =
                    match rustix::fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => stat,
                        // Gone since the listing.
                        Err(Errno::NOENT) => continue,
                        Err(error) => {
                            return Err(self.io_error("cannot look at", &path.join(name))(
                                error.into(),
                            ));
                        }
                    };
                let below = folder.join(name);
                let path = if prefix.is_empty() { shown } else { format!("{prefix}/{shown}") };
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Directory && depth < DEPTH_MAX {
                    folders.push((below, path, depth.saturating_add(1)));
                } else if kind == FileType::RegularFile && placed.len() < FILES_MAX {
                    let size = u64::try_from(stat.st_size).unwrap_or(0);
                    let mtime = millis(stat.st_mtime, stat.st_mtime_nsec);
                    placed.push(Placed { found: Found { path, size, mtime }, below });
                }
            }
        }
        // Two spellings of one name: the first in the share's order counts.
        let mut known = HashSet::new();
        placed.retain(|file| known.insert(file.found.path.clone()));
        Ok(placed)
    }

    /// The names in a folder; nothing when it is not there.
    ///
    /// # Errors
    /// Whatever cannot be read.
    pub fn names_in(&self, below: &Path) -> Result<HashSet<String>, HotfolderError> {
        let path = self.base.join(below);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
            Err(error) => return Err(self.io_error("cannot list", &path)(error)),
        };
        let mut names = HashSet::new();
        for entry in entries {
            let entry = entry.map_err(self.io_error("cannot list", &path))?;
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Opens a file that a look found; with its size and time as they are now.
    ///
    /// # Errors
    /// When it is gone, or no file any more.
    pub fn open_found(&self, below: &Path) -> io::Result<(File, u64, i64)> {
        // What was a file at the look may be a link or a pipe by now.
        let file = File::from(self.open_beneath(below, OFlags::NOFOLLOW | OFlags::NONBLOCK)?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("is not a file any more"));
        }
        let mtime = millis(meta.mtime(), u64::try_from(meta.mtime_nsec()).unwrap_or(0));
        Ok((file, meta.len(), mtime))
    }

    /// Makes a folder for staff, and those above it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_folder(&self, below: &Path) -> Result<(), HotfolderError> {
        let path = self.base.join(below);
        self.modes.make_folders(&path).map_err(self.io_error("cannot make", &path))
    }
}

/// A name as the customer sees it; nothing for what is hidden, temporary, or what systems leave about.
fn shown_name(name: &str) -> Option<String> {
    let is_left_over = ["thumbs.db", "desktop.ini"].contains(&name.to_lowercase().as_str());
    // Office and InDesign keep their locks beside a file.
    let is_lock = name.starts_with("~$") || name.to_lowercase().ends_with(".idlk");
    if name.starts_with('.')
        || is_left_over
        || is_lock
        || name.contains(char::REPLACEMENT_CHARACTER)
    {
        return None;
    }
    Name::parse(name).ok().map(|name| name.to_string())
}

/// Unix milliseconds; before 1970 nothing was printed from files.
fn millis(seconds: i64, nanoseconds: u64) -> i64 {
    let fraction = i64::try_from(nanoseconds.div_euclid(1_000_000)).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(fraction).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_or_left_about_is_not_shown() {
        for name in [".x", "Thumbs.db", "DESKTOP.INI", "~$brief.docx", "a.idlk", "a\u{1}b"] {
            assert_eq!(shown_name(name), None, "{name}");
        }
        assert_eq!(shown_name("Mu\u{308}ller.pdf"), Some("Müller.pdf".to_owned()));
    }
}
