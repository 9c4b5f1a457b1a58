//! The way back: a file that staff put into a project's folder becomes one that the customer sees (spec section 13).
//!
//! It takes the same way as a customer's upload: spool, seal, scan, release. So nothing unscanned is ever readable here
//! either, and a crash leaves either the old file or the new one.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::clients::{Refused, because, conflict, missing};
use super::settle::{self, Settled};
use super::tree::area_key;
use super::work::Work;
use super::{App, blocking, with_app};
use crate::domain::content::ContentHasher;
use crate::domain::event::{Event, EventKind};
use crate::domain::hotname::{self, LayoutValues, SafeName};
use crate::domain::id::Id;
use crate::domain::path::{Name, NameError, PATH_BYTES, fold};
use crate::domain::publish::{self, Found};
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::store::entries::{self, EntryRow};
use crate::store::orders::ProjectRow;
use crate::store::published::{self, HoldRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, big, clients, unsigned};
use crate::vault::Sidecar;

/// The protocol of what comes from the share, on the upload's row.
pub const PROTOCOL: &str = "hotfolder";
/// How often a name is looked at anew because others change it.
const TRIES: usize = 5;

/// One folder of a project that leads back to the customer.
#[derive(Debug, Clone)]
pub struct Channel {
    pub project: ProjectRow,
    pub area: usize,
    /// The folder's name in the tree.
    pub folder: String,
    /// Where it lies below the share's root.
    pub below: Vec<SafeName>,
}

impl Channel {
    fn hold_id(&self) -> String {
        area_key(&self.project, self.area)
    }

    fn area(&self) -> i64 {
        i64::try_from(self.area).unwrap_or(i64::MAX)
    }
}

/// Files that are being taken over in this process: nobody takes their rows for orphans.
#[derive(Default)]
pub struct Running(Mutex<HashSet<String>>);

impl Running {
    fn all(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, upload: &str) -> bool {
        self.all().contains(upload)
    }
}

/// A file on its way to the customer. Dropped, it is an orphan that is cleared within a minute or two.
pub struct Publication {
    app: Arc<App>,
    row: UploadRow,
    id: Id,
    file: Option<File>,
    hasher: ContentHasher,
    size: u64,
}

impl App {
    /// Every folder that leads back to a customer.
    ///
    /// # Errors
    /// The database.
    pub async fn channels(&self) -> store::Result<Vec<Channel>> {
        let mut channels = Vec::new();
        if self.config.hotfolder.publish.is_empty() {
            return Ok(channels);
        }
        let names = clients::clients(self.store.db()).await?;
        for project in published::projects(self.store.db()).await? {
            let client = names.iter().find(|client| client.client_no == project.client_no);
            let client_name = client.map(|client| client.name.as_str()).unwrap_or_default();
            channels.extend(self.channels_of(&project, client_name));
        }
        Ok(channels)
    }

    fn channels_of(&self, project: &ProjectRow, client_name: &str) -> Vec<Channel> {
        let folders = self.config.portal.folders.iter().enumerate();
        let publish = &self.config.hotfolder.publish;
        folders
            .filter(|(_, folder)| publish.contains(folder))
            .map(|(area, folder)| {
                let values = LayoutValues {
                    client_no: &project.client_no,
                    client_name,
                    project_no: &project.project_no,
                    ticket_no: "",
                    username: "",
                    folder,
                };
                Channel {
                    project: project.clone(),
                    area,
                    folder: folder.clone(),
                    below: hotname::layout(&self.config.hotfolder.layout, &values),
                }
            })
            .collect()
    }

    /// One folder by its project and name.
    ///
    /// # Errors
    /// No such project, a closed one, or a folder that does not lead back.
    pub async fn channel(&self, project_no: &str, folder: &str) -> Result<Channel, Refused> {
        let project = self.project(project_no).await?;
        if project.state != "open" {
            return because(format!("project {project_no} is {}", project.state));
        }
        let channels = self.channels_of(&project, "");
        match channels.into_iter().find(|channel| channel.folder == folder) {
            Some(channel) => Ok(channel),
            None => missing(format!(
                "{folder} leads back to no customer; hotfolder.publish names {}",
                self.config.hotfolder.publish.join(", ")
            )),
        }
    }

