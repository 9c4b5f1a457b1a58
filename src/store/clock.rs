//! A clock that was set back: what was planned by the wrong one would wait for hours.

use std::time::Duration;

use super::{Result, WriteTx};
use crate::domain::time::Timestamp;

/// By table: the longest pause or lease that is ever planned, rounded up, and what is still open there.
const PLANNED: [(&str, Duration); 6] = [
    (
        "UPDATE deliveries SET next_try = $1 WHERE open = 1 AND next_try > $2",
        Duration::from_secs(10 * 60),
    ),
    (
        "UPDATE mails SET next_try = $1 WHERE state = 'queued' AND next_try > $2",
        Duration::from_secs(30 * 60),
    ),
    (
        "UPDATE hook_runs SET next_try = $1 WHERE open = 1 AND next_try > $2",
        Duration::from_secs(2 * 3600),
    ),
    (
        "UPDATE deliveries SET lease_until = $1 WHERE open = 1 AND lease_until > $2",
        Duration::from_secs(10 * 60),
    ),
    (
        "UPDATE mails SET lease_until = $1 WHERE state = 'queued' AND lease_until > $2",
        Duration::from_secs(10 * 60),
    ),
    (
        "UPDATE hook_runs SET lease_until = $1 WHERE open = 1 AND lease_until > $2",
        Duration::from_secs(24 * 3600),
    ),
];
/// A batch's newest file may be this much ahead of the clock of another server.
const SKEW: Duration = Duration::from_secs(60);

/// Makes due now what is planned further ahead than anything ever is; gives how many rows.
pub async fn pull_in(tx: &mut WriteTx, now: Timestamp) -> Result<u64> {
    let mut moved: u64 = 0;
    for (statement, ahead) in PLANNED {
        let done = sqlx::query(statement).bind(now.0).bind(now.plus(ahead).0);
        moved = moved.saturating_add(done.execute(tx.db()).await?.rows_affected());
    }
    let batches = sqlx::query(
        "UPDATE batches SET last_file = $1, created = $1 WHERE state = 'open' AND last_file > $2",
    );
    let done = batches.bind(now.0).bind(now.plus(SKEW).0).execute(tx.db()).await?;
    Ok(moved.saturating_add(done.rows_affected()))
}
