//! `ptportal fsck`: vault, spool, rows and sidecars against each other. It looks; with `--repair` it rebuilds rows from
//! sidecars. It never removes a content that somebody may still want.

use std::collections::HashMap;
use std::sync::Arc;

use super::tree::restore_name;
use super::{App, with_app};
use crate::domain::id::Id;
use crate::domain::upload::UploadState;
use crate::hotfolder::hash_file;
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, big, fsck as rows, unsigned};
use crate::vault::Sidecar;

/// Rows in memory at a time.
const AT_ONCE: i64 = 1000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A row promises bytes that are not there.
    Missing,
    /// The bytes are not those of the row.
    Damaged,
    /// Bytes without a row.
    Orphan,
    /// Bytes that should have been forgotten.
    LeftOver,
    /// A name shows an upload that is not there.
    DeadName,
}

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Orphan => "orphan",
            Self::LeftOver => "left-over",
            Self::DeadName => "dead-name",
        }
    }
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Problem {
    pub kind: Kind,
    pub upload_id: String,
    pub path: String,
    pub detail: String,
    /// What was done about it; empty when nothing was.
    pub repaired: String,
}

/// How far to look, and whether to mend.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Reads every content and compares its SHA-256.
    pub is_deep: bool,
    pub repairs: bool,
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Report {
    pub contents: u64,
    pub uploads: u64,
    pub problems: Vec<Problem>,
}

impl Report {
    /// Findings that are as they were.
    #[must_use]
    pub fn open(&self) -> usize {
        self.problems.iter().filter(|problem| problem.repaired.is_empty()).count()
    }
}

/// Looks at everything.
///
/// # Errors
/// When database or disk cannot be read at all.
pub async fn run(app: &Arc<App>, scope: Scope) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let contents = with_app(app, |app| app.vault.contents()).await?;
    let sizes: HashMap<Id, u64> = contents.into_iter().collect();
    report.contents = u64::try_from(sizes.len())?;
    let mut after = String::new();
    loop {
        let page = rows::with_content(app.store.db(), &after, AT_ONCE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.id);
        for row in &page {
            report.uploads = report.uploads.saturating_add(1);
            look_at_row(app, row, &sizes, (scope, &mut report)).await?;
        }
    }
    let mut ids: Vec<(&Id, &u64)> = sizes.iter().collect();
    ids.sort();
    for (id, size) in ids {
        look_at_content(app, (id, *size), scope, &mut report).await?;
    }
    for entry in rows::dead_names(app.store.db()).await? {
        let repaired = if scope.repairs {
            rows::clear_dead_name(app.store.db(), &entry.id).await?;
            "the name was cleared".to_owned()
        } else {
            String::new()
        };
        report.problems.push(Problem {
            kind: Kind::DeadName,
            upload_id: entry.released_upload.clone(),
            path: entry.name.clone(),
            detail: "a name in the customer's tree shows an upload that is not there".to_owned(),
            repaired,
        });
    }
    Ok(report)
}

/// A row whose bytes must be in the vault.
async fn look_at_row(
    app: &Arc<App>,
    row: &UploadRow,
    sizes: &HashMap<Id, u64>,
    (scope, report): (Scope, &mut Report),
) -> anyhow::Result<()> {
    let mut found = |kind: Kind, detail: String| {
        report.problems.push(Problem {
            kind,
            upload_id: row.id.clone(),
            path: row.path.clone(),
            detail,
            repaired: String::new(),
        });
    };
    let Some((id, size)) = Id::parse(&row.id).and_then(|id| sizes.get_key_value(&id)) else {
        found(
            Kind::Missing,
            format!("{} and not in the vault; bring it back from a backup", row.state),
        );
        return Ok(());
    };
    if *size != unsigned(row.size) {
        found(
            Kind::Damaged,
            format!("{size} bytes instead of {}; bring it back from a backup", row.size),
        );
        return Ok(());
    }
    if scope.is_deep && !row.sha256.is_empty() {
        let id = id.clone();
        let hash = with_app(app, move |app| hash_file(&mut app.vault.open_sealed(&id)?)).await;
        match hash {
            Ok(hash) if hash.as_str() == row.sha256 => {}
            Ok(hash) => found(
                Kind::Damaged,
                format!(
                    "SHA-256 {} instead of {}; bring it back from a backup",
                    hash.as_str(),
                    row.sha256
                ),
            ),
            Err(error) => found(Kind::Damaged, format!("cannot be read: {error}")),
        }
    }
    Ok(())
}

/// Bytes in the vault, whose row must be there.
async fn look_at_content(
    app: &Arc<App>,
    (id, size): (&Id, u64),
    scope: Scope,
    report: &mut Report,
) -> anyhow::Result<()> {
    let row = uploads::upload(app.store.db(), id.as_str()).await?;
    let Some(row) = row else {
        let looked = id.clone();
        let sidecar = with_app(app, move |app| app.vault.sidecar(&looked)).await.ok();
        let mut problem = Problem {
            kind: Kind::Orphan,
            upload_id: id.to_string(),
            path: sidecar.as_ref().map(|s| s.path.clone()).unwrap_or_default(),
            detail: match &sidecar {
                Some(_) => format!(
                    "{size} bytes without a row; --repair rebuilds it as held, an operator decides"
                ),
                None => format!("{size} bytes without row and sidecar; look at it by hand"),
            },
            repaired: String::new(),
        };
        if let Some(sidecar) = sidecar.filter(|sidecar| scope.repairs && sidecar.id == id.as_str())
        {
            rebuild(app, &sidecar, size).await?;
            problem.repaired =
                format!("rebuilt as held: `upload release {id} --reason …` delivers it");
        }
        report.problems.push(problem);
        return Ok(());
    };
    let is_left = row.content == "purged" || row.state() == Some(UploadState::Rejected);
    if is_left {
        let repaired = if scope.repairs {
            let removed = id.clone();
            with_app(app, move |app| app.vault.remove(&removed)).await?;
            "removed".to_owned()
        } else {
            String::new()
        };
        report.problems.push(Problem {
            kind: Kind::LeftOver,
            upload_id: row.id.clone(),
            path: row.path.clone(),
            detail: format!("{size} bytes that were forgotten are still there"),
            repaired,
        });
    }
    Ok(())
}

/// A row as the sidecar tells it. Whether it was released or delivered before, nobody knows: an operator decides.
async fn rebuild(app: &Arc<App>, sidecar: &Sidecar, size: u64) -> store::Result<()> {
    let now = app.now();
    let row = UploadRow {
        id: sidecar.id.clone(),
        entry_id: app.new_id().to_string(),
        client_no: sidecar.client_no.clone(),
        username: sidecar.username.clone(),
        project_no: sidecar.project_no.clone(),
        path: sidecar.path.clone(),
        version: sidecar.version,
        state: UploadState::Held.as_str().to_owned(),
        size: big(size),
        sha256: sidecar.sha256.clone(),
        declared_size: -1,
        mtime: sidecar.mtime,
        verdict: "unchecked".to_owned(),
        reason: "found in the vault without a row".to_owned(),
        protocol: if sidecar.username.is_empty() { super::publish::PROTOCOL } else { "fsck" }
            .to_owned(),
        node: app.node.to_string(),
        started: sidecar.completed,
        completed: sidecar.completed,
        created: now.0,
        updated: now.0,
        content: "kept".to_owned(),
        ..UploadRow::default()
    };
    rows::insert(app.store.db(), &row).await?;
    restore_name(app, &row).await
}
