//! The file of an unfinished content, made at its first byte on disk.
//!
//! A small file then costs one trip to the blocking pool: making, writing and sealing it are one job. All calls block.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::App;
use crate::domain::id::Id;

/// An unfinished content in the vault's spool.
pub(super) struct Spool {
    app: Arc<App>,
    id: Id,
    file: Mutex<Option<Arc<File>>>,
}

impl Spool {
    /// A new content, of which nothing is on disk yet.
    pub(super) fn new(app: &Arc<App>, id: &Id) -> Arc<Self> {
        Arc::new(Self { app: Arc::clone(app), id: id.clone(), file: Mutex::new(None) })
    }

    /// A content that goes on.
    pub(super) fn resumed(app: &Arc<App>, id: &Id, file: File) -> Arc<Self> {
        Arc::new(Self {
            app: Arc::clone(app),
            id: id.clone(),
            file: Mutex::new(Some(Arc::new(file))),
        })
    }

    /// The open file, made when missing.
    ///
    /// # Errors
    /// What the file system says (no space, no inode).
    pub(super) fn file(&self) -> io::Result<Arc<File>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        let made = Arc::new(self.app.vault.create(&self.id)?);
        *file = Some(Arc::clone(&made));
        Ok(made)
    }
}
