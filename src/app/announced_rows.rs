//! The rows of an announcement: client, contact, project and tickets, made or changed inside its transaction.

use super::App;
use super::announce::UnknownClient;
use super::clients::{Refused, because, conflict, missing};
use super::work::Work;
use crate::domain::announcement::{ClientPart, ProjectPart, TicketPart};
use crate::domain::client_defaults::{ClientDefaults, OnExisting};
use crate::domain::event::{Event, EventKind};
use crate::domain::hotname::portal_folder_name;
use crate::domain::order::ProjectState;
use crate::domain::time::Timestamp;
use crate::store::clients::{self, ClientRow, ContactRow};
use crate::store::orders::{self, ProjectRow, TicketRow};
use crate::store::{self, WriteTx, accounts};

/// The system default `clients`.
pub(super) async fn defaults(work: &mut Work<'_>) -> Result<ClientDefaults, Refused> {
    let text = accounts::system_default(work.tx.db(), "clients").await?.unwrap_or_default();
    ClientDefaults::from_json(&text)
        .map_err(|e| Refused::Because(format!("system default clients: {e}; set it anew")))
}

/// The client's row, made or changed as the system default allows; true when it is new.
pub(super) async fn client(
    work: &mut Work<'_>,
    part: &ClientPart,
    unknown: UnknownClient,
) -> Result<(ClientRow, bool), Refused> {
    let defaults = defaults(work).await?;
    let Some(mut row) = clients::client(work.tx.db(), &part.client_no).await? else {
        if unknown == UnknownClient::Refuse {
            let no = &part.client_no;
            return missing(format!("there is no client {no}; `client list` shows all"));
        }
        let row = new_client(work.app, part, &defaults, work.now);
        insert_client(work, &row).await?;
        return Ok((row, true));
    };
    if apply(part, &mut row, defaults.on_existing.unwrap_or_default()) {
        update_client(work, &row).await?;
    }
    Ok((row, false))
}

/// A number that was removed may be used anew.
pub(super) async fn insert_client(work: &mut Work<'_>, row: &ClientRow) -> store::Result<()> {
    clients::revive_client(work.tx.db(), &row.client_no).await?;
    clients::insert_client(work.tx.db(), row).await?;
    work.note(Event::new(EventKind::ClientCreated).client(&row.client_no));
    work.changed("client", &row.client_no);
    Ok(())
}

pub(super) async fn update_client(work: &mut Work<'_>, row: &ClientRow) -> store::Result<()> {
    clients::update_client(work.tx.db(), row, work.now).await?;
    work.note(Event::new(EventKind::ClientChanged).client(&row.client_no));
    work.changed("client", &row.client_no);
    Ok(())
}

/// A client as announced, the rest from the system default.
pub(super) fn new_client(
    app: &App,
    part: &ClientPart,
    defaults: &ClientDefaults,
    now: Timestamp,
) -> ClientRow {
    let create = part.create_hotfolder.or(defaults.create_hotfolder).unwrap_or(false);
    let days = part.hotfolder_delete_in_days.or(defaults.hotfolder_delete_in_days).unwrap_or(0);
    let language = part.language.or(defaults.language).unwrap_or(app.config.language);
    ClientRow {
        id: app.new_id().to_string(),
        client_no: part.client_no.clone(),
        name: part.name.clone().unwrap_or_else(|| part.client_no.clone()),
        email: part.email.clone().unwrap_or_default(),
        create_hotfolder: store::flag(create),
        hotfolder_delete_in_days: i64::from(days),
        language: language.to_string(),
        created: now.0,
        updated: now.0,
    }
}

/// What an announcement changes at a client that is there; true when something is new. Only texts can be empty: a flag
/// or a number says something in any case.
fn apply(part: &ClientPart, row: &mut ClientRow, policy: OnExisting) -> bool {
    let before = row.clone();
    let overwrites = policy == OnExisting::Overwrite;
    let fills = |is_empty: bool| overwrites || (policy == OnExisting::Fill && is_empty);
    if let Some(name) = &part.name
        // A client that was announced without a name has its number there.
        && fills(row.name.is_empty() || row.name == row.client_no)
    {
        row.name.clone_from(name);
    }
    if let Some(email) = &part.email
        && fills(row.email.is_empty())
    {
        row.email.clone_from(email);
    }
    if overwrites {
        if let Some(create) = part.create_hotfolder {
            row.create_hotfolder = store::flag(create);
        }
        if let Some(days) = part.hotfolder_delete_in_days {
            row.hotfolder_delete_in_days = i64::from(days);
        }
        if let Some(language) = part.language {
            row.language = language.to_string();
        }
    }
    before.name != row.name
        || before.email != row.email
        || before.create_hotfolder != row.create_hotfolder
        || before.hotfolder_delete_in_days != row.hotfolder_delete_in_days
        || before.language != row.language
}

