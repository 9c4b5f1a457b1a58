//! What becomes of an upload: sealed, released, held, infected, rejected, a repeat. Each is one transaction with
//! its event and its deliveries; the log line follows the commit.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::origin::{Origin, event_of};
use super::repeat::sealed_repeat;
use super::scanner::Scanner;
use super::{App, publish, with_app};
use crate::domain::event::{Event, EventKind};
use crate::domain::id::Id;
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::domain::verdict::{HoldReason, Outcome, Releasable};
use crate::store::batch::Step;
use crate::store::uploads::{self, Finding, UploadRow};
use crate::store::{self, Result, WriteTx, deliveries, entries};
use crate::{logging, steps, vault};

/// The mirror's name in `deliveries.consumer`.
pub const MIRROR: &str = "mirror";
/// How an upload ended, as far as its client is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    Released,
    Held,
    Repeated,
    Refused(Refusal),
    /// Deleted by the customer meanwhile.
    Gone,
}

/// A verdict that is there, or that will come.
pub enum Awaited {
    Settled(Settled),
    Later(watch::Receiver<Option<Settled>>),
}

/// Reserves quota for a running upload; false when it does not fit.
pub(super) async fn reserve(app: &App, origin: &Origin, wanted: u64, quota: u64) -> Result<bool> {
    let mut tx = app.store.write().await?;
    uploads::set_reserved(tx.db(), origin.id.as_str(), wanted).await?;
    if entries::client_usage(tx.db(), &origin.client_no).await? > quota {
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}

/// Ends an upload that is still being received: a virus in a window, a limit crossed, a failed disk.
pub(super) async fn end_receiving(
    app: &Arc<App>,
    origin: &Origin,
    state: UploadState,
    finding: &Finding,
) -> Result<()> {
    let now = app.now();
    let mut tx = app.store.write().await?;
    let ended =
        uploads::settle(tx.db(), origin.id.as_str(), (UploadState::Receiving, state), finding, now)
            .await?;
    // Another server may have completed it.
    if ended.is_some() {
        forget_name(&mut tx, origin, now).await?;
    }
    let event = origin
        .event(EventKind::of_state(state))
        .with("signature", finding.signature.clone())
        .with("reason", finding.reason.clone());
    if ended.is_some() {
        store::events::insert(tx.db(), &event, now).await?;
    }
    tx.commit().await?;
    if ended.is_some() {
        logging::event(&event);
        put_away(app, &origin.id, state).await;
    }
    Ok(())
}

/// The name no longer waits for this upload; which name it is now, after renames, stands on the row.
async fn forget_name(tx: &mut WriteTx, origin: &Origin, now: Timestamp) -> Result<()> {
    if let Some(row) = uploads::upload(tx.db(), origin.id.as_str()).await? {
        entries::forget_current(tx.db(), &row.entry_id, &row.id, now).await?;
        entries::delete_if_empty(tx.db(), &row.entry_id).await?;
    }
    Ok(())
}

/// Nothing came before the connection was lost: the name goes as if it had never been.
pub(super) async fn forget_empty(app: &Arc<App>, origin: &Origin) -> Result<()> {
    let now = app.now();
    let mut tx = app.store.write().await?;
    uploads::set_deleted(tx.db(), origin.id.as_str(), "nothing was sent", now).await?;
    forget_name(&mut tx, origin, now).await?;
    tx.commit().await?;
    put_away(app, &origin.id, UploadState::Deleted).await;
    Ok(())
}

/// Bytes of ended uploads: infected ones to quarantine (if kept), others away. Held ones stay.
pub(super) async fn put_away(app: &Arc<App>, id: &Id, state: UploadState) {
    let keep = app.config.scan.quarantine && state == UploadState::Infected;
    let (moved, what) = (id.clone(), if keep { "quarantine" } else { "remove" });
    let done =
        with_app(
            app,
            move |app| if keep { app.vault.quarantine(&moved) } else { app.vault.remove(&moved) },
        );
    if let Err(error) = done.await {
        tracing::error!(%error, upload = id.as_str(), "{what} of the content failed; it is not served");
    }
}

/// The first commit after the vault has the file: `scanning`. Then the scan is queued, or, where the configuration
/// does without a scanner, the release follows in the same transaction.
pub(super) async fn sealed(
    app: &Arc<App>,
    origin: &Origin,
    (size, sha256, mtime): (u64, &str, Timestamp),
    started: Instant,
) -> Result<Awaited> {
    let now = app.now();
    let mtime = if mtime.is_never() { now } else { mtime };
    let name = (origin.project_no.as_str(), origin.path.as_str(), origin.id.as_str());
    if let Some(repeat) = sealed_repeat(app, name, (size, sha256), now).await? {
        return Ok(repeat);
    }
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let id = origin.id.as_str();
    let content = origin.event(EventKind::UploadReceived).with("size", size).with("sha256", sha256);
    if matches!(app.scanner, Scanner::Off) && !sha256.is_empty() {
        let policy =
            Releasable::PolicyUnscanned { policy: "clamd = \"off\"", signature: String::new() };
        let finding = finding_of(policy, None, "");
        let content_of = (size, sha256, mtime.0);
        let settle = uploads::seal_released_step(id, content_of, &finding, now);
        let content = Event { kind: EventKind::UploadReleased, ..content };
        let steps = release_steps(app, (id, settle), &finding, (content, ms), now);
        return match finish_release(app, steps, ms).await? {
            Settled::Gone => Ok(taken_over(app, origin).await),
            settled @ (Settled::Released
            | Settled::Held
            | Settled::Repeated
            | Settled::Refused(_)) => Ok(Awaited::Settled(settled)),
        };
    }
    let event = content.with("ms", ms);
    let seal = uploads::seal_step(id, (size, sha256, mtime.0), now);
    let steps = vec![seal, store::events::of_upload_step(id, "scanning", &event, now)];
    let done = app.store.run(steps).await?;
    steps::reach("upload.recorded");
    let Some(row) = uploads::returned(done.first())? else {
        return Ok(taken_over(app, origin).await);
    };
    logging::event(&event);
    warn_of_other_size(&row);
    Ok(Awaited::Later(app.scans.enqueue(&row)))
}

/// The client said another size than it sent: kept on the upload, and told to operators.
fn warn_of_other_size(row: &UploadRow) {
    if row.declared_size >= 0 && row.declared_size != row.size {
        tracing::warn!(
            upload = row.id,
            path = row.path,
            account = row.username,
            declared = row.declared_size,
            bytes = row.size,
            "the client announced another size than it sent; ask whether the file is complete"
        );
    }
}

/// How an upload ended that someone else has settled meanwhile.
pub(super) async fn state_of(app: &App, id: &str) -> Result<Settled> {
    let Some(row) = uploads::upload(app.store.db(), id).await? else { return Ok(Settled::Gone) };
    Ok(match row.state() {
        Some(UploadState::Released) => Settled::Released,
        Some(UploadState::Held) => Settled::Held,
        Some(UploadState::Infected) => {
            Settled::Refused(Refusal::Infected { signature: row.signature })
        }
        Some(UploadState::Rejected) => Settled::Refused(Refusal::RejectedByOperator),
        Some(UploadState::Deleted) if !row.repeat_of.is_empty() => Settled::Repeated,
        Some(
            UploadState::Deleted
            | UploadState::Receiving
            | UploadState::Incomplete
            | UploadState::Scanning,
        )
        | None => Settled::Gone,
    })
}

/// The row is no longer this writer's: deleted by its owner, or gone on with by another connection.
async fn taken_over(app: &Arc<App>, origin: &Origin) -> Awaited {
    let is_over = match uploads::upload(app.store.db(), origin.id.as_str()).await {
        Ok(row) => row.is_none_or(|row| row.state() == Some(UploadState::Deleted)),
        Err(_) => false,
    };
    if is_over {
        put_away(app, &origin.id, UploadState::Deleted).await;
    }
    Awaited::Settled(Settled::Refused(Refusal::TakenOver))
}

/// What stands on the row of a released upload: why it could be released.
fn finding_of(releasable: Releasable, row: Option<&UploadRow>, scanner: &str) -> Finding {
    let text = |pick: fn(&UploadRow) -> &String| row.map(pick).cloned().unwrap_or_default();
    match releasable {
        Releasable::Clean(_) => {
            Finding { verdict: "clean", scanner: scanner.to_owned(), ..Finding::default() }
        }
        Releasable::Waived { by, reason } => Finding {
            verdict: "unchecked",
            signature: text(|r| &r.signature),
            reason,
            scanner: text(|r| &r.scanner),
            waived_by: by,
        },
        Releasable::PolicyUnscanned { policy, signature } => Finding {
            verdict: "unchecked",
            signature,
            reason: policy.to_owned(),
            scanner: scanner.to_owned(),
            waived_by: "configuration".to_owned(),
        },
    }
}

/// The second commit: state, tree row, event and delivery as one transaction. Each step holds only if the first one did.
fn release_steps(
    app: &App,
    (id, settle): (&str, Step),
    finding: &Finding,
    (content, ms): (Event, u64),
    now: Timestamp,
) -> Vec<Step> {
    let kind = content.kind;
    let mut event = content
        .with("verdict", finding.verdict)
        .with("signature", finding.signature.clone())
        .with("scanner", finding.scanner.clone())
        .with("waived_by", finding.waived_by.clone())
        .with("reason", finding.reason.clone())
        .with("ms", ms);
    event.kind = kind;
    let mut steps = vec![
        settle,
        entries::show_release_step(id, now),
        store::events::of_upload_step(id, "released", &event, now),
    ];
    if app.delivers() {
        let due = now.plus(app.config.hotfolder.delivery_delay);
        let delivery = app.new_id();
        let what = (MIRROR, "hotfolder");
        steps.push(deliveries::insert_step(delivery.as_str(), id, what, (due, now)));
    }
    steps
}

/// Runs the steps of a release, of which the first returns the row.
async fn finish_release(app: &Arc<App>, steps: Vec<Step>, ms: u64) -> Result<Settled> {
    steps::reach("release.decided");
    let done = app.store.run(steps).await?;
    steps::reach("release.committed");
    let Some(row) = uploads::returned(done.first())? else { return Ok(Settled::Gone) };
    let event = event_of(&row, released_kind(&row.protocol))
        .with("ms", ms)
        .with("verdict", row.verdict.clone())
        .with("signature", row.signature.clone())
        .with("reason", row.reason.clone())
        .with("waived_by", row.waived_by.clone());
    logging::event(&event);
    app.mirror_wake.notify_one();
    Ok(Settled::Released)
}

/// How a release is told: of a customer's file, or of one that staff put into the hotfolder.
fn released_kind(protocol: &str) -> EventKind {
    if protocol == publish::PROTOCOL { EventKind::FilePublished } else { EventKind::UploadReleased }
}

/// Writes the mirror's delivery of a release; due after `delivery_delay`.
pub(super) async fn plan_delivery(
    app: &App,
    tx: &mut WriteTx,
    (upload, entry, version): (&str, &str, i64),
    now: Timestamp,
) -> Result<()> {
    let due = now.plus(app.config.hotfolder.delivery_delay);
    let id = app.new_id();
    deliveries::insert(
        tx.db(),
        id.as_str(),
        (upload, entry, version),
        (MIRROR, "hotfolder"),
        (due, now),
    )
    .await?;
    Ok(())
}

/// Releases an upload that stands in `scanning`, `held` or (false positive) `infected`.
pub(super) async fn release(
    app: &Arc<App>,
    row: &UploadRow,
    releasable: Releasable,
    (scanner, ms): (&str, u64),
) -> Result<Settled> {
    let now = app.now();
    let from = row.state().unwrap_or(UploadState::Scanning);
    let finding = finding_of(releasable, Some(row), scanner);
    let states = (from, UploadState::Released);
    let content = event_of(row, released_kind(&row.protocol));
    let settle = uploads::settle_step(&row.id, states, &finding, now);
    let steps = release_steps(app, (&row.id, settle), &finding, (content, ms), now);
    finish_release(app, steps, ms).await
}

/// Acts on the outcome of one whole-file scan (the table of spec section 7).
pub(super) async fn settle(
    app: &Arc<App>,
    row: &UploadRow,
    outcome: Outcome,
    (scanner, ms): (&str, u64),
) -> Result<Option<Settled>> {
    let finding = |verdict, signature: &str, reason: String| Finding {
        verdict,
        signature: signature.to_owned(),
        reason,
        scanner: scanner.to_owned(),
        waived_by: String::new(),
    };
    match outcome {
        Outcome::Release(releasable) => {
            release(app, row, releasable, (scanner, ms)).await.map(Some)
        }
        Outcome::Infected { signature } => {
            let refusal = Refusal::Infected { signature: signature.clone() };
            let found = finding("infected", &signature, String::new());
            end(app, row, UploadState::Infected, (&found, ms)).await?;
            Ok(Some(Settled::Refused(refusal)))
        }
        Outcome::Hold { reason, signature } => {
            let found = finding("unchecked", &signature, reason.to_string());
            end(app, row, UploadState::Held, (&found, ms)).await?;
            Ok(Some(Settled::Held))
        }
        Outcome::Reject { reason, signature } => {
            let found = finding("unchecked", &signature, reason.to_string());
            end(app, row, UploadState::Rejected, (&found, ms)).await?;
            Ok(Some(Settled::Refused(match reason {
                HoldReason::Encrypted => Refusal::EncryptedContent,
                HoldReason::ScannerLimit | HoldReason::Doubtful => {
                    Refusal::ScannerLimit { limit: signature }
                }
            })))
        }
        Outcome::TryAgain { .. } | Outcome::OnceMoreWhenIdle { .. } => Ok(None),
    }
}

/// Ends a sealed upload as held, infected or rejected.
pub(super) async fn end(
    app: &Arc<App>,
    row: &UploadRow,
    state: UploadState,
    (finding, ms): (&Finding, u64),
) -> Result<bool> {
    let now = app.now();
    let from = row.state().unwrap_or(UploadState::Scanning);
    let mut tx = app.store.write().await?;
    let Some(row) = uploads::settle(tx.db(), &row.id, (from, state), finding, now).await? else {
        return Ok(false);
    };
    if state != UploadState::Held {
        entries::forget_current(tx.db(), &row.entry_id, &row.id, now).await?;
        entries::delete_if_empty(tx.db(), &row.entry_id).await?;
    }
    let event = event_of(&row, EventKind::of_state(state))
        .with("verdict", finding.verdict)
        .with("signature", finding.signature.clone())
        .with("reason", finding.reason.clone())
        .with("scanner", finding.scanner.clone())
        .with("waived_by", finding.waived_by.clone())
        .with("ms", ms);
    store::events::insert(tx.db(), &event, now).await?;
    tx.commit().await?;
    logging::event(&event);
    if state != UploadState::Held
        && let Some(id) = Id::parse(&row.id)
    {
        put_away(app, &id, state).await;
    }
    Ok(true)
}

/// The sealed content's hash, read back from disk.
///
/// # Errors
/// What the file system says.
pub(super) async fn hash_of(app: &Arc<App>, id: &Id) -> std::io::Result<String> {
    let id = id.clone();
    let hashed = with_app(app, move |app| {
        let mut file = app.vault.open_sealed(&id)?;
        crate::hotfolder::hash_file(&mut file)
    });
    Ok(hashed.await?.as_str().to_owned())
}

/// What a scan must know about the sealed file: open, with its identity before the scan.
pub(super) async fn open_for_scan(
    app: &Arc<App>,
    id: &Id,
) -> std::io::Result<(Arc<std::fs::File>, crate::domain::verdict::FileIdentity)> {
    let id = id.clone();
    with_app(app, move |app| {
        let file = app.vault.open_sealed(&id)?;
        let identity = vault::identity(&file)?;
        Ok((Arc::new(file), identity))
    })
    .await
}
