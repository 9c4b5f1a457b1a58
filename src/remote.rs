//! ADAPTER the portal at the other end of a pull: its API, as `ptportal pull` asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use crate::domain::publish::Found;

const CONNECT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// What every folder of a large shop holds, and much more.
const ANSWER_MAX: usize = 256 * 1024 * 1024;
/// A whole answer of the small kind.
const WHOLE: Duration = Duration::from_secs(60);

/// A claimed delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claimed {
    pub id: String,
    pub upload_id: String,
    /// `mirror` for a file, `jobticket` for a ticket.
    pub consumer: String,
    /// Proves that it is this puller's.
    pub lease: String,
    pub lease_seconds: u64,
    pub attempt: i64,
    /// In bytes.
    pub size: u64,
    pub sha256: String,
    /// Unix milliseconds; 0 when it does not matter.
    pub mtime: i64,
    /// Below the hotfolder, safe on Windows shares.
    pub folders: Vec<String>,
    pub name: String,
    /// Where `name` is taken, this one is wanted before a number.
    #[serde(default)]
    pub second: Option<String>,
    /// What an earlier attempt recorded before it renamed.
    pub recorded: Option<RecordedNames>,
    /// With `on_conflict = "replace"`: a file of this content under the name may be replaced.
    pub replaces: Option<String>,
    /// The same for `second`.
    #[serde(default)]
    pub second_replaces: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct RecordedNames {
    pub temp_name: String,
    pub placed_name: String,
}

