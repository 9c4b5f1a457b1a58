//! `data_dir/control.sock`: commands wake the server before its next poll. Nothing else passes through it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::App;

/// Listens until shutdown; each connection means "look again".
pub(super) async fn listen(app: Arc<App>, path: PathBuf) {
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
                Ok(_) => {
                    app.changes_wake.notify_one();
                    app.mirror_wake.notify_one();
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    // A socket file that stays is replaced at the next start.
    std::fs::remove_file(&path).ok();
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Wakes a server on this data folder, if one runs.
pub async fn wake(path: &Path) {
    let connected =
        tokio::time::timeout(Duration::from_millis(200), UnixStream::connect(path)).await;
    tracing::debug!(woken = matches!(connected, Ok(Ok(_))), "control socket");
}
