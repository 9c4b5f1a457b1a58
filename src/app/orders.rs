//! Orders: announce a project or a ticket, close a project. Idempotent: the same announcement again changes nothing.

use super::clients::{Refused, because};
use super::{App, edit, tree};
use crate::domain::account::Status;
use crate::domain::event::{Event, EventKind};
use crate::domain::hotname::portal_folder_name;
use crate::domain::order::{self, Access, ProjectState, number};
use crate::domain::time::{self, Timestamp};
use crate::logging;
use crate::store::orders::{self, ProjectRow, TicketRow};
use crate::store::{self, accounts, clients, events};

/// What is said about a project or ticket; absent things stay as they are.
#[derive(Debug, Clone, Default)]
pub struct JobChange {
    pub description: Option<String>,
    pub due: Option<String>,
    pub contact: Option<String>,
}

impl JobChange {
    fn check(&self) -> Result<(), Refused> {
        if let Some(due) = &self.due
            && !due.is_empty()
            && time::parse(due).is_none()
        {
            return because(format!("{due:?} is not a date; write YYYY-MM-DD or RFC 3339"));
        }
        if self.description.as_ref().is_some_and(|d| d.len() > 10_000) {
            return because("the description has more than 10000 bytes; shorten it");
        }
        Ok(())
    }
}

fn update(target: &mut String, wanted: Option<&String>) -> bool {
    match wanted {
        Some(text) if text != target => {
            target.clone_from(text);
            true
        }
        Some(_) | None => false,
    }
}

impl App {
    /// Announces a project of a client. A closed one opens again only if the announcement changes something.
    ///
    /// # Errors
    /// No such client, a number of another client, a bad date.
    pub async fn add_project(
        &self,
        (client_no, project_no): (&str, &str),
        change: &JobChange,
    ) -> Result<ProjectRow, Refused> {
        let project_no = number("project_no", project_no)?;
        change.check()?;
        self.client(client_no).await?;
        let now = self.now();
        if let Some(row) = orders::project(self.store.db(), &project_no).await? {
            return self.change_project(row, client_no, change, now).await;
        }
        let mut tx = self.store.write().await?;
        let folder = free_folder(&mut tx, client_no, &self.folder_text(&project_no)).await?;
        let row = ProjectRow {
            id: self.new_id().to_string(),
            project_no: project_no.clone(),
            client_no: client_no.to_owned(),
            job_description: change.description.clone().unwrap_or_default(),
            due_date: change.due.clone().unwrap_or_default(),
            contact: change.contact.clone().unwrap_or_default(),
            state: ProjectState::Open.as_str().to_owned(),
            folder,
            created: now.0,
            updated: now.0,
        };
        match orders::insert_project(tx.db(), &row).await {
            Err(e) if store::is_duplicate(&e) => {
                return because(format!(
                    "project {project_no} was announced in this moment; try again"
                ));
            }
            other => other?,
        }
        let event = Event::new(EventKind::ProjectCreated)
            .client(client_no)
            .project(&project_no)
            .path(&row.folder);
        events::insert(tx.db(), &event, now).await?;
        events::note_change(tx.db(), "project", &project_no, now).await?;
        tx.commit().await?;
        logging::event(&event);
        Ok(row)
    }

    fn folder_text(&self, project_no: &str) -> String {
        self.config.portal.project_folder.replace("{project_no}", project_no)
    }

