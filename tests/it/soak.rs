//! The whole under load: customers over both protocols, a consumer, staff, kills and faults one after the other, and at the
//! end a program that holds the server to invariants I1 to I16 (`tests/soak/check.py`).

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::MARKER;
use crate::support::disk::failing_disk;
use crate::support::instance::{BINARY, IN, Instance, PASSWORD, PROJECT, Setup, USER, free_port};
use crate::support::smtp::Smtp;

const OTHER: &str = "zweite";
const OTHER_PASSWORD: &str = "Noch ein gutes Kennwort 23";
/// `whsec_` and 24 bytes of base64.
const WEBHOOK_SECRET: &str = "whsec_c29hayBzb2FrIHNvYWsgc29hayBz";
const HOOK: &str = "#!/bin/sh\necho \"$PTPORTAL_EVENT_ID $PTPORTAL_EVENT $PTPORTAL_UPLOAD_ID\" >> \"$PTPORTAL_HOOKS_DIR/../hooks.log\"\n";

struct Soak {
    portal: Instance,
    smtp: Smtp,
    webhook_port: u16,
}

/// What goes wrong, and how long it lasts; the server's own ends take no time.
#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Restart,
    ScannerKilled,
    ScannerFrozen,
    ShareAway,
    ShareAwayAndKill,
    MailAway,
    DatabaseLocked,
    DiskFails,
}

/// In this order, so that also a short run sees the worst.
const STORM: [Fault; 9] = [
    Fault::Kill,
    Fault::ScannerKilled,
    Fault::ShareAwayAndKill,
    Fault::Restart,
    Fault::ScannerFrozen,
    Fault::ShareAway,
    Fault::DiskFails,
    Fault::MailAway,
    Fault::DatabaseLocked,
];
/// What one process lives through, so that its memory can be looked at.
const UNREST: [Fault; 4] =
    [Fault::ScannerFrozen, Fault::ShareAway, Fault::MailAway, Fault::ScannerKilled];

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

