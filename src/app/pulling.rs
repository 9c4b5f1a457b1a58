//! The portal's side of a pull (spec section 8): deliveries are claimed, recorded and confirmed over the API by whoever
//! runs beside PTworkflow, with the same rows, leases and witnesses as a push.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::clients::{Refused, because, conflict, missing};
use super::mirror::{self, Parcel};
use super::placing::Failed;
use crate::domain::content::ContentHash;
use crate::domain::hotname;
use crate::domain::upload::DeliveryState;
use crate::remote::{Claimed, RecordedNames};
use crate::store::deliveries::{self, DeliveryRow};
use crate::store::uploads::{self, UploadRow};

/// A delivery's lease; the puller renews it while it downloads.
const LEASE: Duration = Duration::from_secs(120);
/// Deliveries in one claim at most.
const CLAIMED: usize = 20;
/// What a lease of a puller begins with.
const PULLER: &str = "pull/";

impl App {
    /// Whether somebody may pull: only where nothing is pushed, or two would work on one outbox.
    fn pull_is_possible(&self) -> Result<(), Refused> {
        if self.hotfolder.is_some() {
            return conflict(
                "this portal pushes into its own hotfolder; set hotfolder.root = \"\" to pull from it",
            );
        }
        Ok(())
    }

    /// A puller has started anew: what an earlier one held when it was killed need not wait for its lease to run out.
    ///
    /// # Errors
    /// The portal pushes itself; the database.
    pub async fn forget_pullers(&self) -> Result<(), Refused> {
        self.pull_is_possible()?;
        deliveries::free_leases_of(self.store.db(), PULLER).await?;
        Ok(())
    }

    /// Claims up to `limit` due deliveries.
    ///
    /// # Errors
    /// The portal pushes itself; the database.
    pub async fn claim_for_pull(self: &Arc<Self>, limit: usize) -> Result<Vec<Claimed>, Refused> {
        self.pull_is_possible()?;
        let mut claimed = Vec::new();
        for _ in 0..limit.clamp(1, CLAIMED) {
            let owner = format!("{PULLER}{}", self.new_id());
            let now = self.now();
            let row = deliveries::claim(self.store.db(), (&owner, now.plus(LEASE)), now).await?;
            let Some(row) = row else { break };
            match self.describe(&row, &owner).await {
                Ok(Some(one)) => claimed.push(one),
                Ok(None) => {}
                Err(error) => {
                    let upload = uploads::upload(self.store.db(), &row.upload_id).await?;
                    mirror::postpone(self, &row, (&owner, upload.as_ref()), &error.to_string())
                        .await;
                }
            }
        }
        Ok(claimed)
    }

    async fn describe(
        self: &Arc<Self>,
        row: &DeliveryRow,
        owner: &str,
    ) -> Result<Option<Claimed>, Failed> {
        let upload = uploads::upload(self.store.db(), &row.upload_id).await?;
        let upload = upload.ok_or_else(|| super::placing::odd("its upload cannot be read"))?;
        let recorded = mirror::recorded(row);
        if recorded.is_none() && mirror::is_superseded(self, row, &upload).await? {
            return Ok(None);
        }
        let parcel = mirror::parcel(self, row, &upload).await?;
        let target = mirror::target(self, row, &upload).await?;
        let replaces = mirror::placed_before(self, row, &target.path()).await?;
        let second_replaces = match target.second_path() {
            Some(path) => mirror::placed_before(self, row, &path).await?,
            None => None,
        };
        Ok(Some(Claimed {
            id: row.id.clone(),
            upload_id: row.upload_id.clone(),
            consumer: row.consumer.clone(),
            lease: owner.to_owned(),
            lease_seconds: LEASE.as_secs(),
            attempt: row.attempts,
            size: parcel.size,
            sha256: parcel.hash.as_str().to_owned(),
            mtime: parcel.mtime.0,
            folders: target.folders.iter().map(ToString::to_string).collect(),
            name: target.name.to_string(),
            second: target.second.map(|name| name.to_string()),
            recorded: recorded.map(|recorded| RecordedNames {
                temp_name: recorded.temp_name,
                placed_name: recorded.placed_name,
            }),
            replaces: replaces.map(|hash: ContentHash| hash.as_str().to_owned()),
            second_replaces: second_replaces.map(|hash| hash.as_str().to_owned()),
        }))
    }

    async fn pulled(&self, id: &str) -> Result<DeliveryRow, Refused> {
        self.pull_is_possible()?;
        match deliveries::delivery(self.store.db(), id).await? {
            Some(row) => Ok(row),
            None => missing(format!("there is no delivery {id}")),
        }
    }

