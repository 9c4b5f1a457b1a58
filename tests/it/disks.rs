//! Disks that fill up, fail, or are taken away: told clearly, and nothing accepted is lost.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::disk::{SmallDisk, failing_disk};
use crate::support::http::curl;
use crate::support::instance::{IN, Setup};
use crate::support::{TempDir, eventually, noise};

#[test]
fn a_disk_that_fills_up_ends_the_upload_and_nothing_else() {
    let Some(disk) = SmallDisk::new(48, "1000") else { return };
    let data = disk.path().join("data").display().to_string();
    let portal = Setup::new().environment("PTPORTAL_DATA_DIR", &data).start("fulldisk");
    let first = noise(4_000_000, 1);
    portal.put("erste.bin", &first).well();
    // It does not know beforehand: the disk is full in the middle.
    let said = portal.put("zu-gross.bin", &noise(60_000_000, 2)).badly();
    assert!(said.err.contains("no-space") || said.err.contains("write-failed"), "{}", said.err);
    assert_eq!(portal.until_delivered("erste.bin"), first);
    // The part that came goes when the customer deletes it; then there is room again.
    portal.sftp(&format!("-rm {IN}/zu-gross.bin\n")).well();
    let second = noise(5_000_000, 3);
    eventually("there is room again", || portal.put("zweite.bin", &second).ok);
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
    portal.put("wartet.bin", &content).well();
    eventually("it is stuck", || portal.events("delivery.stuck").len() == 1);
    let target = Path::new(&root).join("1001/2026-0815/Eingehend/wartet.bin");
    assert!(!target.exists());
    std::fs::remove_file(filler).unwrap();
    portal.cli(&["delivery", "retry", "--all"]);
    eventually("it arrives", || target.exists());
    assert_eq!(std::fs::read(target).unwrap(), content);
}

#[test]
fn a_failed_fsync_is_never_taken_for_success() {
    let dir = TempDir::new("fsync");
    let (library, broken) = (failing_disk(dir.path()), dir.path().join("broken"));
    let portal = Setup::new()
        .environment("LD_PRELOAD", library.to_str().unwrap())
        .environment("BREAK_DISK", broken.to_str().unwrap())
        .start("eio");
    portal.put("vorher.bin", b"before").well();
    std::fs::write(&broken, "fsync").unwrap();
    let said = portal.put("kaputt.bin", &noise(300_000, 1)).badly();
    assert!(
        said.err.contains("write-failed") || said.err.contains("internal-error"),
        "{}",
        said.err
    );
    std::fs::remove_file(&broken).unwrap();
    // The same again works, and only that one arrives.
    let content = noise(300_000, 2);
    portal.put("kaputt.bin", &content).well();
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
        let said = portal.put(&name, &content);
        refused += usize::from(!said.ok);
        // What fails behind the answer fails in the delivery.
        std::thread::sleep(Duration::from_millis(300));
        std::fs::remove_file(&broken).unwrap();
        if !said.ok {
            portal.put(&name, &content).well();
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
    portal.put("vorher.bin", &content).well();
    assert_eq!(portal.until_delivered("vorher.bin"), content);
    std::fs::write(&broken, "write /spool/").unwrap();
    let said = portal.put("neu.bin", &content).badly();
    assert!(said.err.contains("write-failed"), "{said:?}");
    std::fs::write(&broken, "read /vault/").unwrap();
    // What cannot be read is not delivered.
    let unread = portal.put("ungelesen.bin", &content);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!portal.delivered("ungelesen.bin").exists(), "{unread:?}");
    std::fs::remove_file(&broken).unwrap();
    for name in ["neu.bin", "ungelesen.bin"] {
        portal.put(name, &content).well();
        portal.cli(&["delivery", "retry", "--all"]);
        assert_eq!(portal.until_delivered(name), content);
    }
    portal.sftp(&format!("get {IN}/vorher.bin got\n")).well();
    assert_eq!(std::fs::read(portal.file("got")).unwrap(), content);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(portal.hotfolder_files().len(), 3, "each once");
}

