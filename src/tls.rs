//! What every front with TLS shares: the certificate, read once and followed, and the configuration of HTTPS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio_rustls::TlsAcceptor;

use crate::acme::{Files, Pair};
use crate::app::App;
use crate::certificate::{self, Certificate, WARN_DAYS};
use crate::store::leases;

/// How often the certificate's files are looked at.
const RELOAD: Duration = Duration::from_secs(5);

/// How often it is asked whether the certificate wants to be renewed, and after an attempt.
const RENEW: Duration = Duration::from_secs(6 * 3600);
const RENEW_AGAIN: Duration = Duration::from_secs(3600);
const RENEW_LEASE: &str = "acme";

/// How often a certificate that expires soon is spoken of.
const WARN_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The certificate of `[ftps]`, made when it is missing; nothing where no service speaks TLS.
///
/// # Errors
/// When it cannot be used.
pub fn certificate(app: &App) -> anyhow::Result<Option<Arc<Certificate>>> {
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
    if !app.config.acme.domains.is_empty() {
        mend(app)?;
    }
    let read = Certificate::load_or_make(&ftps.certificate, &ftps.private_key, names, app.now())?;
    Ok(Some(Arc::new(read)))
}

/// A new pair was put in place, and the process ended between its two files.
fn mend(app: &App) -> anyhow::Result<()> {
    let (files, ftps) = (Files::below(&app.config.data_dir), &app.config.ftps);
    if certificate::inspect(&ftps.certificate, &ftps.private_key).is_err()
        && let Some(pair) = files.pair()
    {
        files.put(&pair, (&ftps.certificate, &ftps.private_key))?;
    }
    Ok(())
}

/// Gets the certificate from the authority of `[acme]`, and another before it expires; one server does it for all.
pub async fn renew(app: Arc<App>, certificate: Arc<Certificate>) {
    let acme = &app.config.acme;
    loop {
        let mut pause = RENEW;
        if certificate.validity().wants_renewal(&acme.domains, app.now()) {
            let Some(obtained) = app.stop.run_until_cancelled(obtain(&app)).await else { return };
            match obtained {
                Ok(true) => {
                    tracing::info!(domains = acme.domains.join(", "), "a new certificate is there")
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        domains = acme.domains.join(", "),
                        "no certificate could be got, tried again in an hour"
                    );
                }
            }
            pause = RENEW_AGAIN;
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// False when another server is at it.
async fn obtain(app: &App) -> anyhow::Result<bool> {
    let now = app.now();
    let lease = (app.node.as_str(), now.plus(RENEW_AGAIN));
    if !leases::take(app.store.db(), RENEW_LEASE, lease, now).await? {
        return Ok(false);
    }
    let (files, ftps) = (Files::below(&app.config.data_dir), &app.config.ftps);
    let (pair, is_new) = match kept(app, &files) {
        Some(pair) => (pair, false),
        None => {
            let obtained = files.obtain(&app.config.acme).await;
            (obtained.context("does port 80 of these names lead here? The authority")?, true)
        }
    };
    let places = (ftps.certificate.as_path(), ftps.private_key.as_path());
    let put = if is_new { files.install(&pair, places) } else { files.put(&pair, places) };
    put.with_context(|| {
        let (chain, key) = (ftps.certificate.display(), ftps.private_key.display());
        format!("a good one is there, but the service cannot write {chain} and {key}")
    })?;
    Ok(true)
}

/// A pair that was got before and could not be put in its place: authorities give few in a week.
fn kept(app: &App, files: &Files) -> Option<Pair> {
    let file = files.pair_file();
    let validity = certificate::inspect(&file, &file).ok()??;
    let wants = validity.wants_renewal(&app.config.acme.domains, app.now());
    if wants { None } else { files.pair() }
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
        let validity = certificate.validity();
        let days_left = validity.days_left(app.now());
        let domains = &app.config.acme.domains;
        let is_due = domains.is_empty() || validity.wants_renewal(domains, app.now());
        if is_due && days_left <= WARN_DAYS && warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
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
