//! Rows as the outside sees them: the column names of spec section 5, times RFC 3339, sizes in bytes, flags
//! true/false. The same objects for `--json`, and later for API and hooks.

use serde_json::{Value, json};

use super::announce::Announced;
use crate::domain::order::Access;
use crate::domain::time::Timestamp;
use crate::store::accounts::{AccountRow, KeyRow};
use crate::store::activation::LinkRow;
use crate::store::clients::{ClientRow, ContactRow};
use crate::store::deliveries::DeliveryRow;
use crate::store::events::EventRow;
use crate::store::guard::BanRow;
use crate::store::hook_runs::HookRunRow;
use crate::store::mails::MailRow;
use crate::store::orders::{ProjectRow, TicketRow};
use crate::store::published::{HoldRow, PublishedRow};
use crate::store::templates::{SignatureRow, TemplateRow, UserRow};
use crate::store::tokens::TokenRow;
use crate::store::unsigned;
use crate::store::uploads::UploadRow;

fn time(value: i64) -> Value {
    Timestamp(value).rfc3339().map_or(Value::Null, Value::from)
}

/// Absent texts are null, so that a script need not know our "empty".
fn text(value: &str) -> Value {
    if value.is_empty() { Value::Null } else { Value::from(value) }
}

fn object(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|_| json!({}))
}

