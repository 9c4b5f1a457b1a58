//! `ptportal pull` (spec section 8): beside PTworkflow, it brings deliveries of a portal elsewhere into the hotfolder
//! here, and staff's files the other way. The portal keeps the record; the steps are those of a push.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::looks::{Looks, Reading, SOON, is_away};
use super::pickup;
use super::placing::{self, Failed, Ledger, Recorded, Target};
use super::settle::MIRROR;
use super::share_watch::path_of;
use crate::domain::content::ContentHash;
use crate::domain::hotname;
use crate::domain::id::Id;
use crate::domain::publish::Found;
use crate::domain::time::Timestamp;
use crate::hotfolder::{FoundFile, Hotfolder};
use crate::remote::{Claimed, Remote, RemoteError, RemoteFolder, Untaken};

/// Deliveries at once.
const AT_ONCE: usize = 4;
/// After an error: the portal may be starting anew.
const AFTER_ERROR: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// Pieces of a file on their way to the portal.
const AHEAD: usize = 4;

/// One pull: whose, and whereto.
pub struct Puller {
    pub share: Arc<Hotfolder>,
    pub remote: Remote,
    /// Between looks when nothing is to be done.
    pub every: Duration,
    /// The only folders that are sent back.
    pub publish: Vec<String>,
    pub stop: CancellationToken,
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Conflict(_) => Self::NotOurs,
            RemoteError::Refused(_) | RemoteError::Away(_) => placing::odd(error.to_string()),
        }
    }
}

impl Puller {
    /// Pulls and sends back until it is told to stop.
    pub async fn run(&self) {
        tokio::join!(self.pull(), self.send_back());
    }

    /// Brings everything that waits; gives how many.
    ///
    /// # Errors
    /// The first delivery that does not work, or the portal.
    pub async fn pull_once(&self) -> Result<usize, Failed> {
        let (mut count, mut is_fresh) = (0usize, true);
        loop {
            let claimed = self.remote.claim(AT_ONCE, is_fresh).await?;
            is_fresh = false;
            if claimed.is_empty() {
                return Ok(count);
            }
            let work = Work { share: Arc::clone(&self.share), remote: self.remote.clone() };
            for one in &claimed {
                work.bring(one).await?;
                count = count.saturating_add(1);
            }
        }
    }

    async fn pull(&self) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        let (mut is_away, mut is_fresh) = (false, true);
        while !self.stop.is_cancelled() {
            // One big download must not keep the others waiting: as many are claimed as there is room for.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            let wanted = slots.available_permits().saturating_add(1);
            let pause = match self.remote.claim(wanted, is_fresh).await {
                Ok(claimed) => {
                    is_fresh = false;
                    if std::mem::take(&mut is_away) {
                        tracing::info!("the portal answers again");
                    }
                    let is_idle = claimed.is_empty();
                    let mut slot = Some(slot);
                    for one in claimed {
                        let slot = match slot.take() {
                            Some(slot) => Some(slot),
                            None => Arc::clone(&slots).try_acquire_owned().ok(),
                        };
                        let work =
                            Work { share: Arc::clone(&self.share), remote: self.remote.clone() };
                        running.spawn(async move {
                            // What failed is told, and comes again.
                            work.bring(&one).await.ok();
                            drop(slot);
                        });
                    }
                    if is_idle { self.every } else { Duration::ZERO }
                }
                Err(error) => {
                    if !is_away {
                        tracing::warn!(%error, "no deliveries can be claimed, tried again");
                    }
                    is_away = true;
                    AFTER_ERROR.max(self.every)
                }
            };
            while running.try_join_next().is_some() {}
            self.rest(pause).await;
        }
        while running.join_next().await.is_some() {}
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Staff's files, and what consumers took.
    async fn send_back(&self) {
        let (mut looks, mut is_told) = (Looks::new(), false);
        let mut withdrawing = HashMap::new();
        while !self.stop.is_cancelled() {
            let pause = match self.look(&mut looks, &mut withdrawing).await {
                Ok(is_soon) => {
                    is_told = false;
                    if is_soon { SOON } else { self.every.max(SOON) }
                }
                Err(error) => {
                    if !is_told {
                        tracing::warn!(%error, "the hotfolder could not be looked through");
                    }
                    is_told = true;
                    looks.forget();
                    AFTER_ERROR
                }
            };
            self.rest(pause).await;
        }
    }