    /// What the customer sees of a folder, or will see once it is scanned, or never because it is infected: all that
    /// need not be taken over again.
    ///
    /// # Errors
    /// The database.
    pub async fn known_in(&self, channel: &Channel) -> store::Result<Vec<Found>> {
        let rows = published::files(self.store.db(), &channel.project.id, channel.area()).await?;
        let is_settled = |state: &str| match UploadState::parse(state) {
            Some(
                UploadState::Receiving
                | UploadState::Scanning
                | UploadState::Released
                | UploadState::Held
                | UploadState::Infected
                | UploadState::Rejected,
            ) => true,
            Some(UploadState::Incomplete | UploadState::Deleted) | None => false,
        };
        // Of a project that was closed the bytes are gone; opened again, its files are taken over anew.
        let is_there = |row: &published::PublishedRow| {
            let is_infected = row.upload_state.as_deref() == Some(UploadState::Infected.as_str());
            row.upload_state.as_deref().is_some_and(is_settled)
                && (is_infected || row.content.as_deref() == Some("kept"))
        };
        let known = rows.into_iter().filter(is_there);
        let found = |row: published::PublishedRow| Found {
            path: row.path,
            size: unsigned(row.size),
            mtime: row.mtime,
        };
        Ok(known.map(found).collect())
    }

    /// Begins to take a file over: its name, its version, and the note of what it looks like on the share.
    ///
    /// # Errors
    /// `Because`: a path that cannot be one, or a folder where the file should be. `Conflict`: not now.
    pub async fn begin_publication(
        self: &Arc<Self>,
        channel: &Channel,
        found: &Found,
    ) -> Result<Publication, Refused> {
        let names = found.path.split('/').map(Name::parse).collect::<Result<Vec<_>, _>>();
        let names = names.map_err(|error| Refused::Because(error.english()))?;
        if found.path.len() > PATH_BYTES {
            return because(NameError::TooDeep.english());
        }
        let Some((name, above)) = names.split_last() else { return because("the path is empty") };
        let free = self.free_bytes().await;
        let free = free.map_err(|error| Refused::Conflict(format!("free space: {error}")))?;
        if free < self.limits().min_free.saturating_add(found.size) {
            return conflict("data_dir has no room for it (limits.min_free)");
        }
        for _ in 0..TRIES {
            let parent = self.make_folders(channel, above).await?;
            if let Some(publication) = self.register(channel, found, (&parent, name)).await? {
                return Ok(publication);
            }
        }
        conflict(format!("{} changes all the time", found.path))
    }

    async fn make_folders(&self, channel: &Channel, above: &[Name]) -> Result<String, Refused> {
        let mut parent = area_key(&channel.project, channel.area);
        for name in above {
            parent = match entries::child(self.store.db(), &parent, name.as_str()).await? {
                Some(entry) if entry.is_folder() => entry.id,
                Some(_) => {
                    return conflict(format!(
                        "{name} is still a file in the customer's tree, not a folder"
                    ));
                }
                None => {
                    let row = self.new_entry(channel, (&parent, name), "folder");
                    entries::insert(self.store.db(), &row).await?;
                    row.id
                }
            };
        }
        Ok(parent)
    }

    fn new_entry(&self, channel: &Channel, (parent, name): (&str, &Name), kind: &str) -> EntryRow {
        let now = self.now().0;
        EntryRow {
            id: self.new_id().to_string(),
            project_id: channel.project.id.clone(),
            parent: parent.to_owned(),
            name: name.to_string(),
            name_key: fold(name.as_str()),
            kind: kind.to_owned(),
            is_temporary: 0,
            released_upload: String::new(),
            released_version: 0,
            current_upload: String::new(),
            last_version: 0,
            mtime: now,
            created: now,
            updated: now,
        }
    }

    async fn register(
        self: &Arc<Self>,
        channel: &Channel,
        found: &Found,
        (parent, name): (&str, &Name),
    ) -> Result<Option<Publication>, Refused> {
        let there = entries::child(self.store.db(), parent, name.as_str()).await?;
        if there.as_ref().is_some_and(EntryRow::is_folder) {
            return conflict(format!("{} is still a folder in the customer's tree", found.path));
        }
        let (id, now) = (self.new_id(), self.now());
        let mut row = self.publication_row(channel, found, &id, now);
        let name_step = match there {
            Some(entry) => {
                row.entry_id.clone_from(&entry.id);
                entries::take_version_step(&entry.id, &row.id, &entry.current_upload, now)
            }
            None => {
                let mut entry = self.new_entry(channel, (parent, name), "file");
                entry.current_upload.clone_from(&row.id);
                entry.last_version = 1;
                row.entry_id.clone_from(&entry.id);
                entries::insert_step(&entry)
            }
        };
        let noted = self.new_id();
        let place = (channel.project.id.as_str(), channel.area(), found.path.as_str());
        let looks = (big(found.size), found.mtime, row.id.as_str());
        let put = published::put_step(noted.as_str(), place, looks, now);
        let insert = uploads::insert_step(&row);
        self.publishing.all().insert(row.id.clone());
        let spooled = id.clone();
        let mut publication = Publication {
            app: Arc::clone(self),
            row,
            id,
            file: None,
            hasher: ContentHasher::default(),
            size: 0,
        };
        let done = self.store.run(vec![name_step, insert, put]).await?;
        let Some(version) = uploads::returned_version(done.get(1))? else { return Ok(None) };
        publication.row.version = version;
        let file = with_app(self, move |app| app.vault.create(&spooled)).await;
        match file {
            Ok(file) => {
                publication.file = Some(file);
                Ok(Some(publication))
            }
            Err(error) => {
                publication.abandon().await;
                conflict(format!("the spool: {error}"))
            }
        }
    }

