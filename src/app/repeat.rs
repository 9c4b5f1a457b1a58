//! Repeats after a lost answer: the same content at the same path within a day is answered with the verdict that is
//! there, and not delivered again (spec section 7).

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::origin::{Origin, event_of};
use super::settle::{Awaited, Settled, put_away};
use crate::domain::event::EventKind;
use crate::domain::id::Id;
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::logging;
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, Result, WriteTx, entries};

/// The same content at the same path within this time is a repeat after a lost answer.
pub(super) const REPEAT_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// Looks before sealing whether the content is a repeat, without a transaction: almost nothing ever is.
pub(super) async fn sealed_repeat(
    app: &Arc<App>,
    (project_no, path, id): (&str, &str, &str),
    (size, sha256): (u64, &str),
    now: Timestamp,
) -> Result<Option<Awaited>> {
    if app.config.hotfolder.deliver_repeats || sha256.is_empty() {
        return Ok(None);
    }
    let latest = uploads::latest_at(app.store.db(), project_no, path, id).await?;
    if latest.is_none_or(|earlier| earlier.sha256 != sha256) {
        return Ok(None);
    }
    let mut tx = app.store.write().await?;
    let Some(mut row) = uploads::upload(tx.db(), id).await? else { return Ok(None) };
    row.size = store::big(size);
    sha256.clone_into(&mut row.sha256);
    if row.state() != Some(UploadState::Receiving) || row.protocol == super::publish::PROTOCOL {
        return Ok(None);
    }
    match repeat_of(&mut tx, &row, false, now).await? {
        Some(earlier) => finish_repeat(app, tx, row, earlier, now).await.map(Some),
        None => Ok(None),
    }
}

/// The version of which this upload is a repeat: same path, same content, within 24 h (spec section 7).
async fn repeat_of(
    tx: &mut WriteTx,
    row: &UploadRow,
    deliver_repeats: bool,
    now: Timestamp,
) -> Result<Option<UploadRow>> {
    if deliver_repeats || row.sha256.is_empty() {
        return Ok(None);
    }
    let latest = uploads::latest_at(tx.db(), &row.project_no, &row.path, &row.id).await?;
    Ok(latest.filter(|earlier| {
        let is_same = earlier.sha256 == row.sha256 && earlier.size == row.size;
        let is_recent = earlier.completed >= now.minus(REPEAT_WITHIN).0;
        let has_verdict = match earlier.state() {
            Some(
                UploadState::Scanning
                | UploadState::Released
                | UploadState::Held
                | UploadState::Infected,
            ) => true,
            Some(
                UploadState::Receiving
                | UploadState::Incomplete
                | UploadState::Rejected
                | UploadState::Deleted,
            )
            | None => false,
        };
        is_same && is_recent && has_verdict
    }))
}

async fn finish_repeat(
    app: &Arc<App>,
    mut tx: WriteTx,
    row: UploadRow,
    earlier: UploadRow,
    now: Timestamp,
) -> Result<Awaited> {
    uploads::set_repeat(tx.db(), &row.id, &earlier.id, now).await?;
    entries::forget_current(tx.db(), &row.entry_id, &row.id, now).await?;
    entries::delete_if_empty(tx.db(), &row.entry_id).await?;
    let event = event_of(&row, EventKind::UploadRepeated)
        .with("repeat_of", earlier.id.clone())
        .with("verdict", earlier.verdict.clone());
    store::events::insert(tx.db(), &event, now).await?;
    tx.commit().await?;
    logging::event(&event);
    if let Some(id) = Id::parse(&row.id) {
        put_away(app, &id, UploadState::Deleted).await;
    }
    Ok(verdict_of(app, &earlier))
}

/// What the client of a repeat is told: the verdict of the version that is there.
fn verdict_of(app: &App, earlier: &UploadRow) -> Awaited {
    Awaited::Settled(match earlier.state() {
        Some(UploadState::Scanning) => return Awaited::Later(app.scans.enqueue(earlier)),
        Some(UploadState::Held) => Settled::Held,
        Some(UploadState::Infected) => {
            Settled::Refused(Refusal::Infected { signature: earlier.signature.clone() })
        }
        Some(
            UploadState::Released
            | UploadState::Receiving
            | UploadState::Incomplete
            | UploadState::Rejected
            | UploadState::Deleted,
        )
        | None => Settled::Repeated,
    })
}

/// A resume that added no byte (spec section 7).
pub(super) async fn drop_as_repeat(app: &Arc<App>, origin: &Origin, base: &Id) -> Result<Awaited> {
    let now = app.now();
    let mut tx = app.store.write().await?;
    let (Some(row), Some(earlier)) = (
        uploads::upload(tx.db(), origin.id.as_str()).await?,
        uploads::upload(tx.db(), base.as_str()).await?,
    ) else {
        return Err(row_missing());
    };
    uploads::set_mtime(tx.db(), &row.id, earlier.mtime).await?;
    finish_repeat(app, tx, row, earlier, now).await
}

/// The hash of a content that did not come in order is known now: note it, and look whether it is a repeat.
pub(super) async fn note_hash(
    app: &Arc<App>,
    row: &mut UploadRow,
    sha256: &str,
) -> Result<Option<Settled>> {
    sha256.clone_into(&mut row.sha256);
    let now = app.now();
    let mut tx = app.store.write().await?;
    uploads::set_hash(tx.db(), &row.id, sha256).await?;
    match repeat_of(&mut tx, row, app.config.hotfolder.deliver_repeats, now).await? {
        None => {
            tx.commit().await?;
            Ok(None)
        }
        Some(earlier) => match finish_repeat(app, tx, row.clone(), earlier, now).await? {
            Awaited::Settled(settled) => Ok(Some(settled)),
            // The earlier one is in the scanner itself; its own client or mail tells the verdict.
            Awaited::Later(_) => Ok(Some(Settled::Repeated)),
        },
    }
}

fn row_missing() -> store::StoreError {
    store::StoreError::RowNotFound
}
