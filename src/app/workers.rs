//! What runs beside the fronts: heartbeat, changes, scanner watch, scan queue, mirror, clearing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::{
    App, activation, batches, control, hand_on, hooks, import_folder, mails, mirror, recovery,
    retention, scanner, scans, share_watch,
};
use crate::domain::account::{AccountName, Status};
use crate::domain::time::Timestamp;
use crate::store::events::ChangeRow;
use crate::store::{self, Kind, accounts, clock, events, guard, nodes, web_sessions};

/// Changes made by commands take effect within a second without the control socket.
const POLL_CHANGES: Duration = Duration::from_millis(500);
const CLEAR_EVERY: Duration = Duration::from_secs(60);
const CHANGES_KEPT: Duration = Duration::from_secs(24 * 3600);

/// After a bug a worker pauses, so that one which cannot go on does not fill the log.
const AGAIN: Duration = Duration::from_secs(5);

/// Starts every worker on the application's task tracker.
pub fn start(app: &Arc<App>) {
    keep(app, "heartbeat", beat);
    keep(app, "servers", follow_servers);
    keep(app, "changes", follow_changes);
    scanner::start(app);
    keep(app, "scans", scans::run);
    keep(app, "mirror", mirror::run);
    mails::start(app);
    keep(app, "events", hand_on::run);
    keep(app, "hooks", hooks::run);
    keep(app, "batches", batches::run);
    keep(app, "share", share_watch::run);
    keep(app, "retention", retention::run);
    keep(app, "links", activation::run);
    keep(app, "import", import_folder::run);
    keep(app, "clearing", clear);
    keep(app, "control", control::listen);
}

/// Runs a worker that begins again when a bug has ended it: what it had claimed runs out, and is claimed again.
pub(super) fn keep<F>(
    app: &Arc<App>,
    worker: &'static str,
    run: impl Fn(Arc<App>) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let app = Arc::clone(app);
    app.clone().tasks.spawn(async move {
        while app.tasks.spawn(run(Arc::clone(&app))).await.is_err_and(|end| end.is_panic()) {
            tracing::error!(worker, "a worker ended by a bug, it begins again");
            tokio::select! {
                () = app.stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    });
}

/// Shows that this process lives.
async fn beat(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(nodes::HEARTBEAT) => {}
        }
        // Looked at now and not when the next order comes: a mistake in it is told at once.
        drop(app.client_ini.current());
        let now = app.now();
        match nodes::beat(app.store.db(), app.node.as_str(), now).await {
            Ok(0) => {
                // Others took us for dead (a long pause): show up again.
                let host = host_name();
                let inserted = nodes::insert(
                    app.store.db(),
                    app.node.as_str(),
                    &host,
                    std::process::id(),
                    now,
                )
                .await;
                if let Err(error) = app.show_sessions_again().await {
                    tracing::error!(%error, "the sessions of this server could not be shown again");
                }
                tracing::warn!(
                    again = inserted.is_ok(),
                    "this server was taken for dead by another"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the database does not take the heartbeat"),
        }
    }
}

/// The heartbeat of a server that stops: no other may take over what still runs here.
pub async fn beat_to_the_end(app: &App) -> Infallible {
    loop {
        tokio::time::sleep(nodes::HEARTBEAT).await;
        if let Err(error) = nodes::beat(app.store.db(), app.node.as_str(), app.now()).await {
            tracing::error!(%error, "the database does not take the heartbeat");
        }
    }
}

/// Takes over what dead servers left. Beside the heartbeat, which does not wait for it.
async fn follow_servers(app: Arc<App>) {
    while app.store.kind() == Kind::Postgres {
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(nodes::HEARTBEAT) => {}
        }
        if let Err(error) = recovery::take_over(&app).await {
            tracing::error!(%error, "what a dead server left could not be taken over");
        }
    }
}

/// This machine's name, for `nodes`.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Reads what commands changed and makes it count here.
async fn follow_changes(app: Arc<App>) {
    let mut seen = events::last_change(app.store.db()).await.unwrap_or(0);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = app.changes_wake.notified() => {}
            () = tokio::time::sleep(POLL_CHANGES) => {}
        }
        let rows = match events::last_change(app.store.db()).await {
            Ok(last) if last == seen => continue,
            Ok(_) => events::changes_after(app.store.db(), seen).await,
            Err(error) => Err(error),
        };
        match rows {
            Ok(rows) => {
                for row in rows {
                    seen = row.seq;
                    apply(&app, &row).await;
                }
            }
            Err(error) => tracing::error!(%error, "changes could not be read"),
        }
    }
}

