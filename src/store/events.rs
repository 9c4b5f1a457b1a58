//! `events` (the audit trail) and `changes` (what running servers look at again).

use sqlx::{AnyPool, FromRow, Row};

use super::Result;
use super::batch::{Step, values};
use super::clients::Db;
use crate::domain::event::Event;
use crate::domain::time::Timestamp;

/// Numbers of events that one statement looks at when it forgets.
const WINDOW: i64 = 1000;
/// Windows without anything to forget after which the rest is younger.
const WINDOWS_IN_VAIN: u32 = 10;

#[derive(Debug, Clone, FromRow)]
pub struct EventRow {
    pub seq: i64,
    pub kind: String,
    pub time: i64,
    pub client_no: String,
    pub username: String,
    pub project_no: String,
    pub upload_id: String,
    pub path: String,
    pub peer: String,
    pub detail: String,
}

#[derive(Debug, Clone, FromRow)]
pub struct ChangeRow {
    pub seq: i64,
    pub kind: String,
    pub key: String,
    /// Milliseconds since 1970.
    pub created: i64,
}

/// The next number of a change; the row stays locked until the commit, so numbers come in commit order.
async fn next_change(db: impl Db<'_>) -> Result<i64> {
    sqlx::query("UPDATE counters SET value = value + 1 WHERE name = 'changes' RETURNING value")
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// Writes an event; inside the transaction of what it tells. Numbers come in commit order: the newest row is never
/// deleted, and only one transaction at a time gets past the lock (SQLite has one writer anyway).
pub async fn insert(db: &mut sqlx::AnyConnection, event: &Event, now: Timestamp) -> Result<i64> {
    if db.backend_name() == "PostgreSQL" {
        sqlx::query("SELECT value FROM counters WHERE name = 'events' FOR UPDATE")
            .execute(&mut *db)
            .await?;
    }
    let row = sqlx::query(
        "INSERT INTO events (seq, kind, time, client_no, username, project_no, upload_id, path, peer, detail, \
         created, updated) SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $2, $2 \
         FROM events RETURNING seq",
    )
    .bind(event.kind.as_str())
    .bind(now.0)
    .bind(&event.client_no)
    .bind(&event.username)
    .bind(&event.project_no)
    .bind(&event.upload_id)
    .bind(&event.path)
    .bind(&event.peer)
    .bind(serde_json::Value::Object(event.detail.clone()).to_string())
    .fetch_one(db)
    .await?;
    row.try_get(0)
}

/// The event of an upload's new state, in the transaction that made it (only if it did, at `now`).
#[must_use]
pub fn of_upload_step(upload: &str, state: &str, event: &Event, now: Timestamp) -> Step {
    Step {
        sql: "INSERT INTO events (seq, kind, time, client_no, username, project_no, upload_id, path, peer, detail, \
              created, updated) SELECT (SELECT COALESCE(MAX(seq), 0) + 1 FROM events), $1, $2, u.client_no, \
              u.username, u.project_no, u.id, u.path, u.peer, $3, $2, $2 FROM uploads u \
              WHERE u.id = $4 AND u.state = $5 AND u.updated = $2",
        values: values![
            event.kind.as_str(),
            now.0,
            serde_json::Value::Object(event.detail.clone()).to_string(),
            upload,
            state,
        ],
    }
}

/// On PostgreSQL the first step of a transaction with events: numbers come in commit order.
#[must_use]
pub fn lock_step() -> Step {
    Step { sql: "UPDATE counters SET value = value WHERE name = 'events'", values: Vec::new() }
}

/// Filters of `ptportal events`; empty texts and zeros do not filter. Oldest first, at most `limit` of the newest.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub after_seq: i64,
    pub since: i64,
    pub client_no: String,
    pub project_no: String,
    pub kind: String,
    pub limit: i64,
}

pub async fn list(db: impl Db<'_>, filter: &Filter) -> Result<Vec<EventRow>> {
    let mut rows: Vec<EventRow> = sqlx::query_as(
        "SELECT seq, kind, time, client_no, username, project_no, upload_id, path, peer, detail FROM events \
         WHERE seq > $1 AND time >= $2 AND ($3 = '' OR client_no = $3) AND ($4 = '' OR project_no = $4) \
         AND ($5 = '' OR kind = $5) ORDER BY seq DESC LIMIT $6",
    )
    .bind(filter.after_seq)
    .bind(filter.since)
    .bind(&filter.client_no)
    .bind(&filter.project_no)
    .bind(&filter.kind)
    .bind(filter.limit)
    .fetch_all(db)
    .await?;
    rows.reverse();
    Ok(rows)
}

