//! Batches: files of one project that come together make one mail, one receipt and, where that is wanted, one job
//! ticket (spec section 13). A batch ends when no file came for a while, or when its sender has logged out.

use std::sync::Arc;
use std::time::Duration;

use super::work::Work;
use super::{App, data_mails, job_tickets};
use crate::domain::time::Timestamp;
use crate::store::batches::{self, BatchRow};
use crate::store::uploads::UploadRow;
use crate::store::{self};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After the sender has logged out: scripts that log in for each file are one sender.
const AFTER_LOGOUT: Duration = Duration::from_secs(5);
/// Even while files go on coming.
const LONGEST: Duration = Duration::from_secs(3600);

/// Which way files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the customer.
    In,
    /// From staff.
    Out,
}

impl Direction {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// The project's open batch takes the file; without one, one begins.
pub(super) async fn take_in(
    work: &mut Work<'_>,
    direction: Direction,
    upload: &UploadRow,
) -> store::Result<()> {
    let row = BatchRow {
        id: work.app.new_id().to_string(),
        direction: direction.as_str().to_owned(),
        client_no: upload.client_no.clone(),
        project_no: upload.project_no.clone(),
        username: upload.username.clone(),
        node: upload.node.clone(),
        last_file: work.now.0,
        ..BatchRow::default()
    };
    let batch = batches::open_or_begin(work.tx.db(), &row).await?;
    batches::add_file(work.tx.db(), &batch, &upload.id, work.now).await?;
    Ok(())
}

/// Ends batches until shutdown.
pub async fn run(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Err(error) = app.close_due_batches().await {
            tracing::error!(%error, "batches could not be ended, tried again");
        }
    }
}

impl App {
    async fn close_due_batches(&self) -> anyhow::Result<()> {
        for batch in batches::open(self.store.db()).await? {
            if self.is_complete(&batch).await? {
                self.close_batch(&batch).await?;
            }
        }
        Ok(())
    }

    async fn is_complete(&self, batch: &BatchRow) -> store::Result<bool> {
        let now = self.now();
        let last = Timestamp(batch.last_file);
        let is_quiet = now >= last.plus(self.config.batch.quiet);
        let is_gone = batch.direction == Direction::In.as_str()
            && batch.node == self.node.as_str()
            && now >= last.plus(AFTER_LOGOUT)
            && !self.sessions.accounts().iter().any(|name| name.as_str() == batch.username);
        if now >= Timestamp(batch.created).plus(LONGEST) {
            return Ok(true);
        }
        if !is_quiet && !is_gone {
            return Ok(false);
        }
        let waits = batch.direction == Direction::In.as_str()
            && batches::is_busy(self.store.db(), &batch.project_no).await?;
        Ok(!waits)
    }

    async fn close_batch(&self, batch: &BatchRow) -> anyhow::Result<()> {
        let mut work = self.begin().await?;
        if batches::close(work.tx.db(), &batch.id, batch.last_file, work.now).await? == 0 {
            // Another file came, or another server was faster.
            return Ok(());
        }
        let files = batches::files(work.tx.db(), &batch.id).await?;
        if batch.direction == Direction::In.as_str() {
            data_mails::arrived(&mut work, batch).await?;
            job_tickets::plan_for_batch(&mut work, batch, &files).await?;
        } else {
            data_mails::published(&mut work, batch).await?;
        }
        work.commit().await?;
        tracing::info!(
            batch = batch.id,
            direction = batch.direction,
            project = batch.project_no,
            files = files.len(),
            "batch complete"
        );
        self.mirror_wake.notify_one();
        Ok(())
    }
}
