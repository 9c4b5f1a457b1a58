//! `hook` and `publish`: what follows from events, and the way back.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::Context;
use super::print;
use super::workflow_args::{HookCommand, PublishCommand};
use crate::app::views;
use crate::store::{hook_runs, published};

/// Rows printed at most.
const LIMIT: i64 = 100_000;

pub(super) async fn hook(context: &Context, command: HookCommand) -> anyhow::Result<ExitCode> {
    let app = context.open().await?;
    match command {
        HookCommand::Test { event } => {
            let tested = app.test_hooks(&event).await?;
            let has_failed = tested.iter().any(|hook| hook.problem.is_some());
            if context.printer.is_json() {
                let all: Vec<Value> = tested
                    .iter()
                    .map(|h| json!({"hook": h.name, "ok": h.problem.is_none(), "reason": h.problem, "output": h.output, "ms": h.ms}))
                    .collect();
                context.printer.list(&all, &[]);
            } else {
                for hook in &tested {
                    let end = hook.problem.as_deref().unwrap_or("done");
                    print::out(&format!("== {}: {end} ({} ms)", hook.name, hook.ms));
                    hook.output.lines().for_each(|line| print::out(&print::plain(line)));
                }
            }
            return Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        HookCommand::List { state } => {
            let state = state.unwrap_or_default();
            if !["", "pending", "done", "failed"].contains(&state.as_str()) {
                anyhow::bail!("{state:?} is not a state of a hook's run; see `hook list --help`");
            }
            let rows = hook_runs::list(app.store.db(), &state, LIMIT).await?;
            let rows: Vec<Value> = rows.iter().map(views::hook_run).collect();
            let columns = [
                "id",
                "created",
                "target",
                "state",
                "attempts",
                "next_try",
                "upload_id",
                "last_error",
            ];
            context.printer.list(&rows, &columns);
        }
        HookCommand::Show { id } => {
            let row = app.hook_run(&id).await?;
            context.printer.one(&views::hook_run(&row));
        }
        HookCommand::Retry { id, .. } => {
            let tried = app.retry_hook(id.as_deref().unwrap_or("")).await?;
            context.printer.one(&json!({"retried": tried}));
            context.wake().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn publish(context: &Context, command: PublishCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        PublishCommand::List { project_no: None } => {
            let rows = published::holds(app.store.db()).await?;
            let rows: Vec<Value> = rows.iter().map(views::publish_hold).collect();
            let columns = ["project_no", "folder", "missing", "total", "confirmed", "created"];
            context.printer.list(&rows, &columns);
        }
        PublishCommand::List { project_no: Some(no) } => {
            let files = app.published_files(&no).await?;
            let rows: Vec<Value> =
                files.iter().map(|(folder, row)| views::published_file(folder, row)).collect();
            context.printer.list(&rows, &["folder", "path", "size", "state", "upload_id"]);
        }
        PublishCommand::Confirm { project_no, folder } => {
            let folder = folder.unwrap_or_default();
            let confirmed = app.confirm_removals(&project_no, &folder).await?;
            context.printer.one(&json!({"confirmed": confirmed}));
        }
    }
    Ok(())
}
