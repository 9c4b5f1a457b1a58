//! What follows from an event: hooks, webhooks, batches, tickets, mails. Events are the outbox: they are numbered in
//! the order of their commits, and one transaction moves a mark over them and writes down everything that follows. So
//! nothing follows twice, and nothing is lost.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::work::Work;
use super::{App, batches, data_mails, job_tickets, views};
use crate::domain::event::EventKind;
use crate::domain::time::Timestamp;
use crate::steps;
use crate::store::events::{self, EventRow};
use crate::store::{self, hook_runs, orders, uploads};

/// Events in one transaction.
const AT_ONCE: usize = 100;
const POLL: Duration = Duration::from_millis(300);

/// A hook or webhook that an event calls.
pub(super) struct Call<'a> {
    pub(super) seq: i64,
    pub(super) event: &'a str,
    pub(super) upload_id: &'a str,
    pub(super) consumer: Consumer,
    pub(super) target: String,
    /// Its id is made when the row is.
    pub(super) payload: Value,
}

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consumer {
    /// An executable of the print shop.
    Hook,
    Webhook,
}

impl Consumer {
    pub const ALL: [Self; 2] = [Self::Hook, Self::Webhook];

    /// The word in `hook_runs.consumer`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Webhook => "webhook",
        }
    }
}

/// Hands events on until shutdown.
pub async fn run(app: Arc<App>) {
    loop {
        match app.hand_on().await {
            // Many at once: one commit for a hundred costs little, one for each would slow uploads down.
            Ok(AT_ONCE..) if !app.stop.is_cancelled() => continue,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "what follows from events could not be written down, tried again")
            }
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

impl App {
    /// Hands the next events on; gives how many.
    async fn hand_on(&self) -> anyhow::Result<usize> {
        let from = events::handed_on(self.store.db()).await?;
        let rows =
            events::after(self.store.db(), from, i64::try_from(AT_ONCE).unwrap_or(1)).await?;
        let Some(last) = rows.last() else { return Ok(0) };
        let calls = self.calls_for(&rows).await?;
        let mut work = self.begin().await?;
        if events::set_handed_on(work.tx.db(), from, last.seq).await? == 0 {
            // Another server was faster.
            return Ok(0);
        }
        for call in &calls {
            write_call(&mut work, call).await?;
        }
        // Rows of batches before the counter of events, as everywhere: PostgreSQL locks them in this order.
        for row in &rows {
            batches_and_tickets(&mut work, row).await?;
        }
        for row in &rows {
            mails(&mut work, row).await?;
        }
        work.commit().await?;
        steps::reach("events.handed-on");
        if !calls.is_empty() {
            self.hooks_wake.notify_one();
        }
        Ok(rows.len())
    }

    /// The hooks and webhooks that these events call, with what they are given.
    async fn calls_for<'a>(&self, rows: &'a [EventRow]) -> store::Result<Vec<Call<'a>>> {
        let mut calls = Vec::new();
        let mut known: HashMap<&str, Vec<String>> = HashMap::new();
        for row in rows {
            let kind =
                EventKind::parse(&row.kind).filter(|kind| EventKind::HOOKABLE.contains(kind));
            let Some(kind) = kind else { continue };
            let programs = match known.get(kind.as_str()) {
                Some(programs) => programs.clone(),
                None => {
                    let programs = self.hook_targets(kind).await;
                    known.insert(kind.as_str(), programs.clone());
                    programs
                }
            };
            let webhooks =
                self.config.webhooks.iter().filter(|webhook| webhook.events.contains(&kind));
            let urls: Vec<String> = webhooks.map(|webhook| webhook.url.clone()).collect();
            if programs.is_empty() && urls.is_empty() {
                continue;
            }
            let outside = self.event_payload(row).await?;
            let mut inside = outside.clone();
            if let Some(data) = inside.get_mut("data").and_then(Value::as_object_mut) {
                data.insert("file".to_owned(), self.file_of(row));
            }
            let call = |consumer, target, payload: &Value| Call {
                seq: row.seq,
                event: kind.as_str(),
                upload_id: row.upload_id.as_str(),
                consumer,
                target,
                payload: payload.clone(),
            };
            calls.extend(programs.into_iter().map(|p| call(Consumer::Hook, p, &inside)));
            calls.extend(urls.into_iter().map(|url| call(Consumer::Webhook, url, &outside)));
        }
        Ok(calls)
    }

    /// An event as hooks and webhooks read it.
    async fn event_payload(&self, row: &EventRow) -> store::Result<Value> {
        let upload = uploads::upload(self.store.db(), &row.upload_id).await?;
        let project = orders::project(self.store.db(), &row.project_no).await?;
        let project = match project {
            Some(project) => {
                let access = self.access_of(&project.client_no).await?;
                views::project(&project, access)
            }
            None => Value::Null,
        };
        let event = views::event(row);
        let of_event = |name: &str| event.get(name).cloned().unwrap_or(Value::Null);
        let ticket_no = upload.as_ref().map(|upload| upload.ticket_no.clone());
        let ticket_no = ticket_no.filter(|no| !no.is_empty()).map_or_else(
            || event.pointer("/detail/ticket").cloned().unwrap_or(Value::Null),
            Value::from,
        );
        Ok(json!({
            "seq": row.seq,
            "type": row.kind,
            "timestamp": Timestamp(row.time).to_string(),
            "data": {
                "client_no": of_event("client_no"), "username": of_event("username"),
                "project_no": of_event("project_no"), "ticket_no": ticket_no,
                "upload_id": of_event("upload_id"), "path": of_event("path"), "peer": of_event("peer"),
                "upload": upload.as_ref().map(views::upload), "project": project,
                "detail": of_event("detail"),
            },
        }))
    }

    /// Where the event's file lies on the share, for programs on this machine.
    fn file_of(&self, row: &EventRow) -> Value {
        let detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
        let placed = detail.get("placed_name").and_then(Value::as_str);
        match (&self.config.hotfolder.root, placed) {
            (Some(root), Some(placed)) => {
                let root = std::path::absolute(root).unwrap_or_else(|_| root.clone());
                Value::from(root.join(Path::new(placed)).to_string_lossy().into_owned())
            }
            (Some(_) | None, _) => Value::Null,
        }
    }
}

