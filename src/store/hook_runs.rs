//! `hook_runs`: what hooks and webhooks are called with, and how it ended. Rows are claimed under a lease.

use sqlx::{AnyPool, FromRow};

use super::Result;
use super::clients::Db;
use super::retention::Old;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct HookRunRow {
    /// The same at every attempt.
    pub id: String,
    pub event_seq: i64,
    pub event: String,
    /// `hook` or `webhook`.
    pub consumer: String,
    /// `EVENT/NAME`, `EVENT/` of hooks that are yet to be found, or an address.
    pub target: String,
    pub upload_id: String,
    /// The same at every attempt.
    pub payload: String,
    pub state: String,
    pub open: i64,
    pub attempts: i64,
    pub next_try: i64,
    pub last_error: String,
    pub output: String,
    /// The last attempt's duration.
    pub ms: i64,
    pub lease_owner: String,
    pub lease_until: i64,
    pub created: i64,
    pub updated: i64,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Attempted<'a> {
    /// `pending`, `done` or `failed`.
    pub state: &'a str,
    pub error: &'a str,
    pub output: &'a str,
    pub ms: i64,
    pub next_try: Timestamp,
}

/// Written once the event that it follows from stands; a second one for the same target does nothing.
pub async fn insert(
    db: impl Db<'_>,
    id: &str,
    (event_seq, event, upload_id): (i64, &str, &str),
    (consumer, target, payload): (&str, &str, &str),
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO hook_runs (id, event_seq, event, consumer, target, upload_id, payload, state, open, attempts, \
         next_try, last_error, output, ms, lease_owner, lease_until, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', 1, 0, $8, '', '', 0, '', 0, $8, $8) \
         ON CONFLICT (event_seq, consumer, target) DO NOTHING",
    )
    .bind(id)
    .bind(event_seq)
    .bind(event)
    .bind(consumer)
    .bind(target)
    .bind(upload_id)
    .bind(payload)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Targets that have something due: each is a lane of its own. What is under way counts too: so an index is enough.
pub async fn due_targets(db: impl Db<'_>, consumer: &str, now: Timestamp) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT DISTINCT target FROM hook_runs WHERE open = 1 AND consumer = $1 AND next_try <= $2",
    )
    .bind(consumer)
    .bind(now.0)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(target,)| target).collect())
}

/// Takes a target's oldest due run. Runs about one upload go in their order.
///
/// `next_try + 0`: in the order of `hook_runs_order` the first that fits is it, without looking at all that wait.
pub async fn claim(
    db: impl Db<'_>,
    (consumer, target): (&str, &str),
    (owner, until): (&str, Timestamp),
    now: Timestamp,
) -> Result<Option<HookRunRow>> {
    sqlx::query_as(
        "UPDATE hook_runs SET lease_owner = $1, lease_until = $2, attempts = attempts + 1, updated = $3 \
         WHERE id = (SELECT r.id FROM hook_runs r WHERE r.open = 1 AND r.consumer = $4 AND r.target = $5 \
           AND r.next_try + 0 <= $3 AND r.lease_until <= $3 \
           AND NOT EXISTS (SELECT 1 FROM hook_runs e WHERE e.open = 1 AND e.consumer = $4 AND e.target = $5 \
             AND e.upload_id <> '' AND e.upload_id = r.upload_id AND e.event_seq < r.event_seq) \
           ORDER BY r.event_seq LIMIT 1) \
         AND open = 1 AND lease_until <= $3 RETURNING *",
    )
    .bind(owner)
    .bind(until.0)
    .bind(now.0)
    .bind(consumer)
    .bind(target)
    // All of it: SQLite commits behind the last row, and says only there that it could not.
    .fetch_all(db)
    .await
    .map(|mut rows| rows.pop())
}

/// Ends an attempt; 0 rows when another server has taken the run over.
pub async fn finish(
    db: impl Db<'_>,
    (id, owner): (&str, &str),
    attempted: &Attempted<'_>,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE hook_runs SET state = $1, open = CASE WHEN $1 = 'pending' THEN 1 ELSE 0 END, last_error = $2, \
         output = $3, ms = $4, next_try = $5, lease_owner = '', lease_until = 0, updated = $6 \
         WHERE id = $7 AND lease_owner = $8 AND open = 1",
    )
    .bind(attempted.state)
    .bind(attempted.error)
    .bind(attempted.output)
    .bind(attempted.ms)
    .bind(attempted.next_try.0)
    .bind(now.0)
    .bind(id)
    .bind(owner)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn run(db: impl Db<'_>, id: &str) -> Result<Option<HookRunRow>> {
    sqlx::query_as("SELECT * FROM hook_runs WHERE id = $1").bind(id).fetch_optional(db).await
}

/// Newest first; an empty state does not filter.
pub async fn list(db: impl Db<'_>, state: &str, limit: i64) -> Result<Vec<HookRunRow>> {
    sqlx::query_as(
        "SELECT * FROM hook_runs WHERE ($1 = '' OR state = $1) ORDER BY event_seq DESC, id DESC LIMIT $2",
    )
    .bind(state)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// An operator has one tried again, or with an empty id all that failed.
pub async fn retry(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE hook_runs SET state = 'pending', open = 1, attempts = 0, next_try = $1, updated = $1 \
         WHERE lease_until <= $1 AND ((id = $2 AND state <> 'done') OR ($2 = '' AND state = 'failed'))",
    )
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Who is running something.
pub async fn lease_owners(db: impl Db<'_>) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT DISTINCT lease_owner FROM hook_runs WHERE open = 1 AND lease_owner <> ''",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(owner,)| owner).collect())
}

/// Leases of a process that is gone are free at once.
pub async fn free_leases_of(db: impl Db<'_>, node: &str) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE hook_runs SET lease_owner = '', lease_until = 0 WHERE lease_owner LIKE $1 AND open = 1",
    )
    .bind(format!("{node}%"))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// What has ended before that time is forgotten.
///
/// # Errors
/// The database.
pub async fn delete_before(db: &AnyPool, before: Timestamp) -> Result<u64> {
    let old = Old { table: "hook_runs", key: "id", condition: "open = 0 AND updated < $1" };
    old.delete(db, before).await
}

/// How many wait, by consumer, with those that were given up.
pub async fn count_by_state(db: impl Db<'_>) -> Result<Vec<(String, String, i64)>> {
    sqlx::query_as(
        "SELECT consumer, state, COUNT(*) FROM hook_runs WHERE open = 1 GROUP BY consumer, state UNION ALL \
         SELECT consumer, state, COUNT(*) FROM hook_runs WHERE state = 'failed' GROUP BY consumer, state",
    )
    .fetch_all(db)
    .await
}
