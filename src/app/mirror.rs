//! The mirror: brings released uploads into the hotfolder, exactly once (spec section 8).
//!
//! A consumer of the outbox: files, and the job tickets about them. The steps of one placing are those of
//! [`super::placing`]; here they are claimed, recorded in the database, and tried again.

use std::convert::Infallible;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::job_tickets::TICKET;
use super::origin::event_of;
use super::placing::{self, Failed, Ledger, Recorded, Target};
use super::settle::MIRROR;
use super::{App, with_app};
use crate::config::OnConflict;
use crate::domain::content::ContentHash;
use crate::domain::event::EventKind;
use crate::domain::hotname::{self, LayoutValues, SafeName};
use crate::domain::id::Id;
use crate::domain::time::Timestamp;
use crate::domain::upload::DeliveryState;
use crate::hotfolder::{Hotfolder, HotfolderError};
use crate::steps;
use crate::store::deliveries::{self, DeliveryRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, clients, entries};

/// Deliveries at once; a hung share blocks these and nothing else.
const PARALLEL: usize = 4;
const LEASE: Duration = Duration::from_secs(60);
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Flushing a big file to a slow share, or reading the one that lies there, may take this long without a byte being copied;
/// after that the share hangs, and another server may try.
const STANDS_STILL: Duration = Duration::from_secs(10 * 60);
/// Changes by other processes are noticed within this time.
const POLL: Duration = Duration::from_millis(500);
/// Pauses after a failed attempt; the last one for ever.
const PAUSES: [u64; 8] = [1, 2, 5, 15, 30, 60, 120, 300];

/// The worker: claims due deliveries and works on a few at once.
pub async fn run(app: Arc<App>) {
    let Some(share) = app.hotfolder.clone() else { return };
    let permits = Arc::new(Semaphore::new(PARALLEL));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let owner = format!("{}/{}", app.node, app.new_id());
        let now = app.now();
        match deliveries::claim(app.store.db(), (&owner, now.plus(LEASE)), now).await {
            Ok(Some(row)) => {
                let (app, share) = (Arc::clone(&app), Arc::clone(&share));
                app.clone().tasks.spawn(async move {
                    deliver(&app, &share, row, &owner).await;
                    drop(permit);
                    app.mirror_wake.notify_one();
                });
            }
            Ok(None) => {
                drop(permit);
                if pause(&app).await.is_none() {
                    return;
                }
            }
            Err(error) => {
                drop(permit);
                tracing::error!(%error, "deliveries could not be claimed");
                if pause(&app).await.is_none() {
                    return;
                }
            }
        }
        if app.stop.is_cancelled() {
            return;
        }
    }
}

async fn pause(app: &App) -> Option<()> {
    tokio::select! {
        () = app.stop.cancelled() => None,
        () = app.mirror_wake.notified() => Some(()),
        () = tokio::time::sleep(POLL) => Some(()),
    }
}

/// One attempt, from claim to `done` or a pause.
async fn deliver(app: &Arc<App>, share: &Arc<Hotfolder>, row: DeliveryRow, owner: &str) {
    let started = Instant::now();
    steps::reach("delivery.begun");
    let Ok(Some(upload)) = uploads::upload(app.store.db(), &row.upload_id).await else {
        postpone(app, &row, (owner, None), "its upload cannot be read").await;
        return;
    };
    let copy = Arc::new(Copying::begin());
    let attempt = Attempt { app, share, row: &row, upload: &upload, owner, copy };
    match attempt.run().await {
        Ok(placed_name) => {
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Err(error) = record_done(app, &row, &upload, (&placed_name, ms)).await {
                // The file is in place and the row says `placing`: the next attempt finds the witness gone.
                postpone(app, &row, (owner, Some(&upload)), &error.to_string()).await;
            }
        }
        Err(Failed::NotOurs | Failed::Hotfolder(HotfolderError::LeaseLost)) => {}
        Err(error) => postpone(app, &row, (owner, Some(&upload)), &error.to_string()).await,
    }
}

