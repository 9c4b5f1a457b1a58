//! Login: one place where a name and a secret become a [`Session`].
//!
//! The same answer and the same time for unknown names and wrong passwords. What is wrong with an account (inactive,
//! expired, wrong network) is told only to whoever proved that it is theirs.

use std::net::IpAddr;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization;

use super::session::Session;
use super::{App, passwords};
use crate::domain::account::{AccountName, Language, Settings, Status};
use crate::domain::event::{Event, EventKind};
use crate::store::accounts::{self, AccountRow};
use crate::store::{self, Kind, activation};

/// Why nobody was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginRefusal {
    /// Unknown name, wrong password, unknown key: the client learns no more.
    Rejected,
    /// The credentials are right; this text may be told.
    Told { code: &'static str, text: String },
}

/// How a client proved who it is.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    Password,
    KeyboardInteractive,
    PublicKey,
}

impl Method {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::KeyboardInteractive => "keyboard-interactive",
            Self::PublicKey => "publickey",
        }
    }
}

/// Where a login comes from.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    pub protocol: &'static str,
    pub peer: IpAddr,
    pub method: Method,
}

impl App {
    async fn account_named(&self, user: &str) -> Option<AccountRow> {
        let name = AccountName::parse(user)?;
        match accounts::account(self.store.db(), name.as_str()).await {
            Ok(row) => row,
            Err(error) => {
                tracing::error!(%error, "accounts cannot be read; nobody can log in");
                None
            }
        }
    }

    /// Checks a password and opens a session.
    ///
    /// # Errors
    /// As [`LoginRefusal`] says.
    pub async fn login_with_password(
        self: &Arc<Self>,
        door: Door,
        user: &str,
        password: &str,
    ) -> Result<Session, LoginRefusal> {
        let row = self.proven(door, user, password).await?;
        let session = self.admit(&row, door).await?;
        self.renew_hash(&row, password).await;
        Ok(session)
    }

    /// The account whose password this is; the same time for every other one, and for none.
    async fn proven(
        &self,
        door: Door,
        user: &str,
        password: &str,
    ) -> Result<AccountRow, LoginRefusal> {
        let row = self.account_named(user).await;
        let stored = row.as_ref().filter(|row| !row.password_hash.is_empty());
        let stored = stored.map(|row| (row.password_hash.as_str(), row.version));
        let is_right = self.passwords.is_right(stored, password).await;
        match row {
            Some(row) if is_right => Ok(row),
            Some(row) => Err(self.reject_account(door, &row, "wrong password").await),
            None => Err(self.reject(door, user, "unknown account").await),
        }
    }

    /// As [`App::login_with_password`], for pages: nothing stays open after it.
    ///
    /// # Errors
    /// As [`LoginRefusal`] says.
    pub async fn login_to_pages(
        self: &Arc<Self>,
        door: Door,
        user: &str,
        password: &str,
    ) -> Result<AccountRow, LoginRefusal> {
        let row = self.proven(door, user, password).await?;
        self.clear(&row, door).await?;
        self.note_login(&row, door, None).await?;
        self.renew_hash(&row, password).await;
        Ok(row)
    }

    /// Replaces a hash that came from another system, now that the password is known.
    async fn renew_hash(&self, row: &AccountRow, password: &str) {
        if !passwords::is_outdated(&row.password_hash) {
            return;
        }
        let renewed = async {
            let hash = self.passwords.hash(password.nfc().collect()).await?;
            let (name, old) = (&row.username, &row.password_hash);
            anyhow::Ok(accounts::renew_hash(self.store.db(), name, (old, &hash)).await?)
        };
        match renewed.await {
            Ok(_) => {
                tracing::info!(account = row.username, "the imported password hash is argon2id now")
            }
            Err(error) => {
                tracing::warn!(%error, account = row.username, "the imported password hash stays")
            }
        }
    }

    /// Whether a key may prove this name. Asked before the signature; changes nothing, counts nothing.
    pub async fn knows_key(&self, user: &str, fingerprint: &str) -> bool {
        let Some(name) = AccountName::parse(user) else { return false };
        match accounts::has_key(self.store.db(), name.as_str(), fingerprint).await {
            Ok(is_known) => is_known,
            Err(error) => {
                tracing::error!(%error, "keys cannot be read; nobody can log in with one");
                false
            }
        }
    }

