//! FRONT web: the customers' pages (spec section 11). Server-rendered, no JavaScript; every page in German and English.

mod account;
mod activation;
mod forms;
mod home;
mod limiter;
mod login;
mod page;
mod site_file;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use self::limiter::Limiter;
use self::page::Reader;
use crate::app::App;
use crate::certificate::Certificate;
use crate::challenge;
use crate::guard::Guard;
use crate::http::{self, Caller, HttpService};
use crate::template::pages::{self, Pages};
use crate::tls;

/// A form; none is larger than an SSH key.
const BODY_MAX: usize = 16 * 1024;

/// What all pages share.
#[derive(Clone)]
struct Web(Arc<Shared>);

struct Shared {
    app: Arc<App>,
    guard: Arc<Guard>,
    pages: Pages,
    /// Wishes for links, by address.
    links: Limiter,
    /// Current passwords given for a change, by address.
    guesses: Limiter,
    certificate: Option<Arc<Certificate>>,
}

impl Shared {
    /// A wrong password, held against whoever typed it.
    async fn note_failure(&self, caller: &Caller) {
        if let Some(address) = caller.accountable() {
            self.guard.note_failure(address).await;
        }
    }
}

impl std::ops::Deref for Web {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Serves the pages on the listeners until shutdown.
///
/// # Errors
/// When TLS cannot be set up.
pub fn serve(
    app: &Arc<App>,
    guard: &Arc<Guard>,
    listeners: Vec<TcpListener>,
    certificate: Option<Arc<Certificate>>,
) -> anyhow::Result<()> {
    let config = &app.config.web;
    let tls = tls::https(config.tls, certificate.as_ref())?;
    let web = Web(Arc::new(Shared {
        app: Arc::clone(app),
        guard: Arc::clone(guard),
        pages: Pages::new()?,
        links: Limiter::default(),
        guesses: Limiter::default(),
        certificate,
    }));
    let service = HttpService {
        app: Arc::clone(app),
        guard: Arc::clone(guard),
        tls,
        trusted: config.trusted_proxies.clone(),
        router: router(web).merge(challenge::route(app)),
    };
    http::serve(service, listeners);
    Ok(())
}

fn router(web: Web) -> Router {
    Router::new()
        .route("/", get(login::show).post(login::submit))
        .route("/activate/{token}", get(activation::show).post(activation::submit))
        .route("/link", get(activation::show_link).post(activation::ask))
        .route("/home", get(home::show))
        .route("/home/filezilla.xml", get(site_file::download))
        .route("/home/password", post(account::change_password))
        .route("/home/keys", post(account::add_key))
        .route("/home/keys/remove", post(account::remove_key))
        .route("/logout", post(login::log_out))
        .route("/style.css", get(|| asset("text/css; charset=utf-8", pages::STYLE)))
        .route("/favicon.svg", get(|| asset("image/svg+xml", pages::ICON)))
        .route("/robots.txt", get(|| asset("text/plain", "User-agent: *\nDisallow: /\n")))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(web.clone(), around))
        .with_state(web)
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, text).into_response()
}

async fn not_found(State(web): State<Web>, reader: Reader) -> Response {
    let heading = reader.say("Diese Seite gibt es nicht", "There is no such page");
    let text = reader.say(
        "Bitte prüfen Sie die Adresse, oder beginnen Sie auf der Startseite.",
        "Please check the address, or begin at the start page.",
    );
    page::error(&web, &reader, StatusCode::NOT_FOUND, (heading, text))
}

async fn wrong_method(State(web): State<Web>, reader: Reader) -> Response {
    let heading = reader.say("Das geht hier nicht", "This is not possible here");
    let text =
        reader.say("Bitte beginnen Sie auf der Startseite.", "Please begin at the start page.");
    page::error(&web, &reader, StatusCode::METHOD_NOT_ALLOWED, (heading, text))
}

/// A small packed body could become a large one.
fn is_packed(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity")
}

/// What holds for every request: our own host only, and headers that keep the pages to themselves.
async fn around(State(web): State<Web>, request: Request, next: Next) -> Response {
    let site = &web.app.config.web.base_url;
    let mut hosts = request.headers().get_all(header::HOST).iter();
    // Two of them are refused (RFC 9112 section 3.2): which one counts is what attackers play with.
    let (host, second) = (hosts.next(), hosts.next());
    let host = host.filter(|_| second.is_none()).and_then(|host| host.to_str().ok());
    // An absolute address in the request line counts as a Host of its own (RFC 9112 section 3.2.2).
    let authority = request.uri().authority().map(ToString::to_string);
    let is_ours = host.is_some_and(|host| site.is_spoken_of(host))
        && authority.is_none_or(|authority| site.is_spoken_of(&authority));
    let is_known = matches!(*request.method(), Method::GET | Method::HEAD | Method::POST);
    let reader = Reader::from_headers(&web, request.headers());
    let mut response = if !is_ours {
        let heading = reader.say("Falsche Adresse", "Wrong address");
        let text = reader.say(
            "Unter diesem Namen gibt es hier kein Portal.",
            "There is no portal of this name here.",
        );
        page::error(&web, &reader, StatusCode::MISDIRECTED_REQUEST, (heading, text))
    } else if !http::is_text(request.uri().path()) {
        not_found(State(web.clone()), reader).await
    } else if is_packed(request.headers()) {
        let heading = reader.say("Gepackte Daten", "Packed data");
        let text = reader.say(
            "Daten werden hier nicht entpackt; bitte senden Sie sie, wie sie sind.",
            "Nothing is unpacked here; please send the data as they are.",
        );
        page::error(&web, &reader, StatusCode::UNSUPPORTED_MEDIA_TYPE, (heading, text))
    } else if is_known {
        next.run(request).await
    } else {
        wrong_method(State(web.clone()), reader).await
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if site.is_https() {
        let value = HeaderValue::from_static("max-age=63072000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}

const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];
