//! Mails that follow from what happens: who gets them, and whether they are sent or kept as drafts (spec section 11).

use super::clients::Refused;
use super::work::Work;
use crate::domain::decision::{Decision, Invitation, Reminder, UploadRequests};
use crate::domain::event::{Event, EventKind};
use crate::domain::mail::{MailKind, MailState};
use crate::store::accounts::{self, AccountRow};
use crate::store::clients::{self, ClientRow};
use crate::store::mails::{self, MailRow};
use crate::store::orders::{self, ProjectRow, TicketRow};
use crate::store::{WriteTx, templates};

/// No second activation mail within this time.
const INVITED_LATELY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
const NO_ADDRESS: &str = "there is no address: neither the project's contact, nor a favourite contact, nor the client has one";
const SENDING_IS_OFF: &str =
    "portal_send_uplogin_email_automatically is 0: an operator sends it with `mail send`";

/// Whom a mail is about.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) client: &'a ClientRow,
    pub(super) project: Option<&'a ProjectRow>,
    pub(super) account: &'a AccountRow,
}

/// Whether a mail goes out by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Now,
    /// A person decides.
    ByHand,
}

/// The mails that a decision asks for.
pub(super) async fn after_announcement(
    work: &mut Work<'_>,
    about: About<'_>,
    decision: &Decision,
    new_tickets: &[TicketRow],
) -> Result<(), Refused> {
    match decision.invitation {
        Invitation::No => {}
        Invitation::Send => invitation(work, about, Sending::Now).await?,
        Invitation::Draft => invitation(work, about, Sending::ByHand).await?,
    }
    let tickets: Vec<Option<&TicketRow>> = match decision.requests {
        UploadRequests::None => Vec::new(),
        UploadRequests::Project => vec![None],
        UploadRequests::Tickets => new_tickets.iter().map(Some).collect(),
    };
    for ticket in tickets {
        upload_request(work, about, ticket).await?;
    }
    Ok(())
}

/// An activation mail, unless one is on its way or came lately. A draft that waits is sent if sending is on by now.
async fn invitation(
    work: &mut Work<'_>,
    about: About<'_>,
    sending: Sending,
) -> Result<(), Refused> {
    let kind = MailKind::Access;
    if !is_switched_on(work, kind).await? {
        return Ok(());
    }
    let since = work.now.minus(INVITED_LATELY);
    let (of, created) = ((about.account.username.as_str(), kind.as_str()), about.account.created);
    match mails::recent_of_account(work.tx.db(), of, created, since).await? {
        None => make(work, about, (kind, None), sending).await,
        Some(mut mail) if mail.state == MailState::Draft.as_str() && sending == Sending::Now => {
            let (recipient, name) = address(&mut work.tx, about).await?;
            if recipient.is_empty() {
                return Ok(());
            }
            mails::queue(work.tx.db(), &mail.id, (&recipient, &name), work.now).await?;
            MailState::Queued.as_str().clone_into(&mut mail.state);
            mail.reason.clear();
            (mail.recipient, mail.recipient_name) = (recipient, name);
            work.note_mail(mail);
            Ok(())
        }
        Some(_) => Ok(()),
    }
}

async fn upload_request(
    work: &mut Work<'_>,
    about: About<'_>,
    ticket: Option<&TicketRow>,
) -> Result<(), Refused> {
    let kind = MailKind::UploadRequest;
    if is_switched_on(work, kind).await? {
        make(work, about, (kind, ticket), Sending::Now).await?;
    }
    Ok(())
}

/// A template that is inactive sends no mails by itself.
pub(super) async fn is_switched_on(work: &mut Work<'_>, kind: MailKind) -> Result<bool, Refused> {
    let row = templates::template(work.tx.db(), kind.as_str()).await?;
    Ok(row.is_none_or(|row| row.status == "active"))
}

