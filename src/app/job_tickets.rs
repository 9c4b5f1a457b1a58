//! Job tickets: XML beside delivered files, for prepress systems and PTworkflow (spec section 13). A ticket is a
//! delivery like the file that it tells of, so it is placed exactly once, and after it.

use std::io::Read;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::mirror;
use super::placing::{self, Failed, Target};
use super::work::Work;
use super::{App, blocking};
use crate::config::{TicketFormat, TicketPer};
use crate::domain::content::ContentHash;
use crate::domain::hotname;
use crate::domain::id::Id;
use crate::domain::mail::MailKind;
use crate::domain::time::Timestamp;
use crate::mailer::Attachment;
use crate::store::batches::{self, BatchRow};
use crate::store::deliveries::{self, DeliveryRow};
use crate::store::mails::MailRow;
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, clients, orders, unsigned};
use crate::template::jobticket::{self as template, Values};

/// The consumer's name in `deliveries.consumer`.
pub(super) const TICKET: &str = "jobticket";
/// A larger ticket is not attached to a mail, in bytes: mail servers refuse what is too large, and the mail with it.
const ATTACHED_MAX: usize = 1 << 20;
/// What a path keeps in a URL.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A file has been delivered: its ticket follows, if each file has one.
pub(super) async fn plan_for_file(work: &mut Work<'_>, upload: &UploadRow) -> store::Result<()> {
    let config = &work.app.config.jobticket;
    if config.format == TicketFormat::Off || config.per != TicketPer::File {
        return Ok(());
    }
    plan(work, upload, "").await
}

/// A batch is complete: its ticket follows, if each batch has one.
pub(super) async fn plan_for_batch(
    work: &mut Work<'_>,
    batch: &BatchRow,
    files: &[UploadRow],
) -> store::Result<()> {
    let config = &work.app.config.jobticket;
    if config.format == TicketFormat::Off || config.per != TicketPer::Batch {
        return Ok(());
    }
    match files.first() {
        Some(first) => plan(work, first, &batch.id).await,
        None => Ok(()),
    }
}

async fn plan(work: &mut Work<'_>, upload: &UploadRow, batch: &str) -> store::Result<()> {
    let id = work.app.new_id();
    let what = (TICKET, "hotfolder");
    deliveries::insert_ticket(work.tx.db(), id.as_str(), (upload, batch), what, work.now).await?;
    work.app.mirror_wake.notify_one();
    Ok(())
}

impl App {
    /// The text of a ticket that is to be placed.
    ///
    /// # Errors
    /// The template's problem, or whatever cannot be read.
    pub(super) async fn ticket_text(&self, row: &DeliveryRow) -> Result<String, Failed> {
        let files = if row.batch.is_empty() {
            uploads::upload(self.store.db(), &row.upload_id).await?.into_iter().collect()
        } else {
            batches::files(self.store.db(), &row.batch).await?
        };
        // The same text at every attempt.
        let ticket = (row.id.as_str(), Timestamp(row.created));
        let values = self.ticket_values(ticket, !row.batch.is_empty(), &files).await?;
        let text = self.render_ticket(values).await;
        text.map_err(|problem| placing::odd(format!("the job ticket: {problem}")))
    }

    async fn render_ticket(&self, values: Values) -> Result<String, String> {
        let (own, built_in) = (self.config.jobticket.template.clone(), built_in(self));
        let rendered = tokio::task::spawn_blocking(move || {
            let template = match own {
                None => built_in.to_owned(),
                Some(path) => std::fs::read_to_string(&path)
                    .map_err(|error| format!("{}: {error}", path.display()))?,
            };
            template::render(&template, &values)
        });
        rendered.await.map_err(|error| error.to_string())?
    }

    /// Fills the template with a sample, for `ptportal check`; nothing when tickets are off.
    pub(super) async fn try_ticket(&self) -> Option<Result<(), String>> {
        if self.config.jobticket.format == TicketFormat::Off {
            return None;
        }
        Some(self.render_ticket(template::sample()).await.map(drop))
    }