async fn apply(app: &Arc<App>, change: &ChangeRow) {
    let (kind, key) = (change.kind.as_str(), change.key.as_str());
    tracing::debug!(kind, key, "change noticed");
    match kind {
        "account" => refresh_account(app, key).await,
        "access" => app.sessions.end_older(key, (Timestamp(change.created), app.now())),
        "default" => {
            for account in app.sessions.accounts() {
                refresh_account(app, account.as_str()).await;
            }
        }
        "upload" => app.scans.retry(key),
        "scan" => {
            if let Err(error) = scans::enqueue_own(app).await {
                tracing::error!(%error, "the scan queue could not be filled");
            }
        }
        "delivery" => app.mirror_wake.notify_one(),
        "mail" => app.mails_wake.notify_one(),
        "hook" => app.hooks_wake.notify_one(),
        "ban" => app.guard_wake.notify_one(),
        // Projects and clients are read anew, beyond what is remembered for a moment.
        _ => {
            if kind == "project" {
                // One that is over has contents that may go.
                app.retention_wake.notify_one();
            }
            app.recent.projects.clear();
            app.recent.tickets.clear();
            app.recent.folders.clear();
        }
    }
}

/// Ends the sessions of an account that may no longer be used, and gives others their new settings.
async fn refresh_account(app: &Arc<App>, username: &str) {
    let row = match accounts::account(app.store.db(), username).await {
        Ok(row) => row,
        Err(error) => {
            tracing::error!(%error, account = username, "changed account could not be read");
            return;
        }
    };
    let Some(row) = row.filter(|row| row.status() == Status::Active) else {
        app.sessions.end(Some(username), None);
        return;
    };
    // Removed and made anew for another client.
    app.sessions.end_unless(username, |live| live.client_no == row.client_no);
    let (settings, name) = (app.effective_settings(&row).await, AccountName::parse(username));
    if let (Ok(settings), Some(name)) = (settings, name) {
        if settings.is_expired(app.now()) {
            app.sessions.end(Some(username), None);
        }
        app.sessions.end_unless(username, |live| {
            settings.allows_protocol(live.protocol) && settings.allows_address(live.peer)
        });
        app.sessions.apply_settings(&name, &Arc::new(settings));
    }
}

/// What was planned while the clock went ahead is due when it goes right again, not hours later.
async fn follow_clock(app: &App) -> store::Result<()> {
    let mut tx = app.store.write().await?;
    let moved = clock::pull_in(&mut tx, app.now()).await?;
    tx.commit().await?;
    if moved > 0 {
        tracing::warn!(
            rows = moved,
            "the clock was set back; what waited for a later time is due now"
        );
    }
    Ok(())
}

/// Forgets what has had its time.
async fn clear(app: Arc<App>) {
    loop {
        if let Err(error) = follow_clock(&app).await {
            tracing::error!(%error, "what waits could not be looked at, tried again in a minute");
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(CLEAR_EVERY) => {}
        }
        let cleared = async {
            recovery::own_orphans(&app).await?;
            recovery::drop_stale(&app).await?;
            // An account may have expired meanwhile.
            for account in app.sessions.accounts() {
                refresh_account(&app, account.as_str()).await;
            }
            let now = app.now();
            events::delete_changes_before(app.store.db(), now.minus(CHANGES_KEPT)).await?;
            guard::delete_expired(app.store.db(), now).await?;
            let counted = now.minus(app.limits().ban_window);
            guard::delete_failures_before(app.store.db(), counted).await?;
            app.clear_sessions().await?;
            web_sessions::delete_expired(app.store.db(), now).await?;
            anyhow::Ok(())
        };
        if let Err(error) = cleared.await {
            tracing::error!(%error, "clearing up failed, tried again in a minute");
        }
    }
}
