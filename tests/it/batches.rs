//! What follows when files have come in: one mail for many, tickets beside files, mails about a virus.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::instance::{IN, Instance, PROJECT, Setup};
use crate::support::orders::{ini, mails_of};
use crate::support::smtp::Smtp;
use crate::support::{eicar, eventually};

fn with_mail(smtp: &Smtp, setup: Setup, name: &str) -> Instance {
    let portal = setup.set("mail", "operators", "[\"vorstufe@druckerei.example\"]").start(name);
    std::fs::write(portal.file("client.ini"), ini(smtp.port, 0, 0, 0)).unwrap();
    portal.cli(&["client", "set", "1001", "--email", "einkauf@kunde.example"]);
    portal
}

/// Whether a document is valid, by an independent program.
#[track_caller]
fn validate(schema: &Path, document: &Path) {
    let output = Command::new("xmllint")
        .args(["--noout", "--schema"])
        .arg(schema)
        .arg(document)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        std::fs::read_to_string(document).unwrap()
    );
}

fn xpath(document: &Path, expression: &str) -> String {
    let output =
        Command::new("xmllint").args(["--xpath", expression]).arg(document).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
}

#[test]
fn two_hundred_files_of_one_session_make_one_mail_with_one_ticket() {
    let smtp = Smtp::start("ok");
    let setup = Setup::new().without_scanner().set("jobticket", "format", "\"xml\"").set(
        "jobticket",
        "per",
        "\"batch\"",
    );
    let portal = with_mail(&smtp, setup, "batch");
    std::fs::create_dir(portal.file("viele")).unwrap();
    for n in 0..200 {
        std::fs::write(portal.file("viele").join(format!("bild {n:03}.tif")), format!("II* {n}"))
            .unwrap();
    }
    portal.cli(&["template", "set", "Hotfolder Empfangsbestätigung", "--active"]);
    portal.sftp(&format!("put -r viele/* {IN}/\n")).well();
    // The quiet period is two minutes; the sender has logged out, so nobody waits for it.
    let mails = smtp.until_mails(2);
    let to = |address: &str| mails.iter().find(|mail| mail.header("To").contains(address)).unwrap();
    let (internal, receipt) = (to("vorstufe@druckerei.example"), to("einkauf@kunde.example"));
    assert!(internal.header("Subject").contains(PROJECT), "{}", internal.headers);
    for mail in [internal, receipt] {
        for name in ["bild 000.tif", "bild 199.tif"] {
            assert!(mail.text.contains(name), "{name} is not in {}", mail.text);
        }
    }
    let sha = portal.upload("bild 007.tif")["sha256"].as_str().unwrap().to_owned();
    assert!(internal.text.contains(&sha));
    assert!(internal.headers.contains("multipart/mixed"), "the ticket goes with it");
    let ticket = portal.delivered(&format!("{PROJECT}.xml"));
    eventually("the ticket is placed", || ticket.exists());
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/jobticket.xsd");
    validate(&schema, &ticket);
    assert_eq!(xpath(&ticket, "count(/jobticket/files/file)"), "200");
    // One more later is a batch of its own.
    std::fs::write(portal.file("x.pdf"), "%PDF x").unwrap();
    portal.sftp(&format!("put x.pdf {IN}/x.pdf\n")).well();
    let mails = smtp.until_mails(4);
    assert_eq!(mails.len(), 4);
    assert!(!mails[2].text.contains("bild 000.tif") && mails[2].text.contains("x.pdf"));
    let ours = mails_of(&portal, "1001");
    assert_eq!(ours.iter().filter(|m| m["template"] == "Hotfolder Dateneingang").count(), 2);
}

#[test]
fn the_receipt_is_off_until_somebody_switches_it_on() {
    let smtp = Smtp::start("ok");
    let portal = with_mail(&smtp, Setup::new().without_scanner(), "noreceipt");
    std::fs::write(portal.file("x.pdf"), "%PDF x").unwrap();
    portal.sftp(&format!("put x.pdf {IN}/x.pdf\n")).well();
    let mails = smtp.until_mails(1);
    assert!(mails[0].header("To").contains("vorstufe@druckerei.example"));
    // Internal mails depend on no customer's account.
    portal.cli(&["account", "disable", "acme"]);
    let mails = mails_of(&portal, "1001");
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0]["state"], "sent");
}

