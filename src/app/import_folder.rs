//! The import folder `data_dir/import/`: orders as files, put there by rename (spec section 12). `notify` wakes, polling
//! finds what it misses; the same file twice changes nothing, so a crash between the announcement and the move is harmless.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::announce::UnknownClient;
use super::clients::Refused;
use super::{App, blocking};
use crate::domain::announcement::Announcement;
use crate::domain::event::{Event, EventKind};
use crate::vault;

/// Spec: taken within 10 s.
const POLL: Duration = Duration::from_secs(5);
/// Bytes of a name; what stands before and behind it must fit into 255.
const NAME_MAX: usize = 200;
/// As a body of the API.
const SIZE_MAX: u64 = 1024 * 1024;

/// Takes files until shutdown.
pub async fn run(app: Arc<App>) {
    let dir = app.config.data_dir.join("import");
    if let Err(error) = make_folders(&dir) {
        tracing::error!(%error, folder = %dir.display(), "the import folder cannot be made; it is tried again");
    }
    let wake = Arc::new(Notify::new());
    let _watcher = watch(&dir, &wake);
    loop {
        if let Err(error) = app.import_all(&dir).await {
            tracing::error!(%error, folder = %dir.display(), "the import folder cannot be read; it is tried again");
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

fn make_folders(dir: &Path) -> std::io::Result<()> {
    for folder in [dir.to_owned(), dir.join("done"), dir.join("failed")] {
        vault::make_private_dir(&folder)?;
    }
    Ok(())
}

/// Wakes early; without it the poll is all there is.
fn watch(dir: &Path, wake: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let wake = Arc::clone(wake);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            wake.notify_one();
        }
    });
    let watching = watcher.and_then(|mut watcher| {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watching {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the import folder is only polled");
            None
        }
    }
}

/// Names of files that are ready, in order.
fn ready(dir: &Path) -> std::io::Result<Vec<OsString>> {
    make_folders(dir)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        // Neither folders nor links: what a link points to is not ours to read.
        if !name.as_bytes().starts_with(b".") && entry.file_type()?.is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The name under which a file is kept: text, and short enough for what is written beside it.
fn kept_name(file: &OsStr) -> String {
    let text = file.to_string_lossy();
    let mut end = text.len().min(NAME_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(no_link).open(path)?;
    let mut bytes = Vec::new();
    file.take(SIZE_MAX.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl App {
    async fn import_all(self: &Arc<Self>, dir: &Path) -> anyhow::Result<()> {
        let folder = dir.to_owned();
        for name in blocking(move || ready(&folder)).await? {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            // What is wrong with one file keeps no other one back.
            if let Err(error) = self.import(dir, &name).await {
                tracing::error!(%error, file = %name.display(), "an order could not be imported; it is tried again");
            }
        }
        Ok(())
    }

    /// # Errors
    /// Only what the next try may mend: then the file stays where it is.
    async fn import(self: &Arc<Self>, dir: &Path, file: &OsStr) -> anyhow::Result<()> {
        let path = dir.join(file);
        let name = &kept_name(file);
        let bytes = {
            let path = path.clone();
            blocking(move || read(&path)).await
        };
        let outcome = match bytes {
            // Another server was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(format!("cannot be read: {error}")),
            Ok(bytes) if bytes.len() as u64 > SIZE_MAX => {
                Err("is larger than 1 MiB; announce the order in parts".to_owned())
            }
            Ok(bytes) => match Announcement::from_file(&bytes) {
                Err(wrong) => Err(wrong.to_string()),
                Ok(order) => match self.announce(&order, None, UnknownClient::Create).await {
                    Ok(announced) => Ok(announced),
                    Err(Refused::Store(error)) => return Err(error.into()),
                    Err(refused) => Err(refused.to_string()),
                },
            },
        };
        match outcome {
            Ok(announced) => {
                let kept = set_aside(path, dir.join("done"), name).await?;
                tracing::info!(
                    file = name,
                    kept,
                    client = announced.client.client_no,
                    project = announced.project.project_no,
                    is_new = announced.is_created,
                    decision = announced.decision.reason,
                    "order imported"
                );
            }
            Err(reason) => {
                let kept = set_aside(path, dir.join("failed"), name).await?;
                let failed = dir.join("failed");
                let text = format!("{name}: {reason}\n");
                let file = format!("{kept}.error.txt");
                blocking(move || vault::write_private(&failed, &file, text.as_bytes())).await?;
                let event = Event::new(EventKind::ImportFailed).path(name).with("reason", reason);
                self.record(event).await;
            }
        }
        Ok(())
    }
}

/// Gives the name under which the file is kept; empty when another server was faster.
async fn set_aside(path: PathBuf, dir: PathBuf, name: &str) -> std::io::Result<String> {
    let name = name.to_owned();
    match blocking(move || vault::set_aside(&path, &dir, &name)).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}
