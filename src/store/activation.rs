//! `ptportal_account_activation` (links) and `link_requests` (who asked for one).

use sqlx::{FromRow, Row};

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct LinkRow {
    pub id: String,
    pub username: String,
    pub mail_id: String,
    pub checked: i64,
    pub sent: i64,
    pub expires: i64,
    pub used: i64,
    pub created: i64,
    pub updated: i64,
}

#[derive(Debug, Clone, FromRow)]
pub struct RequestRow {
    pub id: String,
    pub username: String,
    pub peer: String,
    pub created: i64,
}

/// A link that is good until `expires`; `mail` is empty when an operator hands it over.
pub async fn insert(
    db: impl Db<'_>,
    (id, username): (&str, &str),
    (token_hash, mail): (&str, &str),
    expires: Timestamp,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO ptportal_account_activation (id, username, token_hash, mail_id, checked, sent, expires, used, \
         created, updated) VALUES ($1, $2, $3, $4, 0, 0, $5, 0, $6, $6)",
    )
    .bind(id)
    .bind(username)
    .bind(token_hash)
    .bind(mail)
    .bind(expires.0)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn by_hash(db: impl Db<'_>, token_hash: &str) -> Result<Option<LinkRow>> {
    sqlx::query_as(
        "SELECT id, username, mail_id, checked, sent, expires, used, created, updated \
         FROM ptportal_account_activation WHERE token_hash = $1",
    )
    .bind(token_hash)
    .fetch_optional(db)
    .await
}

pub async fn of_account(db: impl Db<'_>, username: &str) -> Result<Vec<LinkRow>> {
    sqlx::query_as(
        "SELECT id, username, mail_id, checked, sent, expires, used, created, updated \
         FROM ptportal_account_activation WHERE username = $1 ORDER BY created, id",
    )
    .bind(username)
    .fetch_all(db)
    .await
}

/// The mail server took the mail: from now on the time counts, unless the link has been voided meanwhile.
pub async fn set_sent(
    db: impl Db<'_>,
    id: &str,
    expires: Timestamp,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE ptportal_account_activation SET sent = $1, expires = $2, updated = $1 \
         WHERE id = $3 AND used = 0 AND expires > $1",
    )
    .bind(now.0)
    .bind(expires.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A mail that never left: its link was seen by nobody.
pub async fn delete(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM ptportal_account_activation WHERE id = $1 AND used = 0")
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// The oldest links give way, so that `keep` stay good.
pub async fn expire_all_but(
    db: impl Db<'_>,
    username: &str,
    keep: i64,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE ptportal_account_activation SET expires = $1, updated = $1 WHERE username = $2 AND used = 0 \
         AND expires > $1 AND id NOT IN (SELECT id FROM ptportal_account_activation WHERE username = $2 \
           AND used = 0 AND expires > $1 ORDER BY created DESC, id DESC LIMIT $3)",
    )
    .bind(now.0)
    .bind(username)
    .bind(keep)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Uses a link up: 1 row for the one who comes first, as long as the link is good and its account active.
pub async fn take(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE ptportal_account_activation SET used = $1, updated = $1 WHERE id = $2 AND used = 0 AND expires > $1 \
         AND EXISTS (SELECT 1 FROM uplogin u WHERE u.username = ptportal_account_activation.username \
           AND u.status = 'active')",
    )
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The first success ends all other links of the account, for a clock that goes back too.
pub async fn expire_others(
    db: impl Db<'_>,
    username: &str,
    id: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE ptportal_account_activation SET expires = created, updated = $1 \
         WHERE username = $2 AND id <> $3 AND used = 0 AND expires > created",
    )
    .bind(now.0)
    .bind(username)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The first login marks the links of the account as activated.
pub async fn set_checked(db: impl Db<'_>, username: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE ptportal_account_activation SET checked = 1, updated = $1 WHERE username = $2 AND checked = 0",
    )
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_of(db: impl Db<'_>, username: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM ptportal_account_activation WHERE username = $1")
        .bind(username)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

pub async fn insert_request(
    db: impl Db<'_>,
    (id, username, peer): (&str, &str, &str),
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO link_requests (id, username, peer, created, updated) VALUES ($1, $2, $3, $4, $4)",
    )
    .bind(id)
    .bind(username)
    .bind(peer)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

/// The oldest requests.
pub async fn requests(db: impl Db<'_>) -> Result<Vec<RequestRow>> {
    sqlx::query_as("SELECT id, username, peer, created FROM link_requests ORDER BY id LIMIT 100")
        .fetch_all(db)
        .await
}

/// 1 row for the server that may answer the request.
pub async fn take_request(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM link_requests WHERE id = $1").bind(id).execute(db).await?;
    Ok(done.rows_affected())
}

/// Requests that wait; beyond a bound no more are taken.
pub async fn waiting_requests(db: impl Db<'_>) -> Result<i64> {
    sqlx::query("SELECT COUNT(*) FROM link_requests").fetch_one(db).await?.try_get(0)
}

/// Links that nobody can use any more, before that time.
pub async fn delete_expired_before(db: impl Db<'_>, before: Timestamp) -> Result<u64> {
    let done = sqlx::query("DELETE FROM ptportal_account_activation WHERE expires < $1")
        .bind(before.0)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}