#[test]
fn operators_hear_of_a_virus_and_the_customer_when_it_was_found_late() {
    let smtp = Smtp::start("ok");
    let setup = Setup::new().set("scan", "answer_within", "\"1s\"");
    let portal = with_mail(&smtp, setup, "virusmail");
    std::fs::write(portal.file("a.pdf"), eicar()).unwrap();
    portal.sftp(&format!("put a.pdf {IN}/sofort.pdf\n")).badly();
    let mails = smtp.until_mails(1);
    assert!(mails[0].header("To").contains("vorstufe@druckerei.example"));
    let id = portal.events("upload.infected")[0]["upload_id"].as_str().unwrap().to_owned();
    for part in ["sofort.pdf", "Eicar-Test-Signature", &id] {
        assert!(mails[0].text.contains(part), "{part} is not in {}", mails[0].text);
    }
    portal.clamd.as_ref().unwrap().freeze();
    portal.sftp(&format!("put a.pdf {IN}/spaeter.pdf\n")).well();
    portal.clamd.as_ref().unwrap().thaw();
    let mails = smtp.until_mails(3);
    let told =
        mails.iter().find(|mail| mail.header("To").contains("einkauf@kunde.example")).unwrap();
    for part in ["spaeter.pdf", "Eicar-Test-Signature"] {
        assert!(told.text.contains(part), "{part} is not in {}", told.text);
    }
    assert_eq!(mails.len(), 3, "who was refused at once has no mail");
}

/// Names that want escaping somewhere.
fn odd_names() -> Vec<String> {
    vec![
        "Müller & Söhne \"A1\" <neu>.pdf".to_owned(),
        "it's ]]> $(x) {{ ticket }} %41.pdf".to_owned(),
        format!("{}.tif", "ü".repeat(98)),
        "🖨 Plakat.tar.gz".to_owned(),
        "ohne Endung".to_owned(),
    ]
}

fn send_odd_names(portal: &Instance) {
    for (n, name) in odd_names().iter().enumerate() {
        std::fs::write(portal.file("a.bin"), format!("content {n}")).unwrap();
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        portal.sftp(&format!("put a.bin \"{IN}/{quoted}\"\n")).well();
    }
}

/// The tickets in the hotfolder.
fn tickets(portal: &Instance) -> Vec<std::path::PathBuf> {
    let is_ticket = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "xml");
    portal.hotfolder_files().into_iter().filter(is_ticket).collect()
}

#[test]
fn each_file_has_its_ticket_beside_it() {
    let setup = Setup::new().set("jobticket", "format", "\"xml\"").set(
        "jobticket",
        "name",
        "\"{name}.xml\"",
    );
    let portal = setup.start("ticket");
    portal.cli(&["ticket", "add", PROJECT, "T-1", "--description", "Plakat & Karte"]);
    send_odd_names(&portal);
    eventually("each has a ticket", || tickets(&portal).len() == odd_names().len());
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/jobticket.xsd");
    for ticket in tickets(&portal) {
        validate(&schema, &ticket);
        let id = xpath(&ticket, "string(//upload_id)");
        let upload = portal.cli(&["upload", "show", &id]);
        let name = upload["path"].as_str().unwrap().rsplit('/').next().unwrap();
        assert_eq!(xpath(&ticket, "string(//file/name)"), name);
        assert_eq!(xpath(&ticket, "string(//sha256)"), upload["sha256"].as_str().unwrap());
        assert_eq!(xpath(&ticket, "string(/jobticket/part/job_description)"), "Plakat & Karte");
        assert_eq!(xpath(&ticket, "string(//verdict)"), "clean");
        let file = portal.file("hotfolder").join(xpath(&ticket, "string(//delivered_path)"));
        assert!(file.exists(), "{} beside {}", file.display(), ticket.display());
        assert_eq!(ticket.parent(), file.parent());
        let url = xpath(&ticket, "string(//delivered_url)");
        let opened = Command::new("curl").args(["-sS", "--fail", &url]).output().unwrap();
        assert_eq!(opened.stdout, std::fs::read(&file).unwrap(), "{url}");
    }
}

/// Sends a file and waits for its ticket, whose name is given, and which tells of the file as it was placed.
#[track_caller]
fn send_and_see_ticket(
    portal: &Instance,
    (name, content): (&str, &str),
    placed: &str,
    ticket: &str,
) {
    std::fs::write(portal.file("next"), content).unwrap();
    portal.sftp(&format!("put next {IN}/{name}\n")).well();
    let path = portal.delivered(ticket);
    let upload = || portal.cli(&["upload", "list"])[0].clone();
    let sum = upload()["sha256"].as_str().unwrap().to_owned();
    eventually(&format!("{ticket} tells of {name}"), || {
        path.exists() && xpath(&path, "string(//sha256)") == sum
    });
    assert_eq!(xpath(&path, "string(//delivered_name)"), placed, "{ticket}");
    assert_eq!(portal.until_delivered(placed), content.as_bytes());
}

#[test]
fn a_ticket_whose_name_is_taken_is_not_called_like_the_ticket_of_another_file() {
    let setup = Setup::new().without_scanner().set("jobticket", "format", "\"xml\"");
    let portal = setup.start("ticketnames");
    send_and_see_ticket(&portal, ("fly.pdf", "first"), "fly.pdf", "fly.xml");
    send_and_see_ticket(&portal, ("fly.indd", "source"), "fly.indd", "fly.indd.xml");
    send_and_see_ticket(&portal, ("fly.pdf", "second"), "fly (2).pdf", "fly (2).xml");
    // What the customer sends is his, whatever its name.
    send_and_see_ticket(&portal, ("own.xml", "<job/>"), "own.xml", "own.xml.xml");
    send_and_see_ticket(&portal, ("own.pdf", "third"), "own.pdf", "own.pdf.xml");
    assert_eq!(tickets(&portal).len(), 6, "{:?}", tickets(&portal));
    // The consumer has taken a file and left its ticket.
    std::fs::remove_file(portal.delivered("fly.indd")).unwrap();
    send_and_see_ticket(&portal, ("fly.indd", "again"), "fly.indd", "fly.indd (2).xml");
}

