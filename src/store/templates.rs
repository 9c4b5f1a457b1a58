//! `client_email_template`, `email_signature`, `users`.

use sqlx::FromRow;

use super::Result;
use super::clients::Db;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct TemplateRow {
    pub id: String,
    pub name: String,
    pub subject: String,
    pub content: String,
    /// Name of the user who sends it by hand, or empty.
    pub owner: String,
    pub status: String,
    pub created: i64,
    pub updated: i64,
}

#[derive(Debug, Clone, Default, FromRow)]
pub struct SignatureRow {
    pub id: String,
    pub name: String,
    pub head_html: String,
    pub foot_html: String,
    pub head_text: String,
    pub foot_text: String,
    pub status: String,
    pub created: i64,
    pub updated: i64,
}

#[derive(Debug, Clone, FromRow)]
pub struct UserRow {
    pub id: String,
    pub name: String,
    pub email: String,
    pub created: i64,
    pub updated: i64,
}

/// A default text where none of that name is yet.
pub async fn insert_if_missing(db: impl Db<'_>, row: &TemplateRow) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO client_email_template (id, name, subject, content, owner, status, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.subject)
    .bind(&row.content)
    .bind(&row.owner)
    .bind(&row.status)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn update(db: impl Db<'_>, row: &TemplateRow) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE client_email_template SET subject = $1, content = $2, owner = $3, status = $4, updated = $5 \
         WHERE name = $6",
    )
    .bind(&row.subject)
    .bind(&row.content)
    .bind(&row.owner)
    .bind(&row.status)
    .bind(row.updated)
    .bind(&row.name)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn template(db: impl Db<'_>, name: &str) -> Result<Option<TemplateRow>> {
    sqlx::query_as("SELECT * FROM client_email_template WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await
}

pub async fn templates(db: impl Db<'_>) -> Result<Vec<TemplateRow>> {
    sqlx::query_as("SELECT * FROM client_email_template ORDER BY name").fetch_all(db).await
}

/// Writes a signature, new or in place of the one of that name.
pub async fn put_signature(db: impl Db<'_>, row: &SignatureRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO email_signature (id, name, head_html, foot_html, head_text, foot_text, status, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET head_html = $3, \
         foot_html = $4, head_text = $5, foot_text = $6, status = $7, updated = $9",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.head_html)
    .bind(&row.foot_html)
    .bind(&row.head_text)
    .bind(&row.foot_text)
    .bind(&row.status)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn signatures(db: impl Db<'_>) -> Result<Vec<SignatureRow>> {
    sqlx::query_as("SELECT * FROM email_signature ORDER BY name").fetch_all(db).await
}

/// The signature under every mail.
pub async fn active_signature(db: impl Db<'_>) -> Result<Option<SignatureRow>> {
    sqlx::query_as(
        "SELECT * FROM email_signature WHERE status = 'active' ORDER BY updated DESC, name LIMIT 1",
    )
    .fetch_optional(db)
    .await
}

pub async fn put_user(
    db: impl Db<'_>,
    (id, name, email): (&str, &str, &str),
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO users (id, name, email, created, updated) VALUES ($1, $2, $3, $4, $4) \
         ON CONFLICT (name) DO UPDATE SET email = $3, updated = $4",
    )
    .bind(id)
    .bind(name)
    .bind(email)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn user(db: impl Db<'_>, name: &str) -> Result<Option<UserRow>> {
    sqlx::query_as("SELECT * FROM users WHERE name = $1").bind(name).fetch_optional(db).await
}

pub async fn users(db: impl Db<'_>) -> Result<Vec<UserRow>> {
    sqlx::query_as("SELECT * FROM users ORDER BY name").fetch_all(db).await
}
