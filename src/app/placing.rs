//! The steps that bring one file into a hotfolder exactly once (spec section 8), the same for push and pull.
//!
//! Copy to a temporary file of this attempt's own, compare, make durable, record `placing(name)`, rename without
//! overwriting, make durable. After a crash in `placing` our temporary file is the witness: still there means "not
//! yet", gone means "it has happened"; the final file is never looked at, because a RIP may have eaten it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::content::ContentHash;
use crate::domain::hotname::SafeName;
use crate::hotfolder::{Hotfolder, HotfolderError, Placed};
use crate::{steps, store};

/// From this size on, in bytes, a copy is a big one.
const BULK: u64 = 64 << 20;
/// How nice a big copy is (setpriority(2)): a third of the weight of others where they want the same core.
const STEPPED_BACK: i32 = 5;

/// Why an attempt ended without a file in its place.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("{0}")]
    Hotfolder(#[from] HotfolderError),
    #[error("database: {0}")]
    Store(#[from] store::StoreError),
    #[error("content in the vault: {0}")]
    Vault(std::io::Error),
    #[error("{0}")]
    Odd(String),
    /// Cancelled by the customer, or another worker has it: nothing to do and nothing to count.
    #[error("the delivery is no longer this worker's")]
    NotOurs,
}

/// An unexpected end, in words.
pub fn odd(text: impl Into<String>) -> Failed {
    Failed::Odd(text.into())
}

/// Where a file goes below the hotfolder's root.
#[derive(Debug, Clone)]
pub struct Target {
    pub folders: Vec<SafeName>,
    pub name: SafeName,
    /// Tried where `name` is taken; a number then goes behind this one, not behind `name`, which may be another file's.
    pub second: Option<SafeName>,
}

impl Target {
    /// Below the hotfolder's root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.path_of(&self.name)
    }

    /// The same with `second`, if there is one.
    #[must_use]
    pub fn second_path(&self) -> Option<PathBuf> {
        self.second.as_ref().map(|name| self.path_of(name))
    }

    fn path_of(&self, name: &SafeName) -> PathBuf {
        let mut path: PathBuf = self.folders.iter().map(SafeName::as_str).collect();
        path.push(name.as_str());
        path
    }
}

/// What an earlier attempt recorded before it renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub temp_name: String,
    pub placed_name: String,
}

/// Who keeps the record while a file is placed: the database, or the portal at the other end of a pull.
pub trait Ledger: Sync {
    /// Brings the content into the share's temporary folder, compared and durable.
    fn fetch(&self, temp_name: &str) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Where it goes, as the customer names it now.
    fn target(&self) -> impl Future<Output = Result<Target, Failed>> + Send;

    /// Writes down where it goes before it goes there.
    fn record_placing(
        &self,
        temp_name: &str,
        placed_name: &str,
    ) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Back to the beginning: the copy is gone and was never placed.
    fn unplace(&self) -> impl Future<Output = Result<(), Failed>> + Send;

    /// With `on_conflict = "replace"`: what we placed under this path, one of the target's, before.
    fn placed_before(
        &self,
        path: &Path,
    ) -> impl Future<Output = Result<Option<ContentHash>, Failed>> + Send;
}

/// Whose temporary file is renamed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Witness {
    /// This attempt has copied it: if it is gone, it was not placed.
    JustMade,
    /// An attempt that a crash or an error ended left it: if it is gone, it was placed.
    FromBefore,
}

