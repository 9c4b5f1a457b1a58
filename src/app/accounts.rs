//! Portal accounts as operators handle them: create, enable, settings, password.

use super::App;
use super::clients::{Refused, because, conflict, missing};
use crate::domain::account::{AccountName, Settings, Status};
use crate::domain::client_defaults::ClientDefaults;
use crate::domain::event::{Event, EventKind};
use crate::domain::order::number;
use crate::domain::password;
use crate::domain::time::Timestamp;
use crate::logging;
use crate::store::accounts::{self, AccountRow};
use crate::store::clients::{self, ClientRow};
use crate::store::{self, activation, events, mails, uploads, web_sessions};

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
        let base = match &chosen {
            Some(name) => name.clone(),
            None => {
                let default = accounts::system_default(self.store.db(), "ptportal").await?;
                name_by_pattern(&default.unwrap_or_default(), &client_no, &client.name)
            }
        };
        let now = self.now();
        for n in 1..TRIES {
            let name = if n == 1 { base.clone() } else { base.numbered(n) };
            let row = new_account(self.new_id().as_str(), &client_no, (&name, status), &own, now);
            match self.insert_account(&row, now).await {
                Ok(()) => return Ok(row),
                Err(Refused::Store(e)) if store::is_duplicate(&e) && chosen.is_none() => {}
                Err(Refused::Store(e)) if store::is_duplicate(&e) => {
                    return conflict(format!(
                        "account {base} exists already; choose another username"
                    ));
                }
                Err(e) => return Err(e),
            }
        }
        because(format!("no free username like {base}; give one with --username"))
    }

    async fn insert_account(&self, row: &AccountRow, now: Timestamp) -> Result<(), Refused> {
        let event = created_event(row);
        let mut tx = self.store.write().await?;
        accounts::insert(tx.db(), row).await?;
        events::insert(tx.db(), &event, now).await?;
        events::note_change(tx.db(), "account", &row.username, now).await?;
        let mail = match row.status() {
            Status::Active => self.welcome(&mut tx, row, now).await?,
            Status::Inactive => None,
        };
        tx.commit().await?;
        logging::event(&event);
        self.tell_of_mail(mail).await;
        Ok(())
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
        let now = self.now();
        let mut tx = self.store.write().await?;
        if accounts::set_status(tx.db(), &row.username, status, now).await? == 0 {
            return self.account(username).await;
        }
        self.note_account_change(&mut tx, &row, ("status", status.as_str()), now).await?;
        let mail = match status {
            Status::Active => self.welcome(&mut tx, &row, now).await?,
            Status::Inactive => None,
        };
        if status == Status::Inactive {
            activation::expire_others(tx.db(), &row.username, "", now).await?;
            web_sessions::delete_of(tx.db(), &row.username).await?;
        }
        tx.commit().await?;
        self.tell_of_mail(mail).await;
        self.account(username).await
    }

    pub(super) async fn note_account_change(
        &self,
        tx: &mut store::WriteTx,
        row: &AccountRow,
        (what, value): (&str, &str),
        now: Timestamp,
    ) -> store::Result<()> {
        let event = Event::new(EventKind::AccountChanged)
            .client(&row.client_no)
            .account(&row.username)
            .with("changed", what)
            .with("value", value);
        events::insert(tx.db(), &event, now).await?;
        events::note_change(tx.db(), "account", &row.username, now).await
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
        let now = self.now();
        let mut tx = self.store.write().await?;
        accounts::set_settings(tx.db(), &row.username, &own.to_json(), now).await?;
        let keys: Vec<&str> = changes.iter().map(|(key, _)| key.as_str()).collect();
        self.note_account_change(&mut tx, &row, ("settings", &keys.join(",")), now).await?;
        tx.commit().await?;
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
        let now = self.now();
        let mut tx = self.store.write().await?;
        accounts::set_system_default(tx.db(), "clients", &defaults.to_json(), now).await?;
        events::note_change(tx.db(), "default", "clients", now).await?;
        tx.commit().await?;
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
        let now = self.now();
        let mut tx = self.store.write().await?;
        accounts::set_system_default(tx.db(), "ptportal", &settings.to_json(), now).await?;
        events::note_change(tx.db(), "default", "ptportal", now).await?;
        tx.commit().await?;
        Ok(settings)
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
        let now = self.now();
        let mut tx = self.store.write().await?;
        accounts::set_password(tx.db(), &row.username, &hash, now).await?;
        activation::expire_others(tx.db(), &row.username, "", now).await?;
        web_sessions::delete_of(tx.db(), &row.username).await?;
        self.note_account_change(&mut tx, &row, ("password", "set by an operator"), now).await?;
        tx.commit().await?;
        self.account(username).await
    }

    /// Removes an account; what it sent stays with its client.
    ///
    /// # Errors
    /// While something of its client is unfinished or undelivered.
    pub async fn remove_account(&self, username: &str) -> Result<(), Refused> {
        let row = self.account(username).await?;
        let now = self.now();
        let mut tx = self.store.write().await?;
        let open = uploads::open_of_client(tx.db(), &row.client_no).await?;
        if open > 0 {
            return because(format!(
                "{open} uploads of client {} are unfinished or undelivered",
                row.client_no
            ));
        }
        delete_account(&mut tx, &row.username, now).await?;
        self.note_account_change(&mut tx, &row, ("account", "removed"), now).await?;
        tx.commit().await?;
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

/// A username from the pattern of the system default `ptportal`.
pub(super) fn name_by_pattern(default: &str, client_no: &str, client_name: &str) -> AccountName {
    let settings = Settings::from_json(default).unwrap_or_default();
    let pattern = settings.username_pattern.unwrap_or_else(|| "{client_no}".to_owned());
    let text = pattern.replace("{client_no}", client_no).replace("{client_name}", client_name);
    AccountName::made_safe(&text)
}

pub(super) fn created_event(row: &AccountRow) -> Event {
    Event::new(EventKind::AccountCreated)
        .client(&row.client_no)
        .account(&row.username)
        .with("status", row.status.clone())
}

/// Everything that belongs to an account alone.
pub(super) async fn delete_account(
    tx: &mut store::WriteTx,
    username: &str,
    now: Timestamp,
) -> store::Result<()> {
    accounts::delete_keys_of(tx.db(), username).await?;
    activation::delete_of(tx.db(), username).await?;
    web_sessions::delete_of(tx.db(), username).await?;
    mails::cancel_of_account(tx.db(), username, "the account was removed", now).await?;
    accounts::delete(tx.db(), username).await?;
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
