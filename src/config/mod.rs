//! The configuration: `ptportal.toml`, overlaid by `PTPORTAL_SECTION__KEY` (spec section 4).
//!
//! Read once at the start and turned into types; what stands here is never checked again. It
//! knows nothing of the services that use it.

pub mod client_ini;
mod given;
mod load;
mod reader;
mod sections;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use glob::Pattern;

use crate::domain::account::{Language, Network};
use crate::domain::base_url::BaseUrl;
use crate::domain::event::EventKind;
use crate::hotfolder::Modes;

pub use crate::domain::verdict::{OnEncrypted, OnOversize};

pub use load::{ConfigError, Loaded, Origin, Source, load};

/// Every setting of the portal (spec section 4). All paths are resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Of operators, and of accounts that name none.
    pub language: Language,
    /// Holds vault, spool, quarantine, lock and, without a server, the database.
    pub data_dir: PathBuf,
    pub database: Database,
    pub sftp: Sftp,
    pub ftps: Ftps,
    pub acme: Acme,
    pub web: Web,
    pub api: Api,
    pub admin: Admin,
    pub scan: Scan,
    pub hotfolder: Hotfolder,
    pub portal: Portal,
    pub limits: Limits,
    pub log: Log,
    pub mail: Mail,
    pub batch: Batch,
    pub jobticket: JobTicket,
    pub retention: Retention,
    pub hooks: Hooks,
    pub webhooks: Vec<Webhook>,
}

impl Config {
    /// Where SQLite's database lies, if no other one is configured.
    #[must_use]
    pub fn sqlite_file(&self) -> PathBuf {
        self.data_dir.join("ptportal.db")
    }

    /// The port that SFTP customers are told; none while the service is off.
    #[must_use]
    pub fn sftp_port(&self) -> Option<u16> {
        told_port(&self.sftp.listen, self.portal.sftp_port)
    }

    /// The port that FTPS customers are told; none while the service is off.
    #[must_use]
    pub fn ftps_port(&self) -> Option<u16> {
        told_port(&self.ftps.listen, self.portal.ftps_port)
    }

    /// Whether a service shows the certificate of `[ftps]`.
    #[must_use]
    pub fn needs_certificate(&self) -> bool {
        let (ftps, web, api) = (&self.ftps, &self.web, &self.api);
        !(ftps.listen.is_empty() && ftps.implicit_listen.is_empty())
            || (web.tls && !web.listen.is_empty())
            || (api.tls && !api.listen.is_empty())
    }
}

fn told_port(listen: &[SocketAddr], told: u16) -> Option<u16> {
    let own = listen.first()?.port();
    Some(if told == 0 { own } else { told })
}

/// `[database]` (spec section 4).
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// Empty: `SQLite` in `data_dir`; else begins with `postgres://` or `postgresql://`.
    pub url: String,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("url", &value::masked_url(&self.url)).finish()
    }
}

/// `[sftp]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Sftp {
    /// Empty switches the service off.
    pub listen: Vec<SocketAddr>,
    /// Adds DH group 16/18 and plain hmac-sha2 for old clients.
    pub legacy_algorithms: bool,
    pub host_key_dir: PathBuf,
}

/// `[ftps]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Ftps {
    /// Explicit TLS; empty switches it off.
    pub listen: Vec<SocketAddr>,
    /// TLS from the first byte.
    pub implicit_listen: Vec<SocketAddr>,
    pub passive_ports: RangeInclusive<u16>,
    /// What PASV announces behind NAT: an IPv4 address or a name; none: the address the client came to.
    pub passive_host: Option<String>,
    /// PEM, the whole chain.
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    /// Data connections must resume the control connection's TLS session.
    pub require_session_reuse: bool,
}

/// `[acme]`: the certificate of `[ftps]` from an authority that speaks ACME.
#[derive(Debug, Clone)]
pub struct Acme {
    /// Names that the certificate holds; none: nothing is asked of any authority.
    pub domains: Vec<String>,
    /// Where the authority writes before a certificate expires.
    pub email: Option<String>,
    pub directory: String,
    /// The authority's own root, PEM, where the system does not know it.
    pub ca: Option<PathBuf>,
    /// Plain HTTP for the authority's question; none: a proxy passes it to `[web]`.
    pub listen: Vec<SocketAddr>,
}

/// `[web]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Web {
    /// Loopback, unless [`Self::tls`]; empty switches the service off.
    pub listen: Vec<SocketAddr>,
    /// What links in mails begin with, and the only host that is answered.
    pub base_url: BaseUrl,
    /// HTTPS with the certificate of `[ftps]`.
    pub tls: bool,
    /// Networks whose X-Forwarded-For and PROXY headers are believed, by every service.
    pub trusted_proxies: Vec<Network>,
}

/// `[api]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Api {
    /// Loopback, unless [`Self::public`] and [`Self::tls`]; empty switches the service off.
    pub listen: Vec<SocketAddr>,
    pub public: bool,
    /// HTTPS with the certificate of `[ftps]`.
    pub tls: bool,
}

/// `[mail]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Mail {
    /// PTworkflow's own file; missing: mails become .eml files.
    pub client_ini: PathBuf,
    /// Who reads internal mails; none: the template's user, else the mail account itself.
    pub operators: Vec<String>,
}

/// `[batch]`: files of one project that arrive together (spec section 13).
#[derive(Debug, Clone)]
pub struct Batch {
    /// Without a further file for this long a batch is complete.
    pub quiet: Duration,
}

