//! One write transaction, and what is told once it stands: events go to the table inside it and to the log after it, mails
//! are written inside it and their sender is woken after it.

use super::{App, invite};
use crate::domain::event::Event;
use crate::domain::time::Timestamp;
use crate::logging;
use crate::store::mails::{self, MailRow};
use crate::store::{self, WriteTx, events};

/// Dropped without [`Work::commit`] nothing of it has happened.
pub(super) struct Work<'a> {
    pub(super) app: &'a App,
    pub(super) tx: WriteTx,
    pub(super) now: Timestamp,
    events: Vec<Event>,
    mails: Vec<MailRow>,
}

impl App {
    /// Begins a piece of work.
    pub(super) async fn begin(&self) -> store::Result<Work<'_>> {
        let tx = self.store.write().await?;
        let now = self.now();
        Ok(Work { app: self, tx, now, events: Vec::new(), mails: Vec::new() })
    }
}

impl Work<'_> {
    /// An event that happens with this work.
    pub(super) async fn note(&mut self, event: Event) -> store::Result<()> {
        events::insert(self.tx.db(), &event, self.now).await?;
        self.events.push(event);
        Ok(())
    }

    /// Running servers must look at something again.
    pub(super) async fn changed(&mut self, kind: &str, key: &str) -> store::Result<()> {
        events::note_change(self.tx.db(), kind, key, self.now).await
    }

    /// A new mail.
    pub(super) async fn write_mail(&mut self, mail: MailRow) -> store::Result<()> {
        mails::insert(self.tx.db(), &mail).await?;
        self.note_mail(mail).await
    }

    /// A mail that is queued or kept from now on, with its event.
    pub(super) async fn note_mail(&mut self, mail: MailRow) -> store::Result<()> {
        self.changed("mail", &mail.id).await?;
        self.note(invite::event_of(&mail)).await?;
        self.mails.push(mail);
        Ok(())
    }

    /// Makes everything stand, and tells of it. Gives the mails.
    pub(super) async fn commit(self) -> store::Result<Vec<MailRow>> {
        let Self { app, tx, events, mails, .. } = self;
        tx.commit().await?;
        for event in &events {
            logging::event(event);
        }
        for mail in &mails {
            app.note_subject(mail).await;
        }
        if !mails.is_empty() {
            app.mails_wake.notify_one();
        }
        Ok(mails)
    }
}
