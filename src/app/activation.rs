//! Links that lead to a password: made, looked at, used once; and the wish for a new one (spec section 11).

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::accounts::end_access;
use super::clients::{Refused, because};
use super::invite::{self, About, Sending};
use crate::domain::account::{AccountName, Language, Status};
use crate::domain::activation::{ALIVE_MAX, LinkState, Token, link_state};
use crate::domain::event::{Event, EventKind};
use crate::domain::mail::MailKind;
use crate::domain::password::{self, BadPassword};
use crate::store::accounts::{self, AccountRow};
use crate::store::activation::{self, LinkRow, RequestRow};
use crate::store::clients::{self, ClientRow};
use crate::store::mails::{self, MailRow};
use crate::store::{self, orders};

const POLL: Duration = Duration::from_secs(5);
/// Links that one account is mailed on request.
const PER_MINUTE: i64 = 1;
const PER_DAY: i64 = 5;
/// Requests that wait; a flood beyond it is dropped.
const WAITING_MAX: i64 = 1000;

/// 256 bits of the operating system's randomness.
///
/// # Errors
/// When it gives none.
pub fn random_token() -> anyhow::Result<Token> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    Ok(Token::from_random(bytes))
}

/// Whom a good link is for.
#[derive(Debug, Clone)]
pub struct Invited {
    pub account: AccountRow,
    pub client: ClientRow,
    pub language: Language,
}

/// Why a password was not set.
#[derive(Debug)]
pub enum NotSet {
    /// The link is good no more.
    Gone(LinkState),
    Bad(BadPassword),
    /// Database or hashing; the link stays good.
    Busy(String),
}

impl From<store::StoreError> for NotSet {
    fn from(error: store::StoreError) -> Self {
        Self::Busy(format!("database: {error}"))
    }
}

impl App {
    /// What stands in a mail.
    pub(super) fn link_address(&self, token: &Token) -> String {
        format!("{}/activate/{}", self.config.web.base_url, token.as_str())
    }

    /// Looks at a link; changes nothing, however often.
    ///
    /// # Errors
    /// The database.
    pub async fn look_at_link(
        &self,
        token: &str,
    ) -> store::Result<Result<(LinkRow, Invited), LinkState>> {
        let Some(token) = Token::parse(token) else { return Ok(Err(LinkState::Unknown)) };
        let Some(link) = activation::by_hash(self.store.db(), &token.hash()).await? else {
            return Ok(Err(LinkState::Unknown));
        };
        let Some(account) = accounts::account(self.store.db(), &link.username).await? else {
            return Ok(Err(LinkState::Unknown));
        };
        let client = clients::client(self.store.db(), &account.client_no).await?;
        let settings = match self.effective_settings(&account).await {
            Ok(settings) => settings,
            Err(Refused::Store(error)) => return Err(error),
            // Settings that nobody can read let nobody in.
            Err(Refused::Because(_) | Refused::Missing(_) | Refused::Conflict(_)) => {
                return Ok(Err(LinkState::Unknown));
            }
        };
        let may_be_used = account.status() == Status::Active && !settings.is_expired(self.now());
        let Some(client) = client.filter(|_| may_be_used) else {
            return Ok(Err(LinkState::Unknown));
        };
        match link_state((link.created, link.expires, link.used), self.now().0) {
            LinkState::Good => {
                let language = settings.language.unwrap_or(self.config.language);
                Ok(Ok((link, Invited { account, client, language })))
            }
            gone @ (LinkState::Expired | LinkState::Used | LinkState::Unknown) => Ok(Err(gone)),
        }
    }

    /// Sets the password and uses the link up; of two that come at once one succeeds.
    ///
    /// # Errors
    /// As [`NotSet`] says; a refused password leaves the link good.
    pub async fn activate(
        &self,
        token: &str,
        password: &str,
        peer: &str,
    ) -> Result<AccountRow, NotSet> {
        let (link, invited) = self.look_at_link(token).await?.map_err(NotSet::Gone)?;
        let account = invited.account;
        let words = [invited.client.name.as_str(), invited.client.client_no.as_str()];
        let normal =
            password::acceptable((&account.username, &words), password).map_err(NotSet::Bad)?;
        let hash =
            self.passwords.hash(normal).await.map_err(|error| NotSet::Busy(error.to_string()))?;
        let mut work = self.begin().await?;
        let now = work.now;
        if activation::take(work.tx.db(), &link.id, now).await? == 0
            || accounts::set_password_by_link(work.tx.db(), &account.username, &hash, now).await?
                == 0
        {
            drop(work);
            let state = self.look_at_link(token).await?.err().unwrap_or(LinkState::Unknown);
            return Err(NotSet::Gone(state));
        }
        end_access(&mut work, &account.username).await?;
        let event = Event::new(EventKind::AccountChanged)
            .client(&account.client_no)
            .account(&account.username)
            .peer(peer)
            .with("changed", "password")
            .with("value", "set with a link");
        work.note(event);
        work.changed("account", &account.username);
        work.commit().await?;
        Ok(account)
    }

    /// An account that a link can be made for.
    async fn active_account(&self, username: &str) -> Result<AccountRow, Refused> {
        let account = self.account(username).await?;
        if account.status() != Status::Active {
            return because(format!(
                "account {username} is inactive; `account enable {username}` first"
            ));
        }
        Ok(account)
    }