/// `[jobticket]` (spec section 13).
#[derive(Debug, Clone)]
pub struct JobTicket {
    pub format: TicketFormat,
    pub per: TicketPer,
    /// `{stem}.xml` or `{name}.xml`; contains one of the two.
    pub name: String,
    /// A template of one's own instead of the built-in one.
    pub template: Option<PathBuf>,
    /// The internal mail carries the ticket of its files.
    pub attach: bool,
}

/// What a job ticket is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketFormat {
    Off,
    /// The portal's own flat schema.
    Xml,
    /// CIP4's XJDF 2.
    Xjdf,
}

/// What one job ticket tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketPer {
    File,
    Batch,
}

/// `[retention]` (spec section 4); zero is never.
#[derive(Debug, Clone)]
pub struct Retention {
    /// Bytes of delivered files.
    pub keep_delivered: Duration,
    pub quarantine: Duration,
    pub events: Duration,
    pub mails: Duration,
}

/// `[hooks]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Hooks {
    /// Holds a folder for each event.
    pub dir: PathBuf,
    pub timeout: Duration,
}

/// One `[[webhook]]` (spec section 4).
#[derive(Clone)]
pub struct Webhook {
    /// `http://` or `https://`, without credentials.
    pub url: String,
    /// At least one.
    pub events: Vec<EventKind>,
    /// The key of the signature, decoded.
    pub secret: Vec<u8>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

/// `[admin]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Admin {
    /// Loopback or private addresses only; empty switches the service off.
    pub listen: Vec<SocketAddr>,
    /// The operators' page stands there too.
    pub page: bool,
}

/// `[scan]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Scan {
    /// One or several; none is "off", only together with `accept_unscanned = true`.
    pub clamd: Vec<ClamdAddress>,
    pub transport: Transport,
    /// Bytes scanned at once while the upload runs; from 1 MiB to 1 GiB.
    pub window: u64,
    pub accept_unscanned: bool,
    /// Signatures that hold a file for an operator instead of calling it a virus.
    pub hold_signatures: Vec<Pattern>,
    pub answer_within: Patience,
    pub on_oversize: OnOversize,
    pub on_encrypted: OnEncrypted,
    /// Unscanned bytes accepted while the scanner is away or behind.
    pub pending_max: u64,
    /// Keeps infected files, never served.
    pub quarantine: bool,
}

/// Where clamd listens (spec section 4, `scan.clamd`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClamdAddress {
    Unix(PathBuf),
    /// `host:port`, the host in brackets if it is an IPv6 address; resolved at each connect.
    Tcp(String),
}

/// How bytes reach clamd (spec section 4, `scan.transport`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The first whose canaries pass.
    Auto,
    /// Passed descriptors; never with [`ClamdAddress::Tcp`].
    Fildes,
    Instream,
}

/// How long a client waits for the verdict (spec section 4, `scan.answer_within`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// After this it is told "received, virus scan pending".
    For(Duration),
    /// For ever.
    Verdict,
}

/// `[hotfolder]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Hotfolder {
    /// None switches the push off.
    pub root: Option<PathBuf>,
    /// A relative path of known placeholders and text, without `.` and `..`.
    /// Permissions of files and folders that the portal makes there, whatever its umask.
    pub modes: Modes,
    pub layout: String,
    pub on_conflict: OnConflict,
    /// Passes between release or rename and delivery.
    pub delivery_delay: Duration,
    /// Renaming a delivered file renames an untaken, unchanged copy.
    pub rename_follows: bool,
    /// Makes a folder per ticket below the upload folder.
    pub ticket_folders: bool,
    /// Delivers also what repeats the latest version (spec section 7).
    pub deliver_repeats: bool,
    /// Folders whose files appear in the customer's tree; some of `portal.folders`, never the first.
    pub publish: Vec<String>,
    /// A delivered file that lies longer is told as waiting; zero: never.
    pub waiting_after: Duration,
    /// How often the share is looked through for what staff and consumers did.
    pub poll: Duration,
}

/// What happens when the name is taken in the hotfolder (spec section 4, `hotfolder.on_conflict`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    KeepBoth,
    /// Only a file that the portal placed and nobody changed, else as [`Self::KeepBoth`].
    Replace,
}

/// `[portal]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Portal {
    /// At least one; unique names in NFC without `/`; the first is the upload folder.
    pub folders: Vec<String>,
    /// The name of a project's folder; contains `{project_no}`.
    pub project_folder: String,
    /// An unfinished upload is dropped after this.
    pub incomplete_ttl: Duration,
    /// Names that clients use while an upload runs.
    pub temporary_names: Vec<Pattern>,
    /// How long an activation link is good, from the moment the mail server took it.
    pub link_ttl: Duration,
    /// The name that clients connect to; none: the host of `web.base_url`.
    pub host: Option<String>,
    /// Whom customers ask, as pages tell it: a name, a telephone number; may be empty.
    pub contact: String,
    /// What customers are told, where a firewall passes another port on; 0: the port of `sftp.listen`.
    pub sftp_port: u16,
    /// As above for FTPS with AUTH TLS.
    pub ftps_port: u16,
}

/// `[limits]` (spec section 4). Counts are at least 1.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_ip: usize,
    pub sessions_per_account: usize,
    /// Beyond it new connections are refused at random, then all.
    pub unauthenticated: usize,
    pub login_grace: Duration,
    pub idle_timeout: Duration,
    /// In bytes; an account may have its own.
    pub max_file_size: u64,
    /// Less free bytes in `data_dir`: new uploads are refused.
    pub min_free: u64,
    /// Failed logins per address within `ban_window`.
    pub ban_after: u32,
    pub ban_window: Duration,
    pub ban_time: Duration,
}

/// `[log]` (spec section 4).
#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// One of `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// None: standard error.
    pub file: Option<PathBuf>,
}

/// The form of a log line (spec section 4, `log.format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
