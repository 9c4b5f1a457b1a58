//! `upload`, `delivery`, `events`, `ban`: what operators watch and decide.

use std::time::Duration;

use serde_json::{Value, json};

use super::Context;
use super::args::{BanCommand, DeliveryCommand, EventsFilter, UploadCommand};
use crate::app::views;
use crate::domain::upload::{DeliveryState, UploadState};
use crate::domain::{account, time};
use crate::store::events::Filter;
use crate::store::{deliveries, events as event_rows, guard, uploads};

/// Rows printed at most.
const LIMIT: i64 = 100_000;
const FOLLOW_EVERY: Duration = Duration::from_millis(300);
const EVENT_COLUMNS: [&str; 8] =
    ["time", "kind", "client_no", "username", "peer", "path", "upload_id", "detail"];

/// Who decides: the person at the terminal.
pub(super) fn operator() -> String {
    std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "operator".to_owned())
}

pub(super) async fn upload(context: &Context, command: UploadCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    let row = match command {
        UploadCommand::List { state, client, project } => {
            let state = state.unwrap_or_default();
            if !state.is_empty() && UploadState::parse(&state).is_none() {
                anyhow::bail!("{state:?} is not a state of an upload; see `upload list --help`");
            }
            let filter =
                (state.as_str(), client.as_deref().unwrap_or(""), project.as_deref().unwrap_or(""));
            let rows = uploads::list(app.store.db(), filter, LIMIT).await?;
            let rows: Vec<Value> = rows.iter().map(views::upload).collect();
            let columns = [
                "id",
                "started",
                "state",
                "client_no",
                "project_no",
                "path",
                "size",
                "signature",
                "reason",
            ];
            context.printer.list(&rows, &columns);
            return Ok(());
        }
        UploadCommand::Show { id } => {
            let row = app.upload_row(&id).await?;
            let mut shown = views::upload(&row);
            let placed = deliveries::of_upload(app.store.db(), &row.id).await?;
            if let Some(map) = shown.as_object_mut() {
                map.insert("deliveries".to_owned(), placed.iter().map(views::delivery).collect());
            }
            context.printer.one(&shown);
            return Ok(());
        }
        UploadCommand::Retry { id } => app.retry_upload(&id).await?,
        UploadCommand::Release { id, reason, false_positive } => {
            app.release_upload(&id, (&operator(), &reason), false_positive).await?
        }
        UploadCommand::Reject { id, reason } => {
            app.reject_upload(&id, (&operator(), &reason)).await?
        }
    };
    context.printer.one(&views::upload(&row));
    context.wake().await;
    Ok(())
}

pub(super) async fn delivery(context: &Context, command: DeliveryCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        DeliveryCommand::List { state } => {
            let state = state.unwrap_or_default();
            if !state.is_empty() && DeliveryState::parse(&state).is_none() {
                anyhow::bail!("{state:?} is not a state of a delivery; see `delivery list --help`");
            }
            let rows = deliveries::list(app.store.db(), &state, LIMIT).await?;
            let rows: Vec<Value> = rows.iter().map(views::delivery).collect();
            let columns =
                ["id", "upload_id", "state", "attempts", "next_try", "placed_name", "last_error"];
            context.printer.list(&rows, &columns);
        }
        DeliveryCommand::Retry { id, .. } => {
            let tried = app.retry_deliveries(id.as_deref().unwrap_or("")).await?;
            context.printer.one(&json!({"retried": tried}));
            context.wake().await;
        }
    }
    Ok(())
}

pub(super) async fn events(context: &Context, filter: EventsFilter) -> anyhow::Result<()> {
    let app = context.open().await?;
    let since = match &filter.since {
        None => 0,
        Some(text) => match time::parse(text) {
            Some(moment) => moment.0,
            None => anyhow::bail!("--since {text:?} is neither YYYY-MM-DD nor RFC 3339"),
        },
    };
    let mut wanted = Filter {
        after_seq: 0,
        since,
        client_no: filter.client.unwrap_or_default(),
        project_no: filter.project.unwrap_or_default(),
        kind: filter.kind.unwrap_or_default(),
        limit: LIMIT,
    };
    let rows = event_rows::list(app.store.db(), &wanted).await?;
    if !filter.follow {
        let rows: Vec<Value> = rows.iter().map(views::event).collect();
        context.printer.list(&rows, &EVENT_COLUMNS);
        return Ok(());
    }
    let mut rows = rows;
    loop {
        for row in &rows {
            context.printer.line(&views::event(row), &EVENT_COLUMNS);
            wanted.after_seq = row.seq;
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
        rows = event_rows::list(app.store.db(), &wanted).await?;
    }
}

pub(super) async fn ban(context: &Context, command: BanCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        BanCommand::List => {
            let rows = guard::bans(app.store.db(), app.now()).await?;
            let rows: Vec<Value> = rows.iter().map(views::ban).collect();
            context.printer.list(&rows, &["address", "until", "reason"]);
        }
        BanCommand::Remove { address } => {
            let mut tx = app.store.write().await?;
            let address = match address.parse() {
                Ok(parsed) => account::subscriber(parsed).to_string(),
                Err(_) => address,
            };
            if guard::remove(tx.db(), &address).await? == 0 {
                anyhow::bail!("{address} is not banned; `ban list` shows who is");
            }
            event_rows::note_change(tx.db(), "ban", &address, app.now()).await?;
            tx.commit().await?;
            context.printer.one(&json!({"address": address, "removed": true}));
            context.wake().await;
        }
    }
    Ok(())
}
