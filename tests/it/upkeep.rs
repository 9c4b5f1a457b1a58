//! Backup and restore, and what `fsck` finds and mends.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::store::fresh_postgres;
use crate::support::eventually;
use crate::support::instance::{BINARY, IN, Instance, PROJECT, Setup};

fn put(portal: &Instance, name: &str) {
    std::fs::write(portal.file("a.bin"), format!("content of {name}")).unwrap();
    portal.sftp(&format!("put a.bin {IN}/{name}\n")).well();
    portal.until_delivered(name);
}

/// The file of an upload's bytes.
fn content(portal: &Instance, name: &str) -> std::path::PathBuf {
    let id = portal.upload(name)["id"].as_str().unwrap().to_owned();
    let output =
        Command::new("find").arg(portal.file("data/vault")).args(["-name", &id]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}

fn fsck(portal: &Instance, arguments: &[&str]) -> (bool, Value) {
    let output = portal.try_cli(&[&["fsck"], arguments].concat());
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.status.success(), report)
}

fn kinds(report: &Value) -> Vec<String> {
    let problems = report["problems"].as_array().unwrap();
    let mut kinds: Vec<String> =
        problems.iter().map(|p| p["problem"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[test]
fn fsck_finds_what_is_missing_damaged_or_without_a_row_and_rebuilds_rows() {
    let portal = Setup::new().start("fsck");
    for name in ["gut.pdf", "fehlt.pdf", "kurz.pdf", "gekippt.pdf", "zeilenlos.pdf"] {
        put(&portal, name);
    }
    assert_eq!(fsck(&portal, &["--deep"]).1["problems"], Value::Array(Vec::new()));
    std::fs::remove_file(content(&portal, "fehlt.pdf")).unwrap();
    std::fs::write(content(&portal, "kurz.pdf"), "x").unwrap();
    let mut bytes = std::fs::read(content(&portal, "gekippt.pdf")).unwrap();
    bytes[3] ^= 1;
    std::fs::write(content(&portal, "gekippt.pdf"), bytes).unwrap();
    let orphan = portal.upload("zeilenlos.pdf")["id"].as_str().unwrap().to_owned();
    portal.sql(&format!("DELETE FROM uploads WHERE id = '{orphan}'"));
    portal.sql(&format!("DELETE FROM deliveries WHERE upload_id = '{orphan}'"));
    let (ok, quick) = fsck(&portal, &[]);
    assert!(!ok);
    assert_eq!(kinds(&quick), ["damaged", "dead-name", "missing", "orphan"], "{quick:#}");
    let (_, deep) = fsck(&portal, &["--deep"]);
    assert_eq!(kinds(&deep), ["damaged", "damaged", "dead-name", "missing", "orphan"], "{deep:#}");
    let (ok, repaired) = fsck(&portal, &["--repair"]);
    assert!(!ok, "what is missing stays missing");
    assert_eq!(repaired["open"], 2, "{repaired:#}");
    let row = portal.cli(&["upload", "show", &orphan]);
    assert_eq!((&row["state"], &row["path"]), (&"held".into(), &"Eingehend/zeilenlos.pdf".into()));
    // Nothing is delivered by itself: it may have been delivered before.
    portal.cli(&["upload", "release", &orphan, "--reason", "nachgesehen"]);
    eventually("the operator's release delivers it", || {
        portal.delivered("zeilenlos (2).pdf").exists()
    });
    let (_, again) = fsck(&portal, &[]);
    assert_eq!(kinds(&again), ["damaged", "missing"], "{again:#}");
    let said = portal.sftp(&format!("get {IN}/gut.pdf got\n"));
    said.well();
}

/// What the disk changed between the verdict and the delivery is no longer what was scanned.
#[test]
fn a_bit_that_flips_in_the_vault_stops_its_delivery_and_says_so() {
    let portal = Setup::new().set("hotfolder", "delivery_delay", "\"3s\"").start("bit-rot");
    std::fs::write(portal.file("a.bin"), "the customer's bytes").unwrap();
    portal.sftp(&format!("put a.bin {IN}/kippt.pdf\n")).well();
    let (path, whole) = (content(&portal, "kippt.pdf"), b"the customer's bytes");
    let mut flipped = *whole;
    flipped[3] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    let delivery = || portal.cli(&["delivery", "list"])[0].clone();
    eventually("it is tried in vain three times", || delivery()["state"] == "stuck");
    let reason = delivery()["last_error"].as_str().unwrap().to_owned();
    assert!(reason.contains("differs from the vault"), "{reason}");
    assert!(!portal.delivered("kippt.pdf").exists());
    let watched = portal.cli(&["watch"]).to_string();
    assert!(watched.contains("differs from the vault"), "{watched}");
    assert_eq!(portal.events("delivery.stuck").len(), 1);
    std::fs::write(&path, whole).unwrap();
    portal.cli(&["delivery", "retry", delivery()["id"].as_str().unwrap()]);
    eventually("the whole file is delivered", || portal.delivered("kippt.pdf").exists());
    assert_eq!(std::fs::read(portal.delivered("kippt.pdf")).unwrap(), whole);
}

/// Customers who go on while a backup is taken.
fn under_load(portal: &Instance, target: &Path) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20 {
                std::fs::write(portal.file("l.bin"), format!("load {n}")).unwrap();
                portal.sftp(&format!("put l.bin {IN}/last-{n}.pdf\n")).well();
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(400));
        portal.cli(&["backup", target.to_str().unwrap()]);
    });
}

