//! What both fronts do with a listening socket: open it, accept, never give up.

pub mod proxy;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;

/// Pause after an accept that failed (no descriptors left): never spin, never give up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Descriptors that connections never take.
const RESERVE: u64 = 64;
/// A peer that vanished is noticed by TCP itself.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes of a connection that the kernel holds and has not sent. Of more the peer's end pays: on one machine a download
/// takes a sixth longer.
const UNSENT_MAX: u32 = 128 * 1024;

/// Opens listeners; `key` is the configuration's.
///
/// # Errors
/// When an address cannot be had.
pub async fn bind(key: &str, addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|e| anyhow::anyhow!("{key} {address}: {e}"))?;
        tracing::info!(address = %listener.local_addr()?, setting = key, "listening");
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Accepts until shutdown, each connection in a task of its own.
pub async fn accept<F>(
    app: Arc<App>,
    listener: TcpListener,
    serve: impl Fn(TcpStream, SocketAddr) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    loop {
        let accepted = tokio::select! {
            () = app.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let is_last_reserve = accepted.as_ref().is_ok_and(|(stream, _)| is_in_reserve(stream));
        match accepted {
            Ok((_, peer)) if is_last_reserve => {
                // Dropped at once: database and files of running transfers need descriptors too.
                tracing::debug!(%peer, "connection not served: few descriptors are left");
            }
            Ok((mut stream, peer)) => {
                prepare(&stream);
                let (app, serve) = (Arc::clone(&app), Arc::clone(&serve));
                app.clone().tasks.spawn(async move {
                    let trusted = &app.config.web.trusted_proxies;
                    match proxy::client_of(&mut stream, peer, trusted).await {
                        Ok(client) => serve(stream, client).await,
                        Err(error) => {
                            tracing::warn!(%peer, %error, "connection of a proxy not served")
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a socket took one of the last descriptors: the system gives the lowest free number, so it tells how many are
/// in use.
fn is_in_reserve(stream: &TcpStream) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let number = u64::try_from(stream.as_raw_fd()).unwrap_or(0);
    limit.is_some_and(|limit| number.saturating_add(RESERVE) >= limit)
}

/// Small answers go out at once, a slow reader keeps little of the kernel's memory, and a peer that vanished is noticed.
pub fn prepare(stream: &TcpStream) {
    let prepared = stream.set_nodelay(true).and_then(|()| {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
        sockopt::set_tcp_keepcnt(stream, 4)?;
        // Not every kernel knows it.
        socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX)
    });
    if let Err(error) = prepared {
        tracing::debug!(%error, "options of a socket");
    }
}
