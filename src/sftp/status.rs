//! From a refusal to an SFTP status: one exhaustive table (draft-ietf-secsh-filexfer-02, section 7).

use super::packet::Code;
use crate::domain::refusal::Refusal;

/// The code for the client's program; the text beside it is for people.
///
/// "No such file" only where nothing is there: clients look before they write and give up at anything else.
#[must_use]
pub(super) fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NotFound => Code::NoSuchFile,
        Refusal::ReadOnly
        | Refusal::NotReleased
        | Refusal::NoLongerKept
        | Refusal::OtherProject
        | Refusal::Extension { .. }
        | Refusal::AccountEnded => Code::PermissionDenied,
        Refusal::Unsupported | Refusal::CannotLink => Code::OpUnsupported,
        Refusal::AlreadyExists
        | Refusal::BadName(_)
        | Refusal::Busy
        | Refusal::TakenOver
        | Refusal::StillIncomplete
        | Refusal::NotEmpty
        | Refusal::IsAFolder
        | Refusal::NotAFolder
        | Refusal::BadHandle
        | Refusal::TooManyHandles { .. }
        | Refusal::Infected { .. }
        | Refusal::ScannerLimit { .. }
        | Refusal::EncryptedContent
        | Refusal::RejectedByOperator
        | Refusal::Quota { .. }
        | Refusal::TooLarge { .. }
        | Refusal::NoSpace
        | Refusal::Backlog { .. }
        | Refusal::Damaged
        | Refusal::ShuttingDown
        | Refusal::Internal => Code::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_status_codes() {
        let check = |refusal: Refusal, code| assert_eq!(code_of(&refusal), code, "{refusal:?}");
        check(Refusal::NotFound, Code::NoSuchFile);
        check(Refusal::ReadOnly, Code::PermissionDenied);
        check(Refusal::NotReleased, Code::PermissionDenied);
        check(Refusal::Extension { extension: "exe".to_owned() }, Code::PermissionDenied);
        check(Refusal::CannotLink, Code::OpUnsupported);
        check(Refusal::AlreadyExists, Code::Failure);
        check(Refusal::Infected { signature: "X".to_owned() }, Code::Failure);
        check(Refusal::Quota { limit: 1 }, Code::Failure);
        check(Refusal::NoSpace, Code::Failure);
        check(Refusal::Busy, Code::Failure);
    }
}