/// Up to which event everything that follows has been written down.
pub async fn handed_on(db: impl Db<'_>) -> Result<i64> {
    sqlx::query("SELECT value FROM counters WHERE name = 'handed_on'")
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// Moves on from `from` to `to`; 0 rows when another server has done so.
pub async fn set_handed_on(db: impl Db<'_>, from: i64, to: i64) -> Result<u64> {
    let done =
        sqlx::query("UPDATE counters SET value = $1 WHERE name = 'handed_on' AND value = $2")
            .bind(to)
            .bind(from)
            .execute(db)
            .await?;
    Ok(done.rows_affected())
}

/// The next events after a number, oldest first.
pub async fn after(db: impl Db<'_>, seq: i64, limit: i64) -> Result<Vec<EventRow>> {
    sqlx::query_as(
        "SELECT seq, kind, time, client_no, username, project_no, upload_id, path, peer, detail FROM events \
         WHERE seq > $1 ORDER BY seq LIMIT $2",
    )
    .bind(seq)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The audit trail before that time is forgotten, but for the newest row, which numbers the next, and what has not been
/// handed on.
/// Window by window from the oldest on, so that nobody waits long for the write lock; gives how many. A few that a jumping
/// clock has dated later are passed over.
///
/// # Errors
/// The database.
pub async fn delete_before(db: &AnyPool, before: Timestamp) -> Result<u64> {
    let (mut deleted, mut in_vain, mut from) = (0u64, 0u32, first_from(db, 0).await?);
    while let Some(first) = from.filter(|_| in_vain < WINDOWS_IN_VAIN) {
        let end = first.saturating_add(WINDOW);
        let done = sqlx::query(
            "DELETE FROM events WHERE seq >= $2 AND seq < $3 AND time < $1 \
             AND seq < (SELECT MAX(seq) FROM events) \
             AND seq <= (SELECT value FROM counters WHERE name = 'handed_on')",
        )
        .bind(before.0)
        .bind(first)
        .bind(end)
        .execute(db)
        .await?
        .rows_affected();
        in_vain = if done == 0 { in_vain.saturating_add(1) } else { 0 };
        deleted = deleted.saturating_add(done);
        from = first_from(db, end).await?;
    }
    Ok(deleted)
}

/// The number of the oldest event from there on.
async fn first_from(db: &AnyPool, seq: i64) -> Result<Option<i64>> {
    let row: (Option<i64>,) = sqlx::query_as("SELECT MIN(seq) FROM events WHERE seq >= $1")
        .bind(seq)
        .fetch_one(db)
        .await?;
    Ok(row.0)
}

/// Notes that running servers must look at something again; inside the transaction of the change.
pub async fn note_change(
    db: &mut sqlx::AnyConnection,
    kind: &str,
    key: &str,
    now: Timestamp,
) -> Result<()> {
    let seq = next_change(&mut *db).await?;
    sqlx::query(
        "INSERT INTO changes (seq, kind, key, created, updated) VALUES ($1, $2, $3, $4, $4)",
    )
    .bind(seq)
    .bind(kind)
    .bind(key)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn last_change(db: impl Db<'_>) -> Result<i64> {
    sqlx::query("SELECT value FROM counters WHERE name = 'changes'").fetch_one(db).await?.try_get(0)
}

pub async fn changes_after(db: impl Db<'_>, seq: i64) -> Result<Vec<ChangeRow>> {
    sqlx::query_as(
        "SELECT seq, kind, key, created FROM changes WHERE seq > $1 ORDER BY seq LIMIT 1000",
    )
    .bind(seq)
    .fetch_all(db)
    .await
}

/// Changes are only news; servers that were away read everything anew at start.
pub async fn delete_changes_before(db: impl Db<'_>, before: Timestamp) -> Result<u64> {
    let done =
        sqlx::query("DELETE FROM changes WHERE created < $1").bind(before.0).execute(db).await?;
    Ok(done.rows_affected())
}
