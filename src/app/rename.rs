//! A client renames or moves: a new name for a content in whatever state, or the newest version of a name that is there.

use std::sync::Arc;

use super::edit::{delete_entry, is_dropping_path, is_open_mirror, remove_content};
use super::repeat::REPEAT_WITHIN;
use super::session::Session;
use super::settle::{self, Settled};
use super::tree::{Spot, is_temporary};
use super::{mirror, receive};
use crate::domain::event::{Event, EventKind};
use crate::domain::path::{NameError, PATH_BYTES, PATH_SEGMENTS, VirtualPath, fold, is_dropping};
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::domain::upload::{DeliveryState, UploadState};
use crate::logging;
use crate::store::entries::{self, EntryRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, WriteTx, deliveries, events, orders};

/// At a rename that PostgreSQL gives up for another transaction.
const ATTEMPTS: u32 = 5;

impl Session {
    /// Renames or moves a file or folder inside the upload folder of one project. Onto an existing file it makes a
    /// new version of that (spec section 7).
    ///
    /// # Errors
    /// `AlreadyExists` when a folder is in the way, `OtherProject`, `ReadOnly`, `BadName` when something in a folder would
    /// lie too deep.
    pub async fn rename(&self, from: &VirtualPath, to: &VirtualPath) -> Result<(), Refusal> {
        if let Some(size) = self.dropping_size(from) {
            // A dropped file under another name of that kind is still nothing; under a real name it would be missed.
            if !is_dropping_path(to) {
                return Err(Refusal::NotFound);
            }
            self.forget_dropping(from);
            self.note_dropping(to, size);
            return Ok(());
        }
        let (spot, entry) = self.spot_of_existing(from).await?;
        let target = self.spot(to).await?;
        if is_dropping(&target.name) && !entry.is_folder() {
            // rclone and others write under a temporary name first.
            let size = self.stat(from).await?.size;
            let dropped = delete_entry(&self.app, self, &entry).await;
            dropped.map_err(|e| self.internal("drop a file", &e))?;
            self.note_dropping(to, size);
            return Ok(());
        }
        if target.project.id != spot.project.id {
            return Err(Refusal::OtherProject);
        }
        if from == to {
            return Ok(());
        }
        if to.starts_with(from) {
            return Err(Refusal::ReadOnly);
        }
        if !entry.is_folder()
            && !is_temporary(&self.app, target.name.as_str())
            && let Some(extension) = self.settings().forbids_extension(target.name.as_str())
        {
            return Err(Refusal::Extension { extension });
        }
        let there = entries::child(self.app.store.db(), &target.parent, target.name.as_str()).await;
        let there = there.map_err(|e| self.internal("look up name", &e))?;
        if there.as_ref().is_some_and(|t| t.is_folder() || entry.is_folder()) {
            return Err(Refusal::AlreadyExists);
        }
        let paths = (receive::path_in_project(from), receive::path_in_project(to));
        if entry.is_folder() {
            self.check_below(&spot.project, (&paths.0, to)).await?;
        }
        let renaming = Renaming { session: self, entry, target, paths };
        let mut attempt = 1u32;
        let renamed = loop {
            let renamed = match &there {
                Some(there) => renaming.onto(there).await,
                None => renaming.to_new_name().await,
            };
            match renamed {
                Err(error) if store::is_contended(&error) && attempt < ATTEMPTS => {
                    attempt = attempt.saturating_add(1);
                }
                ended => break ended,
            }
        };
        self.app.recent.folders.clear();
        match renamed {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::ReadOnly),
            Err(e) if store::is_duplicate(&e) => Err(Refusal::AlreadyExists),
            Err(e) => Err(self.internal("rename", &e)),
        }
    }

    /// What lies in a folder must be within the limits of paths at its new place too, or nobody could reach it any more.
    async fn check_below(
        &self,
        project: &orders::ProjectRow,
        (from, to): (&str, &VirtualPath),
    ) -> Result<(), Refusal> {
        let db = self.app.store.db();
        let below = uploads::longest_below(db, &project.project_no, from).await;
        let (bytes, folders) = below.map_err(|e| self.internal("look below a folder", &e))?;
        let bytes = to.to_string().len().saturating_add(bytes);
        let segments = to.segments().len().saturating_add(folders);
        if bytes > PATH_BYTES || segments > PATH_SEGMENTS {
            return Err(Refusal::BadName(NameError::TooDeep));
        }
        Ok(())
    }
}

