//! The adapter for clamd: PING, VERSION, STATS, and scans by FILDES or INSTREAM.
//!
//! It brings back raw replies under a time limit; [`reply`] alone says what a reply means, and
//! [`canary`] proves that this clamd really scans. It knows nothing of uploads, policies or
//! retries. clamav-client and the passing of descriptors are named nowhere else.

pub mod canary;
pub mod ceiling;
pub mod reply;
mod transport;

use std::{fmt, fs::File, future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

pub use canary::{Proof, Unproven, prove};
use reply::Version;
use transport::{Dial, ExactFile, NoConnection};

/// How long PING, VERSION and STATS may take, connecting included. A slow answer means busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The longest reply to STATS: it names every waiting scan, so it may be long on a busy clamd.
const STATS_ROOM: usize = 64 * 1024;

/// Where clamd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `LocalSocket` of clamd.conf.
    Unix(PathBuf),
    /// `TCPAddr:TCPSocket` of clamd.conf.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

/// How content reaches clamd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The open descriptor is passed over a unix socket; nothing is copied.
    Fildes,
    /// The bytes are sent; clamd spools them and scans after the last one.
    Instream,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fildes => "fildes",
            Self::Instream => "instream",
        })
    }
}

/// Why clamd gave no reply. Nothing is known about the content then.
#[derive(Debug, thiserror::Error)]
pub enum ClamdError {
    /// No connection: clamd is down, loads its signatures, or its queue is full.
    #[error("connect to clamd at {address}: {cause}")]
    Unreachable { address: Address, cause: io::Error },
    #[error("{what}, clamd at {address}: no reply within {limit:?}")]
    TimedOut { what: &'static str, address: Address, limit: Duration },
    /// The connection or the content broke off.
    #[error("{what}, clamd at {address}: {cause}")]
    Io { what: &'static str, address: Address, cause: io::Error },
    /// A reply to a command other than a scan that is not what clamd says.
    #[error("{what}, clamd at {address}: odd reply {reply}")]
    OddReply { what: &'static str, address: Address, reply: String },
    /// Descriptors travel over unix sockets only.
    #[error("scan by fildes, clamd at {address}: needs a unix socket")]
    NoDescriptors { address: Address },
}

/// One clamd. Cheap to clone; holds no connection, every command opens its own.
#[derive(Debug, Clone)]
pub struct Clamd {
    address: Arc<Address>,
}

impl Clamd {
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address: Arc::new(address) }
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks for a sign of life. A connection alone proves nothing: with systemd's socket
    /// activation it succeeds while clamd is down.
    pub async fn ping(&self) -> Result<(), ClamdError> {
        const WHAT: &str = "PING";
        let asking = clamav_client::tokio::ping(self.dial(transport::REPLY_ROOM));
        let reply = self.within(WHAT, ANSWER_LIMIT, asking).await?;
        if reply == clamav_client::PONG { Ok(()) } else { Err(self.odd(WHAT, &reply)) }
    }

    /// Asks which engine and which database are loaded.
    pub async fn version(&self) -> Result<Version, ClamdError> {
        const WHAT: &str = "VERSION";
        let asking = clamav_client::tokio::get_version(self.dial(transport::REPLY_ROOM));
        let reply = self.within(WHAT, ANSWER_LIMIT, asking).await?;
        Version::parse(&reply).ok_or_else(|| self.odd(WHAT, &reply))
    }

    /// Asks how many scans run at once (`MaxThreads`); at least one.
    pub async fn max_threads(&self) -> Result<usize, ClamdError> {
        const WHAT: &str = "STATS";
        let asking = transport::command(self.dial(STATS_ROOM), b"zSTATS\0");
        let reply = self.within(WHAT, ANSWER_LIMIT, asking).await?;
        reply::parse_max_threads(&reply).ok_or_else(|| self.odd(WHAT, &reply))
    }

    /// Scans the first `len` bytes, which must be the whole file, and returns the raw reply for
    /// [`reply::parse_reply`]. Opens one connection for this scan.
    ///
    /// Fails if the file is not `len` bytes long, before or after. By FILDES clamd moves the
    /// offset of the descriptor, so pass one that nobody reads sequentially. Dropping the future
    /// hangs up, but clamd goes on with a scan that it has begun.
    pub async fn scan_file(
        &self,
        file: &File,
        len: u64,
        transport: Transport,
        limit: Duration,
    ) -> Result<Vec<u8>, ClamdError> {
        let what = scan_by(transport);
        self.check_length(what, file, len)?;
        let reply = match transport {
            Transport::Fildes => {
                let Address::Unix(path) = self.address() else {
                    return Err(self.no_descriptors());
                };
                self.within(what, limit, transport::fildes(path, file)).await?
            }
            Transport::Instream => {
                let content = ExactFile::new(file, len).map_err(|cause| self.error(what, cause))?;
                let dial = self.dial(transport::REPLY_ROOM);
                let chunk = Some(transport::CHUNK);
                let scan = clamav_client::tokio::scan_stream(content, dial, chunk);
                self.within(what, limit, scan).await?
            }
        };
        // clamd says OK to a file that is cut while it is scanned.
        self.check_length(what, file, len)?;
        Ok(reply)
    }

    /// Scans bytes in memory, a window of an upload, and returns the raw reply for
    /// [`reply::parse_reply`]. Dropping the future is as for [`Self::scan_file`].
    pub async fn scan_bytes(
        &self,
        bytes: Bytes,
        transport: Transport,
        limit: Duration,
    ) -> Result<Vec<u8>, ClamdError> {
        let what = scan_by(transport);
        match transport {
            Transport::Fildes => {
                let Address::Unix(path) = self.address() else {
                    return Err(self.no_descriptors());
                };
                let scan = async {
                    let window = transport::memory_file(bytes).await?;
                    transport::fildes(path, &window).await
                };
                self.within(what, limit, scan).await
            }
            Transport::Instream => {
                let dial = self.dial(transport::REPLY_ROOM);
                let chunk = Some(transport::CHUNK);
                let scan = clamav_client::tokio::scan_buffer(&bytes, dial, chunk);
                self.within(what, limit, scan).await
            }
        }
    }

    fn dial(&self, room: usize) -> Dial {
        Dial { address: Arc::clone(&self.address), room }
    }

    async fn within<T>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, ClamdError> {
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(cause)) => Err(self.error(what, cause)),
            Err(_elapsed) => {
                Err(ClamdError::TimedOut { what, address: self.address().clone(), limit })
            }
        }
    }

