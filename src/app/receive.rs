//! How an upload begins: rights, name, limits, who writes already, new version or resume.

use std::sync::Arc;

use super::origin::Origin;
use super::rates::Direction;
use super::register::register;
use super::session::Session;
use super::transfers::Transfer;
use super::tree::{Spot, is_temporary};
use super::upload::{Base, Upload};
use super::writers::take_over;
use super::{recovery, scans, with_app};
use crate::domain::event::EventKind;
use crate::domain::id::Id;
use crate::domain::order::ticket_of;
use crate::domain::path::{VirtualPath, is_dropping};
use crate::domain::refusal::Refusal;
use crate::store::entries::{self, EntryRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{orders, unsigned};

/// Looks at a name before giving up because others change it all the time.
const TRIES: u32 = 5;

/// What a client wants when it opens a file for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteMode {
    pub create: Create,
    pub start: Start,
    /// What the client says the file will be long (SFTP OPEN attributes, FTP ALLO).
    pub declared_size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// The name must be there.
    Never,
    IfMissing,
    /// The name must not be there.
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The content begins anew.
    Empty,
    /// An unfinished upload goes on, a finished file is continued as a new version.
    WhatIsThere,
}

/// What takes the client's bytes.
pub enum Incoming {
    Upload(Box<Upload>),
    /// `.DS_Store` and its like: counted, never kept.
    Dropping,
}

impl Incoming {
    /// The client does not go on: what came is kept for a resume.
    pub async fn abandon(self) {
        match self {
            Self::Upload(upload) => upload.abandon().await,
            Self::Dropping => {}
        }
    }
}

impl Session {
    /// Begins (or goes on with) an upload.
    ///
    /// # Errors
    /// Every rule that forbids it, as early as it is known.
    pub async fn upload(&self, path: &VirtualPath, mode: WriteMode) -> Result<Incoming, Refusal> {
        if self.app.stop.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        let spot = self.app.spot(&self.client_no, &self.folders(), path).await?;
        if is_dropping(&spot.name) {
            return Ok(Incoming::Dropping);
        }
        self.check_limits(&spot, mode.declared_size).await?;
        // Most names are new: try that without a look.
        if mode.create != Create::Never
            && mode.start == Start::Empty
            && let Some(upload) =
                self.begin(path, &spot, None, (Base::None, 0), mode.declared_size).await?
        {
            return Ok(Incoming::Upload(Box::new(upload)));
        }
        // The name may change between look and write (a release, another session): then look again.
        for _ in 0..TRIES {
            let spot = self.app.spot(&self.client_no, &self.folders(), path).await?;
            if let Some(upload) = self.try_upload(path, &spot, mode).await? {
                return Ok(Incoming::Upload(Box::new(upload)));
            }
            self.app.recent.folders.clear();
        }
        Err(Refusal::Busy)
    }

    async fn try_upload(
        &self,
        path: &VirtualPath,
        spot: &Spot,
        mode: WriteMode,
    ) -> Result<Option<Upload>, Refusal> {
        let found = entries::child(self.app.store.db(), &spot.parent, spot.name.as_str()).await;
        let found = found.map_err(|e| self.internal("look up name", &e))?;
        match (&found, mode.create) {
            (Some(entry), _) if entry.is_folder() => return Err(Refusal::IsAFolder),
            (Some(_), Create::Always) => return Err(Refusal::AlreadyExists),
            (None, Create::Never) => return Err(Refusal::NotFound),
            (Some(_), Create::Never | Create::IfMissing)
            | (None, Create::IfMissing | Create::Always) => {}
        }
        let plan = match &found {
            Some(entry) => match self.plan_over(entry, mode.start).await? {
                Some(plan) => plan,
                None => return Ok(None),
            },
            None => Plan::New(Base::None, 0),
        };
        match plan {
            Plan::Resume(row) => self.resume(spot, *row).await.map(Some),
            Plan::New(base, size) => {
                self.begin(path, spot, found, (base, size), mode.declared_size).await
            }
        }
    }

    /// Whether a file of this size (bytes) may come.
    ///
    /// # Errors
    /// `TooLarge` with the limit.
    pub fn accepts_size(&self, size: u64) -> Result<(), Refusal> {
        let limit = self.max_size();
        if size > limit { Err(Refusal::TooLarge { limit }) } else { Ok(()) }
    }

    fn max_size(&self) -> u64 {
        self.settings().max_file_bytes.unwrap_or(self.app.limits().max_file_size)
    }

