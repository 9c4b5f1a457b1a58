//! What a customer reads from this front and no other, in German and English.

use crate::domain::account::Language;

/// 230.
#[must_use]
pub(super) const fn welcome(language: Language) -> &'static str {
    match language {
        Language::De => "Angemeldet. Bitte Dateien in den Ordner „Eingehend“ des Auftrags legen.",
        Language::En => "Logged in. Please put files into the order's upload folder.",
    }
}

/// 426 for an upload.
#[must_use]
pub(super) fn upload_cut(language: Language, reference: &str) -> String {
    let text = match language {
        Language::De => {
            "Die Übertragung brach ab, die Datei ist unvollständig. Bitte fortsetzen oder neu senden."
        }
        Language::En => {
            "The transfer broke off, the file is incomplete. Please resume it or send it anew."
        }
    };
    format!("{text} [transfer-aborted {reference}]")
}

/// 554: nothing can go on at the restart point.
#[must_use]
pub(super) fn bad_restart(language: Language, present: u64) -> String {
    match language {
        Language::De => {
            format!(
                "Dort kann nicht fortgesetzt werden; vorhanden sind {present} Bytes. [bad-restart]"
            )
        }
        Language::En => {
            format!("Nothing can go on at that place; {present} bytes are here. [bad-restart]")
        }
    }
}

/// 421 when nothing was asked for too long.
#[must_use]
pub(super) fn idle(language: Language, seconds: u64) -> String {
    match language {
        Language::De => {
            format!("{seconds} Sekunden lang kam kein Befehl; die Verbindung wird beendet.")
        }
        Language::En => format!("No command came for {seconds} seconds; the connection ends."),
    }
}
