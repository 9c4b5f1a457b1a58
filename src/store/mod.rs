//! ADAPTER SQL: one pool, one set of migrations, one file for each group of tables, one function for each statement.
//!
//! The same SQL runs on SQLite (default, embedded) and PostgreSQL through sqlx's `Any` driver: `$1` parameters,
//! TEXT and BIGINT columns. State changes that race are one `UPDATE … WHERE old state`; callers look at the
//! number of rows. Nothing outside this folder names sqlx.

pub mod accounts;
pub mod activation;
mod anchor;
pub mod batch;
pub mod batches;
pub mod clients;
pub mod clock;
pub mod deliveries;
pub mod desk;
pub mod dump;
pub mod entries;
pub mod events;
pub mod fsck;
pub mod guard;
pub mod hook_runs;
pub mod leases;
pub mod mails;
pub mod nodes;
pub mod numbers;
pub mod orders;
pub mod published;
pub mod retention;
pub mod sessions;
pub mod templates;
pub mod tokens;
pub mod uploads;
pub mod web_sessions;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{Any, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, Connection, Row, SqlSafeStr, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Anything that goes wrong with the database.
pub type StoreError = sqlx::Error;
pub type Result<T> = std::result::Result<T, StoreError>;

/// How long a statement waits for another process that is writing (SQLite).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long is waited for the reason why a database cannot be reached.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(5);

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "foundation", include_str!("../../migrations/0001_foundation.sql")),
    (2, "portal", include_str!("../../migrations/0002_portal.sql")),
    (3, "workflow", include_str!("../../migrations/0003_workflow.sql")),
    (4, "queues", include_str!("../../migrations/0004_queues.sql")),
    (5, "servers", include_str!("../../migrations/0005_servers.sql")),
    (6, "looks", include_str!("../../migrations/0006_looks.sql")),
    (7, "tickets", include_str!("../../migrations/0007_tickets.sql")),
];

/// Which database stands behind the pool; only locking and settings differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// The database.
pub struct Store {
    pool: AnyPool,
    kind: Kind,
    url: String,
    /// SQLite has one writer at a time; waiting here is fair, waiting in SQLite is a poll. The connection is that of
    /// batches: kept out of the pool, which asks every connection that it gets back whether it still lives.
    writer: Arc<Mutex<Option<AnyConnection>>>,
    /// Does nothing; see [`Store::hold`].
    anchor: Mutex<Option<AnyConnection>>,
}

/// A write transaction; dropped without [`WriteTx::commit`] it is rolled back.
pub struct WriteTx {
    transaction: Transaction<'static, Any>,
    _writer: Option<OwnedMutexGuard<Option<AnyConnection>>>,
}

impl WriteTx {
    /// The connection to run statements on.
    pub fn db(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// Makes everything durable (SQLite: `synchronous=FULL`, PostgreSQL: `synchronous_commit=on`).
    ///
    /// # Errors
    /// What the database says; then it is unknown whether the transaction stands.
    pub async fn commit(self) -> Result<()> {
        self.transaction.commit().await
    }
}

/// The migration of a newer program that stands in the way, if that is what is wrong.
#[must_use]
pub fn newer_version(error: &sqlx::Error) -> Option<i64> {
    let sqlx::Error::Migrate(error) = error else { return None };
    if let MigrateError::VersionMissing(version) = **error { Some(version) } else { None }
}

impl Store {
    /// Opens the database: `url` empty means SQLite at `sqlite_file`. Does not migrate.
    ///
    /// # Errors
    /// When the file cannot be made or the server not reached.
    pub async fn open(url: &str, sqlite_file: &Path) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let (kind, url) = if url.is_empty() {
            create_private(sqlite_file).map_err(sqlx::Error::Io)?;
            (Kind::Sqlite, format!("sqlite://{}?mode=rwc", percent_encoded(sqlite_file)))
        } else {
            (Kind::Postgres, url.to_owned())
        };
        let opened = AnyPoolOptions::new()
            .max_connections(8)
            // A ping before each use would double the trips to a database in our own process.
            .test_before_acquire(kind == Kind::Postgres)
            .acquire_timeout(Duration::from_secs(20))
            .after_connect(move |db, _| Box::pin(prepare(db, kind)))
            .connect(&url)
            .await;
        let pool = match opened {
            // Says nothing of the cause; one more try does, unless it hangs too.
            Err(sqlx::Error::PoolTimedOut) => {
                let again = async {
                    let mut connection = AnyConnection::connect(&url).await?;
                    prepare(&mut connection, kind).await
                };
                if let Ok(again) = tokio::time::timeout(CAUSE_TIMEOUT, again).await {
                    again?;
                }
                return Err(sqlx::Error::PoolTimedOut);
            }
            opened => opened?,
        };
        Ok(Self { pool, kind, url, writer: Arc::default(), anchor: Mutex::default() })
    }

    /// Brings the tables up to this program's version; refuses a database that a newer one has changed.
    ///
    /// # Errors
    /// A broken or newer database.
    pub async fn migrate(&self) -> Result<()> {
        self.migrate_to(i64::MAX).await
    }

