//! Errors as problem details (RFC 9457), and bodies that may be wrong.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::clients::Refused;
use crate::domain::announcement::{self, Unreadable};

/// An error as the client reads it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<announcement::Problem>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }

    /// The database; the cause goes to the log.
    pub(super) fn away(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request to the API could not be served");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer; try again later")
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Because(text) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text),
            Refused::Missing(text) => Self::new(StatusCode::NOT_FOUND, text),
            Refused::Conflict(text) => Self::new(StatusCode::CONFLICT, text),
            Refused::Store(error) => Self::away(&error),
        }
    }
}

impl From<crate::store::StoreError> for Problem {
    fn from(error: crate::store::StoreError) -> Self {
        Self::away(&error)
    }
}

impl From<Unreadable> for Problem {
    fn from(wrong: Unreadable) -> Self {
        match wrong {
            Unreadable::Syntax(text) => Self::new(StatusCode::BAD_REQUEST, text),
            Unreadable::Content(errors) => {
                let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                let detail = all.join("; ");
                Self { status: StatusCode::UNPROCESSABLE_ENTITY, detail, errors }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank", "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(), "detail": self.detail,
        });
        if let (Some(map), false) = (body.as_object_mut(), self.errors.is_empty()) {
            let errors =
                self.errors.iter().map(|e| json!({"field": e.field, "problem": e.problem}));
            map.insert("errors".to_owned(), errors.collect());
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        response
    }
}

/// The bytes of a JSON body.
pub(super) fn body(
    headers: &HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Bytes, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        let text = "the body must be JSON; send Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB")
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "the body did not arrive whole"),
    })
}
