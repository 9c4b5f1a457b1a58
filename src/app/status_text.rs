//! `Status.txt`: what a customer who has nothing but FileZilla should know (spec section 6).

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::tree::is_temporary;
use crate::domain::account::Language;
use crate::domain::event::EventKind;
use crate::domain::refusal;
use crate::domain::time::Timestamp;
use crate::domain::upload::UploadState;
use crate::store::orders::{self, ProjectRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, deliveries, events, unsigned};

/// Uploads listed at most, newest first.
const SHOWN: i64 = 200;
/// Refusals shown, and how far back.
const REFUSALS_SHOWN: i64 = 20;
const REFUSALS_SINCE: Duration = Duration::from_secs(24 * 3600);
/// Temporary names are mentioned when they are older.
const TEMPORARY_AFTER: i64 = 15 * 60 * 1000;

/// The text, and when what it tells changed last: clients that copy what is newer look at that.
#[derive(Debug, Clone)]
pub(super) struct StatusText {
    pub(super) text: Arc<str>,
    pub(super) changed: Timestamp,
}

/// Writes the text of one project. Lines end with CR LF, so that Windows' editor shows them.
pub(super) async fn compose(
    app: &App,
    project: &ProjectRow,
    language: Language,
) -> store::Result<StatusText> {
    let tickets = orders::tickets(app.store.db(), &project.project_no).await?;
    let rows = uploads::of_project(app.store.db(), &project.project_no, SHOWN).await?;
    let mut lines = header(project, language);
    for ticket in &tickets {
        lines.push(format!(
            "  {} {}: {}",
            word(language, "Teil", "Part"),
            ticket.ticket_no,
            one_line(&ticket.job_description)
        ));
    }
    lines.push(String::new());
    lines.push(word(language, "Ihre Dateien:", "Your files:").to_owned());
    if rows.is_empty() {
        lines.push(word(language, "  noch keine", "  none yet").to_owned());
    }
    let now = app.now();
    for row in &rows {
        lines.push(line(app, row, language, now).await?);
    }
    lines.push(String::new());
    let refused = refusals(app, project, now).await?;
    lines.extend(refusal_lines(&refused, language));
    let shop = match app.config.portal.contact.as_str() {
        "" => String::new(),
        contact => format!(" ({contact})"),
    };
    lines.push(match language {
        Language::De => format!(
            "Fragen? Bitte rufen Sie die Druckerei an{shop} und nennen Sie die Nummer in eckigen Klammern."
        ),
        Language::En => format!(
            "Questions? Please call the print shop{shop} and tell the number in square brackets."
        ),
    });
    lines.push(String::new());
    let changed = rows.iter().map(|row| row.updated);
    let changed = changed.chain(tickets.iter().map(|ticket| ticket.updated));
    let changed = changed.chain(refused.iter().map(|row| row.time)).max();
    let changed = Timestamp(changed.unwrap_or(project.updated).max(project.updated));
    Ok(StatusText { text: lines.join("\r\n").into(), changed })
}

