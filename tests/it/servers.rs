//! Several servers on one PostgreSQL and one data folder (spec section 15), and one server with several clamds.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::clamd::{Clamd, GOOD};
use crate::support::clients::NO_QUESTIONS;
use crate::support::instance::{IN, Instance, PASSWORD, Setup, USER};
use crate::support::postgres::Postgres;
use crate::support::{eventually, noise};

fn two(name: &str, setup: Setup) -> (Postgres, Instance, Instance) {
    let postgres = Postgres::start();
    let first = setup.set("database", "url", &format!("\"{}\"", postgres.url())).start(name);
    let second = first.beside(&format!("{name}-2"));
    (postgres, first, second)
}

/// A session that stays until its standard input ends.
struct Held(Child);

impl Held {
    fn open(portal: &Instance) -> Self {
        let mut command = Command::new("sftp");
        command.args(NO_QUESTIONS).arg("-i").arg(portal.file("id"));
        command.args(["-P", &portal.port.to_string(), "-b", "-", &format!("{USER}@127.0.0.1")]);
        command.current_dir(portal.path());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn two_servers_are_one_portal_to_customers_and_operators() {
    let (_postgres, first, second) = two("twoservers", Setup::new());
    first.put("eins.bin", b"over the first").well();
    let seen = second.sftp(&format!("ls {IN}\nget {IN}/eins.bin got.bin\n")).well();
    assert!(seen.out.contains("eins.bin"), "{seen:?}");
    assert_eq!(std::fs::read(second.file("got.bin")).unwrap(), b"over the first");
    second.put("zwei.bin", b"over the second").well();
    for (name, content) in [("eins.bin", "over the first"), ("zwei.bin", "over the second")] {
        assert_eq!(first.until_delivered(name), content.as_bytes());
    }
    // One writer for each name, wherever it is.
    let (a, b) = (Held::open(&first), Held::open(&second));
    eventually("operators see both", || {
        let picture = first.cli(&["watch"]);
        let nodes: Vec<_> =
            picture["sessions"].as_array().unwrap().iter().map(|s| &s["node"]).collect();
        nodes.len() == 2
            && nodes[0] != nodes[1]
            && picture["servers"].as_array().unwrap().len() == 2
    });
    // The account's limit counts over both.
    first.cli(&["account", "set", USER, "max_sessions=2"]);
    for portal in [&first, &second] {
        eventually("a third session is one too many", || {
            portal.sftp("ls\n").err.contains("[too-many-sessions]")
        });
    }
    drop(a);
    eventually("a place is free again, on the other server", || second.sftp("ls\n").ok);
    drop(b);
    // Commands reach both at once.
    first.cli(&["account", "disable", USER]);
    for portal in [&first, &second] {
        eventually("nobody comes in", || portal.sftp("ls\n").err.contains("[account-inactive]"));
    }
    assert_eq!(first.hotfolder_files().len(), 2);
}

#[test]
fn a_guesser_is_banned_by_all_servers_together() {
    let setup = Setup::new().set("limits", "ban_after", "4").without_scanner();
    let (_postgres, first, second) = two("twobans", setup);
    first.set_password(PASSWORD);
    for portal in [&first, &second, &first, &second] {
        portal.sftp_password(USER, "falsch geraten 123", &[], "ls\n").badly();
    }
    for portal in [&first, &second] {
        eventually("both refuse the address", || {
            !portal.sftp_password(USER, PASSWORD, &[], "ls\n").ok
        });
    }
    assert_eq!(first.cli(&["ban", "list"])[0]["address"], "127.0.0.1");
    second.cli(&["ban", "remove", "127.0.0.1"]);
    for portal in [&first, &second] {
        eventually("both let it in", || portal.sftp_password(USER, PASSWORD, &[], "ls\n").ok);
    }
}

#[test]
fn what_a_killed_server_had_accepted_is_done_once_by_the_other_within_half_a_minute() {
    let (_postgres, mut first, second) = two("twokill", Setup::new());
    // A customer in the middle of a file, slowly.
    std::fs::write(first.file("gross.bin"), noise(3_000_000, 7)).unwrap();
    first.cli(&["account", "set", USER, "upload_rate=400000"]);
    let mut slow = Held::open(&first);
    let batch = format!("put gross.bin {IN}/gross.bin\n");
    slow.0.stdin.as_mut().unwrap().write_all(batch.as_bytes()).unwrap();
    // So far that a piece is on the disk.
    eventually("it runs", || {
        let transfers = second.cli(&["watch"])["transfers"].as_array().unwrap().clone();
        let is_far = |t: &Value| t["done"].as_u64().unwrap() > 700_000;
        transfers.iter().any(|t| t["path"].as_str().unwrap().ends_with("gross.bin") && is_far(t))
    });
    // Others finish theirs until the very moment.
    let mut accepted = Vec::new();
    for round in 0..8 {
        let (a, b) = (format!("a{round}.bin"), format!("b{round}.bin"));
        if round == 6 {
            first.kill();
        }
        for (portal, name) in [(&first, a), (&second, b)] {
            if portal.put(&name, name.as_bytes()).ok {
                accepted.push(name);
            }
        }
    }
    let killed = Instant::now();
    second.cli(&["account", "unset", USER, "upload_rate"]);
    assert!(accepted.len() >= 8, "{accepted:?}");
    eventually("the unfinished upload can go on elsewhere", || {
        let rows = second.cli(&["upload", "list", "--state", "incomplete"]);
        rows.as_array().unwrap().iter().any(|row| row["path"] == "Eingehend/gross.bin")
    });
    for name in &accepted {
        assert_eq!(first.until_delivered(name), name.as_bytes());
    }
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
    std::fs::copy(first.file("gross.bin"), second.file("gross.bin")).unwrap();
    let there = second.upload("gross.bin")["size"].as_u64().unwrap();
    assert!(there > 0 && there < 3_000_000, "{there}");
    second.sftp(&format!("reput gross.bin {IN}/gross.bin\n")).well();
    assert_eq!(first.until_delivered("gross.bin"), noise(3_000_000, 7));
    let delivered = first.hotfolder_files();
    assert_eq!(delivered.len(), accepted.len() + 1, "none twice: {delivered:?}");
    let picture = second.cli(&["watch"]);
    assert_eq!(picture["servers"].as_array().unwrap().len(), 1, "{picture:#}");
    assert_eq!(picture["sessions"].as_array().unwrap().len(), 0, "{picture:#}");
}

#[test]
fn several_clamds_share_the_work_and_any_of_them_may_be_away() {
    let dir = crate::support::TempDir::new("clamds");
    let mut settings = GOOD.to_vec();
    settings.push("LogClean yes");
    let mut clamds = ["a", "b"].map(|name| Clamd::start(&dir.path().join(name), &settings));
    let [a, b] = clamds.each_ref().map(|clamd| format!("unix:{}", clamd.socket().display()));
    let mut setup = Setup::new().set("scan", "clamd", &format!("[{a:?}, {b:?}]"));
    setup = setup.clamd(GOOD);
    let portal = setup.start("clamds");
    let count = |event: &str| portal.log().matches(&format!("event=\"{event}\"")).count();
    let ready = |wanted: usize| {
        eventually("the clamds that are there are proven", || count("scanner.ready") >= wanted);
    };
    ready(2);
    // Many files at once: both have some of them.
    std::fs::create_dir(portal.file("many")).unwrap();
    for number in 0..24 {
        std::fs::write(portal.file(&format!("many/{number}.bin")), noise(2_000_000, number))
            .unwrap();
    }
    std::thread::scope(|scope| {
        for part in 0..4 {
            let portal = &portal;
            let lines: String =
                (0..6).map(|n| format!("put many/{0}.bin {IN}/{0}.bin\n", part * 6 + n)).collect();
            scope.spawn(move || portal.sftp(&lines).well());
        }
    });
    let scanned = |name: &str| {
        let log = std::fs::read_to_string(dir.path().join(name).join("clamd/clamd.log")).unwrap();
        log.matches(": OK").count()
    };
    assert!(scanned("a") > 3 && scanned("b") > 3, "{} and {}", scanned("a"), scanned("b"));
    // One after the other goes; nobody waits, and a virus is found by either.
    for gone in [0, 1] {
        clamds[gone].kill();
        let (before, away) = (count("scanner.ready"), count("scanner.away"));
        let name = format!("ohne-{gone}.bin");
        portal.put(&name, name.as_bytes()).well();
        assert_eq!(portal.until_delivered(&name), name.as_bytes());
        let said = portal.put("virus.bin", &crate::support::eicar()).badly();
        assert!(said.err.contains("virus-found"), "{said:?}");
        eventually("that it is away is noticed", || count("scanner.away") > away);
        clamds[gone].run();
        ready(before + 1);
    }
    for clamd in &mut clamds {
        clamd.kill();
    }
    eventually("all are away", || count("scanner.away") >= 4);
    let said = portal.put("wartet.bin", b"waits").well();
    assert!(said.err.contains("scan-pending") || said.out.contains("scan-pending"), "{said:?}");
    clamds[1].run();
    assert_eq!(portal.until_delivered("wartet.bin"), b"waits");
}
