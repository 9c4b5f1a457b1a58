//! The one table of keys: name, default and meaning of each (spec section 4).

use std::net::SocketAddr;

use super::load::ConfigError;
use super::reader::Reader;
use super::value::{self, GIB, MIB};
use super::{
    Acme, Admin, Api, Batch, ClamdAddress, Config, Database, Ftps, Hooks, Hotfolder, JobTicket,
    Limits, Log, LogFormat, Mail, OnConflict, OnEncrypted, OnOversize, Portal, Retention, Scan,
    Sftp, TicketFormat, TicketPer, Transport, Web, Webhook,
};
use crate::domain::event::EventKind;
use crate::hotfolder::Modes;

use crate::domain::account::Network;
use crate::domain::base_url::BaseUrl;

/// Names of clients while an upload runs: `WinSCP`, rclone, lftp, browsers, Cyberduck.
const TEMPORARY_NAMES: [&str; 7] = [
    "*.filepart",
    "*.part",
    "*.partial",
    "*.tmp",
    "*.crdownload",
    ".in.*",
    "*-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]-*-*-*-*",
];

pub(super) fn read(reader: &mut Reader) -> Result<Config, ConfigError> {
    let mut config = Config {
        language: reader.parsed("language", "de", str::parse)?,
        data_dir: reader.path("data_dir", "data")?,
        database: Database { url: reader.parsed("database.url", "", value::database_url)? },
        sftp: Sftp {
            listen: reader.addresses("sftp.listen", &["[::]:2022"])?,
            legacy_algorithms: reader.switch("sftp.legacy_algorithms", false)?,
            host_key_dir: reader.path("sftp.host_key_dir", "certs")?,
        },
        ftps: Ftps {
            listen: reader.addresses("ftps.listen", &["[::]:2121"])?,
            implicit_listen: reader.addresses("ftps.implicit_listen", &[])?,
            passive_ports: reader.parsed("ftps.passive_ports", "50000-50999", value::port_range)?,
            passive_host: reader.parsed("ftps.passive_host", "", value::host_or_none)?,
            certificate: reader.path("ftps.certificate", "certs/server.crt")?,
            private_key: reader.path("ftps.private_key", "certs/server.key")?,
            require_session_reuse: reader.switch("ftps.require_session_reuse", false)?,
        },
        acme: acme(reader)?,
        web: web(reader)?,
        api: api(reader)?,
        admin: Admin {
            listen: reader.parsed_list(
                "admin.listen",
                &["127.0.0.1:9090"],
                value::internal_address,
            )?,
            page: reader.switch("admin.page", false)?,
        },
        scan: scan(reader)?,
        hotfolder: hotfolder(reader)?,
        portal: portal(reader)?,
        limits: limits(reader)?,
        log: log(reader)?,
        mail: Mail {
            client_ini: reader.path("mail.client_ini", "client.ini")?,
            operators: reader.parsed_list("mail.operators", &[], value::mail_address)?,
        },
        batch: Batch { quiet: reader.lasting("batch.quiet", "2m")? },
        jobticket: jobticket(reader)?,
        retention: Retention {
            keep_delivered: reader.duration("retention.keep_delivered", "30d")?,
            quarantine: reader.duration("retention.quarantine", "90d")?,
            events: reader.duration("retention.events", "2y")?,
            mails: reader.duration("retention.mails", "180d")?,
        },
        hooks: Hooks {
            dir: reader.path("hooks.dir", "hooks")?,
            timeout: reader.lasting("hooks.timeout", "60s")?,
        },
        webhooks: webhooks(reader)?,
    };
    settle_publish(reader, &mut config)?;
    Ok(config)
}

fn jobticket(reader: &mut Reader) -> Result<JobTicket, ConfigError> {
    let formats =
        [("off", TicketFormat::Off), ("xml", TicketFormat::Xml), ("xjdf", TicketFormat::Xjdf)];
    Ok(JobTicket {
        format: reader.choice("jobticket.format", "off", &formats)?,
        per: reader.choice(
            "jobticket.per",
            "file",
            &[("file", TicketPer::File), ("batch", TicketPer::Batch)],
        )?,
        name: reader.parsed("jobticket.name", "{stem}.xml", value::ticket_name)?,
        template: reader.path_or_none("jobticket.template", "")?,
        attach: reader.switch("jobticket.attach", true)?,
    })
}

