//! Orders as operators handle them: announce a project or a ticket by hand, close a project, remove a ticket.

use super::App;
use super::announce::{Announced, UnknownClient};
use super::clients::{Refused, because, missing};
use crate::domain::account::Status;
use crate::domain::announcement::{
    Announcement, ClientPart, Problem, ProjectPart, TicketPart, Unreadable,
};
use crate::domain::event::{Event, EventKind};
use crate::domain::order::{self, Access};
use crate::store::orders::{self, ProjectRow, TicketRow};
use crate::store::{self, accounts, clients};

/// What is said about a project or ticket; absent things stay as they are.
#[derive(Debug, Clone, Default)]
pub struct JobChange {
    pub description: Option<String>,
    pub due: Option<String>,
    /// Id of a contact of the client.
    pub contact: Option<String>,
}

/// On the command line there is one field at a time; its path would say nothing.
fn in_words(wrong: Unreadable) -> Refused {
    match wrong {
        Unreadable::Syntax(text) => Refused::Because(text),
        Unreadable::Content(problems) => {
            let all: Vec<String> =
                problems.into_iter().map(|Problem { problem, .. }| problem).collect();
            Refused::Because(all.join("; "))
        }
    }
}

impl App {
    /// Announces a project of a client that is there, with the rules and the result of the API.
    ///
    /// # Errors
    /// No such client or contact, a number of another client, a bad date.
    pub async fn add_project(
        &self,
        (client_no, project_no): (&str, &str),
        change: &JobChange,
    ) -> Result<Announced, Refused> {
        let order = Announcement {
            client: ClientPart { client_no: client_no.to_owned(), ..ClientPart::default() },
            project: ProjectPart {
                project_no: project_no.to_owned(),
                job_description: change.description.clone(),
                due_date: change.due.clone(),
                contact: None,
            },
            tickets: Vec::new(),
        };
        let order = order.checked().map_err(in_words)?;
        self.announce(&order, change.contact.as_deref(), UnknownClient::Refuse).await
    }

    /// Announces a ticket of a project that is there.
    ///
    /// # Errors
    /// No such project, a bad number or date.
    pub async fn add_ticket(
        &self,
        (project_no, ticket_no): (&str, &str),
        change: &JobChange,
    ) -> Result<TicketRow, Refused> {
        let project = self.project(project_no).await?;
        let ticket = TicketPart {
            ticket_no: ticket_no.to_owned(),
            job_description: change.description.clone(),
            due_date: change.due.clone(),
        };
        let order = Announcement {
            client: ClientPart { client_no: project.client_no, ..ClientPart::default() },
            project: ProjectPart { project_no: project.project_no, ..ProjectPart::default() },
            tickets: vec![ticket],
        };
        let order = order.checked().map_err(in_words)?;
        let announced = self.announce(&order, None, UnknownClient::Refuse).await?;
        match announced.tickets.into_iter().next() {
            Some(row) => Ok(row),
            None => because(format!("ticket {ticket_no} was not announced")),
        }
    }

    /// # Errors
    /// No such project.
    pub async fn project(&self, project_no: &str) -> Result<ProjectRow, Refused> {
        let known = match order::number("project_no", project_no) {
            Ok(no) => orders::project(self.store.db(), &no).await?,
            // What cannot be a number is not looked up.
            Err(_) => None,
        };
        match known {
            Some(row) => Ok(row),
            None => missing(format!("there is no project {project_no}; `project list` shows all")),
        }
    }

    /// Closes a project: its folders are no longer shown. What was accepted is delivered all the same.
    ///
    /// # Errors
    /// No such project.
    pub async fn close_project(&self, project_no: &str) -> Result<ProjectRow, Refused> {
        let row = self.project(project_no).await?;
        let mut work = self.begin().await?;
        if orders::close_project(work.tx.db(), project_no, work.now).await? > 0 {
            let event = Event::new(EventKind::ProjectClosed).client(&row.client_no);
            work.note(event.project(project_no));
            work.changed("project", project_no);
        }
        work.commit().await?;
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
