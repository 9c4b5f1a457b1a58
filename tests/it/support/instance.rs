//! The real server in a folder of its own, with a client, an account with a key, and a project.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::clamd::{Clamd, GOOD};
use super::{TempDir, eventually};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ptportal");
pub(crate) const USER: &str = "acme";
pub(crate) const PASSWORD: &str = "Ein gutes Kennwort 17";
pub(crate) const PROJECT: &str = "2026-0815";
/// The upload folder of the sample project.
pub(crate) const IN: &str = "/2026-0815/Eingehend";

/// What a test wants otherwise than usual.
pub(crate) struct Setup {
    /// Lines of ptportal.toml by section.
    lines: BTreeMap<&'static str, Vec<String>>,
    clamd: Option<Vec<&'static str>>,
    environment: Vec<(String, String)>,
    /// Behind all sections.
    tail: String,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let mut setup = Self {
            lines: BTreeMap::new(),
            clamd: Some(GOOD.to_vec()),
            environment: Vec::new(),
            tail: String::new(),
        };
        for (section, line) in [
            ("hotfolder", "root = \"hotfolder\""),
            ("hotfolder", "delivery_delay = \"200ms\""),
            ("limits", "min_free = \"1MiB\""),
            ("log", "file = \"server.log\""),
            ("log", "level = \"debug\""),
        ] {
            setup.lines.entry(section).or_default().push(line.to_owned());
        }
        setup
    }

    /// Sets a key; a later line replaces an earlier one of the same key.
    pub(crate) fn set(mut self, section: &'static str, key: &str, value: &str) -> Self {
        let lines = self.lines.entry(section).or_default();
        lines.retain(|line| !line.starts_with(&format!("{key} ")));
        lines.push(format!("{key} = {value}"));
        self
    }

    /// Sets a key unless the test has set it.
    fn default(self, section: &'static str, key: &str, value: &str) -> Self {
        let begins = |line: &String| line.starts_with(&format!("{key} "));
        if self.lines.get(section).is_some_and(|lines| lines.iter().any(begins)) {
            return self;
        }
        self.set(section, key, value)
    }

    pub(crate) fn clamd(mut self, settings: &[&'static str]) -> Self {
        self.clamd = Some(settings.to_vec());
        self
    }

    pub(crate) fn without_scanner(mut self) -> Self {
        self.clamd = None;
        self.set("scan", "clamd", "\"off\"").set("scan", "accept_unscanned", "true")
    }

    /// One more `[[webhook]]`.
    pub(crate) fn webhook(mut self, url: &str, events: &str, secret: &str) -> Self {
        self.tail.push_str(&format!(
            "[[webhook]]\nurl = \"{url}\"\nevents = {events}\nsecret = \"{secret}\"\n"
        ));
        self
    }

    pub(crate) fn environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn start(self, name: &str) -> Instance {
        Instance::start(name, self)
    }
}

pub(crate) struct Instance {
    dir: TempDir,
    pub(crate) port: u16,
    pub(crate) ftps_port: u16,
    pub(crate) admin_port: u16,
    pub(crate) web_port: u16,
    pub(crate) api_port: u16,
    server: Option<Child>,
    pub(crate) clamd: Option<Clamd>,
    environment: Vec<(String, String)>,
}

impl Instance {
    fn start(name: &str, mut setup: Setup) -> Self {
        let dir = TempDir::new(name);
        let clamd = setup.clamd.take().map(|settings| Clamd::start(dir.path(), &settings));
        if let Some(clamd) = &clamd
            && !setup.lines.get("scan").is_some_and(|l| l.iter().any(|l| l.starts_with("clamd ")))
        {
            let address = format!("\"unix:{}\"", clamd.socket().display());
            setup = setup.set("scan", "clamd", &address);
        }
        let (port, ftps_port, admin_port) = (free_port(), free_port(), free_port());
        let (web_port, api_port) = (free_port(), free_port());
        let local = |port: u16| format!("[\"127.0.0.1:{port}\"]");
        let setup = setup
            .set("sftp", "listen", &local(port))
            .set("ftps", "listen", &local(ftps_port))
            .set("admin", "listen", &local(admin_port))
            .set("web", "listen", &local(web_port))
            .set("api", "listen", &local(api_port));
        let is_https = setup.lines["web"].iter().any(|line| line == "tls = true");
        let scheme = if is_https { "https" } else { "http" };
        let setup =
            setup.default("web", "base_url", &format!("\"{scheme}://localhost:{web_port}\""));
        let setup = setup.default("ftps", "passive_ports", &passive_ports());
        let mut text = String::new();
        for (section, lines) in &setup.lines {
            text.push_str(&format!("[{section}]\n{}\n", lines.join("\n")));
        }
        text.push_str(&setup.tail);
        std::fs::write(dir.path().join("ptportal.toml"), text).unwrap();
        let environment = setup.environment;
        let server = None;
        let mut instance = Self {
            dir,
            port,
            ftps_port,
            admin_port,
            web_port,
            api_port,
            server,
            clamd,
            environment,
        };
        instance.sample_data();
        instance.serve();
        instance
    }

