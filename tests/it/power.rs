//! Power that fails: the disk as it was at a moment, with nothing of what only the memory knew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::instance::{IN, Setup};
use crate::support::{TempDir, eventually, noise};

const CUTS: usize = 6;

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {error}")) }
}

/// Something mounted, until this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&at).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()])?;
        Ok(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]).ok();
    }
}

/// A disk in a file, on a file system that copies files in a moment.
struct Disk {
    // In the order in which they go.
    disk: Mounted,
    below: Mounted,
    dir: TempDir,
}

impl Disk {
    /// Nothing where this machine has no loop devices or no XFS: then the test says so.
    fn start() -> Option<Self> {
        let dir = TempDir::new("power");
        let (image, below) = (dir.path().join("xfs"), dir.path().join("below"));
        std::fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
        run("mkfs.xfs", &["-q", "-m", "reflink=1", image.to_str().unwrap()]).unwrap();
        let below = match Mounted::new(&image, below) {
            Ok(below) => below,
            Err(error) => {
                println!("no XFS here, not tested: {error}");
                return None;
            }
        };
        let image = below.0.join("disk.img");
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]).unwrap();
        let disk = Mounted::new(&image, dir.path().join("disk")).unwrap();
        Some(Self { disk, below, dir })
    }

    /// The power fails: gives the disk as it is now.
    fn cut(&self, n: usize) -> PathBuf {
        let (from, to) = (self.below.0.join("disk.img"), self.below.0.join(format!("cut-{n}.img")));
        let (from, target) = (from.to_str().unwrap(), to.to_str().unwrap());
        run("cp", &["--reflink=always", from, target]).unwrap();
        to
    }
}

#[test]
fn after_a_power_cut_everything_accepted_is_there_once_and_whole() {
    let Some(disk) = Disk::start() else { return };
    let at = |base: &Path, name: &str| base.join(name).display().to_string();
    let mut portal = Setup::new()
        .set("hotfolder", "delivery_delay", "\"0s\"")
        .environment("PTPORTAL_DATA_DIR", &at(&disk.disk.0, "data"))
        .environment("PTPORTAL_HOTFOLDER__ROOT", &at(&disk.disk.0, "hotfolder"))
        .start("power");
    let (accepted, tried) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut cuts = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let n = next.fetch_add(1, Ordering::AcqRel);
                    let name = format!("datei-{n:04}.bin");
                    let content = noise([800, 60_000, 900_000][(n % 3) as usize], n + 1);
                    std::fs::write(portal.file(&name), &content).unwrap();
                    tried.lock().unwrap().insert(name.clone(), content.clone());
                    if portal.sftp(&format!("put {name} {IN}/{name}\n")).ok {
                        accepted.lock().unwrap().insert(name, content);
                    }
                }
            });
        }
        for n in 0..CUTS {
            std::thread::sleep(Duration::from_millis(700 + 130 * n as u64));
            // What the clients had been told before the cut.
            let before: Vec<String> = accepted.lock().unwrap().keys().cloned().collect();
            cuts.push((disk.cut(n), before));
        }
        stop.store(true, Ordering::Release);
    });
    portal.stop();
    let tried = tried.into_inner().unwrap();
    let mut proved = 0;
    for (n, (image, before)) in cuts.iter().enumerate() {
        let again = Mounted::new(image, disk.dir.path().join(format!("again-{n}"))).unwrap();
        portal.set_environment("PTPORTAL_DATA_DIR", &at(&again.0, "data"));
        portal.set_environment("PTPORTAL_HOTFOLDER__ROOT", &at(&again.0, "hotfolder"));
        portal.serve();
        eventually("everything is settled", || {
            ["pending", "placing"].iter().all(|state| {
                portal.cli(&["delivery", "list", "--state", state]) == serde_json::json!([])
            }) && portal.cli(&["upload", "list", "--state", "scanning"]) == serde_json::json!([])
        });
        let folder = again.0.join("hotfolder/1001/2026-0815/Eingehend");
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let sent = tried.get(&name).unwrap_or_else(|| panic!("cut {n}: {name}"));
            assert!(&std::fs::read(&path).unwrap() == sent, "cut {n}: {name} is not whole");
        }
        for name in before {
            assert!(folder.join(name).exists(), "cut {n}: {name} was accepted and is lost");
        }
        let sound = portal.try_cli(&["fsck", "--deep"]);
        assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
        proved += before.len();
        portal.stop();
    }
    assert!(proved > 30, "{proved} accepted uploads before the cuts");
    println!("{CUTS} cuts, {proved} accepted uploads looked for");
}