/// Every `[[webhook]]`, in the order of the file.
fn webhooks(reader: &mut Reader) -> Result<Vec<Webhook>, ConfigError> {
    let mut webhooks = Vec::new();
    while reader.has_section(&format!("webhook[{}]", webhooks.len())) {
        let key = |name: &str| format!("webhook[{}].{name}", webhooks.len());
        let events = reader.parsed_list(&key("events"), &[], hookable_event)?;
        if events.is_empty() {
            return Err(reader.refuse(
                &key("events"),
                "names no event; write for example [\"upload.delivered\"]",
            ));
        }
        webhooks.push(Webhook {
            url: reader.parsed(&key("url"), "", value::webhook_url)?,
            events,
            secret: reader.parsed(&key("secret"), "", value::webhook_secret)?,
        });
    }
    Ok(webhooks)
}

fn hookable_event(text: &str) -> Result<EventKind, String> {
    EventKind::HOOKABLE.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let all: Vec<&str> = EventKind::HOOKABLE.iter().map(|kind| kind.as_str()).collect();
        format!("{} is none of {}", value::quoted(text), all.join(", "))
    })
}

fn acme(reader: &mut Reader) -> Result<Acme, ConfigError> {
    let domains = reader.parsed_list("acme.domains", &[], value::domain)?;
    let email = reader.parsed("acme.email", "", value::mail_address_or_none)?;
    let directory = reader.parsed(
        "acme.directory",
        "https://acme-v02.api.letsencrypt.org/directory",
        value::https_url,
    )?;
    let ca = reader.path_or_none("acme.ca", "")?;
    let listen = reader.addresses("acme.listen", &["[::]:80"])?;
    let listen = if domains.is_empty() { Vec::new() } else { listen };
    Ok(Acme { domains, email, directory, ca, listen })
}

fn web(reader: &mut Reader) -> Result<Web, ConfigError> {
    let web = Web {
        listen: reader.addresses("web.listen", &["127.0.0.1:8080"])?,
        base_url: reader.parsed("web.base_url", "http://localhost:8080", BaseUrl::parse)?,
        tls: reader.switch("web.tls", false)?,
        trusted_proxies: reader.parsed_list("web.trusted_proxies", &[], Network::parse)?,
    };
    match first_open(&web.listen) {
        Some(address) if !web.tls => Err(reader.refuse(
            "web.listen",
            format!(
                "{address} would carry passwords in clear; set web.tls = true, or listen on 127.0.0.1 behind a proxy that speaks HTTPS"
            ),
        )),
        Some(_) | None => Ok(web),
    }
}

fn api(reader: &mut Reader) -> Result<Api, ConfigError> {
    let api = Api {
        listen: reader.addresses("api.listen", &["127.0.0.1:8081"])?,
        public: reader.switch("api.public", false)?,
        tls: reader.switch("api.tls", false)?,
    };
    match first_open(&api.listen) {
        Some(address) if !(api.public && api.tls) => Err(reader.refuse(
            "api.listen",
            format!(
                "{address} can be reached from outside; set api.public = true and api.tls = true if that is meant, or listen on 127.0.0.1"
            ),
        )),
        Some(_) | None => Ok(api),
    }
}

/// An address that others than this machine can reach.
fn first_open(listen: &[SocketAddr]) -> Option<&SocketAddr> {
    listen.iter().find(|address| !address.ip().to_canonical().is_loopback())
}

