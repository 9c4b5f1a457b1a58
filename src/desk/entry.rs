//! Who may see and decide: whoever holds an API token of scope `admin`. Its name stands on what was decided.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{Desk, language, page, problem, see_other};
use crate::app::activation::random_token;
use crate::domain::activation::Token;
use crate::http;

const COOKIE: &str = "ptportal-desk";
/// A working day.
const LASTS: Duration = Duration::from_secs(10 * 3600);
/// Operators at the same time; the oldest goes for another.
const OPERATORS_MAX: usize = 100;

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub(super) name: String,
    cookie: Token,
}

impl Operator {
    /// The secret that forms carry.
    pub(super) fn form_field(&self) -> String {
        self.cookie.derived("desk")
    }
}

/// Who is logged in, by the hash of the cookie. Forgotten at a restart.
#[derive(Default)]
pub(super) struct Operators(Mutex<HashMap<String, Entry>>);

struct Entry {
    /// Hash of the API token; when that is revoked, this ends.
    api_token: String,
    until: Instant,
}

impl Operators {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, cookie: &Token, api_token: String) -> bool {
        let Some(until) = Instant::now().checked_add(LASTS) else { return false };
        let mut all = self.all();
        all.retain(|_, entry| entry.until > Instant::now());
        // Whoever logs in again and again and never out pushes out the oldest.
        if all.len() >= OPERATORS_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, e)| e.until).map(|(k, _)| k.clone())
        {
            all.remove(&oldest);
        }
        all.insert(cookie.hash(), Entry { api_token, until });
        true
    }

    fn leave(&self, cookie: &Token) {
        self.all().remove(&cookie.hash());
    }

    fn api_token(&self, cookie: &Token) -> Option<String> {
        let all = self.all();
        let entry = all.get(&cookie.hash()).filter(|entry| entry.until > Instant::now())?;
        Some(entry.api_token.clone())
    }
}

async fn operator(desk: &Desk, headers: &HeaderMap) -> Option<Operator> {
    let cookie = Token::parse(http::cookie(headers, COOKIE)?)?;
    let api_token = desk.operators.api_token(&cookie)?;
    match desk.app.admin_token(&api_token).await {
        Ok(Some(name)) => Some(Operator { name, cookie }),
        Ok(None) => None,
        Err(error) => {
            tracing::error!(%error, "tokens cannot be read");
            None
        }
    }
}

/// Lets operators in and everybody else to the login.
pub(super) async fn required(
    State(desk): State<Desk>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(operator) = operator(&desk, request.headers()).await else {
        return match *request.method() {
            Method::GET | Method::HEAD => see_other("/login"),
            _ => (StatusCode::UNAUTHORIZED, "log in first\n").into_response(),
        };
    };
    request.extensions_mut().insert(operator);
    next.run(request).await
}

/// Whether a form comes from our own page: the secret of the session is in it.
pub(super) fn is_ours(operator: &Operator, field: &str) -> bool {
    field == operator.form_field()
}

pub(super) async fn show(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    page(
        &desk,
        (language(&desk, &headers), None),
        (StatusCode::OK, "login.html"),
        json!({"is_wrong": false}),
    )
}

#[derive(Deserialize)]
pub(super) struct LoginForm {
    #[serde(default)]
    token: String,
}

pub(super) async fn log_in(
    State(desk): State<Desk>,
    headers: HeaderMap,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let language = language(&desk, &headers);
    let text = form.map(|Form(form)| form.token).unwrap_or_default();
    let known = match Token::parse(text.trim()) {
        None => Ok(None),
        Some(token) => {
            let name = desk.app.enter_with(&token).await;
            name.map(|name| name.map(|name| (name, token.hash())))
        }
    };
    let (name, hash) = match known {
        Ok(Some(known)) => known,
        Ok(None) => {
            tracing::warn!(
                "somebody tried a token on the operators' page that is none, or not of scope admin"
            );
            let values = json!({"is_wrong": true});
            return page(&desk, (language, None), (StatusCode::UNAUTHORIZED, "login.html"), values);
        }
        Err(error) => {
            tracing::error!(%error, "tokens cannot be read");
            let text = "the database does not answer";
            return problem(&desk, (language, None), StatusCode::SERVICE_UNAVAILABLE, text);
        }
    };
    let entered = random_token().ok().filter(|cookie| desk.operators.enter(cookie, hash));
    let Some(cookie) = entered else {
        let text = "there is no randomness for a session; try again";
        return problem(&desk, (language, None), StatusCode::SERVICE_UNAVAILABLE, text);
    };
    tracing::info!(operator = name, "logged in on the operators' page");
    set_cookie(cookie.as_str(), LASTS.as_secs())
}

fn set_cookie(value: &str, seconds: u64) -> Response {
    let cookie = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}");
    (StatusCode::SEE_OTHER, [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, cookie)])
        .into_response()
}

#[derive(Deserialize)]
pub(super) struct Bare {
    #[serde(default)]
    csrf: String,
}

pub(super) async fn log_out(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    Form(form): Form<Bare>,
) -> Response {
    if is_ours(&operator, &form.csrf) {
        desk.operators.leave(&operator.cookie);
    }
    set_cookie("", 0)
}