/// A folder that leads back to a customer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoteFolder {
    pub project_no: String,
    pub folder: String,
    /// Where it lies below the hotfolder.
    pub below: Vec<String>,
    /// The folders for staff were made already.
    pub made: bool,
    /// What need not be sent again.
    pub files: Vec<RemoteFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct RemoteFile {
    pub path: String,
    pub size: u64,
    pub mtime: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoteFolders {
    pub folders: Vec<RemoteFolder>,
    /// Names that are not final.
    pub temporary_names: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Untaken {
    pub id: String,
    pub placed_name: String,
    /// If it still lies there, operators want to know.
    pub is_late: bool,
}

#[derive(Debug, Deserialize)]
struct ClaimAnswer {
    deliveries: Vec<Claimed>,
}

/// Why the portal did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It is another puller's by now (409).
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Refused(String),
    #[error("the portal cannot be reached: {0}")]
    Away(String),
}

/// Ends when a count does not move for the time of silence.
async fn stands_still(count: &AtomicU64) {
    let mut seen = None;
    loop {
        let now = count.load(Ordering::Relaxed);
        if seen == Some(now) {
            return;
        }
        seen = Some(now);
        tokio::time::sleep(SILENCE).await;
    }
}

/// A portal's API with a token.
#[derive(Debug, Clone)]
pub struct Remote {
    client: reqwest::Client,
    /// Without a limit for silence, which reqwest counts from the beginning of a request: a long file is sent.
    sender: reqwest::Client,
    base: String,
    token: String,
}

impl Remote {
    /// `base` is the API's address, `ca` a certificate (PEM) to trust beside the system's.
    ///
    /// # Errors
    /// An address that is none, a certificate that does not read, TLS that cannot be set up.
    pub fn new(base: &str, token: &str, ca: Option<&[u8]>) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        anyhow::ensure!(
            url.scheme() == "https" || (url.scheme() == "http" && is_here),
            "{base} would carry the token in clear; use https://"
        );
        let authorities = ca.map(reqwest::Certificate::from_pem_bundle).transpose()?;
        let builder = || {
            let builder = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
                .no_proxy()
                .user_agent(concat!("ptportal-pull/", env!("CARGO_PKG_VERSION")));
            match &authorities {
                Some(authorities) => builder.tls_certs_merge(authorities.iter().cloned()),
                None => builder,
            }
        };
        Ok(Self {
            client: builder().read_timeout(SILENCE).build()?,
            sender: builder().build()?,
            base: format!("{base}/api/v1"),
            token: token.to_owned(),
        })
    }

    fn request(&self, method: reqwest::Method, segments: &[&str]) -> reqwest::RequestBuilder {
        let mut path = self.base.clone();
        for segment in segments {
            path.push('/');
            path.push_str(
                &percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC)
                    .to_string(),
            );
        }
        self.client.request(method, path).bearer_auth(&self.token)
    }

    async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, RemoteError> {
        let sent = self.request(reqwest::Method::GET, segments).timeout(WHOLE).send();
        answer(checked(sent.await).await?).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &Value,
    ) -> Result<T, RemoteError> {
        let request = self.request(reqwest::Method::POST, segments).timeout(WHOLE);
        let request = request.header("content-type", "application/json").body(body.to_string());
        answer(checked(request.send().await).await?).await
    }

    /// Claims due deliveries; a fresh puller holds none from before.
    ///
    /// # Errors
    /// As every call: the portal is away, or says no.
    pub async fn claim(&self, limit: usize, is_fresh: bool) -> Result<Vec<Claimed>, RemoteError> {
        let body = json!({"limit": limit, "fresh": is_fresh});
        let answer: ClaimAnswer = self.post(&["deliveries", "claim"], &body).await?;
        Ok(answer.deliveries)
    }

    async fn about(&self, id: &str, what: &str, body: &Value) -> Result<(), RemoteError> {
        self.post::<Value>(&["deliveries", id, what], body).await.map(drop)
    }

    /// # Errors
    /// `Conflict` when it is another's by now.
    pub async fn renew(&self, id: &str, lease: &str) -> Result<(), RemoteError> {
        self.about(id, "renew", &json!({"lease": lease})).await
    }

    /// # Errors
    /// `Conflict` when it is another's by now.
    pub async fn placing(
        &self,
        (id, lease): (&str, &str),
        (temp_name, placed_name): (&str, &str),
    ) -> Result<(), RemoteError> {
        let body = json!({"lease": lease, "temp_name": temp_name, "placed_name": placed_name});
        self.about(id, "placing", &body).await
    }

    /// # Errors
    /// `Conflict` when it is another's by now.
    pub async fn unplace(&self, id: &str, lease: &str) -> Result<(), RemoteError> {
        self.about(id, "unplace", &json!({"lease": lease})).await
    }

    /// # Errors
    /// `Conflict` when it is another's by now.
    pub async fn done(
        &self,
        (id, lease): (&str, &str),
        placed_name: &str,
    ) -> Result<(), RemoteError> {
        self.about(id, "done", &json!({"lease": lease, "placed_name": placed_name})).await
    }

    /// # Errors
    /// As every call.
    pub async fn failed(&self, (id, lease): (&str, &str), reason: &str) -> Result<(), RemoteError> {
        self.about(id, "failed", &json!({"lease": lease, "reason": reason})).await
    }

    /// A file from an offset on, or a ticket.
    ///
    /// # Errors
    /// As every call.
    pub async fn content(&self, claimed: &Claimed, from: u64) -> Result<Content, RemoteError> {
        let request = if claimed.consumer == "mirror" {
            self.request(reqwest::Method::GET, &["uploads", &claimed.upload_id, "content"])
        } else {
            self.request(reqwest::Method::GET, &["deliveries", &claimed.id, "content"])
        };
        let request =
            if from > 0 { request.header("range", format!("bytes={from}-")) } else { request };
        let response = checked(request.send().await).await?;
        if from > 0 && response.status() != reqwest::StatusCode::PARTIAL_CONTENT {
            return Err(RemoteError::Refused(
                "the portal does not go on where it stopped".to_owned(),
            ));
        }
        Ok(Content(response))
    }

    /// # Errors
    /// As every call.
    pub async fn folders(&self) -> Result<RemoteFolders, RemoteError> {
        self.get(&["folders"]).await
    }

    /// # Errors
    /// As every call.
    pub async fn made(&self, project_no: &str) -> Result<(), RemoteError> {
        self.post::<Value>(&["projects", project_no, "folders"], &json!({})).await.map(drop)
    }

    /// Sends a file of staff; `pieces` are its bytes.
    ///
    /// # Errors
    /// As every call; also when reading the file fails.
    pub async fn put(
        &self,
        (project_no, folder): (&str, &str),
        found: &Found,
        pieces: tokio::sync::mpsc::Receiver<std::io::Result<Vec<u8>>>,
    ) -> Result<(), RemoteError> {
        let mut segments = vec!["projects", project_no, "files", folder];
        segments.extend(found.path.split('/'));
        let query = format!("mtime={}&size={}", found.mtime, found.size);
        let request = self.request(reqwest::Method::PUT, &segments);
        let mut request =
            request.build().map_err(|error| RemoteError::Refused(error.to_string()))?;
        request.url_mut().set_query(Some(&query));
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let stream = tokio_stream::wrappers::ReceiverStream::new(pieces).map(move |piece| {
            count.fetch_add(1, Ordering::Relaxed);
            piece
        });
        *request.body_mut() = Some(reqwest::Body::wrap_stream(stream));
        tokio::select! {
            answer = self.sender.execute(request) => checked(answer).await.map(drop),
            () = stands_still(&sent) => Err(RemoteError::Away(format!(
                "it took nothing of {} for {} s", found.path, SILENCE.as_secs()
            ))),
        }
    }

    /// # Errors
    /// As every call.
    pub async fn withdraw(
        &self,
        (project_no, folder): (&str, &str),
        gone: &[String],
        missing: usize,
    ) -> Result<(), RemoteError> {
        let body = json!({"gone": gone, "missing": missing});
        self.post::<Value>(&["projects", project_no, "files", folder], &body).await.map(drop)
    }

    /// # Errors
    /// As every call.
    pub async fn untaken(&self) -> Result<Vec<Untaken>, RemoteError> {
        self.get(&["deliveries", "untaken"]).await
    }

    /// # Errors
    /// As every call.
    pub async fn seen(&self, taken: &[String], waiting: &[String]) -> Result<(), RemoteError> {
        let body = json!({"taken": taken, "waiting": waiting});
        self.post::<Value>(&["deliveries", "seen"], &body).await.map(drop)
    }
}

