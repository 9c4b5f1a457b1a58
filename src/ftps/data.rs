//! One data connection: from the passive port through TLS to its end (RFC 4217 section 10).

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Front;
use super::passive::Passive;
use super::reply::Reply;
use super::seats::Seat;
use super::tls::{self, DataStream};
use crate::domain::refusal::Refusal;

/// After our end of data the peer may take this long for its own.
const LAST_WORD: Duration = Duration::from_secs(5);
/// A client that is told "no" may go on sending for this long.
const LINGER: Duration = Duration::from_secs(30);

/// Up to here each read acknowledges at once what came before it.
const QUICK_BYTES: u64 = 1 << 20;

/// A client must connect within this time after its transfer command.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that give up (a time limit, an interrupt) end the data connection as properly as those that have sent all, and
/// close the control connection right behind it (curl: within 1.4 ms). Whoever is still there after this time and the
/// way of a packet has meant it.
pub(super) const SURE: Duration = Duration::from_millis(8);
/// The longest way of a packet that is waited for.
const WAY_MAX: Duration = Duration::from_millis(100);
/// The same without close_notify: a killed client ends like that too.
const SURE_WITHOUT_CLOSE: Duration = Duration::from_secs(1);

/// How a client's data came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// As many bytes as ALLO said: nothing speaks against it.
    AsDeclared,
    /// By close_notify.
    Announced,
    /// Without close_notify, and the account tolerates that.
    Tolerated,
}

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

/// A data connection that is coming into being since PASV or EPSV: accepted and under TLS as soon as the client wants
/// it, because some (curl) speak before they send the transfer command and wait for the answer. Dropping it closes all.
pub(super) struct Pending {
    port: u16,
    seat: Arc<Seat>,
    connected: CancellationToken,
    coming: AbortOnDropHandle<Result<DataStream, Reply>>,
}

impl Pending {
    /// Begins to wait for the client.
    pub(super) fn new(
        front: &Arc<Front>,
        tls: TlsAcceptor,
        passive: Passive,
        client: IpAddr,
    ) -> Self {
        let seat = front.seats.seat();
        let port = passive.port();
        let connected = CancellationToken::new();
        let noticed = connected.clone();
        let app = Arc::clone(&front.app);
        let coming = seat.spawn(&front.app.tasks, async move {
            let trusted = &app.config.web.trusted_proxies;
            let stream = passive.accept(client, trusted).await.map_err(|error| {
                tracing::debug!(%error, peer = %client, "no data connection");
                no_connection()
            })?;
            noticed.cancel();
            tls::accept_data(tls, stream).await.map_err(|error| {
                tracing::debug!(%error, peer = %client, "no TLS on the data connection");
                no_tls()
            })
        });
        Self { port, seat: Arc::new(seat), connected, coming }
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The time for it counts from the transfer command on.
    async fn connected(self) -> Result<DataStream, Reply> {
        let Self { connected, coming, .. } = self;
        tokio::pin!(coming);
        let accepted = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                () = connected.cancelled() => None,
                done = &mut coming => Some(done),
            }
        });
        match accepted.await {
            Ok(Some(done)) => return done.unwrap_or_else(|_| Err(no_connection())),
            Ok(None) => {}
            Err(_elapsed) => return Err(no_connection()),
        }
        match tokio::time::timeout(tls::HANDSHAKE, coming).await {
            Ok(done) => done.unwrap_or_else(|_| Err(no_tls())),
            Err(_elapsed) => Err(no_tls()),
        }
    }
}

fn no_connection() -> Reply {
    Reply::new(425, "No data connection came; use PASV or EPSV and connect at once.")
}

fn no_tls() -> Reply {
    Reply::new(522, "The data connection did not begin TLS.")
}

/// What a transfer needs to open its data connection.
pub(super) struct Opening {
    /// The shortest time in which this client has answered: at least the way there and back.
    pub(super) turnaround: Duration,
    pub(super) front: Arc<Front>,
    pub(super) pending: Pending,
    pub(super) abort: CancellationToken,
    pub(super) progress: Arc<Progress>,
}

/// An open data connection.
pub(super) struct Data {
    stream: DataStream,
    abort: CancellationToken,
    stall: Duration,
    turnaround: Duration,
    pub(super) progress: Arc<Progress>,
    front: Arc<Front>,
    /// How the client's data ended, where bytes came before it in the same look.
    ended: Option<io::Result<()>>,
}

/// Everything that is there already. The end that is seen behind bytes is told at the next call: the stream itself would
/// tell of a lost connection once only, and then of a proper end.
fn poll_available(
    stream: &mut DataStream,
    ended: &mut Option<io::Result<()>>,
    buffer: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if let Some(ended) = ended.take() {
        return Poll::Ready(ended);
    }
    // Also into a buffer without room, which grows: nothing read would be the end of data.
    while buffer.is_empty() || buffer.len() < buffer.capacity() {
        let end = match poll_read_buf(Pin::new(&mut *stream), cx, buffer) {
            Poll::Ready(Ok(0)) => Ok(()),
            Poll::Ready(Ok(_)) => continue,
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending if buffer.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        };
        if buffer.is_empty() {
            return Poll::Ready(end);
        }
        *ended = Some(end);
        break;
    }
    Poll::Ready(Ok(()))
}

