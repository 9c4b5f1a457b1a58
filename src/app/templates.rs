//! Templates of mails, signatures, and the PTworkflow users who own them.

use super::App;
use super::clients::{Refused, because, missing};
use crate::domain::announcement;
use crate::domain::event::{Event, EventKind};
use crate::domain::mail::MailKind;
use crate::store;
use crate::store::templates::{self, SignatureRow, TemplateRow, UserRow};
use crate::template::mail as template;

/// Behind the name of a template for customers who read English.
const ENGLISH: &str = " (en)";

/// Subject in the first line, then an empty line, then the content: German, English.
const DEFAULTS: [(MailKind, &str, &str); 8] = [
    (
        MailKind::Access,
        include_str!("../../templates/mail/portalzugang.de.html"),
        include_str!("../../templates/mail/portalzugang.en.html"),
    ),
    (
        MailKind::UploadRequest,
        include_str!("../../templates/mail/datenupload.de.html"),
        include_str!("../../templates/mail/datenupload.en.html"),
    ),
    (
        MailKind::NewPassword,
        include_str!("../../templates/mail/neues-passwort.de.html"),
        include_str!("../../templates/mail/neues-passwort.en.html"),
    ),
    (
        MailKind::DataArrived,
        include_str!("../../templates/mail/dateneingang.de.html"),
        include_str!("../../templates/mail/dateneingang.en.html"),
    ),
    (
        MailKind::Receipt,
        include_str!("../../templates/mail/empfangsbestaetigung.de.html"),
        include_str!("../../templates/mail/empfangsbestaetigung.en.html"),
    ),
    (
        MailKind::VirusFound,
        include_str!("../../templates/mail/virenfund.de.html"),
        include_str!("../../templates/mail/virenfund.en.html"),
    ),
    (
        MailKind::VirusFoundLate,
        include_str!("../../templates/mail/virenfund-kunde.de.html"),
        include_str!("../../templates/mail/virenfund-kunde.en.html"),
    ),
    (
        MailKind::FilesReady,
        include_str!("../../templates/mail/daten-bereit.de.html"),
        include_str!("../../templates/mail/daten-bereit.en.html"),
    ),
];

/// What is changed at a template; absent things stay.
#[derive(Debug, Clone, Default)]
pub struct TemplateChange {
    pub subject: Option<String>,
    pub content: Option<String>,
    pub user: Option<String>,
    pub is_active: Option<bool>,
}

/// Subject and content of a file of defaults.
fn split(text: &str) -> (String, String) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let subject = first.strip_prefix("Subject:").unwrap_or(first).trim();
    (subject.to_owned(), rest.trim_start().to_owned())
}

impl App {
    /// Writes default texts for the names that have none; what is there stays.
    ///
    /// # Errors
    /// The database.
    pub async fn seed_templates(&self) -> store::Result<()> {
        let known = templates::templates(self.store.db()).await?;
        let now = self.now();
        for (kind, german, english) in DEFAULTS {
            let status = status(kind.is_on_by_itself());
            for (name, text) in [
                (kind.as_str().to_owned(), german),
                (format!("{}{ENGLISH}", kind.as_str()), english),
            ] {
                if known.iter().any(|row| row.name == name) {
                    continue;
                }
                let (subject, content) = split(text);
                let row = TemplateRow {
                    id: self.new_id().to_string(),
                    name,
                    subject,
                    content,
                    owner: String::new(),
                    status: status.clone(),
                    created: now.0,
                    updated: now.0,
                };
                templates::insert_if_missing(self.store.db(), &row).await?;
            }
        }
        Ok(())
    }

    /// The template of a name for readers of a language: the English one where it is there and active.
    pub(super) async fn template_for(
        &self,
        name: &str,
        language: &str,
    ) -> store::Result<Option<TemplateRow>> {
        if language == "en" {
            let english = templates::template(self.store.db(), &format!("{name}{ENGLISH}")).await?;
            if let Some(row) = english.filter(|row| row.status == "active") {
                return Ok(Some(row));
            }
        }
        templates::template(self.store.db(), name).await
    }

    /// # Errors
    /// No such template.
    pub async fn template(&self, name: &str) -> Result<TemplateRow, Refused> {
        match templates::template(self.store.db(), name).await? {
            Some(row) => Ok(row),
            None => missing(format!("there is no template {name}; `template list` shows all")),
        }
    }

