//! SSH public keys of accounts.

use russh::keys::{HashAlg, PublicKey};

use super::App;
use super::accounts::note_account_change;
use super::clients::{Refused, because, conflict};
use crate::store;
use crate::store::accounts::{self, KeyRow};

/// Keys of one account; more are a mistake.
const KEYS_MAX: usize = 50;

impl App {
    /// Adds an SSH public key in OpenSSH's one-line format.
    ///
    /// # Errors
    /// A key that does not read, is weak, or is there already.
    pub async fn add_key(&self, username: &str, text: &str) -> Result<KeyRow, Refused> {
        let row = self.account(username).await?;
        let key = read_key(&row.username, text)?;
        let mut work = self.begin().await?;
        let now = work.now;
        let added = KeyRow { created: now.0, updated: now.0, ..key };
        if accounts::keys(work.tx.db(), &row.username).await?.len() >= KEYS_MAX {
            return conflict(format!("account {username} has {KEYS_MAX} keys already; remove one"));
        }
        match accounts::insert_key(work.tx.db(), self.new_id().as_str(), &added).await {
            Err(e) if store::is_duplicate(&e) => return conflict("this key is there already"),
            other => other?,
        }
        accounts::note_key_change(work.tx.db(), &row.username, now).await?;
        note_account_change(&mut work, &row, ("key added", &added.fingerprint)).await?;
        work.commit().await?;
        Ok(added)
    }

    /// # Errors
    /// No such account or key.
    pub async fn remove_key(&self, username: &str, fingerprint: &str) -> Result<(), Refused> {
        let row = self.account(username).await?;
        if fingerprint.chars().any(char::is_control) {
            return because("the fingerprint holds control characters; see `account key list`");
        }
        let mut work = self.begin().await?;
        let now = work.now;
        if accounts::delete_key(work.tx.db(), &row.username, fingerprint).await? == 0 {
            return because(format!(
                "account {username} has no key {fingerprint}; see `account key list`"
            ));
        }
        accounts::note_key_removed(work.tx.db(), &row.username, now).await?;
        note_account_change(&mut work, &row, ("key removed", fingerprint)).await?;
        // Which of them began with this key nobody knows.
        work.changed("access", &row.username);
        work.commit().await?;
        Ok(())
    }
}

/// Reads an SSH public key in OpenSSH's one-line format.
pub(super) fn read_key(username: &str, text: &str) -> Result<KeyRow, Refused> {
    let line = text
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty() && !l.starts_with('#'))
        .unwrap_or_default();
    if line.chars().any(char::is_control) {
        return because("the key's line holds control characters; give the line of a .pub file");
    }
    let key = PublicKey::from_openssh(line).map_err(|e| {
        Refused::Because(format!(
            "this is not an OpenSSH public key ({e}); give the line of a .pub file, such as `ssh-ed25519 AAAA… name`"
        ))
    })?;
    check_strength(&key)?;
    Ok(KeyRow {
        username: username.to_owned(),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        public_key: line.to_owned(),
        comment: line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned(),
        created: 0,
        updated: 0,
    })
}

fn check_strength(key: &PublicKey) -> Result<(), Refused> {
    if let Some(rsa) = key.key_data().rsa() {
        let bits = rsa.key_size();
        if bits < 2048 {
            return because(format!(
                "an RSA key of {bits} bits is too short; use ed25519 or RSA from 3072 bits"
            ));
        }
    }
    if key.key_data().dsa().is_some() {
        return because("DSA keys are broken; use ed25519");
    }
    Ok(())
}
