//! Accounts of another system: names, hashes and keys from one file, all of them or none.

use serde::Deserialize;

use super::announce::UnknownClient;
use super::clients::{Refused, because};
use super::{App, accounts as accounts_app, announced_rows, invite, keys as keys_app, passwords};
use crate::domain::account::{AccountName, Settings, Status};
use crate::domain::announcement::{self, ClientPart};
use crate::store;
use crate::store::accounts::{self, AccountRow, KeyRow};

/// One account of the file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Entry {
    pub username: String,
    pub client_no: String,
    /// bcrypt, sha512-crypt or argon2; empty: the account is invited when an order is open.
    pub password_hash: String,
    /// OpenSSH public keys.
    pub keys: Keys,
    /// Of a client that is not there yet, or as the system default `clients` allows.
    pub client_name: Option<String>,
    pub client_email: Option<String>,
}

/// A list, or in a spreadsheet one text with `|` between keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Keys {
    List(Vec<String>),
    Text(String),
}

impl Default for Keys {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Keys {
    fn lines(&self) -> Vec<String> {
        let all: Vec<&str> = match self {
            Self::List(keys) => keys.iter().map(String::as_str).collect(),
            Self::Text(text) => text.split(['|', '\n']).collect(),
        };
        all.into_iter().map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect()
    }
}

/// Reads a JSON array of objects, or a table with a header line and `,` or `;` between its columns.
///
/// # Errors
/// What cannot be read, with its line.
pub fn read(text: &str) -> Result<Vec<Entry>, Refused> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| Refused::Because(format!("not a list of accounts: {error}")));
    }
    let head = text.lines().next().unwrap_or_default();
    let delimiter = if head.contains(';') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let rows: Result<Vec<Entry>, _> = reader.deserialize().collect();
    match rows {
        Ok(rows) => Ok(rows),
        Err(error) => because(format!("not a table of accounts: {error}")),
    }
}

struct Checked {
    name: AccountName,
    hash: String,
    keys: Vec<KeyRow>,
    client: ClientPart,
}

impl App {
    /// Imports accounts; nothing is changed when one of them cannot be.
    ///
    /// # Errors
    /// The first entry that is wrong, with its number.
    pub async fn import_accounts(&self, entries: &[Entry]) -> Result<Vec<AccountRow>, Refused> {
        if entries.is_empty() {
            return because(
                "the file names no account; give a JSON list, or a table with a header line and rows",
            );
        }
        let mut checked = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let place = format!("entry {} ({:?})", index.saturating_add(1), entry.username);
            let found = self
                .check_entry(entry)
                .map_err(|reason| Refused::Because(format!("{place}: {reason}")))?;
            checked.push(found);
        }
        let mut work = self.begin().await?;
        let mut rows = Vec::new();
        for Checked { name, hash, keys, client } in checked {
            announced_rows::client(&mut work, &client, UnknownClient::Create).await?;
            let mut row = accounts_app::new_account(
                self.new_id().as_str(),
                &client.client_no,
                (&name, Status::Active),
                &Settings::default(),
                work.now,
            );
            // What they could log in with before counts as a credential that an operator set.
            row.operator_credential = store::flag(!hash.is_empty() || !keys.is_empty());
            row.password_hash = hash;
            match accounts::insert(work.tx.db(), &row).await {
                Err(error) if store::is_duplicate(&error) => {
                    return because(format!(
                        "account {name} exists already, or stands twice in the file; nothing was imported"
                    ));
                }
                other => other?,
            }
            for mut key in keys {
                (key.created, key.updated) = (work.now.0, work.now.0);
                accounts::insert_key(work.tx.db(), self.new_id().as_str(), &key).await?;
            }
            work.note(accounts_app::created_event(&row).with("imported", true));
            work.changed("account", &row.username);
            invite::welcome(&mut work, &row).await?;
            rows.push(row);
        }
        work.commit().await?;
        Ok(rows)
    }

    fn check_entry(&self, entry: &Entry) -> Result<Checked, String> {
        let name = AccountName::parse(&entry.username)
            .ok_or("is not a username; use 1 to 64 of a-z 0-9 . _ @ -".to_owned())?;
        let client = ClientPart {
            client_no: entry.client_no.clone(),
            name: entry.client_name.clone(),
            email: entry.client_email.clone(),
            ..ClientPart::default()
        };
        let client =
            client.checked().map_err(|wrong: announcement::Unreadable| wrong.to_string())?;
        if !entry.password_hash.is_empty() {
            passwords::importable(&entry.password_hash)
                .map_err(|why| format!("password_hash {why}"))?;
        }
        let mut keys: Vec<KeyRow> = Vec::new();
        for line in entry.keys.lines() {
            let key =
                keys_app::read_key(name.as_str(), &line).map_err(|error| error.to_string())?;
            if !keys.iter().any(|known| known.fingerprint == key.fingerprint) {
                keys.push(key);
            }
        }
        Ok(Checked { name, hash: entry.password_hash.clone(), keys, client })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_tables_are_read() {
        let json =
            read("[{\"username\": \"a\", \"client_no\": \"1\", \"keys\": [\"k1\", \"k2\"]}]")
                .unwrap();
        assert_eq!(json[0].keys.lines(), ["k1", "k2"]);
        let table =
            read("username;client_no;password_hash;keys\na; 1 ;$2b$x;k1|k2\nb;2;;\n").unwrap();
        assert_eq!((table.len(), table[0].client_no.as_str()), (2, "1"));
        assert_eq!(table[0].keys.lines(), ["k1", "k2"]);
        assert!(read("username,client_no,colour\na,1,red\n").is_err());
        assert!(read("[{\"username\": 1}]").is_err());
    }
}
