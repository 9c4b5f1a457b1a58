//! What the portal forgets by itself, and what it never forgets.

use std::process::Command;

use crate::support::instance::{IN, Instance, PROJECT, Setup};
use crate::support::{MARKER, eventually};

const DAY: i64 = 24 * 3600 * 1000;

/// Everything of the past, `days` ago.
fn age(portal: &Instance, days: i64) {
    for (table, columns) in [
        ("projects", vec!["created", "updated"]),
        ("tickets", vec!["created", "updated"]),
        ("uploads", vec!["created", "updated", "completed", "released"]),
        ("deliveries", vec!["created", "updated", "delivered"]),
        ("events", vec!["created", "updated", "time"]),
        ("mails", vec!["created", "updated"]),
    ] {
        let shift = days * DAY;
        let sets: Vec<String> = columns.iter().map(|c| format!("{c} = {c} - {shift}")).collect();
        portal.sql(&format!("UPDATE {table} SET {} WHERE {} > 0", sets.join(", "), columns[0]));
    }
    portal.sql(&format!(
        "UPDATE uploads SET delivered = delivered - {} WHERE delivered > 0",
        days * DAY
    ));
}

fn put(portal: &Instance, name: &str) {
    std::fs::write(portal.file("a.bin"), format!("content of {name}")).unwrap();
    portal.sftp(&format!("put a.bin {IN}/{name}\n")).well();
}

/// Whether the vault holds an upload's bytes.
fn is_kept(portal: &Instance, name: &str) -> bool {
    let id = portal.upload(name)["id"].as_str().unwrap().to_owned();
    let output =
        Command::new("find").arg(portal.file("data")).args(["-name", &id]).output().unwrap();
    !output.stdout.is_empty()
}

/// Forgetting happens soon after a start.
fn restart(portal: &mut Instance) {
    portal.stop();
    portal.serve();
}

fn state(portal: &Instance) -> String {
    portal.cli(&["project", "show", PROJECT])["state"].as_str().unwrap().to_owned()
}

#[test]
fn delivered_bytes_go_after_their_time_and_names_stay() {
    let mut portal = Setup::new().set("portal", "temporary_names", "[\"*.part\"]").start("keep");
    put(&portal, "alt.pdf");
    portal.until_delivered("alt.pdf");
    put(&portal, "vorlaeufig.part");
    age(&portal, 31);
    put(&portal, "neu.pdf");
    portal.until_delivered("neu.pdf");
    restart(&mut portal);
    eventually("the old bytes go", || !is_kept(&portal, "alt.pdf"));
    assert!(is_kept(&portal, "neu.pdf"));
    assert!(is_kept(&portal, "vorlaeufig.part"), "what was never delivered stays");
    let listed = portal.sftp(&format!("ls -l {IN}\n")).well().out;
    assert!(listed.contains("alt.pdf") && listed.contains("18 "), "{listed}");
    let refused = portal.sftp(&format!("get {IN}/alt.pdf got\n")).badly();
    assert!(refused.err.contains("no-longer-kept"), "{}", refused.err);
    std::fs::write(portal.file("a.bin"), "content of alt.pdf, longer").unwrap();
    let refused = portal.sftp(&format!("reput a.bin {IN}/alt.pdf\n")).badly();
    assert!(refused.err.contains("no-longer-kept"), "{}", refused.err);
    portal.sftp(&format!("put a.bin {IN}/alt.pdf\n")).well();
    assert_eq!(portal.until_delivered("alt (2).pdf"), b"content of alt.pdf, longer");
    assert_eq!(portal.events("content.purged").len(), 1);
}

#[test]
fn what_is_undelivered_held_or_running_never_goes() {
    let mut portal = Setup::new().start("undelivered");
    portal.cli(&["client", "set", "1001", "--delete-in-days", "5"]);
    let doubtful = b"PTPORTAL-DOUBTFUL-MARKER-11aa22bb";
    std::fs::write(portal.file("h.bin"), doubtful).unwrap();
    portal.sftp(&format!("put h.bin {IN}/held.pdf\n")).well();
    portal.until_state("held.pdf", "held");
    // The share is away, so this one waits.
    let (root, aside) = (portal.file("hotfolder"), portal.file("aside"));
    std::fs::rename(&root, &aside).unwrap();
    put(&portal, "wartet.pdf");
    age(&portal, 400);
    restart(&mut portal);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(state(&portal), "open");
    assert!(is_kept(&portal, "wartet.pdf") && is_kept(&portal, "held.pdf"));
    // Even when an operator closes the project.
    portal.cli(&["project", "close", PROJECT]);
    restart(&mut portal);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(is_kept(&portal, "wartet.pdf") && is_kept(&portal, "held.pdf"));
    std::fs::remove_dir_all(&root).ok();
    std::fs::rename(&aside, &root).unwrap();
    portal.cli(&["delivery", "retry", "--all"]);
    assert_eq!(portal.until_delivered("wartet.pdf"), b"content of wartet.pdf");
}