#[test]
fn a_backup_taken_under_load_restores_elsewhere_with_every_login_and_row() {
    let portal = Setup::new().start("backup");
    for n in 0..5 {
        put(&portal, &format!("{n}.pdf"));
    }
    let target = portal.file("sicherung.tar");
    under_load(&portal, &target);
    let again = portal.try_cli(&["backup", target.to_str().unwrap()]);
    assert!(!again.status.success(), "a backup is never overwritten");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&target).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds keys");
    let listed = Command::new("tar").arg("-tf").arg(&target).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for part in [
        "database.jsonl",
        "host-keys/ssh_host_ed25519_key",
        "tls/private-key.pem",
        "ptportal.toml",
        "manifest.json",
    ] {
        assert!(listed.contains(part), "{listed}");
    }
    // A restore never touches what is in use.
    let refused = portal.try_cli(&["restore", target.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("a server runs"), "{told}");
    let mut other = Setup::new().start("restored");
    other.stop();
    let refused = other.try_cli(&["restore", target.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("in use"), "{told}");
    std::fs::remove_dir_all(other.file("data")).unwrap();
    std::fs::remove_dir_all(other.file("certs")).unwrap();
    let restored = other.cli(&["restore", target.to_str().unwrap()]);
    assert!(restored["rows"].as_u64().unwrap() > 50, "{restored}");
    assert_eq!(restored["by_hand"], serde_json::json!(["ptportal.toml"]));
    let key = |portal: &Instance| std::fs::read(portal.file("certs/ssh_host_ed25519_key")).unwrap();
    assert!(key(&portal) == key(&other), "the same host key: no customer is warned");
    for name in ["id", "id.pub"] {
        std::fs::copy(portal.file(name), other.file(name)).unwrap();
    }
    let copied = Command::new("cp")
        .arg("-a")
        .arg(portal.file("data/vault"))
        .arg(other.file("data/"))
        .status();
    assert!(copied.unwrap().success());
    other.serve();
    let listed = other.sftp(&format!("ls -1 {IN}\nget {IN}/3.pdf got\n")).well().out;
    assert!(listed.contains("4.pdf"), "{listed}");
    assert_eq!(std::fs::read(other.file("got")).unwrap(), b"content of 3.pdf");
    let problems = fsck(&other, &[]).1;
    assert!(
        kinds(&problems).iter().all(|kind| kind == "orphan"),
        "only what came after: {problems:#}"
    );
    let before = |portal: &Instance| portal.events("upload.released").len();
    assert!(before(&other) >= 5 && before(&other) <= before(&portal));
}

#[test]
fn a_damaged_backup_is_refused_and_a_good_one_moves_to_postgresql() {
    let portal = Setup::new().without_scanner().start("movedb");
    put(&portal, "a.pdf");
    let target = portal.file("sicherung.tar");
    portal.cli(&["backup", target.to_str().unwrap()]);
    let url = fresh_postgres();
    let restore = |file: &Path| {
        let mut command = Command::new(BINARY);
        command
            .current_dir(portal.path())
            .env("PTPORTAL_DATABASE__URL", &url)
            .env("PTPORTAL_DATA_DIR", "pg");
        command.args(["--json", "restore"]).arg(file).output().unwrap()
    };
    let mut bytes = std::fs::read(&target).unwrap();
    let cut = portal.file("cut.tar");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(!restore(&cut).status.success());
    let at = bytes.windows(4).position(|w| w == b"1001").unwrap();
    bytes[at] = b'2';
    let changed = portal.file("changed.tar");
    std::fs::write(&changed, &bytes).unwrap();
    let refused = restore(&changed);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("damaged"), "{refused:?}");
    let moved = restore(&target);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    let mut command = Command::new(BINARY);
    command
        .current_dir(portal.path())
        .env("PTPORTAL_DATABASE__URL", &url)
        .env("PTPORTAL_DATA_DIR", "pg");
    let shown = command.args(["--json", "project", "show", PROJECT]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["job_description"], "Plakate");
    let mut command = Command::new(BINARY);
    command
        .current_dir(portal.path())
        .env("PTPORTAL_DATABASE__URL", &url)
        .env("PTPORTAL_DATA_DIR", "pg");
    let events = command.args(["--json", "events", "--kind", "upload.delivered"]).output().unwrap();
    let events: Value = serde_json::from_slice(&events.stdout).unwrap();
    assert_eq!(events.as_array().unwrap().len(), 1);
}
