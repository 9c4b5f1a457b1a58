//! FRONT the order API (spec section 12): JSON over HTTP with bearer tokens, errors as problem details (RFC 9457).

mod clients;
mod orders;
mod problem;
mod pull;
mod uploads;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use tokio::net::TcpListener;

use self::problem::Problem;
use crate::app::App;
use crate::app::tokens::Scope;
use crate::certificate::Certificate;
use crate::guard::{self, Guard};
use crate::http::{self, Caller, HttpService};
use crate::tls;

/// Bodies up to 1 MiB.
const BODY_MAX: usize = 1024 * 1024;
const OPENAPI: &str = include_str!("../../templates/api/openapi.json");

/// What all routes share.
#[derive(Clone)]
struct Api {
    app: Arc<App>,
    guard: Arc<Guard>,
}

impl std::ops::Deref for Api {
    type Target = Arc<App>;

    fn deref(&self) -> &Arc<App> {
        &self.app
    }
}

/// Serves the API on the listeners until shutdown.
///
/// # Errors
/// When TLS cannot be set up.
pub fn serve(
    app: &Arc<App>,
    guard: &Arc<Guard>,
    listeners: Vec<TcpListener>,
    certificate: Option<&Arc<Certificate>>,
) -> anyhow::Result<()> {
    let tls = tls::https(app.config.api.tls, certificate)?;
    let service = HttpService {
        app: Arc::clone(app),
        guard: Arc::clone(guard),
        tls,
        trusted: Vec::new(),
        router: router(Api { app: Arc::clone(app), guard: Arc::clone(guard) }),
    };
    http::serve(service, listeners);
    Ok(())
}

fn router(api: Api) -> Router {
    let orders = Router::new()
        .route("/projects", get(orders::list).post(orders::announce))
        .route("/projects/{no}", get(orders::show))
        .route("/projects/{no}/close", post(orders::close))
        .route("/uploads", get(uploads::list))
        .route("/clients/{no}", get(clients::show).put(clients::put))
        .route("/accounts/{user}/enable", post(clients::enable))
        .route("/accounts/{user}/disable", post(clients::disable))
        .route("/accounts/{user}/link", post(clients::link))
        // The layer stands around every route above: none can be added without it.
        .route_layer(middleware::from_fn_with_state((api.clone(), Scope::Orders), admit));
    let pull = Router::new()
        .route("/deliveries/claim", post(pull::claim))
        .route("/deliveries/untaken", get(pull::untaken))
        .route("/deliveries/seen", post(pull::seen))
        .route("/deliveries/{id}/content", get(pull::ticket))
        .route("/deliveries/{id}/renew", post(pull::renew))
        .route("/deliveries/{id}/placing", post(pull::placing))
        .route("/deliveries/{id}/unplace", post(pull::unplace))
        .route("/deliveries/{id}/done", post(pull::done))
        .route("/deliveries/{id}/failed", post(pull::failed))
        .route("/uploads/{id}/content", get(pull::content))
        .route("/folders", get(pull::folders))
        .route("/projects/{no}/folders", post(pull::made))
        .route("/projects/{no}/files", get(pull::list))
        .route(
            "/projects/{no}/files/{folder}",
            post(pull::withdraw).layer(DefaultBodyLimit::max(pull::GONE_MAX)),
        )
        .route("/projects/{no}/files/{folder}/{*path}", put(pull::put))
        .route_layer(middleware::from_fn_with_state((api.clone(), Scope::Pull), admit));
    Router::new()
        .nest("/api/v1", orders.merge(pull))
        .route("/api/v1/openapi.json", get(openapi))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not known here")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(private))
        .with_state(api)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// Answers belong to whoever asked.
async fn private(request: Request, next: Next) -> Response {
    let mut response = if http::is_text(request.uri().path()) {
        next.run(request).await
    } else {
        Problem::new(StatusCode::BAD_REQUEST, "the address is not UTF-8 text").into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The bearer's token (RFC 6750 section 2.1), and whether it may do this.
async fn admit(
    State((api, needed)): State<(Api, Scope)>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let scope = match &bearer {
        Some(bearer) => api.scope_of(bearer).await,
        None => Ok(None),
    };
    match scope {
        Ok(Some(scope)) if scope.covers(needed) => {
            caller.authenticated();
            if needed == Scope::Pull {
                // Big files take their time.
                caller.transfers();
            }
            next.run(request).await
        }
        Ok(Some(scope)) => {
            let text = format!(
                "the token's scope is {}, this needs {}; make one with `token create`",
                scope.as_str(),
                needed.as_str()
            );
            Problem::new(StatusCode::FORBIDDEN, text).into_response()
        }
        Ok(None) => {
            // A guesser gains nothing from many connections: 256 bits. It only must not be cheap.
            tokio::time::sleep(guard::REJECTION).await;
            if api.guard.is_worth_a_line(caller.address) {
                tracing::warn!(peer = %caller.address, "a request to the API without a valid token");
            }
            let text = "give a valid token in the header Authorization: Bearer …; make one with `token create`";
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, text).into_response();
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            response
        }
        Err(error) => Problem::away(&error).into_response(),
    }
}
