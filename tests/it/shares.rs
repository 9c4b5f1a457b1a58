//! Shares as print shops have them: they hang, they lose answers, they fail in the middle, they are NTFS.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::instance::{IN, Instance, PASSWORD, Setup};
use crate::support::{TempDir, eventually, noise};

/// A file system of a process, which can be told to misbehave.
struct Share {
    dir: TempDir,
    process: Child,
}

impl Share {
    fn start() -> Self {
        let dir = TempDir::new("share");
        let path = |name: &str| dir.path().join(name);
        for name in ["real", "mount"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/sharefs.py");
        let process = Command::new("/usr/bin/python3")
            .arg(script)
            .args([path("real"), path("mount"), path("control")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let share = Self { dir, process };
        let mount = share.root().display().to_string();
        eventually("the share is mounted", || {
            std::fs::read_to_string("/proc/mounts").unwrap().contains(&mount)
        });
        share
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// What lies on the share, seen past the misbehaviour.
    fn real(&self, name: &str) -> PathBuf {
        self.dir.path().join("real/1001/2026-0815/Eingehend").join(name)
    }

    fn set(&self, mode: &str) {
        std::fs::write(self.dir.path().join("control"), mode).unwrap();
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.signal("-CONT");
        Command::new("umount").arg("-l").arg(self.root()).status().ok();
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn with_share(share: &Share) -> Setup {
    let root = format!("\"{}\"", share.root().display());
    Setup::new().set("hotfolder", "root", &root).set("hotfolder", "delivery_delay", "\"0s\"")
}

fn put(portal: &Instance, name: &str, content: &[u8]) {
    std::fs::write(portal.file(name), content).unwrap();
    portal.sftp(&format!("put {name} {IN}/{name}\n")).well();
}

/// Takes what has appeared, as a RIP does.
fn take(share: &Share, taken: &mut BTreeMap<String, Vec<Vec<u8>>>) {
    let Ok(entries) = std::fs::read_dir(share.real("")) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && !name.starts_with('.') {
            let content = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            taken.entry(name).or_default().push(content);
        }
    }
}

#[test]
fn a_share_that_hangs_in_the_middle_holds_up_no_customer_and_all_arrives_in_order() {
    let share = Share::start();
    let portal = with_share(&share).start("hangingshare");
    put(&portal, "vorher.bin", b"before");
    eventually("it arrives", || share.real("vorher.bin").exists());
    // It stops in the middle of a copy, and the next time at a rename.
    let big = noise(40_000_000, 7);
    put(&portal, "gross.bin", &big);
    share.signal("-STOP");
    for n in 0..5 {
        put(&portal, "gleich.bin", format!("version {n}").as_bytes());
    }
    portal.set_password(PASSWORD);
    portal.curl_ftps(&format!("{IN}/"), &[]).well();
    portal.page("/", &[]).is(200);
    std::thread::sleep(Duration::from_secs(3));
    share.signal("-CONT");
    eventually("the big one arrives", || {
        std::fs::read(share.real("gross.bin")).is_ok_and(|content| content == big)
    });
    let last = share.real("gleich (5).bin");
    eventually("all versions arrive", || last.exists());
    for n in 0..5 {
        let name = if n == 0 { "gleich.bin".to_owned() } else { format!("gleich ({}).bin", n + 1) };
        let content = std::fs::read_to_string(share.real(&name)).unwrap();
        assert_eq!(content, format!("version {n}"), "{name}");
    }
}

#[test]
fn hooks_on_a_share_that_hangs_hold_up_no_customer_and_no_mail() {
    let share = Share::start();
    let dir = format!("\"{}\"", share.root().display());
    let portal = Setup::new()
        .set("hooks", "dir", &dir)
        .set("batch", "quiet", "\"2s\"")
        .start("hanginghooks");
    let real = |name: &str| share.dir.path().join("real").join(name);
    let note = "#!/bin/sh\necho \"$PTPORTAL_PATH\" >> \"$PTPORTAL_HOOKS_DIR/seen\"\n";
    std::fs::create_dir(real("upload.delivered")).unwrap();
    std::fs::write(real("upload.delivered/note"), note).unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(real("upload.delivered/note"), executable).unwrap();
    let seen = |lines: usize| {
        std::fs::read_to_string(real("seen")).is_ok_and(|text| text.lines().count() == lines)
    };
    put(&portal, "vorher.bin", b"before");
    eventually("its hook has run", || seen(1));
    eventually("its mail is queued", || portal.events("mail.queued").len() == 1);
    share.signal("-STOP");
    for n in 0..3 {
        put(&portal, &format!("{n}.bin"), format!("file {n}").as_bytes());
    }
    eventually("the mail about them is queued all the same", || {
        portal.events("mail.queued").len() == 2
    });
    portal.set_password(PASSWORD);
    portal.curl_ftps(&format!("{IN}/"), &[]).well();
    share.signal("-CONT");
    eventually("each hook has run once", || seen(4));
}

#[test]
fn a_rename_whose_answer_is_lost_delivers_once() {
    let share = Share::start();
    let portal = with_share(&share).start("lostanswer");
    let mut taken = BTreeMap::new();
    put(&portal, "vorher.bin", b"before");
    eventually("it arrives", || share.real("vorher.bin").exists());
    take(&share, &mut taken);
    share.set("rename-eio");
    for n in 0..6 {
        put(&portal, &format!("{n}.bin"), format!("file {n}").as_bytes());
    }
    eventually("all are taken", || {
        take(&share, &mut taken);
        taken.len() == 7
    });
    std::thread::sleep(Duration::from_secs(2));
    share.set("ok");
    eventually("the deliveries end", || {
        portal.cli(&["delivery", "list", "--state", "placing"]) == serde_json::json!([])
    });
    std::thread::sleep(Duration::from_secs(1));
    take(&share, &mut taken);
    for n in 0..6 {
        let contents = &taken[&format!("{n}.bin")];
        assert_eq!(contents, &[format!("file {n}").into_bytes()], "once and whole");
    }
    assert_eq!(taken.len(), 7, "{:?}", taken.keys());
}

#[test]
fn a_share_that_fails_to_write_read_or_sync_gets_each_file_once_it_works() {
    let share = Share::start();
    let portal = with_share(&share).start("failingshare");
    put(&portal, "vorher.bin", b"before");
    eventually("it arrives", || share.real("vorher.bin").exists());
    for mode in ["write-eio", "fsync-eio", "read-eio"] {
        share.set(mode);
        let name = format!("{mode}.bin");
        let content = noise(500_000, 3);
        put(&portal, &name, &content);
        std::thread::sleep(Duration::from_millis(1500));
        let is_there = share.real(&name).exists();
        assert!(!is_there || mode != "write-eio", "nothing that could not be written is shown");
        share.set("ok");
        portal.cli(&["delivery", "retry", "--all"]);
        eventually("it arrives", || {
            std::fs::read(share.real(&name)).is_ok_and(|found| found == content)
        });
    }
    let all = std::fs::read_dir(share.real("")).unwrap();
    let mut names: Vec<_> = all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["fsync-eio.bin", "read-eio.bin", "vorher.bin", "write-eio.bin"]);
}

/// Windows' own file system, which refuses the names that Windows refuses.
struct Ntfs(TempDir);

impl Ntfs {
    fn start() -> Self {
        let dir = TempDir::new("ntfs");
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let made = Command::new("mkntfs").args(["-F", "-Q", "-q"]).arg(&image).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let options = "windows_names,ignore_case";
        let mounted =
            Command::new("lowntfs-3g").args(["-o", options]).arg(&image).arg(&mount).output();
        let mounted = mounted.unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        assert!(std::fs::write(mount.join("CON.pdf"), "").is_err(), "it is like Windows");
        Self(dir)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("mount/hotfolder")
    }
}

impl Drop for Ntfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path().join("mount")).status().ok();
    }
}

/// Names that Windows, terminals or people do not like; `%` becomes a number, so that each is one of many.
const NASTY: &str = "NASTY = ['CON.pdf', 'con', 'PRN.tif', 'AUX', 'NUL.txt', 'COM1.pdf', 'lpt9.x', 'CLOCK$', 'a:b.pdf', \
    'a*b?.pdf', '<x>|y\".pdf', 'punkt.', 'blank ', ' vorn', 'a..b', 'a~1.pdf', 'ÄÖÜ ß.pdf', 'a\\u0308.pdf', \
    '\\u202egpj.exe', 'null\\u200bbreit', '\\ufeffbom.pdf', '日本語.pdf', '🖨️.pdf', 'e\\u0301' * 40, 'x' * 255, \
    'ä' * 127, 'Größe (1).pdf', '-rf', '--help', '$(touch x).pdf', '`id`.pdf', ';ls', '%00.pdf', '%2e%2e', \
    \"it's.pdf\", 'tab\\u00a0nbsp', '.versteckt', '...', '~', 'desktop.inix', 'a' * 200 + '.tar.gz', 'İstanbul.pdf', \
    'ſ.pdf', 'ﬁ.pdf', 'K.pdf', '１.pdf', '%s%n.pdf', 'PRN', 'nul', 'a.PDF', 'A.pdf']\n\
    names = [n if i == 0 else (n[:-4] if n.endswith('.pdf') else n)[:60] + str(i) + ('.pdf' if n.endswith('.pdf') else '') \
    for i in range(4) for n in NASTY]\n";

#[test]
fn two_hundred_nasty_names_arrive_on_ntfs_each_with_its_content() {
    let ntfs = Ntfs::start();
    let root = format!("\"{}\"", ntfs.root().display());
    let portal = Setup::new().set("hotfolder", "root", &root).start("ntfs");
    portal.set_password(PASSWORD);
    let by_sftp = portal
        .paramiko(&format!(
            "{NASTY}\
             s = portal(); taken = 0\n\
             for n in names[:100]:\n\
             \x20   try:\n\
             \x20       f = s.open(IN + '/' + n, 'wb'); f.write(('sftp ' + n).encode()); f.close(); taken += 1\n\
             \x20   except IOError as e: print('refused', ascii(n), e)\n\
             print('taken', taken)"
        ))
        .well();
    let by_ftps = portal
        .ftplib(&format!(
            "{NASTY}\
             f = portal(); taken = 0\n\
             for n in names[100:]:\n\
             \x20   try: f.storbinary('STOR ' + IN + '/' + n, io.BytesIO(('ftps ' + n).encode())); taken += 1\n\
             \x20   except ftplib.Error as e: print('refused', ascii(n), e)\n\
             print('taken', taken)"
        ))
        .well();
    let count = |out: &str| -> usize {
        let line = out.lines().find_map(|line| line.strip_prefix("taken ")).unwrap();
        line.parse().unwrap()
    };
    let (sftp, ftps) = (count(&by_sftp.out), count(&by_ftps.out));
    assert!(sftp > 85 && ftps > 85, "{} {}", by_sftp.out, by_ftps.out);
    let folder = ntfs.root().join("1001/2026-0815/Eingehend");
    let files = || -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    eventually("all are delivered", || files().len() >= sftp + ftps);
    let mut contents: Vec<String> =
        files().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    contents.sort();
    contents.dedup();
    assert_eq!(contents.len(), sftp + ftps, "each content is there, none twice, none mixed up");
}
