//! Hooks as programs of the shop: which there are, which may be run, and how one is run (spec section 13).

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::App;
use super::clients::{Refused, because, missing};
use super::hanging::Look;
use super::hooks::Outcome;
use crate::domain::event::EventKind;
use crate::process::{self, Ended, Program, Status};
use crate::vault;

/// At shutdown a hook may end by itself for this long; then it is run again at the next start.
const LAST_WAIT: Duration = Duration::from_secs(20);
/// Hooks may lie on a share; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(3);
const SILENT: &str = "the folder of hooks does not answer";

/// Where hooks work; emptied at start.
fn folders_dir(app: &App) -> PathBuf {
    app.config.data_dir.join("hooks-tmp")
}

pub(super) async fn clear_folders(app: &App) {
    // Shared data folders hold those of other servers too.
    if app.store.kind() != crate::store::Kind::Sqlite {
        return;
    }
    let dir = folders_dir(app);
    let removed = super::blocking(move || match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "folders of earlier hooks could not be removed");
    }
}

/// What the end of a program means for its run.
pub(super) fn outcome_of(app: &App, ended: Ended) -> Outcome {
    let output = ended.output;
    let error = match ended.status {
        Status::Exited(0) => return Outcome::Done { output, follow: Vec::new() },
        Status::Exited(code) => format!("ended with status {code}"),
        Status::Signalled(signal) => format!("was ended by signal {signal}"),
        Status::TimedOut => format!(
            "did not end within {} s and was killed (hooks.timeout)",
            app.config.hooks.timeout.as_secs()
        ),
        Status::NotStarted(error) => format!("could not be started: {error}"),
        Status::Cut => "was cut short".to_owned(),
    };
    Outcome::Again { error, output }
}

/// The looks at the folder of hooks.
#[derive(Debug, Default)]
pub struct HookLooks {
    names: Look<std::io::Result<Vec<String>>>,
    program: Look<Result<PathBuf, Unfit>>,
}

/// Why a program was not run.
#[derive(Debug)]
pub(super) enum Unfit {
    Gone,
    NotNow(String),
}

impl App {
    /// The executables of an event, in name order.
    ///
    /// # Errors
    /// A folder that is there and cannot be read now.
    pub(super) async fn hooks_for(&self, kind: EventKind) -> std::io::Result<Vec<String>> {
        let dir = self.config.hooks.dir.join(kind.as_str());
        let listed = self.hook_looks.names.take(PATIENCE, move || programs_in(&dir)).await;
        listed.unwrap_or_else(|| Err(std::io::Error::new(std::io::ErrorKind::TimedOut, SILENT)))
    }

    /// What runs for an event: `EVENT/NAME` of each executable. Of a folder that cannot be read now, `EVENT/`: a run that
    /// finds them later, so that what else follows from the event (mails, tickets) does not wait.
    pub(super) async fn hook_targets(&self, kind: EventKind) -> Vec<String> {
        let event = kind.as_str();
        match self.hooks_for(kind).await {
            Ok(names) => names.into_iter().map(|name| format!("{event}/{name}")).collect(),
            // The run tells of the reason.
            Err(_unreadable) => vec![format!("{event}/")],
        }
    }

    /// Runs one executable with an event.
    pub(super) async fn run_program(
        self: &Arc<Self>,
        path: &Path,
        payload: &str,
        attempt: u32,
    ) -> Result<Ended, Unfit> {
        let (path, hooks_dir) = (path.to_owned(), self.config.hooks.dir.clone());
        let look = move || fit(&path, &hooks_dir);
        let looked = self.hook_looks.program.take(PATIENCE, look).await;
        let path = looked.unwrap_or_else(|| Err(Unfit::NotNow(SILENT.to_owned())))?;
        let event: Value = serde_json::from_str(payload).unwrap_or_default();
        let id = event.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (above, name) = (folders_dir(self), format!("{id}.{attempt}"));
        let dir = above.join(&name);
        let made = dir.clone();
        let ready = super::blocking(move || vault::make_private_dir(&made)).await;
        ready.map_err(|error| Unfit::NotNow(format!("its working folder: {error}")))?;
        let hooks_dir = self.config.hooks.dir.clone();
        let program = Program {
            path,
            environment: environment(&event, &dir, &hooks_dir, attempt),
            dir: dir.clone(),
            input: payload.as_bytes().to_vec(),
            limit: self.config.hooks.timeout,
            mark: format!("PTPORTAL_EVENT_ID={id}"),
        };
        let ended = process::run(program, too_late(self)).await;
        if let Err(error) = super::blocking(move || std::fs::remove_dir_all(&dir)).await {
            tracing::warn!(%error, folder = name, "a hook's working folder stays");
        }
        Ok(ended)
    }

