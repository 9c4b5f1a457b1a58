//! A PostgreSQL of a test's own.

use std::process::{Command, Stdio};

use super::TempDir;
use super::instance::free_port;

/// A PostgreSQL of the test's own, which may be stopped.
pub(crate) struct Postgres {
    dir: TempDir,
    port: u16,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let (dir, port) = (TempDir::new("ownpg"), free_port());
        let chown = Command::new("chown").arg("postgres").arg(dir.path()).status();
        let is_root = chown.is_ok_and(|status| status.success());
        let own = Self { dir, port };
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

    pub(crate) fn up(&self) {
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
    }

    pub(crate) fn down(&self) {
        let mut command = self.tool("pg_ctl", true);
        command.args(["-D", "data", "-m", "immediate", "stop"]).stdout(Stdio::null()).status().ok();
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://ptportal@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.down();
    }
}
