//! `clients` and `contacts`.

use sqlx::FromRow;

use super::{Result, flag};
use crate::domain::time::Timestamp;

/// Runs a statement on the pool or inside a transaction.
pub trait Db<'c>: sqlx::Executor<'c, Database = sqlx::Any> {}
impl<'c, T: sqlx::Executor<'c, Database = sqlx::Any>> Db<'c> for T {}

#[derive(Debug, Clone, FromRow)]
pub struct ClientRow {
    pub id: String,
    pub client_no: String,
    pub name: String,
    pub email: String,
    pub create_hotfolder: i64,
    pub hotfolder_delete_in_days: i64,
    pub language: String,
    pub created: i64,
    pub updated: i64,
}

#[derive(Debug, Clone, FromRow)]
pub struct ContactRow {
    pub id: String,
    pub client_no: String,
    pub name: String,
    pub email: String,
    pub favourite: i64,
    pub created: i64,
    pub updated: i64,
}

pub async fn insert_client(db: impl Db<'_>, row: &ClientRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO clients (id, client_no, name, email, create_hotfolder, hotfolder_delete_in_days, \
         language, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&row.id)
    .bind(&row.client_no)
    .bind(&row.name)
    .bind(&row.email)
    .bind(row.create_hotfolder)
    .bind(row.hotfolder_delete_in_days)
    .bind(&row.language)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn client(db: impl Db<'_>, client_no: &str) -> Result<Option<ClientRow>> {
    sqlx::query_as(
        "SELECT id, client_no, name, email, create_hotfolder, hotfolder_delete_in_days, language, \
         created, updated FROM clients WHERE client_no = $1 AND removed = 0",
    )
    .bind(client_no)
    .fetch_optional(db)
    .await
}

pub async fn clients(db: impl Db<'_>) -> Result<Vec<ClientRow>> {
    sqlx::query_as(
        "SELECT id, client_no, name, email, create_hotfolder, hotfolder_delete_in_days, language, \
         created, updated FROM clients WHERE removed = 0 ORDER BY client_no",
    )
    .fetch_all(db)
    .await
}

pub async fn update_client(db: impl Db<'_>, row: &ClientRow, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE clients SET name = $1, email = $2, create_hotfolder = $3, \
         hotfolder_delete_in_days = $4, language = $5, updated = $6 WHERE client_no = $7",
    )
    .bind(&row.name)
    .bind(&row.email)
    .bind(row.create_hotfolder)
    .bind(row.hotfolder_delete_in_days)
    .bind(&row.language)
    .bind(now.0)
    .bind(&row.client_no)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Removes a client's name and address but keeps the number for the record (DSGVO).
pub async fn anonymise_client(db: impl Db<'_>, client_no: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE clients SET name = '', email = '', removed = 1, updated = $1 WHERE client_no = $2 AND removed = 0",
    )
    .bind(now.0)
    .bind(client_no)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Removes user names and addresses from the record of what a client did (DSGVO).
pub async fn anonymise_record(db: &mut sqlx::AnyConnection, client_no: &str) -> Result<()> {
    for statement in [
        "UPDATE uploads SET username = '', peer = '' WHERE client_no = $1",
        "UPDATE events SET username = '', peer = '' WHERE client_no = $1",
    ] {
        sqlx::query(statement).bind(client_no).execute(&mut *db).await?;
    }
    Ok(())
}

/// A number that was removed may be used anew.
pub async fn revive_client(db: impl Db<'_>, client_no: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM clients WHERE client_no = $1 AND removed = 1")
        .bind(client_no)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

pub async fn insert_contact(db: impl Db<'_>, row: &ContactRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO contacts (id, client_no, name, email, favourite, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&row.id)
    .bind(&row.client_no)
    .bind(&row.name)
    .bind(&row.email)
    .bind(row.favourite)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(())
}

/// At most one contact of a client is the favourite.
pub async fn clear_favourite(db: impl Db<'_>, client_no: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE contacts SET favourite = 0, updated = $1 WHERE client_no = $2 AND favourite = $3",
    )
    .bind(now.0)
    .bind(client_no)
    .bind(flag(true))
    .execute(db)
    .await?;
    Ok(())
}

pub async fn contacts(db: impl Db<'_>, client_no: &str) -> Result<Vec<ContactRow>> {
    sqlx::query_as(
        "SELECT id, client_no, name, email, favourite, created, updated FROM contacts \
         WHERE client_no = $1 ORDER BY id",
    )
    .bind(client_no)
    .fetch_all(db)
    .await
}

pub async fn delete_contact(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM contacts WHERE id = $1").bind(id).execute(db).await?;
    Ok(done.rows_affected())
}

pub async fn delete_contacts_of(db: impl Db<'_>, client_no: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM contacts WHERE client_no = $1")
        .bind(client_no)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}
