//! FRONT what a certificate authority asks over plain HTTP (RFC 8555 section 8.3), on `[acme] listen`, and on the pages'
//! listener for proxies that pass it on. Everybody else is led to the pages.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::acme::Files;
use crate::app::{App, blocking};
use crate::domain::base_url::BaseUrl;
use crate::guard::Guard;
use crate::http::{self, HttpService};

/// The answers to challenges; nothing else, and nothing at all without `[acme]`.
pub fn route(app: &App) -> Router {
    if app.config.acme.domains.is_empty() {
        return Router::new();
    }
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(answer))
        .with_state(Files::below(&app.config.data_dir))
}

async fn answer(State(files): State<Files>, Path(token): Path<String>) -> Response {
    let looked = blocking(move || Ok(files.answer(&token))).await;
    match looked.ok().flatten() {
        Some(text) => ([(header::CONTENT_TYPE, "application/octet-stream")], text).into_response(),
        None => (StatusCode::NOT_FOUND, "nobody waits for this\n").into_response(),
    }
}

/// Serves the listeners until shutdown.
pub fn serve(app: &Arc<App>, guard: &Arc<Guard>, listeners: Vec<TcpListener>) {
    let elsewhere = Router::new().fallback(lead_on).with_state(app.config.web.base_url.clone());
    let service = HttpService {
        app: Arc::clone(app),
        guard: Arc::clone(guard),
        tls: None,
        trusted: app.config.web.trusted_proxies.clone(),
        router: route(app).merge(elsewhere),
    };
    http::serve(service, listeners);
}

/// Whoever types the name without https.
async fn lead_on(State(base_url): State<BaseUrl>, uri: Uri) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let to = format!("{base_url}{path}");
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to)]).into_response()
}
