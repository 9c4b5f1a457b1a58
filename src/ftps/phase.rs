//! What may be asked when: the states of a session as a pure table, and what one command leaves for the next.

use super::command::{Command, DataCommand, Inside};
use super::reply::Reply;
use crate::domain::path::VirtualPath;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everything is readable by others: nothing but AUTH TLS leads on.
    Clear,
    Secured,
    LoggedIn,
}

/// PROT (RFC 4217 section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    Clear,
    Private,
}

/// Whether a command may be carried out now; else the reply that says why not.
#[must_use]
pub(super) fn objection(command: &Command, phase: Phase, protection: Protection) -> Option<Reply> {
    let (code, text) = match (need(command), phase) {
        (Need::Nothing, _)
        | (Need::Tls, Phase::Secured | Phase::LoggedIn)
        | (Need::Login, Phase::LoggedIn) => return None,
        (Need::Data, Phase::LoggedIn) => match protection {
            Protection::Private => return None,
            Protection::Clear => {
                (521, "Data connections must be protected; send PBSZ 0 and PROT P first.")
            }
        },
        (Need::Tls | Need::Login | Need::Data, Phase::Clear) => {
            (530, "TLS is required before login; send AUTH TLS first.")
        }
        (Need::Login | Need::Data, Phase::Secured) => (530, "Please log in with USER and PASS."),
    };
    Some(Reply::new(code, text))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Tls,
    Login,
    /// A protected data connection.
    Data,
}

const fn need(command: &Command) -> Need {
    match command {
        Command::Auth(_)
        | Command::Pbsz
        | Command::Prot(_)
        | Command::Ccc
        | Command::Quit
        | Command::Syst
        | Command::Help
        | Command::Noop
        | Command::Feat
        | Command::Opts(_)
        | Command::Clnt
        | Command::Syntax(_)
        | Command::NotOffered
        | Command::Unknown
        | Command::Foreign => Need::Nothing,
        Command::User(_) | Command::Pass(_) | Command::Acct => Need::Tls,
        Command::Inside(_) => Need::Login,
        Command::Data(_) => Need::Data,
    }
}

/// What one command leaves for the next transfer or rename. A REST that outlived its transfer would damage the next
/// file in silence, so everything but the preparations of a transfer clears it (RFC 3659 section 5.3).
#[derive(Debug, Default)]
pub(super) struct Once {
    /// Bytes, from REST.
    pub(super) restart: u64,
    /// Bytes, from ALLO.
    pub(super) declared: Option<u64>,
    pub(super) rename_from: Option<VirtualPath>,
}

impl Once {
    /// What is left for `command`; the rest is forgotten.
    #[must_use]
    pub(super) fn take_for(&mut self, command: &Command) -> Self {
        let left = std::mem::take(self);
        if uses(command) {
            return left;
        }
        if prepares(command) {
            self.restart = left.restart;
            self.declared = left.declared;
        }
        Self::default()
    }
}

const fn uses(command: &Command) -> bool {
    matches!(
        command,
        Command::Data(
            DataCommand::Retr(_)
                | DataCommand::Stor(_)
                | DataCommand::Appe(_)
                | DataCommand::Stou(_)
        ) | Command::Inside(Inside::Rnto(_))
    )
}

/// Preparations of a transfer keep what the ones before them said.
const fn prepares(command: &Command) -> bool {
    matches!(
        command,
        Command::Pbsz
            | Command::Prot(_)
            | Command::Noop
            | Command::Opts(_)
            | Command::Inside(
                Inside::Pasv
                    | Inside::Epsv(_)
                    | Inside::Active
                    | Inside::Type(_)
                    | Inside::Mode(_)
                    | Inside::Stru(_)
                    | Inside::Rest(_)
                    | Inside::Allo(_)
            )
    )
}

#[cfg(test)]
mod tests {
    use super::super::command::parse;
    use super::*;

    #[track_caller]
    fn check(line: &str, phase: Phase, protection: Protection, expect: Option<u16>) {
        let found = objection(&parse(line.as_bytes()), phase, protection).map(|reply| reply.code);
        assert_eq!(found, expect, "{line} {phase:?} {protection:?}");
    }

    #[test]
    fn nothing_secret_is_asked_for_in_clear() {
        for line in ["USER a", "PASS b", "PWD", "STOR x", "PASV", "LIST", "REST 5"] {
            check(line, Phase::Clear, Protection::Clear, Some(530));
        }
        for line in ["AUTH TLS", "FEAT", "QUIT", "NOOP", "SYST", "PBSZ 0", "GIBBERISH"] {
            check(line, Phase::Clear, Protection::Clear, None);
        }
    }

    #[test]
    fn nothing_of_the_tree_is_told_before_login() {
        for line in ["PWD", "CWD /", "SIZE x", "STOR x", "PASV", "MLSD", "SITE CHMOD 1 x"] {
            check(line, Phase::Secured, Protection::Private, Some(530));
        }
        check("USER a", Phase::Secured, Protection::Private, None);
    }

    #[test]
    fn data_goes_protected_or_not_at_all() {
        for line in ["STOR x", "APPE x", "STOU", "RETR x", "LIST", "NLST", "MLSD"] {
            check(line, Phase::LoggedIn, Protection::Clear, Some(521));
            check(line, Phase::LoggedIn, Protection::Private, None);
        }
        check("PASV", Phase::LoggedIn, Protection::Clear, None);
        check("EPSV", Phase::LoggedIn, Protection::Clear, None);
    }

    /// What a transfer finds after these lines.
    #[track_caller]
    fn restart_after(lines: &[&str], expect: u64) {
        let mut once = Once { restart: 50, ..Once::default() };
        for line in lines {
            drop(once.take_for(&parse(line.as_bytes())));
        }
        let left = once.take_for(&parse(b"STOR x"));
        assert_eq!(left.restart, expect, "{lines:?}");
        assert_eq!(once.restart, 0, "a transfer uses it up");
    }

    #[test]
    fn a_restart_point_lives_for_one_transfer() {
        restart_after(&[], 50);
        restart_after(&["PASV"], 50);
        restart_after(&["TYPE I", "PROT P", "EPSV", "ALLO 7"], 50);
        restart_after(&["RETR nofile"], 0);
        restart_after(&["NLST"], 0);
        restart_after(&["CWD /"], 0);
        restart_after(&["GIBBERISH"], 0);
    }
}
