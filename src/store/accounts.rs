//! `uplogin` (Portal Zugänge), `ssh_keys`, `system_defaults`.

use sqlx::{FromRow, Row};

use super::clients::Db;
use super::{Result, flag};
use crate::domain::account::Status;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct AccountRow {
    pub id: String,
    pub client_no: String,
    pub username: String,
    pub status: String,
    pub password_hash: String,
    pub operator_credential: i64,
    pub checked: i64,
    pub activation_time: i64,
    pub first_login: i64,
    pub last_login: i64,
    pub settings: String,
    pub version: i64,
    pub created: i64,
    pub updated: i64,
}

impl AccountRow {
    #[must_use]
    pub fn status(&self) -> Status {
        Status::parse(&self.status)
    }

    /// Has logged in once, or has a credential that an operator set (spec section 11).
    #[must_use]
    pub fn is_activated(&self) -> bool {
        self.first_login != 0 || self.operator_credential != 0
    }
}

#[derive(Debug, Clone, FromRow)]
pub struct KeyRow {
    pub username: String,
    pub fingerprint: String,
    pub public_key: String,
    pub comment: String,
    pub created: i64,
    pub updated: i64,
}

pub async fn insert(db: impl Db<'_>, row: &AccountRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO uplogin (id, client_no, username, status, password_hash, operator_credential, checked, \
         activation_time, first_login, last_login, settings, version, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(&row.id)
    .bind(&row.client_no)
    .bind(&row.username)
    .bind(&row.status)
    .bind(&row.password_hash)
    .bind(row.operator_credential)
    .bind(row.checked)
    .bind(row.activation_time)
    .bind(row.first_login)
    .bind(row.last_login)
    .bind(&row.settings)
    .bind(row.version)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn account(db: impl Db<'_>, username: &str) -> Result<Option<AccountRow>> {
    sqlx::query_as("SELECT * FROM uplogin WHERE username = $1")
        .bind(username)
        .fetch_optional(db)
        .await
}

pub async fn accounts(db: impl Db<'_>) -> Result<Vec<AccountRow>> {
    sqlx::query_as("SELECT * FROM uplogin ORDER BY username").fetch_all(db).await
}

pub async fn accounts_of(db: impl Db<'_>, client_no: &str) -> Result<Vec<AccountRow>> {
    sqlx::query_as("SELECT * FROM uplogin WHERE client_no = $1 ORDER BY created, id")
        .bind(client_no)
        .fetch_all(db)
        .await
}

pub async fn set_status(
    db: impl Db<'_>,
    username: &str,
    status: Status,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uplogin SET status = $1, version = version + 1, updated = $2 \
         WHERE username = $3 AND status <> $1",
    )
    .bind(status.as_str())
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_settings(
    db: impl Db<'_>,
    username: &str,
    settings: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uplogin SET settings = $1, version = version + 1, updated = $2 WHERE username = $3",
    )
    .bind(settings)
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A password that an operator set counts as a credential like one set by link (spec section 3).
pub async fn set_password(
    db: impl Db<'_>,
    username: &str,
    hash: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uplogin SET password_hash = $1, operator_credential = 1, version = version + 1, \
         updated = $2 WHERE username = $3",
    )
    .bind(hash)
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A password that the customer set with a link.
pub async fn set_password_by_link(
    db: impl Db<'_>,
    username: &str,
    hash: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uplogin SET password_hash = $1, activation_time = $2, version = version + 1, updated = $2 \
         WHERE username = $3 AND status = 'active'",
    )
    .bind(hash)
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A password that the customer changed; 0 rows when the account has changed since `version`.
pub async fn change_password(
    db: impl Db<'_>,
    (username, version): (&str, i64),
    hash: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uplogin SET password_hash = $1, version = version + 1, updated = $2 \
         WHERE username = $3 AND version = $4 AND status = 'active'",
    )
    .bind(hash)
    .bind(now.0)
    .bind(username)
    .bind(version)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The same password under another hash: nothing else changes.
pub async fn renew_hash(db: impl Db<'_>, username: &str, (old, new): (&str, &str)) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uplogin SET password_hash = $1 WHERE username = $2 AND password_hash = $3",
    )
    .bind(new)
    .bind(username)
    .bind(old)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Keys that an operator adds are a credential too.
pub async fn note_key_change(db: impl Db<'_>, username: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE uplogin SET operator_credential = 1, version = version + 1, updated = $1 WHERE username = $2",
    )
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(())
}