    /// A fresh link for an operator to hand over; good from now on.
    ///
    /// # Errors
    /// No such account, or one that is inactive.
    pub async fn make_link(&self, username: &str) -> Result<String, Refused> {
        let account = self.active_account(username).await?;
        let token = random_token().map_err(|error| Refused::Because(error.to_string()))?;
        let mut work = self.begin().await?;
        let now = work.now;
        let expires = now.plus(self.config.portal.link_ttl);
        let id = self.new_id().to_string();
        let event = Event::new(EventKind::LinkMade)
            .client(&account.client_no)
            .account(&account.username)
            .with("expires", expires.to_string());
        let row = (id.as_str(), account.username.as_str());
        activation::insert(work.tx.db(), row, (&token.hash(), ""), expires, now).await?;
        activation::expire_all_but(work.tx.db(), &account.username, ALIVE_MAX, now).await?;
        work.note(event);
        work.commit().await?;
        Ok(self.link_address(&token))
    }

    /// Mails a fresh link, whatever the switches say: an operator asks for it.
    ///
    /// # Errors
    /// No such account, one that is inactive, no address.
    pub async fn mail_link(&self, username: &str) -> Result<MailRow, Refused> {
        let account = self.active_account(username).await?;
        let Some(mail) = self.queue_link(&account, None).await? else {
            return because(format!("no mail was made for account {username}; try again"));
        };
        if mail.recipient.is_empty() {
            return because(format!("mail {} is a draft: {}", mail.id, mail.reason));
        }
        Ok(mail)
    }

    /// Somebody asks for a link. The same work for every name; what it leads to happens later.
    ///
    /// # Errors
    /// The database.
    pub async fn ask_for_link(&self, username: &str, peer: &str) -> store::Result<()> {
        let now = self.now();
        // Whatever else was typed is no name, and may be a password.
        let name = AccountName::parse(username).map(|name| name.to_string()).unwrap_or_default();
        if activation::waiting_requests(self.store.db()).await? < WAITING_MAX {
            let id = self.new_id();
            activation::insert_request(self.store.db(), (id.as_str(), &name, peer), now).await?;
        }
        self.links_wake.notify_one();
        Ok(())
    }

    /// Queues a mail with a link. With a wish, only if nobody else has answered it meanwhile.
    async fn queue_link(
        &self,
        account: &AccountRow,
        wish: Option<&RequestRow>,
    ) -> Result<Option<MailRow>, Refused> {
        let Some(client) = clients::client(self.store.db(), &account.client_no).await? else {
            return because(format!("client {} is removed", account.client_no));
        };
        let mut work = self.begin().await?;
        if let Some(wish) = wish
            && activation::take_request(work.tx.db(), &wish.id).await? == 0
        {
            return Ok(None);
        }
        let projects = orders::visible_projects(work.tx.db(), &account.client_no).await?;
        let newest = projects.iter().max_by_key(|project| project.created);
        let about = About { client: &client, project: newest, account };
        let kind = (MailKind::NewPassword, None);
        invite::make(&mut work, about, kind, Sending::Now).await?;
        Ok(work.commit().await?.into_iter().next())
    }

    /// The account that a wish is for, as long as it may have a link.
    async fn wished_for(&self, wish: &RequestRow) -> Result<Option<AccountRow>, Refused> {
        let (peer, name) = (wish.peer.as_str(), wish.username.as_str());
        let row = accounts::account(self.store.db(), name).await?;
        let Some(account) = row.filter(|row| row.status() == Status::Active) else {
            tracing::info!(
                peer,
                account = name,
                "a link was asked for a name that has no active account"
            );
            return Ok(None);
        };
        let now = self.now();
        if self.effective_settings(&account).await?.is_expired(now) {
            tracing::info!(
                peer,
                account = name,
                "a link was asked for an account that has expired"
            );
            return Ok(None);
        }
        let of = (account.username.as_str(), MailKind::NewPassword.as_str());
        let minute = now.minus(Duration::from_secs(60));
        let day = now.minus(Duration::from_secs(24 * 3600));
        let is_too_often = mails::count_of_account(self.store.db(), of, minute).await?
            >= PER_MINUTE
            || mails::count_of_account(self.store.db(), of, day).await? >= PER_DAY;
        let event = Event::new(EventKind::LinkRequested)
            .client(&account.client_no)
            .account(&account.username)
            .peer(peer);
        if is_too_often {
            self.record(event.with("reason", "too often; no mail")).await;
            return Ok(None);
        }
        self.record(event).await;
        Ok(Some(account))
    }

    /// Answers a wish; one that cannot be answered is gone, one that the database could not take is tried again.
    async fn answer(&self, wish: &RequestRow) -> Result<(), Refused> {
        match self.wished_for(wish).await? {
            Some(account) => self.queue_link(&account, Some(wish)).await.map(drop),
            None => {
                activation::take_request(self.store.db(), &wish.id).await?;
                Ok(())
            }
        }
    }
}

/// Answers wishes for links until shutdown.
pub async fn run(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = app.links_wake.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        let rows = match activation::requests(app.store.db()).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "wishes for links cannot be read");
                continue;
            }
        };
        for wish in rows {
            if let Err(error) = app.answer(&wish).await {
                tracing::error!(%error, account = wish.username, "a wish for a link could not be answered");
            }
        }
    }
}
