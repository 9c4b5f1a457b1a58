//! What LIST, NLST and STAT show for a path.

use glob::Pattern;

use crate::app::listing::Listing;
use crate::app::session::Session;
use crate::app::tree::{Kind, Listed};
use crate::domain::path::VirtualPath;
use crate::domain::refusal::Refusal;

/// A folder's names, one file, or what a pattern in the last segment matches (old scripts say `NLST *.pdf`).
///
/// # Errors
/// What `stat` and `list` refuse.
pub(super) async fn names_at(session: &Session, path: &VirtualPath) -> Result<Listing, Refusal> {
    let attributes = match session.stat(path).await {
        Ok(attributes) => attributes,
        Err(Refusal::NotFound) => return matching(session, path).await,
        Err(refusal) => return Err(refusal),
    };
    match (attributes.kind, path.file_name()) {
        (Kind::File, Some(name)) => Ok(vec![Listed { name: name.to_string(), attributes }].into()),
        (Kind::File | Kind::Folder, _) => session.list(path).await,
    }
}

async fn matching(session: &Session, path: &VirtualPath) -> Result<Listing, Refusal> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Refusal::NotFound);
    };
    if !name.as_str().contains(['*', '?']) {
        return Err(Refusal::NotFound);
    }
    let pattern = Pattern::new(name.as_str()).map_err(|_| Refusal::NotFound)?;
    let mut listing = session.list(&folder).await?.matching(pattern);
    if listing.has_any().await? { Ok(listing) } else { Err(Refusal::NotFound) }
}

/// What NLST puts before each name, so that the client can use it as a path: what the client named, without a
/// pattern or a file's own name.
#[must_use]
pub(super) fn prefix(cwd: &VirtualPath, raw: &[u8], folder: &VirtualPath) -> String {
    if raw.is_empty() || folder == cwd {
        return String::new();
    }
    let absolute = folder.to_string();
    let shown = if raw.starts_with(b"/") || !folder.starts_with(cwd) {
        absolute.as_str()
    } else {
        absolute.strip_prefix(&cwd.to_string()).unwrap_or(&absolute).trim_start_matches('/')
    };
    if shown.ends_with('/') { shown.to_owned() } else { format!("{shown}/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_another_folder_carry_its_path() {
        let at = |path: &str| VirtualPath::root().resolve(path.as_bytes()).unwrap();
        let check = |cwd: &str, raw: &str, folder: &str, expect: &str| {
            assert_eq!(prefix(&at(cwd), raw.as_bytes(), &at(folder)), expect, "{cwd} {raw}");
        };
        check("/", "", "/", "");
        check("/a", "", "/a", "");
        check("/a", "b", "/a/b", "b/");
        check("/a", "/a/b", "/a/b", "/a/b/");
        check("/a", "..", "/", "/");
        check("/a", "*.pdf", "/a", "");
    }
}
