//! Looks at what others did on the share: files that staff put there, files that consumers took.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Hotfolder, HotfolderError, io_error};
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
    /// Everything below a folder that a customer may see; nothing when the folder is not there. What is hidden, no
    /// file, or no possible name is passed over; links are not followed.
    ///
    /// # Errors
    /// Whatever cannot be read: then the look tells nothing.
    pub fn look_through(&self, below: &Path) -> Result<Vec<Placed>, HotfolderError> {
        let mut placed = Vec::new();
        let mut folders = vec![(below.to_owned(), String::new(), 0usize)];
        while let Some((folder, prefix, depth)) = folders.pop() {
            let path = self.root().join(&folder);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error("cannot list", &path)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(io_error("cannot list", &path))?;
                let name = entry.file_name();
                let Some(shown) = shown_name(&name.to_string_lossy()) else { continue };
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    // Gone since the listing.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(io_error("cannot look at", &entry.path())(error)),
                };
                let below = folder.join(&name);
                let path = if prefix.is_empty() { shown } else { format!("{prefix}/{shown}") };
                if meta.is_dir() && depth < DEPTH_MAX {
                    folders.push((below, path, depth.saturating_add(1)));
                } else if meta.is_file() && placed.len() < FILES_MAX {
                    let mtime = meta.modified().map_or(0, millis);
                    placed.push(Placed { found: Found { path, size: meta.len(), mtime }, below });
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
        let path = self.root().join(below);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
            Err(error) => return Err(io_error("cannot list", &path)(error)),
        };
        let mut names = HashSet::new();
        for entry in entries {
            let entry = entry.map_err(io_error("cannot list", &path))?;
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Opens a file that a look found; with its size and time as they are now.
    ///
    /// # Errors
    /// When it is gone, or no file any more.
    pub fn open_found(&self, below: &Path) -> io::Result<(File, u64, i64)> {
        use rustix::fs::{Mode, OFlags};
        let path = self.root().join(below);
        // What was a file at the look may be a link or a pipe by now.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("is not a file any more"));
        }
        Ok((file, meta.len(), meta.modified().map_or(0, millis)))
    }

    /// Makes a folder for staff, and those above it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_folder(&self, below: &Path) -> Result<(), HotfolderError> {
        let path = self.root().join(below);
        fs::create_dir_all(&path).map_err(io_error("cannot make", &path))
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

fn millis(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_before) => 0,
    }
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