/// A removed key ends cached checks; when no key and no password is left, there is no credential any more.
pub async fn note_key_removed(db: impl Db<'_>, username: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE uplogin SET version = version + 1, updated = $1, operator_credential = CASE \
           WHEN password_hash = '' AND NOT EXISTS (SELECT 1 FROM ssh_keys k WHERE k.username = $2) THEN 0 \
           ELSE operator_credential END WHERE username = $2",
    )
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(())
}

/// The first login sets `checked` and the moment; every login sets `last_login`.
/// Notes a login of the account as it was when its credentials were checked; 0 rows when it has changed since.
pub async fn note_login(
    db: impl Db<'_>,
    (username, version): (&str, i64),
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE uplogin SET last_login = $1, checked = $2, \
         first_login = CASE WHEN first_login = 0 THEN $1 ELSE first_login END, \
         updated = CASE WHEN first_login = 0 THEN $1 ELSE updated END \
         WHERE username = $3 AND version = $4 AND status = 'active'",
    )
    .bind(now.0)
    .bind(flag(true))
    .bind(username)
    .bind(version)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete(db: impl Db<'_>, username: &str) -> Result<u64> {
    let done =
        sqlx::query("DELETE FROM uplogin WHERE username = $1").bind(username).execute(db).await?;
    Ok(done.rows_affected())
}

pub async fn insert_key(db: impl Db<'_>, id: &str, row: &KeyRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO ssh_keys (id, username, fingerprint, public_key, comment, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(&row.username)
    .bind(&row.fingerprint)
    .bind(&row.public_key)
    .bind(&row.comment)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn keys(db: impl Db<'_>, username: &str) -> Result<Vec<KeyRow>> {
    sqlx::query_as(
        "SELECT username, fingerprint, public_key, comment, created, updated FROM ssh_keys \
         WHERE username = $1 ORDER BY created, fingerprint",
    )
    .bind(username)
    .fetch_all(db)
    .await
}

pub async fn has_key(db: impl Db<'_>, username: &str, fingerprint: &str) -> Result<bool> {
    let row = sqlx::query("SELECT id FROM ssh_keys WHERE username = $1 AND fingerprint = $2")
        .bind(username)
        .bind(fingerprint)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

pub async fn delete_key(db: impl Db<'_>, username: &str, fingerprint: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM ssh_keys WHERE username = $1 AND fingerprint = $2")
        .bind(username)
        .bind(fingerprint)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

pub async fn delete_keys_of(db: impl Db<'_>, username: &str) -> Result<u64> {
    let done =
        sqlx::query("DELETE FROM ssh_keys WHERE username = $1").bind(username).execute(db).await?;
    Ok(done.rows_affected())
}

/// The settings object of a system default (`ptportal`, `clients`) as JSON text.
pub async fn system_default(db: impl Db<'_>, name: &str) -> Result<Option<String>> {
    let row = sqlx::query("SELECT settings FROM system_defaults WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.map(|r| r.try_get(0)).transpose()
}

pub async fn set_system_default(
    db: impl Db<'_>,
    name: &str,
    settings: &str,
    now: Timestamp,
) -> Result<u64> {
    let done =
        sqlx::query("UPDATE system_defaults SET settings = $1, updated = $2 WHERE name = $3")
            .bind(settings)
            .bind(now.0)
            .bind(name)
            .execute(db)
            .await?;
    Ok(done.rows_affected())
}
