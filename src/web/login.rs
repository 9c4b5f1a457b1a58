//! `/`: log in; `/logout`.

use axum::Extension;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::page::{self, Reader, page, see_other};
use super::{Web, forms};
use crate::app::login::LoginRefusal;
use crate::app::web_sessions;
use crate::guard;
use crate::http::Caller;

/// The notice that a page was led here with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Notice {
    notice: String,
}

/// What no page of ours has written says nothing.
pub(super) fn notice_of(query: Result<Query<Notice>, QueryRejection>) -> String {
    query.map(|Query(query)| query.notice).unwrap_or_default()
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct LoginForm {
    csrf: String,
    username: String,
    password: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Bare {
    csrf: String,
}

fn notice(reader: &Reader, name: &str) -> Option<&'static str> {
    match name {
        "activated" => Some(reader.say(
            "Ihr Passwort ist gespeichert. Bitte melden Sie sich damit an; danach sehen Sie Ihre Verbindungsdaten.",
            "Your password is saved. Please log in with it; then you see your connection data.",
        )),
        "logged-out" => Some(reader.say("Sie sind abgemeldet.", "You are logged out.")),
        _ => None,
    }
}

pub(super) async fn show(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Notice>, QueryRejection>,
    headers: HeaderMap,
    reader: Reader,
) -> Response {
    if forms::visitor(&web, &headers, &caller).await.is_some() {
        return see_other("/home");
    }
    let values =
        json!({"error": null, "notice": notice(&reader, &notice_of(query)), "username": ""});
    page(&web, &reader, (StatusCode::OK, "login.html"), values)
}

fn again(web: &Web, reader: &Reader, status: StatusCode, error: &str, username: &str) -> Response {
    let values = json!({"error": error, "notice": null, "username": username});
    page(web, reader, (status, "login.html"), values)
}

pub(super) async fn submit(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    reader: Reader,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return forms::unreadable(&web, &reader, &rejection),
    };
    if let Some(refused) = forms::check_open(&web, &reader, &headers, &form.csrf) {
        return refused;
    }
    let site = &web.app.config.web.base_url;
    if !site.is_https() && !site.is_loopback() {
        let heading = reader.say("Die Verbindung ist nicht sicher", "The connection is not safe");
        let text = reader.say(
            "Eine Anmeldung ist nur über HTTPS möglich. Bitte wenden Sie sich an Ihre Druckerei.",
            "You can log in over HTTPS only. Please contact your print shop.",
        );
        tracing::warn!("a customer cannot log in: web.base_url must begin with https://");
        return page::error(&web, &reader, StatusCode::FORBIDDEN, (heading, text));
    }
    let username: String = form.username.trim().chars().take(256).collect();
    let began = std::time::Instant::now();
    let door = web_sessions::door(caller.address);
    let account = match web.app.login_to_pages(door, &username, &form.password).await {
        Ok(account) => account,
        Err(refusal) => {
            let (status, text) = match refusal {
                LoginRefusal::Rejected => {
                    web.note_failure(&caller).await;
                    let text = reader.say(
                        "Benutzername oder Passwort ist falsch. Bitte versuchen Sie es noch einmal oder fordern Sie einen neuen Link an.",
                        "Username or password is wrong. Please try again or ask for a new link.",
                    );
                    (StatusCode::UNAUTHORIZED, text.to_owned())
                }
                LoginRefusal::Told { text, .. } => (StatusCode::FORBIDDEN, text),
            };
            // Whatever the reason, an answer takes the same time.
            tokio::time::sleep(guard::REJECTION.saturating_sub(began.elapsed())).await;
            return again(&web, &reader, status, &text, &username);
        }
    };
    caller.authenticated();
    match web.app.open_web_session(&account.username).await {
        Ok(token) => page::log_in(&web, &token, "/home"),
        Err(error) => page::busy(&web, &reader, "a session of a page could not be opened", &error),
    }
}

pub(super) async fn log_out(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    reader: Reader,
    form: Result<Form<Bare>, FormRejection>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return forms::unreadable(&web, &reader, &rejection),
    };
    let Some(visitor) = forms::visitor(&web, &headers, &caller).await else {
        return see_other("/?notice=logged-out");
    };
    let reader = Reader::of_visitor(&web, &visitor);
    if let Some(refused) = forms::check_session(&web, &reader, &headers, &form.csrf) {
        return refused;
    }
    if let Err(error) = web.app.close_web_session(&visitor, caller.address).await {
        return page::busy(&web, &reader, "a session of a page could not be closed", &error);
    }
    let mut response = see_other("/?notice=logged-out");
    if let Some(cookie) = forms::no_session_cookie(&web) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
