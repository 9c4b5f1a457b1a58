//! The facts that happen (spec sections 7 and 13): one closed list for the events table, the log and later hooks.

use crate::domain::upload::UploadState;

/// The kind of an event; the word is the same in the table, the log and hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    ProjectCreated,
    ProjectClosed,
    TicketCreated,
    AccountCreated,
    AccountChanged,
    AccountActivated,
    LinkRequested,
    LinkMade,
    MailQueued,
    MailDrafted,
    MailSent,
    MailFailed,
    ClientCreated,
    ClientChanged,
    ImportFailed,
    TokenChanged,
    TemplateChanged,
    Login,
    LoginFailed,
    LoginBanned,
    Logout,
    UploadStarted,
    UploadIncomplete,
    UploadReceived,
    UploadReleased,
    UploadInfected,
    UploadHeld,
    UploadRejected,
    UploadRefused,
    UploadDeleted,
    UploadRenamed,
    UploadRepeated,
    UploadDelivered,
    DeliveryCancelled,
    DeliveryStuck,
    DeliverySuperseded,
    ProjectExpired,
    FilePublished,
    FileWithdrawn,
    PublishHeld,
    DeliveryTaken,
    DeliveryWaiting,
    HookFailed,
    TicketPlaced,
    ContentPurged,
    FolderChanged,
    ScannerAway,
    ScannerReady,
    ProtocolError,
}

