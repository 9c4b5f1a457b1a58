//! What has had its time (spec section 14): each statement says what may never go.

use sqlx::{AnyPool, AssertSqlSafe, FromRow};

use super::Result;
use super::clients::Db;
use super::orders::ProjectRow;
use crate::domain::time::Timestamp;

/// Rows that one statement deletes.
const AT_ONCE: usize = 200;

/// What is deleted, as SQL: the key of its rows, and the condition, in which `$1` is the time before which they go.
pub(super) struct Old {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) condition: &'static str,
}

impl Old {
    /// Looks for rows without the write lock, under which everybody would wait for a look through a whole table, and
    /// deletes a few at a time, if the condition still holds; gives how many.
    pub(super) async fn delete(&self, db: &AnyPool, before: Timestamp) -> Result<u64> {
        let Self { table, key, condition } = self;
        let mut deleted = 0u64;
        loop {
            let find = format!("SELECT {key} FROM {table} WHERE {condition} LIMIT {AT_ONCE}");
            let found: Vec<(String,)> =
                sqlx::query_as(AssertSqlSafe(find)).bind(before.0).fetch_all(db).await?;
            if found.is_empty() {
                return Ok(deleted);
            }
            let keys: Vec<String> = (2..).take(found.len()).map(|n| format!("${n}")).collect();
            let keys = keys.join(", ");
            let delete = format!("DELETE FROM {table} WHERE {key} IN ({keys}) AND {condition}");
            let mut query = sqlx::query(AssertSqlSafe(delete)).bind(before.0);
            for (id,) in found {
                query = query.bind(id);
            }
            match query.execute(db).await?.rows_affected() {
                // They have changed since they were found.
                0 => return Ok(deleted),
                some => deleted = deleted.saturating_add(some),
            }
        }
    }
}

/// A content that goes.
#[derive(Debug, Clone, FromRow)]
pub struct Content {
    pub id: String,
    pub state: String,
    pub size: i64,
}

/// Something of a project is still held, undelivered or running. A file under a temporary name is undelivered too.
macro_rules! is_busy {
    ($project_no:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM uploads u WHERE u.project_no = ",
            $project_no,
            " AND (u.state IN ('receiving', 'incomplete', 'scanning', 'held') \
               OR EXISTS (SELECT 1 FROM deliveries d WHERE d.upload_id = u.id AND d.open + 0 = 1) \
               OR (u.state = 'released' AND u.protocol <> 'hotfolder' AND u.delivered = 0 \
                 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.upload_id = u.id \
                   AND d.state IN ('cancelled', 'superseded')))))"
        )
    };
}

/// Open projects without any change for as long as their client's `hotfolder_delete_in_days` says.
pub async fn idle_projects(db: impl Db<'_>, now: Timestamp) -> Result<Vec<ProjectRow>> {
    sqlx::query_as(concat!(
        "SELECT p.* FROM projects p JOIN clients c ON c.client_no = p.client_no \
         WHERE p.state = 'open' AND c.hotfolder_delete_in_days > 0 \
         AND p.updated < $1 - c.hotfolder_delete_in_days * 86400000 \
         AND NOT EXISTS (SELECT 1 FROM tickets t WHERE t.project_no = p.project_no \
           AND t.updated >= $1 - c.hotfolder_delete_in_days * 86400000) \
         AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.project_no = p.project_no \
           AND u.updated >= $1 - c.hotfolder_delete_in_days * 86400000) \
         AND NOT ",
        is_busy!("p.project_no"),
        " ORDER BY p.id"
    ))
    .bind(now.0)
    .fetch_all(db)
    .await
}