    /// A second server on the same database and data folder, with ports and a log of its own.
    pub(crate) fn beside(&self, name: &str) -> Self {
        let dir = TempDir::new(name);
        let own = |name: &str| self.file(name).display().to_string();
        let mut text = std::fs::read_to_string(self.file("ptportal.toml")).unwrap();
        let [port, ftps_port, admin_port, web_port, api_port] = [(); 5].map(|()| free_port());
        for (old, new) in [
            (self.port, port),
            (self.ftps_port, ftps_port),
            (self.admin_port, admin_port),
            (self.web_port, web_port),
            (self.api_port, api_port),
        ] {
            text = text.replace(&format!("127.0.0.1:{old}\""), &format!("127.0.0.1:{new}\""));
        }
        text = text.replace("root = \"hotfolder\"", &format!("root = {:?}", own("hotfolder")));
        text = text.replace("[sftp]\n", &format!("[sftp]\nhost_key_dir = {:?}\n", own("certs")));
        let (certificate, key) = (own("certs/server.crt"), own("certs/server.key"));
        let files = format!("[ftps]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
        text = text.replace("[ftps]\n", &files);
        let text = format!("data_dir = {:?}\n{text}", own("data"));
        std::fs::write(dir.path().join("ptportal.toml"), text).unwrap();
        for name in ["id", "id.pub"] {
            std::fs::copy(self.file(name), dir.path().join(name)).unwrap();
        }
        let (server, clamd, environment) = (None, None, self.environment.clone());
        let mut second = Self {
            dir,
            port,
            ftps_port,
            admin_port,
            web_port,
            api_port,
            server,
            clamd,
            environment,
        };
        second.serve();
        second
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the upload folder of the sample project is mirrored.
    pub(crate) fn delivered(&self, name: &str) -> PathBuf {
        self.file("hotfolder/1001").join(PROJECT).join("Eingehend").join(name)
    }

    fn sample_data(&self) {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(self.file("id"))
            .status();
        assert!(made.unwrap().success());
        self.cli(&["client", "add", "1001", "--name", "ACME & Söhne", "--create-hotfolder"]);
        self.cli(&["account", "create", "1001", "--username", USER]);
        self.cli(&["account", "key", "add", USER, self.file("id.pub").to_str().unwrap()]);
        self.cli(&["project", "add", "1001", PROJECT, "--description", "Plakate"]);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.path()).env_remove("PTPORTAL_LOG__LEVEL");
        command.arg("--config").arg(self.file("ptportal.toml"));
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    pub(crate) fn serve(&mut self) {
        self.spawn_server();
        let port = self.port;
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        if self.clamd.is_some() {
            let log = self.file("server.log");
            let started = self.server.as_ref().unwrap().id();
            eventually(&format!("the scanner of {started} is looked at"), || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let last = text.rsplit("sftp.listen").next().unwrap_or_default().to_owned();
                last.contains("scanner.ready") || last.contains("scanner.away")
            });
        }
    }

    /// Starts the process without waiting for anything.
    pub(crate) fn spawn_server(&mut self) {
        let err = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file("stderr"))
            .unwrap();
        let child = self.command().arg("serve").stdin(Stdio::null()).stderr(err).spawn().unwrap();
        self.server = Some(child);
    }

