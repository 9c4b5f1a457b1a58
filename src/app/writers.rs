//! Who writes what in this process: one writer for each name, and a silent one may be taken over (spec section 7).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::App;
use super::content::Content;
use crate::domain::account::AccountName;
use crate::domain::refusal::Refusal;
use crate::store::uploads;

/// Silence after which the same account may take a name over.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(5);

/// Writers of this process by upload, for taking a name over.
#[derive(Default)]
pub struct Writers(Mutex<HashMap<String, Writer>>);

/// One of them.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) account: AccountName,
    pub(super) inner: Arc<tokio::sync::Mutex<Content>>,
    pub(super) heard: Arc<Mutex<Instant>>,
}

impl Writers {
    pub(super) fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Writer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets this writer, but not one that has gone on with the same upload since.
    pub(super) fn leave(&self, upload: &str, inner: &Arc<tokio::sync::Mutex<Content>>) {
        let mut all = self.all();
        if all.get(upload).is_some_and(|writer| Arc::ptr_eq(&writer.inner, inner)) {
            all.remove(upload);
        }
    }

    /// Whether another one has gone on with the same upload: then not a byte is this one's to change any more.
    pub(super) fn is_replaced(
        &self,
        upload: &str,
        inner: &Arc<tokio::sync::Mutex<Content>>,
    ) -> bool {
        self.all().get(upload).is_some_and(|writer| !Arc::ptr_eq(&writer.inner, inner))
    }

    #[must_use]
    pub fn holds(&self, upload: &str) -> bool {
        self.all().contains_key(upload)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.all().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }
}

/// A name with a writer: may this account have it? False where that one has left nothing to go on with.
///
/// # Errors
/// `Busy` while the writer is alive or someone else's.
pub(super) async fn take_over(
    app: &Arc<App>,
    upload: &str,
    account: &AccountName,
) -> Result<bool, Refusal> {
    let writer = app.writers.all().get(upload).cloned();
    let Some(writer) = writer else { return Ok(false) };
    let silent = writer.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
    if writer.account != *account || silent < TAKE_OVER_AFTER {
        return Err(Refusal::Busy);
    }
    let mut inner = writer.inner.lock().await;
    // Waiting for it took time: it may have been closed, or have sent more.
    let silent = writer.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
    if inner.is_over || silent < TAKE_OVER_AFTER {
        return Err(Refusal::Busy);
    }
    // Of what an untouched one began with (the version before) nothing is in its file.
    let started = inner.has_written || inner.resumed > 0;
    let put_down = if started { inner.put_down().await } else { Ok(0) };
    let size = put_down.map_err(|e| app.internal("take a name over", &e))?;
    inner.is_over = true;
    inner.failure = Some(Refusal::TakenOver);
    app.writers.leave(upload, &writer.inner);
    if size == 0 {
        return Ok(false);
    }
    let now = app.now();
    let incomplete =
        uploads::set_incomplete(app.store.db(), upload, app.node.as_str(), size, now).await;
    if incomplete.map_err(|e| app.internal("take a name over", &e))? == 0 {
        return Err(Refusal::Busy);
    }
    tracing::info!(
        upload,
        account = account.as_str(),
        "a silent connection's upload was taken over"
    );
    Ok(true)
}
