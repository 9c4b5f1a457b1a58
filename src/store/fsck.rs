//! What `fsck` asks and mends.

use super::Result;
use super::clients::Db;
use super::entries::EntryRow;
use super::uploads::UploadRow;

/// Uploads whose bytes must lie in the vault, after an id, some at a time.
pub async fn with_content(db: impl Db<'_>, after: &str, limit: i64) -> Result<Vec<UploadRow>> {
    sqlx::query_as(
        "SELECT * FROM uploads WHERE content = 'kept' AND state IN ('scanning', 'released', 'held') AND id > $1 \
         ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Names that show an upload which is not there.
pub async fn dead_names(db: impl Db<'_>) -> Result<Vec<EntryRow>> {
    sqlx::query_as(
        "SELECT * FROM entries e WHERE e.kind = 'file' AND (e.released_upload <> '' \
         AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.id = e.released_upload) \
         OR e.current_upload <> '' AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.id = e.current_upload)) ORDER BY e.id",
    )
    .fetch_all(db)
    .await
}

/// The name shows only what is there; one without anything goes.
pub async fn clear_dead_name(db: &sqlx::AnyPool, id: &str) -> Result<()> {
    sqlx::query(
        "UPDATE entries SET \
         released_upload = COALESCE((SELECT u.id FROM uploads u WHERE u.id = entries.released_upload), ''), \
         current_upload = COALESCE((SELECT u.id FROM uploads u WHERE u.id = entries.current_upload), '') WHERE id = $1",
    )
    .bind(id)
    .execute(db)
    .await?;
    super::entries::delete_if_empty(db, id).await?;
    Ok(())
}

/// A row that is rebuilt, without a name yet.
pub async fn insert(db: impl Db<'_>, row: &UploadRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO uploads (id, entry_id, client_no, username, project_no, ticket_no, path, version, state, size, \
         sha256, declared_size, reserved, mtime, verdict, signature, reason, scanner, waived_by, repeat_of, protocol, \
         peer, node, scan_attempts, scan_next, started, completed, released, delivered, created, updated) \
         VALUES ($1, $2, $3, $4, $5, '', $6, $7, $8, $9, $10, -1, 0, $11, $12, '', $13, '', '', '', $14, '', $15, \
         0, 0, $16, $17, 0, 0, $18, $18)",
    )
    .bind(&row.id)
    .bind(&row.entry_id)
    .bind(&row.client_no)
    .bind(&row.username)
    .bind(&row.project_no)
    .bind(&row.path)
    .bind(row.version)
    .bind(&row.state)
    .bind(row.size)
    .bind(&row.sha256)
    .bind(row.mtime)
    .bind(&row.verdict)
    .bind(&row.reason)
    .bind(&row.protocol)
    .bind(&row.node)
    .bind(row.started)
    .bind(row.completed)
    .bind(row.created)
    .execute(db)
    .await?;
    Ok(())
}
