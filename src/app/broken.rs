//! Uploads whose connection was lost: what came is kept for a resume.

use std::sync::Arc;

use super::App;
use super::content::Content;
use super::origin::Origin;
use super::settle;
use crate::domain::event::EventKind;
use crate::domain::refusal::Refusal;
use crate::domain::upload::UploadState;
use crate::store;
use crate::store::uploads::{self, Finding};

/// The connection is gone without CLOSE: what came is kept for a resume, nothing is kept of nothing.
pub(super) async fn break_off(
    app: &Arc<App>,
    origin: &Origin,
    shared: &Arc<tokio::sync::Mutex<Content>>,
) {
    let mut inner = shared.lock().await;
    if inner.is_over {
        return;
    }
    inner.is_over = true;
    let is_replaced = app.writers.is_replaced(origin.id.as_str(), shared);
    if is_replaced || !is_ours(app, origin, &inner).await {
        // The client went on in another connection, or on another server: not a byte is ours to change.
        drop(inner);
        app.writers.leave(origin.id.as_str(), shared);
        return;
    }
    let started = inner.has_written || inner.resumed > 0;
    let kept = if started { inner.put_down().await } else { Ok(0) };
    drop(inner);
    let recorded = match kept {
        Ok(0) => settle::forget_empty(app, origin).await,
        Ok(size) => keep_incomplete(app, origin, size).await,
        Err(error) => {
            tracing::error!(%error, upload = origin.id.as_str(), "broken upload cannot be kept for a resume");
            let reason = Refusal::Damaged.code().to_owned();
            let finding = Finding { reason, ..Finding::default() };
            settle::end_receiving(app, origin, UploadState::Rejected, &finding).await
        }
    };
    app.writers.leave(origin.id.as_str(), shared);
    if let Err(error) = recorded {
        tracing::error!(%error, upload = origin.id.as_str(), "broken upload could not be recorded");
    }
}

/// Whether the row still is this writer's. Without an answer of the database it is taken for granted.
async fn is_ours(app: &App, origin: &Origin, inner: &Content) -> bool {
    if inner.failure == Some(Refusal::TakenOver) {
        return false;
    }
    match uploads::upload(app.store.db(), origin.id.as_str()).await {
        Ok(row) => row.is_none_or(|row| row.state == "receiving" && row.node == app.node.as_str()),
        // After a stop that could not wait for this, the next start settles it.
        Err(error) => !store::is_stopped(&error),
    }
}

async fn keep_incomplete(app: &App, origin: &Origin, size: u64) -> store::Result<()> {
    let now = app.now();
    let mut tx = app.store.write().await?;
    let kept =
        uploads::set_incomplete(tx.db(), origin.id.as_str(), app.node.as_str(), size, now).await?;
    let event = origin.event(EventKind::UploadIncomplete).with("size", size);
    if kept > 0 {
        store::events::insert(tx.db(), &event, now).await?;
    }
    tx.commit().await?;
    if kept > 0 {
        crate::logging::event(&event);
    }
    Ok(())
}
