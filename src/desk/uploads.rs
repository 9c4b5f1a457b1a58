//! One upload with everything about it, and what an operator decides.

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::board::moment;
use super::entry::{Operator, is_ours};
use super::{Desk, language, page, problem, see_other};
use crate::app::control;
use crate::domain::refusal;
use crate::domain::upload::UploadState;
use crate::store::{deliveries, unsigned};

pub(super) async fn show(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let language = language(&desk, &headers);
    let reader = (language, Some(&operator));
    let row = match desk.app.upload_row(&id).await {
        Ok(row) => row,
        Err(refused) => {
            return problem(&desk, reader, StatusCode::NOT_FOUND, &refused.to_string());
        }
    };
    let placed = deliveries::of_upload(desk.app.store.db(), &row.id).await.unwrap_or_default();
    let placed: Vec<_> = placed
        .iter()
        .map(|d| {
            json!({
                "consumer": d.consumer, "state": d.state, "attempts": d.attempts, "why": d.last_error,
                "placed": d.placed_name, "taken": moment(d.taken),
            })
        })
        .collect();
    let state = row.state();
    let values = json!({
        "id": row.id, "client_no": row.client_no, "username": row.username,
        "path": format!("/{}/{}", row.project_no, row.path), "version": row.version, "state": row.state,
        "size": refusal::size(unsigned(row.size), language), "sha256": row.sha256, "verdict": row.verdict,
        "signature": row.signature, "reason": row.reason, "scanner": row.scanner, "waived_by": row.waived_by,
        "protocol": row.protocol, "peer": row.peer, "started": moment(row.started),
        "completed": moment(row.completed), "released": moment(row.released),
        "delivered": moment(row.delivered), "deliveries": placed,
        "may_release": matches!(state, Some(UploadState::Held | UploadState::Scanning)),
        "may_reject": matches!(state, Some(UploadState::Held | UploadState::Scanning)),
        "is_infected": state == Some(UploadState::Infected),
    });
    page(&desk, reader, (StatusCode::OK, "upload.html"), values)
}

#[derive(Deserialize)]
pub(super) struct Decision {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    decision: String,
    #[serde(default)]
    reason: String,
    /// Of a signature that is certainly wrong.
    #[serde(default)]
    false_positive: String,
}

pub(super) async fn decide(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<Decision>,
) -> Response {
    let reader = (language(&desk, &headers), Some(&operator));
    if !is_ours(&operator, &form.csrf) {
        return problem(&desk, reader, StatusCode::FORBIDDEN, "reload the page and try again");
    }
    let (app, by) = (&desk.app, (operator.name.as_str(), form.reason.as_str()));
    let decided = match form.decision.as_str() {
        "release" => app.release_upload(&id, by, !form.false_positive.is_empty()).await,
        "reject" => app.reject_upload(&id, by).await,
        "retry" => app.retry_upload(&id).await,
        _ => return problem(&desk, reader, StatusCode::BAD_REQUEST, "unknown decision"),
    };
    match decided {
        Ok(row) => {
            control::wake(&app.config.data_dir).await;
            see_other(&format!("/uploads/{}", row.id))
        }
        Err(refused) => problem(&desk, reader, StatusCode::CONFLICT, &refused.to_string()),
    }
}