    /// `withdrawing` holds how many files of a folder the portal was told to be missing.
    async fn look(
        &self,
        looks: &mut Looks,
        withdrawing: &mut HashMap<PathBuf, usize>,
    ) -> Result<bool, Failed> {
        placing::look_at(&self.share).await?;
        let answer = self.remote.folders().await?;
        let patterns: Vec<glob::Pattern> = answer
            .temporary_names
            .iter()
            .filter_map(|text| glob::Pattern::new(text).ok())
            .collect();
        let mut is_soon = false;
        let mut is_whole = true;
        for (index, folder) in answer.folders.iter().enumerate() {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            let Some(below) = self.place_of(folder) else {
                looks.fail(
                    Path::new(&folder.folder),
                    &"the portal names a folder that is not one of --publish",
                );
                continue;
            };
            match self.look_at(folder, (&below, &patterns), (looks, withdrawing)).await {
                Ok(is_waiting) => is_soon |= is_waiting,
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => {
                    looks.fail(&below, &error);
                    is_whole = false;
                }
            }
            let next = answer.folders.get(index.saturating_add(1));
            if next.is_none_or(|next| next.project_no != folder.project_no) {
                // Otherwise what could not be made is tried again.
                if !folder.made && is_whole {
                    self.remote.made(&folder.project_no).await?;
                }
                is_whole = true;
            }
        }
        is_soon |= self.look_for_taken(looks).await?;
        Ok(is_soon)
    }

    /// Where a folder lies, made safe; nothing for one that is none of ours. A portal that strangers have taken over must
    /// not have other parts of the share sent to it.
    fn place_of(&self, folder: &RemoteFolder) -> Option<PathBuf> {
        let names: Vec<_> =
            folder.below.iter().map(|name| hotname::safe_folder_name(name)).collect();
        let own = hotname::safe_folder_name(&folder.folder);
        let is_ours =
            self.publish.contains(&folder.folder) && names.contains(&own) && names.len() > 1;
        is_ours.then(|| path_of(&names))
    }

    async fn look_at(
        &self,
        folder: &RemoteFolder,
        (below, temporary): (&Path, &[glob::Pattern]),
        (looks, withdrawing): (&mut Looks, &mut HashMap<PathBuf, usize>),
    ) -> Result<bool, Failed> {
        if !folder.made {
            let made = below.to_owned();
            placing::on_share(&self.share, move |share| share.make_folder(&made)).await?;
        }
        let known: Vec<Found> = folder
            .files
            .iter()
            .map(|f| Found { path: f.path.clone(), size: f.size, mtime: f.mtime })
            .collect();
        let is_final = |name: &str| !temporary.iter().any(|pattern| pattern.matches(name));
        let looked = looks.look_in(&self.share, below, &known, is_final).await?;
        let place = (folder.project_no.as_str(), folder.folder.as_str());
        // At the first look, and whenever there is news: the portal keeps what waits for an operator.
        if !looked.withdraw.is_empty() || withdrawing.get(below) != Some(&looked.missing) {
            self.remote.withdraw(place, &looked.withdraw, looked.missing).await?;
            withdrawing.insert(below.to_owned(), looked.missing);
        }
        for file in &looked.publish {
            if let Err(error) = self.send(place, file).await {
                tracing::warn!(%error, project = folder.project_no, file = %file.below.display(), "a file of the print shop was not taken");
                looks.refuse(file, matches!(error, RemoteError::Refused(_)));
            }
        }
        Ok(looked.is_waiting)
    }

    async fn send(&self, place: (&str, &str), file: &FoundFile) -> Result<(), RemoteError> {
        let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
        let mut reading = Reading::new(&self.share, file);
        let read = async move {
            loop {
                let piece = reading.next().await;
                let is_last = !piece.as_ref().is_ok_and(|piece| !piece.is_empty());
                let is_end = piece.as_ref().is_ok_and(Vec::is_empty);
                // Nobody reads on: the portal has refused it.
                if !is_end && sender.send(piece).await.is_err() {
                    return;
                }
                if is_last {
                    return;
                }
            }
        };
        let (sent, ()) = tokio::join!(self.remote.put(place, &file.found, receiver), read);
        sent
    }

    async fn look_for_taken(&self, looks: &mut Looks) -> Result<bool, Failed> {
        let untaken = self.remote.untaken().await?;
        let placed = untaken.iter().map(|row| (row.id.clone(), row.placed_name.clone())).collect();
        let missing = pickup::missing(&self.share, placed).await?;
        let taken: Vec<String> = missing.intersection(&looks.missing).cloned().collect();
        let is_waiting = |row: &&Untaken| row.is_late && !missing.contains(&row.id);
        let waiting: Vec<String> =
            untaken.iter().filter(is_waiting).map(|row| row.id.clone()).collect();
        let is_news = missing.len() > taken.len();
        looks.missing = missing;
        if !taken.is_empty() || !waiting.is_empty() {
            self.remote.seen(&taken, &waiting).await?;
        }
        Ok(is_news)
    }
}

/// One delivery's work.
struct Work {
    share: Arc<Hotfolder>,
    remote: Remote,
}

