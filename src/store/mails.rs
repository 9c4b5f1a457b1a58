//! `mails`: the queue. Rows are claimed under a lease by one worker at a time.

use sqlx::{AnyPool, FromRow, Row};

use super::Result;
use super::clients::Db;
use super::retention::Old;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, Default, FromRow)]
pub struct MailRow {
    pub id: String,
    pub template: String,
    pub client_no: String,
    pub project_no: String,
    pub ticket_no: String,
    pub username: String,
    pub language: String,
    /// Name of the user who sends it by hand; empty: the account of client.ini.
    pub sender: String,
    pub recipient: String,
    pub recipient_name: String,
    pub copy: String,
    pub subject: String,
    pub state: String,
    pub reason: String,
    pub attempts: i64,
    /// When it was first to be sent; three days later it is given up.
    pub queued: i64,
    pub next_try: i64,
    pub sent: i64,
    /// Of several files, or empty.
    pub batch: String,
    /// Of one file, or empty.
    pub upload_id: String,
    pub lease_owner: String,
    pub lease_until: i64,
    pub created: i64,
    pub updated: i64,
}

pub async fn insert(db: impl Db<'_>, row: &MailRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO mails (id, template, client_no, project_no, ticket_no, username, language, sender, recipient, \
         recipient_name, copy, subject, state, reason, attempts, queued, next_try, sent, lease_owner, lease_until, \
         created, updated, batch, upload_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, $15, $15, 0, '', 0, $16, $16, $17, $18)",
    )
    .bind(&row.id)
    .bind(&row.template)
    .bind(&row.client_no)
    .bind(&row.project_no)
    .bind(&row.ticket_no)
    .bind(&row.username)
    .bind(&row.language)
    .bind(&row.sender)
    .bind(&row.recipient)
    .bind(&row.recipient_name)
    .bind(&row.copy)
    .bind(&row.subject)
    .bind(&row.state)
    .bind(&row.reason)
    .bind(row.queued)
    .bind(row.created)
    .bind(&row.batch)
    .bind(&row.upload_id)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn mail(db: impl Db<'_>, id: &str) -> Result<Option<MailRow>> {
    sqlx::query_as("SELECT * FROM mails WHERE id = $1").bind(id).fetch_optional(db).await
}

/// Newest first.
pub async fn list(db: impl Db<'_>, limit: i64) -> Result<Vec<MailRow>> {
    sqlx::query_as("SELECT * FROM mails ORDER BY id DESC LIMIT $1").bind(limit).fetch_all(db).await
}

