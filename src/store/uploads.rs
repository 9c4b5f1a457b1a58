//! `uploads`: one row for each version of each file that a customer sends.

use sqlx::{FromRow, Row};

use super::batch::{Done, Step, bind, values};
use super::clients::Db;
use super::{Result, big};
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;

#[derive(Debug, Clone, Default, FromRow)]
pub struct UploadRow {
    pub id: String,
    pub entry_id: String,
    pub client_no: String,
    pub username: String,
    pub project_no: String,
    pub ticket_no: String,
    pub path: String,
    pub version: i64,
    pub state: String,
    pub size: i64,
    pub sha256: String,
    pub declared_size: i64,
    pub reserved: i64,
    pub mtime: i64,
    pub verdict: String,
    pub signature: String,
    pub reason: String,
    pub scanner: String,
    pub waived_by: String,
    pub repeat_of: String,
    pub protocol: String,
    pub peer: String,
    pub node: String,
    pub scan_attempts: i64,
    pub scan_next: i64,
    pub started: i64,
    pub completed: i64,
    pub released: i64,
    pub delivered: i64,
    /// `kept`, `purging` or `purged`.
    pub content: String,
    /// The client was told that the verdict follows.
    pub told_pending: i64,
    /// Hex; empty unless job tickets need it.
    pub md5: String,
    pub created: i64,
    pub updated: i64,
}

impl UploadRow {
    #[must_use]
    pub fn state(&self) -> Option<UploadState> {
        UploadState::parse(&self.state)
    }
}

/// What a scan has found out, as it stands on the row.
#[derive(Debug, Clone, Default)]
pub struct Finding {
    pub verdict: &'static str,
    pub signature: String,
    pub reason: String,
    pub scanner: String,
    pub waived_by: String,
}

/// Writes an upload down as the newest version of its name; 0 rows when the name is not there, or another upload has
/// taken the version in this moment.
#[must_use]
pub fn insert_step(row: &UploadRow) -> Step {
    Step {
        sql: "INSERT INTO uploads (id, entry_id, client_no, username, project_no, ticket_no, path, version, state, size, \
     sha256, declared_size, reserved, mtime, verdict, signature, reason, scanner, waived_by, \
     repeat_of, protocol, peer, node, scan_attempts, scan_next, started, completed, released, \
     delivered, created, updated) \
     SELECT $1, $2, $3, $4, $5, $6, $7, e.last_version, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
     $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30 \
     FROM entries e WHERE e.id = $2 AND e.current_upload = $1 RETURNING version",
        values: values![
            &row.id,
            &row.entry_id,
            &row.client_no,
            &row.username,
            &row.project_no,
            &row.ticket_no,
            &row.path,
            &row.state,
            row.size,
            &row.sha256,
            row.declared_size,
            row.reserved,
            row.mtime,
            &row.verdict,
            &row.signature,
            &row.reason,
            &row.scanner,
            &row.waived_by,
            &row.repeat_of,
            &row.protocol,
            &row.peer,
            &row.node,
            row.scan_attempts,
            row.scan_next,
            row.started,
            row.completed,
            row.released,
            row.delivered,
            row.created,
            row.updated,
        ],
    }
}

pub async fn upload(db: impl Db<'_>, id: &str) -> Result<Option<UploadRow>> {
    sqlx::query_as("SELECT * FROM uploads WHERE id = $1").bind(id).fetch_optional(db).await
}

