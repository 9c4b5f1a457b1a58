//! `batches` and `batch_files`: files of one project that came together.

use sqlx::{AnyPool, FromRow};

use super::Result;
use super::clients::Db;
use super::retention::Old;
use super::uploads::UploadRow;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, Default, FromRow)]
pub struct BatchRow {
    pub id: String,
    /// `in` or `out`.
    pub direction: String,
    pub client_no: String,
    pub project_no: String,
    /// Who sent the first file.
    pub username: String,
    /// The server of that account's session.
    pub node: String,
    pub state: String,
    pub last_file: i64,
    pub closed: i64,
    pub created: i64,
    pub updated: i64,
}

/// The project's open batch, or this new one; its quiet period begins anew. The row is locked from here on, so that
/// nobody ends it before the file is in it.
pub async fn open_or_begin(db: impl Db<'_>, row: &BatchRow) -> Result<String> {
    let (id,): (String,) = sqlx::query_as(
        "INSERT INTO batches (id, direction, client_no, project_no, username, node, state, last_file, closed, \
         created, updated) VALUES ($1, $2, $3, $4, $5, $6, 'open', $7, 0, $7, $7) \
         ON CONFLICT (project_no, direction) WHERE state = 'open' \
         DO UPDATE SET last_file = excluded.last_file, updated = excluded.updated RETURNING id",
    )
    .bind(&row.id)
    .bind(&row.direction)
    .bind(&row.client_no)
    .bind(&row.project_no)
    .bind(&row.username)
    .bind(&row.node)
    .bind(row.last_file)
    .fetch_one(db)
    .await?;
    Ok(id)
}

/// A batch takes a file; a file that is in one stays there.
pub async fn add_file(db: impl Db<'_>, batch: &str, upload: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO batch_files (upload_id, batch, created, updated) VALUES ($1, $2, $3, $3) \
         ON CONFLICT (upload_id) DO NOTHING",
    )
    .bind(upload)
    .bind(batch)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn open(db: impl Db<'_>) -> Result<Vec<BatchRow>> {
    sqlx::query_as("SELECT * FROM batches WHERE state = 'open' ORDER BY id").fetch_all(db).await
}

/// Ends a batch, if no file came since `last_file`.
pub async fn close(db: impl Db<'_>, id: &str, last_file: i64, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE batches SET state = 'closed', closed = $1, updated = $1 \
         WHERE id = $2 AND state = 'open' AND last_file = $3",
    )
    .bind(now.0)
    .bind(id)
    .bind(last_file)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A batch's files in the order in which they came.
pub async fn files(db: impl Db<'_>, batch: &str) -> Result<Vec<UploadRow>> {
    sqlx::query_as(
        "SELECT u.* FROM uploads u JOIN batch_files f ON f.upload_id = u.id WHERE f.batch = $1 ORDER BY f.created, u.id",
    )
    .bind(batch)
    .fetch_all(db)
    .await
}

/// Whether the account still sends or waits for something in the project: then its batch is not complete.
pub async fn is_busy(db: impl Db<'_>, project_no: &str) -> Result<bool> {
    let row = sqlx::query(
        // From what is open, of which there is little, and not from all that the project ever had.
        "SELECT u.id FROM uploads u WHERE u.state IN ('receiving', 'scanning') AND u.project_no = $1 \
           AND u.protocol <> 'hotfolder' \
         UNION ALL SELECT u.id FROM deliveries d JOIN uploads u ON u.id = d.upload_id WHERE d.open = 1 \
           AND d.consumer = 'mirror' AND d.state <> 'stuck' AND u.project_no = $1 AND u.protocol <> 'hotfolder' \
         LIMIT 1",
    )
    .bind(project_no)
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// What has ended before that time is forgotten.
///
/// # Errors
/// The database.
pub async fn delete_files_before(db: &AnyPool, before: Timestamp) -> Result<u64> {
    let old = Old {
        table: "batch_files",
        key: "upload_id",
        condition: "batch IN (SELECT id FROM batches WHERE state = 'closed' AND closed < $1)",
    };
    old.delete(db, before).await
}

/// The batches themselves, after their files.
///
/// # Errors
/// The database.
pub async fn delete_before(db: &AnyPool, before: Timestamp) -> Result<u64> {
    let old = Old { table: "batches", key: "id", condition: "state = 'closed' AND closed < $1" };
    old.delete(db, before).await
}
