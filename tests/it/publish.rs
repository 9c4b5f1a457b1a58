//! The way back: what staff put into the hotfolder is what the customer sees, and nothing else.

use std::time::{Duration, Instant};

use crate::support::instance::{Instance, PROJECT, Setup};
use crate::support::orders::ini;
use crate::support::smtp::Smtp;
use crate::support::{MARKER, eventually, noise};

fn staff(portal: &Instance, folder: &str) -> std::path::PathBuf {
    portal.file("hotfolder/1001").join(PROJECT).join(folder)
}

fn start(setup: Setup, name: &str) -> Instance {
    let portal = setup.set("hotfolder", "poll", "\"1s\"").start(name);
    let folder = staff(&portal, "Final");
    eventually("the folders for staff are made", || folder.is_dir());
    portal
}

/// What the customer sees in a folder.
fn seen(portal: &Instance, folder: &str) -> Vec<String> {
    let said = portal.sftp(&format!("ls -1 \"/{PROJECT}/{folder}\"\n")).well();
    let lines = said.out.lines().filter(|line| !line.starts_with("sftp>"));
    lines
        .map(|line| line.rsplit('/').next().unwrap().trim().to_owned())
        .filter(|l| !l.is_empty())
        .collect()
}

#[track_caller]
fn until_seen(portal: &Instance, folder: &str, names: &[&str]) {
    eventually(&format!("{folder} shows {names:?}"), || seen(portal, folder) == names);
}

