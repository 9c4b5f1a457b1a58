//! From a template to an answer, in the reader's language, with what every page needs.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Map, Value};

use super::Web;
use super::forms::FormCookie;
use crate::app::web_sessions::Visitor;
use crate::domain::account::Language;
use crate::domain::activation::Token;
use crate::http;

/// Whoever reads a page: language, and the secret that its forms carry.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) language: Language,
    pub(super) form: FormCookie,
    /// Name of the account that is logged in.
    pub(super) user: Option<String>,
}

impl Reader {
    pub(super) fn from_headers(web: &Web, headers: &HeaderMap) -> Self {
        let language = http::accepted_language(headers).unwrap_or(web.app.config.language);
        Self { language, form: FormCookie::of(web, headers), user: None }
    }

    /// A customer who is logged in reads the account's language, and the forms belong to the session.
    pub(super) fn of_visitor(web: &Web, visitor: &Visitor) -> Self {
        Self {
            language: visitor.settings.language.unwrap_or(web.app.config.language),
            form: FormCookie::of_session(&visitor.token),
            user: Some(visitor.account.username.clone()),
        }
    }

    /// The sentence in the reader's language.
    pub(super) fn say(&self, german: &'static str, english: &'static str) -> &'static str {
        match self.language {
            Language::De => german,
            Language::En => english,
        }
    }
}

impl FromRequestParts<Web> for Reader {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Self::Rejection> {
        Ok(Self::from_headers(web, &parts.headers))
    }
}

/// Renders a page; `values` are its own, beside what every page has.
pub(super) fn page(
    web: &Web,
    reader: &Reader,
    (status, name): (StatusCode, &str),
    values: Value,
) -> Response {
    let mut all = Map::new();
    all.insert("language".to_owned(), reader.language.to_string().into());
    all.insert("de".to_owned(), (reader.language == Language::De).into());
    all.insert("csrf".to_owned(), reader.form.field().into());
    all.insert("user".to_owned(), reader.user.clone().into());
    all.insert("shop".to_owned(), web.app.config.portal.contact.clone().into());
    if let Value::Object(values) = values {
        all.extend(values);
    }
    let mut response = match web.pages.render(name, all) {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, page = name, "a page cannot be made");
            (StatusCode::INTERNAL_SERVER_ERROR, "An error happened on the server.\n")
                .into_response()
        }
    };
    if let Some(cookie) = reader.form.to_set(web) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// A page that says what went wrong and what to do.
pub(super) fn error(
    web: &Web,
    reader: &Reader,
    status: StatusCode,
    (heading, message): (&str, &str),
) -> Response {
    let values = serde_json::json!({
        "status": status.as_u16(), "heading": heading, "message": message,
    });
    let mut response = page(web, reader, (status, "error.html"), values);
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

/// Something is broken that is not the reader's fault; the cause goes to the log.
pub(super) fn busy(
    web: &Web,
    reader: &Reader,
    what: &str,
    cause: &dyn std::fmt::Display,
) -> Response {
    tracing::error!(error = %cause, "{what}");
    let heading =
        reader.say("Bitte versuchen Sie es gleich noch einmal", "Please try again in a minute");
    let text = reader.say(
        "Der Server ist gerade überlastet. Es ist nichts verloren.",
        "The server is too busy at this moment. Nothing is lost.",
    );
    error(web, reader, StatusCode::SERVICE_UNAVAILABLE, (heading, text))
}

/// Leads on after a form (RFC 9110 section 15.4.4).
pub(super) fn see_other(to: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

/// Leads on, and logs in.
pub(super) fn log_in(web: &Web, token: &Token, to: &'static str) -> Response {
    let mut response = see_other(to);
    if let Some(cookie) = super::forms::session_cookie(web, token) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
