//! The verdict on a content: the table of spec section 7 as pure functions.
//!
//! `Clean` and with it `Releasable::Clean` is made nowhere but in [`judge`].

use std::fmt;

/// One reply of the scanner, strictly parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Exactly one reply `…: OK` for this content.
    Ok,
    Found {
        signature: String,
    },
    /// `Heuristics.Limits.Exceeded.…`: the scanner says that it did not look at everything.
    LimitExceeded {
        limit: String,
    },
    /// `Heuristics.Encrypted.…`: the scanner cannot look inside.
    Encrypted {
        signature: String,
    },
    /// Empty, cut, late, or anything else: nothing is known.
    Odd {
        reason: String,
    },
}

/// What makes a file on disk the same file with the same bytes, as far as the file system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub modified_ns: i128,
    pub changed_ns: i128,
}

/// The proof that the scanner saw the sealed file as a whole and said OK.
///
/// Invariant: only [`judge`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Clean(FileIdentity);

impl Clean {
    /// The file that was found clean.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.0
    }
}

/// Why a content may be released. There is no other way into the tree or the hotfolder.
#[derive(Debug, PartialEq, Eq)]
pub enum Releasable {
    Clean(Clean),
    /// An operator takes it upon himself.
    Waived {
        by: String,
        reason: String,
    },
    /// The configuration says so (`clamd = "off"`, `on_encrypted = "release"`).
    PolicyUnscanned {
        policy: &'static str,
        signature: String,
    },
}

/// What one whole-file scan says about the sealed file.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Clean(Clean),
    Infected { signature: String },
    Limit { limit: String },
    Encrypted { signature: String },
    TryAgain { reason: String },
}

/// Believes "OK" only when what was scanned is the sealed file.
#[must_use]
pub fn judge(answer: Answer, scanned: FileIdentity, sealed: FileIdentity) -> Verdict {
    match answer {
        Answer::Found { signature } => Verdict::Infected { signature },
        Answer::LimitExceeded { limit } => Verdict::Limit { limit },
        Answer::Encrypted { signature } => Verdict::Encrypted { signature },
        Answer::Odd { reason } => Verdict::TryAgain { reason },
        Answer::Ok if scanned == sealed => Verdict::Clean(Clean(scanned)),
        Answer::Ok => {
            Verdict::TryAgain { reason: "the file changed while it was scanned".to_owned() }
        }
    }
}

/// `[scan] on_oversize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOversize {
    Hold,
    Reject,
}

/// `[scan] on_encrypted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEncrypted {
    Release,
    Hold,
    Reject,
}

/// Whether the one extra attempt after `MaxScanTime` is still open (spec section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleRetry {
    Open,
    Used,
}

/// What follows from a verdict.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Release(Releasable),
    Infected { signature: String },
    Hold { reason: HoldReason, signature: String },
    Reject { reason: HoldReason, signature: String },
    TryAgain { reason: String },
    OnceMoreWhenIdle { reason: String },
}

/// Why a content could not be fully checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    Doubtful,
    ScannerLimit,
    Encrypted,
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Doubtful => "doubtful signature",
            Self::ScannerLimit => "scanner limit exceeded",
            Self::Encrypted => "encrypted",
        })
    }
}

