//! Sealed files and their scans: the worker that takes them from the queue, asks clamd, and has the answer settled
//! (spec section 7). Rows in `scanning` are the truth; the queue holds this process's share of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::scan_queue::Waiting;
use super::scanner::{Asked, Scanner};
use super::settle::{self, Settled};
use super::upload::CLAMD_CEILING;
use super::{App, blocking, job_tickets, repeat, scan_place, shielded};
use crate::clamd::reply::parse_reply;
use crate::clamd::scan_limit;
use crate::config::TicketFormat;
use crate::domain::id::Id;
use crate::domain::verdict::{Answer, Outcome, Releasable, judge, outcome};
use crate::store::uploads::UploadRow;
use crate::store::{self, unsigned, uploads};
use crate::{metering, steps, vault};

/// Pauses after an attempt without verdict; the last one for ever.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// Pause after a verdict that could not be recorded.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// Other servers use all places at the scanners, or the account's.
const NO_PLACE: Duration = Duration::from_millis(200);

/// The worker that hands waiting files to clamd while it is ready.
pub async fn run(app: Arc<App>) {
    loop {
        let ready = app.scanner.ready();
        if !ready.is_empty() {
            app.scans.use_clamds(&ready);
            while let Some(waiting) = app.scans.take() {
                let (shared, kept) = (Arc::clone(&app), waiting.clone());
                start(&app, kept, async move { scan_one(&shared, waiting).await });
            }
        } else if matches!(app.scanner, Scanner::Off) {
            while let Some(waiting) = app.scans.take() {
                let (shared, kept) = (Arc::clone(&app), waiting.clone());
                start(&app, kept, async move { release_unscanned(&shared, waiting).await });
            }
        }
        tokio::select! {
            () = drained(&app) => return,
            () = app.scans.until_due() => {}
        }
    }
}

/// Works on one file; a bug costs neither its place in the queue nor that of others.
fn start(app: &Arc<App>, kept: Waiting, work: impl Future<Output = ()> + Send + 'static) {
    let app = Arc::clone(app);
    app.clone().tasks.spawn(async move {
        if shielded(&app, work).await.is_none() {
            app.scans.put_back(kept, AFTER_ERROR);
        }
    });
}

