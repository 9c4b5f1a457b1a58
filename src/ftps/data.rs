//! One data connection: from the passive port through TLS to its end (RFC 4217 section 10).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Front;
use super::passive::Passive;
use super::reply::Reply;
use super::tls::{self, Token};

/// After our end of data the peer may take this long for its own.
const LAST_WORD: Duration = Duration::from_secs(5);
/// A client that is told "no" may go on sending for this long, so that it reads the reply instead of a reset.
const LINGER: Duration = Duration::from_secs(30);

/// Up to here each read acknowledges at once what came before it.
const QUICK_BYTES: u64 = 1 << 20;

/// What others may know of a running transfer.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    is_complete: AtomicBool,
}

impl Progress {
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// All data came: what follows (verdict, release) is not the client's to abort.
    pub(super) fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }
}

/// Why bytes no longer flow.
#[derive(Debug)]
pub(super) enum Cut {
    /// The client, its network, or TLS.
    Lost(io::Error),
    /// ABOR, or the control connection is gone.
    Aborted,
    /// Nothing moved for `limits.idle_timeout`.
    Stalled,
}

impl Cut {
    /// For the log, never for the client.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Lost(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "end of data without close_notify".to_owned()
            }
            Self::Lost(error) => error.to_string(),
            Self::Aborted => "aborted by the client".to_owned(),
            Self::Stalled => "stalled".to_owned(),
        }
    }
}

/// What a data connection needs to come into being.
pub(super) struct Opening {
    pub(super) front: Arc<Front>,
    pub(super) passive: Passive,
    pub(super) client: IpAddr,
    pub(super) token: Token,
    pub(super) abort: CancellationToken,
    pub(super) progress: Arc<Progress>,
}

/// An open data connection.
pub(super) struct Data {
    stream: TlsStream<TcpStream>,
    abort: CancellationToken,
    stall: Duration,
    pub(super) progress: Arc<Progress>,
    front: Arc<Front>,
}

impl Opening {
    /// Waits for the client and puts TLS on.
    ///
    /// # Errors
    /// The final reply: nobody came, no TLS, not this session's TLS, aborted.
    pub(super) async fn open(self) -> Result<Data, Reply> {
        let Self { front, passive, client, token, abort, progress } = self;
        let opened = async {
            let stream = passive.accept(client).await.map_err(|error| {
                tracing::debug!(%error, peer = %client, "no data connection");
                Reply::new(425, "No data connection came; use PASV or EPSV and connect at once.")
            })?;
            let stream = front.tls.data(stream).await.map_err(|error| {
                tracing::debug!(%error, peer = %client, "no TLS on the data connection");
                Reply::new(522, "The data connection did not begin TLS.")
            })?;
            let is_bound = tls::is_bound(&stream, &token);
            tracing::trace!(peer = %client, is_bound, "data connection");
            Ok((stream, is_bound))
        };
        let (stream, is_bound) = tokio::select! {
            opened = opened => opened?,
            () = abort.cancelled() => return Err(Reply::new(426, "Transfer aborted.")),
        };
        let stall = front.app.config.limits.idle_timeout;
        let requires = front.app.config.ftps.require_session_reuse;
        let data = Data { stream, abort, stall, progress, front };
        if requires && !is_bound {
            data.refuse();
            return Err(Reply::new(
                522,
                "The data connection must resume the TLS session of the control connection.",
            ));
        }
        Ok(data)
    }
}

impl Data {
    /// Bytes of the client; 0 at its end of data (close_notify).
    ///
    /// # Errors
    /// [`Cut`]; an end without close_notify is `Lost` with `UnexpectedEof`.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Cut> {
        if self.progress.bytes() < QUICK_BYTES {
            self.acknowledge();
        }
        let read = tokio::time::timeout(self.stall, self.stream.read(buffer));
        tokio::select! {
            biased;
            () = self.abort.cancelled() => Err(Cut::Aborted),
            read = read => match read {
                Ok(read) => read.map_err(Cut::Lost),
                Err(_elapsed) => Err(Cut::Stalled),
            },
        }
    }

    /// Clients hold their close_notify back until what they sent is acknowledged (Nagle), and the kernel holds that back
    /// for 40 ms: most of the time of a small file.
    fn acknowledge(&self) {
        if let Err(error) = sockopt::set_tcp_quickack(self.stream.get_ref().0, true) {
            tracing::trace!(%error, "TCP_QUICKACK");
        }
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// [`Cut`].
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        // A slow client may take a while for one piece, but each record must move.
        for record in bytes.chunks(64 * 1024) {
            let written = tokio::time::timeout(self.stall, self.stream.write_all(record));
            tokio::select! {
                biased;
                () = self.abort.cancelled() => return Err(Cut::Aborted),
                written = written => match written {
                    Ok(written) => written.map_err(Cut::Lost)?,
                    Err(_elapsed) => return Err(Cut::Stalled),
                },
            }
            self.progress.add(record.len());
        }
        Ok(())
    }

    /// Our end of an upload: clients wait for it before they look at the control connection.
    pub(super) async fn answer_end(&mut self) {
        let shut = tokio::time::timeout(LAST_WORD, self.stream.shutdown()).await;
        if let Ok(Err(error)) = shut {
            tracing::trace!(%error, "close of a data connection");
        }
    }

    /// Our end of a download, and the client's after it: a close before would be a reset that eats the last bytes.
    ///
    /// # Errors
    /// [`Cut`], when the last bytes do not go out.
    pub(super) async fn end(mut self) -> Result<(), Cut> {
        let flushed = tokio::time::timeout(self.stall, self.stream.shutdown());
        match flushed.await {
            Ok(flushed) => flushed.map_err(Cut::Lost)?,
            Err(_elapsed) => return Err(Cut::Stalled),
        }
        drop(tokio::time::timeout(LAST_WORD, discard(&mut self.stream)).await);
        Ok(())
    }

    /// What the client still sends is thrown away for a while, in a task of its own.
    pub(super) fn refuse(mut self) {
        let app = Arc::clone(&self.front.app);
        app.clone().tasks.spawn(async move {
            let lingering = async {
                self.stream.shutdown().await.ok();
                discard(&mut self.stream).await;
            };
            tokio::select! {
                () = lingering => {}
                () = tokio::time::sleep(LINGER) => {}
                () = app.stop.cancelled() => {}
            }
        });
    }
}

async fn discard(stream: &mut TlsStream<TcpStream>) {
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}