/// A content as it comes.
#[derive(Debug)]
pub struct Content(reqwest::Response);

impl Content {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, RemoteError> {
        match self.0.chunk().await {
            Ok(piece) => Ok(piece.map(|piece| piece.to_vec())),
            Err(error) => Err(RemoteError::Away(chain(&error))),
        }
    }
}

/// The answer, if it is a good one; else what the portal says.
async fn checked(
    sent: Result<reqwest::Response, reqwest::Error>,
) -> Result<reqwest::Response, RemoteError> {
    let response = sent.map_err(|error| RemoteError::Away(chain(&error)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = text_of(response).await.unwrap_or_default();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let detail = problem.get("detail").and_then(Value::as_str).unwrap_or_default();
    let told = format!("the portal answers {status}: {detail}");
    if status == reqwest::StatusCode::CONFLICT {
        return Err(RemoteError::Conflict(told));
    }
    if status.is_server_error() {
        return Err(RemoteError::Away(told));
    }
    Err(RemoteError::Refused(told))
}

async fn answer<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, RemoteError> {
    let text = text_of(response).await?;
    serde_json::from_str(&text).map_err(|error| {
        RemoteError::Refused(format!("the portal's answer does not read: {error}"))
    })
}

/// A whole answer, of a bounded size: the portal stands where strangers reach it.
async fn text_of(mut response: reqwest::Response) -> Result<String, RemoteError> {
    let mut bytes = Vec::new();
    while let Some(piece) =
        response.chunk().await.map_err(|error| RemoteError::Away(chain(&error)))?
    {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ANSWER_MAX {
            return Err(RemoteError::Refused("the portal's answer has no end".to_owned()));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
