//! Everything as lines of JSON, from one consistent view, and back: for backups, and from one kind of database to the
//! other. All columns are TEXT or BIGINT.

use serde_json::{Map, Value};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Column, Connection, Row, TypeInfo, ValueRef};
use tokio_stream::StreamExt;

use super::{Kind, Result, Store};

/// Every table that tells something. Who is running now and who holds what are not among them.
pub const TABLES: [&str; 27] = [
    "counters",
    "clients",
    "contacts",
    "uplogin",
    "ssh_keys",
    "system_defaults",
    "projects",
    "tickets",
    "entries",
    "uploads",
    "deliveries",
    "events",
    "changes",
    "bans",
    "ptportal_account_activation",
    "client_email_template",
    "email_signature",
    "users",
    "mails",
    "api_tokens",
    "web_sessions",
    "link_requests",
    "hook_runs",
    "batches",
    "batch_files",
    "published",
    "publish_holds",
];

/// The version of the tables that this program makes.
#[must_use]
pub fn schema_version() -> i64 {
    super::MIGRATIONS.last().map_or(0, |(version, _, _)| *version)
}

impl Store {
    /// Hands every row of every table to `take`, as they all were at one moment.
    ///
    /// # Errors
    /// The database's, or the taker's.
    pub async fn dump(
        &self,
        mut take: impl FnMut(&str, &Value) -> std::io::Result<()>,
    ) -> Result<()> {
        let begin = match self.kind {
            // The first read pins what is seen.
            Kind::Sqlite => "BEGIN",
            Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        let mut connection = self.connect().await?;
        sqlx::query(begin).execute(&mut connection).await?;
        for table in TABLES {
            let query = format!("SELECT * FROM {table}");
            let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(&mut connection);
            while let Some(row) = rows.next().await {
                take(table, &as_json(&row?)?).map_err(sqlx::Error::Io)?;
            }
        }
        connection.close().await
    }

    /// How many clients and uploads there are: a database that is in use is never overwritten.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_in_use(&self) -> Result<bool> {
        let row = sqlx::query(
            "SELECT CAST((SELECT COUNT(*) FROM clients) + (SELECT COUNT(*) FROM uploads) AS BIGINT)",
        )
        .fetch_one(&self.pool)
        .await?;
        let count: i64 = row.try_get(0)?;
        Ok(count > 0)
    }

    /// Puts rows in place of what stands in their tables, as one transaction.
    ///
    /// # Errors
    /// The database's; nothing has changed then.
    pub async fn fill(
        &self,
        rows: impl Iterator<Item = std::io::Result<(String, Map<String, Value>)>>,
    ) -> Result<u64> {
        let mut tx = self.write().await?;
        for table in TABLES {
            // Of an older version's tables some may not be there.
            if has_table(tx.db(), self.kind, table).await? {
                sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(tx.db()).await?;
            }
        }
        let mut count = 0u64;
        for row in rows {
            let (table, row) = row.map_err(sqlx::Error::Io)?;
            insert(tx.db(), &table, row).await?;
            count = count.saturating_add(1);
        }
        tx.commit().await?;
        Ok(count)
    }
}

async fn has_table(db: &mut sqlx::AnyConnection, kind: Kind, table: &str) -> Result<bool> {
    let query = match kind {
        Kind::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name = $1",
        Kind::Postgres => {
            "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'public' AND tablename = $1"
        }
    };
    Ok(sqlx::query(query).bind(table).fetch_optional(db).await?.is_some())
}

/// A name of a table or column as we make them: it stands in SQL as it is.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

async fn insert(db: &mut sqlx::AnyConnection, table: &str, row: Map<String, Value>) -> Result<()> {
    if !TABLES.contains(&table) || !row.keys().all(|name| is_name(name)) {
        return Err(sqlx::Error::Protocol(format!("{table:?} holds a row that is none of ours")));
    }
    let columns: Vec<&str> = row.keys().map(String::as_str).collect();
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
    let sql =
        format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), places.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for value in row.values() {
        query = match value {
            Value::Number(number) => query.bind(number.as_i64().unwrap_or_default()),
            Value::String(text) => query.bind(text.clone()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                return Err(sqlx::Error::Protocol(format!(
                    "a value in {table} is neither text nor number"
                )));
            }
        };
    }
    query.execute(db).await?;
    Ok(())
}

fn as_json(row: &AnyRow) -> Result<Value> {
    let mut map = Map::new();
    for (index, column) in row.columns().iter().enumerate() {
        let raw = row.try_get_raw(index)?;
        let is_number = raw.type_info().name().contains("INT");
        let value = if is_number {
            Value::from(row.try_get::<i64, _>(index)?)
        } else {
            Value::from(row.try_get::<String, _>(index)?)
        };
        map.insert(column.name().to_owned(), value);
    }
    Ok(Value::Object(map))
}
