//! Which sealed file is scanned next (spec section 7): small files first, with ageing; at most two of each account at
//! once; big files leave places at the scanner to small ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::scanner::{self, Health};
use super::settle::Settled;
use crate::clamd::Proof;
use crate::domain::verdict::IdleRetry;
use crate::store::unsigned;
use crate::store::uploads::UploadRow;

/// At most so many scans at once for an account.
pub(super) const PER_ACCOUNT: usize = 2;
/// From this size on, in bytes, a file leaves places at the scanner to smaller ones: one always, half of them while
/// small files are about.
const BIG: u64 = 64 << 20;
/// So long after a small file came others are expected.
const SMALL_ABOUT: Duration = Duration::from_secs(600);
/// A waiting file counts as smaller by this for each second, so that a big one is not starved.
const AGEING: u64 = 8 << 20;

/// A sealed file that waits.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) upload: String,
    pub(super) account: String,
    pub(super) size: u64,
    since: Instant,
    not_before: Instant,
    pub(super) retry: IdleRetry,
    /// Only when nothing else runs or waits (after `MaxScanTime`).
    when_idle: bool,
}

impl Waiting {
    /// Once more, and for the last time, with clamd to itself.
    pub(super) fn when_idle(self) -> Self {
        Self { retry: IdleRetry::Used, when_idle: true, ..self }
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    running: HashMap<String, Waiting>,
    results: HashMap<String, watch::Sender<Option<Settled>>>,
    last_small: Option<Instant>,
}

impl Queue {
    /// How many big files may be scanned at once. Scans share the machine's cores, so with places alone a small file
    /// would wait for its turn at a core.
    fn places_for_big(&self, slots: usize) -> usize {
        if self.last_small.is_some_and(|at| at.elapsed() < SMALL_ABOUT) {
            (slots / 2).max(1)
        } else {
            places_for(BIG, slots)
        }
    }
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
        if unsigned(row.size) < BIG {
            queue.last_small = Some(Instant::now());
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
    pub(super) fn take(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        let now = Instant::now();
        let slots = self.slots.load(Ordering::Acquire);
        if queue.running.len() >= slots {
            return None;
        }
        let others = queue.waiting.iter().any(|w| !w.when_idle && w.not_before <= now);
        let is_idle = queue.running.is_empty() && !others;
        let running =
            |of: &dyn Fn(&Waiting) -> bool| queue.running.values().filter(|w| of(w)).count();
        let no_big = running(&|w| w.size >= BIG) >= queue.places_for_big(slots);
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

    /// Returns when it is worth to look for a candidate again.
    pub(super) async fn until_due(&self) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(self.next_due()) => {}
        }
    }

    pub(super) fn finish(&self, waiting: &Waiting, settled: Settled) {
        let mut queue = self.queue();
        queue.running.remove(&waiting.upload);
        if let Some(result) = queue.results.remove(&waiting.upload) {
            result.send_replace(Some(settled));
        }
        drop(queue);
        self.pending_bytes.fetch_sub(waiting.size, Ordering::AcqRel);
        self.wake.notify_one();
    }

    pub(super) fn put_back(&self, mut waiting: Waiting, pause: Duration) {
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
    pub(super) fn use_clamds(&self, proofs: &[(&Health, Proof)]) {
        let slots: usize = proofs.iter().map(|(_, proof)| scanner::slots(proof)).sum();
        self.slots.store(slots.max(1), Ordering::Release);
        let threads: usize = proofs.iter().map(|(_, proof)| proof.max_threads).sum();
        let windows = threads.checked_div(4).unwrap_or(1).max(1);
        let given = self.windows_given.fetch_max(windows, Ordering::AcqRel);
        self.windows.add_permits(windows.saturating_sub(given));
    }
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
        let busy = queue(5, &[("a", "v", big), ("b", "w", big), ("c", "x", big), ("d", "y", big)]);
        busy.queue().last_small = Some(Instant::now());
        assert_eq!(taken(&busy).len(), 2, "half of the places while small files are about");
        // With one place there is nothing to leave.
        assert_eq!(taken(&queue(1, &[("a", "x", big)])), ["a"]);
        let three = [("a", "x", 1), ("b", "x", 2), ("c", "x", 3)];
        assert_eq!(taken(&queue(8, &three)), ["a", "b"]);
    }
}
