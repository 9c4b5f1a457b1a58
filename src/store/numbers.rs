//! Counts for operators.

use sqlx::Row;

use super::Result;
use super::clients::Db;

/// Uploads that are not settled, by state; every such state is named, so that a gauge falls back to 0.
pub async fn uploads_by_state(db: impl Db<'_>) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query(
        "SELECT state, COUNT(*) FROM uploads WHERE state IN ('receiving', 'incomplete', 'scanning', 'held') \
         GROUP BY state",
    )
    .fetch_all(db)
    .await?;
    let mut counts: Vec<(String, i64)> =
        ["receiving", "incomplete", "scanning", "held"].map(|state| (state.to_owned(), 0)).into();
    for row in rows {
        let (state, count): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(known) = counts.iter_mut().find(|(name, _)| *name == state) {
            known.1 = count;
        }
    }
    Ok(counts)
}

/// Deliveries that are not done, by state, with the time of the oldest (Unix milliseconds).
pub async fn open_deliveries(db: impl Db<'_>) -> Result<Vec<(String, i64, i64)>> {
    let rows = sqlx::query(
        "SELECT state, COUNT(*), MIN(created) FROM deliveries WHERE open = 1 GROUP BY state",
    )
    .fetch_all(db)
    .await?;
    let mut counts: Vec<(String, i64, i64)> =
        ["pending", "placing", "stuck"].map(|state| (state.to_owned(), 0, 0)).into();
    for row in rows {
        let state: String = row.try_get(0)?;
        if let Some(known) = counts.iter_mut().find(|(name, _, _)| *name == state) {
            (known.1, known.2) = (row.try_get(1)?, row.try_get(2)?);
        }
    }
    Ok(counts)
}
