//! Hooks and webhooks: durable runs, at least once with a stable id, each target a lane of its own, so that one that
//! hangs or fails delays no customer and no other (spec section 13).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clients::{Refused, because, missing};
use super::hand_on::{self, Consumer};
use super::hook_programs::{self, Unfit, outcome_of};
use super::work::Work;
use super::{App, shielded};
use crate::domain::event::{Event, EventKind};
use crate::process::Status;
use crate::steps;
use crate::store::hook_runs::{self, Attempted, HookRunRow};
use crate::webhook::{Call, NotTaken};

/// Runs of one target at once.
const IN_A_LANE: usize = 2;
/// Runs of all targets at once.
const AT_ONCE: usize = 32;
const POLL: Duration = Duration::from_millis(500);
/// A webhook's call takes 15 s at most.
const WEBHOOK_LEASE: Duration = Duration::from_secs(60);
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
pub(super) enum Outcome {
    /// What follows are executables, each with a run of its own from now on.
    Done {
        output: String,
        follow: Vec<String>,
    },
    Again {
        error: String,
        output: String,
    },
    Failed {
        error: String,
        output: String,
    },
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
    hook_programs::clear_folders(&app).await;
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

async fn settle(
    app: &App,
    row: &HookRunRow,
    (consumer, owner): (Consumer, &str),
    outcome: Outcome,
    ms: i64,
) -> anyhow::Result<()> {
    steps::reach("hook.ended");
    let now = app.now();
    // To look for hooks starts none, so it is done as often as a webhook is called.
    let is_look = hook_programs::unread(&row.target).is_some();
    let patience = if is_look { Consumer::Webhook } else { consumer };
    let pause = pause(patience, row.attempts, now.0.saturating_sub(row.created));
    let (state, error, output, next_try) = match (&outcome, pause) {
        (Outcome::Done { output, .. }, _) => ("done", "", output, now),
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
    if let Outcome::Done { follow, .. } = &outcome {
        write_following(&mut work, row, follow).await?;
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

async fn write_following(
    work: &mut Work<'_>,
    row: &HookRunRow,
    targets: &[String],
) -> anyhow::Result<()> {
    let payload: serde_json::Value = serde_json::from_str(&row.payload)?;
    for target in targets {
        let call = hand_on::Call {
            seq: row.event_seq,
            event: &row.event,
            upload_id: &row.upload_id,
            consumer: Consumer::Hook,
            target: target.clone(),
            payload: payload.clone(),
        };
        hand_on::write_call(work, &call).await?;
    }
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
        Ok(output) => Outcome::Done { output, follow: Vec::new() },
        Err(NotTaken::Now(error)) => Outcome::Again { error, output: String::new() },
        Err(NotTaken::ForGood(error)) => Outcome::Failed { error, output: String::new() },
    }
}

/// Nothing when the server's stop cut it short.
async fn run_hook(app: &Arc<App>, row: &HookRunRow) -> Option<Outcome> {
    if let Some(kind) = hook_programs::unread(&row.target) {
        return Some(match app.hooks_for(kind).await {
            // In the middle of being mended, say: hooks that an event had are not forgotten on one look.
            Ok(names) if names.is_empty() => {
                let error = "the folder could not be read, and holds no hooks now".to_owned();
                Outcome::Again { error, output: String::new() }
            }
            Ok(names) => {
                let follow = names.iter().map(|name| format!("{}{name}", row.target)).collect();
                Outcome::Done { output: names.join("\n"), follow }
            }
            Err(error) => Outcome::Again { error: error.to_string(), output: String::new() },
        });
    }
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

impl App {
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
}