/// One rename with all it concerns.
struct Renaming<'s> {
    session: &'s Session,
    entry: EntryRow,
    target: Spot,
    paths: (String, String),
}

impl Renaming<'_> {
    fn event(&self, upload: &str, kind: EventKind) -> Event {
        let mut event =
            self.session.event(kind).project(&self.target.project.project_no).path(&self.paths.1);
        upload.clone_into(&mut event.upload_id);
        event.with("from", self.paths.0.clone())
    }

    /// Only the name changes, in whatever state the content is. False when the target would lie inside itself.
    async fn to_new_name(&self) -> store::Result<bool> {
        let app = &self.session.app;
        let now = app.now();
        let mut tx = app.store.write().await?;
        if self.entry.is_folder() && self.would_make_a_cycle(&mut tx).await? {
            return Ok(false);
        }
        let name = self.target.name.as_str();
        let (key, is_folder) = (fold(name), self.entry.is_folder());
        let is_temporary = !is_folder && is_temporary(app, name);
        let place = (self.target.parent.as_str(), name, key.as_str());
        // Uploads before their name, as in a release: PostgreSQL locks rows in this order.
        let project_no = &self.target.project.project_no;
        uploads::rename_paths(tx.db(), project_no, &self.paths.0, &self.paths.1).await?;
        entries::set_place(tx.db(), &self.entry.id, place, is_temporary, now).await?;
        // As it is under the lock: the verdict may have come since the entry was read.
        let Some(entry) = entries::entry(tx.db(), &self.entry.id).await? else { return Ok(false) };
        let mut delivers = false;
        if !is_folder {
            self.find_ticket(&mut tx).await?;
            delivers = self.deliver_final_name(&mut tx, &entry, now).await?;
        }
        let upload = newest_id(&entry);
        let event = self.event(upload, EventKind::UploadRenamed);
        events::insert(tx.db(), &event, now).await?;
        tx.commit().await?;
        logging::event(&event);
        if delivers {
            app.mirror_wake.notify_one();
        }
        if app.config.hotfolder.rename_follows && !entry.released_upload.is_empty() {
            app.tasks.spawn(mirror::follow_rename(Arc::clone(app), entry.released_upload));
        }
        Ok(true)
    }

    /// Two renames at once could each be right and together make a ring of folders.
    async fn would_make_a_cycle(&self, tx: &mut WriteTx) -> store::Result<bool> {
        let mut above = self.target.parent.clone();
        for _ in 0..100 {
            if above == self.entry.id {
                return Ok(true);
            }
            match entries::entry(tx.db(), &above).await? {
                Some(entry) => above = entry.parent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn find_ticket(&self, tx: &mut WriteTx) -> store::Result<()> {
        let tickets = orders::tickets(tx.db(), &self.target.project.project_no).await?;
        let numbers: Vec<String> = tickets.into_iter().map(|t| t.ticket_no).collect();
        let ticket = receive::ticket_for_path(&self.paths.1, &numbers);
        uploads::set_ticket(tx.db(), &self.entry.id, &ticket).await
    }

    /// A temporary name became final: what is released already is delivered now, without a new scan.
    async fn deliver_final_name(
        &self,
        tx: &mut WriteTx,
        entry: &EntryRow,
        now: Timestamp,
    ) -> store::Result<bool> {
        let app = &self.session.app;
        let becomes_final = is_temporary(app, &self.entry.name) && entry.is_temporary == 0;
        if !becomes_final || !app.delivers() || entry.released_upload.is_empty() {
            return Ok(false);
        }
        let ids = (entry.released_upload.as_str(), entry.id.as_str(), entry.released_version);
        settle::plan_delivery(app, tx, ids, now).await?;
        Ok(true)
    }

    /// The renamed content becomes the newest version of the name that is there.
    async fn onto(&self, there: &EntryRow) -> store::Result<bool> {
        let app = &self.session.app;
        let now = app.now();
        let mut tx = app.store.write().await?;
        // Before the names are, and before anything of them is read: a release may come in between.
        uploads::lock_of_entry(tx.db(), &self.entry.id).await?;
        let (Some(entry), Some(there)) = (
            entries::entry(tx.db(), &self.entry.id).await?,
            entries::entry(tx.db(), &there.id).await?,
        ) else {
            return Ok(false);
        };
        let newest = newest_id(&entry).to_owned();
        let mut delivers = false;
        let mut repeated = None;
        // Oldest first, so that their order stays; finished versions that nobody waits for stay behind.
        let mut versions = uploads::of_entry(tx.db(), &entry.id).await?;
        versions.reverse();
        for row in versions {
            let is_newest = row.id == newest;
            if is_newest
                && !app.config.hotfolder.deliver_repeats
                && is_same(&mut tx, &row, &there, now).await?
            {
                uploads::set_repeat(tx.db(), &row.id, newest_id(&there), now).await?;
                deliveries::end_unplaced(tx.db(), &row.id, DeliveryState::Cancelled, now).await?;
                repeated = Some(row.id);
            } else if is_newest || is_waited_for(&mut tx, &row).await? {
                delivers |= self.move_version(&mut tx, (&row, is_newest), &there, now).await?;
            }
        }
        entries::delete(tx.db(), &entry.id).await?;
        let kind =
            if repeated.is_some() { EventKind::UploadRepeated } else { EventKind::UploadRenamed };
        let event = self.event(&newest, kind);
        events::insert(tx.db(), &event, now).await?;
        tx.commit().await?;
        logging::event(&event);
        if let Some(id) = repeated {
            app.scans.withdraw(&id, Settled::Repeated);
            remove_content(app, &id).await;
        }
        if delivers {
            app.mirror_wake.notify_one();
        }
        Ok(true)
    }

    async fn move_version(
        &self,
        tx: &mut WriteTx,
        (row, is_newest): (&UploadRow, bool),
        there: &EntryRow,
        now: Timestamp,
    ) -> store::Result<bool> {
        let app = &self.session.app;
        let version = entries::take_version(tx.db(), &there.id, &row.id, now).await?.unwrap_or(1);
        uploads::move_to_entry(tx.db(), &row.id, &there.id, version, &self.paths.1).await?;
        deliveries::move_to_entry(tx.db(), &row.id, &there.id, version).await?;
        if row.state() != Some(UploadState::Released) {
            return Ok(false);
        }
        entries::show_release(tx.db(), &row.id, now).await?;
        let becomes_final = is_temporary(app, &self.entry.name) && there.is_temporary == 0;
        if is_newest && becomes_final && app.delivers() {
            settle::plan_delivery(app, tx, (&row.id, &there.id, version), now).await?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// The version that a name waits for, else the one that it shows.
pub(super) fn newest_id(entry: &EntryRow) -> &str {
    if entry.current_upload.is_empty() { &entry.released_upload } else { &entry.current_upload }
}

/// A version that is not newest but still has something to come: a verdict, or its delivery.
async fn is_waited_for(tx: &mut WriteTx, row: &UploadRow) -> store::Result<bool> {
    Ok(match row.state() {
        Some(
            UploadState::Receiving
            | UploadState::Incomplete
            | UploadState::Scanning
            | UploadState::Held,
        ) => true,
        Some(UploadState::Released) => {
            deliveries::of_upload(tx.db(), &row.id).await?.iter().any(is_open_mirror)
        }
        Some(UploadState::Infected | UploadState::Rejected | UploadState::Deleted) | None => false,
    })
}

/// The same content as the newest version of the name that is there, both accepted, within the time of a repeat.
async fn is_same(
    tx: &mut WriteTx,
    row: &UploadRow,
    there: &EntryRow,
    now: Timestamp,
) -> store::Result<bool> {
    let is_accepted = |row: &UploadRow| matches!(row.state.as_str(), "released" | "scanning");
    let newest = uploads::upload(tx.db(), newest_id(there)).await?;
    Ok(newest.is_some_and(|other| {
        let is_recent = other.completed >= now.minus(REPEAT_WITHIN).0;
        let is_equal = is_recent && other.sha256 == row.sha256 && other.size == row.size;
        !row.sha256.is_empty() && is_equal && is_accepted(&other) && is_accepted(row)
    }))
}
