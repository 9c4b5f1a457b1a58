//! `projects` and `tickets`.

use sqlx::FromRow;

use super::Result;
use super::clients::Db;
use crate::domain::order::ProjectState;
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, FromRow)]
pub struct ProjectRow {
    pub id: String,
    pub project_no: String,
    pub client_no: String,
    pub job_description: String,
    pub due_date: String,
    pub contact: String,
    pub state: String,
    pub folder: String,
    /// When the folders for staff were made on the share; 0: not yet.
    pub published: i64,
    pub created: i64,
    pub updated: i64,
}

#[derive(Debug, Clone, FromRow)]
pub struct TicketRow {
    pub id: String,
    pub ticket_no: String,
    pub project_no: String,
    pub job_description: String,
    pub due_date: String,
    pub created: i64,
    pub updated: i64,
}

pub async fn insert_project(db: impl Db<'_>, row: &ProjectRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO projects (id, project_no, client_no, job_description, due_date, contact, state, \
         folder, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&row.id)
    .bind(&row.project_no)
    .bind(&row.client_no)
    .bind(&row.job_description)
    .bind(&row.due_date)
    .bind(&row.contact)
    .bind(&row.state)
    .bind(&row.folder)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn project(db: impl Db<'_>, project_no: &str) -> Result<Option<ProjectRow>> {
    sqlx::query_as("SELECT * FROM projects WHERE project_no = $1")
        .bind(project_no)
        .fetch_optional(db)
        .await
}

pub async fn projects(db: impl Db<'_>) -> Result<Vec<ProjectRow>> {
    sqlx::query_as("SELECT * FROM projects ORDER BY created, id").fetch_all(db).await
}

/// The projects that a client sees: open ones, if the client is meant for the portal.
pub async fn visible_projects(db: impl Db<'_>, client_no: &str) -> Result<Vec<ProjectRow>> {
    sqlx::query_as(
        "SELECT p.* FROM projects p JOIN clients c ON c.client_no = p.client_no \
         WHERE p.client_no = $1 AND p.state = 'open' AND c.create_hotfolder = 1 AND c.removed = 0 \
         ORDER BY p.folder",
    )
    .bind(client_no)
    .fetch_all(db)
    .await
}

pub async fn visible_project(
    db: impl Db<'_>,
    client_no: &str,
    folder: &str,
) -> Result<Option<ProjectRow>> {
    sqlx::query_as(
        "SELECT p.* FROM projects p JOIN clients c ON c.client_no = p.client_no \
         WHERE p.client_no = $1 AND p.folder = $2 AND p.state = 'open' AND c.create_hotfolder = 1 \
         AND c.removed = 0",
    )
    .bind(client_no)
    .bind(folder)
    .fetch_optional(db)
    .await
}

/// Folders of a client, also those of closed projects, so that a new one never takes an old name.
pub async fn folder_exists(db: impl Db<'_>, client_no: &str, folder: &str) -> Result<bool> {
    let row = sqlx::query("SELECT id FROM projects WHERE client_no = $1 AND folder = $2")
        .bind(client_no)
        .bind(folder)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

pub async fn update_project(db: impl Db<'_>, row: &ProjectRow, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE projects SET job_description = $1, due_date = $2, contact = $3, state = $4, updated = $5 \
         WHERE project_no = $6",
    )
    .bind(&row.job_description)
    .bind(&row.due_date)
    .bind(&row.contact)
    .bind(&row.state)
    .bind(now.0)
    .bind(&row.project_no)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn close_project(db: impl Db<'_>, project_no: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE projects SET state = $1, updated = $2 WHERE project_no = $3 AND state = 'open'",
    )
    .bind(ProjectState::Closed.as_str())
    .bind(now.0)
    .bind(project_no)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn close_projects_of(db: impl Db<'_>, client_no: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE projects SET state = 'closed', updated = $1 WHERE client_no = $2 AND state = 'open'",
    )
    .bind(now.0)
    .bind(client_no)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn insert_ticket(db: impl Db<'_>, row: &TicketRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO tickets (id, ticket_no, project_no, job_description, due_date, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&row.id)
    .bind(&row.ticket_no)
    .bind(&row.project_no)
    .bind(&row.job_description)
    .bind(&row.due_date)
    .bind(row.created)
    .bind(row.updated)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn tickets(db: impl Db<'_>, project_no: &str) -> Result<Vec<TicketRow>> {
    sqlx::query_as("SELECT * FROM tickets WHERE project_no = $1 ORDER BY ticket_no")
        .bind(project_no)
        .fetch_all(db)
        .await
}

pub async fn update_ticket(db: impl Db<'_>, row: &TicketRow, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE tickets SET job_description = $1, due_date = $2, updated = $3 \
         WHERE project_no = $4 AND ticket_no = $5",
    )
    .bind(&row.job_description)
    .bind(&row.due_date)
    .bind(now.0)
    .bind(&row.project_no)
    .bind(&row.ticket_no)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_ticket(db: impl Db<'_>, project_no: &str, ticket_no: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM tickets WHERE project_no = $1 AND ticket_no = $2")
        .bind(project_no)
        .bind(ticket_no)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}
