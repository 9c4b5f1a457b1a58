//! Mails that follow from what happens: who gets them, and whether they are sent or kept as drafts (spec section 11).

use super::App;
use super::clients::Refused;
use crate::domain::decision::{Decision, Invitation, Reminder, UploadRequests};
use crate::domain::event::{Event, EventKind};
use crate::domain::mail::{MailKind, MailState};
use crate::domain::time::Timestamp;
use crate::logging;
use crate::store::accounts::{self, AccountRow};
use crate::store::clients::{self, ClientRow};
use crate::store::mails::{self, MailRow};
use crate::store::orders::{self, ProjectRow, TicketRow};
use crate::store::{WriteTx, events};

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

/// The mails that a decision asks for, and the events that tell of them.
pub(super) async fn after_announcement(
    app: &App,
    tx: &mut WriteTx,
    about: About<'_>,
    (decision, new_tickets): (&Decision, &[TicketRow]),
    now: Timestamp,
) -> Result<(Vec<MailRow>, Vec<Event>), Refused> {
    let mut made = Vec::new();
    let sending = match decision.invitation {
        Invitation::No => None,
        Invitation::Send => Some(Sending::Now),
        Invitation::Draft => Some(Sending::ByHand),
    };
    if let Some(sending) = sending {
        made.extend(invitation(app, tx, about, sending, now).await?);
    }
    let tickets: Vec<Option<&TicketRow>> = match decision.requests {
        UploadRequests::None => Vec::new(),
        UploadRequests::Project => vec![None],
        UploadRequests::Tickets => new_tickets.iter().map(Some).collect(),
    };
    for ticket in tickets {
        let kind = MailKind::UploadRequest;
        if is_switched_on(tx, kind).await? {
            made.push(make(app, tx, about, (kind, ticket), Sending::Now).await?);
        }
    }
    let told = made.iter().map(event_of).collect();
    Ok((made, told))
}

/// An activation mail, unless one is on its way or came lately. A draft that waits is sent if sending is on by now.
async fn invitation(
    app: &App,
    tx: &mut WriteTx,
    about: About<'_>,
    sending: Sending,
    now: Timestamp,
) -> Result<Option<MailRow>, Refused> {
    let kind = MailKind::Access;
    if !is_switched_on(tx, kind).await? {
        return Ok(None);
    }
    let since = now.minus(INVITED_LATELY);
    let (username, created) = (about.account.username.as_str(), about.account.created);
    match mails::recent_of_account(tx.db(), (username, kind.as_str()), created, since).await? {
        None => Ok(Some(make(app, tx, about, (kind, None), sending).await?)),
        Some(mut mail) if mail.state == MailState::Draft.as_str() && sending == Sending::Now => {
            let (recipient, name) = address(tx, about).await?;
            if recipient.is_empty() {
                return Ok(None);
            }
            mails::queue(tx.db(), &mail.id, (&recipient, &name), now).await?;
            MailState::Queued.as_str().clone_into(&mut mail.state);
            mail.reason.clear();
            mail.recipient = recipient;
            Ok(Some(mail))
        }
        Some(_) => Ok(None),
    }
}

/// A template that is inactive sends no mails by itself.
async fn is_switched_on(tx: &mut WriteTx, kind: MailKind) -> Result<bool, Refused> {
    let row = crate::store::templates::template(tx.db(), kind.as_str()).await?;
    Ok(row.is_none_or(|row| row.status == "active"))
}

/// A mail that stands nowhere yet, queued, or a draft when there is no address.
pub(super) async fn new_mail(
    app: &App,
    tx: &mut WriteTx,
    about: About<'_>,
    (template, ticket): (&str, Option<&TicketRow>),
) -> Result<MailRow, Refused> {
    let (recipient, recipient_name) = address(tx, about).await?;
    let (state, reason) =
        if recipient.is_empty() { (MailState::Draft, NO_ADDRESS) } else { (MailState::Queued, "") };
    let default = accounts::system_default(tx.db(), "ptportal").await?.unwrap_or_default();
    let settings = super::accounts::settings_of(about.account, &default, Some(about.client))?;
    let now = app.now();
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
    app: &App,
    tx: &mut WriteTx,
    about: About<'_>,
    (kind, ticket): (MailKind, Option<&TicketRow>),
    sending: Sending,
) -> Result<MailRow, Refused> {
    let mut row = new_mail(app, tx, about, (kind.as_str(), ticket)).await?;
    if sending == Sending::ByHand && row.reason.is_empty() {
        MailState::Draft.as_str().clone_into(&mut row.state);
        SENDING_IS_OFF.clone_into(&mut row.reason);
    }
    write_down(tx, &row).await?;
    Ok(row)
}

/// The row, and the news of it for whoever sends.
pub(super) async fn write_down(tx: &mut WriteTx, row: &MailRow) -> Result<(), Refused> {
    mails::insert(tx.db(), row).await?;
    events::note_change(tx.db(), "mail", &row.id, Timestamp(row.created)).await?;
    Ok(())
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

impl App {
    /// An account has become active: its client's open projects appear, and one mail tells of it.
    pub(super) async fn welcome(
        &self,
        tx: &mut WriteTx,
        account: &AccountRow,
        now: Timestamp,
    ) -> Result<Option<MailRow>, Refused> {
        let Some(client) = clients::client(tx.db(), &account.client_no).await? else {
            return Ok(None);
        };
        let projects = orders::visible_projects(tx.db(), &account.client_no).await?;
        let Some(newest) = projects.iter().max_by_key(|project| project.created) else {
            return Ok(None);
        };
        let about = About { client: &client, project: Some(newest), account };
        let switches = self.client_ini.current().switches;
        let made = if !account.is_activated() {
            let sending = if switches.send { Sending::Now } else { Sending::ByHand };
            invitation(self, tx, about, sending, now).await?
        } else if switches.reminder != Reminder::Never
            && is_switched_on(tx, MailKind::UploadRequest).await?
        {
            let kind = (MailKind::UploadRequest, None);
            Some(make(self, tx, about, kind, Sending::Now).await?)
        } else {
            None
        };
        if let Some(mail) = &made {
            events::insert(tx.db(), &event_of(mail), now).await?;
        }
        Ok(made)
    }

    /// After the commit: the log, the subject, and the worker.
    pub(super) async fn tell_of_mail(&self, mail: Option<MailRow>) {
        let Some(mail) = mail else { return };
        logging::event(&event_of(&mail));
        self.note_subject(&mail).await;
        self.mails_wake.notify_one();
    }
}