impl Soak {
    fn prepare() -> Self {
        let smtp = Smtp::start("ok");
        let dir = crate::support::TempDir::new("preload");
        let library = failing_disk(dir.path());
        let webhook_port = free_port();
        let url = format!("http://127.0.0.1:{webhook_port}/");
        let mut portal = Setup::new()
            .set("hotfolder", "delivery_delay", "\"100ms\"")
            .set("scan", "answer_within", "\"2s\"")
            .set("limits", "connections_per_ip", "300")
            .set("limits", "sessions_per_account", "60")
            .set("log", "level", "\"info\"")
            .webhook(&url, r#"["upload.released", "upload.delivered"]"#, WEBHOOK_SECRET)
            .start("soak");
        portal.stop();
        let kept = portal.file("disk.so");
        std::fs::copy(library, &kept).unwrap();
        portal.set_environment("LD_PRELOAD", kept.to_str().unwrap());
        portal.set_environment("BREAK_DISK", portal.file("broken").to_str().unwrap());
        let ini =
            format!("SMTP-Server=127.0.0.1\nPort={}\nEmail=portal@druckerei.example\n", smtp.port);
        std::fs::write(portal.file("client.ini"), ini).unwrap();
        std::os::unix::fs::symlink(smtp.folder(), portal.file("mails")).unwrap();
        for event in ["upload.released", "upload.delivered"] {
            crate::hooks::hook(&portal, event, "10-note", HOOK);
        }
        std::fs::write(portal.file("hooks.log"), "").unwrap();
        portal.set_password(PASSWORD);
        portal.cli(&["client", "set", "1001", "--email", "firma@kunde.example"]);
        let mail = "zweite@kunde.example";
        portal.cli(&[
            "client",
            "add",
            "1002",
            "--name",
            "Zweite",
            "--email",
            mail,
            "--create-hotfolder",
        ]);
        portal.cli(&["account", "create", "1002", "--username", OTHER]);
        portal.cli(&["account", "key", "add", OTHER, portal.file("id.pub").to_str().unwrap()]);
        portal.cli(&["project", "add", "1002", &format!("{PROJECT}-2"), "--description", "Karten"]);
        let password = ["account", "password", OTHER, "--stdin"];
        let set = portal.try_cli_with_input(&password, &format!("{OTHER_PASSWORD}\n"));
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        Self { portal, smtp, webhook_port }
    }

    /// What the programs of `tests/soak` read.
    fn write_settings(&self, pause: f64) {
        let portal = &self.portal;
        let others = format!("1002/{PROJECT}-2/Eingehend");
        let foreign = json!({
            format!("hotfolder/1001/{PROJECT}/Eingehend/von anderen.pdf"): "not ours\n",
            // A name that a customer is about to use.
            format!("hotfolder/1001/{PROJECT}/Eingehend/{USER}-0-1.bin"): "not ours either\n",
            format!("hotfolder/{others}/{OTHER}-1-2.bin"): "and this\n",
        });
        for (path, content) in foreign.as_object().unwrap() {
            std::fs::create_dir_all(portal.file(path).parent().unwrap()).unwrap();
            std::fs::write(portal.file(path), content.as_str().unwrap()).unwrap();
        }
        let settings = json!({
            "port": portal.port, "ftps_port": portal.ftps_port, "web_port": portal.web_port,
            "binary": BINARY, "marker": hex::encode(MARKER), "pause": pause, "webhook_port": self.webhook_port,
            "webhook_secret": WEBHOOK_SECRET, "foreign": foreign,
            "migrations": concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"),
            "hotfolders": [format!("hotfolder/1001/{PROJECT}/Eingehend"), format!("hotfolder/{others}")],
            "accounts": [
                {"user": USER, "password": PASSWORD, "key": "id", "folder": IN, "client": "1001", "mail": "firma@kunde.example"},
                {"user": OTHER, "password": OTHER_PASSWORD, "key": "id", "folder": format!("/{PROJECT}-2/Eingehend"),
                 "client": "1002", "mail": "zweite@kunde.example"},
            ],
        });
        std::fs::write(portal.file("soak.json"), settings.to_string()).unwrap();
        std::fs::create_dir_all(portal.file("journals")).unwrap();
    }

    fn program(&self, name: &str, more: &[&str]) -> Child {
        let script = format!("{}/tests/soak/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-B").arg(script).arg(self.portal.path()).args(more);
        command.stdin(Stdio::null()).spawn().unwrap()
    }

    fn note(&self, what: Value) {
        let path = self.portal.file("journals/faults.jsonl");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{what}").unwrap();
    }

    /// Starts the server, and notes how long it was until somebody is let in.
    fn serve(&mut self) {
        let began = Instant::now();
        self.portal.spawn_server();
        let port = self.portal.port;
        let is_up = || {
            let mut greeting = [0u8; 4];
            std::net::TcpStream::connect(("127.0.0.1", port))
                .is_ok_and(|mut line| line.read_exact(&mut greeting).is_ok())
        };
        while !is_up() {
            assert!(began.elapsed() < Duration::from_secs(60) && self.portal.is_running());
            std::thread::sleep(Duration::from_millis(5));
        }
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap();
        std::fs::write(self.portal.file("server.pid"), self.portal.server_id().to_string())
            .unwrap();
        self.note(json!({"t": now(), "what": "start", "ms": ms}));
    }

    fn descriptors(&self, what: &str) {
        let pid = self.portal.server_id();
        let count = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        self.note(json!({"t": now(), "what": what, "descriptors": count, "pid": pid}));
    }

    /// A fault that customers live through: nothing accepted is lost, and both protocols go on.
    fn lasting(&mut self, what: &str, on: impl FnOnce(&mut Self), off: impl FnOnce(&mut Self)) {
        on(self);
        let from = now();
        std::thread::sleep(Duration::from_secs(5));
        self.note(json!({"t": from, "until": now(), "what": what}));
        off(self);
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => {
                self.portal.kill();
                self.note(json!({"t": now(), "what": "kill -9"}));
                self.serve();
            }
            Fault::Restart => {
                self.portal.stop();
                self.note(json!({"t": now(), "what": "stop"}));
                self.serve();
            }
            Fault::ScannerKilled => self.lasting(
                "scanner killed",
                |soak| soak.portal.clamd.as_mut().unwrap().kill(),
                |soak| soak.portal.clamd.as_mut().unwrap().run(),
            ),
            Fault::ScannerFrozen => self.lasting(
                "scanner frozen",
                |soak| soak.portal.clamd.as_ref().unwrap().freeze(),
                |soak| soak.portal.clamd.as_ref().unwrap().thaw(),
            ),
            Fault::ShareAway => self.lasting("share away", Self::unmount, Self::mount),
            Fault::ShareAwayAndKill => {
                self.unmount();
                std::thread::sleep(Duration::from_secs(1));
                self.strike(Fault::Kill);
                std::thread::sleep(Duration::from_secs(2));
                self.mount();
            }
            Fault::MailAway => {
                self.lasting("mail away", |soak| soak.smtp.down(), |soak| soak.smtp.up());
            }
            Fault::DatabaseLocked => {
                self.note(json!({"t": now(), "what": "database locked"}));
                let script = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], timeout=120, isolation_level=None)\n\
                              c.execute('BEGIN IMMEDIATE')\ntime.sleep(3)";
                let mut command = Command::new("/usr/bin/python3");
                command.args(["-c", script]).arg(self.portal.file("data/ptportal.db"));
                assert!(command.status().unwrap().success());
            }
            Fault::DiskFails => {
                self.note(json!({"t": now(), "what": "disk fails"}));
                std::fs::write(self.portal.file("broken"), "write /spool/").unwrap();
                std::thread::sleep(Duration::from_secs(3));
                std::fs::remove_file(self.portal.file("broken")).unwrap();
            }
        }
    }

    /// What an unmounted share leaves: the empty folder.
    fn unmount(&mut self) {
        std::fs::rename(self.portal.file("hotfolder"), self.portal.file("hotfolder.away")).unwrap();
        std::fs::create_dir(self.portal.file("hotfolder")).unwrap();
    }

    fn mount(&mut self) {
        // That it is still empty is part of the promise.
        std::fs::remove_dir(self.portal.file("hotfolder")).unwrap();
        std::fs::rename(self.portal.file("hotfolder.away"), self.portal.file("hotfolder")).unwrap();
    }

    /// For a look at what was: a copy in the folder that `PTPORTAL_SOAK_KEEP` names.
    fn keep(&self) {
        let Ok(to) = std::env::var("PTPORTAL_SOAK_KEEP") else { return };
        let mut command = Command::new("cp");
        command.arg("-rL").arg(self.portal.path()).arg(to);
        // Sockets cannot be copied, all else is.
        command.stderr(Stdio::null()).status().unwrap();
    }

    /// With all faults over, everything is done within a minute.
    fn until_settled(&self) {
        let began = Instant::now();
        loop {
            let left = left_to_do(&self.portal);
            if left.is_empty() {
                return;
            }
            if began.elapsed() > Duration::from_secs(60) {
                self.keep();
                panic!("not settled after a minute: {left}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn storm(&mut self, faults: &[Fault], lasts: Duration, calm: Duration) {
        let began = Instant::now();
        for fault in faults.iter().cycle() {
            if began.elapsed() >= lasts {
                return;
            }
            std::thread::sleep(calm);
            self.strike(*fault);
        }
    }
}

/// How many rows wait for something to be done.
fn left_to_do(portal: &Instance) -> String {
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=20)\n\
        for t, w in (('uploads', \"state IN ('receiving', 'scanning')\"), ('deliveries', 'open = 1'), ('hook_runs', 'open = 1'),\n\
        \x20            ('mails', \"state IN ('queued', 'sending')\")):\n\
        \x20   n = c.execute(f'SELECT COUNT(*) FROM {t} WHERE {w}').fetchone()[0]\n\
        \x20   if n: print(t, n, c.execute(f'SELECT * FROM {t} WHERE {w}').fetchone())";
    let mut command = Command::new("/usr/bin/python3");
    let output =
        command.args(["-c", script]).arg(portal.file("data/ptportal.db")).output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn soak(customers: u32, lasts: Duration, calm: Duration, pause: f64) {
    let mut soak = Soak::prepare();
    soak.write_settings(pause);
    soak.serve();
    std::thread::sleep(Duration::from_secs(3));
    soak.descriptors("idle");
    let mut shop = soak.program("shop.py", &[]);
    let mut customers = soak.program("customers.py", &[&customers.to_string()]);
    soak.storm(&STORM, lasts * 2 / 3, calm);
    soak.strike(Fault::Kill);
    soak.storm(&UNREST, lasts / 3, calm);
    std::thread::sleep(calm);
    std::fs::write(soak.portal.file("stop"), "").unwrap();
    assert!(customers.wait().unwrap().success());
    soak.until_settled();
    std::thread::sleep(Duration::from_secs(3));
    soak.descriptors("idle again");
    std::fs::write(soak.portal.file("end"), "").unwrap();
    assert!(shop.wait().unwrap().success());
    soak.portal.stop();
    soak.keep();
    let report = soak.program("check.py", &[]).wait().unwrap();
    assert!(report.success(), "an invariant does not hold, see above");
}

/// Minutes by `PTPORTAL_SOAK_MINUTES`, with 20 customers (`make soak`); without it a short form. `check.py` can be run
/// again on the folder that is kept.
#[test]
fn what_customers_saw_is_what_the_shop_has_through_every_fault() {
    match std::env::var("PTPORTAL_SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok()) {
        Some(minutes) => {
            let minutes: u64 = minutes;
            soak(20, Duration::from_secs(minutes * 60), Duration::from_secs(6), 1.0);
        }
        None => soak(8, Duration::from_secs(48), Duration::from_secs(2), 0.5),
    }
}