    async fn upload_of(&self, row: &DeliveryRow) -> Result<UploadRow, Refused> {
        match uploads::upload(self.store.db(), &row.upload_id).await? {
            Some(upload) => Ok(upload),
            None => missing(format!("there is no upload {}", row.upload_id)),
        }
    }

    /// What a delivery carries.
    ///
    /// # Errors
    /// No such delivery, or its content is gone.
    pub async fn pulled_content(self: &Arc<Self>, id: &str) -> Result<Vec<u8>, Refused> {
        let row = self.pulled(id).await?;
        let upload = self.upload_of(&row).await?;
        if row.consumer == super::settle::MIRROR {
            return because(format!("the file is at /api/v1/uploads/{}/content", row.upload_id));
        }
        let read = async {
            let Parcel { mut content, .. } = mirror::parcel(self, &row, &upload).await?;
            let mut bytes = Vec::new();
            // A ticket is text in memory.
            content.read_to_end(&mut bytes).map_err(Failed::Vault)?;
            Ok::<_, Failed>(bytes)
        };
        read.await.map_err(|error| Refused::Because(error.to_string()))
    }

    /// The puller still works on it.
    ///
    /// # Errors
    /// It is another one's by now.
    pub async fn renew_pull(&self, id: &str, lease: &str) -> Result<(), Refused> {
        self.pulled(id).await?;
        let until = self.now().plus(LEASE);
        match deliveries::renew_lease(self.store.db(), id, lease, until).await? {
            0 => lost(id),
            _ => Ok(()),
        }
    }

    /// Writes down where it goes before it goes there.
    ///
    /// # Errors
    /// It is another one's by now.
    pub async fn record_pull(
        &self,
        (id, lease): (&str, &str),
        names: &RecordedNames,
    ) -> Result<(), Refused> {
        self.pulled(id).await?;
        if !hotname::is_below(&names.placed_name) {
            return because("placed_name must be a path below the hotfolder");
        }
        let names = (names.temp_name.as_str(), names.placed_name.as_str());
        match mirror::record_placing(self, (id, lease), names).await {
            Ok(()) => Ok(()),
            Err(Failed::Store(error)) => Err(error.into()),
            Err(_) => lost(id),
        }
    }

    /// Back to the beginning: the copy is gone and was never placed.
    ///
    /// # Errors
    /// It is another one's by now.
    pub async fn unplace_pull(&self, id: &str, lease: &str) -> Result<(), Refused> {
        self.pulled(id).await?;
        match mirror::unplace(self, id, lease).await {
            Ok(()) => Ok(()),
            Err(Failed::Store(error)) => Err(error.into()),
            Err(_) => lost(id),
        }
    }

    /// The file is in its place. Said twice, it counts once.
    ///
    /// # Errors
    /// It is another one's by now, or has ended otherwise.
    pub async fn finish_pull(
        &self,
        (id, lease): (&str, &str),
        placed_name: &str,
    ) -> Result<DeliveryRow, Refused> {
        let row = self.pulled(id).await?;
        if row.state() == Some(DeliveryState::Done) {
            return Ok(row);
        }
        if row.lease_owner != lease || !lease.starts_with(PULLER) {
            return lost(id);
        }
        if !hotname::is_below(placed_name) {
            return because("placed_name must be a path below the hotfolder");
        }
        if row.placed_name != placed_name || row.state() != Some(DeliveryState::Placing) {
            let names = RecordedNames {
                temp_name: row.temp_name.clone(),
                placed_name: placed_name.to_owned(),
            };
            self.record_pull((id, lease), &names).await?;
        }
        let upload = self.upload_of(&row).await?;
        let ms = u64::try_from(self.now().0.saturating_sub(row.updated)).unwrap_or(0);
        mirror::record_done(self, &row, &upload, (placed_name, ms)).await?;
        self.pulled(id).await
    }

    /// It did not work; tried again after a pause.
    ///
    /// # Errors
    /// No such delivery.
    pub async fn fail_pull(&self, (id, lease): (&str, &str), reason: &str) -> Result<(), Refused> {
        let row = self.pulled(id).await?;
        let upload = self.upload_of(&row).await?;
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(1000).collect();
        mirror::postpone(self, &row, (lease, Some(&upload)), &reason).await;
        Ok(())
    }
}

fn lost<T>(id: &str) -> Result<T, Refused> {
    conflict(format!("delivery {id} is not this puller's any more; claim again"))
}
