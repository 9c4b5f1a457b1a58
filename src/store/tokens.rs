//! `api_tokens`.

use sqlx::FromRow;

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct TokenRow {
    pub id: String,
    pub name: String,
    pub scope: String,
    pub last_used: i64,
    pub created: i64,
    pub updated: i64,
}

pub async fn insert(
    db: impl Db<'_>,
    (id, name, scope): (&str, &str, &str),
    token_hash: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO api_tokens (id, name, scope, token_hash, last_used, created, updated) \
         VALUES ($1, $2, $3, $4, 0, $5, $5)",
    )
    .bind(id)
    .bind(name)
    .bind(scope)
    .bind(token_hash)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn by_hash(db: impl Db<'_>, token_hash: &str) -> Result<Option<TokenRow>> {
    sqlx::query_as(
        "SELECT id, name, scope, last_used, created, updated FROM api_tokens WHERE token_hash = $1",
    )
    .bind(token_hash)
    .fetch_optional(db)
    .await
}

pub async fn tokens(db: impl Db<'_>) -> Result<Vec<TokenRow>> {
    sqlx::query_as(
        "SELECT id, name, scope, last_used, created, updated FROM api_tokens ORDER BY name",
    )
    .fetch_all(db)
    .await
}

/// Noted at most once a minute, so that reading costs no write each time.
pub async fn note_use(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE api_tokens SET last_used = $1 WHERE id = $2 AND last_used < $1 - 60000",
    )
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete(db: impl Db<'_>, name: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM api_tokens WHERE name = $1").bind(name).execute(db).await?;
    Ok(done.rows_affected())
}
