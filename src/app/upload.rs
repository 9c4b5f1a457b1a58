//! One upload while a client writes it: bytes in, in any order, until CLOSE seals it or the connection is lost.
//!
//! Dropping an [`Upload`] without [`Upload::finish`] leaves it `incomplete`, kept for resume. There is no third way.

mod finish;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::broken::break_off;
use super::content::{Content, Hashing, PIECE, write_piece};
use super::origin::Origin;
use super::rates::Pace;
use super::settle;
use super::spool::Spool;
use super::transfers::Transfer;
use super::writers::Writer;
use super::{App, blocking, follow, with_app};
use crate::config::OnOversize;
use crate::domain::content::ContentHasher;
use crate::domain::id::Id;
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::metering;
use crate::store::uploads::{self, Finding};

/// Synced while bytes come, so that CLOSE is quick at any size (spec section 7).
const SYNC_EVERY: u64 = 64 << 20;
/// How often a writer shows that it is alive.
const BEAT: Duration = Duration::from_secs(2);
/// Larger files clamd never scans (shared limit of its engine, 2^31 - 3).
pub const CLAMD_CEILING: u64 = 2_147_483_645;
/// A quota is reserved in steps, so that parallel uploads cannot cross it together.
const RESERVE_STEP: u64 = 64 << 20;

/// The client's content begins with that of another version, copied at the first write.
#[derive(Debug, Clone)]
pub enum Base {
    None,
    Version(Id),
}

/// An upload that a client is writing; owned by the front's handle.
pub struct Upload {
    app: Arc<App>,
    origin: Arc<Origin>,
    inner: Arc<tokio::sync::Mutex<Content>>,
    heard: Arc<Mutex<Instant>>,
    follower: follow::Follower,
    received: metrics::Counter,
    pace: Pace,
    transfer: Transfer,
    /// True once finished or handed to the clearing task.
    is_done: AtomicBool,
}

impl Upload {
    /// Goes with a row in `receiving`: a new content, or a spool file with bytes in it already.
    #[must_use]
    pub fn begin(
        app: Arc<App>,
        origin: Origin,
        resumed: Option<(File, u64)>,
        base: (Base, u64),
        (pace, transfer): (Pace, Transfer),
    ) -> Self {
        let (spool, present) = match resumed {
            Some((file, present)) => (Spool::resumed(&app, &origin.id, file), present),
            None => (Spool::new(&app, &origin.id), 0),
        };
        let end = present.max(base.1);
        let inner = Content {
            spool: Arc::clone(&spool),
            buffer: Vec::new(),
            buffer_at: 0,
            spare: Vec::new(),
            job: None,
            job_at: 0,
            sync_job: None,
            hashing: if end == 0 {
                Hashing::Along(ContentHasher::default())
            } else {
                Hashing::WithTheScan
            },
            end,
            contiguous: present,
            gaps: BTreeMap::new(),
            base: base.0,
            resumed: present,
            has_written: false,
            failure: None,
            is_over: false,
            mtime: Timestamp::NEVER,
            reserved: end,
            synced: present,
            beat: Instant::now(),
        };
        let inner = Arc::new(tokio::sync::Mutex::new(inner));
        let heard = Arc::new(Mutex::new(Instant::now()));
        let writer = Writer {
            account: origin.account.clone(),
            inner: Arc::clone(&inner),
            heard: Arc::clone(&heard),
        };
        app.writers.all().insert(origin.id.to_string(), writer);
        let received = metering::received(origin.protocol);
        let follower = follow::Follower::new(&app, &origin, spool);
        Self {
            app,
            origin: Arc::new(origin),
            inner,
            heard,
            follower,
            received,
            pace,
            transfer,
            is_done: AtomicBool::new(false),
        }
    }