    fn check_length(&self, what: &'static str, file: &File, len: u64) -> Result<(), ClamdError> {
        let found = file.metadata().map_err(|cause| self.error(what, cause))?.len();
        if found == len {
            return Ok(());
        }
        let cause = format!("the file is {found} bytes long instead of {len}");
        Err(self.error(what, io::Error::other(cause)))
    }

    fn error(&self, what: &'static str, cause: io::Error) -> ClamdError {
        let address = self.address().clone();
        match cause.downcast::<NoConnection>() {
            Ok(NoConnection(cause)) => ClamdError::Unreachable { address, cause },
            Err(cause) => ClamdError::Io { what, address, cause: explained(cause) },
        }
    }

    fn odd(&self, what: &'static str, reply: &[u8]) -> ClamdError {
        ClamdError::OddReply { what, address: self.address().clone(), reply: reply::quote(reply) }
    }

    fn no_descriptors(&self) -> ClamdError {
        ClamdError::NoDescriptors { address: self.address().clone() }
    }
}

/// How long the scan of a whole file may take: 60 s and 0.6 s per megabyte. It must be more than
/// `MaxScanTime` of clamd.conf, so that clamd ends a long scan and says so.
#[must_use]
pub fn scan_limit(len: u64) -> Duration {
    const NANOSECONDS_PER_BYTE: u64 = 600;
    Duration::from_secs(60)
        .saturating_add(Duration::from_nanos(len.saturating_mul(NANOSECONDS_PER_BYTE)))
}

/// clamav-client does not read the reply that explains why clamd hung up while bytes were sent.
fn explained(cause: io::Error) -> io::Error {
    let kind = cause.kind();
    if kind != io::ErrorKind::BrokenPipe && kind != io::ErrorKind::ConnectionReset {
        return cause;
    }
    let why = "it was stopped, or StreamMaxLength or ReadTimeout of clamd.conf is too small";
    io::Error::new(kind, format!("clamd hung up: {why} ({cause})"))
}

fn scan_by(transport: Transport) -> &'static str {
    match transport {
        Transport::Fildes => "scan by fildes",
        Transport::Instream => "scan by instream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_grows_with_the_file_and_never_overflows() {
        assert_eq!(scan_limit(0), Duration::from_secs(60));
        assert_eq!(scan_limit(1_000_000), Duration::from_millis(60_600));
        assert_eq!(scan_limit(2_147_483_645).as_secs(), 1348);
        assert!(scan_limit(u64::MAX) > scan_limit(1 << 40));
    }

    #[test]
    fn addresses_and_transports_are_shown_as_they_are_configured() {
        assert_eq!(Address::Unix("/run/clamd.ctl".into()).to_string(), "unix:/run/clamd.ctl");
        assert_eq!(Address::Tcp("127.0.0.1:3310".to_owned()).to_string(), "tcp:127.0.0.1:3310");
        assert_eq!(Transport::Fildes.to_string(), "fildes");
        assert_eq!(Transport::Instream.to_string(), "instream");
    }

    #[test]
    fn a_message_says_what_was_tried_on_what() {
        let clamd = Clamd::new(Address::Tcp("scanner:3310".to_owned()));
        let said = clamd.odd("PING", b"HTTP/1.1 400\r\n").to_string();
        assert_eq!(said, r#"PING, clamd at tcp:scanner:3310: odd reply "HTTP/1.1 400\r\n""#);
        let said = clamd.error("VERSION", io::Error::other("gone")).to_string();
        assert_eq!(said, "VERSION, clamd at tcp:scanner:3310: gone");
        let said = clamd.error("scan by instream", io::ErrorKind::BrokenPipe.into()).to_string();
        assert!(said.contains("clamd hung up") && said.contains("StreamMaxLength"), "{said}");
    }

    #[tokio::test]
    async fn a_missing_socket_is_unreachable_and_tcp_takes_no_descriptors() {
        let limit = Duration::from_secs(5);
        let gone = Clamd::new(Address::Unix("/nonexistent/clamd.ctl".into()));
        assert!(matches!(gone.ping().await, Err(ClamdError::Unreachable { .. })));
        for transport in [Transport::Fildes, Transport::Instream] {
            let scan = gone.scan_bytes(Bytes::from_static(b"x"), transport, limit).await;
            assert!(matches!(scan, Err(ClamdError::Unreachable { .. })));
        }
        let remote = Clamd::new(Address::Tcp("127.0.0.1:1".to_owned()));
        let scan = remote.scan_bytes(Bytes::new(), Transport::Fildes, limit).await;
        assert!(matches!(scan, Err(ClamdError::NoDescriptors { .. })));
    }
}
