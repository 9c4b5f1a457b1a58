//! The mail queue beside a server that misbehaves, templates, signatures and sending by hand.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::instance::{Instance, Setup};
use crate::support::smtp::Smtp;

fn portal(name: &str, smtp: &Smtp, more: &str) -> Instance {
    portal_with(Setup::new(), name, smtp, more)
}

fn portal_with(setup: Setup, name: &str, smtp: &Smtp, more: &str) -> Instance {
    let portal = setup.without_scanner().start(name);
    let ini = format!(
        "SMTP-Server=127.0.0.1\nPort={}\nEmail=portal@druckerei.example\n{more}\n",
        smtp.port
    );
    std::fs::write(portal.file("client.ini"), ini).unwrap();
    portal.cli(&["client", "set", "1001", "--email", "firma@kunde.example"]);
    portal
}

fn link_mail(portal: &Instance) -> String {
    portal.cli(&["account", "link", "acme", "--send"])["id"].as_str().unwrap().to_owned()
}

fn shown(portal: &Instance, id: &str) -> Value {
    portal.cli(&["mail", "show", id])
}

fn until(portal: &Instance, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || is(&shown(portal, id)));
    shown(portal, id)
}

#[test]
fn a_greylisted_mail_waits_and_goes_out_by_itself() {
    let mut smtp = Smtp::start("greylist");
    let portal = portal("greylist", &smtp, "");
    let id = link_mail(&portal);
    let mail = until(&portal, &id, "the first try", |mail| {
        mail["attempts"] == 1 && mail["reason"].is_string()
    });
    assert_eq!(mail["state"], "queued");
    assert!(mail["reason"].as_str().unwrap().contains("greylisted"), "{mail:#}");
    // The server goes away and comes back in the meantime.
    smtp.down();
    smtp.set_mode("ok");
    smtp.up();
    let mails = smtp.until_mails(1);
    let mail = until(&portal, &id, "it is sent", |mail| mail["state"] == "sent");
    assert_eq!((&mail["attempts"], &mail["reason"]), (&json!(2), &Value::Null));
    assert_eq!(crate::support::http::curl(&[&mails[0].link()]).status, 200);
    assert_eq!(portal.events("mail.sent").len(), 1);
}

#[test]
fn an_unknown_recipient_is_told_at_once_and_can_be_tried_again() {
    let smtp = Smtp::start("unknown");
    let portal = portal("unknown", &smtp, "");
    let id = link_mail(&portal);
    let mail = until(&portal, &id, "it fails", |mail| mail["state"] == "failed");
    assert!(mail["reason"].as_str().unwrap().contains("no such user"), "{mail:#}");
    assert_eq!(portal.events("mail.failed").len(), 1);
    smtp.set_mode("ok");
    portal.cli(&["client", "set", "1001", "--email", "neu@kunde.example"]);
    portal.cli(&["mail", "send", &id]);
    assert_eq!(smtp.until_mails(1).len(), 1);
}

#[test]
fn a_mail_may_come_twice_but_under_one_id() {
    let smtp = Smtp::start("drop");
    let portal = portal("drop", &smtp, "");
    let id = link_mail(&portal);
    smtp.until_mails(1);
    until(&portal, &id, "the broken try", |mail| mail["reason"].is_string());
    let first = smtp.mails()[0].link();
    assert_eq!(crate::support::http::curl(&[&first]).status, 200, "it may have arrived");
    smtp.set_mode("ok");
    portal.cli(&["mail", "send", &id]);
    let mails = smtp.until_mails(2);
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
    assert_eq!(crate::support::http::curl(&[&mails[1].link()]).status, 200);
}

