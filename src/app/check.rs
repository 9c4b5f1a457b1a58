//! `ptportal check`: what must hold for the service to work, each with a plain remedy.

use std::sync::Arc;

use super::scanner::{Health, Scanner};
use super::{App, hook_programs};
use crate::clamd::{Proof, ceiling};
use crate::config::client_ini::ClientIni;
use crate::domain::account::Settings;
use crate::domain::client_defaults::ClientDefaults;
use crate::domain::event::EventKind;
use crate::mailer::Mailer;
use crate::store::accounts;
use crate::{certificate, vault};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ok,
    Warning,
    Failed,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Check {
    pub name: &'static str,
    pub state: State,
    pub detail: String,
    /// What to do; empty when nothing is.
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Ok, detail: detail.into(), remedy: String::new() }
    }

    fn failed(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Failed, detail: detail.into(), remedy: remedy.into() }
    }

    fn warning(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Warning, detail: detail.into(), remedy: remedy.into() }
    }
}

impl App {
    /// Looks at everything that this process can reach.
    pub async fn check(self: &Arc<Self>) -> Vec<Check> {
        let mut checks = vec![self.check_database().await, self.check_disk().await];
        checks.extend(self.check_scanner().await);
        checks.push(self.check_hotfolder().await);
        checks.extend(self.check_job_tickets().await);
        checks.extend(self.check_hooks().await);
        checks.push(self.check_system_defaults().await);
        checks.extend(self.check_mail().await);
        checks.push(self.check_web());
        checks.extend(self.check_admin_page());
        checks.extend(self.check_certificate().await);
        checks.extend(self.check_ports().await);
        checks
    }

    /// The mail account: reachable, and its password not for everyone to read.
    async fn check_mail(&self) -> Vec<Check> {
        let mailer = self.mailer();
        let ini = self.config.mail.client_ini.display();
        let place = mailer.describe();
        let mut checks = vec![match (&mailer, mailer.probe(&self.host_name).await) {
            (Mailer::Directory(_), _) => Check::warning(
                "smtp",
                format!("{ini} names no mail account: mails become {place}"),
                "write SMTP-Server, Port, Email, Benutzername and Passwort into client.ini",
            ),
            (Mailer::Smtp(_), Ok(())) => Check::ok("smtp", place),
            (Mailer::Smtp(_), Err(error)) => Check::failed(
                "smtp",
                error,
                format!("correct the mail account in {ini}; mails wait for three days"),
            ),
        }];
        if let Err(error) = ClientIni::read(&self.config.mail.client_ini) {
            checks.push(Check::failed(
                "client.ini",
                error.to_string(),
                "correct it; until then what the last good one said counts on",
            ));
        }
        if self.client_ini.is_open_to_all() {
            checks.push(Check::warning(
                "client.ini",
                format!("{ini} holds a password and can be read by everyone"),
                format!("chmod o= {ini}"),
            ));
        }
        checks
    }

    /// The ticket's template gives XML.
    async fn check_job_tickets(&self) -> Option<Check> {
        let config = &self.config.jobticket;
        let place = match &config.template {
            Some(path) => path.display().to_string(),
            None => "built in".to_owned(),
        };
        Some(match self.try_ticket().await? {
            Ok(()) => Check::ok("job ticket", format!("template {place}")),
            Err(problem) => Check::failed(
                "job ticket",
                format!("template {place}: {problem}"),
                "correct jobticket.template, or remove it to take the built-in one",
            ),
        })
    }

    /// Hooks that are there, and those that will not run.
    async fn check_hooks(&self) -> Vec<Check> {
        let dir = &self.config.hooks.dir;
        let (mut count, mut checks) = (0usize, Vec::new());
        for kind in EventKind::HOOKABLE.iter().copied() {
            let names = match self.hooks_for(kind).await {
                Ok(names) => names,
                Err(error) => {
                    let place = dir.join(kind.as_str()).display().to_string();
                    let remedy = "make it readable for the service user; until then its hooks wait";
                    checks.push(Check::failed("hook", format!("{place}: {error}"), remedy));
                    continue;
                }
            };
            for name in names {
                count = count.saturating_add(1);
                let path = dir.join(kind.as_str()).join(name);
                if let Some(reason) = hook_programs::unsafe_reason(&path, dir) {
                    checks.push(Check::failed("hook", path.display().to_string(), reason));
                }
            }
        }
        if count > 0 {
            checks.insert(0, Check::ok("hooks", format!("{count} in {}", dir.display())));
        }
        checks
    }

