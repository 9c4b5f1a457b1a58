//! The scan queue: which sealed file is scanned when (spec section 7).
//!
//! Rows in `scanning` are the truth; this queue holds this process's share of them. As many scans at once as clamd
//! has threads less one, at least one; small files first, with ageing; at most two for each account.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::scanner::{self, Asked, Health, Scanner};
use super::settle::{self, Settled};
use super::upload::CLAMD_CEILING;
use super::{App, blocking, job_tickets, repeat, scan_place, shielded};
use crate::clamd::reply::parse_reply;
use crate::clamd::{Proof, scan_limit};
use crate::config::TicketFormat;
use crate::domain::id::Id;
use crate::domain::verdict::{Answer, IdleRetry, Outcome, Releasable, judge, outcome};
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
/// At most so many scans at once for an account.
pub(super) const PER_ACCOUNT: usize = 2;
/// From this size on, in bytes, a file leaves one place at the scanner to smaller ones.
const BIG: u64 = 64 << 20;
/// A waiting file counts as smaller by this for each second, so that a big one is not starved.
const AGEING: u64 = 8 << 20;

/// A sealed file that waits.
#[derive(Clone)]
struct Waiting {
    upload: String,
    account: String,
    size: u64,
    since: Instant,
    not_before: Instant,
    retry: IdleRetry,
    /// Only when nothing else runs or waits (after `MaxScanTime`).
    when_idle: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    running: HashMap<String, Waiting>,
    results: HashMap<String, watch::Sender<Option<Settled>>>,
}

/// How many of a scanner's places a file of this size may have: the last is for small ones, if there is another.
pub(super) fn places_for(size: u64, slots: usize) -> usize {
    if size >= BIG { slots.saturating_sub(1).max(1) } else { slots }
}

/// This process's scan queue.
pub struct Scans {
    queue: Mutex<Queue>,
    wake: Notify,
    slots: AtomicUsize,
    windows: Arc<Semaphore>,
    windows_given: AtomicUsize,
    pending_bytes: AtomicU64,
    away: watch::Sender<bool>,
    hold: Vec<glob::Pattern>,
}

impl Scans {
    #[must_use]
    pub fn new(hold: Vec<glob::Pattern>) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            slots: AtomicUsize::new(1),
            windows: Arc::new(Semaphore::new(1)),
            windows_given: AtomicUsize::new(1),
            pending_bytes: AtomicU64::new(0),
            away: watch::Sender::new(false),
            hold,
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a signature is one of `hold_signatures`.
    #[must_use]
    pub fn is_doubtful(&self, signature: &str) -> bool {
        self.hold.iter().any(|pattern| pattern.matches(signature))
    }

    /// Queues a sealed upload (once) and gives the place where its end will be told.
    pub fn enqueue(&self, row: &UploadRow) -> watch::Receiver<Option<Settled>> {
        let mut queue = self.queue();
        if let Some(result) = queue.results.get(&row.id) {
            return result.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        queue.results.insert(row.id.clone(), sender);
        queue.waiting.push(Waiting {
            upload: row.id.clone(),
            account: row.username.clone(),
            size: unsigned(row.size),
            since: Instant::now(),
            not_before: Instant::now(),
            retry: IdleRetry::Open,
            when_idle: false,
        });
        drop(queue);
        self.pending_bytes.fetch_add(unsigned(row.size), Ordering::AcqRel);
        self.wake.notify_one();
        receiver
    }

    /// Unscanned bytes of this process.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Acquire)
    }