    fn publication_row(
        &self,
        channel: &Channel,
        found: &Found,
        id: &Id,
        now: Timestamp,
    ) -> UploadRow {
        UploadRow {
            id: id.to_string(),
            client_no: channel.project.client_no.clone(),
            project_no: channel.project.project_no.clone(),
            path: format!("{}/{}", channel.folder, found.path),
            version: 1,
            state: UploadState::Receiving.as_str().to_owned(),
            declared_size: big(found.size),
            mtime: found.mtime,
            protocol: PROTOCOL.to_owned(),
            node: self.node.to_string(),
            started: now.0,
            created: now.0,
            updated: now.0,
            content: "kept".to_owned(),
            ..UploadRow::default()
        }
    }

    /// Takes files away from the customer that are `gone` from the share for two looks; many at once wait for an operator,
    /// counted with those that are `missing` for the first time. Gives how many followed.
    ///
    /// # Errors
    /// The database.
    pub async fn withdraw_files(
        self: &Arc<Self>,
        channel: &Channel,
        gone: &[String],
        missing: usize,
    ) -> store::Result<usize> {
        let missing = missing.max(gone.len());
        let id = channel.hold_id();
        let held = published::hold(self.store.db(), &id).await?;
        if missing == 0 {
            if held.is_some() {
                published::delete_hold(self.store.db(), &id).await?;
            }
            return Ok(0);
        }
        let total = self.known_in(channel).await?.len();
        // Of what an operator saw, not of what has gone since.
        let is_confirmed = held.as_ref().is_some_and(|hold| {
            hold.confirmed != 0 && i64::try_from(missing).unwrap_or(i64::MAX) <= hold.missing
        });
        if publish::is_mass_removal(missing, total) && !is_confirmed {
            if !gone.is_empty() {
                self.hold_removals(channel, (missing, total), held.as_ref()).await?;
            }
            return Ok(0);
        }
        for path in gone {
            self.withdraw(channel, path).await?;
        }
        if gone.len() == missing && held.is_some() {
            published::delete_hold(self.store.db(), &id).await?;
        }
        Ok(gone.len())
    }

    async fn hold_removals(
        &self,
        channel: &Channel,
        (missing, total): (usize, usize),
        held: Option<&HoldRow>,
    ) -> store::Result<()> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (missing, total) = (count(missing), count(total));
        if held.is_some_and(|hold| hold.missing == missing && hold.total == total) {
            return Ok(());
        }
        let no = &channel.project.project_no;
        let mut work = self.begin().await?;
        let id = channel.hold_id();
        let named = (id.as_str(), no.as_str(), channel.folder.as_str());
        published::put_hold(work.tx.db(), named, (missing, total), work.now).await?;
        let event = Event::new(EventKind::PublishHeld)
            .client(&channel.project.client_no)
            .project(no)
            .path(&channel.folder)
            .with("files", missing)
            .with("of", total)
            .with(
                "remedy",
                format!("`publish confirm {no}` if they are meant to go, else put them back"),
            );
        work.note(event);
        work.commit().await?;
        Ok(())
    }

    /// One file goes: its name, its content, and the folders above it that are empty then.
    async fn withdraw(self: &Arc<Self>, channel: &Channel, path: &str) -> store::Result<()> {
        let names: Vec<&str> = path.split('/').collect();
        let mut chain = Vec::new();
        let mut parent = area_key(&channel.project, channel.area);
        for name in &names {
            let Some(entry) = entries::child(self.store.db(), &parent, name).await? else { break };
            parent.clone_from(&entry.id);
            chain.push(entry);
        }
        let is_whole = chain.len() == names.len();
        let file = chain.pop().filter(|entry| is_whole && !entry.is_folder());
        let mut work = self.begin().await?;
        let mut removable = Vec::new();
        if let Some(entry) = &file {
            for row in uploads::of_entry(work.tx.db(), &entry.id).await? {
                let state = row.state();
                if state != Some(UploadState::Infected) && state != Some(UploadState::Deleted) {
                    let reason = "taken out of the hotfolder";
                    uploads::set_deleted(work.tx.db(), &row.id, reason, work.now).await?;
                    removable.push(row.id);
                }
            }
            entries::delete(work.tx.db(), &entry.id).await?;
            for folder in chain.iter().rev() {
                if entries::has_children(work.tx.db(), &folder.id).await? {
                    break;
                }
                entries::delete(work.tx.db(), &folder.id).await?;
            }
        }
        published::delete(work.tx.db(), &channel.project.id, channel.area(), path).await?;
        work.note(self.file_event(EventKind::FileWithdrawn, channel, path));
        work.commit().await?;
        for id in removable {
            self.scans.withdraw(&id, Settled::Gone);
            if let Some(id) = Id::parse(&id) {
                settle::put_away(self, &id, UploadState::Deleted).await;
            }
        }
        Ok(())
    }

    fn file_event(&self, kind: EventKind, channel: &Channel, path: &str) -> Event {
        Event::new(kind)
            .client(&channel.project.client_no)
            .project(&channel.project.project_no)
            .path(&format!("{}/{path}", channel.folder))
    }

    /// An operator lets removals follow.
    ///
    /// # Errors
    /// Nothing waits.
    pub async fn confirm_removals(&self, project_no: &str, folder: &str) -> Result<u64, Refused> {
        let confirmed = published::confirm(self.store.db(), project_no, folder, self.now()).await?;
        if confirmed == 0 {
            return missing(format!("no removals wait in {project_no}; `publish list` shows all"));
        }
        Ok(confirmed)
    }

    /// The files of a project's folders, as staff put them there, for lists.
    ///
    /// # Errors
    /// No such project.
    pub async fn published_files(
        &self,
        project_no: &str,
    ) -> Result<Vec<(String, published::PublishedRow)>, Refused> {
        let project = self.project(project_no).await?;
        let mut files = Vec::new();
        for channel in self.channels_of(&project, "") {
            let rows = published::files(self.store.db(), &project.id, channel.area()).await?;
            files.extend(rows.into_iter().map(|row| (channel.folder.clone(), row)));
        }
        Ok(files)
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.app.publishing.all().remove(&self.row.id);
    }
}

