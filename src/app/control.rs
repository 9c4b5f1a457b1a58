//! `data_dir/control.sock`: commands wake the server before its next poll, and whoever watches asks what runs in it.
//!
//! With `SQLite` one server has the data folder to itself. On PostgreSQL each has a socket of its own,
//! `control-NODE.sock`, and those who ask, ask all that answer on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::scanner::{Health, Scanner, State};
use super::transfers::TransferView;
use super::{App, blocking};
use crate::store::Kind;

const ASK: &[u8; 5] = b"live\n";
/// For a question, and for its answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// A thousand transfers are far below.
const ANSWER_MAX: u64 = 4 << 20;

/// What only the process itself knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Live {
    pub node: String,
    pub transfers: Vec<TransferView>,
    /// Uploads that clamd looks at now.
    pub scanning: Vec<String>,
    /// clamd's version, or nothing while it is away or off.
    pub scanner: Option<String>,
    /// Why clamd cannot be relied on.
    pub scanner_problem: Option<String>,
}

impl App {
    /// What runs here now.
    #[must_use]
    pub fn live(&self) -> Live {
        let (scanner, scanner_problem) = match &self.scanner {
            Scanner::Off => (None, None),
            Scanner::Clamd(clamds) => {
                let problem = |health: &Health| match health.state() {
                    State::Ready(_) => None,
                    State::Starting => Some("not proven yet".to_owned()),
                    State::Away { reason } => Some(reason),
                };
                let version = self.scanner.proof().map(|proof| proof.version.text);
                (version, clamds.iter().find_map(problem))
            }
        };
        Live {
            node: self.node.to_string(),
            transfers: self.transfers.views(),
            scanning: self.scans.running(),
            scanner,
            scanner_problem,
        }
    }

    /// The socket of this server.
    fn control_socket(&self) -> PathBuf {
        match self.store.kind() {
            Kind::Sqlite => self.config.data_dir.join("control.sock"),
            Kind::Postgres => socket_of(&self.config.data_dir, self.node.as_str()),
        }
    }
}

fn socket_of(data_dir: &Path, node: &str) -> PathBuf {
    data_dir.join(format!("control-{node}.sock"))
}

/// Takes the socket of a server away that has died.
pub(super) async fn forget(app: &App, node: &str) {
    let path = socket_of(&app.config.data_dir, node);
    // Only a server on PostgreSQL has one.
    drop(blocking(move || std::fs::remove_file(path)).await);
}

/// Listens until shutdown; each connection means "look again", and may ask.
pub(super) async fn listen(app: Arc<App>) {
    let path = app.control_socket();
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, socket = %path.display(), "no control socket; commands take effect at the next poll");
            return;
        }
    };
    loop {
        tokio::select! {
            () = app.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    app.changes_wake.notify_one();
                    app.mirror_wake.notify_one();
                    let shared = Arc::clone(&app);
                    app.tasks.spawn(async move {
                        drop(tokio::time::timeout(PATIENCE, answer(&shared, stream)).await);
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    // A socket file that stays is replaced at the next start.
    std::fs::remove_file(&path).ok();
}

async fn answer(app: &App, mut stream: UnixStream) -> std::io::Result<()> {
    let mut asked = [0; ASK.len()];
    stream.read_exact(&mut asked).await?;
    if asked == *ASK {
        stream.write_all(&serde_json::to_vec(&app.live())?).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Every control socket in a data folder; some may be of servers that are gone, or on other machines.
fn sockets(data_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(data_dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_control = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("control") && path.extension().is_some_and(|e| e == "sock")
    };
    paths.filter(is_control).collect()
}

async fn connect(path: &Path) -> Option<UnixStream> {
    tokio::time::timeout(Duration::from_millis(200), UnixStream::connect(path)).await.ok()?.ok()
}

/// Wakes the servers on this data folder, if any run.
pub async fn wake(data_dir: &Path) {
    for path in sockets(data_dir) {
        let is_woken = connect(&path).await.is_some();
        tracing::debug!(is_woken, socket = %path.display(), "control socket");
    }
}

/// What runs in every server of this data folder that answers on this machine.
pub async fn ask(data_dir: &Path) -> Vec<Live> {
    let mut all = Vec::new();
    for path in sockets(data_dir) {
        let asking = async {
            let mut stream = connect(&path).await?;
            stream.write_all(ASK).await.ok()?;
            let mut text = Vec::new();
            stream.take(ANSWER_MAX).read_to_end(&mut text).await.ok()?;
            serde_json::from_slice::<Live>(&text).ok()
        };
        all.extend(tokio::time::timeout(PATIENCE, asking).await.ok().flatten());
    }
    all
}
