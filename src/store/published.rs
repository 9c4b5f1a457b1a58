//! `published` and `publish_holds`: what staff put into the hotfolder and the customer sees.

use sqlx::FromRow;

use super::Result;
use super::batch::{Step, values};
use super::clients::Db;
use super::orders::ProjectRow;
use crate::domain::time::Timestamp;

/// A file as it was taken over, with what became of it.
#[derive(Debug, Clone, FromRow)]
pub struct PublishedRow {
    pub path: String,
    pub size: i64,
    pub mtime: i64,
    pub upload_id: String,
    /// Nothing when the upload is gone.
    pub upload_state: Option<String>,
    pub content: Option<String>,
}

#[derive(Debug, Clone, FromRow)]
pub struct HoldRow {
    pub project_no: String,
    pub folder: String,
    pub missing: i64,
    pub total: i64,
    pub confirmed: i64,
    pub created: i64,
    pub updated: i64,
}

/// Open projects of clients who are meant for the portal, with the client's name.
pub async fn projects(db: impl Db<'_>) -> Result<Vec<ProjectRow>> {
    sqlx::query_as(
        "SELECT p.* FROM projects p JOIN clients c ON c.client_no = p.client_no \
         WHERE p.state = 'open' AND c.create_hotfolder = 1 AND c.removed = 0 ORDER BY p.id",
    )
    .fetch_all(db)
    .await
}

pub async fn set_folders_made(db: impl Db<'_>, project: &str, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE projects SET published = $1 WHERE id = $2")
        .bind(now.0)
        .bind(project)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn files(db: impl Db<'_>, project: &str, area: i64) -> Result<Vec<PublishedRow>> {
    sqlx::query_as(
        "SELECT p.path, p.size, p.mtime, p.upload_id, u.state AS upload_state, u.content FROM published p \
         LEFT JOIN uploads u ON u.id = p.upload_id WHERE p.project_id = $1 AND p.area = $2 ORDER BY p.path",
    )
    .bind(project)
    .bind(area)
    .fetch_all(db)
    .await
}

/// Notes a file in the transaction that begins to take it over.
#[must_use]
pub fn put_step(
    id: &str,
    (project, area, path): (&str, i64, &str),
    (size, mtime, upload): (i64, i64, &str),
    now: Timestamp,
) -> Step {
    Step {
        sql: "INSERT INTO published (id, project_id, area, path, size, mtime, upload_id, created, updated) \
              SELECT $1, $2, CAST($3 AS BIGINT), $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT), $7, \
              CAST($8 AS BIGINT), CAST($8 AS BIGINT) WHERE EXISTS (SELECT 1 FROM uploads WHERE id = $7) \
              ON CONFLICT (project_id, area, path) DO UPDATE SET size = excluded.size, mtime = excluded.mtime, \
              upload_id = excluded.upload_id, updated = excluded.updated",
        values: values![id, project, area, path, size, mtime, upload, now.0],
    }
}

pub async fn delete(db: impl Db<'_>, project: &str, area: i64, path: &str) -> Result<u64> {
    let done =
        sqlx::query("DELETE FROM published WHERE project_id = $1 AND area = $2 AND path = $3")
            .bind(project)
            .bind(area)
            .bind(path)
            .execute(db)
            .await?;
    Ok(done.rows_affected())
}

pub async fn delete_of_project(db: impl Db<'_>, project: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM published WHERE project_id = $1")
        .bind(project)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

pub async fn holds(db: impl Db<'_>) -> Result<Vec<HoldRow>> {
    sqlx::query_as("SELECT * FROM publish_holds ORDER BY created, id").fetch_all(db).await
}

pub async fn hold(db: impl Db<'_>, id: &str) -> Result<Option<HoldRow>> {
    sqlx::query_as("SELECT * FROM publish_holds WHERE id = $1").bind(id).fetch_optional(db).await
}

/// Removals wait from now on; with another number than before nobody has confirmed them.
pub async fn put_hold(
    db: impl Db<'_>,
    (id, project_no, folder): (&str, &str, &str),
    (missing, total): (i64, i64),
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO publish_holds (id, project_no, folder, missing, total, confirmed, created, updated) \
         VALUES ($1, $2, $3, $4, $5, 0, $6, $6) \
         ON CONFLICT (id) DO UPDATE SET missing = $4, total = $5, confirmed = 0, updated = $6",
    )
    .bind(id)
    .bind(project_no)
    .bind(folder)
    .bind(missing)
    .bind(total)
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

/// An operator lets the removals of a project's folder (with an empty folder of all) follow.
pub async fn confirm(
    db: impl Db<'_>,
    project_no: &str,
    folder: &str,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE publish_holds SET confirmed = 1, updated = $1 WHERE project_no = $2 AND ($3 = '' OR folder = $3)",
    )
    .bind(now.0)
    .bind(project_no)
    .bind(folder)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_hold(db: impl Db<'_>, id: &str) -> Result<u64> {
    let done = sqlx::query("DELETE FROM publish_holds WHERE id = $1").bind(id).execute(db).await?;
    Ok(done.rows_affected())
}
