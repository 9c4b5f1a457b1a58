//! The names of a folder, a page at a time: a folder of any size takes no memory.

use std::sync::Arc;

use glob::Pattern;

use super::tree::Listed;
use super::{App, with_app};
use crate::domain::refusal::Refusal;
use crate::store::entries;

/// Names that are read at once.
const PAGE: usize = 500;

/// A folder that is being listed. Names that come or go meanwhile may be there or not, as in any folder.
#[derive(Debug)]
pub struct Listing {
    /// What comes next.
    ready: Vec<Listed>,
    rest: Option<Rest>,
    /// Only these names.
    pattern: Option<Pattern>,
}

/// Names in the database, behind the last one that was read.
struct Rest {
    app: Arc<App>,
    parent: String,
    after: String,
    is_writable: bool,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").field("parent", &self.parent).field("after", &self.after).finish()
    }
}

impl From<Vec<Listed>> for Listing {
    fn from(ready: Vec<Listed>) -> Self {
        Self { ready, rest: None, pattern: None }
    }
}

impl Listing {
    /// The children of an entry or area; `first` stand before them.
    pub(super) fn of_folder(
        app: &Arc<App>,
        parent: String,
        is_writable: bool,
        first: Vec<Listed>,
    ) -> Self {
        let rest = Rest { app: Arc::clone(app), parent, after: String::new(), is_writable };
        Self { ready: first, rest: Some(rest), pattern: None }
    }

    /// Only what a pattern matches.
    #[must_use]
    pub fn matching(self, pattern: Pattern) -> Self {
        Self { pattern: Some(pattern), ..self }
    }

    /// Names before all others.
    pub fn put_first(&mut self, names: impl IntoIterator<Item = Listed>) {
        self.ready.splice(0..0, names);
    }

    /// The next names, in a stable order; none at the end.
    ///
    /// # Errors
    /// `Internal` when the database does not answer.
    pub async fn next(&mut self) -> Result<Vec<Listed>, Refusal> {
        loop {
            let mut names = std::mem::take(&mut self.ready);
            if names.is_empty() {
                let Some(rest) = &mut self.rest else { return Ok(names) };
                let (page, is_last) = rest.read().await?;
                names = page;
                if is_last {
                    self.rest = None;
                }
            }
            if let Some(pattern) = &self.pattern {
                names.retain(|listed| pattern.matches(&listed.name));
            }
            if !names.is_empty() {
                return Ok(names);
            }
        }
    }

    /// Reads ahead; whether anything is there.
    ///
    /// # Errors
    /// As [`Listing::next`].
    pub async fn has_any(&mut self) -> Result<bool, Refusal> {
        let names = self.next().await?;
        let has_any = !names.is_empty();
        self.put_first(names);
        Ok(has_any)
    }
}

impl Rest {
    async fn read(&mut self) -> Result<(Vec<Listed>, bool), Refusal> {
        let failed = |e: &dyn std::fmt::Display| self.app.internal("list folder", e);
        let rows = entries::children(self.app.store.db(), &self.parent, &self.after, PAGE).await;
        let rows = rows.map_err(|e| failed(&e))?;
        let is_last = rows.len() < PAGE;
        let after = rows.last().map(|row| row.name.clone());
        let is_writable = self.is_writable;
        // Present sizes of unfinished files come from the disk.
        let listed = with_app(&self.app, move |app| {
            let show = |row: entries::ListedRow| {
                let attributes = app.attributes_of(&row, is_writable)?;
                Some(Listed { name: row.name, attributes })
            };
            Ok(rows.into_iter().filter_map(show).collect::<Vec<_>>())
        });
        let listed = listed.await.map_err(|e| failed(&e))?;
        if let Some(after) = after {
            self.after = after;
        }
        Ok((listed, is_last))
    }
}
