//! What stands before pages and API: accept, TLS, limits of HTTP/1.1 connections, and who is really calling.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::app::App;
use crate::domain::account::Network;
use crate::guard::{Guard, Ticket};
use crate::listen;

/// A peer that begins TLS or a request and does not go on is cut.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(10);
/// A whole request: its body, and the wait for a password check.
const REQUEST: Duration = Duration::from_secs(60);
const HEADERS_MAX: usize = 64;
const BUFFER_MAX: usize = 32 * 1024;

/// Who calls: the peer, or whom a trusted proxy names.
#[derive(Clone)]
pub struct Caller {
    pub address: IpAddr,
    ticket: Arc<Mutex<Ticket>>,
}

impl Caller {
    /// The caller has proved itself: it no longer counts among strangers.
    pub fn authenticated(&self) {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).authenticated();
    }
}

/// One service on HTTP.
pub struct HttpService {
    pub app: Arc<App>,
    pub guard: Arc<Guard>,
    pub tls: Option<TlsAcceptor>,
    /// Networks whose X-Forwarded-For is believed.
    pub trusted: Vec<Network>,
    pub router: Router,
}

/// Serves the listeners until shutdown.
pub fn serve(service: HttpService, listeners: Vec<TcpListener>) {
    let service = Arc::new(service);
    for listener in listeners {
        let service = Arc::clone(&service);
        let app = Arc::clone(&service.app);
        let connect = move |stream, peer| connection(Arc::clone(&service), stream, peer);
        app.tasks.spawn(listen::accept(Arc::clone(&app), listener, connect));
    }
}

async fn connection(service: Arc<HttpService>, stream: TcpStream, peer: SocketAddr) {
    let address = peer.ip().to_canonical();
    let is_proxy = service.trusted.iter().any(|network| network.holds(address));
    let admitted =
        if is_proxy { service.guard.admit_proxy() } else { service.guard.admit(address) };
    let ticket = match admitted {
        Ok(ticket) => ticket,
        Err(denied) => {
            tracing::debug!(peer = %address, reason = denied.as_str(), "connection not served");
            return;
        }
    };
    let caller = Caller { address, ticket: Arc::new(Mutex::new(ticket)) };
    let Some(tls) = service.tls.clone() else {
        return requests(&service, stream, caller, is_proxy).await;
    };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(&service, stream, caller, is_proxy).await,
        Ok(Err(error)) => tracing::debug!(peer = %address, %error, "no TLS"),
        Err(_elapsed) => tracing::debug!(peer = %address, "TLS does not come to an end"),
    }
}

async fn requests(
    service: &Arc<HttpService>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    caller: Caller,
    is_proxy: bool,
) {
    let peer = caller.address;
    let answer = service_fn(|request: Request<Incoming>| {
        let mut caller = caller.clone();
        if is_proxy {
            caller.address = forwarded(request.headers(), &service.trusted).unwrap_or(peer);
        }
        respond(Arc::clone(service), request, caller)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = service.app.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn respond(
    service: Arc<HttpService>,
    request: Request<Incoming>,
    caller: Caller,
) -> Result<Response<Body>, Infallible> {
    if service.guard.is_banned(caller.address) {
        return Ok(short(
            StatusCode::FORBIDDEN,
            "too many failed logins from your address; try again later\n",
        ));
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(caller);
    let mut router = service.router.clone();
    match tokio::time::timeout(REQUEST, router.call(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            Ok(short(StatusCode::REQUEST_TIMEOUT, "the request did not come to an end\n"))
        }
    }
}

/// Whether a path's `%XX` give text; what is not text names nothing here.
#[must_use]
pub fn is_text(path: &str) -> bool {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()];
        let value = digits.map(|d| d.and_then(|d| char::from(d).to_digit(16)));
        let [Some(high), Some(low)] = value else { return false };
        bytes.push(u8::try_from(high.saturating_mul(16).saturating_add(low)).unwrap_or(0));
    }
    std::str::from_utf8(&bytes).is_ok()
}

fn short(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// The last address in X-Forwarded-For that is no proxy of ours: what stands before it, the caller may have written.
fn forwarded(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    for text in all.into_iter().rev() {
        let address: IpAddr = text.parse().ok()?;
        if !trusted.iter().any(|network| network.holds(address)) {
            return Some(address.to_canonical());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_no_text_are_known() {
        assert!(is_text("/clients/M%C3%BCller%2F1"));
        for bad in ["/%ff", "/%c3%28", "/%ed%a0%80", "/%", "/%4", "/%zz"] {
            assert!(!is_text(bad), "{bad}");
        }
    }

    #[test]
    fn only_what_a_trusted_proxy_wrote_is_believed() {
        let trusted = [Network::parse("10.0.0.0/8").unwrap()];
        let check = |lines: &[&str], expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            assert_eq!(
                forwarded(&headers, &trusted),
                expect.map(|e| e.parse().unwrap()),
                "{lines:?}"
            );
        };
        check(&["192.0.2.1"], Some("192.0.2.1"));
        check(&["198.51.100.9, 192.0.2.1, 10.0.0.2"], Some("192.0.2.1"));
        check(&["198.51.100.9", "192.0.2.1"], Some("192.0.2.1"));
        check(&["192.0.2.1, nonsense"], None);
        check(&["10.0.0.1"], None);
        check(&[], None);
    }
}