impl EventKind {
    pub const ALL: &'static [Self] = &[
        Self::ProjectCreated,
        Self::ProjectClosed,
        Self::TicketCreated,
        Self::AccountCreated,
        Self::AccountChanged,
        Self::AccountActivated,
        Self::LinkRequested,
        Self::LinkMade,
        Self::MailQueued,
        Self::MailDrafted,
        Self::MailSent,
        Self::MailFailed,
        Self::ClientCreated,
        Self::ClientChanged,
        Self::ImportFailed,
        Self::TokenChanged,
        Self::TemplateChanged,
        Self::Login,
        Self::LoginFailed,
        Self::LoginBanned,
        Self::Logout,
        Self::UploadStarted,
        Self::UploadIncomplete,
        Self::UploadReceived,
        Self::UploadReleased,
        Self::UploadInfected,
        Self::UploadHeld,
        Self::UploadRejected,
        Self::UploadRefused,
        Self::UploadDeleted,
        Self::UploadRenamed,
        Self::UploadRepeated,
        Self::UploadDelivered,
        Self::DeliveryCancelled,
        Self::DeliveryStuck,
        Self::DeliverySuperseded,
        Self::ProjectExpired,
        Self::FilePublished,
        Self::FileWithdrawn,
        Self::PublishHeld,
        Self::DeliveryTaken,
        Self::DeliveryWaiting,
        Self::HookFailed,
        Self::TicketPlaced,
        Self::ContentPurged,
        Self::FolderChanged,
        Self::ScannerAway,
        Self::ScannerReady,
        Self::ProtocolError,
    ];

    /// What hooks and webhooks are called for (spec section 13).
    pub const HOOKABLE: &'static [Self] = &[
        Self::ProjectCreated,
        Self::ProjectClosed,
        Self::ProjectExpired,
        Self::TicketCreated,
        Self::AccountCreated,
        Self::AccountActivated,
        Self::LoginFailed,
        Self::LoginBanned,
        Self::UploadReleased,
        Self::UploadInfected,
        Self::UploadHeld,
        Self::UploadRejected,
        Self::UploadIncomplete,
        Self::UploadDeleted,
        Self::UploadRepeated,
        Self::UploadDelivered,
        Self::DeliveryStuck,
        Self::DeliveryTaken,
        Self::DeliveryWaiting,
        Self::FilePublished,
        Self::FileWithdrawn,
        Self::PublishHeld,
    ];

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProjectCreated => "project.created",
            Self::ProjectClosed => "project.closed",
            Self::TicketCreated => "ticket.created",
            Self::AccountCreated => "account.created",
            Self::AccountChanged => "account.changed",
            Self::AccountActivated => "account.activated",
            Self::LinkRequested => "link.requested",
            Self::LinkMade => "link.made",
            Self::MailQueued => "mail.queued",
            Self::MailDrafted => "mail.drafted",
            Self::MailSent => "mail.sent",
            Self::MailFailed => "mail.failed",
            Self::ClientCreated => "client.created",
            Self::ClientChanged => "client.changed",
            Self::ImportFailed => "import.failed",
            Self::TokenChanged => "token.changed",
            Self::TemplateChanged => "template.changed",
            Self::Login => "login",
            Self::LoginFailed => "login.failed",
            Self::LoginBanned => "login.banned",
            Self::Logout => "logout",
            Self::UploadStarted => "upload.started",
            Self::UploadIncomplete => "upload.incomplete",
            Self::UploadReceived => "upload.received",
            Self::UploadReleased => "upload.released",
            Self::UploadInfected => "upload.infected",
            Self::UploadHeld => "upload.held",
            Self::UploadRejected => "upload.rejected",
            Self::UploadRefused => "upload.refused",
            Self::UploadDeleted => "upload.deleted",
            Self::UploadRenamed => "upload.renamed",
            Self::UploadRepeated => "upload.repeated",
            Self::UploadDelivered => "upload.delivered",
            Self::DeliveryCancelled => "delivery.cancelled",
            Self::DeliveryStuck => "delivery.stuck",
            Self::DeliverySuperseded => "delivery.superseded",
            Self::ProjectExpired => "project.expired",
            Self::FilePublished => "file.published",
            Self::FileWithdrawn => "file.withdrawn",
            Self::PublishHeld => "publish.held",
            Self::DeliveryTaken => "delivery.taken",
            Self::DeliveryWaiting => "delivery.waiting",
            Self::HookFailed => "hook.failed",
            Self::TicketPlaced => "jobticket.placed",
            Self::ContentPurged => "content.purged",
            Self::FolderChanged => "folder.changed",
            Self::ScannerAway => "scanner.away",
            Self::ScannerReady => "scanner.ready",
            Self::ProtocolError => "protocol.error",
        }
    }

    /// The event that tells of an upload's new state.
    #[must_use]
    pub const fn of_state(state: UploadState) -> Self {
        match state {
            UploadState::Receiving => Self::UploadStarted,
            UploadState::Incomplete => Self::UploadIncomplete,
            UploadState::Scanning => Self::UploadReceived,
            UploadState::Released => Self::UploadReleased,
            UploadState::Infected => Self::UploadInfected,
            UploadState::Held => Self::UploadHeld,
            UploadState::Rejected => Self::UploadRejected,
            UploadState::Deleted => Self::UploadDeleted,
        }
    }
}

/// One fact with its circumstances; empty text means "does not apply".
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    pub client_no: String,
    pub username: String,
    pub project_no: String,
    pub upload_id: String,
    pub path: String,
    pub peer: String,
    /// Everything else, as one JSON object.
    pub detail: serde_json::Map<String, serde_json::Value>,
}

impl Event {
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            client_no: String::new(),
            username: String::new(),
            project_no: String::new(),
            upload_id: String::new(),
            path: String::new(),
            peer: String::new(),
            detail: serde_json::Map::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn client(mut self, client_no: &str) -> Self {
        client_no.clone_into(&mut self.client_no);
        self
    }

    #[must_use]
    pub fn account(mut self, username: &str) -> Self {
        username.clone_into(&mut self.username);
        self
    }

    #[must_use]
    pub fn project(mut self, project_no: &str) -> Self {
        project_no.clone_into(&mut self.project_no);
        self
    }

    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    #[must_use]
    pub fn peer(mut self, peer: &str) -> Self {
        peer.clone_into(&mut self.peer);
        self
    }
}
