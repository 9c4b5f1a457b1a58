//! How the end of an upload is told to its client.

use crate::domain::account::Language;

/// How CLOSE ends for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Released,
    /// Received; the verdict follows.
    ScanPending,
    /// Received; an operator decides.
    Held,
    /// The same file as before; that one's verdict holds.
    Repeated,
}

impl Outcome {
    /// The stable code that scripts may look for.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::ScanPending => "scan-pending",
            Self::Held => "held-for-review",
            Self::Repeated => "repeated",
        }
    }

    /// What the customer reads, ending in `[code id]`.
    #[must_use]
    pub fn told(&self, language: Language, reference: &str) -> String {
        let text = match (self, language) {
            // Not "checked for viruses": the configuration may do without.
            (Self::Released, Language::De) => "Vollständig empfangen und angenommen.",
            (Self::Released, Language::En) => "Completely received and accepted.",
            (Self::ScanPending, Language::De) => {
                "Empfangen, die Virenprüfung läuft noch. Es ist nichts weiter zu tun."
            }
            (Self::ScanPending, Language::En) => {
                "Received, the virus check is still running. Nothing more to do."
            }
            (Self::Held, Language::De) => {
                "Empfangen, die Druckerei prüft die Datei noch. Es ist nichts weiter zu tun."
            }
            (Self::Held, Language::En) => {
                "Received, the print shop checks the file first. Nothing more to do."
            }
            (Self::Repeated, Language::De) => {
                "Diese Datei war schon vollständig da. Es ist nichts weiter zu tun."
            }
            (Self::Repeated, Language::En) => {
                "This file was there already, complete. Nothing more to do."
            }
        };
        format!("{text} [{} {reference}]", self.code())
    }
}
