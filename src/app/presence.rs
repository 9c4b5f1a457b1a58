//! Who is logged in: the sessions of this process, and as rows those of all servers together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::App;
use crate::domain::account::{AccountName, Settings, subscriber};
use crate::domain::event::Event;
use crate::domain::id::Id;
use crate::domain::time::Timestamp;
use crate::store::sessions::{self, SessionRow};
use crate::store::{self, Kind, WriteTx};

/// A session that has ended has taken its row with it by then.
const SETTLED: Duration = Duration::from_secs(60);

/// All sessions of this process, so that a change of an account reaches them.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Id, Live>>);

/// One of them.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) account: AccountName,
    pub(super) client_no: String,
    pub(super) protocol: &'static str,
    pub(super) peer: IpAddr,
    pub(super) ended: CancellationToken,
    pub(super) settings: SharedSettings,
    pub(super) began: Timestamp,
}

/// Settings that a change of the account replaces while sessions run.
pub(super) type SharedSettings = Arc<RwLock<Arc<Settings>>>;

impl Sessions {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a session in, unless the account has as many as `limit` here already.
    pub(super) fn enter(&self, id: &Id, live: Live, limit: usize) -> bool {
        let mut all = self.all();
        let fits = count_of(&all, &live.account) < limit;
        if fits {
            all.insert(id.clone(), live);
        }
        fits
    }

    pub(super) fn leave(&self, id: &Id) {
        self.all().remove(id);
    }

    fn count_of(&self, account: &AccountName) -> usize {
        count_of(&self.all(), account)
    }

    #[must_use]
    pub fn count_by_protocol(&self, protocol: &str) -> usize {
        self.all().values().filter(|live| live.protocol == protocol).count()
    }

    /// Whether an address (or its network) has a live session.
    #[must_use]
    pub fn has_peer(&self, peer: IpAddr) -> bool {
        self.all().values().any(|live| subscriber(live.peer) == subscriber(peer))
    }

    /// Ends the sessions of an account (or of a client) at once.
    pub fn end(&self, account: Option<&str>, client_no: Option<&str>) {
        for live in self.all().values() {
            if account == Some(live.account.as_str()) || client_no == Some(live.client_no.as_str())
            {
                live.ended.cancel();
            }
        }
    }

    /// Ends the sessions of an account that began before its credentials changed, or in a future that a clock which went
    /// back has left.
    pub(super) fn end_older(&self, account: &str, (changed, now): (Timestamp, Timestamp)) {
        self.end_unless(account, |live| changed < live.began && live.began <= now);
    }

    /// Ends the sessions of an account that may not stay.
    pub(super) fn end_unless(&self, account: &str, may_stay: impl Fn(&Live) -> bool) {
        for live in self.all().values() {
            if live.account.as_str() == account && !may_stay(live) {
                live.ended.cancel();
            }
        }
    }

    /// Names of all accounts with a session here.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountName> {
        let mut names: Vec<AccountName> =
            self.all().values().map(|live| live.account.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Gives running sessions of an account its new settings.
    pub fn apply_settings(&self, account: &AccountName, settings: &Arc<Settings>) {
        for live in self.all().values().filter(|live| live.account == *account) {
            *live.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(settings);
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.all().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }
}

fn count_of(all: &HashMap<Id, Live>, account: &AccountName) -> usize {
    all.values().filter(|live| live.account == *account).count()
}

impl App {
    fn session_row(&self, id: &Id, live: &Live) -> SessionRow {
        SessionRow {
            id: id.to_string(),
            node: self.node.to_string(),
            username: live.account.to_string(),
            client_no: live.client_no.clone(),
            protocol: live.protocol.to_owned(),
            peer: live.peer.to_string(),
            created: live.began.0,
        }
    }

    /// Writes a session down in the transaction of its login; false when the account has as many as `limit` on all
    /// servers together. That transaction holds the account's row, so no other login counts at the same time.
    pub(super) async fn enter_session(
        &self,
        tx: &mut WriteTx,
        id: &Id,
        limit: usize,
    ) -> store::Result<bool> {
        let Some(live) = self.sessions.all().get(id).cloned() else { return Ok(false) };
        if self.store.kind() == Kind::Postgres {
            let name = live.account.as_str();
            let elsewhere = sessions::count_elsewhere(tx.db(), name, self.node.as_str()).await?;
            let elsewhere = usize::try_from(elsewhere).unwrap_or(usize::MAX);
            if self.sessions.count_of(&live.account).saturating_add(elsewhere) > limit {
                return Ok(false);
            }
        }
        sessions::insert(tx.db(), &self.session_row(id, &live)).await?;
        Ok(true)
    }

    /// The end of a session, with its event.
    pub(super) async fn note_logout(&self, id: &Id, event: Option<Event>) {
        let ended = async {
            let mut work = self.begin().await?;
            sessions::delete(work.tx.db(), id.as_str()).await?;
            if let Some(event) = &event {
                work.note(event.clone());
            }
            work.commit().await
        };
        if let Err(error) = ended.await {
            tracing::error!(%error, session = id.as_str(), "the end of a session could not be written down");
        }
    }

    /// Whether somebody is logged in from an address on any server.
    ///
    /// # Errors
    /// The database.
    pub async fn has_session_from(&self, peer: IpAddr) -> store::Result<bool> {
        if self.sessions.has_peer(peer) {
            return Ok(true);
        }
        if self.store.kind() == Kind::Sqlite {
            return Ok(false);
        }
        let rows = sessions::all(self.store.db()).await?;
        let from =
            |row: &SessionRow| row.peer.parse().is_ok_and(|p| subscriber(p) == subscriber(peer));
        Ok(rows.iter().any(from))
    }

    /// Rows of sessions that have ended while the database was away.
    pub(super) async fn clear_sessions(&self) -> store::Result<()> {
        let before = self.now().minus(SETTLED);
        for row in sessions::of_node(self.store.db(), self.node.as_str(), before).await? {
            let lives = Id::parse(&row.id).is_some_and(|id| self.sessions.all().contains_key(&id));
            if !lives {
                sessions::delete(self.store.db(), &row.id).await?;
            }
        }
        Ok(())
    }

    /// Another server took this one for dead and its sessions with it: they are shown again.
    pub(super) async fn show_sessions_again(&self) -> store::Result<()> {
        let rows: Vec<SessionRow> =
            self.sessions.all().iter().map(|(id, live)| self.session_row(id, live)).collect();
        for row in rows {
            sessions::insert(self.store.db(), &row).await?;
        }
        Ok(())
    }
}