pub(super) async fn postpone(
    app: &App,
    row: &DeliveryRow,
    (owner, upload): (&str, Option<&UploadRow>),
    error: &str,
) {
    let now = app.now();
    let attempts = usize::try_from(row.attempts).unwrap_or(1);
    let seconds = PAUSES.get(attempts.saturating_sub(1)).copied().unwrap_or(300);
    let next = now.plus(Duration::from_secs(seconds));
    if let Err(error) =
        deliveries::postpone(app.store.db(), (&row.id, owner), error, next, now).await
    {
        tracing::error!(%error, delivery = row.id, "failed delivery could not be noted; its lease will run out");
    }
    if attempts == 3
        && let Some(upload) = upload
    {
        let event = event_of(upload, EventKind::DeliveryStuck)
            .with("reason", error)
            .with("delivery", row.id.clone());
        app.record(event).await;
    } else {
        tracing::warn!(
            upload = row.upload_id,
            delivery = row.id,
            attempt = attempts,
            retry_in_s = seconds,
            reason = error,
            "delivery failed, tried again"
        );
    }
}

pub(super) async fn record_done(
    app: &App,
    row: &DeliveryRow,
    upload: &UploadRow,
    (placed_name, ms): (&str, u64),
) -> store::Result<()> {
    let mut work = app.begin().await?;
    let now = work.now;
    if deliveries::set_done(work.tx.db(), &row.id, now).await? == 0 {
        return Ok(());
    }
    let kind = if row.consumer == TICKET {
        EventKind::TicketPlaced
    } else {
        uploads::set_delivered(work.tx.db(), &upload.id, now).await?;
        EventKind::UploadDelivered
    };
    let event = event_of(upload, kind)
        .with("placed_name", placed_name)
        .with("delivery", row.id.clone())
        .with("ms", ms);
    work.note(event);
    work.commit().await?;
    steps::reach("delivery.done");
    Ok(())
}

/// The database keeps the record of one attempt.
struct Attempt<'a> {
    app: &'a Arc<App>,
    share: &'a Arc<Hotfolder>,
    row: &'a DeliveryRow,
    upload: &'a UploadRow,
    owner: &'a str,
    copy: Arc<Copying>,
}

/// What the thread that copies and the task that keeps its lease tell each other.
struct Copying {
    moved: Mutex<Instant>,
    is_lost: AtomicBool,
}

impl Copying {
    fn begin() -> Self {
        Self { moved: Mutex::new(Instant::now()), is_lost: AtomicBool::new(false) }
    }

    /// A piece is copied; false when the lease is gone.
    fn go_on(&self) -> bool {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        !self.is_lost.load(Ordering::Acquire)
    }

    fn stands_still(&self) -> bool {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > STANDS_STILL
    }
}

impl Attempt<'_> {
    async fn run(&self) -> Result<String, Failed> {
        let recorded = recorded(self.row);
        if recorded.is_none() && is_superseded(self.app, self.row, self.upload).await? {
            return Err(Failed::NotOurs);
        }
        let temp_name = temp_name(self.row);
        tokio::select! {
            placed = placing::place(self.share, self, &temp_name, recorded) => placed,
            never = self.keep_lease() => match never {},
        }
    }

    /// Renews the lease as long as the steps take: copying, flushing to a slow share, comparing with what lies there. One
    /// that is lost ends the copy; the later steps ask for it themselves.
    async fn keep_lease(&self) -> Infallible {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            if self.copy.stands_still() {
                continue;
            }
            let until = self.app.now().plus(LEASE);
            let (db, id) = (self.app.store.db(), self.row.id.as_str());
            // A database that is away for a moment costs nothing: the lease is checked again before `placing`.
            if let Ok(0) = deliveries::renew_lease(db, id, self.owner, until).await {
                self.copy.is_lost.store(true, Ordering::Release);
            }
        }
    }
}

/// Each attempt has a temporary file of its own.
pub(super) fn temp_name(row: &DeliveryRow) -> String {
    format!("{}.{}", row.id, row.attempts)
}

/// What an earlier attempt recorded before it renamed.
pub(super) fn recorded(row: &DeliveryRow) -> Option<Recorded> {
    (row.state() == Some(DeliveryState::Placing)).then(|| Recorded {
        temp_name: row.temp_name.clone(),
        placed_name: row.placed_name.clone(),
    })
}

/// With `replace`, only the newest of several waiting versions is delivered.
pub(super) async fn is_superseded(
    app: &App,
    row: &DeliveryRow,
    upload: &UploadRow,
) -> Result<bool, Failed> {
    if app.config.hotfolder.on_conflict != OnConflict::Replace || row.consumer != MIRROR {
        return Ok(false);
    }
    if !deliveries::later_open(app.store.db(), &row.entry_id, row.version).await? {
        return Ok(false);
    }
    let mut work = app.begin().await?;
    deliveries::end_unplaced(work.tx.db(), &upload.id, DeliveryState::Superseded, work.now).await?;
    work.note(event_of(upload, EventKind::DeliverySuperseded));
    work.commit().await?;
    Ok(true)
}

