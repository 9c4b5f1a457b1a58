//! Files that staff took out of a project's folder go from the customer's tree; many at once wait for an operator.

use std::sync::Arc;

use super::App;
use super::clients::{Refused, missing};
use super::publish::Channel;
use super::settle::{self, Settled};
use super::tree::area_key;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::Id;
use crate::domain::publish;
use crate::domain::upload::UploadState;
use crate::store::published::{self, HoldRow};
use crate::store::{self, entries, uploads};

/// Under which removals of a folder wait.
fn hold_id(channel: &Channel) -> String {
    area_key(&channel.project, channel.area)
}

impl App {
    /// Takes files away from the customer that are `gone` from the share for two looks; many at once wait for an operator,
    /// counted with those that are `missing` for the first time. Gives how many followed.
    ///
    /// # Errors
    /// The database.
    pub async fn withdraw_files(
        self: &Arc<Self>,
        channel: &Channel,
        gone: &[String],
        missing: usize,
    ) -> store::Result<usize> {
        let missing = missing.max(gone.len());
        let id = hold_id(channel);
        let held = published::hold(self.store.db(), &id).await?;
        if missing == 0 {
            if held.is_some() {
                published::delete_hold(self.store.db(), &id).await?;
            }
            return Ok(0);
        }
        let total = self.known_in(channel).await?.len();
        // Of what an operator saw, not of what has gone since.
        let is_confirmed = held.as_ref().is_some_and(|hold| {
            hold.confirmed != 0 && i64::try_from(missing).unwrap_or(i64::MAX) <= hold.missing
        });
        if publish::is_mass_removal(missing, total) && !is_confirmed {
            if !gone.is_empty() {
                self.hold_removals(channel, (missing, total), held.as_ref()).await?;
            }
            return Ok(0);
        }
        for path in gone {
            self.withdraw(channel, path).await?;
        }
        if gone.len() == missing && held.is_some() {
            published::delete_hold(self.store.db(), &id).await?;
        }
        Ok(gone.len())
    }

    async fn hold_removals(
        &self,
        channel: &Channel,
        (missing, total): (usize, usize),
        held: Option<&HoldRow>,
    ) -> store::Result<()> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (missing, total) = (count(missing), count(total));
        if held.is_some_and(|hold| hold.missing == missing && hold.total == total) {
            return Ok(());
        }
        let no = &channel.project.project_no;
        let mut work = self.begin().await?;
        let id = hold_id(channel);
        let named = (id.as_str(), no.as_str(), channel.folder.as_str());
        published::put_hold(work.tx.db(), named, (missing, total), work.now).await?;
        let event = Event::new(EventKind::PublishHeld)
            .client(&channel.project.client_no)
            .project(no)
            .path(&channel.folder)
            .with("files", missing)
            .with("of", total)
            .with(
                "remedy",
                format!("`publish confirm {no}` if they are meant to go, else put them back"),
            );
        work.note(event);
        work.commit().await?;
        Ok(())
    }

    /// One file goes: its name, its content, and the folders above it that are empty then.
    async fn withdraw(self: &Arc<Self>, channel: &Channel, path: &str) -> store::Result<()> {
        let names: Vec<&str> = path.split('/').collect();
        let mut chain = Vec::new();
        let mut parent = area_key(&channel.project, channel.area);
        for name in &names {
            let Some(entry) = entries::child(self.store.db(), &parent, name).await? else { break };
            parent.clone_from(&entry.id);
            chain.push(entry);
        }
        let is_whole = chain.len() == names.len();
        let file = chain.pop().filter(|entry| is_whole && !entry.is_folder());
        let mut work = self.begin().await?;
        let mut removable = Vec::new();
        if let Some(entry) = &file {
            for row in uploads::of_entry(work.tx.db(), &entry.id).await? {
                let state = row.state();
                if state != Some(UploadState::Infected) && state != Some(UploadState::Deleted) {
                    let reason = "taken out of the hotfolder";
                    uploads::set_deleted(work.tx.db(), &row.id, reason, work.now).await?;
                    removable.push(row.id);
                }
            }
            entries::delete(work.tx.db(), &entry.id).await?;
            for folder in chain.iter().rev() {
                if entries::has_children(work.tx.db(), &folder.id).await? {
                    break;
                }
                entries::delete(work.tx.db(), &folder.id).await?;
            }
        }
        published::delete(work.tx.db(), &channel.project.id, channel.area(), path).await?;
        work.note(withdrawn_event(channel, path));
        work.commit().await?;
        for id in removable {
            self.scans.withdraw(&id, Settled::Gone);
            if let Some(id) = Id::parse(&id) {
                settle::put_away(self, &id, UploadState::Deleted).await;
            }
        }
        Ok(())
    }

    /// An operator lets removals follow.
    ///
    /// # Errors
    /// Nothing waits.
    pub async fn confirm_removals(&self, project_no: &str, folder: &str) -> Result<u64, Refused> {
        let confirmed = published::confirm(self.store.db(), project_no, folder, self.now()).await?;
        if confirmed == 0 {
            return missing(format!("no removals wait in {project_no}; `publish list` shows all"));
        }
        Ok(confirmed)
    }
}

fn withdrawn_event(channel: &Channel, path: &str) -> Event {
    Event::new(EventKind::FileWithdrawn)
        .client(&channel.project.client_no)
        .project(&channel.project.project_no)
        .path(&format!("{}/{path}", channel.folder))
}
