//! `/clients` and `/accounts`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::problem::{Problem, body};
use crate::app::clients::{ClientChange, Refused};
use crate::app::views;
use crate::domain::account::{Language, Status};
use crate::domain::announcement::{self, ClientPart};

/// A client without its number, which stands in the address.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    name: Option<String>,
    email: Option<String>,
    create_hotfolder: Option<bool>,
    hotfolder_delete_in_days: Option<u32>,
    language: Option<Language>,
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(no): Path<String>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(views::client(&api.client(&no).await?)))
}

/// Makes or changes a client; absent fields stay, or come from the system default.
pub(super) async fn put(
    State(api): State<Api>,
    Path(no): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let fields: Fields = announcement::json(&body(&headers, bytes)?)?;
    let part = ClientPart {
        client_no: no,
        name: fields.name,
        email: fields.email,
        create_hotfolder: fields.create_hotfolder,
        hotfolder_delete_in_days: fields.hotfolder_delete_in_days,
        language: fields.language,
    };
    let part = part.checked()?;
    let change = ClientChange {
        name: part.name,
        email: part.email,
        create_hotfolder: part.create_hotfolder,
        delete_in_days: part.hotfolder_delete_in_days,
        language: part.language,
    };
    match api.set_client(&part.client_no, &change).await {
        Ok(row) => Ok(Json(views::client(&row)).into_response()),
        Err(Refused::Missing(_)) => {
            match api.add_client(&part.client_no, &change).await {
                Ok(row) => Ok((StatusCode::CREATED, Json(views::client(&row))).into_response()),
                // Another one was faster: now it is there.
                Err(Refused::Conflict(_)) => {
                    let row = api.set_client(&part.client_no, &change).await?;
                    Ok(Json(views::client(&row)).into_response())
                }
                Err(refused) => Err(refused.into()),
            }
        }
        Err(refused) => Err(refused.into()),
    }
}

pub(super) async fn enable(
    State(api): State<Api>,
    Path(user): Path<String>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(views::account(&api.set_account_status(&user, Status::Active).await?)))
}

pub(super) async fn disable(
    State(api): State<Api>,
    Path(user): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = api.set_account_status(&user, Status::Inactive).await?;
    api.changes_wake.notify_one();
    Ok(Json(views::account(&row)))
}

pub(super) async fn link(
    State(api): State<Api>,
    Path(user): Path<String>,
) -> Result<Json<Value>, Problem> {
    let link = api.make_link(&user).await?;
    Ok(Json(json!({"username": user, "link": link})))
}