    async fn change_project(
        &self,
        mut row: ProjectRow,
        client_no: &str,
        change: &JobChange,
        now: Timestamp,
    ) -> Result<ProjectRow, Refused> {
        if row.client_no != client_no {
            return because(format!("project {} belongs to another client", row.project_no));
        }
        let changes = [
            update(&mut row.job_description, change.description.as_ref()),
            update(&mut row.due_date, change.due.as_ref()),
            update(&mut row.contact, change.contact.as_ref()),
        ];
        if !changes.contains(&true) {
            return Ok(row);
        }
        ProjectState::Open.as_str().clone_into(&mut row.state);
        let mut tx = self.store.write().await?;
        orders::update_project(tx.db(), &row, now).await?;
        events::note_change(tx.db(), "project", &row.project_no, now).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// # Errors
    /// No such project.
    pub async fn project(&self, project_no: &str) -> Result<ProjectRow, Refused> {
        match orders::project(self.store.db(), project_no).await? {
            Some(row) => Ok(row),
            None => because(format!("there is no project {project_no}; `project list` shows all")),
        }
    }

    /// Closes a project: its folders are no longer shown. What was accepted is delivered all the same.
    ///
    /// # Errors
    /// No such project.
    pub async fn close_project(&self, project_no: &str) -> Result<ProjectRow, Refused> {
        let row = self.project(project_no).await?;
        let now = self.now();
        let mut tx = self.store.write().await?;
        if orders::close_project(tx.db(), project_no, now).await? > 0 {
            let event =
                Event::new(EventKind::ProjectClosed).client(&row.client_no).project(project_no);
            events::insert(tx.db(), &event, now).await?;
            events::note_change(tx.db(), "project", project_no, now).await?;
            tx.commit().await?;
            logging::event(&event);
        }
        self.project(project_no).await
    }

    /// Why a project has a folder in the portal, or none.
    ///
    /// # Errors
    /// The database.
    pub async fn access_of(&self, client_no: &str) -> store::Result<Access> {
        let client = clients::client(self.store.db(), client_no).await?;
        let rows = accounts::accounts_of(self.store.db(), client_no).await?;
        let statuses: Vec<Status> = rows.iter().map(accounts::AccountRow::status).collect();
        Ok(order::access(client.is_some_and(|c| c.create_hotfolder != 0), &statuses))
    }

    /// Announces a ticket of a project.
    ///
    /// # Errors
    /// No such project, a bad number or date.
    pub async fn add_ticket(
        &self,
        (project_no, ticket_no): (&str, &str),
        change: &JobChange,
    ) -> Result<TicketRow, Refused> {
        let ticket_no = number("ticket_no", ticket_no)?;
        change.check()?;
        let project = self.project(project_no).await?;
        let now = self.now();
        let known = orders::tickets(self.store.db(), project_no).await?;
        if let Some(mut row) = known.into_iter().find(|t| t.ticket_no == ticket_no) {
            let changes = [
                update(&mut row.job_description, change.description.as_ref()),
                update(&mut row.due_date, change.due.as_ref()),
            ];
            if changes.contains(&true) {
                orders::update_ticket(self.store.db(), &row, now).await?;
            }
            return Ok(row);
        }
        let row = TicketRow {
            id: self.new_id().to_string(),
            ticket_no: ticket_no.clone(),
            project_no: project_no.to_owned(),
            job_description: change.description.clone().unwrap_or_default(),
            due_date: change.due.clone().unwrap_or_default(),
            created: now.0,
            updated: now.0,
        };
        let event = Event::new(EventKind::TicketCreated)
            .client(&project.client_no)
            .project(project_no)
            .with("ticket", ticket_no.clone());
        let mut tx = self.store.write().await?;
        orders::insert_ticket(tx.db(), &row).await?;
        events::insert(tx.db(), &event, now).await?;
        events::note_change(tx.db(), "project", project_no, now).await?;
        tx.commit().await?;
        logging::event(&event);
        if self.config.hotfolder.ticket_folders {
            self.make_ticket_folder(&project, &ticket_no, now).await?;
        }
        Ok(row)
    }

    async fn make_ticket_folder(
        &self,
        project: &ProjectRow,
        ticket: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let (parent, name) = (tree::area_key(project, 0), portal_folder_name(ticket));
        // A folder that is there already is as good.
        edit::make_folder_row(self, project, (&parent, &name), now).await?;
        Ok(())
    }

    /// Removes a ticket; files that belong to it stay with their project.
    ///
    /// # Errors
    /// No such ticket.
    pub async fn remove_ticket(&self, project_no: &str, ticket_no: &str) -> Result<(), Refused> {
        if orders::delete_ticket(self.store.db(), project_no, ticket_no).await? == 0 {
            return because(format!("project {project_no} has no ticket {ticket_no}"));
        }
        Ok(())
    }
}

/// A folder name that no other project of the client has or had.
async fn free_folder(
    tx: &mut store::WriteTx,
    client_no: &str,
    text: &str,
) -> Result<String, Refused> {
    let base = portal_folder_name(text);
    for n in 1u32..1000 {
        let name = if n == 1 { base.clone() } else { format!("{base} ({n})") };
        if !orders::folder_exists(tx.db(), client_no, &name).await? {
            return Ok(name);
        }
    }
    because(format!("no free folder name like {base}"))
}
