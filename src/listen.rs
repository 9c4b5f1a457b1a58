//! What both fronts do with a listening socket: open it, accept, never give up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;

/// Pause after an accept that failed (no descriptors left): never spin, never give up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A peer that vanished is noticed by TCP itself.
const KEEPALIVE: Duration = Duration::from_secs(30);

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
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = app.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                prepare(&stream);
                app.tasks.spawn(serve(stream, peer));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Small answers go out at once, and a peer that vanished is noticed.
pub fn prepare(stream: &TcpStream) {
    let prepared = stream.set_nodelay(true).and_then(|()| {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
        Ok(sockopt::set_tcp_keepcnt(stream, 4)?)
    });
    if let Err(error) = prepared {
        tracing::debug!(%error, "options of a socket");
    }
}
