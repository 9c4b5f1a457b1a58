//! Who is logged in on the pages: random cookies, stored hashed, looked up at each request, so that a disabled account
//! or a changed password ends them at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::accounts::end_access;
use super::activation::random_token;
use super::clients::Refused;
use super::login::{Door, Method};
use crate::domain::account::{Settings, Status};
use crate::domain::activation::Token;
use crate::domain::event::{Event, EventKind};
use crate::domain::password::{self, BadPassword};
use crate::store::accounts::{self, AccountRow};
use crate::store::{self, clients, web_sessions};

/// A session ends after a working day, or when nothing happens for an hour.
pub const LASTS: Duration = Duration::from_secs(10 * 3600);
const IDLE: Duration = Duration::from_secs(3600);

/// The name of this door in events and in the account setting `protocols`.
pub const PROTOCOL: &str = "web";

/// How a customer logs in on a page.
#[must_use]
pub fn door(peer: IpAddr) -> Door {
    Door { protocol: PROTOCOL, peer, method: Method::Password }
}

/// A customer at a page.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub account: AccountRow,
    pub settings: Settings,
    /// The cookie.
    pub token: Token,
}

/// Why a password was not changed.
#[derive(Debug)]
pub enum NotChanged {
    WrongPassword,
    Bad(BadPassword),
    Failed(String),
}

impl App {
    /// Begins a session of an account that has just proved itself.
    ///
    /// # Errors
    /// The database, or no randomness.
    pub async fn open_web_session(&self, username: &str) -> Result<Token, Refused> {
        let token = random_token().map_err(|error| Refused::Because(error.to_string()))?;
        let now = self.now();
        let row = (token.hash(), now.plus(LASTS));
        web_sessions::insert(self.store.db(), (&row.0, username), row.1, now).await?;
        Ok(token)
    }

    /// Whose cookie this is, as long as the account may be used from there.
    ///
    /// # Errors
    /// The database.
    pub async fn visitor(
        self: &Arc<Self>,
        cookie: &str,
        peer: IpAddr,
    ) -> Result<Option<Visitor>, Refused> {
        let Some(token) = Token::parse(cookie) else { return Ok(None) };
        let id = token.hash();
        let Some(row) = web_sessions::session(self.store.db(), &id).await? else { return Ok(None) };
        let now = self.now();
        let idle = now.0.saturating_sub(row.updated);
        if row.expires <= now.0 || idle > i64::try_from(IDLE.as_millis()).unwrap_or(i64::MAX) {
            web_sessions::delete(self.store.db(), &id).await?;
            return Ok(None);
        }
        let Some(account) = accounts::account(self.store.db(), &row.username).await? else {
            return Ok(None);
        };
        let settings = self.effective_settings(&account).await?;
        let may_be_used = account.status() == Status::Active
            && !settings.is_expired(now)
            && settings.allows_protocol(PROTOCOL)
            && settings.allows_address(peer);
        if !may_be_used {
            web_sessions::delete(self.store.db(), &id).await?;
            return Ok(None);
        }
        web_sessions::note_use(self.store.db(), &id, now).await?;
        Ok(Some(Visitor { account, settings, token }))
    }

    /// # Errors
    /// The database.
    pub async fn close_web_session(&self, visitor: &Visitor, peer: IpAddr) -> store::Result<()> {
        web_sessions::delete(self.store.db(), &visitor.token.hash()).await?;
        let event = Event::new(EventKind::Logout)
            .client(&visitor.account.client_no)
            .account(&visitor.account.username)
            .peer(&peer.to_string())
            .with("protocol", PROTOCOL);
        self.record(event).await;
        Ok(())
    }

    /// Changes the password of a customer who knows the one before; ends all other sessions on pages.
    ///
    /// # Errors
    /// As [`NotChanged`] says.
    pub async fn change_password(
        self: &Arc<Self>,
        visitor: &Visitor,
        (current, new): (&str, &str),
        peer: IpAddr,
    ) -> Result<Token, NotChanged> {
        let failed = |error: &dyn std::fmt::Display| NotChanged::Failed(error.to_string());
        let account = &visitor.account;
        let stored = Some((account.password_hash.as_str(), account.version));
        if !self.passwords.is_right(stored, current).await {
            return Err(NotChanged::WrongPassword);
        }
        let client = clients::client(self.store.db(), &account.client_no).await;
        let name = client.map_err(|e| failed(&e))?.map(|client| client.name).unwrap_or_default();
        let words = [name.as_str(), account.client_no.as_str()];
        let normal =
            password::acceptable((&account.username, &words), new).map_err(NotChanged::Bad)?;
        let hash = self.passwords.hash(normal).await.map_err(|e| failed(&e))?;
        let event = Event::new(EventKind::AccountChanged)
            .client(&account.client_no)
            .account(&account.username)
            .peer(&peer.to_string())
            .with("changed", "password")
            .with("value", "changed by the customer");
        let changed = async {
            let mut work = self.begin().await?;
            let of = (account.username.as_str(), account.version);
            if accounts::change_password(work.tx.db(), of, &hash, work.now).await? == 0 {
                return Ok(false);
            }
            end_access(&mut work, &account.username).await?;
            work.note(event);
            work.changed("account", &account.username);
            work.commit().await?;
            store::Result::Ok(true)
        };
        if !changed.await.map_err(|e| failed(&e))? {
            return Err(NotChanged::WrongPassword);
        }
        self.open_web_session(&account.username).await.map_err(|e| failed(&e))
    }
}
