//! `client`, `contact`, `account`, `project`, `ticket`, `default`: the things that are announced.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::Context;
use super::args::{
    AccountCommand, ClientCommand, ClientOptions, ContactCommand, DefaultCommand, JobOptions,
    KeyCommand, ProjectCommand, TicketCommand, TokenCommand,
};
use crate::app::clients::ClientChange;
use crate::app::orders::JobChange;
use crate::app::tokens::Scope;
use crate::app::{account_import, views};
use crate::domain::account::Status;
use crate::store::orders::ProjectRow;
use crate::store::{accounts, clients, orders, tokens};

impl From<ClientOptions> for ClientChange {
    fn from(options: ClientOptions) -> Self {
        Self {
            name: options.name,
            email: options.email,
            create_hotfolder: options.create_hotfolder,
            delete_in_days: options.delete_in_days,
            language: options.language,
        }
    }
}

impl From<JobOptions> for JobChange {
    fn from(options: JobOptions) -> Self {
        Self { description: options.description, due: options.due, contact: None }
    }
}

pub(super) async fn client(context: &Context, command: ClientCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        ClientCommand::Add { client_no, options } => {
            if options.name.is_none() {
                anyhow::bail!("client add needs --name; give the company's name");
            }
            context
                .printer
                .one(&views::client(&app.add_client(&client_no, &options.into()).await?));
            context.wake().await;
        }
        ClientCommand::List => {
            let rows: Vec<Value> =
                clients::clients(app.store.db()).await?.iter().map(views::client).collect();
            context
                .printer
                .list(&rows, &["client_no", "name", "email", "create_hotfolder", "language"]);
        }
        ClientCommand::Show { client_no } => {
            context.printer.one(&views::client(&app.client(&client_no).await?));
        }
        ClientCommand::Set { client_no, options } => {
            context
                .printer
                .one(&views::client(&app.set_client(&client_no, &options.into()).await?));
            context.wake().await;
        }
        ClientCommand::Remove { client_no } => {
            app.remove_client(&client_no).await?;
            context.printer.one(&json!({"client_no": client_no, "removed": true}));
            context.wake().await;
        }
    }
    Ok(())
}

pub(super) async fn contact(context: &Context, command: ContactCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        ContactCommand::Add { client_no, name, email, favourite } => {
            let row = app.add_contact(&client_no, (&name, &email), favourite).await?;
            context.printer.one(&views::contact(&row));
        }
        ContactCommand::List { client_no } => {
            app.client(&client_no).await?;
            let rows = clients::contacts(app.store.db(), &client_no).await?;
            let rows: Vec<Value> = rows.iter().map(views::contact).collect();
            context.printer.list(&rows, &["id", "name", "email", "favourite"]);
        }
        ContactCommand::Remove { id } => {
            app.remove_contact(&id).await?;
            context.printer.one(&json!({"id": id, "removed": true}));
        }
    }
    Ok(())
}

pub(super) async fn account(context: &Context, command: AccountCommand) -> anyhow::Result<()> {
    if let AccountCommand::Key(command) = command {
        return key(context, command).await;
    }
    let app = context.open().await?;
    let some = |settings: Vec<(String, String)>| -> Vec<(String, Option<String>)> {
        settings.into_iter().map(|(key, value)| (key, Some(value))).collect()
    };
    let row = match command {
        AccountCommand::Create { client_no, username, inactive, settings } => {
            let status = if inactive { Status::Inactive } else { Status::Active };
            app.create_account(&client_no, (username.as_deref(), status), &settings).await?
        }
        AccountCommand::List => {
            let rows = accounts::accounts(app.store.db()).await?;
            let rows: Vec<Value> = rows.iter().map(views::account).collect();
            let columns = ["username", "client_no", "status", "activated", "last_login"];
            context.printer.list(&rows, &columns);
            return Ok(());
        }
        AccountCommand::Show { username } => {
            context.printer.one(&views::account(&app.account(&username).await?));
            return Ok(());
        }
        AccountCommand::Link { username, send: true } => {
            context.printer.one(&views::mail(&app.mail_link(&username).await?));
            context.wake().await;
            return Ok(());
        }
        AccountCommand::Link { username, send: false } => {
            let link = app.make_link(&username).await?;
            context.printer.one(&json!({"username": username, "link": link}));
            return Ok(());
        }
        AccountCommand::Import { file } => {
            let rows = app.import_accounts(&account_import::read(&text_of(&file)?)?).await?;
            let rows: Vec<Value> = rows.iter().map(views::account).collect();
            context.printer.list(&rows, &["username", "client_no", "status", "activated"]);
            context.wake().await;
            return Ok(());
        }
        AccountCommand::Remove { username } => {
            app.remove_account(&username).await?;
            context.printer.one(&json!({"username": username, "removed": true}));
            context.wake().await;
            return Ok(());
        }
        AccountCommand::Enable { username } => {
            app.set_account_status(&username, Status::Active).await?
        }
        AccountCommand::Disable { username } => {
            app.set_account_status(&username, Status::Inactive).await?
        }
        AccountCommand::Set { username, settings } => {
            app.set_account(&username, &some(settings)).await?
        }
        AccountCommand::Unset { username, keys } => {
            let changes: Vec<_> = keys.into_iter().map(|key| (key, None)).collect();
            app.set_account(&username, &changes).await?
        }
        AccountCommand::Password { username, .. } => {
            let password = line_from_stdin()?;
            app.set_account_password(&username, &password).await?
        }
        AccountCommand::Key(_) => return Ok(()),
    };
    context.printer.one(&views::account(&row));
    context.wake().await;
    Ok(())
}

/// A file, or with - standard input.
pub(super) fn text_of(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file)
            .map_err(|e| anyhow::anyhow!("cannot read {}: {e}", file.display()))?;
    }
    Ok(text)
}

