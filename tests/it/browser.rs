//! The whole way with a real browser and a real mail server: order, mail, link, password, FileZilla's file, upload, and its
//! state on the page; every page looked at by axe-core.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::instance::{Instance, Setup};
use crate::support::smtp::Smtp;

const PASSWORD: &str = "Plakate kleben an der Wand 8";
const LATER: &str = "Neun alte Plakate an Wand 9";

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(name)
}

/// The accessibility rules, kept in the tree's own target folder.
pub(crate) fn axe() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe");
    let fetched = Command::new(script("fetch-axe")).arg(&dir).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    dir.join("axe.min.js")
}

fn walk(portal: &Instance, phase: &str, arguments: &[&str]) {
    let walked = Command::new("/usr/bin/python3")
        .arg(script("walk.py"))
        .arg(phase)
        .args(["--web", &format!("http://localhost:{}", portal.web_port), "--axe"])
        .arg(axe())
        .arg("--out")
        .arg(portal.file("browser"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&walked.stdout).into_owned();
    assert!(walked.status.success(), "{said}\n{}", String::from_utf8_lossy(&walked.stderr));
}

#[test]
fn a_customer_walks_from_the_mail_to_the_state_of_an_upload() {
    let smtp = Smtp::start("ok");
    let portal = Setup::new().start("browser");
    let ini = format!(
        "SMTP-Server=127.0.0.1\nPort={}\nEmail=portal@druckerei.example\nportal_create_uplogin_automatically=1\n\
         portal_send_uplogin_email_automatically=1\n",
        smtp.port
    );
    std::fs::write(portal.file("client.ini"), ini).unwrap();
    std::fs::create_dir(portal.file("browser")).unwrap();
    let order: Value =
        serde_json::from_str(include_str!("../../templates/import/order.json")).unwrap();
    let token = portal.token("browser");
    portal.api(&token, "POST", "/projects", Some(&order)).is(201);
    let link = smtp.until_mails(1)[0].link();
    // A scanner first.
    for _ in 0..100 {
        assert_eq!(crate::support::http::curl(&[&link]).status, 200);
    }
    walk(&portal, "activate", &["--link", &link, "--username", "10042", "--password", PASSWORD]);
    // What FileZilla would read from the file.
    let site = std::fs::read_to_string(portal.file("browser/filezilla.xml")).unwrap();
    let value = |tag: &str| {
        let (_, rest) = site.split_once(&format!("<{tag}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    assert_eq!((value("Port"), value("User")), (portal.port.to_string(), "10042".to_owned()));
    std::fs::write(portal.file("Speisekarte Außen.pdf"), b"%PDF-1.4\nSpeisekarte\n").unwrap();
    let batch = format!(
        "put \"{}\" 2026-0815-1/Eingehend/\n",
        portal.file("Speisekarte Außen.pdf").display()
    );
    portal.sftp_password(&value("User"), PASSWORD, &[], &batch).well();
    let arguments = [
        "--username",
        "10042",
        "--password",
        PASSWORD,
        "--new-password",
        LATER,
        "--expect-file",
        "Speisekarte Außen.pdf",
        "--expect-text",
        "an die Produktion übergeben",
    ];
    walk(&portal, "state", &arguments);
    let kinds: Vec<Value> = portal
        .cli(&["events", "--client", "10042"])
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["kind"].clone())
        .collect();
    for kind in [
        "client.created",
        "project.created",
        "account.created",
        "mail.queued",
        "mail.sent",
        "account.activated",
        "upload.delivered",
    ] {
        assert!(kinds.contains(&json!(kind)), "{kind} is not in {kinds:?}");
    }
}

#[test]
fn the_same_pages_in_english() {
    let portal = Setup::new().without_scanner().start("browser-en");
    std::fs::create_dir(portal.file("browser")).unwrap();
    portal.cli(&["client", "set", "1001", "--language", "en"]);
    let link = portal.cli(&["account", "link", "acme"])["link"].as_str().unwrap().to_owned();
    let arguments =
        ["--link", &link, "--username", "acme", "--password", PASSWORD, "--language", "en"];
    walk(&portal, "activate", &arguments);
}