/// Filters of `upload list`; an empty text does not filter. Newest first.
pub async fn list(
    db: impl Db<'_>,
    (state, client_no, project_no): (&str, &str, &str),
    limit: i64,
) -> Result<Vec<UploadRow>> {
    sqlx::query_as(
        "SELECT * FROM uploads WHERE ($1 = '' OR state = $1) AND ($2 = '' OR client_no = $2) \
         AND ($3 = '' OR project_no = $3) ORDER BY id DESC LIMIT $4",
    )
    .bind(state)
    .bind(client_no)
    .bind(project_no)
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn in_state(db: impl Db<'_>, state: UploadState) -> Result<Vec<UploadRow>> {
    sqlx::query_as("SELECT * FROM uploads WHERE state = $1 ORDER BY id")
        .bind(state.as_str())
        .fetch_all(db)
        .await
}

/// All uploads of a name that still matter for it, newest version first.
pub async fn of_entry(db: impl Db<'_>, entry_id: &str) -> Result<Vec<UploadRow>> {
    sqlx::query_as("SELECT * FROM uploads WHERE entry_id = $1 ORDER BY version DESC")
        .bind(entry_id)
        .fetch_all(db)
        .await
}

/// Keeps others from changing the uploads of a name until the transaction ends.
pub async fn lock_of_entry(db: impl Db<'_>, entry_id: &str) -> Result<()> {
    let lock = sqlx::query("UPDATE uploads SET updated = updated WHERE entry_id = $1");
    lock.bind(entry_id).execute(db).await?;
    Ok(())
}

/// Recent uploads of a project, for `Status.txt`; newest first. Of staff's files only what the customer sees.
pub async fn of_project(db: impl Db<'_>, project_no: &str, limit: i64) -> Result<Vec<UploadRow>> {
    sqlx::query_as(
        "SELECT * FROM uploads WHERE project_no = $1 AND repeat_of = '' AND state <> 'deleted' \
         AND (protocol <> 'hotfolder' OR EXISTS (SELECT 1 FROM entries e WHERE e.id = uploads.entry_id \
           AND e.released_upload = uploads.id)) \
         ORDER BY id DESC LIMIT $2",
    )
    .bind(project_no)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The latest finished version at a path, repeats left aside, and versions of names that were given up: nobody sees those
/// any more. Of one name the version tells what is later, whatever the
/// clock said.
pub async fn latest_at(
    db: impl Db<'_>,
    project_no: &str,
    path: &str,
    except: &str,
) -> Result<Option<UploadRow>> {
    sqlx::query_as(
        "SELECT * FROM uploads WHERE project_no = $1 AND path = $2 AND id <> $3 AND repeat_of = '' \
         AND completed > 0 AND (state = 'infected' OR EXISTS (SELECT 1 FROM entries e WHERE e.id = uploads.entry_id)) ORDER BY CASE WHEN entry_id = (SELECT entry_id FROM uploads WHERE id = $3) THEN version ELSE 0 END DESC, \
         completed DESC, id DESC LIMIT 1",
    )
    .bind(project_no)
    .bind(path)
    .bind(except)
    .fetch_optional(db)
    .await
}

/// A writer is alive: its size so far.
pub async fn note_progress(
    db: impl Db<'_>,
    id: &str,
    node: &str,
    size: u64,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uploads SET size = $1, updated = $2 WHERE id = $3 AND node = $4 AND state = 'receiving'",
    )
    .bind(big(size))
    .bind(now.0)
    .bind(id)
    .bind(node)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_reserved(db: impl Db<'_>, id: &str, reserved: u64) -> Result<()> {
    sqlx::query("UPDATE uploads SET reserved = $1 WHERE id = $2")
        .bind(big(reserved))
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// The first commit: complete and durable, not yet judged. The row as it stands then, or nothing if the upload is
/// no longer in a state that can be sealed.
#[must_use]
pub fn seal_step(id: &str, (size, sha256, mtime): (u64, &str, i64), now: Timestamp) -> Step {
    Step {
        sql: "UPDATE uploads SET state = 'scanning', size = $1, sha256 = $2, mtime = $3, reserved = 0, \
              completed = $4, updated = $4 WHERE id = $5 AND state IN ('receiving', 'incomplete') RETURNING *",
        values: values![big(size), sha256, mtime, now.0, id],
    }
}

/// Both commits in one, where the configuration does without a scanner.
#[must_use]
pub fn seal_released_step(
    id: &str,
    (size, sha256, mtime): (u64, &str, i64),
    finding: &Finding,
    now: Timestamp,
) -> Step {
    Step {
        sql: "UPDATE uploads SET state = 'released', size = $1, sha256 = $2, mtime = $3, reserved = 0, \
              completed = $4, released = $4, updated = $4, verdict = $5, reason = $6, waived_by = $7 \
              WHERE id = $8 AND state IN ('receiving', 'incomplete') RETURNING *",
        values: values![
            big(size),
            sha256,
            mtime,
            now.0,
            finding.verdict,
            &finding.reason,
            &finding.waived_by,
            id,
        ],
    }
}

/// The connection is gone; the bytes so far are kept for a resume.
pub async fn set_incomplete(
    db: impl Db<'_>,
    id: &str,
    node: &str,
    size: u64,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uploads SET state = 'incomplete', size = $1, reserved = 0, updated = $2 \
         WHERE id = $3 AND node = $4 AND state = 'receiving'",
    )
    .bind(big(size))
    .bind(now.0)
    .bind(id)
    .bind(node)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A client goes on where it, or an earlier connection, stopped.
pub async fn resume(
    db: impl Db<'_>,
    id: &str,
    (username, protocol, peer, node): (&str, &str, &str, &str),
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uploads SET state = 'receiving', username = $1, protocol = $2, peer = $3, node = $4, \
         updated = $5 WHERE id = $6 AND state = 'incomplete'",
    )
    .bind(username)
    .bind(protocol)
    .bind(peer)
    .bind(node)
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_hash(db: impl Db<'_>, id: &str, sha256: &str) -> Result<()> {
    sqlx::query("UPDATE uploads SET sha256 = $1 WHERE id = $2")
        .bind(sha256)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Moves an upload from one state to another with what was found; nothing happens (and nothing comes back) if it is
/// elsewhere by now.
#[must_use]
pub fn settle_step(
    id: &str,
    (from, to): (UploadState, UploadState),
    finding: &Finding,
    now: Timestamp,
) -> Step {
    let released = if to == UploadState::Released { now.0 } else { 0 };
    Step {
        sql: "UPDATE uploads SET state = $1, verdict = $2, signature = $3, reason = $4, scanner = $5, waived_by = $6, \
              released = $7, reserved = 0, updated = $8 WHERE id = $9 AND state = $10 AND content = 'kept' \
              RETURNING *",
        values: values![
            to.as_str(),
            finding.verdict,
            &finding.signature,
            &finding.reason,
            &finding.scanner,
            &finding.waived_by,
            released,
            now.0,
            id,
            from.as_str(),
        ],
    }
}

/// The same inside a transaction that decides step by step.
pub async fn settle(
    db: impl Db<'_>,
    id: &str,
    states: (UploadState, UploadState),
    finding: &Finding,
    now: Timestamp,
) -> Result<Option<UploadRow>> {
    let step = settle_step(id, states, finding, now);
    let row = bind(sqlx::query(step.sql), step.values).fetch_optional(db).await?;
    row.map(|row| UploadRow::from_row(&row)).transpose()
}

/// The version that [`insert_step`] gave, or nothing when the name was not there.
///
/// # Errors
/// A row that does not read.
pub fn returned_version(done: Option<&Done>) -> Result<Option<i64>> {
    done.and_then(|d| d.rows.first()).map(|row| row.try_get(0)).transpose()
}

/// The row that a step returned.
///
/// # Errors
/// A row that does not read.
pub fn returned(done: Option<&Done>) -> Result<Option<UploadRow>> {
    done.and_then(|d| d.rows.first()).map(UploadRow::from_row).transpose()
}

/// Ends an upload that is not complete; 0 rows when it is by now.
pub async fn end_unfinished(
    db: impl Db<'_>,
    id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uploads SET state = 'deleted', reason = $1, reserved = 0, updated = $2 \
         WHERE id = $3 AND state IN ('receiving', 'incomplete')",
    )
    .bind(reason)
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Ends an upload whatever state it is in.
pub async fn set_deleted(db: impl Db<'_>, id: &str, reason: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uploads SET state = 'deleted', reason = $1, reserved = 0, updated = $2 \
         WHERE id = $3 AND state <> 'deleted'",
    )
    .bind(reason)
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_repeat(db: impl Db<'_>, id: &str, of: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uploads SET state = 'deleted', reason = 'repeat', repeat_of = $1, reserved = 0, updated = $2 \
         WHERE id = $3 AND state IN ('receiving', 'scanning', 'released')",
    )
    .bind(of)
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The scan gave no verdict: when it is tried again, and why it failed.
pub async fn postpone_scan(
    db: impl Db<'_>,
    id: &str,
    next: Timestamp,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uploads SET scan_attempts = scan_attempts + 1, scan_next = $1, reason = $2, updated = $3 \
         WHERE id = $4 AND state = 'scanning'",
    )
    .bind(next.0)
    .bind(reason)
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Which server scans it from now on.
pub async fn set_node(db: impl Db<'_>, id: &str, node: &str) -> Result<()> {
    sqlx::query("UPDATE uploads SET node = $1 WHERE id = $2")
        .bind(node)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn set_mtime(db: impl Db<'_>, id: &str, mtime: i64) -> Result<()> {
    sqlx::query("UPDATE uploads SET mtime = $1 WHERE id = $2")
        .bind(mtime)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn set_delivered(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE uploads SET delivered = $1, updated = $1 WHERE id = $2")
        .bind(now.0)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// An upload goes to another name (a rename onto an existing one) as its newest version.
pub async fn move_to_entry(
    db: impl Db<'_>,
    id: &str,
    entry: &str,
    version: i64,
    path: &str,
) -> Result<u64> {
    let done =
        sqlx::query("UPDATE uploads SET entry_id = $1, version = $2, path = $3 WHERE id = $4")
            .bind(entry)
            .bind(version)
            .bind(path)
            .bind(id)
            .execute(db)
            .await?;
    Ok(done.rows_affected())
}

pub async fn set_md5(db: impl Db<'_>, id: &str, md5: &str) -> Result<()> {
    sqlx::query("UPDATE uploads SET md5 = $1 WHERE id = $2").bind(md5).bind(id).execute(db).await?;
    Ok(())
}

/// The client was told that the verdict follows.
pub async fn set_told_pending(db: impl Db<'_>, id: &str) -> Result<()> {
    sqlx::query("UPDATE uploads SET told_pending = 1 WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

/// The ticket that the final name speaks of.
pub async fn set_ticket(db: impl Db<'_>, entry: &str, ticket_no: &str) -> Result<()> {
    sqlx::query("UPDATE uploads SET ticket_no = $1 WHERE entry_id = $2 AND delivered = 0")
        .bind(ticket_no)
        .bind(entry)
        .execute(db)
        .await?;
    Ok(())
}

/// A file or folder was renamed: the shown paths of everything at and below it follow.
pub async fn rename_paths(db: impl Db<'_>, project_no: &str, old: &str, new: &str) -> Result<u64> {
    let chars = |text: &str| i64::try_from(text.chars().count()).unwrap_or(0);
    let below = format!("{old}/");
    let done = sqlx::query(
        "UPDATE uploads SET path = $1 || SUBSTR(path, CAST($2 AS INTEGER)) WHERE project_no = $3 AND state <> 'deleted' \
         AND (path = $4 OR SUBSTR(path, 1, CAST($5 AS INTEGER)) = $6)",
    )
    .bind(new)
    .bind(chars(old).saturating_add(1))
    .bind(project_no)
    .bind(old)
    .bind(chars(&below))
    .bind(&below)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// How far below a folder its files reach: the most bytes, and the most names, of a path behind the folder's own.
pub async fn longest_below(
    db: impl Db<'_>,
    project_no: &str,
    folder: &str,
) -> Result<(usize, usize)> {
    let below = format!("{folder}/");
    let row = sqlx::query(
        "SELECT CAST(COALESCE(MAX(OCTET_LENGTH(path)), 0) AS BIGINT), \
         CAST(COALESCE(MAX(LENGTH(path) - LENGTH(REPLACE(path, '/', ''))), 0) AS BIGINT) \
         FROM uploads WHERE project_no = $1 AND state <> 'deleted' AND SUBSTR(path, 1, CAST($2 AS INTEGER)) = $3",
    )
    .bind(project_no)
    .bind(i64::try_from(below.chars().count()).unwrap_or(0))
    .bind(&below)
    .fetch_one(db)
    .await?;
    let (bytes, slashes): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let behind = |all: i64, own: usize| usize::try_from(all).unwrap_or(0).saturating_sub(own);
    Ok((behind(bytes, folder.len()), behind(slashes, folder.matches('/').count())))
}

/// How many uploads of a client are not finished or not delivered.
pub async fn open_of_client(db: impl Db<'_>, client_no: &str) -> Result<i64> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM uploads u WHERE u.client_no = $1 AND (u.state IN ('receiving', 'scanning', 'held') \
         OR EXISTS (SELECT 1 FROM deliveries d WHERE d.upload_id = u.id AND d.open = 1))",
    )
    .bind(client_no)
    .fetch_one(db)
    .await?;
    row.try_get(0)
}

/// Unfinished uploads that nobody has touched since `before`.
pub async fn stale_incomplete(db: impl Db<'_>, before: Timestamp) -> Result<Vec<UploadRow>> {
    sqlx::query_as("SELECT * FROM uploads WHERE state = 'incomplete' AND updated < $1 ORDER BY id")
        .bind(before.0)
        .fetch_all(db)
        .await
}

/// Oldest change first.
pub async fn changed_since(
    db: impl Db<'_>,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<UploadRow>> {
    sqlx::query_as("SELECT * FROM uploads WHERE updated >= $1 ORDER BY updated, id LIMIT $2")
        .bind(since.0)
        .bind(limit)
        .fetch_all(db)
        .await
}
