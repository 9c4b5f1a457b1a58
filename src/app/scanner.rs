//! The scanner's health: proven by canaries, not trusted (spec section 7).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::App;
use super::workers::keep;
use crate::clamd::{Clamd, Proof, Transport, Unproven, prove};
use crate::config::{self, ClamdAddress};
use crate::domain::event::{Event, EventKind};

/// Who gives verdicts.
pub enum Scanner {
    /// One clamd or several; the least loaded one is asked.
    Clamd(Vec<Health>),
    /// `clamd = "off"` together with `accept_unscanned`.
    Off,
}

/// What is known about a clamd now.
#[derive(Debug, Clone)]
pub enum State {
    /// Not proven yet: nothing is scanned, nothing released.
    Starting,
    Ready(Proof),
    Away {
        reason: String,
    },
}

/// A clamd, what its canaries said last, and what it does for us.
pub struct Health {
    pub clamd: Clamd,
    wanted: Option<Transport>,
    state: watch::Sender<State>,
    /// A scan failed: look at once.
    suspicion: Notify,
    /// Scans that this process has it do.
    running: AtomicUsize,
    /// What was last said of it: ready or not.
    told: Mutex<Option<bool>>,
}

/// A scan at one clamd; dropped when it is over.
pub struct Asked<'a> {
    pub health: &'a Health,
    pub proof: Proof,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.health.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How often a healthy scanner is proven anew, and how often an absent one is asked.
const PROVE_EVERY: Duration = Duration::from_secs(300);
const ASK_WHEN_AWAY: Duration = Duration::from_secs(1);
/// How often the version is asked in between.
const VERSION_EVERY: Duration = Duration::from_secs(20);

impl Scanner {
    #[must_use]
    pub fn from_config(scan: &config::Scan) -> Self {
        if scan.clamd.is_empty() {
            return Self::Off;
        }
        let wanted = match scan.transport {
            config::Transport::Auto => None,
            config::Transport::Fildes => Some(Transport::Fildes),
            config::Transport::Instream => Some(Transport::Instream),
        };
        let health = |address: &ClamdAddress| {
            let address = match address {
                ClamdAddress::Unix(path) => crate::clamd::Address::Unix(path.clone()),
                ClamdAddress::Tcp(address) => crate::clamd::Address::Tcp(address.clone()),
            };
            Health::new(Clamd::new(address), wanted)
        };
        Self::Clamd(scan.clamd.iter().map(health).collect())
    }

    fn clamds(&self) -> &[Health] {
        match self {
            Self::Clamd(clamds) => clamds,
            Self::Off => &[],
        }
    }

    /// The clamd with this place in the configuration.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Health> {
        self.clamds().get(index)
    }

    /// Those that are proven, the least loaded first.
    #[must_use]
    pub fn ready(&self) -> Vec<(&Health, Proof)> {
        let mut ready: Vec<(&Health, Proof)> =
            self.clamds().iter().filter_map(|h| Some((h, h.proof()?))).collect();
        ready.sort_by_key(|(health, proof)| health.load(proof));
        ready
    }

    /// The proof of one that is ready.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        self.clamds().iter().find_map(Health::proof)
    }

    /// Whether waiting for a verdict is pointless for now: every clamd is known to be away.
    #[must_use]
    pub fn is_away(&self) -> bool {
        let clamds = self.clamds();
        let is_away = |health: &Health| matches!(&*health.state.borrow(), State::Away { .. });
        !clamds.is_empty() && clamds.iter().all(is_away)
    }
}

impl Health {
    fn new(clamd: Clamd, wanted: Option<Transport>) -> Self {
        let (state, _) = watch::channel(State::Starting);
        let (suspicion, running, told) = (Notify::new(), AtomicUsize::new(0), Mutex::new(None));
        Self { clamd, wanted, state, suspicion, running, told }
    }

    /// The proof, while it is ready.
    fn proof(&self) -> Option<Proof> {
        match &*self.state.borrow() {
            State::Ready(proof) => Some(proof.clone()),
            State::Starting | State::Away { .. } => None,
        }
    }

    /// Per mille of its slots that this process uses.
    fn load(&self, proof: &Proof) -> usize {
        let running = self.running.load(Ordering::Acquire);
        running.saturating_mul(1000).checked_div(slots(proof)).unwrap_or(usize::MAX)
    }

    /// Has it scan something, if this process does not use all of its slots already.
    pub fn ask(&self, proof: Proof) -> Option<Asked<'_>> {
        let slots = slots(&proof);
        let took = self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, |running| {
            (running < slots).then(|| running.saturating_add(1))
        });
        took.ok().map(|_| Asked { health: self, proof })
    }

    /// Notes what is said of it from now on; true if that is news.
    fn tell(&self, is_ready: bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.replace(is_ready) != Some(is_ready)
    }

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

/// Whole-file scans that a clamd does at once: as many as it has threads less one, so that a PING never waits.
#[must_use]
pub fn slots(proof: &Proof) -> usize {
    proof.max_threads.saturating_sub(1).max(1)
}

/// A worker for each clamd.
pub(super) fn start(app: &Arc<App>) {
    for index in 0..app.scanner.clamds().len() {
        keep(app, "scanner", move |app| watch_scanner(app, index));
    }
}

/// The worker that watches a clamd: proves it at start, every 5 minutes, when its version changes, and after every
/// doubt; when it answers again, waiting files are tried at once.
async fn watch_scanner(app: Arc<App>, index: usize) {
    let Some(health) = app.scanner.at(index) else { return };
    loop {
        match health.prove().await {
            Ok(proof) => {
                if announce_ready(&app, health, &proof).await {
                    app.scans.retry_all();
                }
                if until_doubt(&app, health, &proof).await.is_none() {
                    return;
                }
            }
            Err(unproven) => {
                announce_away(&app, health, &unproven).await;
                if until_answer(&app, health).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// Tells that the scanner is ready; true if that is news. A file that it answers oddly must wait out its pauses.
async fn announce_ready(app: &App, health: &Health, proof: &Proof) -> bool {
    let event = Event::new(EventKind::ScannerReady)
        .with("scanner", proof.version.text.clone())
        .with("transport", proof.transport.to_string())
        .with("clamd", health.clamd.address().to_string())
        .with("threads", proof.max_threads);
    app.scans.note_away(false);
    if !health.tell(true) {
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

async fn announce_away(app: &App, health: &Health, unproven: &Unproven) {
    app.scans.note_away(app.scanner.is_away());
    if health.tell(false) {
        let event = Event::new(EventKind::ScannerAway)
            .with("clamd", health.clamd.address().to_string())
            .with("reason", unproven.to_string())
            .with("remedy", unproven.remedy().trim().replace("\n\n", " ").replace('\n', "; "));
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
