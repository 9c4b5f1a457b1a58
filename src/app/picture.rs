//! Everything that runs, waits and is stuck, at one glance: what `watch` and the operators' page show.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::control::{self, Live};
use super::readiness::Readiness;
use super::transfers::TransferView;
use super::troubles::{self, Trouble};
use super::{App, views};
use crate::domain::time::Timestamp;
use crate::store::desk::{self, OpenDelivery};
use crate::store::events::EventRow;
use crate::store::nodes::{self, NodeRow};
use crate::store::sessions::{self, SessionRow};
use crate::store::uploads::UploadRow;
use crate::store::{self, numbers};

/// Rows of each kind; who has more looks with the commands.
const SHOWN: i64 = 200;
/// Disks and shares are looked at this often.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// How everything stands.
#[derive(Debug, Clone)]
pub struct Picture {
    pub time: Timestamp,
    pub servers: Vec<NodeRow>,
    /// clamd's version as a server on this machine sees it.
    pub scanner: Option<String>,
    pub sessions: Vec<SessionRow>,
    pub transfers: Vec<TransferView>,
    /// Uploads in `scanning`, those first that wait longest.
    pub scans: Vec<UploadRow>,
    /// Ids of those that clamd looks at now.
    pub scanning: HashSet<String>,
    pub held: Vec<UploadRow>,
    pub deliveries: Vec<OpenDelivery>,
    /// Newest first.
    pub events: Vec<EventRow>,
    pub troubles: Vec<Trouble>,
    /// How many uploads are in each open state.
    pub counts: Vec<(String, i64)>,
}

/// Looks again and again.
pub struct Lookout {
    app: Arc<App>,
    probed: Option<(Instant, Vec<Readiness>)>,
}

impl Lookout {
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app, probed: None }
    }

    /// Disk and share, without writing; the scanner only its own server knows.
    async fn readiness(&mut self) -> Vec<Readiness> {
        if let Some((at, readiness)) = &self.probed
            && at.elapsed() < PROBE_EVERY
        {
            return readiness.clone();
        }
        let readiness = self.app.glance().await;
        self.probed = Some((Instant::now(), readiness.clone()));
        readiness
    }

    /// How everything stands now.
    ///
    /// # Errors
    /// The database.
    pub async fn look(&mut self) -> store::Result<Picture> {
        let readiness = self.readiness().await;
        let app = &self.app;
        let db = app.store.db();
        let now = app.now();
        let servers = nodes::rows(db).await?;
        let lives = control::ask(&app.config.data_dir).await;
        let mut transfers: Vec<TransferView> =
            lives.iter().flat_map(|live| live.transfers.clone()).collect();
        transfers.extend(elsewhere(&desk::waiting(db, "receiving", SHOWN).await?, &lives, now));
        Ok(Picture {
            time: now,
            scanner: lives.iter().find_map(|live| live.scanner.clone()),
            sessions: sessions::all(db).await?,
            transfers,
            scans: desk::waiting(db, "scanning", SHOWN).await?,
            scanning: lives.iter().flat_map(|live| live.scanning.clone()).collect(),
            held: desk::waiting(db, "held", SHOWN).await?,
            deliveries: desk::open_deliveries(db, SHOWN).await?,
            events: desk::last_events(db, SHOWN).await?,
            troubles: troubles::of(app, (&servers, &lives, &readiness), now).await?,
            counts: numbers::uploads_by_state(db).await?,
            servers,
        })
    }
}

/// Uploads on servers of other machines, as far as their rows say (every two seconds).
fn elsewhere(rows: &[UploadRow], lives: &[Live], now: Timestamp) -> Vec<TransferView> {
    let is_elsewhere = |row: &&UploadRow| !lives.iter().any(|live| live.node == row.node);
    let view = |row: &UploadRow| {
        let seconds = now.0.saturating_sub(row.started).div_euclid(1000);
        let (done, seconds) = (store::unsigned(row.size), u64::try_from(seconds).unwrap_or(0));
        TransferView {
            session: String::new(),
            username: row.username.clone(),
            client_no: row.client_no.clone(),
            path: format!("/{}/{}", row.project_no, row.path),
            direction: "up".to_owned(),
            done,
            total: u64::try_from(row.declared_size).ok(),
            speed: done.checked_div(seconds).unwrap_or(0),
            seconds,
        }
    };
    rows.iter().filter(is_elsewhere).map(view).collect()
}

impl Picture {
    /// As `--json` prints it.
    #[must_use]
    pub fn json(&self) -> Value {
        let time = |ms: i64| Timestamp(ms).rfc3339();
        let server = |row: &NodeRow| json!({"id": row.id, "host": row.host, "pid": row.pid, "heartbeat": time(row.heartbeat)});
        let session = |row: &SessionRow| {
            json!({
                "id": row.id, "node": row.node, "username": row.username, "client_no": row.client_no,
                "protocol": row.protocol, "peer": row.peer, "since": time(row.created),
            })
        };
        let delivery = |row: &OpenDelivery| {
            json!({
                "id": row.id, "upload_id": row.upload_id, "consumer": row.consumer, "state": row.state,
                "attempts": row.attempts, "next_try": time(row.next_try), "last_error": row.last_error,
                "client_no": row.client_no, "project_no": row.project_no, "path": row.path,
                "size": store::unsigned(row.size), "created": time(row.created),
            })
        };
        json!({
            "time": self.time.to_string(),
            "servers": self.servers.iter().map(server).collect::<Vec<_>>(),
            "scanner": self.scanner,
            "sessions": self.sessions.iter().map(session).collect::<Vec<_>>(),
            "transfers": self.transfers,
            "scans": self.scans.iter().map(views::upload).collect::<Vec<_>>(),
            "held": self.held.iter().map(views::upload).collect::<Vec<_>>(),
            "deliveries": self.deliveries.iter().map(delivery).collect::<Vec<_>>(),
            "events": self.events.iter().map(views::event).collect::<Vec<_>>(),
            "troubles": self.troubles.iter().map(Trouble::json).collect::<Vec<_>>(),
        })
    }

    /// How many uploads are in an open state, also beyond those that are shown.
    #[must_use]
    pub fn count(&self, state: &str) -> i64 {
        self.counts.iter().find(|(name, _)| name == state).map_or(0, |(_, count)| *count)
    }
}
