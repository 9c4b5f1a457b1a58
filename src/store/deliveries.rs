//! `deliveries`: the outbox. Rows are claimed under a lease by one worker at a time.

use sqlx::FromRow;

use super::Result;
use super::batch::{Step, values};
use super::clients::Db;
use super::uploads::UploadRow;
use crate::domain::time::Timestamp;
use crate::domain::upload::DeliveryState;

#[derive(Debug, Clone, FromRow)]
pub struct DeliveryRow {
    pub id: String,
    pub upload_id: String,
    pub entry_id: String,
    pub version: i64,
    pub consumer: String,
    pub target: String,
    pub state: String,
    pub open: i64,
    pub attempts: i64,
    pub next_try: i64,
    pub last_error: String,
    pub temp_name: String,
    pub placed_name: String,
    pub taken: i64,
    /// A job ticket's batch, or empty.
    pub batch: String,
    /// Of a job ticket's text as it was placed, in hex; a file's stands on its upload.
    pub sha256: String,
    /// When the file was placed.
    pub delivered: i64,
    /// When it was told that nobody takes it.
    pub waited: i64,
    pub lease_owner: String,
    pub lease_until: i64,
    pub created: i64,
    pub updated: i64,
}

impl DeliveryRow {
    #[must_use]
    pub fn state(&self) -> Option<DeliveryState> {
        DeliveryState::parse(&self.state)
    }
}

/// Writes the delivery down with the event that causes it; a second one for the same consumer does nothing.
pub async fn insert(
    db: impl Db<'_>,
    id: &str,
    (upload, entry, version): (&str, &str, i64),
    (consumer, target): (&str, &str),
    (due, now): (Timestamp, Timestamp),
) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO deliveries (id, upload_id, entry_id, version, consumer, target, state, open, attempts, next_try, \
         last_error, temp_name, placed_name, taken, lease_owner, lease_until, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 1, 0, $7, '', '', '', 0, '', 0, $8, $8) \
         ON CONFLICT (upload_id, consumer) DO NOTHING",
    )
    .bind(id)
    .bind(upload)
    .bind(entry)
    .bind(version)
    .bind(consumer)
    .bind(target)
    .bind(due.0)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The delivery of a release, in its transaction; none for a temporary name.
#[must_use]
pub fn insert_step(
    id: &str,
    upload: &str,
    (consumer, target): (&str, &str),
    (due, now): (Timestamp, Timestamp),
) -> Step {
    Step {
        sql: "INSERT INTO deliveries (id, upload_id, entry_id, version, consumer, target, state, open, attempts, \
              next_try, last_error, temp_name, placed_name, taken, lease_owner, lease_until, created, updated) \
              SELECT $1, u.id, u.entry_id, u.version, $2, $3, 'pending', 1, 0, $4, '', '', '', 0, '', 0, $5, $5 \
              FROM uploads u LEFT JOIN entries e ON e.id = u.entry_id \
              WHERE u.id = $6 AND u.state = 'released' AND u.released = $5 AND COALESCE(e.is_temporary, 0) = 0 AND u.protocol <> 'hotfolder' \
              ON CONFLICT (upload_id, consumer) DO NOTHING",
        values: values![id, consumer, target, due.0, now.0, upload],
    }
}

/// A job ticket's delivery; a second one for the same file does nothing.
pub async fn insert_ticket(
    db: impl Db<'_>,
    id: &str,
    (upload, batch): (&UploadRow, &str),
    (consumer, target): (&str, &str),
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO deliveries (id, upload_id, entry_id, version, consumer, target, state, open, attempts, next_try, \
         last_error, temp_name, placed_name, taken, batch, lease_owner, lease_until, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 1, 0, $7, '', '', '', 0, $8, '', 0, $7, $7) \
         ON CONFLICT (upload_id, consumer) DO NOTHING",
    )
    .bind(id)
    .bind(&upload.id)
    .bind(&upload.entry_id)
    .bind(upload.version)
    .bind(consumer)
    .bind(target)
    .bind(now.0)
    .bind(batch)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Takes the oldest due delivery. Versions of one name go in their order: one waits while an earlier version
