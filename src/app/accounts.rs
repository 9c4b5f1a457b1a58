//! Portal accounts as operators handle them: create, enable, settings, password.

use super::clients::{Refused, because, conflict, missing};
use super::work::Work;
use super::{App, invite};
use crate::domain::account::{AccountName, Settings, Status};
use crate::domain::client_defaults::ClientDefaults;
use crate::domain::event::{Event, EventKind};
use crate::domain::order::number;
use crate::domain::password;
use crate::domain::time::Timestamp;
use crate::store::accounts::{self, AccountRow};
use crate::store::clients::{self, ClientRow};
use crate::store::{self, activation, mails, uploads, web_sessions};

/// Usernames made from the pattern get a number behind them where they are taken.
const TRIES: u32 = 1000;

impl App {
    /// Settings that count for an account: its own over the system default.
    ///
    /// # Errors
    /// The database, or a row that this version cannot read.
    pub async fn effective_settings(&self, row: &AccountRow) -> Result<Settings, Refused> {
        let default =
            accounts::system_default(self.store.db(), "ptportal").await?.unwrap_or_default();
        let client = clients::client(self.store.db(), &row.client_no).await?;
        settings_of(row, &default, client.as_ref())
    }

    /// Creates an account of a client; without a username the pattern `username_pattern` makes one.
    ///
    /// # Errors
    /// No such client, a bad or taken username, a bad setting.
    pub async fn create_account(
        &self,
        client_no: &str,
        (username, status): (Option<&str>, Status),
        settings: &[(String, String)],
    ) -> Result<AccountRow, Refused> {
        let client_no = number("client_no", client_no)?;
        let client = self.client(&client_no).await?;
        let mut own = Settings::default();
        for (key, value) in settings {
            own.set(key, value).map_err(Refused::Because)?;
        }
        let chosen = username.map(|name| {
            AccountName::parse(name).ok_or_else(|| {
                Refused::Because(format!(
                    "{name:?} is not a username; use 1 to 64 of a-z 0-9 . _ @ -"
                ))
            })
        });
        let chosen = chosen.transpose()?;
        let mut work = self.begin().await?;
        let name = match chosen {
            Some(name) => name,
            None => free_name(&mut work, &client).await?,
        };
        let id = self.new_id();
        let row = new_account(id.as_str(), &client_no, (&name, status), &own, work.now);
        match insert_account(&mut work, &row).await {
            Err(e) if store::is_duplicate(&e) => {
                return conflict(format!("account {name} exists already; choose another username"));
            }
            other => other?,
        }
        if status == Status::Active {
            invite::welcome(&mut work, &row).await?;
        }
        work.commit().await?;
        Ok(row)
    }

    /// # Errors
    /// When there is no such account.
    pub async fn account(&self, username: &str) -> Result<AccountRow, Refused> {
        let name = AccountName::parse(username);
        let row = match &name {
            Some(name) => accounts::account(self.store.db(), name.as_str()).await?,
            None => None,
        };
        match row {
            Some(row) => Ok(row),
            None => missing(format!("there is no account {username}; `account list` shows all")),
        }
    }

    /// Enables or disables; disabling ends running sessions at once.
    ///
    /// # Errors
    /// No such account.
    pub async fn set_account_status(
        &self,
        username: &str,
        status: Status,
    ) -> Result<AccountRow, Refused> {
        let row = self.account(username).await?;
        let mut work = self.begin().await?;
        if accounts::set_status(work.tx.db(), &row.username, status, work.now).await? == 0 {
            return self.account(username).await;
        }
        note_account_change(&mut work, &row, ("status", status.as_str())).await?;
        match status {
            Status::Active => invite::welcome(&mut work, &row).await?,
            Status::Inactive => end_access(&mut work, &row.username).await?,
        }
        work.commit().await?;
        self.account(username).await
    }