    /// Opens a session for a key whose signature the transport has verified.
    ///
    /// # Errors
    /// As [`LoginRefusal`] says.
    pub async fn login_with_key(
        self: &Arc<Self>,
        door: Door,
        user: &str,
        fingerprint: &str,
    ) -> Result<Session, LoginRefusal> {
        // The account first: whatever changes after it is seen by the last look in `admit`.
        let row = self.account_named(user).await;
        let known = self.knows_key(user, fingerprint).await;
        match row {
            Some(row) if known => self.admit(&row, door).await,
            Some(row) => Err(self.reject_account(door, &row, "unknown key").await),
            None => Err(self.reject(door, user, "unknown key").await),
        }
    }

    async fn reject_account(&self, door: Door, row: &AccountRow, reason: &str) -> LoginRefusal {
        let event = event_at(door, &row.username, EventKind::LoginFailed).client(&row.client_no);
        self.record(event.with("reason", reason)).await;
        LoginRefusal::Rejected
    }

    async fn reject(&self, door: Door, user: &str, reason: &str) -> LoginRefusal {
        // Names that cannot be names are not written down: people type passwords there.
        let shown = AccountName::parse(user)
            .map_or_else(|| "(not a username)".to_owned(), |n| n.to_string());
        self.record(event_at(door, &shown, EventKind::LoginFailed).with("reason", reason)).await;
        LoginRefusal::Rejected
    }

    /// The credentials are right; now what the account says.
    async fn clear(&self, row: &AccountRow, door: Door) -> Result<Settings, LoginRefusal> {
        let settings = match self.effective_settings(row).await {
            Ok(settings) => settings,
            Err(error) => {
                tracing::error!(%error, account = row.username, "settings of the account cannot be read");
                return Err(internal());
            }
        };
        if let Err(refusal) = self.check_account(row, &settings, door) {
            let LoginRefusal::Told { code, .. } = &refusal else { return Err(refusal) };
            let event =
                event_at(door, &row.username, EventKind::LoginFailed).client(&row.client_no);
            self.record(event.with("reason", *code)).await;
            return Err(refusal);
        }
        Ok(settings)
    }

    /// Notes the login of the account as its credentials were checked: the first one activates it, a session is
    /// counted in.
    async fn note_login(
        &self,
        row: &AccountRow,
        door: Door,
        session: Option<(&Session, usize)>,
    ) -> Result<(), LoginRefusal> {
        let noted = async {
            let mut work = self.begin().await?;
            let version = (row.username.as_str(), row.version);
            if accounts::note_login(work.tx.db(), version, work.now).await? == 0 {
                return Ok(Noted::Changed);
            }
            if row.checked == 0 {
                activation::set_checked(work.tx.db(), &row.username, work.now).await?;
                let event = event_at(door, &row.username, EventKind::AccountActivated);
                work.note(event.client(&row.client_no));
            }
            match session {
                Some((session, limit)) => {
                    if !self.enter_session(&mut work.tx, &session.id, limit).await? {
                        return Ok(Noted::TooMany);
                    }
                    let event = session.event(EventKind::Login);
                    work.note(event.with("method", door.method.as_str()));
                }
                None => {
                    let event = event_at(door, &row.username, EventKind::Login);
                    work.note(event.client(&row.client_no));
                }
            }
            work.commit().await?;
            store::Result::Ok(Noted::Stands)
        };
        match noted.await {
            Ok(Noted::Stands) => Ok(()),
            Ok(Noted::Changed) => Err(self.reject_account(door, row, "account changed").await),
            Ok(Noted::TooMany) => {
                let language =
                    session.map_or(self.config.language, |(session, _)| session.language());
                Err(self.too_many(row, door, language).await)
            }
            Err(error) => self.let_in_without_rows(row, door, session, error.to_string()).await,
        }
    }

    /// A full disk takes no new rows, but mostly a change of one that is there. Whoever has been here before comes in all the
    /// same, to fetch files and to be told why none can be sent. Several servers need the rows to count.
    async fn let_in_without_rows(
        &self,
        row: &AccountRow,
        door: Door,
        session: Option<(&Session, usize)>,
        cause: String,
    ) -> Result<(), LoginRefusal> {
        tracing::error!(error = cause, account = row.username, "login could not be noted");
        if self.store.kind() == Kind::Postgres || row.checked == 0 {
            return Err(internal());
        }
        let version = (row.username.as_str(), row.version);
        match accounts::note_login(self.store.db(), version, self.now()).await {
            Ok(1..) => {
                let event = session.map_or_else(
                    || event_at(door, &row.username, EventKind::Login).client(&row.client_no),
                    |(session, _)| {
                        session.event(EventKind::Login).with("method", door.method.as_str())
                    },
                );
                self.record(event).await;
                Ok(())
            }
            Ok(0) => Err(self.reject_account(door, row, "account changed").await),
            // Not even that. A look is enough: who changes the account from now on ends the session.
            Err(_) => match accounts::account(self.store.db(), &row.username).await {
                Ok(Some(now)) if now.version == row.version => Ok(()),
                Ok(_) => Err(self.reject_account(door, row, "account changed").await),
                Err(_) => Err(internal()),
            },
        }
    }

