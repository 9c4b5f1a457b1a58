//! Orders as PTworkflow announces them: numbers, states, and who may see a project's folder (spec section 11).

use std::fmt;

use crate::domain::account::Status;

/// Whether a project is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectState {
    Open,
    Closed,
    Expired,
}

impl ProjectState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Expired => "expired",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Expired].into_iter().find(|s| s.as_str() == text)
    }
}

/// Whether a project has a folder in the portal, and if not, why (the rows of spec section 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Ok,
    NoAccessYet,
    Inactive,
    NotMeant,
}

impl Access {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoAccessYet => "no-access-yet",
            Self::Inactive => "inactive",
            Self::NotMeant => "not-meant",
        }
    }
}

/// Decides from what stands in the rows now, so that a client or account that changes later needs no second step.
#[must_use]
pub fn access(create_hotfolder: bool, accounts: &[Status]) -> Access {
    match (create_hotfolder, accounts.is_empty()) {
        (false, _) => Access::NotMeant,
        (true, true) => Access::NoAccessYet,
        (true, false) if accounts.contains(&Status::Active) => Access::Ok,
        (true, false) => Access::Inactive,
    }
}

/// Why a number is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadNumber {
    field: &'static str,
    why: &'static str,
}

impl fmt::Display for BadNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; give 1 to 64 characters of text", self.field, self.why)
    }
}

impl std::error::Error for BadNumber {}

/// Takes a `client_no`, `project_no` or `ticket_no`: any text of 1 to 64 characters (spec section 6).
///
/// # Errors
/// Empty, too long, blanks around it, or control characters.
pub fn number(field: &'static str, text: &str) -> Result<String, BadNumber> {
    let bad = |why| Err(BadNumber { field, why });
    if text.is_empty() {
        return bad("is empty");
    }
    if text.chars().count() > 64 {
        return bad("has more than 64 characters");
    }
    if text.chars().any(char::is_control) {
        return bad("holds control characters");
    }
    if text.trim() != text {
        return bad("begins or ends with a blank");
    }
    Ok(text.to_owned())
}

/// The ticket that a file name speaks of: the only ticket, or the only one whose number stands in the name
/// as a word of its own (spec section 6).
#[must_use]
pub fn ticket_of<'a>(file_name: &str, tickets: &'a [String]) -> Option<&'a str> {
    if let [only] = tickets {
        return Some(only);
    }
    let mut named = tickets.iter().filter(|ticket| stands_alone(file_name, ticket));
    match (named.next(), named.next()) {
        (Some(ticket), None) => Some(ticket),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

/// `12` stands in `T-12.pdf` but not in `T-123.pdf`.
fn stands_alone(text: &str, number: &str) -> bool {
    text.match_indices(number).any(|(at, _)| {
        let before = text.get(..at).and_then(|t| t.chars().next_back());
        let end = at.saturating_add(number.len());
        let after = text.get(end..).and_then(|t| t.chars().next());
        let joins = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !joins(before) && !joins(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_follows_the_rows_of_spec_section_11() {
        assert_eq!(access(false, &[Status::Active]), Access::NotMeant);
        assert_eq!(access(true, &[]), Access::NoAccessYet);
        assert_eq!(access(true, &[Status::Inactive]), Access::Inactive);
        assert_eq!(access(true, &[Status::Inactive, Status::Active]), Access::Ok);
    }

    #[test]
    fn numbers_are_any_short_text() {
        assert_eq!(number("project_no", "2026/0815-1").unwrap(), "2026/0815-1");
        for bad in ["", " x", "a\nb", &"x".repeat(65)] {
            assert!(number("project_no", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_belongs_to_the_only_ticket_or_to_the_one_it_names() {
        let one = ["T1".to_owned()];
        let two = ["T1".to_owned(), "T12".to_owned()];
        assert_eq!(ticket_of("plakat.pdf", &one), Some("T1"));
        assert_eq!(ticket_of("plakat_T12.pdf", &two), Some("T12"));
        assert_eq!(ticket_of("T1-plakat.pdf", &two), Some("T1"));
        assert_eq!(ticket_of("T1 und T12.pdf", &two), None);
        assert_eq!(ticket_of("plakat.pdf", &two), None);
    }
}
