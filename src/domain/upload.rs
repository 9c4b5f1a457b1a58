//! The states of an upload and of a delivery (spec sections 5 and 7).

use std::fmt;

/// Where an upload stands. Every change is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UploadState {
    /// A client is writing.
    Receiving,
    /// The connection was lost before CLOSE; resumable until `incomplete_ttl`.
    Incomplete,
    /// Complete and durable, the verdict is not known yet.
    Scanning,
    /// Clean (or waived, with who and why) and visible.
    Released,
    /// A signature was found; the bytes are in quarantine.
    Infected,
    /// Could not be fully checked; an operator decides.
    Held,
    /// Refused: by an operator, quota, extension, or the scanner's limit.
    Rejected,
    /// Deleted by the customer, replaced before it was complete, or a repeat.
    Deleted,
}

/// Where a delivery stands. `Pending`, `Placing` and `Stuck` are worked on, the others are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    Pending,
    /// The final name is recorded; our temporary file is the witness of the rename.
    Placing,
    Done,
    /// Failed three times or more; retried for ever all the same.
    Stuck,
    /// The customer deleted the file before it was placed.
    Cancelled,
    /// A later version takes its place (`on_conflict = "replace"`).
    Superseded,
}

macro_rules! text_enum {
    ($type:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in rows, `--json` and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.as_str() == text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

text_enum!(UploadState {
    Receiving = "receiving",
    Incomplete = "incomplete",
    Scanning = "scanning",
    Released = "released",
    Infected = "infected",
    Held = "held",
    Rejected = "rejected",
    Deleted = "deleted",
});

text_enum!(DeliveryState {
    Pending = "pending",
    Placing = "placing",
    Done = "done",
    Stuck = "stuck",
    Cancelled = "cancelled",
    Superseded = "superseded",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_from_its_word() {
        for state in UploadState::ALL {
            assert_eq!(UploadState::parse(state.as_str()), Some(*state));
        }
        for state in DeliveryState::ALL {
            assert_eq!(DeliveryState::parse(state.as_str()), Some(*state));
        }
        assert_eq!(UploadState::parse("clean"), None);
    }
}
