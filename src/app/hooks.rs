//! Hooks and webhooks: durable runs, at least once with a stable id, each target a lane of its own, so that one that
//! hangs or fails delays no customer and no other (spec section 13).

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::clients::{Refused, because, missing};
use super::hand_on::Consumer;
use super::{App, shielded};
use crate::domain::event::{Event, EventKind};
use crate::process::{self, Ended, Program, Status};
use crate::steps;
use crate::store::hook_runs::{self, Attempted, HookRunRow};
use crate::vault;
use crate::webhook::{Call, NotTaken};

/// Runs of one target at once.
const IN_A_LANE: usize = 2;
/// Runs of all targets at once.
const AT_ONCE: usize = 32;
const POLL: Duration = Duration::from_millis(500);
/// A webhook's call takes 15 s at most.
const WEBHOOK_LEASE: Duration = Duration::from_secs(60);
/// At shutdown a hook may end by itself for this long; then it is run again at the next start.
const LAST_WAIT: Duration = Duration::from_secs(20);
/// Three retries.
const HOOK_PAUSES: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];
/// The last one again and again, for a day.
const WEBHOOK_PAUSES: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(3600),
];
const WEBHOOK_GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// How an attempt ended.
enum Outcome {
    Done { output: String },
    Again { error: String, output: String },
    Failed { error: String, output: String },
}

/// How many runs of each target are under way here.
#[derive(Default)]
struct Lanes(Mutex<HashMap<(Consumer, String), usize>>);

impl Lanes {
    fn has_room(&self, lane: &(Consumer, String)) -> bool {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.values().sum::<usize>() < AT_ONCE && lanes.get(lane).is_none_or(|n| *n < IN_A_LANE)
    }

    fn enter(&self, lane: (Consumer, String)) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = lanes.entry(lane).or_default();
        *count = count.saturating_add(1);
    }

    fn leave(&self, lane: &(Consumer, String)) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = lanes.get_mut(lane) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                lanes.remove(lane);
            }
        }
    }
}

