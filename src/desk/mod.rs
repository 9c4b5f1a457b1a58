//! FRONT desk: the operators' page on the admin address. The same picture as `watch`, decisions about held files, and
//! what keeps a customer from logging in. Off unless `[admin] page` says so.

mod board;
mod customers;
mod entry;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use self::entry::{Operator, Operators};
use crate::app::App;
use crate::app::picture::Lookout;
use crate::domain::account::Language;
use crate::http;
use crate::template::pages::{self, Pages};

/// A form; none is larger than a reason.
const BODY_MAX: usize = 16 * 1024;

#[derive(Clone)]
struct Desk(Arc<Shared>);

struct Shared {
    app: Arc<App>,
    pages: Pages,
    operators: Operators,
    lookout: Mutex<Lookout>,
}

impl std::ops::Deref for Desk {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The page's own addresses.
///
/// # Errors
/// A page that does not read; the tests see to that.
pub fn router(app: &Arc<App>) -> anyhow::Result<Router> {
    let desk = Desk(Arc::new(Shared {
        app: Arc::clone(app),
        pages: Pages::of_operators()?,
        operators: Operators::default(),
        lookout: Mutex::new(Lookout::new(Arc::clone(app))),
    }));
    let inside = Router::new()
        .route("/", get(board::show))
        .route("/deliveries/retry", post(board::retry))
        .route("/uploads/{id}", get(uploads::show).post(uploads::decide))
        .route("/customers", get(customers::search))
        .route("/customers/{client_no}", get(customers::show))
        .route("/customers/{client_no}/view", get(customers::view))
        .route("/logout", post(entry::log_out))
        .layer(middleware::from_fn_with_state(desk.clone(), entry::required));
    let router = Router::new()
        .merge(inside)
        .route("/login", get(entry::show).post(entry::log_in))
        .route("/style.css", get(style))
        .route("/favicon.svg", get(icon))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(around))
        .with_state(desk);
    Ok(router)
}

async fn style() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, [pages::STYLE, pages::DESK_STYLE].concat()).into_response()
}

async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], pages::ICON).into_response()
}

/// Only by the address itself or as `localhost`: a name of somebody else's that leads here would let their page in the
/// operator's browser read this one.
fn is_direct(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

async fn around(request: Request, next: Next) -> Response {
    let mut response = if is_direct(request.headers()) {
        next.run(request).await
    } else {
        let text = "call this page by its IP address, or as localhost\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    };
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The language of whoever reads.
fn language(desk: &Desk, headers: &HeaderMap) -> Language {
    http::accepted_language(headers).unwrap_or(desk.app.config.language)
}

/// Renders a page with what every page has.
fn page(
    desk: &Desk,
    (language, operator): (Language, Option<&Operator>),
    (status, name): (StatusCode, &str),
    values: Value,
) -> Response {
    let mut all = Map::new();
    all.insert("language".to_owned(), language.to_string().into());
    all.insert("de".to_owned(), (language == Language::De).into());
    all.insert("operator".to_owned(), operator.map(|o| o.name.clone()).into());
    all.insert("csrf".to_owned(), operator.map(Operator::form_field).into());
    if let Value::Object(values) = values {
        all.extend(values);
    }
    match desk.pages.render(name, all) {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, page = name, "a page cannot be made");
            (StatusCode::INTERNAL_SERVER_ERROR, "An error happened on the server.\n")
                .into_response()
        }
    }
}

/// A page with what went wrong.
fn problem(
    desk: &Desk,
    reader: (Language, Option<&Operator>),
    status: StatusCode,
    message: &str,
) -> Response {
    page(desk, reader, (status, "problem.html"), json!({"message": message}))
}

/// Leads on after a form (RFC 9110 section 15.4.4).
fn see_other(to: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_lead_here() {
        let check = |host: &str, expect: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(is_direct(&headers), expect, "{host}");
        };
        check("127.0.0.1:9090", true);
        check("localhost:9090", true);
        check("localhost", true);
        check("[::1]:9090", true);
        check("10.0.0.5", true);
        check("evil.example:9090", false);
        check("127.0.0.1.evil.example", false);
        check("localhost.evil.example:9090", false);
        assert!(!is_direct(&HeaderMap::new()));
    }
}
