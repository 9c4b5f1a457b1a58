//! TLS of control and data connections: two configurations that share certificate and session tickets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite};
use rustls::server::ServerSessionMemoryCache;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, SupportedCipherSuite};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::Certificate;

/// A peer that begins TLS and does not go on is cut.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Read from the socket at once; a record is 16 KiB.
const READ_AT_ONCE: usize = 256 * 1024;
/// Encrypted before the socket has taken it, at most.
pub(super) const WRITE_AT_ONCE: usize = 256 * 1024;

/// What all control connections begin with.
pub(super) struct Tls {
    control: ServerConfig,
    data: ServerConfig,
}

/// TLS of one control connection and its data connections. The keys of its session tickets are its own: a data
/// connection that resumes a session at all resumes this one, under TLS 1.2 and 1.3 alike.
pub(super) struct SessionTls {
    control: TlsAcceptor,
    data: TlsAcceptor,
}

/// A data connection under TLS.
pub(super) type DataStream = TlsStream<BufReader<TcpStream>>;

/// For the few clients that resume by session id.
const SESSIONS_KEPT: usize = 8;

/// AES-128 first: what a file transfer costs is mostly this.
const SUITES: [SupportedCipherSuite; 7] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

impl Tls {
    /// # Errors
    /// What rustls says of the protocol versions.
    pub(super) fn new(certificate: Arc<Certificate>) -> anyhow::Result<Self> {
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: SUITES.to_vec(),
            ..aws_lc_rs::default_provider()
        };
        let mut control = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        control.ignore_client_order = true;
        // A browser that was led here asks for something else and is refused (ALPACA).
        control.alpn_protocols = vec![b"ftp".to_vec()];
        let mut data = control.clone();
        data.alpn_protocols = vec![b"ftp-data".to_vec(), b"ftp".to_vec()];
        // Tickets on data connections that nobody reads turn the client's close into a reset, which loses the end
        // of the upload (measured: curl, vsftpd). Those of the control connection serve for all.
        data.send_tls13_tickets = 0;
        Ok(Self { control, data })
    }

    /// TLS for one more control connection.
    ///
    /// # Errors
    /// When there is no randomness for ticket keys.
    pub(super) fn session(&self) -> io::Result<SessionTls> {
        let ticketer = Ticketer::new().map_err(io::Error::other)?;
        let sessions = ServerSessionMemoryCache::new(SESSIONS_KEPT);
        let with_keys = |config: &ServerConfig| {
            let mut config = config.clone();
            config.ticketer = Arc::clone(&ticketer);
            config.session_storage = Arc::clone(&sessions) as _;
            TlsAcceptor::from(Arc::new(config))
        };
        Ok(SessionTls { control: with_keys(&self.control), data: with_keys(&self.data) })
    }
}

impl SessionTls {
    /// # Errors
    /// What the handshake says, or `TimedOut`.
    pub(super) async fn control(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        match tokio::time::timeout(HANDSHAKE, self.control.accept(stream)).await {
            Ok(done) => done,
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }

    /// What puts TLS on data connections.
    pub(super) fn data(&self) -> TlsAcceptor {
        self.data.clone()
    }
}

/// Puts TLS on a data connection, without a time limit: that one begins with the transfer command.
///
/// # Errors
/// What the handshake says.
pub(super) async fn accept_data(
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> io::Result<DataStream> {
    let stream = BufReader::with_capacity(READ_AT_ONCE, stream);
    acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(WRITE_AT_ONCE))).await
}

/// Whether a data connection resumes the TLS session of its control connection.
pub(super) fn is_bound(data: &DataStream) -> bool {
    data.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// What an operator's log tells of a connection.
pub(super) fn describe(stream: &TlsStream<TcpStream>) -> String {
    let (_, tls) = stream.get_ref();
    let suite = tls.negotiated_cipher_suite().map(|s| s.suite());
    let version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(_) | None => "TLS 1.2",
    };
    format!("{version}, {}", suite.as_ref().and_then(CipherSuite::as_str).unwrap_or("unknown"))
}