#[must_use]
pub fn client(row: &ClientRow) -> Value {
    json!({
        "id": row.id, "client_no": row.client_no, "name": row.name, "email": text(&row.email),
        "create_hotfolder": row.create_hotfolder != 0,
        "hotfolder_delete_in_days": row.hotfolder_delete_in_days,
        "language": row.language, "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn contact(row: &ContactRow) -> Value {
    json!({
        "id": row.id, "client_no": row.client_no, "name": row.name, "email": row.email,
        "favourite": row.favourite != 0, "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn account(row: &AccountRow) -> Value {
    json!({
        "id": row.id, "client_no": row.client_no, "username": row.username, "status": row.status,
        "password_set": !row.password_hash.is_empty(), "activated": row.is_activated(),
        "checked": row.checked != 0, "activation_time": time(row.activation_time),
        "first_login": time(row.first_login), "last_login": time(row.last_login),
        "settings": object(&row.settings), "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn key(row: &KeyRow) -> Value {
    json!({
        "username": row.username, "fingerprint": row.fingerprint, "public_key": row.public_key,
        "comment": text(&row.comment), "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn project(row: &ProjectRow, access: Access) -> Value {
    json!({
        "id": row.id, "project_no": row.project_no, "client_no": row.client_no,
        "job_description": text(&row.job_description), "due_date": text(&row.due_date),
        "contact": text(&row.contact), "state": row.state, "access": access.as_str(),
        "folder": if access == Access::Ok { Value::from(row.folder.as_str()) } else { Value::Null },
        "created": time(row.created), "updated": time(row.updated),
    })
}

/// A project and its tickets.
#[must_use]
pub fn project_with_tickets(row: &ProjectRow, access: Access, tickets: &[TicketRow]) -> Value {
    let mut shown = project(row, access);
    if let Some(map) = shown.as_object_mut() {
        map.insert("tickets".to_owned(), tickets.iter().map(ticket).collect());
    }
    shown
}

#[must_use]
pub fn ticket(row: &TicketRow) -> Value {
    json!({
        "id": row.id, "ticket_no": row.ticket_no, "project_no": row.project_no,
        "job_description": text(&row.job_description), "due_date": text(&row.due_date),
        "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn upload(row: &UploadRow) -> Value {
    let declared = u64::try_from(row.declared_size).ok();
    json!({
        "id": row.id, "client_no": row.client_no, "username": row.username, "project_no": row.project_no,
        "ticket_no": text(&row.ticket_no), "path": row.path, "version": row.version, "state": row.state,
        "size": unsigned(row.size), "sha256": text(&row.sha256), "declared_size": declared,
        "verdict": text(&row.verdict), "signature": text(&row.signature), "reason": text(&row.reason),
        "scanner": text(&row.scanner), "waived_by": text(&row.waived_by), "repeat_of": text(&row.repeat_of),
        "protocol": row.protocol, "peer": row.peer, "scan_attempts": row.scan_attempts,
        "started": time(row.started), "completed": time(row.completed), "released": time(row.released),
        "delivered": time(row.delivered), "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn delivery(row: &DeliveryRow) -> Value {
    json!({
        "id": row.id, "upload_id": row.upload_id, "consumer": row.consumer, "target": row.target,
        "state": row.state, "attempts": row.attempts, "next_try": time(row.next_try),
        "last_error": text(&row.last_error), "placed_name": text(&row.placed_name), "taken": time(row.taken),
        "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn event(row: &EventRow) -> Value {
    json!({
        "seq": row.seq, "kind": row.kind, "time": time(row.time), "client_no": text(&row.client_no),
        "username": text(&row.username), "project_no": text(&row.project_no),
        "upload_id": text(&row.upload_id), "path": text(&row.path), "peer": text(&row.peer),
        "detail": object(&row.detail),
    })
}

/// The words of an event's details that say most to a reader, the weightiest first.
#[must_use]
pub fn event_words(row: &EventRow) -> Vec<String> {
    const TELLING: [&str; 7] =
        ["signature", "reason", "text", "recipient", "placed_name", "protocol", "method"];
    let detail = object(&row.detail);
    let words = TELLING.iter().filter_map(|name| detail.get(*name)?.as_str());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[must_use]
pub fn ban(row: &BanRow) -> Value {
    json!({
        "address": row.address, "until": time(row.until), "reason": row.reason, "created": time(row.created),
    })
}

#[must_use]
pub fn link(row: &LinkRow) -> Value {
    json!({
        "id": row.id, "username": row.username, "checked": row.checked != 0, "sent": time(row.sent),
        "expires": time(row.expires), "used": time(row.used), "created": time(row.created),
        "updated": time(row.updated),
    })
}

#[must_use]
pub fn mail(row: &MailRow) -> Value {
    json!({
        "id": row.id, "template": row.template, "client_no": row.client_no,
        "project_no": text(&row.project_no), "ticket_no": text(&row.ticket_no),
        "username": text(&row.username), "sender": text(&row.sender), "recipient": text(&row.recipient),
        "copy": text(&row.copy), "subject": text(&row.subject), "state": row.state,
        "reason": text(&row.reason), "attempts": row.attempts,
        "next_try": if row.state == "queued" { time(row.next_try) } else { Value::Null },
        "sent": time(row.sent), "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn template(row: &TemplateRow) -> Value {
    json!({
        "id": row.id, "name": row.name, "subject": row.subject, "content": row.content,
        "user": text(&row.owner), "status": row.status, "created": time(row.created),
        "updated": time(row.updated),
    })
}

#[must_use]
pub fn signature(row: &SignatureRow) -> Value {
    json!({
        "id": row.id, "name": row.name, "head_html": row.head_html, "foot_html": row.foot_html,
        "head_text": row.head_text, "foot_text": row.foot_text, "status": row.status,
        "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn user(row: &UserRow) -> Value {
    json!({
        "id": row.id, "name": row.name, "email": row.email, "created": time(row.created),
        "updated": time(row.updated),
    })
}

#[must_use]
pub fn token(row: &TokenRow) -> Value {
    json!({
        "id": row.id, "name": row.name, "scope": row.scope, "last_used": time(row.last_used),
        "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn hook_run(row: &HookRunRow) -> Value {
    json!({
        "id": row.id, "event_seq": row.event_seq, "event": row.event, "consumer": row.consumer,
        "target": row.target, "upload_id": text(&row.upload_id), "state": row.state, "attempts": row.attempts,
        "next_try": if row.state == "pending" { time(row.next_try) } else { Value::Null },
        "last_error": text(&row.last_error), "output": text(&row.output), "ms": row.ms,
        "payload": object(&row.payload), "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn publish_hold(row: &HoldRow) -> Value {
    json!({
        "project_no": row.project_no, "folder": row.folder, "missing": row.missing, "total": row.total,
        "confirmed": row.confirmed != 0, "created": time(row.created), "updated": time(row.updated),
    })
}

#[must_use]
pub fn published_file(folder: &str, row: &PublishedRow) -> Value {
    json!({
        "folder": folder, "path": row.path, "size": unsigned(row.size), "mtime": time(row.mtime),
        "upload_id": row.upload_id, "state": row.upload_state,
    })
}

/// The answer of the order API to an announcement.
#[must_use]
pub fn announced(announced: &Announced, folders: &[String]) -> Value {
    let decision = &announced.decision;
    let shown = project_with_tickets(&announced.project, decision.access, &announced.tickets);
    let mails: Vec<Value> = announced
        .mails
        .iter()
        .map(|row| json!({"id": row.id, "template": row.template, "state": row.state, "reason": text(&row.reason)}))
        .collect();
    json!({
        "project": shown, "folders": folders, "account": announced.account.as_ref().map(account),
        "decision": {
            "access": decision.access.as_str(), "reason": decision.reason,
            "account_created": decision.creates_account, "mails": mails,
        },
        "created": announced.is_created,
    })
}
