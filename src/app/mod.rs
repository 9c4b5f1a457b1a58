//! Use cases: one file for each verb phrase of the product. Knows the adapters and the rules, no protocol.

pub mod account_import;
pub mod accounts;
pub mod activation;
pub mod announce;
mod announced_rows;
pub mod backup;
pub mod batches;
mod broken;
pub mod check;
pub mod clients;
mod content;
pub mod control;
mod data_mails;
pub mod diagnosis;
pub mod edit;
pub mod follow;
pub mod fsck;
pub mod gauges;
pub mod hand_on;
mod hanging;
pub mod hook_programs;
pub mod hooks;
pub mod import_folder;
mod invite;
mod job_tickets;
pub mod keys;
pub mod listing;
pub mod login;
mod looks;
pub mod mail_desk;
mod mail_values;
pub mod mails;
pub mod mirror;
pub mod operate;
pub mod orders;
pub mod origin;
pub mod outcome;
pub mod overview;
pub mod passwords;
pub mod pickup;
pub mod picture;
pub mod placing;
pub mod presence;
pub mod publication;
pub mod publish;
pub mod puller;
pub mod pulling;
pub mod rates;
pub mod readiness;
pub mod reading;
pub mod receive;
pub mod recent;
pub mod recovery;
mod register;
mod rename;
mod repeat;
pub mod retention;
mod scan_place;
pub mod scan_queue;
pub mod scanner;
pub mod scans;
pub mod session;
pub mod settle;
pub mod share_watch;
mod spool;
pub mod status_text;
pub mod templates;
pub mod tokens;
pub mod transfers;
pub mod tree;
pub mod troubles;
pub mod upload;
mod upload_words;
pub mod views;
pub mod web_sessions;
mod withdraw;
mod work;
pub mod workers;
pub mod writers;

use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Limits, client_ini};
use crate::domain::event::Event;
use crate::domain::id::Id;
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::hotfolder::Hotfolder;
use crate::logging;
use crate::store::{self, Store};
use crate::vault::Vault;
use crate::webhook::Caller;

/// The wall clock, handed down from `main`.
pub type Clock = fn() -> Timestamp;

/// A host key as clients show it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostKey {
    pub algorithm: String,
    /// `SHA256:…`
    pub fingerprint: String,
}

/// Everything that use cases share. One for each process.
pub struct App {
    /// What was read at the start; `[limits]` of now is [`App::limits`].
    pub config: Config,
    pub(crate) limits: RwLock<Arc<Limits>>,
    /// The switches and the mail account, as PTworkflow's file says now.
    pub client_ini: client_ini::Followed,
    /// What SFTP clients are shown at their first connection.
    pub host_keys: Vec<HostKey>,
    /// What this machine calls itself.
    pub host_name: String,
    pub store: Store,
    pub vault: Vault,
    /// None when `hotfolder.root` is empty: nothing is pushed.
    pub hotfolder: Option<Arc<Hotfolder>>,
    pub scanner: scanner::Scanner,
    pub scans: scan_queue::Scans,
    pub passwords: passwords::Passwords,
    pub sessions: presence::Sessions,
    /// Transfers that run here.
    pub transfers: transfers::Transfers,
    pub writers: writers::Writers,
    pub recent: tree::Recently,
    /// This process's id in `nodes`.
    pub node: Id,
    pub clock: Clock,
    /// Wakes the mirror before its next poll.
    pub mirror_wake: Notify,
    /// Commands have changed something.
    pub changes_wake: Notify,
    /// A mail is due.
    pub mails_wake: Notify,
    /// Somebody asks for a link.
    pub links_wake: Notify,
    /// A hook or webhook is due.
    pub hooks_wake: Notify,
    /// At the data folder and the hotfolder, for `/readyz`.
    pub looks: readiness::Looks,
    /// At the folder of hooks.
    pub hook_looks: hook_programs::HookLooks,
    /// How fast accounts may send and fetch.
    pub rates: rates::Rates,
    /// Files of staff that are being taken over here.
    pub publishing: publication::Running,
    /// Something may have had its time.
    pub retention_wake: Notify,
    /// Calls webhooks.
    pub caller: Caller,
    /// Bans have changed.
    pub guard_wake: Notify,
    /// That of `main`, whose workers may block for a moment.
    pub runtime: Handle,
    /// Every background task; shutdown waits for them.
    pub tasks: TaskTracker,
    /// Set once: stop accepting and beginning.
    pub stop: CancellationToken,
}

impl App {
    /// `[limits]` as they are now; what runs already keeps those that it began with.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A new id from the operating system's randomness.
    #[must_use]
    pub fn new_id(&self) -> Id {
        new_id(self.now())
    }

    /// Writes an event of its own to table and log. A database that is away must not stop what has happened, so
    /// that is logged and no more.
    pub async fn record(&self, event: Event) {
        let now = self.now();
        let written = async {
            let mut tx = self.store.write().await?;
            store::events::insert(tx.db(), &event, now).await?;
            tx.commit().await
        };
        logging::event(&event);
        if let Err(error) = written.await {
            tracing::error!(%error, event = event.kind.as_str(), "event could not be written to the database");
        }
    }

    /// Whether anything is delivered from here: pushed, or pulled by whoever asks the API.
    #[must_use]
    pub fn delivers(&self) -> bool {
        self.hotfolder.is_some() || !self.config.api.listen.is_empty()
    }

    /// Whether the end of an upload needs no verdict.
    #[must_use]
    pub fn answers_at_once(&self) -> bool {
        matches!(self.scanner, scanner::Scanner::Off)
    }

    /// Free bytes of the data folder, asked at most twice a second.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn free_bytes(self: &Arc<Self>) -> std::io::Result<u64> {
        if let Some(free) = self.recent.free.get(&()) {
            return Ok(free);
        }
        let free = with_app(self, |app| app.vault.free_bytes()).await?;
        self.recent.free.put((), free);
        Ok(free)
    }

    /// Logs the cause of something unexpected once, here, and gives the client an answer that names no inside.
    pub fn internal(&self, what: &str, error: &dyn std::fmt::Display) -> Refusal {
        tracing::error!(%error, "{what}");
        Refusal::Internal
    }
}

/// A new id at a given time.
#[must_use]
pub fn new_id(now: Timestamp) -> Id {
    let mut random = [0u8; 10];
    // The system's generator cannot fail after boot; should it, the time still makes ids differ and a double id
    // is refused by the file system (O_EXCL) and the primary key.
    if getrandom::fill(&mut random).is_err() {
        tracing::error!("the operating system gives no random bytes");
    }
    Id::from_parts(u64::try_from(now.0).unwrap_or(0), random)
}

/// Runs blocking disk work on the blocking pool; a panic there becomes an error here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error)),
    }
}

/// Runs something whose bug must not take more with it than itself: None when it panicked. On the common runtime, whose
/// workers may block in place.
pub(crate) async fn shielded<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    app.tasks.spawn_on(work, &app.runtime).await.ok()
}

/// Shares the application with a blocking closure.
pub(crate) async fn with_app<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let app = Arc::clone(app);
    blocking(move || work(&app)).await
}
