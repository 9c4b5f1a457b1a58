//! What a start, or the death of another server, leaves to be put in order (spec sections 7 and 15).
//!
//! Only uploads of this data folder's dead processes are touched. A file in the vault was complete before the
//! crash; a file in the spool was not.

use std::sync::Arc;

use super::origin::event_of;
use super::{App, control, publication, publish, repeat, scans, with_app};
use crate::domain::event::EventKind;
use crate::domain::id::Id;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::logging;
use crate::store::uploads::{self, UploadRow};
use crate::store::{
    Kind, deliveries, entries, events, hook_runs, leases, mails, nodes, sessions, unsigned,
};

/// Takes over what ended processes left. With SQLite the lock proves that every other process has ended.
///
/// # Errors
/// When database or disk do not answer; nothing is served then.
pub async fn at_start(app: &Arc<App>) -> anyhow::Result<()> {
    take_over(app).await?;
    clear_infected(app).await?;
    clear_spool(app).await?;
    super::mirror::clear_temporary(app).await
}

/// Puts in order what processes left behind that are no longer alive. A process that stopped cleanly has signed off and
/// is as gone as one that was killed: its waiting scans are taken over all the same.
///
/// # Errors
/// As [`at_start`].
pub async fn take_over(app: &Arc<App>) -> anyhow::Result<()> {
    let mut alive = match app.store.kind() {
        Kind::Sqlite => Vec::new(),
        Kind::Postgres => nodes::live(app.store.db(), app.now()).await?,
    };
    alive.push(app.node.to_string());
    let is_gone = |node: &str| !alive.iter().any(|living| living == node);
    for (id, owner) in mails::leased(app.store.db()).await? {
        if is_gone(leases::node_of(&owner)) {
            mails::release(app.store.db(), (&id, &owner)).await?;
        }
    }
    for row in uploads::in_state(app.store.db(), UploadState::Receiving).await? {
        if is_gone(&row.node) {
            recover_receiving(app, &row).await?;
        }
    }
    for row in uploads::in_state(app.store.db(), UploadState::Scanning).await? {
        if is_gone(&row.node) {
            uploads::set_node(app.store.db(), &row.id, app.node.as_str()).await?;
        }
    }
    for owner in leases::owners(app.store.db()).await? {
        if is_gone(leases::node_of(&owner)) {
            leases::free_of(app.store.db(), &owner).await?;
        }
    }
    for owner in hook_runs::lease_owners(app.store.db()).await? {
        let node = leases::node_of(&owner);
        if is_gone(node) {
            hook_runs::free_leases_of(app.store.db(), node).await?;
        }
    }
    for node in sessions::nodes(app.store.db()).await?.iter().filter(|node| is_gone(node)) {
        sessions::delete_of_node(app.store.db(), node).await?;
    }
    let waiting = scans::enqueue_own(app).await?;
    for node in nodes::all(app.store.db()).await?.iter().filter(|node| is_gone(node)) {
        deliveries::free_leases_of(app.store.db(), node).await?;
        nodes::delete(app.store.db(), node).await?;
        control::forget(app, node).await;
        tracing::info!(node, waiting_for_scan = waiting, "took over what an ended process left");
    }
    app.mirror_wake.notify_one();
    Ok(())
}

/// Own uploads that are sealed although their commit failed (the database was away at CLOSE).
///
/// # Errors
/// As [`at_start`].
pub async fn own_orphans(app: &Arc<App>) -> anyhow::Result<()> {
    let old = app.now().minus(std::time::Duration::from_secs(30));
    for row in uploads::in_state(app.store.db(), UploadState::Receiving).await? {
        let is_written = app.writers.holds(&row.id) || app.publishing.holds(&row.id);
        let is_own = row.node == app.node.as_str() && !is_written;
        if is_own && row.updated < old.0 {
            recover_receiving(app, &row).await?;
            scans::enqueue_own(app).await?;
        }
    }
    Ok(())
}

