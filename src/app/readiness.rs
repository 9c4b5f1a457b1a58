//! Whether everything is there that the service cannot do without: looked at when someone asks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::hanging::Look;

/// A disk or share that takes longer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that the service cannot do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub name: &'static str,
    /// Nothing when it is ready.
    pub problem: Option<String>,
}

/// The looks of one process.
#[derive(Debug, Default)]
pub struct Looks {
    data_dir: Look<io::Result<u64>>,
    hotfolder: Look<Option<String>>,
    /// Without writing.
    glance: Look<(io::Result<u64>, Option<String>)>,
}

impl App {
    /// Data folder, database, scanner and hotfolder, as `/readyz` tells them.
    pub async fn readiness(self: &Arc<Self>) -> Vec<Readiness> {
        let database = self.store.ping().await.err().map(|e| e.to_string());
        let is_away = self.scanner.is_away().then(|| "the scanner is away".to_owned());
        let shared = Arc::clone(self);
        let probe = move || {
            let hotfolder = shared.hotfolder.as_ref()?;
            hotfolder.probe(shared.node.as_str()).err().map(|e| e.to_string())
        };
        let hotfolder = self.looks.hotfolder.take(PATIENCE, probe).await;
        let hotfolder = hotfolder.unwrap_or_else(|| Some("the share does not answer".to_owned()));
        vec![
            Readiness { name: "data_dir", problem: self.room().await.err() },
            Readiness { name: "database", problem: database },
            Readiness { name: "clamd", problem: is_away },
            Readiness { name: "hotfolder", problem: hotfolder },
        ]
    }

    /// What a look without writing tells.
    pub(super) async fn glance(self: &Arc<Self>) -> Vec<Readiness> {
        let shared = Arc::clone(self);
        let glance = move || {
            let share = shared.hotfolder.as_ref().and_then(|share| share.pinned().err());
            (shared.vault.free_bytes(), share.map(|error| error.to_string()))
        };
        let (data_dir, hotfolder) = match self.looks.glance.take(PATIENCE, glance).await {
            Some((Ok(free), share)) => (self.enough_room(free).err(), share),
            Some((Err(error), share)) => (Some(error.to_string()), share),
            None => (None, Some("disk or share do not answer".to_owned())),
        };
        vec![
            Readiness { name: "data_dir", problem: data_dir },
            Readiness { name: "hotfolder", problem: hotfolder },
        ]
    }

    /// Bytes that are free in `data_dir`, where uploads can be written there; else why not.
    pub(super) async fn room(self: &Arc<Self>) -> Result<u64, String> {
        let shared = Arc::clone(self);
        let probe = move || shared.vault.probe(shared.node.as_str());
        let free = self.looks.data_dir.take(PATIENCE, probe).await;
        let free = free.ok_or("the disk does not answer")?.map_err(|e| e.to_string())?;
        self.enough_room(free)
    }

    /// Whether free bytes are enough to take files; else the sentence that says so.
    fn enough_room(&self, free: u64) -> Result<u64, String> {
        let min_free = self.limits().min_free;
        if free >= min_free {
            return Ok(free);
        }
        let (free, min_free) = (free >> 20, min_free >> 20);
        Err(format!("{free} MiB free, less than limits.min_free ({min_free} MiB)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_hangs_keeps_one_thread_however_often_it_is_asked() {
        let (let_go, hangs) = std::sync::mpsc::channel::<()>();
        let look = Look::default();
        let soon = Duration::from_millis(5);
        assert_eq!(look.take(soon, move || hangs.recv().is_ok()).await, None);
        for _ in 0..20 {
            assert_eq!(look.take(soon, || unreachable!("a second look")).await, None);
        }
        let_go.send(()).unwrap();
        assert_eq!(look.take(PATIENCE, || true).await, Some(true));
    }
}
