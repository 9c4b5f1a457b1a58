//! Changes of the tree by a client: folders, delete, times. Only inside the upload folder; `rename` is a room of its
//! own.

use std::sync::Arc;

use super::origin::event_of;
use super::rename::newest_id;
use super::session::Session;
use super::settle::{self, Settled};
use super::tree::{Place, Spot, is_upload_area};
use super::{App, receive, with_app};
use crate::domain::event::{Event, EventKind};
use crate::domain::id::Id;
use crate::domain::path::{VirtualPath, fold, is_dropping};
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::domain::upload::{DeliveryState, UploadState};
use crate::logging;
use crate::store::entries::{self, EntryRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, deliveries, events, orders};

impl Session {
    pub(super) async fn spot(&self, path: &VirtualPath) -> Result<Spot, Refusal> {
        self.app.spot(&self.client_no, &self.folders(), path).await
    }

    async fn entry_of(&self, spot: &Spot) -> Result<EntryRow, Refusal> {
        let found = entries::child(self.app.store.db(), &spot.parent, spot.name.as_str()).await;
        found.map_err(|e| self.internal("look up name", &e))?.ok_or(Refusal::NotFound)
    }

    /// "No such file" comes before "read-only" inside the client's own tree: clients look before they write.
    pub(super) async fn spot_of_existing(
        &self,
        path: &VirtualPath,
    ) -> Result<(Spot, EntryRow), Refusal> {
        match self.locate(path).await? {
            Place::Root | Place::Project(_) | Place::Status(_) => Err(Refusal::ReadOnly),
            Place::Area { project, area, names } if !is_upload_area(area) => {
                if !names.is_empty() {
                    self.app.entry_at(&project, area, &names).await?;
                }
                Err(Refusal::ReadOnly)
            }
            Place::Area { .. } => {
                let spot = self.spot(path).await?;
                let entry = self.entry_of(&spot).await?;
                Ok((spot, entry))
            }
        }
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// `AlreadyExists`, `ReadOnly` outside the upload folder.
    pub async fn make_folder(&self, path: &VirtualPath) -> Result<(), Refusal> {
        if let Ok(_there) = self.stat(path).await {
            return Err(Refusal::AlreadyExists);
        }
        let spot = self.spot(path).await?;
        let now = self.app.now();
        let place = (spot.parent.as_str(), spot.name.as_str());
        let row = folder_row(&self.app, &spot.project, place, now);
        let made = entries::insert(self.app.store.db(), &row).await;
        match made {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::AlreadyExists),
            Err(e) => return Err(self.internal("make a folder", &e)),
        }
        let event = self.event(EventKind::FolderChanged).project(&spot.project.project_no);
        self.app.record(event.path(&receive::path_in_project(path)).with("change", "made")).await;
        Ok(())
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// `NotEmpty`, `NotAFolder`, `ReadOnly`.
    pub async fn remove_folder(&self, path: &VirtualPath) -> Result<(), Refusal> {
        let (spot, entry) = self.spot_of_existing(path).await?;
        if !entry.is_folder() {
            return Err(Refusal::NotAFolder);
        }
        let removed = async {
            let mut tx = self.app.store.write().await?;
            if entries::has_children(tx.db(), &entry.id).await? {
                return Ok(false);
            }
            entries::delete(tx.db(), &entry.id).await?;
            tx.commit().await.map(|()| true)
        };
        let removed = removed.await;
        self.app.recent.folders.clear();
        if !removed.map_err(|e: store::StoreError| self.internal("remove a folder", &e))? {
            return Err(Refusal::NotEmpty);
        }
        let event = self.event(EventKind::FolderChanged).project(&spot.project.project_no);
        self.app
            .record(event.path(&receive::path_in_project(path)).with("change", "removed"))
            .await;
        Ok(())
    }

    /// Deletes a file with all its versions; deliveries that have not begun to be placed are cancelled.
    ///
    /// # Errors
    /// `IsAFolder`, `ReadOnly`, `NotFound`.
    pub async fn remove_file(&self, path: &VirtualPath) -> Result<(), Refusal> {
        if self.forget_dropping(path) {
            return Ok(());
        }
        let (_, entry) = self.spot_of_existing(path).await?;
        if entry.is_folder() {
            return Err(Refusal::IsAFolder);
        }
        delete_entry(&self.app, self, &entry).await.map_err(|e| self.internal("delete a file", &e))
    }

    /// Keeps the modification time of a file; other attributes are accepted and forgotten.
    ///
    /// # Errors
    /// `NotFound`; outside the upload folder it is accepted and forgotten too.
    pub async fn set_mtime(&self, path: &VirtualPath, mtime: Timestamp) -> Result<(), Refusal> {
        if is_dropping_path(path) {
            return Ok(());
        }
        let (_, entry) = match self.spot_of_existing(path).await {
            Ok(found) => found,
            Err(Refusal::ReadOnly) => return Ok(()),
            Err(other) => return Err(other),
        };
        let upload = newest_id(&entry);
        let kept = async {
            let mut tx = self.app.store.write().await?;
            uploads::set_mtime(tx.db(), upload, mtime.0).await?;
            entries::set_mtime(tx.db(), &entry.id, mtime.0).await?;
            tx.commit().await
        };
        kept.await.map_err(|e| self.internal("keep a time", &e))
    }
}

pub(super) fn is_dropping_path(path: &VirtualPath) -> bool {
    path.file_name().is_some_and(is_dropping)
}

/// The row of a folder.
pub(super) fn folder_row(
    app: &App,
    project: &orders::ProjectRow,
    (parent, name): (&str, &str),
    now: Timestamp,
) -> EntryRow {
    EntryRow {
        id: app.new_id().to_string(),
        project_id: project.id.clone(),
        parent: parent.to_owned(),
        name: name.to_owned(),
        name_key: fold(name),
        kind: "folder".to_owned(),
        is_temporary: 0,
        released_upload: String::new(),
        released_version: 0,
        current_upload: String::new(),
        last_version: 0,
        mtime: now.0,
        created: now.0,
        updated: now.0,
    }
}

/// Ends all versions of a name in one transaction.
pub(super) async fn delete_entry(
    app: &Arc<App>,
    session: &Session,
    entry: &EntryRow,
) -> store::Result<()> {
    let now = app.now();
    let mut happened = Vec::new();
    let mut removable = Vec::new();
    let mut tx = app.store.write().await?;
    for row in uploads::of_entry(tx.db(), &entry.id).await? {
        let was = row.state();
        if was == Some(UploadState::Infected) || was == Some(UploadState::Deleted) {
            continue;
        }
        // First the upload: its row lock keeps a release from adding a delivery that nobody cancels.
        uploads::set_deleted(tx.db(), &row.id, "deleted by the customer", now).await?;
        let cancelled =
            deliveries::end_unplaced(tx.db(), &row.id, DeliveryState::Cancelled, now).await?;
        let placing = deliveries::of_upload(tx.db(), &row.id).await?.iter().any(is_open_mirror);
        if cancelled > 0 {
            happened.push(deleted_event(session, &row, EventKind::DeliveryCancelled));
        }
        happened.push(deleted_event(session, &row, EventKind::UploadDeleted));
        if !placing {
            removable.push(row.id);
        }
    }
    entries::delete(tx.db(), &entry.id).await?;
    for event in &happened {
        events::insert(tx.db(), event, now).await?;
    }
    tx.commit().await?;
    happened.iter().for_each(logging::event);
    for id in removable {
        app.scans.withdraw(&id, Settled::Gone);
        remove_content(app, &id).await;
    }
    Ok(())
}

/// Who deleted it may be another connection than the one that sent it.
fn deleted_event(session: &Session, row: &UploadRow, kind: EventKind) -> Event {
    event_of(row, kind).account(session.account.as_str()).peer(&session.peer.to_string())
}

/// The file itself is not in its place yet; a ticket about it may come later.
pub(super) fn is_open_mirror(row: &deliveries::DeliveryRow) -> bool {
    row.open != 0 && row.consumer == settle::MIRROR
}

pub(super) async fn remove_content(app: &Arc<App>, upload: &str) {
    let Some(id) = Id::parse(upload) else { return };
    if let Err(error) = with_app(app, move |app| app.vault.remove(&id)).await {
        tracing::error!(%error, upload, "content of a deleted file could not be removed");
    }
}