fn word(language: Language, german: &'static str, english: &'static str) -> &'static str {
    match language {
        Language::De => german,
        Language::En => english,
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn header(project: &ProjectRow, language: Language) -> Vec<String> {
    let mut lines = vec![format!("{} {}", word(language, "Auftrag", "Order"), project.project_no)];
    if !project.job_description.is_empty() {
        lines.push(one_line(&project.job_description));
    }
    let wanted = match (language, project.due_date.as_str()) {
        (Language::De, "") => "Bitte laden Sie Ihre Daten in den Ordner „Eingehend“.".to_owned(),
        (Language::De, due) => {
            format!("Bitte laden Sie Ihre Daten bis {due} in den Ordner „Eingehend“.")
        }
        (Language::En, "") => "Please upload your data to the upload folder.".to_owned(),
        (Language::En, due) => format!("Please upload your data to the upload folder until {due}."),
    };
    lines.push(wanted);
    lines
}

/// What was refused in the last day: FileZilla's log is gone by the time somebody asks.
async fn refusals(
    app: &App,
    project: &ProjectRow,
    now: Timestamp,
) -> store::Result<Vec<events::EventRow>> {
    let filter = events::Filter {
        since: now.minus(REFUSALS_SINCE).0,
        client_no: project.client_no.clone(),
        project_no: project.project_no.clone(),
        kind: EventKind::UploadRefused.as_str().to_owned(),
        limit: REFUSALS_SHOWN,
        ..events::Filter::default()
    };
    events::list(app.store.db(), &filter).await
}

/// Newest first.
fn refusal_lines(rows: &[events::EventRow], language: Language) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![word(language, "Nicht angenommen:", "Not accepted:").to_owned()];
    for row in rows.iter().rev() {
        let detail: serde_json::Value = serde_json::from_str(&row.detail).unwrap_or_default();
        let text = detail.get("text").and_then(|t| t.as_str()).unwrap_or_default();
        let (time, path) = (minute(row.time), one_line(&row.path));
        lines.push(format!("  {time} UTC  {path}: {}", one_line(text)));
    }
    lines.push(String::new());
    lines
}

/// `2026-11-24 08:15`
pub(super) fn minute(time: i64) -> String {
    Timestamp(time).to_string().chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

async fn line(
    app: &App,
    row: &UploadRow,
    language: Language,
    now: Timestamp,
) -> store::Result<String> {
    let decimal = match language {
        Language::De => ',',
        Language::En => '.',
    };
    let moment = Timestamp(if row.completed == 0 { row.started } else { row.completed });
    let state = in_words(app, row, language, now).await?;
    let time = minute(moment.0);
    let size = refusal::size(unsigned(row.size), decimal);
    Ok(format!("  {time} UTC  {}  ({size}): {state} [{}]", one_line(&row.path), row.id))
}

/// The state of an upload in plain words.
pub(super) async fn in_words(
    app: &App,
    row: &UploadRow,
    language: Language,
    now: Timestamp,
) -> store::Result<String> {
    let name = row.path.rsplit('/').next().unwrap_or_default();
    let text = match row.state() {
        Some(UploadState::Receiving) => {
            word(language, "wird empfangen", "being received").to_owned()
        }
        Some(UploadState::Incomplete) => word(
            language,
            "unvollständig, die Verbindung brach ab; bitte fortsetzen oder neu senden",
            "incomplete, the connection broke; please resume or send again",
        )
        .to_owned(),
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
            Language::De => format!("abgelehnt: {}", row.reason),
            Language::En => format!("refused: {}", row.reason),
        },
        Some(UploadState::Deleted) | None => word(language, "gelöscht", "deleted").to_owned(),
    };
    Ok(text)
}

async fn released(
    app: &App,
    row: &UploadRow,
    (name, language): (&str, Language),
    now: Timestamp,
) -> store::Result<String> {
    let placed = deliveries::of_upload(app.store.db(), &row.id).await?;
    let delivered_as = placed.iter().find(|d| d.state == "done").map(|d| d.placed_name.clone());
    if let Some(placed_name) = delivered_as {
        let old = placed_name.rsplit('/').next().unwrap_or_default().to_owned();
        let is_renamed = crate::domain::hotname::safe_file_name(name).as_str() != old;
        return Ok(match (language, is_renamed) {
            (Language::De, false) => "an die Produktion übergeben".to_owned(),
            (Language::De, true) => format!("an die Produktion übergeben als {old}"),
            (Language::En, false) => "handed over to production".to_owned(),
            (Language::En, true) => format!("delivered as {old}"),
        });
    }
    if is_temporary(app, name) && now.0.saturating_sub(row.completed) > TEMPORARY_AFTER {
        let text = word(
            language,
            "geprüft, hat aber noch einen vorläufigen Namen; bitte umbenennen oder neu senden",
            "checked, but it still has a temporary name; please rename it or send it again",
        );
        return Ok(text.to_owned());
    }
    Ok(word(
        language,
        "geprüft, wird an die Produktion übergeben",
        "checked, being handed over to production",
    )
    .to_owned())
}
