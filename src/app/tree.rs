//! The customer's tree: from a path to what it stands for, and what a listing shows (spec section 6).

use super::App;
use super::recent::Recent;
use crate::domain::id::Id;
use crate::domain::listing::{self, Looks};
use crate::domain::path::{Name, VirtualPath, fold};
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::store::entries::{self, EntryRow, ListedRow};
use crate::store::orders::{self, ProjectRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, unsigned};

/// The virtual text in each project folder.
pub const STATUS_FILE: &str = "Status.txt";

/// What a path speaks of; whether it exists is found out by the caller.
#[derive(Debug, Clone)]
pub enum Place {
    Root,
    Project(ProjectRow),
    Status(ProjectRow),
    /// An area's top (`names` empty) or something below it.
    Area {
        project: ProjectRow,
        area: usize,
        names: Vec<Name>,
    },
}

/// What a client learns about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub kind: Kind,
    pub size: u64,
    pub mtime: Timestamp,
    pub is_writable: bool,
    /// Folders, and files with a released version.
    pub is_readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File,
}

/// One line of a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    pub name: String,
    pub attributes: Attributes,
}

impl Listed {
    /// The line that `ls -l` would show.
    #[must_use]
    pub fn long_line(&self, now: Timestamp) -> String {
        let Attributes { kind, size, mtime, is_writable, .. } = self.attributes;
        let looks = Looks { is_folder: kind == Kind::Folder, is_writable };
        listing::long_line(looks, size, mtime, &self.name, now)
    }
}

/// A file's place in the upload folder: its folder's key and its name.
#[derive(Debug, Clone)]
pub struct Spot {
    pub project: ProjectRow,
    pub parent: String,
    pub name: Name,
}

/// What uploads ask again and again.
#[derive(Default)]
pub struct Recently {
    pub projects: Recent<(String, String), ProjectRow>,
    pub tickets: Recent<String, Vec<String>>,
    /// Folders below an area by their path. Whoever inserts a name checks that its folder is still there.
    pub folders: Recent<String, String>,
    pub free: Recent<(), u64>,
}

/// The key of an area's top in `entries.parent`.
#[must_use]
pub fn area_key(project: &ProjectRow, area: usize) -> String {
    format!("{}/{area}", project.id)
}

/// Areas are numbered by the folders' order; the first takes uploads.
#[must_use]
pub fn is_upload_area(area: usize) -> bool {
    area == 0
}

/// A folder, of no size.
#[must_use]
pub fn folder_attributes(mtime: Timestamp, is_writable: bool) -> Attributes {
    Attributes { kind: Kind::Folder, size: 0, mtime, is_writable, is_readable: true }
}

impl App {
    /// Finds out what a path of a client speaks of.
    ///
    /// # Errors
    /// `NotFound` for projects and areas that are not there.
    pub async fn locate(
        &self,
        client_no: &str,
        folders: &[String],
        path: &VirtualPath,
    ) -> Result<Place, Refusal> {
        let Some((first, rest)) = path.segments().split_first() else { return Ok(Place::Root) };
        let project = self.project_in(client_no, first.as_str()).await?;
        let Some((second, names)) = rest.split_first() else { return Ok(Place::Project(project)) };
        if second.as_str() == STATUS_FILE {
            return if names.is_empty() {
                Ok(Place::Status(project))
            } else {
                Err(Refusal::NotAFolder)
            };
        }
        let area = folders.iter().position(|f| f == second.as_str()).ok_or(Refusal::NotFound)?;
        Ok(Place::Area { project, area, names: names.to_vec() })
    }

    pub(super) async fn project_in(
        &self,
        client_no: &str,
        folder: &str,
    ) -> Result<ProjectRow, Refusal> {
        let key = (client_no.to_owned(), folder.to_owned());
        if let Some(project) = self.recent.projects.get(&key) {
            return Ok(project);
        }
        let found = orders::visible_project(self.store.db(), client_no, folder).await;
        let project = found.map_err(|e| self.internal("look up project", &e))?;
        let project = project.ok_or(Refusal::NotFound)?;
        self.recent.projects.put(key, project.clone());
        Ok(project)
    }

    /// The numbers of a project's tickets.
    ///
    /// # Errors
    /// The database.
    pub async fn ticket_numbers(&self, project_no: &str) -> store::Result<Vec<String>> {
        if let Some(numbers) = self.recent.tickets.get(&project_no.to_owned()) {
            return Ok(numbers);
        }
        let tickets = orders::tickets(self.store.db(), project_no).await?;
        let numbers: Vec<String> = tickets.into_iter().map(|t| t.ticket_no).collect();
        self.recent.tickets.put(project_no.to_owned(), numbers.clone());
        Ok(numbers)
    }

    /// The entry at names below an area.
    ///
    /// # Errors
    /// `NotFound`, or `NotAFolder` when a file stands on the way.
    pub async fn entry_at(
        &self,
        project: &ProjectRow,
        area: usize,
        names: &[Name],
    ) -> Result<EntryRow, Refusal> {
        let mut parent = area_key(project, area);
        let mut found: Option<EntryRow> = None;
        for name in names {
            if found.as_ref().is_some_and(|f| !f.is_folder()) {
                return Err(Refusal::NotAFolder);
            }
            let row = entries::child(self.store.db(), &parent, name.as_str()).await;
            let row =
                row.map_err(|e| self.internal("look up name", &e))?.ok_or(Refusal::NotFound)?;
            parent.clone_from(&row.id);
            found = Some(row);
        }
        found.ok_or(Refusal::IsAFolder)
    }