/// One attempt, from nothing, or from what an earlier one recorded, to a file in its place; gives its name below the
/// root.
///
/// # Errors
/// Whatever went wrong; what is recorded decides how the next attempt goes on.
pub async fn place(
    share: &Arc<Hotfolder>,
    ledger: &impl Ledger,
    temp_name: &str,
    recorded: Option<Recorded>,
) -> Result<String, Failed> {
    let steps = Steps { share, ledger };
    look_at(share).await?;
    if let Some(recorded) = recorded {
        return steps.rename(recorded, Witness::FromBefore).await;
    }
    ledger.fetch(temp_name).await?;
    steps::reach("delivery.copied");
    let placed_name = match steps.choose_name().await {
        Ok(placed_name) => placed_name,
        Err(error) => return steps.give_up(temp_name, error).await,
    };
    match ledger.record_placing(temp_name, &placed_name).await {
        Ok(()) => {
            steps::reach("delivery.recorded");
            let recorded = Recorded { temp_name: temp_name.to_owned(), placed_name };
            steps.rename(recorded, Witness::JustMade).await
        }
        Err(Failed::NotOurs) => steps.give_up(temp_name, Failed::NotOurs).await,
        // It may have been recorded, only the answer was lost: then the temporary file is the witness that nothing was
        // placed yet, and must stay.
        Err(error) => Err(error),
    }
}

/// Runs something on the share without holding up the runtime. The share is pinned: whatever is unmounted meanwhile,
/// nothing is written to the empty folder below.
///
/// # Errors
/// What the share says.
pub async fn on_share<T: Send + 'static>(
    share: &Arc<Hotfolder>,
    work: impl FnOnce(&Hotfolder) -> Result<T, HotfolderError> + Send + 'static,
) -> Result<T, Failed> {
    let share = Arc::clone(share);
    match tokio::task::spawn_blocking(move || work(&share.pinned()?)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ended()),
    }
}

/// The same for a copy of this many bytes. A big one steps back behind scans and customers, who wait for theirs.
///
/// # Errors
/// What the share says.
pub async fn copy_on_share<T: Send + 'static>(
    share: &Arc<Hotfolder>,
    size: u64,
    work: impl FnOnce(&Hotfolder) -> Result<T, HotfolderError> + Send + 'static,
) -> Result<T, Failed> {
    if size < BULK {
        return on_share(share, work).await;
    }
    let share = Arc::clone(share);
    let (tell, told) = oneshot::channel();
    // A thread of its own: what has stepped back may not come forward again.
    let copying = std::thread::Builder::new().name("bulk-copy".to_owned()).spawn(move || {
        if let Err(error) = rustix::process::setpriority_process(None, STEPPED_BACK) {
            tracing::debug!(%error, "a big copy could not step back");
        }
        tell.send(share.pinned().and_then(|share| work(&share))).ok();
    });
    copying.map_err(|error| odd(format!("no thread for a copy: {error}")))?;
    match told.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ended()),
    }
}

fn ended() -> Failed {
    odd("a worker on the share ended unexpectedly")
}

/// Whether the share is there and ours.
///
/// # Errors
/// When it is not.
pub async fn look_at(share: &Arc<Hotfolder>) -> Result<(), Failed> {
    // It is looked at whenever it is pinned.
    on_share(share, |_| Ok(())).await
}

struct Steps<'a, L> {
    share: &'a Arc<Hotfolder>,
    ledger: &'a L,
}

