//! What stands before every front: connection limits, random early drop, login grace, bans.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::app::App;
use crate::domain::account::subscriber;
use crate::domain::event::{Event, EventKind};
use crate::store::{self, Kind, events, guard};

/// How often bans made by others are read.
const REFRESH: Duration = Duration::from_secs(5);
/// Addresses whose failures are remembered.
const FAILURES_MAX: usize = 100_000;

/// Wrong passwords on one connection.
pub const ATTEMPTS_MAX: usize = 6;
/// So many times `limits.ban_after` where somebody from that address is logged in.
const WITH_SESSION: usize = 5;
/// A rejection takes at least this long.
pub const REJECTION: Duration = Duration::from_millis(300);
/// Running transfers may finish for this long after SIGTERM (spec section 15).
pub const DRAIN: Duration = Duration::from_secs(30);
/// One line of a stranger's nonsense in this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Addresses whose nonsense is told in that time.
const TOLD_MAX: usize = 1000;

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Banned,
    TooMany,
    TooManyFromAddress,
    TooManyUnauthenticated,
}

impl Denied {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "the address is banned",
            Self::TooMany => "limits.connections is reached",
            Self::TooManyFromAddress => "limits.connections_per_ip is reached",
            Self::TooManyUnauthenticated => "limits.unauthenticated is reached",
        }
    }
}

#[derive(Default)]
struct Counts {
    total: usize,
    unauthenticated: usize,
    /// The same for HTTP: many idle browsers must not keep file transfers out.
    web_unauthenticated: usize,
    by_address: HashMap<IpAddr, usize>,
    failures: HashMap<IpAddr, Vec<Instant>>,
    banned: HashMap<IpAddr, i64>,
    /// Bans that the database did not take.
    unwritten: HashMap<IpAddr, i64>,
    /// When nonsense of an address was last written down.
    told: HashMap<IpAddr, Instant>,
}

/// Counts connections of this process, and knows who is banned.
pub struct Guard {
    app: Arc<App>,
    counts: Mutex<Counts>,
}

/// Which connections wait for a login together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    Transfer,
    Web,
}

impl Counts {
    fn unauthenticated_in(&mut self, pool: Pool) -> &mut usize {
        match pool {
            Pool::Transfer => &mut self.unauthenticated,
            Pool::Web => &mut self.web_unauthenticated,
        }
    }
}

/// A place for one connection; dropping it frees the place.
pub struct Ticket {
    guard: Arc<Guard>,
    /// None: a proxy.
    peer: Option<IpAddr>,
    pool: Pool,
    is_authenticated: bool,
}

