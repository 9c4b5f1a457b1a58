//! TLS of control and data connections: two configurations that share certificate and session tickets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite};
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, SupportedCipherSuite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::Certificate;

/// A peer that begins TLS and does not go on is cut.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// What binds data connections to their control connection: it travels inside the session ticket.
pub(super) type Token = [u8; 16];

/// Makes control and data connections private.
pub(super) struct Tls {
    control: TlsAcceptor,
    data: TlsAcceptor,
}

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
    /// When there is no randomness for ticket keys.
    pub(super) fn new(certificate: Arc<Certificate>) -> anyhow::Result<Self> {
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: SUITES.to_vec(),
            ..aws_lc_rs::default_provider()
        };
        let mut control = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        control.ticketer = Ticketer::new()?;
        control.ignore_client_order = true;
        // A browser that was led here asks for something else and is refused (ALPACA).
        control.alpn_protocols = vec![b"ftp".to_vec()];
        let mut data = control.clone();
        data.alpn_protocols = vec![b"ftp-data".to_vec(), b"ftp".to_vec()];
        // Tickets on data connections that nobody reads turn the client's close into a reset, which loses the end
        // of the upload (measured: curl, vsftpd). Those of the control connection serve for all.
        data.send_tls13_tickets = 0;
        Ok(Self { control: Arc::new(control).into(), data: Arc::new(data).into() })
    }

    /// # Errors
    /// What the handshake says, or `TimedOut`.
    pub(super) async fn control(
        &self,
        stream: TcpStream,
        token: &Token,
    ) -> io::Result<TlsStream<TcpStream>> {
        let accept = self.control.accept_with(stream, |tls| tls.set_resumption_data(token));
        match tokio::time::timeout(HANDSHAKE, accept).await {
            Ok(done) => done,
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }

    /// Without a time limit: that one begins with the transfer command.
    ///
    /// # Errors
    /// What the handshake says.
    pub(super) async fn data(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.data.accept(stream).await
    }
}

/// Whether a data connection resumes the session of the control connection with this token.
///
/// rustls carries the token in tickets of TLS 1.3 only; under TLS 1.2 a resumed session from the same address must do.
pub(super) fn is_bound(data: &TlsStream<TcpStream>, token: &Token) -> bool {
    let (_, tls) = data.get_ref();
    let is_resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => tls.received_resumption_data() == Some(token.as_slice()),
        Some(_) | None => is_resumed,
    }
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