/// The table of spec section 7. `is_doubtful` says whether a signature matches `hold_signatures`.
#[must_use]
pub fn outcome(
    verdict: Verdict,
    policy: (OnOversize, OnEncrypted),
    idle_retry: IdleRetry,
    is_doubtful: impl Fn(&str) -> bool,
) -> Outcome {
    match verdict {
        Verdict::Clean(clean) => Outcome::Release(Releasable::Clean(clean)),
        Verdict::Infected { signature } if is_doubtful(&signature) => {
            Outcome::Hold { reason: HoldReason::Doubtful, signature }
        }
        Verdict::Infected { signature } => Outcome::Infected { signature },
        Verdict::Limit { limit } => {
            let ran_out_of_time = limit.ends_with("MaxScanTime");
            match (policy.0, idle_retry) {
                (_, IdleRetry::Open) if ran_out_of_time => {
                    Outcome::OnceMoreWhenIdle { reason: limit }
                }
                (OnOversize::Hold, _) => {
                    Outcome::Hold { reason: HoldReason::ScannerLimit, signature: limit }
                }
                (OnOversize::Reject, _) => {
                    Outcome::Reject { reason: HoldReason::ScannerLimit, signature: limit }
                }
            }
        }
        Verdict::Encrypted { signature } => match policy.1 {
            OnEncrypted::Release => Outcome::Release(Releasable::PolicyUnscanned {
                policy: "on_encrypted = \"release\"",
                signature,
            }),
            OnEncrypted::Hold => Outcome::Hold { reason: HoldReason::Encrypted, signature },
            OnEncrypted::Reject => Outcome::Reject { reason: HoldReason::Encrypted, signature },
        },
        Verdict::TryAgain { reason } => Outcome::TryAgain { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> FileIdentity {
        FileIdentity { device: 1, inode: 2, size, modified_ns: 3, changed_ns: 4 }
    }

    fn found(name: &str) -> Answer {
        Answer::Found { signature: name.to_owned() }
    }

    fn limit(name: &str) -> Answer {
        Answer::LimitExceeded { limit: format!("Heuristics.Limits.Exceeded.{name}") }
    }

    #[track_caller]
    fn check(answer: Answer, policy: (OnOversize, OnEncrypted), retry: IdleRetry, expect: &str) {
        let verdict = judge(answer, file(10), file(10));
        let doubtful = |name: &str| name.starts_with("PUA.") || name.starts_with("Heuristics.");
        let shown = match outcome(verdict, policy, retry, doubtful) {
            Outcome::Release(Releasable::Clean(_)) => "released".to_owned(),
            Outcome::Release(Releasable::PolicyUnscanned { policy, .. }) => {
                format!("policy {policy}")
            }
            Outcome::Release(Releasable::Waived { .. }) => "waived".to_owned(),
            Outcome::Infected { signature } => format!("infected {signature}"),
            Outcome::Hold { reason, .. } => format!("held {reason}"),
            Outcome::Reject { reason, .. } => format!("rejected {reason}"),
            Outcome::TryAgain { .. } => "again".to_owned(),
            Outcome::OnceMoreWhenIdle { .. } => "idle".to_owned(),
        };
        assert_eq!(shown, expect);
    }

    #[test]
    fn the_table_of_spec_section_7() {
        use IdleRetry::{Open, Used};
        let hold = (OnOversize::Hold, OnEncrypted::Release);
        let reject = (OnOversize::Reject, OnEncrypted::Reject);
        let odd = || Answer::Odd { reason: "empty".to_owned() };
        let locked = || Answer::Encrypted { signature: "Heuristics.Encrypted.PDF".to_owned() };
        check(Answer::Ok, hold, Open, "released");
        check(found("Eicar-Test-Signature"), hold, Open, "infected Eicar-Test-Signature");
        check(found("PUA.Win.Packer"), hold, Open, "held doubtful signature");
        check(found("PUA.Win.Packer"), reject, Open, "held doubtful signature");
        check(odd(), hold, Open, "again");
        check(odd(), reject, Used, "again");
        check(limit("MaxFileSize"), hold, Open, "held scanner limit exceeded");
        check(limit("MaxFileSize"), reject, Open, "rejected scanner limit exceeded");
        check(limit("MaxScanTime"), hold, Open, "idle");
        check(limit("MaxScanTime"), hold, Used, "held scanner limit exceeded");
        check(limit("MaxScanTime"), reject, Used, "rejected scanner limit exceeded");
        check(locked(), hold, Open, "policy on_encrypted = \"release\"");
        check(locked(), (OnOversize::Hold, OnEncrypted::Hold), Open, "held encrypted");
        check(locked(), reject, Open, "rejected encrypted");
    }

    #[test]
    fn an_ok_about_another_file_releases_nothing() {
        let verdict = judge(Answer::Ok, file(11), file(10));
        assert!(matches!(verdict, Verdict::TryAgain { .. }));
    }
}