    /// Makes the tables of an older version, to be filled by [`Store::fill`] and then brought up to date.
    ///
    /// # Errors
    /// A broken or newer database.
    pub async fn migrate_to(&self, last: i64) -> Result<()> {
        let migrations = MIGRATIONS
            .iter()
            .filter(|(version, _, _)| *version <= last)
            .map(|(version, name, sql)| {
                let name = Cow::Borrowed(*name);
                Migration::new(*version, name, MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect();
        let migrator = Migrator::with_migrations(migrations);
        migrator.run(&self.pool).await.map_err(|e| sqlx::Error::Migrate(Box::new(e)))
    }

    /// The pool, for single statements.
    #[must_use]
    pub fn db(&self) -> &AnyPool {
        &self.pool
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Begins a write transaction. On SQLite it takes the write lock at once (`BEGIN IMMEDIATE`): one that reads
    /// first would get `SQLITE_BUSY` at its first write beside another process.
    ///
    /// # Errors
    /// When another process holds the lock for longer than 10 s, or the server is away.
    pub async fn write(&self) -> Result<WriteTx> {
        match self.kind {
            Kind::Sqlite => {
                let guard = Arc::clone(&self.writer).lock_owned().await;
                let transaction = match self.pool.begin_with("BEGIN IMMEDIATE").await {
                    Err(sqlx::Error::InvalidSavePointStatement) => {
                        self.drop_stuck().await?;
                        self.pool.begin_with("BEGIN IMMEDIATE").await?
                    }
                    other => other?,
                };
                Ok(WriteTx { transaction, _writer: Some(guard) })
            }
            Kind::Postgres => Ok(WriteTx { transaction: self.pool.begin().await?, _writer: None }),
        }
    }

    /// When SQLite ends a transaction by itself (the disk is full), sqlx takes its connection for one in the middle of it
    /// for ever. Such connections are closed; the pool makes others.
    async fn drop_stuck(&self) -> Result<()> {
        let mut good = Vec::new();
        while let Some(mut connection) = self.pool.try_acquire() {
            let begun = match connection.begin_with("BEGIN").await {
                Ok(transaction) => transaction.rollback().await,
                Err(error) => Err(error),
            };
            match begun {
                Ok(()) => good.push(connection),
                Err(_) => connection.close().await?,
            }
        }
        drop(good);
        // The journal beside the database begins anew: what it took is free, and room for what must be written now.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await?;
        Ok(())
    }

    /// A connection of its own, outside the pool.
    async fn connect(&self) -> Result<AnyConnection> {
        let mut connection = AnyConnection::connect(&self.url).await?;
        prepare(&mut connection, self.kind).await?;
        Ok(connection)
    }

    /// What the database says about its durability: asked back at start, because a setting that did not
    /// take is worse than none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn durability(&self) -> Result<String> {
        match self.kind {
            Kind::Sqlite => {
                let mut db = self.pool.acquire().await?;
                let level: i64 =
                    sqlx::query("PRAGMA synchronous").fetch_one(&mut *db).await?.try_get(0)?;
                Ok(if level >= 2 { "full".to_owned() } else { format!("synchronous={level}") })
            }
            Kind::Postgres => {
                let row = sqlx::query("SELECT current_setting('synchronous_commit')");
                let level: String = row.fetch_one(&self.pool).await?.try_get(0)?;
                Ok(if level == "off" {
                    "synchronous_commit=off".to_owned()
                } else {
                    "full".to_owned()
                })
            }
        }
    }

    /// One trip to the database, for health checks.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<()> {
        self.pool.acquire().await?.ping().await
    }

    pub async fn close(&self) {
        for own in [&*self.writer, &self.anchor] {
            if let Some(connection) = own.lock().await.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, "a connection to the database did not close");
            }
        }
        self.pool.close().await;
    }
}

/// Settings of every new connection.
async fn prepare(db: &mut AnyConnection, kind: Kind) -> Result<()> {
    match kind {
        Kind::Sqlite => {
            sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *db).await?;
            sqlx::query("PRAGMA synchronous = FULL").execute(&mut *db).await?;
            // Pages that change all the time are copied back less often; the WAL stays below 32 MiB.
            sqlx::query("PRAGMA wal_autocheckpoint = 8000").execute(&mut *db).await?;
            let busy = format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis());
            sqlx::query(sqlx::AssertSqlSafe(busy)).execute(&mut *db).await?;
        }
        Kind::Postgres => {
            sqlx::query("SET synchronous_commit = on").execute(&mut *db).await?;
        }
    }
    Ok(())
}

/// The database file holds password hashes: only the service user may read it.
fn create_private(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(file)?;
    Ok(())
}

/// `sqlite://` takes a URL, so blanks, `?`, `#` and `%` of a path must not speak.
fn percent_encoded(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        match c {
            ' ' => out.push_str("%20"),
            '#' => out.push_str("%23"),
            '%' => out.push_str("%25"),
            '?' => out.push_str("%3F"),
            other => out.push(other),
        }
    }
    out
}

/// Whether two equal keys were refused; a caller may then say "exists already".
#[must_use]
pub fn is_duplicate(error: &StoreError) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Whether the database has no room on its disk: `SQLITE_FULL`, `SQLITE_IOERR_SHMSIZE`, PostgreSQL's `disk_full`.
#[must_use]
pub fn is_out_of_room(error: &StoreError) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(code.as_ref(), "13" | "4874" | "53100"))
}

/// Whether nothing was asked any more, because this process stops.
#[must_use]
pub fn is_stopped(error: &StoreError) -> bool {
    matches!(error, sqlx::Error::PoolClosed)
}

/// Whether PostgreSQL gave up a transaction in favour of another one (deadlock, serialization): the same again may do.
#[must_use]
pub fn is_contended(error: &StoreError) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(code.as_ref(), "40P01" | "40001"))
}

/// Flags are 0/1 in rows.
#[must_use]
pub fn flag(value: bool) -> i64 {
    i64::from(value)
}

/// Sizes are BIGINT in rows; nothing larger than 2^63 reaches the store.
#[must_use]
pub fn big(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Sizes of rows are never negative.
#[must_use]
pub fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
