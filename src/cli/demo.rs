//! `ptportal demo`: a complete instance in a folder of its own, with a private clamd and a sample customer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::args::DemoArgs;
use super::print::out;
use super::service::until_signal;
use crate::app::clients::ClientChange;
use crate::app::orders::JobChange;
use crate::app::{Clock, passwords};
use crate::clamd::{Address, Clamd};
use crate::domain::account::Status;
use crate::sftp::keys;
use crate::{certificate, config, logging, serve, vault};

const CLIENT: &str = "1001";
const USERNAME: &str = "muster";
const PROJECT: &str = "2026-0815";
/// The EICAR test file as a signature at any offset, in hex so that no scanner takes this program for the virus.
const EICAR: &str = "Eicar-Test-Signature:0:*:58354f2150254041505b345c505a58353428505e2937434329377d24\
                     45494341522d5354414e444152442d414e544956495255532d544553542d46494c452124482b482a\n";

/// Sets the instance up (what is there already stays), and serves it until a signal.
pub(super) async fn run(args: DemoArgs, clock: Clock) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    let dir = args.dir.canonicalize()?;
    // Before anything is touched: one that runs needs its scanner.
    if vault::lock(&dir.join("data"), true).is_err() {
        anyhow::bail!("another demo serves {}; stop it first, or give --dir", dir.display());
    }
    let mut clamd = start_clamd(&dir).await?;
    let file = dir.join("ptportal.toml");
    if !file.exists() {
        std::fs::write(&file, configuration(&args))?;
    }
    let ini = dir.join("client.ini");
    if !ini.exists() {
        std::fs::write(&ini, CLIENT_INI)?;
    }
    let loaded = config::load(Some(&file), &dir, std::iter::empty())?;
    logging::start(&loaded.config.log)?;
    let password = sample_customer(&loaded.config, clock, &dir).await?;
    let stop = CancellationToken::new();
    // Nothing changes its settings.
    let (_, changes) = mpsc::channel(1);
    let running = serve::run(loaded.config.clone(), clock, stop.clone(), changes);
    tokio::pin!(running);
    let ready = until_ready(args.port);
    let served = tokio::select! {
        ended = &mut running => ended,
        () = async {
            ready.await;
            explain(&dir, &args, &password, &loaded.config);
            // A demo that cannot hear signals runs until it is killed.
            until_signal(async || ()).await.ok();
        } => {
            stop.cancel();
            running.await
        }
    };
    clamd.kill().await?;
    served
}

/// Accounts are made and activation mails sent by themselves; without a mail account they become files.
const CLIENT_INI: &str = "portal_create_uplogin_automatically = 1\n\
                          portal_send_uplogin_email_automatically = 1\n\
                          portal_reminder_email_automatically = 1\n";

fn configuration(args: &DemoArgs) -> String {
    let DemoArgs { port, ftps_port, web_port, api_port, admin_port, .. } = args;
    format!(
        "# The demo instance. Every key and its default: see README.\n\
         data_dir = \"data\"\n\n\
         [sftp]\nlisten = [\"127.0.0.1:{port}\"]\n\n\
         [ftps]\nlisten = [\"127.0.0.1:{ftps_port}\"]\n\n\
         [web]\nlisten = [\"127.0.0.1:{web_port}\"]\nbase_url = \"http://localhost:{web_port}\"\n\n\
         [api]\nlisten = [\"127.0.0.1:{api_port}\"]\n\n\
         [admin]\nlisten = [\"127.0.0.1:{admin_port}\"]\npage = true\n\n\
         [scan]\nclamd = \"unix:clamd/clamd.sock\"\n\n\
         [hotfolder]\nroot = \"hotfolder\"\npoll = \"3s\"\n\n\
         [jobticket]\nformat = \"xml\"\n\n\
         [mail]\noperators = [\"vorstufe@druckerei.example\"]\n\n\
         [limits]\nmin_free = \"64MiB\"\n"
    )
}

