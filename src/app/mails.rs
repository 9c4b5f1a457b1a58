//! The mail queue: rows are claimed under a lease, filled from their template, and handed to the mail server. The token
//! of a link is made here, when the mail is sent, and counts from the moment the server took it (spec section 11).

use std::sync::Arc;
use std::time::Duration;

use super::activation::random_token;
use super::mail_values::Links;
use super::{App, workers};
use crate::domain::account::Status;
use crate::domain::activation::{ALIVE_MAX, Token};
use crate::domain::event::{Event, EventKind};
use crate::domain::mail::{MailKind, MailState, TokenPlace};
use crate::domain::order::ProjectState;
use crate::mailer::{self, Letter, Mailer, Party};
use crate::steps;
use crate::store::mails::{self, MailRow};
use crate::store::{self, accounts, activation, orders, templates};
use crate::template::mail::{self as template, Rendered};

/// Mails that are sent at once: a server that answers slowly delays one of them.
const WORKERS: usize = 2;
const POLL: Duration = Duration::from_secs(5);
/// Longer than the slowest mail server is waited for.
const LEASE: Duration = Duration::from_secs(600);
/// Given up after this.
const GIVE_UP: Duration = Duration::from_secs(3 * 24 * 3600);
/// Pauses between tries; the last one again and again. Greylisting servers want some minutes.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(3 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(15 * 60),
];

/// How an attempt ended.
enum Outcome {
    Sent,
    Later(String),
    Failed(String),
    /// Only a person can go on.
    Draft(String),
}

/// Sends what is due until shutdown.
pub fn start(app: &Arc<App>) {
    for _ in 0..WORKERS {
        workers::keep(app, "mails", run);
    }
}