/// With `replace`: the content that we placed under this path before, for a ticket only if it told of the same file.
pub(super) async fn placed_before(
    app: &App,
    row: &DeliveryRow,
    path: &Path,
) -> Result<Option<ContentHash>, Failed> {
    if app.config.hotfolder.on_conflict != OnConflict::Replace {
        return Ok(None);
    }
    let last = deliveries::last_placed(app.store.db(), &path.to_string_lossy()).await?;
    let Some(last) = last.filter(|last| last.consumer == row.consumer) else { return Ok(None) };
    if row.consumer == TICKET {
        return Ok(app.earlier_ticket(row, &last).await?);
    }
    let earlier = uploads::upload(app.store.db(), &last.upload_id).await?;
    let ours = uploads::upload(app.store.db(), &row.upload_id).await?;
    // What the customer has renamed since is another file's content.
    let is_same_name = |row: &UploadRow| ours.as_ref().is_some_and(|ours| ours.path == row.path);
    Ok(earlier.filter(is_same_name).and_then(|row| ContentHash::from_row(&row.sha256)))
}

/// Writes down where a delivery goes, while the lease is its owner's.
pub(super) async fn record_placing(
    app: &App,
    (id, owner): (&str, &str),
    names: (&str, &str),
) -> Result<(), Failed> {
    match deliveries::set_placing(app.store.db(), (id, owner), names, app.now()).await? {
        0 => Err(Failed::NotOurs),
        _ => Ok(()),
    }
}

/// Back to the beginning, while the lease is its owner's.
pub(super) async fn unplace(app: &App, id: &str, owner: &str) -> Result<(), Failed> {
    match deliveries::unplace(app.store.db(), id, owner, app.now()).await? {
        0 => Err(Failed::NotOurs),
        _ => Ok(()),
    }
}

impl Ledger for Attempt<'_> {
    async fn fetch(&self, temp_name: &str) -> Result<(), Failed> {
        let mut parcel = parcel(self.app, self.row, self.upload).await?;
        let copy = Arc::clone(&self.copy);
        let temp_name = temp_name.to_owned();
        placing::copy_on_share(self.share, parcel.size, move |share| {
            let expected = (&parcel.hash, parcel.mtime);
            share.copy_in(&mut parcel.content, &temp_name, expected, &mut || copy.go_on())
        })
        .await
    }

    async fn target(&self) -> Result<Target, Failed> {
        target(self.app, self.row, self.upload).await
    }

    async fn record_placing(&self, temp_name: &str, placed_name: &str) -> Result<(), Failed> {
        record_placing(self.app, (&self.row.id, self.owner), (temp_name, placed_name)).await
    }

    async fn unplace(&self) -> Result<(), Failed> {
        unplace(self.app, &self.row.id, self.owner).await
    }

    async fn placed_before(&self, path: &Path) -> Result<Option<ContentHash>, Failed> {
        placed_before(self.app, self.row, path).await
    }
}

/// What a delivery carries.
pub(super) struct Parcel {
    pub(super) content: Box<dyn Read + Send>,
    /// In bytes.
    pub(super) size: u64,
    pub(super) hash: ContentHash,
    pub(super) mtime: Timestamp,
}

/// The customer's file, or the ticket about it.
pub(super) async fn parcel(
    app: &Arc<App>,
    row: &DeliveryRow,
    upload: &UploadRow,
) -> Result<Parcel, Failed> {
    if row.consumer == TICKET {
        let text = app.ticket_text(row).await?;
        let hash = ContentHash::of(text.as_bytes());
        // What is being placed already keeps the hash that it was copied with.
        if row.state() != Some(DeliveryState::Placing) && row.sha256 != hash.as_str() {
            deliveries::set_sha256(app.store.db(), &row.id, hash.as_str()).await?;
        }
        return Ok(Parcel {
            hash,
            size: u64::try_from(text.len()).unwrap_or(0),
            content: Box::new(std::io::Cursor::new(text.into_bytes())),
            mtime: Timestamp::NEVER,
        });
    }
    let id = Id::parse(&upload.id).ok_or_else(|| placing::odd("the upload's id is damaged"))?;
    let hash = ContentHash::from_row(&upload.sha256)
        .ok_or_else(|| placing::odd("the upload has no hash"))?;
    let file = with_app(app, move |app| app.vault.open_sealed(&id)).await.map_err(Failed::Vault)?;
    Ok(Parcel {
        content: Box::new(file),
        size: store::unsigned(upload.size),
        hash,
        mtime: Timestamp(upload.mtime),
    })
}

