//! What a customer changes about the account: password and SSH keys.

use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::home::{Problems, home};
use super::page::{self, Reader, see_other};
use super::{Web, forms};
use crate::app::clients::Refused;
use crate::app::web_sessions::{NotChanged, Visitor};
use crate::guard;
use crate::http::Caller;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PasswordForm {
    csrf: String,
    current_password: String,
    password: String,
    password_repeat: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct KeyForm {
    csrf: String,
    key: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RemoveForm {
    csrf: String,
    fingerprint: String,
}

/// The form of a customer who is logged in, or the answer to anything else.
async fn received<T>(
    web: &Web,
    (headers, caller): (&HeaderMap, &Caller),
    reader: Reader,
    form: Result<Form<T>, FormRejection>,
    csrf: impl Fn(&T) -> &str,
) -> Result<(Visitor, Reader, T), Response> {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return Err(forms::unreadable(web, &reader, &rejection)),
    };
    let Some(visitor) = forms::visitor(web, headers, caller).await else {
        return Err(see_other("/"));
    };
    let reader = Reader::of_visitor(web, &visitor);
    match forms::check_session(web, &reader, headers, csrf(&form)) {
        Some(refused) => Err(refused),
        None => Ok((visitor, reader, form)),
    }
}

pub(super) async fn change_password(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    reader: Reader,
    form: Result<Form<PasswordForm>, FormRejection>,
) -> Response {
    let from = (&headers, &caller);
    let received = received(&web, from, reader, form, |form: &PasswordForm| &form.csrf).await;
    let (visitor, reader, form) = match received {
        Ok(received) => received,
        Err(answer) => return answer,
    };
    let status = (StatusCode::UNPROCESSABLE_ENTITY, None);
    let again = async |text: &str| {
        let problems = Problems { password: Some(text), ..Problems::default() };
        home(&web, &reader, &visitor, status, &problems).await
    };
    if form.password != form.password_repeat {
        let text = reader
            .say("Die beiden neuen Passwörter sind nicht gleich.", "The two new passwords differ.");
        return again(text).await;
    }
    // Whoever is logged in is not banned for a slip; but nobody tries passwords here without an end.
    if web.guesses.is_too_often(caller.address) {
        return again(reader.say(
            "Das bisherige Passwort wurde zu oft eingegeben. Bitte versuchen Sie es in einer Stunde noch einmal.",
            "The current password was entered too often. Please try again in an hour.",
        ))
        .await;
    }
    let began = std::time::Instant::now();
    let passwords = (form.current_password.as_str(), form.password.as_str());
    match web.app.change_password(&visitor, passwords, caller.address).await {
        Ok(token) => page::log_in(&web, &token, "/home?notice=password"),
        Err(NotChanged::WrongPassword) => {
            tokio::time::sleep(guard::REJECTION.saturating_sub(began.elapsed())).await;
            let text = reader.say(
                "Das bisherige Passwort ist nicht richtig.",
                "The current password is not right.",
            );
            let problems =
                Problems { password: Some(text), is_current_wrong: true, ..Problems::default() };
            home(&web, &reader, &visitor, status, &problems).await
        }
        Err(NotChanged::Bad(bad)) => again(bad.text(reader.language)).await,
        Err(NotChanged::Failed(error)) => {
            page::busy(&web, &reader, "a password could not be changed", &error)
        }
    }
}

pub(super) async fn add_key(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    reader: Reader,
    form: Result<Form<KeyForm>, FormRejection>,
) -> Response {
    let from = (&headers, &caller);
    let received = received(&web, from, reader, form, |form: &KeyForm| &form.csrf).await;
    let (visitor, reader, form) = match received {
        Ok(received) => received,
        Err(answer) => return answer,
    };
    let username = &visitor.account.username;
    let text = match web.app.add_key(username, &form.key).await {
        Ok(_) => return see_other("/home?notice=key-added"),
        Err(Refused::Store(error)) => {
            return page::busy(&web, &reader, "a key could not be added", &error);
        }
        Err(Refused::Conflict(_)) => reader.say(
            "Dieser Schlüssel ist schon eingetragen, oder es sind schon zu viele.",
            "This key is there already, or there are too many.",
        ),
        Err(Refused::Because(_) | Refused::Missing(_)) => reader.say(
            "Das ist kein öffentlicher SSH-Schlüssel, der hier angenommen wird. Bitte fügen Sie die eine Zeile aus der Datei ein, deren Name auf .pub endet, zum Beispiel „ssh-ed25519 AAAA…“ (RSA ab 2048 Bit).",
            "This is not an SSH public key that is accepted here. Please paste the one line of the file whose name ends with .pub, for example “ssh-ed25519 AAAA…” (RSA from 2048 bits).",
        ),
    };
    let problems = Problems { key: Some(text), refused_key: &form.key, ..Problems::default() };
    home(&web, &reader, &visitor, (StatusCode::UNPROCESSABLE_ENTITY, None), &problems).await
}

pub(super) async fn remove_key(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    reader: Reader,
    form: Result<Form<RemoveForm>, FormRejection>,
) -> Response {
    let from = (&headers, &caller);
    let received = received(&web, from, reader, form, |form: &RemoveForm| &form.csrf).await;
    let (visitor, reader, form) = match received {
        Ok(received) => received,
        Err(answer) => return answer,
    };
    match web.app.remove_key(&visitor.account.username, &form.fingerprint).await {
        // A key that is gone already is as good.
        Ok(()) | Err(Refused::Because(_) | Refused::Missing(_) | Refused::Conflict(_)) => {
            see_other("/home?notice=key-removed")
        }
        Err(Refused::Store(error)) => {
            page::busy(&web, &reader, "a key could not be removed", &error)
        }
    }
}
