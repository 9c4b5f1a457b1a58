//! The scanner's health: proven by canaries, not trusted (spec section 7).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::App;
use crate::clamd::{Clamd, Proof, Transport, Unproven, prove};
use crate::config::{self, ClamdAddress};
use crate::domain::event::{Event, EventKind};

/// Who gives verdicts.
pub enum Scanner {
    Clamd(Health),
    /// `clamd = "off"` together with `accept_unscanned`.
    Off,
}

/// What is known about clamd now.
#[derive(Debug, Clone)]
pub enum State {
    /// Not proven yet: nothing is scanned, nothing released.
    Starting,
    Ready(Proof),
    Away {
        reason: String,
    },
}

/// clamd and what the canaries said last.
pub struct Health {
    pub clamd: Clamd,
    wanted: Option<Transport>,
    state: watch::Sender<State>,
    /// A scan failed: look at once.
    suspicion: Notify,
}

/// How often a healthy scanner is proven anew, and how often an absent one is asked.
const PROVE_EVERY: Duration = Duration::from_secs(300);
const ASK_WHEN_AWAY: Duration = Duration::from_secs(1);
/// How often the version is asked in between.
const VERSION_EVERY: Duration = Duration::from_secs(20);

impl Scanner {
    #[must_use]
    pub fn from_config(scan: &config::Scan) -> Self {
        let address = match &scan.clamd {
            ClamdAddress::Unix(path) => crate::clamd::Address::Unix(path.clone()),
            ClamdAddress::Tcp(address) => crate::clamd::Address::Tcp(address.clone()),
            ClamdAddress::Off => return Self::Off,
        };
        let wanted = match scan.transport {
            config::Transport::Auto => None,
            config::Transport::Fildes => Some(Transport::Fildes),
            config::Transport::Instream => Some(Transport::Instream),
        };
        let (state, _) = watch::channel(State::Starting);
        Self::Clamd(Health { clamd: Clamd::new(address), wanted, state, suspicion: Notify::new() })
    }

    /// The proof, while the scanner is ready.
    #[must_use]
    pub fn ready(&self) -> Option<Proof> {
        match self {
            Self::Clamd(health) => match &*health.state.borrow() {
                State::Ready(proof) => Some(proof.clone()),
                State::Starting | State::Away { .. } => None,
            },
            Self::Off => None,
        }
    }

    /// Whether waiting for a verdict is pointless for now.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Clamd(health) => matches!(&*health.state.borrow(), State::Away { .. }),
            Self::Off => false,
        }
    }
}

impl Health {
    /// Asks for a look at the scanner now.
    pub fn suspect(&self) {
        self.suspicion.notify_one();
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Proves the scanner once and notes the result.
    ///
    /// # Errors
    /// Why it cannot be relied on.
    pub async fn prove(&self) -> Result<Proof, Unproven> {
        let proven = prove(&self.clamd, self.wanted).await;
        let state = match &proven {
            Ok(proof) => State::Ready(proof.clone()),
            Err(unproven) => State::Away { reason: unproven.to_string() },
        };
        self.state.send_replace(state);
        proven
    }
}

/// The worker that watches clamd: proves it at start, every 5 minutes, when its version changes, and after every
/// doubt; when it answers again, waiting files are tried at once.
pub async fn watch_scanner(app: Arc<App>) {
    let Scanner::Clamd(health) = &app.scanner else { return };
    loop {
        match health.prove().await {
            Ok(proof) => {
                if announce_ready(&app, &proof).await {
                    app.scans.retry_all();
                }
                if until_doubt(&app, health, &proof).await.is_none() {
                    return;
                }
            }
            Err(unproven) => {
                announce_away(&app, &unproven).await;
                if until_answer(&app, health).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// Tells that the scanner is ready; true if that is news. A file that it answers oddly must wait out its pauses.
async fn announce_ready(app: &App, proof: &Proof) -> bool {
    let event = Event::new(EventKind::ScannerReady)
        .with("scanner", proof.version.text.clone())
        .with("transport", proof.transport.to_string())
        .with("threads", proof.max_threads);
    if !app.scans.note_ready() {
        return false;
    }
    app.record(event).await;
    if proof.version.database.is_none() || proof.version.date.is_none() {
        tracing::warn!(
            scanner = proof.version.text,
            "clamd names no signature database or date; run freshclam"
        );
    }
    true
}

async fn announce_away(app: &App, unproven: &Unproven) {
    if app.scans.note_away() {
        let event = Event::new(EventKind::ScannerAway)
            .with("reason", unproven.to_string())
            .with("remedy", unproven.remedy());
        app.record(event).await;
    }
}

/// Returns when the scanner should be proven again; `None` at shutdown.
async fn until_doubt(app: &App, health: &Health, proof: &Proof) -> Option<()> {
    let again = tokio::time::sleep(PROVE_EVERY);
    tokio::pin!(again);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return None,
            () = &mut again => return Some(()),
            () = health.suspicion.notified() => return Some(()),
            () = tokio::time::sleep(VERSION_EVERY) => {
                match health.clamd.version().await {
                    Ok(version) if version == proof.version => {}
                    Ok(_) | Err(_) => return Some(()),
                }
            }
        }
    }
}

/// Returns when clamd answers a PING again; `None` at shutdown.
async fn until_answer(app: &App, health: &Health) -> Option<()> {
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return None,
            () = tokio::time::sleep(ASK_WHEN_AWAY) => {}
        }
        if health.clamd.ping().await.is_ok() {
            return Some(());
        }
    }
}
