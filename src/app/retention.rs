//! What the portal forgets by itself (spec section 14): bytes of delivered files, quarantine, the audit trail, mails, and
//! projects that nobody has touched. Never anything that is held, undelivered or running. One server at a time does it.

use std::sync::Arc;
use std::time::Duration;

use super::{App, with_app};
use crate::domain::event::{Event, EventKind};
use crate::domain::id::Id;
use crate::domain::time::Timestamp;
use crate::store::orders::ProjectRow;
use crate::store::retention::{self as rows, Content};
use crate::store::{
    self, activation, batches, events, hook_runs, leases, mails, published, unsigned,
};

const LEASE: &str = "retention";
const LEASE_TIME: Duration = Duration::from_secs(300);
/// Soon after the start, then again and again.
const FIRST: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_secs(600);
/// Contents in one transaction.
const AT_ONCE: i64 = 200;

/// Forgets until shutdown.
pub async fn run(app: Arc<App>) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = app.retention_wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = EVERY;
        if let Err(error) = app.forget().await {
            tracing::error!(%error, "what has had its time could not be forgotten, tried again");
        }
    }
}

/// What was forgotten.
#[derive(Default)]
struct Purged {
    files: u64,
    bytes: u64,
}

impl App {
    async fn forget(self: &Arc<Self>) -> anyhow::Result<()> {
        let now = self.now();
        let owner = (self.node.as_str(), now.plus(LEASE_TIME));
        if !leases::take(self.store.db(), LEASE, owner, now).await? {
            return Ok(());
        }
        for project in rows::idle_projects(self.store.db(), now).await? {
            self.expire_project(&project).await?;
        }
        self.purge_contents().await?;
        self.forget_rows(now).await?;
        Ok(())
    }

    /// A project without change: closed, its folders removed from the portal. The hotfolder is not touched.
    async fn expire_project(&self, project: &ProjectRow) -> store::Result<()> {
        let mut work = self.begin().await?;
        // Looked at again inside the transaction: something may have come in between.
        if rows::expire(work.tx.db(), &project.id, work.now).await? == 0 {
            return Ok(());
        }
        rows::delete_entries(work.tx.db(), &project.id).await?;
        published::delete_of_project(work.tx.db(), &project.id).await?;
        let event = Event::new(EventKind::ProjectExpired)
            .client(&project.client_no)
            .project(&project.project_no)
            .with("last_change", Timestamp(project.updated).to_string());
        work.note(event);
        work.changed("project", &project.project_no);
        work.commit().await?;
        Ok(())
    }

    /// Bytes whose time is over: first it is written down that they go, then they go. A crash in between is made up for.
    async fn purge_contents(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut purged = Purged::default();
        self.unlink(&rows::purging(self.store.db()).await?, &mut purged).await?;
        let now = self.now();
        let retention = &self.config.retention;
        // Nothing is older than the beginning of time.
        let cutoff = |kept: Duration| if kept.is_zero() { 0 } else { now.minus(kept).0 };
        let (delivered, quarantine) =
            (cutoff(retention.keep_delivered), cutoff(retention.quarantine));
        loop {
            if self.stop.is_cancelled() {
                break;
            }
            let cutoffs = (delivered, quarantine);
            let found = rows::due(self.store.db(), cutoffs, AT_ONCE).await?;
            let mut work = self.begin().await?;
            let mut due = Vec::new();
            for content in &found {
                due.extend(rows::begin_purge(work.tx.db(), cutoffs, &content.id).await?);
            }
            work.commit().await?;
            if due.is_empty() {
                break;
            }
            self.unlink(&due, &mut purged).await?;
        }
        if purged.files > 0 {
            let event = Event::new(EventKind::ContentPurged)
                .with("files", purged.files)
                .with("size", purged.bytes);
            self.record(event).await;
        }
        Ok(())
    }

    async fn unlink(self: &Arc<Self>, due: &[Content], purged: &mut Purged) -> anyhow::Result<()> {
        for content in due {
            let Some(id) = Id::parse(&content.id) else { continue };
            let is_infected = content.state == "infected";
            let removed = with_app(self, move |app| {
                if is_infected { app.vault.remove_quarantined(&id) } else { app.vault.remove(&id) }
            });
            if let Err(error) = removed.await {
                // Tried again in the next pass; the others must not wait for it.
                tracing::error!(%error, upload = content.id, "bytes whose time is over cannot be removed");
                continue;
            }
            rows::set_purged(self.store.db(), &content.id).await?;
            // What was deleted or rejected had its bytes removed at once, unless the server ended in between.
            if matches!(content.state.as_str(), "deleted" | "rejected") {
                continue;
            }
            purged.files = purged.files.saturating_add(1);
            purged.bytes = purged.bytes.saturating_add(unsigned(content.size));
            tracing::debug!(upload = content.id, "content forgotten");
        }
        Ok(())
    }

    async fn forget_rows(&self, now: Timestamp) -> store::Result<()> {
        let retention = &self.config.retention;
        if !retention.mails.is_zero() {
            let before = now.minus(retention.mails);
            mails::delete_before(self.store.db(), before).await?;
            hook_runs::delete_before(self.store.db(), before).await?;
            activation::delete_expired_before(self.store.db(), before).await?;
            batches::delete_files_before(self.store.db(), before).await?;
            batches::delete_before(self.store.db(), before).await?;
        }
        if !retention.events.is_zero() {
            let before = now.minus(retention.events);
            events::delete_before(self.store.db(), before).await?;
            rows::delete_deliveries_before(self.store.db(), before).await?;
            rows::delete_uploads_before(self.store.db(), before).await?;
        }
        Ok(())
    }
}