    /// The key under which children of names below an area stand.
    ///
    /// # Errors
    /// `NotFound` or `NotAFolder`.
    pub async fn folder_key(
        &self,
        project: &ProjectRow,
        area: usize,
        names: &[Name],
    ) -> Result<String, Refusal> {
        if names.is_empty() {
            return Ok(area_key(project, area));
        }
        let entry = self.entry_at(project, area, names).await?;
        if entry.is_folder() { Ok(entry.id) } else { Err(Refusal::NotAFolder) }
    }

    /// The same, remembered for a moment: thousands of small files go into one folder.
    async fn folder_key_for_upload(
        &self,
        project: &ProjectRow,
        area: usize,
        names: &[Name],
    ) -> Result<String, Refusal> {
        let path =
            names.iter().fold(area_key(project, area), |path, name| format!("{path}/{name}"));
        if let Some(key) = self.recent.folders.get(&path) {
            return Ok(key);
        }
        let key = self.folder_key(project, area, names).await?;
        self.recent.folders.put(path, key.clone());
        Ok(key)
    }

    /// Where a new or changed name would stand. Only the upload area takes them.
    ///
    /// # Errors
    /// `ReadOnly` outside, `NotFound` when the folder is not there.
    pub async fn spot(
        &self,
        client_no: &str,
        folders: &[String],
        path: &VirtualPath,
    ) -> Result<Spot, Refusal> {
        // New names beside projects or folders: their place is there, but it is read-only.
        if let (1 | 2, Some(above)) = (path.segments().len(), path.parent()) {
            self.locate(client_no, folders, &above).await?;
            return Err(Refusal::ReadOnly);
        }
        match self.locate(client_no, folders, path).await? {
            Place::Root | Place::Project(_) | Place::Status(_) => Err(Refusal::ReadOnly),
            Place::Area { area, .. } if !is_upload_area(area) => Err(Refusal::ReadOnly),
            Place::Area { project, area, names } => {
                let (name, above) = names.split_last().ok_or(Refusal::ReadOnly)?;
                let parent = self.folder_key_for_upload(&project, area, above).await?;
                Ok(Spot { project, parent, name: name.clone() })
            }
        }
    }

    /// What a row shows in a listing; `None` for a name without anything to show.
    #[must_use]
    pub fn attributes_of(&self, row: &ListedRow, is_writable: bool) -> Option<Attributes> {
        let mtime = |own: Option<i64>| Timestamp(own.filter(|m| *m != 0).unwrap_or(row.mtime));
        if row.kind == "folder" {
            return Some(folder_attributes(Timestamp(row.mtime), is_writable));
        }
        let is_readable = row.released_size.is_some();
        // What staff put there is shown once it is checked; nobody resumes it.
        let current_size = row.current_size.filter(|_| is_writable);
        let file = |size, mtime| {
            Some(Attributes { kind: Kind::File, size, mtime, is_writable, is_readable })
        };
        if let (Some(size), Some(state)) = (current_size, row.current_state.as_deref()) {
            let unfinished = matches!(state, "receiving" | "incomplete");
            let spooled = Id::parse(&row.current_upload).filter(|_| unfinished);
            let present = spooled.and_then(|id| self.vault.spool_len(&id));
            return file(present.unwrap_or_else(|| unsigned(size)), mtime(row.current_mtime));
        }
        file(unsigned(row.released_size?), mtime(row.released_mtime))
    }
}

/// Whether a name is one that clients use while they write.
#[must_use]
pub fn is_temporary(app: &App, name: &str) -> bool {
    app.config.portal.temporary_names.iter().any(|pattern| pattern.matches(name))
}

/// Puts the name of an upload back that went when it ended (a false positive): at the top of the upload folder, or
/// where its folder still is.
pub(super) async fn restore_name(app: &App, row: &UploadRow) -> store::Result<()> {
    if entries::entry(app.store.db(), &row.entry_id).await?.is_some() {
        return Ok(());
    }
    let Some(project) = orders::project(app.store.db(), &row.project_no).await? else {
        return Ok(());
    };
    let names: Vec<&str> = row.path.split('/').skip(1).collect();
    let Some((name, above)) = names.split_last() else { return Ok(()) };
    // What staff put into a folder goes back there.
    let area = match row.protocol.as_str() {
        super::publish::PROTOCOL => {
            let folder = row.path.split('/').next().unwrap_or_default();
            app.config.portal.folders.iter().position(|name| name == folder).unwrap_or(0)
        }
        _ => 0,
    };
    let mut parent = area_key(&project, area);
    for folder in above {
        match entries::child(app.store.db(), &parent, folder).await? {
            Some(found) if found.is_folder() => parent = found.id,
            Some(_) | None => break,
        }
    }
    let now = app.now();
    let entry = EntryRow {
        id: app.new_id().to_string(),
        project_id: project.id.clone(),
        parent: parent.clone(),
        name: (*name).to_owned(),
        name_key: fold(name),
        kind: "file".to_owned(),
        is_temporary: store::flag(is_temporary(app, name)),
        released_upload: String::new(),
        released_version: 0,
        current_upload: row.id.clone(),
        last_version: 1,
        mtime: row.mtime,
        created: now.0,
        updated: now.0,
    };
    let mut tx = app.store.write().await?;
    let (id, version) = match entries::child(tx.db(), &parent, name).await? {
        Some(there) => {
            let version = entries::take_version(tx.db(), &there.id, &row.id, now).await?;
            (there.id, version.unwrap_or(row.version))
        }
        None => {
            entries::insert(tx.db(), &entry).await?;
            (entry.id, 1)
        }
    };
    uploads::move_to_entry(tx.db(), &row.id, &id, version, &row.path).await?;
    tx.commit().await
}
