//! The content of one running upload: what is buffered, on its way to the disk, and on it.
//!
//! Knows no client and no database; [`super::upload`] decides what may come and what becomes of it.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use super::blocking;
use super::spool::Spool;
use super::upload::Base;
use crate::domain::content::ContentHasher;
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;

/// Bytes gathered before one write to disk.
pub(super) const PIECE: usize = 512 * 1024;
/// Pieces out of order that the watermark remembers.
const GAPS_MAX: usize = 1024;
/// Bytes at the end of an upload that met a full disk, which are not kept.
const GIVEN_BACK: u64 = 1 << 20;

pub(super) enum Hashing {
    /// Every byte so far came in order, so the digest runs along.
    Along(ContentHasher),
    /// The same; the disk job has the hasher until it is settled.
    InTheJob,
    /// The client wrote out of order or resumed; the sealed file is read back with the scan.
    WithTheScan,
}

/// What a finished disk job gives back.
pub(super) struct Written {
    /// What became of the job's hasher, if it got one.
    pub(super) hashing: Option<Hashing>,
    pub(super) buffer: Vec<u8>,
}

/// Invariant: everything below `contiguous` was handed to the disk in one of the jobs, and nothing below it is missing.
pub(super) struct Content {
    pub(super) spool: Arc<Spool>,
    pub(super) buffer: Vec<u8>,
    pub(super) buffer_at: u64,
    /// The buffer of the piece before, to be filled next.
    pub(super) spare: Vec<u8>,
    pub(super) job: Option<JoinHandle<std::io::Result<Written>>>,
    /// Where the piece on its way to the disk begins.
    pub(super) job_at: u64,
    pub(super) sync_job: Option<JoinHandle<std::io::Result<()>>>,
    pub(super) hashing: Hashing,
    /// The end of the last byte, whether or not on disk yet.
    pub(super) end: u64,
    /// Everything below was written.
    pub(super) contiguous: u64,
    pub(super) gaps: BTreeMap<u64, u64>,
    pub(super) base: Base,
    /// Bytes that an earlier connection left.
    pub(super) resumed: u64,
    /// This connection has sent something.
    pub(super) has_written: bool,
    pub(super) failure: Option<Refusal>,
    pub(super) is_over: bool,
    pub(super) mtime: Timestamp,
    pub(super) reserved: u64,
    pub(super) synced: u64,
    pub(super) beat: Instant,
}

/// Writes one piece and, with a hasher, hashes it while it is warm.
pub(super) fn write_piece(
    spool: &Spool,
    at: u64,
    mut buffer: Vec<u8>,
    hasher: Option<ContentHasher>,
) -> std::io::Result<Written> {
    if !buffer.is_empty() {
        spool.file()?.write_all_at(&buffer, at)?;
    }
    let hashing = hasher.map(|hasher| Hashing::Along(hasher).on(at, &buffer));
    buffer.clear();
    Ok(Written { hashing, buffer })
}

impl Hashing {
    /// Hashes bytes, if they follow those before.
    fn on(self, at: u64, bytes: &[u8]) -> Self {
        match self {
            Self::Along(mut hasher) if hasher.len() == at || bytes.is_empty() => {
                hasher.update(bytes);
                Self::Along(hasher)
            }
            Self::Along(_) | Self::InTheJob | Self::WithTheScan => Self::WithTheScan,
        }
    }

    /// For a job that hashes its piece and gives it back.
    pub(super) fn lend(&mut self) -> Option<ContentHasher> {
        match std::mem::replace(self, Self::InTheJob) {
            Self::Along(hasher) => Some(hasher),
            rest @ (Self::InTheJob | Self::WithTheScan) => {
                *self = rest;
                None
            }
        }
    }
}

impl Content {
    /// Waits for the piece that is on its way to the disk; its error, if it failed.
    pub(super) async fn settle_job(&mut self) -> Option<std::io::Error> {
        // Forgotten when it is over, not before: whoever waits here may be dropped.
        let ended = self.job.as_mut()?.await;
        self.job = None;
        match ended {
            Ok(Ok(written)) => {
                if let Some(hashing) = written.hashing {
                    self.hashing = hashing;
                }
                self.spare = written.buffer;
                None
            }
            Ok(Err(error)) => Some(self.lose_piece(error)),
            Err(error) => Some(self.lose_piece(std::io::Error::other(error))),
        }
    }