#[test]
fn files_of_staff_appear_change_and_go() {
    let portal = start(Setup::new(), "publish");
    let folder = staff(&portal, "Final");
    let content = noise(3_000_000, 5);
    let began = Instant::now();
    std::fs::create_dir(folder.join("Korrektur")).unwrap();
    std::fs::write(folder.join("Korrektur/Müller.pdf"), &content).unwrap();
    std::fs::write(staff(&portal, "In Bearbeitung").join("proof.pdf"), "%PDF proof").unwrap();
    // What is hidden, temporary, a lock or a link is nobody's business.
    for name in [".versteckt", "x.tmp", "~$brief.docx", "Thumbs.db"] {
        std::fs::write(folder.join(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", folder.join("passwd")).unwrap();
    until_seen(&portal, "Final", &["Korrektur"]);
    eventually("the file is shown", || {
        portal.sftp(&format!("ls \"/{PROJECT}/Final/Korrektur/Müller.pdf\"\n")).ok
    });
    until_seen(&portal, "In Bearbeitung", &["proof.pdf"]);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    portal.sftp(&format!("get \"/{PROJECT}/Final/Korrektur/Müller.pdf\" got.pdf\n")).well();
    assert_eq!(std::fs::read(portal.file("got.pdf")).unwrap(), content);
    let event = portal
        .events("file.published")
        .into_iter()
        .find(|e| e["path"] == "Final/Korrektur/Müller.pdf");
    assert_eq!(event.unwrap()["detail"]["verdict"], "clean");
    // The customer can change nothing there, and what is shown is never delivered.
    portal.sftp(&format!("rm \"/{PROJECT}/In Bearbeitung/proof.pdf\"\n")).badly();
    assert!(portal.cli(&["delivery", "list"]).as_array().unwrap().is_empty());
    let status = portal.sftp(&format!("get /{PROJECT}/Status.txt status.txt\n"));
    status.well();
    assert!(
        std::fs::read_to_string(portal.file("status.txt"))
            .unwrap()
            .contains("für Sie bereitgestellt")
    );
    // A change follows as a whole.
    std::fs::write(staff(&portal, "In Bearbeitung").join("proof.pdf"), "%PDF second proof")
        .unwrap();
    eventually("the change follows", || {
        portal.sftp(&format!("get \"/{PROJECT}/In Bearbeitung/proof.pdf\" got.pdf\n")).well();
        std::fs::read(portal.file("got.pdf")).unwrap() == b"%PDF second proof"
    });
    // One removal follows; the folder above goes with its last file.
    std::fs::remove_dir_all(folder.join("Korrektur")).unwrap();
    until_seen(&portal, "Final", &[]);
    assert_eq!(portal.events("file.withdrawn").len(), 1);
}

#[test]
fn a_file_that_grows_is_shown_when_it_is_whole() {
    use std::io::Write;
    let portal = start(Setup::new().without_scanner(), "growing");
    let path = staff(&portal, "Final").join("gross.pdf");
    let mut file = std::fs::File::create(&path).unwrap();
    let (began, mut written) = (Instant::now(), 0);
    // Slower than two looks, faster than the quiet time.
    while began.elapsed() < Duration::from_secs(14) {
        file.write_all(&[7; 1000]).unwrap();
        written += 1000;
        assert!(seen(&portal, "Final").is_empty(), "half a file is shown");
        std::thread::sleep(Duration::from_millis(500));
    }
    until_seen(&portal, "Final", &["gross.pdf"]);
    portal.sftp(&format!("get /{PROJECT}/Final/gross.pdf got.pdf\n")).well();
    assert_eq!(std::fs::metadata(portal.file("got.pdf")).unwrap().len(), written);
    assert_eq!(portal.cli(&["upload", "list"]).as_array().unwrap().len(), 1, "taken over once");
}

#[test]
fn an_infected_file_of_staff_is_never_shown_and_operators_are_told() {
    let smtp = Smtp::start("ok");
    let portal = start(
        Setup::new().set("mail", "operators", "[\"vorstufe@druckerei.example\"]"),
        "infectedstaff",
    );
    std::fs::write(portal.file("client.ini"), ini(smtp.port, 0, 0, 0)).unwrap();
    portal.cli(&["client", "set", "1001", "--email", "einkauf@kunde.example"]);
    let path = staff(&portal, "Final").join("böse.pdf");
    std::fs::write(&path, [b"%PDF ", MARKER].concat()).unwrap();
    let mails = smtp.until_mails(1);
    assert!(mails[0].text.contains("Ptportal.Test.Marker"), "{}", mails[0].text);
    assert!(mails[0].text.contains("im Hotfolder unter „Final“ liegt"), "{}", mails[0].text);
    assert!(seen(&portal, "Final").is_empty());
    // It is not tried again and again.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(portal.events("upload.infected").len(), 1);
    assert_eq!(smtp.mails().len(), 1, "and the customer has no mail about it");
    portal.sftp(&format!("get /{PROJECT}/Status.txt status.txt\n")).well();
    let status = std::fs::read_to_string(portal.file("status.txt")).unwrap();
    assert!(!status.contains("böse.pdf"), "{status}");
    assert!(path.exists(), "the hotfolder is staff's");
    std::fs::write(&path, "%PDF sauber").unwrap();
    until_seen(&portal, "Final", &["böse.pdf"]);
}

#[test]
fn many_removals_and_a_share_that_is_away_wait_for_an_operator() {
    let portal = start(Setup::new().without_scanner(), "mass");
    let folder = staff(&portal, "Final");
    for n in 0..6 {
        std::fs::write(folder.join(format!("{n}.pdf")), "x").unwrap();
    }
    eventually("all are shown", || seen(&portal, "Final").len() == 6);
    // The share is away: an empty folder without the marker tells nothing.
    let (root, aside) = (portal.file("hotfolder"), portal.file("aside"));
    std::fs::rename(&root, &aside).unwrap();
    std::fs::create_dir(&root).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(seen(&portal, "Final").len(), 6);
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&aside, &root).unwrap();
    for n in 0..3 {
        std::fs::remove_file(folder.join(format!("{n}.pdf"))).unwrap();
    }
    eventually("the removals are held", || portal.events("publish.held").len() == 1);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(seen(&portal, "Final").len(), 6);
    let held = portal.cli(&["publish", "list"]);
    assert_eq!((&held[0]["missing"], &held[0]["total"]), (&3.into(), &6.into()), "{held:#}");
    assert_eq!(portal.events("publish.held").len(), 1, "told once");
    portal.cli(&["publish", "confirm", PROJECT]);
    eventually("they follow", || seen(&portal, "Final") == ["3.pdf", "4.pdf", "5.pdf"]);
    eventually("nothing waits any more", || {
        portal.cli(&["publish", "list"]).as_array().unwrap().is_empty()
    });
    assert!(!portal.try_cli(&["publish", "confirm", PROJECT]).status.success());
    // Put back, nothing waits.
    std::fs::remove_file(folder.join("3.pdf")).unwrap();
    std::fs::remove_file(folder.join("4.pdf")).unwrap();
    eventually("held again", || portal.events("publish.held").len() == 2);
    for n in [3, 4] {
        std::fs::write(folder.join(format!("{n}.pdf")), "back").unwrap();
    }
    eventually("forgotten again", || {
        portal.cli(&["publish", "list"]).as_array().unwrap().is_empty()
    });
    assert_eq!(seen(&portal, "Final").len(), 3);
}

#[test]
fn a_kill_while_files_are_taken_over_leaves_each_shown_once_and_whole() {
    let mut portal = start(Setup::new().without_scanner(), "publishkill");
    let folder = staff(&portal, "Final");
    let contents: Vec<Vec<u8>> = (0..12).map(|n| noise(4_000_000, n + 1)).collect();
    for (n, content) in contents.iter().enumerate() {
        std::fs::write(folder.join(format!("{n:02}.bin")), content).unwrap();
    }
    for round in 0..5 {
        std::thread::sleep(Duration::from_millis(5200 + 40 * round));
        portal.kill();
        portal.serve();
    }
    eventually("all are shown", || seen(&portal, "Final").len() == 12);
    for (n, content) in contents.iter().enumerate() {
        portal.sftp(&format!("get /{PROJECT}/Final/{n:02}.bin got.bin\n")).well();
        assert_eq!(&std::fs::read(portal.file("got.bin")).unwrap(), content, "{n}");
    }
    let released = portal.cli(&["upload", "list", "--state", "released"]);
    assert_eq!(released.as_array().unwrap().len(), 12, "each once: {released:#}");
    assert_eq!(portal.events("file.published").len(), 12);
}

#[test]
fn taken_files_are_told_and_so_are_those_that_nobody_takes() {
    let setup = Setup::new().without_scanner().set("hotfolder", "waiting_after", "\"3s\"");
    let portal = start(setup, "taken");
    for name in ["a.pdf", "b.pdf"] {
        std::fs::write(portal.file(name), name).unwrap();
        portal.sftp(&format!("put {name} /{PROJECT}/Eingehend/{name}\n")).well();
        portal.until_delivered(name);
    }
    std::fs::remove_file(portal.delivered("a.pdf")).unwrap();
    eventually("it is noticed", || portal.events("delivery.taken").len() == 1);
    assert_eq!(portal.events("delivery.taken")[0]["path"], "Eingehend/a.pdf");
    eventually("the other waits", || portal.events("delivery.waiting").len() == 1);
    assert_eq!(portal.events("delivery.waiting")[0]["path"], "Eingehend/b.pdf");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(portal.events("delivery.waiting").len(), 1, "told once");
    portal.sftp(&format!("get /{PROJECT}/Status.txt status.txt\n")).well();
    let status = std::fs::read_to_string(portal.file("status.txt")).unwrap();
    let line = |name: &str| status.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("a.pdf").contains("in Bearbeitung genommen"), "{status}");
    assert!(line("b.pdf").contains("an die Produktion übergeben"), "{status}");
}

#[test]
fn a_mail_can_announce_what_is_ready() {
    let smtp = Smtp::start("ok");
    let setup = Setup::new().without_scanner().set("batch", "quiet", "\"3s\"");
    let portal = start(setup, "ready");
    std::fs::write(portal.file("client.ini"), ini(smtp.port, 0, 0, 0)).unwrap();
    portal.cli(&["client", "set", "1001", "--email", "einkauf@kunde.example"]);
    portal.cli(&["template", "set", "Hotfolder Daten bereit", "--active"]);
    for n in 0..3 {
        std::fs::write(staff(&portal, "Final").join(format!("{n}.pdf")), "x").unwrap();
    }
    let mails = smtp.until_mails(1);
    assert!(mails[0].header("To").contains("einkauf@kunde.example"));
    assert!(
        mails[0].text.contains("0.pdf") && mails[0].text.contains("2.pdf"),
        "{}",
        mails[0].text
    );
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(smtp.mails().len(), 1, "one for all three");
}

#[test]
fn a_folder_that_cannot_be_read_hides_no_other_and_links_lead_nowhere() {
    let portal = start(Setup::new().without_scanner(), "unreadable");
    portal.cli(&["project", "add", "1001", "A-1"]);
    let other = portal.file("hotfolder/1001/A-1");
    eventually("its folders are made", || other.join("Final").is_dir());
    // A file where the folder should be, and a folder that is a link to somewhere else.
    std::fs::remove_dir(other.join("Final")).unwrap();
    std::fs::write(other.join("Final"), "no folder").unwrap();
    std::fs::remove_dir(other.join("In Bearbeitung")).unwrap();
    std::fs::create_dir(portal.file("secret")).unwrap();
    std::fs::write(portal.file("secret/key.pem"), "secret").unwrap();
    std::os::unix::fs::symlink(portal.file("secret"), other.join("In Bearbeitung")).unwrap();
    std::fs::write(staff(&portal, "Final").join("gut.pdf"), "x").unwrap();
    until_seen(&portal, "Final", &["gut.pdf"]);
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(
        portal.cli(&["upload", "list"]).as_array().unwrap().len(),
        1,
        "the link was not followed"
    );
    let log = portal.log();
    assert_eq!(
        log.matches("a folder of the share cannot be looked at").count(),
        2,
        "each told once"
    );
    assert!(log.contains("links are not followed"), "{log}");
}
