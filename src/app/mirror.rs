//! The mirror: brings released uploads into the hotfolder, exactly once (spec section 8).
//!
//! A consumer of the outbox. Copy to a temporary file of this attempt's own, compare, make durable, record
//! `placing(name)`, rename without overwriting, make durable, record `done`. After a crash in `placing` our temporary
//! file is the witness: still there means "not yet", gone means "it has happened"; the final file is never looked at,
//! because a RIP may have eaten it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::origin::event_of;
use super::settle::MIRROR;
use super::{App, with_app};
use crate::config::OnConflict;
use crate::domain::content::ContentHash;
use crate::domain::event::EventKind;
use crate::domain::hotname::{self, LayoutValues, SafeName};
use crate::domain::id::Id;
use crate::domain::time::Timestamp;
use crate::domain::upload::DeliveryState;
use crate::hotfolder::{Hotfolder, HotfolderError, Placed};
use crate::logging;
use crate::store::deliveries::{self, DeliveryRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, clients, entries, events};

/// Deliveries at once; a hung share blocks these and nothing else.
const PARALLEL: usize = 4;
const LEASE: Duration = Duration::from_secs(60);
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Changes by other processes are noticed within this time.
const POLL: Duration = Duration::from_millis(500);
/// Pauses after a failed attempt; the last one for ever.
const PAUSES: [u64; 8] = [1, 2, 5, 15, 30, 60, 120, 300];

