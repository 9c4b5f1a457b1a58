//! `/projects`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Api;
use super::problem::{Problem, body};
use crate::app::announce::UnknownClient;
use crate::app::views;
use crate::domain::announcement::Announcement;
use crate::store::orders;

pub(super) async fn announce(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let order = Announcement::from_json(&body(&headers, bytes)?)?;
    let announced = api.announce(&order, None, UnknownClient::Create).await?;
    let shown = views::announced(&announced, &api.folders_of(&announced).await?);
    let status = if announced.is_created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown)).into_response())
}

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let mut rows = Vec::new();
    for row in orders::projects(api.store.db()).await? {
        rows.push(views::project(&row, api.access_of(&row.client_no).await?));
    }
    Ok(Json(Value::from(rows)))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(no): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = api.project(&no).await?;
    let access = api.access_of(&row.client_no).await?;
    let tickets = orders::tickets(api.store.db(), &no).await?;
    Ok(Json(views::project_with_tickets(&row, access, &tickets)))
}

pub(super) async fn close(
    State(api): State<Api>,
    Path(no): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = api.close_project(&no).await?;
    Ok(Json(views::project(&row, api.access_of(&row.client_no).await?)))
}
