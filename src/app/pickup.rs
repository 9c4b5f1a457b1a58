//! The pick-up watch: whether consumers take delivered files out of the hotfolder (spec section 8). Taken is what two
//! looks in a row miss.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::looks::Looks;
use super::origin::event_of;
use super::placing::{self, Failed};
use crate::domain::event::EventKind;
use crate::domain::time::Timestamp;
use crate::hotfolder::{Hotfolder, HotfolderError};
use crate::store::deliveries::{self, DeliveryRow};
use crate::store::{self, uploads};

/// A file that lies longer is nobody's concern any more.
const WATCHED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What became of a delivered file.
#[derive(Clone, Copy)]
enum Noticed {
    Taken,
    Waiting,
}

/// One look at all delivered files; true when one is missing for the first time.
pub(super) async fn look(
    app: &Arc<App>,
    share: &Arc<Hotfolder>,
    looks: &mut Looks,
) -> Result<bool, Failed> {
    let rows = app.untaken().await?;
    let placed = rows.iter().map(|row| (row.id.clone(), row.placed_name.clone())).collect();
    let missing = missing(share, placed).await?;
    let (gone, waiting): (Vec<_>, Vec<_>) = rows.iter().partition(|row| missing.contains(&row.id));
    let mut is_news = false;
    for row in gone {
        if looks.missing.contains(&row.id) {
            app.note_taken(row).await?;
        } else {
            is_news = true;
        }
    }
    looks.missing = missing;
    for row in waiting {
        app.note_waiting(row).await?;
    }
    Ok(is_news)
}

/// The ids of those deliveries (each with its placed name) whose file is not where it was placed; each folder is listed once.
///
/// # Errors
/// What the share says.
pub(super) async fn missing(
    share: &Arc<Hotfolder>,
    placed: Vec<(String, String)>,
) -> Result<HashSet<String>, Failed> {
    placing::on_share(share, move |share| {
        let missing = missing_of(share, placed)?;
        share.check_marker()?;
        Ok(missing)
    })
    .await
}

fn missing_of(
    share: &Hotfolder,
    placed: Vec<(String, String)>,
) -> Result<HashSet<String>, HotfolderError> {
    let mut folders: BTreeMap<PathBuf, Vec<(String, String)>> = BTreeMap::new();
    for (id, placed_name) in placed {
        let path = Path::new(&placed_name);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        folders.entry(folder).or_default().push((id, name.unwrap_or_default()));
    }
    let mut missing = HashSet::new();
    for (folder, files) in folders {
        let names = match share.names_in(&folder) {
            Ok(names) => names,
            // Of one folder that cannot be listed nothing is known; the others are looked at all the same.
            Err(error @ HotfolderError::Io { .. }) => {
                tracing::debug!(%error, "nobody knows what was taken from a folder");
                continue;
            }
            Err(error) => return Err(error),
        };
        missing
            .extend(files.into_iter().filter(|(_, name)| !names.contains(name)).map(|(id, _)| id));
    }
    Ok(missing)
}

impl App {
    /// Delivered files that nobody is known to have taken.
    ///
    /// # Errors
    /// The database.
    pub async fn untaken(&self) -> store::Result<Vec<DeliveryRow>> {
        deliveries::untaken(self.store.db(), self.now().minus(WATCHED)).await
    }

    /// A consumer has taken a file.
    ///
    /// # Errors
    /// The database.
    pub async fn note_taken(&self, row: &DeliveryRow) -> store::Result<()> {
        self.note_about(row, Noticed::Taken).await
    }

    /// Whether it is time to tell that nobody takes a file.
    #[must_use]
    pub fn is_late(&self, row: &DeliveryRow) -> bool {
        let after = self.config.hotfolder.waiting_after;
        let is_over = self.now() >= Timestamp(row.delivered).plus(after);
        !after.is_zero() && is_over && row.waited == 0 && row.taken == 0
    }

    /// A file lies there; after `hotfolder.waiting_after` that is told once.
    ///
    /// # Errors
    /// The database.
    pub async fn note_waiting(&self, row: &DeliveryRow) -> store::Result<()> {
        if !self.is_late(row) {
            return Ok(());
        }
        self.note_about(row, Noticed::Waiting).await
    }

    async fn note_about(&self, row: &DeliveryRow, what: Noticed) -> store::Result<()> {
        let Some(upload) = uploads::upload(self.store.db(), &row.upload_id).await? else {
            return Ok(());
        };
        let mut work = self.begin().await?;
        let now = work.now;
        let (noted, kind) = match what {
            Noticed::Taken => {
                let noted = deliveries::set_taken(work.tx.db(), &row.id, now).await?;
                (noted, EventKind::DeliveryTaken)
            }
            Noticed::Waiting => {
                let noted = deliveries::set_waited(work.tx.db(), &row.id, now).await?;
                (noted, EventKind::DeliveryWaiting)
            }
        };
        if noted == 0 {
            return Ok(());
        }
        let lay_ms = now.0.saturating_sub(row.delivered);
        let event = event_of(&upload, kind)
            .with("placed_name", row.placed_name.clone())
            .with("delivery", row.id.clone())
            .with("delivered", Timestamp(row.delivered).to_string())
            .with("lay_s", lay_ms.div_euclid(1000));
        work.note(event);
        work.commit().await?;
        Ok(())
    }
}
