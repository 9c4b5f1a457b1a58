//! FRONT FTPS: explicit and implicit TLS on the same `Session` calls as SFTP (spec section 10).
//!
//! `line`, `command`, `phase`, `reply` and `facts` are pure; `client` owns a session's state in one task; `transfer`
//! is the future that runs beside it, whose bytes move on a thread of their own (`seats`).

mod answer;
mod answer_transfer;
mod client;
pub mod command;
mod control;
mod data;
mod facts;
pub mod line;
mod listing;
mod passive;
mod phase;
mod reply;
mod seats;
mod texts;
mod tls;
mod transfer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::client::Client;
use self::seats::Seats;
use self::tls::Tls;
use crate::app::App;
use crate::certificate::Certificate;
use crate::guard::{Denied, Guard};
use crate::listen;

/// Data connections that wait for their peer's end.
const LINGERING_MAX: usize = 200;

/// What all sessions of this front share.
struct Front {
    app: Arc<App>,
    guard: Arc<Guard>,
    tls: Tls,
    seats: Seats,
    /// How long an end of data may be taken back.
    sure_after: Duration,
    /// Places for connections that only wait for their peer's end.
    lingering: Arc<Semaphore>,
}

/// Sockets that are open but not served yet.
pub struct Listeners {
    explicit: Vec<TcpListener>,
    implicit: Vec<TcpListener>,
}

/// Opens listeners; nothing at all where FTPS is switched off.
///
/// # Errors
/// When an address cannot be had.
pub async fn bind(app: &App) -> anyhow::Result<Option<Listeners>> {
    let config = &app.config.ftps;
    if config.listen.is_empty() && config.implicit_listen.is_empty() {
        return Ok(None);
    }
    let explicit = listen::bind("ftps.listen", &config.listen).await?;
    let implicit = listen::bind("ftps.implicit_listen", &config.implicit_listen).await?;
    Ok(Some(Listeners { explicit, implicit }))
}

/// Serves FTPS on the listeners until shutdown.
///
/// # Errors
/// When TLS cannot be set up, or no thread be started.
pub fn serve(
    app: &Arc<App>,
    guard: &Arc<Guard>,
    listeners: Listeners,
    certificate: Arc<Certificate>,
) -> anyhow::Result<()> {
    let Listeners { explicit, implicit } = listeners;
    let tls = Tls::new(certificate)?;
    let seats = Seats::start()?;
    let lingering = Arc::new(Semaphore::new(LINGERING_MAX));
    let sure_after = sure_after();
    let front = Arc::new(Front {
        app: Arc::clone(app),
        guard: Arc::clone(guard),
        tls,
        seats,
        sure_after,
        lingering,
    });
    for (listeners, is_implicit) in [(explicit, false), (implicit, true)] {
        for listener in listeners {
            let front = Arc::clone(&front);
            let serve =
                move |stream, peer| connection(Arc::clone(&front), stream, peer, is_implicit);
            app.tasks.spawn(listen::accept(Arc::clone(app), listener, serve));
        }
    }
    Ok(())
}

/// [`data::SURE`]; tests set more, for machines that are busy with other tests.
fn sure_after() -> Duration {
    let given = std::env::var("PTPORTAL_TEST_SURE_MS").ok().and_then(|text| text.parse().ok());
    given.map_or(data::SURE, Duration::from_millis)
}

async fn connection(front: Arc<Front>, mut stream: TcpStream, peer: SocketAddr, is_implicit: bool) {
    let address = peer.ip().to_canonical();
    let ticket = match front.guard.admit(address) {
        Ok(ticket) => ticket,
        Err(denied) => {
            front.guard.tell_denied(address, denied);
            if !is_implicit && denied != Denied::Banned {
                let reply = reply::Reply::new(421, "Too many connections; try again later.");
                // A few bytes into an empty socket never wait.
                stream.write_all(&reply.to_wire()).await.ok();
            }
            return;
        }
    };
    match Client::new(front, ticket, stream, address) {
        Ok(client) => client.run(is_implicit).await,
        Err(error) => tracing::debug!(peer = %address, %error, "connection not served"),
    }
}