    async fn admit(
        self: &Arc<Self>,
        row: &AccountRow,
        door: Door,
    ) -> Result<Session, LoginRefusal> {
        let Some(name) = AccountName::parse(&row.username) else {
            return Err(LoginRefusal::Rejected);
        };
        let settings = self.clear(row, door).await?;
        let account = (name, row.client_no.clone());
        let limit = settings.max_sessions.and_then(|n| usize::try_from(n).ok());
        let limit = limit.unwrap_or(self.limits().sessions_per_account);
        let language = settings.language.unwrap_or(self.config.language);
        let origin = (door.protocol, door.peer);
        let Some(session) = Session::open(self, account, origin, settings, limit) else {
            return Err(self.too_many(row, door, language).await);
        };
        // Now that a change of the account reaches this session, the last look: while the password waited to be
        // checked, the account may have been disabled or given another one.
        self.note_login(row, door, Some((&session, limit))).await?;
        session.is_let_in();
        Ok(session)
    }

    async fn too_many(&self, row: &AccountRow, door: Door, language: Language) -> LoginRefusal {
        let event = event_at(door, &row.username, EventKind::LoginFailed).client(&row.client_no);
        self.record(event.with("reason", "too-many-sessions")).await;
        too_many_sessions(language)
    }

    /// What the account's settings say about using it like this.
    ///
    /// # Errors
    /// What may be told to whoever proved that it is theirs.
    pub(super) fn check_account(
        &self,
        row: &AccountRow,
        settings: &Settings,
        door: Door,
    ) -> Result<(), LoginRefusal> {
        let language = settings.language.unwrap_or(self.config.language);
        let say = |code, german: &str, english: &str| {
            Err(told(code, if language == Language::De { german } else { english }))
        };
        if row.status() != Status::Active {
            return say(
                "account-inactive",
                "Dieser Zugang ist nicht aktiv. Bitte die Druckerei anrufen.",
                "This account is not active. Please call the print shop.",
            );
        }
        if settings.is_expired(self.now()) {
            return say(
                "account-expired",
                "Dieser Zugang ist abgelaufen. Bitte die Druckerei anrufen.",
                "This account has expired. Please call the print shop.",
            );
        }
        if !settings.allows_protocol(door.protocol) {
            return say(
                "protocol-forbidden",
                "Dieser Zugang darf dieses Protokoll nicht benutzen. Bitte die Druckerei anrufen.",
                "This account may not use this protocol. Please call the print shop.",
            );
        }
        if !settings.allows_address(door.peer) {
            return say(
                "network-forbidden",
                "Dieser Zugang darf nicht von Ihrer Adresse aus benutzt werden. Bitte die Druckerei anrufen.",
                "This account may not be used from your address. Please call the print shop.",
            );
        }
        Ok(())
    }
}

/// What became of noting a login.
enum Noted {
    Stands,
    /// The account is another than when its credentials were checked.
    Changed,
    TooMany,
}

fn internal() -> LoginRefusal {
    told("internal-error", "An error happened on the server. Please try again later.")
}

fn too_many_sessions(language: Language) -> LoginRefusal {
    let text = match language {
        Language::De => {
            "Mit diesem Zugang sind schon zu viele Verbindungen offen. Bitte andere schließen."
        }
        Language::En => {
            "Too many connections of this account are open already. Please close others."
        }
    };
    told("too-many-sessions", text)
}

fn told(code: &'static str, text: &str) -> LoginRefusal {
    LoginRefusal::Told { code, text: text.to_owned() }
}

fn event_at(door: Door, user: &str, kind: EventKind) -> Event {
    Event::new(kind)
        .account(user)
        .peer(&door.peer.to_string())
        .with("protocol", door.protocol)
        .with("method", door.method.as_str())
}
