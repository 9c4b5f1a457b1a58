//! A receiver of webhooks that can be told to misbehave, and the calls that it got.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::instance::free_port;
use super::{TempDir, eventually};

pub(crate) struct Receiver {
    dir: TempDir,
    pub(crate) port: u16,
    server: Child,
}

impl Receiver {
    pub(crate) fn start(mode: &str) -> Self {
        let dir = TempDir::new("receiver");
        std::fs::write(dir.path().join("mode"), mode).unwrap();
        let port = free_port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workflow/webhook.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(port.to_string()).arg(dir.path());
        let server = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the receiver listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { dir, port, server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn set_mode(&self, mode: &str) {
        std::fs::write(self.dir.path().join("mode"), mode).unwrap();
    }

    pub(crate) fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    pub(crate) fn until_calls(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} calls arrive"), || self.calls().len() >= count);
        self.calls()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
