//! Mails about data: what came in, what is ready for the customer, a virus (spec section 13).

use std::time::Duration;

use super::App;
use super::clients::Refused;
use super::invite::{self, About};
use super::work::Work;
use crate::config::Patience;
use crate::domain::account::Status;
use crate::domain::mail::{MailKind, MailState};
use crate::domain::time::Timestamp;
use crate::store::accounts::{self, AccountRow};
use crate::store::batches::BatchRow;
use crate::store::mails::MailRow;
use crate::store::uploads::UploadRow;
use crate::store::{self, clients, orders, templates};

/// Between the end of an upload and its answer something may lie beside the wait for the verdict.
const MARGIN: Duration = Duration::from_millis(500);

/// What a mail tells of.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Batch(&'a BatchRow),
    Upload(&'a UploadRow),
}

impl<'a> Subject<'a> {
    fn client_no(self) -> &'a str {
        match self {
            Self::Batch(row) => &row.client_no,
            Self::Upload(row) => &row.client_no,
        }
    }

    fn project_no(self) -> &'a str {
        match self {
            Self::Batch(row) => &row.project_no,
            Self::Upload(row) => &row.project_no,
        }
    }

    fn username(self) -> &'a str {
        match self {
            Self::Batch(row) => &row.username,
            Self::Upload(row) => &row.username,
        }
    }

    fn stand_on(self, mail: &mut MailRow) {
        match self {
            Self::Batch(row) => mail.batch.clone_from(&row.id),
            Self::Upload(row) => {
                mail.upload_id.clone_from(&row.id);
                mail.ticket_no.clone_from(&row.ticket_no);
            }
        }
    }
}

/// The customer's files of a batch: to operators and, if that is switched on, a receipt.
pub(super) async fn arrived(work: &mut Work<'_>, batch: &BatchRow) -> store::Result<()> {
    to_operators(work, MailKind::DataArrived, Subject::Batch(batch)).await?;
    to_customer(work, MailKind::Receipt, Subject::Batch(batch)).await
}

/// Staff's files of a batch: to the customer, if that is switched on.
pub(super) async fn published(work: &mut Work<'_>, batch: &BatchRow) -> store::Result<()> {
    to_customer(work, MailKind::FilesReady, Subject::Batch(batch)).await
}

/// A virus: to operators, and to a customer who had been told that all is well.
pub(super) async fn virus(
    work: &mut Work<'_>,
    upload: &UploadRow,
    found: Timestamp,
) -> store::Result<()> {
    to_operators(work, MailKind::VirusFound, Subject::Upload(upload)).await?;
    if is_from_customer(upload) && was_answered(work.app, upload, found) {
        to_customer(work, MailKind::VirusFoundLate, Subject::Upload(upload)).await?;
    }
    Ok(())
}

fn is_from_customer(upload: &UploadRow) -> bool {
    upload.protocol != super::publish::PROTOCOL
}

/// Whether the client had its answer before the virus was found.
fn was_answered(app: &App, upload: &UploadRow, found: Timestamp) -> bool {
    let patience = match app.config.scan.answer_within {
        Patience::Verdict => return false,
        Patience::For(patience) => patience,
    };
    let answered = Timestamp(upload.completed).plus(patience.saturating_sub(MARGIN));
    upload.told_pending != 0 || (upload.completed != 0 && found >= answered)
}

async fn to_operators(
    work: &mut Work<'_>,
    kind: MailKind,
    subject: Subject<'_>,
) -> store::Result<()> {
    let template = templates::template(work.tx.db(), kind.as_str()).await?;
    if template.as_ref().is_some_and(|row| row.status != "active") {
        return Ok(());
    }
    let owner = template.map(|row| row.owner).unwrap_or_default();
    let owner = templates::user(work.tx.db(), &owner).await?.map(|user| user.email);
    for address in operators(work.app, owner) {
        let (app, now) = (work.app, work.now);
        let mut mail = MailRow {
            id: app.new_id().to_string(),
            template: kind.as_str().to_owned(),
            client_no: subject.client_no().to_owned(),
            project_no: subject.project_no().to_owned(),
            username: subject.username().to_owned(),
            language: app.config.language.to_string(),
            recipient: address,
            state: MailState::Queued.as_str().to_owned(),
            queued: now.0,
            next_try: now.0,
            created: now.0,
            updated: now.0,
            ..MailRow::default()
        };
        subject.stand_on(&mut mail);
        work.write_mail(mail).await?;
    }
    Ok(())
}

/// `mail.operators`, else the template's user, else the mail account itself.
fn operators(app: &App, owner: Option<String>) -> Vec<String> {
    match (&app.config.mail.operators, owner) {
        (given, _) if !given.is_empty() => given.clone(),
        (_, Some(owner)) => vec![owner],
        (_, None) => vec![app.own_address()],
    }
}

async fn to_customer(
    work: &mut Work<'_>,
    kind: MailKind,
    subject: Subject<'_>,
) -> store::Result<()> {
    let made = async {
        if !invite::is_switched_on(work, kind).await? {
            return Ok(None);
        }
        let Some(client) = clients::client(work.tx.db(), subject.client_no()).await? else {
            return Ok(None);
        };
        let project = orders::project(work.tx.db(), subject.project_no()).await?;
        let Some(account) = account_of(work, subject).await? else { return Ok(None) };
        let about = About { client: &client, project: project.as_ref(), account: &account };
        invite::new_mail(work, about, (kind.as_str(), None)).await.map(Some)
    };
    match made.await {
        Ok(None) => Ok(()),
        Ok(Some(mut mail)) => {
            subject.stand_on(&mut mail);
            work.write_mail(mail).await
        }
        Err(Refused::Store(error)) => Err(error),
        Err(refused) => {
            // The files are where they should be; a mail that cannot be made must not stop what follows from others.
            tracing::error!(%refused, template = kind.as_str(), "a mail to a customer could not be made");
            Ok(())
        }
    }
}

/// Who sent it, else the client's oldest active account.
async fn account_of(
    work: &mut Work<'_>,
    subject: Subject<'_>,
) -> store::Result<Option<AccountRow>> {
    let sender = accounts::account(work.tx.db(), subject.username()).await?;
    if let Some(row) = sender.filter(|row| row.status() == Status::Active) {
        return Ok(Some(row));
    }
    let rows = accounts::accounts_of(work.tx.db(), subject.client_no()).await?;
    Ok(rows.into_iter().find(|row| row.status() == Status::Active))
}
