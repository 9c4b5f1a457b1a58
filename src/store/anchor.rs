//! SQLite's shared memory on a disk that is full.
//!
//! The file `ptportal.db-shm` is mapped into the process. Where a page of it has no room on the disk (a file system with
//! blocks below 4 KiB), the write to it ends the whole process by SIGBUS. So its room is taken once, while there is some,
//! and a connection that does nothing keeps SQLite from ever making the file anew. A file system that copies on write
//! (btrfs, ZFS) gives no such promise: there the database belongs on a volume that others do not fill.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
#[cfg(test)]
use sqlx::Connection;
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
            tracing::warn!(%error, "no room could be set aside for the database, which a full disk may then end; make room on its disk and start again");
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
    Ok(taken?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn the_room_is_there_and_stays_while_other_connections_come_and_go() {
        let dir = std::env::temp_dir().join(format!("ptportal-anchor-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let store = Store::open("", &dir.join("ptportal.db")).await.unwrap();
        store.hold().await.unwrap();
        store.migrate().await.unwrap();
        store.connect().await.unwrap().close().await.unwrap();
        let meta = std::fs::metadata(dir.join("ptportal.db-shm")).unwrap();
        assert!(meta.blocks() * 512 >= ROOM, "{} blocks", meta.blocks());
        store.close().await;
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
