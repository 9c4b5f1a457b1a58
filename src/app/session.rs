//! What a logged-in client may do: list, stat, read, make folders, rename, remove. Uploads begin in `receive.rs`.
//!
//! Both fronts call exactly this, so a rule about rights stands here once (spec section 6).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::listing::Listing;
use super::presence::{Live, SharedSettings};
use super::rates::{Direction, Pace};
use super::reading::{Content, Reader};
use super::status_text::{self, StatusText};
use super::transfers::Transfer;
use super::tree::{
    Attributes, Kind, Listed, Place, STATUS_FILE, folder_attributes, is_upload_area,
};
use super::{App, with_app};
use crate::domain::account::{AccountName, Language, Settings};
use crate::domain::event::{Event, EventKind};
use crate::domain::id::Id;
use crate::domain::path::VirtualPath;
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::store::{entries, orders, unsigned, uploads};
use crate::{metering, vault};

/// Droppings remembered for one session; beyond it they are accepted and forgotten.
const DROPPINGS_MAX: usize = 10_000;
/// A listed `Status.txt` is read with the listed size.
const STATUS_KEPT: Duration = Duration::from_secs(2);

/// One logged-in client connection.
pub struct Session {
    pub app: Arc<App>,
    pub id: Id,
    pub account: AccountName,
    pub client_no: String,
    pub protocol: &'static str,
    pub peer: IpAddr,
    /// Cancelled when the account ends; the front closes the connection then.
    pub ended: CancellationToken,
    settings: SharedSettings,
    began: Instant,
    /// Its login is written down, so its end will be too.
    is_noted: AtomicBool,
    droppings: Mutex<HashMap<String, (u64, Timestamp)>>,
    status: Mutex<HashMap<String, (Instant, StatusText)>>,
}

impl Session {
    /// The login counts; from here on the end of the session is an event.
    pub fn is_let_in(&self) {
        self.is_noted.store(true, Ordering::Release);
    }