    /// Whether the account has an upload rate.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.pace.is_limited()
    }

    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Present size in bytes and the time the client has set (or never).
    pub async fn attributes(&self) -> (u64, Timestamp) {
        let inner = self.inner.lock().await;
        (inner.end, inner.mtime)
    }

    /// Keeps the modification time that the client wants.
    pub async fn set_mtime(&self, mtime: Timestamp) {
        self.inner.lock().await.mtime = mtime;
    }

    /// Cuts or extends the content (SETSTAT with a size). Only the writer may.
    ///
    /// # Errors
    /// As [`Upload::write_at`].
    pub async fn set_len(&self, len: u64) -> Result<(), Refusal> {
        let mut inner = self.inner.lock().await;
        self.ready_for(&mut inner, len).await?;
        self.flush(&mut inner).await?;
        if let Some(error) = inner.settle_job().await {
            return Err(self.fail(&mut inner, &error));
        }
        let spool = Arc::clone(&inner.spool);
        if let Err(error) = blocking(move || spool.file()?.set_len(len)).await {
            return Err(self.fail(&mut inner, &error));
        }
        if len != inner.end {
            inner.hashing = Hashing::WithTheScan;
        }
        inner.cut(len);
        inner.has_written = true;
        Ok(())
    }

    /// Makes everything so far durable (`fsync@openssh.com`). May be dropped while it waits.
    ///
    /// # Errors
    /// A failed sync is final for this upload.
    pub async fn sync(&self) -> Result<(), Refusal> {
        let mut inner = self.inner.lock().await;
        if !inner.has_written {
            // Of a version that goes on nothing is copied before its first byte: without one it stays what it is.
            return inner.failure.clone().map_or(Ok(()), Err);
        }
        let end = inner.end;
        self.ready_for(&mut inner, end).await?;
        self.flush(&mut inner).await?;
        if let Some(error) = inner.settle_job().await {
            return Err(self.fail(&mut inner, &error));
        }
        // One that runs may have begun before the last piece.
        if let Err(error) = inner.settle_sync().await {
            return Err(self.fail(&mut inner, &error));
        }
        inner.begin_sync();
        match inner.settle_sync().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(&mut inner, &error)),
        }
    }

    /// Takes bytes at any offset. Awaiting it is the back-pressure: at most three pieces of 512 KiB are in memory.
    ///
    /// # Errors
    /// A refusal is final for this upload; CLOSE will tell it again.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.is_empty() {
            // Changes nothing, wherever it points (pwrite(2)).
            let mut inner = self.inner.lock().await;
            let end = inner.end;
            return self.ready_for(&mut inner, end).await;
        }
        let (mut inner, end) = self.admit(offset, bytes.len()).await?;
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            if inner.buffer.is_empty() {
                inner.buffer_at = at;
            }
            let room = PIECE.saturating_sub(inner.buffer.len()).max(1).min(rest.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            inner.buffer.extend_from_slice(now);
            at = at.saturating_add(u64::try_from(now.len()).unwrap_or(0));
            rest = later;
            if inner.buffer.len() >= PIECE {
                self.flush(&mut inner).await?;
            }
        }
        inner.end = inner.end.max(end);
        Ok(())
    }

    /// The same for a buffer of which the front has no further need, on a thread that may be kept busy: a large one is
    /// not copied, another comes back for it, and where the bytes come in order it is hashed here. Empty afterwards.
    ///
    /// # Errors
    /// As [`Upload::write_at`].
    pub async fn write_buffer(&self, offset: u64, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        if bytes.len() < PIECE.div_euclid(2) {
            let written = self.write_at(offset, bytes).await;
            bytes.clear();
            return written;
        }
        let (mut inner, end) = self.admit(offset, bytes.len()).await?;
        if !inner.buffer.is_empty() {
            self.flush(&mut inner).await?;
        }
        std::mem::swap(&mut inner.buffer, bytes);
        inner.buffer_at = offset;
        if let Some(error) = inner.hash_buffer().await {
            return Err(self.fail(&mut inner, &error));
        }
        self.hand_over(&mut inner, None).await?;
        inner.end = inner.end.max(end);
        Ok(())
    }

    /// Lets bytes in that follow those in the buffer, or come after it has gone to the disk; gives their end.
    async fn admit(
        &self,
        offset: u64,
        len: usize,
    ) -> Result<(tokio::sync::MutexGuard<'_, Content>, u64), Refusal> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.pace.take(len).await;
        let mut inner = self.inner.lock().await;
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        self.received.increment(len);
        let end = offset.saturating_add(len);
        self.ready_for(&mut inner, end).await?;
        self.transfer.reached(end);
        inner.has_written = true;
        let buffered = u64::try_from(inner.buffer.len()).unwrap_or(0);
        if !inner.buffer.is_empty() && inner.buffer_at.checked_add(buffered) != Some(offset) {
            self.flush(&mut inner).await?;
        }
        Ok((inner, end))
    }

    /// Everything that must hold before the content may reach up to `end`. What does not hold ends the upload.
    async fn ready_for(&self, inner: &mut Content, end: u64) -> Result<(), Refusal> {
        let ready = self.may_reach(inner, end).await;
        if let Err(refusal) = &ready {
            inner.failure.get_or_insert_with(|| refusal.clone());
        }
        ready
    }

    async fn may_reach(&self, inner: &mut Content, end: u64) -> Result<(), Refusal> {
        if let Some(refusal) = &inner.failure {
            return Err(refusal.clone());
        }
        if let Some(signature) = self.follower.alarm() {
            return Err(self.infected(inner, signature).await);
        }
        let limit = self.origin.max_size;
        if end > limit {
            return Err(self.reject(inner, Refusal::TooLarge { limit }).await);
        }
        let scans = !matches!(self.app.scanner, super::scanner::Scanner::Off);
        if scans && end > CLAMD_CEILING && self.app.config.scan.on_oversize == OnOversize::Reject {
            let limit = "Heuristics.Limits.Exceeded.MaxFileSize".to_owned();
            return Err(self.reject(inner, Refusal::ScannerLimit { limit }).await);
        }
        if let Some(quota) = self.origin.quota
            && end > inner.reserved
        {
            self.reserve(inner, end, quota).await?;
        }
        if let Base::Version(id) = inner.base.clone() {
            inner.base = Base::None;
            let spool = Arc::clone(&inner.spool);
            let copied = with_app(&self.app, move |app| {
                let mut file = spool.file()?.try_clone()?;
                app.vault.copy_sealed(&id, &mut file)
            });
            match copied.await {
                Ok(copied) => inner.contiguous = copied,
                Err(error) => return Err(self.fail(inner, &error)),
            }
        }
        Ok(())
    }

    /// Reserves more of the quota, in a step or exactly.
    async fn reserve(&self, inner: &mut Content, end: u64, quota: u64) -> Result<(), Refusal> {
        for wanted in [end.saturating_add(RESERVE_STEP), end] {
            let fits = settle::reserve(&self.app, &self.origin, wanted, quota).await;
            if fits.map_err(|e| self.app.internal("reserve quota", &e))? {
                inner.reserved = wanted;
                return Ok(());
            }
        }
        Err(self.reject(inner, Refusal::Quota { limit: quota }).await)
    }

    /// Hands the buffer to disk and hash, if something is in it. The previous piece is down then.
    async fn flush(&self, inner: &mut Content) -> Result<(), Refusal> {
        if let Some(error) = inner.settle_job().await {
            return Err(self.fail(inner, &error));
        }
        if inner.buffer.is_empty() {
            return Ok(());
        }
        let hasher = inner.hashing.lend();
        self.hand_over(inner, hasher).await
    }

    /// Hands the buffer to the disk, and to the hasher, if it has not seen it and bytes come in order. The previous piece
    /// must be down.
    async fn hand_over(
        &self,
        inner: &mut Content,
        hasher: Option<ContentHasher>,
    ) -> Result<(), Refusal> {
        if self.app.writers.is_replaced(self.origin.id.as_str(), &self.inner) {
            inner.failure = Some(Refusal::TakenOver);
            return Err(Refusal::TakenOver);
        }
        let mut spare = std::mem::take(&mut inner.spare);
        // The first piece grows as small files need it; whoever sends more gets whole pieces.
        spare.reserve(PIECE);
        let buffer = std::mem::replace(&mut inner.buffer, spare);
        let (spool, at) = (Arc::clone(&inner.spool), inner.buffer_at);
        let len = u64::try_from(buffer.len()).unwrap_or(0);
        inner.job_at = at;
        inner.job =
            Some(tokio::task::spawn_blocking(move || write_piece(&spool, at, buffer, hasher)));
        inner.advance(at, at.saturating_add(len));
        self.sync_now_and_then(inner).await?;
        self.follower.follow(inner.contiguous.saturating_sub(len));
        self.beat(inner).await
    }

    async fn sync_now_and_then(&self, inner: &mut Content) -> Result<(), Refusal> {
        if inner.contiguous.saturating_sub(inner.synced) < SYNC_EVERY {
            return Ok(());
        }
        inner.synced = inner.contiguous;
        if let Err(error) = inner.settle_sync().await {
            return Err(self.fail(inner, &error));
        }
        inner.begin_sync();
        Ok(())
    }

    /// Shows that the writer lives, and finds out whether the row still is this writer's.
    async fn beat(&self, inner: &mut Content) -> Result<(), Refusal> {
        if inner.beat.elapsed() < BEAT {
            return Ok(());
        }
        inner.beat = Instant::now();
        let app = &self.app;
        let (id, node) = (self.origin.id.as_str(), app.node.as_str());
        match uploads::note_progress(app.store.db(), id, node, inner.contiguous, app.now()).await {
            Ok(0) => {
                // Deleted by its owner, or given to another server.
                inner.failure = Some(Refusal::TakenOver);
                Err(Refusal::TakenOver)
            }
            Ok(_) => Ok(()),
            Err(error) => {
                // The bytes are safe; the commit at CLOSE decides.
                tracing::warn!(%error, upload = id, "progress could not be noted");
                Ok(())
            }
        }
    }

    fn fail(&self, inner: &mut Content, error: &std::io::Error) -> Refusal {
        tracing::error!(%error, upload = self.origin.id.as_str(), "content could not be written");
        inner.fail(error)
    }

    /// The upload crosses a limit: it ends here, nothing else of the customer is touched.
    async fn reject(&self, inner: &mut Content, refusal: Refusal) -> Refusal {
        inner.failure = Some(refusal.clone());
        let finding = Finding { reason: refusal.code().to_owned(), ..Finding::default() };
        self.end_as(UploadState::Rejected, &finding).await;
        refusal
    }

    /// The alarm of a window: the upload ends on the spot.
    async fn infected(&self, inner: &mut Content, signature: String) -> Refusal {
        // The verdict is clear; whether its last piece reached the disk does not matter any more.
        drop(inner.settle_job().await);
        let refusal = Refusal::Infected { signature: signature.clone() };
        inner.failure = Some(refusal.clone());
        let finding = Finding {
            verdict: "infected",
            signature,
            reason: "found while it was uploaded".to_owned(),
            scanner: self.app.scanner.proof().map(|p| p.version.text).unwrap_or_default(),
            waived_by: String::new(),
        };
        self.end_as(UploadState::Infected, &finding).await;
        refusal
    }

    async fn end_as(&self, state: UploadState, finding: &Finding) {
        self.is_done.store(true, Ordering::Release);
        self.app.writers.leave(self.origin.id.as_str(), &self.inner);
        if let Err(error) = settle::end_receiving(&self.app, &self.origin, state, finding).await {
            tracing::error!(%error, upload = self.origin.id.as_str(), "end of upload could not be recorded");
        }
    }

    /// A resume without a new byte completes an unfinished upload. For protocols whose end of data says "this is all",
    /// unlike a CLOSE.
    pub async fn accept_as_whole(&self) {
        let mut inner = self.inner.lock().await;
        inner.has_written |= inner.resumed > 0;
    }

    /// The connection is gone or the client gave up: what came is kept for a resume, which may begin at once.
    pub async fn abandon(self) {
        if let Some(broken_off) = self.break_off()
            && let Err(error) = broken_off.await
        {
            tracing::error!(%error, upload = self.origin.id.as_str(), "broken upload could not be kept");
        }
    }

    /// In a task of its own, so that nothing interrupts it; none when the upload has ended already.
    fn break_off(&self) -> Option<tokio::task::JoinHandle<()>> {
        if self.is_done.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.follower.stop();
        let (app, origin, inner) =
            (Arc::clone(&self.app), Arc::clone(&self.origin), Arc::clone(&self.inner));
        let work = async move { break_off(&app, &origin, &inner).await };
        Some(self.app.tasks.spawn_on(work, &self.app.runtime))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // It goes on without being awaited.
        drop(self.break_off());
    }
}
