//! "Why could they not log in?": what stands in the way of an account, and what was tried.

use std::collections::HashMap;
use std::net::IpAddr;

use super::App;
use super::clients::Refused;
use crate::domain::account::{Language, Settings, Status, subscriber};
use crate::domain::activation::{LinkState, link_state};
use crate::domain::time::Timestamp;
use crate::store::accounts::AccountRow;
use crate::store::activation::LinkRow;
use crate::store::clients::ClientRow;
use crate::store::events::EventRow;
use crate::store::guard::BanRow;
use crate::store::{accounts, activation, clients, desk, guard, sessions};

/// Failed logins that are shown.
const SHOWN: i64 = 20;

/// Something that keeps an account out, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    Inactive,
    Expired {
        at: String,
    },
    /// Neither password nor key; the link, if there is one.
    NoCredential {
        link: Option<LinkState>,
    },
    NotMeant,
    Protocols {
        allowed: String,
    },
    Networks {
        allowed: String,
    },
    Banned {
        address: String,
        until: Timestamp,
    },
    Sessions {
        now: usize,
        limit: usize,
    },
}

/// Everything about the logins of one account.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    pub account: AccountRow,
    pub settings: Settings,
    pub obstacles: Vec<Obstacle>,
    /// Newest first.
    pub failed: Vec<EventRow>,
    pub keys: usize,
}

impl Obstacle {
    /// What it is, and what to do.
    #[must_use]
    pub fn text(&self, language: Language, username: &str) -> String {
        let de = language == Language::De;
        match self {
            Self::Inactive if de => {
                format!("Der Zugang ist nicht aktiv. `ptportal account enable {username}`")
            }
            Self::Inactive => format!("The account is inactive. `ptportal account enable {username}`"),
            Self::Expired { at } if de => {
                format!("Der Zugang ist abgelaufen ({at}). `ptportal account set {username} expires_at=…`")
            }
            Self::Expired { at } => {
                format!("The account has expired ({at}). `ptportal account set {username} expires_at=…`")
            }
            Self::NoCredential { link } => no_credential(*link, de, username),
            Self::NotMeant if de => {
                "Der Kunde ist nicht für das Portal vorgesehen: Er sieht keine Ordner. `ptportal client set NR --create-hotfolder`".to_owned()
            }
            Self::NotMeant => {
                "The client is not meant for the portal: no folders are shown. `ptportal client set NO --create-hotfolder`".to_owned()
            }
            Self::Protocols { allowed } if de => format!("Erlaubt ist nur: {allowed}."),
            Self::Protocols { allowed } => format!("Only this is allowed: {allowed}."),
            Self::Networks { allowed } if de => format!("Erlaubt ist nur von: {allowed}."),
            Self::Networks { allowed } => format!("Only allowed from: {allowed}."),
            Self::Banned { address, until } if de => {
                format!("Seine Adresse {address} ist bis {until} gesperrt. `ptportal ban remove {address}`")
            }
            Self::Banned { address, until } => {
                format!("Their address {address} is banned until {until}. `ptportal ban remove {address}`")
            }
            Self::Sessions { now, limit } if de => {
                format!("{now} von {limit} erlaubten Verbindungen sind offen.")
            }
            Self::Sessions { now, limit } => format!("{now} of {limit} allowed sessions are open."),
        }
    }
}

fn no_credential(link: Option<LinkState>, de: bool, username: &str) -> String {
    let about = match (link, de) {
        (Some(LinkState::Good), true) => "Der Link ist verschickt und noch nicht benutzt.",
        (Some(LinkState::Good), false) => "The link is sent and not used yet.",
        (Some(LinkState::Expired), true) => "Der Link ist abgelaufen.",
        (Some(LinkState::Expired), false) => "The link has expired.",
        (Some(LinkState::Used), true) => "Der Link wurde benutzt, aber es gibt kein Passwort mehr.",
        (Some(LinkState::Used), false) => "The link was used, but there is no password any more.",
        (Some(LinkState::Unknown) | None, true) => "Es wurde kein Link verschickt.",
        (Some(LinkState::Unknown) | None, false) => "No link was sent.",
    };
    if de {
        format!(
            "Es gibt weder Passwort noch Schlüssel. {about} `ptportal account link {username} --send`"
        )
    } else {
        format!(
            "There is neither password nor key. {about} `ptportal account link {username} --send`"
        )
    }
}

