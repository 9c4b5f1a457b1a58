//! The values of the placeholders of one mail (spec section 11).

use super::{App, publish};
use crate::domain::time::Timestamp;
use crate::store::mails::MailRow;
use crate::store::uploads::UploadRow;
use crate::store::{self, accounts, clients, orders};
use crate::store::{batches, deliveries, unsigned, uploads};
use crate::template::mail::{DataProject, FileData, TicketData, Values};

/// Files that a mail lists; `files_count` counts all.
const LISTED: usize = 300;

/// The links of a mail: a token's where the mail carries one, else the page that gives a new one.
#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    pub(super) first: String,
    pub(super) again: String,
}

impl App {
    /// Where a new link is asked for.
    pub(super) fn link_page(&self) -> String {
        format!("{}/link", self.config.web.base_url)
    }

    /// Neither link carries a token: for drafts, previews, and every mail that is about something else.
    pub(super) fn plain_links(&self) -> Links {
        Links { first: self.link_page(), again: self.link_page() }
    }

    /// The name that clients connect to.
    #[must_use]
    pub fn public_host(&self) -> String {
        let host = self.config.portal.host.clone();
        host.unwrap_or_else(|| self.config.web.base_url.host().to_owned())
    }

    /// # Errors
    /// The database.
    pub(super) async fn mail_values(&self, mail: &MailRow, links: &Links) -> store::Result<Values> {
        let client = clients::client(self.store.db(), &mail.client_no).await?;
        let project = orders::project(self.store.db(), &mail.project_no).await?;
        let tickets = orders::tickets(self.store.db(), &mail.project_no).await?;
        let ticket = tickets.into_iter().find(|ticket| ticket.ticket_no == mail.ticket_no);
        let account = accounts::account(self.store.db(), &mail.username).await?;
        let folders = match &account {
            Some(row) => self.effective_settings(row).await.ok().and_then(|s| s.folders),
            None => None,
        };
        let folders = folders.unwrap_or_else(|| self.config.portal.folders.clone());
        let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        let minutes = self.config.portal.link_ttl.as_secs().div_euclid(60).max(1);
        let data_project = DataProject {
            project_no: mail.project_no.clone(),
            job_description: project
                .as_ref()
                .map(|p| p.job_description.clone())
                .unwrap_or_default(),
            due_date: project.as_ref().map(|p| p.due_date.clone()).unwrap_or_default(),
            client_no: mail.client_no.clone(),
            client_name: client.map(|client| client.name).unwrap_or_default(),
            contact_name: mail.recipient_name.clone(),
            portal_client_username: mail.username.clone(),
            portal_first_activation_link: links.first.clone(),
            portal_activation_link: links.again.clone(),
            portal_url: self.config.web.base_url.to_string(),
            portal_host: self.public_host(),
            sftp_port: port(self.config.sftp_port()),
            ftps_port: port(self.config.ftps_port()),
            host_key_fingerprint: self
                .host_keys
                .first()
                .map(|k| k.fingerprint.clone())
                .unwrap_or_default(),
            folder: project.as_ref().map(|p| p.folder.clone()).unwrap_or_default(),
            upload_folder: folders.first().cloned().unwrap_or_default(),
            link_minutes: minutes.to_string(),
            ..DataProject::default()
        };
        let mut data_project = data_project;
        self.add_files(&mut data_project, mail).await?;
        // Without a ticket its placeholders hold the project's values.
        let ticketdata_project = match ticket {
            Some(ticket) => TicketData {
                ticket_no: ticket.ticket_no,
                job_description: ticket.job_description,
                due_date: ticket.due_date,
            },
            None => TicketData {
                ticket_no: String::new(),
                job_description: data_project.job_description.clone(),
                due_date: data_project.due_date.clone(),
            },
        };
        Ok(Values { data_project, ticketdata_project })
    }

    /// The files that a mail tells of.
    async fn add_files(&self, values: &mut DataProject, mail: &MailRow) -> store::Result<()> {
        if let Some(upload) = uploads::upload(self.store.db(), &mail.upload_id).await? {
            values.virus.clone_from(&upload.signature);
            values.file_name = last(&upload.path).to_owned();
            values.upload_id.clone_from(&upload.id);
            // Staff's file: it lies in that folder of the hotfolder, whatever becomes of it here.
            if upload.protocol == publish::PROTOCOL {
                let folder = upload.path.split('/').next();
                values.publish_folder = folder.unwrap_or_default().to_owned();
            }
        }
        if mail.batch.is_empty() {
            return Ok(());
        }
        let rows = batches::files(self.store.db(), &mail.batch).await?;
        values.files_count = rows.len().to_string();
        values.total_size =
            rows.iter().fold(0u64, |sum, row| sum.saturating_add(unsigned(row.size))).to_string();
        let folder = rows.last().and_then(|row| row.path.split('/').next());
        values.publish_folder = folder.unwrap_or_default().to_owned();
        for row in rows.iter().take(LISTED) {
            values.files.push(self.file_data(row).await?);
        }
        Ok(())
    }

    async fn file_data(&self, row: &UploadRow) -> store::Result<FileData> {
        let placed = deliveries::placed_of(self.store.db(), &row.id).await?;
        Ok(FileData {
            name: last(&row.path).to_owned(),
            size: unsigned(row.size),
            sha256: row.sha256.clone(),
            verdict: row.verdict.clone(),
            received: Timestamp(row.completed).rfc3339().unwrap_or_default(),
            path: row.path.clone(),
            delivered_name: placed.map(|name| last(&name).to_owned()).unwrap_or_default(),
            upload_id: row.id.clone(),
            version: row.version,
            reason: row.reason.clone(),
            signature: row.signature.clone(),
            waived_by: row.waived_by.clone(),
            username: row.username.clone(),
        })
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
