//! Disks that fill up or fail, databases that are away, locked, old or newer: told clearly, and nothing accepted is lost.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::instance::{IN, Instance, Setup, free_port};
use crate::support::{TempDir, eventually, noise};

/// A small file system of its own, in a file.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Nothing where this machine has no loop devices: then the test says so.
    fn new(megabytes: u32, inodes: &str) -> Option<Self> {
        let dir = TempDir::new("disk");
        let image = dir.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(u64::from(megabytes) << 20).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-m", "0", "-N", inodes]).arg(&image).status();
        assert!(made.unwrap().success());
        let disk = Self { dir };
        std::fs::create_dir(disk.path()).unwrap();
        let mounted = Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(disk.path())
            .output()
            .unwrap();
        if mounted.status.success() {
            return Some(disk);
        }
        println!("no loop devices here, not tested: {}", String::from_utf8_lossy(&mounted.stderr));
        None
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
}

fn put(portal: &Instance, name: &str, content: &[u8]) -> crate::support::clients::Said {
    std::fs::write(portal.file("a.bin"), content).unwrap();
    portal.sftp(&format!("put a.bin {IN}/{name}\n"))
}

#[test]
fn a_disk_that_fills_up_ends_the_upload_and_nothing_else() {
    let Some(disk) = SmallDisk::new(48, "1000") else { return };
    let data = disk.path().join("data").display().to_string();
    let portal = Setup::new().environment("PTPORTAL_DATA_DIR", &data).start("fulldisk");
    let first = noise(4_000_000, 1);
    put(&portal, "erste.bin", &first).well();
    // It does not know beforehand: the disk is full in the middle.
    let said = put(&portal, "zu-gross.bin", &noise(60_000_000, 2)).badly();
    assert!(said.err.contains("no-space") || said.err.contains("write-failed"), "{}", said.err);
    assert_eq!(portal.until_delivered("erste.bin"), first);
    // The part that came goes when the customer deletes it; then there is room again.
    portal.sftp(&format!("-rm {IN}/zu-gross.bin\n")).well();
    let second = noise(5_000_000, 3);
    eventually("there is room again", || put(&portal, "zweite.bin", &second).ok);
    assert_eq!(portal.until_delivered("zweite.bin"), second);
    portal.sftp(&format!("get {IN}/erste.bin got\n")).well();
    assert_eq!(std::fs::read(portal.file("got")).unwrap(), first);
    assert_eq!(portal.hotfolder_files().len(), 2);
}

#[test]
fn a_disk_without_inodes_is_told_and_what_was_accepted_arrives() {
    let Some(disk) = SmallDisk::new(64, "300") else { return };
    let data = disk.path().join("data").display().to_string();
    let portal = Setup::new().environment("PTPORTAL_DATA_DIR", &data).start("inodes");
    std::fs::create_dir(portal.file("viele")).unwrap();
    for n in 0..200 {
        std::fs::write(portal.file("viele").join(format!("{n:03}.txt")), format!("{n}")).unwrap();
    }
    let batch: String =
        (0..200).map(|n| format!("-put viele/{n:03}.txt {IN}/{n:03}.txt\n")).collect();
    let said = portal.sftp(&batch);
    assert!(
        said.err.contains("no-space")
            || said.err.contains("write-failed")
            || said.err.contains("internal"),
        "{}",
        said.err
    );
    let released = portal.cli(&["upload", "list", "--state", "released"]);
    let count = released.as_array().unwrap().len();
    assert!(count > 20 && count < 200, "{count}");
    eventually("all that was accepted arrives", || portal.hotfolder_files().len() == count);
}