/// of its name is undelivered or still in the scanner.
pub async fn claim(
    db: impl Db<'_>,
    (owner, until): (&str, Timestamp),
    now: Timestamp,
) -> Result<Option<DeliveryRow>> {
    sqlx::query_as(
        "UPDATE deliveries SET lease_owner = $1, lease_until = $2, attempts = attempts + 1, updated = $3 \
         WHERE id = (SELECT d.id FROM deliveries d WHERE d.open = 1 AND d.next_try <= $3 \
           AND d.lease_until <= $3 \
           AND NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.entry_id = d.entry_id AND e.open = 1 \
             AND e.consumer = d.consumer AND e.version < d.version) \
           AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.entry_id = d.entry_id AND u.state = 'scanning' \
             AND u.version < d.version) \
           ORDER BY d.next_try, d.id LIMIT 1) \
         AND open = 1 AND lease_until <= $3 RETURNING *",
    )
    .bind(owner)
    .bind(until.0)
    .bind(now.0)
    // All of it: SQLite commits behind the last row, and says only there that it could not.
    .fetch_all(db)
    .await
    .map(|mut rows| rows.pop())
}

/// A long copy keeps its lease; 0 rows mean that another worker has taken over.
pub async fn renew_lease(db: impl Db<'_>, id: &str, owner: &str, until: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET lease_until = $1 WHERE id = $2 AND lease_owner = $3 AND open = 1",
    )
    .bind(until.0)
    .bind(id)
    .bind(owner)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Records where the file goes before it goes there. From here on the temporary file is the witness.
pub async fn set_placing(
    db: impl Db<'_>,
    (id, owner): (&str, &str),
    (temp_name, placed_name): (&str, &str),
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET state = 'placing', temp_name = $1, placed_name = $2, updated = $3 \
         WHERE id = $4 AND lease_owner = $5 AND state IN ('pending', 'stuck', 'placing')",
    )
    .bind(temp_name)
    .bind(placed_name)
    .bind(now.0)
    .bind(id)
    .bind(owner)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_done(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET state = 'done', open = 0, last_error = '', lease_owner = '', lease_until = 0, \
         delivered = $1, updated = $1 WHERE id = $2 AND state = 'placing'",
    )
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// An attempt failed: when it is tried again. What is `placing` stays so, because its witness decides.
pub async fn postpone(
    db: impl Db<'_>,
    (id, owner): (&str, &str),
    error: &str,
    next: Timestamp,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET last_error = $1, next_try = $2, lease_owner = '', lease_until = 0, updated = $3, \
         state = CASE WHEN state = 'pending' AND attempts >= 3 THEN 'stuck' ELSE state END \
         WHERE id = $4 AND lease_owner = $5 AND open = 1",
    )
    .bind(error)
    .bind(next.0)
    .bind(now.0)
    .bind(id)
    .bind(owner)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Back to the beginning, while the lease is ours: the copy is gone and was never placed.
pub async fn unplace(db: impl Db<'_>, id: &str, owner: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET state = 'pending', temp_name = '', placed_name = '', updated = $1 \
         WHERE id = $2 AND lease_owner = $3 AND state = 'placing'",
    )
    .bind(now.0)
    .bind(id)
    .bind(owner)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Leases of a process that is gone are free at once.
pub async fn free_leases_of(db: impl Db<'_>, node: &str) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET lease_owner = '', lease_until = 0 WHERE lease_owner LIKE $1 AND open = 1",
    )
    .bind(format!("{node}%"))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Ends what has not begun to be placed; whoever holds a lease finds out before `placing`.
pub async fn end_unplaced(
    db: impl Db<'_>,
    upload: &str,
    to: DeliveryState,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET state = $1, open = 0, lease_owner = '', lease_until = 0, updated = $2 \
         WHERE upload_id = $3 AND consumer = 'mirror' AND state IN ('pending', 'stuck')",
    )
    .bind(to.as_str())
    .bind(now.0)
    .bind(upload)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A rename onto another name: deliveries go with their upload.
