//! Logs: one line for each event, readable in a terminal or as JSON, with the same field names everywhere.
//!
//! Never a password, token or key: those types have no way in here. Control characters of names are escaped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};
use crate::domain::event::{Event, EventKind};
use crate::metering;

/// What can be changed while this process logs.
struct Running {
    level: reload::Handle<Targets, Registry>,
    file: Option<Arc<LogFile>>,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// Only our own lines: a library's debug output would drown what an operator looks for.
fn only_ours(level: &str) -> anyhow::Result<Targets> {
    let level: tracing::Level =
        level.parse().map_err(|_| anyhow::anyhow!("log.level {level:?} is unknown"))?;
    Ok(Targets::new().with_target("ptportal", level))
}

/// Takes another level, and opens the log file again under its name, so that a rotated one can go.
///
/// # Errors
/// When the level is unknown or the file cannot be opened; then what was stays.
pub fn renew(level: &str) -> anyhow::Result<()> {
    let Some(running) = RUNNING.get() else { return Ok(()) };
    running.level.reload(only_ours(level)?)?;
    if let Some(file) = &running.file {
        file.open_again()
            .with_context(|| format!("log.file {} stays as it was", file.path.display()))?;
    }
    Ok(())
}

/// Starts logging for this process, to `[log] file` or standard error.
///
/// # Errors
/// When the file cannot be opened, the level is unknown, or logging was started before.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let file = log.file.clone().map(LogFile::open).transpose()?.map(Arc::new);
    let writer = match &file {
        Some(file) => BoxMakeWriter::new(Arc::clone(file)),
        None => BoxMakeWriter::new(io::stderr),
    };
    let (filter, level) = reload::Layer::new(only_ours(&log.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
            registry.with(lines.with_ansi(false)).try_init()?;
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
            registry.with(lines.json().flatten_event(true)).try_init()?;
        }
    }
    RUNNING.set(Running { level, file }).ok();
    std::panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// A panic is a bug of ours: one line, one number. Its task ends, everything else goes on.
fn tell_panic(info: &std::panic::PanicHookInfo<'_>) {
    metering::panicked();
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let reason = info.payload_as_str().unwrap_or_default();
    let trace = std::backtrace::Backtrace::capture();
    let thread = std::thread::current();
    tracing::error!(
        reason,
        place,
        thread = thread.name().unwrap_or_default(),
        "panic: a bug of ptportal ended one task, please report it"
    );
    if trace.status() == std::backtrace::BacktraceStatus::Captured {
        tracing::error!(%trace, "panic");
    }
}

/// A log file; a full disk or a lost file never stops a transfer.
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = Mutex::new(Self::opened(&path)?);
        Ok(Self { path, file })
    }

    fn opened(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(path)
    }

    fn open_again(&self) -> io::Result<()> {
        let file = Self::opened(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Lost log lines are better than a stopped upload.
        file.write_all(bytes).ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How loud an event is: `warn` and `error` are for what someone must look at.
fn is_warning(kind: EventKind) -> bool {
    match kind {
        EventKind::LoginFailed
        | EventKind::LoginBanned
        | EventKind::UploadInfected
        | EventKind::UploadHeld
        | EventKind::UploadRejected
        | EventKind::UploadRefused
        | EventKind::DeliveryStuck
        | EventKind::ScannerAway
        | EventKind::DeliveryWaiting
        | EventKind::PublishHeld
        | EventKind::HookFailed
        | EventKind::MailFailed
        | EventKind::ImportFailed
        | EventKind::ProtocolError => true,
        EventKind::ProjectCreated
        | EventKind::ProjectClosed
        | EventKind::TicketCreated
        | EventKind::AccountCreated
        | EventKind::AccountChanged
        | EventKind::AccountActivated
        | EventKind::LinkRequested
        | EventKind::LinkMade
        | EventKind::MailQueued
        | EventKind::MailDrafted
        | EventKind::MailSent
        | EventKind::ClientCreated
        | EventKind::ClientChanged
        | EventKind::TokenChanged
        | EventKind::TemplateChanged
        | EventKind::Login
        | EventKind::Logout
        | EventKind::UploadStarted
        | EventKind::UploadIncomplete
        | EventKind::UploadReceived
        | EventKind::UploadReleased
        | EventKind::UploadDeleted
        | EventKind::UploadRenamed
        | EventKind::UploadRepeated
        | EventKind::UploadDelivered
        | EventKind::DeliveryCancelled
        | EventKind::DeliverySuperseded
        | EventKind::DeliveryTaken
        | EventKind::ProjectExpired
        | EventKind::FilePublished
        | EventKind::FileWithdrawn
        | EventKind::TicketPlaced
        | EventKind::ContentPurged
        | EventKind::FolderChanged
        | EventKind::ScannerReady => false,
    }
}

/// The sentence of an event's log line.
fn sentence(kind: EventKind) -> &'static str {
    match kind {
        EventKind::ProjectCreated => "project announced",
        EventKind::ProjectClosed => "project closed",
        EventKind::TicketCreated => "ticket announced",
        EventKind::AccountCreated => "account created",
        EventKind::AccountChanged => "account changed",
        EventKind::AccountActivated => "first login, the account is activated",
        EventKind::LinkRequested => "customer asked for a new link",
        EventKind::LinkMade => "activation link made by an operator",
        EventKind::MailQueued => "mail queued",
        EventKind::MailDrafted => "mail kept as a draft, an operator decides",
        EventKind::MailSent => "mail handed over",
        EventKind::MailFailed => "mail given up, nobody has got it",
        EventKind::ClientCreated => "client created",
        EventKind::ClientChanged => "client changed",
        EventKind::ImportFailed => "file in the import folder is no order, moved to import/failed",
        EventKind::TokenChanged => "API token created or revoked",
        EventKind::TemplateChanged => "mail template changed",
        EventKind::Login => "customer logged in",
        EventKind::LoginFailed => "login refused",
        EventKind::LoginBanned => "address banned after too many failed logins",
        EventKind::Logout => "session ended",
        EventKind::UploadStarted => "upload started",
        EventKind::UploadIncomplete => "upload broke off, kept for resume",
        EventKind::UploadReceived => "upload complete and durable, scan follows",
        EventKind::UploadReleased => "upload released",
        EventKind::UploadInfected => "virus found, upload refused",
        EventKind::UploadHeld => "upload held for an operator",
        EventKind::UploadRejected => "upload rejected",
        EventKind::UploadRefused => "request of a customer refused",
        EventKind::UploadDeleted => "upload deleted by the customer",
        EventKind::UploadRenamed => "renamed by the customer",
        EventKind::UploadRepeated => "same file sent again, not delivered again",
        EventKind::UploadDelivered => "delivered to the hotfolder",
        EventKind::DeliveryCancelled => "delivery cancelled, the customer deleted the file",
        EventKind::DeliveryStuck => "delivery is stuck, tried again later",
        EventKind::DeliverySuperseded => "delivery superseded by a newer version",
        EventKind::DeliveryTaken => "delivered file taken out of the hotfolder",
        EventKind::DeliveryWaiting => "delivered file lies in the hotfolder and nobody takes it",
        EventKind::ProjectExpired => {
            "project without change closed, its folders removed from the portal"
        }
        EventKind::FilePublished => "file of the print shop shown to the customer",
        EventKind::FileWithdrawn => "file of the print shop no longer shown to the customer",
        EventKind::PublishHeld => {
            "many files vanished from the hotfolder, their removal waits for an operator"
        }
        EventKind::HookFailed => "hook given up after its last attempt",
        EventKind::TicketPlaced => "job ticket placed in the hotfolder",
        EventKind::ContentPurged => "bytes of delivered files forgotten, their time is over",
        EventKind::FolderChanged => "folder made or removed by the customer",
        EventKind::ScannerAway => "scanner cannot be relied on, uploads wait for it",
        EventKind::ScannerReady => "scanner proven by its canaries",
        EventKind::ProtocolError => "client broke the protocol, connection cut",
    }
}

/// Writes an event's one line.
pub fn event(event: &Event) {
    let detail = &event.detail;
    let or_none = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let text = |key: &str| {
        let value = detail.get(key)?;
        value.as_str().map_or_else(|| Some(value.to_string()), or_none)
    };
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: "ptportal",
                $level,
                event = event.kind.as_str(),
                client = or_none(&event.client_no),
                account = or_none(&event.username),
                project = or_none(&event.project_no),
                upload = or_none(&event.upload_id),
                path = or_none(&event.path),
                peer = or_none(&event.peer),
                bytes = text("size"),
                sha256 = text("sha256"),
                verdict = text("verdict"),
                signature = text("signature"),
                placed = text("placed_name"),
                ms = text("ms"),
                session = text("session"),
                protocol = text("protocol"),
                method = text("method"),
                reason = text("reason"),
                remedy = text("remedy"),
                mail = text("mail"),
                template = text("template"),
                mail_server = text("mail_server"),
                changed = text("changed"),
                token = text("token"),
                ticket = text("ticket"),
                hook = text("hook"),
                run = text("run"),
                files = text("files"),
                transport = text("transport"),
                clamd = text("clamd"),
                "{}",
                sentence(event.kind)
            )
        };
    }
    metering::happened(event.kind);
    if is_warning(event.kind) { line!(tracing::Level::WARN) } else { line!(tracing::Level::INFO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handbook_explains_every_warning() {
        let kinds = EventKind::ALL.iter().copied().filter(|kind| is_warning(*kind));
        let words: Vec<String> = kinds.map(|kind| format!("| `{}` |", kind.as_str())).collect();
        assert!(words.len() > 10, "{words:?}");
        for text in [include_str!("../docs/en/alarms.md"), include_str!("../docs/de/alarme.md")] {
            for word in &words {
                assert!(text.contains(word), "{word} is not explained");
            }
        }
    }
}
