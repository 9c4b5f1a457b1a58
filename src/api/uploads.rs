//! `/uploads`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::Api;
use super::problem::Problem;
use crate::app::views;
use crate::domain::time::{self, Timestamp};
use crate::store::uploads;

/// Uploads in one answer; ask again with the last one's `updated`.
const LISTED: i64 = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    since: Option<String>,
}

/// What has changed since then, oldest change first.
pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(filter) = query.map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{error}; since=… is known"))
    })?;
    let since = match &filter.since {
        None => Timestamp::NEVER,
        Some(text) => time::parse(text).ok_or_else(|| {
            let text = format!("since: {text:?} is not a date; write YYYY-MM-DD or RFC 3339");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text)
        })?,
    };
    let rows = uploads::changed_since(api.store.db(), since, LISTED).await?;
    Ok(Json(rows.iter().map(views::upload).collect()))
}