    async fn ticket_values(
        &self,
        (id, created): (&str, Timestamp),
        is_batch: bool,
        files: &[UploadRow],
    ) -> Result<Values, Failed> {
        let first =
            files.first().ok_or_else(|| placing::odd("the ticket's files are not there"))?;
        let client = clients::client(self.store.db(), &first.client_no).await?;
        let project = orders::project(self.store.db(), &first.project_no).await?;
        let is_of_one_part = files.iter().all(|file| file.ticket_no == first.ticket_no);
        let tickets = orders::tickets(self.store.db(), &first.project_no).await?;
        let part = tickets
            .into_iter()
            .find(|ticket| is_of_one_part && ticket.ticket_no == first.ticket_no);
        let mut values = Values {
            ticket: template::Ticket { id: id.to_owned(), created: created.to_string(), is_batch },
            client: template::Client {
                client_no: first.client_no.clone(),
                name: client.map(|client| client.name).unwrap_or_default(),
            },
            project: template::Job {
                project_no: first.project_no.clone(),
                ..template::Job::default()
            },
            part: template::Part::default(),
            portal: template::Portal {
                name: "ptportal".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                url: self.config.web.base_url.to_string(),
            },
            files: Vec::new(),
        };
        if let Some(project) = project {
            values.project.job_description = project.job_description;
            values.project.due_date = project.due_date;
        }
        if let Some(part) = part {
            values.part = template::Part {
                ticket_no: part.ticket_no,
                job_description: part.job_description,
                due_date: part.due_date,
            };
        }
        for file in files {
            values.files.push(self.ticket_file(file).await?);
        }
        Ok(values)
    }

    async fn ticket_file(&self, row: &UploadRow) -> Result<template::File, Failed> {
        let placed = deliveries::placed_of(self.store.db(), &row.id).await?.unwrap_or_default();
        let time = |value: i64| Timestamp(value).rfc3339().unwrap_or_default();
        let name = last(&row.path).to_owned();
        Ok(template::File {
            upload_id: row.id.clone(),
            version: row.version,
            path: row.path.clone(),
            delivered_name: last(&placed).to_owned(),
            delivered_url: self.url_of(&placed),
            delivered_path: placed,
            size: unsigned(row.size),
            sha256: row.sha256.clone(),
            md5: self.md5_of(row).await?,
            mime: mime_guess::from_path(&name).first_or_octet_stream().to_string(),
            verdict: row.verdict.clone(),
            signature: row.signature.clone(),
            reason: row.reason.clone(),
            waived_by: row.waived_by.clone(),
            scanner: row.scanner.clone(),
            username: row.username.clone(),
            received: time(row.completed),
            released: time(row.released),
            delivered: time(row.delivered),
            ticket_no: row.ticket_no.clone(),
            name,
        })
    }

    /// `file:///…` where the share is mounted here, else the path below its root.
    fn url_of(&self, placed: &str) -> String {
        match &self.config.hotfolder.root {
            Some(root) if !placed.is_empty() => {
                let root = std::path::absolute(root).unwrap_or_else(|_| root.clone());
                let path = root.join(placed);
                format!("file://{}", utf8_percent_encode(&path.to_string_lossy(), IN_PATH))
            }
            Some(_) | None => utf8_percent_encode(placed, IN_PATH).to_string(),
        }
    }

    /// XJDF wants it; the portal's own ticket has SHA-256. It stands on the row unless the file went past the scanner.
    async fn md5_of(&self, row: &UploadRow) -> Result<String, Failed> {
        if self.config.jobticket.format != TicketFormat::Xjdf || !row.md5.is_empty() {
            return Ok(row.md5.clone());
        }
        let Some(id) = Id::parse(&row.id) else { return Ok(String::new()) };
        match sum(self, &id).await {
            Ok(md5) => {
                uploads::set_md5(self.store.db(), &row.id, &md5).await?;
                Ok(md5)
            }
            // Its time was over before its mail went out.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(Failed::Vault(error)),
        }
    }