impl Publication {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn write(&mut self, bytes: Vec<u8>) -> std::io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Err(std::io::Error::other("an earlier write failed"));
        };
        let mut hasher = std::mem::take(&mut self.hasher);
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        let (file, hasher) = blocking(move || {
            hasher.update(&bytes);
            file.write_all(&bytes)?;
            Ok((file, hasher))
        })
        .await?;
        (self.file, self.hasher) = (Some(file), hasher);
        self.size = self.size.saturating_add(len);
        Ok(())
    }

    /// The content is complete: sealed, and on its way to the scanner.
    ///
    /// # Errors
    /// What disk or database say; then nothing has been published.
    pub async fn finish(mut self) -> anyhow::Result<UploadRow> {
        let file = self.file.take().ok_or_else(|| anyhow::anyhow!("an earlier write failed"))?;
        let sha256 = std::mem::take(&mut self.hasher).finish();
        let (app, now) = (Arc::clone(&self.app), self.app.now());
        let sidecar = Sidecar {
            id: self.row.id.clone(),
            client_no: self.row.client_no.clone(),
            username: String::new(),
            project_no: self.row.project_no.clone(),
            path: self.row.path.clone(),
            version: self.row.version,
            size: self.size,
            sha256: sha256.as_str().to_owned(),
            mtime: self.row.mtime,
            completed: now.0,
        };
        let id = self.id.clone();
        let sealed = with_app(&app, move |app| app.vault.seal(&id, &file, &sidecar)).await;
        if let Err(error) = sealed {
            self.abandon().await;
            return Err(error.into());
        }
        let content = (self.size, sha256.as_str(), self.row.mtime);
        let done = app.store.run(vec![uploads::seal_step(&self.row.id, content, now)]).await?;
        let row = uploads::returned(done.first())?;
        let row = row.ok_or_else(|| anyhow::anyhow!("it was taken away meanwhile"))?;
        drop(app.scans.enqueue(&row));
        Ok(row)
    }

    /// It does not become complete: nothing stays of it.
    pub async fn abandon(self) {
        let ended = forget(&self.app, &self.row).await;
        if let Err(error) = ended {
            tracing::warn!(%error, upload = self.row.id, "a broken file of the print shop could not be forgotten; the next start does it");
        }
        settle::put_away(&self.app, &self.id, UploadState::Deleted).await;
    }
}

/// A publication that did not become complete is as if it had not begun.
pub(super) async fn forget(app: &App, row: &UploadRow) -> store::Result<()> {
    let mut work: Work<'_> = app.begin().await?;
    let now = work.now;
    uploads::end_unfinished(work.tx.db(), &row.id, "not complete", now).await?;
    entries::forget_current(work.tx.db(), &row.entry_id, &row.id, now).await?;
    entries::delete_if_empty(work.tx.db(), &row.entry_id).await?;
    work.commit().await?;
    Ok(())
}
