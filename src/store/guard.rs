//! `bans`: addresses that may not connect for a while; `login_failures`: what leads there.

use sqlx::FromRow;

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct BanRow {
    pub address: String,
    pub until: i64,
    pub reason: String,
    pub created: i64,
}

pub async fn ban(
    db: impl Db<'_>,
    address: &str,
    until: Timestamp,
    reason: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO bans (address, until, reason, created, updated) VALUES ($1, $2, $3, $4, $4) \
         ON CONFLICT (address) DO UPDATE SET until = excluded.until, reason = excluded.reason, \
         updated = excluded.updated",
    )
    .bind(address)
    .bind(until.0)
    .bind(reason)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn bans(db: impl Db<'_>, now: Timestamp) -> Result<Vec<BanRow>> {
    sqlx::query_as(
        "SELECT address, until, reason, created FROM bans WHERE until > $1 ORDER BY address",
    )
    .bind(now.0)
    .fetch_all(db)
    .await
}

pub async fn remove(db: impl Db<'_>, address: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM bans WHERE address = $1").bind(address).execute(db).await?;
    Ok(done.rows_affected())
}

pub async fn delete_expired(db: impl Db<'_>, now: Timestamp) -> Result<u64> {
    let done = sqlx::query("DELETE FROM bans WHERE until <= $1").bind(now.0).execute(db).await?;
    Ok(done.rows_affected())
}

/// Writes a rejected password down; gives how many there are from that address since a time.
pub async fn note_failure(
    db: &mut sqlx::AnyConnection,
    (id, peer): (&str, &str),
    since: Timestamp,
    now: Timestamp,
) -> Result<i64> {
    sqlx::query("INSERT INTO login_failures (id, peer, created, updated) VALUES ($1, $2, $3, $3)")
        .bind(id)
        .bind(peer)
        .bind(now.0)
        .execute(&mut *db)
        .await?;
    let (count,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM login_failures WHERE peer = $1 AND created >= $2")
            .bind(peer)
            .bind(since.0)
            .fetch_one(&mut *db)
            .await?;
    Ok(count)
}

/// The address begins anew: it was banned, or its failures are too old to count.
pub async fn forget_failures(db: impl Db<'_>, peer: &str) -> Result<u64> {
    let done =
        sqlx::query("DELETE FROM login_failures WHERE peer = $1").bind(peer).execute(db).await?;
    Ok(done.rows_affected())
}

pub async fn delete_failures_before(db: impl Db<'_>, before: Timestamp) -> Result<u64> {
    let done = sqlx::query("DELETE FROM login_failures WHERE created < $1")
        .bind(before.0)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}