/// Ends a project, if it is still open and nothing of it runs.
pub async fn expire(db: impl Db<'_>, id: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(concat!(
        "UPDATE projects SET state = 'expired', updated = $1 WHERE id = $2 AND state = 'open' AND NOT ",
        is_busy!("projects.project_no")
    ))
    .bind(now.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_entries(db: impl Db<'_>, project: &str) -> Result<u64> {
    let done =
        sqlx::query("DELETE FROM entries WHERE project_id = $1").bind(project).execute(db).await?;
    Ok(done.rows_affected())
}

/// What may be forgotten: delivered before `$1` or in a project that is over; older versions of what staff published;
/// infected before `$2`. Nothing that has an open delivery.
macro_rules! is_due {
    ($rest:literal) => {
        concat!(
            "u.content = 'kept' \
             AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.upload_id = u.id AND d.open + 0 = 1) \
             AND ((u.state = 'released' AND u.protocol <> 'hotfolder' \
                 AND (u.delivered > 0 OR EXISTS (SELECT 1 FROM deliveries d WHERE d.upload_id = u.id \
                   AND d.state IN ('cancelled', 'superseded'))) \
                 AND (u.updated < $1 OR NOT EXISTS (SELECT 1 FROM projects p \
                   WHERE p.project_no = u.project_no AND p.state = 'open'))) \
               OR (u.state = 'released' AND u.protocol = 'hotfolder' \
                 AND (NOT EXISTS (SELECT 1 FROM projects p WHERE p.project_no = u.project_no AND p.state = 'open') \
                   OR NOT EXISTS (SELECT 1 FROM entries e WHERE e.id = u.entry_id AND e.released_upload = u.id))) \
               OR (u.state = 'infected' AND u.updated < $2) \
               OR u.state IN ('deleted', 'rejected')) ",
            $rest
        )
    };
}

/// Contents that may be forgotten, so that no write lock is held while they are looked for.
pub async fn due(
    db: impl Db<'_>,
    (delivered, quarantine): (i64, i64),
    limit: i64,
) -> Result<Vec<Content>> {
    sqlx::query_as(concat!(
        "SELECT u.id, u.state, u.size FROM uploads u WHERE ",
        is_due!("LIMIT $3")
    ))
    .bind(delivered)
    .bind(quarantine)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Writes down that a content goes, if it still may; its state as it is then. `updated` stays: forgetting is no change.
/// On PostgreSQL the row is locked first, so that what is asked about it is asked of its newest state.
pub async fn begin_purge(
    db: &mut sqlx::AnyConnection,
    (delivered, quarantine): (i64, i64),
    id: &str,
) -> Result<Option<Content>> {
    sqlx::query("UPDATE uploads SET content = content WHERE id = $1")
        .bind(id)
        .execute(&mut *db)
        .await?;
    sqlx::query_as(concat!(
        "UPDATE uploads SET content = 'purging' WHERE id = (SELECT u.id FROM uploads u WHERE u.id = $3 AND ",
        is_due!(") RETURNING id, state, size")
    ))
    .bind(delivered)
    .bind(quarantine)
    .bind(id)
    .fetch_optional(db)
    .await
}

/// Contents whose removal was begun.
pub async fn purging(db: impl Db<'_>) -> Result<Vec<Content>> {
    sqlx::query_as("SELECT id, state, size FROM uploads WHERE content = 'purging'")
        .fetch_all(db)
        .await
}

pub async fn set_purged(db: impl Db<'_>, id: &str) -> Result<()> {
    sqlx::query("UPDATE uploads SET content = 'purged' WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

/// Uploads of projects that are over, and ended ones: after as long as events are kept, their rows go as well.
///
/// # Errors
/// The database.
pub async fn delete_uploads_before(db: &AnyPool, before: Timestamp) -> Result<u64> {
    let old = Old {
        table: "uploads",
        key: "id",
        condition: "updated < $1 AND (content = 'purged' OR state IN ('deleted', 'rejected')) \
             AND NOT EXISTS (SELECT 1 FROM projects p WHERE p.project_no = uploads.project_no AND p.state = 'open') \
             AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.id = uploads.entry_id \
               AND (e.released_upload = uploads.id OR e.current_upload = uploads.id))",
    };
    old.delete(db, before).await
}

/// Deliveries that have ended, but those of projects that are open.
///
/// # Errors
/// The database.
pub async fn delete_deliveries_before(db: &AnyPool, before: Timestamp) -> Result<u64> {
    let old = Old {
        table: "deliveries",
        key: "id",
        condition: "open = 0 AND updated < $1 AND NOT EXISTS (SELECT 1 FROM uploads u \
             JOIN projects p ON p.project_no = u.project_no WHERE u.id = deliveries.upload_id AND p.state = 'open')",
    };
    old.delete(db, before).await
}