#[test]
fn a_file_that_replaces_another_has_its_ticket_in_the_place_of_the_other_ones() {
    let setup = Setup::new().without_scanner().set("jobticket", "format", "\"xml\"").set(
        "hotfolder",
        "on_conflict",
        "\"replace\"",
    );
    let portal = setup.start("ticketreplace");
    send_and_see_ticket(&portal, ("fly.pdf", "first"), "fly.pdf", "fly.xml");
    send_and_see_ticket(&portal, ("fly.indd", "source"), "fly.indd", "fly.indd.xml");
    send_and_see_ticket(&portal, ("fly.pdf", "second"), "fly.pdf", "fly.xml");
    assert_eq!(tickets(&portal).len(), 2, "{:?}", tickets(&portal));
    send_and_see_ticket(&portal, ("fly.indd", "again"), "fly.indd", "fly.indd.xml");
    assert_eq!(tickets(&portal).len(), 2, "{:?}", tickets(&portal));
    // Whatever the ticket would say today, what was placed is known.
    portal.cli(&["client", "set", "1001", "--name", "Anders GmbH"]);
    send_and_see_ticket(&portal, ("fly.pdf", "renamed"), "fly.pdf", "fly.xml");
    // A ticket that somebody changed is no longer ours.
    std::fs::write(portal.delivered("fly.xml"), "<changed/>").unwrap();
    send_and_see_ticket(&portal, ("fly.pdf", "third"), "fly.pdf", "fly.pdf.xml");
    assert_eq!(std::fs::read(portal.delivered("fly.xml")).unwrap(), b"<changed/>");
}

#[test]
fn xjdf_tickets_are_valid_by_cip4s_schema() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/xjdf/xjdf.xsd");
    let setup = Setup::new().set("jobticket", "format", "\"xjdf\"").set(
        "jobticket",
        "name",
        "\"{name}.xml\"",
    );
    let portal = setup.start("xjdf");
    send_odd_names(&portal);
    portal.cli(&["project", "add", "1001", "2026/0815-2 ü", "--due", "2026-12-24"]);
    std::fs::write(portal.file("a.pdf"), "%PDF x").unwrap();
    portal.sftp("put a.pdf \"/2026-0815-2 ü/Eingehend/a.pdf\"\n").well();
    eventually("each has a ticket", || tickets(&portal).len() == odd_names().len() + 1);
    if !shared.exists() {
        println!("CIP4's schema is not at {}: the tickets were not validated", shared.display());
        return;
    }
    for ticket in tickets(&portal) {
        validate(&shared, &ticket);
    }
    let md5 = Command::new("md5sum").arg(portal.file("a.pdf")).output().unwrap();
    let md5 = String::from_utf8(md5.stdout).unwrap();
    let md5 = md5.split_whitespace().next().unwrap();
    assert!(tickets(&portal).iter().any(|t| std::fs::read_to_string(t).unwrap().contains(md5)));
}

#[test]
fn a_ticket_template_of_ones_own_and_one_that_gives_no_xml() {
    let setup = Setup::new().without_scanner().set("jobticket", "format", "\"xml\"").set(
        "jobticket",
        "template",
        "\"eigen.xml\"",
    );
    let portal = setup.start("owntemplate");
    let template = portal.file("eigen.xml");
    std::fs::write(&template, "<job nr=\"{{ project.project_no }}\">{{ files[0].name }}").unwrap();
    let check = portal.try_cli(&["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(!check.status.success() && text.contains("ends inside an element"), "{text}");
    std::fs::write(portal.file("a.pdf"), "%PDF x").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a&b.pdf\n")).well();
    eventually("the ticket waits", || {
        portal.cli(&["delivery", "list"]).as_array().unwrap().iter().any(|d: &Value| {
            d["consumer"] == "jobticket"
                && d["last_error"].as_str().is_some_and(|e| e.contains("ends inside"))
        })
    });
    assert_eq!(
        portal.until_delivered("a&b.pdf"),
        b"%PDF x",
        "the file does not wait for its ticket"
    );
    assert!(tickets(&portal).is_empty(), "what is no XML is never written");
    std::fs::write(&template, "<job nr=\"{{ project.project_no }}\">{{ files[0].name }}</job>")
        .unwrap();
    portal.cli(&["delivery", "retry", "--all"]);
    eventually("the ticket comes", || tickets(&portal).len() == 1);
    let text = std::fs::read_to_string(&tickets(&portal)[0]).unwrap();
    assert_eq!(text, format!("<job nr=\"{PROJECT}\">a&amp;b.pdf</job>"));
}
