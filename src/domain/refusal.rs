//! Why a customer's request is refused: one closed list, each with its text in German and English.
//!
//! A text says what happened, why, and what to do; [`Refusal::told`] ends it with the stable code and the
//! upload's or session's id (spec section 1). Fronts turn the variants into their own status codes.

use crate::domain::account::Language;
use crate::domain::path::NameError;

/// A reason to refuse. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    AlreadyExists,
    /// Outside the upload folder everything is read-only.
    ReadOnly,
    /// Only released files are readable.
    NotReleased,
    /// Delivered, and its time here is over.
    NoLongerKept,
    BadName(NameError),
    /// Someone else is writing this name now.
    Busy,
    /// Another session took the name over.
    TakenOver,
    /// Opened to go on, closed without a byte.
    StillIncomplete,
    NotEmpty,
    IsAFolder,
    NotAFolder,
    CannotLink,
    /// Files stay with their order.
    OtherProject,
    Unsupported,
    BadHandle,
    TooManyHandles {
        limit: usize,
    },
    Infected {
        signature: String,
    },
    /// The scanner cannot check all of it and the configuration says `reject`.
    ScannerLimit {
        limit: String,
    },
    EncryptedContent,
    RejectedByOperator,
    Quota {
        limit: u64,
    },
    TooLarge {
        limit: u64,
    },
    Extension {
        extension: String,
    },
    /// The data folder has no room.
    NoSpace,
    /// Too much waits for the scanner.
    Backlog {
        limit: u64,
    },
    /// Writing to disk failed; this upload cannot be completed.
    Damaged,
    AccountEnded,
    ShuttingDown,
    Internal,
}

