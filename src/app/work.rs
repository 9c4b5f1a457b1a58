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
    changes: Vec<(&'static str, String)>,
    mails: Vec<MailRow>,
}

impl App {
    /// Begins a piece of work.
    pub(super) async fn begin(&self) -> store::Result<Work<'_>> {
        let tx = self.store.write().await?;
        let now = self.now();
        let (events, changes, mails) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Work { app: self, tx, now, events, changes, mails })
    }
}

impl Work<'_> {
    /// An event that happens with this work.
    pub(super) fn note(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Running servers must look at something again.
    pub(super) fn changed(&mut self, kind: &'static str, key: &str) {
        self.changes.push((kind, key.to_owned()));
    }

    /// A new mail.
    pub(super) async fn write_mail(&mut self, mail: MailRow) -> store::Result<()> {
        mails::insert(self.tx.db(), &mail).await?;
        self.note_mail(mail);
        Ok(())
    }

    /// A mail that is queued or kept from now on, with its event.
    pub(super) fn note_mail(&mut self, mail: MailRow) {
        self.changed("mail", &mail.id);
        self.note(invite::event_of(&mail));
        self.mails.push(mail);
    }

    /// Makes everything stand, and tells of it. Gives the mails. Events and changes are numbered last, and in this order:
    /// whoever numbers them keeps all others waiting, on PostgreSQL by a lock.
    pub(super) async fn commit(self) -> store::Result<Vec<MailRow>> {
        let Self { app, mut tx, now, events, changes, mails } = self;
        for event in &events {
            events::insert(tx.db(), event, now).await?;
        }
        for (kind, key) in &changes {
            events::note_change(tx.db(), kind, key, now).await?;
        }
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