    /// A write failed, which ends this upload whoever meets it: out of room is for a resume later.
    pub(super) fn fail(&mut self, error: &std::io::Error) -> Refusal {
        let refusal = if is_full(error) { Refusal::NoSpace } else { Refusal::Damaged };
        self.failure.get_or_insert(refusal).clone()
    }

    /// Hashes the buffer on this thread, if it follows those before, and waits as [`Content::settle_job`] for the piece
    /// before it: that one goes to the disk meanwhile, unless it has the hasher.
    pub(super) async fn hash_buffer(&mut self) -> Option<std::io::Error> {
        if matches!(self.hashing, Hashing::InTheJob)
            && let Some(error) = self.settle_job().await
        {
            return Some(error);
        }
        let hashing = std::mem::replace(&mut self.hashing, Hashing::WithTheScan);
        self.hashing = hashing.on(self.buffer_at, &self.buffer);
        self.settle_job().await
    }

    /// Waits for the sync that runs, if one does.
    pub(super) async fn settle_sync(&mut self) -> std::io::Result<()> {
        let Some(job) = self.sync_job.as_mut() else { return Ok(()) };
        let synced = job.await;
        self.sync_job = None;
        let synced = synced.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        synced.inspect_err(|error| drop(self.fail(error)))
    }

    /// Begins to make what is written durable; nothing else of the kind may run.
    pub(super) fn begin_sync(&mut self) {
        let spool = Arc::clone(&self.spool);
        self.sync_job = Some(tokio::task::spawn_blocking(move || spool.file()?.sync_data()));
    }

    /// The piece on its way is not on disk: nothing from its beginning on counts.
    fn lose_piece(&mut self, error: std::io::Error) -> std::io::Error {
        self.contiguous = self.contiguous.min(self.job_at);
        self.gaps.clear();
        self.hashing = Hashing::WithTheScan;
        self.fail(&error);
        error
    }

    /// Bytes from here on are gone.
    pub(super) fn cut(&mut self, len: u64) {
        self.end = len;
        self.contiguous = self.contiguous.min(len);
        self.gaps.retain(|from, _| *from < len);
        for to in self.gaps.values_mut() {
            *to = len.min(*to);
        }
    }

    /// Brings what came to a clean end on disk, for a resume: everything up to the first byte that is missing. Gives
    /// its length; a resume behind a hole would deliver zeros.
    pub(super) async fn put_down(&mut self) -> std::io::Result<u64> {
        let written = self.settle_job().await.map_or(Ok(()), Err);
        let mut result = written.and(self.settle_sync().await);
        let buffer = std::mem::take(&mut self.buffer);
        if result.is_ok() && self.failure.is_none() && !buffer.is_empty() {
            let (spool, at) = (Arc::clone(&self.spool), self.buffer_at);
            let end = at.saturating_add(u64::try_from(buffer.len()).unwrap_or(0));
            result = blocking(move || spool.file()?.write_all_at(&buffer, at)).await;
            match &result {
                Ok(()) => self.advance(at, end),
                Err(error) => drop(self.fail(error)),
            }
        }
        let is_full = match result {
            Ok(()) => self.failure == Some(Refusal::NoSpace),
            Err(error) if is_full(&error) => true,
            Err(error) => return Err(error),
        };
        if self.failure == Some(Refusal::Damaged) {
            return Err(std::io::Error::other("an earlier write failed"));
        }
        // The database lies on the same disk: it must be able to write this down, and that the customer deletes it.
        let given_back = if is_full { GIVEN_BACK } else { 0 };
        let (spool, len) = (Arc::clone(&self.spool), self.contiguous.saturating_sub(given_back));
        blocking(move || spool.file()?.set_len(len)).await?;
        Ok(len)
    }

    /// Moves the watermark below which nothing is missing.
    pub(super) fn advance(&mut self, from: u64, to: u64) {
        if from <= self.contiguous {
            self.contiguous = self.contiguous.max(to);
        } else if self.gaps.len() < GAPS_MAX {
            self.gaps.insert(from, to);
        }
        while let Some((&from, &to)) = self.gaps.first_key_value() {
            if from > self.contiguous {
                break;
            }
            self.gaps.remove(&from);
            self.contiguous = self.contiguous.max(to);
        }
    }
}

/// Out of room or of descriptors: what came so far is good, and the client may go on later.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    let kind = error.kind();
    let is_out_of_room =
        matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    is_out_of_room || is_out_of_descriptors(error)
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}