#[test]
fn tls_that_cannot_be_trusted_is_never_followed_by_clear_text() {
    let seed = Setup::new().without_scanner().start("tls-seed");
    let smtp = Smtp::with_tls(seed.file("certs/server.crt"), seed.file("certs/server.key"));
    let portal = portal("tls", &smtp, "");
    let id = link_mail(&portal);
    let mail = until(&portal, &id, "the first try", |mail| mail["reason"].is_string());
    assert_eq!(mail["state"], "queued");
    assert!(mail["reason"].as_str().unwrap().to_lowercase().contains("cert"), "{mail:#}");
    assert!(!smtp.log().contains("RCPT"), "{}", smtp.log());
    let check = portal.try_cli(&["check"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("smtp"), "{check:?}");
}

#[test]
fn a_server_without_starttls_gets_nothing_where_it_is_demanded() {
    let smtp = Smtp::start("ok");
    let portal = portal("nostarttls", &smtp, "Verschlüsselung=starttls");
    let id = link_mail(&portal);
    let mail = until(&portal, &id, "the first try", |mail| mail["reason"].is_string());
    assert_eq!(mail["state"], "queued", "{mail:#}");
    assert!(!smtp.log().contains("RCPT"), "{}", smtp.log());
    // The operator allows it: it goes out.
    let ini = format!(
        "SMTP-Server=127.0.0.1\nPort={}\nEmail=portal@druckerei.example\nVerschlüsselung=none\n",
        smtp.port
    );
    std::fs::write(portal.file("client.ini"), ini).unwrap();
    portal.cli(&["mail", "send", &id]);
    assert_eq!(smtp.until_mails(1).len(), 1);
}

#[test]
fn a_server_that_hangs_holds_up_one_mail_and_the_next_try_is_planned() {
    let smtp = Smtp::start("hang");
    let setup = Setup::new().environment("PTPORTAL_TEST_MAIL_MS", "8000");
    let portal = portal_with(setup, "smtphang", &smtp, "");
    let id = link_mail(&portal);
    eventually("it hangs", || smtp.log().contains("RCPT"));
    // Meanwhile everything else goes on.
    portal.page("/", &[]).is(200);
    portal.sftp("ls\n").well();
    let mail = until(&portal, &id, "it is given up for now", |mail| mail["reason"].is_string());
    assert_eq!((mail["state"].as_str(), mail["attempts"].as_u64()), (Some("queued"), Some(1)));
    assert!(mail["next_try"].is_string(), "{mail:#}");
    smtp.set_mode("ok");
    portal.cli(&["mail", "send", &id]);
    smtp.until_mails(1);
}

#[test]
fn a_login_is_given_when_the_server_wants_one() {
    let smtp = Smtp::with_login("portal:geheim#1;x");
    let more = "Benutzername=portal\nPasswort=\"geheim#1;x\"\nVerschlüsselung=none";
    let portal = portal("smtp-login", &smtp, more);
    link_mail(&portal);
    smtp.until_mails(1);
    assert!(smtp.log().contains("AUTH True"), "{}", smtp.log());
    assert!(!portal.log().contains("geheim#1"));
}

#[test]
fn a_broken_template_is_refused_and_a_failing_one_keeps_the_mail() {
    let smtp = Smtp::start("ok");
    let portal = portal("templates", &smtp, "");
    let file = portal.file("content.html").display().to_string();
    let set = |content: &str| {
        std::fs::write(&file, content).unwrap();
        portal.try_cli(&[
            "template",
            "set",
            "Hotfolder Neues Passwort",
            "--subject",
            "Neu {{data_project[„portal_client_username“]}}",
            "--content-file",
            &file,
        ])
    };
    let refused = set("<p>\n\n{{ data_project[\"gibt es nicht\"] }}</p>");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("line 3"), "{refused:?}");
    // Without the link it would be useless, but it is well-formed: an error only shows with other values.
    let fails = "{% if data_project[„portal_client_username“] == „acme“ %}\n{{ nichts }}{% endif %}<p>x</p>";
    assert!(set(fails).status.success());
    let id = link_mail(&portal);
    let mail = until(&portal, &id, "it stays a draft", |mail| mail["state"] == "draft");
    let reason = mail["reason"].as_str().unwrap();
    assert!(reason.contains("line 2") && reason.contains("Hotfolder Neues Passwort"), "{reason}");
    assert!(
        set("<p>Hallo & <a href=\"{{data_project[“portal_activation_link“]}}\">hier</a></p>")
            .status
            .success()
    );
    portal.cli(&["mail", "send", &id]);
    let mails = smtp.until_mails(1);
    assert_eq!(mails[0].header("Subject"), "Neu acme");
    assert!(mails[0].text.contains("hier <http://localhost"), "{}", mails[0].text);
}

