//! What stands before pages and API: accept, TLS, limits of HTTP/1.1 connections, and who is really calling.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::app::App;
use crate::domain::account::{Language, Network};
use crate::guard::{Guard, Ticket};
use crate::{listen, steps};

/// A peer that begins TLS or a request and does not go on is cut.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(10);
/// A connection is closed after this, so that nobody holds a place by never reading or by asking now and then.
const STRANGERS: Duration = Duration::from_secs(60);
const CUSTOMERS: Duration = Duration::from_secs(15 * 60);
/// And its last request ends within this.
const LAST_REQUEST: Duration = Duration::from_secs(10);
/// A whole request: its body, and the wait for a password check.
const REQUEST: Duration = Duration::from_secs(30);
const HEADERS_MAX: usize = 64;
const BUFFER_MAX: usize = 32 * 1024;

/// The value of a cookie of a request (RFC 6265 section 5.4).
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// Who calls: the peer, or whom a trusted proxy names.
#[derive(Clone)]
pub struct Caller {
    pub address: IpAddr,
    /// The address is a proxy's that did not say for whom it speaks: nothing is held against it.
    is_nobody: bool,
    ticket: Arc<Mutex<Ticket>>,
    /// Proved itself as one that carries big files.
    transfers: Arc<AtomicBool>,
}

impl Caller {
    /// Whom failed logins are held against.
    #[must_use]
    pub fn accountable(&self) -> Option<IpAddr> {
        (!self.is_nobody).then_some(self.address)
    }

    fn is_authenticated(&self) -> bool {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).is_authenticated()
    }

    async fn lifetime(&self) {
        tokio::time::sleep(STRANGERS).await;
        if self.is_authenticated() {
            tokio::time::sleep(CUSTOMERS.saturating_sub(STRANGERS)).await;
        }
        while self.transfers.load(Ordering::Acquire) {
            tokio::time::sleep(STRANGERS).await;
        }
    }

    /// Requests of this connection may take as long as they move.
    pub fn transfers(&self) {
        self.transfers.store(true, Ordering::Release);
    }

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
        if is_proxy { service.guard.admit_proxy() } else { service.guard.admit_web(address) };
    let ticket = match admitted {
        Ok(ticket) => ticket,
        Err(denied) => {
            service.guard.tell_denied(address, denied);
            return;
        }
    };
    let ticket = Arc::new(Mutex::new(ticket));
    let caller = Caller { address, is_nobody: is_proxy, ticket, transfers: Arc::default() };
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
        if let Some(address) =
            is_proxy.then(|| forwarded(request.headers(), &service.trusted)).flatten()
        {
            (caller.address, caller.is_nobody) = (address, false);
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
    tokio::select! {
        served = &mut serving => {
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "connection ended");
            }
            return;
        }
        () = service.app.stop.cancelled() => {}
        () = caller.lifetime() => {}
    }
    // The request that runs may end; then the client begins anew.
    serving.as_mut().graceful_shutdown();
    if tokio::time::timeout(LAST_REQUEST, serving).await.is_err() {
        tracing::debug!(%peer, "connection cut: its last answer was not taken");
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
            "Zu viele Fehlversuche von Ihrer Adresse; bitte versuchen Sie es sp\u{e4}ter noch einmal.\nToo many failed logins from your address; please try again later.\n",
        ));
    }
    steps::reach("web.request");
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(caller.clone());
    let mut router = service.router.clone();
    let call = router.call(request);
    tokio::pin!(call);
    match tokio::time::timeout(REQUEST, &mut call).await {
        Ok(response) => response,
        Err(_elapsed) if caller.transfers.load(Ordering::Acquire) => call.await,
        Err(_elapsed) => {
            Ok(short(StatusCode::REQUEST_TIMEOUT, "the request did not come to an end\n"))
        }
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address_of(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(with_port)
}

/// Whether a path's `%XX` give text; what is not text names nothing here.
#[must_use]
pub fn is_text(path: &str) -> bool {
    percent_encoding::percent_decode_str(path).decode_utf8().is_ok()
}

fn short(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The first language of Accept-Language that we speak (RFC 9110 section 12.5.4).
#[must_use]
pub fn accepted_language(headers: &HeaderMap) -> Option<Language> {
    let text = headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok()?;
    let mut offers: Vec<(f32, Language)> = text
        .split(',')
        .filter_map(|offer| {
            let mut parts = offer.trim().split(';');
            let tag = parts.next()?.trim().to_lowercase();
            let weight = parts.find_map(|p| p.trim().strip_prefix("q=")?.parse::<f32>().ok());
            let language = match tag.split('-').next()? {
                "de" => Language::De,
                "en" => Language::En,
                _ => return None,
            };
            let weight = weight.unwrap_or(1.0);
            (weight > 0.0).then_some((weight, language))
        })
        .collect();
    // Stable: of equal weights the first counts.
    offers.sort_by(|a, b| b.0.total_cmp(&a.0));
    offers.first().map(|(_, language)| *language)
}

/// The last address in X-Forwarded-For that is no proxy of ours: what stands before it, the caller may have written.
fn forwarded(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    for text in all.into_iter().rev() {
        let address = address_of(text)?;
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
        for bad in ["/%ff", "/%c3%28", "/%ed%a0%80"] {
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
        check(&["198.51.100.9, 192.0.2.1:4711"], Some("192.0.2.1"));
        check(&["[2001:db8::1]:4711"], Some("2001:db8::1"));
        check(&["2001:db8::1"], Some("2001:db8::1"));
        check(&["192.0.2.1, nonsense"], None);
        check(&["10.0.0.1"], None);
        check(&[], None);
    }

    #[test]
    fn the_language_is_the_first_that_we_speak() {
        let check = |text: &str, expect: Option<Language>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, text.parse().unwrap());
            assert_eq!(accepted_language(&headers), expect, "{text}");
        };
        check("de-DE,de;q=0.9,en;q=0.8", Some(Language::De));
        check("en-GB,en;q=0.9,de;q=0.8", Some(Language::En));
        check("fr, en;q=0.3, de;q=0.7", Some(Language::De));
        check("fr", None);
        check("de;q=0, en;q=x", Some(Language::En));
        check(";;;,,,", None);
    }
}