impl Opening {
    /// Runs what moves the bytes where the connection is.
    ///
    /// # Errors
    /// `Internal`, when a bug has ended it.
    pub(super) async fn on_its_thread<F>(
        self,
        work: impl FnOnce(Self) -> F,
    ) -> Result<F::Output, Refusal>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (seat, tasks) = (Arc::clone(&self.pending.seat), self.front.app.tasks.clone());
        let work = work(self);
        seat.spawn(&tasks, work).await.map_err(|_| Refusal::Internal)
    }

    /// Waits for the client and puts TLS on.
    ///
    /// # Errors
    /// The final reply: nobody came, no TLS, not this session's TLS, aborted.
    pub(super) async fn open(self) -> Result<Data, Reply> {
        let Self { turnaround, front, pending, abort, progress } = self;
        let stream = tokio::select! {
            connected = pending.connected() => connected?,
            () = abort.cancelled() => return Err(Reply::new(426, "Transfer aborted.")),
        };
        let is_bound = tls::is_bound(&stream);
        tracing::trace!(is_bound, "data connection");
        let stall = front.app.limits().idle_timeout;
        let requires = front.app.config.ftps.require_session_reuse;
        let data = Data { stream, abort, stall, turnaround, progress, front, ended: None };
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
    /// Waits for bytes of the client and takes what is there, up to the capacity of the (empty) buffer; none at its end
    /// of data (close_notify).
    ///
    /// # Errors
    /// [`Cut`]; an end without close_notify is `Lost` with `UnexpectedEof`.
    pub(super) async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<(), Cut> {
        if self.progress.bytes() < QUICK_BYTES {
            self.acknowledge();
        }
        let (stream, ended) = (&mut self.stream, &mut self.ended);
        let read = poll_fn(|cx| poll_available(stream, ended, buffer, cx));
        let read = tokio::time::timeout(self.stall, read);
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
        if let Err(error) = sockopt::set_tcp_quickack(self.stream.get_ref().0.get_ref(), true) {
            tracing::trace!(%error, "TCP_QUICKACK");
        }
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// [`Cut`].
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        // A slow client may take a while for all of it, but each piece must move.
        for records in bytes.chunks(tls::WRITE_AT_ONCE) {
            let written = tokio::time::timeout(self.stall, self.stream.write_all(records));
            tokio::select! {
                biased;
                () = self.abort.cancelled() => return Err(Cut::Aborted),
                written = written => match written {
                    Ok(written) => written.map_err(Cut::Lost)?,
                    Err(_elapsed) => return Err(Cut::Stalled),
                },
            }
            self.progress.add(records.len());
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

    /// Waits whether ABOR or the end of the control connection takes the end of data back. Then it is too late for that.
    ///
    /// # Errors
    /// `Aborted`, when it does.
    pub(super) async fn sure_of_end(&self, ending: Ending) -> Result<(), Cut> {
        let wait = match ending {
            Ending::AsDeclared => None,
            Ending::Announced => {
                Some(self.front.sure_after.saturating_add(self.turnaround.min(WAY_MAX)))
            }
            Ending::Tolerated => Some(SURE_WITHOUT_CLOSE),
        };
        // No sleep at all where there is nothing to wait for: the shortest lasts a millisecond.
        if let Some(wait) = wait {
            tokio::time::timeout(wait, self.abort.cancelled()).await.ok();
        }
        if self.abort.is_cancelled() {
            return Err(Cut::Aborted);
        }
        self.progress.complete();
        Ok(())
    }

    /// Our end of a download. What the client still says (its own end) is read in a task of its own: a close before
    /// would be a reset that eats the last bytes on their way.
    ///
    /// # Errors
    /// [`Cut`], when the last bytes do not go out.
    pub(super) async fn end(mut self) -> Result<(), Cut> {
        let flushed = tokio::time::timeout(self.stall, self.stream.shutdown());
        match flushed.await {
            Ok(flushed) => flushed.map_err(Cut::Lost)?,
            Err(_elapsed) => return Err(Cut::Stalled),
        }
        self.linger(LAST_WORD);
        Ok(())
    }

    /// The client is told "no": it may go on sending for a while, so that it reads the reply instead of a reset.
    pub(super) fn refuse(self) {
        self.linger(LINGER);
    }

    /// Throws away what still comes, in a task of its own; a bounded number of them.
    fn linger(mut self, limit: Duration) {
        let app = Arc::clone(&self.front.app);
        let Ok(place) = Arc::clone(&self.front.lingering).try_acquire_owned() else { return };
        app.clone().tasks.spawn(async move {
            let _place = place;
            let lingering = async {
                // A second close_notify is none.
                self.stream.shutdown().await.ok();
                discard(&mut self.stream).await;
            };
            tokio::select! {
                () = lingering => {}
                () = tokio::time::sleep(limit) => {}
                () = app.stop.cancelled() => {}
            }
        });
    }
}

async fn discard(stream: &mut DataStream) {
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}