#[test]
fn a_write_that_failed_is_told_to_its_client_even_where_another_connection_met_it_first() {
    let dir = TempDir::new("eiotwo");
    let (library, broken) = (failing_disk(dir.path()), dir.path().join("broken"));
    let setup = Setup::new()
        .environment("LD_PRELOAD", library.to_str().unwrap())
        .environment("BREAK_DISK", broken.to_str().unwrap());
    let portal = crate::ftps::portal(setup, "eiotwo");
    let script = format!(
        "broken = {:?}\n\
         f = portal(); f.cwd(IN)\n\
         conn, _ = f.ntransfercmd('STOR a.bin')\n\
         def send(byte):\n\
         \x20   # Small ones are gathered: half a MiB makes one write, which nobody has asked about then.\n\
         \x20   for n in range(128): conn.sendall(byte * 4096); time.sleep(0.005)\n\
         send(b'a')\n\
         open(broken, 'w').write('write /spool/'); send(b'b')\n\
         time.sleep(1); os.remove(broken); time.sleep(5)\n\
         # The same customer comes again while the first connection is silent.\n\
         g = portal(); g.cwd(IN)\n\
         try: print('second', g.storbinary('STOR a.bin', io.BytesIO(b'new')))\n\
         except ftplib.Error as error: print('second', error)\n\
         try:\n\
         \x20   send(b'c'); conn.unwrap(); conn.close()\n\
         except OSError: pass\n\
         try: print('first', f.voidresp())\n\
         except ftplib.Error as error: print('first', error)\n",
        broken.display()
    );
    let said = portal.ftplib(&script).well();
    assert!(said.out.contains("first 4") || said.out.contains("first 5"), "{said:?}");
    std::thread::sleep(Duration::from_secs(1));
    for file in portal.hotfolder_files() {
        assert_eq!(std::fs::read(file).unwrap(), b"new", "{said:?}");
    }
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
    portal.put("vorher.bin", b"before").well();
    portal.until_delivered("vorher.bin");
    let filler = Filler::fill(&disk.path());
    let mut accepted = vec![("vorher.bin".to_owned(), b"before".to_vec())];
    let mut refused = 0;
    for n in 0..30 {
        let (name, content) = (format!("{n}.bin"), format!("content {n}").into_bytes());
        let said = portal.put(&name, &content);
        if said.ok {
            accepted.push((name, content));
        } else {
            refused += 1;
            assert!(said.err.contains('['), "refused without a word: {said:?}");
        }
    }
    assert!(refused > 0, "the disk was never full");
    drop(filler);
    eventually("it goes on by itself", || portal.put("danach.bin", b"after").ok);
    accepted.push(("danach.bin".to_owned(), b"after".to_vec()));
    for (name, content) in &accepted {
        assert_eq!(&portal.until_delivered(name), content);
    }
    let sound = portal.try_cli(&["fsck", "--deep"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
}

#[test]
fn a_start_on_a_full_disk_of_the_database_says_what_to_do() {
    let Some(disk) = SmallDisk::of_memory(4) else { return };
    let path = disk.path().display().to_string();
    let mut portal = Setup::new().environment("PTPORTAL_DATA_DIR", &path).start("fullstart");
    portal.kill();
    // The last one that closes the database takes its journal away.
    portal.cli(&["client", "list"]);
    let filler = Filler::fill(&disk.path());
    let said = portal.try_cli(&["serve"]);
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(text.contains("make room on the disk of the database"), "{text}");
    drop(filler);
    portal.serve();
    portal.put("danach.bin", b"after").well();
}

#[test]
fn a_full_disk_of_the_log_stops_nothing() {
    let Some(disk) = SmallDisk::new(8, "100") else { return };
    let log = format!("\"{}/server.log\"", disk.path().display());
    let portal = Setup::new().without_scanner().set("log", "file", &log).start("fulllog");
    portal.put("vorher.bin", b"before").well();
    let filler = Filler::fill(&disk.path());
    for n in 0..20 {
        portal.put(&format!("{n}.bin"), b"while the log is full").well();
    }
    eventually("all arrive", || portal.hotfolder_files().len() == 21);
    drop(filler);
    portal.put("danach.bin", b"after").well();
    let text = std::fs::read_to_string(disk.path().join("server.log")).unwrap();
    assert!(text.contains("danach.bin"), "it writes again");
}

#[test]
fn a_data_disk_that_turns_read_only_is_told_and_everything_accepted_is_there_after_its_repair() {
    let Some(disk) = SmallDisk::new(48, "1000") else { return };
    let data = disk.path().join("data").display().to_string();
    let mut portal = Setup::new()
        .set("hotfolder", "delivery_delay", "\"20s\"")
        .environment("PTPORTAL_DATA_DIR", &data)
        .start("readonly");
    let content = noise(300_000, 1);
    portal.put("angenommen.bin", &content).well();
    disk.break_down();
    let said = portal.put("danach.bin", b"too late");
    assert!(!said.ok && !said.err.is_empty(), "{said:?}");
    let ready = curl(&[&format!("http://127.0.0.1:{}/readyz", portal.admin_port)]);
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(portal.is_running());
    let log = portal.log();
    assert!(log.contains("ERROR"), "{log}");
    portal.kill();
    disk.mend();
    portal.serve();
    assert_eq!(portal.until_delivered("angenommen.bin"), content);
    assert_eq!(portal.hotfolder_files().len(), 1);
    portal.put("danach.bin", b"once more").well();
}

#[test]
fn a_hotfolder_that_turns_read_only_delays_and_loses_nothing() {
    let Some(disk) = SmallDisk::new(24, "1000") else { return };
    let root = disk.path().join("hotfolder").display().to_string();
    let portal = Setup::new().environment("PTPORTAL_HOTFOLDER__ROOT", &root).start("roshare");
    let remount = |how: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{how}")]).arg(disk.path());
        command.status().unwrap().success()
    };
    eventually("it is read-only", || remount("ro"));
    portal.put("wartet.bin", b"waits").well();
    eventually("it is stuck", || portal.events("delivery.stuck").len() == 1);
    let said = portal.events("delivery.stuck")[0].to_string();
    assert!(said.contains("ead-only"), "{said}");
    assert!(remount("rw"));
    portal.cli(&["delivery", "retry", "--all"]);
    let target = Path::new(&root).join("1001/2026-0815/Eingehend/wartet.bin");
    eventually("it arrives", || target.exists());
    assert_eq!(std::fs::read(target).unwrap(), b"waits");
}