    /// Sets (`Some`) or unsets (`None`) settings of an account.
    ///
    /// # Errors
    /// An unknown key, a bad value, no such account.
    pub async fn set_account(
        &self,
        username: &str,
        changes: &[(String, Option<String>)],
    ) -> Result<AccountRow, Refused> {
        let row = self.account(username).await?;
        let mut own = Settings::from_json(&row.settings).map_err(Refused::Because)?;
        change_settings(&mut own, changes)?;
        let mut work = self.begin().await?;
        accounts::set_settings(work.tx.db(), &row.username, &own.to_json(), work.now).await?;
        let keys: Vec<&str> = changes.iter().map(|(key, _)| key.as_str()).collect();
        note_account_change(&mut work, &row, ("settings", &keys.join(","))).await?;
        work.commit().await?;
        self.account(username).await
    }

    /// Changes the system default `clients`.
    ///
    /// # Errors
    /// An unknown key or a bad value.
    pub async fn set_client_defaults(
        &self,
        changes: &[(String, Option<String>)],
    ) -> Result<(), Refused> {
        let text = accounts::system_default(self.store.db(), "clients").await?.unwrap_or_default();
        let mut defaults = ClientDefaults::from_json(&text).map_err(Refused::Because)?;
        for (key, value) in changes {
            defaults.set(key, value.as_deref()).map_err(Refused::Because)?;
        }
        self.write_default("clients", &defaults.to_json()).await?;
        Ok(())
    }

    /// Changes the system default `ptportal`.
    ///
    /// # Errors
    /// An unknown key or a bad value.
    pub async fn set_default(
        &self,
        changes: &[(String, Option<String>)],
    ) -> Result<Settings, Refused> {
        let text = accounts::system_default(self.store.db(), "ptportal").await?.unwrap_or_default();
        let mut settings = Settings::from_json(&text).map_err(Refused::Because)?;
        change_settings(&mut settings, changes)?;
        self.write_default("ptportal", &settings.to_json()).await?;
        Ok(settings)
    }

    async fn write_default(&self, name: &str, settings: &str) -> store::Result<()> {
        let mut work = self.begin().await?;
        accounts::set_system_default(work.tx.db(), name, settings, work.now).await?;
        work.changed("default", name);
        work.commit().await?;
        Ok(())
    }

    /// Sets a password that an operator chose.
    ///
    /// # Errors
    /// The policy's reason, or no such account.
    pub async fn set_account_password(
        &self,
        username: &str,
        password: &str,
    ) -> Result<AccountRow, Refused> {
        let row = self.account(username).await?;
        let normal = password::acceptable((&row.username, &[]), password)
            .map_err(|e| Refused::Because(e.to_string()))?;
        let hash =
            self.passwords.hash(normal).await.map_err(|e| Refused::Because(e.to_string()))?;
        let mut work = self.begin().await?;
        accounts::set_password(work.tx.db(), &row.username, &hash, work.now).await?;
        end_access(&mut work, &row.username).await?;
        note_account_change(&mut work, &row, ("password", "set by an operator")).await?;
        work.commit().await?;
        self.account(username).await
    }

    /// Removes an account; what it sent stays with its client.
    ///
    /// # Errors
    /// While something of its client is unfinished or undelivered.
    pub async fn remove_account(&self, username: &str) -> Result<(), Refused> {
        let row = self.account(username).await?;
        let mut work = self.begin().await?;
        let open = uploads::open_of_client(work.tx.db(), &row.client_no).await?;
        if open > 0 {
            return because(format!(
                "{open} uploads of client {} are unfinished or undelivered",
                row.client_no
            ));
        }
        delete_account(&mut work, &row.username).await?;
        note_account_change(&mut work, &row, ("account", "removed")).await?;
        work.commit().await?;
        Ok(())
    }
}

fn change_settings(
    settings: &mut Settings,
    changes: &[(String, Option<String>)],
) -> Result<(), Refused> {
    for (key, value) in changes {
        let changed = match value {
            Some(value) => settings.set(key, value),
            None => settings.unset(key),
        };
        changed.map_err(Refused::Because)?;
    }
    Ok(())
}