#[test]
fn a_project_without_change_expires_and_the_hotfolder_stays() {
    let mut portal = Setup::new().set("hotfolder", "poll", "\"1s\"").start("expire");
    portal.cli(&["client", "set", "1001", "--delete-in-days", "10"]);
    put(&portal, "a.pdf");
    let delivered = portal.until_delivered("a.pdf");
    let folder = portal.file("hotfolder/1001").join(PROJECT).join("Final");
    eventually("the folder for staff is there", || folder.is_dir());
    std::fs::write(folder.join("fertig.pdf"), "x").unwrap();
    eventually("it is shown", || portal.events("file.published").len() == 1);
    age(&portal, 9);
    restart(&mut portal);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(state(&portal), "open", "nine days are not ten");
    age(&portal, 2);
    restart(&mut portal);
    eventually("it expires", || state(&portal) == "expired");
    assert_eq!(portal.events("project.expired").len(), 1);
    portal.sftp(&format!("ls {IN}\n")).badly();
    eventually("the bytes go", || !is_kept(&portal, "a.pdf") && !is_kept(&portal, "fertig.pdf"));
    assert_eq!(std::fs::read(portal.delivered("a.pdf")).unwrap(), delivered);
    assert!(folder.join("fertig.pdf").exists());
    // An announcement that changes something opens it again, empty.
    portal.cli(&["project", "add", "1001", PROJECT, "--description", "Nachdruck"]);
    assert_eq!(state(&portal), "open");
    let listed = portal.sftp(&format!("ls -1 {IN}\n")).well().out;
    assert!(!listed.contains("a.pdf"), "{listed}");
    eventually("what staff left is shown again", || portal.events("file.published").len() == 2);
}

#[test]
fn a_closed_project_gives_its_bytes_back() {
    let portal = Setup::new().set("hotfolder", "poll", "\"1s\"").start("closed");
    put(&portal, "a.pdf");
    portal.until_delivered("a.pdf");
    let folder = portal.file("hotfolder/1001").join(PROJECT).join("Final");
    eventually("the folder for staff is there", || folder.is_dir());
    std::fs::write(folder.join("fertig.pdf"), "x").unwrap();
    eventually("it is shown", || portal.events("file.published").len() == 1);
    portal.cli(&["project", "close", PROJECT]);
    eventually("its bytes go at once", || !is_kept(&portal, "a.pdf"));
    let upload = portal.upload("a.pdf");
    assert_eq!(
        (&upload["state"], &upload["size"]),
        (&"released".into(), &16.into()),
        "the record stays"
    );
}

#[test]
fn quarantine_events_mails_and_links_have_their_time_too() {
    let mut portal = Setup::new().set("retention", "events", "\"100d\"").start("forget");
    std::fs::write(portal.file("v.bin"), MARKER).unwrap();
    portal.sftp(&format!("put v.bin {IN}/v.pdf\n")).badly();
    eventually("it lies in quarantine", || {
        std::fs::read_dir(portal.file("data/quarantine")).unwrap().count() > 0
    });
    eventually("a mail tells of it", || {
        let mails = portal.cli(&["mail", "list"]);
        mails.as_array().unwrap().iter().any(|mail| mail["state"] == "sent")
    });
    age(&portal, 91);
    restart(&mut portal);
    eventually("the virus is gone", || {
        std::fs::read_dir(portal.file("data/quarantine")).unwrap().count() == 0
    });
    assert_eq!(portal.events("upload.infected").len(), 1);
    assert_eq!(portal.cli(&["mail", "list"]).as_array().unwrap().len(), 1);
    age(&portal, 100);
    restart(&mut portal);
    eventually("the mail is gone", || portal.cli(&["mail", "list"]).as_array().unwrap().is_empty());
    eventually("the audit trail begins later", || portal.events("upload.infected").is_empty());
    put(&portal, "danach.pdf");
    portal.until_delivered("danach.pdf");
    assert_eq!(portal.events("upload.delivered").len(), 1, "numbers go on");
}

#[test]
fn zero_means_never() {
    let mut setup = Setup::new().without_scanner();
    for key in ["keep_delivered", "quarantine", "events", "mails"] {
        setup = setup.set("retention", key, "\"0\"");
    }
    let mut portal = setup.start("never");
    put(&portal, "a.pdf");
    portal.until_delivered("a.pdf");
    age(&portal, 20_000);
    restart(&mut portal);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(is_kept(&portal, "a.pdf"));
    assert_eq!(portal.events("upload.delivered").len(), 1);
    assert_eq!(state(&portal), "open");
}
