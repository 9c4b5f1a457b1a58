//! `/activate/TOKEN` and `/link`. GET and HEAD change nothing, however often a mail scanner follows the link.

use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::page::{self, Reader, page, see_other};
use super::{Web, forms};
use crate::app::activation::{Invited, NotSet};
use crate::app::passwords;
use crate::domain::activation::LinkState;
use crate::http::Caller;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PasswordForm {
    csrf: String,
    password: String,
    password_repeat: String,
    /// What the page suggested: it stays the same after a refusal.
    suggestion: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct LinkForm {
    csrf: String,
    username: String,
}

fn minutes(web: &Web) -> u64 {
    web.app.config.portal.link_ttl.as_secs().div_euclid(60).max(1)
}

pub(super) async fn show(
    State(web): State<Web>,
    Path(token): Path<String>,
    headers: HeaderMap,
    reader: Reader,
) -> Response {
    match web.app.look_at_link(&token).await {
        Ok(Ok((_, invited))) => {
            let reader = in_language_of(reader, &headers, &invited);
            form(&web, &reader, (StatusCode::OK, None), (&token, &invited), None)
        }
        Ok(Err(state)) => gone(&web, &reader, state),
        Err(error) => page::busy(&web, &reader, "a link could not be looked at", &error),
    }
}

/// The browser's language, else the account's.
fn in_language_of(reader: Reader, headers: &HeaderMap, invited: &Invited) -> Reader {
    let language = crate::http::accepted_language(headers).unwrap_or(invited.language);
    Reader { language, ..reader }
}

fn form(
    web: &Web,
    reader: &Reader,
    (status, error): (StatusCode, Option<&str>),
    (token, invited): (&str, &Invited),
    suggested: Option<&str>,
) -> Response {
    let suggestion = suggested.filter(|text| passwords::is_suggestion(text));
    let suggestion = suggestion.map_or_else(passwords::suggestion, |text| Ok(text.to_owned()));
    let suggestion = match suggestion {
        Ok(suggestion) => suggestion,
        Err(error) => return page::busy(web, reader, "no password could be suggested", &error),
    };
    let values = json!({
        "action": format!("/activate/{token}"), "username": invited.account.username,
        "client_name": invited.client.name, "suggestion": suggestion, "error": error,
        "minutes": minutes(web), "fingerprints": web.app.host_keys,
    });
    page(web, reader, (status, "activate.html"), values)
}

fn gone(web: &Web, reader: &Reader, state: LinkState) -> Response {
    let status = match state {
        LinkState::Expired | LinkState::Used => StatusCode::GONE,
        LinkState::Unknown | LinkState::Good => StatusCode::NOT_FOUND,
    };
    let values = json!({"reason": state.as_str(), "minutes": minutes(web)});
    page(web, reader, (status, "gone.html"), values)
}

pub(super) async fn submit(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(token): Path<String>,
    headers: HeaderMap,
    reader: Reader,
    filled: Result<Form<PasswordForm>, FormRejection>,
) -> Response {
    let filled = match filled {
        Ok(Form(filled)) => filled,
        Err(rejection) => return forms::unreadable(&web, &reader, &rejection),
    };
    // The link is the secret here; this only keeps other sites' pages out.
    if let Some(refused) = forms::check_open(&web, &reader, &headers, &filled.csrf) {
        return refused;
    }
    let (reader, invited) = match web.app.look_at_link(&token).await {
        Ok(Ok((_, invited))) => (in_language_of(reader, &headers, &invited), invited),
        Ok(Err(state)) => return gone(&web, &reader, state),
        Err(error) => return page::busy(&web, &reader, "a link could not be looked at", &error),
    };
    let again = |text: &str| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let suggested = Some(filled.suggestion.as_str());
        form(&web, &reader, (status, Some(text)), (&token, &invited), suggested)
    };
    if filled.password != filled.password_repeat {
        return again(reader.say(
            "Die beiden Passwörter sind nicht gleich. Bitte geben Sie beide Male dasselbe ein.",
            "The two passwords differ. Please enter the same one twice.",
        ));
    }
    match web.app.activate(&token, &filled.password, &caller.address.to_string()).await {
        Ok(_) => see_other("/?notice=activated"),
        Err(NotSet::Bad(bad)) => again(bad.text(reader.language)),
        Err(NotSet::Gone(state)) => gone(&web, &reader, state),
        Err(NotSet::Busy(error)) => {
            page::busy(&web, &reader, "a password could not be set", &error)
        }
    }
}

fn link_page(
    web: &Web,
    reader: &Reader,
    (status, state): (StatusCode, &str),
    username: &str,
) -> Response {
    let values = json!({"state": state, "username": username, "minutes": minutes(web)});
    page(web, reader, (status, "link.html"), values)
}

pub(super) async fn show_link(State(web): State<Web>, reader: Reader) -> Response {
    link_page(&web, &reader, (StatusCode::OK, "form"), "")
}

/// One sentence and one time for every name: who has an account is looked up later.
pub(super) async fn ask(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    reader: Reader,
    filled: Result<Form<LinkForm>, FormRejection>,
) -> Response {
    let filled = match filled {
        Ok(Form(filled)) => filled,
        Err(rejection) => return forms::unreadable(&web, &reader, &rejection),
    };
    if let Some(refused) = forms::check_open(&web, &reader, &headers, &filled.csrf) {
        return refused;
    }
    let username: String = filled.username.trim().chars().take(256).collect();
    if web.links.is_too_often(caller.address) {
        let state = (StatusCode::TOO_MANY_REQUESTS, "limited");
        let mut response = link_page(&web, &reader, state, &username);
        let wait = header::HeaderValue::from_static("3600");
        response.headers_mut().insert(header::RETRY_AFTER, wait);
        return response;
    }
    let peer = caller.address.to_string();
    match web.app.ask_for_link(&username, &peer).await {
        // The name is not repeated: the page is the same for all.
        Ok(()) => link_page(&web, &reader, (StatusCode::OK, "sent"), ""),
        Err(error) => page::busy(&web, &reader, "a wish for a link could not be noted", &error),
    }
}