/// One line; its end is not part of the password.
fn line_from_stdin() -> anyhow::Result<String> {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        anyhow::bail!("nothing came on standard input; pipe one line with the password");
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

async fn key(context: &Context, command: KeyCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        KeyCommand::Add { username, file } => {
            let text = text_of(&file)?;
            context.printer.one(&views::key(&app.add_key(&username, &text).await?));
            context.wake().await;
        }
        KeyCommand::List { username } => {
            let row = app.account(&username).await?;
            let rows = accounts::keys(app.store.db(), &row.username).await?;
            let rows: Vec<Value> = rows.iter().map(views::key).collect();
            context.printer.list(&rows, &["fingerprint", "comment", "created"]);
        }
        KeyCommand::Remove { username, fingerprint } => {
            app.remove_key(&username, &fingerprint).await?;
            context
                .printer
                .one(&json!({"username": username, "fingerprint": fingerprint, "removed": true}));
            context.wake().await;
        }
    }
    Ok(())
}

pub(super) async fn project(context: &Context, command: ProjectCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    let row: ProjectRow = match command {
        ProjectCommand::Add { client_no, project_no, options, contact } => {
            let change = JobChange { contact, ..options.into() };
            let announced = app.add_project((&client_no, &project_no), &change).await?;
            let mut shown = views::project(&announced.project, announced.decision.access);
            let whole = views::announced(&announced, &app.folders_of(&announced).await?);
            if let (Some(map), Some(whole)) = (shown.as_object_mut(), whole.as_object()) {
                for key in ["folders", "decision"] {
                    map.insert(key.to_owned(), whole.get(key).cloned().unwrap_or_default());
                }
            }
            context.printer.one(&shown);
            context.wake().await;
            return Ok(());
        }
        ProjectCommand::List => {
            let mut rows = Vec::new();
            for row in orders::projects(app.store.db()).await? {
                rows.push(views::project(&row, app.access_of(&row.client_no).await?));
            }
            let columns =
                ["project_no", "client_no", "state", "access", "due_date", "job_description"];
            context.printer.list(&rows, &columns);
            return Ok(());
        }
        ProjectCommand::Show { project_no } => {
            let row = app.project(&project_no).await?;
            let access = app.access_of(&row.client_no).await?;
            let tickets = orders::tickets(app.store.db(), &project_no).await?;
            context.printer.one(&views::project_with_tickets(&row, access, &tickets));
            return Ok(());
        }
        ProjectCommand::Close { project_no } => app.close_project(&project_no).await?,
    };
    context.printer.one(&views::project(&row, app.access_of(&row.client_no).await?));
    context.wake().await;
    Ok(())
}

pub(super) async fn ticket(context: &Context, command: TicketCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        TicketCommand::Add { project_no, ticket_no, options } => {
            let row = app.add_ticket((&project_no, &ticket_no), &options.into()).await?;
            context.printer.one(&views::ticket(&row));
            context.wake().await;
        }
        TicketCommand::List { project_no } => {
            app.project(&project_no).await?;
            let rows = orders::tickets(app.store.db(), &project_no).await?;
            let rows: Vec<Value> = rows.iter().map(views::ticket).collect();
            context.printer.list(&rows, &["ticket_no", "due_date", "job_description"]);
        }
        TicketCommand::Remove { project_no, ticket_no } => {
            app.remove_ticket(&project_no, &ticket_no).await?;
            context
                .printer
                .one(&json!({"project_no": project_no, "ticket_no": ticket_no, "removed": true}));
        }
    }
    Ok(())
}

pub(super) async fn default(context: &Context, command: DefaultCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    let shown = async |name: &str| -> anyhow::Result<Value> {
        let Some(text) = accounts::system_default(app.store.db(), name).await? else {
            anyhow::bail!("there is no system default {name}; `default list` shows all");
        };
        let settings: Value = serde_json::from_str(&text)?;
        Ok(json!({"name": name, "settings": settings}))
    };
    match command {
        DefaultCommand::List => {
            let rows = vec![shown("ptportal").await?, shown("clients").await?];
            context.printer.list(&rows, &["name", "settings"]);
        }
        DefaultCommand::Show { name } => context.printer.one(&shown(&name).await?),
        DefaultCommand::Set { name, settings } => {
            let change =
                |(key, value): (String, String)| (key, (!value.is_empty()).then_some(value));
            let changes: Vec<_> = settings.into_iter().map(change).collect();
            match name.as_str() {
                "ptportal" => drop(app.set_default(&changes).await?),
                "clients" => app.set_client_defaults(&changes).await?,
                _ => anyhow::bail!("there is no system default {name}; `default list` shows all"),
            }
            context.printer.one(&shown(&name).await?);
            context.wake().await;
        }
    }
    Ok(())
}

pub(super) async fn token(context: &Context, command: TokenCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        TokenCommand::Create { name, scope } => {
            let Some(known) = Scope::parse(&scope) else {
                anyhow::bail!("{scope:?} is not a scope; write orders, pull or admin");
            };
            let (row, value) = app.create_token(&name, known).await?;
            let mut shown = views::token(&row);
            if let Some(map) = shown.as_object_mut() {
                map.insert("token".to_owned(), Value::from(value.as_str()));
            }
            context.printer.one(&shown);
        }
        TokenCommand::List => {
            let rows = tokens::tokens(app.store.db()).await?;
            let rows: Vec<Value> = rows.iter().map(views::token).collect();
            context.printer.list(&rows, &["name", "scope", "last_used", "created"]);
        }
        TokenCommand::Revoke { name } => {
            app.revoke_token(&name).await?;
            context.printer.one(&json!({"name": name, "revoked": true}));
        }
    }
    Ok(())
}