    async fn check_limits(&self, spot: &Spot, declared: Option<u64>) -> Result<(), Refusal> {
        let app = &self.app;
        let settings = self.settings();
        if !is_temporary(app, spot.name.as_str())
            && let Some(extension) = settings.forbids_extension(spot.name.as_str())
        {
            return Err(Refusal::Extension { extension });
        }
        self.accepts_size(declared.unwrap_or(0))?;
        let pending_max = app.config.scan.pending_max;
        if app.scans.pending_bytes() >= pending_max {
            return Err(Refusal::Backlog { limit: pending_max });
        }
        let free = app.free_bytes().await;
        let free = free.map_err(|e| self.internal("ask free space", &e))?;
        if free < app.limits().min_free.saturating_add(declared.unwrap_or(0)) {
            return Err(Refusal::NoSpace);
        }
        if let Some((limit, used)) = self.quota().await?
            && used.saturating_add(declared.unwrap_or(0)) >= limit.saturating_add(1)
        {
            return Err(Refusal::Quota { limit });
        }
        Ok(())
    }

    /// What opening an existing name for writing means; nothing when it has to be looked at again.
    async fn plan_over(&self, entry: &EntryRow, start: Start) -> Result<Option<Plan>, Refusal> {
        let app = &self.app;
        let current = match entry.current_upload.as_str() {
            "" => None,
            id => uploads::upload(app.store.db(), id)
                .await
                .map_err(|e| self.internal("look up upload", &e))?,
        };
        if let Some(row) = current.as_ref().filter(|row| row.state == "receiving") {
            if self.complete_sealed(row).await? {
                return Ok(None);
            }
            if !self.free_from_writer(row).await? {
                return Ok(None);
            }
        }
        let unfinished =
            current.as_ref().filter(|row| matches!(row.state.as_str(), "receiving" | "incomplete"));
        let anew = Plan::New(Base::None, 0);
        Ok(Some(match (start, unfinished, &current) {
            (Start::WhatIsThere, Some(row), _) => Plan::Resume(Box::new(row.clone())),
            (Start::Empty, Some(row), _) => {
                self.replace_unfinished(row).await?;
                anew
            }
            (Start::Empty, None, _) => anew,
            // Scanning or held: the newest content, which nobody can read yet.
            (Start::WhatIsThere, None, Some(row)) => base_of(row)?,
            (Start::WhatIsThere, None, None) => {
                let released = uploads::upload(app.store.db(), &entry.released_upload).await;
                let released = released.map_err(|e| self.internal("look up upload", &e))?;
                released.as_ref().map_or(Ok(anew), base_of)?
            }
        }))
    }

    /// An upload whose writer is gone and whose file is whole: only its commit failed, because the database was away.
    async fn complete_sealed(&self, row: &UploadRow) -> Result<bool, Refusal> {
        let app = &self.app;
        let is_left = row.node == app.node.as_str() && !app.writers.holds(&row.id);
        let is_sealed = Id::parse(&row.id).is_some_and(|id| app.vault.is_sealed(&id));
        if !is_left || !is_sealed {
            return Ok(false);
        }
        let recovered = async {
            recovery::recover_receiving(app, row).await?;
            anyhow::Ok(scans::enqueue_own(app).await?)
        };
        recovered.await.map_err(|e| self.internal("complete a sealed upload", &e))?;
        Ok(true)
    }

    /// One writer for each name; a silent one of the same account is fenced off. False where the name has to be looked at
    /// again.
    async fn free_from_writer(&self, row: &UploadRow) -> Result<bool, Refusal> {
        let app = &self.app;
        if app.writers.holds(&row.id) {
            if take_over(app, &row.id, &self.account).await? {
                return Ok(true);
            }
        } else if row.node != app.node.as_str() {
            return Err(Refusal::Busy);
        }
        // Ours, but nobody writes any more: the clearing has not come round yet.
        let recovered = recovery::recover_receiving(app, row).await;
        recovered.map_err(|e| self.internal("free a name", &e))?;
        Ok(false)
    }

    async fn replace_unfinished(&self, row: &UploadRow) -> Result<(), Refusal> {
        let app = &self.app;
        let ended = uploads::end_unfinished(app.store.db(), &row.id, "sent anew", app.now()).await;
        if ended.map_err(|e| self.internal("replace an unfinished upload", &e))? == 0 {
            // It was completed in this moment.
            return Err(Refusal::Busy);
        }
        if let Some(id) = Id::parse(&row.id) {
            let removed = with_app(app, move |app| app.vault.remove(&id)).await;
            removed.map_err(|e| self.internal("remove an unfinished upload", &e))?;
        }
        Ok(())
    }

