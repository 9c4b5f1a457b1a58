//! The picture: what is wrong, and everything that runs and waits.

use axum::Extension;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::entry::{Operator, is_ours};
use super::{Desk, language, page, problem, see_other};
use crate::app::control;
use crate::app::picture::Picture;
use crate::app::transfers::TransferView;
use crate::app::troubles::Trouble;
use crate::app::views;
use crate::domain::account::Language;
use crate::domain::refusal;
use crate::domain::time::Timestamp;
use crate::store::desk::OpenDelivery;
use crate::store::events::EventRow;
use crate::store::sessions::SessionRow;
use crate::store::unsigned;
use crate::store::uploads::UploadRow;

/// Events on the page; more with `ptportal events`.
const EVENTS: usize = 40;

/// How the overview is looked at.
#[derive(Deserialize)]
pub(super) struct Look {
    /// Anything: the page is loaded again and again.
    live: Option<String>,
}

/// Seconds between two looks of a page that is live.
const AGAIN: HeaderValue = HeaderValue::from_static("10");

pub(super) async fn show(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    Query(look): Query<Look>,
    headers: HeaderMap,
) -> Response {
    let language = language(&desk, &headers);
    let reader = (language, Some(&operator));
    let is_live = look.live.is_some();
    match desk.lookout.lock().await.look().await {
        Ok(picture) => {
            let mut all = values(&picture, language);
            if let Some(map) = all.as_object_mut() {
                map.insert("is_live".to_owned(), is_live.into());
            }
            let mut shown = page(&desk, reader, (StatusCode::OK, "board.html"), all);
            if is_live {
                shown.headers_mut().insert(header::REFRESH, AGAIN);
            }
            shown
        }
        Err(error) => {
            tracing::error!(%error, "the picture cannot be read");
            let text = format!("the database does not answer: {error}");
            problem(&desk, reader, StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }
}

/// To the second, as people read it.
pub(super) fn moment(at: i64) -> String {
    if at == 0 {
        return String::new();
    }
    let text = Timestamp(at).to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

fn values(picture: &Picture, language: Language) -> Value {
    let size = |bytes: u64| refusal::size(bytes, language);
    let trouble = |t: &Trouble| {
        json!({
            "what": t.what(language), "why": t.why, "remedy": t.remedy(language),
            "since": moment(t.since.0), "is_grave": t.kind.is_grave(),
        })
    };
    let session = |s: &SessionRow| json!({"username": s.username, "client_no": s.client_no, "protocol": s.protocol, "peer": s.peer, "since": moment(s.created)});
    let transfer = |t: &TransferView| {
        json!({
            "username": t.username, "client_no": t.client_no, "path": t.path, "is_up": t.direction == "up",
            "done": size(t.done), "total": t.total.map(size), "speed": size(t.speed), "left": t.seconds_left(),
        })
    };
    let upload = |u: &UploadRow| {
        json!({
            "id": u.id, "client_no": u.client_no, "path": format!("/{}/{}", u.project_no, u.path),
            "size": size(unsigned(u.size)), "since": moment(u.completed), "attempts": u.scan_attempts,
            "why": if u.signature.is_empty() { &u.reason } else { &u.signature },
            "is_running": picture.scanning.contains(&u.id),
        })
    };
    let delivery = |d: &OpenDelivery| {
        json!({
            "id": d.id, "upload_id": d.upload_id, "client_no": d.client_no, "state": d.state,
            "path": format!("/{}/{}", d.project_no, d.path), "attempts": d.attempts, "why": d.last_error,
            "since": moment(d.created), "next_try": moment(d.next_try),
        })
    };
    json!({
        "time": moment(picture.time.0),
        "servers": picture.servers.iter().map(|s| format!("{} ({})", s.host, s.pid)).collect::<Vec<_>>(),
        "scanner": picture.scanner,
        "troubles": picture.troubles.iter().map(trouble).collect::<Vec<_>>(),
        "sessions": picture.sessions.iter().map(session).collect::<Vec<_>>(),
        "transfers": picture.transfers.iter().map(transfer).collect::<Vec<_>>(),
        "held": picture.held.iter().map(upload).collect::<Vec<_>>(),
        "held_count": picture.count("held"),
        "scans": picture.scans.iter().map(upload).collect::<Vec<_>>(),
        "scan_count": picture.count("scanning"),
        "deliveries": picture.deliveries.iter().map(delivery).collect::<Vec<_>>(),
        "events": picture.events.iter().take(EVENTS).map(event).collect::<Vec<_>>(),
    })
}

/// An event as a line of a table.
pub(super) fn event(row: &EventRow) -> Value {
    let path = match (row.project_no.as_str(), row.path.as_str()) {
        ("", path) => path.to_owned(),
        (project, path) => format!("/{project}/{}", path.trim_start_matches('/')),
    };
    json!({
        "time": moment(row.time), "kind": row.kind, "client_no": row.client_no, "username": row.username,
        "upload_id": row.upload_id, "path": path, "peer": row.peer, "said": views::event_words(row).join(", "),
    })
}

#[derive(Deserialize)]
pub(super) struct RetryForm {
    #[serde(default)]
    csrf: String,
    /// Empty: all.
    #[serde(default)]
    id: String,
}

pub(super) async fn retry(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    headers: HeaderMap,
    Form(form): Form<RetryForm>,
) -> Response {
    let reader = (language(&desk, &headers), Some(&operator));
    if !is_ours(&operator, &form.csrf) {
        return problem(&desk, reader, StatusCode::FORBIDDEN, "reload the page and try again");
    }
    match desk.app.retry_deliveries(&form.id).await {
        Ok(_) => {
            control::wake(&desk.app.config.data_dir).await;
            see_other("/#deliveries")
        }
        Err(refused) => problem(&desk, reader, StatusCode::CONFLICT, &refused.to_string()),
    }
}