fn scan(reader: &mut Reader) -> Result<Scan, ConfigError> {
    let base = reader.base().to_owned();
    let named = reader.parsed_some("scan.clamd", "unix:/run/clamav/clamd.ctl", |text| {
        value::clamd_address(text, &base)
    })?;
    let scan = Scan {
        clamd: clamds(reader, named)?,
        transport: reader.choice(
            "scan.transport",
            "auto",
            &[
                ("auto", Transport::Auto),
                ("fildes", Transport::Fildes),
                ("instream", Transport::Instream),
            ],
        )?,
        window: reader.size("scan.window", "16MiB", MIB..=GIB)?,
        accept_unscanned: reader.switch("scan.accept_unscanned", false)?,
        hold_signatures: reader.patterns("scan.hold_signatures", &["PUA.*", "Heuristics.*"])?,
        answer_within: reader.parsed("scan.answer_within", "12s", value::patience)?,
        on_oversize: reader.choice(
            "scan.on_oversize",
            "hold",
            &[("hold", OnOversize::Hold), ("reject", OnOversize::Reject)],
        )?,
        on_encrypted: reader.choice(
            "scan.on_encrypted",
            "release",
            &[
                ("release", OnEncrypted::Release),
                ("hold", OnEncrypted::Hold),
                ("reject", OnEncrypted::Reject),
            ],
        )?,
        pending_max: reader.size("scan.pending_max", "50GiB", 0..=u64::MAX)?,
        quarantine: reader.switch("scan.quarantine", true)?,
    };
    let is_remote = |address: &ClamdAddress| matches!(address, ClamdAddress::Tcp(_));
    if scan.clamd.is_empty() && !scan.accept_unscanned {
        return Err(reader.refuse(
            "scan.clamd",
            "\"off\" lets files pass without a virus scan; \
             set scan.accept_unscanned = true as well, or name the address of clamd",
        ));
    }
    if scan.transport == Transport::Fildes && scan.clamd.iter().any(is_remote) {
        return Err(reader.refuse(
            "scan.transport",
            "\"fildes\" passes descriptors and needs a clamd at unix:; \
             write auto or instream for one at tcp:",
        ));
    }
    Ok(scan)
}

/// Addresses, each once; or `off` alone.
fn clamds(
    reader: &Reader,
    named: Vec<Option<ClamdAddress>>,
) -> Result<Vec<ClamdAddress>, ConfigError> {
    let is_off = named.iter().any(Option::is_none);
    let named: Vec<ClamdAddress> = named.into_iter().flatten().collect();
    if is_off && !named.is_empty() {
        return Err(reader.refuse("scan.clamd", "\"off\" stands alone, or not at all"));
    }
    match named.iter().enumerate().find(|(i, address)| named.iter().take(*i).any(|a| a == *address))
    {
        Some(_) => Err(reader.refuse("scan.clamd", "names one clamd twice; remove one")),
        None => Ok(named),
    }
}

fn hotfolder(reader: &mut Reader) -> Result<Hotfolder, ConfigError> {
    Ok(Hotfolder {
        root: reader.path_or_none("hotfolder.root", "hotfolder")?,
        modes: Modes {
            file: reader.parsed("hotfolder.file_mode", "0664", value::mode)?,
            folder: reader.parsed("hotfolder.folder_mode", "0775", value::mode)?,
        },
        layout: reader.parsed(
            "hotfolder.layout",
            "{client_no}/{project_no}/{folder}",
            value::layout,
        )?,
        on_conflict: reader.choice(
            "hotfolder.on_conflict",
            "keep-both",
            &[("keep-both", OnConflict::KeepBoth), ("replace", OnConflict::Replace)],
        )?,
        delivery_delay: reader.duration("hotfolder.delivery_delay", "2s")?,
        rename_follows: reader.switch("hotfolder.rename_follows", false)?,
        ticket_folders: reader.switch("hotfolder.ticket_folders", false)?,
        deliver_repeats: reader.switch("hotfolder.deliver_repeats", false)?,
        publish: reader.parsed_list(PUBLISH, &["In Bearbeitung", "Final"], value::folder_name)?,
        waiting_after: reader.duration("hotfolder.waiting_after", "0")?,
        poll: reader.lasting("hotfolder.poll", "10s")?,
    })
}

const PUBLISH: &str = "hotfolder.publish";

