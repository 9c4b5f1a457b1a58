//! The way into the hotfolder: exactly once, never without the marker, names that a Windows share can hold.

use std::time::Duration;

use crate::support::eventually;
use crate::support::instance::{IN, Instance, Setup};

#[test]
fn without_its_marker_nothing_is_written_and_later_everything_arrives() {
    let portal = Setup::new().start("marker");
    let root = portal.file("hotfolder");
    std::fs::rename(&root, portal.file("elsewhere")).unwrap();
    std::fs::create_dir(&root).unwrap();
    std::fs::write(portal.file("a.pdf"), b"%PDF a").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    eventually("the delivery is shown as stuck", || {
        portal.cli(&["delivery", "list", "--state", "stuck"]).as_array().unwrap().len() == 1
    });
    assert_eq!(
        std::fs::read_dir(&root).unwrap().count(),
        0,
        "an unmounted share must not fill the local disk"
    );
    let stuck = portal.cli(&["delivery", "list"]);
    assert!(stuck[0]["last_error"].as_str().unwrap().contains("marker"), "{stuck:#}");
    eventually("operators are told", || portal.events("delivery.stuck").len() == 1);
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(portal.file("elsewhere"), &root).unwrap();
    portal.cli(&["delivery", "retry", "--all"]);
    assert_eq!(portal.until_delivered("a.pdf"), b"%PDF a");
}