impl Guard {
    #[must_use]
    pub fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Self { app, counts: Mutex::default() })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, or says why not.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Ticket, Denied> {
        self.admit_to(peer, Pool::Transfer)
    }

    /// As [`Guard::admit`], for HTTP.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit_web(self: &Arc<Self>, peer: IpAddr) -> Result<Ticket, Denied> {
        self.admit_to(peer, Pool::Web)
    }

    fn admit_to(self: &Arc<Self>, peer: IpAddr, pool: Pool) -> Result<Ticket, Denied> {
        let limits = self.app.limits();
        let peer = subscriber(peer);
        let now = self.app.now();
        let mut counts = self.counts();
        if counts.banned.get(&peer).is_some_and(|until| *until > now.0) {
            return Err(Denied::Banned);
        }
        if counts.total >= limits.connections {
            return Err(Denied::TooMany);
        }
        if counts.by_address.get(&peer).is_some_and(|n| *n >= limits.connections_per_ip) {
            return Err(Denied::TooManyFromAddress);
        }
        let waiting = *counts.unauthenticated_in(pool);
        let over = waiting.saturating_sub(limits.unauthenticated);
        let refuses = match waiting {
            n if n < limits.unauthenticated => false,
            n if n >= limits.unauthenticated.saturating_mul(2) => true,
            _ => chance(over.saturating_add(1), limits.unauthenticated),
        };
        if refuses {
            return Err(Denied::TooManyUnauthenticated);
        }
        counts.total = counts.total.saturating_add(1);
        *counts.unauthenticated_in(pool) = waiting.saturating_add(1);
        let here = counts.by_address.entry(peer).or_default();
        *here = here.saturating_add(1);
        drop(counts);
        Ok(Ticket { guard: Arc::clone(self), peer: Some(peer), pool, is_authenticated: false })
    }

    /// Lets a trusted proxy in: it speaks for many, so that it has no limit of its own.
    ///
    /// # Errors
    /// `limits.connections`.
    pub fn admit_proxy(self: &Arc<Self>) -> Result<Ticket, Denied> {
        let mut counts = self.counts();
        if counts.total >= self.app.limits().connections {
            return Err(Denied::TooMany);
        }
        counts.total = counts.total.saturating_add(1);
        drop(counts);
        // Not counted as unauthenticated: the proxy keeps strangers' slow connections off.
        Ok(Ticket { guard: Arc::clone(self), peer: None, pool: Pool::Web, is_authenticated: true })
    }

    /// Whether an address may not log in now.
    #[must_use]
    pub fn is_banned(&self, peer: IpAddr) -> bool {
        let now = self.app.now();
        self.counts().banned.get(&subscriber(peer)).is_some_and(|until| *until > now.0)
    }

    /// Connections now: all, and those that have not logged in.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let counts = self.counts();
        (counts.total, counts.unauthenticated)
    }

    /// Whether nonsense from a stranger is written down: once a minute for each address, so that nobody fills the
    /// database with it.
    pub fn is_worth_a_line(&self, peer: IpAddr) -> bool {
        let peer = subscriber(peer);
        let mut counts = self.counts();
        if counts.told.len() >= TOLD_MAX {
            counts.told.retain(|_, at| at.elapsed() < TELL_AGAIN);
            if counts.told.len() >= TOLD_MAX {
                return false;
            }
        }
        match counts.told.get(&peer) {
            Some(at) if at.elapsed() < TELL_AGAIN => false,
            Some(_) | None => {
                counts.told.insert(peer, Instant::now());
                true
            }
        }
    }

    /// A connection is not served. An operator who looks for a customer finds it once a minute for each address; a flood
    /// fills no log.
    pub fn tell_denied(&self, peer: IpAddr, denied: Denied) {
        let reason = denied.as_str();
        if self.is_worth_a_line(peer) {
            tracing::info!(%peer, reason, "connection not served");
        } else {
            tracing::debug!(%peer, reason, "connection not served");
        }
    }

    /// A password was rejected. An address with a live good session may be wrong more often: colleagues share it, but
    /// the one who guesses may have an account too.
    pub async fn note_failure(&self, peer: IpAddr) {
        let limits = self.app.limits();
        let peer = subscriber(peer);
        let failed = {
            let mut counts = self.counts();
            if counts.failures.len() >= FAILURES_MAX {
                counts
                    .failures
                    .retain(|_, at| at.last().is_some_and(|t| t.elapsed() < limits.ban_window));
            }
            let recent = counts.failures.entry(peer).or_default();
            recent.retain(|at| at.elapsed() < limits.ban_window);
            recent.push(Instant::now());
            recent.len()
        };
        let failed = failed.max(self.failed_everywhere(peer, limits.ban_window).await);
        let limit = usize::try_from(limits.ban_after).unwrap_or(usize::MAX);
        let limit_with_session = limit.saturating_mul(WITH_SESSION);
        if failed >= limit_with_session || failed >= limit && !self.has_good_session(peer).await {
            self.ban(peer, failed).await;
        }
    }

    /// Failures of an address on all servers together; 0 where there is only one.
    async fn failed_everywhere(&self, peer: IpAddr, window: Duration) -> usize {
        let app = &self.app;
        if app.store.kind() == Kind::Sqlite {
            return 0;
        }
        let (id, now) = (app.new_id(), app.now());
        let counted = async {
            let mut tx = app.store.write().await?;
            let row = (id.as_str(), peer.to_string());
            let row = (row.0, row.1.as_str());
            let count = guard::note_failure(tx.db(), row, now.minus(window), now).await?;
            tx.commit().await?;
            store::Result::Ok(count)
        };
        match counted.await {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) => {
                tracing::error!(%error, "a failed login could not be counted for all servers");
                0
            }
        }
    }

    async fn has_good_session(&self, peer: IpAddr) -> bool {
        match self.app.has_session_from(peer).await {
            Ok(has) => has,
            Err(error) => {
                tracing::error!(%error, "sessions of other servers could not be read");
                false
            }
        }
    }

    async fn ban(&self, peer: IpAddr, failed: usize) {
        let now = self.app.now();
        let until = now.plus(self.app.limits().ban_time);
        {
            let mut counts = self.counts();
            counts.banned.insert(peer, until.0);
            counts.failures.remove(&peer);
        }
        let reason = format!("{failed} failed logins");
        let event = Event::new(EventKind::LoginBanned)
            .peer(&peer.to_string())
            .with("reason", reason.clone())
            .with("until", until.to_string());
        let written = async {
            let mut tx = self.app.store.write().await?;
            guard::ban(tx.db(), &peer.to_string(), until, &reason, now).await?;
            guard::forget_failures(tx.db(), &peer.to_string()).await?;
            events::note_change(tx.db(), "ban", &peer.to_string(), now).await?;
            tx.commit().await
        };
        if let Err(error) = written.await {
            tracing::error!(%error, "a ban could not be written down; it holds in this process");
            self.counts().unwritten.insert(peer, until.0);
        }
        self.app.record(event).await;
    }

    /// Follows the bans in the database: those of other servers, and those that an operator removed.
    pub async fn follow_bans(self: Arc<Self>) {
        loop {
            match guard::bans(self.app.store.db(), self.app.now()).await {
                Ok(rows) => {
                    let banned = rows
                        .into_iter()
                        .filter_map(|row| Some((row.address.parse().ok()?, row.until)));
                    let (mut counts, now) = (self.counts(), self.app.now());
                    counts.unwritten.retain(|_, until| *until > now.0);
                    counts.banned = banned.chain(counts.unwritten.clone()).collect();
                }
                Err(error) => tracing::error!(%error, "bans could not be read"),
            }
            tokio::select! {
                () = self.app.stop.cancelled() => return,
                () = self.app.guard_wake.notified() => {}
                () = tokio::time::sleep(REFRESH) => {}
            }
        }
    }
}

