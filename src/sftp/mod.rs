//! FRONT SFTP version 3 over SSH, on russh's transport with our own accept loop and codec (spec section 9).

mod attributes;
mod client;
mod engine;
mod files;
pub mod keys;
pub mod packet;
pub mod reply;
mod status;
mod wire;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::server::{Config, run_stream};
use russh::{Preferred, SshId, cipher, compression, kex, mac};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use self::client::{Activity, Client, methods};
use self::wire::Wire;
use crate::app::App;
use crate::guard::{ATTEMPTS_MAX, DRAIN, Guard, REJECTION};
use crate::listen;

const KEEPALIVE: Duration = Duration::from_secs(30);
/// How often the watch looks at a connection.
const WATCH: Duration = Duration::from_secs(2);

/// The algorithms of spec section 9: no finite-field DH, no chacha20, no SHA-1, no compression.
fn algorithms(legacy: bool, keys: &[PrivateKey]) -> Preferred {
    let mut kexes = vec![kex::MLKEM768X25519_SHA256, kex::CURVE25519, kex::CURVE25519_PRE_RFC_8731];
    let mut macs = vec![mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
    if legacy {
        kexes.extend([kex::DH_G16_SHA512, kex::DH_G18_SHA512]);
        macs.extend([mac::HMAC_SHA256, mac::HMAC_SHA512]);
    }
    kexes.extend([kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER]);
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    let mut algorithms = vec![Algorithm::Ed25519, rsa(HashAlg::Sha512), rsa(HashAlg::Sha256)];
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    let ecdsa = curves.map(|curve| Algorithm::Ecdsa { curve });
    algorithms.extend(ecdsa.into_iter().filter(|a| keys.iter().any(|key| key.algorithm() == *a)));
    Preferred {
        kex: Cow::Owned(kexes),
        key: Cow::Owned(algorithms),
        cipher: Cow::Borrowed(&[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]),
        mac: Cow::Owned(macs),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::default()
    }
}

fn transport_config(app: &App, keys: Vec<PrivateKey>) -> Config {
    Config {
        // No version: it would only tell attackers what to try.
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-ptportal")),
        methods: methods(),
        auth_rejection_time: REJECTION,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: ATTEMPTS_MAX,
        preferred: algorithms(app.config.sftp.legacy_algorithms, &keys),
        keys,
        limits: rekey_limits(),
        // The limits are watched here: they can change while connections are open.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        window_size: 4 << 20,
        nodelay: true,
        ..Config::default()
    }
}

/// 1 GiB or an hour, as OpenSSH does for AES-GCM; tests set less to see many rekeys.
fn rekey_limits() -> russh::Limits {
    let bytes = std::env::var("PTPORTAL_TEST_REKEY_BYTES")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1 << 30);
    russh::Limits::new(bytes, bytes, Duration::from_secs(3600))
}

/// Serves SFTP on the listeners until shutdown.
pub fn serve(
    app: &Arc<App>,
    guard: &Arc<Guard>,
    listeners: Vec<TcpListener>,
    keys: Vec<PrivateKey>,
) {
    let config = Arc::new(transport_config(app, keys));
    for listener in listeners {
        let (app, guard, config) = (Arc::clone(app), Arc::clone(guard), Arc::clone(&config));
        let serve = {
            let app = Arc::clone(&app);
            move |stream, peer| {
                connection(Arc::clone(&app), Arc::clone(&guard), Arc::clone(&config), stream, peer)
            }
        };
        app.clone().tasks.spawn(listen::accept(app, listener, serve));
    }
}

/// One connection from accept to its end.
async fn connection(
    app: Arc<App>,
    guard: Arc<Guard>,
    config: Arc<Config>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let address = peer.ip().to_canonical();
    let ticket = match guard.admit(address) {
        Ok(ticket) => ticket,
        Err(denied) => {
            guard.tell_denied(address, denied);
            return;
        }
    };
    let kill = CancellationToken::new();
    let activity = Activity::new();
    let client = Client::new(Arc::clone(&app), guard, ticket, address, Arc::clone(&activity));
    let wire = Wire::new(stream, kill.clone());
    let running = async {
        match run_stream(config, wire, client).await {
            Ok(session) => session.await,
            Err(error) => Err(error),
        }
    };
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        reason = watch(&app, &activity, &kill) => {
            tracing::info!(peer = %address, reason, "connection ended by the server");
            // The stream fails from now on; the session's open uploads become resumable as it ends.
            running.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "connection ended");
    }
}

/// Ends a connection that takes too long to log in, idles, belongs to an ended account, or outlives the drain.
async fn watch(app: &App, activity: &Activity, kill: &CancellationToken) -> &'static str {
    let reason = tokio::select! {
        () = grace(app, activity) => "login took too long",
        () = idle(app, activity) => "idle",
        () = account_end(activity) => "the account has ended",
        () = drain(app, activity) => "shutdown",
    };
    kill.cancel();
    reason
}

async fn grace(app: &App, activity: &Activity) {
    tokio::select! {
        () = activity.logged_in.cancelled() => std::future::pending().await,
        () = tokio::time::sleep(app.limits().login_grace) => {}
    }
}

async fn idle(app: &App, activity: &Activity) {
    loop {
        tokio::time::sleep(WATCH).await;
        let is_busy = activity.busy.load(Ordering::Acquire) > 0;
        if !is_busy && activity.idle() >= app.limits().idle_timeout {
            return;
        }
    }
}

async fn account_end(activity: &Activity) {
    activity.logged_in.cancelled().await;
    let token = activity.session.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// After SIGTERM, connections with a running transfer may finish it; the others end at once.
async fn drain(app: &App, activity: &Activity) {
    app.stop.cancelled().await;
    let deadline = tokio::time::sleep(DRAIN);
    tokio::pin!(deadline);
    loop {
        let quiet =
            activity.idle() >= Duration::from_secs(2) && activity.busy.load(Ordering::Acquire) == 0;
        if quiet || !activity.logged_in.is_cancelled() {
            return;
        }
        tokio::select! {
            () = &mut deadline => return,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
