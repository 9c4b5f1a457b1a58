//! `sessions`: who is logged in on which server.

use sqlx::FromRow;

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct SessionRow {
    pub id: String,
    pub node: String,
    pub username: String,
    pub client_no: String,
    pub protocol: String,
    pub peer: String,
    /// When it began.
    pub created: i64,
}

/// Writes a session down; one that stands already stays as it is.
pub async fn insert(db: impl Db<'_>, row: &SessionRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO sessions (id, node, username, client_no, protocol, peer, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&row.id)
    .bind(&row.node)
    .bind(&row.username)
    .bind(&row.client_no)
    .bind(&row.protocol)
    .bind(&row.peer)
    .bind(row.created)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn delete(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(db).await?;
    Ok(done.rows_affected())
}

/// Sessions of a process that has ended.
pub async fn delete_of_node(db: impl Db<'_>, node: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM sessions WHERE node = $1").bind(node).execute(db).await?;
    Ok(done.rows_affected())
}

/// Oldest first.
pub async fn all(db: impl Db<'_>) -> Result<Vec<SessionRow>> {
    sqlx::query_as("SELECT * FROM sessions ORDER BY created, id").fetch_all(db).await
}

/// Those of one server that began before a time.
pub async fn of_node(db: impl Db<'_>, node: &str, before: Timestamp) -> Result<Vec<SessionRow>> {
    sqlx::query_as("SELECT * FROM sessions WHERE node = $1 AND created < $2")
        .bind(node)
        .bind(before.0)
        .fetch_all(db)
        .await
}

/// How many an account has on servers other than this one.
pub async fn count_elsewhere(db: impl Db<'_>, username: &str, node: &str) -> Result<i64> {
    let (count,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM sessions WHERE username = $1 AND node <> $2")
            .bind(username)
            .bind(node)
            .fetch_one(db)
            .await?;
    Ok(count)
}

/// Servers that have left sessions behind or have them now.
pub async fn nodes(db: impl Db<'_>) -> Result<Vec<String>> {
    let rows: Vec<(String,)> =
        sqlx::query_as("SELECT DISTINCT node FROM sessions").fetch_all(db).await?;
    Ok(rows.into_iter().map(|(node,)| node).collect())
}