    /// The operators' page knows no TLS.
    fn check_admin_page(&self) -> Option<Check> {
        let admin = &self.config.admin;
        let open =
            admin.listen.iter().find(|address| !address.ip().to_canonical().is_loopback())?;
        admin.page.then(|| {
            Check::warning(
                "admin page",
                format!("tokens and pages pass unencrypted to {open}"),
                "set admin.listen to 127.0.0.1:9090 and come by `ssh -L 9090:127.0.0.1:9090`",
            )
        })
    }

    fn check_web(&self) -> Check {
        let web = &self.config.web;
        let url = web.base_url.to_string();
        if web.listen.is_empty() {
            return Check::warning(
                "web",
                "off: links in mails lead nowhere",
                "set web.listen, or hand passwords over yourself",
            );
        }
        if web.base_url.is_https() {
            Check::ok("web", url)
        } else if web.base_url.is_loopback() {
            Check::warning(
                "web",
                format!("links in mails begin with {url}, which works on this machine only"),
                "set web.base_url to the address that customers reach, with https://",
            )
        } else {
            Check::failed(
                "web",
                format!("{url} is not HTTPS: nobody can log in there"),
                "set web.base_url to https://…, with web.tls = true or a proxy in front",
            )
        }
    }

    /// The certificate: there, valid, and for how long.
    async fn check_certificate(self: &Arc<Self>) -> Option<Check> {
        let ftps = &self.config.ftps;
        if !self.config.needs_certificate() {
            return None;
        }
        let (chain, key) = (ftps.certificate.clone(), ftps.private_key.clone());
        let inspected = tokio::task::spawn_blocking(move || certificate::inspect(&chain, &key));
        let place = ftps.certificate.display();
        Some(match inspected.await {
            Ok(Ok(None)) => Check::warning(
                "certificate",
                format!("{place} is not there yet"),
                "put one there with its key, or let the first start make a self-signed one",
            ),
            Ok(Ok(Some(validity))) => {
                let days = validity.days_left(self.now());
                let detail = format!("{place}, {days} days left");
                match (days, validity.is_self_signed) {
                    (..0, _) => Check::failed(
                        "certificate",
                        format!("{place} has expired"),
                        "renew it; it is taken without a restart",
                    ),
                    (days, _) if days < certificate::WARN_DAYS => {
                        Check::warning("certificate", detail, "renew it soon; no restart is needed")
                    }
                    (_, true) => Check::warning(
                        "certificate",
                        format!("{detail}, self-signed: clients must be told to trust it"),
                        "replace it by one that clients know",
                    ),
                    (_, false) => Check::ok("certificate", detail),
                }
            }
            Ok(Err(error)) => Check::failed(
                "certificate",
                error.to_string(),
                "correct ftps.certificate and ftps.private_key",
            ),
            Err(_) => Check::failed("certificate", "the check ended unexpectedly", "run it again"),
        })
    }

    async fn check_database(&self) -> Check {
        match (self.store.ping().await, self.store.durability().await) {
            (Ok(()), Ok(durability)) if durability == "full" => {
                Check::ok("database", format!("{:?}, commits are durable", self.store.kind()))
            }
            (Ok(()), Ok(durability)) => {
                Check::failed("database", durability, "set synchronous_commit = on (PostgreSQL)")
            }
            (Err(error), _) | (_, Err(error)) => Check::failed(
                "database",
                error.to_string(),
                "look whether the server of database.url runs",
            ),
        }
    }

    async fn check_disk(self: &Arc<Self>) -> Check {
        let dir = self.config.data_dir.display();
        match self.room().await {
            Ok(free) => Check::ok("data_dir", format!("{dir}, {} MiB free", free >> 20)),
            Err(problem) => Check::failed(
                "data_dir",
                format!("{dir}: {problem}"),
                "make room, mend the disk, or lower limits.min_free; until then uploads are refused",
            ),
        }
    }

    async fn check_scanner(&self) -> Vec<Check> {
        let Scanner::Clamd(clamds) = &self.scanner else {
            return vec![Check::warning(
                "clamd",
                "off: everything is released unscanned",
                "set scan.clamd to clamd's socket",
            )];
        };
        let mut checks = Vec::new();
        for health in clamds {
            let mut lines = self.check_clamd(health).await;
            let address = health.clamd.address();
            lines.iter_mut().for_each(|line| line.detail = format!("{address}: {}", line.detail));
            checks.extend(lines);
        }
        checks
    }