/// Writes a run down; its id is in what it is given.
pub(super) async fn write_call(work: &mut Work<'_>, call: &Call<'_>) -> store::Result<()> {
    let id = work.app.new_id();
    let mut payload = call.payload.clone();
    if let Some(map) = payload.as_object_mut() {
        map.insert("id".to_owned(), Value::from(id.as_str()));
    }
    let payload = payload.to_string();
    let about = (call.seq, call.event, call.upload_id);
    let what = (call.consumer.as_str(), call.target.as_str(), payload.as_str());
    hook_runs::insert(work.tx.db(), id.as_str(), about, what, work.now).await?;
    Ok(())
}

async fn batches_and_tickets(work: &mut Work<'_>, row: &EventRow) -> store::Result<()> {
    if row.kind == EventKind::UploadDelivered.as_str() {
        let Some(upload) = uploads::upload(work.tx.db(), &row.upload_id).await? else {
            return Ok(());
        };
        batches::take_in(work, batches::Direction::In, &upload).await?;
        job_tickets::plan_for_file(work, &upload).await?;
    } else if row.kind == EventKind::FilePublished.as_str() {
        let Some(upload) = uploads::upload(work.tx.db(), &row.upload_id).await? else {
            return Ok(());
        };
        batches::take_in(work, batches::Direction::Out, &upload).await?;
    }
    Ok(())
}

async fn mails(work: &mut Work<'_>, row: &EventRow) -> store::Result<()> {
    if row.kind == EventKind::UploadInfected.as_str()
        && let Some(upload) = uploads::upload(work.tx.db(), &row.upload_id).await?
    {
        data_mails::virus(work, &upload, Timestamp(row.time)).await?;
    }
    Ok(())
}
