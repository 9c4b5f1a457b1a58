//! Clients and their contacts.

use super::{App, announced_rows};
use crate::domain::account::Language;
use crate::domain::announcement::ClientPart;
use crate::domain::event::{Event, EventKind};
use crate::domain::{announcement, order};
use crate::store::clients::{self, ClientRow, ContactRow};
use crate::store::{self, accounts, mails, orders, uploads};

/// A use case of an operator refused, in one line: what, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Because(String),
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// It belongs to somebody else, or is there already.
    #[error("{0}")]
    Conflict(String),
    #[error("database: {0}")]
    Store(#[from] store::StoreError),
}

impl From<order::BadNumber> for Refused {
    fn from(bad: order::BadNumber) -> Self {
        Self::Because(bad.to_string())
    }
}

pub(super) fn missing<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Missing(text.into()))
}

pub(super) fn conflict<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Conflict(text.into()))
}

pub(super) fn because<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Because(text.into()))
}

/// What may be said about a client; absent things stay as they are, or come from the system default `clients`.
#[derive(Debug, Clone, Default)]
pub struct ClientChange {
    pub name: Option<String>,
    pub email: Option<String>,
    pub create_hotfolder: Option<bool>,
    pub delete_in_days: Option<u32>,
    pub language: Option<Language>,
}

impl ClientChange {
    fn check(&self) -> Result<(), Refused> {
        if let Some(address) = self.email.as_ref().filter(|address| !address.is_empty()) {
            announcement::email(address).map_err(Refused::Because)?;
        }
        if self.delete_in_days.is_some_and(|days| days > announcement::DAYS_MAX) {
            return because(format!("more than {} days; 0 means never", announcement::DAYS_MAX));
        }
        if let Some(name) = &self.name {
            announcement::client_name(name).map_err(Refused::Because)?;
        }
        Ok(())
    }

    fn apply(&self, row: &mut ClientRow) {
        if let Some(name) = &self.name {
            row.name.clone_from(name);
        }
        if let Some(email) = &self.email {
            row.email.clone_from(email);
        }
        if let Some(create) = self.create_hotfolder {
            row.create_hotfolder = store::flag(create);
        }
        if let Some(days) = self.delete_in_days {
            row.hotfolder_delete_in_days = i64::from(days);
        }
        if let Some(language) = self.language {
            row.language = language.to_string();
        }
    }
}

impl App {
    /// Adds a client.
    ///
    /// # Errors
    /// A bad number or address, or a client that is there already.
    pub async fn add_client(
        &self,
        client_no: &str,
        change: &ClientChange,
    ) -> Result<ClientRow, Refused> {
        let client_no = order::number("client_no", client_no)?;
        change.check()?;
        let part = ClientPart { client_no: client_no.clone(), ..ClientPart::default() };
        let mut work = self.begin().await?;
        let defaults = announced_rows::defaults(&mut work).await?;
        let mut row = announced_rows::new_client(self, &part, &defaults, work.now);
        change.apply(&mut row);
        match announced_rows::insert_client(&mut work, &row).await {
            Err(e) if store::is_duplicate(&e) => {
                return conflict(format!(
                    "client {client_no} exists already; change it with `client set`"
                ));
            }
            other => other?,
        }
        work.commit().await?;
        Ok(row)
    }

    /// # Errors
    /// When there is no such client.
    pub async fn client(&self, client_no: &str) -> Result<ClientRow, Refused> {
        let known = match order::number("client_no", client_no) {
            Ok(no) => clients::client(self.store.db(), &no).await?,
            // What cannot be a number is not looked up.
            Err(_) => None,
        };
        match known {
            Some(row) => Ok(row),
            None => missing(format!("there is no client {client_no}; `client list` shows all")),
        }
    }

    /// Changes a client; running servers follow within a second.
    ///
    /// # Errors
    /// A bad value, or no such client.
    pub async fn set_client(
        &self,
        client_no: &str,
        change: &ClientChange,
    ) -> Result<ClientRow, Refused> {
        change.check()?;
        let mut row = self.client(client_no).await?;
        change.apply(&mut row);
        let mut work = self.begin().await?;
        announced_rows::update_client(&mut work, &row).await?;
        work.commit().await?;
        self.client(client_no).await
    }

    /// Removes a client: its accounts, keys and contacts go, its name and address are blanked in what must stay.
    ///
    /// # Errors
    /// While something of it is unfinished or undelivered.
    pub async fn remove_client(&self, client_no: &str) -> Result<(), Refused> {
        self.client(client_no).await?;
        let mut work = self.begin().await?;
        let now = work.now;
        let open = uploads::open_of_client(work.tx.db(), client_no).await?;
        if open > 0 {
            return because(format!(
                "{open} uploads of client {client_no} are unfinished or undelivered; see `upload list --client {client_no}`"
            ));
        }
        // Whoever gets this number later must not find these orders open.
        orders::close_projects_of(work.tx.db(), client_no, now).await?;
        for account in accounts::accounts_of(work.tx.db(), client_no).await? {
            super::accounts::delete_account(&mut work, &account.username).await?;
            work.changed("account", &account.username);
        }
        clients::delete_contacts_of(work.tx.db(), client_no).await?;
        mails::anonymise_of_client(work.tx.db(), client_no).await?;
        clients::anonymise_record(work.tx.db(), client_no).await?;
        clients::anonymise_client(work.tx.db(), client_no, now).await?;
        work.changed("client", client_no);
        let event = Event::new(EventKind::ClientChanged).client(client_no);
        work.note(event.with("changed", "removed"));
        work.commit().await?;
        Ok(())
    }

    /// Adds a contact; a favourite replaces the one before.
    ///
    /// # Errors
    /// A bad address, or no such client.
    pub async fn add_contact(
        &self,
        client_no: &str,
        (name, email): (&str, &str),
        is_favourite: bool,
    ) -> Result<ContactRow, Refused> {
        announcement::client_name(name).map_err(Refused::Because)?;
        announcement::email(email).map_err(Refused::Because)?;
        self.client(client_no).await?;
        let now = self.now();
        let row = ContactRow {
            id: self.new_id().to_string(),
            client_no: client_no.to_owned(),
            name: name.to_owned(),
            email: email.to_owned(),
            favourite: store::flag(is_favourite),
            created: now.0,
            updated: now.0,
        };
        let mut tx = self.store.write().await?;
        if is_favourite {
            clients::clear_favourite(tx.db(), client_no, now).await?;
        }
        clients::insert_contact(tx.db(), &row).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// # Errors
    /// No such contact.
    pub async fn remove_contact(&self, id: &str) -> Result<(), Refused> {
        if clients::delete_contact(self.store.db(), id).await? == 0 {
            return because(format!(
                "there is no contact {id}; `contact list CLIENT_NO` shows all"
            ));
        }
        Ok(())
    }
}
