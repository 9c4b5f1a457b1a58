//! `ptportal serve`: from a configuration to running services, and back to a clean end.
//!
//! Start order: lock the data folder, checks, migrate, recover, workers, listen. Stop order is the reverse.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::passwords::Passwords;
use crate::app::scan_queue::Scans;
use crate::app::scanner::Scanner;
use crate::app::{App, Clock, HostKey, new_id, recovery, workers};
use crate::config::{Config, client_ini};
use crate::guard::Guard;
use crate::hotfolder::Hotfolder;
use crate::store::{self, Store, nodes};
use crate::vault::{self, Vault};
use crate::webhook::Caller;
use crate::{admin, api, challenge, desk, ftps, listen, metering, sftp, tls, web};

/// Connections may finish their transfers for 30 s; what then still runs is cut.
const LAST_WAIT: Duration = Duration::from_secs(40);
/// In `data_dir`; for the service alone, because it may hold a password.
const LAST_GOOD_INI: &str = "client.ini.good";
/// For the start of another server.
const START_WAIT: Duration = Duration::from_secs(120);
/// For the lock of a server that has just ended.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// Opens database and folders for a command or a server; migrates.
///
/// # Errors
/// When something of it cannot be opened.
pub async fn open(config: Config, clock: Clock) -> anyhow::Result<Arc<App>> {
    let data_dir = config.data_dir.clone();
    vault::refuse_foreign_root(&data_dir)?;
    vault::make_private_dir(&data_dir)
        .with_context(|| format!("data_dir {}", data_dir.display()))?;
    let store =
        Store::open(&config.database.url, &config.sqlite_file()).await.context("database")?;
    store.hold().await.context("database")?;
    if let Err(error) = store.migrate().await {
        if let Some(version) = store::newer_version(&error) {
            anyhow::bail!(
                "database: a newer version of ptportal has changed it (migration {version}); install that one, or restore a backup of before"
            );
        }
        return Err(error).context("database");
    }
    let vault =
        Vault::open(&data_dir).with_context(|| format!("data_dir {}", data_dir.display()))?;
    let node = new_id(clock());
    let hotfolder = match &config.hotfolder.root {
        None => None,
        Some(root) => {
            let (id, modes) = (data_dir.join("share-id"), config.hotfolder.modes);
            let share = Hotfolder::open(root, &id, node.as_str(), modes)?;
            Some(Arc::new(share))
        }
    };
    let client_ini = follow_client_ini(&config.mail.client_ini, &data_dir)?;
    let host_keys = sftp::keys::fingerprints(&config.sftp.host_key_dir)
        .into_iter()
        .map(|(algorithm, fingerprint)| HostKey { algorithm, fingerprint })
        .collect();
    let app = Arc::new(App {
        client_ini,
        host_keys,
        host_name: workers::host_name(),
        scanner: Scanner::from_config(&config.scan),
        scans: Scans::new(config.scan.hold_signatures.clone()),
        passwords: Passwords::new()?,
        sessions: crate::app::presence::Sessions::default(),
        transfers: crate::app::transfers::Transfers::default(),
        writers: crate::app::writers::Writers::default(),
        recent: crate::app::tree::Recently::default(),
        store,
        vault,
        hotfolder,
        node,
        clock,
        mirror_wake: Notify::new(),
        changes_wake: Notify::new(),
        mails_wake: Notify::new(),
        links_wake: Notify::new(),
        hooks_wake: Notify::new(),
        looks: crate::app::readiness::Looks::default(),
        hook_looks: crate::app::hook_programs::HookLooks::default(),
        rates: crate::app::rates::Rates::default(),
        publishing: crate::app::publication::Running::default(),
        retention_wake: Notify::new(),
        caller: Caller::new()?,
        guard_wake: Notify::new(),
        runtime: tokio::runtime::Handle::current(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        limits: RwLock::new(Arc::new(config.limits.clone())),
        config,
    });
    app.seed_templates().await.context("default templates")?;
    Ok(app)
}

/// `client.ini` belongs to PTworkflow: a mistake in it must keep neither the service from starting nor operators from their
/// commands. The last good one is kept in `data_dir`, and counts as long as the file cannot be used.
fn follow_client_ini(path: &Path, data_dir: &Path) -> anyhow::Result<client_ini::Followed> {
    let copy = data_dir.join(LAST_GOOD_INI);
    match client_ini::Followed::open(path) {
        Ok(followed) => {
            let bytes = std::fs::read(path).unwrap_or_default();
            // Without a copy (a full disk, another command at the same) everything goes on.
            if !bytes.is_empty()
                && followed.is_as_read()
                && std::fs::read(&copy).ok().as_ref() != Some(&bytes)
                && let Err(error) = vault::write_private(data_dir, LAST_GOOD_INI, &bytes)
            {
                tracing::warn!(%error, file = %copy.display(), "no copy of client.ini could be kept");
            }
            Ok(followed)
        }
        Err(error) if copy.exists() => {
            tracing::error!(%error, "client.ini cannot be used; what the last good one said counts on");
            Ok(client_ini::Followed::open_copy(path, &copy)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Serves until `stop` is cancelled. Settings that come meanwhile are taken over as far as a running server can: `[limits]`.
///
/// # Errors
/// Whatever keeps the service from starting; once it runs, nothing.
pub async fn run(
    config: Config,
    clock: Clock,
    stop: CancellationToken,
    mut changed: mpsc::Receiver<Config>,
) -> anyhow::Result<()> {
    let numbers = metering::start()?;
    let is_sqlite = config.database.url.is_empty();
    vault::refuse_foreign_root(&config.data_dir)?;
    check_folders(&config)?;
    raise_descriptor_limit(&config);
    let _lock = lock(&config, is_sqlite).await?;
    let starting = lock_start(&config).await?;
    let keys = sftp::keys::load_or_make(
        &config.sftp.host_key_dir,
        &config.data_dir.join("host-keys"),
        config.sftp.legacy_algorithms,
    )?;
    let app = open(config, clock).await?;
    let durability = app.store.durability().await?;
    if durability != "full" {
        anyhow::bail!(
            "the database does not make commits durable ({durability}); nothing is accepted like that"
        );
    }
    let pid = std::process::id();
    nodes::insert(app.store.db(), app.node.as_str(), &workers::host_name(), pid, app.now()).await?;
    recovery::at_start(&app).await.context("recovery")?;
    let sftp_listeners = listen::bind("sftp.listen", &app.config.sftp.listen).await?;
    let admin_listeners = listen::bind("admin.listen", &app.config.admin.listen).await?;
    let ftps_listeners = ftps::bind(&app).await?;
    let web_listeners = listen::bind("web.listen", &app.config.web.listen).await?;
    let api_listeners = listen::bind("api.listen", &app.config.api.listen).await?;
    let acme_listeners = listen::bind("acme.listen", &app.config.acme.listen).await?;
    let certificate = tls::certificate(&app)?;
    drop(starting);
    workers::start(&app);
    let guard = Guard::new(Arc::clone(&app));
    app.tasks.spawn(Arc::clone(&guard).follow_bans());
    sftp::serve(&app, &guard, sftp_listeners, keys);
    let page = if app.config.admin.page { desk::router(&app)? } else { Router::new() };
    admin::serve(&app, admin_listeners, &numbers, &page);
    web::serve(&app, &guard, web_listeners, certificate.clone())?;
    api::serve(&app, &guard, api_listeners, certificate.as_ref())?;
    if let Some(certificate) = certificate {
        app.tasks.spawn(tls::follow(Arc::clone(&app), Arc::clone(&certificate)));
        if !app.config.acme.domains.is_empty() {
            challenge::serve(&app, &guard, acme_listeners);
            app.tasks.spawn(tls::renew(Arc::clone(&app), Arc::clone(&certificate)));
        }
        if let Some(listeners) = ftps_listeners {
            ftps::serve(&app, &guard, listeners, certificate)?;
        }
    }
    tracing::info!(node = app.node.as_str(), version = env!("CARGO_PKG_VERSION"), "ready");
    while let Some(Some(config)) = stop.run_until_cancelled(changed.recv()).await {
        app.set_limits(config.limits);
    }
    stop.cancelled().await;
    shut_down(&app).await;
    Ok(())
}

/// Connections, data connections and files each take descriptors; running out of them stops everything.
fn raise_descriptor_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Each session may have a control connection, a data connection, a file and its folder.
    let wanted = u64::try_from(config.limits.connections).unwrap_or(u64::MAX).saturating_mul(4);
    if now < wanted {
        tracing::warn!(
            open_files = now,
            wanted,
            "the limit of open files is small for limits.connections; raise it (LimitNOFILE= in systemd, ulimit -n)"
        );
    }
}

/// Takes the lock of the data folder. What a killed server was about to start (a hook) may hold lock and ports for a
/// moment longer than it.
async fn lock(config: &Config, is_exclusive: bool) -> anyhow::Result<vault::DataLock> {
    let dir = config.data_dir.display();
    let began = Instant::now();
    loop {
        match vault::lock(&config.data_dir, is_exclusive) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(anyhow::Error::from(error).context(format!("lock of {dir}")));
            }
            Err(_) if began.elapsed() < LOCK_WAIT => tokio::time::sleep(LOCK_LOOK).await,
            Err(_) => anyhow::bail!(
                "another ptportal serves {dir}; stop it first, or give this one a data_dir of its own"
            ),
        }
    }
}

/// Several servers on one data folder make what is missing one after the other.
async fn lock_start(config: &Config) -> anyhow::Result<vault::DataLock> {
    let dir = config.data_dir.clone();
    let locked = tokio::task::spawn_blocking(move || vault::lock_start(&dir));
    let locked = tokio::time::timeout(START_WAIT, locked).await;
    let locked =
        locked.context("another server on this data_dir does not come to the end of its start")?;
    Ok(locked??)
}

async fn shut_down(app: &Arc<App>) {
    tracing::info!(sessions = app.sessions.len(), uploads = app.writers.len(), "stopping");
    app.stop.cancel();
    app.tasks.close();
    let done = tokio::select! {
        done = tokio::time::timeout(LAST_WAIT, app.tasks.wait()) => done,
        never = workers::beat_to_the_end(app) => match never {},
    };
    if done.is_err() {
        tracing::warn!(
            tasks = app.tasks.len(),
            "some work did not end in time; the next start takes it over"
        );
    } else if let Err(error) = nodes::delete(app.store.db(), app.node.as_str()).await {
        tracing::warn!(%error, "this process could not sign off");
    }
    app.store.close().await;
    tracing::info!("stopped");
}

/// Folders that must not be one inside the other, and a database that must not be on a share.
fn check_folders(config: &Config) -> anyhow::Result<()> {
    vault::make_private_dir(&config.data_dir)
        .with_context(|| format!("data_dir {}", config.data_dir.display()))?;
    if config.database.url.is_empty() && vault::is_on_network(&config.data_dir)? {
        anyhow::bail!(
            "data_dir {} lies on a network file system, where SQLite cannot lock; use a local disk or PostgreSQL",
            config.data_dir.display()
        );
    }
    let Some(hotfolder) = &config.hotfolder.root else { return Ok(()) };
    let lies_in = |inner: &Path, outer: &Path| {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        real(inner).starts_with(real(outer))
    };
    for (name, dir) in [
        ("data_dir", &config.data_dir),
        ("sftp.host_key_dir", &config.sftp.host_key_dir),
        // What customers send must never be run.
        ("hooks.dir", &config.hooks.dir),
    ] {
        let must_be_apart = name != "sftp.host_key_dir";
        if lies_in(dir, hotfolder) || (must_be_apart && lies_in(hotfolder, dir)) {
            anyhow::bail!(
                "{name} {} and hotfolder.root {} lie one inside the other; separate them",
                dir.display(),
                hotfolder.display()
            );
        }
    }
    Ok(())
}
