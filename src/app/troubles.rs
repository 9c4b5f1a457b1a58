//! What is wrong now, since when, why, and what to do: the answer to the question at 3 a.m.

use std::time::Duration;

use serde_json::{Value, json};

use super::control::Live;
use super::readiness::Readiness;
use super::{App, with_app};
use crate::certificate;
use crate::domain::account::Language;
use crate::domain::time::Timestamp;
use crate::store::desk::{self, Sum};
use crate::store::nodes::{DEAD_AFTER, NodeRow};
use crate::store::{self, published};

/// What was given up longer ago has been seen.
const RECENT: Duration = Duration::from_secs(3 * 24 * 3600);
/// A certificate is renewed before.
const CERTIFICATE_DAYS: i64 = 14;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NoServer,
    ScannerAway,
    /// One of several.
    ScannerMissing,
    NotReady,
    Stuck,
    Unscanned,
    Held,
    PublishHeld,
    Untaken,
    HooksFailed,
    MailsFailed,
    Certificate,
}

/// One thing that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub kind: Kind,
    /// Of what `kind` counts; 1 where it counts nothing.
    pub count: i64,
    /// Since when, where that is known.
    pub since: Timestamp,
    /// In the words of whoever found it: the system, clamd, a mail server.
    pub why: String,
}

