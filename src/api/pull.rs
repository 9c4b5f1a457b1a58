//! What `ptportal pull` asks: deliveries to claim and confirm, contents with ranges, and staff's files the other way.

use std::io::{Seek, SeekFrom};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_stream::StreamExt;
use tokio_util::io::ReaderStream;

use super::Api;
use super::problem::{Problem, body};
use crate::app::views;
use crate::domain::id::Id;
use crate::domain::publish::Found;
use crate::remote::RecordedNames;
use crate::store::{deliveries, published, unsigned, uploads};

/// A puller that says nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);
const PIECE: usize = 256 * 1024;
/// A list of a hundred thousand names.
pub(super) const GONE_MAX: usize = 32 * 1024 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Claim {
    limit: Option<usize>,
    /// The puller has just started, and holds nothing.
    fresh: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lease {
    lease: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Placing {
    lease: String,
    temp_name: String,
    placed_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    lease: String,
    placed_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failed {
    lease: String,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Seen {
    taken: Vec<String>,
    waiting: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gone {
    gone: Vec<String>,
    /// With those that are gone for the first look only.
    #[serde(default)]
    missing: usize,
}

/// How a file looks on the share.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Looks {
    /// Unix milliseconds.
    mtime: Option<i64>,
    size: Option<u64>,
}

/// A body that is one JSON object.
pub(super) struct Object<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Object<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let bytes = body(&headers, Bytes::from_request(request, state).await)?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("is not JSON: {error}"))
        })?;
        let wrong = |text: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text);
        if !value.is_object() {
            return Err(wrong("the body must be a JSON object".to_owned()));
        }
        serde_path_to_error::deserialize(value).map(Self).map_err(|error| wrong(error.to_string()))
    }
}

pub(super) async fn claim(
    State(api): State<Api>,
    Object(claim): Object<Claim>,
) -> Result<Json<Value>, Problem> {
    if claim.fresh {
        api.forget_pullers().await?;
    }
    let claimed = api.claim_for_pull(claim.limit.unwrap_or(1)).await?;
    Ok(Json(json!({"deliveries": claimed})))
}

pub(super) async fn renew(
    State(api): State<Api>,
    Path(id): Path<String>,
    Object(Lease { lease }): Object<Lease>,
) -> Result<Json<Value>, Problem> {
    api.renew_pull(&id, &lease).await?;
    Ok(Json(json!({"id": id})))
}

pub(super) async fn placing(
    State(api): State<Api>,
    Path(id): Path<String>,
    Object(Placing { lease, temp_name, placed_name }): Object<Placing>,
) -> Result<Json<Value>, Problem> {
    api.record_pull((&id, &lease), &RecordedNames { temp_name, placed_name }).await?;
    Ok(Json(json!({"id": id, "state": "placing"})))
}

pub(super) async fn unplace(
    State(api): State<Api>,
    Path(id): Path<String>,
    Object(Lease { lease }): Object<Lease>,
) -> Result<Json<Value>, Problem> {
    api.unplace_pull(&id, &lease).await?;
    Ok(Json(json!({"id": id, "state": "pending"})))
}

pub(super) async fn done(
    State(api): State<Api>,
    Path(id): Path<String>,
    Object(Done { lease, placed_name }): Object<Done>,
) -> Result<Json<Value>, Problem> {
    let row = api.finish_pull((&id, &lease), &placed_name).await?;
    Ok(Json(views::delivery(&row)))
}

pub(super) async fn failed(
    State(api): State<Api>,
    Path(id): Path<String>,
    Object(Failed { lease, reason }): Object<Failed>,
) -> Result<Json<Value>, Problem> {
    api.fail_pull((&id, &lease), &reason).await?;
    Ok(Json(json!({"id": id})))
}

/// A ticket's text.
pub(super) async fn ticket(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let bytes = api.pulled_content(&id).await?;
    Ok(([(header::CONTENT_TYPE, "application/xml")], bytes).into_response())
}

/// A released file, whole or from an offset (RFC 9110 section 14).
pub(super) async fn content(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let gone =
        || Problem::new(StatusCode::NOT_FOUND, format!("there is no released content of {id}"));
    let upload = uploads::upload(api.store.db(), &id).await?.filter(|row| row.state == "released");
    let upload = upload.ok_or_else(gone)?;
    let opened = Id::parse(&upload.id).map(|id| api.vault.open_sealed(&id));
    let Some(Ok(mut file)) = opened else { return Err(gone()) };
    let size = unsigned(upload.size);
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (from, to) = match range.map(|text| parse_range(text, size)) {
        None => (0, size),
        Some(Some(range)) => range,
        Some(None) => {
            let text = format!("the range lies outside of 0 to {size}");
            let mut response =
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, text).into_response();
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return Ok(response);
        }
    };
    file.seek(SeekFrom::Start(from)).map_err(|error| Problem::away(&error))?;
    let length = to.saturating_sub(from);
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file).take(length), PIECE);
    let mut response = Body::from_stream(stream).into_response();
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", upload.sha256)) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// `bytes=FROM-` and `bytes=FROM-TO` (included); one range only. Gives the end excluded.
fn parse_range(text: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = match to {
        "" => size,
        to => to.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    (from < to).then_some((from, to))
}

/// Delivered files that nobody is known to have taken.
pub(super) async fn untaken(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let rows = api.untaken().await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| json!({"id": row.id, "placed_name": row.placed_name, "is_late": api.is_late(row)}))
        .collect();
    Ok(Json(Value::from(rows)))
}

