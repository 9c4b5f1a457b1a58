//! Orders, the switches of client.ini, and the mails that follow.

use serde_json::{Value, json};

use super::instance::{Instance, Setup};

pub(crate) fn ini(port: u16, create: u8, send: u8, reminder: u8) -> String {
    format!(
        "SMTP-Server = 127.0.0.1 ; unser Server\nPort = {port}\nEmail = portal@druckerei.example\n\
         portal_create_uplogin_automatically = {create}; 0/1\n\
         portal_send_uplogin_email_automatically = {send}\n\
         portal_reminder_email_automatically = {reminder}\n"
    )
}

/// An instance whose client.ini says so; PTworkflow's file may change while the server runs.
pub(crate) fn portal(name: &str, port: u16, switches: (u8, u8, u8)) -> Instance {
    let portal = Setup::new().without_scanner().start(name);
    set_ini(&portal, port, switches);
    portal
}

pub(crate) fn set_ini(portal: &Instance, port: u16, (create, send, reminder): (u8, u8, u8)) {
    std::fs::write(portal.file("client.ini"), ini(port, create, send, reminder)).unwrap();
}

pub(crate) fn order(client: &str, project: &str, tickets: &[&str]) -> Value {
    let tickets: Vec<Value> = tickets
        .iter()
        .map(|no| json!({"ticket_no": no, "job_description": format!("Teil {no}"), "due_date": "2026-12-20"}))
        .collect();
    json!({
        "client": {"client_no": client, "name": "Müller & Söhne", "email": "firma@kunde.example", "create_hotfolder": true},
        "project": {"project_no": project, "job_description": "Plakate", "due_date": "2026-12-24"},
        "tickets": tickets,
    })
}

pub(crate) fn mails_of(portal: &Instance, client: &str) -> Vec<Value> {
    let all = portal.cli(&["mail", "list"]);
    let mut mails: Vec<Value> =
        all.as_array().unwrap().iter().filter(|m| m["client_no"] == client).cloned().collect();
    mails.reverse();
    mails
}

pub(crate) fn states(mails: &[Value]) -> Vec<(&str, &str)> {
    mails.iter().map(|m| (m["template"].as_str().unwrap(), m["state"].as_str().unwrap())).collect()
}