/// An account's own settings over the system default; its language also from its client.
pub(super) fn settings_of(
    row: &AccountRow,
    default: &str,
    client: Option<&ClientRow>,
) -> Result<Settings, Refused> {
    let read = |text: &str| Settings::from_json(if text.is_empty() { "{}" } else { text });
    let own = read(&row.settings)
        .map_err(|e| Refused::Because(format!("settings of account {}: {e}", row.username)))?;
    let base =
        read(default).map_err(|e| Refused::Because(format!("system default ptportal: {e}")))?;
    let mut settings = own.over(base);
    settings.language =
        settings.language.or_else(|| client.and_then(|client| client.language.parse().ok()));
    Ok(settings)
}

/// A username from the pattern of the system default `ptportal` that nobody has; taken ones get a number behind them.
pub(super) async fn free_name(
    work: &mut Work<'_>,
    client: &ClientRow,
) -> Result<AccountName, Refused> {
    let default = accounts::system_default(work.tx.db(), "ptportal").await?.unwrap_or_default();
    let settings = Settings::from_json(&default).unwrap_or_default();
    let pattern = settings.username_pattern.unwrap_or_else(|| "{client_no}".to_owned());
    let text =
        pattern.replace("{client_no}", &client.client_no).replace("{client_name}", &client.name);
    let base = AccountName::made_safe(&text);
    for n in 1..TRIES {
        let name = if n == 1 { base.clone() } else { base.numbered(n) };
        if accounts::account(work.tx.db(), name.as_str()).await?.is_none() {
            return Ok(name);
        }
    }
    because(format!("no free username like {base}; give one with `account create --username`"))
}

/// The row, its event, and the news of it for running servers.
pub(super) async fn insert_account(work: &mut Work<'_>, row: &AccountRow) -> store::Result<()> {
    accounts::insert(work.tx.db(), row).await?;
    work.note(created_event(row));
    work.changed("account", &row.username);
    Ok(())
}

pub(super) fn created_event(row: &AccountRow) -> Event {
    Event::new(EventKind::AccountCreated)
        .client(&row.client_no)
        .account(&row.username)
        .with("status", row.status.clone())
}

/// Everything that belongs to an account alone.
pub(super) async fn delete_account(work: &mut Work<'_>, username: &str) -> store::Result<()> {
    let (db, now) = (work.tx.db(), work.now);
    accounts::delete_keys_of(&mut *db, username).await?;
    activation::delete_of(&mut *db, username).await?;
    web_sessions::delete_of(&mut *db, username).await?;
    mails::cancel_of_account(&mut *db, username, "the account was removed", now).await?;
    accounts::delete(db, username).await?;
    Ok(())
}

/// Links and sessions, on pages and of file transfer, that were good before a password or the status changed.
pub(super) async fn end_access(work: &mut Work<'_>, username: &str) -> store::Result<()> {
    activation::expire_others(work.tx.db(), username, "", work.now).await?;
    web_sessions::delete_of(work.tx.db(), username).await?;
    work.changed("access", username);
    Ok(())
}

/// The event of a change, and the news of it for running servers.
pub(super) async fn note_account_change(
    work: &mut Work<'_>,
    row: &AccountRow,
    (what, value): (&str, &str),
) -> store::Result<()> {
    let event = Event::new(EventKind::AccountChanged)
        .client(&row.client_no)
        .account(&row.username)
        .with("changed", what)
        .with("value", value);
    work.note(event);
    work.changed("account", &row.username);
    Ok(())
}

pub(super) fn new_account(
    id: &str,
    client_no: &str,
    (name, status): (&AccountName, Status),
    settings: &Settings,
    now: Timestamp,
) -> AccountRow {
    AccountRow {
        id: id.to_owned(),
        client_no: client_no.to_owned(),
        username: name.to_string(),
        status: status.as_str().to_owned(),
        password_hash: String::new(),
        operator_credential: 0,
        checked: 0,
        activation_time: 0,
        first_login: 0,
        last_login: 0,
        settings: settings.to_json(),
        version: 1,
        created: now.0,
        updated: now.0,
    }
}
