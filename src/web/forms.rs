//! Cookies and the secret in forms. Before login the secret follows from a cookie of its own, afterwards from the
//! session's. Forms before login change nothing that belongs to a customer without a further secret (link or password),
//! so programs without cookies may send them; forms after login always carry the secret.

use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::Web;
use super::page::{self, Reader};
use crate::app::activation::random_token;
use crate::app::web_sessions::{self, Visitor};
use crate::domain::activation::Token;
use crate::http::{self, Caller};

/// What the secret in a form is derived for.
const PURPOSE: &str = "form";

/// The secret behind the forms of one browser.
#[derive(Debug, Clone)]
pub(super) struct FormCookie {
    token: Option<Token>,
    is_new: bool,
}

impl FormCookie {
    pub(super) fn of(web: &Web, headers: &HeaderMap) -> Self {
        let known = http::cookie(headers, &name(web, "-form")).and_then(Token::parse);
        match known {
            Some(token) => Self { token: Some(token), is_new: false },
            None => Self { token: random_token().ok(), is_new: true },
        }
    }

    pub(super) fn of_session(token: &Token) -> Self {
        Self { token: Some(token.clone()), is_new: false }
    }

    /// The value of the hidden field.
    pub(super) fn field(&self) -> String {
        self.token.as_ref().map(|token| token.derived(PURPOSE)).unwrap_or_default()
    }

    /// The cookie, when the browser has none yet.
    pub(super) fn to_set(&self, web: &Web) -> Option<HeaderValue> {
        let token = self.token.as_ref().filter(|_| self.is_new)?;
        set_cookie(web, "-form", token.as_str(), None)
    }
}

/// `__Host-` binds a cookie to this host and to HTTPS; on loopback without HTTPS browsers would not take it.
fn name(web: &Web, suffix: &str) -> String {
    let prefix = if web.app.config.web.base_url.is_https() { "__Host-" } else { "" };
    format!("{prefix}ptportal{suffix}")
}

fn set_cookie(web: &Web, suffix: &str, value: &str, age: Option<u64>) -> Option<HeaderValue> {
    let secure = if web.app.config.web.base_url.is_https() { "; Secure" } else { "" };
    let age = age.map(|age| format!("; Max-Age={age}")).unwrap_or_default();
    let name = name(web, suffix);
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}").parse().ok()
}

pub(super) fn session_cookie(web: &Web, token: &Token) -> Option<HeaderValue> {
    set_cookie(web, "", token.as_str(), Some(web_sessions::LASTS.as_secs()))
}

/// Takes the session's cookie away.
pub(super) fn no_session_cookie(web: &Web) -> Option<HeaderValue> {
    set_cookie(web, "", "", Some(0))
}

/// Who is logged in, by the cookie of the request.
pub(super) async fn visitor(web: &Web, headers: &HeaderMap, caller: &Caller) -> Option<Visitor> {
    let cookie = http::cookie(headers, &name(web, ""))?;
    match web.app.visitor(cookie, caller.address).await {
        Ok(Some(visitor)) => {
            caller.authenticated();
            Some(visitor)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::error!(%error, "sessions of pages cannot be read");
            None
        }
    }
}

/// Where a form comes from, as the browser says.
#[derive(Debug, PartialEq, Eq)]
enum Sender {
    OurPage,
    /// Another site's page.
    Foreign,
    /// An old browser, a program, or one that keeps it to itself.
    Unknown,
}

fn sender(web: &Web, headers: &HeaderMap) -> Sender {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin" | "none"), _) => Sender::OurPage,
        (Some(_), _) => Sender::Foreign,
        // Under `Referrer-Policy: no-referrer` browsers send "null" from our own pages too.
        (None, None | Some("null")) => Sender::Unknown,
        (None, Some(origin)) if web.app.config.web.base_url.is_origin(origin) => Sender::OurPage,
        (None, Some(_)) => Sender::Foreign,
    }
}

fn refused(web: &Web, reader: &Reader) -> Response {
    let heading = reader.say("Bitte laden Sie die Seite neu", "Please reload the page");
    let text = reader.say(
        "Das Formular kam nicht von dieser Seite oder ist veraltet. Laden Sie die Seite neu und versuchen Sie es noch einmal.",
        "The form did not come from this site or is out of date. Reload the page and try again.",
    );
    page::error(web, reader, StatusCode::FORBIDDEN, (heading, text))
}

/// What is answered instead of a form before login that is from another site, or whose secret is wrong.
pub(super) fn check_open(
    web: &Web,
    reader: &Reader,
    headers: &HeaderMap,
    field: &str,
) -> Option<Response> {
    let is_right = field == reader.form.field() && !reader.form.is_new;
    match sender(web, headers) {
        Sender::OurPage => None,
        Sender::Unknown if is_right => None,
        // A program: it has no cookie that anybody could misuse.
        Sender::Unknown if field.is_empty() && headers.get(header::ORIGIN).is_none() => None,
        Sender::Unknown | Sender::Foreign => Some(refused(web, reader)),
    }
}

/// What is answered instead of a form after login whose secret is not the session's.
pub(super) fn check_session(
    web: &Web,
    reader: &Reader,
    headers: &HeaderMap,
    field: &str,
) -> Option<Response> {
    let is_right = field == reader.form.field();
    if is_right && sender(web, headers) != Sender::Foreign {
        return None;
    }
    Some(refused(web, reader))
}

/// A body that is no form, or too large.
pub(super) fn unreadable(web: &Web, reader: &Reader, rejection: &FormRejection) -> Response {
    let status = rejection.status();
    let heading = reader.say("Das Formular ist nicht lesbar", "The form cannot be read");
    let text = reader.say(
        "Bitte laden Sie die Seite neu und füllen Sie sie noch einmal aus.",
        "Please reload the page and fill it in again.",
    );
    page::error(web, reader, status, (heading, text))
}