impl Kind {
    /// A word for scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoServer => "no-server",
            Self::ScannerAway => "scanner-away",
            Self::ScannerMissing => "scanner-missing",
            Self::NotReady => "not-ready",
            Self::Stuck => "deliveries-stuck",
            Self::Unscanned => "scans-in-vain",
            Self::Held => "uploads-held",
            Self::PublishHeld => "publish-held",
            Self::Untaken => "deliveries-waiting",
            Self::HooksFailed => "hooks-failed",
            Self::MailsFailed => "mails-failed",
            Self::Certificate => "certificate",
        }
    }

    /// Whether work stands still, rather than waits for a decision.
    #[must_use]
    pub const fn is_grave(self) -> bool {
        match self {
            Self::NoServer
            | Self::ScannerAway
            | Self::NotReady
            | Self::Stuck
            | Self::Unscanned
            | Self::Certificate => true,
            Self::ScannerMissing
            | Self::Held
            | Self::PublishHeld
            | Self::Untaken
            | Self::HooksFailed
            | Self::MailsFailed => false,
        }
    }

    const fn what(self, language: Language) -> &'static str {
        match (language, self) {
            (Language::De, Self::NoServer) => "Es läuft kein Server",
            (Language::En, Self::NoServer) => "no server runs",
            (Language::De, Self::ScannerAway) => "Der Virenscanner ist nicht da",
            (Language::En, Self::ScannerAway) => "the virus scanner is away",
            (Language::De, Self::ScannerMissing) => "Einer der Virenscanner ist nicht da",
            (Language::En, Self::ScannerMissing) => "one of the virus scanners is away",
            (Language::De, Self::NotReady) => "Nicht bereit",
            (Language::En, Self::NotReady) => "not ready",
            (Language::De, Self::Stuck) => "Übergaben hängen",
            (Language::En, Self::Stuck) => "deliveries are stuck",
            (Language::De, Self::Unscanned) => "Dateien ohne Prüfergebnis",
            (Language::En, Self::Unscanned) => "files get no verdict",
            (Language::De, Self::Held) => "Dateien sind angehalten",
            (Language::En, Self::Held) => "files are held",
            (Language::De, Self::PublishHeld) => "Viele Dateien sind verschwunden",
            (Language::En, Self::PublishHeld) => "many files have vanished",
            (Language::De, Self::Untaken) => "Übergebene Dateien holt niemand ab",
            (Language::En, Self::Untaken) => "nobody takes delivered files",
            (Language::De, Self::HooksFailed) => "Hooks sind aufgegeben",
            (Language::En, Self::HooksFailed) => "hooks were given up",
            (Language::De, Self::MailsFailed) => "Mails sind aufgegeben",
            (Language::En, Self::MailsFailed) => "mails were given up",
            (Language::De, Self::Certificate) => "Das Zertifikat läuft ab oder taugt nicht",
            (Language::En, Self::Certificate) => "the certificate expires or is of no use",
        }
    }

    const fn remedy(self, language: Language) -> &'static str {
        match (language, self) {
            (Language::De, Self::NoServer) => {
                "`systemctl status ptportal`, `journalctl -u ptportal -n 50`; Kunden können sich nicht anmelden."
            }
            (Language::En, Self::NoServer) => {
                "`systemctl status ptportal`, `journalctl -u ptportal -n 50`; customers cannot log in."
            }
            (Language::De, Self::ScannerAway) => {
                "`systemctl status clamav-daemon`, dann `ptportal check`. Hochgeladenes wartet und geht nicht verloren."
            }
            (Language::En, Self::ScannerAway) => {
                "`systemctl status clamav-daemon`, then `ptportal check`. What is uploaded waits and is not lost."
            }
            (Language::De, Self::ScannerMissing) => {
                "Auf seinem Rechner: `systemctl status clamav-daemon`. Die anderen prüfen weiter, nur langsamer."
            }
            (Language::En, Self::ScannerMissing) => {
                "On its machine: `systemctl status clamav-daemon`. The others go on, only slower."
            }
            (Language::De, Self::NotReady) => "`ptportal check` sagt, was zu tun ist.",
            (Language::En, Self::NotReady) => "`ptportal check` says what to do.",
            (Language::De, Self::Stuck) => {
                "Ursache beheben (Freigabe eingehängt? voll?), dann `ptportal delivery retry --all`."
            }
            (Language::En, Self::Stuck) => {
                "Mend the cause (share mounted? full?), then `ptportal delivery retry --all`."
            }
            (Language::De, Self::Unscanned) => {
                "`ptportal check`; dann `ptportal upload retry ID`, oder `release`, `reject`."
            }
            (Language::En, Self::Unscanned) => {
                "`ptportal check`; then `ptportal upload retry ID`, or `release`, `reject`."
            }
            (Language::De, Self::Held) => {
                "Ansehen, dann `ptportal upload release ID --reason …` oder `reject`."
            }
            (Language::En, Self::Held) => {
                "Look at them, then `ptportal upload release ID --reason …` or `reject`."
            }
            (Language::De, Self::PublishHeld) => {
                "War es gewollt? `ptportal publish list`, dann `ptportal publish confirm`."
            }
            (Language::En, Self::PublishHeld) => {
                "Was it meant? `ptportal publish list`, then `ptportal publish confirm`."
            }
            (Language::De, Self::Untaken) => "Läuft PTworkflow, läuft das RIP?",
            (Language::En, Self::Untaken) => "Does PTworkflow run, does the RIP?",
            (Language::De, Self::HooksFailed) => {
                "`ptportal hook list --state failed`, `hook show ID`, dann `hook retry ID`."
            }
            (Language::En, Self::HooksFailed) => {
                "`ptportal hook list --state failed`, `hook show ID`, then `hook retry ID`."
            }
            (Language::De, Self::MailsFailed) => {
                "`ptportal mail list`, `mail show ID`; dann `mail send ID`, oder nach einer neuen Adresse `account link USER --send`."
            }
            (Language::En, Self::MailsFailed) => {
                "`ptportal mail list`, `mail show ID`; then `mail send ID`, or after a new address `account link USER --send`."
            }
            (Language::De, Self::Certificate) => {
                "Erneuern; das neue wird ohne Neustart benutzt. Danach können sich Kunden nicht mehr anmelden."
            }
            (Language::En, Self::Certificate) => {
                "Renew it; the new one is used without a restart. Later customers cannot log in."
            }
        }
    }
}

