//! Where an upload comes from, and the events that tell of it.

use crate::domain::account::AccountName;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::Id;
use crate::store::unsigned;
use crate::store::uploads::UploadRow;

/// What is fixed when an upload begins.
#[derive(Debug, Clone)]
pub struct Origin {
    pub id: Id,
    pub account: AccountName,
    pub client_no: String,
    pub project_no: String,
    pub path: String,
    pub version: i64,
    pub protocol: &'static str,
    pub peer: String,
    pub session: String,
    /// What the client said the file will be long, in bytes.
    pub declared: Option<u64>,
    /// Account or configuration, in bytes.
    pub max_size: u64,
    pub quota: Option<u64>,
}

impl Origin {
    /// An event about this upload.
    #[must_use]
    pub fn event(&self, kind: EventKind) -> Event {
        let mut event = Event::new(kind)
            .client(&self.client_no)
            .account(self.account.as_str())
            .project(&self.project_no)
            .path(&self.path)
            .peer(&self.peer)
            .with("session", self.session.clone());
        self.id.as_str().clone_into(&mut event.upload_id);
        event
    }
}

/// An event about an upload as its row tells it.
#[must_use]
pub fn event_of(row: &UploadRow, kind: EventKind) -> Event {
    let mut event = Event::new(kind)
        .client(&row.client_no)
        .account(&row.username)
        .project(&row.project_no)
        .path(&row.path)
        .peer(&row.peer)
        .with("size", unsigned(row.size))
        .with("sha256", row.sha256.clone());
    row.id.clone_into(&mut event.upload_id);
    event
}
