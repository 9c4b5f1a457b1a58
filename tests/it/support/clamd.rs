//! A real clamd of the test's own, with EICAR and a marker as signatures.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::io::{Read, Write};

use super::{MARKER, eventually};

/// Settings that most tests want.
pub(crate) const GOOD: &[&str] = &[
    "StreamMaxLength 0",
    "MaxFileSize 0",
    "MaxScanSize 20G",
    "MaxScanTime 1200000",
    "AlertExceedsMax yes",
    "AlertEncrypted yes",
    "MaxThreads 4",
];

pub(crate) struct Clamd {
    dir: PathBuf,
    child: Option<Child>,
}

impl Clamd {
    pub(crate) fn start(dir: &Path, settings: &[&str]) -> Self {
        let dir = dir.join("clamd");
        for name in ["db", "tmp"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let signatures = format!(
            "Eicar-Test-Signature:0:*:{}\nPtportal.Test.Marker:0:*:{}\nPUA.Test.Doubtful:0:*:{}\n",
            hex::encode(super::eicar()),
            hex::encode(MARKER),
            hex::encode(b"PTPORTAL-DOUBTFUL-MARKER-11aa22bb"),
        );
        std::fs::write(dir.join("db/test.ndb"), signatures).unwrap();
        let mut clamd = Self { dir, child: None };
        clamd.configure(settings);
        clamd.run();
        clamd
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("clamd.sock")
    }

    fn configure(&self, settings: &[&str]) {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut text = format!(
            "LocalSocket {}\nDatabaseDirectory {}\nTemporaryDirectory {}\nLogFile {}\nForeground yes\n",
            at("clamd.sock"),
            at("db"),
            at("tmp"),
            at("clamd.log"),
        );
        for line in settings {
            text.push_str(line);
            text.push('\n');
        }
        std::fs::write(self.dir.join("clamd.conf"), text).unwrap();
    }

    /// Starts it (again) with the present settings.
    pub(crate) fn run(&mut self) {
        std::fs::remove_file(self.socket()).ok();
        let child = Command::new("clamd")
            .arg("--config-file")
            .arg(self.dir.join("clamd.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("clamd is installed by `make test`");
        self.child = Some(child);
        let socket = self.socket();
        eventually("clamd answers", || ping(&socket));
    }

    /// SIGKILL, as a crash.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        std::fs::remove_file(self.socket()).ok();
    }

    /// SIGSTOP: connections succeed, answers never come.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

fn ping(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let mut answer = String::new();
    stream.write_all(b"zPING\0").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer == "PONG\0"
}

impl Drop for Clamd {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.thaw();
            self.kill();
        }
    }
}
