//! Looks at folders of the share that lead back to customers: the same for a server that pushes and for a pull.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::placing::{self, Failed};
use crate::domain::publish::{Found, Memory};
use crate::hotfolder::{FoundFile, Hotfolder};

/// While a file is waited for to become quiet, or when something moves.
pub(super) const SOON: Duration = Duration::from_secs(3);
/// What could not be taken over now.
const TRY_AGAIN: Duration = Duration::from_secs(60);
const PIECE: usize = 1 << 20;

/// What earlier looks found.
pub(super) struct Looks {
    began: Instant,
    folders: HashMap<PathBuf, Memory>,
    /// Files that were not taken, as they looked, and when they may be tried again; never where it is no time's matter.
    refused: HashMap<PathBuf, (Found, Option<Instant>)>,
    /// Folders that could not be looked at: told once.
    failed: HashSet<PathBuf>,
    /// Deliveries whose file was missing at the last look.
    pub(super) missing: HashSet<String>,
}

/// What one look at a folder asks for.
pub(super) struct Looked {
    pub(super) publish: Vec<FoundFile>,
    /// Gone for two looks.
    pub(super) withdraw: Vec<String>,
    /// Gone now, at the first look or the second.
    pub(super) missing: usize,
    pub(super) is_waiting: bool,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            folders: HashMap::new(),
            refused: HashMap::new(),
            failed: HashSet::new(),
            missing: HashSet::new(),
        }
    }

    /// What is not known any more must be found out anew.
    pub(super) fn forget(&mut self) {
        self.folders.clear();
        self.missing.clear();
    }

    /// What a folder holds now beside what is known of it. `is_final` says whether a name is one that stays.
    pub(super) async fn look_in(
        &mut self,
        share: &Arc<Hotfolder>,
        below: &Path,
        known: &[Found],
        is_final: impl Fn(&str) -> bool,
    ) -> Result<Looked, Failed> {
        let looked = below.to_owned();
        let files = placing::on_share(share, move |share| {
            let files = share.look_through(&looked)?;
            // Emptied in between, marker and all, everything would seem to be gone.
            share.check_marker()?;
            Ok(files)
        })
        .await?;
        let name =
            |file: &FoundFile| file.found.path.rsplit('/').next().unwrap_or_default().to_owned();
        let files: Vec<FoundFile> =
            files.into_iter().filter(|file| is_final(&name(file))).collect();
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let found = files.iter().map(|file| file.found.clone()).collect();
        let plan = self.folders.entry(below.to_owned()).or_default().look(now, found, known);
        let wanted: HashSet<&str> = plan.publish.iter().map(|found| found.path.as_str()).collect();
        let publish = files
            .into_iter()
            .filter(|file| wanted.contains(file.found.path.as_str()) && !self.waits(file))
            .collect();
        self.failed.remove(below);
        Ok(Looked {
            publish,
            withdraw: plan.withdraw,
            missing: plan.missing,
            is_waiting: plan.is_waiting,
        })
    }

    /// Whether a file was refused as it is now.
    fn waits(&self, file: &FoundFile) -> bool {
        self.refused.get(&file.below).is_some_and(|(refused, until)| {
            *refused == file.found && until.is_none_or(|until| Instant::now() < until)
        })
    }

    /// A file was not taken: not again for a while or, if time changes nothing, until it is another.
    pub(super) fn refuse(&mut self, file: &FoundFile, is_final: bool) {
        let again = if is_final { None } else { Instant::now().checked_add(TRY_AGAIN) };
        self.refused.insert(file.below.clone(), (file.found.clone(), again));
    }

    /// A folder that cannot be looked at is told once, and keeps no other from being looked at.
    pub(super) fn fail(&mut self, below: &Path, error: &dyn std::fmt::Display) {
        if self.failed.insert(below.to_owned()) {
            tracing::warn!(%error, folder = %below.display(), "a folder of the share cannot be looked at; what staff do there is not seen");
        }
    }
}

/// Whether nothing on the share can be trusted now, as opposed to one folder that cannot be read.
pub(super) fn is_away(error: &Failed) -> bool {
    use crate::hotfolder::HotfolderError;
    match error {
        Failed::Store(_) | Failed::NotOurs => true,
        Failed::Hotfolder(HotfolderError::NoMarker { .. } | HotfolderError::OtherShare { .. }) => {
            true
        }
        Failed::Hotfolder(
            HotfolderError::Io { .. } | HotfolderError::Differs { .. } | HotfolderError::LeaseLost,
        )
        | Failed::Vault(_)
        | Failed::Odd(_) => false,
    }
}

/// Reads a file piece by piece; an error when it is not what was found.
pub(super) struct Reading {
    share: Arc<Hotfolder>,
    file: FoundFile,
    open: Option<(std::fs::File, u64)>,
}

impl Reading {
    pub(super) fn new(share: &Arc<Hotfolder>, file: &FoundFile) -> Self {
        Self { share: Arc::clone(share), file: file.clone(), open: None }
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> std::io::Result<Vec<u8>> {
        let (share, file, open) = (Arc::clone(&self.share), self.file.clone(), self.open.take());
        let (piece, open) = super::blocking(move || read_piece(&share, &file, open)).await?;
        self.open = Some(open);
        Ok(piece)
    }
}

fn read_piece(
    share: &Hotfolder,
    file: &FoundFile,
    open: Option<(std::fs::File, u64)>,
) -> std::io::Result<(Vec<u8>, (std::fs::File, u64))> {
    use std::io::Read;
    let changed = || std::io::Error::other("it is being changed; taken over when it is quiet");
    let (mut open, read) = match open {
        Some(open) => open,
        None => {
            let (open, size, mtime) = share.open_found(&file.below)?;
            if (size, mtime) != (file.found.size, file.found.mtime) {
                return Err(changed());
            }
            (open, 0)
        }
    };
    let mut piece = Vec::with_capacity(PIECE);
    (&mut open).take(u64::try_from(PIECE).unwrap_or(u64::MAX)).read_to_end(&mut piece)?;
    let read = read.saturating_add(u64::try_from(piece.len()).unwrap_or(0));
    if piece.is_empty() {
        let (_, size, mtime) = share.open_found(&file.below)?;
        if (size, mtime) != (file.found.size, file.found.mtime) || read != size {
            return Err(changed());
        }
    }
    Ok((piece, (open, read)))
}