/// A stop lets running transfers finish, and their clients wait for a verdict.
async fn drained(app: &App) {
    app.stop.cancelled().await;
    while !app.sessions.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One scan from the queue to its end; whatever goes wrong, the file waits on.
async fn scan_one(app: &Arc<App>, waiting: Waiting) {
    steps::reach("scan.begun");
    let who = (waiting.upload.as_str(), waiting.account.as_str());
    let place = match scan_place::find(app, who, waiting.size).await {
        Ok(Some(place)) => place,
        Ok(None) => return app.scans.put_back(waiting, NO_PLACE),
        Err(error) => {
            tracing::error!(%error, upload = waiting.upload, "no place at a scanner could be taken, tried again");
            return app.scans.put_back(waiting, AFTER_ERROR);
        }
    };
    let next = scan(app, &waiting, &place.asked).await;
    let health = place.asked.health;
    place.give_back().await;
    match next {
        Ok(Next::Settled(settled)) => app.scans.finish(&waiting, settled),
        Ok(Next::Again { reason }) => {
            let pause = postpone(app, &waiting.upload, &reason).await;
            app.scans.put_back(waiting, pause);
            health.suspect();
        }
        Ok(Next::WhenIdle { reason }) => {
            tracing::info!(
                upload = waiting.upload,
                reason,
                "scan ran out of time, tried once more when idle"
            );
            app.scans.put_back(waiting.when_idle(), Duration::from_millis(100));
        }
        Err(error) => {
            tracing::error!(%error, upload = waiting.upload, "scan could not be settled, tried again");
            app.scans.put_back(waiting, AFTER_ERROR);
        }
    }
}

enum Next {
    Settled(Settled),
    Again { reason: String },
    WhenIdle { reason: String },
}

async fn scan(app: &Arc<App>, waiting: &Waiting, by: &Asked<'_>) -> anyhow::Result<Next> {
    let started = Instant::now();
    let Some((id, row)) = prepare(app, waiting).await? else {
        return Ok(Next::Settled(settle::state_of(app, &waiting.upload).await?));
    };
    let row = match row {
        Prepared::Row(row) => row,
        Prepared::Settled(settled) => return Ok(Next::Settled(settled)),
    };
    let (file, sealed) = settle::open_for_scan(app, &id).await?;
    if sealed.size != unsigned(row.size) {
        let reason = format!(
            "the content is {} bytes long instead of the {} that were received",
            sealed.size, row.size
        );
        return Ok(Next::Again { reason });
    }
    let asked = Instant::now();
    let answer = ask(&file, sealed.size, by).await;
    metering::scanned(asked.elapsed());
    let scanned = blocking(move || vault::identity(&file)).await?;
    let scan = &app.config.scan;
    let verdict = judge(answer, scanned, sealed);
    let decided = outcome(verdict, (scan.on_oversize, scan.on_encrypted), waiting.retry, |s| {
        app.scans.is_doubtful(s)
    });
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match &decided {
        Outcome::TryAgain { reason } => return Ok(Next::Again { reason: reason.clone() }),
        Outcome::OnceMoreWhenIdle { reason } => {
            return Ok(Next::WhenIdle { reason: reason.clone() });
        }
        Outcome::Release(_)
        | Outcome::Infected { .. }
        | Outcome::Hold { .. }
        | Outcome::Reject { .. } => {}
    }
    let settled = settle::settle(app, &row, decided, (&by.proof.version.text, ms)).await?;
    Ok(settled.map_or(Next::Again { reason: "no outcome".to_owned() }, Next::Settled))
}

enum Prepared {
    Row(Box<UploadRow>),
    Settled(Settled),
}

/// The row as it stands, with its hash; `None` when there is nothing left to scan.
async fn prepare(app: &Arc<App>, waiting: &Waiting) -> anyhow::Result<Option<(Id, Prepared)>> {
    let row = uploads::upload(app.store.db(), &waiting.upload).await?;
    let Some(mut row) = row.filter(|row| row.state == "scanning") else { return Ok(None) };
    let Some(id) = Id::parse(&row.id) else { return Ok(None) };
    if row.sha256.is_empty() {
        let sha256 = settle::hash_of(app, &id).await?;
        if let Some(settled) = repeat::note_hash(app, &mut row, &sha256).await? {
            return Ok(Some((id, Prepared::Settled(settled))));
        }
    }
    if app.config.jobticket.format == TicketFormat::Xjdf && row.md5.is_empty() {
        row.md5 = job_tickets::sum(app, &id).await?;
        uploads::set_md5(app.store.db(), &row.id, &row.md5).await?;
    }
    Ok(Some((id, Prepared::Row(Box::new(row)))))
}

/// One whole-file scan. Files above clamd's ceiling are not asked about: it says OK to them.
async fn ask(file: &std::fs::File, size: u64, by: &Asked<'_>) -> Answer {
    if size > CLAMD_CEILING {
        return Answer::LimitExceeded {
            limit: "Heuristics.Limits.Exceeded.MaxFileSize".to_owned(),
        };
    }
    match by.health.clamd.scan_file(file, size, by.proof.transport, scan_limit(size)).await {
        Ok(reply) => parse_reply(&reply),
        Err(error) => Answer::Odd { reason: error.to_string() },
    }
}

/// Notes the failed attempt and gives the pause until the next.
async fn postpone(app: &App, upload: &str, reason: &str) -> Duration {
    let now = app.now();
    let attempts = match uploads::upload(app.store.db(), upload).await {
        Ok(Some(row)) => usize::try_from(row.scan_attempts).unwrap_or(0),
        Ok(None) | Err(_) => 0,
    };
    let pause = PAUSES.get(attempts).copied().unwrap_or(LAST_PAUSE);
    let noted = uploads::postpone_scan(app.store.db(), upload, now.plus(pause), reason, now).await;
    if let Err(error) = noted {
        tracing::warn!(%error, upload, "a failed scan could not be noted");
    }
    let attempt = attempts.saturating_add(1);
    let seconds = pause.as_secs();
    if attempt >= 3 {
        tracing::warn!(
            upload,
            reason,
            attempt,
            retry_in_s = seconds,
            "scan gives no verdict; the file waits"
        );
    } else {
        tracing::info!(
            upload,
            reason,
            attempt,
            retry_in_s = seconds,
            "scan gave no verdict, tried again"
        );
    }
    pause
}

/// Without a scanner, only files whose hash had to be read back pass through the queue.
async fn release_unscanned(app: &Arc<App>, waiting: Waiting) {
    let released = async {
        let settled: anyhow::Result<Settled> = match prepare(app, &waiting).await? {
            None => Ok(settle::state_of(app, &waiting.upload).await?),
            Some((_, Prepared::Settled(settled))) => Ok(settled),
            Some((_, Prepared::Row(row))) => {
                let policy = Releasable::PolicyUnscanned {
                    policy: "clamd = \"off\"",
                    signature: String::new(),
                };
                Ok(settle::release(app, &row, policy, ("", 0)).await?)
            }
        };
        settled
    };
    match released.await {
        Ok(settled) => app.scans.finish(&waiting, settled),
        Err(error) => {
            tracing::error!(%error, upload = waiting.upload, "release failed, tried again");
            app.scans.put_back(waiting, AFTER_ERROR);
        }
    }
}

/// Queues everything that waits for a verdict on this process's account (at start, after a dead node).
///
/// # Errors
/// When the database does not answer.
pub async fn enqueue_own(app: &App) -> store::Result<usize> {
    let rows =
        uploads::in_state(app.store.db(), crate::domain::upload::UploadState::Scanning).await?;
    let own = rows.iter().filter(|row| row.node == app.node.as_str());
    Ok(own.map(|row| drop(app.scans.enqueue(row))).count())
}
