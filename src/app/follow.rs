//! The window follower: scans finished parts of a file behind the watermark while the upload runs.
//!
//! It is an alarm that can end an upload. It is never awaited, and what it says never releases anything.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::origin::Origin;
use super::scanner::Scanner;
use super::spool::Spool;
use super::{App, blocking};
use crate::clamd::reply::parse_reply;
use crate::domain::verdict::Answer;

/// Longer than any bounded signature, so that none slips between two windows.
const OVERLAP: u64 = 256 * 1024;
/// A follower that is further behind leaves windows out: the whole-file scan decides anyway.
const MAX_BEHIND: u64 = 4;
const WINDOW_LIMIT: Duration = Duration::from_secs(30);

/// Follows one upload.
#[derive(Clone)]
pub struct Follower(Arc<State>);

struct State {
    app: Arc<App>,
    upload: String,
    spool: Arc<Spool>,
    watermark: AtomicU64,
    is_running: AtomicBool,
    is_stopped: AtomicBool,
    next: AtomicU64,
    alarm: Mutex<Option<String>>,
}

impl Follower {
    #[must_use]
    pub(super) fn new(app: &Arc<App>, origin: &Origin, spool: Arc<Spool>) -> Self {
        Self(Arc::new(State {
            app: Arc::clone(app),
            upload: origin.id.to_string(),
            spool,
            watermark: AtomicU64::new(0),
            is_running: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            next: AtomicU64::new(0),
            alarm: Mutex::new(None),
        }))
    }

    /// The signature that a window held.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        self.0.alarm.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The whole-file scan takes over, or the upload ended.
    pub fn stop(&self) {
        self.0.is_stopped.store(true, Ordering::Release);
    }

    /// Everything below `watermark` is on disk. Files up to one window are scanned once, at the end.
    pub fn follow(&self, watermark: u64) {
        let state = &self.0;
        state.watermark.store(watermark, Ordering::Release);
        let window = state.app.config.scan.window;
        let due = state.next.load(Ordering::Acquire).saturating_add(window) <= watermark;
        let scans = matches!(state.app.scanner, Scanner::Clamd(_));
        if due && scans && !state.is_running.swap(true, Ordering::AcqRel) {
            let state = Arc::clone(state);
            let scan = async move {
                state.scan_windows().await;
                state.is_running.store(false, Ordering::Release);
            };
            self.0.app.tasks.spawn_on(scan, &self.0.app.runtime);
        }
    }
}

impl State {
    async fn scan_windows(&self) {
        let window = self.app.config.scan.window;
        loop {
            let watermark = self.watermark.load(Ordering::Acquire);
            let mut start = self.next.load(Ordering::Acquire);
            let behind = watermark.saturating_sub(start).checked_div(window).unwrap_or(0);
            if behind > MAX_BEHIND {
                start = start.saturating_add(window.saturating_mul(behind.saturating_sub(1)));
            }
            if start.saturating_add(window) > watermark || self.is_stopped.load(Ordering::Acquire) {
                return;
            }
            self.next.store(start.saturating_add(window), Ordering::Release);
            if let Some(signature) =
                self.scan(start.saturating_sub(OVERLAP), start.saturating_add(window)).await
            {
                tracing::info!(
                    upload = self.upload,
                    signature,
                    at = start,
                    "virus found while it is uploaded"
                );
                *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(signature);
                return;
            }
        }
    }

    /// One window; only a plain signature is an alarm, any doubt is left to the whole-file scan.
    async fn scan(&self, from: u64, to: u64) -> Option<String> {
        let (health, proof) = self.app.scanner.ready().into_iter().next()?;
        let _slot = self.app.scans.window_slot().await?;
        let spool = Arc::clone(&self.spool);
        let bytes = blocking(move || {
            let len = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
            let mut bytes = vec![0u8; len];
            spool.file()?.read_exact_at(&mut bytes, from)?;
            Ok(bytes)
        });
        let bytes = bytes.await.ok()?;
        let reply =
            health.clamd.scan_bytes(bytes.into(), proof.transport, WINDOW_LIMIT).await.ok()?;
        match parse_reply(&reply) {
            Answer::Found { signature } if !self.app.scans.is_doubtful(&signature) => {
                Some(signature)
            }
            Answer::Found { .. }
            | Answer::Ok
            | Answer::LimitExceeded { .. }
            | Answer::Encrypted { .. }
            | Answer::Odd { .. } => None,
        }
    }
}