    /// Runs the hooks of an event with a sample, one after the other; gives name, status and output of each.
    ///
    /// # Errors
    /// An event that has no hooks.
    pub async fn test_hooks(self: &Arc<Self>, event: &str) -> Result<Vec<TestedHook>, Refused> {
        let Some(kind) = EventKind::HOOKABLE.iter().copied().find(|kind| kind.as_str() == event)
        else {
            let all: Vec<&str> = EventKind::HOOKABLE.iter().map(|kind| kind.as_str()).collect();
            return because(format!("{event} is none of {}", all.join(", ")));
        };
        let dir = &self.config.hooks.dir;
        let programs = self
            .hooks_for(kind)
            .await
            .map_err(|error| Refused::Because(format!("{}: {error}", dir.join(event).display())))?;
        if programs.is_empty() {
            return missing(format!("there is no executable in {}", dir.join(event).display()));
        }
        let sample = folders_dir(self);
        let file = sample.join("beispiel.pdf");
        let written = {
            let (dir, file) = (sample.clone(), file.clone());
            super::blocking(move || {
                vault::make_private_dir(&dir)?;
                std::fs::write(file, SAMPLE_PDF)
            })
        };
        written.await.map_err(|error| Refused::Because(format!("the sample file: {error}")))?;
        let mut tested = Vec::new();
        for name in programs {
            let id = self.new_id();
            let payload = sample_event(kind, id.as_str(), self.now(), &file);
            let path = dir.join(event).join(&name);
            let (outcome, ms) = match self.run_program(&path, &payload.to_string(), 1).await {
                Ok(ended) => {
                    let ms = ended.took.as_millis();
                    (outcome_of(self, ended), ms)
                }
                Err(Unfit::Gone) => continue,
                Err(Unfit::NotNow(error)) => (Outcome::Again { error, output: String::new() }, 0),
            };
            let (problem, output) = match outcome {
                Outcome::Done { output, .. } => (None, output),
                Outcome::Again { error, output } | Outcome::Failed { error, output } => {
                    (Some(error), output)
                }
            };
            tested.push(TestedHook { name: format!("{event}/{name}"), problem, output, ms });
        }
        if let Err(error) = super::blocking(move || std::fs::remove_file(&file)).await {
            tracing::warn!(%error, "the sample file stays");
        }
        Ok(tested)
    }
}

/// The server's stop, and what a hook may still take to end by itself.
async fn too_late(app: &App) {
    app.stop.cancelled().await;
    tokio::time::sleep(LAST_WAIT).await;
}

/// What `hook test` tells of one hook.
#[derive(Debug)]
pub struct TestedHook {
    pub name: String,
    /// Nothing when it ended well.
    pub problem: Option<String>,
    pub output: String,
    pub ms: u128,
}

/// The event of a run that has yet to find its executables.
pub(super) fn unread(target: &str) -> Option<EventKind> {
    EventKind::parse(target.strip_suffix('/')?)
}

/// The executables in an event's folder, in name order. What editors and package managers leave is none.
fn programs_in(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_no_folder(&error) => return Ok(names),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_hook_name(&name) && is_executable(&entry.path())? {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Where a program lies that may be run now.
fn fit(path: &Path, hooks_dir: &Path) -> Result<PathBuf, Unfit> {
    let canonical = match path.canonicalize() {
        Ok(canonical) => canonical,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Unfit::Gone),
        Err(error) => return Err(Unfit::NotNow(error.to_string())),
    };
    unsafe_reason(path, hooks_dir).map_or(Ok(canonical), |reason| Err(Unfit::NotNow(reason)))
}

/// A link that leads nowhere is none; what cannot be looked at may be one.
fn is_executable(path: &Path) -> std::io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.is_file() && meta.permissions().mode() & 0o111 != 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Not there, or no folder; as opposed to a share or a table of descriptors that is out of order for a moment.
fn is_no_folder(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// Why a program is not run: whoever may change it would act as this service.
pub(super) fn unsafe_reason(path: &Path, dir: &Path) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    let is_open = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        let is_writable = meta.permissions().mode() & 0o022 != 0;
        let is_foreign = meta.uid() != own && meta.uid() != 0;
        if is_writable {
            Some(format!("others may write it, so it is not run; chmod go-w {}", path.display()))
        } else {
            is_foreign.then(|| {
                format!(
                    "it belongs to another user, so it is not run; chown root {}",
                    path.display()
                )
            })
        }
    };
    is_open(path).or_else(|| is_open(path.parent()?)).or_else(|| is_open(dir))
}