async fn run(app: Arc<App>) {
    loop {
        match app.send_next().await {
            Ok(true) if !app.stop.is_cancelled() => continue,
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the mail queue cannot be read"),
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = app.mails_wake.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

impl App {
    /// Where mails go now.
    #[must_use]
    pub fn mailer(&self) -> Mailer {
        match &self.client_ini.current().smtp {
            Some(smtp) => Mailer::Smtp(smtp.clone()),
            None => Mailer::Directory(mailer::directory(&self.config.data_dir)),
        }
    }

    /// Sends the oldest mail that is due; false when none is.
    async fn send_next(&self) -> store::Result<bool> {
        let now = self.now();
        // One for each claim: two workers of one server are two owners.
        let owner = format!("{}/{}", self.node, self.new_id());
        let lease = (owner.as_str(), now.plus(LEASE));
        let Some(mail) = mails::claim(self.store.db(), lease, now).await? else { return Ok(false) };
        // Another one may be due: the other worker need not wait for its poll.
        self.mails_wake.notify_one();
        let (outcome, link) = self.attempt(&mail).await;
        steps::reach("mail.sent");
        self.settle_mail(&mail, outcome, link.as_deref()).await?;
        Ok(true)
    }

    /// One try; gives the id of the link that stands in the mail.
    async fn attempt(&self, mail: &MailRow) -> (Outcome, Option<String>) {
        match self.prepare(mail).await {
            Err(refusal) => (refusal, None),
            Ok((letter, link)) => {
                match self.mailer().send(&mail.id, &letter, &self.host_name).await {
                    Ok(()) => (Outcome::Sent, link),
                    Err(mailer::Refused::Now(error)) => {
                        self.forget_link(link).await;
                        (Outcome::Later(error), None)
                    }
                    Err(mailer::Refused::ForGood(error)) => {
                        self.forget_link(link).await;
                        (Outcome::Failed(error), None)
                    }
                    // The mail may have arrived, so its link stays.
                    Err(mailer::Refused::Perhaps(error)) => (Outcome::Later(error), None),
                }
            }
        }
    }

    async fn forget_link(&self, link: Option<String>) {
        let Some(link) = link else { return };
        if let Err(error) = activation::delete(self.store.db(), &link).await {
            tracing::warn!(%error, "a link that was never sent stays until it expires");
        }
    }

    /// Token, texts and addresses of one try.
    async fn prepare(&self, mail: &MailRow) -> Result<(Letter, Option<String>), Outcome> {
        let away = |error: store::StoreError| Outcome::Later(format!("database: {error}"));
        if mail.recipient.is_empty() {
            return Err(Outcome::Draft("there is no address".to_owned()));
        }
        let kind = MailKind::parse(&mail.template);
        if mail.sender.is_empty()
            && !kind.is_some_and(MailKind::is_internal)
            && let Some(reason) = self.outdated(mail).await.map_err(away)?
        {
            return Err(Outcome::Draft(reason.to_owned()));
        }
        let mut links = self.plain_links();
        let mut link = None;
        if let Some(place) = kind.and_then(MailKind::token_place) {
            let (id, token) = self.fresh_link(mail, place).await?;
            let address = self.link_address(&token);
            match place {
                TokenPlace::FirstLink => links.first = address,
                TokenPlace::Link => links.again = address,
            }
            link = Some(id);
        }
        match self.fill(mail, &links).await {
            Ok(Ok(rendered)) => match self.letter(mail, rendered).await {
                Ok(letter) => Ok((letter, link)),
                Err(error) => {
                    self.forget_link(link).await;
                    Err(away(error))
                }
            },
            Ok(Err(problem)) => {
                self.forget_link(link).await;
                Err(Outcome::Draft(problem))
            }
            Err(error) => {
                self.forget_link(link).await;
                Err(away(error))
            }
        }
    }

    /// Why a mail that was made by itself is not wanted any more.
    async fn outdated(&self, mail: &MailRow) -> store::Result<Option<&'static str>> {
        let account = accounts::account(self.store.db(), &mail.username).await?;
        if account.is_none_or(|account| account.status() != Status::Active) {
            return Ok(Some("the account is gone or inactive"));
        }
        if mail.project_no.is_empty() {
            return Ok(None);
        }
        let project = orders::project(self.store.db(), &mail.project_no).await?;
        let is_open = project.is_some_and(|p| p.state == ProjectState::Open.as_str());
        let is_about_it = mail.template == MailKind::UploadRequest.as_str();
        Ok((is_about_it && !is_open).then_some("the project is closed"))
    }

    /// A token for the mail's account, good from now on, so that a customer who is faster than the mail server's
    /// answer gets in.
    async fn fresh_link(
        &self,
        mail: &MailRow,
        place: TokenPlace,
    ) -> Result<(String, Token), Outcome> {
        let away = |error: store::StoreError| Outcome::Later(format!("database: {error}"));
        let account = accounts::account(self.store.db(), &mail.username).await.map_err(away)?;
        let Some(account) = account.filter(|account| account.status() == Status::Active) else {
            return Err(Outcome::Draft("the account is gone or inactive".to_owned()));
        };
        let is_automatic = mail.sender.is_empty();
        if place == TokenPlace::FirstLink && account.is_activated() && is_automatic {
            let reason = "not needed any more: the account is activated";
            return Err(Outcome::Draft(reason.to_owned()));
        }
        let token = random_token().map_err(|error| Outcome::Later(error.to_string()))?;
        let (id, now) = (self.new_id().to_string(), self.now());
        let expires = now.plus(self.config.portal.link_ttl);
        let (row, hash) = ((id.as_str(), account.username.as_str()), token.hash());
        activation::insert(self.store.db(), row, (&hash, &mail.id), expires, now)
            .await
            .map_err(away)?;
        Ok((id, token))
    }

    /// The template in the mail's language, filled; the inner error is the template's.
    pub(super) async fn fill(
        &self,
        mail: &MailRow,
        links: &Links,
    ) -> store::Result<Result<Rendered, String>> {
        let values = self.mail_values(mail, links).await?;
        let Some(row) = self.template_for(&mail.template, &mail.language).await? else {
            let name = &mail.template;
            return Ok(Err(format!("there is no template {name}; make it with `template set`")));
        };
        let signature = templates::active_signature(self.store.db()).await?.unwrap_or_default();
        let signature = template::Signature {
            head_html: signature.head_html,
            foot_html: signature.foot_html,
            head_text: signature.head_text,
            foot_text: signature.foot_text,
        };
        let (language, name) = (mail.language.clone(), row.name.clone());
        // Text is made from HTML: that may take a while for a large one.
        let filled = tokio::task::spawn_blocking(move || {
            template::render((&row.subject, &row.content), &values, &signature, &language)
        });
        Ok(match filled.await {
            Ok(filled) => filled.map_err(|error| format!("template {name}: {error}")),
            Err(error) => Err(format!("template {name}: {error}")),
        })
    }

    /// The mail account, or what stands for it in files.
    pub(super) fn own_address(&self) -> String {
        match &self.client_ini.current().smtp {
            Some(smtp) => smtp.email.clone(),
            None => format!("ptportal@{}", self.config.web.base_url.host()),
        }
    }

    async fn letter(&self, mail: &MailRow, rendered: Rendered) -> store::Result<Letter> {
        let user = templates::user(self.store.db(), &mail.sender).await?;
        let own = self.own_address();
        let from = match &user {
            Some(user) => Party { name: user.name.clone(), address: user.email.clone() },
            None => Party { name: String::new(), address: own.clone() },
        };
        let host = own.rsplit('@').next().unwrap_or("localhost").to_owned();
        Ok(Letter {
            message_id: format!("<{}@{host}>", mail.id.to_lowercase()),
            to: Party { name: mail.recipient_name.clone(), address: mail.recipient.clone() },
            copy: user.map(|user| Party { name: user.name, address: user.email }),
            is_automatic: mail.sender.is_empty(),
            attachment: self.ticket_for_mail(mail).await?,
            from,
            subject: rendered.subject,
            html: rendered.html,
            text: rendered.text,
        })
    }

    async fn settle_mail(
        &self,
        mail: &MailRow,
        outcome: Outcome,
        link: Option<&str>,
    ) -> store::Result<()> {
        let now = self.now();
        let claim = (mail.id.as_str(), mail.lease_owner.as_str());
        let is_over = now.0.saturating_sub(mail.queued) > millis(GIVE_UP);
        let mut work = self.begin().await?;
        let (state, reason, next) = match &outcome {
            Outcome::Sent => (MailState::Sent, "", now),
            Outcome::Failed(reason) => (MailState::Failed, reason.as_str(), now),
            Outcome::Draft(reason) => (MailState::Draft, reason.as_str(), now),
            Outcome::Later(reason) if is_over => (MailState::Failed, reason.as_str(), now),
            Outcome::Later(reason) => {
                (MailState::Queued, reason.as_str(), now.plus(pause(mail.attempts)))
            }
        };
        let done = mails::finish(work.tx.db(), claim, (state.as_str(), reason), next, now).await?;
        if let (MailState::Sent, Some(link)) = (state, link) {
            let expires = now.plus(self.config.portal.link_ttl);
            activation::set_sent(work.tx.db(), link, expires, now).await?;
            activation::expire_all_but(work.tx.db(), &mail.username, ALIVE_MAX, now).await?;
        }
        let kind = match state {
            MailState::Sent => Some(EventKind::MailSent),
            MailState::Failed => Some(EventKind::MailFailed),
            MailState::Draft => Some(EventKind::MailDrafted),
            MailState::Queued => None,
        };
        match kind {
            Some(EventKind::MailSent) => {
                let sent = mail_event(EventKind::MailSent, mail, reason);
                work.note(sent.with("mail_server", self.mailer().describe()));
            }
            Some(kind) => work.note(mail_event(kind, mail, reason)),
            None => tracing::warn!(
                mail = mail.id,
                attempt = mail.attempts,
                next_try = %next,
                reason,
                "a mail was not taken; it is tried again"
            ),
        }
        work.commit().await?;
        if done == 0 {
            tracing::warn!(mail = mail.id, "another server has taken this mail over meanwhile");
        }
        Ok(())
    }

    /// What will stand in the subject line, for lists; a template that fails is told with the draft.
    pub(super) async fn note_subject(&self, mail: &MailRow) {
        let noted = async {
            let values = self.mail_values(mail, &self.plain_links()).await?;
            let Some(row) = self.template_for(&mail.template, &mail.language).await? else {
                return Ok(());
            };
            match template::render_subject(&row.subject, &values) {
                Ok(subject) => mails::set_subject(self.store.db(), &mail.id, &subject).await?,
                Err(error) => {
                    let reason = format!("template {}: {error}", row.name);
                    mails::set_reason(self.store.db(), &mail.id, &reason).await?
                }
            };
            store::Result::Ok(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, mail = mail.id, "the subject of a mail could not be noted");
        }
    }
}

fn mail_event(kind: EventKind, mail: &MailRow, reason: &str) -> Event {
    let event = Event::new(kind)
        .client(&mail.client_no)
        .account(&mail.username)
        .project(&mail.project_no)
        .with("mail", mail.id.clone())
        .with("template", mail.template.clone())
        .with("attempts", mail.attempts);
    if reason.is_empty() { event } else { event.with("reason", reason.to_owned()) }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The pause after this many attempts.
fn pause(attempts: i64) -> Duration {
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(0);
    PAUSES.get(index).or(PAUSES.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_half_a_minute_to_a_quarter_of_an_hour() {
        assert_eq!(pause(1), Duration::from_secs(30));
        assert!((1..20).all(|n| pause(n) <= pause(n + 1)));
        assert_eq!(pause(1000), Duration::from_secs(15 * 60));
    }
}