/// True in `n` of `of` cases.
fn chance(n: usize, of: usize) -> bool {
    let mut random = [0u8; 2];
    if getrandom::fill(&mut random).is_err() {
        return true;
    }
    let roll = usize::from(u16::from_be_bytes(random)).checked_rem(of.max(1)).unwrap_or(0);
    roll < n
}

impl Ticket {
    /// The client has logged in.
    pub fn authenticated(&mut self) {
        if !self.is_authenticated {
            self.is_authenticated = true;
            let mut counts = self.guard.counts();
            let waiting = counts.unauthenticated_in(self.pool);
            *waiting = waiting.saturating_sub(1);
        }
    }

    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(peer) = self.peer
        {
            // It has found a bug of ours: trying that again and again is as bad as guessing passwords.
            let guard = Arc::clone(&self.guard);
            let noted = async move { guard.note_failure(peer).await };
            self.guard.app.tasks.spawn(noted);
        }
        let mut counts = self.guard.counts();
        counts.total = counts.total.saturating_sub(1);
        if !self.is_authenticated {
            let waiting = counts.unauthenticated_in(self.pool);
            *waiting = waiting.saturating_sub(1);
        }
        if let Some(peer) = self.peer
            && let Some(here) = counts.by_address.get_mut(&peer)
        {
            *here = here.saturating_sub(1);
            if *here == 0 {
                counts.by_address.remove(&peer);
            }
        }
    }
}
