//! How a complete upload ends: sealed, committed, and answered when the verdict is there or patience is over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Base, Upload};
use crate::app::content::{Content, Hashing, write_piece};
use crate::app::outcome::Outcome;
use crate::app::repeat;
use crate::app::settle::{self, Settled};
use crate::config::Patience;
use crate::domain::id::Id;
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;
use crate::metering;
use crate::store::uploads;
use crate::vault::Sidecar;

impl Upload {
    /// Call this only when the protocol said that the file is complete. Seals it, makes it durable, and waits for
    /// the verdict as long as the configuration says.
    ///
    /// # Errors
    /// Nothing was accepted then; after `Infected` the bytes are in quarantine.
    pub async fn finish(self) -> Result<Outcome, Refusal> {
        let started = Instant::now();
        let inner = Arc::clone(&self.inner);
        let mut inner = inner.lock().await;
        if self.app.writers.is_replaced(self.origin.id.as_str(), &self.inner) {
            inner.failure = Some(Refusal::TakenOver);
        }
        if let Some(refusal) = inner.failure.clone() {
            return Err(refusal);
        }
        if let Some(signature) = self.follower.alarm() {
            return Err(self.infected(&mut inner, signature).await);
        }
        if !inner.has_written
            && let Base::Version(base) = inner.base.clone()
        {
            return self.finish_as_repeat(&base).await;
        }
        if !inner.has_written && inner.resumed > 0 {
            return Err(Refusal::StillIncomplete);
        }
        self.follower.stop();
        let sha256 = self.seal(&mut inner).await?;
        inner.is_over = true;
        self.is_done.store(true, Ordering::Release);
        let (size, mtime) = (inner.end, inner.mtime);
        drop(inner);
        let settled =
            settle::sealed(&self.app, &self.origin, (size, &sha256, mtime), started).await;
        // Not before: whoever finds a sealed file without a writer would take it for an orphan.
        self.app.writers.leave(self.origin.id.as_str(), &self.inner);
        let verdict = settled.map_err(|e| self.app.internal("commit a sealed upload", &e))?;
        let answer = self.wait_for(verdict).await;
        metering::answered(started.elapsed());
        answer
    }

    async fn wait_for(&self, verdict: settle::Awaited) -> Result<Outcome, Refusal> {
        let mut receiver = match verdict {
            settle::Awaited::Settled(settled) => return told(settled),
            settle::Awaited::Later(receiver) => receiver,
        };
        let settled = receiver.wait_for(Option::is_some);
        let settled = match self.app.config.scan.answer_within {
            Patience::Verdict => settled.await.ok().and_then(|s| s.clone()),
            Patience::For(_) if self.app.scanner.is_away() => None,
            Patience::For(limit) => {
                let away = self.app.scans.until_away();
                tokio::select! {
                    settled = settled => settled.ok().and_then(|s| s.clone()),
                    () = tokio::time::sleep(limit) => None,
                    () = away => None,
                }
            }
        };
        match settled {
            Some(settled) => told(settled),
            None => {
                self.note_pending().await;
                Ok(Outcome::ScanPending)
            }
        }
    }

    /// Should a virus be found, the customer has to be told by mail.
    async fn note_pending(&self) {
        let id = self.origin.id.as_str();
        if let Err(error) = uploads::set_told_pending(self.app.store.db(), id).await {
            tracing::warn!(%error, upload = id, "it could not be noted that the client was answered before the verdict");
        }
    }

    /// The last piece, the hash, and the move into the vault.
    async fn seal(&self, inner: &mut Content) -> Result<String, Refusal> {
        if let Some(error) = inner.settle_job().await {
            return Err(self.fail(inner, &error));
        }
        if let Err(error) = inner.settle_sync().await {
            return Err(self.fail(inner, &error));
        }
        let buffer = std::mem::take(&mut inner.buffer);
        let hasher = inner.hashing.lend();
        let (spool, at, end) = (Arc::clone(&inner.spool), inner.buffer_at, inner.end);
        let mut sidecar = self.sidecar(end, inner.mtime);
        // In place: the runtime gives this thread's other work to another one, and the client of a small file does not
        // wait for two thread switches.
        let sealed = tokio::task::block_in_place(|| {
            let written = write_piece(&spool, at, buffer, hasher)?;
            let len = spool.file()?.metadata()?.len();
            if len != end {
                return Err(io::Error::other(format!("{len} bytes are there instead of {end}")));
            }
            if let Some(Hashing::Along(hasher)) = written.hashing
                && hasher.len() == end
            {
                hasher.finish().as_str().clone_into(&mut sidecar.sha256);
            }
            self.app.vault.seal(&self.origin.id, &*spool.file()?, &sidecar)
        });
        match sealed {
            Ok(()) => Ok(sidecar.sha256),
            Err(error) => Err(self.fail(inner, &error)),
        }
    }

    fn sidecar(&self, size: u64, mtime: Timestamp) -> Sidecar {
        Sidecar {
            id: self.origin.id.to_string(),
            client_no: self.origin.client_no.clone(),
            username: self.origin.account.to_string(),
            project_no: self.origin.project_no.clone(),
            path: self.origin.path.clone(),
            version: self.origin.version,
            size,
            sha256: String::new(),
            mtime: mtime.0,
            completed: self.app.now().0,
        }
    }

    /// Opened to go on, closed without a byte: the version that is there already stands.
    async fn finish_as_repeat(&self, base: &Id) -> Result<Outcome, Refusal> {
        self.is_done.store(true, Ordering::Release);
        self.app.writers.leave(self.origin.id.as_str(), &self.inner);
        let repeated = repeat::drop_as_repeat(&self.app, &self.origin, base).await;
        let awaited = repeated.map_err(|e| self.app.internal("record a repeat", &e))?;
        self.wait_for(awaited).await
    }
}

fn told(settled: Settled) -> Result<Outcome, Refusal> {
    match settled {
        Settled::Released => Ok(Outcome::Released),
        Settled::Repeated => Ok(Outcome::Repeated),
        Settled::Held => Ok(Outcome::Held),
        Settled::Gone => Ok(Outcome::Released),
        Settled::Refused(refusal) => Err(refusal),
    }
}