pub(super) async fn recover_receiving(app: &Arc<App>, row: &UploadRow) -> anyhow::Result<()> {
    let Some(id) = Id::parse(&row.id) else { return Ok(()) };
    let looked = id.clone();
    let found = with_app(app, move |app| {
        if app.vault.is_sealed(&looked) {
            let len = app.vault.open_sealed(&looked)?.metadata()?.len();
            return Ok(Found::Sealed(
                len,
                app.vault.sidecar(&looked).ok().map(|s| (s.sha256, s.mtime)),
            ));
        }
        match app.vault.cut_at_hole(&looked) {
            Ok(0) => Ok(Found::Nothing),
            Ok(len) => Ok(Found::Spooled(len)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    });
    let now = app.now();
    let mut row = row.clone();
    match found.await? {
        Found::Sealed(len, beside) => {
            let (sha256, mtime) = beside.unwrap_or_default();
            let mtime = if mtime == 0 { now.0 } else { mtime };
            row.size = crate::store::big(len);
            row.sha256.clone_from(&sha256);
            seal_recovered(app, &row, (len, &sha256, mtime), now).await
        }
        // Staff's file still lies on the share and is taken over anew.
        Found::Spooled(_) if row.protocol == publish::PROTOCOL => {
            publication::forget(app, &row).await?;
            with_app(app, move |app| app.vault.remove(&id)).await?;
            Ok(())
        }
        Found::Spooled(len) => {
            row.size = crate::store::big(len);
            let mut tx = app.store.write().await?;
            let kept = uploads::set_incomplete(tx.db(), &row.id, &row.node, len, now).await?;
            let event =
                event_of(&row, EventKind::UploadIncomplete).with("reason", "the server ended");
            // Another server may have been faster.
            if kept > 0 {
                events::insert(tx.db(), &event, now).await?;
                tx.commit().await?;
                logging::event(&event);
            }
            Ok(())
        }
        Found::Nothing => Ok(forget_unsent(app, &row).await?),
    }
}

/// Ends an upload of which there is not a byte. Nothing when it has become another's meanwhile.
pub(super) async fn forget_unsent(app: &App, row: &UploadRow) -> crate::store::Result<()> {
    let now = app.now();
    let mut tx = app.store.write().await?;
    if uploads::end_unfinished(tx.db(), &row.id, "nothing was sent", now).await? > 0 {
        entries::forget_current(tx.db(), &row.entry_id, &row.id, now).await?;
        entries::delete_if_empty(tx.db(), &row.entry_id).await?;
    }
    tx.commit().await
}

enum Found {
    Sealed(u64, Option<(String, i64)>),
    Spooled(u64),
    Nothing,
}

async fn seal_recovered(
    app: &Arc<App>,
    row: &UploadRow,
    sealed: (u64, &str, i64),
    now: Timestamp,
) -> anyhow::Result<()> {
    // The client had no answer and may have sent it before, or may send it again.
    let name = (row.project_no.as_str(), row.path.as_str(), row.id.as_str());
    if repeat::sealed_repeat(app, name, (sealed.0, sealed.1), now).await?.is_some() {
        return Ok(());
    }
    let event = event_of(row, EventKind::UploadReceived)
        .with("reason", "found complete after the server ended");
    let steps = vec![
        uploads::seal_step(&row.id, sealed, now),
        events::of_upload_step(&row.id, "scanning", &event, now),
    ];
    let done = app.store.run(steps).await?;
    if uploads::returned(done.first())?.is_some() {
        uploads::set_node(app.store.db(), &row.id, app.node.as_str()).await?;
        logging::event(&event);
    }
    Ok(())
}

/// A crash between the commit of `infected` and the move to quarantine.
async fn clear_infected(app: &Arc<App>) -> anyhow::Result<()> {
    let keep = app.config.scan.quarantine;
    for row in uploads::in_state(app.store.db(), UploadState::Infected).await? {
        let Some(id) = Id::parse(&row.id) else { continue };
        with_app(app, move |app| match (app.vault.is_sealed(&id), keep) {
            (true, true) => app.vault.quarantine(&id),
            (true, false) => app.vault.remove(&id),
            (false, _) => Ok(()),
        })
        .await?;
    }
    Ok(())
}

/// Spool files whose upload has ended; files without a row are left for an operator (an older database).
async fn clear_spool(app: &Arc<App>) -> anyhow::Result<()> {
    for id in with_app(app, |app| app.vault.spooled()).await? {
        let row = uploads::upload(app.store.db(), id.as_str()).await?;
        match row.as_ref().and_then(UploadRow::state) {
            Some(UploadState::Receiving | UploadState::Incomplete) => {}
            Some(UploadState::Infected) => {
                let quarantined = with_app(app, move |app| app.vault.quarantine(&id)).await;
                // Another server was faster.
                let is_gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
                quarantined.or_else(|e| if is_gone(&e) { Ok(()) } else { Err(e) })?;
            }
            Some(
                UploadState::Scanning
                | UploadState::Released
                | UploadState::Held
                | UploadState::Rejected
                | UploadState::Deleted,
            ) => {
                // Only there: another server may have sealed it since the folder was listed.
                with_app(app, move |app| app.vault.remove_spooled(&id)).await?;
            }
            None => tracing::warn!(upload = id.as_str(), "spool file without a row, left as it is"),
        }
    }
    Ok(())
}

/// Drops unfinished uploads that nobody went on with (`incomplete_ttl`).
///
/// # Errors
/// As [`at_start`].
pub async fn drop_stale(app: &Arc<App>) -> anyhow::Result<()> {
    let now = app.now();
    let before = now.minus(app.config.portal.incomplete_ttl);
    for row in uploads::stale_incomplete(app.store.db(), before).await? {
        let mut tx = app.store.write().await?;
        if uploads::end_unfinished(tx.db(), &row.id, "not continued in time", now).await? == 0 {
            continue;
        }
        entries::forget_current(tx.db(), &row.entry_id, &row.id, now).await?;
        entries::delete_if_empty(tx.db(), &row.entry_id).await?;
        let event =
            event_of(&row, EventKind::UploadDeleted).with("reason", "not continued in time");
        events::insert(tx.db(), &event, now).await?;
        tx.commit().await?;
        logging::event(&event);
        if let Some(id) = Id::parse(&row.id) {
            with_app(app, move |app| app.vault.remove(&id)).await?;
        }
        tracing::debug!(upload = row.id, bytes = unsigned(row.size), "unfinished upload dropped");
    }
    Ok(())
}
