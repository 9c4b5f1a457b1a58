//! A real SMTP server process that can be told to misbehave, and the mails that it took.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::instance::free_port;
use super::{TempDir, eventually};

pub(crate) struct Smtp {
    dir: TempDir,
    pub(crate) port: u16,
    server: Option<Child>,
    arguments: Vec<PathBuf>,
}

/// One mail as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// Decoded, one header a line.
    pub(crate) headers: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

impl Mail {
    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self.headers.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default()
    }

    /// The activation link in the text part.
    #[track_caller]
    pub(crate) fn link(&self) -> String {
        let word = self.text.split_whitespace().find(|word| word.contains("/activate/"));
        word.unwrap_or_else(|| panic!("no link in {}", self.text)).to_owned()
    }
}

impl Smtp {
    pub(crate) fn start(mode: &str) -> Self {
        Self::prepare(mode, None, None)
    }

    /// Demands a login.
    pub(crate) fn with_login(login: &str) -> Self {
        Self::prepare("ok", Some(login), None)
    }

    /// Offers STARTTLS with a certificate and its key.
    pub(crate) fn with_tls(certificate: PathBuf, key: PathBuf) -> Self {
        Self::prepare("ok", None, Some([certificate, key]))
    }

    fn prepare(mode: &str, login: Option<&str>, tls: Option<[PathBuf; 2]>) -> Self {
        let dir = TempDir::new("smtp");
        std::fs::write(dir.path().join("mode"), mode).unwrap();
        if let Some(login) = login {
            std::fs::write(dir.path().join("auth"), login).unwrap();
        }
        let port = free_port();
        let arguments = tls.map(Vec::from).unwrap_or_default();
        let mut smtp = Self { dir, port, server: None, arguments };
        smtp.up();
        smtp
    }

    /// Starts it (again).
    pub(crate) fn up(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/portal/smtp.py");
        // Debian's own Python has Debian's packages.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(self.port.to_string()).arg(self.dir.path()).args(&self.arguments);
        let log = std::fs::File::create(self.dir.path().join("stderr")).unwrap();
        self.server = Some(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
        let port = self.port;
        eventually("the mail server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    pub(crate) fn down(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    pub(crate) fn set_mode(&self, mode: &str) {
        std::fs::write(self.dir.path().join("mode"), mode).unwrap();
    }

    /// Where mails lie as `N.eml`.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Every mail so far, oldest first.
    pub(crate) fn mails(&self) -> Vec<Mail> {
        let mut found = Vec::new();
        for n in 1.. {
            let path = self.dir.path().join(format!("{n}.eml"));
            if !path.exists() {
                return found;
            }
            found.push(read_mail(&path));
        }
        found
    }

    #[track_caller]
    pub(crate) fn until_mails(&self, count: usize) -> Vec<Mail> {
        eventually(&format!("{count} mails arrive"), || self.mails().len() >= count);
        self.mails()
    }
}

/// Read by Python's own parser, which knows nothing of ours.
pub(crate) fn read_mail(path: &std::path::Path) -> Mail {
    const SCRIPT: &str = "import sys, json, email\nfrom email import policy\n\
        m = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=policy.default)\n\
        body = lambda kind: m.get_body((kind,)).get_content()\n\
        headers = '\\n'.join(f'{k}: {v}' for k, v in m.items())\n\
        print(json.dumps([headers, body('plain'), body('html')]))";
    let output = Command::new("/usr/bin/python3").args(["-c", SCRIPT]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [headers, text, html]: [String; 3] = serde_json::from_slice(&output.stdout).unwrap();
    Mail { headers, text, html }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- mail server\n{}", self.log());
        }
        self.down();
    }
}
