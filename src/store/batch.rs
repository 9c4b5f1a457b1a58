//! A transaction whose statements are known beforehand: one trip to SQLite instead of one for each statement.
//!
//! Each trip costs two thread switches, which for small files is most of the work. Conditions stand in the statements
//! themselves (`WHERE old state`), so nothing has to be decided in between. PostgreSQL runs them one after another.

use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{AnyConnection, AssertSqlSafe, Either};
use tokio_stream::StreamExt;

use super::{Kind, Result, Store};

/// Attempts at a transaction that PostgreSQL gives up for another one.
const TRIES: u32 = 5;

/// A bound value.
#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    Big(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Big(number)
    }
}

/// One statement with its values, `$1` and on.
#[derive(Debug, Clone)]
pub struct Step {
    pub sql: &'static str,
    pub values: Vec<Value>,
}

/// What one statement did.
#[derive(Default)]
pub struct Done {
    pub rows_affected: u64,
    pub rows: Vec<AnyRow>,
}

/// Values of a statement, each into its [`Value`].
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::batch::Value::from($value)),*] };
}
pub(crate) use values;

impl Store {
    /// Runs the statements as one transaction; all of them stand, or none.
    ///
    /// # Errors
    /// The first statement's that fails.
    pub async fn run(&self, steps: Vec<Step>) -> Result<Vec<Done>> {
        match self.kind {
            Kind::Sqlite => self.run_at_once(steps).await,
            Kind::Postgres => self.run_until_let_through(steps).await,
        }
    }

    /// PostgreSQL gives up one of two transactions that wait for each other. Nothing of it stands then: the same again.
    async fn run_until_let_through(&self, steps: Vec<Step>) -> Result<Vec<Done>> {
        for _ in 1..TRIES {
            match self.run_one_by_one(steps.clone()).await {
                Err(error) if super::is_contended(&error) => {}
                ended => return ended,
            }
        }
        self.run_one_by_one(steps).await
    }

    async fn run_at_once(&self, steps: Vec<Step>) -> Result<Vec<Done>> {
        let mut sql = String::with_capacity(4096);
        sql.push_str("BEGIN IMMEDIATE; ");
        let mut values = Vec::new();
        for step in steps {
            push_renumbered(&mut sql, step.sql, values.len());
            sql.push_str("; ");
            values.extend(step.values);
        }
        sql.push_str("COMMIT");
        let query = bind(sqlx::query(AssertSqlSafe(sql)), values);
        let mut writer = self.writer.lock().await;
        // Taken out while the transaction runs: whatever interrupts it drops the connection, which rolls back.
        let mut connection = match writer.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut done = results_of(query, &mut connection).await?;
        *writer = Some(connection);
        // BEGIN and COMMIT are results too.
        done.pop();
        Ok(done.into_iter().skip(1).collect())
    }

    async fn run_one_by_one(&self, steps: Vec<Step>) -> Result<Vec<Done>> {
        let mut tx = self.write().await?;
        let mut all = Vec::new();
        for step in steps {
            if step.sql.starts_with("INSERT INTO events") {
                // Not before the rows that it tells of are locked: everyone locks in this order.
                let lock = super::events::lock_step();
                results_of(bind(sqlx::query(lock.sql), lock.values), tx.db()).await?;
            }
            let query = bind(sqlx::query(step.sql), step.values);
            all.extend(results_of(query, tx.db()).await?.into_iter().next());
        }
        tx.commit().await?;
        Ok(all)
    }
}

/// Binds values in their order.
pub(super) fn bind<'q>(
    mut query: Query<'q, Any, AnyArguments>,
    values: Vec<Value>,
) -> Query<'q, Any, AnyArguments> {
    for value in values {
        query = match value {
            Value::Text(text) => query.bind(text),
            Value::Big(number) => query.bind(number),
        };
    }
    query
}

/// Rows come before the result of their statement.
#[expect(deprecated, reason = "several statements in one query are what this module is for")]
async fn results_of(
    query: Query<'_, Any, AnyArguments>,
    db: &mut AnyConnection,
) -> Result<Vec<Done>> {
    let mut all = Vec::new();
    let mut rows = Vec::new();
    let mut results = query.fetch_many(db);
    while let Some(result) = results.next().await {
        match result? {
            Either::Right(row) => rows.push(row),
            Either::Left(done) => {
                let rows = std::mem::take(&mut rows);
                all.push(Done { rows_affected: done.rows_affected(), rows });
            }
        }
    }
    Ok(all)
}

/// Appends a statement with its parameters counted on from `offset`. Our statements hold `$` nowhere else.
fn push_renumbered(out: &mut String, sql: &str, offset: usize) {
    let mut parts = sql.split('$');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits =
            part.len().saturating_sub(part.trim_start_matches(|c: char| c.is_ascii_digit()).len());
        let (number, rest) = part.split_at_checked(digits).unwrap_or((part, ""));
        let number = number.parse::<usize>().unwrap_or(0).saturating_add(offset);
        out.push('$');
        out.push_str(&number.to_string());
        out.push_str(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_on() {
        let mut sql = String::new();
        push_renumbered(&mut sql, "UPDATE t SET a = $1, b = $12 WHERE c = $2", 3);
        assert_eq!(sql, "UPDATE t SET a = $4, b = $15 WHERE c = $5");
    }
}
