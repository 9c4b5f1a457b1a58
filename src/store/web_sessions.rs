//! `web_sessions`: who is logged in on the pages.

use sqlx::FromRow;

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct WebSessionRow {
    /// SHA-256 of the cookie, in hex.
    pub id: String,
    pub username: String,
    pub expires: i64,
    pub created: i64,
    /// When it was last used.
    pub updated: i64,
}

pub async fn insert(
    db: impl Db<'_>,
    (id, username): (&str, &str),
    expires: Timestamp,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO web_sessions (id, username, expires, created, updated) VALUES ($1, $2, $3, $4, $4)",
    )
    .bind(id)
    .bind(username)
    .bind(expires.0)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn session(db: impl Db<'_>, id: &str) -> Result<Option<WebSessionRow>> {
    sqlx::query_as("SELECT * FROM web_sessions WHERE id = $1").bind(id).fetch_optional(db).await
}

/// Noted at most once a minute.
pub async fn note_use(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done =
        sqlx::query("UPDATE web_sessions SET updated = $1 WHERE id = $2 AND updated < $1 - 60000")
            .bind(now.0)
            .bind(id)
            .execute(db)
            .await?;
    Ok(done.rows_affected())
}

pub async fn delete(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM web_sessions WHERE id = $1").bind(id).execute(db).await?;
    Ok(done.rows_affected())
}

/// A changed password ends them all.
pub async fn delete_of(db: impl Db<'_>, username: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM web_sessions WHERE username = $1")
        .bind(username)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

pub async fn delete_expired(db: impl Db<'_>, now: Timestamp) -> Result<u64> {
    let done =
        sqlx::query("DELETE FROM web_sessions WHERE expires <= $1").bind(now.0).execute(db).await?;
    Ok(done.rows_affected())
}