/// Where a delivery goes: by the layout, or for a ticket beside its file.
pub(super) async fn target(
    app: &App,
    row: &DeliveryRow,
    upload: &UploadRow,
) -> Result<Target, Failed> {
    if row.consumer == TICKET { app.ticket_target(row).await } else { target_of(app, upload).await }
}

/// The name that the customer gives the file now, by the layout.
async fn target_of(app: &App, upload: &UploadRow) -> Result<Target, Failed> {
    let mut names = entries::names_down_to(app.store.db(), &upload.entry_id).await?;
    if names.is_empty() {
        names = upload.path.split('/').skip(1).map(str::to_owned).collect();
    }
    let name = names.pop().ok_or_else(|| placing::odd("the upload has no name"))?;
    let mut folders = folders_of(app, upload).await?;
    folders.extend(names.iter().map(|n| hotname::safe_folder_name(n)));
    Ok(Target { folders, name: hotname::safe_file_name(&name), second: None })
}

/// The folders of an upload's area, by the layout.
pub(super) async fn folders_of(app: &App, upload: &UploadRow) -> Result<Vec<SafeName>, Failed> {
    let client = clients::client(app.store.db(), &upload.client_no).await?;
    let client_name = client.map(|c| c.name).unwrap_or_default();
    let folder = upload.path.split('/').next().unwrap_or_default();
    let values = LayoutValues {
        client_no: &upload.client_no,
        client_name: &client_name,
        project_no: &upload.project_no,
        ticket_no: &upload.ticket_no,
        username: &upload.username,
        folder,
    };
    Ok(hotname::layout(&app.config.hotfolder.layout, &values))
}

/// `rename_follows`: the customer renamed a delivered file; an untaken, unchanged copy is renamed as well.
pub(super) async fn follow_rename(app: Arc<App>, upload_id: String) {
    let followed = async {
        let Some(upload) = uploads::upload(app.store.db(), &upload_id).await? else {
            return Ok(());
        };
        let Some(hash) = ContentHash::from_row(&upload.sha256) else { return Ok(()) };
        let target = target_of(&app, &upload).await?.path();
        for row in deliveries::of_upload(app.store.db(), &upload_id).await? {
            if row.state() != Some(DeliveryState::Done) || row.consumer != MIRROR {
                continue;
            }
            let (from, to, hash) = (PathBuf::from(&row.placed_name), target.clone(), hash.clone());
            let Some(share) = &app.hotfolder else { return Ok(()) };
            let renamed = placing::on_share(share, move |share| {
                Ok(share.holds(&from, &hash) && share.follow_rename(&from, &to)?)
            });
            if renamed.await? {
                let name = target.to_string_lossy();
                deliveries::set_placed_name(app.store.db(), &row.id, &name, app.now()).await?;
                tracing::info!(upload = upload_id, placed = %name, "hotfolder copy renamed after the customer");
            }
        }
        Ok::<(), Failed>(())
    };
    if let Err(error) = followed.await {
        tracing::warn!(%error, upload = upload_id, "hotfolder copy could not follow a rename");
    }
}

/// At start: temporary files of attempts that do not count any more.
pub async fn clear_temporary(app: &Arc<App>) -> anyhow::Result<()> {
    let Some(_) = &app.hotfolder else { return Ok(()) };
    let names = with_app(app, |app| {
        Ok(app.hotfolder.as_deref().map(Hotfolder::temp_names).unwrap_or_default())
    })
    .await?;
    for name in names {
        let Some((id, _)) = name.split_once('.') else { continue };
        // Of a delivery that nobody knows here: another portal's on the same share.
        let Some(row) = deliveries::delivery(app.store.db(), id).await? else { continue };
        let now = app.now().0;
        // A witness, or another server's copy that is being made right now.
        let is_witness = row.state == "placing" && row.temp_name == name;
        let is_needed = row.open != 0 && (is_witness || row.lease_until > now);
        if !is_needed {
            with_app(app, move |app| {
                if let Some(hotfolder) = &app.hotfolder {
                    hotfolder.remove_temp(&name);
                }
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}
