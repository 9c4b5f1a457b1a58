//! What a customer's page shows of projects and uploads, in plain words.

use serde::Serialize;

use super::{App, status_text, upload_words};
use crate::domain::account::{Language, Settings};
use crate::domain::refusal;
use crate::domain::time;
use crate::domain::upload::UploadState;
use crate::store::orders::ProjectRow;
use crate::store::uploads::{self, UploadRow};
use crate::store::{self, orders, unsigned};

/// Uploads shown of one project, newest first.
const SHOWN: usize = 50;
/// Looked at to tell how many more there are.
const COUNTED: i64 = 1000;

/// One project as a page shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ProjectView {
    pub project_no: String,
    pub folder: String,
    pub upload_folder: String,
    pub description: String,
    pub due: String,
    pub tickets: Vec<TicketView>,
    pub uploads: Vec<UploadView>,
    /// Uploads that are not shown.
    /// How many are not shown; empty when all are.
    pub more: String,
}

/// One part of an order as a page shows it.
#[derive(Debug, Clone, Serialize)]
pub struct TicketView {
    pub ticket_no: String,
    pub description: String,
    pub due: String,
}

/// One upload as a page shows it.
#[derive(Debug, Clone, Serialize)]
pub struct UploadView {
    pub name: String,
    pub path: String,
    pub state_text: String,
    pub detail: String,
    pub size: String,
    pub when: String,
    /// `ok`, `wait`, `bad` or `none`: never told by colour alone.
    pub tone: &'static str,
    /// What to name on the telephone.
    pub reference: String,
}

impl App {
    /// The open projects of a client, newest first.
    ///
    /// # Errors
    /// The database.
    pub async fn overview(
        &self,
        client_no: &str,
        settings: &Settings,
    ) -> store::Result<Vec<ProjectView>> {
        let language = settings.language.unwrap_or(self.config.language);
        let folders =
            settings.folders.clone().unwrap_or_else(|| self.config.portal.folders.clone());
        let upload_folder = folders.into_iter().next().unwrap_or_default();
        let mut projects = orders::visible_projects(self.store.db(), client_no).await?;
        projects.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id)));
        let mut views = Vec::new();
        for project in projects {
            views.push(self.project_view(project, &upload_folder, language).await?);
        }
        Ok(views)
    }

    async fn project_view(
        &self,
        project: ProjectRow,
        upload_folder: &str,
        language: Language,
    ) -> store::Result<ProjectView> {
        let rows = uploads::of_project(self.store.db(), &project.project_no, COUNTED).await?;
        let is_all = i64::try_from(rows.len()).is_ok_and(|counted| counted < COUNTED);
        let more = match (rows.len().saturating_sub(SHOWN), is_all, language) {
            (0, _, _) => String::new(),
            (more, true, _) => more.to_string(),
            (more, false, Language::De) => format!("über {more}"),
            (more, false, Language::En) => format!("over {more}"),
        };
        let mut uploads = Vec::new();
        for row in rows.iter().take(SHOWN) {
            let mut view = self.upload_view(row, language).await?;
            // What stands below the upload folder; the customer knows the rest.
            let above = format!("{upload_folder}/");
            if let Some(below) = view.path.strip_prefix(&above) {
                view.path = below.to_owned();
            }
            uploads.push(view);
        }
        let tickets = orders::tickets(self.store.db(), &project.project_no).await?;
        let tickets = tickets
            .into_iter()
            .map(|ticket| TicketView {
                ticket_no: ticket.ticket_no,
                description: ticket.job_description,
                due: day(&ticket.due_date, language),
            })
            .collect();
        Ok(ProjectView {
            tickets,
            project_no: project.project_no,
            folder: project.folder,
            upload_folder: upload_folder.to_owned(),
            description: project.job_description,
            due: day(&project.due_date, language),
            uploads,
            more,
        })
    }

    async fn upload_view(&self, row: &UploadRow, language: Language) -> store::Result<UploadView> {
        let words = upload_words::in_words(self, row, language, self.now()).await?;
        let moment = if row.completed == 0 { row.started } else { row.completed };
        Ok(UploadView {
            name: row.path.rsplit('/').next().unwrap_or_default().to_owned(),
            path: row.path.clone(),
            state_text: words.state,
            detail: words.advice.unwrap_or_default().to_owned(),
            size: refusal::size(unsigned(row.size), language),
            when: format!("{} UTC", status_text::minute(moment)),
            tone: tone(row.state()),
            reference: row.id.clone(),
        })
    }
}

fn tone(state: Option<UploadState>) -> &'static str {
    match state {
        Some(UploadState::Released) => "ok",
        Some(UploadState::Receiving | UploadState::Scanning | UploadState::Held) => "wait",
        Some(UploadState::Infected | UploadState::Rejected | UploadState::Incomplete) => "bad",
        Some(UploadState::Deleted) | None => "none",
    }
}

/// A date as its readers write it; a time of day stays in the zone in which it was announced.
pub fn day(due: &str, language: Language) -> String {
    let (date, rest) = due.split_at_checked(10).unwrap_or((due, ""));
    let parts: Vec<&str> = date.split('-').collect();
    let ([year, month, day], Some(_)) = (parts.as_slice(), time::parse(due)) else {
        return due.to_owned();
    };
    let clock = rest.get(1..6);
    match (language, clock) {
        (Language::De, None) => format!("{day}.{month}.{year}"),
        (Language::De, Some(clock)) => format!("{day}.{month}.{year}, {clock} Uhr"),
        (Language::En, None) => date.to_owned(),
        (Language::En, Some(clock)) => format!("{date} {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_stand_as_their_readers_write_them() {
        let check = |due: &str, german: &str, english: &str| {
            assert_eq!(day(due, Language::De), german);
            assert_eq!(day(due, Language::En), english);
        };
        check("2026-12-24", "24.12.2026", "2026-12-24");
        check("2026-12-24T12:30:00+01:00", "24.12.2026, 12:30 Uhr", "2026-12-24 12:30");
        check("bald", "bald", "bald");
        check("", "", "");
    }
}