    /// From the next start on; empty takes it away.
    pub(crate) fn set_environment(&mut self, key: &str, value: &str) {
        self.environment.retain(|(k, _)| k != key);
        if !value.is_empty() {
            self.environment.push((key.to_owned(), value.to_owned()));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Waits until the server has ended by itself, and gives the signal that ended it.
    #[track_caller]
    pub(crate) fn until_ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let mut child = self.server.take().unwrap();
        let mut status = None;
        eventually("the server ends by itself", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().signal()
    }

    pub(crate) fn server_id(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// SIGKILL, as a power cut of the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.server.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for the clean end.
    pub(crate) fn stop(&mut self) {
        let mut child = self.server.take().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(child.wait().unwrap().success(), "{}", self.log());
    }

    pub(crate) fn try_cli(&self, arguments: &[&str]) -> Output {
        self.command().arg("--json").args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn try_cli_with_input(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut command = self.command();
        command.arg("--json").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs a command with `--json` that must succeed, and reads what it prints.
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str]) -> Value {
        let output = self.try_cli(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn set_password(&self, password: &str) {
        let output = self.try_cli_with_input(
            &["account", "password", USER, "--stdin"],
            &format!("{password}\n"),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The newest upload whose path ends so.
    #[track_caller]
    pub(crate) fn upload(&self, path: &str) -> Value {
        let all = self.cli(&["upload", "list"]);
        let found =
            all.as_array().unwrap().iter().find(|u| u["path"].as_str().unwrap().ends_with(path));
        found.unwrap_or_else(|| panic!("no upload {path} in {all:#}")).clone()
    }

    #[track_caller]
    pub(crate) fn until_state(&self, path: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let started = std::time::Instant::now();
        while started.elapsed() < std::time::Duration::from_secs(60) {
            last = self.upload(path);
            if last["state"] == state {
                return last;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{path} never became {state}: {last:#}\n{}", self.log());
    }

    /// Waits for a delivered file and gives its content.
    #[track_caller]
    pub(crate) fn until_delivered(&self, name: &str) -> Vec<u8> {
        let path = self.delivered(name);
        eventually(&format!("{name} is delivered"), || path.exists());
        std::fs::read(path).unwrap()
    }

    /// Changes rows as nothing but time, or an accident, does.
    #[track_caller]
    pub(crate) fn sql(&self, statement: &str) {
        let script = "import sqlite3, sys\n\
                      c = sqlite3.connect(sys.argv[1], timeout=20)\nc.execute(sys.argv[2])\nc.commit()";
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", script]).arg(self.file("data/ptportal.db")).arg(statement);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// KiB of the server by a name of `/proc/PID/status`: `VmRSS` now, `VmHWM` at its highest.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server_id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.cli(&["events", "--kind", kind]).as_array().unwrap().clone()
    }

    pub(crate) fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.file(name)).unwrap_or_default();
        format!("--- log\n{}--- stderr\n{}", read("server.log"), read("stderr"))
    }

    /// Every visible file in the hotfolder.
    pub(crate) fn hotfolder_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.file("hotfolder")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let hidden = path.file_name().unwrap().to_str().unwrap().starts_with('.');
                match (hidden, path.is_dir()) {
                    (true, _) => {}
                    (false, true) => dirs.push(path),
                    (false, false) => found.push(path),
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        } else {
            let log = self.log();
            let is_bug = |line: &&str| {
                let told = ["panicked at", "a bug of ptportal"];
                told.iter().any(|t| line.contains(t)) && !line.contains("asked for at")
            };
            let bug = log.lines().find(is_bug);
            assert!(bug.is_none(), "{bug:?}\n{log}");
        }
        self.kill();
    }
}

/// Ports of one test that runs beside others.
const PORTS: u16 = 1000;

/// The first of two ranges of this test's own, below the ports that the system gives to clients.
fn first_port() -> u16 {
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse().ok());
    12_000 + slot.unwrap_or(0u16) % 10 * PORTS * 2
}

/// The first of the range after that of [`free_port`].
pub(crate) fn first_passive_port() -> u16 {
    first_port() + PORTS
}

fn passive_ports() -> String {
    let first = first_passive_port();
    format!("\"{first}-{}\"", first + PORTS - 1)
}

/// A port that nothing listens on, in a range of this test's own: it is bound only later, and no other test may come in
/// between.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = first_port();
    // Not the ports of the test before: a connection of its last moments may still hold them.
    let start = (std::process::id() % u32::from(PORTS)) as u16;
    loop {
        let port = first + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
