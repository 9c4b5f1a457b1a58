//! `serve`, `check`, `config show`.

use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::settings::Settings;
use crate::app::check::{Check, State};
use crate::{logging, serve as service};

pub(super) async fn serve(context: &Context) -> anyhow::Result<()> {
    let mut log = context.loaded.config.log.clone();
    if context.is_verbose {
        "debug".clone_into(&mut log.level);
    }
    logging::start(&log)?;
    let stop = CancellationToken::new();
    let (changed, changes) = mpsc::channel(1);
    let running = service::run(context.loaded.config.clone(), context.clock, stop.clone(), changes);
    tokio::pin!(running);
    let mut settings = Settings::new(context);
    tokio::select! {
        ended = &mut running => ended,
        signalled = until_signal(async || {
            if let Some(config) = settings.read_again() {
                changed.send(config).await.ok();
            }
        }) => {
            tracing::info!(signal = signalled?, "told to stop");
            stop.cancel();
            running.await
        }
    }
}

/// SIGTERM and SIGINT end the service; at each SIGHUP `renew` is called.
pub(super) async fn until_signal(mut renew: impl AsyncFnMut()) -> anyhow::Result<&'static str> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    loop {
        return Ok(tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hup.recv() => {
                renew().await;
                continue;
            }
        });
    }
}

pub(super) async fn check(context: &Context, init_hotfolder: bool) -> anyhow::Result<ExitCode> {
    let place = context
        .loaded
        .file
        .as_ref()
        .map_or_else(|| "defaults".to_owned(), |f| f.display().to_string());
    let mut checks = vec![Check {
        name: "configuration",
        state: State::Ok,
        detail: place,
        remedy: String::new(),
    }];
    match context.open().await {
        Ok(app) => {
            if init_hotfolder && let Some(hotfolder) = &app.hotfolder {
                hotfolder.init_marker()?;
            }
            checks.extend(app.check().await);
        }
        Err(error) => checks.push(Check {
            name: "start",
            state: State::Failed,
            detail: super::told(&error),
            remedy: "correct this first; the other checks need it".to_owned(),
        }),
    }
    let rows: Vec<Value> = checks
        .iter()
        .map(|c| json!({"check": c.name, "state": c.state.as_str(), "detail": c.detail, "remedy": c.remedy}))
        .collect();
    context.printer.list(&rows, &["check", "state", "detail", "remedy"]);
    let failed = checks.iter().any(|c| c.state == State::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(super) fn show_config(context: &Context) -> anyhow::Result<()> {
    let file = context.loaded.file.as_deref();
    let rows: Vec<Value> = context
        .loaded
        .origins
        .iter()
        .map(|o| json!({"key": o.key, "value": o.value, "source": o.source.describe(file)}))
        .collect();
    context.printer.list(&rows, &["key", "value", "source"]);
    Ok(())
}