/// A mail of this kind to this account (as old as the account at most: a name may be used anew) that waits (draft or queued), or was sent since `since`.
pub async fn recent_of_account(
    db: impl Db<'_>,
    (username, template): (&str, &str),
    since_account: i64,
    since: Timestamp,
) -> Result<Option<MailRow>> {
    sqlx::query_as(
        "SELECT * FROM mails WHERE username = $1 AND template = $2 \
         AND created >= $3 AND (state IN ('queued', 'draft') OR (state = 'sent' AND sent > $4)) \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(username)
    .bind(template)
    .bind(since_account)
    .bind(since.0)
    .fetch_optional(db)
    .await
}

/// How many mails of this kind were made for an account since then.
pub async fn count_of_account(
    db: impl Db<'_>,
    (username, template): (&str, &str),
    since: Timestamp,
) -> Result<i64> {
    sqlx::query("SELECT COUNT(*) FROM mails WHERE username = $1 AND template = $2 AND created > $3")
        .bind(username)
        .bind(template)
        .bind(since.0)
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// Takes the oldest mail that is due.
pub async fn claim(
    db: impl Db<'_>,
    (owner, until): (&str, Timestamp),
    now: Timestamp,
) -> Result<Option<MailRow>> {
    sqlx::query_as(
        "UPDATE mails SET lease_owner = $1, lease_until = $2, attempts = attempts + 1, updated = $3 \
         WHERE id = (SELECT id FROM mails WHERE state = 'queued' AND next_try <= $3 AND lease_until <= $3 \
           ORDER BY next_try, id LIMIT 1) AND state = 'queued' AND lease_until <= $3 RETURNING *",
    )
    .bind(owner)
    .bind(until.0)
    .bind(now.0)
    // All of it: SQLite commits behind the last row, and says only there that it could not.
    .fetch_all(db)
    .await
    .map(|mut rows| rows.pop())
}

/// Ends an attempt: sent, failed, back to a draft, or tried again at `next`.
pub async fn finish(
    db: impl Db<'_>,
    (id, owner): (&str, &str),
    (state, reason): (&str, &str),
    next: Timestamp,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE mails SET state = $1, reason = $2, next_try = $3, lease_owner = '', lease_until = 0, updated = $4, \
         sent = CASE WHEN $1 = 'sent' THEN $4 ELSE sent END WHERE id = $5 AND lease_owner = $6",
    )
    .bind(state)
    .bind(reason)
    .bind(next.0)
    .bind(now.0)
    .bind(id)
    .bind(owner)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Mails that somebody is sending: id and lease.
pub async fn leased(db: impl Db<'_>) -> Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT id, lease_owner FROM mails WHERE state = 'queued' AND lease_owner <> ''")
        .fetch_all(db)
        .await
}

/// Whoever was sending it is gone: another one may.
pub async fn release(db: impl Db<'_>, (id, owner): (&str, &str)) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE mails SET lease_owner = '', lease_until = 0 WHERE id = $1 AND lease_owner = $2",
    )
    .bind(id)
    .bind(owner)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_subject(db: impl Db<'_>, id: &str, subject: &str) -> Result<u64> {
    let done = sqlx::query("UPDATE mails SET subject = $1 WHERE id = $2")
        .bind(subject)
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// Why a draft is one.
pub async fn set_reason(db: impl Db<'_>, id: &str, reason: &str) -> Result<u64> {
    let done = sqlx::query("UPDATE mails SET reason = $1 WHERE id = $2 AND state = 'draft'")
        .bind(reason)
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// A person sends a draft, or a failed mail again.
pub async fn queue(
    db: impl Db<'_>,
    id: &str,
    (recipient, name): (&str, &str),
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE mails SET state = 'queued', reason = '', recipient = $1, recipient_name = $2, queued = $3, \
         next_try = $3, attempts = 0, lease_owner = '', lease_until = 0, updated = $3 \
         WHERE id = $4 AND (state IN ('draft', 'failed') OR (state = 'queued' AND lease_until <= $3))",
    )
    .bind(recipient)
    .bind(name)
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Mails that wait for a draft's decision or an account that is gone.
pub async fn cancel_of_account(
    db: impl Db<'_>,
    username: &str,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE mails SET state = 'failed', reason = $1, updated = $2 \
         WHERE username = $3 AND state IN ('queued', 'draft')",
    )
    .bind(reason)
    .bind(now.0)
    .bind(username)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Removes names and addresses of a client from what must stay (DSGVO), and the mails that nobody will get any more.
pub async fn anonymise_of_client(db: &mut sqlx::AnyConnection, client_no: &str) -> Result<()> {
    for statement in [
        "DELETE FROM mails WHERE client_no = $1 AND state <> 'sent'",
        "UPDATE mails SET recipient = '', recipient_name = '', copy = '', subject = '', username = '' WHERE client_no = $1",
    ] {
        sqlx::query(statement).bind(client_no).execute(&mut *db).await?;
    }
    Ok(())
}

/// How many mails are in each state.
pub async fn count_by_state(db: impl Db<'_>) -> Result<Vec<(String, i64)>> {
    sqlx::query_as("SELECT state, COUNT(*) FROM mails GROUP BY state").fetch_all(db).await
}

/// Mails that nobody waits for any more, before that time.
///
/// # Errors
/// The database.
pub async fn delete_before(db: &AnyPool, before: Timestamp) -> Result<u64> {
    let old = Old { table: "mails", key: "id", condition: "state <> 'queued' AND updated < $1" };
    old.delete(db, before).await
}