    /// Beside its file; a batch's ticket in the upload folder.
    ///
    /// # Errors
    /// The database, or a file that is not placed.
    pub(super) async fn ticket_target(&self, row: &DeliveryRow) -> Result<Target, Failed> {
        let pattern = &self.config.jobticket.name;
        if !row.batch.is_empty() {
            let upload = uploads::upload(self.store.db(), &row.upload_id).await?;
            let upload = upload.ok_or_else(|| placing::odd("the ticket's file is not there"))?;
            let name =
                pattern.replace("{stem}", &upload.project_no).replace("{name}", &upload.project_no);
            let folders = mirror::folders_of(self, &upload).await?;
            return Ok(Target { folders, name: hotname::safe_file_name(&name), second: None });
        }
        let placed = deliveries::placed_of(self.store.db(), &row.upload_id).await?;
        let placed = placed.ok_or_else(|| placing::odd("the ticket's file is not placed"))?;
        let path = Path::new(&placed);
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let name_for = |stem: &str| {
            let name = pattern.replace("{stem}", stem).replace("{name}", &text(path.file_name()));
            hotname::safe_file_name(&name)
        };
        let above: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
        let folders = above.iter().map(|part| hotname::safe_folder_name(&part.to_string_lossy()));
        Ok(Target {
            folders: folders.collect(),
            name: name_for(&text(path.file_stem())),
            // Beside fly.pdf the ticket of fly.indd is fly.indd.xml: "fly (2).xml" would tell of "fly (2).pdf".
            second: pattern.contains("{stem}").then(|| name_for(&text(path.file_name()))),
        })
    }

    /// The content of the ticket that `earlier` placed, if it told of the same file in the hotfolder as `row` does.
    pub(super) async fn earlier_ticket(
        &self,
        row: &DeliveryRow,
        earlier: &DeliveryRow,
    ) -> store::Result<Option<ContentHash>> {
        if !row.batch.is_empty() || !earlier.batch.is_empty() {
            return Ok(None);
        }
        let told_of = deliveries::placed_of(self.store.db(), &earlier.upload_id).await?;
        let tells_of = deliveries::placed_of(self.store.db(), &row.upload_id).await?;
        Ok(ContentHash::from_row(&earlier.sha256).filter(|_| told_of == tells_of))
    }

    /// The ticket that goes with an internal mail. The mail goes out without it rather than not at all.
    pub(super) async fn ticket_for_mail(
        &self,
        mail: &MailRow,
    ) -> store::Result<Option<Attachment>> {
        let config = &self.config.jobticket;
        let is_wanted = config.attach
            && config.format != TicketFormat::Off
            && MailKind::parse(&mail.template) == Some(MailKind::DataArrived)
            && !mail.batch.is_empty();
        if !is_wanted {
            return Ok(None);
        }
        let files = batches::files(self.store.db(), &mail.batch).await?;
        let made = async {
            let ticket = (mail.batch.as_str(), Timestamp(mail.created));
            let values = self.ticket_values(ticket, true, &files).await?;
            self.render_ticket(values).await.map_err(placing::odd)
        };
        match made.await {
            Ok(text) if text.len() > ATTACHED_MAX => {
                tracing::warn!(
                    mail = mail.id,
                    files = files.len(),
                    "the job ticket is too large for a mail, which goes without; what lies in the hotfolder has all"
                );
                Ok(None)
            }
            Ok(text) => Ok(Some(Attachment {
                name: hotname::safe_file_name(&format!("{}.xml", mail.project_no)).to_string(),
                mime: "application/xml",
                content: text.into_bytes(),
            })),
            Err(Failed::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, mail = mail.id, "the job ticket of a mail could not be made; it goes without");
                Ok(None)
            }
        }
    }
}

/// MD5 of a sealed content, in hex.
///
/// # Errors
/// What the disk says.
pub(super) async fn sum(app: &App, id: &Id) -> std::io::Result<String> {
    let mut file = app.vault.open_sealed(id)?;
    blocking(move || {
        let (mut md5, mut buffer) = (Md5::new(), vec![0u8; 1 << 20]);
        loop {
            let n = file.read(&mut buffer)?;
            match buffer.get(..n) {
                Some(piece) if !piece.is_empty() => md5.update(piece),
                Some(_) | None => return Ok(hex::encode(md5.finalize())),
            }
        }
    })
    .await
}

fn built_in(app: &App) -> &'static str {
    match app.config.jobticket.format {
        TicketFormat::Xjdf => template::XJDF,
        TicketFormat::Xml | TicketFormat::Off => template::XML,
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