/// Runs what is due until shutdown.
pub async fn run(app: Arc<App>) {
    clear_folders(&app).await;
    let lanes = Arc::new(Lanes::default());
    loop {
        for consumer in Consumer::ALL {
            if let Err(error) = start_due(&app, &lanes, consumer).await {
                tracing::error!(%error, "hook runs could not be claimed");
            }
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = app.hooks_wake.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn start_due(app: &Arc<App>, lanes: &Arc<Lanes>, consumer: Consumer) -> anyhow::Result<()> {
    for target in hook_runs::due_targets(app.store.db(), consumer.as_str(), app.now()).await? {
        let lane = (consumer, target);
        while lanes.has_room(&lane) && !app.stop.is_cancelled() {
            let owner = format!("{}/{}", app.node, app.new_id());
            let now = app.now();
            let until = match consumer {
                Consumer::Hook => now.plus(app.config.hooks.timeout).plus(WEBHOOK_LEASE),
                Consumer::Webhook => now.plus(WEBHOOK_LEASE),
            };
            let of = (consumer.as_str(), lane.1.as_str());
            let claimed = hook_runs::claim(app.store.db(), of, (&owner, until), now).await?;
            let Some(row) = claimed else { break };
            lanes.enter(lane.clone());
            let (app, lanes, lane) = (Arc::clone(app), Arc::clone(lanes), lane.clone());
            app.clone().tasks.spawn(async move {
                let shared = Arc::clone(&app);
                let attempted = async move { attempt(&shared, &row, consumer, &owner).await };
                shielded(&app, attempted).await;
                lanes.leave(&lane);
                app.hooks_wake.notify_one();
            });
        }
    }
    Ok(())
}

async fn attempt(app: &Arc<App>, row: &HookRunRow, consumer: Consumer, owner: &str) {
    let started = std::time::Instant::now();
    let outcome = match consumer {
        Consumer::Hook => match run_hook(app, row).await {
            Some(outcome) => outcome,
            // Its lease is freed when this server's end is noticed, and it runs again with the same id.
            None => return,
        },
        Consumer::Webhook => call_webhook(app, row).await,
    };
    let ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    if let Err(error) = settle(app, row, (consumer, owner), outcome, ms).await {
        tracing::error!(%error, run = row.id, "the end of a hook's run could not be noted; it will run again");
    }
}

/// The server's stop, and what a hook may still take to end by itself.
async fn too_late(app: &App) {
    app.stop.cancelled().await;
    tokio::time::sleep(LAST_WAIT).await;
}

async fn settle(
    app: &App,
    row: &HookRunRow,
    (consumer, owner): (Consumer, &str),
    outcome: Outcome,
    ms: i64,
) -> anyhow::Result<()> {
    steps::reach("hook.ended");
    let now = app.now();
    let pause = pause(consumer, row.attempts, now.0.saturating_sub(row.created));
    let (state, error, output, next_try) = match (&outcome, pause) {
        (Outcome::Done { output }, _) => ("done", "", output, now),
        (Outcome::Again { error, output }, Some(pause)) => {
            ("pending", error.as_str(), output, now.plus(pause))
        }
        (Outcome::Again { error, output }, None) | (Outcome::Failed { error, output }, _) => {
            ("failed", error.as_str(), output, now)
        }
    };
    let attempted = Attempted { state, error, output, ms, next_try };
    let mut work = app.begin().await?;
    if hook_runs::finish(work.tx.db(), (&row.id, owner), &attempted, now).await? == 0 {
        return Ok(());
    }
    match state {
        "done" => {
            tracing::info!(
                hook = row.target,
                run = row.id,
                upload = row.upload_id,
                ms,
                "hook done"
            );
        }
        "pending" => tracing::warn!(
            hook = row.target,
            run = row.id,
            upload = row.upload_id,
            attempt = row.attempts,
            next_try = %next_try,
            reason = error,
            "hook failed, tried again"
        ),
        _ => {
            let mut event = Event::new(EventKind::HookFailed)
                .with("hook", row.target.clone())
                .with("run", row.id.clone())
                .with("event", row.event.clone())
                .with("attempts", row.attempts)
                .with("reason", error)
                .with("remedy", format!("`hook show {0}`, then `hook retry {0}`", row.id));
            row.upload_id.clone_into(&mut event.upload_id);
            work.note(event);
        }
    }
    work.commit().await?;
    Ok(())
}

/// The pause after this many attempts; none when it is given up.
fn pause(consumer: Consumer, attempts: i64, age_ms: i64) -> Option<Duration> {
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(0);
    match consumer {
        Consumer::Hook => HOOK_PAUSES.get(index).copied(),
        Consumer::Webhook => {
            let pause = WEBHOOK_PAUSES.get(index).or(WEBHOOK_PAUSES.last()).copied()?;
            let give_up = i64::try_from(WEBHOOK_GIVE_UP.as_millis()).unwrap_or(i64::MAX);
            (age_ms < give_up).then_some(pause)
        }
    }
}

async fn call_webhook(app: &App, row: &HookRunRow) -> Outcome {
    let Some(webhook) = app.config.webhooks.iter().find(|webhook| webhook.url == row.target) else {
        let error = "no [[webhook]] has this url any more".to_owned();
        return Outcome::Failed { error, output: String::new() };
    };
    let call = Call {
        url: &webhook.url,
        id: &row.id,
        body: &row.payload,
        secret: &webhook.secret,
        now: app.now(),
    };
    match app.caller.post(&call).await {
        Ok(output) => Outcome::Done { output },
        Err(NotTaken::Now(error)) => Outcome::Again { error, output: String::new() },
        Err(NotTaken::ForGood(error)) => Outcome::Failed { error, output: String::new() },
    }
}

/// Where hooks work; emptied at start.
fn folders_dir(app: &App) -> PathBuf {
    app.config.data_dir.join("hooks-tmp")
}

async fn clear_folders(app: &App) {
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

/// Nothing when the server's stop cut it short.
async fn run_hook(app: &Arc<App>, row: &HookRunRow) -> Option<Outcome> {
    let path = app.config.hooks.dir.join(&row.target);
    let attempt = u32::try_from(row.attempts).unwrap_or(1);
    match app.run_program(&path, &row.payload, attempt).await {
        Ok(ended) if ended.status == Status::Cut => None,
        Ok(ended) => Some(outcome_of(app, ended)),
        Err(Unfit::Gone) => {
            let error = "the hook is not there any more".to_owned();
            Some(Outcome::Failed { error, output: String::new() })
        }
        Err(Unfit::NotNow(error)) => Some(Outcome::Again { error, output: String::new() }),
    }
}

fn outcome_of(app: &App, ended: Ended) -> Outcome {
    let output = ended.output;
    let error = match ended.status {
        Status::Exited(0) => return Outcome::Done { output },
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

/// Why a program was not run.
enum Unfit {
    Gone,
    NotNow(String),
}

impl App {
    /// Runs one executable with an event.
    async fn run_program(
        self: &Arc<Self>,
        path: &Path,
        payload: &str,
        attempt: u32,
    ) -> Result<Ended, Unfit> {
        match std::fs::metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Unfit::Gone),
            Err(error) => return Err(Unfit::NotNow(error.to_string())),
        }
        if let Some(reason) = unsafe_reason(path, &self.config.hooks.dir) {
            return Err(Unfit::NotNow(reason));
        }
        let event: Value = serde_json::from_str(payload).unwrap_or_default();
        let id = event.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (above, name) = (folders_dir(self), format!("{id}.{attempt}"));
        let dir = above.join(&name);
        let made = dir.clone();
        let ready = super::blocking(move || vault::make_private_dir(&made)).await;
        ready.map_err(|error| Unfit::NotNow(format!("its working folder: {error}")))?;
        let hooks_dir = self.config.hooks.dir.clone();
        let program = Program {
            path: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
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
        let dir = self.config.hooks.dir.clone();
        let programs = programs(&dir, kind)
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
                Outcome::Done { output } => (None, output),
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

    /// # Errors
    /// No such run.
    pub async fn hook_run(&self, id: &str) -> Result<HookRunRow, Refused> {
        match hook_runs::run(self.store.db(), id).await? {
            Some(row) => Ok(row),
            None => missing(format!("there is no hook run {id}; `hook list` shows all")),
        }
    }

    /// Runs one again that was given up, or with an empty id all of them.
    ///
    /// # Errors
    /// Nothing to retry.
    pub async fn retry_hook(&self, id: &str) -> Result<u64, Refused> {
        if !id.is_empty() {
            self.hook_run(id).await?;
        }
        let mut work = self.begin().await?;
        let tried = hook_runs::retry(work.tx.db(), id, work.now).await?;
        work.changed("hook", id);
        work.commit().await?;
        if tried == 0 && !id.is_empty() {
            return because(format!("hook run {id} is done or under way; see `hook show {id}`"));
        }
        Ok(tried)
    }
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

/// The executables of an event, in name order. What editors and package managers leave is none.
///
/// # Errors
/// A folder that is there and cannot be read now.
pub(super) async fn programs(dir: &Path, kind: EventKind) -> std::io::Result<Vec<String>> {
    let dir = dir.join(kind.as_str());
    let listed = super::blocking(move || {
        let mut names = Vec::new();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if is_no_folder(&error) => return Ok(names),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_executable = std::fs::metadata(entry.path())
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
            if is_executable && is_hook_name(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    });
    listed.await
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
    fn hooks_are_tried_four_times_webhooks_for_a_day() {
        let tries = (1..10).take_while(|n| pause(Consumer::Hook, *n, 0).is_some()).count();
        assert_eq!(tries, 3);
        assert!(pause(Consumer::Webhook, 1, 0).is_some_and(|p| p <= Duration::from_secs(30)));
        assert!(pause(Consumer::Webhook, 1000, 86_399_000).is_some());
        assert_eq!(pause(Consumer::Webhook, 3, 86_400_000), None);
    }

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
