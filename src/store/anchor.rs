//! SQLite's shared memory on a disk that is full.
//!
//! The file `ptportal.db-shm` is mapped into the process. Where a page of it has no room on the disk (a file system with
//! blocks below 4 KiB, one that copies on write), the write to it ends the whole process by SIGBUS. So its room is taken
//! once, while there is some, and a connection that does nothing keeps SQLite from ever making the file anew.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
use sqlx::Row;

use super::{Kind, Result, Store};

/// Room for a journal of 512 MiB, in bytes; it is begun anew at 32 MiB.
const ROOM: u64 = 1 << 20;

impl Store {
    /// Keeps a disk that fills up later from ending this process. Nothing to do for PostgreSQL.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hold(&self) -> Result<()> {
        if self.kind == Kind::Postgres {
            return Ok(());
        }
        let mut connection = self.connect().await?;
        // A statement that reads maps the shared memory.
        sqlx::query("SELECT count(*) FROM sqlite_master").fetch_one(&mut connection).await?;
        let row = sqlx::query("SELECT file FROM pragma_database_list WHERE name = 'main'")
            .fetch_one(&mut connection)
            .await?;
        let database: String = row.try_get(0)?;
        if let Err(error) = take_room(format!("{database}-shm").into()) {
            tracing::warn!(%error, "no room could be set aside for the database; make room on its disk before it is full");
        }
        *self.anchor.lock().await = Some(connection);
        Ok(())
    }
}

fn take_room(file: PathBuf) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    let taken = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, ROOM);
    // Left open on purpose: closing any descriptor of a file gives up all locks of the process on it (fcntl(2)), SQLite's
    // too.
    let _never_closed = file.into_raw_fd();
    match taken {
        // Such a file system has no blocks to run out of, or no way to set them aside.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        taken => Ok(taken?),
    }
}