/// Why an attempt ended without `done`.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Hotfolder(#[from] HotfolderError),
    #[error("database: {0}")]
    Store(#[from] store::StoreError),
    #[error("content in the vault: {0}")]
    Vault(std::io::Error),
    #[error("{0}")]
    Odd(&'static str),
    /// Cancelled by the customer, or another worker has it: nothing to do and nothing to count.
    #[error("the delivery is no longer this worker's")]
    NotOurs,
}

/// The worker: claims due deliveries and works on a few at once.
pub async fn run(app: Arc<App>) {
    if app.hotfolder.is_none() {
        return;
    }
    let permits = Arc::new(Semaphore::new(PARALLEL));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let owner = format!("{}/{}", app.node, app.new_id());
        let now = app.now();
        match deliveries::claim(app.store.db(), MIRROR, (&owner, now.plus(LEASE)), now).await {
            Ok(Some(row)) => {
                let app = Arc::clone(&app);
                app.clone().tasks.spawn(async move {
                    deliver(&app, row, &owner).await;
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
async fn deliver(app: &Arc<App>, row: DeliveryRow, owner: &str) {
    let started = Instant::now();
    let Ok(Some(upload)) = uploads::upload(app.store.db(), &row.upload_id).await else {
        postpone(app, &row, (owner, None), "its upload cannot be read").await;
        return;
    };
    let attempt = Attempt { app, row: &row, upload: &upload, owner };
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

async fn postpone(
    app: &Arc<App>,
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

async fn record_done(
    app: &App,
    row: &DeliveryRow,
    upload: &UploadRow,
    (placed_name, ms): (&str, u64),
) -> store::Result<()> {
    let now = app.now();
    let mut tx = app.store.write().await?;
    if deliveries::set_done(tx.db(), &row.id, now).await? == 0 {
        return Ok(());
    }
    uploads::set_delivered(tx.db(), &upload.id, now).await?;
    let event = event_of(upload, EventKind::UploadDelivered)
        .with("placed_name", placed_name)
        .with("delivery", row.id.clone())
        .with("ms", ms);
    events::insert(tx.db(), &event, now).await?;
    tx.commit().await?;
    logging::event(&event);
    Ok(())
}

/// Whose temporary file is renamed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Witness {
    /// This attempt has copied it: if it is gone, it was not placed.
    JustMade,
    /// An attempt that a crash or an error ended left it: if it is gone, it was placed.
    FromBefore,
}

/// What one attempt works with.
struct Attempt<'a> {
    app: &'a Arc<App>,
    row: &'a DeliveryRow,
    upload: &'a UploadRow,
    owner: &'a str,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<String, Failed> {
        self.on_share(|hotfolder| hotfolder.check_marker()).await?;
        if self.row.state() == Some(DeliveryState::Placing) {
            let (temp, placed) = (self.row.temp_name.clone(), self.row.placed_name.clone());
            return self.place(temp, placed, Witness::FromBefore).await;
        }
        if self.is_superseded().await? {
            return Err(Failed::NotOurs);
        }
        let temp_name = format!("{}.{}", self.row.id, self.row.attempts);
        self.copy(&temp_name).await?;
        let chosen = self.choose_name().await;
        let placed_name = match chosen {
            Ok(name) => name,
            Err(error) => return Err(self.give_up(temp_name, error).await),
        };
        if let Err(error) = self.record_placing(&temp_name, &placed_name).await {
            return Err(self.give_up(temp_name, error).await);
        }
        self.place(temp_name, placed_name, Witness::JustMade).await
    }

    /// Runs something on the share without holding up the runtime.
    async fn on_share<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Hotfolder) -> Result<T, HotfolderError> + Send + 'static,
    ) -> Result<T, Failed> {
        let app = Arc::clone(self.app);
        let ran = tokio::task::spawn_blocking(move || app.hotfolder.as_ref().map(work)).await;
        match ran {
            Ok(Some(result)) => Ok(result?),
            Ok(None) => Err(Failed::Odd("the hotfolder is switched off")),
            Err(_) => Err(Failed::Odd("a worker on the share ended unexpectedly")),
        }
    }

    async fn remove_temp(&self, temp_name: String) -> Result<(), Failed> {
        let remove = move |hotfolder: &Hotfolder| {
            hotfolder.remove_temp(&temp_name);
            Ok(())
        };
        self.on_share(remove).await
    }

    async fn give_up(&self, temp_name: String, error: Failed) -> Failed {
        match self.remove_temp(temp_name).await {
            Ok(()) => error,
            Err(other) => other,
        }
    }

    /// With `replace`, only the newest of several waiting versions is delivered.
    async fn is_superseded(&self) -> Result<bool, Failed> {
        if self.app.config.hotfolder.on_conflict != OnConflict::Replace {
            return Ok(false);
        }
        let later =
            deliveries::later_open(self.app.store.db(), &self.row.entry_id, self.row.version)
                .await?;
        if !later {
            return Ok(false);
        }
        let now = self.app.now();
        let mut tx = self.app.store.write().await?;
        deliveries::end_unplaced(tx.db(), &self.upload.id, DeliveryState::Superseded, now).await?;
        let event = event_of(self.upload, EventKind::DeliverySuperseded);
        events::insert(tx.db(), &event, now).await?;
        tx.commit().await?;
        logging::event(&event);
        Ok(true)
    }

    async fn copy(&self, temp_name: &str) -> Result<(), Failed> {
        let id = Id::parse(&self.upload.id).ok_or(Failed::Odd("the upload's id is damaged"))?;
        let hash = ContentHash::from_row(&self.upload.sha256)
            .ok_or(Failed::Odd("the upload has no hash"))?;
        let mut file = with_app(self.app, move |app| app.vault.open_sealed(&id))
            .await
            .map_err(Failed::Vault)?;
        let mut renewal = Renewal::new(self);
        let (temp_name, mtime) = (temp_name.to_owned(), Timestamp(self.upload.mtime));
        self.on_share(move |hotfolder| {
            hotfolder.copy_in(&mut file, &temp_name, (&hash, mtime), &mut || renewal.keep_going())
        })
        .await
    }

    /// The folder by the layout, the customer's subfolders below it, and a free name.
    async fn choose_name(&self) -> Result<String, Failed> {
        let target = target_of(self.app, self.upload).await?;
        let replaceable = self.replaceable(&target).await?;
        let below = self
            .on_share(move |hotfolder| {
                let reuse = |_: &Path| match &replaceable {
                    Some((path, hash)) => hotfolder.holds(path, hash),
                    None => false,
                };
                hotfolder.free_name(&target.folders, &target.name, &reuse)
            })
            .await?;
        Ok(below.to_string_lossy().into_owned())
    }

    /// With `replace`: the file that we placed under this name before, if it is still what we placed.
    async fn replaceable(&self, target: &Target) -> Result<Option<(PathBuf, ContentHash)>, Failed> {
        if self.app.config.hotfolder.on_conflict != OnConflict::Replace {
            return Ok(None);
        }
        let path = target.path();
        let Some(last) =
            deliveries::last_placed(self.app.store.db(), &path.to_string_lossy()).await?
        else {
            return Ok(None);
        };
        let earlier = uploads::upload(self.app.store.db(), &last.upload_id).await?;
        Ok(earlier.and_then(|row| ContentHash::from_row(&row.sha256)).map(|hash| (path, hash)))
    }

    async fn record_placing(&self, temp_name: &str, placed_name: &str) -> Result<(), Failed> {
        let now = self.app.now();
        let names = (temp_name, placed_name);
        match deliveries::set_placing(self.app.store.db(), (&self.row.id, self.owner), names, now)
            .await?
        {
            0 => Err(Failed::NotOurs),
            _ => Ok(()),
        }
    }

    async fn place(
        &self,
        temp_name: String,
        mut placed_name: String,
        witness: Witness,
    ) -> Result<String, Failed> {
        loop {
            let (temp, target) = (temp_name.clone(), PathBuf::from(&placed_name));
            let overwrite = self.may_overwrite(&placed_name).await?;
            let placed =
                self.on_share(move |hotfolder| hotfolder.place(&temp, &target, overwrite)).await?;
            match (placed, witness) {
                (Placed::Now, _) | (Placed::Before, Witness::FromBefore) => return Ok(placed_name),
                (Placed::Before, Witness::JustMade) => {
                    // Nobody but this attempt renames what it has just copied: somebody has removed it.
                    let now = self.app.now();
                    return match deliveries::unplace(
                        self.app.store.db(),
                        &self.row.id,
                        self.owner,
                        now,
                    )
                    .await?
                    {
                        0 => Err(Failed::NotOurs),
                        _ => Err(Failed::Odd(
                            "the temporary file in the hotfolder was removed by somebody",
                        )),
                    };
                }
                (Placed::Taken, _) => {
                    placed_name = self.choose_name().await?;
                    self.record_placing(&temp_name, &placed_name).await?;
                }
            }
        }
    }

    async fn may_overwrite(&self, placed_name: &str) -> Result<bool, Failed> {
        if self.app.config.hotfolder.on_conflict != OnConflict::Replace {
            return Ok(false);
        }
        let Some(last) = deliveries::last_placed(self.app.store.db(), placed_name).await? else {
            return Ok(false);
        };
        let earlier = uploads::upload(self.app.store.db(), &last.upload_id).await?;
        let Some(hash) = earlier.and_then(|row| ContentHash::from_row(&row.sha256)) else {
            return Ok(false);
        };
        let path = PathBuf::from(placed_name);
        self.on_share(move |hotfolder| Ok(hotfolder.holds(&path, &hash))).await
    }
}

/// Keeps the lease of a long copy, from the blocking thread that copies.
struct Renewal {
    app: Arc<App>,
    id: String,
    owner: String,
    handle: Handle,
    last: Instant,
}

impl Renewal {
    fn new(attempt: &Attempt<'_>) -> Self {
        Self {
            app: Arc::clone(attempt.app),
            id: attempt.row.id.clone(),
            owner: attempt.owner.to_owned(),
            handle: Handle::current(),
            last: Instant::now(),
        }
    }

    fn keep_going(&mut self) -> bool {
        if self.last.elapsed() < RENEW_EVERY {
            return true;
        }
        self.last = Instant::now();
        let until = self.app.now().plus(LEASE);
        let renewed = deliveries::renew_lease(self.app.store.db(), &self.id, &self.owner, until);
        // A database that is away for a moment costs nothing: the lease is checked again before `placing`.
        !matches!(self.handle.block_on(renewed), Ok(0))
    }
}

/// Where a file goes below the hotfolder's root.
struct Target {
    folders: Vec<SafeName>,
    name: SafeName,
}

impl Target {
    fn path(&self) -> PathBuf {
        let mut path: PathBuf = self.folders.iter().map(SafeName::as_str).collect();
        path.push(self.name.as_str());
        path
    }
}

/// The name that the customer gives the file now, by the layout.
async fn target_of(app: &App, upload: &UploadRow) -> Result<Target, Failed> {
    let mut names = entries::names_down_to(app.store.db(), &upload.entry_id).await?;
    if names.is_empty() {
        names = upload.path.split('/').skip(1).map(str::to_owned).collect();
    }
    let name = names.pop().ok_or(Failed::Odd("the upload has no name"))?;
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
    let mut folders = hotname::layout(&app.config.hotfolder.layout, &values);
    folders.extend(names.iter().map(|n| hotname::safe_folder_name(n)));
    Ok(Target { folders, name: hotname::safe_file_name(&name) })
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
            let shared = Arc::clone(&app);
            let renamed = tokio::task::spawn_blocking(move || match &shared.hotfolder {
                Some(hotfolder) if hotfolder.holds(&from, &hash) => {
                    hotfolder.follow_rename(&from, &to)
                }
                Some(_) | None => Ok(false),
            });
            if renamed
                .await
                .map_err(|_| Failed::Odd("a worker on the share ended unexpectedly"))??
            {
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
        Ok(app.hotfolder.as_ref().map(Hotfolder::temp_names).unwrap_or_default())
    })
    .await?;
    for name in names {
        let Some((id, _)) = name.split_once('.') else { continue };
        let row = deliveries::delivery(app.store.db(), id).await?;
        let now = app.now().0;
        // A witness, or another server's copy that is being made right now.
        let is_needed = row.is_some_and(|r| {
            r.open != 0 && ((r.state == "placing" && r.temp_name == name) || r.lease_until > now)
        });
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
