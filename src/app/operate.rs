//! What operators decide: try again, release, reject.

use std::sync::Arc;

use super::clients::{Refused, because};
use super::settle::{self, Settled};
use super::{App, with_app};
use crate::domain::id::Id;
use crate::domain::upload::UploadState;
use crate::domain::verdict::Releasable;
use crate::store::uploads::{self, Finding, UploadRow};
use crate::store::{deliveries, events, nodes};

impl App {
    /// # Errors
    /// No such upload.
    pub async fn upload_row(&self, id: &str) -> Result<UploadRow, Refused> {
        let row = match Id::parse(id) {
            Some(id) => uploads::upload(self.store.db(), id.as_str()).await?,
            None => None,
        };
        match row {
            Some(row) => Ok(row),
            None => because(format!("there is no upload {id}; `upload list` shows all")),
        }
    }

    /// Scans a waiting upload now; a held one is scanned anew.
    ///
    /// # Errors
    /// When it waits for nothing.
    pub async fn retry_upload(&self, id: &str) -> Result<UploadRow, Refused> {
        let row = self.upload_row(id).await?;
        let now = self.now();
        let server = self.any_server().await?;
        let mut tx = self.store.write().await?;
        match row.state() {
            Some(UploadState::Scanning) => {
                events::note_change(tx.db(), "upload", &row.id, now).await?
            }
            Some(UploadState::Held) => {
                let again = (UploadState::Held, UploadState::Scanning);
                uploads::settle(tx.db(), &row.id, again, &Finding::default(), now).await?;
                uploads::set_node(tx.db(), &row.id, &server).await?;
                events::note_change(tx.db(), "scan", &row.id, now).await?;
            }
            Some(
                UploadState::Receiving
                | UploadState::Incomplete
                | UploadState::Released
                | UploadState::Infected
                | UploadState::Rejected
                | UploadState::Deleted,
            )
            | None => {
                return because(format!(
                    "upload {id} is {}; only scanning and held ones can be retried",
                    row.state
                ));
            }
        }
        tx.commit().await?;
        self.upload_row(id).await
    }

    /// The server that shall scan what an operator sends back; without one running, the next start takes it over.
    async fn any_server(&self) -> Result<String, Refused> {
        let nodes = nodes::all(self.store.db()).await?;
        Ok(nodes.into_iter().next_back().unwrap_or_else(|| self.node.to_string()))
    }

    /// Releases an upload that an operator has looked at; with `false_positive` also an infected one, from
    /// quarantine.
    ///
    /// # Errors
    /// When it is in no state that can be released, or its bytes are gone.
    pub async fn release_upload(
        self: &Arc<Self>,
        id: &str,
        (by, reason): (&str, &str),
        false_positive: bool,
    ) -> Result<UploadRow, Refused> {
        if reason.trim().is_empty() {
            return because("give a reason; it is kept on the upload");
        }
        let row = self.upload_row(id).await?;
        match (row.state(), false_positive) {
            (Some(UploadState::Held | UploadState::Scanning), _) => {}
            (Some(UploadState::Infected), true) if row.completed == 0 => {
                return because(format!(
                    "upload {id} was cut off while it arrived, so only a part of it is there; ask for the file anew"
                ));
            }
            (Some(UploadState::Infected), true) => self.bring_back(&row).await?,
            (Some(UploadState::Infected), false) => {
                return because(format!(
                    "upload {id} is infected ({}); if that is certainly wrong, add --false-positive",
                    row.signature
                ));
            }
            (
                Some(
                    UploadState::Receiving
                    | UploadState::Incomplete
                    | UploadState::Released
                    | UploadState::Rejected
                    | UploadState::Deleted,
                )
                | None,
                _,
            ) => return because(format!("upload {id} is {}; it cannot be released", row.state)),
        }
        // Bringing it back may have given it a name and version anew.
        let mut row = self.upload_row(id).await?;
        if row.sha256.is_empty()
            && let Some(upload) = Id::parse(&row.id)
        {
            let hashed = settle::hash_of(self, &upload).await;
            row.sha256 = hashed.map_err(|e| {
                Refused::Because(format!("the content of {id} cannot be read: {e}"))
            })?;
            uploads::set_hash(self.store.db(), &row.id, &row.sha256).await?;
        }
        let waived = Releasable::Waived { by: by.to_owned(), reason: reason.to_owned() };
        match settle::release(self, &row, waived, (&row.scanner.clone(), 0)).await? {
            Settled::Released => {}
            Settled::Held | Settled::Repeated | Settled::Refused(_) | Settled::Gone => {
                return because(format!(
                    "upload {id} changed in this moment; look again with `upload show`"
                ));
            }
        }
        self.tell_scanner(&row.id).await?;
        self.upload_row(id).await
    }

    /// Whoever waits for this upload's verdict looks again.
    async fn tell_scanner(&self, id: &str) -> Result<(), Refused> {
        let mut tx = self.store.write().await?;
        events::note_change(tx.db(), "upload", id, self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// The bytes come back from quarantine, and the name if it has gone.
    async fn bring_back(self: &Arc<Self>, row: &UploadRow) -> Result<(), Refused> {
        let Some(id) = Id::parse(&row.id) else { return because("the upload's id is damaged") };
        let restored = with_app(self, move |app| {
            if app.vault.is_sealed(&id) { Ok(()) } else { app.vault.restore_from_quarantine(&id) }
        });
        restored.await.map_err(|e| {
            Refused::Because(format!(
                "the bytes of {} are not in quarantine any more ({e}); ask for them anew",
                row.id
            ))
        })?;
        super::tree::restore_name(self, row).await?;
        Ok(())
    }

    /// Rejects a held or waiting upload; its bytes go.
    ///
    /// # Errors
    /// When it is in no state that can be rejected.
    pub async fn reject_upload(
        self: &Arc<Self>,
        id: &str,
        (by, reason): (&str, &str),
    ) -> Result<UploadRow, Refused> {
        if reason.trim().is_empty() {
            return because("give a reason; it is kept on the upload");
        }
        let row = self.upload_row(id).await?;
        match row.state() {
            Some(UploadState::Held | UploadState::Scanning) => {}
            Some(
                UploadState::Receiving
                | UploadState::Incomplete
                | UploadState::Released
                | UploadState::Infected
                | UploadState::Rejected
                | UploadState::Deleted,
            )
            | None => {
                return because(format!("upload {id} is {}; it cannot be rejected", row.state));
            }
        }
        let finding = Finding {
            verdict: "unchecked",
            signature: row.signature.clone(),
            reason: reason.to_owned(),
            scanner: row.scanner.clone(),
            waived_by: by.to_owned(),
        };
        settle::end(self, &row, UploadState::Rejected, (&finding, 0)).await?;
        self.tell_scanner(&row.id).await?;
        self.upload_row(id).await
    }

    /// Tries one delivery (or with an empty id all open ones) now; how many.
    ///
    /// # Errors
    /// No such open delivery.
    pub async fn retry_deliveries(&self, id: &str) -> Result<u64, Refused> {
        let now = self.now();
        let mut tx = self.store.write().await?;
        let tried = deliveries::retry_now(tx.db(), id, now).await?;
        if tried == 0 && !id.is_empty() {
            return because(format!("there is no open delivery {id}; `delivery list` shows all"));
        }
        events::note_change(tx.db(), "delivery", id, now).await?;
        tx.commit().await?;
        Ok(tried)
    }
}
