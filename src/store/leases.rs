//! `leases`: work that one server does at a time.

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

/// Takes or keeps a lease; false while another holds it.
pub async fn take(
    db: impl Db<'_>,
    name: &str,
    (owner, until): (&str, Timestamp),
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO leases (name, owner, until, created, updated) VALUES ($1, $2, $3, $4, $4) \
         ON CONFLICT (name) DO UPDATE SET owner = $2, until = $3, updated = $4 \
         WHERE leases.owner = $2 OR leases.until <= $4",
    )
    .bind(name)
    .bind(owner)
    .bind(until.0)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The node of an owner: owners are a node, a slash, and what of it holds the lease.
#[must_use]
pub fn node_of(owner: &str) -> &str {
    owner.split_once('/').map_or(owner, |(node, _)| node)
}

/// Who holds something.
pub async fn owners(db: impl Db<'_>) -> Result<Vec<String>> {
    let rows: Vec<(String,)> =
        sqlx::query_as("SELECT DISTINCT owner FROM leases").fetch_all(db).await?;
    Ok(rows.into_iter().map(|(owner,)| owner).collect())
}

/// Leases of a process that is gone are free at once.
pub async fn free_of(db: impl Db<'_>, node: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM leases WHERE owner = $1").bind(node).execute(db).await?;
    Ok(done.rows_affected())
}