/// Which folders lead back to the customer. Who names folders of their own and says nothing here means all but the first.
fn settle_publish(reader: &Reader, config: &mut Config) -> Result<(), ConfigError> {
    let readable = config.portal.folders.get(1..).unwrap_or_default();
    let publish = &mut config.hotfolder.publish;
    // Else the files of one order, or a customer's own, would come back as another's.
    let tells_apart = ["{project_no}", "{folder}"]
        .iter()
        .all(|placeholder| config.hotfolder.layout.contains(placeholder));
    if reader.is_default(PUBLISH) {
        *publish = if tells_apart { readable.to_vec() } else { Vec::new() };
        return Ok(());
    }
    if !tells_apart && !publish.is_empty() {
        return Err(reader.refuse(
            PUBLISH,
            "needs {project_no} and {folder} in hotfolder.layout, so that it is known whose files they are",
        ));
    }
    match publish.iter().find(|name| !readable.contains(name)) {
        None => Ok(()),
        Some(name) => Err(reader.refuse(
            PUBLISH,
            format!(
                "{} is not one of portal.folders, or is the first, which takes uploads",
                value::quoted(name)
            ),
        )),
    }
}

fn portal(reader: &mut Reader) -> Result<Portal, ConfigError> {
    Ok(Portal {
        folders: folders(reader)?,
        project_folder: reader.parsed(
            "portal.project_folder",
            "{project_no}",
            value::project_folder,
        )?,
        incomplete_ttl: reader.lasting("portal.incomplete_ttl", "72h")?,
        temporary_names: reader.patterns("portal.temporary_names", &TEMPORARY_NAMES)?,
        link_ttl: reader.lasting("portal.link_ttl", "30m")?,
        host: reader.parsed("portal.host", "", value::host_or_none)?,
        contact: reader.parsed("portal.contact", "", value::line)?,
        sftp_port: reader.number("portal.sftp_port", 0, 0)?,
        ftps_port: reader.number("portal.ftps_port", 0, 0)?,
    })
}

fn folders(reader: &mut Reader) -> Result<Vec<String>, ConfigError> {
    const KEY: &str = "portal.folders";
    let folders =
        reader.parsed_list(KEY, &["Eingehend", "In Bearbeitung", "Final"], value::folder_name)?;
    if folders.is_empty() {
        return Err(reader.refuse(KEY, "is empty; name at least the upload folder"));
    }
    let mut seen = Vec::new();
    for folder in &folders {
        // Shares of Windows know one name in any case.
        let name = folder.to_lowercase();
        if seen.contains(&name) {
            let problem = format!("{} is named twice; remove one", value::quoted(folder));
            return Err(reader.refuse(KEY, problem));
        }
        seen.push(name);
    }
    Ok(folders)
}

fn limits(reader: &mut Reader) -> Result<Limits, ConfigError> {
    Ok(Limits {
        connections: reader.count("limits.connections", 1000)?,
        connections_per_ip: reader.count("limits.connections_per_ip", 50)?,
        sessions_per_account: reader.count("limits.sessions_per_account", 20)?,
        unauthenticated: reader.count("limits.unauthenticated", 100)?,
        login_grace: reader.lasting("limits.login_grace", "30s")?,
        idle_timeout: reader.lasting("limits.idle_timeout", "10m")?,
        max_file_size: reader.size("limits.max_file_size", "50GiB", 1..=u64::MAX)?,
        min_free: reader.size("limits.min_free", "5GiB", 0..=u64::MAX)?,
        ban_after: reader.count("limits.ban_after", 10)?,
        ban_window: reader.lasting("limits.ban_window", "10m")?,
        ban_time: reader.duration("limits.ban_time", "30m")?,
    })
}

fn log(reader: &mut Reader) -> Result<Log, ConfigError> {
    let level = |name: &'static str| (name, name);
    Ok(Log {
        format: reader.choice(
            "log.format",
            "text",
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        )?,
        level: reader
            .choice("log.level", "info", &["error", "warn", "info", "debug", "trace"].map(level))?
            .to_owned(),
        file: reader.path_or_none("log.file", "")?,
    })
}