/// The id of the contact that the project names; a contact that is not there yet is added.
pub(super) async fn contact(
    work: &mut Work<'_>,
    client: &ClientRow,
    project: &ProjectPart,
    given: Option<&str>,
) -> Result<Option<String>, Refused> {
    let known = clients::contacts(work.tx.db(), &client.client_no).await?;
    if let Some(id) = given {
        return match known.iter().find(|row| row.id == id) {
            Some(row) => Ok(Some(row.id.clone())),
            None => missing(format!(
                "client {} has no contact {id}; `contact list {}` shows all",
                client.client_no, client.client_no
            )),
        };
    }
    let Some(part) = &project.contact else { return Ok(None) };
    if let Some(row) = known.iter().find(|row| row.email.eq_ignore_ascii_case(&part.email)) {
        return Ok(Some(row.id.clone()));
    }
    let row = ContactRow {
        id: work.app.new_id().to_string(),
        client_no: client.client_no.clone(),
        name: part.name.clone(),
        email: part.email.clone(),
        favourite: 0,
        created: work.now.0,
        updated: work.now.0,
    };
    clients::insert_contact(work.tx.db(), &row).await?;
    Ok(Some(row.id))
}

pub(super) async fn new_project(
    work: &mut Work<'_>,
    client: &ClientRow,
    part: &ProjectPart,
    contact: Option<String>,
) -> Result<ProjectRow, Refused> {
    let text = work.app.folder_text(&part.project_no);
    let folder = free_folder(&mut work.tx, &client.client_no, &text).await?;
    let row = ProjectRow {
        id: work.app.new_id().to_string(),
        project_no: part.project_no.clone(),
        client_no: client.client_no.clone(),
        job_description: part.job_description.clone().unwrap_or_default(),
        due_date: part.due_date.clone().unwrap_or_default(),
        contact: contact.unwrap_or_default(),
        state: ProjectState::Open.as_str().to_owned(),
        published: 0,
        folder,
        created: work.now.0,
        updated: work.now.0,
    };
    orders::insert_project(work.tx.db(), &row).await?;
    let event = Event::new(EventKind::ProjectCreated)
        .client(&row.client_no)
        .project(&row.project_no)
        .path(&row.folder);
    work.note(event);
    work.changed("project", &row.project_no);
    Ok(row)
}

/// A folder name that no other project of the client has or had.
async fn free_folder(tx: &mut WriteTx, client_no: &str, text: &str) -> Result<String, Refused> {
    let base = portal_folder_name(text);
    for n in 1u32..1000 {
        let name = if n == 1 { base.clone() } else { format!("{base} ({n})") };
        if !orders::folder_exists(tx.db(), client_no, &name).await? {
            return Ok(name);
        }
    }
    because(format!("no free folder name like {base}"))
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

/// The row as announced now; true when something is different.
pub(super) fn change_project(
    mut row: ProjectRow,
    client: &ClientRow,
    part: &ProjectPart,
    contact: Option<String>,
) -> Result<(ProjectRow, bool), Refused> {
    if row.client_no != client.client_no {
        return conflict(format!("project {} belongs to another client", row.project_no));
    }
    let changes = [
        update(&mut row.job_description, part.job_description.as_ref()),
        update(&mut row.due_date, part.due_date.as_ref()),
        update(&mut row.contact, contact.as_ref()),
    ];
    Ok((row, changes.contains(&true)))
}

/// The tickets of an announcement.
#[derive(Default)]
pub(super) struct Announced {
    /// All of them, as they stand now.
    pub(super) rows: Vec<TicketRow>,
    pub(super) new: Vec<TicketRow>,
    /// One that was there has changed.
    pub(super) is_changed: bool,
}

/// Makes and changes tickets.
pub(super) async fn tickets(
    work: &mut Work<'_>,
    project: &ProjectRow,
    parts: &[TicketPart],
) -> Result<Announced, Refused> {
    let known = orders::tickets(work.tx.db(), &project.project_no).await?;
    let mut told = Announced::default();
    // In one order for everybody: two announcements at once must not wait for each other.
    let mut parts: Vec<&TicketPart> = parts.iter().collect();
    parts.sort_by(|a, b| a.ticket_no.cmp(&b.ticket_no));
    for part in parts {
        if let Some(row) = known.iter().find(|row| row.ticket_no == part.ticket_no) {
            let mut row = row.clone();
            let changes = [
                update(&mut row.job_description, part.job_description.as_ref()),
                update(&mut row.due_date, part.due_date.as_ref()),
            ];
            if changes.contains(&true) {
                orders::update_ticket(work.tx.db(), &row, work.now).await?;
                told.is_changed = true;
            }
            told.rows.push(row);
            continue;
        }
        let row = TicketRow {
            id: work.app.new_id().to_string(),
            ticket_no: part.ticket_no.clone(),
            project_no: project.project_no.clone(),
            job_description: part.job_description.clone().unwrap_or_default(),
            due_date: part.due_date.clone().unwrap_or_default(),
            created: work.now.0,
            updated: work.now.0,
        };
        orders::insert_ticket(work.tx.db(), &row).await?;
        let event = Event::new(EventKind::TicketCreated)
            .client(&project.client_no)
            .project(&project.project_no)
            .with("ticket", row.ticket_no.clone());
        work.note(event);
        work.changed("project", &project.project_no);
        told.new.push(row.clone());
        told.rows.push(row);
    }
    Ok(told)
}
