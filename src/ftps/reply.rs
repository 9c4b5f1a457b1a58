//! Replies (RFC 959 section 4.2): one table from refusal to code, and how a reply looks on the wire.

use crate::domain::account::Language;
use crate::domain::refusal::Refusal;

/// One reply. Texts never hold what a client sent but names that `domain::path` has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: String,
    /// Between the first and the last line; each is sent with a blank in front (RFC 959 section 4.2).
    pub(super) lines: Vec<String>,
}

impl Reply {
    #[must_use]
    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), lines: Vec::new() }
    }

    /// `211-…`, the lines, `211 End`.
    #[must_use]
    pub(super) fn with_lines(code: u16, text: impl Into<String>, lines: Vec<String>) -> Self {
        Self { code, text: text.into(), lines }
    }

    /// What goes to the client.
    #[must_use]
    pub(super) fn to_wire(&self) -> Vec<u8> {
        let mut wire = String::new();
        if self.lines.is_empty() {
            wire.push_str(&format!("{} {}\r\n", self.code, self.text));
        } else {
            wire.push_str(&format!("{}-{}\r\n", self.code, self.text));
            for line in &self.lines {
                wire.push_str(&format!(" {line}\r\n"));
            }
            wire.push_str(&format!("{} End\r\n", self.code));
        }
        wire.into_bytes()
    }
}

/// A refusal with its text, code and reference.
#[must_use]
pub(super) fn refused(refusal: &Refusal, language: Language, reference: &str) -> Reply {
    Reply::new(reply_code(refusal), refusal.told(language, reference))
}

/// RFC 959 section 4.2: 4xx invites the client's program to try again, 5xx tells it not to.
#[must_use]
pub(super) const fn reply_code(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::NotFound
        | Refusal::AlreadyExists
        | Refusal::ReadOnly
        | Refusal::NotReleased
        | Refusal::NoLongerKept
        | Refusal::BadName(_)
        | Refusal::NotEmpty
        | Refusal::IsAFolder
        | Refusal::NotAFolder
        | Refusal::CannotLink
        | Refusal::OtherProject
        | Refusal::Infected { .. }
        | Refusal::ScannerLimit { .. }
        | Refusal::EncryptedContent
        | Refusal::RejectedByOperator
        | Refusal::Extension { .. } => 550,
        Refusal::Quota { .. } | Refusal::TooLarge { .. } => 552,
        Refusal::Busy
        | Refusal::TakenOver
        | Refusal::StillIncomplete
        | Refusal::TooManyHandles { .. }
        | Refusal::Backlog { .. } => 450,
        Refusal::NoSpace => 452,
        Refusal::Damaged | Refusal::Internal => 451,
        Refusal::Unsupported => 502,
        Refusal::BadHandle => 503,
        Refusal::AccountEnded => 530,
        Refusal::ShuttingDown => 421,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_reply_codes() {
        let check = |refusal: Refusal, code| assert_eq!(reply_code(&refusal), code, "{refusal:?}");
        check(Refusal::NotFound, 550);
        check(Refusal::ReadOnly, 550);
        check(Refusal::Infected { signature: "X".to_owned() }, 550);
        check(Refusal::Extension { extension: "exe".to_owned() }, 550);
        check(Refusal::Quota { limit: 1 }, 552);
        check(Refusal::TooLarge { limit: 1 }, 552);
        check(Refusal::NoSpace, 452);
        check(Refusal::Busy, 450);
        check(Refusal::Backlog { limit: 1 }, 450);
        check(Refusal::Damaged, 451);
        check(Refusal::ShuttingDown, 421);
    }

    #[test]
    fn replies_look_as_rfc_959_says() {
        assert_eq!(Reply::new(200, "OK").to_wire(), b"200 OK\r\n");
        let lines = vec!["UTF8".to_owned(), "MFMT".to_owned()];
        assert_eq!(
            Reply::with_lines(211, "Features:", lines).to_wire(),
            b"211-Features:\r\n UTF8\r\n MFMT\r\n211 End\r\n"
        );
        // A line that begins with the code would end the reply early if no blank stood before it.
        let lines = vec!["211 not the end".to_owned()];
        assert!(Reply::with_lines(211, "x", lines).to_wire().starts_with(b"211-x\r\n 211 not"));
    }
}
