//! `entries`: the customer's tree, names as rows.

use sqlx::{FromRow, Row};

use super::batch::{Step, Value, bind, values};
use super::clients::Db;
use super::{Result, flag, unsigned};
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct EntryRow {
    pub id: String,
    pub project_id: String,
    pub parent: String,
    pub name: String,
    pub name_key: String,
    pub kind: String,
    /// The name is one that clients use while they write: not delivered.
    pub is_temporary: i64,
    pub released_upload: String,
    pub released_version: i64,
    pub current_upload: String,
    pub last_version: i64,
    pub mtime: i64,
    pub created: i64,
    pub updated: i64,
}

impl EntryRow {
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.kind == "folder"
    }
}

/// An entry with what a listing shows of its uploads.
#[derive(Debug, Clone, FromRow)]
pub struct ListedRow {
    pub id: String,
    pub name: String,
    pub name_key: String,
    pub kind: String,
    pub mtime: i64,
    pub released_upload: String,
    pub released_size: Option<i64>,
    pub released_mtime: Option<i64>,
    pub current_upload: String,
    pub current_size: Option<i64>,
    pub current_mtime: Option<i64>,
    pub current_state: Option<String>,
}

macro_rules! listed {
    ($rest:literal) => {
        concat!(
            "SELECT e.id, e.name, e.name_key, e.kind, e.mtime, e.released_upload, \
             r.size AS released_size, r.mtime AS released_mtime, e.current_upload, \
             c.size AS current_size, c.mtime AS current_mtime, c.state AS current_state \
             FROM entries e LEFT JOIN uploads r ON r.id = e.released_upload \
             LEFT JOIN uploads c ON c.id = e.current_upload ",
            $rest
        )
    };
}

const INSERT: &str = "INSERT INTO entries (id, project_id, parent, name, name_key, kind, is_temporary, \
     released_upload, released_version, current_upload, last_version, mtime, created, updated) \
     SELECT $1, $2, $3, $4, $5, $6, CAST($7 AS BIGINT), $8, CAST($9 AS BIGINT), $10, CAST($11 AS BIGINT), \
     CAST($12 AS BIGINT), CAST($13 AS BIGINT), CAST($14 AS BIGINT) \
     WHERE $3 LIKE '%/%' OR EXISTS (SELECT 1 FROM entries WHERE id = $3 AND kind = 'folder') \
     ON CONFLICT (parent, name) DO NOTHING";

fn insert_values(row: &EntryRow) -> Vec<Value> {
    values![
        &row.id,
        &row.project_id,
        &row.parent,
        &row.name,
        &row.name_key,
        &row.kind,
        row.is_temporary,
        &row.released_upload,
        row.released_version,
        &row.current_upload,
        row.last_version,
        row.mtime,
        row.created,
        row.updated,
    ]
}

/// Makes a name; 0 rows when it is there already, or its folder no longer is.
#[must_use]
pub fn insert_step(row: &EntryRow) -> Step {
    Step { sql: INSERT, values: insert_values(row) }
}

/// Makes a name; false when it is there already, or its folder no longer is.
pub async fn insert(db: impl Db<'_>, row: &EntryRow) -> Result<bool> {
    let done = bind(sqlx::query(INSERT), insert_values(row)).execute(db).await?;
    Ok(done.rows_affected() > 0)
}

/// The next version of a name belongs to this upload, if no other took one since `seen` was its current upload.
#[must_use]
pub fn take_version_step(id: &str, upload: &str, seen: &str, now: Timestamp) -> Step {
    Step {
        sql: "UPDATE entries SET last_version = last_version + 1, current_upload = $1, updated = $2 \
              WHERE id = $3 AND current_upload = $4",
        values: values![upload, now.0, id, seen],
    }
}

pub async fn entry(db: impl Db<'_>, id: &str) -> Result<Option<EntryRow>> {
    sqlx::query_as("SELECT * FROM entries WHERE id = $1").bind(id).fetch_optional(db).await
}

pub async fn child(db: impl Db<'_>, parent: &str, name: &str) -> Result<Option<EntryRow>> {
    sqlx::query_as("SELECT * FROM entries WHERE parent = $1 AND name = $2")
        .bind(parent)
        .bind(name)
        .fetch_optional(db)
        .await
}

pub async fn listed_child(db: impl Db<'_>, parent: &str, name: &str) -> Result<Option<ListedRow>> {
    sqlx::query_as(listed!("WHERE e.parent = $1 AND e.name = $2"))
        .bind(parent)
        .bind(name)
        .fetch_optional(db)
        .await
}

