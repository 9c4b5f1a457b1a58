//! Downloads of `ptportal pull`, which grow on the share and go on where they stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::{Hotfolder, HotfolderError, TEMP_DIR, hash_file, rename_over, set_mtime, sync_dir};
use crate::domain::content::ContentHash;
use crate::domain::time::Timestamp;

impl Hotfolder {
    fn part_path(&self, id: &str) -> PathBuf {
        self.temp_path(&format!("{id}.part"))
    }

    /// Opens what has been downloaded of a delivery so far, at its end; longer than `size` it is begun anew. Copies of
    /// earlier attempts that came no further are removed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_part(&self, id: &str, size: u64) -> Result<(File, u64), HotfolderError> {
        let dir = self.base.join(TEMP_DIR);
        fs::create_dir_all(&dir).map_err(self.io_error("cannot make", &dir))?;
        let path = self.part_path(id);
        for name in self.temp_names() {
            if name.strip_prefix(id).is_some_and(|rest| rest.starts_with('.') && rest != ".part") {
                self.remove_temp(&name);
            }
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path);
        let file = file.map_err(self.io_error("cannot open", &path))?;
        let have = file.metadata().map_err(self.io_error("cannot look at", &path))?.len();
        if have <= size {
            return Ok((file, have));
        }
        file.set_len(0).map_err(self.io_error("cannot empty", &path))?;
        Ok((file, 0))
    }

    /// Appends to a download.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append_part(&self, mut file: File, piece: &[u8]) -> Result<File, HotfolderError> {
        let dir = self.base.join(TEMP_DIR);
        file.write_all(piece).map_err(self.io_error("cannot write in", &dir))?;
        Ok(file)
    }

    /// A download is complete: compared as it lies on the share, durable, and under its attempt's name.
    ///
    /// # Errors
    /// When it differs (it is begun anew then), or what the file system says.
    pub fn finish_part(
        &self,
        mut file: File,
        id: &str,
        temp_name: &str,
        (expected, mtime): (&ContentHash, Timestamp),
    ) -> Result<(), HotfolderError> {
        let (dir, path) = (self.base.join(TEMP_DIR), self.part_path(id));
        let found = file.seek(SeekFrom::Start(0)).and_then(|_| hash_file(&mut file));
        let found = found.map_err(self.io_error("cannot read", &path))?;
        if found != *expected {
            fs::remove_file(&path).map_err(self.io_error("cannot remove", &path))?;
            return Err(HotfolderError::Differs {
                name: id.to_owned(),
                copied: found.as_str().to_owned(),
                expected: expected.as_str().to_owned(),
            });
        }
        self.modes.give_file(&path);
        set_mtime(&file, mtime)
            .and_then(|()| file.sync_all())
            .map_err(self.io_error("cannot sync", &path))?;
        rename_over(&path, &self.temp_path(temp_name))
            .map_err(self.io_error("cannot rename", &path))?;
        sync_dir(&dir).map_err(self.io_error("cannot sync", &dir))
    }
}