#[test]
fn a_full_hotfolder_delays_and_loses_nothing() {
    let Some(disk) = SmallDisk::new(24, "1000") else { return };
    let root = disk.path().join("hotfolder").display().to_string();
    let portal = Setup::new().environment("PTPORTAL_HOTFOLDER__ROOT", &root).start("fullshare");
    let filler = disk.path().join("filler");
    std::fs::write(&filler, noise(18_000_000, 9)).unwrap();
    let content = noise(6_000_000, 4);
    put(&portal, "wartet.bin", &content).well();
    eventually("it is stuck", || portal.events("delivery.stuck").len() == 1);
    let target = Path::new(&root).join("1001/2026-0815/Eingehend/wartet.bin");
    assert!(!target.exists());
    std::fs::remove_file(filler).unwrap();
    portal.cli(&["delivery", "retry", "--all"]);
    eventually("it arrives", || target.exists());
    assert_eq!(std::fs::read(target).unwrap(), content);
}

/// A library under the program that makes its disk fail (see there).
pub(crate) fn failing_disk(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/disk.c");
    let library = dir.join("disk.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    library
}

#[test]
fn a_failed_fsync_is_never_taken_for_success() {
    let dir = TempDir::new("fsync");
    let (library, broken) = (failing_disk(dir.path()), dir.path().join("broken"));
    let portal = Setup::new()
        .environment("LD_PRELOAD", library.to_str().unwrap())
        .environment("BREAK_DISK", broken.to_str().unwrap())
        .start("eio");
    put(&portal, "vorher.bin", b"before").well();
    std::fs::write(&broken, "fsync").unwrap();
    let said = put(&portal, "kaputt.bin", &noise(300_000, 1)).badly();
    assert!(
        said.err.contains("write-failed") || said.err.contains("internal-error"),
        "{}",
        said.err
    );
    std::fs::remove_file(&broken).unwrap();
    // The same again works, and only that one arrives.
    let content = noise(300_000, 2);
    put(&portal, "kaputt.bin", &content).well();
    assert_eq!(portal.until_delivered("kaputt.bin"), content);
    assert_eq!(portal.until_delivered("vorher.bin"), b"before");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(portal.hotfolder_files().len(), 2);
}

#[test]
fn whichever_fsync_fails_the_file_arrives_once_or_the_client_is_told() {
    let dir = TempDir::new("nthfsync");
    let (library, broken) = (failing_disk(dir.path()), dir.path().join("broken"));
    let portal = Setup::new()
        .environment("LD_PRELOAD", library.to_str().unwrap())
        .environment("BREAK_DISK", broken.to_str().unwrap())
        .set("hotfolder", "delivery_delay", "\"0s\"")
        .start("nthfsync");
    let mut refused = 0;
    for n in 1..=16u64 {
        let name = format!("{n:02}.bin");
        let content = noise(200_000, n);
        std::fs::write(&broken, format!("fsync {n}")).unwrap();
        let said = put(&portal, &name, &content);
        refused += usize::from(!said.ok);
        // What fails behind the answer fails in the delivery.
        std::thread::sleep(Duration::from_millis(300));
        std::fs::remove_file(&broken).unwrap();
        if !said.ok {
            put(&portal, &name, &content).well();
        }
        portal.cli(&["delivery", "retry", "--all"]);
        assert_eq!(portal.until_delivered(&name), content, "fsync {n}: {said:?}");
    }
    assert!(refused >= 3, "{refused} of 16 failures met an upload");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(portal.hotfolder_files().len(), 16, "each once");
    let sound = portal.try_cli(&["fsck", "--deep"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
}

#[test]
fn a_disk_that_cannot_be_written_or_read_is_told_and_loses_nothing() {
    let dir = TempDir::new("eiodisk");
    let (library, broken) = (failing_disk(dir.path()), dir.path().join("broken"));
    let portal = Setup::new()
        .environment("LD_PRELOAD", library.to_str().unwrap())
        .environment("BREAK_DISK", broken.to_str().unwrap())
        .start("eiodisk");
    let content = noise(900_000, 5);
    put(&portal, "vorher.bin", &content).well();
    assert_eq!(portal.until_delivered("vorher.bin"), content);
    std::fs::write(&broken, "write /spool/").unwrap();
    let said = put(&portal, "neu.bin", &content).badly();
    assert!(said.err.contains("write-failed"), "{said:?}");
    std::fs::write(&broken, "read /vault/").unwrap();
    // What cannot be read is not delivered.
    let unread = put(&portal, "ungelesen.bin", &content);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!portal.delivered("ungelesen.bin").exists(), "{unread:?}");
    std::fs::remove_file(&broken).unwrap();
    for name in ["neu.bin", "ungelesen.bin"] {
        put(&portal, name, &content).well();
        portal.cli(&["delivery", "retry", "--all"]);
        assert_eq!(portal.until_delivered(name), content);
    }
    portal.sftp(&format!("get {IN}/vorher.bin got\n")).well();
    assert_eq!(std::fs::read(portal.file("got")).unwrap(), content);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(portal.hotfolder_files().len(), 3, "each once");
}

/// Fills a disk to the last byte; the file goes when this is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(dir: &Path) -> Self {
        let path = dir.join("filler");
        for block in ["1M", "4k", "1"] {
            let mut command = Command::new("dd");
            command.args(["if=/dev/zero", "oflag=append", "conv=notrunc", "status=none"]);
            command.arg(format!("bs={block}")).arg(format!("of={}", path.display()));
            command.stderr(Stdio::null()).status().unwrap();
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[test]
fn a_full_disk_of_the_database_refuses_uploads_and_loses_none() {
    let Some(disk) = SmallDisk::new(24, "1000") else { return };
    // Only the database lies there; SQLite keeps its journal beside the file itself.
    let data = TempDir::new("fulldb-data");
    let file = disk.path().join("ptportal.db");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&file, data.path().join("ptportal.db")).unwrap();
    let data = data.path().display().to_string();
    let portal = Setup::new().environment("PTPORTAL_DATA_DIR", &data).start("fulldb");
    put(&portal, "vorher.bin", b"before").well();
    portal.until_delivered("vorher.bin");
    let filler = Filler::fill(&disk.path());
    let mut accepted = vec![("vorher.bin".to_owned(), b"before".to_vec())];
    let mut refused = 0;
    for n in 0..30 {
        let (name, content) = (format!("{n}.bin"), format!("content {n}").into_bytes());
        let said = put(&portal, &name, &content);
        if said.ok {
            accepted.push((name, content));
        } else {
            refused += 1;
            assert!(said.err.contains('['), "the client is told: {said:?}");
        }
    }
    assert!(refused > 0, "the disk was never full");
    drop(filler);
    eventually("it goes on by itself", || put(&portal, "danach.bin", b"after").ok);
    accepted.push(("danach.bin".to_owned(), b"after".to_vec()));
    for (name, content) in &accepted {
        assert_eq!(&portal.until_delivered(name), content);
    }
    let sound = portal.try_cli(&["fsck", "--deep"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
}

#[test]
fn a_full_disk_of_the_log_stops_nothing() {
    let Some(disk) = SmallDisk::new(8, "100") else { return };
    let log = format!("\"{}/server.log\"", disk.path().display());
    let portal = Setup::new().without_scanner().set("log", "file", &log).start("fulllog");
    put(&portal, "vorher.bin", b"before").well();
    let filler = Filler::fill(&disk.path());
    for n in 0..20 {
        put(&portal, &format!("{n}.bin"), b"while the log is full").well();
    }
    eventually("all arrive", || portal.hotfolder_files().len() == 21);
    drop(filler);
    put(&portal, "danach.bin", b"after").well();
    let text = std::fs::read_to_string(disk.path().join("server.log")).unwrap();
    assert!(text.contains("danach.bin"), "it writes again");
}

/// A PostgreSQL of the test's own, which may be stopped.
struct Postgres {
    dir: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    fn start() -> Self {
        let (dir, port) = (TempDir::new("ownpg"), free_port());
        let chown = Command::new("chown").arg("postgres").arg(dir.path()).status();
        let is_root = chown.is_ok_and(|status| status.success());
        let mut own = Self { dir, port, server: None };
        let made = own
            .tool("initdb", is_root)
            .args(["-A", "trust", "-U", "ptportal", "--no-sync", "-D", "data"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        own.up();
        own
    }

    fn tool(&self, name: &str, is_root: bool) -> Command {
        let listed = std::fs::read_dir("/usr/lib/postgresql").unwrap();
        let newest = listed.map(|e| e.unwrap().path()).max().unwrap();
        let program = newest.join("bin").join(name);
        let mut command = if is_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn up(&mut self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1",
            self.port,
            self.dir.path().display()
        );
        let log = self.dir.path().join("data/log");
        let mut command = self.tool("pg_ctl", true);
        command.args(["-D", "data", "-w", "-l"]).arg(log).args(["-o", &options, "start"]);
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(started.success());
        self.server = None;
    }

    fn down(&self) {
        let mut command = self.tool("pg_ctl", true);
        command.args(["-D", "data", "-m", "immediate", "stop"]).stdout(Stdio::null()).status().ok();
    }

    fn url(&self) -> String {
        format!("postgres://ptportal@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.down();
    }
}

#[test]
fn a_postgresql_that_stops_and_comes_back_loses_nothing_accepted() {
    let mut postgres = Postgres::start();
    let portal =
        Setup::new().set("database", "url", &format!("\"{}\"", postgres.url())).start("pgdown");
    put(&portal, "vorher.bin", b"before").well();
    portal.until_delivered("vorher.bin");
    postgres.down();
    let said = put(&portal, "waehrend.bin", b"while it is away");
    assert!(!said.ok, "nothing is accepted that cannot be written down");
    postgres.up();
    eventually("it works again by itself", || put(&portal, "danach.bin", b"after").ok);
    assert_eq!(portal.until_delivered("danach.bin"), b"after");
    // Several short outages in the middle of uploads: what the client saw succeed arrives.
    let mut accepted = Vec::new();
    for round in 0..4 {
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let names: Vec<String> = (0..6).map(|n| format!("{round}-{n}.bin")).collect();
                let ok: Vec<String> = names
                    .into_iter()
                    .filter(|name| put(&portal, name, name.as_bytes()).ok)
                    .collect();
                ok
            });
            std::thread::sleep(Duration::from_millis(300));
            postgres.down();
            std::thread::sleep(Duration::from_millis(700));
            postgres.up();
            accepted.extend(sending.join().unwrap());
        });
    }
    for name in &accepted {
        assert_eq!(portal.until_delivered(name), name.as_bytes());
    }
    let delivered = portal.hotfolder_files();
    assert!(
        delivered.iter().all(|path| !path.to_string_lossy().contains(" (2)")),
        "none twice: {delivered:?}"
    );
}

/// Another process takes the database for some seconds.
fn lock_for(portal: &Instance, seconds: u32) -> Child {
    let script = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)\n\
                  c.execute('BEGIN EXCLUSIVE')\nopen(sys.argv[2], 'w').close()\ntime.sleep(int(sys.argv[3]))\nc.execute('COMMIT')";
    let held = portal.file("held");
    let holder = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(portal.file("data/ptportal.db"))
        .arg(&held)
        .arg(seconds.to_string())
        .spawn()
        .unwrap();
    eventually("it is locked", || held.exists());
    holder
}

#[test]
fn a_database_that_another_process_holds_locked_delays_and_loses_nothing() {
    let portal = Setup::new().start("locked");
    let mut holder = lock_for(&portal, 4);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let portal = &portal;
            scope.spawn(move || {
                let name = format!("{n}.bin");
                std::fs::write(portal.file(&name), &name).unwrap();
                portal.sftp(&format!("put {name} {IN}/{name}\n")).well();
            });
        }
        scope.spawn(|| portal.cli(&["ticket", "add", crate::support::instance::PROJECT, "T-1"]));
    });
    assert!(holder.wait().unwrap().success());
    for n in 0..4 {
        assert_eq!(portal.until_delivered(&format!("{n}.bin")), format!("{n}.bin").as_bytes());
    }
}

