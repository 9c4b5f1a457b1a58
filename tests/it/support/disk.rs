//! Disks that are small, or fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::TempDir;

/// A small file system of its own, in a file.
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Nothing where this machine has no loop devices: then the test says so.
    pub(crate) fn new(megabytes: u32, inodes: &str) -> Option<Self> {
        let dir = TempDir::new("disk");
        let image = dir.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(u64::from(megabytes) << 20).unwrap();
        let made =
            // Blocks of 1 KiB, where SQLite's shared memory is in most danger.
            Command::new("mkfs.ext4").args(["-q", "-b", "1024", "-m", "0", "-N", inodes]).arg(&image).status();
        assert!(made.unwrap().success());
        let disk = Self { dir };
        std::fs::create_dir(disk.path()).unwrap();
        disk.mount().then_some(disk)
    }

    /// The same in memory, with blocks of 4 KiB.
    pub(crate) fn of_memory(megabytes: u32) -> Option<Self> {
        let disk = Self { dir: TempDir::new("disk") };
        std::fs::create_dir(disk.path()).unwrap();
        let size = format!("size={megabytes}m");
        disk.mounted(&["-t", "tmpfs", "-o", &size, "tmpfs"]).then_some(disk)
    }

    fn mount(&self) -> bool {
        let image = self.dir.path().join("image").display().to_string();
        self.mounted(&["-o", "loop,errors=remount-ro", &image])
    }

    fn mounted(&self, what: &[&str]) -> bool {
        let mut command = Command::new("mount");
        command.args(what).arg(self.path());
        let mounted = command.output().unwrap();
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr);
            println!("this cannot be mounted here, not tested: {why}");
        }
        mounted.status.success()
    }

    /// What the kernel does when it finds the file system damaged: from now on nothing can be written.
    #[track_caller]
    pub(crate) fn break_down(&self) {
        let mut command = Command::new("findmnt");
        let output = command.args(["-no", "SOURCE"]).arg(self.path()).output().unwrap();
        let device = String::from_utf8(output.stdout).unwrap();
        let name = device.trim().rsplit('/').next().unwrap();
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    }

    /// What an operator does then; nobody may have a file open there.
    #[track_caller]
    pub(crate) fn mend(&self) {
        assert!(Command::new("umount").arg(self.path()).status().unwrap().success());
        let mut command = Command::new("e2fsck");
        command.arg("-fy").arg(self.dir.path().join("image"));
        // 1: errors were corrected.
        assert!(command.output().unwrap().status.code().unwrap() <= 1);
        assert!(self.mount());
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
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