#[test]
fn init_hotfolder_makes_the_marker_of_a_new_share() {
    let portal = Setup::new().start("init");
    let marker = portal.file("hotfolder/.ptportal-share-id");
    std::fs::remove_file(&marker).unwrap();
    assert!(!portal.try_cli(&["check"]).status.success());
    let check = portal.try_cli(&["check", "--init-hotfolder"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    assert!(marker.exists());
}

#[test]
fn versions_of_a_name_arrive_in_their_order_and_case_clashes_are_kept_both() {
    let portal = Setup::new().start("versions");
    for n in 1..=4 {
        std::fs::write(portal.file("a.pdf"), format!("version {n}")).unwrap();
        portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    }
    eventually("all four are there", || portal.hotfolder_files().len() == 4);
    let read = |name: &str| std::fs::read_to_string(portal.delivered(name)).unwrap();
    assert_eq!(read("a.pdf"), "version 1");
    for n in 2..=4 {
        assert_eq!(read(&format!("a ({n}).pdf")), format!("version {n}"));
    }
    std::fs::write(portal.file("b.pdf"), b"upper").unwrap();
    portal.sftp(&format!("put b.pdf {IN}/A.PDF\n")).well();
    eventually("both spellings are kept", || portal.delivered("A (5).PDF").exists());
    assert_eq!(read("A (5).PDF"), "upper");
}

#[test]
fn replace_overwrites_only_what_we_placed_and_nobody_changed() {
    let portal = Setup::new().set("hotfolder", "on_conflict", "\"replace\"").start("replace");
    let put = |text: &str| {
        std::fs::write(portal.file("a.pdf"), text).unwrap();
        portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    };
    let until = |name: &str, text: &str| {
        eventually(&format!("{name} holds {text}"), || {
            std::fs::read_to_string(portal.delivered(name)).is_ok_and(|t| t == text)
        });
    };
    put("eins");
    until("a.pdf", "eins");
    put("zwei");
    until("a.pdf", "zwei");
    std::fs::write(portal.delivered("a.pdf"), "von der Druckerei geändert").unwrap();
    put("drei");
    until("a (2).pdf", "drei");
    until("a.pdf", "von der Druckerei geändert");
}

#[test]
fn a_file_of_staff_is_never_overwritten() {
    let portal = Setup::new().start("staff");
    std::fs::create_dir_all(portal.delivered("")).unwrap();
    std::fs::write(portal.delivered("a.pdf"), b"staff").unwrap();
    std::fs::write(portal.file("a.pdf"), b"customer").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    assert_eq!(portal.until_delivered("a (2).pdf"), b"customer");
    assert_eq!(std::fs::read(portal.delivered("a.pdf")).unwrap(), b"staff");
}

#[test]
fn the_layout_and_ticket_folders_are_followed() {
    let portal = Setup::new()
        .set("hotfolder", "layout", "\"{client_name}/{project_no}-{ticket_no}/{folder}\"")
        .set("hotfolder", "ticket_folders", "true")
        .start("layout");
    portal.cli(&["ticket", "add", "2026-0815", "T/1"]);
    portal.cli(&["ticket", "add", "2026-0815", "T2"]);
    std::fs::write(portal.file("a.pdf"), b"a").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/T-1/a.pdf\nput a.pdf {IN}/plakat_T2.pdf\n")).well();
    eventually("both are delivered", || portal.hotfolder_files().len() == 2);
    let below: Vec<String> = portal
        .hotfolder_files()
        .iter()
        .map(|p| p.strip_prefix(portal.file("hotfolder")).unwrap().display().to_string())
        .collect();
    assert!(
        below.iter().any(|p| p == "ACME & Söhne/2026-0815-T2/Eingehend/plakat_T2.pdf"),
        "{below:?}"
    );
    assert!(below.iter().any(|p| p.ends_with("/Eingehend/T-1/a.pdf")), "{below:?}");
    assert_eq!(portal.upload("T-1/a.pdf")["ticket_no"], "T/1");
}

#[test]
fn renames_follow_where_the_shop_wants_it() {
    let portal = Setup::new().set("hotfolder", "rename_follows", "true").start("follows");
    std::fs::write(portal.file("a.pdf"), b"a").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.until_delivered("a.pdf");
    eventually("it is recorded", || portal.upload("a.pdf")["delivered"].is_string());
    portal.sftp(&format!("rename {IN}/a.pdf {IN}/b.pdf\n")).well();
    portal.until_delivered("b.pdf");
    assert_eq!(portal.hotfolder_files().len(), 1);
}

#[test]
fn a_hanging_share_blocks_no_upload() {
    let portal = Setup::new().start("hang");
    // A hotfolder whose folder cannot be written stands for a share that answers with errors only.
    std::fs::remove_dir_all(portal.file("hotfolder/.ptportal-tmp")).ok();
    std::fs::write(portal.file("hotfolder/.ptportal-tmp"), b"in the way").unwrap();
    for n in 0..5 {
        std::fs::write(portal.file("a.pdf"), format!("datei {n}")).unwrap();
        portal.sftp(&format!("put a.pdf {IN}/a{n}.pdf\n")).well();
    }
    std::thread::sleep(Duration::from_millis(800));
    assert!(portal.hotfolder_files().is_empty());
    std::fs::remove_file(portal.file("hotfolder/.ptportal-tmp")).unwrap();
    portal.cli(&["delivery", "retry", "--all"]);
    eventually("all arrive", || portal.hotfolder_files().len() == 5);
}

#[test]
fn a_customer_who_deletes_a_delivered_file_touches_no_hotfolder() {
    let portal = Setup::new().start("deletedelivered");
    portal.put("a.bin", b"delivered").well();
    portal.until_delivered("a.bin");
    portal.sftp(&format!("rm {IN}/a.bin\n")).well();
    portal.put("b.bin", b"other").well();
    portal.until_delivered("b.bin");
    assert_eq!(std::fs::read(portal.delivered("a.bin")).unwrap(), b"delivered");
    assert!(portal.events("delivery.cancelled").is_empty());
    assert_eq!(portal.events("upload.deleted").len(), 1);
}

#[test]
fn what_is_delivered_can_be_read_and_changed_by_whom_the_settings_say_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let modes = |portal: &Instance, name: &str| {
        portal.put(name, b"for the RIP").well();
        portal.until_delivered(name);
        let mode = |path: std::path::PathBuf| {
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        let file = portal.delivered(name);
        (
            mode(file.clone()),
            mode(file.parent().unwrap().to_owned()),
            mode(portal.file("hotfolder/1001")),
        )
    };
    let portal = Setup::new().without_scanner().start("modes");
    assert_eq!(modes(&portal, "a.bin"), (0o664, 0o775, 0o775));
    // Where staff put their files.
    let own = portal.file("hotfolder/1001").join("2026-0815/Final");
    eventually("the folder for staff is there", || own.exists());
    assert_eq!(std::fs::metadata(own).unwrap().permissions().mode() & 0o777, 0o775);
    let portal = Setup::new()
        .without_scanner()
        .set("hotfolder", "file_mode", "\"0640\"")
        .set("hotfolder", "folder_mode", "\"0750\"")
        .start("modes2");
    assert_eq!(modes(&portal, "a.bin"), (0o640, 0o750, 0o750));
}