impl Work {
    /// From a claim to a file in its place and its confirmation.
    async fn bring(&self, claimed: &Claimed) -> Result<(), Failed> {
        let started = Instant::now();
        let bound = (claimed.id.as_str(), claimed.lease.as_str());
        let recorded = claimed.recorded.as_ref().map(|recorded| Recorded {
            temp_name: recorded.temp_name.clone(),
            placed_name: recorded.placed_name.clone(),
        });
        let is_ours = |recorded: &Recorded| {
            hotname::is_below(&recorded.placed_name) && hotname::is_below(&recorded.temp_name)
        };
        // The id becomes a part of names on the share.
        let is_sound = Id::parse(&claimed.id).is_some() && recorded.as_ref().is_none_or(is_ours);
        if !is_sound {
            tracing::error!(
                delivery = claimed.id,
                "the portal names a place outside of the hotfolder; it may be in wrong hands"
            );
            return Err(placing::odd("the portal names a place outside of the hotfolder"));
        }
        let ledger = Remotely { work: self, claimed };
        let temp_name = format!("{}.{}", claimed.id, claimed.attempt);
        let placed = tokio::select! {
            placed = placing::place(&self.share, &ledger, &temp_name, recorded) => placed,
            error = self.keep_lease(bound) => Err(error),
        };
        match placed {
            Ok(placed_name) => {
                self.remote.done(bound, &placed_name).await?;
                let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(
                    upload = claimed.upload_id,
                    delivery = claimed.id,
                    placed = placed_name,
                    bytes = claimed.size,
                    ms,
                    "delivered to the hotfolder"
                );
                Ok(())
            }
            Err(Failed::NotOurs) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, upload = claimed.upload_id, delivery = claimed.id, "delivery failed, tried again");
                // If the portal cannot be told, the lease runs out.
                self.remote.failed(bound, &error.to_string()).await.ok();
                Err(error)
            }
        }
    }

    /// Never returns while the lease can be kept.
    async fn keep_lease(&self, (id, lease): (&str, &str)) -> Failed {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.remote.renew(id, lease).await {
                Err(RemoteError::Conflict(_)) => return Failed::NotOurs,
                // Away for a moment; the lease is asked for again before `placing`.
                Ok(()) | Err(RemoteError::Refused(_) | RemoteError::Away(_)) => {}
            }
        }
    }
}

/// The portal keeps the record of one attempt.
struct Remotely<'a> {
    work: &'a Work,
    claimed: &'a Claimed,
}

impl Remotely<'_> {
    fn bound(&self) -> (&str, &str) {
        (&self.claimed.id, &self.claimed.lease)
    }

    fn hash(&self) -> Result<ContentHash, Failed> {
        ContentHash::from_row(&self.claimed.sha256)
            .ok_or_else(|| placing::odd("the portal gives no hash"))
    }
}

impl Ledger for Remotely<'_> {
    /// Goes on where an earlier download stopped.
    async fn fetch(&self, temp_name: &str) -> Result<(), Failed> {
        let (share, id) = (&self.work.share, self.claimed.id.clone());
        let size = self.claimed.size;
        // A ticket is small, and may have another text by now.
        let kept = if self.claimed.consumer == MIRROR { size } else { 0 };
        let (mut file, mut have) =
            placing::on_share(share, move |share| share.open_part(&id, kept)).await?;
        if have < size || size == 0 {
            let mut content = self.work.remote.content(self.claimed, have).await?;
            while let Some(piece) = content.next().await? {
                have = have.saturating_add(u64::try_from(piece.len()).unwrap_or(0));
                if have > size {
                    return Err(placing::odd("the portal sends more than it announced"));
                }
                file =
                    placing::on_share(share, move |share| share.append_part(file, &piece)).await?;
            }
            if have < size {
                return Err(placing::odd(format!("the download ended at {have} of {size} bytes")));
            }
        }
        let (id, temp_name, hash) = (self.claimed.id.clone(), temp_name.to_owned(), self.hash()?);
        let mtime = Timestamp(self.claimed.mtime);
        placing::on_share(share, move |share| {
            share.finish_part(file, &id, &temp_name, (&hash, mtime))
        })
        .await
    }

    async fn target(&self) -> Result<Target, Failed> {
        let folders = self.claimed.folders.iter().map(|name| hotname::safe_folder_name(name));
        Ok(Target {
            folders: folders.collect(),
            name: hotname::safe_file_name(&self.claimed.name),
            second: self.claimed.second.as_deref().map(hotname::safe_file_name),
        })
    }

    async fn record_placing(&self, temp_name: &str, placed_name: &str) -> Result<(), Failed> {
        Ok(self.work.remote.placing(self.bound(), (temp_name, placed_name)).await?)
    }

    async fn unplace(&self) -> Result<(), Failed> {
        let (id, lease) = self.bound();
        Ok(self.work.remote.unplace(id, lease).await?)
    }

    async fn placed_before(&self, path: &Path) -> Result<Option<ContentHash>, Failed> {
        let target = self.target().await?;
        let replaces = if path == target.path() {
            &self.claimed.replaces
        } else if target.second_path().as_deref() == Some(path) {
            &self.claimed.second_replaces
        } else {
            &None
        };
        Ok(replaces.as_deref().and_then(ContentHash::from_row))
    }
}