    /// Writes a template, or makes a new one; a broken one is refused and what stood there counts on.
    ///
    /// # Errors
    /// The line and the reason; no such user; a new one without subject or content.
    pub async fn set_template(
        &self,
        name: &str,
        change: TemplateChange,
    ) -> Result<TemplateRow, Refused> {
        announcement::client_name(name).map_err(Refused::Because)?;
        if let Some(user) = change.user.as_ref().filter(|user| !user.is_empty()) {
            self.user(user).await?;
        }
        let now = self.now();
        let known = templates::template(self.store.db(), name).await?;
        let row = match (known, change) {
            (Some(row), change) => TemplateRow {
                subject: change.subject.unwrap_or(row.subject),
                content: change.content.unwrap_or(row.content),
                owner: change.user.unwrap_or(row.owner),
                status: change.is_active.map_or(row.status, status),
                updated: now.0,
                ..row
            },
            (
                None,
                TemplateChange { subject: Some(subject), content: Some(content), user, is_active },
            ) => TemplateRow {
                id: self.new_id().to_string(),
                name: name.to_owned(),
                subject,
                content,
                owner: user.unwrap_or_default(),
                status: status(is_active.unwrap_or(true)),
                created: now.0,
                updated: now.0,
            },
            (None, _) => {
                return because(format!(
                    "there is no template {name} yet; a new one needs --subject and --content-file"
                ));
            }
        };
        template::check(&row.subject, &row.content)
            .map_err(|error| Refused::Because(format!("template {name}: {error}")))?;
        let mut work = self.begin().await?;
        if templates::update(work.tx.db(), &row).await? == 0 {
            templates::insert_if_missing(work.tx.db(), &row).await?;
        }
        work.note(Event::new(EventKind::TemplateChanged).with("template", name));
        work.commit().await?;
        self.template(name).await
    }

    /// Writes a signature in place of the one of that name.
    ///
    /// # Errors
    /// The database.
    pub async fn set_signature(&self, mut row: SignatureRow) -> Result<SignatureRow, Refused> {
        announcement::client_name(&row.name).map_err(Refused::Because)?;
        let parts = [&row.head_html, &row.foot_html, &row.head_text, &row.foot_text];
        if parts.iter().any(|part| part.lines().any(template::has_control_characters)) {
            return because(format!(
                "signature {}: holds control characters; remove them",
                row.name
            ));
        }
        row.id = self.new_id().to_string();
        (row.created, row.updated) = (self.now().0, self.now().0);
        templates::put_signature(self.store.db(), &row).await?;
        self.signature(&row.name).await
    }

    /// # Errors
    /// No such signature.
    pub async fn signature(&self, name: &str) -> Result<SignatureRow, Refused> {
        let rows = templates::signatures(self.store.db()).await?;
        match rows.into_iter().find(|row| row.name == name) {
            Some(row) => Ok(row),
            None => missing(format!("there is no signature {name}; `signature list` shows all")),
        }
    }

    /// Adds a PTworkflow user, or gives one another address.
    ///
    /// # Errors
    /// A bad name or address.
    pub async fn put_user(&self, name: &str, email: &str) -> Result<UserRow, Refused> {
        announcement::client_name(name).map_err(Refused::Because)?;
        announcement::email(email).map_err(Refused::Because)?;
        let id = self.new_id();
        templates::put_user(self.store.db(), (id.as_str(), name, email), self.now()).await?;
        self.user(name).await
    }

    /// # Errors
    /// No such user.
    pub async fn user(&self, name: &str) -> Result<UserRow, Refused> {
        match templates::user(self.store.db(), name).await? {
            Some(row) => Ok(row),
            None => missing(format!(
                "there is no user {name}; add one with `user add {name} --email …`"
            )),
        }
    }
}

fn status(is_active: bool) -> String {
    if is_active { "active" } else { "inactive" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_text_reads_and_renders() {
        for (kind, german, english) in DEFAULTS {
            for text in [german, english] {
                let (subject, content) = split(text);
                assert_eq!(template::check(&subject, &content), Ok(()), "{}", kind.as_str());
            }
        }
    }
}
