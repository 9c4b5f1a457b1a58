//! `mail`, `template`, `signature`, `user`: what customers read, and who sends it.

use std::path::PathBuf;

use serde_json::Value;

use super::Context;
use super::mail_args::{MailCommand, MailTarget, SignatureCommand, TemplateCommand, UserCommand};
use super::print::out;
use super::registry::text_of;
use crate::app::templates::TemplateChange;
use crate::app::views;
use crate::store::templates::SignatureRow;
use crate::store::{mails, templates};
use crate::template::mail::Rendered;

/// Mails listed at most.
const LISTED: i64 = 10_000;

fn client_of(target: &MailTarget) -> anyhow::Result<(&str, &str)> {
    match (&target.template, &target.client) {
        (Some(template), Some(client)) => Ok((template, client)),
        (Some(_), None) => anyhow::bail!("--template needs --client NO: whom the mail is for"),
        (None, _) => anyhow::bail!("name a template with --template NAME"),
    }
}

/// The row with the texts of the mail.
fn with_text(mut row: Value, rendered: Option<&Rendered>) -> Value {
    if let (Some(map), Some(rendered)) = (row.as_object_mut(), rendered) {
        map.insert("subject".to_owned(), rendered.subject.clone().into());
        map.insert("text".to_owned(), rendered.text.clone().into());
        map.insert("html".to_owned(), rendered.html.clone().into());
    }
    row
}

pub(super) async fn mail(context: &Context, command: MailCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        MailCommand::List => {
            let rows = mails::list(app.store.db(), LISTED).await?;
            let rows: Vec<Value> = rows.iter().map(views::mail).collect();
            let columns = ["id", "state", "template", "recipient", "subject", "sent", "reason"];
            context.printer.list(&rows, &columns);
        }
        MailCommand::Show { id } => {
            let row = app.mail(&id).await?;
            let rendered = app.preview(&row).await.ok();
            show(context, views::mail(&row), rendered.as_ref());
        }
        MailCommand::Send { id: Some(id), .. } => {
            context.printer.one(&views::mail(&app.send_mail(&id).await?));
            context.wake().await;
        }
        MailCommand::Send { id: None, target, user } => {
            let (template, client) = client_of(&target)?;
            let about = (client, target.project.as_deref());
            let row = app.write_mail(template, about, user.as_deref()).await?;
            context.printer.one(&views::mail(&row));
            context.wake().await;
        }
        MailCommand::Preview { target } => {
            let (template, client) = client_of(&target)?;
            let row = app.unsent_mail(template, (client, target.project.as_deref())).await?;
            let rendered = app.preview(&row).await?;
            show(context, views::mail(&row), Some(&rendered));
        }
    }
    Ok(())
}

/// For people the text stands below the columns, as it will be read.
fn show(context: &Context, row: Value, rendered: Option<&Rendered>) {
    if context.printer.is_json() {
        context.printer.one(&with_text(row, rendered));
        return;
    }
    context.printer.one(&row);
    if let Some(rendered) = rendered {
        out(&format!("\nSubject: {}\n\n{}", rendered.subject, rendered.text));
    }
}

pub(super) async fn template(context: &Context, command: TemplateCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        TemplateCommand::List => {
            let rows = templates::templates(app.store.db()).await?;
            let rows: Vec<Value> = rows.iter().map(views::template).collect();
            context.printer.list(&rows, &["name", "status", "user", "subject"]);
        }
        TemplateCommand::Show { name } => {
            let row = app.template(&name).await?;
            if context.printer.is_json() {
                context.printer.one(&views::template(&row));
            } else {
                out(&format!("Subject: {}\n\n{}", row.subject, row.content.trim_end()));
            }
        }
        TemplateCommand::Set { name, subject, content_file, user, inactive, active } => {
            let content = content_file.map(|file| text_of(&file)).transpose()?;
            let is_active = (inactive || active).then_some(active);
            let change = TemplateChange { subject, content, user, is_active };
            context.printer.one(&views::template(&app.set_template(&name, change).await?));
        }
    }
    Ok(())
}

pub(super) async fn signature(context: &Context, command: SignatureCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        SignatureCommand::List => {
            let rows = templates::signatures(app.store.db()).await?;
            let rows: Vec<Value> = rows.iter().map(views::signature).collect();
            context.printer.list(&rows, &["name", "status", "foot_text"]);
        }
        SignatureCommand::Show { name } => {
            context.printer.one(&views::signature(&app.signature(&name).await?));
        }
        SignatureCommand::Set { name, head_html, foot_html, head_text, foot_text, inactive } => {
            let part = |file: Option<PathBuf>| match file {
                Some(file) => text_of(&file),
                None => Ok(String::new()),
            };
            let row = SignatureRow {
                name,
                head_html: part(head_html)?,
                foot_html: part(foot_html)?,
                head_text: part(head_text)?,
                foot_text: part(foot_text)?,
                status: if inactive { "inactive" } else { "active" }.to_owned(),
                ..SignatureRow::default()
            };
            context.printer.one(&views::signature(&app.set_signature(row).await?));
        }
    }
    Ok(())
}

pub(super) async fn user(context: &Context, command: UserCommand) -> anyhow::Result<()> {
    let app = context.open().await?;
    match command {
        UserCommand::Add { name, email } => {
            context.printer.one(&views::user(&app.put_user(&name, &email).await?));
        }
        UserCommand::List => {
            let rows = templates::users(app.store.db()).await?;
            let rows: Vec<Value> = rows.iter().map(views::user).collect();
            context.printer.list(&rows, &["name", "email"]);
        }
    }
    Ok(())
}