    async fn check_clamd(&self, health: &Health) -> Vec<Check> {
        let proof = match health.prove().await {
            Ok(proof) => proof,
            Err(unproven) => {
                return vec![Check::failed("clamd", unproven.to_string(), unproven.remedy())];
            }
        };
        let detail = format!(
            "{}, transport {}, {} threads",
            proof.version.text, proof.transport, proof.max_threads
        );
        let mut checks = vec![Check::ok("clamd", detail)];
        checks.push(match (&proof.version.database, &proof.version.date) {
            (Some(database), Some(date)) => {
                Check::ok("signatures", format!("version {database} of {date}"))
            }
            (None, _) | (_, None) => Check::warning(
                "signatures",
                "clamd names no database version or date",
                "run freshclam; the official database is missing",
            ),
        });
        checks.push(self.check_max_file_size(health, &proof).await);
        checks
    }

    /// clamd does not tell its MaxFileSize; sparse files of known sizes find it out.
    async fn check_max_file_size(&self, health: &Health, proof: &Proof) -> Check {
        match ceiling::max_file_size(&health.clamd, proof.transport).await {
            Ok(None) => Check::ok("MaxFileSize", "not measured over instream; see clamd.conf"),
            Ok(Some(size)) if size >= super::upload::CLAMD_CEILING => {
                Check::ok("MaxFileSize", "2 147 483 645 bytes, clamd's ceiling")
            }
            Ok(Some(size)) => Check::warning(
                "MaxFileSize",
                format!(
                    "between {} MiB and twice that; larger files are {}",
                    size >> 20,
                    self.oversize_text()
                ),
                "set MaxFileSize 0, MaxScanSize 20G and MaxScanTime 1200000 in clamd.conf",
            ),
            Err(error) => Check::warning("MaxFileSize", error.to_string(), "run the check again"),
        }
    }

    fn oversize_text(&self) -> &'static str {
        match self.config.scan.on_oversize {
            crate::config::OnOversize::Hold => "held for an operator",
            crate::config::OnOversize::Reject => "rejected",
        }
    }

    async fn check_hotfolder(self: &Arc<Self>) -> Check {
        if self.hotfolder.is_none() {
            return Check::warning("hotfolder", "hotfolder.root is empty: nothing is pushed", "");
        }
        let shared = Arc::clone(self);
        let probed = tokio::task::spawn_blocking(move || {
            shared
                .hotfolder
                .as_ref()
                .map(|h| (h.root().display().to_string(), h.probe(shared.node.as_str())))
        });
        match probed.await {
            Ok(Some((root, Ok(free)))) => Check::ok(
                "hotfolder",
                format!("{root}, writable, rename works, {} MiB free", free >> 20),
            ),
            Ok(Some((_, Err(error)))) => Check::failed(
                "hotfolder",
                error.to_string(),
                "mount the share and give the service user write access; `ptportal check --init-hotfolder` makes the marker",
            ),
            Ok(None) | Err(_) => {
                Check::failed("hotfolder", "the check ended unexpectedly", "run it again")
            }
        }
    }

    async fn check_system_defaults(&self) -> Check {
        let read = async {
            let account = accounts::system_default(self.store.db(), "ptportal").await?;
            let client = accounts::system_default(self.store.db(), "clients").await?;
            let account = Settings::from_json(&account.unwrap_or_default());
            let client = ClientDefaults::from_json(&client.unwrap_or_default());
            crate::store::Result::Ok(account.map(drop).and(client.map(drop)))
        };
        match read.await {
            Ok(Ok(())) => Check::ok("system default", "ptportal and clients read well"),
            Ok(Err(error)) => {
                Check::failed("system default", error, "set its keys anew with `default set`")
            }
            Err(error) => {
                Check::failed("system default", error.to_string(), "look at the database")
            }
        }
    }

    /// A port is fine when it is free, or when a server on this data folder holds it.
    async fn check_ports(&self) -> Vec<Check> {
        let is_serving = vault::lock(&self.config.data_dir, true).is_err();
        let mut checks = Vec::new();
        let ftps = self.config.ftps.listen.iter().chain(&self.config.ftps.implicit_listen);
        let named = |name: &'static str| move |address| (name, address);
        let all = self.config.sftp.listen.iter().map(named("sftp port"));
        let all = all.chain(ftps.map(named("ftps port")));
        let all = all.chain(self.config.web.listen.iter().map(named("web port")));
        let all = all.chain(self.config.api.listen.iter().map(named("api port")));
        let all = all.chain(self.config.admin.listen.iter().map(named("admin port")));
        let all = all.chain(self.config.acme.listen.iter().map(named("acme port")));
        for (name, address) in all {
            checks.push(match tokio::net::TcpListener::bind(address).await {
                Ok(_) => Check::ok(name, format!("{address} is free")),
                Err(_) if is_serving => Check::ok(name, format!("{address} is served")),
                Err(error) => Check::failed(
                    name,
                    format!("{address}: {error}"),
                    "stop what uses the port, choose another, or allow ports below 1024 (CAP_NET_BIND_SERVICE)",
                ),
            });
        }
        checks
    }
}