impl Refusal {
    /// The stable code that scripts may look for.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::ReadOnly => "read-only",
            Self::NotReleased => "not-released",
            Self::NoLongerKept => "no-longer-kept",
            Self::BadName(_) => "bad-name",
            Self::Busy => "busy",
            Self::TakenOver => "taken-over",
            Self::StillIncomplete => "still-incomplete",
            Self::NotEmpty => "not-empty",
            Self::IsAFolder => "is-a-folder",
            Self::NotAFolder => "not-a-folder",
            Self::CannotLink => "no-links",
            Self::OtherProject => "other-project",
            Self::Unsupported => "unsupported",
            Self::BadHandle => "bad-handle",
            Self::TooManyHandles { .. } => "too-many-handles",
            Self::Infected { .. } => "virus-found",
            Self::ScannerLimit { .. } => "scanner-limit",
            Self::EncryptedContent => "encrypted",
            Self::RejectedByOperator => "rejected",
            Self::Quota { .. } => "quota-exceeded",
            Self::TooLarge { .. } => "file-too-large",
            Self::Extension { .. } => "extension-forbidden",
            Self::NoSpace => "no-space",
            Self::Backlog { .. } => "scan-backlog",
            Self::Damaged => "write-failed",
            Self::AccountEnded => "account-inactive",
            Self::ShuttingDown => "shutting-down",
            Self::Internal => "internal-error",
        }
    }

    /// The whole text for the customer: what, why, what to do, then `[code id]`.
    #[must_use]
    pub fn told(&self, language: Language, reference: &str) -> String {
        format!("{} [{} {reference}]", self.text(language), self.code())
    }

    /// Whether this is worth an event of its own, or everyday traffic (a client that looks whether a name exists).
    #[must_use]
    pub const fn is_everyday(&self) -> bool {
        match self {
            Self::NotFound
            | Self::AlreadyExists
            | Self::NotEmpty
            | Self::IsAFolder
            | Self::NotAFolder
            | Self::CannotLink
            | Self::Unsupported
            | Self::BadHandle => true,
            Self::ReadOnly
            | Self::OtherProject
            | Self::NotReleased
            | Self::NoLongerKept
            | Self::BadName(_)
            | Self::Busy
            | Self::TakenOver
            | Self::StillIncomplete
            | Self::TooManyHandles { .. }
            | Self::Infected { .. }
            | Self::ScannerLimit { .. }
            | Self::EncryptedContent
            | Self::RejectedByOperator
            | Self::Quota { .. }
            | Self::TooLarge { .. }
            | Self::Extension { .. }
            | Self::NoSpace
            | Self::Backlog { .. }
            | Self::Damaged
            | Self::AccountEnded
            | Self::ShuttingDown
            | Self::Internal => false,
        }
    }

    /// The sentences without code and id.
    #[must_use]
    pub fn text(&self, language: Language) -> String {
        match language {
            Language::De => self.german(),
            Language::En => self.english(),
        }
    }

    fn german(&self) -> String {
        match self {
            Self::NotFound => "Diese Datei oder dieser Ordner existiert nicht.".to_owned(),
            Self::AlreadyExists => "Dieser Name existiert schon. Bitte einen anderen wählen.".to_owned(),
            Self::ReadOnly => "Hier kann nur gelesen werden. Bitte Dateien in den Ordner „Eingehend“ des Auftrags legen.".to_owned(),
            Self::NotReleased => "Diese Datei ist noch nicht geprüft und freigegeben. Bitte später noch einmal versuchen.".to_owned(),
            Self::NoLongerKept => "Diese Datei wurde an die Produktion übergeben und wird hier nicht mehr aufbewahrt. Wird sie noch gebraucht, bitte die Druckerei anrufen; eine neue Fassung bitte vollständig senden.".to_owned(),
            Self::BadName(error) => error.german(),
            Self::Busy => "In diese Datei wird gerade von einer anderen Verbindung geschrieben. Bitte warten und noch einmal senden.".to_owned(),
            Self::TakenOver => "Eine neuere Verbindung hat diese Datei übernommen. Hier ist nichts mehr zu tun.".to_owned(),
            Self::StillIncomplete => "Es kamen keine neuen Daten; die Datei ist noch unvollständig. Bitte fortsetzen oder vollständig neu senden.".to_owned(),
            Self::NotEmpty => "Der Ordner ist nicht leer. Bitte zuerst den Inhalt löschen.".to_owned(),
            Self::IsAFolder => "Das ist ein Ordner, keine Datei.".to_owned(),
            Self::NotAFolder => "Das ist kein Ordner.".to_owned(),
            Self::CannotLink => "Verknüpfungen gibt es in diesem Portal nicht. Bitte die Datei selbst hochladen.".to_owned(),
            Self::OtherProject => "Dateien bleiben bei ihrem Auftrag. Bitte die Datei im anderen Auftrag neu hochladen.".to_owned(),
            Self::Unsupported => "Dieser Befehl wird nicht unterstützt.".to_owned(),
            Self::BadHandle => "Diese Datei ist nicht (mehr) geöffnet.".to_owned(),
            Self::TooManyHandles { limit } => format!("Es sind schon {limit} Dateien gleichzeitig geöffnet. Bitte zuerst eine schließen."),
            Self::Infected { signature } => format!("Virus gefunden: {signature}. Die Datei wurde nicht angenommen. Bitte den eigenen Rechner prüfen und eine saubere Datei senden."),
            Self::ScannerLimit { limit } => format!("Die Datei kann nicht vollständig auf Viren geprüft werden ({limit}) und wurde nicht angenommen. Bitte kleiner oder aufgeteilt senden oder die Druckerei anrufen."),
            Self::EncryptedContent => "Die Datei ist verschlüsselt und kann nicht auf Viren geprüft werden. Sie wurde nicht angenommen. Bitte ohne Kennwort senden.".to_owned(),
            Self::RejectedByOperator => "Die Druckerei hat diese Datei abgelehnt. Bitte dort nachfragen.".to_owned(),
            Self::Quota { limit } => format!("Der Speicherplatz Ihres Zugangs ({}) reicht nicht aus. Bitte alte Dateien löschen oder die Druckerei anrufen.", size(*limit, Language::De)),
            Self::TooLarge { limit } => format!("Die Datei ist größer als erlaubt ({}). Bitte kleiner oder aufgeteilt senden.", size(*limit, Language::De)),
            Self::Extension { extension } => format!("Dateien mit der Endung „{extension}“ werden nicht angenommen. Bitte ein erlaubtes Format senden."),
            Self::NoSpace => "Auf dem Server ist kein Speicherplatz frei. Die Druckerei ist informiert; bitte später noch einmal senden.".to_owned(),
            Self::Backlog { limit } => format!("Die Virenprüfung ist nicht erreichbar und es warten schon {} ungeprüft. Bitte später noch einmal senden.", size(*limit, Language::De)),
            Self::Damaged => "Die Datei konnte auf dem Server nicht vollständig gespeichert werden. Bitte noch einmal senden.".to_owned(),
            Self::AccountEnded => "Dieser Zugang ist nicht mehr aktiv. Bitte die Druckerei anrufen.".to_owned(),
            Self::ShuttingDown => "Der Server wird gerade neu gestartet. Bitte in einer Minute noch einmal versuchen.".to_owned(),
            Self::Internal => "Auf dem Server ist ein Fehler aufgetreten. Bitte noch einmal versuchen; hilft das nicht, der Druckerei die Nummer nennen.".to_owned(),
        }
    }

    fn english(&self) -> String {
        match self {
            Self::NotFound => "This file or folder does not exist.".to_owned(),
            Self::AlreadyExists => "This name exists already. Please choose another.".to_owned(),
            Self::ReadOnly => "This place is read-only. Please put files into the order's upload folder.".to_owned(),
            Self::NotReleased => "This file has not been checked and released yet. Please try again later.".to_owned(),
            Self::NoLongerKept => "This file was handed over to production and is no longer kept here. If you still need it, please call the print shop; please send a new version as a whole.".to_owned(),
            Self::BadName(error) => error.english(),
            Self::Busy => "Another connection is writing this file now. Please wait and send it again.".to_owned(),
            Self::TakenOver => "A newer connection has taken this file over. Nothing is left to do here.".to_owned(),
            Self::StillIncomplete => "No new data came; the file is still incomplete. Please resume it or send it anew as a whole.".to_owned(),
            Self::NotEmpty => "The folder is not empty. Please delete its content first.".to_owned(),
            Self::IsAFolder => "This is a folder, not a file.".to_owned(),
            Self::NotAFolder => "This is not a folder.".to_owned(),
            Self::CannotLink => "There are no links in this portal. Please upload the file itself.".to_owned(),
            Self::OtherProject => "Files stay with their order. Please upload the file to the other order anew.".to_owned(),
            Self::Unsupported => "This command is not supported.".to_owned(),
            Self::BadHandle => "This file is not open (any more).".to_owned(),
            Self::TooManyHandles { limit } => format!("{limit} files are open already. Please close one first."),
            Self::Infected { signature } => format!("Virus found: {signature}. The file was not accepted. Please check your computer and send a clean file."),
            Self::ScannerLimit { limit } => format!("The file cannot be checked completely for viruses ({limit}) and was not accepted. Please send it smaller or in parts, or call the print shop."),
            Self::EncryptedContent => "The file is encrypted and cannot be checked for viruses. It was not accepted. Please send it without a password.".to_owned(),
            Self::RejectedByOperator => "The print shop has rejected this file. Please ask there.".to_owned(),
            Self::Quota { limit } => format!("The space of your account ({}) is not enough. Please delete old files or call the print shop.", size(*limit, Language::En)),
            Self::TooLarge { limit } => format!("The file is larger than allowed ({}). Please send it smaller or in parts.", size(*limit, Language::En)),
            Self::Extension { extension } => format!("Files ending in \"{extension}\" are not accepted. Please send an allowed format."),
            Self::NoSpace => "The server has no free space. The print shop has been told; please send it again later.".to_owned(),
            Self::Backlog { limit } => format!("The virus check cannot be reached and {} wait unchecked already. Please send it again later.", size(*limit, Language::En)),
            Self::Damaged => "The file could not be stored completely on the server. Please send it again.".to_owned(),
            Self::AccountEnded => "This account is not active any more. Please call the print shop.".to_owned(),
            Self::ShuttingDown => "The server is being restarted. Please try again in a minute.".to_owned(),
            Self::Internal => "An error happened on the server. Please try again; if that does not help, tell the print shop the number.".to_owned(),
        }
    }
}

