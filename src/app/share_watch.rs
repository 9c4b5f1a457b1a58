//! Looks through the share: what staff put into folders for the customer, and what consumers took. One server at a time
//! does it. Looks are the truth; `notify` only makes the next one come sooner, where the share's file system tells.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::clients::Refused;
use super::placing::{self, Failed};
use super::publish::Channel;
use super::tree::is_temporary;
use super::{App, pickup};
use crate::domain::hotname::SafeName;
use crate::domain::publish::{Found, Memory, Plan};
use crate::hotfolder::{FoundFile, Hotfolder, TEMP_DIR};
use crate::store::{self, leases, published};

const LEASE: &str = "share-watch";
/// A look at a slow share may take minutes.
const LEASE_TIME: Duration = Duration::from_secs(60);
/// While a file is waited for to become quiet, or when something moves.
pub(super) const SOON: Duration = Duration::from_secs(3);
/// Of a pass's duration: a share that answers slowly is asked less often.
const REST: u32 = 3;
/// What could not be taken over now.
const TRY_AGAIN: Duration = Duration::from_secs(60);
const PIECE: usize = 1 << 20;

/// What earlier looks found.
#[derive(Default)]
pub(super) struct Looks {
    folders: HashMap<PathBuf, Memory>,
    /// Files that could not be taken over, as they looked, and when they may be tried again; never where it is no time's
    /// matter.
    refused: HashMap<PathBuf, (Found, Option<Instant>)>,
    pub(super) missing: HashSet<String>,
}

/// Looks until shutdown.
pub async fn run(app: Arc<App>) {
    let Some(share) = app.hotfolder.clone() else { return };
    let wake = Arc::new(Notify::new());
    let watcher = watch(share.root(), &wake);
    let (mut looks, began, mut is_told) = (Looks::default(), Instant::now(), false);
    loop {
        let started = Instant::now();
        let is_soon = match look(&app, &share, &mut looks, began).await {
            Ok(is_soon) => {
                is_told = false;
                is_soon
            }
            Err(error) => {
                // What cannot be seen tells nothing. The mirror tells operators about a share that is away.
                if !is_told {
                    tracing::warn!(%error, "the share could not be looked through");
                }
                is_told = true;
                looks = Looks::default();
                false
            }
        };
        let rest = started.elapsed().saturating_mul(REST).max(if is_soon {
            SOON
        } else {
            app.config.hotfolder.poll
        });
        tokio::select! {
            () = app.stop.cancelled() => break,
            () = tokio::time::sleep(rest) => {}
            () = wake.notified() => tokio::select! {
                () = app.stop.cancelled() => break,
                () = tokio::time::sleep(SOON) => {}
            },
        }
    }
    drop(watcher);
}

/// Wakes at changes on the share, where its file system tells of them.
fn watch(root: &Path, wake: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let wake = Arc::clone(wake);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let is_read = matches!(event.kind, notify::EventKind::Access(_));
        let is_own = |path: &PathBuf| path.components().any(|part| part.as_os_str() == TEMP_DIR);
        if !is_read && !event.paths.iter().all(is_own) {
            wake.notify_one();
        }
    });
    let watched = watcher.and_then(|mut watcher| {
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    match watched {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::info!(%error, "the share tells nothing of changes; it is looked through every hotfolder.poll");
            None
        }
    }
}

/// One look at everything; true when another should come soon.
async fn look(
    app: &Arc<App>,
    share: &Arc<Hotfolder>,
    looks: &mut Looks,
    began: Instant,
) -> anyhow::Result<bool> {
    if !holds_lease(app).await? {
        *looks = Looks::default();
        return Ok(false);
    }
    placing::on_share(share, Hotfolder::check_marker).await?;
    make_folders(app, share).await?;
    let mut is_soon = false;
    for channel in app.channels().await? {
        if app.stop.is_cancelled() || !holds_lease(app).await? {
            return Ok(false);
        }
        is_soon |= look_at(app, share, &channel, (looks, began)).await?;
    }
    is_soon |= pickup::look(app, share, looks).await?;
    Ok(is_soon)
}

async fn holds_lease(app: &App) -> store::Result<bool> {
    let now = app.now();
    let owner = (app.node.as_str(), now.plus(LEASE_TIME));
    leases::take(app.store.db(), LEASE, owner, now).await
}

/// Folders for staff are made once: whoever removes them later has a reason.
async fn make_folders(app: &Arc<App>, share: &Arc<Hotfolder>) -> anyhow::Result<()> {
    for channel in app.channels().await? {
        if channel.project.published != 0 {
            continue;
        }
        let below = path_of(&channel.below);
        placing::on_share(share, move |share| share.make_folder(&below)).await?;
        published::set_folders_made(app.store.db(), &channel.project.id, app.now()).await?;
    }
    Ok(())
}

