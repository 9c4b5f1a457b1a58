//! What operators look at: everything that is open, with what it is about.

use sqlx::FromRow;

use super::Result;
use super::clients::Db;
use super::events::EventRow;
use super::uploads::UploadRow;
use crate::domain::time::Timestamp;

/// A delivery that is not done, and the file it is about.
#[derive(Debug, Clone, FromRow)]
pub struct OpenDelivery {
    pub id: String,
    pub upload_id: String,
    pub consumer: String,
    pub state: String,
    pub attempts: i64,
    pub next_try: i64,
    pub last_error: String,
    pub created: i64,
    pub client_no: String,
    pub project_no: String,
    pub path: String,
    pub size: i64,
}

/// Stuck ones first, then by age.
pub async fn open_deliveries(db: impl Db<'_>, limit: i64) -> Result<Vec<OpenDelivery>> {
    sqlx::query_as(
        "SELECT d.id, d.upload_id, d.consumer, d.state, d.attempts, d.next_try, d.last_error, d.created, \
         u.client_no, u.project_no, u.path, u.size FROM deliveries d JOIN uploads u ON u.id = d.upload_id \
         WHERE d.open = 1 ORDER BY CASE d.state WHEN 'stuck' THEN 0 ELSE 1 END, d.created, d.id LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Uploads in a state, those that wait longest first.
pub async fn waiting(db: impl Db<'_>, state: &str, limit: i64) -> Result<Vec<UploadRow>> {
    sqlx::query_as("SELECT * FROM uploads WHERE state = $1 ORDER BY completed, id LIMIT $2")
        .bind(state)
        .bind(limit)
        .fetch_all(db)
        .await
}

/// How many, since when (Unix milliseconds), and what was said of one of them.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Sum {
    pub count: i64,
    pub since: i64,
    pub reason: String,
}

/// Delivered files that were told to wait for somebody who takes them.
pub async fn untaken(db: impl Db<'_>) -> Result<Sum> {
    sqlx::query_as(
        "SELECT COUNT(*) AS count, COALESCE(MIN(delivered), 0) AS since, '' AS reason FROM deliveries \
         WHERE state = 'done' AND taken = 0 AND consumer = 'mirror' AND waited > 0",
    )
    .fetch_one(db)
    .await
}

/// Deliveries that were tried in vain three times and more.
pub async fn stuck(db: impl Db<'_>) -> Result<Sum> {
    sqlx::query_as(
        "SELECT COUNT(*) AS count, COALESCE(MIN(created), 0) AS since, COALESCE(MAX(last_error), '') AS reason \
         FROM deliveries WHERE open = 1 AND state = 'stuck'",
    )
    .fetch_one(db)
    .await
}

/// Files whose scan gave no verdict three times.
pub async fn unscanned(db: impl Db<'_>) -> Result<Sum> {
    sqlx::query_as(
        "SELECT COUNT(*) AS count, COALESCE(MIN(completed), 0) AS since, COALESCE(MAX(reason), '') AS reason \
         FROM uploads WHERE state = 'scanning' AND scan_attempts >= 3",
    )
    .fetch_one(db)
    .await
}

pub async fn held(db: impl Db<'_>) -> Result<Sum> {
    sqlx::query_as(
        "SELECT COUNT(*) AS count, COALESCE(MIN(completed), 0) AS since, COALESCE(MAX(reason), '') AS reason \
         FROM uploads WHERE state = 'held'",
    )
    .fetch_one(db)
    .await
}

/// Mails that were given up since a time.
pub async fn failed_mails(db: impl Db<'_>, since: Timestamp) -> Result<Sum> {
    sqlx::query_as(
        "SELECT COUNT(*) AS count, COALESCE(MIN(updated), 0) AS since, COALESCE(MAX(reason), '') AS reason \
         FROM mails WHERE state = 'failed' AND updated >= $1",
    )
    .bind(since.0)
    .fetch_one(db)
    .await
}

/// Hooks and webhooks that were given up since a time.
pub async fn failed_hooks(db: impl Db<'_>, since: Timestamp) -> Result<Sum> {
    sqlx::query_as(
        "SELECT COUNT(*) AS count, COALESCE(MIN(updated), 0) AS since, COALESCE(MAX(last_error), '') AS reason \
         FROM hook_runs WHERE state = 'failed' AND updated >= $1",
    )
    .bind(since.0)
    .fetch_one(db)
    .await
}

/// The last events, newest first.
pub async fn last_events(db: impl Db<'_>, limit: i64) -> Result<Vec<EventRow>> {
    sqlx::query_as("SELECT * FROM events ORDER BY seq DESC LIMIT $1")
        .bind(limit)
        .fetch_all(db)
        .await
}

/// Why logins of an account failed, newest first.
pub async fn failed_logins(db: impl Db<'_>, username: &str, limit: i64) -> Result<Vec<EventRow>> {
    sqlx::query_as(
        "SELECT * FROM events WHERE kind = 'login.failed' AND username = $1 ORDER BY seq DESC LIMIT $2",
    )
    .bind(username)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The addresses of an account's last logins, the newest first.
pub async fn login_peers(db: impl Db<'_>, username: &str, limit: i64) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT peer FROM events WHERE kind = 'login' AND username = $1 ORDER BY seq DESC LIMIT $2",
    )
    .bind(username)
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(peer,)| peer).collect())
}