/// A size for people: `12,5 MiB`.
#[must_use]
pub fn size(bytes: u64, language: Language) -> String {
    const UNITS: [&str; 5] = ["", "KiB", "MiB", "GiB", "TiB"];
    let (byte, decimal) = match language {
        Language::De => ("Byte", ','),
        Language::En => ("bytes", '.'),
    };
    let mut tenths = u128::from(bytes).saturating_mul(10);
    let mut unit = 0usize;
    while tenths >= 10_240 && unit < 4 {
        tenths = tenths.saturating_add(512).checked_div(1024).unwrap_or(0);
        unit = unit.saturating_add(1);
    }
    let name = match unit {
        0 => byte,
        _ => UNITS.get(unit).copied().unwrap_or("TiB"),
    };
    let (whole, tenth) = (tenths.checked_div(10).unwrap_or(0), tenths.checked_rem(10).unwrap_or(0));
    if tenth == 0 { format!("{whole} {name}") } else { format!("{whole}{decimal}{tenth} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_with_its_code_and_the_id() {
        let refusal = Refusal::Infected { signature: "Eicar-Test-Signature".to_owned() };
        let told = refusal.told(Language::De, "01JDB6Z9W4");
        assert!(told.starts_with("Virus gefunden: Eicar-Test-Signature. "), "{told}");
        assert!(told.ends_with(" [virus-found 01JDB6Z9W4]"), "{told}");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(0, Language::De), "0 Byte");
        assert_eq!(size(1536, Language::De), "1,5 KiB");
        assert_eq!(size(50 << 30, Language::En), "50 GiB");
    }
}
