//! A file of the print shop while it is taken over: bytes in, sealed, and on its way to the scanner.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::work::Work;
use super::{App, blocking, settle, with_app};
use crate::domain::content::ContentHasher;
use crate::domain::id::Id;
use crate::domain::upload::UploadState;
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, entries};
use crate::vault::Sidecar;

/// Files that are being taken over in this process: nobody takes their rows for orphans.
#[derive(Default)]
pub struct Running(Mutex<HashSet<String>>);

impl Running {
    fn all(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, upload: &str) -> bool {
        self.all().contains(upload)
    }
}

/// A file on its way to the customer. Dropped, it is an orphan that is cleared within a minute or two.
pub struct Publication {
    app: Arc<App>,
    row: UploadRow,
    id: Id,
    file: Option<File>,
    hasher: ContentHasher,
    size: u64,
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.app.publishing.all().remove(&self.row.id);
    }
}

impl Publication {
    /// Goes with a row that is written next.
    pub(super) fn begin(app: &Arc<App>, row: UploadRow, id: Id) -> Self {
        app.publishing.all().insert(row.id.clone());
        let app = Arc::clone(app);
        Self { app, row, id, file: None, hasher: ContentHasher::default(), size: 0 }
    }

    /// The row is there; the file in the spool comes after it, so that recovery knows every file.
    ///
    /// # Errors
    /// What the disk says; then nothing stays of it.
    pub(super) async fn open(mut self, version: i64) -> std::io::Result<Self> {
        self.row.version = version;
        let id = self.id.clone();
        match with_app(&self.app, move |app| app.vault.create(&id)).await {
            Ok(file) => {
                self.file = Some(file);
                Ok(self)
            }
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn write(&mut self, bytes: Vec<u8>) -> std::io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Err(std::io::Error::other("an earlier write failed"));
        };
        let mut hasher = std::mem::take(&mut self.hasher);
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        let (file, hasher) = blocking(move || {
            hasher.update(&bytes);
            file.write_all(&bytes)?;
            Ok((file, hasher))
        })
        .await?;
        (self.file, self.hasher) = (Some(file), hasher);
        self.size = self.size.saturating_add(len);
        Ok(())
    }

    /// The content is complete: sealed, and on its way to the scanner.
    ///
    /// # Errors
    /// What disk or database say; then nothing has been published.
    pub async fn finish(mut self) -> anyhow::Result<UploadRow> {
        let file = self.file.take().ok_or_else(|| anyhow::anyhow!("an earlier write failed"))?;
        let sha256 = std::mem::take(&mut self.hasher).finish();
        let (app, now) = (Arc::clone(&self.app), self.app.now());
        let sidecar = Sidecar {
            id: self.row.id.clone(),
            client_no: self.row.client_no.clone(),
            username: String::new(),
            project_no: self.row.project_no.clone(),
            path: self.row.path.clone(),
            version: self.row.version,
            size: self.size,
            sha256: sha256.as_str().to_owned(),
            mtime: self.row.mtime,
            completed: now.0,
        };
        let id = self.id.clone();
        let sealed = with_app(&app, move |app| app.vault.seal(&id, &file, &sidecar)).await;
        if let Err(error) = sealed {
            self.abandon().await;
            return Err(error.into());
        }
        let content = (self.size, sha256.as_str(), self.row.mtime);
        let done = app.store.run(vec![uploads::seal_step(&self.row.id, content, now)]).await?;
        let row = uploads::returned(done.first())?;
        let row = row.ok_or_else(|| anyhow::anyhow!("it was taken away meanwhile"))?;
        drop(app.scans.enqueue(&row));
        Ok(row)
    }

    /// It does not become complete: nothing stays of it.
    pub async fn abandon(self) {
        let ended = forget(&self.app, &self.row).await;
        if let Err(error) = ended {
            tracing::warn!(%error, upload = self.row.id, "a broken file of the print shop could not be forgotten; the next start does it");
        }
        settle::put_away(&self.app, &self.id, UploadState::Deleted).await;
    }
}

/// A publication that did not become complete is as if it had not begun.
pub(super) async fn forget(app: &App, row: &UploadRow) -> store::Result<()> {
    let mut work: Work<'_> = app.begin().await?;
    let now = work.now;
    uploads::end_unfinished(work.tx.db(), &row.id, "not complete", now).await?;
    entries::forget_current(work.tx.db(), &row.entry_id, &row.id, now).await?;
    entries::delete_if_empty(work.tx.db(), &row.entry_id).await?;
    work.commit().await?;
    Ok(())
}