pub(super) async fn seen(
    State(api): State<Api>,
    Object(Seen { taken, waiting }): Object<Seen>,
) -> Result<Json<Value>, Problem> {
    for id in &taken {
        if let Some(row) = deliveries::delivery(api.store.db(), id).await? {
            api.note_taken(&row).await?;
        }
    }
    for id in &waiting {
        if let Some(row) = deliveries::delivery(api.store.db(), id).await? {
            api.note_waiting(&row).await?;
        }
    }
    Ok(Json(json!({"taken": taken.len(), "waiting": waiting.len()})))
}

/// Every folder that leads back to a customer, with what is known of it.
pub(super) async fn folders(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let mut folders = Vec::new();
    for channel in api.channels().await? {
        let known = api.known_in(&channel).await?;
        let files: Vec<Value> = known
            .iter()
            .map(|f| json!({"path": f.path, "size": f.size, "mtime": f.mtime}))
            .collect();
        let below: Vec<String> = channel.below.iter().map(ToString::to_string).collect();
        folders.push(json!({
            "project_no": channel.project.project_no, "folder": channel.folder, "below": below,
            "made": channel.project.published != 0, "files": files,
        }));
    }
    let temporary: Vec<&str> =
        api.config.portal.temporary_names.iter().map(glob::Pattern::as_str).collect();
    Ok(Json(json!({"folders": folders, "temporary_names": temporary})))
}

/// The folders for staff are there.
pub(super) async fn made(
    State(api): State<Api>,
    Path(no): Path<String>,
) -> Result<Json<Value>, Problem> {
    let project = api.project(&no).await?;
    published::set_folders_made(api.store.db(), &project.id, api.now()).await?;
    Ok(Json(json!({"project_no": no})))
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(no): Path<String>,
) -> Result<Json<Value>, Problem> {
    let files = api.published_files(&no).await?;
    let rows: Vec<Value> =
        files.iter().map(|(folder, row)| views::published_file(folder, row)).collect();
    Ok(Json(Value::from(rows)))
}

/// Takes a file of staff over: scanned, then shown to the customer as a whole.
pub(super) async fn put(
    State(api): State<Api>,
    Path((no, folder, path)): Path<(String, String, String)>,
    query: Result<Query<Looks>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let unprocessable = |text: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    let Query(looks) = query.map_err(|error| unprocessable(error.body_text()))?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok());
    let Some(size) = looks.size.or(length) else {
        return Err(Problem::new(
            StatusCode::LENGTH_REQUIRED,
            "send Content-Length, or size in the query",
        ));
    };
    let limit = api.limits().max_file_size;
    if size > limit {
        let text = format!("the file is larger than limits.max_file_size ({limit} bytes)");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let free = api.free_bytes().await.map_err(|error| Problem::away(&error))?;
    if free < api.limits().min_free.saturating_add(size) {
        let text = "the portal has no room (limits.min_free)";
        return Err(Problem::new(StatusCode::INSUFFICIENT_STORAGE, text));
    }
    let channel = api.channel(&no, &folder).await?;
    let found = Found { path, size, mtime: looks.mtime.unwrap_or_else(|| api.now().0) };
    if looks.mtime.is_some() && api.known_in(&channel).await?.contains(&found) {
        // The answer to an earlier request was lost.
        return Ok(Json(json!({"path": found.path, "known": true})).into_response());
    }
    let mut publication = api.begin_publication(&channel, &found).await?;
    let mut stream = body.into_data_stream();
    let mut came = 0u64;
    loop {
        let piece = match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) | Err(_) => {
                publication.abandon().await;
                return Err(Problem::new(StatusCode::BAD_REQUEST, "the file did not arrive whole"));
            }
        };
        came = came.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if came > size {
            break;
        }
        if let Err(error) = publication.write(piece.to_vec()).await {
            publication.abandon().await;
            return Err(Problem::away(&error));
        }
    }
    if came != size {
        publication.abandon().await;
        return Err(unprocessable(format!(
            "{size} bytes were announced, {came} came; send it anew"
        )));
    }
    let row = publication.finish().await.map_err(|error| Problem::away(&error))?;
    Ok((StatusCode::CREATED, Json(views::upload(&row))).into_response())
}

/// Files that are gone from a folder; many at once wait for an operator.
pub(super) async fn withdraw(
    State(api): State<Api>,
    Path((no, folder)): Path<(String, String)>,
    Object(Gone { gone, missing }): Object<Gone>,
) -> Result<Json<Value>, Problem> {
    let channel = api.channel(&no, &folder).await?;
    let withdrawn = api.withdraw_files(&channel, &gone, missing).await?;
    Ok(Json(json!({"withdrawn": withdrawn, "held": withdrawn < gone.len()})))
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges_of_a_file() {
        let cases = [
            ("bytes=0-", Some((0, 10))),
            ("bytes=3-", Some((3, 10))),
            ("bytes=3-4", Some((3, 5))),
            ("bytes=3-99", Some((3, 10))),
            ("bytes=10-", None),
            ("bytes=5-4", None),
            ("bytes=-3", None),
            ("bytes=1-2,4-5", None),
            ("lines=1-2", None),
        ];
        for (text, expect) in cases {
            assert_eq!(parse_range(text, 10), expect, "{text}");
        }
    }
}