pub async fn move_to_entry(db: impl Db<'_>, upload: &str, entry: &str, version: i64) -> Result<()> {
    sqlx::query("UPDATE deliveries SET entry_id = $1, version = $2 WHERE upload_id = $3")
        .bind(entry)
        .bind(version)
        .bind(upload)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn set_placed_name(
    db: impl Db<'_>,
    id: &str,
    placed_name: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query("UPDATE deliveries SET placed_name = $1, updated = $2 WHERE id = $3")
        .bind(placed_name)
        .bind(now.0)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn of_upload(db: impl Db<'_>, upload: &str) -> Result<Vec<DeliveryRow>> {
    sqlx::query_as("SELECT * FROM deliveries WHERE upload_id = $1 ORDER BY id")
        .bind(upload)
        .fetch_all(db)
        .await
}

/// The earlier file that we placed under this name and that may be replaced.
pub async fn last_placed(db: impl Db<'_>, placed_name: &str) -> Result<Option<DeliveryRow>> {
    sqlx::query_as(
        "SELECT * FROM deliveries WHERE placed_name = $1 AND state = 'done' ORDER BY delivered DESC, id DESC LIMIT 1",
    )
    .bind(placed_name)
    .fetch_optional(db)
    .await
}

/// The text of a ticket that is about to be placed.
pub async fn set_sha256(db: impl Db<'_>, id: &str, sha256: &str) -> Result<u64> {
    let done = sqlx::query("UPDATE deliveries SET sha256 = $1 WHERE id = $2")
        .bind(sha256)
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// Whether a later version of the same name waits for its delivery, or has had it.
pub async fn later_open(db: impl Db<'_>, entry: &str, version: i64) -> Result<bool> {
    let row = sqlx::query(
        "SELECT id FROM deliveries WHERE entry_id = $1 AND version > $2 AND (open = 1 OR state = 'done') LIMIT 1",
    )
    .bind(entry)
    .bind(version)
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

pub async fn delivery(db: impl Db<'_>, id: &str) -> Result<Option<DeliveryRow>> {
    sqlx::query_as("SELECT * FROM deliveries WHERE id = $1").bind(id).fetch_optional(db).await
}

pub async fn list(db: impl Db<'_>, state: &str, limit: i64) -> Result<Vec<DeliveryRow>> {
    sqlx::query_as(
        "SELECT * FROM deliveries WHERE ($1 = '' OR state = $1) ORDER BY id DESC LIMIT $2",
    )
    .bind(state)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Tries one (or with an empty id every) open delivery now.
pub async fn retry_now(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET next_try = 0, updated = $1 WHERE open = 1 AND ($2 = '' OR id = $2)",
    )
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Placed files that nobody is known to have taken, oldest first.
pub async fn untaken(db: impl Db<'_>, since: Timestamp) -> Result<Vec<DeliveryRow>> {
    sqlx::query_as(
        "SELECT * FROM deliveries WHERE state = 'done' AND taken = 0 AND consumer = 'mirror' AND delivered >= $1 \
         ORDER BY delivered, id LIMIT 20000",
    )
    .bind(since.0)
    .fetch_all(db)
    .await
}

pub async fn set_taken(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET taken = $1, updated = $1 WHERE id = $2 AND taken = 0 AND state = 'done'",
    )
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_waited(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE deliveries SET waited = $1, updated = $1 WHERE id = $2 AND waited = 0 AND taken = 0",
    )
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Where the customer's file was placed.
pub async fn placed_of(db: impl Db<'_>, upload: &str) -> Result<Option<String>> {
    let row: Option<(String,)> = sqlx::query_as(
        "SELECT placed_name FROM deliveries WHERE upload_id = $1 AND consumer = 'mirror' AND state = 'done'",
    )
    .bind(upload)
    .fetch_optional(db)
    .await?;
    Ok(row.map(|(name,)| name))
}