/// At most `limit` children whose names come after `after`.
pub async fn children(
    db: impl Db<'_>,
    parent: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<ListedRow>> {
    sqlx::query_as(listed!("WHERE e.parent = $1 AND e.name > $2 ORDER BY e.name LIMIT $3"))
        .bind(parent)
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(db)
        .await
}

pub async fn has_children(db: impl Db<'_>, parent: &str) -> Result<bool> {
    let row = sqlx::query("SELECT id FROM entries WHERE parent = $1 LIMIT 1")
        .bind(parent)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// The names from the top of the area down to this entry.
pub async fn names_down_to(db: impl Db<'_>, id: &str) -> Result<Vec<String>> {
    let rows = sqlx::query(
        "WITH RECURSIVE up (id, parent, name, depth) AS ( \
           SELECT id, parent, name, CAST(0 AS BIGINT) FROM entries WHERE id = $1 \
           UNION ALL SELECT e.id, e.parent, e.name, up.depth + 1 FROM entries e JOIN up ON e.id = up.parent \
           WHERE up.depth < 100 \
         ) SELECT name FROM up ORDER BY depth DESC",
    )
    .bind(id)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The next version's number of a name; it also becomes the current upload.
pub async fn take_version(
    db: impl Db<'_>,
    id: &str,
    upload: &str,
    now: Timestamp,
) -> Result<Option<i64>> {
    let row = sqlx::query(
        "UPDATE entries SET last_version = last_version + 1, current_upload = $1, updated = $2 \
         WHERE id = $3 RETURNING last_version",
    )
    .bind(upload)
    .bind(now.0)
    .bind(id)
    .fetch_optional(db)
    .await?;
    row.map(|r| r.try_get(0)).transpose()
}

/// A release takes the name only if no later version holds it.
#[must_use]
pub fn show_release_step(upload: &str, now: Timestamp) -> Step {
    Step {
        sql: "UPDATE entries SET released_upload = $1, \
              released_version = (SELECT version FROM uploads WHERE id = $1), \
              mtime = (SELECT mtime FROM uploads WHERE id = $1), updated = $2, \
              current_upload = CASE WHEN current_upload = $1 THEN '' ELSE current_upload END \
              WHERE id = (SELECT entry_id FROM uploads WHERE id = $1 AND state = 'released') \
              AND released_version < (SELECT version FROM uploads WHERE id = $1)",
        values: values![upload, now.0],
    }
}

/// The same inside a transaction that decides step by step.
pub async fn show_release(db: impl Db<'_>, upload: &str, now: Timestamp) -> Result<u64> {
    let step = show_release_step(upload, now);
    Ok(bind(sqlx::query(step.sql), step.values).execute(db).await?.rows_affected())
}

/// The upload is no longer what the name is waiting for.
pub async fn forget_current(
    db: impl Db<'_>,
    entry: &str,
    upload: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE entries SET updated = $1, current_upload = COALESCE((SELECT u.id FROM uploads u \
         WHERE u.entry_id = $2 AND u.id <> $3 AND u.state IN ('scanning', 'held') \
         AND u.version > entries.released_version ORDER BY u.version DESC LIMIT 1), '') \
         WHERE id = $2 AND current_upload = $3",
    )
    .bind(now.0)
    .bind(entry)
    .bind(upload)
    .execute(db)
    .await?;
    Ok(())
}

/// Removes a name that has neither a released nor a running upload.
pub async fn delete_if_empty(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM entries WHERE id = $1 AND kind = 'file' AND released_upload = '' AND current_upload = ''",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM entries WHERE id = $1").bind(id).execute(db).await?;
    Ok(done.rows_affected())
}

pub async fn set_place(
    db: impl Db<'_>,
    id: &str,
    (parent, name, name_key): (&str, &str, &str),
    is_temporary: bool,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE entries SET parent = $1, name = $2, name_key = $3, is_temporary = $6, updated = $4 WHERE id = $5",
    )
    .bind(parent)
    .bind(name)
    .bind(name_key)
    .bind(now.0)
    .bind(id)
    .bind(flag(is_temporary))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_mtime(db: impl Db<'_>, id: &str, mtime: i64) -> Result<()> {
    sqlx::query("UPDATE entries SET mtime = $1 WHERE id = $2")
        .bind(mtime)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Bytes that a client's names stand for: the newest version of each, with what running uploads reserved. Files of
/// staff are not the client's.
pub async fn client_usage(db: impl Db<'_>, client_no: &str) -> Result<u64> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(CASE WHEN u.reserved > u.size THEN u.reserved ELSE u.size END), 0) AS BIGINT) \
         FROM entries e \
         JOIN uploads u ON u.id = CASE WHEN e.current_upload <> '' THEN e.current_upload ELSE e.released_upload END \
         JOIN projects p ON p.id = e.project_id WHERE p.client_no = $1 AND p.state = 'open' \
         AND u.protocol <> 'hotfolder'",
    )
    .bind(client_no)
    .fetch_one(db)
    .await?;
    Ok(unsigned(row.try_get(0)?))
}
