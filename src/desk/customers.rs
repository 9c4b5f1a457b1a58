//! Customers: found by whatever they say on the telephone; what keeps them out; and what they see.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::board::{event, moment};
use super::entry::Operator;
use super::{Desk, language, page, problem};
use crate::app::diagnosis::Diagnosis;
use crate::domain::account::Language;

/// Customers shown at once.
const SHOWN: usize = 100;

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    q: String,
}

pub(super) async fn search(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    Query(search): Query<Search>,
    headers: HeaderMap,
) -> Response {
    let reader = (language(&desk, &headers), Some(&operator));
    let found = match desk.app.find_clients(&search.q).await {
        Ok(found) => found,
        Err(refused) => {
            return problem(&desk, reader, StatusCode::SERVICE_UNAVAILABLE, &refused.to_string());
        }
    };
    let more = found.len().saturating_sub(SHOWN);
    let clients: Vec<_> = found
        .iter()
        .take(SHOWN)
        .map(|(client, accounts)| {
            let names: Vec<&str> = accounts.iter().map(|a| a.username.as_str()).collect();
            json!({
                "client_no": client.client_no, "name": client.name, "email": client.email,
                "accounts": names.join(", "), "link": link_to(&client.client_no),
            })
        })
        .collect();
    let values = json!({"q": search.q, "clients": clients, "more": more});
    page(&desk, reader, (StatusCode::OK, "customers.html"), values)
}

/// Numbers may hold any character.
fn link_to(client_no: &str) -> String {
    format!("/customers/{}", utf8_percent_encode(client_no, NON_ALPHANUMERIC))
}

pub(super) async fn show(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    Path(client_no): Path<String>,
    headers: HeaderMap,
) -> Response {
    let language = language(&desk, &headers);
    let reader = (language, Some(&operator));
    let (client, found) = match desk.app.diagnose(&client_no).await {
        Ok(found) => found,
        Err(refused) => {
            return problem(&desk, reader, StatusCode::NOT_FOUND, &refused.to_string());
        }
    };
    let accounts: Vec<_> = found.iter().map(|d| account(d, language)).collect();
    let values = json!({
        "client_no": client.client_no, "name": client.name, "email": client.email,
        "accounts": accounts, "link": link_to(&client.client_no),
    });
    page(&desk, reader, (StatusCode::OK, "customer.html"), values)
}

fn account(found: &Diagnosis, language: Language) -> serde_json::Value {
    let row = &found.account;
    let as_user = utf8_percent_encode(&row.username, NON_ALPHANUMERIC);
    let obstacles = found.obstacles.iter().map(|o| o.text(language, &row.username));
    json!({
        "username": row.username, "view": format!("{}/view?user={as_user}", link_to(&row.client_no)), "status": row.status, "obstacles": obstacles.collect::<Vec<_>>(),
        "has_password": !row.password_hash.is_empty(), "keys": found.keys,
        "first_login": moment(row.first_login), "last_login": moment(row.last_login),
        "failed": found.failed.iter().map(event).collect::<Vec<_>>(),
    })
}

#[derive(Deserialize)]
pub(super) struct As {
    #[serde(default)]
    user: String,
}

/// The customer's page, read only, in the customer's language.
pub(super) async fn view(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    Path(client_no): Path<String>,
    Query(wanted): Query<As>,
    headers: HeaderMap,
) -> Response {
    let reader = (language(&desk, &headers), Some(&operator));
    let missing = |text: &str| problem(&desk, reader, StatusCode::NOT_FOUND, text);
    let (client, found) = match desk.app.diagnose(&client_no).await {
        Ok(found) => found,
        Err(refused) => return missing(&refused.to_string()),
    };
    let as_asked = found.iter().find(|d| d.account.username == wanted.user).or(found.first());
    let Some(Diagnosis { account, settings, .. }) = as_asked else {
        return missing("this client has no account");
    };
    let theirs = settings.language.unwrap_or(desk.app.config.language);
    match desk.app.overview(&client.client_no, settings).await {
        Ok(projects) => {
            let values = json!({
                "name": client.name, "username": account.username, "projects": projects,
                "link": link_to(&client.client_no), "theirs_is_german": theirs == Language::De,
            });
            page(&desk, reader, (StatusCode::OK, "view.html"), values)
        }
        Err(error) => {
            tracing::error!(%error, "a customer's projects cannot be read");
            problem(&desk, reader, StatusCode::SERVICE_UNAVAILABLE, "the database does not answer")
        }
    }
}