impl Trouble {
    /// `3 deliveries are stuck`.
    #[must_use]
    pub fn what(&self, language: Language) -> String {
        let what = self.kind.what(language);
        let counts = !matches!(
            self.kind,
            Kind::NoServer
                | Kind::ScannerAway
                | Kind::ScannerMissing
                | Kind::NotReady
                | Kind::Certificate
        );
        if counts { format!("{}: {what}", self.count) } else { what.to_owned() }
    }

    #[must_use]
    pub const fn remedy(&self, language: Language) -> &'static str {
        self.kind.remedy(language)
    }

    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "kind": self.kind.as_str(), "what": self.what(Language::En), "count": self.count,
            "since": self.since.rfc3339(), "why": self.why, "remedy": self.remedy(Language::En),
        })
    }
}

/// What is wrong now, the gravest first.
///
/// # Errors
/// The database.
pub(super) async fn of(
    app: &std::sync::Arc<App>,
    (servers, lives, readiness): (&[NodeRow], &[Live], &[Readiness]),
    now: Timestamp,
) -> store::Result<Vec<Trouble>> {
    let db = app.store.db();
    let mut found = Vec::new();
    let mut tell = |kind, sum: Sum| {
        if sum.count > 0 {
            let since = Timestamp(sum.since);
            found.push(Trouble { kind, count: sum.count, since, why: sum.reason });
        }
    };
    let one = |since: i64, reason: String| Sum { count: 1, since, reason };
    let last_beat = servers.iter().map(|row| row.heartbeat).max();
    if last_beat.is_none_or(|beat| beat < now.minus(DEAD_AFTER).0) {
        tell(Kind::NoServer, one(last_beat.unwrap_or(0), String::new()));
    }
    if let Some(problem) = lives.iter().find_map(|live| live.scanner_problem.clone()) {
        let others = lives.iter().any(|live| live.scanner.is_some());
        let kind = if others { Kind::ScannerMissing } else { Kind::ScannerAway };
        tell(kind, one(0, problem));
    }
    for part in readiness {
        if let Some(problem) = &part.problem {
            tell(Kind::NotReady, one(0, format!("{}: {problem}", part.name)));
        }
    }
    tell(Kind::Stuck, desk::stuck(db).await?);
    tell(Kind::Unscanned, desk::unscanned(db).await?);
    if let Some(problem) = certificate_problem(app, now).await {
        tell(Kind::Certificate, one(0, problem));
    }
    tell(Kind::Held, desk::held(db).await?);
    for hold in published::holds(db).await?.into_iter().filter(|hold| hold.confirmed == 0) {
        let reason = format!("{} of {} in {}", hold.missing, hold.total, hold.project_no);
        tell(Kind::PublishHeld, Sum { count: hold.missing, since: hold.created, reason });
    }
    tell(Kind::Untaken, desk::untaken(db).await?);
    let recently = now.minus(RECENT);
    tell(Kind::HooksFailed, desk::failed_hooks(db, recently).await?);
    tell(Kind::MailsFailed, desk::failed_mails(db, recently).await?);
    Ok(found)
}

async fn certificate_problem(app: &std::sync::Arc<App>, now: Timestamp) -> Option<String> {
    if !app.config.needs_certificate() {
        return None;
    }
    let looked = with_app(app, |app| {
        let ftps = &app.config.ftps;
        Ok(certificate::inspect(&ftps.certificate, &ftps.private_key))
    });
    let validity = match looked.await.ok()? {
        Ok(validity) => validity?,
        Err(error) => return Some(error.to_string()),
    };
    // One that renews itself is no trouble before it should have.
    let domains = &app.config.acme.domains;
    if !domains.is_empty() && validity.is_self_signed {
        return Some(format!("the authority of [acme] has given none for {}", domains.join(", ")));
    }
    let is_due = domains.is_empty() || validity.wants_renewal(domains, now);
    let days = validity.days_left(now);
    (is_due && days < CERTIFICATE_DAYS).then(|| format!("{days} days left"))
}