/// A mail that stands nowhere yet: queued, or a draft when there is no address.
pub(super) async fn new_mail(
    work: &mut Work<'_>,
    about: About<'_>,
    (template, ticket): (&str, Option<&TicketRow>),
) -> Result<MailRow, Refused> {
    let (recipient, recipient_name) = address(&mut work.tx, about).await?;
    let (state, reason) =
        if recipient.is_empty() { (MailState::Draft, NO_ADDRESS) } else { (MailState::Queued, "") };
    let default = accounts::system_default(work.tx.db(), "ptportal").await?.unwrap_or_default();
    let settings = super::accounts::settings_of(about.account, &default, Some(about.client))?;
    let (app, now) = (work.app, work.now);
    Ok(MailRow {
        id: app.new_id().to_string(),
        template: template.to_owned(),
        client_no: about.client.client_no.clone(),
        project_no: about.project.map(|p| p.project_no.clone()).unwrap_or_default(),
        ticket_no: ticket.map(|t| t.ticket_no.clone()).unwrap_or_default(),
        username: about.account.username.clone(),
        language: settings.language.unwrap_or(app.config.language).to_string(),
        recipient,
        recipient_name,
        state: state.as_str().to_owned(),
        reason: reason.to_owned(),
        queued: now.0,
        next_try: now.0,
        created: now.0,
        updated: now.0,
        ..MailRow::default()
    })
}

/// Writes a mail of this kind down.
pub(super) async fn make(
    work: &mut Work<'_>,
    about: About<'_>,
    (kind, ticket): (MailKind, Option<&TicketRow>),
    sending: Sending,
) -> Result<(), Refused> {
    let mut mail = new_mail(work, about, (kind.as_str(), ticket)).await?;
    if sending == Sending::ByHand && mail.reason.is_empty() {
        MailState::Draft.as_str().clone_into(&mut mail.state);
        SENDING_IS_OFF.clone_into(&mut mail.reason);
    }
    Ok(work.write_mail(mail).await?)
}

/// Queued or kept, with the reason.
pub(super) fn event_of(mail: &MailRow) -> Event {
    let kind = if mail.state == MailState::Draft.as_str() {
        EventKind::MailDrafted
    } else {
        EventKind::MailQueued
    };
    let event = Event::new(kind)
        .client(&mail.client_no)
        .account(&mail.username)
        .project(&mail.project_no)
        .with("mail", mail.id.clone())
        .with("template", mail.template.clone());
    if mail.reason.is_empty() { event } else { event.with("reason", mail.reason.clone()) }
}

/// Address and name, in this order: the project's contact, the client's favourite, the client itself.
pub(super) async fn address(
    tx: &mut WriteTx,
    about: About<'_>,
) -> Result<(String, String), Refused> {
    let contacts = clients::contacts(tx.db(), &about.client.client_no).await?;
    let named = about.project.and_then(|p| contacts.iter().find(|c| c.id == p.contact));
    let chosen = named.or_else(|| contacts.iter().find(|c| c.favourite != 0));
    Ok(match chosen {
        Some(contact) => (contact.email.clone(), contact.name.clone()),
        None => (about.client.email.clone(), String::new()),
    })
}

/// An account has become active: its client's open projects appear, and one mail tells of it.
pub(super) async fn welcome(work: &mut Work<'_>, account: &AccountRow) -> Result<(), Refused> {
    let Some(client) = clients::client(work.tx.db(), &account.client_no).await? else {
        return Ok(());
    };
    let projects = orders::visible_projects(work.tx.db(), &account.client_no).await?;
    let Some(newest) = projects.iter().max_by_key(|project| project.created) else {
        return Ok(());
    };
    let about = About { client: &client, project: Some(newest), account };
    let switches = work.app.client_ini.current().switches;
    match (account.is_activated(), switches.reminder) {
        (false, _) => {
            let sending = if switches.send { Sending::Now } else { Sending::ByHand };
            invitation(work, about, sending).await
        }
        (true, Reminder::Never) => Ok(()),
        (true, Reminder::EachProject | Reminder::EachTicket) => {
            upload_request(work, about, None).await
        }
    }
}