impl<L: Ledger> Steps<'_, L> {
    /// Nothing was recorded, so the copy is nobody's witness.
    async fn give_up(&self, temp_name: &str, error: Failed) -> Result<String, Failed> {
        let temp_name = temp_name.to_owned();
        on_share(self.share, move |share| {
            share.remove_temp(&temp_name);
            Ok(())
        })
        .await?;
        Err(error)
    }

    /// The folder by the layout, the customer's subfolders below it, and a free name.
    async fn choose_name(&self) -> Result<String, Failed> {
        let target = self.ledger.target().await?;
        let mut replaceable = Vec::new();
        for path in [Some(target.path()), target.second_path()].into_iter().flatten() {
            if let Some(hash) = self.ledger.placed_before(&path).await? {
                replaceable.push((path, hash));
            }
        }
        let below = on_share(self.share, move |share| {
            let reuse = |below: &Path| {
                let mut ours = replaceable.iter().filter(|(path, _)| path == below);
                ours.any(|(path, hash)| share.holds(path, hash))
            };
            share.free_name(&target.folders, (&target.name, target.second.as_ref()), &reuse)
        })
        .await?;
        Ok(below.to_string_lossy().into_owned())
    }

    async fn rename(&self, mut recorded: Recorded, witness: Witness) -> Result<String, Failed> {
        loop {
            let (temp, target) = (recorded.temp_name.clone(), PathBuf::from(&recorded.placed_name));
            let overwrite = self.may_overwrite(&target).await?;
            let placed =
                on_share(self.share, move |share| share.place(&temp, &target, overwrite)).await?;
            match (placed, witness) {
                (Placed::Now, _) | (Placed::Before, Witness::FromBefore) => {
                    return Ok(recorded.placed_name);
                }
                (Placed::Before, Witness::JustMade) => {
                    // Nobody but this attempt renames what it has just copied: somebody has removed it.
                    self.ledger.unplace().await?;
                    return Err(odd("the temporary file in the hotfolder was removed by somebody"));
                }
                (Placed::Taken, _) => {
                    recorded.placed_name = self.choose_name().await?;
                    self.ledger.record_placing(&recorded.temp_name, &recorded.placed_name).await?;
                }
            }
        }
    }

    /// Only a file that we placed and nobody changed.
    async fn may_overwrite(&self, path: &Path) -> Result<bool, Failed> {
        let Some(hash) = self.ledger.placed_before(path).await? else { return Ok(false) };
        let path = path.to_owned();
        on_share(self.share, move |share| Ok(share.holds(&path, &hash))).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::hotname::{safe_file_name, safe_folder_name};

    /// A record that is kept, although its answer is lost the first time.
    struct Forgetful {
        share: Arc<Hotfolder>,
        recorded: Mutex<Option<Recorded>>,
    }

    impl Ledger for Forgetful {
        async fn fetch(&self, temp_name: &str) -> Result<(), Failed> {
            let mut content: &[u8] = b"content";
            let hash = ContentHash::of(content);
            let never = crate::domain::time::Timestamp::NEVER;
            Ok(self.share.copy_in(&mut content, temp_name, (&hash, never), &mut || true)?)
        }

        async fn target(&self) -> Result<Target, Failed> {
            let (folders, name) = (vec![safe_folder_name("in")], safe_file_name("a.pdf"));
            Ok(Target { folders, name, second: None })
        }

        async fn record_placing(&self, temp_name: &str, placed_name: &str) -> Result<(), Failed> {
            let recorded =
                Recorded { temp_name: temp_name.to_owned(), placed_name: placed_name.to_owned() };
            match self.recorded.lock().unwrap().replace(recorded) {
                None => Err(odd("the answer was lost")),
                Some(_) => Ok(()),
            }
        }

        async fn unplace(&self) -> Result<(), Failed> {
            Err(Failed::NotOurs)
        }

        async fn placed_before(&self, _: &Path) -> Result<Option<ContentHash>, Failed> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_record_whose_answer_was_lost_is_no_proof_that_the_file_is_there() {
        let dir = std::env::temp_dir().join(format!("ptportal-placing-{}", std::process::id()));
        let share = Arc::new(
            Hotfolder::open(
                &dir,
                &dir.with_extension("id"),
                "X",
                crate::hotfolder::Modes::default(),
            )
            .unwrap(),
        );
        let ledger = Forgetful { share: Arc::clone(&share), recorded: Mutex::default() };
        let first = place(&share, &ledger, "ID.1", None).await;
        assert!(matches!(first, Err(Failed::Odd(_))));
        let recorded = ledger.recorded.lock().unwrap().clone();
        let placed = place(&share, &ledger, "ID.2", recorded).await.unwrap();
        assert_eq!(std::fs::read(dir.join(placed)).unwrap(), b"content");
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::remove_file(dir.with_extension("id")).unwrap();
    }
}
