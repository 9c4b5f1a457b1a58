//! The state of an upload in plain words, for `Status.txt` and for the customer's page.

use std::fmt;

use super::App;
use super::settle::MIRROR;
use super::tree::is_temporary;
use crate::domain::account::Language;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::store::uploads::UploadRow;
use crate::store::{self, deliveries};

/// Temporary names are mentioned when they are older.
const TEMPORARY_AFTER: i64 = 15 * 60 * 1000;

/// What has become of an upload, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) state: String,
    pub(super) advice: Option<&'static str>,
}

impl From<String> for Words {
    fn from(state: String) -> Self {
        Self { state, advice: None }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.state)?;
        self.advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

/// The text in the reader's language.
pub(super) fn word(
    language: Language,
    german: &'static str,
    english: &'static str,
) -> &'static str {
    match language {
        Language::De => german,
        Language::En => english,
    }
}

/// The state of an upload in plain words.
pub(super) async fn in_words(
    app: &App,
    row: &UploadRow,
    language: Language,
    now: Timestamp,
) -> store::Result<Words> {
    let name = row.path.rsplit('/').next().unwrap_or_default();
    let text = match row.state() {
        Some(UploadState::Receiving) => {
            word(language, "wird empfangen", "being received").to_owned()
        }
        Some(UploadState::Incomplete) => {
            let state = word(
                language,
                "unvollständig, die Verbindung brach ab",
                "incomplete, the connection broke",
            );
            let advice =
                word(language, "bitte fortsetzen oder neu senden", "please resume or send again");
            return Ok(Words { state: state.to_owned(), advice: Some(advice) });
        }
        Some(UploadState::Scanning) => word(
            language,
            "empfangen, wird auf Viren geprüft",
            "received, being checked for viruses",
        )
        .to_owned(),
        Some(UploadState::Released) => return released(app, row, (name, language), now).await,
        Some(UploadState::Infected) => match language {
            Language::De => format!("abgelehnt: Virus gefunden ({})", row.signature),
            Language::En => format!("refused: virus found ({})", row.signature),
        },
        Some(UploadState::Held) => word(
            language,
            "empfangen, wird von der Druckerei geprüft",
            "received, the print shop is checking it",
        )
        .to_owned(),
        Some(UploadState::Rejected) => match language {
            Language::De => format!("abgelehnt: {}", rejected(&row.reason, language)),
            Language::En => format!("refused: {}", rejected(&row.reason, language)),
        },
        Some(UploadState::Deleted) | None => word(language, "gelöscht", "deleted").to_owned(),
    };
    Ok(text.into())
}

/// The codes that may stand in `uploads.reason`, in words; an operator's reason is in words already.
fn rejected(reason: &str, language: Language) -> &str {
    match reason {
        "file-too-large" => word(language, "größer als erlaubt", "larger than allowed"),
        "quota-exceeded" => word(
            language,
            "der Speicherplatz Ihres Zugangs reichte nicht aus",
            "the space of your account was not enough",
        ),
        "write-failed" => word(
            language,
            "konnte auf dem Server nicht gespeichert werden, bitte neu senden",
            "could not be stored on the server, please send it again",
        ),
        "scanner-limit" | "scanner limit exceeded" => word(
            language,
            "kann nicht vollständig auf Viren geprüft werden",
            "cannot be checked completely for viruses",
        ),
        "encrypted" => word(
            language,
            "verschlüsselt, bitte ohne Kennwort senden",
            "encrypted, please send it without a password",
        ),
        words => words,
    }
}

async fn released(
    app: &App,
    row: &UploadRow,
    (name, language): (&str, Language),
    now: Timestamp,
) -> store::Result<Words> {
    if row.protocol == super::publish::PROTOCOL {
        return Ok(word(language, "für Sie bereitgestellt", "ready for you").to_owned().into());
    }
    let placed = deliveries::of_upload(app.store.db(), &row.id).await?;
    let delivery = placed.into_iter().find(|d| d.consumer == MIRROR && d.state == "done");
    if delivery.as_ref().is_some_and(|d| d.taken != 0) {
        return Ok(word(language, "in Bearbeitung genommen", "taken into production")
            .to_owned()
            .into());
    }
    if let Some(placed_name) = delivery.map(|d| d.placed_name) {
        let old = placed_name.rsplit('/').next().unwrap_or_default().to_owned();
        let is_renamed = crate::domain::hotname::safe_file_name(name).as_str() != old;
        let state = match (language, is_renamed) {
            (Language::De, false) => "an die Produktion übergeben".to_owned(),
            (Language::De, true) => format!("an die Produktion übergeben als {old}"),
            (Language::En, false) => "handed over to production".to_owned(),
            (Language::En, true) => format!("delivered as {old}"),
        };
        return Ok(state.into());
    }
    if is_temporary(app, name) && now.0.saturating_sub(row.completed) > TEMPORARY_AFTER {
        let state = word(
            language,
            "geprüft, hat aber noch einen vorläufigen Namen",
            "checked, but it still has a temporary name",
        );
        let advice =
            word(language, "bitte umbenennen oder neu senden", "please rename it or send it again");
        return Ok(Words { state: state.to_owned(), advice: Some(advice) });
    }
    Ok(word(
        language,
        "geprüft, wird an die Produktion übergeben",
        "checked, being handed over to production",
    )
    .to_owned()
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::refusal::Refusal;
    use crate::domain::verdict::HoldReason;

    #[test]
    fn a_reason_is_told_in_words() {
        let codes = [
            Refusal::TooLarge { limit: 1 }.code().to_owned(),
            Refusal::Quota { limit: 1 }.code().to_owned(),
            Refusal::ScannerLimit { limit: String::new() }.code().to_owned(),
            Refusal::Damaged.code().to_owned(),
            HoldReason::ScannerLimit.to_string(),
        ];
        for code in codes {
            assert!(rejected(&code, Language::De).contains(' '), "{code}");
        }
        let encrypted = HoldReason::Encrypted.to_string();
        assert!(rejected(&encrypted, Language::De).contains("ohne Kennwort"));
        assert_eq!(
            rejected("encrypted", Language::En),
            "encrypted, please send it without a password"
        );
        assert_eq!(rejected("Beschnitt fehlt", Language::En), "Beschnitt fehlt");
    }

    #[test]
    fn what_to_do_stands_behind_the_state() {
        let plain = Words::from("abgelehnt: falsch; neu senden".to_owned());
        assert_eq!(
            (plain.to_string().as_str(), plain.advice),
            ("abgelehnt: falsch; neu senden", None)
        );
        let advised =
            Words { state: "unvollständig".to_owned(), advice: Some("bitte fortsetzen") };
        assert_eq!(advised.to_string(), "unvollständig; bitte fortsetzen");
    }
}