    /// Opens a session unless the account has as many as `limit` here already.
    #[must_use]
    pub fn open(
        app: &Arc<App>,
        (account, client_no): (AccountName, String),
        (protocol, peer): (&'static str, IpAddr),
        settings: Settings,
        limit: usize,
    ) -> Option<Self> {
        let app = Arc::clone(app);
        let id = app.new_id();
        let ended = CancellationToken::new();
        let settings = Arc::new(RwLock::new(Arc::new(settings)));
        let live = Live {
            account: account.clone(),
            client_no: client_no.clone(),
            protocol,
            peer,
            ended: ended.clone(),
            settings: Arc::clone(&settings),
            began: app.now(),
        };
        if !app.sessions.enter(&id, live, limit) {
            return None;
        }
        Some(Self {
            app,
            id,
            account,
            client_no,
            protocol,
            peer,
            ended,
            settings,
            began: Instant::now(),
            is_noted: AtomicBool::new(false),
            droppings: Mutex::default(),
            status: Mutex::default(),
        })
    }

    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    #[must_use]
    pub fn language(&self) -> Language {
        self.settings().language.unwrap_or(self.app.config.language)
    }

    /// The folders of each project for this account.
    #[must_use]
    pub fn folders(&self) -> Vec<String> {
        self.settings().folders.clone().unwrap_or_else(|| self.app.config.portal.folders.clone())
    }

    fn shows_status(&self) -> bool {
        self.settings().status_file.unwrap_or(true)
    }

    /// An event with this session's circumstances.
    #[must_use]
    pub fn event(&self, kind: EventKind) -> Event {
        Event::new(kind)
            .client(&self.client_no)
            .account(self.account.as_str())
            .peer(&self.peer.to_string())
            .with("session", self.id.as_str())
            .with("protocol", self.protocol)
    }

    /// A refusal worth telling operators: an event with path and reason.
    pub async fn note_refusal(&self, path: &VirtualPath, refusal: &Refusal) {
        if refusal.is_everyday() {
            return;
        }
        let mut event = self.event(EventKind::UploadRefused).path(&path.to_string());
        if let Some(folder) = path.segments().first()
            && let Ok(project) = self.app.project_in(&self.client_no, folder.as_str()).await
        {
            event = event.project(&project.project_no);
        }
        self.app
            .record(
                event.with("reason", refusal.code()).with("text", refusal.text(self.language())),
            )
            .await;
    }

    pub(super) fn internal(&self, what: &str, error: &dyn std::fmt::Display) -> Refusal {
        tracing::error!(%error, session = self.id.as_str(), account = self.account.as_str(), "{what}");
        Refusal::Internal
    }

    pub(super) async fn locate(&self, path: &VirtualPath) -> Result<Place, Refusal> {
        let place = self.app.locate(&self.client_no, &self.folders(), path).await?;
        match place {
            Place::Status(_) if !self.shows_status() => Err(Refusal::NotFound),
            other @ (Place::Root | Place::Project(_) | Place::Status(_) | Place::Area { .. }) => {
                Ok(other)
            }
        }
    }

    /// What is at a path.
    ///
    /// # Errors
    /// `NotFound` before anything else.
    pub async fn stat(&self, path: &VirtualPath) -> Result<Attributes, Refusal> {
        match self.locate(path).await? {
            Place::Root => Ok(folder_attributes(self.app.now(), false)),
            Place::Project(project) => Ok(folder_attributes(Timestamp(project.updated), false)),
            Place::Status(project) => Ok(text_attributes(&self.compose_status(&project).await?)),
            Place::Area { project, area, names } => {
                let Some((name, above)) = names.split_last() else {
                    return Ok(folder_attributes(Timestamp(project.updated), is_upload_area(area)));
                };
                if let Some(dropped) = self.dropping(path) {
                    return Ok(dropped);
                }
                let parent = self.app.folder_key(&project, area, above).await?;
                let row = entries::listed_child(self.app.store.db(), &parent, name.as_str()).await;
                let row =
                    row.map_err(|e| self.internal("look up name", &e))?.ok_or(Refusal::NotFound)?;
                self.app.attributes_of(&row, is_upload_area(area)).ok_or(Refusal::NotFound)
            }
        }
    }

    /// The names in a folder.
    ///
    /// # Errors
    /// `NotFound`, `NotAFolder`.
    pub async fn list(&self, path: &VirtualPath) -> Result<Listing, Refusal> {
        match self.locate(path).await? {
            Place::Root => {
                let projects = orders::visible_projects(self.app.store.db(), &self.client_no).await;
                let projects = projects.map_err(|e| self.internal("list projects", &e))?;
                let listed = projects.into_iter().map(|p| Listed {
                    attributes: folder_attributes(Timestamp(p.updated), false),
                    name: p.folder,
                });
                Ok(Listing::from(listed.collect::<Vec<_>>()))
            }
            Place::Project(project) => {
                let mtime = Timestamp(project.updated);
                let folders = self.folders().into_iter().enumerate().map(|(area, name)| Listed {
                    name,
                    attributes: folder_attributes(mtime, is_upload_area(area)),
                });
                let mut listed: Vec<Listed> = folders.collect();
                if self.shows_status() {
                    let attributes = text_attributes(&self.compose_status(&project).await?);
                    listed.push(Listed { name: STATUS_FILE.to_owned(), attributes });
                }
                Ok(Listing::from(listed))
            }
            Place::Status(_) => Err(Refusal::NotAFolder),
            Place::Area { project, area, names } => {
                let parent = self.app.folder_key(&project, area, &names).await?;
                let first = self.droppings_in(path);
                Ok(Listing::of_folder(&self.app, parent, is_upload_area(area), first))
            }
        }
    }

    /// Opens something for reading: released files and `Status.txt`.
    ///
    /// # Errors
    /// `NotReleased` for everything that is not released.
    pub async fn open_for_reading(&self, path: &VirtualPath) -> Result<Reader, Refusal> {
        let (project, area, names) = match self.locate(path).await? {
            Place::Root | Place::Project(_) => return Err(Refusal::IsAFolder),
            Place::Status(project) => {
                let StatusText { text, changed } = match self.shown_status(&project) {
                    Some(status) => status,
                    None => self.compose_status(&project).await?,
                };
                return Ok(Reader::Text { text, mtime: changed });
            }
            Place::Area { project, area, names } => (project, area, names),
        };
        if self.dropping(path).is_some() {
            return Err(Refusal::NotReleased);
        }
        let entry = self.app.entry_at(&project, area, &names).await?;
        if entry.is_folder() {
            return Err(Refusal::IsAFolder);
        }
        let id = Id::parse(&entry.released_upload).ok_or(Refusal::NotReleased)?;
        let opened = with_app(&self.app, move |app| {
            let file = app.vault.open_sealed(&id)?;
            let size = file.metadata()?.len();
            let in_memory = vault::lies_in_memory(&file);
            Ok((Arc::new(file), size, in_memory))
        });
        let (file, size, in_memory) = match opened.await {
            Ok(opened) => opened,
            Err(error) if self.is_purged(&entry.released_upload).await => {
                tracing::debug!(%error, upload = entry.released_upload, "content is no longer kept");
                return Err(Refusal::NoLongerKept);
            }
            Err(error) => return Err(self.internal("open content", &error)),
        };
        let sent = metering::sent(self.protocol);
        let mtime = Timestamp(entry.mtime);
        let pace = self.pace(Direction::Down);
        let shown = Transfer::begin(self, path.to_string(), Direction::Down, (0, Some(size)));
        let transfer = Arc::new(shown);
        Ok(Reader::Content(Content { file, size, mtime, in_memory, sent, transfer, pace }))
    }

    /// This session's share of what the account may transfer.
    pub(super) fn pace(&self, direction: Direction) -> Pace {
        self.app.rates.pace(&self.account, direction, &self.settings)
    }

    /// Whether the time of a content is over.
    async fn is_purged(&self, upload: &str) -> bool {
        let row = uploads::upload(self.app.store.db(), upload).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.content != "kept"))
    }

    /// Size in bytes and SHA-256 (hex) of a released file, as they were when it was sealed.
    ///
    /// # Errors
    /// As [`Session::open_for_reading`].
    pub async fn digest(&self, path: &VirtualPath) -> Result<(u64, String), Refusal> {
        let Place::Area { project, area, names } = self.locate(path).await? else {
            return Err(Refusal::Unsupported);
        };
        let entry = self.app.entry_at(&project, area, &names).await?;
        if entry.is_folder() {
            return Err(Refusal::IsAFolder);
        }
        let released = uploads::upload(self.app.store.db(), &entry.released_upload).await;
        let released = released.map_err(|e| self.internal("look up upload", &e))?;
        let row = released.filter(|row| !row.sha256.is_empty()).ok_or(Refusal::NotReleased)?;
        Ok((unsigned(row.size), row.sha256))
    }

    /// The text whose size the client was shown a moment ago.
    fn shown_status(&self, project: &orders::ProjectRow) -> Option<StatusText> {
        let shown = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, status) = shown.get(&project.project_no)?;
        (at.elapsed() < STATUS_KEPT).then(|| status.clone())
    }

    /// `Status.txt` of a project as it is now; remembered, so that what is read has the size that was shown.
    async fn compose_status(&self, project: &orders::ProjectRow) -> Result<StatusText, Refusal> {
        let status = status_text::compose(&self.app, project, self.language()).await;
        let status = status.map_err(|e| self.internal("compose Status.txt", &e))?;
        let mut shown = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() > 1000 {
            shown.clear();
        }
        shown.insert(project.project_no.clone(), (Instant::now(), status.clone()));
        Ok(status)
    }

    /// Remembers a dropped file, because clients look whether it arrived.
    pub fn note_dropping(&self, path: &VirtualPath, size: u64) {
        let mut droppings = self.droppings.lock().unwrap_or_else(PoisonError::into_inner);
        if droppings.len() < DROPPINGS_MAX {
            droppings.insert(path.to_string(), (size, self.app.now()));
        }
    }

    fn dropping(&self, path: &VirtualPath) -> Option<Attributes> {
        let droppings = self.droppings.lock().unwrap_or_else(PoisonError::into_inner);
        let (size, mtime) = *droppings.get(&path.to_string())?;
        Some(Attributes { kind: Kind::File, size, mtime, is_writable: true, is_readable: false })
    }

    /// The size of a dropped file of this session.
    pub(super) fn dropping_size(&self, path: &VirtualPath) -> Option<u64> {
        let droppings = self.droppings.lock().unwrap_or_else(PoisonError::into_inner);
        droppings.get(&path.to_string()).map(|(size, _)| *size)
    }

    fn droppings_in(&self, folder: &VirtualPath) -> Vec<Listed> {
        let droppings = self.droppings.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = format!("{folder}/");
        let here = droppings.iter().filter_map(|(path, (size, mtime))| {
            let name = path.strip_prefix(&prefix).filter(|rest| !rest.contains('/'))?;
            let attributes = Attributes {
                kind: Kind::File,
                size: *size,
                mtime: *mtime,
                is_writable: true,
                is_readable: false,
            };
            Some(Listed { name: name.to_owned(), attributes })
        });
        here.collect()
    }

    /// Forgets a dropped file; true if there was one.
    pub(super) fn forget_dropping(&self, path: &VirtualPath) -> bool {
        self.droppings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&path.to_string())
            .is_some()
    }

    /// Quota of the account and what the client's names stand for, in bytes; `None` without a quota.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn quota(&self) -> Result<Option<(u64, u64)>, Refusal> {
        let Some(limit) = self.settings().quota_bytes else { return Ok(None) };
        let used = entries::client_usage(self.app.store.db(), &self.client_no).await;
        Ok(Some((limit, used.map_err(|e| self.internal("sum up usage", &e))?)))
    }

    /// Free and total bytes for this client: its quota, or the disk.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn space(&self) -> Result<(u64, u64), Refusal> {
        let disk = with_app(&self.app, |app| app.vault.free_bytes()).await;
        let disk = disk.map_err(|e| self.internal("ask free space", &e))?;
        let free = disk.saturating_sub(self.app.limits().min_free);
        match self.quota().await? {
            Some((limit, used)) => Ok((limit.saturating_sub(used).min(free), limit)),
            None => Ok((free, free)),
        }
    }
}

fn text_attributes(status: &StatusText) -> Attributes {
    let size = u64::try_from(status.text.len()).unwrap_or(0);
    let mtime = status.changed;
    Attributes { kind: Kind::File, size, mtime, is_writable: false, is_readable: true }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.app.sessions.leave(&self.id);
        let seconds = self.began.elapsed().as_secs();
        let is_noted = self.is_noted.load(Ordering::Acquire);
        let event = is_noted.then(|| self.event(EventKind::Logout).with("seconds", seconds));
        let (app, id) = (Arc::clone(&self.app), self.id.clone());
        self.app.tasks.spawn(async move { app.note_logout(&id, event).await });
    }
}