    /// Goes on where an earlier connection stopped: the same upload, the same bytes.
    async fn resume(&self, spot: &Spot, row: UploadRow) -> Result<Upload, Refusal> {
        let app = &self.app;
        let id = Id::parse(&row.id).ok_or(Refusal::Internal)?;
        let (spooled, peer) = (id.clone(), self.peer.to_string());
        let opened = with_app(app, move |app| {
            let file = app.vault.reopen(&spooled)?;
            let present = file.metadata()?.len();
            Ok((file, present))
        });
        let (file, present) =
            opened.await.map_err(|e| self.internal("open an unfinished upload", &e))?;
        let who = (self.account.as_str(), self.protocol, peer.as_str(), app.node.as_str());
        let resumed = uploads::resume(app.store.db(), &row.id, who, app.now()).await;
        if resumed.map_err(|e| self.internal("resume an upload", &e))? == 0 {
            return Err(Refusal::Busy);
        }
        let declared = u64::try_from(row.declared_size).ok();
        let origin = self.origin(id, &spot.project, (row.path, row.version), declared);
        let event = origin.event(EventKind::UploadStarted).with("resumed_at", present);
        let shown = self.show(&origin, present);
        // At once: without a writer the row would be anybody's.
        let upload = Upload::begin(
            Arc::clone(app),
            origin,
            Some((file, present)),
            (Base::None, 0),
            (self.pace(Direction::Up), shown),
        );
        app.record(event).await;
        Ok(upload)
    }

    /// A new version of a name: row first, then (with its first byte) the file, so that recovery knows every file.
    /// Nothing when another session was faster.
    async fn begin(
        &self,
        path: &VirtualPath,
        spot: &Spot,
        found: Option<EntryRow>,
        base: (Base, u64),
        declared: Option<u64>,
    ) -> Result<Option<Upload>, Refusal> {
        let app = &self.app;
        let id = app.new_id();
        let path = path_in_project(path);
        let ticket = self.ticket_for(spot, &path).await?;
        let row = self.new_row(&id, spot, (path.clone(), ticket), declared);
        let registered = register(app, row, spot, found).await;
        let Some(version) = registered.map_err(|e| self.internal("begin an upload", &e))? else {
            return Ok(None);
        };
        let origin = self.origin(id, &spot.project, (path, version), declared);
        let shown = self.show(&origin, base.1);
        let way = (self.pace(Direction::Up), shown);
        Ok(Some(Upload::begin(Arc::clone(app), origin, None, base, way)))
    }

    /// Operators see an upload run.
    fn show(&self, origin: &Origin, present: u64) -> Transfer {
        let path = format!("/{}/{}", origin.project_no, origin.path);
        Transfer::begin(self, path, Direction::Up, (present, origin.declared))
    }

    async fn ticket_for(&self, spot: &Spot, path: &str) -> Result<String, Refusal> {
        let numbers = self.app.ticket_numbers(&spot.project.project_no).await;
        let numbers = numbers.map_err(|e| self.internal("look up tickets", &e))?;
        Ok(ticket_for_path(path, &numbers))
    }

    fn origin(
        &self,
        id: Id,
        project: &orders::ProjectRow,
        (path, version): (String, i64),
        declared: Option<u64>,
    ) -> Origin {
        Origin {
            id,
            account: self.account.clone(),
            client_no: self.client_no.clone(),
            project_no: project.project_no.clone(),
            path,
            version,
            protocol: self.protocol,
            peer: self.peer.to_string(),
            session: self.id.to_string(),
            declared,
            max_size: self.max_size(),
            quota: self.settings().quota_bytes,
        }
    }
}

enum Plan {
    Resume(Box<UploadRow>),
    New(Base, u64),
}

fn base_of(row: &UploadRow) -> Result<Plan, Refusal> {
    if row.content != "kept" {
        return Err(Refusal::NoLongerKept);
    }
    let base = Id::parse(&row.id).map_or(Base::None, Base::Version);
    Ok(Plan::New(base, unsigned(row.size)))
}

/// The ticket of a file: the folder it lies in, or the one its name speaks of (spec section 6).
#[must_use]
pub fn ticket_for_path(path: &str, tickets: &[String]) -> String {
    let mut segments: Vec<&str> = path.split('/').skip(1).collect();
    let name = segments.pop().unwrap_or_default();
    let in_folder = segments.first().and_then(|folder| {
        tickets.iter().find(|t| crate::domain::hotname::portal_folder_name(t) == *folder)
    });
    in_folder
        .map(String::as_str)
        .or_else(|| ticket_of(name, tickets))
        .unwrap_or_default()
        .to_owned()
}

/// `uploads.path` begins with the area: `Eingehend/sub/plakat.pdf`.
#[must_use]
pub fn path_in_project(path: &VirtualPath) -> String {
    let segments: Vec<&str> = path.segments().iter().skip(1).map(|name| name.as_str()).collect();
    segments.join("/")
}
