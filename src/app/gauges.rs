//! What stands now, for Prometheus: set when someone asks.

use std::sync::Arc;

use super::hand_on::Consumer;
use super::{App, with_app};
use crate::certificate;
use crate::store::{self, hook_runs, mails, numbers, published};

/// A count as Prometheus wants it.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes are far below 2^53")]
fn float(count: i64) -> f64 {
    count as f64
}

fn size(count: usize) -> f64 {
    float(i64::try_from(count).unwrap_or(i64::MAX))
}

fn bytes(count: u64) -> f64 {
    float(i64::try_from(count).unwrap_or(i64::MAX))
}

impl App {
    /// Sets every gauge to what is true now.
    ///
    /// # Errors
    /// The database.
    pub async fn set_gauges(self: &Arc<Self>) -> store::Result<()> {
        for protocol in ["sftp", "ftps"] {
            let count = self.sessions.count_by_protocol(protocol);
            metrics::gauge!("ptportal_sessions", "protocol" => protocol).set(size(count));
        }
        metrics::gauge!("ptportal_uploads_running").set(size(self.writers.len()));
        let (waiting, running) = self.scans.counts();
        metrics::gauge!("ptportal_scans", "state" => "waiting").set(size(waiting));
        metrics::gauge!("ptportal_scans", "state" => "running").set(size(running));
        metrics::gauge!("ptportal_scan_pending_bytes").set(bytes(self.scans.pending_bytes()));
        let is_up = self.scanner.proof().is_some();
        metrics::gauge!("ptportal_scanner_up").set(f64::from(u8::from(is_up)));
        for (state, count) in numbers::uploads_by_state(self.store.db()).await? {
            metrics::gauge!("ptportal_uploads", "state" => state).set(float(count));
        }
        for state in ["draft", "queued", "sent", "failed"] {
            metrics::gauge!("ptportal_mails", "state" => state).set(0.0);
        }
        for (state, count) in mails::count_by_state(self.store.db()).await? {
            metrics::gauge!("ptportal_mails", "state" => state).set(float(count));
        }
        for consumer in Consumer::ALL {
            for state in ["pending", "failed"] {
                let labels = [("consumer", consumer.as_str()), ("state", state)];
                metrics::gauge!("ptportal_hook_runs", &labels).set(0.0);
            }
        }
        for (consumer, state, count) in hook_runs::count_by_state(self.store.db()).await? {
            metrics::gauge!("ptportal_hook_runs", "consumer" => consumer, "state" => state)
                .set(float(count));
        }
        let held = published::holds(self.store.db()).await?.len();
        metrics::gauge!("ptportal_publish_holds").set(size(held));
        let mut oldest = self.now().0;
        for (state, count, since) in numbers::open_deliveries(self.store.db()).await? {
            metrics::gauge!("ptportal_deliveries", "state" => state).set(float(count));
            if count > 0 {
                oldest = oldest.min(since);
            }
        }
        let age = self.now().0.saturating_sub(oldest).div_euclid(1000);
        metrics::gauge!("ptportal_deliveries_oldest_seconds").set(float(age));
        if let Ok(free) = with_app(self, |app| app.vault.free_bytes()).await {
            metrics::gauge!("ptportal_data_dir_free_bytes").set(bytes(free));
        }
        if self.config.needs_certificate()
            && let Ok(inspected) = with_app(self, |app| {
                Ok(certificate::inspect(&app.config.ftps.certificate, &app.config.ftps.private_key))
            })
            .await
        {
            let days = match inspected {
                Ok(Some(validity)) => validity.days_left(self.now()),
                // None that could be used after the next start.
                Ok(None) | Err(_) => -1,
            };
            metrics::gauge!("ptportal_certificate_days_left").set(float(days));
        }
        Ok(())
    }
}
