//! `bans`: addresses that may not connect for a while.

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