#[test]
fn a_mail_by_hand_comes_from_the_user_who_gets_a_copy() {
    let smtp = Smtp::start("ok");
    let portal = portal("by-hand", &smtp, "");
    portal.cli(&["user", "add", "Anna Acht", "--email", "anna@druckerei.example"]);
    portal.cli(&["template", "set", "Hotfolder Datenupload", "--user", "Anna Acht"]);
    for (name, text) in [("head", "Druckerei Acht"), ("foot", "Mit freundlichen Grüßen")] {
        std::fs::write(portal.file(&format!("{name}.html")), format!("<b>{text}</b>")).unwrap();
        std::fs::write(portal.file(&format!("{name}.txt")), text).unwrap();
    }
    let file = |name: &str| portal.file(name).display().to_string();
    portal.cli(&[
        "signature",
        "set",
        "PTmail",
        "--head-html",
        &file("head.html"),
        "--foot-html",
        &file("foot.html"),
        "--head-text",
        &file("head.txt"),
        "--foot-text",
        &file("foot.txt"),
    ]);
    let preview = portal.cli(&[
        "mail",
        "preview",
        "--template",
        "Hotfolder Datenupload",
        "--client",
        "1001",
        "--project",
        "2026-0815",
    ]);
    assert!(preview["text"].as_str().unwrap().contains("2026-0815"), "{preview:#}");
    let row = portal.cli(&[
        "mail",
        "send",
        "--template",
        "Hotfolder Datenupload",
        "--client",
        "1001",
        "--project",
        "2026-0815",
        "--as",
        "Anna Acht",
    ]);
    assert_eq!(
        (&row["sender"], &row["copy"]),
        (&json!("Anna Acht"), &json!("anna@druckerei.example"))
    );
    let mail = smtp.until_mails(1).pop().unwrap();
    assert_eq!(mail.header("From"), "Anna Acht <anna@druckerei.example>");
    assert_eq!(mail.header("Cc"), "Anna Acht <anna@druckerei.example>");
    assert!(smtp.log().contains("RCPT anna@druckerei.example"));
    assert!(
        mail.text.starts_with("Druckerei Acht\n")
            && mail.text.trim_end().ends_with("Mit freundlichen Grüßen"),
        "{}",
        mail.text
    );
    assert!(mail.html.contains("<b>Druckerei Acht</b>"));
    let unknown = portal.try_cli(&[
        "mail",
        "send",
        "--template",
        "Hotfolder Datenupload",
        "--client",
        "1001",
        "--as",
        "Niemand",
    ]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no user Niemand"));
}

#[test]
fn customers_who_read_english_get_english_mails() {
    let smtp = Smtp::start("ok");
    let portal = portal("english", &smtp, "");
    portal.cli(&["client", "set", "1001", "--language", "en"]);
    link_mail(&portal);
    let mail = smtp.until_mails(1).pop().unwrap();
    assert!(mail.text.contains("password") && !mail.text.contains("Passwort"), "{}", mail.text);
}

#[test]
fn a_queued_mail_survives_a_kill() {
    let mut smtp = Smtp::start("ok");
    let mut portal = portal("mail-kill", &smtp, "");
    smtp.down();
    let id = link_mail(&portal);
    until(&portal, &id, "the first try", |mail| mail["reason"].is_string());
    portal.kill();
    smtp.up();
    portal.serve();
    smtp.until_mails(1);
    until(&portal, &id, "it is sent", |mail| mail["state"] == "sent");
}

#[test]
fn a_mail_in_flight_is_not_sent_again() {
    let smtp = Smtp::start("hang");
    let portal = portal("in-flight", &smtp, "");
    let id = link_mail(&portal);
    eventually("it is on its way", || smtp.log().contains("RCPT"));
    let refused = portal.try_cli(&["mail", "send", &id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("being sent in this moment"));
}

#[test]
fn an_upload_request_for_a_disabled_account_stays_here() {
    let smtp = Smtp::start("greylist");
    let portal = portal("disabled-mail", &smtp, "portal_reminder_email_automatically=1");
    portal.cli(&["project", "add", "1001", "P-2"]);
    let mails = portal.cli(&["mail", "list"]);
    let id = mails[0]["id"].as_str().unwrap().to_owned();
    until(&portal, &id, "the first try", |mail| {
        mail["attempts"] == 1 && mail["reason"].is_string()
    });
    portal.cli(&["account", "disable", "acme"]);
    smtp.set_mode("ok");
    portal.cli(&["mail", "send", &id]);
    let mail = until(&portal, &id, "it stays a draft", |mail| mail["state"] == "draft");
    assert!(mail["reason"].as_str().unwrap().contains("inactive"), "{mail:#}");
    assert!(smtp.mails().is_empty());
}