/// A path below the root.
pub(super) fn path_of(names: &[SafeName]) -> PathBuf {
    names.iter().map(SafeName::as_str).collect()
}

async fn look_at(
    app: &Arc<App>,
    share: &Arc<Hotfolder>,
    channel: &Channel,
    (looks, began): (&mut Looks, Instant),
) -> anyhow::Result<bool> {
    let below = path_of(&channel.below);
    let known = app.known_in(channel).await?;
    let (plan, files) = look_in(app, share, (below.clone(), &known), (looks, began)).await?;
    for found in &plan.publish {
        let Some(file) = files.get(&found.path) else { continue };
        let place = below.join(&found.path);
        let waits = |(refused, until): &(Found, Option<Instant>)| {
            refused == found && until.is_none_or(|until| Instant::now() < until)
        };
        if looks.refused.get(&place).is_some_and(waits) {
            continue;
        }
        if let Err(error) = take_over(app, share, channel, file).await {
            let is_final = matches!(error.downcast_ref(), Some(Refused::Because(_)));
            let again = if is_final { None } else { Instant::now().checked_add(TRY_AGAIN) };
            tracing::warn!(%error, project = channel.project.project_no, file = %file.below.display(), "a file of the print shop could not be taken over");
            looks.refused.insert(place, (found.clone(), again));
        }
    }
    app.withdraw_files(channel, &plan.withdraw).await?;
    Ok(plan.is_waiting)
}

/// What a folder holds now, and what follows from it.
async fn look_in(
    app: &Arc<App>,
    share: &Arc<Hotfolder>,
    (below, known): (PathBuf, &[Found]),
    (looks, began): (&mut Looks, Instant),
) -> Result<(Plan, HashMap<String, FoundFile>), Failed> {
    let looked = below.clone();
    let files = placing::on_share(share, move |share| {
        let files = share.look_through(&looked)?;
        // Unmounted in between, everything would seem to be gone.
        share.check_marker()?;
        Ok(files)
    })
    .await?;
    let is_final = |file: &FoundFile| {
        let name = file.found.path.rsplit('/').next().unwrap_or_default();
        !is_temporary(app, name)
    };
    let files: Vec<FoundFile> = files.into_iter().filter(is_final).collect();
    let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let found = files.iter().map(|file| file.found.clone()).collect();
    let plan = looks.folders.entry(below).or_default().look(now, found, known);
    Ok((plan, files.into_iter().map(|file| (file.found.path.clone(), file)).collect()))
}

/// Copies a file into the vault, if it stays as it was found.
async fn take_over(
    app: &Arc<App>,
    share: &Arc<Hotfolder>,
    channel: &Channel,
    file: &FoundFile,
) -> anyhow::Result<()> {
    let mut publication = app.begin_publication(channel, &file.found).await?;
    let mut reading = Reading::new(share, file);
    loop {
        match reading.next().await {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => {
                if let Err(error) = publication.write(piece).await {
                    publication.abandon().await;
                    return Err(error.into());
                }
            }
            Err(error) => {
                publication.abandon().await;
                return Err(error.into());
            }
        }
    }
    publication.finish().await?;
    Ok(())
}

/// Reads a file piece by piece; an error when it is not what was found.
pub(super) struct Reading {
    share: Arc<Hotfolder>,
    file: FoundFile,
    open: Option<(std::fs::File, u64)>,
}

impl Reading {
    pub(super) fn new(share: &Arc<Hotfolder>, file: &FoundFile) -> Self {
        Self { share: Arc::clone(share), file: file.clone(), open: None }
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> std::io::Result<Vec<u8>> {
        let (share, file, open) = (Arc::clone(&self.share), self.file.clone(), self.open.take());
        let (piece, open) = super::blocking(move || read_piece(&share, &file, open)).await?;
        self.open = Some(open);
        Ok(piece)
    }
}

fn read_piece(
    share: &Hotfolder,
    file: &FoundFile,
    open: Option<(std::fs::File, u64)>,
) -> std::io::Result<(Vec<u8>, (std::fs::File, u64))> {
    use std::io::Read;
    let changed = || std::io::Error::other("it is being changed; taken over when it is quiet");
    let (mut open, read) = match open {
        Some(open) => open,
        None => {
            let (open, size, mtime) = share.open_found(&file.below)?;
            if (size, mtime) != (file.found.size, file.found.mtime) {
                return Err(changed());
            }
            (open, 0)
        }
    };
    let mut piece = Vec::with_capacity(PIECE);
    (&mut open).take(u64::try_from(PIECE).unwrap_or(u64::MAX)).read_to_end(&mut piece)?;
    let read = read.saturating_add(u64::try_from(piece.len()).unwrap_or(0));
    if piece.is_empty() {
        let (_, size, mtime) = share.open_found(&file.below)?;
        if (size, mtime) != (file.found.size, file.found.mtime) || read != size {
            return Err(changed());
        }
    }
    Ok((piece, (open, read)))
}
