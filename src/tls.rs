//! What every front with TLS shares: the certificate, read once and followed, and the configuration of HTTPS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::certificate::{Certificate, CertificateError, WARN_DAYS};

/// How often the certificate's files are looked at.
const RELOAD: Duration = Duration::from_secs(5);

/// How often a certificate that expires soon is spoken of.
const WARN_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The certificate of `[ftps]`, made when it is missing; nothing where no service speaks TLS.
///
/// # Errors
/// When it cannot be used.
pub fn certificate(app: &App) -> Result<Option<Arc<Certificate>>, CertificateError> {
    if !app.config.needs_certificate() {
        return Ok(None);
    }
    let (ftps, web) = (&app.config.ftps, &app.config.web);
    let mut names = vec![app.host_name.clone(), "localhost".to_owned()];
    names.extend(ftps.passive_host.clone());
    names.push(app.public_host());
    names.push(web.base_url.host().to_owned());
    names.sort();
    names.dedup();
    let read = Certificate::load_or_make(&ftps.certificate, &ftps.private_key, names, app.now())?;
    Ok(Some(Arc::new(read)))
}

/// TLS of pages and API, where it is switched on: HTTP/1.1 only, so that nothing that speaks another protocol is led here
/// (ALPACA).
///
/// # Errors
/// What rustls says of the protocol versions.
pub fn https(
    is_on: bool,
    certificate: Option<&Arc<Certificate>>,
) -> anyhow::Result<Option<TlsAcceptor>> {
    let Some(certificate) = certificate.filter(|_| is_on).map(Arc::clone) else { return Ok(None) };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// Takes a renewed certificate without a restart.
pub async fn follow(app: Arc<App>, certificate: Arc<Certificate>) {
    let mut warned: Option<Instant> = None;
    loop {
        let days_left = certificate.validity().days_left(app.now());
        if days_left <= WARN_DAYS && warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
            warned = Some(Instant::now());
            tracing::warn!(
                days_left,
                "the certificate expires; after that customers cannot log in over FTPS and HTTPS: replace the files, no restart is needed"
            );
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(RELOAD) => {}
        }
        let looked_at = Arc::clone(&certificate);
        let reloaded = tokio::task::spawn_blocking(move || looked_at.reload_if_changed()).await;
        match reloaded.unwrap_or(Ok(false)) {
            Ok(false) => {}
            Ok(true) => {
                let days = certificate.validity().days_left(app.now());
                tracing::info!(
                    days_left = days,
                    "the certificate has changed; new connections get it"
                );
            }
            Err(error) => {
                tracing::error!(%error, "the changed certificate cannot be used; the one before stays");
            }
        }
    }
}
