//! `Status.txt`: what a customer who has nothing but FileZilla should know (spec section 6).

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::upload_words::{in_words, word};
use crate::domain::account::Language;
use crate::domain::event::EventKind;
use crate::domain::refusal;
use crate::domain::time::Timestamp;
use crate::store::orders::{self, ProjectRow};
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, events, unsigned};

/// Uploads listed at most, newest first.
const SHOWN: i64 = 200;
/// Refusals shown, and how far back.
const REFUSALS_SHOWN: i64 = 20;
const REFUSALS_SINCE: Duration = Duration::from_secs(24 * 3600);

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
    if i64::try_from(rows.len()).is_ok_and(|shown| shown >= SHOWN) {
        lines.push(match language {
            Language::De => format!("  (nur die {SHOWN} neuesten)"),
            Language::En => format!("  (the newest {SHOWN} only)"),
        });
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
    let moment = Timestamp(if row.completed == 0 { row.started } else { row.completed });
    let state = in_words(app, row, language, now).await?;
    let time = minute(moment.0);
    let size = refusal::size(unsigned(row.size), language);
    Ok(format!("  {time} UTC  {}  ({size}): {state} [{}]", one_line(&row.path), row.id))
}