/// A clamd of our own: a handful of signatures, the limits that the product needs.
async fn start_clamd(dir: &Path) -> anyhow::Result<Child> {
    let Some(program) = find("clamd") else {
        anyhow::bail!("clamd is not installed; run apt-get install clamav-daemon");
    };
    let home = dir.join("clamd");
    for name in ["db", "tmp"] {
        std::fs::create_dir_all(home.join(name))?;
    }
    std::fs::write(home.join("db/demo.ndb"), EICAR)?;
    let socket = home.join("clamd.sock");
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let at = |name: &str| home.join(name).display().to_string();
    let text = format!(
        "LocalSocket {}\nDatabaseDirectory {}\nTemporaryDirectory {}\nLogFile {}\nForeground yes\n\
         StreamMaxLength 0\nMaxFileSize 0\nMaxScanSize 20G\nMaxScanTime 1200000\nAlertExceedsMax yes\n\
         AlertEncrypted yes\nMaxThreads {}\n",
        socket.display(),
        at("db"),
        at("tmp"),
        at("clamd.log"),
        // Cores and one more: so many scans at once, less one.
        std::thread::available_parallelism().map_or(2, std::num::NonZero::get).saturating_add(1),
    );
    let file = home.join("clamd.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.arg("--config-file").arg(&file).kill_on_drop(true);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn()?;
    let clamd = Clamd::new(Address::Unix(socket));
    for _ in 0..600 {
        if clamd.ping().await.is_ok() {
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("the demo's clamd ended at once ({status}); see {}", at("clamd.log"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the demo's clamd does not answer after a minute; see {}", at("clamd.log"));
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The sample customer and order; the password stays in `password.txt` of the demo's folder.
async fn sample_customer(
    config: &config::Config,
    clock: Clock,
    dir: &Path,
) -> anyhow::Result<String> {
    let app = serve::open(config.clone(), clock).await?;
    let file = dir.join("password.txt");
    if let Ok(password) = std::fs::read_to_string(&file) {
        return Ok(password.trim().to_owned());
    }
    let change = ClientChange {
        name: Some("Muster & Söhne GmbH".to_owned()),
        create_hotfolder: Some(true),
        ..ClientChange::default()
    };
    app.add_client(CLIENT, &change).await?;
    app.create_account(CLIENT, (Some(USERNAME), Status::Active), &[]).await?;
    let password = passwords::suggestion()?;
    app.set_account_password(USERNAME, &password).await?;
    let job = JobChange {
        description: Some("Plakate A1, 500 Stück".to_owned()),
        due: Some("2026-12-24".to_owned()),
        contact: None,
    };
    app.add_project((CLIENT, PROJECT), &job).await?;
    std::fs::write(&file, format!("{password}\n"))?;
    app.store.close().await;
    Ok(password)
}

async fn until_ready(port: u16) {
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn explain(dir: &Path, args: &DemoArgs, password: &str, config: &config::Config) {
    let DemoArgs { port, ftps_port, .. } = args;
    out("");
    out("ptportal demo is running. Connect with FileZilla or WinSCP:");
    out("  host      127.0.0.1");
    out(&format!("  protocol  SFTP, port {port}"));
    out(&format!(
        "        or  FTP with explicit TLS (\"Require explicit FTP over TLS\"), port {ftps_port}"
    ));
    out(&format!("  user      {USERNAME}"));
    out(&format!("  password  {password}"));
    for (algorithm, fingerprint) in keys::fingerprints(&config.sftp.host_key_dir) {
        out(&format!("  host key  {algorithm} {fingerprint}"));
    }
    if let Ok(Some(found)) =
        certificate::inspect(&config.ftps.certificate, &config.ftps.private_key)
    {
        out(&format!("  TLS       certificate {}", found.fingerprint));
    }
    out(&format!("or: sftp -P {port} {USERNAME}@127.0.0.1"));
    out(&format!(
        "Upload into /{PROJECT}/Eingehend; what is clean appears below {}",
        dir.join("hotfolder").display()
    ));
    out(&format!("Pages: {}, with the same user and password", config.web.base_url));
    out(&format!(
        "Order API: http://127.0.0.1:{}/api/v1/openapi.json; a token: ptportal --config {} token create NAME",
        args.api_port,
        dir.join("ptportal.toml").display()
    ));
    out(&format!(
        "Orders as files into {}; mails appear in {}",
        dir.join("data/import").display(),
        dir.join("data/mail").display()
    ));
    out(&format!(
        "For operators: ptportal --config {0} watch; or http://127.0.0.1:{1}, with: ptportal --config {0} token create NAME --scope admin",
        dir.join("ptportal.toml").display(),
        args.admin_port
    ));
    out("Stop with Ctrl-C.");
}