#[test]
fn a_database_that_is_locked_for_half_a_minute_takes_no_ok_that_it_does_not_keep() {
    let portal = Setup::new().start("longlock");
    let holder = lock_for(&portal, 30);
    let mut accepted = Vec::new();
    std::thread::scope(|scope| {
        let sending: Vec<_> = (0..4)
            .map(|n| {
                let portal = &portal;
                scope.spawn(move || {
                    let name = format!("{n}.bin");
                    std::fs::write(portal.file(&name), &name).unwrap();
                    let said = portal.sftp(&format!("put {name} {IN}/{name}\n"));
                    (name, said.ok)
                })
            })
            .collect();
        accepted.extend(sending.into_iter().map(|sent| sent.join().unwrap()));
    });
    assert!(holder.wait_with_output().unwrap().status.success());
    for (name, ok) in &accepted {
        if !ok {
            portal.sftp(&format!("put {name} {IN}/{name}\n")).well();
        }
        assert_eq!(portal.until_delivered(name), name.as_bytes());
    }
    assert_eq!(portal.hotfolder_files().len(), 4, "each once");
}

#[test]
fn what_came_after_an_older_database_is_found_and_brought_back() {
    let mut portal = Setup::new().start("older");
    put(&portal, "alt.bin", b"old").well();
    portal.until_delivered("alt.bin");
    portal.stop();
    for name in ["ptportal.db", "ptportal.db-wal"] {
        std::fs::copy(portal.file("data").join(name), portal.file(name)).ok();
    }
    portal.serve();
    for n in 0..10 {
        put(&portal, &format!("neu-{n}.bin"), format!("new {n}").as_bytes()).well();
    }
    eventually("all are delivered", || portal.hotfolder_files().len() == 11);
    portal.stop();
    for name in ["ptportal.db-wal", "ptportal.db-shm"] {
        std::fs::remove_file(portal.file("data").join(name)).ok();
    }
    for name in ["ptportal.db", "ptportal.db-wal"] {
        std::fs::copy(portal.file(name), portal.file("data").join(name)).ok();
    }
    portal.serve();
    let output = portal.try_cli(&["fsck"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let orphans = report["problems"].as_array().unwrap();
    assert_eq!(orphans.len(), 10, "{report:#}");
    assert!(orphans.iter().all(|p| p["problem"] == "orphan"), "{report:#}");
    let output = portal.try_cli(&["fsck", "--repair"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let held = portal.cli(&["upload", "list", "--state", "held"]);
    assert_eq!(held.as_array().unwrap().len(), 10);
    // The customer sees them; nothing is delivered a second time by itself.
    let listed = portal.sftp(&format!("ls -1 {IN}\n")).well().out;
    assert!(listed.contains("neu-7.bin"), "{listed}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(portal.hotfolder_files().len(), 11);
}

#[test]
fn a_database_of_a_newer_version_stops_the_start() {
    let mut portal = Setup::new().without_scanner().start("newer");
    portal.stop();
    portal.sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', 1, X'00', 0)");
    let output = portal.try_cli(&["serve"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("999"), "{error}");
}

#[test]
fn a_customer_who_deletes_a_delivered_file_touches_no_hotfolder() {
    let portal = Setup::new().start("deletedelivered");
    put(&portal, "a.bin", b"delivered").well();
    portal.until_delivered("a.bin");
    portal.sftp(&format!("rm {IN}/a.bin\n")).well();
    put(&portal, "b.bin", b"other").well();
    portal.until_delivered("b.bin");
    assert_eq!(std::fs::read(portal.delivered("a.bin")).unwrap(), b"delivered");
    assert!(portal.events("delivery.cancelled").is_empty());
    assert_eq!(portal.events("upload.deleted").len(), 1);
}