    /// Waits for the right to scan a window; at most a quarter of clamd's threads do.
    pub async fn window_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.windows).acquire_owned().await.ok()
    }

    /// Whether every scanner is known to be away.
    pub fn note_away(&self, is_away: bool) {
        self.away.send_replace(is_away);
    }

    /// Returns when the scanner is known to be away; clients then need not wait.
    pub async fn until_away(&self) {
        let mut away = self.away.subscribe();
        if away.wait_for(|is_away| *is_away).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The scanner answers again: nobody waits out a pause.
    pub fn retry_all(&self) {
        let now = Instant::now();
        for waiting in &mut self.queue().waiting {
            waiting.not_before = now;
        }
        self.wake.notify_one();
    }

    /// One upload is tried now (`upload retry`).
    pub fn retry(&self, upload: &str) {
        let now = Instant::now();
        for waiting in self.queue().waiting.iter_mut().filter(|w| w.upload == upload) {
            waiting.not_before = now;
        }
        self.wake.notify_one();
    }

    /// Forgets an upload that ended elsewhere (deleted, released by an operator) and tells who waits.
    pub fn withdraw(&self, upload: &str, settled: Settled) {
        let mut queue = self.queue();
        let before = queue.waiting.len();
        let mut size = 0;
        queue.waiting.retain(|w| {
            let keep = w.upload != upload;
            if !keep {
                size = w.size;
            }
            keep
        });
        if queue.waiting.len() < before {
            self.pending_bytes.fetch_sub(size, Ordering::AcqRel);
            if let Some(result) = queue.results.remove(upload) {
                result.send_replace(Some(settled));
            }
        }
    }

    /// Takes the best candidate: small first, older ones gain, two for each account at most.
    fn take(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        let now = Instant::now();
        if queue.running.len() >= self.slots.load(Ordering::Acquire) {
            return None;
        }
        let others = queue.waiting.iter().any(|w| !w.when_idle && w.not_before <= now);
        let is_idle = queue.running.is_empty() && !others;
        let running =
            |of: &dyn Fn(&Waiting) -> bool| queue.running.values().filter(|w| of(w)).count();
        let for_big = places_for(BIG, self.slots.load(Ordering::Acquire));
        let no_big = running(&|w| w.size >= BIG) >= for_big;
        let busy = |account: &str| running(&|w| w.account == account) >= PER_ACCOUNT;
        let candidates = queue.waiting.iter().enumerate().filter(|(_, w)| {
            w.not_before <= now
                && (is_idle || !w.when_idle)
                && !(no_big && w.size >= BIG)
                && !busy(&w.account)
        });
        let weight =
            |w: &Waiting| w.size.saturating_sub(AGEING.saturating_mul(w.since.elapsed().as_secs()));
        let best = candidates.min_by_key(|(_, w)| (weight(w), w.since)).map(|(i, _)| i)?;
        let taken = queue.waiting.swap_remove(best);
        queue.running.insert(taken.upload.clone(), taken.clone());
        Some(taken)
    }

    fn next_due(&self) -> Duration {
        let now = Instant::now();
        let queue = self.queue();
        let due = queue.waiting.iter().map(|w| w.not_before.saturating_duration_since(now)).min();
        due.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(20))
    }

    fn finish(&self, waiting: &Waiting, settled: Settled) {
        let mut queue = self.queue();
        queue.running.remove(&waiting.upload);
        if let Some(result) = queue.results.remove(&waiting.upload) {
            result.send_replace(Some(settled));
        }
        drop(queue);
        self.pending_bytes.fetch_sub(waiting.size, Ordering::AcqRel);
        self.wake.notify_one();
    }

    fn put_back(&self, mut waiting: Waiting, pause: Duration) {
        waiting.not_before = Instant::now().checked_add(pause).unwrap_or_else(Instant::now);
        let mut queue = self.queue();
        queue.running.remove(&waiting.upload);
        queue.waiting.push(waiting);
        drop(queue);
        self.wake.notify_one();
    }

    /// Uploads that are looked at now.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.queue().running.keys().cloned().collect()
    }

    /// How many wait and run, for operators.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let queue = self.queue();
        (queue.waiting.len(), queue.running.len())
    }

    /// As many whole-file scans at once as all clamds together do, and a quarter of their threads for windows.
    fn use_clamds(&self, proofs: &[(&Health, Proof)]) {
        let slots: usize = proofs.iter().map(|(_, proof)| scanner::slots(proof)).sum();
        self.slots.store(slots.max(1), Ordering::Release);
        let threads: usize = proofs.iter().map(|(_, proof)| proof.max_threads).sum();
        let windows = threads.checked_div(4).unwrap_or(1).max(1);
        let given = self.windows_given.fetch_max(windows, Ordering::AcqRel);
        self.windows.add_permits(windows.saturating_sub(given));
    }
}

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
            () = app.scans.wake.notified() => {}
            () = tokio::time::sleep(app.scans.next_due()) => {}
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
            let again = Waiting { retry: IdleRetry::Used, when_idle: true, ..waiting };
            app.scans.put_back(again, Duration::from_millis(100));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(slots: usize, files: &[(&str, &str, u64)]) -> Scans {
        let scans = Scans::new(Vec::new());
        scans.slots.store(slots, Ordering::Release);
        let now = Instant::now();
        for (upload, account, size) in files {
            scans.queue().waiting.push(Waiting {
                upload: (*upload).to_owned(),
                account: (*account).to_owned(),
                size: *size,
                since: now,
                not_before: now,
                retry: IdleRetry::Open,
                when_idle: false,
            });
        }
        scans
    }

    fn taken(scans: &Scans) -> Vec<String> {
        std::iter::from_fn(|| scans.take().map(|waiting| waiting.upload)).collect()
    }

    #[test]
    fn big_files_leave_a_place_to_small_ones_and_an_account_has_two() {
        let big = 2_000_000_000;
        let scans = queue(3, &[("a", "x", big), ("b", "y", big), ("c", "z", big)]);
        assert_eq!(taken(&scans).len(), 2, "the third place is free");
        scans.queue().waiting.append(&mut queue(3, &[("d", "z", 5_000_000)]).queue().waiting);
        assert_eq!(taken(&scans), ["d"]);
        // With one place there is nothing to leave.
        assert_eq!(taken(&queue(1, &[("a", "x", big)])), ["a"]);
        let three = [("a", "x", 1), ("b", "x", 2), ("c", "x", 3)];
        assert_eq!(taken(&queue(8, &three)), ["a", "b"]);
    }
}