impl App {
    /// Clients whose number, name, address or username contains a text; all for an empty one.
    ///
    /// # Errors
    /// The database.
    pub async fn find_clients(
        &self,
        text: &str,
    ) -> Result<Vec<(ClientRow, Vec<AccountRow>)>, Refused> {
        let wanted = text.trim().to_lowercase();
        let mut of_client: HashMap<String, Vec<AccountRow>> = HashMap::new();
        for account in accounts::accounts(self.store.db()).await? {
            of_client.entry(account.client_no.clone()).or_default().push(account);
        }
        let mut found = Vec::new();
        for client in clients::clients(self.store.db()).await? {
            let own = of_client.remove(&client.client_no).unwrap_or_default();
            let words = [&client.client_no, &client.name, &client.email];
            let words = words.into_iter().chain(own.iter().map(|account| &account.username));
            if words.into_iter().any(|word| word.to_lowercase().contains(&wanted)) {
                found.push((client, own));
            }
        }
        Ok(found)
    }

    /// What keeps each account of a client out.
    ///
    /// # Errors
    /// No such client, or the database.
    pub async fn diagnose(&self, client_no: &str) -> Result<(ClientRow, Vec<Diagnosis>), Refused> {
        let client = self.client(client_no).await?;
        let bans = guard::bans(self.store.db(), self.now()).await?;
        let mut all = Vec::new();
        for account in accounts::accounts_of(self.store.db(), client_no).await? {
            all.push(self.diagnose_account(&client, account, &bans).await?);
        }
        Ok((client, all))
    }

    async fn diagnose_account(
        &self,
        client: &ClientRow,
        account: AccountRow,
        bans: &[BanRow],
    ) -> Result<Diagnosis, Refused> {
        let db = self.store.db();
        let settings = self.effective_settings(&account).await?;
        let failed = desk::failed_logins(db, &account.username, SHOWN).await?;
        let keys = accounts::keys(db, &account.username).await?.len();
        let links = activation::of_account(db, &account.username).await?;
        let rows = sessions::all(db).await?;
        let open = rows.iter().filter(|row| row.username == account.username).count();
        let limit = settings.max_sessions.and_then(|n| usize::try_from(n).ok());
        let limit = limit.unwrap_or(self.limits().sessions_per_account);
        let mut obstacles = Vec::new();
        if account.status() != Status::Active {
            obstacles.push(Obstacle::Inactive);
        }
        if settings.is_expired(self.now()) {
            let at = settings.expires_at.clone().unwrap_or_default();
            obstacles.push(Obstacle::Expired { at });
        }
        if account.password_hash.is_empty() && keys == 0 {
            let link =
                newest(&links).map(|l| link_state((l.created, l.expires, l.used), self.now().0));
            obstacles.push(Obstacle::NoCredential { link });
        }
        // A ban may come from tries with another name: the address of earlier logins counts too.
        let mut peers = desk::login_peers(db, &account.username, SHOWN).await?;
        peers.extend(failed.iter().map(|event| event.peer.clone()));
        obstacles.extend(banned(&peers, bans));
        if open >= limit {
            obstacles.push(Obstacle::Sessions { now: open, limit });
        }
        if client.create_hotfolder == 0 {
            obstacles.push(Obstacle::NotMeant);
        }
        if let Some(allowed) = &settings.protocols {
            obstacles.push(Obstacle::Protocols { allowed: allowed.join(", ") });
        }
        if let Some(networks) = &settings.allowed_networks {
            let allowed = networks.join(", ");
            obstacles.push(Obstacle::Networks { allowed });
        }
        Ok(Diagnosis { account, settings, obstacles, failed, keys })
    }
}

fn newest(links: &[LinkRow]) -> Option<&LinkRow> {
    links.iter().max_by_key(|link| link.created)
}

/// Bans of addresses from which this account has logged in or was tried.
fn banned(peers: &[String], bans: &[BanRow]) -> Vec<Obstacle> {
    let tried = |ban: &&BanRow| {
        let Ok(address) = ban.address.parse::<IpAddr>() else { return false };
        peers.iter().any(|peer| peer.parse().is_ok_and(|peer| subscriber(peer) == address))
    };
    let obstacle = |ban: &BanRow| Obstacle::Banned {
        address: ban.address.clone(),
        until: Timestamp(ban.until),
    };
    bans.iter().filter(tried).map(obstacle).collect()
}
