//! The way back: a file that staff put into a project's folder becomes one that the customer sees (spec section 13).
//!
//! It takes the same way as a customer's upload: spool, seal, scan, release. So nothing unscanned is ever readable here
//! either, and a crash leaves either the old file or the new one.

use std::sync::Arc;

use super::App;
use super::clients::{Refused, because, conflict, missing};
use super::publication::Publication;
use super::tree::area_key;
use crate::domain::hotname::{self, LayoutValues, SafeName};
use crate::domain::id::Id;
use crate::domain::path::{Name, NameError, PATH_BYTES, fold};
use crate::domain::publish::Found;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::store::entries::{self, EntryRow};
use crate::store::orders::ProjectRow;
use crate::store::published;
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, big, clients, unsigned};

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
    pub(super) fn area(&self) -> i64 {
        i64::try_from(self.area).unwrap_or(i64::MAX)
    }
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
            let state = row.upload_state.as_deref().and_then(UploadState::parse);
            let is_refused = matches!(state, Some(UploadState::Infected | UploadState::Rejected));
            row.upload_state.as_deref().is_some_and(is_settled)
                && (is_refused || row.content.as_deref() == Some("kept"))
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
        let shown = format!("/{}/{}/{}", channel.project.folder, channel.folder, found.path);
        if shown.len() > PATH_BYTES {
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
        let publication = Publication::begin(self, row, id);
        let done = self.store.run(vec![name_step, insert, put]).await?;
        let Some(version) = uploads::returned_version(done.get(1))? else { return Ok(None) };
        match publication.open(version).await {
            Ok(publication) => Ok(Some(publication)),
            Err(error) => conflict(format!("the spool: {error}")),
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
