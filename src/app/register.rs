//! An upload is written down: its row, its name, its version.

use super::App;
use super::session::Session;
use super::tree::{Spot, is_temporary};
use crate::domain::id::Id;
use crate::domain::path::fold;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::store;
use crate::store::entries::{self, EntryRow};
use crate::store::uploads::{self, UploadRow};

impl Session {
    /// The row of a new upload of this session, without its name.
    pub(super) fn new_row(
        &self,
        id: &Id,
        spot: &Spot,
        (path, ticket_no): (String, String),
        declared: Option<u64>,
    ) -> UploadRow {
        let now = self.app.now().0;
        UploadRow {
            id: id.to_string(),
            client_no: self.client_no.clone(),
            username: self.account.to_string(),
            project_no: spot.project.project_no.clone(),
            ticket_no,
            path,
            version: 1,
            state: UploadState::Receiving.as_str().to_owned(),
            declared_size: declared.map_or(-1, store::big),
            reserved: self.settings().quota_bytes.and(declared).map_or(0, store::big),
            protocol: self.protocol.to_owned(),
            peer: self.peer.to_string(),
            node: self.app.node.to_string(),
            started: now,
            content: "kept".to_owned(),
            created: now,
            updated: now,
            ..UploadRow::default()
        }
    }
}

/// Writes the upload down: name and version. Its start stands on the row and needs no event.
pub(super) async fn register(
    app: &App,
    mut row: UploadRow,
    spot: &Spot,
    found: Option<EntryRow>,
) -> store::Result<Option<i64>> {
    let now = Timestamp(row.started);
    let name = match found {
        Some(entry) => {
            row.entry_id = entry.id;
            entries::take_version_step(&row.entry_id, &row.id, &entry.current_upload, now)
        }
        None => {
            let entry = new_entry(app, spot, &row.id, now);
            let step = entries::insert_step(&entry);
            row.entry_id = entry.id;
            step
        }
    };
    let done = app.store.run(vec![name, uploads::insert_step(&row)]).await?;
    // Without its name (another session was faster, or deleted it) the upload was not written either.
    let version = uploads::returned_version(done.get(1))?;
    tracing::debug!(
        upload = row.id,
        path = row.path,
        account = row.username,
        ?version,
        "upload started"
    );
    Ok(version)
}

fn new_entry(app: &App, spot: &Spot, upload: &str, now: Timestamp) -> EntryRow {
    EntryRow {
        id: app.new_id().to_string(),
        project_id: spot.project.id.clone(),
        parent: spot.parent.clone(),
        name: spot.name.to_string(),
        name_key: fold(spot.name.as_str()),
        kind: "file".to_owned(),
        is_temporary: store::flag(is_temporary(app, spot.name.as_str())),
        released_upload: String::new(),
        released_version: 0,
        current_upload: upload.to_owned(),
        last_version: 1,
        mtime: now.0,
        created: now.0,
        updated: now.0,
    }
}