fn is_hook_name(name: &str) -> bool {
    let is_left_over = name.ends_with(".bak") || name.contains(".dpkg-") || name.contains(".ucf-");
    !name.starts_with('.')
        && !is_left_over
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Everything that a hook's environment holds. What does not apply is there and empty.
fn environment(event: &Value, dir: &Path, hooks: &Path, attempt: u32) -> Vec<(String, String)> {
    let text = |pointer: &str| match event.pointer(pointer) {
        Some(Value::String(text)) => text.replace('\0', ""),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let either = |first: &str, second: &str| match text(first) {
        empty if empty.is_empty() => text(second),
        found => found,
    };
    let hooks = std::path::absolute(hooks).unwrap_or_else(|_| hooks.to_owned());
    let (dir, hooks) = (dir.display().to_string(), hooks.display().to_string());
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("HOME", dir.clone()),
        ("TMPDIR", dir),
        ("PTPORTAL_HOOKS_DIR", hooks),
        ("PTPORTAL_ATTEMPT", attempt.to_string()),
        ("PTPORTAL_EVENT", text("/type")),
        ("PTPORTAL_EVENT_ID", text("/id")),
        ("PTPORTAL_TIME", text("/timestamp")),
        ("PTPORTAL_CLIENT_NO", text("/data/client_no")),
        ("PTPORTAL_USERNAME", text("/data/username")),
        ("PTPORTAL_PROJECT_NO", text("/data/project_no")),
        ("PTPORTAL_TICKET_NO", text("/data/ticket_no")),
        ("PTPORTAL_UPLOAD_ID", text("/data/upload_id")),
        ("PTPORTAL_PATH", text("/data/path")),
        ("PTPORTAL_SIZE", either("/data/upload/size", "/data/detail/size")),
        ("PTPORTAL_SHA256", either("/data/upload/sha256", "/data/detail/sha256")),
        ("PTPORTAL_VERDICT", either("/data/upload/verdict", "/data/detail/verdict")),
        ("PTPORTAL_SIGNATURE", either("/data/upload/signature", "/data/detail/signature")),
        ("PTPORTAL_REASON", either("/data/detail/reason", "/data/upload/reason")),
        ("PTPORTAL_FILE", text("/data/file")),
        ("PTPORTAL_PLACED_NAME", text("/data/detail/placed_name")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn sample_event(
    kind: EventKind,
    id: &str,
    now: crate::domain::time::Timestamp,
    file: &Path,
) -> Value {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    serde_json::json!({
        "id": id, "seq": 0, "type": kind.as_str(), "timestamp": now.to_string(), "sample": true,
        "data": {
            "client_no": "1001", "username": "muster", "project_no": "2026-0815", "ticket_no": "2026-0815-01",
            "upload_id": "00000000000000000000000000", "path": "Eingehend/beispiel.pdf", "peer": "192.0.2.1",
            "file": file.to_string_lossy(),
            "upload": {
                "size": SAMPLE_PDF.len(), "sha256": hex::encode(<sha2::Sha256 as sha2::Digest>::digest(SAMPLE_PDF)),
                "verdict": "clean", "signature": null, "reason": null, "state": "released",
            },
            "project": {"project_no": "2026-0815", "client_no": "1001", "job_description": "Beispiel", "state": "open"},
            "detail": {"placed_name": "1001/2026-0815/Eingehend/beispiel.pdf", "reason": "Beispiel"},
        },
    })
}

/// One empty A4 page.
const SAMPLE_PDF: &[u8] = include_bytes!("../../templates/hooks/sample.pdf");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_leave_is_no_hook() {
        for name in ["10-look", "a.sh", "B_2.py"] {
            assert!(is_hook_name(name), "{name}");
        }
        for name in [".hidden", "10-look~", "a.bak", "a.dpkg-new", "a b", "a;b"] {
            assert!(!is_hook_name(name), "{name}");
        }
    }

    #[test]
    fn every_value_stands_in_the_environment_as_it_is() {
        let event = serde_json::json!({
            "id": "1", "data": {"path": "Eingehend/$(touch x);\"\n-rf.pdf", "upload": {"size": 5, "reason": null}}
        });
        let all = environment(&event, Path::new("/tmp/x"), Path::new("/etc/hooks"), 2);
        let value = |name: &str| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("PTPORTAL_PATH"), Some("Eingehend/$(touch x);\"\n-rf.pdf"));
        assert_eq!((value("PTPORTAL_SIZE"), value("PTPORTAL_REASON")), (Some("5"), Some("")));
        assert_eq!(value("PTPORTAL_ATTEMPT"), Some("2"));
    }
}
