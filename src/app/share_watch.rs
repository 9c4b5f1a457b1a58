//! Looks through the share: what staff put into folders for the customer, and what consumers took. One server at a time
//! does it. Looks are the truth; `notify` only makes the next one come sooner, where the share's file system tells.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::clients::Refused;
use super::looks::{Looks, Reading, SOON, is_away};
use super::placing::{self, Failed};
use super::publish::Channel;
use super::tree::is_temporary;
use super::{App, pickup};
use crate::domain::hotname::SafeName;
use crate::hotfolder::{FoundFile, Hotfolder, TEMP_DIR};
use crate::store::{self, leases, published};

const LEASE: &str = "share-watch";
/// A look at a slow share may take minutes; that of a dead server is freed when its death is noticed.
const LEASE_TIME: Duration = Duration::from_secs(300);
/// While a long copy runs.
const RENEW_EVERY: Duration = Duration::from_secs(60);
/// Of a pass's duration: a share that answers slowly is asked less often.
const REST: u32 = 3;

/// What the share's file system tells; set up when the share has answered once, because that may take its time.
type Watching = tokio::task::JoinHandle<Option<notify::RecommendedWatcher>>;

/// Looks until shutdown.
pub async fn run(app: Arc<App>) {
    let Some(share) = app.hotfolder.clone() else { return };
    let wake = Arc::new(Notify::new());
    let (mut looks, mut is_told, mut watching) = (Looks::new(), false, None::<Watching>);
    loop {
        let started = Instant::now();
        let is_soon = match look(&app, &share, &mut looks).await {
            Ok(is_soon) => {
                is_told = false;
                watching.get_or_insert_with(|| watch(share.root(), &wake));
                is_soon
            }
            Err(error) => {
                // What cannot be seen tells nothing. The mirror tells operators about a share that is away.
                if !is_told {
                    tracing::warn!(%error, "the share could not be looked through");
                }
                is_told = true;
                looks.forget();
                false
            }
        };
        let usual = if is_soon { SOON } else { app.config.hotfolder.poll };
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(started.elapsed().saturating_mul(REST).max(usual)) => {}
            () = wake.notified() => tokio::select! {
                () = app.stop.cancelled() => return,
                () = tokio::time::sleep(SOON) => {}
            },
        }
    }
}

/// Wakes at changes on the share, where its file system tells of them. The watcher lives in the task's result.
fn watch(root: &Path, wake: &Arc<Notify>) -> Watching {
    let (root, wake) = (root.to_owned(), Arc::clone(wake));
    tokio::task::spawn_blocking(move || {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            let is_read = matches!(event.kind, notify::EventKind::Access(_));
            let is_own =
                |path: &PathBuf| path.components().any(|part| part.as_os_str() == TEMP_DIR);
            if !is_read && !event.paths.iter().all(is_own) {
                wake.notify_one();
            }
        });
        let watched = watcher.and_then(|mut watcher| {
            watcher.watch(&root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::info!(%error, "the share tells nothing of changes; it is looked through every hotfolder.poll");
                None
            }
        }
    })
}

/// One look at everything; true when another should come soon. An error when the share is not there.
async fn look(app: &Arc<App>, share: &Arc<Hotfolder>, looks: &mut Looks) -> Result<bool, Failed> {
    if !holds_lease(app).await? {
        looks.forget();
        return Ok(false);
    }
    placing::look_at(share).await?;
    let channels = app.channels().await?;
    let mut is_soon = false;
    let mut is_whole = true;
    for (index, channel) in channels.iter().enumerate() {
        if app.stop.is_cancelled() || !holds_lease(app).await? {
            return Ok(false);
        }
        match look_at(app, share, channel, looks).await {
            Ok(is_waiting) => is_soon |= is_waiting,
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => {
                looks.fail(&path_of(&channel.below), &error);
                is_whole = false;
            }
        }
        let next = channels.get(index.saturating_add(1));
        if next.is_none_or(|n| n.project.id != channel.project.id) {
            // Otherwise what could not be made is tried again.
            if channel.project.published == 0 && is_whole {
                published::set_folders_made(app.store.db(), &channel.project.id, app.now()).await?;
            }
            is_whole = true;
        }
    }
    is_soon |= pickup::look(app, share, looks).await?;
    Ok(is_soon)
}

async fn holds_lease(app: &App) -> store::Result<bool> {
    let now = app.now();
    let owner = (app.node.as_str(), now.plus(LEASE_TIME));
    leases::take(app.store.db(), LEASE, owner, now).await
}

/// A path below the root.
pub(super) fn path_of(names: &[SafeName]) -> PathBuf {
    names.iter().map(SafeName::as_str).collect()
}

async fn look_at(
    app: &Arc<App>,
    share: &Arc<Hotfolder>,
    channel: &Channel,
    looks: &mut Looks,
) -> Result<bool, Failed> {
    let below = path_of(&channel.below);
    if channel.project.published == 0 {
        // Made once: whoever removes it later has a reason.
        let made = below.clone();
        placing::on_share(share, move |share| share.make_folder(&made)).await?;
    }
    let known = app.known_in(channel).await?;
    let looked = looks.look_in(share, &below, &known, |name| !is_temporary(app, name)).await?;
    // First what is gone: a file may have come where a folder was.
    app.withdraw_files(channel, &looked.withdraw, looked.missing).await?;
    for file in &looked.publish {
        if let Err(error) = take_over(app, share, channel, file).await {
            tracing::warn!(%error, project = channel.project.project_no, file = %file.below.display(), "a file of the print shop could not be taken over");
            looks.refuse(file, matches!(error.downcast_ref(), Some(Refused::Because(_))));
        }
    }
    Ok(looked.is_waiting)
}

/// Copies a file into the vault, if it stays as it was found.
async fn take_over(
    app: &Arc<App>,
    share: &Arc<Hotfolder>,
    channel: &Channel,
    file: &FoundFile,
) -> anyhow::Result<()> {
    let mut publication = app.begin_publication(channel, &file.found).await?;
    let (mut reading, mut renewed) = (Reading::new(share, file), Instant::now());
    loop {
        let taken = async {
            anyhow::ensure!(
                !app.stop.is_cancelled(),
                "the server stops; the next start takes it over"
            );
            if renewed.elapsed() >= RENEW_EVERY {
                anyhow::ensure!(
                    holds_lease(app).await?,
                    "another server looks after the share now"
                );
                renewed = Instant::now();
            }
            let piece = reading.next().await?;
            let is_end = piece.is_empty();
            if !is_end {
                publication.write(piece).await?;
            }
            Ok(is_end)
        };
        match taken.await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                publication.abandon().await;
                return Err(error);
            }
        }
    }
    publication.finish().await?;
    Ok(())
}
