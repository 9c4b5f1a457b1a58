//! Looks at disks and shares that may never answer.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// A look that may hang for ever, on a share whose server is gone. There is one at a time, so that whoever asks again and
/// again takes one thread of the blocking pool and not, in the end, all.
#[derive(Debug)]
pub(super) struct Look<T>(Mutex<Option<JoinHandle<T>>>);

impl<T> Default for Look<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Send + 'static> Look<T> {
    /// Nothing when this look, or one before it, does not come to an end.
    pub(super) async fn take(
        &self,
        patience: Duration,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let looked = tokio::time::timeout(patience, async {
            let mut running = self.0.lock().await;
            if let Some(earlier) = running.as_mut() {
                earlier.await.ok();
                *running = None;
            }
            let done = running.insert(tokio::task::spawn_blocking(look)).await.ok();
            *running = None;
            done
        });
        looked.await.ok().flatten()
    }
}
