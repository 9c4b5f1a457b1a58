//! Mails as operators handle them: look, preview, send a draft, write one by hand.

use super::App;
use super::clients::{Refused, because, missing};
use super::invite::{self, About};
use crate::domain::account::Status;
use crate::domain::mail::MailState;
use crate::store::mails::{self, MailRow};
use crate::store::{accounts, clients, orders};
use crate::template::mail::Rendered;

impl App {
    /// # Errors
    /// No such mail.
    pub async fn mail(&self, id: &str) -> Result<MailRow, Refused> {
        match mails::mail(self.store.db(), id).await? {
            Some(row) => Ok(row),
            None => missing(format!("there is no mail {id}; `mail list` shows all")),
        }
    }

    /// A mail as it would be sent now; links lead to the page that gives a fresh one.
    ///
    /// # Errors
    /// The template's problem.
    pub async fn preview(&self, mail: &MailRow) -> Result<Rendered, Refused> {
        self.fill(mail, &self.plain_links()).await?.map_err(Refused::Because)
    }

    /// Queues a draft, or a mail that failed.
    ///
    /// # Errors
    /// No such mail, one that is sent, or still no address.
    pub async fn send_mail(&self, id: &str) -> Result<MailRow, Refused> {
        let mut mail = self.mail(id).await?;
        if mail.state == MailState::Sent.as_str() {
            return because(format!(
                "mail {id} is sent already; `mail send --template …` makes another"
            ));
        }
        let mut work = self.begin().await?;
        let (mut recipient, mut name) = (mail.recipient.clone(), mail.recipient_name.clone());
        if recipient.is_empty()
            && let Some(client) = clients::client(work.tx.db(), &mail.client_no).await?
            && let Some(account) = accounts::account(work.tx.db(), &mail.username).await?
        {
            let project = orders::project(work.tx.db(), &mail.project_no).await?;
            let about = About { client: &client, project: project.as_ref(), account: &account };
            (recipient, name) = invite::address(&mut work.tx, about).await?;
        }
        if recipient.is_empty() {
            return because(format!(
                "there is no address for client {}; add a contact or `client set --email`",
                mail.client_no
            ));
        }
        if mails::queue(work.tx.db(), id, (&recipient, &name), work.now).await? == 0 {
            return because(format!(
                "mail {id} is being sent in this moment; see `mail show {id}`"
            ));
        }
        MailState::Queued.as_str().clone_into(&mut mail.state);
        mail.reason.clear();
        work.note_mail(mail);
        work.commit().await?;
        self.mail(id).await
    }

    /// Writes a mail by hand: from a template, to a client, from a user who gets a copy.
    ///
    /// # Errors
    /// No such template, client, project, account or user; no address.
    pub async fn write_mail(
        &self,
        template: &str,
        (client_no, project_no): (&str, Option<&str>),
        user: Option<&str>,
    ) -> Result<MailRow, Refused> {
        let mut mail = self.unsent_mail(template, (client_no, project_no)).await?;
        let row = self.template(template).await?;
        let sender = user.map_or(row.owner, str::to_owned);
        if sender.is_empty() {
            return because(format!("template {template} has no user; name one with --as"));
        }
        let user = self.user(&sender).await?;
        if mail.recipient.is_empty() {
            return because(format!(
                "there is no address for client {client_no}; add a contact or `client set --email`"
            ));
        }
        mail.sender = user.name;
        mail.copy = user.email;
        let id = mail.id.clone();
        let mut work = self.begin().await?;
        work.write_mail(mail).await?;
        work.commit().await?;
        self.mail(&id).await
    }

    /// A mail that stands nowhere yet: for a preview, or to be written down.
    ///
    /// # Errors
    /// No such template, client or project.
    pub async fn unsent_mail(
        &self,
        template: &str,
        (client_no, project_no): (&str, Option<&str>),
    ) -> Result<MailRow, Refused> {
        self.template(template).await?;
        let client = self.client(client_no).await?;
        let project = match project_no {
            None => None,
            Some(no) => Some(self.project(no).await?),
        };
        if project.as_ref().is_some_and(|project| project.client_no != client_no) {
            return because("the project belongs to another client".to_owned());
        }
        let rows = accounts::accounts_of(self.store.db(), client_no).await?;
        let account = rows.iter().find(|row| row.status() == Status::Active).or(rows.first());
        let Some(account) = account else {
            return because(format!(
                "client {client_no} has no account; `account create {client_no}`"
            ));
        };
        // Nothing is written: the work is dropped.
        let mut work = self.begin().await?;
        let about = About { client: &client, project: project.as_ref(), account };
        invite::new_mail(&mut work, about, (template, None)).await
    }
}
