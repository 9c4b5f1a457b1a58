//! `nodes`: one row for each server process, renewed every 5 s, dead after 20 s (spec section 15).

use std::time::Duration;

use sqlx::{FromRow, Row};

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

pub const HEARTBEAT: Duration = Duration::from_secs(5);
pub const DEAD_AFTER: Duration = Duration::from_secs(20);
/// No two servers' clocks are this far apart.
const SKEW_MAX: Duration = Duration::from_secs(10 * 60);

/// One server process.
#[derive(Debug, Clone, FromRow)]
pub struct NodeRow {
    pub id: String,
    pub host: String,
    pub pid: i64,
    pub heartbeat: i64,
}

/// Every server that has not signed off, oldest first.
pub async fn rows(db: impl Db<'_>) -> Result<Vec<NodeRow>> {
    sqlx::query_as("SELECT id, host, pid, heartbeat FROM nodes ORDER BY id").fetch_all(db).await
}

pub async fn insert(db: impl Db<'_>, id: &str, host: &str, pid: u32, now: Timestamp) -> Result<()> {
    sqlx::query("INSERT INTO nodes (id, host, pid, heartbeat, created, updated) VALUES ($1, $2, $3, $4, $4, $4)")
        .bind(id)
        .bind(host)
        .bind(i64::from(pid))
        .bind(now.0)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn beat(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query("UPDATE nodes SET heartbeat = $1, updated = $1 WHERE id = $2")
        .bind(now.0)
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// Processes whose heart beats. One that beats far in the future ended under a clock that was wrong.
pub async fn live(db: impl Db<'_>, now: Timestamp) -> Result<Vec<String>> {
    let rows = sqlx::query("SELECT id FROM nodes WHERE heartbeat >= $1 AND heartbeat <= $2")
        .bind(now.minus(DEAD_AFTER).0)
        .bind(now.plus(SKEW_MAX).0)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

pub async fn all(db: impl Db<'_>) -> Result<Vec<String>> {
    let rows = sqlx::query("SELECT id FROM nodes ORDER BY id").fetch_all(db).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

pub async fn delete(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM nodes WHERE id = $1").bind(id).execute(db).await?;
    Ok(done.rows_affected())
}
