//! An order is announced: by the API, the import folder or the command line, all through [`App::announce`]. One
//! transaction holds everything that follows from it; the same announcement again changes nothing and mails nothing.

use super::announced_rows as rows;
use super::clients::Refused;
use super::invite::{self, About};
use super::work::Work;
use super::{App, accounts as accounts_app, edit, tree};
use crate::domain::account::{Settings, Status};
use crate::domain::announcement::Announcement;
use crate::domain::decision::{self, Decision, News, Standing};
use crate::domain::hotname::portal_folder_name;
use crate::domain::order::{Access, ProjectState};
use crate::steps;
use crate::store::accounts::{self, AccountRow};
use crate::store::clients::ClientRow;
use crate::store::mails::MailRow;
use crate::store::orders::{self, ProjectRow, TicketRow};
use crate::store::{self, entries};

/// Announcements that come at the same moment from several servers: the later one sees the earlier one's rows.
const TRIES: u32 = 5;

/// Who may make the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownClient {
    Create,
    Refuse,
}

/// What an announcement led to.
#[derive(Debug, Clone)]
pub struct Announced {
    pub client: ClientRow,
    pub project: ProjectRow,
    pub tickets: Vec<TicketRow>,
    /// The account that mails concern: the oldest active one, else the oldest.
    pub account: Option<AccountRow>,
    pub decision: Decision,
    pub mails: Vec<MailRow>,
    /// Client, project, ticket or account is new.
    pub is_created: bool,
}

impl App {
    /// Announces a project of a client, with tickets.
    ///
    /// # Errors
    /// A number of another client, a client that is not there and may not be made, the database.
    pub async fn announce(
        &self,
        order: &Announcement,
        contact_id: Option<&str>,
        unknown: UnknownClient,
    ) -> Result<Announced, Refused> {
        let mut tries = 0u32;
        let announced = loop {
            match self.announce_once(order, contact_id, unknown).await {
                Err(Refused::Store(error))
                    if (store::is_duplicate(&error) || store::is_contended(&error))
                        && tries < TRIES =>
                {
                    tries = tries.saturating_add(1);
                }
                other => break other?,
            }
        };
        Ok(announced)
    }

    /// The project's folders as the customer sees them, the upload folder first; none without access.
    ///
    /// # Errors
    /// The database.
    pub async fn folders_of(&self, announced: &Announced) -> Result<Vec<String>, Refused> {
        let is_open = announced.project.state == ProjectState::Open.as_str();
        if announced.decision.access != Access::Ok || !is_open {
            return Ok(Vec::new());
        }
        let own = match &announced.account {
            Some(account) => self.effective_settings(account).await?.folders,
            None => None,
        };
        let names = own.unwrap_or_else(|| self.config.portal.folders.clone());
        Ok(names.iter().map(|name| format!("{}/{name}", announced.project.folder)).collect())
    }

    async fn announce_once(
        &self,
        order: &Announcement,
        contact_id: Option<&str>,
        unknown: UnknownClient,
    ) -> Result<Announced, Refused> {
        let mut work = self.begin().await?;
        let (client, is_new_client) = rows::client(&mut work, &order.client, unknown).await?;
        let contact = rows::contact(&mut work, &client, &order.project, contact_id).await?;
        let known = orders::project(work.tx.db(), &order.project.project_no).await?;
        let is_new_project = known.is_none();
        let (mut project, mut is_changed) = match known {
            None => (rows::new_project(&mut work, &client, &order.project, contact).await?, false),
            Some(row) => rows::change_project(row, &client, &order.project, contact)?,
        };
        let tickets = rows::tickets(&mut work, &project, &order.tickets).await?;
        is_changed |= tickets.is_changed || !tickets.new.is_empty();
        if is_changed {
            ProjectState::Open.as_str().clone_into(&mut project.state);
            orders::update_project(work.tx.db(), &project, work.now).await?;
            work.changed("project", &project.project_no);
            project.updated = work.now.0;
        }
        if self.config.hotfolder.ticket_folders {
            for ticket in &tickets.rows {
                let name = portal_folder_name(&ticket.ticket_no);
                let parent = tree::area_key(&project, 0);
                let row = edit::folder_row(self, &project, (&parent, &name), work.now);
                // One that is there already is as good.
                entries::insert(work.tx.db(), &row).await?;
            }
        }
        let news = News {
            is_open: project.state == ProjectState::Open.as_str(),
            is_new_project,
            new_tickets: tickets.new.len(),
        };
        let (account, decision) =
            access(&mut work, (&client, &project), &tickets.new, news).await?;
        let is_created = is_new_client || !news.is_nothing() || decision.creates_account;
        let tickets = tickets.rows;
        steps::reach("order.decided");
        let mails = work.commit().await?;
        steps::reach("order.committed");
        Ok(Announced { client, project, tickets, account, decision, mails, is_created })
    }

    pub(super) fn folder_text(&self, project_no: &str) -> String {
        self.config.portal.project_folder.replace("{project_no}", project_no)
    }
}

/// Decides, and does it: account and mails.
async fn access(
    work: &mut Work<'_>,
    (client, project): (&ClientRow, &ProjectRow),
    new_tickets: &[TicketRow],
    news: News,
) -> Result<(Option<AccountRow>, Decision), Refused> {
    let rows = accounts::accounts_of(work.tx.db(), &client.client_no).await?;
    let standing =
        |row: &AccountRow| Standing { status: row.status(), is_activated: row.is_activated() };
    let standings: Vec<Standing> = rows.iter().map(standing).collect();
    let switches = work.app.client_ini.current().switches;
    let is_meant = client.create_hotfolder != 0;
    let decision = decision::decide(is_meant, &standings, switches, news);
    let active = rows.iter().find(|row| row.status() == Status::Active);
    let mut account = active.or(rows.first()).cloned();
    if decision.creates_account {
        account = Some(new_account(work, client).await?);
    }
    if let Some(account) = &account {
        let about = About { client, project: Some(project), account };
        invite::after_announcement(work, about, &decision, new_tickets).await?;
    }
    Ok((account, decision))
}

async fn new_account(work: &mut Work<'_>, client: &ClientRow) -> Result<AccountRow, Refused> {
    let name = accounts_app::free_name(work, client).await?;
    let id = work.app.new_id();
    let settings = Settings::default();
    let name = (&name, Status::Active);
    let row = accounts_app::new_account(id.as_str(), &client.client_no, name, &settings, work.now);
    accounts_app::insert_account(work, &row).await?;
    Ok(row)
}
