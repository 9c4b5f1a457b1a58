//! FRONT for operators' programs: `/metrics`, `/healthz`, `/readyz` (spec section 15). Never public.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::app::App;

#[derive(Clone)]
struct Admin {
    app: Arc<App>,
    numbers: PrometheusHandle,
}

/// Serves the listeners until shutdown; `page` is the operators' page, where that is switched on.
pub fn serve(
    app: &Arc<App>,
    listeners: Vec<TcpListener>,
    numbers: &PrometheusHandle,
    page: &Router,
) {
    for listener in listeners {
        let admin = Admin { app: Arc::clone(app), numbers: numbers.clone() };
        let (stop, page) = (app.stop.clone(), page.clone());
        app.tasks.spawn(async move {
            let served = axum::serve(listener, router(admin).merge(page))
                .with_graceful_shutdown(stop.cancelled_owned())
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin page has ended");
            }
        });
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { plain(StatusCode::OK, "ok\n".to_owned()) }))
        .route("/readyz", get(readyz))
        .with_state(admin)
}

fn plain(status: StatusCode, text: String) -> Response {
    let kind =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, kind, text).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.app.set_gauges().await {
        Ok(()) => plain(StatusCode::OK, admin.numbers.render()),
        Err(error) => {
            tracing::error!(%error, "gauges cannot be read");
            plain(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n".to_owned())
        }
    }
}

/// 200 when all is ready, else 503; a line for each part.
async fn readyz(State(admin): State<Admin>) -> Response {
    let parts = admin.app.readiness().await;
    let is_ready = parts.iter().all(|part| part.problem.is_none());
    let lines = parts
        .iter()
        .map(|part| format!("{}: {}\n", part.name, part.problem.as_deref().unwrap_or("ok")));
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    plain(status, lines.collect())
}
